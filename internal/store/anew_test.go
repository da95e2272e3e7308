package store_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/audit"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
)

// replaceKey revokes the key of checkpoints, and starts the server again, which forgets what it saw.
func (x *trail) replaceKey() {
	x.t.Helper()
	x.signer = x.signer.replace(x.t, time.Now())
	x.restart()
}

// rest is the findings that speak against the trail.
func rest(v audit.Verdict) string {
	var all []string
	for _, f := range v.Findings {
		if f.Kind != audit.Unprovable {
			all = append(all, string(f.Kind)+" "+f.Message)
		}
	}
	return strings.Join(all, "\n")
}

// keyID is the kid of a token.
func keyID(t testing.TB, token string) string {
	t.Helper()
	head, _, _ := strings.Cut(token, ".")
	var header struct{ Kid string }
	must(t, json.Unmarshal(got[[]byte](t)(base64.RawURLEncoding.DecodeString(head)), &header))
	return header.Kid
}

func told(v audit.Verdict) bool {
	return len(v.Findings) > 0 && v.Findings[0].Kind == audit.Unprovable && strings.Contains(v.Findings[0].Message, "prove nothing")
}

// Where the key of the checkpoints was revoked, the next one begins a series that covers all that is left, and says
// what it follows. What the old key signed proves nothing, and verifying says so.
func TestG05_H08_ASeriesBeginsBehindARevokedKey(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.write(10)
		x.checkpoint()
		x.restart()
		x.write(5)
		x.exec("UPDATE audit_writers SET moved = 0") // idle for long: the first writer ends
		old := x.checkpoint()
		x.replaceKey()
		for _, token := range []string{"", old.Token} {
			_, err := x.audit.Verify(t.Context(), auditor(), token, "")
			wantCode(t, "verify by the revoked key", err, fault.Invalid)
			if err != nil && !strings.Contains(err.Error(), "revoked") {
				t.Errorf("got %v", err)
			}
		}
		_, err := x.audit.Prune(t.Context(), auditor(), old.ID)
		wantCode(t, "prune by a checkpoint of the revoked key", err, fault.Invalid)
		fresh := x.checkpoint()
		wantEqual(t, "what the series follows", fmt.Sprint(fresh.Number, fresh.Anew.Number, fresh.Anew.Key), fmt.Sprint(old.Number+1, old.Number, keyID(t, old.Token)))
		v := x.verify(fresh.Token)
		if rest(v) != "" || !told(v) || v.Checked != fresh.Records || fresh.Records <= old.Records {
			t.Errorf("verified %d of %d, %d before: %+v", v.Checked, fresh.Records, old.Records, v.Findings)
		}
		x.write(3)
		last := x.checkpoint()
		wantEqual(t, "a second beginning", last.Anew, nil)
		if v = x.verify(last.Token); rest(v) != "" || !told(v) {
			t.Errorf("the checkpoint behind: %+v", v.Findings)
		}
		wantEqual(t, "alarms", strings.Join(x.alarms, ", "), "")
		// What the new series covers is proven, from the first record on.
		x.exec("UPDATE audit SET outcome = 'refused' WHERE sequence = 2")
		wantEqual(t, "an edited record from before the revocation", kinds(x.verify(last.Token)), "UNPROVABLE EDITED")
	})
}

// The floor of pruning counts from the first checkpoint of the new series, and what was pruned before stays the
// beginning.
func TestM15_H08_ARevokedKeyPrunesNothing(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.write(5)
		behind := x.checkpoint()
		x.write(2)
		prune := func(id string) {
			t.Helper()
			for n := int64(1); n > 0; {
				n = got[int64](t)(x.audit.Prune(t.Context(), auditor(), id))
			}
		}
		prune(behind.ID)
		x.checkpoint()
		const keep = 30 * 24 * time.Hour
		now := time.Now().Add(2 * keep)
		x.replaceKey()
		var err error
		x.audit, err = audit.New(audit.Config{Store: x.db, Trail: x.db, Remover: x.db, Signer: x.signer, Guard: x.guard, Now: func() time.Time { return now }, Keep: keep})
		must(t, err)
		fresh := x.checkpoint()
		if v := x.verify(fresh.Token); rest(v) != "" || !told(v) || v.Checked != fresh.Records-behind.Records {
			t.Errorf("verified %d of %d: %+v", v.Checked, fresh.Records-behind.Records, v.Findings)
		}
		now = now.Add(keep - time.Second)
		_, err = x.audit.Prune(t.Context(), auditor(), fresh.ID)
		wantCode(t, "prune before the age of the new checkpoint", err, fault.Denied)
		now = now.Add(2 * time.Second)
		prune(fresh.ID)
		if v := x.verify(x.checkpoint().Token); rest(v) != "" {
			t.Errorf("after pruning: %+v", v.Findings)
		}
	})
}

// Whoever can write to the database and has the revoked key makes nobody forget what the new key signed.
func TestG05_H08_TheRevokedKeyTakesNothingBack(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.write(5)
		writer := x.text("SELECT min(writer) FROM audit")
		first := x.checkpoint()
		thief := x.signer
		x.replaceKey()
		x.write(5)
		kept := x.checkpoint()
		// A checkpoint of the old key, behind the kept one, says that the trail was pruned behind the first.
		claims := map[string]any{
			"v": 1, "sub": string(account), "jti": "f", "iat": 1, "time": 1, "number": kept.Number + 1, "prev": hex.EncodeToString(kept.Hash[:]), "records": 5,
			"base": map[string]any{"number": first.Number, "hash": hex.EncodeToString(first.Hash[:])}, "closed": map[string]any{"count": 0, "records": 0, "hash": ""}, "writers": []any{},
		}
		token := got[string](t)(thief.Sign(t.Context(), audit.Type, claims))
		forged := audit.Checkpoint{Account: account, Number: kept.Number + 1, ID: "f", Time: time.Now(), Hash: audit.HashOf(token), Token: token}
		must(t, x.db.AddCheckpoint(t.Context(), forged, nil))
		x.exec("DELETE FROM audit WHERE sequence = 1 AND writer = $1", writer)
		x.restart()
		for range 2 { // before and after another series begins behind the forged one
			if v := x.verify(kept.Token); !strings.Contains(rest(v), "MISSING") {
				t.Errorf("a removed record: %+v", v.Findings)
			}
			x.checkpoint()
		}
		// A key that is known to nobody begins nothing.
		stranger := newSigner(t)
		last := got[[]audit.Checkpoint](t)(x.db.Checkpoints(t.Context(), account, 0, 1, true))[0]
		claims["number"], claims["jti"] = last.Number+1, "g"
		token = got[string](t)(stranger.Sign(t.Context(), audit.Type, claims))
		must(t, x.db.AddCheckpoint(t.Context(), audit.Checkpoint{Account: account, Number: last.Number + 1, ID: "g", Time: time.Now(), Hash: audit.HashOf(token), Token: token}, nil))
		x.restart()
		if _, err := x.audit.Create(t.Context(), auditor()); err == nil || len(x.alarms) == 0 {
			t.Errorf("behind a forgery: error %v, alarms %v", err, x.alarms)
		}
	})
}

// What was removed between the last checkpoint of the old key and the first of the new one is an alarm.
func TestG05_H08_TheOldSeriesIsCompared(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.write(5)
		x.checkpoint()
		x.guard.Close()
		x.exec("DELETE FROM audit WHERE sequence > 3")
		x.exec("UPDATE audit_writers SET sequence = 0")
		x.replaceKey()
		fresh := x.checkpoint()
		if len(x.alarms) != 1 || !strings.Contains(x.alarms[0], "removed") {
			t.Errorf("got the alarms %q", x.alarms)
		}
		if v := x.verify(fresh.Token); rest(v) != "" {
			t.Errorf("the new series: %+v", v.Findings)
		}
	})
}

// What was exported across a revocation verifies offline: of the old checkpoints it takes what fits the signed hashes.
func TestG05_H08_ExportsAcrossARevocation(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.write(5)
		x.restart()
		x.exec("UPDATE audit_writers SET moved = 0")
		x.checkpoint() // in which the first writer ends
		x.replaceKey()
		x.write(2)
		last := x.checkpoint()
		var lines []string
		line := func(l audit.Line) { lines = append(lines, string(got[[]byte](t)(json.Marshal(l)))) }
		for _, c := range got[[]audit.Checkpoint](t)(x.db.Checkpoints(t.Context(), account, 0, 100, false)) {
			line(audit.Line{Type: "checkpoint", Checkpoint: c.Token})
		}
		records, _, err := x.db.Records(t.Context(), account, access.Query{Limit: 100})
		must(t, err)
		for _, r := range records {
			row := audit.RowOf(r)
			line(audit.Line{Type: "record", Record: &row})
		}
		keys := got[[]byte](t)(x.signer.Keys(t.Context()))
		verify := func(text string) (audit.Verdict, error) {
			s := got[*audit.Segments](t)(audit.NewSegments(last.Token, keys))
			if err := s.Scan(strings.NewReader(text)); err != nil {
				return audit.Verdict{}, err
			}
			must(t, s.Begin())
			must(t, s.Records(strings.NewReader(text), func(int64) {}))
			return s.End(), nil
		}
		text := strings.Join(lines, "\n")
		v, err := verify(text)
		must(t, err)
		if rest(v) != "" || !told(v) || v.Checked != last.Records {
			t.Errorf("verified %d of %d: %+v", v.Checked, last.Records, v.Findings)
		}
		stranger := got[string](t)(newSigner(t).Sign(t.Context(), audit.Type, map[string]any{"v": 1, "sub": string(account), "number": last.Number + 1}))
		if _, err := verify(text + "\n" + string(got[[]byte](t)(json.Marshal(audit.Line{Type: "checkpoint", Checkpoint: stranger})))); err == nil {
			t.Error("a checkpoint of an unknown key behind the beginning of the series is taken")
		}
	})
}
