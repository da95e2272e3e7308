package broker_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
)

// byIDToken makes a provider's client authenticate by the installation's own JWT, under its client id or none.
func byIDToken(clientID string) func(*broker.ProviderSpec) {
	return func(s *broker.ProviderSpec) {
		s.Secret, s.AuthMethod, s.ClientID = secret.Text{}, broker.AuthIDTokenJWT, clientID
	}
}

// federate has the provider trust this server for the provider's subject.
func (w *world) federate(p broker.Provider) {
	w.t.Helper()
	r, ok := w.Registration(p)
	if !ok {
		w.t.Fatalf("provider %s has nothing to register", p.Name)
	}
	set, err := w.signing.Keys(w.t.Context(), signing.Assertions)
	must(w.t, err)
	must(w.t, w.provider.SetTrust(r.Issuer, r.Subject, set))
}

// verified wants a JWT of ours for the audience, and returns its claims.
func (w *world) verified(token, audience string) jws.Claims {
	w.t.Helper()
	c, err := w.signing.Verify(w.t.Context(), signing.Assertions, "JWT", secret.New(token))
	must(w.t, err)
	if aud, ok := c.String("aud"); !ok || aud != audience {
		w.t.Errorf("got the audience %q (one string: %t), want %s", aud, ok, audience)
	}
	iat, err := c.Time("iat")
	must(w.t, err)
	nbf, err := c.Time("nbf")
	must(w.t, err)
	exp, err := c.Time("exp")
	must(w.t, err)
	if iat.Sub(nbf).Seconds() != 30 || !iat.Equal(w.clock.now()) || exp.Sub(iat).Minutes() != 5 {
		w.t.Errorf("got the times iat %v, nbf %v, exp %v", iat, nbf, exp)
	}
	if jti, _ := c.String("jti"); len(jti) < 20 {
		w.t.Errorf("got the jti %q", jti)
	}
	if a, _ := c.String("account"); a != string(account) {
		w.t.Errorf("got the account %q", a)
	}
	return c
}

func TestIDTokenAuthenticatesTheClient(t *testing.T) {
	w := newWorld(t)
	w.provider.SetLifetime(30) // so that each use refreshes
	p := w.createProvider("federated", "StrictOauth2", byIDToken(oauthtest.ClientID))
	w.federate(p)
	w.consent("alice", at("federated"))
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("federated")))
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("federated"), machine))
	seen := map[string]bool{}
	for _, r := range w.provider.Requests() {
		form := r.Form
		if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || form.Get("client_id") != oauthtest.ClientID ||
			form.Has("client_secret") || r.Authorization != "" {
			t.Errorf("%s authenticates by something else", form.Get("grant_type"))
		}
		c := w.verified(form.Get("client_assertion"), w.provider.URL)
		if sub, _ := c.String("sub"); sub != p.ARN("us-east-1") {
			t.Errorf("got the subject %s, want %s", sub, p.ARN("us-east-1"))
		}
		jti, _ := c.String("jti")
		if seen[jti] {
			t.Errorf("%s came with an assertion that was used", form.Get("grant_type"))
		}
		seen[jti] = true
	}
	for _, kind := range []string{"authorization_code", "refresh_token", "client_credentials"} {
		if w.grants(kind) == 0 {
			t.Errorf("got no request of %s", kind)
		}
	}
	if got, ok := w.Registration(p); !ok || got.Issuer != publicURL || got.Subject != p.ARN("us-east-1") {
		t.Errorf("got the registration %+v", got)
	}
}

func TestIDTokenWithoutClientID(t *testing.T) {
	w := newWorld(t)
	p := w.createProvider("nameless", "StrictOauth2", byIDToken(""))
	w.federate(p)
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("nameless"), machine))
	if form := w.lastForm(); form.Has("client_id") || form.Get("client_assertion") == "" {
		t.Errorf("got client_id %q", form.Get("client_id"))
	}
	_, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("nameless")))
	wantError(t, "consent without a client id", err, fault.Invalid, "has no clientId")
	_, err = w.Token(t.Context(), w.agentB, ask(w.wat(w.agentA, "alice"), at("nameless")))
	wantCode(t, "another agent's principal", err, fault.Denied)
}

// C13: what is signed for one issuer reaches no other server: neither by metadata that names another's endpoint, nor by
// an edit of the provider, for which nobody needs to know a secret.
func TestC13_AudienceInjectionOfIDTokens(t *testing.T) {
	w := newWorld(t)
	honest := w.createProvider("honest", "CustomOauth2", byIDToken(oauthtest.ClientID))
	w.federate(honest)
	evil := oauthtest.New(t)
	evil.SetMetadata("token_endpoint", w.provider.URL+oauthtest.Token)
	w.createProvider("evil", "CustomOauth2", byIDToken(oauthtest.ClientID), func(s *broker.ProviderSpec) {
		s.DiscoveryURL = evil.URL + oauthtest.Metadata
		s.OnBehalfOf = &broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorIDToken}
	})
	_, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("evil"), machine))
	wantError(t, "at the honest server", err, fault.Invalid, "invalid_client")
	w.verified(w.lastForm().Get("client_assertion"), evil.URL)
	_, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), onBehalf("evil")))
	wantError(t, "an exchange at the honest server", err, fault.Invalid, "invalid_client")
	w.verified(w.lastForm().Get("client_assertion"), evil.URL)
	w.verified(w.lastForm().Get("actor_token"), evil.URL)

	inline := func(s *broker.ProviderSpec) {
		s.DiscoveryURL, s.Issuer, s.AuthorizationEndpoint, s.TokenEndpoint = "", w.provider.URL, w.provider.URL+"/authorize", evil.URL+oauthtest.Token
	}
	for what, change := range map[string]func(*broker.ProviderSpec){
		"client": byIDToken(oauthtest.ClientID),
		"actor":  exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorIDToken}),
	} {
		s := w.spec("honest", "CustomOauth2")
		change(&s)
		inline(&s)
		_, err := w.UpdateProvider(t.Context(), w.admin, s)
		wantError(t, what+": the honest issuer with another's token endpoint", err, fault.Invalid, "discoveryUrl")
		s.Name = "another"
		_, err = w.CreateProvider(t.Context(), w.admin, s)
		wantError(t, what+": created so", err, fault.Invalid, "discoveryUrl")
		s.TokenEndpoint = w.provider.URL + oauthtest.Token
		s.Name = "inline-" + what
		_, err = w.CreateProvider(t.Context(), w.admin, s)
		must(t, err)
	}
	if n := len(evil.Requests()); n != 0 {
		t.Errorf("the other server got %d requests", n)
	}
}

func TestIDTokenNamesTheActor(t *testing.T) {
	w := newWorld(t)
	p := w.createProvider("obo", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorIDToken}))
	for _, agent := range []access.Caller{w.agentA, w.agentB} {
		w.token(agent, ask(w.wat(agent, "alice"), onBehalf("obo")))
		form := w.lastForm()
		if form.Get("actor_token_type") != "urn:ietf:params:oauth:token-type:jwt" {
			t.Errorf("got the type %q", form.Get("actor_token_type"))
		}
		want := "arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/" + agent.Name
		if sub, _ := w.verified(form.Get("actor_token"), w.provider.URL).String("sub"); sub != want {
			t.Errorf("got the subject %s, want %s", sub, want)
		}
		w.wantNowhere(map[string]string{"actor token": form.Get("actor_token")})
	}
	if r, ok := w.Registration(p); !ok || r.Issuer != publicURL || r.Subject != "" {
		t.Errorf("got the registration %+v, %t", r, ok)
	}
	if _, ok := w.Registration(w.createProvider("plain", "CustomOauth2")); ok {
		t.Error("a provider that gets no JWT of ours has something to register")
	}
	// A provider quotes what it got.
	w.provider.Queue(oauthtest.Token, func(rw http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		must(t, r.ParseForm())
		oauthtest.Status(400, `{"error":"invalid_request","error_description":"bad `+r.PostForm.Get("actor_token")+`"}`)(rw, r, nil)
	})
	_, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "bob"), onBehalf("obo")))
	wantCode(t, "refused", err, fault.Invalid)
	if err != nil && strings.Contains(err.Error(), "eyJ") {
		t.Error("the error has the actor token")
	}
}

// The method is part of the provider's security identity: what was stored under another needs a new consent.
func TestIDTokenOverUpdates(t *testing.T) {
	w := newWorld(t)
	old := w.createProvider("p", "StrictOauth2")
	w.consent("alice", at("p"))
	s := w.spec("p", "StrictOauth2")
	s.AuthMethod = broker.AuthIDTokenJWT
	_, err := w.UpdateProvider(t.Context(), w.admin, s)
	if wantError(t, "with a secret", err, fault.Invalid, "leave it out"); fault.Public(err).Field != "oauth2ProviderConfigInput.customOauth2ProviderConfig.clientSecret" {
		t.Errorf("got the field %q", fault.Public(err).Field)
	}
	byIDToken(oauthtest.ClientID)(&s)
	s.Assertion = &broker.Assertion{}
	_, err = w.UpdateProvider(t.Context(), w.admin, s)
	wantError(t, "with a key's configuration", err, fault.Invalid, "PRIVATE_KEY_JWT")
	s.Assertion = nil
	p, err := w.UpdateProvider(t.Context(), w.admin, s)
	must(t, err)
	if p.Identity == old.Identity || p.PublicKey != "" || len(p.PrivateKey) != 0 {
		t.Error("the security identity is the same, or there is a key")
	}
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), at("p"))) // the stored tokens are no longer served
	s.ClientID = ""
	if p, err = w.UpdateProvider(t.Context(), w.admin, s); err != nil || p.ClientID != "" {
		t.Errorf("got the client id %q, %v", p.ClientID, err)
	}
	s.AuthMethod = broker.AuthBasic
	s.ClientID = oauthtest.ClientID
	_, err = w.UpdateProvider(t.Context(), w.admin, s)
	wantError(t, "back, without the secret", err, fault.Invalid, "is needed for client authentication")
}

// TestProvider sends an assertion too, and says what to register.
func TestProviderTestByIDToken(t *testing.T) {
	w := newWorld(t)
	p := w.createProvider("federated", "StrictOauth2", byIDToken(oauthtest.ClientID))
	check := func() map[string]broker.Check {
		t.Helper()
		list, err := w.TestProvider(t.Context(), w.admin, "federated", secret.Text{})
		must(t, err)
		got := map[string]broker.Check{}
		for _, c := range list {
			got[c.Name] = c
		}
		return got
	}
	if got := check()["client-authentication"]; got.Status != broker.CheckFail {
		t.Errorf("before the registration: got %+v", got)
	}
	w.federate(p)
	got := check()
	if got["client-authentication"].Status != broker.CheckPass {
		t.Errorf("got %+v", got["client-authentication"])
	}
	want := "trust the issuer " + publicURL + " for the subject " + p.ARN("us-east-1") + " with the audience " + w.provider.URL
	if trust := got["issuer-trust"]; trust.Status != broker.CheckSkipped || !strings.HasSuffix(trust.Detail, want) {
		t.Errorf("got %+v, want %s", trust, want)
	}
}
