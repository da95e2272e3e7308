package identity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
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
	w.guard = access.NewGuard(w.db, w.clock.now)
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
	if !errors.Is(err, code) || u != (identity.VerifiedUser{}) {
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
	return sign(w.t, "RS256", map[string]any{"kid": "rsa"}, w.claims(change), w.idp.rsa)
}

func (w *world) records() []access.Record {
	w.t.Helper()
	r, _, err := w.db.Records(w.t.Context(), account, access.Query{Limit: 1000})
	must(w.t, err)
	return r
}

// idp is an issuer's keys and the source that fetches them.
type idp struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	ed  ed25519.PrivateKey

	mu    sync.Mutex
	doc   []byte
	err   error
	calls []string
	gate  chan struct{} // when set, a fetch waits for it to close
}

func (p *idp) JWKS(ctx context.Context, issuer, uri string) ([]byte, error) {
	p.mu.Lock()
	p.calls = append(p.calls, issuer+" "+uri)
	doc, err, gate := p.doc, p.err, p.gate
	p.mu.Unlock()
	if gate != nil {
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
var keypairs = sync.OnceValue(func() *idp {
	p := &idp{}
	p.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	p.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, p.ed, _ = ed25519.GenerateKey(rand.Reader)
	return p
})

func newIDP(t testing.TB) *idp {
	t.Helper()
	k := keypairs()
	p := &idp{rsa: k.rsa, ec: k.ec, ed: k.ed}
	p.doc = jwks(t, jwk(t, "rsa", &p.rsa.PublicKey, nil), jwk(t, "ec", &p.ec.PublicKey, nil), jwk(t, "ed", p.ed.Public(), nil))
	return p
}

func jwk(t testing.TB, kid string, key any, extra map[string]any) map[string]any {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: kid})
	must(t, err)
	m := map[string]any{}
	must(t, json.Unmarshal(b, &m))
	maps.Copy(m, extra)
	return m
}

func jwks(t testing.TB, keys ...map[string]any) []byte {
	t.Helper()
	return ok(json.Marshal(map[string]any{"keys": keys}))(t)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign makes a token from values.
func sign(t testing.TB, alg string, header, claims map[string]any, key any) string {
	t.Helper()
	h := map[string]any{"alg": alg}
	maps.Copy(h, header)
	return signRaw(t, alg, string(ok(json.Marshal(h))(t)), string(ok(json.Marshal(claims))(t)), key)
}

// signRaw makes a token from the text of header and payload, good or bad, with a signature that is right for alg.
func signRaw(t testing.TB, alg, header, payload string, key any) string {
	t.Helper()
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	return input + "." + b64(signature(t, alg, input, key))
}

func signature(t testing.TB, alg, input string, key any) []byte {
	t.Helper()
	h := crypto.SHA256
	switch {
	case strings.HasSuffix(alg, "384"):
		h = crypto.SHA384
	case strings.HasSuffix(alg, "512"):
		h = crypto.SHA512
	}
	d := h.New()
	d.Write([]byte(input))
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			return ok(rsa.SignPSS(rand.Reader, key, h, d.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))(t)
		}
		return ok(rsa.SignPKCS1v15(nil, key, h, d.Sum(nil)))(t)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, d.Sum(nil))
		must(t, err)
		n := (key.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...)
	case ed25519.PrivateKey:
		return ed25519.Sign(key, []byte(input))
	case []byte:
		m := hmac.New(sha256.New, key)
		m.Write([]byte(input))
		return m.Sum(nil)
	}
	return nil
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
	if !errors.Is(err, code) {
		t.Errorf("%s: got %v, want code %s", name, err, code)
	}
}

// stranger is a key that no issuer publishes.
func stranger(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return ok(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
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
