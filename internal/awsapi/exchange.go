package awsapi

import (
	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/broker"
)

// exchangeOf reads how a provider exchanges users' tokens; nil where nothing was sent.
func exchangeOf(in *api.OnBehalfOfTokenExchangeConfigType) *broker.OnBehalfOf {
	if in == nil {
		return nil
	}
	o := &broker.OnBehalfOf{Grant: broker.ExchangeGrant(in.GrantType), NoClient: in.OnBehalfOfAuthenticationConfig != nil}
	if t := in.TokenExchangeGrantTypeConfig; t != nil {
		o.Actor, o.ActorScopes = broker.Actor(t.ActorTokenContent), t.ActorTokenScopes
	}
	return o
}

// exchangeConfigOf is the reverse of exchangeOf.
func exchangeConfigOf(o *broker.OnBehalfOf) *api.OnBehalfOfTokenExchangeConfigType {
	if o == nil {
		return nil
	}
	out := &api.OnBehalfOfTokenExchangeConfigType{GrantType: api.OnBehalfOfTokenExchangeGrantTypeType(o.Grant)}
	if o.Actor != "" {
		out.TokenExchangeGrantTypeConfig = &api.TokenExchangeGrantTypeConfigType{
			ActorTokenContent: api.ActorTokenContentType(o.Actor), ActorTokenScopes: o.ActorScopes,
		}
	}
	if o.NoClient {
		out.OnBehalfOfAuthenticationConfig = &api.OnBehalfOfAuthenticationConfig{ClientAuthenticationMethod: api.OnBehalfOfClientAuthenticationMethodNoClient}
	}
	return out
}
