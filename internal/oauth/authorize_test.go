package oauth_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/secret"
)

func authorizationQuery(t *testing.T, endpoint string, v broker.Vendor, r broker.AuthorizationRequest) url.Values {
	t.Helper()
	got, err := newClient(t, oauth.Config{}).AuthorizationURL(broker.Endpoints{Authorization: endpoint}, broker.Provider{Account: account, ClientID: "id"}, v, r)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(got)
	if err != nil || strings.Contains(got, "+") || u.Host != "p.example" || u.Path != "/auth" {
		t.Fatalf("got %q, %v", got, err)
	}
	return u.Query()
}

func TestAuthorizationURL(t *testing.T) {
	catalogue, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	google, _ := catalogue.Vendor("GoogleOauth2")
	got := authorizationQuery(t, "https://p.example/auth?hd=x&hd=y&state=theirs&Response_Type=token", google, broker.AuthorizationRequest{
		RedirectURI: redirectURI, Scopes: []string{"openid", "a+b"}, State: secret.New("s t"),
		// RFC 7636 appendix B
		Verifier:  secret.New("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
		Resources: []string{"https://r1", "https://r2"}, Audiences: []string{"x"},
		Custom: map[string]secret.Text{"prompt": secret.New("none"), "Access_Type": secret.New("online"), "login_hint": secret.New("a@b")},
	})
	want := url.Values{
		"hd": {"x", "y"}, "response_type": {"code"}, "client_id": {"id"}, "redirect_uri": {redirectURI}, "scope": {"openid a+b"}, "state": {"s t"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"},
		"resource": {"https://r1", "https://r2"}, "audience": {"x"}, "prompt": {"none"}, "Access_Type": {"online"}, "login_hint": {"a@b"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestC19_ReservedNamesAreNotOverridden(t *testing.T) {
	for _, reserved := range []string{"client_id", "redirect_uri", "state", "scope", "response_type", "response_mode", "code_challenge", "code_challenge_method",
		"nonce", "request", "request_uri", "resource"} {
		for _, name := range []string{reserved, strings.ToUpper(reserved), strings.ToUpper(reserved[:1]) + reserved[1:]} {
			got := authorizationQuery(t, "https://p.example/auth?"+name+"=evil", broker.Vendor{}, broker.AuthorizationRequest{
				RedirectURI: redirectURI, Scopes: []string{"a"}, State: secret.New("s"), Verifier: secret.New(verifier), Resources: []string{"https://r"},
				Custom: map[string]secret.Text{name: secret.New("evil"), "fine": secret.New("1")}})
			for key, values := range got {
				if len(values) != 1 || values[0] == "evil" {
					t.Errorf("%s: got %s=%v", name, key, values)
				}
			}
			if got.Get("fine") != "1" || got.Get("client_id") != "id" {
				t.Errorf("%s: got %v", name, got)
			}
		}
	}
	// An audience is custom only where the request has none of its own.
	for _, audiences := range [][]string{nil, {"own"}} {
		got := authorizationQuery(t, "https://p.example/auth", broker.Vendor{}, broker.AuthorizationRequest{
			Verifier: secret.New(verifier), Audiences: audiences, Custom: map[string]secret.Text{"audience": secret.New("custom")}})
		want := append(audiences, "custom")[:1]
		if !cmp.Equal(got["audience"], want) {
			t.Errorf("audiences %v: got %v, want %v", audiences, got["audience"], want)
		}
	}
}

func TestC16_PKCEIsAlwaysSent(t *testing.T) {
	r := broker.AuthorizationRequest{RedirectURI: redirectURI, State: secret.New("s"), Verifier: secret.New(verifier)}
	if got := authorizationQuery(t, "https://p.example/auth", broker.Vendor{}, r); got.Get("code_challenge_method") != "S256" || len(got.Get("code_challenge")) != 43 || got.Has("scope") {
		t.Errorf("got %v, want S256 and no scope", got)
	}
	if got := authorizationQuery(t, "https://p.example/auth", broker.Vendor{NoPKCE: true}, r); got.Has("code_challenge") || got.Has("code_challenge_method") {
		t.Errorf("vendor without PKCE: got %v", got)
	}
	r.Verifier = secret.Text{}
	if _, err := newClient(t, oauth.Config{}).AuthorizationURL(broker.Endpoints{Authorization: "https://p.example/auth"}, broker.Provider{Account: account}, broker.Vendor{}, r); !errors.Is(err, fault.Internal) {
		t.Errorf("without a verifier: got %v, want Internal", err)
	}
}

func TestAuthorizationEndpointIsChecked(t *testing.T) {
	for _, endpoint := range []string{"", "http://p.example/auth", "https://p.example/auth#x", "https://u@p.example/auth", "https://p.example/auth?%zz=1"} {
		_, err := newClient(t, oauth.Config{Dev: true}).AuthorizationURL(broker.Endpoints{Authorization: endpoint}, broker.Provider{Account: account, Name: "p"}, broker.Vendor{},
			broker.AuthorizationRequest{Verifier: secret.New(verifier)})
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want Invalid", endpoint, err)
		}
	}
}
