package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
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
	issuerURL                = "https://idp.example.com"
	returnURL                = "https://app.example.com/done"
)

// clock is the time of a test. Leases are on the database's clock, which is the real one.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

// world is a broker on a real store, vault and identity service, with a provider on loopback.
type world struct {
	*broker.Broker
	t        testing.TB
	db       *store.DB
	store    *shaky
	vault    *vault.Vault
	guard    *access.Guard
	identity *identity.Service
	signing  *signing.Service
	clock    *clock
	provider *oauthtest.Server
	config   broker.Config
	dir      string // of the database

	root, admin, agentA, agentB, appA, appB access.Caller
}

// onPostgres ends the names of tests whose worlds are on PostgreSQL.
const onPostgres = "/postgres"

// engines runs the test on SQLite and on PostgreSQL. Its worlds are of its own t.
func engines(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("sqlite", test)
	t.Run(strings.TrimPrefix(onPostgres, "/"), test)
}

// newWorld has the workload identities agent-a and agent-b, each with a principal and an app of its own, and the
// provider "cal", which rotates refresh tokens.
func newWorld(t testing.TB, change ...func(*broker.Config)) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{at: time.Now().Truncate(time.Second)}, provider: oauthtest.New(t)}
	var err error
	w.dir = t.TempDir()
	at := store.Config{SQLitePath: database.In(t, w.dir)}
	if strings.HasSuffix(t.Name(), onPostgres) {
		url := peer.Postgres(t)
		at = store.Config{PostgresURL: func() string { return url }}
	}
	w.db, err = store.Open(t.Context(), at)
	must(t, err)
	t.Cleanup(func() { must(t, w.db.Close()) })
	w.store = &shaky{Store: w.db, before: map[string]func() error{}, after: map[string]func() error{}}
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, kms.CreateFile(keyFile))
	wrapper, err := kms.OpenFile(keyFile)
	must(t, err)
	w.vault, err = vault.New(vault.Config{Store: w.db, Wrapper: wrapper, Region: "us-east-1", Now: w.clock.now})
	must(t, err)
	t.Cleanup(w.vault.Close)
	w.guard = access.NewGuard(access.Config{Log: w.db, Now: w.clock.now, Decider: access.Table{}})
	t.Cleanup(w.guard.Close)
	dialer := oauth.New(oauth.Config{Dev: true, Now: w.clock.now})
	t.Cleanup(dialer.Close)
	w.identity, err = identity.New(identity.Config{
		Store: w.db, Vault: w.vault, Guard: w.guard, Keys: dialer, Issuer: publicURL, Region: "us-east-1", Now: w.clock.now,
	})
	must(t, err)
	w.signing, err = signing.New(signing.Config{Store: w.db, Vault: w.vault, Issuer: publicURL, Now: w.clock.now})
	must(t, err)
	config := broker.Config{
		Store: w.store, Vault: w.vault, Identity: w.identity, Guard: w.guard, Signing: w.signing, Upstream: dialer, Catalogue: newVendors(t),
		PublicURL: publicURL, Region: "us-east-1", Home: account, Now: w.clock.now, Dev: true,
	}
	for _, c := range change {
		c(&config)
	}
	w.config = config
	w.Broker, err = broker.New(config)
	must(t, err)
	w.people()
	w.createProvider("cal", "StrictOauth2")
	return w
}

func (w *world) people() {
	w.root = caller(account, "root", access.Root)
	w.admin = caller(account, "admin", access.Admin)
	w.agentA, w.appA = caller(account, "agent-a", access.Agent, "agent-a"), caller(account, "app-a", access.ConsentApp, "agent-a")
	w.agentB, w.appB = caller(account, "agent-b", access.Agent, "agent-b"), caller(account, "app-b", access.ConsentApp, "agent-b")
	w.workload("agent-a")
	w.workload("agent-b")
	w.trust(w.root)
}

func caller(a access.Account, name string, role access.Role, workloads ...string) access.Caller {
	return access.Caller{
		Account: a, Principal: access.PrincipalID("prn-" + name), Name: name, AccessKey: "AK" + name,
		Roles: []access.Role{role}, Workloads: workloads,
	}
}

func (w *world) workload(name string) identity.Workload {
	w.t.Helper()
	return w.workloadOf(w.root, identity.NewWorkload{
		Name: name, ReturnURLs: []string{returnURL}, Tags: map[string]string{identity.TagAssurance: identity.Asserted},
	})
}

func (w *world) workloadOf(by access.Caller, n identity.NewWorkload) identity.Workload {
	w.t.Helper()
	wl, err := w.identity.CreateWorkload(w.t.Context(), by, n)
	must(w.t, err)
	return wl
}

func (w *world) trust(by access.Caller) {
	w.t.Helper()
	_, err := w.identity.CreateIssuer(w.t.Context(), by, identity.Issuer{URL: issuerURL, Audiences: []string{"web"}, JWKS: issuerJWKS(w.t)})
	must(w.t, err)
}

// spec describes a provider at the test's server, by discovery.
func (w *world) spec(name, vendor string) broker.ProviderSpec {
	return broker.ProviderSpec{
		Name: name, Vendor: vendor, Member: "customOauth2ProviderConfig", ClientID: oauthtest.ClientID,
		Secret: secret.New(oauthtest.ClientSecret), DiscoveryURL: w.provider.URL + oauthtest.Metadata,
	}
}

func (w *world) createProvider(name, vendor string, change ...func(*broker.ProviderSpec)) broker.Provider {
	w.t.Helper()
	s := w.spec(name, vendor)
	for _, c := range change {
		c(&s)
	}
	p, err := w.CreateProvider(w.t.Context(), w.admin, s)
	must(w.t, err)
	return p
}

// vendors is the real catalogue and two vendors that say how they rotate.
type vendors struct{ broker.Catalogue }

func newVendors(t testing.TB) vendors {
	t.Helper()
	c, err := oauth.NewCatalogue()
	must(t, err)
	return vendors{c}
}

func (v vendors) Vendor(name string) (broker.Vendor, bool) {
	custom, _ := v.Catalogue.Vendor("CustomOauth2")
	custom.ScopeAliases = map[string]string{"email": "https://p.example/auth/email"}
	switch custom.Name = name; name {
	case "StrictOauth2":
		custom.RefreshRotates = broker.RotationStrict
		return custom, true
	case "BareOauth2":
		custom.NoScopes = true
		return custom, true
	case "SteadyOauth2":
		custom.RefreshRotates = broker.RotationNone
		return custom, true
	case "ShownOauth2":
		custom.Presentation = append(custom.Presentation, "color")
		return custom, true
	case "DefaultOauth2":
		custom.AuthorizeParams = map[string]string{"token_access_type": "offline"}
		return custom, true
	}
	return v.Catalogue.Vendor(name)
}

// issuerKey is the key of the users' issuer.
var issuerKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // fails never
	return k
})

func issuerJWKS(t testing.TB) []byte {
	t.Helper()
	doc, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: issuerKey().Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	must(t, err)
	return doc
}

// jwt is a human access token of the user.
func (w *world) jwt(user string) secret.Text { return w.jwtFor(user, time.Hour) }

func (w *world) jwtFor(user string, life time.Duration) secret.Text {
	w.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: issuerKey(), KeyID: "k1"}}, nil)
	must(w.t, err)
	now := w.clock.now()
	claims, err := json.Marshal(map[string]any{
		"iss": issuerURL, "sub": user, "aud": "web", "iat": now.Unix(), "exp": now.Add(life).Unix(), "jti": rand.Text(),
	})
	must(w.t, err)
	signed, err := signer.Sign(claims)
	must(w.t, err)
	text, err := signed.CompactSerialize()
	must(w.t, err)
	return secret.New(text)
}

// wat is a workload access token of the agent for the user.
func (w *world) wat(agent access.Caller, user string) secret.Text {
	w.t.Helper()
	m, err := w.identity.MintTokenForJWT(w.t.Context(), agent, agent.Name, w.jwt(user))
	must(w.t, err)
	return m.Token
}

func (w *world) watForID(agent access.Caller, id string) secret.Text {
	w.t.Helper()
	m, err := w.identity.MintTokenForUserID(w.t.Context(), agent, agent.Name, id)
	must(w.t, err)
	return m.Token
}

// ask is a request for the provider "cal" with the scope "read", changed.
func ask(wat secret.Text, change ...func(*broker.Request)) broker.Request {
	r := broker.Request{Token: wat, Provider: "cal", Flow: broker.FlowUserFederation, Scopes: []string{"read"}, ReturnURL: returnURL}
	for _, c := range change {
		c(&r)
	}
	return r
}

func scopes(s ...string) func(*broker.Request) { return func(r *broker.Request) { r.Scopes = s } }

func session(s string) func(*broker.Request) { return func(r *broker.Request) { r.Session = s } }

func force(r *broker.Request) { r.Force = true }

func at(provider string) func(*broker.Request) {
	return func(r *broker.Request) { r.Provider = provider }
}

func machine(r *broker.Request) { r.Flow, r.ReturnURL = broker.FlowM2M, "" }

// token wants an access token.
func (w *world) token(c access.Caller, r broker.Request) broker.Outcome {
	w.t.Helper()
	out, err := w.Token(w.t.Context(), c, r)
	must(w.t, err)
	if out.AccessToken.IsZero() || !out.AuthorizationURL.IsZero() {
		w.t.Fatalf("got no access token but %+v", out)
	}
	return out
}

// pending wants a consent session.
func (w *world) pending(c access.Caller, r broker.Request) broker.Outcome {
	w.t.Helper()
	out, err := w.Token(w.t.Context(), c, r)
	must(w.t, err)
	if !out.AccessToken.IsZero() || out.AuthorizationURL.IsZero() || out.Session == "" {
		w.t.Fatalf("got no consent session but %+v", out)
	}
	return out
}

// visit opens the authorization URL and consents at the provider. The answer is what its redirect brings.
func (w *world) visit(sessionURI string) broker.Answer {
	w.t.Helper()
	v, err := w.Authorize(w.t.Context(), sessionURI)
	must(w.t, err)
	return w.answer(v)
}

func (w *world) answer(v broker.VisitURL) broker.Answer {
	w.t.Helper()
	q, err := w.provider.Approve(v.URL.Expose())
	must(w.t, err)
	u, err := url.Parse(v.URL.Expose())
	must(w.t, err)
	callback := u.Query().Get("redirect_uri")
	return broker.Answer{
		CallbackID: callback[strings.LastIndex(callback, "/")+1:], State: secret.New(q.Get("state")), Code: secret.New(q.Get("code")),
		Issuer: q.Get("iss"), HasIssuer: q.Has("iss"), Cookie: v.Cookie,
	}
}

// hold walks to a held code and returns where the browser goes then.
func (w *world) hold(sessionURI string) *url.URL {
	w.t.Helper()
	to, err := w.Callback(w.t.Context(), w.visit(sessionURI))
	must(w.t, err)
	u, err := url.Parse(to.Expose())
	must(w.t, err)
	return u
}

func (w *world) complete(app access.Caller, sessionURI, user string) error {
	return w.Complete(w.t.Context(), app, sessionURI, broker.UserIdentifier{Token: w.jwt(user)})
}

// consent walks from the request to the token of agent-a's user.
func (w *world) consent(user string, change ...func(*broker.Request)) broker.Outcome {
	w.t.Helper()
	wat := w.wat(w.agentA, user)
	p := w.pending(w.agentA, ask(wat, change...))
	w.hold(p.Session)
	must(w.t, w.complete(w.appA, p.Session, user))
	return w.token(w.agentA, ask(wat, append(change, session(p.Session))...))
}

// connection reads the row of an answer's connection.
func (w *world) connection(id string) broker.Connection {
	w.t.Helper()
	c, err := w.db.ConnectionByID(w.t.Context(), account, id)
	must(w.t, err)
	return c
}

// grants counts the token requests of a kind that the provider got.
func (w *world) grants(kind string) int {
	n := 0
	for _, r := range w.provider.Requests() {
		if r.Form.Get("grant_type") == kind {
			n++
		}
	}
	return n
}

func (w *world) records() []access.Record {
	w.t.Helper()
	r, _, err := w.db.Records(w.t.Context(), account, access.Query{Limit: 10_000})
	must(w.t, err)
	return r
}

// recorded reports whether a record has the action and outcome, and the detail in its own.
func (w *world) recorded(a access.Action, outcome, detail string) bool {
	w.t.Helper()
	for _, r := range w.records() {
		if r.Action == a && r.Facts.Outcome == outcome && strings.Contains(r.Facts.Detail, detail) {
			return true
		}
	}
	return false
}

// refused counts the records that deny by the rule.
func (w *world) refused(rule string) int {
	w.t.Helper()
	n := 0
	for _, r := range w.records() {
		if !r.Allow && r.Rule == rule {
			n++
		}
	}
	return n
}

// edit is a provider's fault: the grant is taken, and the answer's members are changed.
func edit(change func(m map[string]any)) oauthtest.Fault {
	return func(rw http.ResponseWriter, r *http.Request, behave http.HandlerFunc) {
		rec := httptest.NewRecorder()
		behave(rec, r)
		m := map[string]any{}
		if err := json.Unmarshal(rec.Body.Bytes(), &m); err != nil {
			panic(err) // the server answers JSON only
		}
		change(m)
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(rec.Code)
		_ = json.NewEncoder(rw).Encode(m)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want code %q", what, err, code)
	}
}

// endingOf is the ending that err carries, "" for none and "other" for any other error.
func endingOf(err error) broker.Ending {
	end, ok := errors.AsType[*broker.EndError](err)
	switch {
	case err == nil:
		return ""
	case !ok || fault.CodeOf(err) != fault.Denied:
		return "other"
	}
	return end.Ending
}

// wantEnding wants a Denied fault whose cause is the ending.
func wantEnding(t testing.TB, what string, err error, e broker.Ending) {
	t.Helper()
	if endingOf(err) != e {
		t.Errorf("%s: got %v, want the ending %s", what, err, e)
	}
}

func wantError(t testing.TB, what string, err error, code fault.Code, msg string) {
	t.Helper()
	wantCode(t, what, err, code)
	if err != nil && !strings.Contains(fault.Public(err).Msg, msg) {
		t.Errorf("%s: got message %q, want %q in it", what, fault.Public(err).Msg, msg)
	}
}

func query(t testing.TB, u secret.Text) url.Values {
	t.Helper()
	parsed, err := url.Parse(u.Expose())
	must(t, err)
	return parsed.Query()
}
