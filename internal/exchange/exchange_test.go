package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
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

const account access.Account = "000000000000"

const publicURL = "https://tabard.example.com"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// scoped is the rule table, and allows of scopes those of a set.
type scoped struct {
	access.Table
	scopes []string
}

func (s *scoped) Decide(ctx context.Context, c access.Caller, a access.Action, f access.Facts) (access.Decision, error) {
	d, err := s.Table.Decide(ctx, c, a, f)
	for _, scope := range f.Scopes {
		if a == access.ExchangeToken && !slices.Contains(s.scopes, scope) {
			d.Allow, d.Beyond = false, append(d.Beyond, scope)
		}
	}
	return d, err
}

// world is the service on a real store, vault and trail.
type world struct {
	*exchange.Service
	t       testing.TB
	db      *store.DB
	people  *identity.Service
	signing *signing.Service
	rules   *scoped
	trail   *trail
	points  *checkpoints
	ahead   atomic.Int64
	root    access.Caller
}

func (w *world) now() time.Time { return time.Unix(1_800_000_000, w.ahead.Load()) }

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, rules: &scoped{scopes: []string{"read", "write"}}, root: access.Caller{Account: account, Principal: "prn-root", Name: "root", Roles: []access.Role{access.Root}}}
	var err error
	w.db, err = store.Open(t.Context(), store.Config{SQLitePath: database.New(t)})
	must(t, err)
	t.Cleanup(func() { must(t, w.db.Close()) })
	file := filepath.Join(t.TempDir(), "key")
	must(t, kms.CreateFile(file))
	wrapper, err := kms.OpenFile(file)
	must(t, err)
	v, err := vault.New(vault.Config{Store: w.db, Wrapper: wrapper, Region: "us-east-1", Now: w.now})
	must(t, err)
	t.Cleanup(v.Close)
	w.trail = &trail{DB: w.db}
	guard := access.NewGuard(access.Config{Log: w.trail, Now: w.now, Decider: w.rules})
	t.Cleanup(guard.Close)
	w.people, err = identity.New(identity.Config{Store: w.db, Vault: v, Guard: guard, Keys: nobody{}, Issuer: publicURL, Region: "us-east-1", Now: w.now})
	must(t, err)
	w.signing, err = signing.New(signing.Config{Store: w.db, Vault: v, Issuer: publicURL, Now: w.now})
	must(t, err)
	w.points = &checkpoints{}
	w.Service, err = exchange.New(exchange.Config{
		Store: w.db, Identity: w.people, Signing: w.signing, Guard: guard, Trail: w.points, Account: account, Region: "us-east-1", Now: w.now,
	})
	must(t, err)
	for _, name := range []string{"planner", "booker"} {
		_, err = w.people.CreateWorkload(t.Context(), w.root, identity.NewWorkload{Name: name, Tags: map[string]string{identity.TagAssurance: identity.Asserted}})
		must(t, err)
	}
	return w
}

// trail can fail to be written.
type trail struct {
	*store.DB
	broken atomic.Bool
}

// Append implements access.Log.
func (t *trail) Append(ctx context.Context, batch []access.Record) error {
	if t.broken.Load() {
		return fault.New(fault.Unavailable, "the disk is full")
	}
	return t.DB.Append(ctx, batch)
}

// nobody has no keys: users are asserted here.
type nobody struct{}

func (nobody) JWKS(context.Context, access.Account, string, string) ([]byte, error) {
	return nil, fault.New(fault.Unavailable, "no keys")
}

func agent(name string) access.Caller {
	return access.Caller{Account: account, Principal: access.PrincipalID("prn-" + name), Name: name, Roles: []access.Role{access.Agent}, Workloads: []string{name}}
}

func (w *world) wat(workload, user string) secret.Text {
	w.t.Helper()
	m, err := w.people.MintTokenForUserID(w.t.Context(), agent(workload), workload, user)
	must(w.t, err)
	return m.Token
}

func (w *world) read(token secret.Text) jws.Claims {
	w.t.Helper()
	c, err := w.signing.Verify(w.t.Context(), signing.AccountTokens(string(account)), exchange.Type, token)
	must(w.t, err)
	return c
}

// B08: whatever is asked for and whatever policies allow, a token has no scope that was not asked for and none that is
// not allowed, it has all that are both, and it lives neither longer than ten minutes nor than what it was made of.
func TestB08_ExchangeNeverWidens(t *testing.T) {
	w := newWorld(t)
	words := []string{"read", "write", "delete", "admin", "openid", "a:b", "x/y", "read write", ""}
	some := func(from []string) []string {
		var out []string
		for _, word := range from {
			if rand.IntN(2) == 0 {
				out = append(out, word)
			}
		}
		return out
	}
	wat := w.wat("planner", "alice")
	born := w.now()
	for range 500 {
		if rand.IntN(20) == 0 {
			w.ahead.Add(int64(rand.IntN(240)) * int64(time.Second))
		}
		if w.now().Sub(born) >= identity.TokenLife {
			wat, born = w.wat("planner", "alice"), w.now()
		}
		asked := some(words[:7])
		if rand.IntN(4) == 0 {
			asked = append(asked, some(words)...)
		}
		w.rules.scopes = some(words[:7])
		both := slices.DeleteFunc(slices.Clone(asked), func(s string) bool { return !slices.Contains(w.rules.scopes, s) })
		got, err := w.Exchange(t.Context(), agent("planner"), exchange.Request{Subject: wat, Audience: "reports", Scopes: asked})
		switch {
		case slices.Contains(asked, "") || slices.Contains(asked, "read write"):
			wantCode(t, fmt.Sprintf("%q", asked), err, fault.Invalid)
			continue
		case len(asked) > 0 && len(both) == 0:
			wantCode(t, fmt.Sprintf("%q of %q", asked, w.rules.scopes), err, fault.Denied)
			if !errors.Is(err, exchange.ErrScope) {
				t.Errorf("%q of %q: got %v", asked, w.rules.scopes, err)
			}
			continue
		}
		must(t, err)
		c := w.read(got.Token)
		text, _ := c.String("scope")
		has := strings.Fields(text)
		slices.Sort(both)
		slices.Sort(has)
		if !slices.Equal(slices.Compact(both), has) || len(got.Scopes) != len(has) {
			t.Fatalf("asked for %q of %q: got %q, answered %q", asked, w.rules.scopes, has, got.Scopes)
		}
		exp, err := c.Time("exp")
		must(t, err)
		if end := born.Add(identity.TokenLife); exp.After(end) || exp.After(w.now().Add(exchange.Life)) {
			t.Fatalf("at %s it lives until %s, and what it was made of until %s", w.now(), exp, end)
		}
	}
}

func TestExchangeRefuses(t *testing.T) {
	w := newWorld(t)
	wat := w.wat("planner", "alice")
	for what, c := range map[string]struct {
		caller access.Caller
		r      exchange.Request
		code   fault.Code
		about  error
		field  string
	}{
		"another agent":         {agent("booker"), exchange.Request{Subject: wat, Audience: "reports"}, fault.Denied, exchange.ErrClient, ""},
		"nobody to be for":      {agent("planner"), exchange.Request{Subject: wat}, fault.Invalid, nil, "audience"},
		"this server":           {agent("planner"), exchange.Request{Subject: wat, Audience: publicURL + "/"}, fault.Invalid, nil, "audience"},
		"a workload identity":   {agent("planner"), exchange.Request{Subject: wat, Audience: identity.Workload{Account: account, Name: "x"}.ARN("us-east-1")}, fault.Invalid, nil, "audience"},
		"a fragment":            {agent("planner"), exchange.Request{Subject: wat, Audience: "https://a.example/#b"}, fault.Invalid, nil, "audience"},
		"a user in it":          {agent("planner"), exchange.Request{Subject: wat, Audience: "https://u:p@a.example/"}, fault.Invalid, nil, "audience"},
		"two names":             {agent("planner"), exchange.Request{Subject: wat, Audience: "a b"}, fault.Invalid, nil, "audience"},
		"too long":              {agent("planner"), exchange.Request{Subject: wat, Audience: strings.Repeat("a", 513)}, fault.Invalid, nil, "audience"},
		"not ASCII":             {agent("planner"), exchange.Request{Subject: wat, Audience: "réports"}, fault.Invalid, nil, "audience"},
		"a quote in a scope":    {agent("planner"), exchange.Request{Subject: wat, Audience: "reports", Scopes: []string{`a"b`}}, fault.Invalid, nil, "scope"},
		"no scope that is free": {agent("planner"), exchange.Request{Subject: wat, Audience: "reports", Scopes: []string{"delete"}}, fault.Denied, exchange.ErrScope, ""},
		"nonsense":              {agent("planner"), exchange.Request{Subject: secret.New("wat1.AAAA"), Audience: "reports"}, fault.Unauthenticated, nil, ""},
		"no token":              {agent("planner"), exchange.Request{Audience: "reports"}, fault.Unauthenticated, nil, ""},
	} {
		got, err := w.Exchange(t.Context(), c.caller, c.r)
		wantCode(t, what, err, c.code)
		if c.about != nil && !errors.Is(err, c.about) || err != nil && fault.Public(err).Field != c.field || !got.Token.IsZero() {
			t.Errorf("%s: got %v, field %q", what, err, fault.Public(err).Field)
		}
	}
	w.ahead.Add(int64(identity.TokenLife))
	_, err := w.Exchange(t.Context(), agent("planner"), exchange.Request{Subject: wat, Audience: "reports"})
	wantCode(t, "an expired token", err, fault.Unauthenticated)
}

// G04: a trail that cannot be written lets no token out, not even beside the error.
func TestG04_NoExchangeWithoutItsRecord(t *testing.T) {
	w := newWorld(t)
	wat := w.wat("planner", "alice")
	w.trail.broken.Store(true)
	got, err := w.Exchange(t.Context(), agent("planner"), exchange.Request{Subject: wat, Audience: "https://api.example", Scopes: []string{"read"}})
	if !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
	if !got.Token.IsZero() {
		t.Error("a token left without its record")
	}
}

// A token without a user is of the agent, and has no actor beside it: sub and client_id are the same (RFC 9068 §2.2).
func TestExchangeForTheAgentItself(t *testing.T) {
	w := newWorld(t)
	m, err := w.people.MintToken(t.Context(), agent("planner"), "planner")
	must(t, err)
	got, err := w.Exchange(t.Context(), agent("planner"), exchange.Request{Subject: m.Token, Audience: "reports"})
	must(t, err)
	c := w.read(got.Token)
	sub, _ := c.String("sub")
	client, _ := c.String("client_id")
	if sub != client || !strings.HasSuffix(sub, "/planner") || c.Has("act") || c.Has("assurance") {
		t.Errorf("sub %q, client_id %q, claims %q", sub, client, c.Names())
	}
	user, err := w.Exchange(t.Context(), agent("planner"), exchange.Request{Subject: w.wat("planner", sub), Audience: "reports"})
	must(t, err)
	if of, _ := w.read(user.Token).String("sub"); of == sub {
		t.Error("a user whose id is the agent's ARN passes for the agent")
	}
}

// Introspection says of everything that is not a good token of the account the same: nothing.
func TestF16_IntrospectionSaysNothingOfWhatIsNotTheCallers(t *testing.T) {
	w := newWorld(t)
	wat := w.wat("planner", "alice")
	got, err := w.Exchange(t.Context(), agent("planner"), exchange.Request{Subject: wat, Audience: "reports"})
	must(t, err)
	stranger := agent("planner")
	stranger.Account = "111111111111"
	other, err := w.signing.Sign(t.Context(), signing.AccountTokens(string(account)), "JWT", map[string]any{"jti": "x", "account": string(account), "exp": w.now().Unix() + 60})
	must(t, err)
	unknown, err := w.signing.Sign(t.Context(), signing.AccountTokens(string(account)), exchange.Type, map[string]any{"jti": "x", "account": string(account), "exp": w.now().Unix() + 60})
	must(t, err)
	said, err := w.Introspect(t.Context(), agent("booker"), got.Token)
	must(t, err)
	if said["active"] != true {
		t.Fatalf("the good one: %v", said)
	}
	for what, c := range map[string]struct {
		caller access.Caller
		token  secret.Text
	}{
		"of another account": {stranger, got.Token}, "a workload access token": {agent("planner"), wat}, "a JWT of another type": {agent("planner"), other},
		"one that was never made": {agent("planner"), unknown}, "nonsense": {agent("planner"), secret.New("nonsense")},
		"too long": {agent("planner"), secret.New(strings.Repeat("a", 20<<10))},
	} {
		if said, err := w.Introspect(t.Context(), c.caller, c.token); err != nil || said != nil {
			t.Errorf("%s: %v, %v", what, said, err)
		}
		if what != "a workload access token" {
			must(t, w.Revoke(t.Context(), c.caller, c.token))
		}
	}
	said, err = w.Introspect(t.Context(), agent("planner"), got.Token)
	must(t, err)
	if said == nil {
		t.Error("somebody else's revocation ended it")
	}
	w.ahead.Add(int64(exchange.Life))
	if said, err := w.Introspect(t.Context(), agent("planner"), got.Token); err != nil || said != nil {
		t.Errorf("at its end: %v, %v", said, err)
	}
	n, err := w.Sweep(t.Context())
	if must(t, err); n != 1 {
		t.Errorf("swept %d, want 1", n)
	}
}

// checkpoints is a trail with one checkpoint.
type checkpoints struct{ begun []access.Account }

func (c *checkpoints) Last(context.Context, access.Account) (string, error) {
	return "last checkpoint 7, abc, of key k", nil
}

func (c *checkpoints) Begin(_ context.Context, a access.Account) error {
	c.begun = append(c.begun, a)
	return nil
}

// The record of a revocation of the trail's keys names the key and its last checkpoint, before the key is erased, and
// the next series begins at once.
func TestG05_H08_RevokingTheTrailsKeysIsRecorded(t *testing.T) {
	w := newWorld(t)
	_, err := w.RotateKey(t.Context(), w.root, signing.Audit, false)
	must(t, err)
	if len(w.points.begun) > 0 {
		t.Error("a series begins behind a key that was not revoked")
	}
	_, err = w.RotateKey(t.Context(), w.root, signing.Audit, true)
	must(t, err)
	if !slices.Equal(w.points.begun, []access.Account{account}) {
		t.Errorf("a series begins for %v", w.points.begun)
	}
	list, _, err := w.db.Records(t.Context(), account, access.Query{Action: access.RotateSigningKey, Limit: 10})
	must(t, err)
	if len(list) != 2 || list[0].Facts.Detail != "" || list[1].Facts.Outcome != "revoked" || list[1].Facts.Detail != "last checkpoint 7, abc, of key k" {
		t.Errorf("got the records %+v", list)
	}
}

// The signing keys are for all accounts: only the installation's own rotates them.
func TestRotateKeyIsTheInstallationsOwn(t *testing.T) {
	w := newWorld(t)
	stranger := w.root
	stranger.Account = "111111111111"
	for _, p := range []signing.Purpose{signing.Assertions, signing.Audit} {
		_, err := w.RotateKey(t.Context(), stranger, p, true)
		wantCode(t, "root of another account, "+string(p), err, fault.Denied)
	}
	_, err := w.RotateKey(t.Context(), agent("planner"), exchange.Tokens, true)
	wantCode(t, "an agent", err, fault.Denied)
	// G05: without the key that signed the checkpoints, no trail of any account can be verified or pruned any more.
	admin := w.root
	admin.Name, admin.Roles = "admin", []access.Role{access.Admin}
	_, err = w.RotateKey(t.Context(), admin, signing.Audit, true)
	wantCode(t, "an administrator who ends the proofs of the trail", err, fault.Denied)
	_, err = w.RotateKey(t.Context(), admin, signing.Audit, false)
	must(t, err)
	_, err = w.RotateKey(t.Context(), w.root, "nothing", true)
	wantCode(t, "another purpose", err, fault.Invalid)
	made, err := w.RotateKey(t.Context(), w.root, exchange.Tokens, false)
	must(t, err)
	keys, err := w.Keys(t.Context(), w.root)
	must(t, err)
	have := map[string]signing.Status{}
	for _, k := range keys {
		have[k.ID] = k.Status
	}
	if have[made.ID] != signing.Next || len(have) != 5 {
		t.Errorf("got %v", slices.Collect(maps.Values(have)))
	}
}

// M09: each account is an issuer of its own, with keys of its own. A service that trusts one account's issuer takes no
// token of another; rotating and revoking the keys of one does nothing to the other's.
func TestM09_EachAccountIsAnIssuer(t *testing.T) {
	w := newWorld(t)
	ours, err := w.Exchange(t.Context(), agent("planner"), exchange.Request{Subject: w.wat("planner", "alice"), Audience: "reports"})
	must(t, err)
	if got, _ := w.read(ours.Token).String("iss"); got != publicURL+"/accounts/"+string(account) {
		t.Errorf("got the issuer %q", got)
	}
	actor, _ := w.read(ours.Token).Object("act")
	if got, _ := actor.String("iss"); got != w.Issuer(account) {
		t.Errorf("got the actor's issuer %q", got)
	}
	const neighbour = access.Account("111111111111")
	theirs, err := w.signing.Sign(t.Context(), signing.AccountTokens(string(neighbour)), exchange.Type,
		map[string]any{"aud": "reports", "account": string(account), "jti": "x", "exp": w.now().Unix() + 600})
	must(t, err)
	for what, p := range map[string]signing.Purpose{
		"our account": signing.AccountTokens(string(account)), "the installation": signing.Assertions, "the trail": signing.Audit,
	} {
		_, err := w.signing.Verify(t.Context(), p, exchange.Type, theirs)
		wantCode(t, "the neighbour's token at the issuer of "+what, err, fault.Unauthenticated)
	}
	root := w.root
	root.Account = neighbour
	_, err = w.RotateKey(t.Context(), root, exchange.Tokens, true)
	must(t, err)
	w.ahead.Add(int64(time.Minute)) // longer than keys are remembered
	w.read(ours.Token)
	_, err = w.signing.Verify(t.Context(), signing.AccountTokens(string(neighbour)), exchange.Type, theirs)
	wantCode(t, "the neighbour's token after its revocation", err, fault.Unauthenticated)
	for _, audience := range []string{publicURL, publicURL + "/accounts/" + string(neighbour), w.Issuer(account) + "/x"} {
		_, err := w.Exchange(t.Context(), agent("planner"), exchange.Request{Subject: w.wat("planner", "alice"), Audience: audience})
		wantCode(t, "a token for "+audience, err, fault.Invalid)
	}
}
