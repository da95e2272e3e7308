package oauth_test

import (
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestInspect(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	p := broker.Provider{Account: account, Name: "p", ClientID: oauthtest.ClientID, DiscoveryURL: server.URL + oauthtest.Metadata}
	server.Queue(oauthtest.Metadata, oauthtest.Status(http.StatusInternalServerError, "down"))
	if _, err := c.Endpoints(t.Context(), p); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("got %v, want unavailable", err)
	}
	server.SetMetadata("token_endpoint_auth_methods_supported", []string{"private_key_jwt"})
	got, err := c.Inspect(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	want := broker.Metadata{Issuer: server.URL, Expected: []string{server.URL, server.URL + "/"}, PKCE: []string{"S256"}, AuthMethods: []string{"private_key_jwt"}, IssInResponse: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := c.Endpoints(t.Context(), p); err != nil {
		t.Errorf("what was inspected does not serve the calls after: %v", err)
	}
	server.SetMetadata("token_endpoint_auth_methods_supported", "private_key_jwt") // no list
	server.SetMetadata("issuer", "https://another.example")
	if got, err = c.Inspect(t.Context(), p); err != nil || got.AuthMethods != nil || got.Issuer != "https://another.example" {
		t.Errorf("got %+v, %v", got, err)
	}
	p.DiscoveryURL = "http://p.example/.well-known/openid-configuration"
	if _, err := c.Inspect(t.Context(), p); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("plain http: got %v, want invalid", err)
	}
}

// RFC 7523 §2.2: the assertion stands where a secret would, and nothing else does.
func TestRFC7523_2_2_ClientAssertion(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	p := broker.Provider{Account: account, ClientID: "id", TokenEndpoint: server.URL + oauthtest.Token, AuthMethod: broker.AuthPrivateKeyJWT}
	_, _ = c.ClientCredentials(t.Context(), broker.Endpoints{Token: p.TokenEndpoint}, p, broker.Vendor{}, secret.New("a.b.c"), broker.TokenRequest{})
	got := server.Requests()[0]
	want := url.Values{"grant_type": {"client_credentials"}, "client_id": {"id"}, "client_assertion": {"a.b.c"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
	if diff := cmp.Diff(want, got.Form); diff != "" || got.Authorization != "" {
		t.Errorf("got header %q and (-want +got)\n%s", got.Authorization, diff)
	}
}

// E13: callers cannot tell a closed port from a host that is silent; the cause, which is for operators, can.
func TestE13_ClosedPortOrSilentHost(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	c := newClient(t, oauth.Config{Dev: true})
	c.TestOnlyTimeout(200 * time.Millisecond)
	var public, private []string
	for _, l := range []net.Listener{closed, silent} {
		p := broker.Provider{Account: account, Name: "p", DiscoveryURL: "http://" + l.Addr().String() + oauthtest.Metadata}
		_, err := c.Endpoints(t.Context(), p)
		if fault.CodeOf(err) != fault.Unavailable {
			t.Fatalf("got %v, want unavailable", err)
		}
		public, private = append(public, fault.Public(err).Msg), append(private, err.Error())
	}
	if public[0] != public[1] || private[0] == private[1] {
		t.Errorf("callers read %q, operators %q", public, private)
	}
}
