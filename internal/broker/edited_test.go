package broker_test

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// Whoever can write to the database moves no secret by editing where it is sent, or what it is sent with, and leaving
// the security identity that the secret is bound to.
func TestD01_EndpointsEditedInTheDatabase(t *testing.T) {
	w := newWorld(t)
	evil := oauthtest.New(t)
	w.createProvider("obo", "StrictOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), onBehalf("obo")))
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("obo"), machine))
	before := len(w.provider.Requests())
	for what, edit := range map[string]func(*broker.Provider){
		"the discovery URL": func(p *broker.Provider) { p.DiscoveryURL, p.Pinned = evil.URL+oauthtest.Metadata, "" },
		"the token endpoint": func(p *broker.Provider) {
			p.DiscoveryURL, p.Issuer, p.TokenEndpoint = "", evil.URL, evil.URL+oauthtest.Token
		},
		"the client id":      func(p *broker.Provider) { p.ClientID = "other" },
		"the authentication": func(p *broker.Provider) { p.AuthMethod = broker.AuthPost },
		"the exchange's client": func(p *broker.Provider) {
			p.OnBehalfOf = &broker.OnBehalfOf{Grant: broker.TokenExchange, NoClient: true}
		},
	} {
		w.clock.add(3 * time.Minute) // the pauses of those before are over
		good, err := w.db.Provider(t.Context(), account, "obo")
		must(t, err)
		bad := good
		edit(&bad)
		bad.Version++
		must(t, w.db.SwapProvider(t.Context(), bad, good.Version))
		for flow, change := range map[string]func(*broker.Request){"M2M": machine, "an exchange": onBehalf("obo"), "consent": func(*broker.Request) {}} {
			out, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("obo"), change, force))
			if err == nil && out.Session != "" {
				_, err = w.Authorize(t.Context(), out.Session)
			}
			wantCode(t, what+", "+flow, err, fault.Internal)
		}
		good.Version = bad.Version + 1
		must(t, w.db.SwapProvider(t.Context(), good, bad.Version))
	}
	if n, m := len(evil.Requests()), len(w.provider.Requests()); n != 0 || m != before {
		t.Errorf("the other server got %d requests, and the provider %d", n, m-before)
	}
	if evil.Hits(oauthtest.Metadata) != 0 {
		t.Error("the other server was asked for its metadata")
	}
	w.clock.add(3 * time.Minute)
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("obo"), machine, force))
}

// Nor do they make a provider trust a key of theirs: the published half is held against the sealed one.
func TestD01_PublishedKeyEditedInTheDatabase(t *testing.T) {
	w := newWorld(t)
	mine, theirs := w.createProvider("keyed", "StrictOauth2", byKey(nil)), w.createProvider("theirs", "StrictOauth2", byKey(nil))
	bad := mine
	bad.PublicKey, bad.Version = theirs.PublicKey, mine.Version+1
	must(t, w.db.SwapProvider(t.Context(), bad, mine.Version))
	set, err := w.ClientKeys(t.Context(), mine.CallbackID)
	if wantCode(t, "another key", err, fault.Internal); len(set) != 0 {
		t.Errorf("it was published: %s", set)
	}
}

// A provider without a secret has its endpoints pinned too, and what an administrator is told to do about a move is
// something that they can do.
func TestE18_MovedEndpointOfAClientWithoutSecret(t *testing.T) {
	for name, method := range map[string]func(*broker.ProviderSpec){
		"private_key_jwt": byKey(nil), "id_token_jwt": byIDToken(oauthtest.ClientID),
		"none": func(s *broker.ProviderSpec) { s.Secret, s.AuthMethod = secret.Text{}, broker.AuthNone },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.createProvider("p", "CustomOauth2", method)
			_, err := w.db.PinProvider(t.Context(), account, p.UID, "https://first.example")
			must(t, err)
			_, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("p"), machine))
			wantError(t, "moved", err, fault.Denied, "deleting the provider and creating it again")
			s := w.spec("p", "CustomOauth2")
			method(&s)
			_, err = w.UpdateProvider(t.Context(), w.admin, s)
			must(t, err)
			_, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("p"), machine))
			wantCode(t, "after an update that changed nothing", err, fault.Denied)
			must(t, w.DeleteProvider(t.Context(), w.admin, "p"))
			w.createProvider("p", "CustomOauth2", method)
			if _, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("p"), machine)); fault.CodeOf(err) == fault.Denied {
				t.Errorf("created again: %v", err)
			}
		})
	}
}

// A provider whose parser does not tell upper from lower case must not read another client out of an additional claim.
func TestAssertionMembersInAnotherCase(t *testing.T) {
	w := newWorld(t)
	for _, a := range []broker.Assertion{{Claims: one("Sub")}, {Claims: one("ISS")}, {Header: one("ALG")}, {Header: one("Crit")}} {
		s := w.spec("bad", "StrictOauth2")
		byKey(&a)(&s)
		_, err := w.CreateProvider(t.Context(), w.admin, s)
		wantError(t, "in another case", err, fault.Invalid, "cannot set")
	}
}

// What an update does not say stays: the algorithm over a change of the provider, and all of it otherwise.
func TestAssertionOverUpdatesThatDoNotSay(t *testing.T) {
	w := newWorld(t)
	w.createProvider("keyed", "StrictOauth2", byKey(&broker.Assertion{Algorithm: "PS256", Header: one("x5t")}))
	s := w.spec("keyed", "StrictOauth2")
	byKey(nil)(&s)
	p, err := w.UpdateProvider(t.Context(), w.admin, s)
	must(t, err)
	w.register(p)
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), at("keyed"), machine))
	if header, _ := w.assertionIn(); header["x5t"] != "v" || header["alg"] != "PS256" {
		t.Errorf("got the header %v", header)
	}
	s.ClientID = "another"
	p, err = w.UpdateProvider(t.Context(), w.admin, s)
	must(t, err)
	if p.KeyAlgorithm() != "PS256" {
		t.Errorf("with another client id: got the algorithm %s, want PS256 still", p.KeyAlgorithm())
	}
}

// M34: nothing at or under the server's own URL is a provider, by any of its addresses, and no metadata leads there.
func TestM34_OwnAddressesAreNoProvider(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*broker.ProviderSpec){
		"discovery": func(s *broker.ProviderSpec) {
			s.DiscoveryURL = publicURL + "/accounts/111111111111/.well-known/openid-configuration"
		},
		"issuer": func(s *broker.ProviderSpec) {
			s.DiscoveryURL, s.Issuer, s.AuthorizationEndpoint, s.TokenEndpoint = "", publicURL, "https://idp.example.com/a", "https://idp.example.com/t"
		},
		"token endpoint": func(s *broker.ProviderSpec) {
			s.DiscoveryURL, s.Issuer, s.AuthorizationEndpoint, s.TokenEndpoint = "", "https://idp.example.com", "https://idp.example.com/a", publicURL+"/oauth2/token"
		},
	} {
		s := w.spec("own", "StrictOauth2")
		change(&s)
		_, err := w.CreateProvider(t.Context(), w.admin, s)
		wantCode(t, name, err, fault.Invalid)
	}
	w.provider.SetMetadata("token_endpoint", publicURL+"/oauth2/token")
	_, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), machine))
	wantCode(t, "metadata that names our token endpoint", err, fault.Denied)
}
