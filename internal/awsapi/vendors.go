package awsapi

import "github.com/tabard-id/tabard/api"

// clientOf reads the members of the union that have a client and, at most, a tenant.
func clientOf(u *api.Oauth2ProviderConfigInput) (c client, tenant string) {
	switch {
	case u.GithubOauth2ProviderConfig != nil:
		in := u.GithubOauth2ProviderConfig
		c = client{"githubOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
	case u.SlackOauth2ProviderConfig != nil:
		in := u.SlackOauth2ProviderConfig
		c = client{"slackOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
	case u.SalesforceOauth2ProviderConfig != nil:
		in := u.SalesforceOauth2ProviderConfig
		c = client{"salesforceOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
	case u.MicrosoftOauth2ProviderConfig != nil:
		in := u.MicrosoftOauth2ProviderConfig
		c = client{"microsoftOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
		tenant = in.TenantID
	case u.AtlassianOauth2ProviderConfig != nil:
		in := u.AtlassianOauth2ProviderConfig
		c = client{"atlassianOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
	case u.LinkedinOauth2ProviderConfig != nil:
		in := u.LinkedinOauth2ProviderConfig
		c = client{"linkedinOauth2ProviderConfig", in.ClientID, in.ClientSecret, in.ClientSecretSource, in.ClientSecretConfig}
	}
	return c, tenant
}

// vendorConfig describes a provider in the member of its vendor's own; nil where the vendor has none here.
func vendorConfig(member string, d *api.Oauth2Discovery, id string) *api.Oauth2ProviderConfigOutput {
	switch member {
	case "githubOauth2ProviderConfig":
		return &api.Oauth2ProviderConfigOutput{GithubOauth2ProviderConfig: &api.GithubOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: id}}
	case "slackOauth2ProviderConfig":
		return &api.Oauth2ProviderConfigOutput{SlackOauth2ProviderConfig: &api.SlackOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: id}}
	case "salesforceOauth2ProviderConfig":
		return &api.Oauth2ProviderConfigOutput{SalesforceOauth2ProviderConfig: &api.SalesforceOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: id}}
	case "microsoftOauth2ProviderConfig":
		return &api.Oauth2ProviderConfigOutput{MicrosoftOauth2ProviderConfig: &api.MicrosoftOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: id}}
	case "atlassianOauth2ProviderConfig":
		return &api.Oauth2ProviderConfigOutput{AtlassianOauth2ProviderConfig: &api.AtlassianOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: id}}
	case "linkedinOauth2ProviderConfig":
		return &api.Oauth2ProviderConfigOutput{LinkedinOauth2ProviderConfig: &api.LinkedinOauth2ProviderConfigOutput{OauthDiscovery: d, ClientID: id}}
	}
	return nil
}
