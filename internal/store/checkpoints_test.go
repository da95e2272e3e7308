package store_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/audit"
	"github.com/tabard-id/tabard/internal/audit/audittest"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
)

// signer signs with a key of its own.
type signer struct {
	key     audittest.Key
	revoked map[string]time.Time
}

func newSigner(t testing.TB) signer {
	t.Helper()
	key, err := audittest.NewKey()
	must(t, err)
	return signer{key: key}
}

// replace is the signer after its key was revoked.
func (s signer) replace(t testing.TB, at time.Time) signer {
	t.Helper()
	next := newSigner(t)
	next.revoked = map[string]time.Time{s.key.ID(): at}
	maps.Copy(next.revoked, s.revoked)
	return next
}

func (s signer) Revoked(context.Context) (map[string]time.Time, error) { return s.revoked, nil }

func (s signer) Sign(_ context.Context, typ string, claims map[string]any) (string, error) {
	return s.key.Sign(typ, claims)
}

func (s signer) Keys(context.Context) ([]byte, error) {
	return []byte(`{"keys":[` + s.key.Public() + `]}`), nil
}

// trail is a Guard over a store, and the service that proves what it writes.
type trail struct {
	t      testing.TB
	db     *store.DB
	guard  *access.Guard
	audit  *audit.Service
	signer signer
	alarms []string
}

func newTrail(t testing.TB, db *store.DB) *trail {
	t.Helper()
	x := &trail{t: t, db: db, signer: newSigner(t)}
	x.restart()
	t.Cleanup(func() { x.guard.Close() })
	return x
}

// restart ends the Guard and begins another, as a server that starts again.
func (x *trail) restart() {
	x.t.Helper()
	if x.guard != nil {
		x.guard.Close()
	}
	x.guard = access.NewGuard(access.Config{Log: x.db, Now: time.Now, Decider: access.Table{}})
	var err error
	x.audit, err = audit.New(audit.Config{Store: x.db, Trail: x.db, Remover: x.db, Signer: x.signer, Guard: x.guard, Now: time.Now,
		Alarm: func(_ access.Account, what string) { x.alarms = append(x.alarms, what) }})
	must(x.t, err)
}

func auditor() access.Caller {
	return access.Caller{Account: account, Principal: "p", Name: "root", Roles: []access.Role{access.Root}}
}

// write writes n records.
func (x *trail) write(n int) {
	x.t.Helper()
	for i := range n {
		f := access.Facts{Workload: "calendar", Provider: "google", UserRef: fmt.Sprint("ref", i%3), Scopes: []string{"a"}, Outcome: "released"}
		must(x.t, x.guard.Event(x.t.Context(), auditor(), access.GetResourceOauth2Token, f).Wait(x.t.Context()))
	}
}

func (x *trail) checkpoint() audit.Checkpoint {
	x.t.Helper()
	return got[audit.Checkpoint](x.t)(x.audit.Create(x.t.Context(), auditor()))
}

// verify verifies to the end.
func (x *trail) verify(token string) (v audit.Verdict) {
	x.t.Helper()
	for more := ""; ; {
		part := got[audit.Verdict](x.t)(x.audit.Verify(x.t.Context(), auditor(), token, more))
		v.Checked, v.Unprovable, v.Findings = v.Checked+part.Checked, v.Unprovable+part.Unprovable, append(v.Findings, part.Findings...)
		if more = part.More; more == "" {
			return v
		}
	}
}

func (x *trail) exec(query string, args ...any) {
	x.t.Helper()
	must(x.t, x.db.TestOnlyWrite(context.Background(), func(ctx context.Context, s store.Statements) error { return s.Exec(ctx, query, args...) }))
}

func (x *trail) text(query string) (text string) {
	x.t.Helper()
	must(x.t, x.db.TestOnlyWrite(context.Background(), func(ctx context.Context, s store.Statements) (err error) {
		text, err = s.Text(ctx, query)
		return err
	}))
	return text
}

func kinds(v audit.Verdict) string {
	var all []string
	for _, f := range v.Findings {
		if !slices.Contains(all, string(f.Kind)) {
			all = append(all, string(f.Kind))
		}
	}
	return strings.Join(all, " ")
}

func TestCheckpointsCoverEveryWriter(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.write(5)
		first := x.checkpoint()
		wantEqual(t, "records of the first", fmt.Sprint(first.Number, first.Records, first.Writers), "1 6 1")
		x.restart()
		x.write(4)
		second := x.checkpoint()
		wantEqual(t, "records of the second", fmt.Sprint(second.Number, second.Records, second.Writers), "2 11 2")
		claims := got[audit.Claims](t)(audit.Open(second.Token, got[[]byte](t)(x.signer.Keys(t.Context()))))
		sum := sha256.Sum256([]byte(first.Token))
		wantEqual(t, "the link", claims.Previous, fmt.Sprintf("%x", sum))
		records, _, err := db.Records(t.Context(), account, access.Query{Limit: 100})
		must(t, err)
		wantEqual(t, "what the second writer's first record links to", records[6].Prev, sum)
		v := x.verify(second.Token)
		wantEqual(t, "verdict", fmt.Sprint(v.Checked, v.Sound(), v.Unprovable, kinds(v)), "11 true 1") // verifying is a record itself
		v = x.verify(first.Token)
		wantEqual(t, "of the first", fmt.Sprint(v.Checked, v.Sound(), v.Unprovable), "6 true 7")
		wantEqual(t, "alarms", len(x.alarms), 0)
	})
}

// Only what moved makes a checkpoint, and one replica makes it.
func TestCheckpointsAreMadeByOne(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		must(t, x.audit.Tick(t.Context()))
		list := got[[]audit.Checkpoint](t)(db.Checkpoints(t.Context(), account, 0, 10, false))
		wantEqual(t, "checkpoints of nothing", len(list), 0)
		x.write(1)
		must(t, x.audit.Tick(t.Context()))
		must(t, x.audit.Tick(t.Context()))
		list = got[[]audit.Checkpoint](t)(db.Checkpoints(t.Context(), account, 0, 10, false))
		wantEqual(t, "checkpoints", len(list), 1)
		x.restart() // another replica
		x.write(1)
		must(t, x.audit.Tick(t.Context()))
		list = got[[]audit.Checkpoint](t)(db.Checkpoints(t.Context(), account, 0, 10, false))
		wantEqual(t, "checkpoints while another has the lease", len(list), 1)
		must(t, x.audit.All(t.Context()))
		list = got[[]audit.Checkpoint](t)(db.Checkpoints(t.Context(), account, 0, 10, false))
		wantEqual(t, "checkpoints at the end of a server", len(list), 2)
	})
}

// tampering is one way of changing the trail behind the server's back.
type tampering struct {
	name string
	do   func(x *trail)
	want string // kinds of findings, in the order of their first
}

func tamperings() []tampering {
	return []tampering{
		{"an edited row", func(x *trail) { x.exec("UPDATE audit SET user_ref = 'somebody' WHERE sequence = 4") }, "EDITED"},
		{"an edited decision", func(x *trail) { x.exec("UPDATE audit SET allow = 0 WHERE sequence = 4") }, "EDITED"},
		{"the last row edited", func(x *trail) {
			x.exec("UPDATE audit SET detail = 'x' WHERE sequence = 11 AND writer = " + firstWriter)
		}, "EDITED"},
		{"a removed row", func(x *trail) { x.exec("DELETE FROM audit WHERE sequence = 5 AND writer = " + firstWriter) }, "MISSING"},
		{"the first row removed", func(x *trail) { x.exec("DELETE FROM audit WHERE sequence = 1 AND writer = " + firstWriter) }, "MISSING"},
		{"the last rows removed", func(x *trail) { x.exec("DELETE FROM audit WHERE sequence > 8 AND writer = " + firstWriter) }, "MISSING"},
		{"all rows removed", func(x *trail) { x.exec("DELETE FROM audit") }, "MISSING"},
		{"two rows exchanged", func(x *trail) {
			x.exec("UPDATE audit SET sequence = -4 WHERE sequence = 4 AND writer = " + firstWriter)
			x.exec("UPDATE audit SET sequence = 4 WHERE sequence = 6 AND writer = " + firstWriter)
			x.exec("UPDATE audit SET sequence = 6 WHERE sequence = -4")
		}, "REORDERED"},
		{"a row moved in the order of commits", func(x *trail) {
			x.exec("UPDATE audit SET tx = (SELECT max(tx) + 100 FROM audit) WHERE sequence = 4 AND writer = " + firstWriter)
		}, "REORDERED"},
		{"a row given to another account", func(x *trail) {
			x.exec("UPDATE audit SET account = '1' WHERE sequence = 4 AND writer = " + firstWriter)
		}, "MISSING"},
		{"a writer removed with its rows", func(x *trail) {
			x.exec("DELETE FROM audit WHERE writer = " + firstWriter)
			x.exec("DELETE FROM audit_writers WHERE writer NOT IN (SELECT writer FROM audit)")
		}, "MISSING"},
		{"a checkpoint removed", func(x *trail) { x.exec("DELETE FROM audit_checkpoints WHERE number = 1") }, "CHECKPOINT"},
		{"a checkpoint changed", func(x *trail) { x.exec("UPDATE audit_checkpoints SET token = 'a.b.c' WHERE number = 1") }, "CHECKPOINT"},
		{"a row put in", func(x *trail) {
			forged := (&chain{writer: "forged"}).record(account, "calendar")
			must(x.t, x.db.Append(x.t.Context(), []access.Record{forged}))
		}, "EDITED"},
		{"everything written anew", func(x *trail) { x.rewrite() }, "EDITED"},
	}
}

const firstWriter = "(SELECT writer FROM audit_writers ORDER BY begun LIMIT 1)"

// rewrite changes a record, and makes every hash after it right again.
func (x *trail) rewrite() {
	writer := x.text("SELECT writer FROM audit_writers ORDER BY begun LIMIT 1")
	list := got[[]audit.Entry](x.t)(x.db.WriterRecords(x.t.Context(), account, writer, 0, 100))
	head := list[0].Record.Prev
	for _, e := range list {
		r := e.Record
		if r.Sequence == 4 {
			r.Facts.UserRef = "somebody"
		}
		r.Seal(head)
		head = r.Hash
		x.exec("UPDATE audit SET user_ref = $1, prev = $2, hash = $3 WHERE writer = $4 AND sequence = $5", r.Facts.UserRef, r.Prev[:], r.Hash[:], writer, r.Sequence)
	}
}

// Each way of changing what lies before a checkpoint is found, also by a server that is started afterwards.
func TestG05_D04_TamperingIsFound(t *testing.T) {
	for _, tamper := range tamperings() {
		t.Run(tamper.name, func(t *testing.T) {
			engines(t, func(t *testing.T, open opener) {
				if tamper.name != "an edited row" && tamper.name != "a removed row" && tamper.name != "two rows exchanged" && strings.HasSuffix(t.Name(), "postgres") {
					return // a database each: three are enough
				}
				x := newTrail(t, open(t))
				x.write(10)
				x.checkpoint()
				x.restart()
				x.write(3)
				kept := x.checkpoint().Token
				if v := x.verify(kept); !v.Sound() {
					t.Fatalf("before: %+v", v.Findings)
				}
				tamper.do(x)
				for _, when := range []string{"at once", "after a restart"} {
					if v := x.verify(kept); v.Sound() || kinds(v) != tamper.want {
						t.Errorf("%s: got %v, want %s", when, v.Findings, tamper.want)
					}
					x.restart()
					x.write(1)
					must(t, x.audit.All(t.Context()))
				}
			})
		})
	}
}

// A writer that ended is no longer in the checkpoints' lists, only in their running hash over those that ended: its
// rows are as safe as the others'.
func TestG05_D04_EndedWritersAreHeld(t *testing.T) {
	const first, second = "(SELECT writer FROM audit_writers WHERE closed = 1)", "(SELECT writer FROM audit_writers WHERE closed = 2)"
	shorten := func(x *trail) { // an ended writer that has always had less, by its row and its records
		x.exec("DELETE FROM audit WHERE sequence > 2 AND writer = " + first)
		x.exec("UPDATE audit_writers SET sequence = 2, hash = (SELECT hash FROM audit WHERE sequence = 2 AND writer = " + first + ") WHERE closed = 1")
	}
	for name, c := range map[string]struct {
		do   func(x *trail)
		want string // in a finding
	}{
		"one shortened": {shorten, "the list of the writers that ended was changed"},
		"the first removed": {func(x *trail) {
			x.exec("DELETE FROM audit WHERE writer = " + first)
			x.exec("DELETE FROM audit_writers WHERE closed = 1")
		}, "writers that ended were removed from the database: numbers 1 to 1"},
		"the last removed": {func(x *trail) {
			x.exec("DELETE FROM audit WHERE writer = " + second)
			x.exec("DELETE FROM audit_writers WHERE closed = 2")
		}, "1 writers that ended were removed from the database"},
		"all removed": {func(x *trail) {
			x.exec("DELETE FROM audit WHERE writer IN (SELECT writer FROM audit_writers WHERE closed > 0)")
			x.exec("DELETE FROM audit_writers WHERE closed > 0")
		}, "2 writers that ended were removed from the database"},
		"a record of one removed": {func(x *trail) { x.exec("DELETE FROM audit WHERE sequence = 2 AND writer = " + second) }, "was removed"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *store.DB) {
				x := newTrail(t, db)
				for range 2 {
					x.write(5)
					x.checkpoint()
					x.restart()
				}
				x.write(1)
				x.exec("UPDATE audit_writers SET moved = 0 WHERE sequence > 1") // idle for long
				x.checkpoint()
				x.write(1)
				kept := x.checkpoint().Token
				if n := x.text("SELECT CAST(COUNT(*) AS TEXT) FROM audit_writers WHERE closed > 0"); n != "2" {
					t.Fatalf("%s writers ended, want 2", n)
				}
				if v := x.verify(kept); !v.Sound() {
					t.Fatalf("before: %+v", v.Findings)
				}
				c.do(x)
				v := x.verify(kept)
				if v.Sound() || !slices.ContainsFunc(v.Findings, func(f audit.Finding) bool { return strings.Contains(f.Message, c.want) }) {
					t.Errorf("got %+v, want %q", v.Findings, c.want)
				}
			})
		})
	}
}

// Whoever removes records while nobody looks is not helped by the next checkpoint: it never goes back.
func TestG05_ACheckpointNeverGoesBack(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.write(10)
		x.checkpoint()
		x.exec("DELETE FROM audit WHERE sequence > 5")
		x.exec("UPDATE audit_writers SET sequence = 5, hash = (SELECT hash FROM audit WHERE sequence = 5)")
		x.restart()
		x.write(2)
		next := x.checkpoint()
		v := x.verify(next.Token)
		wantEqual(t, "kinds", kinds(v), "MISSING")
		if len(x.alarms) == 0 {
			t.Error("nobody was told")
		}
		x.exec("DELETE FROM audit_checkpoints")
		x.alarms = nil
		x.write(1)
		x.checkpoint()
		if len(x.alarms) == 0 {
			t.Error("nobody was told that the checkpoints are gone")
		}
	})
}

func TestPruneKeepsTheChainVerifiable(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.write(10)
		x.restart()
		x.write(5)
		x.exec("UPDATE audit_writers SET moved = 0") // idle for long
		behind := x.checkpoint()
		x.exec("UPDATE audit_writers SET moved = 0 WHERE over = 0 AND sequence = 10")
		x.write(5)
		later := x.checkpoint()
		removed := int64(0)
		for {
			n := got[int64](t)(x.audit.Prune(t.Context(), auditor(), behind.ID))
			if removed += n; n == 0 {
				break
			}
		}
		wantEqual(t, "removed", removed, behind.Records)
		v := x.verify(later.Token)
		wantEqual(t, "verdict of the later checkpoint", fmt.Sprint(v.Checked, v.Sound(), v.Findings), fmt.Sprint(later.Records-behind.Records, true, []audit.Finding(nil)))
		_, err := x.audit.Verify(t.Context(), auditor(), behind.Token, "")
		must(t, err) // covers nothing that is left
		x.write(3)
		last := x.checkpoint()
		v = x.verify(last.Token)
		wantEqual(t, "verdict of the last checkpoint", fmt.Sprint(v.Sound(), v.Findings), fmt.Sprint(true, []audit.Finding(nil)))
		x.exec("DELETE FROM audit WHERE sequence = (SELECT min(sequence) + 1 FROM audit)")
		wantEqual(t, "after a removal that was no pruning", kinds(x.verify(last.Token)), "MISSING")
		_, err = x.audit.Prune(t.Context(), auditor(), "nothing")
		wantCode(t, "prune behind no checkpoint", err, fault.NotFound)
	})
}

// M15: who releases something, makes a checkpoint and prunes at once removes nothing. Pruning is root's; what is
// younger than the installation's floor stays for everybody; and nothing is removed before the trail, with the record
// of the pruning, is where it is carried to.
func TestM15_PruneWaitsForAgeAndSinks(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		const keep = 30 * 24 * time.Hour
		now, has, unknown := time.Now(), int64(0), error(nil)
		var err error
		x.audit, err = audit.New(audit.Config{Store: x.db, Trail: x.db, Remover: x.db, Signer: x.signer, Guard: x.guard, Now: func() time.Time { return now },
			Keep: keep, Carried: func(_ context.Context, _ access.Account, n int64) (bool, error) { return has >= n, unknown }})
		must(t, err)
		x.write(3)
		behind := x.checkpoint()
		count := func() string {
			return x.text("SELECT CAST(count(*) AS TEXT) FROM audit WHERE action = 'GetResourceOauth2Token'")
		}
		refused := func(what string, by access.Caller, code fault.Code) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			n, err := x.audit.Prune(ctx, by, behind.ID)
			if n != 0 || count() != "3" {
				t.Errorf("%s: removed %d, and %s are left", what, n, count())
			}
			if code == "" {
				if err == nil {
					t.Errorf("%s: no error", what)
				}
				return
			}
			wantCode(t, what, err, code)
		}
		has = behind.Number
		refused("at once", auditor(), fault.Denied)
		wantEqual(t, "the rule of the refusal", x.text("SELECT rule FROM audit WHERE action = 'PruneAudit' ORDER BY sequence DESC LIMIT 1"), "audit-keep")
		now = time.UnixMilli(behind.Time.UnixMilli()).Add(keep - time.Millisecond)
		refused("a moment too early", auditor(), fault.Denied)
		now = now.Add(time.Millisecond)
		admin := access.Caller{Account: account, Principal: "a", Name: "admin", Roles: []access.Role{access.Admin}}
		refused("an administrator", admin, fault.Denied)
		has = behind.Number - 1
		refused("a sink that lags", auditor(), fault.Unavailable)
		has, unknown = behind.Number, fault.New(fault.Denied, "no sink confirms")
		refused("sinks that confirm nothing", auditor(), fault.Denied)
		unknown = nil
		refused("a sink without the record of the pruning", auditor(), "")
		recorded := x.checkpoint() // it covers the records of every attempt
		has = recorded.Number
		n, err := x.audit.Prune(t.Context(), auditor(), behind.ID)
		must(t, err)
		if n != behind.Records || count() != "0" {
			t.Errorf("removed %d, want %d; %s are left", n, behind.Records, count())
		}
		v := x.verify(recorded.Token)
		wantEqual(t, "verdict", fmt.Sprint(v.Sound(), v.Findings), fmt.Sprint(true, []audit.Finding(nil)))
	})
}

// Erasing a user takes the row that says who it was. The trail has the reference only, and stays whole.
func TestErasingAUserKeepsTheChain(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		x := newTrail(t, db)
		x.exec("INSERT INTO users (account, ref, sealed, created) VALUES ($1, 'ref1', $2, 0)", string(account), []byte("sealed"))
		x.write(9)
		kept := x.checkpoint().Token
		x.exec("DELETE FROM users WHERE ref = 'ref1'")
		v := x.verify(kept)
		wantEqual(t, "verdict", fmt.Sprint(v.Checked, v.Sound()), "10 true")
	})
}

func TestAuditSelects(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		var all []access.Record
		for w := range 3 {
			c := &chain{writer: fmt.Sprint("w", w)}
			for i := range 20 {
				r := c.record(account, "agent")
				r.Time = at.Add(time.Duration(w*20+i) * time.Hour)
				r.Facts.UserRef, r.Facts.Provider, r.Name = fmt.Sprint("ref", i%4), fmt.Sprint("p", i%2), fmt.Sprint("bot", w)
				r.Allow = i%5 != 0
				r.Seal(r.Prev)
				must(t, db.Append(ctx, []access.Record{r}))
				all = append(all, r)
			}
		}
		end := at.Add(1000 * time.Hour)
		for name, c := range map[string]struct {
			q    access.Query
			keep func(access.Record) bool
		}{
			"user":      {access.Query{UserRef: "ref2", To: end}, func(r access.Record) bool { return r.Facts.UserRef == "ref2" }},
			"denied":    {access.Query{Denied: true, To: end}, func(r access.Record) bool { return !r.Allow }},
			"principal": {access.Query{Principal: "bot1", Provider: "p1", To: end}, func(r access.Record) bool { return r.Name == "bot1" && r.Facts.Provider == "p1" }},
			"time": {access.Query{From: at.Add(10 * time.Hour), To: at.Add(30 * time.Hour)}, func(r access.Record) bool {
				return !r.Time.Before(at.Add(10*time.Hour)) && r.Time.Before(at.Add(30*time.Hour))
			}},
			"operation": {access.Query{Action: "x", To: end}, func(access.Record) bool { return false }},
			"workload":  {access.Query{Workload: "agent", Outcome: "released", To: end}, func(access.Record) bool { return true }},
			"all":       {access.Query{To: end}, func(access.Record) bool { return true }},
		} {
			want := slices.DeleteFunc(slices.Clone(all), func(r access.Record) bool { return !c.keep(r) })
			var have []access.Record
			c.q.Limit = 7
			for pages := 0; ; pages++ {
				records, cursor, err := db.Records(ctx, account, c.q)
				must(t, err)
				have = append(have, records...)
				if cursor == "" {
					break
				}
				if c.q.After = cursor; pages > 20 {
					t.Fatalf("%s: reading does not end", name)
				}
			}
			if len(have) != len(want) || len(want) > 0 && have[0].ID() != want[0].ID() {
				t.Errorf("%s: got %d records, want %d", name, len(have), len(want))
			}
		}
		newest, _, err := db.Records(ctx, account, access.Query{UserRef: "ref2", Newest: true, Limit: 2})
		must(t, err)
		wantEqual(t, "the newest of a user", fmt.Sprint(newest[0].Sequence, newest[1].Sequence), "15 19")
		other, cursor, err := db.Records(ctx, other, access.Query{UserRef: "ref2", Limit: 2})
		must(t, err)
		wantEqual(t, "of another account", fmt.Sprint(len(other), cursor), "0")
	})
}
