package e2e_test

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// hosted is a world with an identity provider of its own, whose users an agent without a web application acts for.
type hosted struct {
	*world
	users *peer.OIDC // where users sign in; w.idp is the provider whose tokens agents want
	agent key
}

func newHosted(t *testing.T, db string) *hosted {
	h := &hosted{world: newWorld(t, db)}
	h.users = peer.OIDCProvider(t, peer.OIDCConfig{Clients: []peer.Client{{ID: appClient, Secret: "app-secret", RedirectURIs: []string{"http://127.0.0.1:1/callback"}}}})
	h.call(root(), "CreateTrustedIssuer", map[string]any{"issuer": h.users.Issuer, "audiences": []string{appClient}})
	h.workload("cli-agent")
	h.provider("calendar")
	h.agent = h.principal("agent", "cli-agent", "agent")
	return h
}

func (h *hosted) setLogin() {
	h.t.Helper()
	const id, secret = "tabard-login", "canary-login-secret-5d0c"
	redirect := h.loginRedirect()
	if got := h.call(root(), "SetIssuerLogin", map[string]any{"issuer": h.users.Issuer, "clientId": id, "clientSecret": secret}).get("redirectUri"); got != redirect {
		h.t.Fatalf("got redirect URI %s, and %s was told before", got, redirect)
	}
	h.users.Register(h.t, peer.Client{ID: id, Secret: secret, RedirectURIs: []string{redirect}})
}

// loginRedirect is what the list of issuers tells before there is a login client.
func (h *hosted) loginRedirect() string {
	h.t.Helper()
	var list struct {
		TrustedIssuers []struct{ Issuer, LoginRedirectURI string }
	}
	if err := json.Unmarshal([]byte(h.call(root(), "ListTrustedIssuers", map[string]any{}).body), &list); err != nil || len(list.TrustedIssuers) != 1 {
		h.t.Fatalf("got %+v, %v", list, err)
	}
	redirect := list.TrustedIssuers[0].LoginRedirectURI
	if !strings.HasPrefix(redirect, h.server.PublicURL()+"/identities/hosted/callback/") {
		h.t.Fatalf("got redirect URI %s", redirect)
	}
	return redirect
}

func (h *hosted) returnURL() string { return h.server.PublicURL() + "/identities/hosted/done" }

// begin asks for a token of alice with hosted consent.
func (h *hosted) begin() (ask map[string]any, address string) {
	h.t.Helper()
	jwt := h.users.Login(h.t, appClient, "alice").ID
	ask = map[string]any{
		"workloadIdentityToken": h.wat(h.agent, "cli-agent", jwt), "resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION",
		"scopes": []string{"openid", "calendar.write"}, "resourceOauth2ReturnUrl": h.returnURL(), "forceAuthentication": true,
	}
	first := h.call(h.agent, "GetResourceOauth2Token", ask)
	ask["sessionUri"] = first.get("sessionUri")
	delete(ask, "forceAuthentication")
	return ask, first.get("authorizationUrl")
}

var hiddenInput = regexp.MustCompile(`<input type="hidden" name="([a-z_]+)" value="([^"]*)">`)

// form is what the consent page sends with an answer.
func form(t *testing.T, p peer.Page, answer string) url.Values {
	t.Helper()
	if p.Status != http.StatusOK || !strings.Contains(p.Body, `action="/identities/hosted/decide"`) {
		t.Fatalf("no consent page but %d at %s\n%s", p.Status, p.URL, p.Body)
	}
	values := url.Values{"answer": {answer}}
	for _, m := range hiddenInput.FindAllStringSubmatch(p.Body, -1) {
		values.Set(m[1], html.UnescapeString(m[2]))
	}
	return values
}

func (h *hosted) decide(b *peer.Browser, values url.Values) peer.Page {
	h.t.Helper()
	return b.Submit(h.t, h.server.PublicURL()+"/identities/hosted/decide", values, "")
}

func (h *hosted) redeemed() int { return h.idp.Count(h.t, "authorization_code", "ok") }

func TestHosted_UserAllows(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		h := newHosted(t, db)
		h.setLogin()
		ask, address := h.begin()
		b := peer.NewBrowser("alice")
		p := b.Walk(t, address, "")
		for _, want := range []string{"cli-agent", "calendar", "alice", "calendar.write", strings.TrimPrefix(h.idp.Issuer, "http://"), strings.TrimPrefix(h.server.PublicURL(), "http://")} {
			if !strings.Contains(p.Body, want) {
				t.Errorf("the page does not show %q:\n%s", want, p.Body)
			}
		}
		if got := h.call(h.agent, "GetResourceOauth2Token", ask).get("accessToken"); got != "" || h.redeemed() != 0 {
			t.Fatalf("a token before the user said yes")
		}
		end := h.decide(b, form(t, p, "allow"))
		if end.Status != http.StatusOK || !strings.Contains(end.Body, "<h1>Connected</h1>") || end.URL.String() != h.returnURL() {
			t.Fatalf("the browser ended at %s %d\n%s", end.URL, end.Status, end.Body)
		}
		if h.call(h.agent, "GetResourceOauth2Token", ask).get("accessToken") == "" {
			t.Error("no token after consent")
		}
		if again := b.Walk(t, address, ""); again.Status == http.StatusOK {
			t.Errorf("the link works again: %s", again.Body)
		}
	})
}

// C01, with the server in the place of the application: who opens somebody else's link gives away nothing.
func TestC01_HostedOtherUser(t *testing.T) {
	h := newHosted(t, daemon.SQLite)
	h.setLogin()
	ask, address := h.begin()
	p := peer.NewBrowser("bob").Walk(t, address, "")
	if p.Status != http.StatusForbidden || !strings.Contains(p.Body, "This link is somebody else") {
		t.Errorf("bob got %d\n%s", p.Status, p.Body)
	}
	if r := h.post(h.agent, "GetResourceOauth2Token", encode(t, ask)); r.status != http.StatusForbidden && r.status != http.StatusBadRequest || !strings.Contains(r.body, "not the user who began it") {
		t.Errorf("the poll got %d %s", r.status, r.body)
	}
	if p := peer.NewBrowser("alice").Walk(t, address, ""); p.Status == http.StatusOK {
		t.Errorf("the link lives on: %s", p.Body)
	}
	if n := h.redeemed(); n != 0 {
		t.Errorf("%d codes of the provider were redeemed", n)
	}
}

func TestHosted_UserDenies(t *testing.T) {
	h := newHosted(t, daemon.SQLite)
	h.setLogin()
	ask, address := h.begin()
	b := peer.NewBrowser("alice")
	p := h.decide(b, form(t, b.Walk(t, address, ""), "deny"))
	if p.Status != http.StatusOK || !strings.Contains(p.Body, "<h1>You said no</h1>") {
		t.Errorf("got %d\n%s", p.Status, p.Body)
	}
	if r := h.post(h.agent, "GetResourceOauth2Token", encode(t, ask)); !strings.Contains(r.body, "declined by the user") {
		t.Errorf("the poll got %d %s", r.status, r.body)
	}
	if n := h.redeemed(); n != 0 {
		t.Errorf("%d codes were redeemed", n)
	}
	ask, address = h.begin()
	b = peer.NewBrowser("alice")
	p = b.Walk(t, address, "")
	b.Deny = true
	if p = h.decide(b, form(t, p, "allow")); !strings.Contains(p.Body, "<h1>You declined</h1>") {
		t.Errorf("denied at the provider: got %d\n%s", p.Status, p.Body)
	}
	if r := h.post(h.agent, "GetResourceOauth2Token", encode(t, ask)); !strings.Contains(r.body, "access_denied") {
		t.Errorf("the poll got %d %s", r.status, r.body)
	}
}

// Without a login client, and for users who are only asserted, the agent's author is told what is missing.
func TestHosted_WhatItNeeds(t *testing.T) {
	h := newHosted(t, daemon.SQLite)
	ask := map[string]any{
		"workloadIdentityToken":          h.wat(h.agent, "cli-agent", h.users.Login(t, appClient, "alice").ID),
		"resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION", "scopes": []string{"openid"}, "resourceOauth2ReturnUrl": h.returnURL(),
	}
	if r := h.post(h.agent, "GetResourceOauth2Token", encode(t, ask)); r.status != http.StatusBadRequest || !strings.Contains(r.body, "SetIssuerLogin") {
		t.Errorf("no login client: got %d %s", r.status, r.body)
	}
	h.setLogin()
	ask["workloadIdentityToken"] = h.call(root(), "GetWorkloadAccessTokenForUserId", map[string]any{"workloadName": "cli-agent", "userId": "alice"}).get("workloadAccessToken")
	if r := h.post(h.agent, "GetResourceOauth2Token", encode(t, ask)); r.status != http.StatusBadRequest || !strings.Contains(r.body, "GetWorkloadAccessTokenForJWT") {
		t.Errorf("asserted user: got %d %s", r.status, r.body)
	}
	if r := h.post(h.agent, "SetIssuerLogin", encode(t, map[string]any{"issuer": h.users.Issuer, "clientId": "x"})); r.status != http.StatusForbidden {
		t.Errorf("an agent sets a login client: got %d %s", r.status, r.body)
	}
	if r := h.post(root(), "SetIssuerLogin", encode(t, map[string]any{"issuer": "https://stranger.example", "clientId": "x"})); r.status != http.StatusNotFound {
		t.Errorf("a stranger: got %d %s", r.status, r.body)
	}
}
