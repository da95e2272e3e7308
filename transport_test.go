package tabard_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/api/calendar/v3"
	"google.golang.org/api/option"

	"github.com/tabard-id/tabard"
)

// resource is a provider's API that takes only the named tokens.
type resource struct {
	*httptest.Server
	mu   sync.Mutex // guards all below
	good map[string]bool
	hits []string // "token body"
}

func newResource(t *testing.T, good ...string) *resource {
	t.Helper()
	r := &resource{good: map[string]bool{}}
	for _, g := range good {
		r.good[g] = true
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
		r.mu.Lock()
		r.hits = append(r.hits, token+" "+string(body))
		ok := r.good[token]
		r.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"summary":"lunch","items":[{"summary":"lunch"}]}`)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *resource) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.hits...)
}

func request(t *testing.T, ctx context.Context, method, url, body string) *http.Request {
	t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, rd)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestTransportTakesTheRequestsUser(t *testing.T) {
	f := newFake()
	f.on(opToken, func(_ int, in object) (int, object) {
		wat := in["workloadIdentityToken"].(string)
		return granted("for-" + strings.SplitN(wat, "-", 3)[2])
	})
	res := newResource(t, "for-alice.b.c<nil>", "for-bob.b.c<nil>")
	hc := &http.Client{Transport: f.client(t).Transport(calendarNeed(), nil)}
	for _, user := range []string{"alice.b.c", "bob.b.c"} {
		req := request(t, tabard.WithUserToken(t.Context(), user), "GET", res.URL, "")
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || !strings.HasPrefix(res.seen()[len(res.seen())-1], "for-"+user) {
			t.Errorf("%s: %d, resource saw %v", user, resp.StatusCode, res.seen())
		}
		if req.Header.Get("Authorization") != "" || resp.Request.Header.Get("Authorization") != "" {
			t.Error("the token is left in the caller's request")
		}
	}
	if _, err := hc.Do(request(t, t.Context(), "GET", res.URL, "")); !errors.Is(err, tabard.ErrNoIdentity) {
		t.Errorf("without a user: %v, want ErrNoIdentity", err)
	}
}

func TestTransportRepeatsOnceOn401(t *testing.T) {
	f := newFake()
	res := newResource(t, "provider-2", "provider-4")
	hc := f.client(t).HTTPClient(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
	resp, err := hc.Do(request(t, t.Context(), "POST", res.URL, `{"summary":"lunch"}`))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v", err)
	}
	_ = resp.Body.Close()
	want := []string{`provider-1 {"summary":"lunch"}`, `provider-2 {"summary":"lunch"}`}
	if got := res.seen(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("resource saw %q, want %q", got, want)
	}

	// A body that cannot be read twice is not repeated: the caller sees the resource's 401.
	res.mu.Lock()
	res.good = map[string]bool{}
	res.mu.Unlock()
	req := request(t, t.Context(), "POST", res.URL, "x")
	req.GetBody = nil
	if resp, err = hc.Do(req); err != nil || resp.StatusCode != 401 || len(res.seen()) != 3 {
		t.Errorf("stream: %v, resource saw %q", err, res.seen())
	}
	_ = resp.Body.Close()

	// The service has nothing better: one more question, no second request.
	f.on(opToken, func(int, object) (int, object) { return granted("provider-2") })
	asked := len(f.seen(opToken))
	if resp, err = hc.Do(request(t, t.Context(), "GET", res.URL, "")); err != nil || resp.StatusCode != 401 {
		t.Errorf("same token: %v", err)
	}
	_ = resp.Body.Close()
	if len(res.seen()) != 4 || len(f.seen(opToken)) != asked+1 {
		t.Errorf("resource saw %d, service was asked %d more times", len(res.seen()), len(f.seen(opToken))-asked)
	}

	// Consent was withdrawn: that reaches the caller as such through net/http.
	f.on(opToken, func(int, object) (int, object) { return pending() })
	_, err = hc.Do(request(t, t.Context(), "GET", res.URL, ""))
	if e, ok := errors.AsType[*tabard.ConsentRequiredError](err); !ok || e.URL != authURL {
		t.Errorf("got %v, want ConsentRequiredError", err)
	}
}

func TestHTTPClientRefusesAnotherUser(t *testing.T) {
	f := newFake()
	res := newResource(t, "provider-1")
	alice := tabard.WithUserToken(t.Context(), "alice.b.c")
	hc := f.client(t).HTTPClient(alice, calendarNeed())
	_, err := hc.Do(request(t, tabard.WithUserToken(t.Context(), "bob.b.c"), "GET", res.URL, ""))
	if !errors.Is(err, tabard.ErrMixedIdentity) || len(res.seen()) != 0 {
		t.Errorf("got %v, resource saw %v", err, res.seen())
	}
	for _, ctx := range []context.Context{alice, t.Context()} {
		resp, err := hc.Do(request(t, ctx, "GET", res.URL, ""))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
}

func TestHTTPClientBuildsOnTheContextsClient(t *testing.T) {
	var got string
	base := &http.Client{Timeout: time.Minute, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r.Header.Get("Authorization")
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
	})}
	ctx := context.WithValue(tabard.WithUserToken(t.Context(), "a.b.c"), oauth2.HTTPClient, base)
	hc := newFake().client(t).HTTPClient(ctx, calendarNeed())
	if _, err := hc.Get("https://www.googleapis.com/x"); err != nil || got != "Bearer provider-1" || hc.Timeout != time.Minute {
		t.Errorf("got %v, header %q, timeout %s", err, got, hc.Timeout)
	}
	if base.Transport == hc.Transport {
		t.Error("the context's client was changed")
	}
}

func TestTokenStaysWithItsHosts(t *testing.T) {
	f := newFake()
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	elsewhere := newResource(t)
	away := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/steal", http.StatusTemporaryRedirect))
	t.Cleanup(away.Close)
	resp, err := c.HTTPClient(ctx, calendarNeed()).Get(away.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := elsewhere.seen(); len(got) != 1 || got[0] != " " {
		t.Errorf("the redirect's target saw %q, want a request without a token", got)
	}

	need := calendarNeed()
	need.Hosts = []string{"www.googleapis.com"}
	for _, tc := range []struct {
		need tabard.OAuth2
		url  string
	}{{calendarNeed(), "http://calendar.example/x"}, {need, "https://www.googleapis.com.evil.example/"},
		{need, "https://www.googleapis.com:8443/"}, {need, elsewhere.URL}, {need, "http://www.googleapis.com/"}} {
		body := &closed{}
		req := request(t, ctx, "POST", tc.url, "")
		req.Body = body
		asked := len(f.seen(opToken))
		if _, err := c.Transport(tc.need, nil).RoundTrip(req); !errors.Is(err, tabard.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", tc.url, err)
		}
		if !body.yes || len(f.seen(opToken)) != asked {
			t.Errorf("%s: body closed %v, service asked %v", tc.url, body.yes, len(f.seen(opToken)) != asked)
		}
	}
	need.Hosts = []string{"WWW.googleapis.com:443", "http://calendar.internal:8080"}
	base := roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
	})
	for _, url := range []string{"https://www.googleapis.com/x", "http://calendar.internal:8080/x"} {
		if _, err := c.Transport(need, base).RoundTrip(request(t, ctx, "GET", url, "")); err != nil {
			t.Errorf("a named host: %v", err)
		}
	}
	if _, err := c.Transport(need, base).RoundTrip(request(t, ctx, "GET", "http://calendar.internal/x", "")); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("another port in clear: %v, want ErrInvalid", err)
	}
}

type closed struct{ yes bool }

func (c *closed) Read([]byte) (int, error) { return 0, io.EOF }
func (c *closed) Close() error             { c.yes = true; return nil }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestGoogleTakesItAsItIs is the promise of this package: Google's own client, with nothing in between.
func TestGoogleTakesItAsItIs(t *testing.T) {
	f := newFake()
	res := newResource(t, "provider-1")
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	for name, opt := range map[string]option.ClientOption{
		"WithHTTPClient":  option.WithHTTPClient(c.HTTPClient(ctx, calendarNeed())),
		"WithTokenSource": option.WithTokenSource(c.TokenSource(ctx, calendarNeed())),
	} {
		f.on(opToken, func(int, object) (int, object) { return granted("provider-1") })
		svc, err := calendar.NewService(ctx, opt, option.WithEndpoint(res.URL))
		if err != nil {
			t.Fatal(err)
		}
		event, err := svc.Events.Insert("primary", &calendar.Event{Summary: "lunch"}).Context(ctx).Do()
		if err != nil || event.Summary != "lunch" {
			t.Errorf("%s: %v", name, err)
		}
		f.on(opToken, func(int, object) (int, object) { return pending() })
		fresh := option.WithHTTPClient(c.HTTPClient(ctx, calendarNeed()))
		if name == "WithTokenSource" {
			fresh = option.WithTokenSource(c.TokenSource(ctx, calendarNeed()))
		}
		if svc, err = calendar.NewService(ctx, fresh, option.WithEndpoint(res.URL)); err != nil {
			t.Fatal(err)
		}
		_, err = svc.Events.List("primary").Context(ctx).Do()
		if _, ok := errors.AsType[*tabard.ConsentRequiredError](err); !ok {
			t.Errorf("%s: without consent: %v, want ConsentRequiredError", name, err)
		}
	}
	plain := oauth2.NewClient(ctx, c.TokenSource(ctx, calendarNeed()))
	if _, err := plain.Get(res.URL); !errors.Is(err, tabard.ErrConsentRequired) {
		t.Errorf("oauth2.NewClient: %v, want ErrConsentRequired", err)
	}
}
