package broker_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

func exchanging(o broker.OnBehalfOf) func(*broker.ProviderSpec) {
	return func(s *broker.ProviderSpec) { s.OnBehalfOf = &o }
}

// onBehalf asks for an exchange at the provider.
func onBehalf(provider string) func(*broker.Request) {
	return func(r *broker.Request) { r.Provider, r.Flow, r.ReturnURL = provider, broker.FlowOnBehalfOf, "" }
}

// lastForm is what the token endpoint got last.
func (w *world) lastForm() url.Values {
	w.t.Helper()
	all := w.provider.Requests()
	if len(all) == 0 {
		w.t.Fatal("the provider got no request")
	}
	return all[len(all)-1].Form
}

func TestExchangeOnBehalfOfTheUser(t *testing.T) {
	w := newWorld(t)
	w.createProvider("obo", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	jwt := w.jwt("alice")
	m, err := w.identity.MintTokenForJWT(t.Context(), w.agentA, "agent-a", jwt)
	must(t, err)
	first := w.token(w.agentA, ask(m.Token, onBehalf("obo"), scopes("b", "a")))
	if got := w.lastForm(); got.Get("subject_token") != jwt.Expose() || got.Get("scope") != "b a" || got.Has("actor_token") {
		t.Errorf("got the form's names %v and scope %q", len(got), got.Get("scope"))
	}
	again := w.token(w.agentA, ask(m.Token, onBehalf("obo"), scopes("a", "b")))
	if !again.AccessToken.Equal(first.AccessToken) || again.Connection != first.Connection || w.grants(oauthtest.GrantTokenExchange) != 1 {
		t.Errorf("the same scopes were exchanged again: %d exchanges", w.grants(oauthtest.GrantTokenExchange))
	}
	c := w.connection(first.Connection)
	if c.Flow != broker.FlowOnBehalfOf || c.User == "" || len(c.Refresh) != 0 || c.Asserted {
		t.Errorf("got a connection of flow %s, with a refresh token of %d bytes, want none", c.Flow, len(c.Refresh))
	}
	other := w.token(w.agentA, ask(m.Token, onBehalf("obo"), scopes("a")))
	bob := w.token(w.agentA, ask(w.wat(w.agentA, "bob"), onBehalf("obo"), scopes("a", "b")))
	forced := w.token(w.agentA, ask(m.Token, onBehalf("obo"), scopes("a", "b"), force))
	if other.Connection == first.Connection || bob.Connection == first.Connection || forced.AccessToken.Equal(first.AccessToken) {
		t.Error("other scopes, another user or force were served with the stored token")
	}
	before := w.grants(oauthtest.GrantTokenExchange)
	w.clock.add(time.Hour) // the provider's token ends
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), onBehalf("obo"), scopes("a", "b")))
	if n := w.grants(oauthtest.GrantTokenExchange); n != before+1 {
		t.Errorf("got %d exchanges, want %d: an expired token is exchanged anew", n, before+1)
	}
	if !w.recorded(access.GetResourceOauth2Token, "released", "") {
		t.Error("the trail has no release")
	}
	_, err = w.Token(t.Context(), w.agentB, ask(w.wat(w.agentA, "alice"), onBehalf("obo")))
	wantCode(t, "another agent's principal", err, fault.Denied)
}

func TestExchangeForms(t *testing.T) {
	w := newWorld(t)
	w.createProvider("actor", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorClient, ActorScopes: []string{"act"}}))
	w.createProvider("alone", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorNone, NoClient: true}))
	w.createProvider("bearer", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.JWTAuthorizationGrant}))
	wat := w.wat(w.agentA, "alice")
	w.token(w.agentA, ask(wat, onBehalf("actor")))
	if got := w.lastForm(); !strings.HasPrefix(got.Get("actor_token"), "at-") || w.grants("client_credentials") != 1 {
		t.Errorf("no token of the client came as actor: %d client credentials grants", w.grants("client_credentials"))
	}
	if r := w.provider.Requests(); r[len(r)-2].Form.Get("scope") != "act" {
		t.Errorf("the actor's token was asked with the scope %q", r[len(r)-2].Form.Get("scope"))
	}
	w.token(w.agentA, ask(wat, onBehalf("alone")))
	r := w.provider.Requests()
	if last := r[len(r)-1]; last.Authorization != "" || last.Form.Has("client_id") {
		t.Error("NO_CLIENT sent the client")
	}
	w.token(w.agentA, ask(wat, onBehalf("bearer")))
	if got := w.lastForm(); got.Get("assertion") == "" || got.Has("subject_token") || got.Has("requested_token_use") {
		t.Errorf("a JWT authorization grant has the wrong members (%d)", len(got))
	}
}

func TestB15_ExchangeNeedsTheUsersToken(t *testing.T) {
	w := newWorld(t)
	early := w.wat(w.agentA, "alice")
	w.createProvider("obo", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	_, err := w.Token(t.Context(), w.agentA, ask(early, onBehalf("obo")))
	wantError(t, "minted before", err, fault.Invalid, "mint it again with GetWorkloadAccessTokenForJWT")
	alone, err := w.identity.MintToken(t.Context(), w.agentA, "agent-a")
	must(t, err)
	_, err = w.Token(t.Context(), w.agentA, ask(alone.Token, onBehalf("obo")))
	wantError(t, "no user", err, fault.Invalid, "mint it with GetWorkloadAccessTokenForJWT")
	_, err = w.Token(t.Context(), w.agentA, ask(w.watForID(w.agentA, "alice"), onBehalf("obo")))
	wantError(t, "an asserted user", err, fault.Invalid, "mint it with GetWorkloadAccessTokenForJWT")
	if n := len(w.provider.Requests()); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
}

func TestB14_ExchangeChecksTheUsersTokenAgain(t *testing.T) {
	w := newWorld(t)
	w.createProvider("obo", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	wat := w.wat(w.agentA, "alice")
	must(t, w.identity.DeleteIssuer(t.Context(), w.root, issuerURL))
	_, err := w.Token(t.Context(), w.agentA, ask(wat, onBehalf("obo")))
	wantCode(t, "an issuer that lost its trust", err, fault.Unauthenticated)
	w.trust(w.root)
	w.clock.add(identity.UserTokenLife)
	_, err = w.Token(t.Context(), w.agentA, ask(wat, onBehalf("obo")))
	wantCode(t, "expired", err, fault.Unauthenticated)
	if n := len(w.provider.Requests()); n != 0 {
		t.Errorf("the user's token was sent %d times", n)
	}
	if n, err := w.Sweep(t.Context()); err != nil || n != 1 {
		t.Errorf("swept %d, %v; want the one kept token", n, err)
	}
}

func TestExchangeRefusedByTheProvider(t *testing.T) {
	w := newWorld(t)
	w.createProvider("obo", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	jwt := w.jwt("alice")
	m, err := w.identity.MintTokenForJWT(t.Context(), w.agentA, "agent-a", jwt)
	must(t, err)
	w.provider.Queue(oauthtest.Token, oauthtest.Status(400, `{"error":"invalid_target","error_description":"not for `+jwt.Expose()+`"}`))
	_, err = w.Token(t.Context(), w.agentA, ask(m.Token, onBehalf("obo")))
	wantError(t, "refused", err, fault.Invalid, "invalid_target")
	if strings.Contains(err.Error(), jwt.Expose()) {
		t.Error("the error has the user's token")
	}
	w.token(w.agentA, ask(m.Token, onBehalf("obo")))
	for _, name := range []string{"subject_token", "actor_token", "actor_token_type", "assertion", "grant_type"} {
		r := ask(m.Token, onBehalf("obo"))
		r.CustomParameters = map[string]secret.Text{name: secret.New("x")}
		_, err := w.Token(t.Context(), w.agentA, r)
		wantError(t, name, err, fault.Invalid, "cannot be overridden")
	}
}

func TestProviderThatExchanges(t *testing.T) {
	w := newWorld(t)
	plain := w.createProvider("plain", "CustomOauth2")
	microsoft, err := w.CreateProvider(t.Context(), w.admin, broker.ProviderSpec{
		Name: "entra", Vendor: "MicrosoftOauth2", Member: "microsoftOauth2ProviderConfig", ClientID: "c", Secret: secret.New("client-secret"),
	})
	must(t, err)
	if o := microsoft.OnBehalfOf; o == nil || o.Grant != broker.JWTAuthorizationGrant {
		t.Errorf("Microsoft exchanges by %+v, want a JWT authorization grant without configuration", o)
	}
	for name, o := range map[string]broker.OnBehalfOf{
		"no grant":                 {},
		"an actor with a JWT":      {Grant: broker.JWTAuthorizationGrant, Actor: broker.ActorClient},
		"an unknown actor":         {Grant: broker.TokenExchange, Actor: "SOMEBODY"},
		"scopes of a JWT actor":    {Grant: broker.TokenExchange, Actor: broker.ActorIDToken, ActorScopes: []string{"x"}},
		"scopes of no actor":       {Grant: broker.TokenExchange, ActorScopes: []string{"x"}},
		"scopes of the actor NONE": {Grant: broker.TokenExchange, Actor: broker.ActorNone, ActorScopes: []string{"x"}},
	} {
		s := w.spec("bad", "CustomOauth2")
		s.OnBehalfOf = &o
		_, err := w.CreateProvider(t.Context(), w.admin, s)
		wantCode(t, name, err, fault.Invalid)
	}
	// It decides what the user's token is sent with, so a change of it needs the client secret.
	s := w.spec("plain", "CustomOauth2")
	s.OnBehalfOf, s.Secret = &broker.OnBehalfOf{Grant: broker.TokenExchange}, secret.Text{}
	_, err = w.UpdateProvider(t.Context(), w.admin, s)
	wantCode(t, "without the secret", err, fault.Invalid)
	s.Secret = secret.New(oauthtest.ClientSecret)
	p, err := w.UpdateProvider(t.Context(), w.admin, s)
	must(t, err)
	if p.Identity == plain.Identity || p.OnBehalfOf == nil {
		t.Error("the security identity does not say how users' tokens are exchanged")
	}
	s.OnBehalfOf = nil
	if p, err = w.UpdateProvider(t.Context(), w.admin, s); err != nil || p.Identity != plain.Identity {
		t.Errorf("without the exchange: got another identity than before (%v)", err)
	}
}
