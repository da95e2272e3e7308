package signing_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
	"github.com/tabard-id/tabard/internal/vault"
)

// database is what each test gets a copy of.
var database storetest.Template

const issuer = "https://tabard.example.com"

// begin is the beginning of a period.
var begin = time.Unix(0, 0).Add(690 * signing.Period).UTC()

type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time     { return begin.Add(time.Duration(c.ahead.Load())) }
func (c *clock) at(d time.Duration) { c.ahead.Store(int64(d)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

func wantCode(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// keyService can be disabled, as a key in a key management service can.
type keyService struct {
	vault.Wrapper
	disabled atomic.Bool
}

func (k *keyService) Unwrap(ctx context.Context, about, wrapped []byte) ([]byte, error) {
	if k.disabled.Load() {
		return nil, fault.New(fault.Denied, "disabled")
	}
	return k.Wrapper.Unwrap(ctx, about, wrapped)
}

// world is one database with as many replicas as a test wants.
type world struct {
	t     *testing.T
	db    *store.DB
	keys  *keyService
	clock *clock
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{}}
	dir := t.TempDir()
	var err error
	w.db, err = store.Open(t.Context(), store.Config{SQLitePath: database.In(t, dir)})
	must(t, err)
	t.Cleanup(func() { must(t, w.db.Close()) })
	file := filepath.Join(t.TempDir(), "key")
	must(t, kms.CreateFile(file))
	wrapper, err := kms.OpenFile(file)
	must(t, err)
	w.keys = &keyService{Wrapper: wrapper}
	return w
}

func (w *world) vault() *vault.Vault {
	w.t.Helper()
	v, err := vault.New(vault.Config{Store: w.db, Wrapper: w.keys, Region: "us-east-1", Now: w.clock.now})
	must(w.t, err)
	w.t.Cleanup(v.Close)
	return v
}

func (w *world) replica() *signing.Service {
	w.t.Helper()
	s, err := signing.New(signing.Config{Store: w.db, Vault: w.vault(), Issuer: issuer, Now: w.clock.now})
	must(w.t, err)
	return s
}

func (w *world) claims() map[string]any {
	now := w.clock.now().Unix()
	return map[string]any{"sub": "s", "aud": "https://as.example", "iat": now, "nbf": now, "exp": now + 300}
}

func (w *world) sign(s *signing.Service) secret.Text {
	w.t.Helper()
	token, err := s.Sign(w.t.Context(), signing.Assertions, "JWT", w.claims())
	must(w.t, err)
	return token
}

// kids are the ids in the published set.
func (w *world) kids(s *signing.Service) []string {
	w.t.Helper()
	doc, err := s.Keys(w.t.Context(), signing.Assertions)
	must(w.t, err)
	var set struct{ Keys []map[string]any }
	must(w.t, json.Unmarshal(doc, &set))
	var ids []string
	for _, k := range set.Keys {
		if k["alg"] != "ES256" || k["use"] != "sig" || k["d"] != nil {
			w.t.Errorf("a published key has alg %v, use %v, private half %t", k["alg"], k["use"], k["d"] != nil)
		}
		ids = append(ids, k["kid"].(string))
	}
	return ids
}

func signer(t testing.TB, token secret.Text) string {
	t.Helper()
	parsed, err := jws.Parse("the token", token)
	must(t, err)
	return parsed.KeyID()
}

// A key signs for its 30 days. It is published from a week before to 30 days after.
func TestRotation(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	w.clock.at(24 * time.Hour)
	first := signer(t, w.sign(s))
	if got := w.kids(s); !slices.Equal(got, []string{first}) {
		t.Errorf("got the keys %v, want %s alone", got, first)
	}
	w.clock.at(signing.Period - signing.Ahead - time.Second)
	if got := w.kids(s); len(got) != 1 {
		t.Errorf("a second before its week the next key is published: %v", got)
	}
	w.clock.at(signing.Period - signing.Ahead)
	early := w.kids(s)
	if len(early) != 2 || early[0] != first {
		t.Fatalf("a week ahead: got the keys %v, want %s and the next", early, first)
	}
	w.clock.at(signing.Period - time.Second)
	last := w.sign(s)
	if got := signer(t, last); got != first {
		t.Errorf("in the last second of its period %s does not sign, but %s", first, got)
	}
	w.clock.at(signing.Period)
	second := signer(t, w.sign(s))
	if second != early[1] {
		t.Errorf("the next period is signed by %s, and %s was published for it", second, early[1])
	}
	if _, err := s.Verify(t.Context(), signing.Assertions, "JWT", last); err != nil {
		t.Errorf("what was signed before the rotation: %v", err)
	}
	if got := w.kids(s); !slices.Equal(got, []string{first, second}) {
		t.Errorf("got the keys %v, want the last period's and this one's", got)
	}
	w.clock.at(2*signing.Period - time.Second)
	if got := w.kids(s); len(got) != 3 || got[0] != first {
		t.Errorf("at the end of the second period: got the keys %v, want three", got)
	}
	w.clock.at(2 * signing.Period)
	if got := w.kids(s); slices.Contains(got, first) || len(got) != 2 {
		t.Errorf("after the second period: got the keys %v, without %s", got, first)
	}
	w.clock.at(10 * signing.Period) // nobody asked for anything for eight periods
	if got := w.kids(s); len(got) != 1 || got[0] == second {
		t.Errorf("after a long rest: got the keys %v", got)
	}
}

// Prepare publishes the next key where nobody asks for anything in the week.
func TestPrepareMakesTheNextKey(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	account := signing.AccountTokens("111111111111")
	w.clock.at(signing.Ahead)
	_, err := s.Sign(t.Context(), account, "JWT", w.claims())
	must(t, err)
	w.clock.at(signing.Period - signing.Ahead/2)
	must(t, s.Prepare(t.Context()))
	w.clock.at(signing.Period)
	if rows, err := w.db.SigningKeys(t.Context(), account, 0); err != nil || len(rows) != 2 {
		t.Errorf("got %d keys of the account, %v", len(rows), err)
	}
	rows, err := w.db.SigningKeys(t.Context(), signing.Assertions, 0)
	must(t, err)
	if len(rows) != 2 || rows[1].Period != rows[0].Period+1 || signer(t, w.sign(s)) != rows[1].ID {
		t.Errorf("got %d keys before the period began", len(rows))
	}
}

// Replicas that need a key at the same time make one.
func TestReplicasMakeOneKey(t *testing.T) {
	w := newWorld(t)
	w.clock.at(signing.Period - time.Hour)
	var replicas []*signing.Service
	for range 8 {
		replicas = append(replicas, w.replica())
	}
	tokens := make([]secret.Text, len(replicas))
	var group sync.WaitGroup
	for i, s := range replicas {
		group.Go(func() {
			var err error
			if tokens[i], err = s.Sign(t.Context(), signing.Assertions, "JWT", w.claims()); err != nil {
				t.Errorf("Sign: %v", err)
			}
		})
	}
	group.Wait()
	for _, s := range replicas {
		if got := w.kids(s); len(got) != 2 {
			t.Errorf("got the keys %v, want this period's and the next", got)
		}
		for _, token := range tokens {
			claims, err := s.Verify(t.Context(), signing.Assertions, "JWT", token)
			must(t, err)
			if sub, _ := claims.String("sub"); sub != "s" {
				t.Errorf("got the subject %q", sub)
			}
		}
	}
	rows, err := w.db.SigningKeys(t.Context(), signing.Assertions, 0)
	must(t, err)
	if len(rows) != 2 {
		t.Errorf("got %d keys, want 2", len(rows))
	}
}

func TestVerifyIsStrict(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	good := w.sign(s)
	if _, err := s.Verify(t.Context(), signing.Assertions, "jwt", good); err != nil {
		t.Fatal(err)
	}
	verify := func(what string, p signing.Purpose, typ string, token secret.Text) {
		t.Helper()
		_, err := s.Verify(t.Context(), p, typ, token)
		wantCode(t, what, err, fault.Unauthenticated)
	}
	verify("another type", signing.Assertions, "at+jwt", good)
	verify("another purpose", "audit", "JWT", good)
	verify("nothing", signing.Assertions, "JWT", secret.Text{})
	text := good.Expose()
	verify("a changed signature", signing.Assertions, "JWT", secret.New(text[:len(text)-6]+"AAAAAA"))

	foreign, err := jws.NewKey("ES256")
	must(t, err)
	forged, err := foreign.Sign(nil, map[string]any{"iss": issuer, "exp": w.clock.now().Unix() + 60})
	must(t, err)
	verify("another key", signing.Assertions, "JWT", forged)
	forged, err = foreign.Sign(map[string]secret.Text{"kid": secret.New(signer(t, good))}, map[string]any{"iss": issuer, "exp": w.clock.now().Unix() + 60})
	must(t, err)
	verify("another key under our id", signing.Assertions, "JWT", forged)

	elsewhere, err := signing.New(signing.Config{Store: w.db, Vault: w.vault(), Issuer: "https://staging.example.com", Now: w.clock.now})
	must(t, err)
	verify("the same keys under another public URL", signing.Assertions, "JWT", w.sign(elsewhere))

	early := w.claims()
	early["nbf"] = w.clock.now().Unix() + 90
	token, err := s.Sign(t.Context(), signing.Assertions, "JWT", early)
	must(t, err)
	verify("not yet", signing.Assertions, "JWT", token)
	w.clock.at(5 * time.Minute)
	verify("expired", signing.Assertions, "JWT", good)
}

func TestSignRefuses(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	for what, change := range map[string]func(map[string]any){
		"an issuer":      func(c map[string]any) { c["iss"] = "https://other.example" },
		"no expiry":      func(c map[string]any) { delete(c, "exp") },
		"an old expiry":  func(c map[string]any) { c["exp"] = w.clock.now().Unix() },
		"a late expiry":  func(c map[string]any) { c["exp"] = w.clock.now().Add(signing.MaxLife + time.Second).Unix() },
		"a text as time": func(c map[string]any) { c["exp"] = "never" },
	} {
		claims := w.claims()
		change(claims)
		_, err := s.Sign(t.Context(), signing.Assertions, "JWT", claims)
		wantCode(t, what, err, fault.Internal)
	}
	if _, err := signing.New(signing.Config{}); err == nil {
		t.Error("an empty Config was taken")
	}
}

// Whoever can write to the database publishes no key of theirs, and moves none to another purpose or period.
func TestRowsAreNotBelieved(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	w.sign(s)
	rows, err := w.db.SigningKeys(t.Context(), signing.Assertions, 0)
	must(t, err)
	theirs, err := jws.NewKey("ES256")
	must(t, err)
	public, err := theirs.Public()
	must(t, err)

	clear := rows[0]
	clear.Purpose, clear.ID, clear.Public = "tokens2", clear.ID+"2", public
	must(t, w.db.AddSigningKey(t.Context(), clear))
	_, err = w.replica().Keys(t.Context(), "tokens2")
	wantCode(t, "a key that was moved to another purpose", err, fault.Internal)

	planted := signing.Row{Purpose: "tokens3", Period: rows[0].Period, ID: theirs.ID(), Public: public, Sealed: vault.Sealed("x"), Created: begin}
	must(t, w.db.AddSigningKey(t.Context(), planted))
	_, err = w.replica().Keys(t.Context(), "tokens3")
	wantCode(t, "a planted key", err, fault.Internal)
	if err != nil && strings.Contains(fault.Public(err).Msg, public) {
		t.Error("the sentence has the key")
	}
}

// The key service ends signing within the life of the vault's keys, and not that of a cache of ours after it.
func TestSigningEndsWithTheKey(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	w.sign(s)
	w.keys.disabled.Store(true)
	w.clock.at(vault.KeyLife - time.Second)
	w.sign(s)
	w.clock.at(vault.KeyLife)
	_, err := s.Sign(t.Context(), signing.Assertions, "JWT", w.claims())
	wantCode(t, "after the key was disabled", err, fault.Denied)
	w.clock.at(vault.KeyLife + 5*time.Second) // the public halves may be seconds old
	_, err = s.Keys(t.Context(), signing.Assertions)
	wantCode(t, "the published keys", err, fault.Denied)
	w.keys.disabled.Store(false)
	w.sign(s)
}
