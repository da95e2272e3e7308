package broker_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// byKey makes a provider's client authenticate by private_key_jwt.
func byKey(a *broker.Assertion) func(*broker.ProviderSpec) {
	return func(s *broker.ProviderSpec) {
		s.Secret, s.AuthMethod, s.Assertion = secret.Text{}, broker.AuthPrivateKeyJWT, a
	}
}

// register gives the provider the key set that is published for it.
func (w *world) register(p broker.Provider) string {
	w.t.Helper()
	set, err := w.ClientKeys(w.t.Context(), p.CallbackID)
	must(w.t, err)
	must(w.t, w.provider.SetClientKeys(set))
	return string(set)
}

// assertionIn decodes the header and claims of the newest token request's assertion.
func (w *world) assertionIn() (header, claims map[string]any) {
	w.t.Helper()
	requests := w.provider.Requests()
	parts := strings.Split(requests[len(requests)-1].Form.Get("client_assertion"), ".")
	if len(parts) != 3 {
		w.t.Fatalf("the request has no assertion: %v", requests[len(requests)-1].Form)
	}
	for i, to := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		must(w.t, err)
		must(w.t, json.Unmarshal(text, to))
	}
	return header, claims
}

// The server accepts nothing but assertions for itself alone, and each once: consent, refresh and client credentials
// all need it.
func TestPrivateKeyJWT(t *testing.T) {
	for _, alg := range []string{"", "ES256", "RS256", "PS256"} {
		t.Run(alg, func(t *testing.T) {
			w := newWorld(t)
			p := w.createProvider("keyed", "StrictOauth2", byKey(&broker.Assertion{Algorithm: alg}))
			set := w.register(p)
			if want := fmt.Sprintf(`"alg":%q`, p.KeyAlgorithm()); !strings.Contains(set, want) || alg != "" && p.KeyAlgorithm() != alg {
				t.Errorf("got the key set %s", set)
			}
			for _, private := range []string{`"d"`, `"p"`, `"q"`} {
				if strings.Contains(set, private) {
					t.Errorf("the key set has the private member %s", private)
				}
			}
			w.provider.SetLifetime(30) // so that each use refreshes
			w.consent("alice", at("keyed"))
			w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("keyed")))
			w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("keyed"), machine))
			for _, kind := range []string{"authorization_code", "refresh_token", "client_credentials"} {
				if w.grants(kind) == 0 {
					t.Errorf("got no request of %s", kind)
				}
			}
			header, claims := w.assertionIn()
			if header["kid"] == "" || !strings.Contains(set, fmt.Sprintf(`"kid":%q`, header["kid"])) || header["typ"] != "JWT" {
				t.Errorf("got the header %v", header)
			}
			if life := claims["exp"].(float64) - claims["iat"].(float64); life <= 0 || life > 300 {
				t.Errorf("the assertion lives %v seconds", life)
			}
		})
	}
}

// C13: metadata names the token endpoint of another, honest server, to collect an assertion that is good there.
func TestC13_AudienceInjection(t *testing.T) {
	w := newWorld(t)
	honest := w.createProvider("honest", "StrictOauth2", byKey(nil))
	w.register(honest)
	evil := oauthtest.New(t)
	evil.SetMetadata("token_endpoint", w.provider.URL+oauthtest.Token)
	spec := w.spec("evil", "StrictOauth2")
	byKey(nil)(&spec)
	spec.DiscoveryURL = evil.URL + oauthtest.Metadata
	lured, err := w.CreateProvider(t.Context(), w.admin, spec)
	must(t, err)
	wat := w.wat(w.agentA, "alice")
	_, err = w.Token(t.Context(), w.agentA, ask(wat, at("evil"), machine))
	wantError(t, "at the honest server", err, fault.Invalid, "invalid_client")
	_, claims := w.assertionIn()
	if claims["aud"] != evil.URL {
		t.Errorf("got the audience %v, want the issuer %s as one string", claims["aud"], evil.URL)
	}
	if lured.PublicKey == honest.PublicKey {
		t.Error("two providers have one key")
	}
	w.token(w.agentA, ask(wat, at("honest"), machine))
	if _, claims := w.assertionIn(); claims["aud"] != w.provider.URL {
		t.Errorf("got the audience %v, want the issuer %s as one string", claims["aud"], w.provider.URL)
	}
}

func TestAdditionalAssertionMembers(t *testing.T) {
	w := newWorld(t)
	p := w.createProvider("keyed", "StrictOauth2", byKey(&broker.Assertion{
		Header: map[string]secret.Text{"kid": secret.New("theirs"), "x5t#S256": secret.New("print")},
		Claims: map[string]secret.Text{"aud": secret.New("urn:theirs"), "tenant": secret.New("tenant-claim-81c4")},
	}))
	_, _ = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("keyed"), machine)) // refused: the audience is another
	header, claims := w.assertionIn()
	if header["kid"] != "theirs" || header["x5t#S256"] != "print" || header["typ"] != "JWT" || header["alg"] != "ES256" {
		t.Errorf("got the header %v", header)
	}
	if claims["aud"] != "urn:theirs" || claims["tenant"] != "tenant-claim-81c4" || claims["iss"] != oauthtest.ClientID {
		t.Errorf("got the claims %v", claims)
	}
	w.wantNowhere(map[string]string{"additional claim": "tenant-claim-81c4"})
	const config = "oauth2ProviderConfigInput.customOauth2ProviderConfig."
	for _, c := range []struct {
		change func(*broker.ProviderSpec)
		field  string
	}{
		{func(s *broker.ProviderSpec) { s.Assertion.Header = one("alg") }, config + "privateKeyJwtConfig.additionalHeaderClaims"},
		{func(s *broker.ProviderSpec) { s.Assertion.Header = one("crit") }, config + "privateKeyJwtConfig.additionalHeaderClaims"},
		{func(s *broker.ProviderSpec) { s.Assertion.Claims = one("sub") }, config + "privateKeyJwtConfig.additionalPayloadClaims"},
		{func(s *broker.ProviderSpec) { s.Assertion.Claims = one("nbf") }, config + "privateKeyJwtConfig.additionalPayloadClaims"},
		{func(s *broker.ProviderSpec) { s.Assertion.Algorithm = "HS256" }, config + "privateKeyJwtConfig.signingAlgorithm"},
		{func(s *broker.ProviderSpec) { s.Secret = secret.New("x") }, config + "clientSecret"},
		{func(s *broker.ProviderSpec) { s.AuthMethod, s.Secret = broker.AuthBasic, secret.New("x") }, config + "privateKeyJwtConfig"},
	} {
		s := w.spec("bad", "StrictOauth2")
		byKey(&broker.Assertion{})(&s)
		c.change(&s)
		_, err := w.CreateProvider(t.Context(), w.admin, s)
		if wantCode(t, c.field, err, fault.Invalid); err != nil && fault.Public(err).Field != c.field {
			t.Errorf("got field %q, want %q", fault.Public(err).Field, c.field)
		}
	}
	_, err := w.ClientKeys(t.Context(), "nobody")
	wantCode(t, "keys of nobody", err, fault.NotFound)
	cal, err := w.Provider(t.Context(), w.admin, "cal")
	must(t, err)
	_, err = w.ClientKeys(t.Context(), cal.CallbackID)
	wantCode(t, "keys of a provider with a secret", err, fault.NotFound)
	if w.ClientKeysURL(p) != publicURL+"/identities/oauth2/jwks/"+p.CallbackID {
		t.Errorf("got %s", w.ClientKeysURL(p))
	}
}

func one(name string) map[string]secret.Text { return map[string]secret.Text{name: secret.New("v")} }

// A key stays while what it is for stays, and no longer.
func TestKeyOverUpdates(t *testing.T) {
	w := newWorld(t)
	p := w.createProvider("keyed", "StrictOauth2", byKey(nil))
	w.register(p)
	keys := []string{p.PublicKey}
	update := func(what string, same bool, change func(*broker.ProviderSpec)) {
		t.Helper()
		s := w.spec("keyed", "StrictOauth2")
		byKey(nil)(&s)
		change(&s)
		p, err := w.UpdateProvider(t.Context(), w.admin, s)
		must(t, err)
		if last := keys[len(keys)-1]; same != (last == p.PublicKey) {
			t.Errorf("%s: the key stayed: %t, want %t", what, last == p.PublicKey, same)
		}
		if !same && slices.Contains(keys, p.PublicKey) {
			t.Errorf("%s: an old key is back", what)
		}
		keys = append(keys, p.PublicKey)
	}
	update("nothing", true, func(*broker.ProviderSpec) {})
	update("another header", true, func(s *broker.ProviderSpec) { s.Assertion = &broker.Assertion{Header: one("x5t")} })
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("keyed"), machine))
	if header, _ := w.assertionIn(); header["x5t"] != "v" {
		t.Errorf("got the header %v", header)
	}
	update("another algorithm", false, func(s *broker.ProviderSpec) { s.Assertion = &broker.Assertion{Algorithm: "PS256"} })
	update("the algorithm as it is", true, func(s *broker.ProviderSpec) { s.Assertion = &broker.Assertion{} })
	update("another client id", false, func(s *broker.ProviderSpec) { s.ClientID = "another" })
	update("a secret", false, func(s *broker.ProviderSpec) {
		s.AuthMethod, s.Secret = broker.AuthPost, secret.New(oauthtest.ClientSecret)
	})
	if keys[len(keys)-1] != "" {
		t.Error("a provider with a secret has a key")
	}
}
