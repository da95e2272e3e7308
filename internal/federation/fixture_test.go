package federation_test

import (
	"cmp"
	"context"
	"maps"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
	"github.com/tabard-id/tabard/internal/vault"
)

// database is what each test gets a copy of.
var database storetest.Template

const (
	account   access.Account = "000000000000"
	other     access.Account = "111111111111"
	publicURL                = "https://tabard.example.com"
	cluster                  = "https://kubernetes.default.svc"
	domain                   = "spiffe://prod.example.com"
	agentSub                 = "system:serviceaccount:prod:agent"
)

// world is a service on a real store and vault, with a clock that a test moves.
type world struct {
	*federation.Service
	t      testing.TB
	db     *store.DB
	dir    string // of the database
	config federation.Config
	root   access.Caller
	keys   *source
	review *review

	mu  sync.Mutex // guards at
	now time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// source is where the keys of issuers come from.
type source struct {
	mu      sync.Mutex // guards what follows
	doc     []byte
	err     error
	fetches int
	host    string // where the keys are, if not at the issuer
}

func (s *source) IssuerMetadata(_ context.Context, _ access.Account, issuer string, _ bool) (keyring.Metadata, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return keyring.Metadata{JWKS: cmp.Or(s.host, issuer) + "/keys"}, nil
}

func (s *source) JWKS(context.Context, access.Account, string, string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetches++
	return s.doc, s.err
}

func (s *source) publish(doc []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doc, s.err = doc, err
}

// review is what a cluster says about its tokens.
type review struct {
	mu     sync.Mutex // guards what follows
	on     bool
	answer error
	asked  int
}

func (r *review) Reviews(string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.on
}

func (r *review) Review(context.Context, string, secret.Text, string, []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.answer
}

func (r *review) says(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on, r.answer = true, err
}

// keypairs makes the keys of the tests once: an RSA key takes long.
var keypairs = sync.OnceValue(jwstest.NewKeys)

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, keys: &source{doc: keypairs().Set(t)}, review: &review{}, now: time.Now().Truncate(time.Second)}
	w.dir = t.TempDir()
	w.db = ok(store.Open(t.Context(), store.Config{SQLitePath: database.In(t, w.dir)}))(t)
	t.Cleanup(func() { must(t, w.db.Close()) })
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, kms.CreateFile(keyFile))
	sealer := ok(vault.New(vault.Config{Store: w.db, Wrapper: ok(kms.OpenFile(keyFile))(t), Region: "us-east-1", Now: w.clock}))(t)
	t.Cleanup(sealer.Close)
	guard := access.NewGuard(access.Config{Log: w.db, Now: w.clock, Decider: access.Table{}})
	t.Cleanup(guard.Close)
	w.config = federation.Config{
		Store: w.db, Vault: sealer, Guard: guard, Keys: w.keys, Metadata: w.keys, Reviewer: w.review, Server: publicURL, Account: account, Now: w.clock,
	}
	w.Service = ok(federation.New(w.config))(t)
	w.root = access.Caller{Account: account, Principal: "prn-root", Name: "root", Roles: []access.Role{access.Root}}
	return w
}

// principal makes one and returns its id.
func (w *world) principal(in access.Account, name string, roles ...access.Role) access.PrincipalID {
	w.t.Helper()
	p := identity.Principal{Account: in, ID: access.PrincipalID("prn-" + name), Name: name, Roles: roles, Workloads: []string{"calendar-*"}, Created: w.clock()}
	must(w.t, w.db.CreatePrincipal(w.t.Context(), p))
	return p.ID
}

// trust trusts the cluster for the audience tabard, and what change sets.
func (w *world) trust(change ...func(*federation.Issuer)) federation.Issuer {
	w.t.Helper()
	i := federation.Issuer{URL: cluster, Audiences: []string{"tabard"}}
	for _, f := range change {
		f(&i)
	}
	return ok(w.CreateIssuer(w.t.Context(), w.root, i))(w.t)
}

// allow maps a subject of the cluster to a principal.
func (w *world) allow(subject, principal string, claims map[string]string) federation.Rule {
	w.t.Helper()
	return ok(w.CreateRule(w.t.Context(), w.root, federation.Rule{Issuer: cluster, Subject: subject, Claims: claims, Name: principal}))(w.t)
}

// newAgent is a world in which the cluster's service account agent is the principal agent.
func newAgent(t testing.TB) (*world, federation.Rule) {
	w := newWorld(t)
	w.principal(account, "agent", access.Agent)
	w.trust()
	return w, w.allow(agentSub, "agent", nil)
}

// claims are those of a projected token, changed: a nil value removes a claim.
func (w *world) claims(change map[string]any) map[string]any {
	now := w.clock()
	c := map[string]any{
		"iss": cluster, "sub": agentSub, "aud": []string{"tabard"}, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "prod", "serviceaccount": map[string]any{"name": "agent", "uid": "uid-1"}},
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// jwt signs claims, changed, with the cluster's RSA key.
func (w *world) jwt(change map[string]any) string {
	return jwstest.Sign(w.t, "RS256", map[string]any{"kid": "rsa"}, w.claims(change), keypairs().RSA)
}

func role(name string) federation.Role { return federation.Role{Account: account, Principal: name} }

func (w *world) assume(r federation.Role, jwt string) (federation.Session, error) {
	return w.Assume(w.t.Context(), federation.Request{Role: r, Session: "pod-1", Token: secret.New(jwt)})
}

// refused wants the code, and returns what the caller reads and what the trail says.
func (w *world) refused(what string, r federation.Role, jwt string, code fault.Code) (public string, trail access.Record) {
	w.t.Helper()
	s, err := w.assume(r, jwt)
	if fault.CodeOf(err) != code || s.AccessKeyID != "" {
		w.t.Errorf("%s: got %v, want %s", what, err, code)
	}
	last := w.lastRecord(account)
	if last.Action != access.AssumeRole || last.Allow || last.Facts.Outcome != "denied" {
		w.t.Errorf("%s: the trail's last record is %+v, want a refusal", what, last)
	}
	return fault.Public(err).Msg, last
}

func (w *world) lastRecord(in access.Account) access.Record {
	w.t.Helper()
	r, _, err := w.db.Records(w.t.Context(), in, access.Query{Limit: 1, Newest: true})
	must(w.t, err)
	if len(r) == 0 {
		return access.Record{}
	}
	return r[0]
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

func wantCode(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want code %s", what, err, code)
	}
}
