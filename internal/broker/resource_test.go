package broker_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// entraWorld has the provider "v" of Microsoft, at a script that behaves as Microsoft Entra does.
func entraWorld(t *testing.T) *world {
	t.Helper()
	return vendorWorld(t, oauthtest.Microsoft, "microsoftOauth2ProviderConfig")
}

// No token serves two resources, so that a request for both is refused before a browser is sent, and says what to do.
func TestM05_TwoResourcesInOneRequest(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := entraWorld(t)
		wat := w.wat(w.agentA, "alice")
		const one = "https://graph.microsoft.com"
		for name, row := range map[string]struct {
			scopes []string
			other  string // the second resource; "" where there is one only
		}{
			"bare and in full":                {[]string{"User.Read", one + "/Mail.Read"}, ""},
			"with a slash too many":           {[]string{one + "//.default", "User.Read"}, ""},
			"the host in another case":        {[]string{"https://Graph.Microsoft.com/User.Read", "Mail.Read"}, ""},
			"by the application's id":         {[]string{"00000003-0000-0000-c000-000000000000/User.Read", "Mail.Read"}, ""},
			"scopes of OpenID Connect":        {[]string{"openid", "profile", "email", "offline_access", "api://x/read"}, ""},
			"a path in the resource":          {[]string{"https://a.example/one/api/Read", "https://a.example/one/api/Write"}, ""},
			"two APIs":                        {[]string{"User.Read", "api://x/read"}, "api://x"},
			"two APIs behind OpenID scopes":   {[]string{"openid", "api://x/read", "email", "api://y/read"}, "api://y"},
			"all of one and one of another":   {[]string{"User.Read", "api://x/.default"}, "api://x"},
			"two paths":                       {[]string{"https://a.example/one/Read", "https://a.example/two/Read"}, "https://a.example/two"},
			"two paths that differ in case":   {[]string{"https://a.example/one/Read", "https://a.example/One/Read"}, "https://a.example/One"},
			"two schemes":                     {[]string{"https://x/read", "api://x/read"}, "api://x"},
			"one that only looks like OIDC's": {[]string{"User.Read", "api://x/openid"}, "api://x"},
		} {
			for _, change := range []func(*broker.Request){func(*broker.Request) {}, machine} {
				_, err := w.Token(t.Context(), w.agentA, ask(wat, at("v"), scopes(row.scopes...), change))
				if row.other == "" {
					if fault.Public(err).Field == "scopes" {
						t.Errorf("%s: %v", name, err)
					}
					continue
				}
				wantError(t, name, err, fault.Invalid, row.other)
				wantError(t, name, err, fault.Invalid, "a call of its own")
			}
		}
		if n := w.grants("refresh_token"); n != 0 {
			t.Errorf("%d refreshes, want none", n)
		}
		// Vendors whose tokens are for no one resource know no such thing.
		w.pending(w.agentA, ask(wat, scopes("User.Read", "api://x/read")))
	})
}

// entraConsent walks alice through a consent for the scopes at "v".
func (w *world) entraConsent(s ...string) broker.Outcome {
	w.t.Helper()
	return w.consent("alice", at("v"), scopes(s...))
}

// api asks for alice's token of the scopes at "v".
func (w *world) api(s ...string) (broker.Outcome, error) {
	w.t.Helper()
	return w.Token(w.t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("v"), scopes(s...)))
}

// served wants alice's token for the resource.
func (w *world) served(resource string, s ...string) broker.Outcome {
	w.t.Helper()
	out, err := w.api(s...)
	must(w.t, err)
	if got := w.provider.Audience(out.AccessToken.Expose()); out.AccessToken.IsZero() || got != resource {
		w.t.Fatalf("%q: got a token for %q and session %q, want one for %s", s, got, out.Session, resource)
	}
	return out
}

// asked wants a consent session.
func (w *world) asked(s ...string) broker.Outcome {
	w.t.Helper()
	out, err := w.api(s...)
	must(w.t, err)
	if out.Session == "" {
		w.t.Fatalf("%q: got no consent session", s)
	}
	return out
}

const graph = "https://graph.microsoft.com"

// One consent, two APIs: the second is served by the refresh token of the first, each with its own token, and the user
// is not asked. What was asked for one counts for that one only, and all live on the newest refresh token.
func TestM05_SiblingsLiveOnOneRefreshToken(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := entraWorld(t)
		w.provider.Consent("api://x/read api://x/write")
		mail := w.entraConsent("Mail.Read", "offline_access")
		x := w.served("api://x", "api://x/read", "offline_access")
		if x.Connection == mail.Connection || x.Granted[0] != "api://x/read" {
			t.Errorf("got connection %s with %q beside %s", x.Connection, x.Granted, mail.Connection)
		}
		if again := w.served("api://x", "api://x/read", "offline_access"); !again.AccessToken.Equal(x.AccessToken) || again.Connection != x.Connection {
			t.Error("the second request is not served from the vault")
		}
		if again := w.served(graph, "https://graph.microsoft.com/Mail.Read"); again.Connection != mail.Connection {
			t.Error("a bare scope and its full name are two connections")
		}
		first, second := w.connection(mail.Connection), w.connection(x.Connection)
		if first.Lineage == "" || first.Lineage != second.Lineage || len(first.Refresh)+len(second.Refresh) > 0 {
			t.Errorf("got lineages %q and %q, and %d bytes of refresh tokens beside", first.Lineage, second.Lineage, len(first.Refresh)+len(second.Refresh))
		}
		for range 3 { // each refresh brings another token, which the other continues with
			w.clock.add(2 * time.Hour)
			w.served(graph, "Mail.Read")
			w.served("api://x", "api://x/read", "offline_access")
		}
		sent := w.sentRefresh()
		if slices.Sort(sent); len(sent) != 7 || len(slices.Compact(sent)) != 7 {
			t.Errorf("%d refreshes, want 7, each with the newest token: none is left at its predecessor", len(sent))
		}
		if n := w.grants("authorization_code"); n != 1 {
			t.Errorf("%d consents, want 1", n)
		}
		if !w.recorded(access.GetResourceOauth2Token, "refresh", "another resource of a consent: api://x") || !w.recorded(access.RefreshTokens, "refreshed", "") {
			t.Error("the trail does not say how the token for the other resource came")
		}
		for _, r := range w.records() {
			if strings.Contains(fmt.Sprintf("%+v", r), "rt-") {
				t.Errorf("a refresh token is in the trail: %+v", r)
			}
		}
		// More of a resource than was granted needs its user, and asks for that resource only.
		p := w.asked("api://x/admin")
		v, err := w.Authorize(t.Context(), p.Session)
		must(t, err)
		if got := query(t, v.URL).Get("scope"); strings.Contains(got, "Mail") {
			t.Errorf("the consent asks for %q", got)
		}
	})
}

// The provider decides when the user is asked: that its refresh is refused for one resource leaves the others alone.
func TestM05_ConsentIsAskedForOneResource(t *testing.T) {
	w := entraWorld(t)
	mail := w.entraConsent("Mail.Read", "offline_access")
	w.asked("api://x/read", "offline_access")
	w.asked("api://x/read", "offline_access")
	if n := w.grants("refresh_token"); n != 1 {
		t.Errorf("%d refreshes that the provider refuses, want 1", n)
	}
	w.clock.add(2 * time.Hour)
	if out := w.served(graph, "Mail.Read"); out.Connection != mail.Connection {
		t.Error("another connection")
	}
	x := w.entraConsent("api://x/read", "offline_access")
	if w.provider.Audience(x.AccessToken.Expose()) != "api://x" {
		t.Error("not the API's token")
	}
	w.served(graph, "Mail.Read")
	// A refusal that is about the token itself ends the refresh token for all; each asks once its access token has ended.
	w.provider.RevokeAll()
	w.clock.add(2 * time.Hour)
	w.asked("Mail.Read")
	w.asked("api://x/read")
	if c := w.connection(mail.Connection); c.State != broker.NeedsReauth || c.Reason != "invalid_grant" {
		t.Errorf("got state %s, reason %q", c.State, c.Reason)
	}
}

// A claims challenge is kept sealed and sent with the next consent of that resource, and with no other.
func TestM05_ClaimsChallenge(t *testing.T) {
	engines(t, func(t *testing.T) {
		const claims = `{"access_token":{"capolids":{"essential":true,"values":["c6-claims-canary"]}}}`
		sent := func(w *world, p broker.Outcome) string {
			v, err := w.Authorize(t.Context(), p.Session)
			must(t, err)
			return query(t, v.URL).Get("claims")
		}
		w := entraWorld(t)
		w.provider.Consent("api://x/read")
		w.entraConsent("Mail.Read", "offline_access")
		w.provider.Challenge("api://x", claims)
		if got := sent(w, w.asked("api://x/read")); got != claims {
			t.Errorf("a new resource: got claims %q", got)
		}
		if got := sent(w, w.asked("Mail.Send")); got != "" {
			t.Errorf("another resource gets claims %q", got)
		}
		x := w.entraConsent("api://x/read", "offline_access")
		if c := w.connection(x.Connection); len(c.Claims) > 0 || c.State != broker.Active {
			t.Errorf("after the consent: %d bytes of claims, state %s", len(c.Claims), c.State)
		}
		// The same of a connection that lived.
		w.provider.Challenge("api://x", claims)
		w.clock.add(2 * time.Hour)
		if got := sent(w, w.asked("api://x/read")); got != claims {
			t.Errorf("a connection that lived: got claims %q", got)
		}
		c := w.connection(x.Connection)
		if c.Reason != "interaction_required" || len(c.Claims) == 0 || bytes.Contains(c.Claims, []byte("c6-claims-canary")) {
			t.Errorf("got reason %q and %d bytes of claims", c.Reason, len(c.Claims))
		}
		for _, r := range w.records() {
			if strings.Contains(fmt.Sprintf("%+v", r), "c6-claims-canary") {
				t.Errorf("the claims are in the trail: %+v", r)
			}
		}
		w.served(graph, "Mail.Read")
		// And of a code that is refused.
		p := w.asked("api://y/read")
		w.hold(p.Session)
		w.provider.Queue("/token", oauthtest.Status(http.StatusBadRequest, `{"error":"interaction_required","claims":`+strconv.Quote(claims)+`}`))
		wantEnding(t, "a code that is refused", w.complete(w.appA, p.Session, "alice"), broker.EndFailed)
		if got := sent(w, w.asked("api://y/read")); got != claims {
			t.Errorf("after a code that was refused: got claims %q", got)
		}
	})
}

// M05: a claims challenge that a living connection keeps does not lock its user out once the connection was
// transferred.
func TestM05_TransferKeepsTheClaimsChallenge(t *testing.T) {
	const claims = `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`
	w := entraWorld(t)
	mail := w.entraConsent("Mail.Read", "offline_access")
	p := w.asked("Mail.Send")
	w.hold(p.Session)
	w.provider.Queue("/token", oauthtest.Status(http.StatusBadRequest, `{"error":"interaction_required","claims":`+strconv.Quote(claims)+`}`))
	wantEnding(t, "the code", w.complete(w.appA, p.Session, "alice"), broker.EndFailed)
	if c := w.connection(mail.Connection); c.State != broker.Active || len(c.Claims) == 0 {
		t.Fatalf("state %s, %d bytes of claims", c.State, len(c.Claims))
	}
	_, err := w.TransferConnection(t.Context(), w.admin, mail.Connection, "agent-b")
	must(t, err)
	out, err := w.Token(t.Context(), w.agentB, ask(w.wat(w.agentB, "alice"), at("v"), scopes("Mail.Send")))
	must(t, err)
	v, err := w.Authorize(t.Context(), out.Session)
	if err != nil {
		t.Fatalf("the user cannot consent any more: %v", err)
	}
	if got := query(t, v.URL).Get("claims"); got != claims {
		t.Errorf("got claims %q", got)
	}
}
