package standin_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"
	gcal "google.golang.org/api/calendar/v3"
	"google.golang.org/api/option"

	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/standin"
)

func decode(t *testing.T, s string) []byte {
	t.Helper()
	out, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type calendarTest struct {
	*standin.Calendar
	clock  *clock
	config oauth2.Config
}

func newCalendar(t *testing.T) calendarTest {
	t.Helper()
	out := calendarTest{clock: &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}}
	serve(t, func(issuer string) http.Handler {
		var err error
		out.Calendar, err = standin.NewCalendar(standin.CalendarConfig{Issuer: issuer, Now: out.clock.Now, Clients: []standin.Client{
			{ID: "tabard", Name: "Tabard", Secret: secret.New(webSecret), RedirectURIs: []string{redirectURI}, ClientCredentials: true},
			{ID: "other", Secret: secret.New("other-secret"), RedirectURIs: []string{redirectURI}}}})
		if err != nil {
			t.Fatal(err)
		}
		return out.Handler()
	})
	out.config = oauth2.Config{ClientID: "tabard", ClientSecret: webSecret, RedirectURL: redirectURI, Scopes: []string{standin.ScopeCalendarEvents},
		Endpoint: oauth2.Endpoint{AuthURL: out.Issuer() + "/o/oauth2/v2/auth", TokenURL: out.Issuer() + "/token", AuthStyle: oauth2.AuthStyleInHeader}}
	return out
}

// answer goes through login and consent and returns the query that the client gets.
func (c calendarTest) answer(t *testing.T, user standin.User, verifier string, options ...oauth2.AuthCodeOption) url.Values {
	t.Helper()
	start := c.config.AuthCodeURL("s-2", append(options, oauth2.S256ChallengeOption(verifier))...)
	page, err := browser().Approve(t.Context(), start, user)
	if err != nil {
		t.Fatalf("consent of %s: %v", user.Name, err)
	}
	return page.URL.Query()
}

// connect returns a token for the user, with a refresh token.
func (c calendarTest) connect(t *testing.T, user standin.User) *oauth2.Token {
	t.Helper()
	verifier := oauth2.GenerateVerifier()
	token, err := c.config.Exchange(t.Context(), c.answer(t, user, verifier, oauth2.AccessTypeOffline).Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatalf("exchange: %v", err)
	}
	return token
}

// refresh presents a refresh token.
func (c calendarTest) refresh(t *testing.T, token string) (*oauth2.Token, error) {
	t.Helper()
	return c.config.TokenSource(t.Context(), &oauth2.Token{RefreshToken: token}).Token()
}

// google is Google's own client, with this access token.
func (c calendarTest) google(t *testing.T, access string) *gcal.Service {
	t.Helper()
	s, err := gcal.NewService(t.Context(), option.WithEndpoint(c.Endpoint()),
		option.WithTokenSource(oauth2.StaticTokenSource(&oauth2.Token{AccessToken: access})))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantOAuthError(t *testing.T, what string, err error, code string) {
	t.Helper()
	var re *oauth2.RetrieveError
	if !errors.As(err, &re) || re.ErrorCode != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

func alice() standin.User { return standin.CalendarUsers()[0] }
func bob() standin.User   { return standin.CalendarUsers()[1] }

func TestConsentAnswersTheClient(t *testing.T) {
	c := newCalendar(t)
	verifier := oauth2.GenerateVerifier()
	q := c.answer(t, alice(), verifier)
	if q.Get("state") != "s-2" || q.Get("iss") != c.Issuer() {
		t.Errorf("RFC 9207: got state %q and iss %q, want s-2 and %s", q.Get("state"), q.Get("iss"), c.Issuer())
	}
	token, err := c.config.Exchange(t.Context(), q.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if token.RefreshToken != "" {
		t.Error("a refresh token came without access_type=offline")
	}
	if token.Extra("scope") != standin.ScopeCalendarEvents || token.ExpiresIn != 60 {
		t.Errorf("got scope %v and expires_in %d, want %s and 60", token.Extra("scope"), token.ExpiresIn, standin.ScopeCalendarEvents)
	}
	page, err := browser().Deny(t.Context(), c.config.AuthCodeURL("s-3", oauth2.S256ChallengeOption(verifier)), alice())
	if err != nil {
		t.Fatal(err)
	}
	if q := page.URL.Query(); q.Get("error") != "access_denied" || q.Get("state") != "s-3" || q.Get("code") != "" {
		t.Errorf("deny: got error %q, state %q, code %t", q.Get("error"), q.Get("state"), q.Has("code"))
	}
	c.config.Scopes = []string{standin.ScopeCalendarEvents, "https://www.googleapis.com/auth/calendar.readonly", "offline_access"}
	page, err = browser().Approve(t.Context(), c.config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)), alice(), standin.ScopeCalendarEvents)
	if err != nil {
		t.Fatal(err)
	}
	if token, err = c.config.Exchange(t.Context(), page.URL.Query().Get("code"), oauth2.VerifierOption(verifier)); err != nil {
		t.Fatal(err)
	}
	if token.Extra("scope") != standin.ScopeCalendarEvents || token.RefreshToken != "" {
		t.Errorf("two scopes unticked: got %v, refresh token %t, want the one that stayed", token.Extra("scope"), token.RefreshToken != "")
	}
}

func TestAuthorizationRefusals(t *testing.T) {
	c := newCalendar(t)
	pkce := oauth2.S256ChallengeOption(oauth2.GenerateVerifier())
	set := oauth2.SetAuthURLParam
	for name, row := range map[string]struct {
		options []oauth2.AuthCodeOption
		error   string // at the client; empty means a page here
	}{
		"no PKCE":           {nil, "invalid_request"},
		"PKCE plain":        {[]oauth2.AuthCodeOption{pkce, set("code_challenge_method", "plain")}, "invalid_request"},
		"implicit":          {[]oauth2.AuthCodeOption{pkce, set("response_type", "token")}, "unsupported_response_type"},
		"unknown scope":     {[]oauth2.AuthCodeOption{pkce, set("scope", "everything")}, "invalid_scope"},
		"prompt none":       {[]oauth2.AuthCodeOption{pkce, set("prompt", "none")}, "login_required"},
		"foreign redirect":  {[]oauth2.AuthCodeOption{pkce, set("redirect_uri", redirectURI+"/x")}, ""},
		"unknown client":    {[]oauth2.AuthCodeOption{pkce, set("client_id", "nobody")}, ""},
		"redirect left out": {[]oauth2.AuthCodeOption{pkce, set("redirect_uri", "")}, ""},
	} {
		page, err := browser().Visit(t.Context(), c.config.AuthCodeURL("s", row.options...))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := page.URL.Query().Get("error"); got != row.error || (row.error == "" && page.Status != http.StatusBadRequest) {
			t.Errorf("%s: got error %q, status %d, want %q", name, got, page.Status, row.error)
		}
	}
	if n := len(c.TokenRequests()); n != 0 {
		t.Errorf("got %d token requests, want none", n)
	}
}

func TestRefreshRotatesAndReuseEndsTheGrant(t *testing.T) {
	c := newCalendar(t)
	first := c.connect(t, alice())
	bobs := c.connect(t, bob())
	second, err := c.refresh(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken {
		t.Fatal("the refresh token was not replaced")
	}
	if _, err := c.google(t, second.AccessToken).Events.List("primary").Do(); err != nil {
		t.Fatalf("refreshed token: %v", err)
	}
	_, err = c.refresh(t, first.RefreshToken)
	wantOAuthError(t, "reuse", err, "invalid_grant")
	_, err = c.refresh(t, second.RefreshToken)
	wantOAuthError(t, "the newest token after a reuse", err, "invalid_grant")
	if c.AccessTokenWorks(secret.New(second.AccessToken)) {
		t.Error("the access token survived the reuse")
	}
	if _, err := c.refresh(t, bobs.RefreshToken); err != nil {
		t.Errorf("bob's grant died with alice's: %v", err)
	}
	if got := c.Refreshes(); got != 4 {
		t.Errorf("Refreshes: got %d, want 4", got)
	}
	last := c.TokenRequests()[4]
	if diff := cmp.Diff(standin.TokenRequest{GrantType: "refresh_token", Client: "tabard", User: alice().Name, Status: 400, Error: "invalid_grant"}, last); diff != "" {
		t.Errorf("record of a refused refresh (-want +got):\n%s", diff)
	}
}

func TestCodeIsBoundAndWorksOnce(t *testing.T) {
	c := newCalendar(t)
	verifier := oauth2.GenerateVerifier()
	redeem := func(code, verifier string, change func(*oauth2.Config)) (*oauth2.Token, error) {
		config := c.config
		change(&config)
		return config.Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
	}
	same := func(*oauth2.Config) {}
	for name, try := range map[string]func(code string) error{
		"other verifier": func(code string) error { _, err := redeem(code, oauth2.GenerateVerifier(), same); return err },
		"other redirect": func(code string) error {
			_, err := redeem(code, verifier, func(c *oauth2.Config) { c.RedirectURL += "/" })
			return err
		},
		"other client": func(code string) error {
			_, err := redeem(code, verifier, func(c *oauth2.Config) { c.ClientID, c.ClientSecret = "other", "other-secret" })
			return err
		},
		"no verifier": func(code string) error { _, err := c.config.Exchange(t.Context(), code); return err },
		"late": func(code string) error {
			c.clock.advance(6 * time.Minute)
			_, err := redeem(code, verifier, same)
			return err
		},
	} {
		wantOAuthError(t, name, try(c.answer(t, alice(), verifier).Get("code")), "invalid_grant")
	}
	code := c.answer(t, alice(), verifier, oauth2.AccessTypeOffline).Get("code")
	token, err := redeem(code, verifier, func(c *oauth2.Config) { c.Endpoint.AuthStyle = oauth2.AuthStyleInParams })
	if err != nil {
		t.Fatalf("redemption with client_secret_post: %v", err)
	}
	_, err = redeem(code, verifier, same)
	wantOAuthError(t, "second use", err, "invalid_grant")
	_, err = c.refresh(t, token.RefreshToken)
	wantOAuthError(t, "refresh after a code was used twice", err, "invalid_grant")
	_, err = redeem("4/x", verifier, func(c *oauth2.Config) { c.ClientSecret = "wrong" })
	wantOAuthError(t, "wrong secret", err, "invalid_client")
	if got := c.Redemptions(); got != 8 {
		t.Errorf("Redemptions: got %d, want 8", got)
	}
}

func TestRevocationAndTheKnobs(t *testing.T) {
	c := newCalendar(t)
	token := c.connect(t, alice())
	c.SetAccessTokenLifetime(7 * time.Second)
	c.ExpireAccessTokens()
	if c.AccessTokenWorks(secret.New(token.AccessToken)) {
		t.Error("ExpireAccessTokens left a token alive")
	}
	token, err := c.refresh(t, token.RefreshToken)
	if err != nil {
		t.Fatalf("refresh after ExpireAccessTokens: %v", err)
	}
	if token.ExpiresIn != 7 {
		t.Errorf("SetAccessTokenLifetime: got %d seconds, want 7", token.ExpiresIn)
	}
	form := url.Values{"token": {token.RefreshToken}, "client_id": {"other"}, "client_secret": {"other-secret"}}
	if got := post(t, c.Issuer()+"/revoke", form); got != http.StatusBadRequest {
		t.Errorf("revocation by another client: got %d, want 400", got)
	}
	form.Set("client_id", "tabard")
	form.Set("client_secret", webSecret)
	if got := post(t, c.Issuer()+"/revoke", form); got != http.StatusOK {
		t.Errorf("revocation: got %d, want 200", got)
	}
	_, err = c.refresh(t, token.RefreshToken)
	wantOAuthError(t, "refresh after revocation", err, "invalid_grant")
	if got := post(t, c.Issuer()+"/revoke", url.Values{"token": {"unknown"}}); got != http.StatusOK {
		t.Errorf("RFC 7009 §2.2, unknown token: got %d, want 200", got)
	}
	token = c.connect(t, bob())
	c.RevokeGrant(bob().Name)
	_, err = c.refresh(t, token.RefreshToken)
	wantOAuthError(t, "refresh after RevokeGrant", err, "invalid_grant")
}

func TestFaultsOfTheTokenEndpoint(t *testing.T) {
	c := newCalendar(t)
	token := c.connect(t, alice())
	c.FailNext(standin.Fault{Status: 503}, standin.Fault{DropAnswer: true})
	var re *oauth2.RetrieveError
	if _, err := c.refresh(t, token.RefreshToken); !errors.As(err, &re) || re.Response.StatusCode != 503 {
		t.Errorf("503: got %v", err)
	}
	if _, err := c.refresh(t, token.RefreshToken); err == nil || errors.As(err, &re) && re.Response.StatusCode == 400 {
		t.Errorf("dropped answer: got %v, want a broken connection", err)
	}
	_, err := c.refresh(t, token.RefreshToken)
	wantOAuthError(t, "refresh after a dropped answer, which spent the token", err, "invalid_grant")

	token = c.connect(t, alice())
	release, done := make(chan struct{}), make(chan error, 1)
	c.FailNext(standin.Fault{Wait: release})
	go func() { _, err := c.refresh(t, token.RefreshToken); done <- err }()
	for c.Refreshes() < 4 {
		time.Sleep(time.Millisecond)
	}
	if last := c.TokenRequests(); last[len(last)-1].Status != 0 {
		t.Errorf("a held request: got status %d, want 0", last[len(last)-1].Status)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("released request: %v", err)
	}
}

func post(t *testing.T, address string, form url.Values) int {
	t.Helper()
	resp, err := http.PostForm(address, form)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestMetadataNamesWhatIsServed(t *testing.T) {
	c := newCalendar(t)
	page, err := browser().Visit(t.Context(), c.Issuer()+"/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Issuer, Token_endpoint, Authorization_endpoint, Revocation_endpoint string
		Code_challenge_methods_supported                                    []string
		Authorization_response_iss_parameter_supported                      bool
	}
	if err := json.Unmarshal([]byte(page.Body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Issuer != c.Issuer() || got.Token_endpoint != c.config.Endpoint.TokenURL || got.Authorization_endpoint != c.config.Endpoint.AuthURL ||
		got.Revocation_endpoint == "" || !got.Authorization_response_iss_parameter_supported || !cmp.Equal(got.Code_challenge_methods_supported, []string{"S256"}) {
		t.Errorf("got %+v", got)
	}
}

func TestConsentCanBeDecidedOnlyInItsOwnSessionAndOnce(t *testing.T) {
	c := newCalendar(t)
	start := c.config.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	ask := func(b *standin.Browser, user standin.User) (*standin.Page, string) {
		page, err := b.LogIn(t.Context(), start, user)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(page.Body, `name="request" value="`)
		key, _, ok := strings.Cut(rest, `"`)
		if !ok {
			t.Fatalf("no consent form at %s", page.URL.Path)
		}
		return page, key
	}
	as, bs := browser(), browser()
	alicePage, aliceKey := ask(as, alice())
	bobPage, _ := ask(bs, bob())
	page, err := bs.Submit(t.Context(), bobPage, url.Values{"decision": {"allow"}, "request": {aliceKey}})
	if err != nil || page.Status != http.StatusBadRequest {
		t.Errorf("bob deciding alice's request: got %v, %d, want 400", err, page.Status)
	}
	for i, want := range []bool{true, false} {
		page, err := as.Submit(t.Context(), alicePage, url.Values{"decision": {"allow"}})
		if err != nil || page.URL.Query().Has("code") != want {
			t.Errorf("alice's decision %d: got code %t, error %v, want %t", i+1, page.URL.Query().Has("code"), err, want)
		}
	}
}
