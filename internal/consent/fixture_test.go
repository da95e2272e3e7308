package consent_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/consent"
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

const account access.Account = "000000000000"

const requestID = "req-7f3a"

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

// logs collects log lines.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }

func (l *logs) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// world is the pages over a real broker, with a provider and a browser that follows nothing and keeps no cookie.
type world struct {
	t        testing.TB
	broker   *broker.Broker
	people   *identity.Service
	store    *failing
	clock    *clock
	provider *oauthtest.Server
	url      string // of the pages
	log      *logs
	client   *http.Client

	root  access.Caller
	token secret.Text
}

// failing is a store whose reads of sessions a test makes fail.
type failing struct {
	broker.Store
	err error
}

func (f *failing) FlowByID(ctx context.Context, id string) (broker.Flow, error) {
	if f.err != nil {
		return broker.Flow{}, f.err
	}
	return f.Store.FlowByID(ctx, id)
}

func newWorld(t testing.TB, secure bool) *world {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	w := &world{
		t: t, clock: &clock{at: time.Now().Truncate(time.Second)}, provider: oauthtest.New(t), log: &logs{},
		url: "http://" + srv.Listener.Addr().String(),
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
		root: access.Caller{Account: account, Principal: "prn-root", Name: "root", Roles: []access.Role{access.Root}},
	}
	db, err := store.Open(t.Context(), store.Config{SQLitePath: database.New(t)})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	key := filepath.Join(t.TempDir(), "key")
	must(t, kms.CreateFile(key))
	wrapper, err := kms.OpenFile(key)
	must(t, err)
	v, err := vault.New(vault.Config{Store: db, Wrapper: wrapper, Region: "us-east-1", Now: w.clock.now})
	must(t, err)
	t.Cleanup(v.Close)
	guard := access.NewGuard(access.Config{Log: db, Now: w.clock.now, Decider: access.Table{}})
	t.Cleanup(guard.Close)
	dialer := oauth.New(oauth.Config{Dev: true, Now: w.clock.now})
	t.Cleanup(dialer.Close)
	people, err := identity.New(identity.Config{Store: db, Vault: v, Guard: guard, Keys: dialer, Metadata: dialer, Issuer: w.url, Region: "us-east-1", Now: w.clock.now, Dev: true})
	must(t, err)
	catalogue, err := oauth.NewCatalogue()
	must(t, err)
	w.store = &failing{Store: db}
	keys, err := signing.New(signing.Config{Store: db, Vault: v, Issuer: w.url, Now: w.clock.now})
	must(t, err)
	w.broker, err = broker.New(broker.Config{
		Store: w.store, Vault: v, Identity: people, Guard: guard, Signing: keys, Upstream: dialer, Catalogue: catalogue, Login: dialer,
		PublicURL: w.url, Region: "us-east-1", Now: w.clock.now, Dev: true,
	})
	must(t, err)
	pages, err := consent.New(consent.Config{Broker: w.broker, Secure: secure, Log: slog.New(slog.NewJSONHandler(w.log, nil))})
	must(t, err)
	srv.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		pages.ServeHTTP(rw, r.WithContext(access.WithRequestID(r.Context(), requestID)))
	})
	srv.Start()
	t.Cleanup(srv.Close)
	w.people = people
	w.prepare()
	return w
}

// prepare makes an agent with the asserted user "alice", and the provider "cal".
func (w *world) prepare() {
	_, err := w.people.CreateWorkload(w.t.Context(), w.root, identity.NewWorkload{Name: "agent-a", ReturnURLs: []string{"https://app.example.com/done"}})
	must(w.t, err)
	m, err := w.people.MintTokenForUserID(w.t.Context(), w.root, "agent-a", "alice")
	must(w.t, err)
	w.token = m.Token
	_, err = w.broker.CreateProvider(w.t.Context(), w.root, w.spec())
	must(w.t, err)
}

func (w *world) spec() broker.ProviderSpec {
	return broker.ProviderSpec{
		Name: "cal", Vendor: "CustomOauth2", Member: "customOauth2ProviderConfig", ClientID: oauthtest.ClientID,
		Secret: secret.New(oauthtest.ClientSecret), DiscoveryURL: w.provider.URL + oauthtest.Metadata,
	}
}

// session begins one and returns it with its authorization URL.
func (w *world) session() (uri, address string) {
	w.t.Helper()
	out, err := w.broker.Token(w.t.Context(), w.root, broker.Request{
		Token: w.token, Provider: "cal", Flow: broker.FlowUserFederation, Scopes: []string{"read"}, ReturnURL: "https://app.example.com/done",
		CustomState: secret.New("app-state"), Force: true,
	})
	must(w.t, err)
	return out.Session, out.AuthorizationURL.Expose()
}

func (w *world) complete(session, user string) error {
	return w.broker.Complete(w.t.Context(), w.root, session, broker.UserIdentifier{ID: user})
}

// page is an answer of the pages.
type page struct {
	*http.Response
	body string
}

func (w *world) do(method, address string, cookies ...*http.Cookie) page {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, address, nil)
	must(w.t, err)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	resp, err := w.client.Do(r)
	must(w.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return page{resp, string(b)}
}

func (w *world) get(address string, cookies ...*http.Cookie) page {
	w.t.Helper()
	return w.do(http.MethodGet, address, cookies...)
}

// visit opens an authorization URL and consents at the provider: it returns the callback's address and the cookie.
func (w *world) visit(address string) (callback *url.URL, cookie *http.Cookie) {
	w.t.Helper()
	p := w.get(address)
	if p.StatusCode != http.StatusSeeOther || len(p.Cookies()) != 1 {
		w.t.Fatalf("authorize: got %d, %d cookies: %s", p.StatusCode, len(p.Cookies()), p.body)
	}
	c := p.Cookies()[0]
	there := w.get(p.Header.Get("Location"))
	callback, err := url.Parse(there.Header.Get("Location"))
	must(w.t, err)
	return callback, &http.Cookie{Name: c.Name, Value: c.Value}
}

// with returns the address with its query changed.
func with(u *url.URL, change func(url.Values)) string {
	q := u.Query()
	change(q)
	v := *u
	v.RawQuery = q.Encode()
	return v.String()
}

func deny(description string) func(url.Values) {
	return func(q url.Values) {
		q.Del("code")
		q.Set("error", "access_denied")
		q.Set("error_description", description)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantPage wants a page of the status and title, for people, with every header that protects it.
func (w *world) wantPage(what string, p page, status int, title string) {
	w.t.Helper()
	if p.StatusCode != status || !strings.Contains(p.body, "<h1>"+title+"</h1>") {
		w.t.Errorf("%s: got %d\n%s\nwant %d with the title %q", what, p.StatusCode, p.body, status, title)
	}
	if got := p.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		w.t.Errorf("%s: got Content-Type %q", what, got)
	}
	wantProtected(w.t, what, p)
}

func wantProtected(t testing.TB, what string, p page) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Frame-Options":         "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin",
	} {
		if got := p.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %s %q, want %q", what, name, got, want)
		}
	}
}
