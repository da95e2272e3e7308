package identity_test

import (
	"context"
	"maps"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

const (
	account   access.Account = "000000000000"
	other     access.Account = "111111111111"
	publicURL                = "https://tabard.example.com"
	issuerURL                = "https://idp.example.com/realms/a"
)

// database is what the tests need of the store.
type database interface {
	identity.Store
	vault.Store
	access.Log
	access.Reader
}

// clock is the time of a test.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// world is a service on a real store and vault.
type world struct {
	*identity.Service
	t      testing.TB
	db     database
	vault  *vault.Vault
	guard  *access.Guard
	clock  *clock
	idp    *idp
	config identity.Config
	root   access.Caller
}

func newWorld(t testing.TB, change ...func(*identity.Config)) *world {
	t.Helper()
	w := &world{t: t, db: openStore(t), clock: &clock{at: time.Now().Truncate(time.Second)}, idp: newIDP(t)}
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, kms.CreateFile(keyFile))
	wrapper := ok(kms.OpenFile(keyFile))(t)
	w.vault = ok(vault.New(vault.Config{Store: w.db, Wrapper: wrapper, Region: "us-east-1", Now: w.clock.now}))(t)
	t.Cleanup(w.vault.Close)
	w.guard = access.NewGuard(access.Config{Log: w.db, Now: w.clock.now, Decider: access.Table{}})
	t.Cleanup(w.guard.Close)
	w.config = identity.Config{
		Store: w.db, Vault: w.vault, Guard: w.guard, Keys: w.idp, Issuer: publicURL, Region: "us-east-1", Now: w.clock.now,
	}
	for _, c := range change {
		c(&w.config)
	}
	w.Service = ok(identity.New(w.config))(t)
	w.root = access.Caller{Account: account, Principal: "prn-root", Name: "root", Roles: []access.Role{access.Root}}
	return w
}

// caller returns a caller with one role, paired with the workload identities.
func caller(role access.Role, workloads ...string) access.Caller {
	return access.Caller{
		Account: account, Principal: access.PrincipalID("prn-" + string(role)), Name: string(role),
		Roles: []access.Role{role}, Workloads: workloads,
	}
}

func (w *world) workload(name string, tags map[string]string) identity.Workload {
	w.t.Helper()
	return ok(w.CreateWorkload(w.t.Context(), w.root, identity.NewWorkload{Name: name, Tags: tags}))(w.t)
}

// trust adds the issuer with the audience "tabard" and what change sets.
func (w *world) trust(change ...func(*identity.Issuer)) identity.Issuer {
	w.t.Helper()
	i := identity.Issuer{URL: issuerURL, Audiences: []string{"tabard"}}
	for _, c := range change {
		c(&i)
	}
	return ok(w.CreateIssuer(w.t.Context(), w.root, i))(w.t)
}

func (w *world) verify(jwt string) (identity.VerifiedUser, error) {
	return w.VerifyUser(w.t.Context(), account, "agent-a", secret.New(jwt))
}

// refused wants the JWT to be turned away with the code.
func (w *world) refused(name, jwt string, code fault.Code) {
	w.t.Helper()
	u, err := w.verify(jwt)
	if fault.CodeOf(err) != code || u != (identity.VerifiedUser{}) {
		w.t.Errorf("%s: got %v and user %q, want %s", name, err, u.Subject, code)
	}
}

func (w *world) accepted(name, jwt string) identity.VerifiedUser {
	w.t.Helper()
	u, err := w.verify(jwt)
	if err != nil {
		w.t.Errorf("%s: got %v, want it accepted", name, err)
	}
	return u
}

// claims returns good claims, changed: a nil value removes a claim.
func (w *world) claims(change map[string]any) map[string]any {
	now := w.clock.now()
	c := map[string]any{
		"iss": issuerURL, "sub": "alice", "aud": "tabard", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// jwt signs good claims, changed, with the issuer's RSA key.
func (w *world) jwt(change map[string]any) string {
	return jwstest.Sign(w.t, "RS256", map[string]any{"kid": "rsa"}, w.claims(change), w.idp.RSA)
}

func (w *world) records() []access.Record {
	w.t.Helper()
	r, _, err := w.db.Records(w.t.Context(), account, access.Query{Limit: 1000})
	must(w.t, err)
	return r
}

// idp is an issuer's keys and the source that fetches them.
type idp struct {
	jwstest.Keys

	mu    sync.Mutex
	doc   []byte
	err   error
	calls []string
	gate  chan struct{} // when set, a fetch waits for it to close
	slow  string        // the only issuer whose fetches wait for gate, "" for all
}

func (p *idp) JWKS(ctx context.Context, _ access.Account, issuer, uri string) ([]byte, error) {
	p.mu.Lock()
	p.calls = append(p.calls, issuer+" "+uri)
	doc, err, gate, slow := p.doc, p.err, p.gate, p.slow
	p.mu.Unlock()
	if gate != nil && (slow == "" || slow == issuer) {
		<-gate
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return doc, err
}

func (p *idp) fetches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

func (p *idp) publish(doc []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doc, p.err = doc, err
}

// keypairs makes the keys of the tests once: an RSA key takes long.
var keypairs = sync.OnceValue(jwstest.NewKeys)

func newIDP(t testing.TB) *idp {
	t.Helper()
	k := keypairs()
	return &idp{Keys: k, doc: k.Set(t)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ok returns v, and fails the test where there is an error: ok(f())(t).
func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func wantCode(t testing.TB, name string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want code %s", name, err, code)
	}
}

// userRows looks at what is written about users on its way to the store.
type userRows struct {
	identity.Store
	refs   []string
	sealed []vault.Sealed
}

func (u *userRows) RememberUser(ctx context.Context, a access.Account, ref string, sealed vault.Sealed, at time.Time) error {
	u.refs, u.sealed = append(u.refs, ref), append(u.sealed, sealed)
	return u.Store.RememberUser(ctx, a, ref, sealed, at)
}
