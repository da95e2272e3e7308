package oauth_test

import (
	"maps"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestExchangeWireForms(t *testing.T) {
	const userJWT, actorToken = "eyJ.user.jwt", "actor-access-token"
	subject := url.Values{"subject_token": {userJWT}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}}
	exchange := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "scope": {"read write"}}
	assertion := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "scope": {"read write"}, "assertion": {userJWT}}
	joined := func(parts ...url.Values) url.Values {
		all := url.Values{}
		for _, p := range parts {
			maps.Copy(all, p)
		}
		return all
	}
	for name, c := range map[string]struct {
		config broker.OnBehalfOf
		vendor string
		x      broker.Exchange
		want   url.Values
	}{
		"token exchange": {config: broker.OnBehalfOf{Grant: broker.TokenExchange}, want: joined(exchange, subject)},
		"with an actor": {
			config: broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorClient}, x: broker.Exchange{Actor: secret.New(actorToken)},
			want: joined(exchange, subject, url.Values{"actor_token": {actorToken}, "actor_token_type": {"urn:ietf:params:oauth:token-type:access_token"}}),
		},
		"with a JWT of ours as actor": {
			config: broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorIDToken}, x: broker.Exchange{Actor: secret.New("eyJ.our.jwt")},
			want: joined(exchange, subject, url.Values{"actor_token": {"eyJ.our.jwt"}, "actor_token_type": {"urn:ietf:params:oauth:token-type:jwt"}}),
		},
		"with targets": {
			config: broker.OnBehalfOf{Grant: broker.TokenExchange},
			x:      broker.Exchange{TokenRequest: broker.TokenRequest{Resources: []string{"https://r"}, Audiences: []string{"a", "b"}}},
			want:   joined(exchange, subject, url.Values{"resource": {"https://r"}, "audience": {"a", "b"}}),
		},
		"with another type": {
			config: broker.OnBehalfOf{Grant: broker.TokenExchange},
			x: broker.Exchange{TokenRequest: broker.TokenRequest{Custom: map[string]secret.Text{
				"subject_token_type": secret.New("urn:ietf:params:oauth:token-type:access_token"), "requested_token_type": secret.New("x"),
				"subject_token": secret.New("stolen"), "actor_token": secret.New("stolen"), "assertion": secret.New("stolen"), "grant_type": secret.New("x"),
			}}},
			want: joined(exchange, subject, url.Values{"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "requested_token_type": {"x"}}),
		},
		"without client": {config: broker.OnBehalfOf{Grant: broker.TokenExchange, NoClient: true}, want: joined(exchange, subject)},
		"JWT grant":      {config: broker.OnBehalfOf{Grant: broker.JWTAuthorizationGrant}, want: assertion},
		"Microsoft": {
			config: broker.OnBehalfOf{Grant: broker.JWTAuthorizationGrant}, vendor: "MicrosoftOauth2",
			want: joined(assertion, url.Values{"requested_token_use": {"on_behalf_of"}}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := oauthtest.New(t)
			client := oauth.New(oauth.Config{Dev: true})
			t.Cleanup(client.Close)
			c.x.Subject, c.x.Scopes = secret.New(userJWT), []string{"read", "write"}
			p := broker.Provider{Account: account, Name: "p", ClientID: oauthtest.ClientID, AuthMethod: broker.AuthBasic, OnBehalfOf: &c.config}
			grant, err := client.Exchange(t.Context(), broker.Endpoints{Token: s.URL + oauthtest.Token}, p, broker.Vendor{Name: c.vendor}, secret.New(oauthtest.ClientSecret), c.x)
			if err != nil || grant.AccessToken.IsZero() {
				t.Fatalf("got %v", err)
			}
			requests := s.Requests()
			if len(requests) != 1 {
				t.Fatalf("got %d requests, want 1", len(requests))
			}
			if diff := cmp.Diff(c.want, requests[0].Form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
			if sent := requests[0].Authorization != ""; sent == c.config.NoClient {
				t.Errorf("the client authenticated: %t", sent)
			}
		})
	}
}

// The client's assertion comes with its id where it has one, and never with a secret; so it does at revocation.
func TestAssertionWireForms(t *testing.T) {
	const kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	for name, c := range map[string]struct {
		method broker.AuthMethod
		id     string
	}{
		"our key's":             {broker.AuthPrivateKeyJWT, "client"},
		"our issuer's":          {broker.AuthIDTokenJWT, "client"},
		"our issuer's, no name": {broker.AuthIDTokenJWT, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := oauthtest.New(t)
			client := oauth.New(oauth.Config{Dev: true})
			t.Cleanup(client.Close)
			p := broker.Provider{Account: account, Name: "p", ClientID: c.id, AuthMethod: c.method}
			endpoints := broker.Endpoints{Token: s.URL + oauthtest.Token, Revocation: s.URL + oauthtest.Revoke}
			assertion := secret.New("eyJ.assertion.jwt")
			_, _ = client.ClientCredentials(t.Context(), endpoints, p, broker.Vendor{Name: "CustomOauth2"}, assertion, broker.TokenRequest{}) // refused: the server wants a secret
			vendor := broker.Vendor{Name: "CustomOauth2", Revoke: broker.RevokeRecipe{Client: broker.AuthBasic}}
			_ = client.Revoke(t.Context(), endpoints, p, vendor, assertion, secret.New("t"), "refresh_token")
			requests := s.Requests()
			if len(requests) == 0 {
				t.Fatal("got no request")
			}
			for _, r := range requests {
				want := url.Values{"client_assertion_type": {kind}, "client_assertion": {"eyJ.assertion.jwt"}}
				if c.id != "" {
					want.Set("client_id", c.id)
				}
				got := maps.Clone(r.Form)
				for _, other := range []string{"grant_type", "token", "token_type_hint"} {
					got.Del(other)
				}
				if diff := cmp.Diff(want, got); diff != "" || r.Authorization != "" {
					t.Errorf("authorization %q, form (-want +got):\n%s", r.Authorization, diff)
				}
			}
		})
	}
}
