package standin_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/standin"
)

// redirectURI is never served: the browsers of these tests stop there.
const redirectURI = "http://127.0.0.1:9/callback"

const webSecret = "web-app-secret & more:%2F"

// serve starts what build makes for the server's own address.
func serve(t *testing.T, build func(issuer string) http.Handler) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	issuer := "http://" + srv.Listener.Addr().String()
	srv.Config.Handler = build(issuer)
	srv.Start()
	t.Cleanup(srv.Close)
	return issuer
}

func newOIDC(t *testing.T) *standin.OIDC {
	t.Helper()
	var o *standin.OIDC
	serve(t, func(issuer string) http.Handler {
		var err error
		o, err = standin.NewOIDC(standin.OIDCConfig{Issuer: issuer, Clients: []standin.Client{
			{ID: "web", Name: "Web app", Secret: secret.New(webSecret), RedirectURIs: []string{redirectURI}},
			{ID: "spa", RedirectURIs: []string{redirectURI}}}})
		if err != nil {
			t.Fatal(err)
		}
		return o.Handler()
	})
	return o
}

// browser returns a browser that stops at the client's redirect URI.
func browser() *standin.Browser {
	b := standin.NewBrowser()
	b.Stop = func(u *url.URL) bool { return u.Host == "127.0.0.1:9" }
	return b
}

// relyingParty is the client's side of the OpenID provider, on other people's libraries.
type relyingParty struct {
	provider *oidc.Provider
	config   oauth2.Config
}

func newRelyingParty(t *testing.T, o *standin.OIDC) relyingParty {
	t.Helper()
	p, err := oidc.NewProvider(t.Context(), o.Issuer())
	if err != nil {
		t.Fatalf("discovery: %v", err)
	}
	return relyingParty{p, oauth2.Config{ClientID: "web", ClientSecret: webSecret, Endpoint: p.Endpoint(), RedirectURL: redirectURI,
		Scopes: []string{"openid", "profile", "email", "offline_access"}}}
}

// logIn goes through the code flow and returns the tokens and the verified ID token.
func (rp relyingParty) logIn(t *testing.T, user standin.User) (*oauth2.Token, *oidc.IDToken) {
	t.Helper()
	verifier := oauth2.GenerateVerifier()
	start := rp.config.AuthCodeURL("s-1", oauth2.S256ChallengeOption(verifier), oidc.Nonce("n-1"))
	page, err := browser().LogIn(t.Context(), start, user)
	if err != nil {
		t.Fatalf("login of %s: %v", user.Name, err)
	}
	if got := page.URL.Query().Get("state"); got != "s-1" {
		t.Fatalf("login of %s: got state %q at %s, want s-1", user.Name, got, page.URL.Path)
	}
	token, err := rp.config.Exchange(t.Context(), page.URL.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatalf("exchange: %v", err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := rp.provider.Verifier(&oidc.Config{ClientID: "web"}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatalf("id token: %v", err)
	}
	return token, id
}

// accessClaims verifies an access token against the published keys and returns its claims.
func (rp relyingParty) accessClaims(t *testing.T, raw string) map[string]any {
	t.Helper()
	parsed, err := rp.provider.Verifier(&oidc.Config{SkipClientIDCheck: true}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatalf("access token: %v", err)
	}
	var claims map[string]any
	if err := parsed.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestOIDCTokensAreShapedAsCognitos(t *testing.T) {
	o := newOIDC(t)
	rp := newRelyingParty(t, o)
	subjects := map[string]string{}
	for _, user := range standin.OIDCUsers() {
		token, id := rp.logIn(t, user)
		claims := rp.accessClaims(t, token.AccessToken)
		want := map[string]any{"iss": o.Issuer(), "client_id": "web", "token_use": "access", "username": user.Name,
			"sub": user.Subject(), "scope": "openid profile email offline_access"}
		for k, v := range want {
			if claims[k] != v {
				t.Errorf("%s: access token %s: got %v, want %v", user.Name, k, claims[k], v)
			}
		}
		if aud, ok := claims["aud"]; ok {
			t.Errorf("%s: access token has aud %v, want none", user.Name, aud)
		}
		if err := id.VerifyAccessToken(token.AccessToken); err != nil {
			t.Errorf("%s: at_hash: %v", user.Name, err)
		}
		var about struct {
			Email, Name string
			TokenUse    string `json:"token_use"`
		}
		if err := id.Claims(&about); err != nil {
			t.Fatal(err)
		}
		if id.Nonce != "n-1" || id.Subject != user.Subject() || about.Email != user.Email || about.Name != user.FullName || about.TokenUse != "id" {
			t.Errorf("%s: id token: got nonce %q, subject %q and %+v", user.Name, id.Nonce, id.Subject, about)
		}
		if left := time.Until(token.Expiry); left < 59*time.Minute || left > 61*time.Minute {
			t.Errorf("%s: expires in %v, want an hour", user.Name, left)
		}
		subjects[id.Subject] = user.Name
	}
	if len(subjects) != 2 {
		t.Errorf("got subjects %v, want alice and bob apart", subjects)
	}
}

func TestOIDCRefreshRotatesAndUserinfoKnowsTheUser(t *testing.T) {
	o := newOIDC(t)
	rp := newRelyingParty(t, o)
	alice := standin.OIDCUsers()[0]
	first, _ := rp.logIn(t, alice)
	if first.RefreshToken == "" {
		t.Fatal("no refresh token for offline_access")
	}
	old := *first
	old.Expiry = time.Now().Add(-time.Hour)
	second, err := rp.config.TokenSource(t.Context(), &old).Token()
	if err != nil {
		t.Fatalf("refresh: %v", err)
	}
	if second.RefreshToken == first.RefreshToken || second.AccessToken == first.AccessToken {
		t.Error("refresh returned an old token")
	}
	if got := rp.accessClaims(t, second.AccessToken)["username"]; got != "alice" {
		t.Errorf("refreshed token: got username %v, want alice", got)
	}
	if _, err := rp.config.TokenSource(t.Context(), &old).Token(); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("second use of a refresh token: got %v, want invalid_grant", err)
	}
	info, err := rp.provider.UserInfo(t.Context(), oauth2.StaticTokenSource(second))
	if err != nil {
		t.Fatalf("userinfo: %v", err)
	}
	if info.Subject != alice.Subject() || info.Email != alice.Email {
		t.Errorf("userinfo: got %s %s, want %s %s", info.Subject, info.Email, alice.Subject(), alice.Email)
	}
}

func TestOIDCDemandsPKCEAndSpendsCodesOnce(t *testing.T) {
	rp := newRelyingParty(t, newOIDC(t))
	page, err := browser().Visit(t.Context(), rp.config.AuthCodeURL("s"))
	if err != nil {
		t.Fatal(err)
	}
	if got := page.URL.Query().Get("error"); got != "invalid_request" {
		t.Errorf("no PKCE: got error %q at %s, want invalid_request", got, page.URL.Path)
	}
	verifier := oauth2.GenerateVerifier()
	page, err = browser().LogIn(t.Context(), rp.config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)), standin.OIDCUsers()[1])
	if err != nil {
		t.Fatal(err)
	}
	code := page.URL.Query().Get("code")
	if _, err := rp.config.Exchange(t.Context(), code, oauth2.VerifierOption(verifier)); err != nil {
		t.Fatalf("first redemption: %v", err)
	}
	if _, err := rp.config.Exchange(t.Context(), code, oauth2.VerifierOption(verifier)); err == nil {
		t.Error("second redemption of a code worked")
	}
}

func TestOIDCLoginRefusesAWrongPasswordAndAForeignForm(t *testing.T) {
	o := newOIDC(t)
	rp := newRelyingParty(t, o)
	start := rp.config.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	alice := standin.OIDCUsers()[0]
	wrong := alice
	wrong.Password = secret.New("guess")
	b := browser()
	page, err := b.LogIn(t.Context(), start, wrong)
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != http.StatusUnauthorized || !strings.Contains(page.Body, `role="alert"`) {
		t.Errorf("wrong password: got %d, want 401 with a message", page.Status)
	}
	page, err = b.Submit(t.Context(), page, url.Values{"username": {"alice"}, "password": {alice.Password.Expose()}, "form": {"forged"}})
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != http.StatusForbidden {
		t.Errorf("forged form: got %d, want 403", page.Status)
	}
	page, err = b.Submit(t.Context(), page, url.Values{"username": {"alice"}, "password": {alice.Password.Expose()}})
	if err != nil {
		t.Fatal(err)
	}
	if page.URL.Query().Get("code") == "" {
		t.Errorf("correct login after two failures: got %s, want a code", page.URL.Path)
	}
	for _, hop := range b.Chain() {
		if strings.ContainsAny(hop.Path, "?=") {
			t.Errorf("the chain holds a query: %s", hop)
		}
	}
}

func TestOIDCMintsAndRotates(t *testing.T) {
	o := newOIDC(t)
	before := o.MintAccessToken("alice", "web")
	if err := o.RotateKey(); err != nil {
		t.Fatal(err)
	}
	after := o.MintAccessToken("bob", "web")
	rp := newRelyingParty(t, o)
	if a, b := rp.accessClaims(t, before.Expose()), rp.accessClaims(t, after.Expose()); a["username"] != "alice" || b["username"] != "bob" {
		t.Errorf("minted tokens: got %v and %v, want alice and bob", a["username"], b["username"])
	}
	if kid(t, before) == kid(t, after) {
		t.Error("the key id is the same after a rotation")
	}
	if _, err := rp.provider.Verifier(&oidc.Config{ClientID: "web"}).Verify(t.Context(), o.MintIDToken("alice", "web").Expose()); err != nil {
		t.Errorf("minted id token: %v", err)
	}
	if err := o.RotateKey(); err != nil {
		t.Fatal(err)
	}
	fresh := newRelyingParty(t, o)
	if _, err := fresh.provider.Verifier(&oidc.Config{SkipClientIDCheck: true}).Verify(t.Context(), before.Expose()); err == nil {
		t.Error("a token of the key before the previous one still verifies")
	}
	if got := o.Sign(map[string]any{"sub": "x"}); strings.Count(got.Expose(), ".") != 2 {
		t.Error("Sign did not return a JWT")
	}
}

// kid reads the key id of a JWT.
func kid(t *testing.T, token secret.Text) string {
	t.Helper()
	head, _, _ := strings.Cut(token.Expose(), ".")
	var h struct{ Kid string }
	if err := json.Unmarshal(decode(t, head), &h); err != nil {
		t.Fatal(err)
	}
	return h.Kid
}

func TestNewOIDCRefusesABadConfiguration(t *testing.T) {
	for name, c := range map[string]standin.OIDCConfig{
		"issuer with a path": {Issuer: "http://127.0.0.1:1/x"},
		"no issuer":          {},
		"client without id":  {Issuer: "http://127.0.0.1:1", Clients: []standin.Client{{}}},
		"user twice":         {Issuer: "http://127.0.0.1:1", Users: append(standin.OIDCUsers(), standin.OIDCUsers()...)},
	} {
		if _, err := standin.NewOIDC(c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
