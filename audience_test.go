package tabard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/oauth2"

	"github.com/tabard-id/tabard"
)

// exchangeFake is fake with a token endpoint in front.
type exchangeFake struct {
	*fake
	answer func(n int, form url.Values) (int, object, string) // status, body, exception

	mu    sync.Mutex // guards forms
	forms []url.Values
}

func newExchangeFake() *exchangeFake {
	f := &exchangeFake{fake: newFake()}
	f.answer = func(n int, form url.Values) (int, object, string) {
		return 200, object{"access_token": fmt.Sprintf("%s-for-%s-%d", form.Get("subject_token"), form.Get("audience"), n), "token_type": "Bearer",
			"issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "expires_in": 600, "scope": form.Get("scope")}, ""
	}
	return f
}

func (f *exchangeFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/oauth2/token" {
		f.fake.ServeHTTP(w, r)
		return
	}
	if r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") || r.ParseForm() != nil {
		http.Error(w, `{"error":"invalid_request","error_description":"not a signed form"}`, http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.forms = append(f.forms, r.PostForm)
	n := len(f.forms)
	f.mu.Unlock()
	status, body, exception := f.answer(n, r.PostForm)
	if exception != "" {
		w.Header().Set("X-Amzn-Errortype", exception)
	}
	w.Header().Set("X-Amzn-Requestid", "req-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (f *exchangeFake) Do(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	f.ServeHTTP(rec, r)
	return rec.Result(), nil
}

func (f *exchangeFake) client(t *testing.T, change ...func(*tabard.Config)) *tabard.Client {
	t.Helper()
	conf := awsConfig()
	conf.HTTPClient = f
	return newClient(t, tabard.Config{AWS: &conf, Endpoint: "http://127.0.0.1:1"}, change...)
}

func TestExchangeToken(t *testing.T) {
	f := newExchangeFake()
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "alice")
	got, err := c.ExchangeToken(ctx, tabard.Audience{Target: "reports", Scopes: []string{"read", "write"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.AccessToken != "wat-1-alice<nil>-for-reports-1" || !got.HasScope("read") || !got.HasScope("write") || got.Type != "Bearer" || got.Expiry.IsZero() {
		t.Errorf("got %s, scopes %q, %s, until %s", got.AccessToken, got.Scopes, got.Type, got.Expiry)
	}
	want := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {"wat-1-alice<nil>"}, "audience": {"reports"},
		"subject_token_type": {"urn:tabard:params:oauth:token-type:workload-access-token"}, "scope": {"read write"}}
	if f.forms[0].Encode() != want.Encode() {
		t.Errorf("sent %s", f.forms[0].Encode())
	}
	if _, err := c.ExchangeToken(t.Context(), tabard.Audience{Target: "reports", Machine: true}); err != nil {
		t.Errorf("for the agent itself: %v", err)
	}
	for what, call := range map[string]struct {
		ctx  context.Context
		a    tabard.Audience
		code tabard.Code
	}{
		"no user":           {t.Context(), tabard.Audience{Target: "reports"}, tabard.ErrNoIdentity},
		"a user and not":    {ctx, tabard.Audience{Target: "reports", Machine: true}, tabard.ErrInvalid},
		"nobody to be for":  {ctx, tabard.Audience{}, tabard.ErrInvalid},
		"a scope, no token": {t.Context(), tabard.Audience{Scopes: []string{"read"}, Machine: true}, tabard.ErrInvalid},
	} {
		if _, err := c.ExchangeToken(call.ctx, call.a); !errors.Is(err, call.code) {
			t.Errorf("%s: got %v, want %v", what, err, call.code)
		}
	}
	if len(f.forms) != 2 {
		t.Errorf("%d exchanges, want 2", len(f.forms))
	}
}

// What the service refuses is told by kind, with its own sentence; a workload access token that is no longer good is
// minted anew once.
func TestExchangeTokenRefused(t *testing.T) {
	f := newExchangeFake()
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "alice")
	good := f.answer
	for exception, code := range map[string]tabard.Code{"AccessDeniedException": tabard.ErrDenied, "ValidationException": tabard.ErrInvalid} {
		f.answer = func(int, url.Values) (int, object, string) {
			return 400, object{"error": "invalid_target", "error_description": "no policy allows it"}, exception
		}
		_, err := c.ExchangeToken(ctx, tabard.Audience{Target: "reports"})
		e, ok := errors.AsType[*tabard.Error](err)
		if !ok || e.Code != code || e.Message != "invalid_target: no policy allows it" || e.RequestID != "req-8" {
			t.Errorf("%s: got %v", exception, err)
		}
	}
	f.answer = func(n int, form url.Values) (int, object, string) {
		if strings.HasPrefix(form.Get("subject_token"), "wat-1-") {
			return 400, object{"error": "invalid_request", "error_description": "revoked"}, "UnauthorizedException"
		}
		return good(n, form)
	}
	if got, err := c.ExchangeToken(ctx, tabard.Audience{Target: "reports"}); err != nil || !strings.HasPrefix(got.AccessToken, "wat-2-") {
		t.Errorf("after the workload access token was revoked: %v", err)
	}
}

func TestAudienceTokenSource(t *testing.T) {
	f := newExchangeFake()
	source := f.client(t).AudienceTokenSource(tabard.WithUserToken(t.Context(), "alice"), tabard.Audience{Target: "reports"})
	for range 3 {
		if _, err := source.Token(); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.forms) != 1 {
		t.Errorf("%d exchanges for three calls, want 1", len(f.forms))
	}
}

// The token goes to the audience's hosts, for its own user, and nowhere else.
func TestAudienceClient(t *testing.T) {
	f := newExchangeFake()
	var seen []string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer service.Close()
	host := strings.TrimPrefix(service.URL, "http://")
	ctx := tabard.WithUserToken(t.Context(), "alice")
	c := f.client(t)
	get := func(hc *http.Client, ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, service.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := get(c.AudienceClient(ctx, tabard.Audience{Target: "reports", Hosts: []string{host}}), t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || seen[0] != "Bearer wat-1-alice<nil>-for-reports-1" {
		t.Errorf("the service saw %q, want the token once: a 401 is its last word", seen)
	}
	if err := get(c.AudienceClient(ctx, tabard.Audience{Target: "reports", Hosts: []string{"reports.example.com"}}), t.Context()); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("to another host: %v", err)
	}
	bob := tabard.WithUserToken(t.Context(), "bob")
	if err := get(c.AudienceClient(ctx, tabard.Audience{Target: "reports"}), bob); !errors.Is(err, tabard.ErrMixedIdentity) {
		t.Errorf("for another user: %v", err)
	}
	if len(seen) != 1 {
		t.Errorf("the service saw %q", seen)
	}
}

func TestAcceptToken(t *testing.T) {
	f := newExchangeFake()
	f.answer = func(n int, form url.Values) (int, object, string) {
		return 200, object{"access_token": "own-" + form.Get("subject_token"), "token_type": "N_A", "expires_in": 600}, ""
	}
	c := f.client(t)
	h := http.Header{}
	h.Set(tabard.HeaderWAT, "wat-of-the-caller")
	ctx, err := c.AcceptToken(tabard.FromHeader(t.Context(), h))
	if err != nil {
		t.Fatal(err)
	}
	if form := f.forms[0]; form.Get("audience") != "calendar-agent" || form.Get("subject_token") != "wat-of-the-caller" ||
		form.Get("requested_token_type") != "urn:tabard:params:oauth:token-type:workload-access-token" {
		t.Errorf("sent %s", form.Encode())
	}
	if _, err := c.Token(ctx, calendarNeed()); err != nil {
		t.Fatal(err)
	}
	if got := f.seen(opToken)[0]["workloadIdentityToken"]; got != "own-wat-of-the-caller" {
		t.Errorf("acts with %v", got)
	}
	for what, bad := range map[string]context.Context{"nothing": t.Context(), "a user's own token": tabard.WithUserToken(t.Context(), "alice")} {
		if _, err := c.AcceptToken(bad); !errors.Is(err, tabard.ErrNoIdentity) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	nameless := f.client(t, func(c *tabard.Config) { c.Workload = "" })
	if _, err := nameless.AcceptToken(ctx); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("without a workload: %v", err)
	}
}

// exchanging stands for an agent's client and the context of a request of alice's, at a service that knows audiences.
func exchanging() (*tabard.Client, context.Context) {
	conf := awsConfig()
	conf.HTTPClient = newExchangeFake()
	client, err := tabard.New(context.Background(), tabard.Config{AWS: &conf, Endpoint: "http://127.0.0.1:1", Workload: "calendar-agent"})
	if err != nil {
		panic(err)
	}
	return client, tabard.WithUserToken(context.Background(), "alice.b.c")
}

// A service of one's own trusts the Tabard server as its OpenID Connect issuer. What it gets names alice as it knows
// her, and the agent that acts for her.
func ExampleClient_AudienceClient() {
	client, ctx := exchanging()
	reports := tabard.Audience{Target: "https://reports.example.com", Scopes: []string{"reports:read"}, Hosts: []string{"reports.example.com"}}
	resp, err := client.AudienceClient(ctx, reports).Get("https://reports.example.com/weekly")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
}

func ExampleClient_ExchangeToken() {
	client, ctx := exchanging()
	token, err := client.ExchangeToken(ctx, tabard.Audience{Target: "https://reports.example.com", Scopes: []string{"reports:read"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token, token.Type, token.Scopes)
	// Output: tabard.Token([secret]) Bearer [reports:read]
}

// With golang.org/x/oauth2, and all that builds on it.
func ExampleClient_AudienceTokenSource() {
	client, ctx := exchanging()
	source := client.AudienceTokenSource(ctx, tabard.Audience{Target: "reports"})
	fmt.Println(oauth2.NewClient(ctx, source) != nil)
	// Output: true
}

// An agent that another agent called: from here on it acts as itself, for the same user.
func ExampleClient_AcceptToken() {
	client, err := tabard.New(context.Background(), tabard.Config{Workload: "booking-agent", AWS: &aws.Config{Region: "us-east-1"}})
	if err != nil {
		log.Fatal(err)
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		ctx, err := client.AcceptToken(r.Context())
		if err != nil {
			http.Error(w, "not for us", http.StatusUnauthorized)
			return
		}
		_ = client.HTTPClient(ctx, tabard.OAuth2{Provider: "google-calendar"})
	}
	http.Handle("POST /book", client.Middleware(http.HandlerFunc(handler)))
}
