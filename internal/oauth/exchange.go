package oauth

import (
	"context"
	"net/url"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/secret"
)

// What an exchange says (RFC 8693 §2.1 and §3, RFC 7523 §2.1).
const (
	grantTokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	grantJWTBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	typeJWT            = "urn:ietf:params:oauth:token-type:jwt"
	typeAccessToken    = "urn:ietf:params:oauth:token-type:access_token"

	// noClient is a client authentication of nothing: no id, no secret.
	noClient broker.AuthMethod = "NO_CLIENT"

	microsoft = "MicrosoftOauth2"
)

// Exchange trades a user's JWT for a token of the provider: by token exchange (RFC 8693 §2.1), whose subject token type
// a custom parameter may change, or as an authorization grant (RFC 7523 §2.1), to which Microsoft wants
// requested_token_use=on_behalf_of. It is one request that is never repeated. A failure is a *broker.UpstreamError.
func (c *Client) Exchange(ctx context.Context, e broker.Endpoints, p broker.Provider, v broker.Vendor, clientSecret secret.Text, x broker.Exchange) (broker.Grant, error) {
	o := broker.OnBehalfOf{Grant: broker.TokenExchange}
	if p.OnBehalfOf != nil {
		o = *p.OnBehalfOf
	}
	form := exchangeForm(o, v, x)
	if o.NoClient {
		p.AuthMethod, clientSecret = noClient, secret.Text{}
	}
	return c.exchange(ctx, e, p, v, form, clientSecret, x.Subject, x.Actor)
}

func exchangeForm(o broker.OnBehalfOf, v broker.Vendor, x broker.Exchange) url.Values {
	if o.Grant == broker.JWTAuthorizationGrant {
		form := tokenForm(grantJWTBearer, v, x.TokenRequest)
		form.Set("assertion", x.Subject.Expose())
		if v.Name == microsoft {
			form.Set("requested_token_use", "on_behalf_of")
		}
		return form
	}
	form := tokenForm(grantTokenExchange, v, x.TokenRequest)
	form.Set("subject_token", x.Subject.Expose())
	if !form.Has("subject_token_type") {
		form.Set("subject_token_type", typeJWT)
	}
	if !x.Actor.IsZero() {
		form.Set("actor_token", x.Actor.Expose())
		form.Set("actor_token_type", typeAccessToken)
		if o.Actor == broker.ActorIDToken {
			form.Set("actor_token_type", typeJWT)
		}
	}
	return form
}
