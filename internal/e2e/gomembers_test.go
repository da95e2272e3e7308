package e2e_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	data "github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

const examplesDiscovery = "https://idp.example.com/.well-known/openid-configuration"

// goConfig is a provider's configuration. It has the client's secret, or says that it is elsewhere.
type goConfig struct {
	name   string
	vendor types.CredentialProviderVendorType
	make   func(c types.GoogleOauth2ProviderConfigInput) types.Oauth2ProviderConfigInput
}

// goConfigs has each vendor's own type. All have the members of Google's, and most have no other.
func goConfigs() []goConfig {
	type in = types.GoogleOauth2ProviderConfigInput
	type made = types.Oauth2ProviderConfigInput
	return append(customConfigs(), []goConfig{
		{"google", types.CredentialProviderVendorTypeGoogleOauth2, func(c in) made {
			return &types.Oauth2ProviderConfigInputMemberGoogleOauth2ProviderConfig{Value: c}
		}},
		{"github", types.CredentialProviderVendorTypeGithubOauth2, func(c in) made {
			return &types.Oauth2ProviderConfigInputMemberGithubOauth2ProviderConfig{Value: types.GithubOauth2ProviderConfigInput(c)}
		}},
		{"slack", types.CredentialProviderVendorTypeSlackOauth2, func(c in) made {
			return &types.Oauth2ProviderConfigInputMemberSlackOauth2ProviderConfig{Value: types.SlackOauth2ProviderConfigInput(c)}
		}},
		{"salesforce", types.CredentialProviderVendorTypeSalesforceOauth2, func(c in) made {
			return &types.Oauth2ProviderConfigInputMemberSalesforceOauth2ProviderConfig{Value: types.SalesforceOauth2ProviderConfigInput(c)}
		}},
		{"atlassian", types.CredentialProviderVendorTypeAtlassianOauth2, func(c in) made {
			return &types.Oauth2ProviderConfigInputMemberAtlassianOauth2ProviderConfig{Value: types.AtlassianOauth2ProviderConfigInput(c)}
		}},
		{"linkedin", types.CredentialProviderVendorTypeLinkedinOauth2, func(c in) made {
			return &types.Oauth2ProviderConfigInputMemberLinkedinOauth2ProviderConfig{Value: types.LinkedinOauth2ProviderConfigInput(c)}
		}},
		{"microsoft", types.CredentialProviderVendorTypeMicrosoftOauth2, func(c in) made {
			return &types.Oauth2ProviderConfigInputMemberMicrosoftOauth2ProviderConfig{Value: types.MicrosoftOauth2ProviderConfigInput{
				ClientId: c.ClientId, ClientSecret: c.ClientSecret, ClientSecretSource: c.ClientSecretSource, ClientSecretConfig: c.ClientSecretConfig,
				TenantId: aws.String("contoso.example"),
			}}
		}},
		{"okta", types.CredentialProviderVendorTypeOktaOauth2, func(c in) made {
			return &types.Oauth2ProviderConfigInputMemberIncludedOauth2ProviderConfig{Value: types.IncludedOauth2ProviderConfigInput{
				ClientId: c.ClientId, ClientSecret: c.ClientSecret, ClientSecretSource: c.ClientSecretSource, ClientSecretConfig: c.ClientSecretConfig,
				Issuer: aws.String("https://tenant.example.com"), AuthorizationEndpoint: aws.String("https://tenant.example.com/authorize"),
				TokenEndpoint: aws.String("https://tenant.example.com/token"),
			}}
		}},
	}...)
}

// customConfigs are those of CustomOauth2, with what only it has.
func customConfigs() []goConfig {
	custom := func(name string, change func(*types.CustomOauth2ProviderConfigInput)) goConfig {
		return goConfig{name, types.CredentialProviderVendorTypeCustomOauth2, func(c types.GoogleOauth2ProviderConfigInput) types.Oauth2ProviderConfigInput {
			v := types.CustomOauth2ProviderConfigInput{
				OauthDiscovery: &types.Oauth2DiscoveryMemberDiscoveryUrl{Value: examplesDiscovery},
				ClientId:       c.ClientId, ClientSecret: c.ClientSecret, ClientSecretSource: c.ClientSecretSource, ClientSecretConfig: c.ClientSecretConfig,
			}
			change(&v)
			return &types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig{Value: v}
		}}
	}
	return []goConfig{
		custom("inline", func(v *types.CustomOauth2ProviderConfigInput) {
			v.OauthDiscovery = &types.Oauth2DiscoveryMemberAuthorizationServerMetadata{Value: types.Oauth2AuthorizationServerMetadata{
				Issuer: aws.String("https://idp.example.com"), AuthorizationEndpoint: aws.String("https://idp.example.com/authorize"),
				TokenEndpoint: aws.String("https://idp.example.com/token"), ResponseTypes: []string{"code"}, TokenEndpointAuthMethods: []string{"client_secret_post"},
			}}
			v.ClientAuthenticationMethod = types.ClientAuthenticationMethodTypeClientSecretPost
		}),
		custom("actor", func(v *types.CustomOauth2ProviderConfigInput) {
			v.OnBehalfOfTokenExchangeConfig = &types.OnBehalfOfTokenExchangeConfigType{
				GrantType:                    types.OnBehalfOfTokenExchangeGrantTypeTypeTokenExchange,
				TokenExchangeGrantTypeConfig: &types.TokenExchangeGrantTypeConfigType{ActorTokenContent: types.ActorTokenContentTypeM2m, ActorTokenScopes: []string{"act"}},
			}
		}),
		custom("noclient", func(v *types.CustomOauth2ProviderConfigInput) {
			v.OnBehalfOfTokenExchangeConfig = &types.OnBehalfOfTokenExchangeConfigType{
				GrantType:                      types.OnBehalfOfTokenExchangeGrantTypeTypeJwtAuthorizationGrant,
				OnBehalfOfAuthenticationConfig: &types.OnBehalfOfAuthenticationConfig{ClientAuthenticationMethod: types.OnBehalfOfClientAuthenticationMethodNoClient},
			}
		}),
		custom("keyed", func(v *types.CustomOauth2ProviderConfigInput) {
			v.ClientSecret, v.ClientSecretSource = nil, ""
			v.ClientAuthenticationMethod = types.ClientAuthenticationMethodTypePrivateKeyJwt
			v.PrivateKeyJwtConfig = &types.PrivateKeyJwtConfig{
				SigningAlgorithm: types.SigningAlgorithmEs256, AdditionalHeaderClaims: map[string]string{"x-header": "of the assertion"},
				AdditionalPayloadClaims: map[string]string{"x-claim": "of the assertion"},
			}
		}),
	}
}

// goVendors makes, reads and updates a provider of each vendor, and with each member of the configurations; what this
// server does not offer is refused of a new one and of the one there is.
func goVendors(t *testing.T, seen *members) {
	w := newBare(t, daemon.SQLite).noting(seen)
	for _, v := range goConfigs() {
		given := v.make(types.GoogleOauth2ProviderConfigInput{ClientId: aws.String("placeholder"), ClientSecret: aws.String("placeholder-secret"), ClientSecretSource: types.SecretSourceTypeManaged})
		made, err := w.control(root()).CreateOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
			Name: &v.name, CredentialProviderVendor: v.vendor, Oauth2ProviderConfigInput: given, Tags: map[string]string{"team": "tests"},
		})
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		got, err := w.control(root()).GetOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.GetOauth2CredentialProviderInput{Name: &v.name})
		if err != nil || got.CredentialProviderVendor != v.vendor || *got.CallbackUrl != *made.CallbackUrl {
			t.Errorf("%s: got %+v, %v", v.name, got, err)
		}
		updated, err := w.control(root()).UpdateOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.UpdateOauth2CredentialProviderInput{
			Name: &v.name, CredentialProviderVendor: v.vendor, Oauth2ProviderConfigInput: given,
		})
		if err != nil || *updated.CallbackUrl != *made.CallbackUrl {
			t.Errorf("%s, updated: %+v, %v", v.name, updated, err)
		}
		external := types.GoogleOauth2ProviderConfigInput{ClientId: aws.String("placeholder"), ClientSecretSource: types.SecretSourceTypeExternal,
			ClientSecretConfig: &types.SecretReference{SecretId: aws.String("s"), JsonKey: aws.String("k")}}
		if v.name != "keyed" {
			w.refusedConfig(v.name, v.vendor, v.make(external), "EXTERNAL")
		}
	}
	for words, refused := range map[string]types.Oauth2ProviderConfigInput{
		"leave privateKeySource out": keyed(examplesDiscovery, &types.PrivateKeyJwtConfig{PrivateKeySource: &types.PrivateKeySourceMemberKmsKeySource{
			Value: types.KmsKeySourceType{KmsKeyArn: aws.String("arn:aws:kms:us-east-1:000000000000:key/01234567-89ab-cdef-0123-456789abcdef")},
		}}),
		"privateEndpoint": keyedBehind(&types.PrivateEndpointMemberSelfManagedLatticeResource{
			Value: &types.SelfManagedLatticeResourceMemberResourceConfigurationIdentifier{Value: "rcfg-0123456789abcdefg"},
		}, nil),
		"privateEndpointOverrides": keyedBehind(nil, []types.PrivateEndpointOverride{{Domain: aws.String("idp.example.com"), PrivateEndpoint: &types.PrivateEndpointMemberManagedVpcResource{
			Value: types.ManagedVpcResource{VpcIdentifier: aws.String("vpc-01234567"), SubnetIds: []string{"subnet-01234567"}, EndpointIpAddressType: types.EndpointIpAddressTypeIpv4},
		}}}),
	} {
		w.refusedConfig("keyed", types.CredentialProviderVendorTypeCustomOauth2, refused, words)
	}
}

// keyedBehind is the configuration of a provider in a private network.
func keyedBehind(endpoint types.PrivateEndpoint, overrides []types.PrivateEndpointOverride) types.Oauth2ProviderConfigInput {
	c := keyed(examplesDiscovery, nil).(*types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig)
	c.Value.PrivateEndpoint, c.Value.PrivateEndpointOverrides = endpoint, overrides
	return c
}

// refusedConfig wants a configuration refused of a new provider, and of the one that has the name.
func (w *world) refusedConfig(name string, vendor types.CredentialProviderVendorType, config types.Oauth2ProviderConfigInput, words string) {
	w.t.Helper()
	_, err := w.control(root()).CreateOauth2CredentialProvider(w.t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: aws.String("refused"), CredentialProviderVendor: vendor, Oauth2ProviderConfigInput: config,
	})
	wantError[*types.ValidationException](w.t, err, words)
	_, err = w.control(root()).UpdateOauth2CredentialProvider(w.t.Context(), &bedrockagentcorecontrol.UpdateOauth2CredentialProviderInput{
		Name: &name, CredentialProviderVendor: vendor, Oauth2ProviderConfigInput: config,
	})
	wantError[*types.ValidationException](w.t, err, words)
}

// goTargets asks for tokens for resources and audiences, for a user by exchange and for the agent itself, and the
// provider hears of them.
func goTargets(t *testing.T, seen *members) {
	w := newWorld(t, daemon.SQLite).noting(seen)
	w.trust()
	if _, err := w.control(root()).CreateWorkloadIdentity(t.Context(), &bedrockagentcorecontrol.CreateWorkloadIdentityInput{Name: aws.String("agent"), Tags: map[string]string{"team": "tests"}}); err != nil {
		t.Fatal(err)
	}
	agent, provider := w.principal("agent", "agent", "agent"), oauthtest.New(t)
	_, err := w.control(root()).CreateOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: aws.String("api"), CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2,
		Oauth2ProviderConfigInput: &types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig{Value: types.CustomOauth2ProviderConfigInput{
			OauthDiscovery: &types.Oauth2DiscoveryMemberDiscoveryUrl{Value: provider.URL + oauthtest.Metadata},
			ClientId:       aws.String(oauthtest.ClientID), ClientSecret: aws.String(oauthtest.ClientSecret),
			OnBehalfOfTokenExchangeConfig: &types.OnBehalfOfTokenExchangeConfigType{
				GrantType:                    types.OnBehalfOfTokenExchangeGrantTypeTypeTokenExchange,
				TokenExchangeGrantTypeConfig: &types.TokenExchangeGrantTypeConfigType{ActorTokenContent: types.ActorTokenContentTypeNone},
			},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	wat := w.wat(agent, "agent", w.login("alice"))
	for i, flow := range []data.Oauth2FlowType{data.Oauth2FlowTypeOnBehalfOfTokenExchange, data.Oauth2FlowTypeM2m} {
		out, err := w.data(agent).GetResourceOauth2Token(t.Context(), &bedrockagentcore.GetResourceOauth2TokenInput{
			WorkloadIdentityToken: &wat, ResourceCredentialProviderName: aws.String("api"), Oauth2Flow: flow, Scopes: []string{"read"},
			Resources: []string{"https://api.example.com"}, Audiences: []string{"api"},
		})
		if err != nil || aws.ToString(out.AccessToken) == "" {
			t.Fatalf("%s: %v", flow, err)
		}
		if form := provider.Requests()[i].Form; form.Get("resource") != "https://api.example.com" || form.Get("audience") != "api" {
			t.Errorf("%s: the provider was asked for %q and %q", flow, form["resource"], form["audience"])
		}
	}
}

// goAssertedUser: the application says which user consented by an id where the agent asserted the user by that id.
func goAssertedUser(t *testing.T, seen *members) {
	w := newWorld(t, daemon.SQLite).noting(seen)
	w.workload("agent")
	w.provider("calendar")
	out, err := w.data(root()).GetWorkloadAccessTokenForUserId(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenForUserIdInput{WorkloadName: aws.String("agent"), UserId: aws.String("u-1")})
	if err != nil {
		t.Fatal(err)
	}
	ask := &bedrockagentcore.GetResourceOauth2TokenInput{
		WorkloadIdentityToken: out.WorkloadAccessToken, ResourceCredentialProviderName: aws.String("calendar"), Oauth2Flow: data.Oauth2FlowTypeUserFederation,
		Scopes: []string{"openid"}, ResourceOauth2ReturnUrl: aws.String(returnURL),
	}
	first, err := w.data(root()).GetResourceOauth2Token(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	peer.NewBrowser("alice").Walk(t, *first.AuthorizationUrl, returnURL)
	_, err = w.data(root()).CompleteResourceTokenAuth(t.Context(), &bedrockagentcore.CompleteResourceTokenAuthInput{
		SessionUri: first.SessionUri, UserIdentifier: &data.UserIdentifierMemberUserId{Value: "u-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ask.SessionUri = first.SessionUri
	if got, err := w.data(root()).GetResourceOauth2Token(t.Context(), ask); err != nil || aws.ToString(got.AccessToken) == "" {
		t.Errorf("after Complete: %v", err)
	}
}

// goRoot makes the calls of the root package that are operations of ours, for users of each kind.
func goRoot(t *testing.T, seen *members) {
	w, idp := newBare(t, daemon.SQLite).noting(seen), corporate(t)
	w.call(root(), "CreateTrustedIssuer", map[string]any{"issuer": idp.Issuer(), "clientIds": []string{appClient}, "userinfo": true})
	w.call(root(), "CreateWorkloadIdentity", map[string]any{"name": "agent", "tags": map[string]string{"tabard:assurance": "asserted"}})
	agent := w.principal("agent", "agent", "agent")
	sdk, err := tabard.New(t.Context(), tabard.Config{Workload: "agent", API: w.data(agent)})
	if err != nil {
		t.Fatal(err)
	}
	ctx := tabard.WithUserToken(t.Context(), idp.MintAccessToken("alice", appClient).Expose())
	if u, err := sdk.UserInfo(ctx); err != nil || u.Email != "alice@corp.example" {
		t.Errorf("UserInfo: got %+v, %v", u, err)
	}
	if d, err := sdk.DescribeUser(ctx); err != nil || d.Kind != "jwt" || d.Subject == "" {
		t.Errorf("DescribeUser: got %+v, %v", d, err)
	}
	if d, err := sdk.DescribeUser(tabard.WithUserID(t.Context(), "u-1")); err != nil || d.Kind != "uid" || d.UserID != "u-1" {
		t.Errorf("DescribeUser of an asserted user: got %+v, %v", d, err)
	}
	w.call(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "weather", "apiKey": "the key"})
	night := tabard.WithDelegation(t.Context(), w.delegate(root(), idp.MintAccessToken("alice", appClient).Expose(), map[string]any{"providerName": "weather"}))
	if d, err := sdk.DescribeUser(night); err != nil || d.Kind != "jwt" || d.Subject == "" {
		t.Errorf("DescribeUser under a delegation: got %+v, %v", d, err)
	}
}
