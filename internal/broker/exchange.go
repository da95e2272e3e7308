package broker

import (
	"context"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// microsoft is the vendor whose exchange needs no configuration: it has one form of it.
const microsoft = "MicrosoftOauth2"

// exchangedToken serves ON_BEHALF_OF_TOKEN_EXCHANGE: the user's own token, kept since the workload access token was
// minted, is exchanged for one of the provider, without consent. What came is kept until it expires.
func (b *Broker) exchangedToken(ctx context.Context, g grounds, r Request) (Outcome, error) {
	switch {
	case g.provider.OnBehalfOf == nil:
		return Outcome{}, b.unlessDenied(ctx, g, fault.Field("oauth2Flow",
			"provider %s has no onBehalfOfTokenExchangeConfig, so it exchanges no user's token", g.provider.Name))
	case g.token.Delegation() != "":
		return Outcome{}, b.unlessDenied(ctx, g, fault.Field("workloadIdentityToken",
			"was minted under a delegation, without a token of the user's, and ON_BEHALF_OF_TOKEN_EXCHANGE needs that token: use "+
				"USER_FEDERATION, for which the user consents by day"))
	case g.token.User.Kind != identity.JWTUser:
		return Outcome{}, b.unlessDenied(ctx, g, fault.Field("workloadIdentityToken",
			"names no user who was proven by a token, and ON_BEHALF_OF_TOKEN_EXCHANGE needs that token: mint it with GetWorkloadAccessTokenForJWT"))
	case !g.token.Retains():
		return Outcome{}, b.unlessDenied(ctx, g, fault.Field("workloadIdentityToken",
			"was minted when no provider exchanged users' tokens, and so keeps none: mint it again with GetWorkloadAccessTokenForJWT"))
	}
	return b.directToken(ctx, g, r, direct{
		flow: FlowOnBehalfOf, user: g.token.UserRef, doing: "the exchange of the user's token",
		ask: func(ctx context.Context) (Grant, error) { return b.exchange(ctx, g, r) },
	})
}

// exchange sends the user's token to the provider. A refresh token that comes back is dropped: with it the agent could
// go on after the user's own session has ended.
func (b *Broker) exchange(ctx context.Context, g grounds, r Request) (Grant, error) {
	subject, err := b.identity.RetainedToken(ctx, g.token, g.workload)
	if err != nil {
		return Grant{}, err
	}
	x := Exchange{
		Subject:      subject,
		TokenRequest: TokenRequest{Scopes: r.Scopes, Resources: r.Resources, Audiences: r.Audiences, Custom: r.CustomParameters},
	}
	o := g.provider.OnBehalfOf
	var endpoints Endpoints
	var clientSecret secret.Text
	if o.NoClient {
		endpoints, err = b.endpoints(ctx, g.provider)
	} else {
		endpoints, clientSecret, err = b.client(ctx, g.provider)
	}
	if err != nil {
		return Grant{}, err
	}
	if x.Actor, err = b.actor(ctx, g, endpoints); err != nil {
		return Grant{}, err
	}
	grant, err := b.upstream.Exchange(ctx, endpoints, g.provider, g.vendor, clientSecret, x)
	grant.RefreshToken = secret.Text{}
	return grant, err
}

// actor returns what the exchange names as the acting party, or nothing.
func (b *Broker) actor(ctx context.Context, g grounds, e Endpoints) (secret.Text, error) {
	switch o := g.provider.OnBehalfOf; o.Actor {
	case ActorClient:
		grant, err := b.clientGrant(ctx, g, TokenRequest{Scopes: o.ActorScopes})
		return grant.AccessToken, err
	case ActorIDToken:
		return b.idToken(ctx, g.provider, e, g.workload.ARN(b.region))
	}
	return secret.Text{}, nil
}

// usual reports whether it is the exchange that every provider of Microsoft has: an identity need not say so.
func (o OnBehalfOf) usual() bool {
	return o.Grant == JWTAuthorizationGrant && o.Actor == "" && len(o.ActorScopes) == 0 && !o.NoClient
}

// exchanging returns p with the exchange of users' tokens that is described.
func (p Provider) exchanging(o *OnBehalfOf) (Provider, error) {
	const at = "oauth2ProviderConfigInput.customOauth2ProviderConfig.onBehalfOfTokenExchangeConfig."
	p.OnBehalfOf = o
	if o == nil && p.Vendor == microsoft {
		p.OnBehalfOf = &OnBehalfOf{Grant: JWTAuthorizationGrant}
		return p, nil
	}
	if o == nil {
		return p, nil
	}
	switch {
	case o.Grant == JWTAuthorizationGrant && (o.Actor != "" || len(o.ActorScopes) > 0):
		return p, fault.Field(at+"tokenExchangeGrantTypeConfig", "belongs to the grant type TOKEN_EXCHANGE: a JWT authorization grant names no actor")
	case o.Grant != JWTAuthorizationGrant && o.Grant != TokenExchange:
		return p, fault.Field(at+"grantType", "must be TOKEN_EXCHANGE or JWT_AUTHORIZATION_GRANT")
	case o.Actor != "" && o.Actor != ActorNone && o.Actor != ActorClient && o.Actor != ActorIDToken:
		return p, fault.Field(at+"tokenExchangeGrantTypeConfig.actorTokenContent", "must be NONE, M2M or AWS_IAM_ID_TOKEN_JWT")
	case o.Actor == ActorIDToken && !p.vouched():
		return p, fault.Field(at+"tokenExchangeGrantTypeConfig.actorTokenContent", "AWS_IAM_ID_TOKEN_JWT %s", notVouched)
	case o.Actor != ActorClient && len(o.ActorScopes) > 0:
		return p, fault.Field(at+"tokenExchangeGrantTypeConfig.actorTokenScopes", "are for actorTokenContent M2M")
	}
	return p, nil
}
