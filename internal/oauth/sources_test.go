package oauth_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// Each place an address can come from, pointed at a private one: the dialer's rules refuse it, whoever named it.
func TestE03_EverySourceOfAnAddress(t *testing.T) {
	grant := broker.CodeGrant{Code: secret.New("c"), Verifier: secret.New("v")}
	named := func(member string, call func(ctx context.Context, c *oauth.Client, s *oauthtest.Server) error) func(*testing.T, *oauth.Client, string) error {
		return func(t *testing.T, c *oauth.Client, private string) error {
			s := oauthtest.New(t)
			s.SetMetadata(member, private+"/x")
			return call(t.Context(), c, s)
		}
	}
	sources := map[string]func(t *testing.T, c *oauth.Client, private string) error{
		"discovery of a provider": func(t *testing.T, c *oauth.Client, private string) error {
			_, err := c.Endpoints(t.Context(), provider(private))
			return err
		},
		"token endpoint given inline": func(t *testing.T, c *oauth.Client, private string) error { return m2m(t, c, private) },
		"token endpoint of metadata": named("token_endpoint", func(ctx context.Context, c *oauth.Client, s *oauthtest.Server) error {
			e, err := c.Endpoints(ctx, provider(s.URL))
			if err != nil {
				return err
			}
			_, err = c.Redeem(ctx, e, provider(s.URL), broker.Vendor{}, clientSecret(), grant)
			return err
		}),
		"jwks_uri given inline": func(t *testing.T, c *oauth.Client, private string) error {
			_, err := c.JWKS(t.Context(), account, "https://idp.example.com", private+"/jwks")
			return err
		},
		"discovery of an issuer": func(t *testing.T, c *oauth.Client, private string) error {
			_, err := c.JWKS(t.Context(), account, private, "")
			return err
		},
		"jwks_uri of metadata": named("jwks_uri", func(ctx context.Context, c *oauth.Client, s *oauthtest.Server) error {
			_, err := c.JWKS(ctx, account, s.URL, "")
			return err
		}),
		"discovery of an issuer's endpoints": func(t *testing.T, c *oauth.Client, private string) error {
			_, err := c.IssuerMetadata(t.Context(), account, private, false)
			return err
		},
		"discovery of an issuer's endpoints anew": func(t *testing.T, c *oauth.Client, private string) error {
			_, err := c.IssuerMetadata(t.Context(), account, private, true)
			return err
		},
		"userinfo_endpoint of metadata": named("userinfo_endpoint", func(ctx context.Context, c *oauth.Client, s *oauthtest.Server) error {
			m, err := c.IssuerMetadata(ctx, account, s.URL, false)
			if err != nil {
				return err
			}
			_, err = c.UserInfo(ctx, account, m.UserInfo, secret.New("t"))
			return err
		}),
		"revocation_endpoint of metadata": named("revocation_endpoint", func(ctx context.Context, c *oauth.Client, s *oauthtest.Server) error {
			e, err := c.Endpoints(ctx, provider(s.URL))
			if err != nil {
				return err
			}
			return c.Revoke(ctx, e, provider(s.URL), broker.Vendor{}, clientSecret(), secret.New("t"), "refresh_token")
		}),
		"discovery of a hosted sign-in": func(t *testing.T, c *oauth.Client, private string) error {
			_, _, err := c.SignInURL(t.Context(), identity.LoginClient{Account: account, Issuer: private, ClientID: "c"}, broker.SignInRequest{RedirectURI: "https://t.example/cb"})
			return err
		},
		"token endpoint of a hosted sign-in": named("token_endpoint", func(ctx context.Context, c *oauth.Client, s *oauthtest.Server) error {
			m, err := c.IssuerMetadata(ctx, account, s.URL, false)
			if err != nil {
				return err
			}
			l := identity.LoginClient{Account: account, Issuer: s.URL, ClientID: "c", Authorization: m.Authorization, Token: m.Token}
			_, err = c.SignInToken(ctx, l, clientSecret(), grant)
			return err
		}),
	}
	for name, call := range sources {
		t.Run(name, func(t *testing.T) {
			for _, private := range []string{"https://10.0.0.1", "https://169.254.169.254", "https://[fd00::1]", "https://[::ffff:192.168.0.1]", "https://100.64.0.1"} {
				err := call(t, newClient(t, oauth.Config{Dev: true}), private)
				if op, ok := errors.AsType[*net.OpError](err); !ok || !strings.Contains(op.Error(), "--allow-network") {
					t.Errorf("%s: got %v, want the dialer's refusal", private, err)
				}
			}
		})
	}
}
