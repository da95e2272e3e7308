package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

func (s *server) providerRoutes() {
	route(s, api.OpCreateOauth2CredentialProvider, func(ctx context.Context, c access.Caller, q *api.CreateOauth2CredentialProviderRequest) (*api.CreateOauth2CredentialProviderResponse, error) {
		spec, err := specOf(q.Name, q.CredentialProviderVendor, q.Oauth2ProviderConfigInput)
		if err != nil {
			return nil, err
		}
		spec.Tags, spec.Allowed, spec.Presentation = q.Tags, q.AllowedParameters, q.PresentationParameters
		p, err := s.Broker.CreateProvider(ctx, c, spec)
		if err != nil {
			return nil, err
		}
		return &api.CreateOauth2CredentialProviderResponse{
			ClientSecretARN: s.secretOf(p), ClientSecretSource: api.SecretSourceTypeManaged, Name: p.Name, CredentialProviderARN: p.ARN(s.Region),
			CallbackURL: s.Broker.CallbackURL(p), Oauth2ProviderConfigOutput: configOf(p, spec.Member), Status: api.StatusReady,
			AllowedParameters: p.Allowed(), PresentationParameters: p.Presentation(),
		}, nil
	})
	route(s, api.OpGetOauth2CredentialProvider, func(ctx context.Context, c access.Caller, q *api.GetOauth2CredentialProviderRequest) (*api.GetOauth2CredentialProviderResponse, error) {
		p, err := s.Broker.Provider(ctx, c, q.Name)
		if err != nil {
			return nil, err
		}
		return &api.GetOauth2CredentialProviderResponse{
			ClientSecretARN: s.secretOf(p), ClientSecretSource: api.SecretSourceTypeManaged, Name: p.Name, CredentialProviderARN: p.ARN(s.Region),
			CredentialProviderVendor: api.CredentialProviderVendorType(p.Vendor), CallbackURL: s.Broker.CallbackURL(p),
			Oauth2ProviderConfigOutput: configOf(p, s.Broker.ConfigMember(p)), CreatedTime: api.At(p.Created), LastUpdatedTime: api.At(p.Updated), Status: api.StatusReady,
			AllowedParameters: p.Allowed(), PresentationParameters: p.Presentation(),
		}, nil
	})
	route(s, api.OpUpdateOauth2CredentialProvider, func(ctx context.Context, c access.Caller, q *api.UpdateOauth2CredentialProviderRequest) (*api.UpdateOauth2CredentialProviderResponse, error) {
		spec, err := specOf(q.Name, q.CredentialProviderVendor, q.Oauth2ProviderConfigInput)
		if err != nil {
			return nil, err
		}
		spec.Allowed, spec.Presentation = q.AllowedParameters, q.PresentationParameters
		p, err := s.Broker.UpdateProvider(ctx, c, spec)
		if err != nil {
			return nil, err
		}
		return &api.UpdateOauth2CredentialProviderResponse{
			ClientSecretARN: s.secretOf(p), ClientSecretSource: api.SecretSourceTypeManaged, Name: p.Name, CredentialProviderARN: p.ARN(s.Region),
			CredentialProviderVendor: api.CredentialProviderVendorType(p.Vendor), CallbackURL: s.Broker.CallbackURL(p),
			Oauth2ProviderConfigOutput: configOf(p, spec.Member), CreatedTime: api.At(p.Created), LastUpdatedTime: api.At(p.Updated), Status: api.StatusReady,
			AllowedParameters: p.Allowed(), PresentationParameters: p.Presentation(),
		}, nil
	})
	route(s, api.OpListOauth2CredentialProviders, func(ctx context.Context, c access.Caller, q *api.ListOauth2CredentialProvidersRequest) (*api.ListOauth2CredentialProvidersResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 20)
		if err != nil {
			return nil, err
		}
		list, next, err := s.Broker.Providers(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListOauth2CredentialProvidersResponse{CredentialProviders: make([]api.Oauth2CredentialProviderItem, 0, len(list)), NextToken: cursor(next)}
		for _, p := range list {
			a.CredentialProviders = append(a.CredentialProviders, api.Oauth2CredentialProviderItem{
				Name: p.Name, CredentialProviderVendor: api.CredentialProviderVendorType(p.Vendor), CredentialProviderARN: p.ARN(s.Region),
				CreatedTime: api.At(p.Created), LastUpdatedTime: api.At(p.Updated),
			})
		}
		return a, nil
	})
	route(s, api.OpDeleteOauth2CredentialProvider, func(ctx context.Context, c access.Caller, q *api.DeleteOauth2CredentialProviderRequest) (*api.DeleteOauth2CredentialProviderResponse, error) {
		if err := s.Broker.DeleteProvider(ctx, c, q.Name); err != nil {
			return nil, err
		}
		return &api.DeleteOauth2CredentialProviderResponse{}, nil
	})
}

func (s *server) secretOf(p broker.Provider) *api.Secret {
	return &api.Secret{SecretARN: p.SecretARN(s.Region)}
}

// client is what every member of the union has.
type client struct {
	member string
	id     string
	secret api.Sensitive
	source api.SecretSourceType
	config *api.SecretReference
}

// specOf reads the one member of the union that was sent (validation saw to it that there is one).
func specOf(name string, vendor api.CredentialProviderVendorType, u *api.Oauth2ProviderConfigInput) (broker.ProviderSpec, error) {
	spec := broker.ProviderSpec{Name: name, Vendor: string(vendor)}
	var c client
	switch {
	case u.CustomOauth2ProviderConfig != nil:
		in := u.CustomOauth2ProviderConfig
		c = client{"customOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
		if err := custom(&spec, in); err != nil {
			return spec, err
		}
	case u.IncludedOauth2ProviderConfig != nil:
		in := u.IncludedOauth2ProviderConfig
		c = client{"includedOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
		spec.Issuer, spec.AuthorizationEndpoint, spec.TokenEndpoint = in.Issuer, in.AuthorizationEndpoint, in.TokenEndpoint
	case u.GoogleOauth2ProviderConfig != nil:
		in := u.GoogleOauth2ProviderConfig
		c = client{"googleOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
	default:
		c, spec.Tenant = clientOf(u)
	}
	spec.Member, spec.ClientID, spec.Secret = c.member, c.id, hide(c.secret)
	if c.source == api.SecretSourceTypeExternal || c.config != nil {
		return spec, fault.Field("oauth2ProviderConfigInput."+c.member+".clientSecretSource", "EXTERNAL secrets are not offered by this server yet: send clientSecret")
	}
	return spec, nil
}

// custom reads what only CustomOauth2 has, and refuses by name what this server does not offer.
func custom(spec *broker.ProviderSpec, in *api.CustomOauth2ProviderConfigInput) error {
	const at = "oauth2ProviderConfigInput.customOauth2ProviderConfig."
	switch in.ClientAuthenticationMethod {
	case "":
	case api.ClientAuthenticationMethodTypeClientSecretBasic:
		spec.AuthMethod = broker.AuthBasic
	case api.ClientAuthenticationMethodTypeClientSecretPost:
		spec.AuthMethod = broker.AuthPost
	case api.ClientAuthenticationMethodTypePrivateKeyJwt:
		spec.AuthMethod = broker.AuthPrivateKeyJWT
	case api.ClientAuthenticationMethodTypeAwsIamIdTokenJwt:
		spec.AuthMethod = broker.AuthIDTokenJWT
	default:
		return fault.Field(at+"clientAuthenticationMethod", "must be CLIENT_SECRET_BASIC, CLIENT_SECRET_POST, AWS_IAM_ID_TOKEN_JWT or PRIVATE_KEY_JWT")
	}
	var err error
	if spec.Assertion, err = assertionOf(in); err != nil {
		return err
	}
	for _, m := range []struct {
		name string
		sent bool
	}{
		{"privateEndpoint", in.PrivateEndpoint != nil}, {"privateEndpointOverrides", len(in.PrivateEndpointOverrides) > 0},
	} {
		if m.sent {
			return fault.Field(at+m.name, "is not offered by this server yet")
		}
	}
	spec.OnBehalfOf = exchangeOf(in.OnBehalfOfTokenExchangeConfig)
	spec.DiscoveryURL = in.OauthDiscovery.DiscoveryURL
	if m := in.OauthDiscovery.AuthorizationServerMetadata; m != nil {
		spec.Issuer, spec.AuthorizationEndpoint, spec.TokenEndpoint, spec.ResponseTypes = m.Issuer, m.AuthorizationEndpoint, m.TokenEndpoint, m.ResponseTypes
		for _, a := range m.TokenEndpointAuthMethods {
			spec.TokenAuthMethods = append(spec.TokenAuthMethods, broker.AuthMethod(a))
		}
	}
	return nil
}

// configOf describes a provider without its secret.
func configOf(p broker.Provider, member string) *api.Oauth2ProviderConfigOutput {
	d := &api.Oauth2Discovery{DiscoveryURL: p.DiscoveryURL}
	if p.DiscoveryURL == "" {
		types := p.ResponseTypes
		if len(types) == 0 {
			types = []string{"code"}
		}
		d.AuthorizationServerMetadata = &api.Oauth2AuthorizationServerMetadata{
			Issuer: p.Issuer, AuthorizationEndpoint: p.AuthorizationEndpoint, TokenEndpoint: p.TokenEndpoint, ResponseTypes: types,
		}
		for _, a := range p.TokenAuthMethods {
			d.AuthorizationServerMetadata.TokenEndpointAuthMethods = append(d.AuthorizationServerMetadata.TokenEndpointAuthMethods, string(a))
		}
	}
	switch member {
	case "googleOauth2ProviderConfig":
		return &api.Oauth2ProviderConfigOutput{GoogleOauth2ProviderConfig: &api.GoogleOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: p.ClientID}}
	case "includedOauth2ProviderConfig":
		return &api.Oauth2ProviderConfigOutput{IncludedOauth2ProviderConfig: &api.IncludedOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: p.ClientID}}
	}
	if out := vendorConfig(member, d, p.ClientID); out != nil {
		return out
	}
	method := api.ClientAuthenticationMethodTypeClientSecretBasic
	switch p.AuthMethod {
	case broker.AuthPost:
		method = api.ClientAuthenticationMethodTypeClientSecretPost
	case broker.AuthPrivateKeyJWT:
		method = api.ClientAuthenticationMethodTypePrivateKeyJwt
	case broker.AuthIDTokenJWT:
		method = api.ClientAuthenticationMethodTypeAwsIamIdTokenJwt
	}
	return &api.Oauth2ProviderConfigOutput{CustomOauth2ProviderConfig: &api.CustomOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: p.ClientID, ClientAuthenticationMethod: method,
		PrivateKeyJWTConfig: assertionConfigOf(p), OnBehalfOfTokenExchangeConfig: exchangeConfigOf(p.OnBehalfOf)}}
}
