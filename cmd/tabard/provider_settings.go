package main

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
)

// providerSettings is what an administrator says about a provider, whatever its vendor.
type providerSettings struct {
	vendor, clientID                             string
	secret                                       secret.Text // zero where an update leaves it as it is
	discoveryURL                                 string
	issuer, authorizationEndpoint, tokenEndpoint string
	authMethod                                   api.ClientAuthenticationMethodType
	tenant                                       string

	// What an update keeps of a provider, because no flag is for it.
	metadata *api.Oauth2AuthorizationServerMetadata
	custom   *api.CustomOauth2ProviderConfigOutput
}

// authMethods are the values of --auth-method.
func authMethods() map[string]api.ClientAuthenticationMethodType {
	return map[string]api.ClientAuthenticationMethodType{
		"basic": api.ClientAuthenticationMethodTypeClientSecretBasic, "post": api.ClientAuthenticationMethodTypeClientSecretPost,
		"private-key-jwt": api.ClientAuthenticationMethodTypePrivateKeyJwt, "id-token-jwt": api.ClientAuthenticationMethodTypeAwsIamIdTokenJwt,
	}
}

// vendors are the names that --vendor takes. The server says whether it offers one.
func vendors() []string {
	return []string{"Auth0Oauth2", "AtlassianOauth2", "CognitoOauth2", "CustomOauth2", "CyberArkOauth2", "DropboxOauth2", "FacebookOauth2", "FusionAuthOauth2",
		"GithubOauth2", "GoogleOauth2", "HubspotOauth2", "LinkedinOauth2", "MicrosoftOauth2", "NotionOauth2", "OktaOauth2", "OneLoginOauth2", "PingOneOauth2",
		"RedditOauth2", "SalesforceOauth2", "SlackOauth2", "SpotifyOauth2", "TwitchOauth2", "XOauth2", "YandexOauth2", "ZoomOauth2"}
}

// knownVendor refuses a name that no vendor has.
func knownVendor(name string) error {
	if slices.Contains(vendors(), name) {
		return nil
	}
	near := ""
	for _, v := range vendors() {
		short := strings.TrimSuffix(v, "Oauth2")
		if nearest(strings.TrimSuffix(name, "Oauth2"), []string{short}) != "" {
			near = " (did you mean " + v + "?)"
			break
		}
	}
	return usage("tabard provider vendors lists them", "--vendor: there is no vendor %s%s", oneLine(name), near)
}

// providerFlags are the flags of create and update.
type providerFlags struct {
	providerSettings
	method string
	key    hidden

	allowed, presentation []string // names of custom parameters that are added
}

func (p *providerFlags) add(cmd *cobra.Command, t terminal) {
	p.key = hidden{what: "client secret", flag: "client-secret-file", variable: "TABARD_CLIENT_SECRET_FILE"}
	flags := cmd.Flags()
	flags.StringVar(&p.clientID, "client-id", "", "`id` of your OAuth client at the provider")
	p.key.addFlag(cmd, t)
	flags.StringVar(&p.discoveryURL, "discovery-url", "", "CustomOauth2: `URL` of the provider's metadata, ending in /.well-known/openid-configuration or /.well-known/oauth-authorization-server")
	flags.StringVar(&p.issuer, "issuer", "", "`URL` of the issuer, where there is no discovery; with the two endpoints")
	flags.StringVar(&p.authorizationEndpoint, "authorization-endpoint", "", "`URL` where users consent")
	flags.StringVar(&p.tokenEndpoint, "token-endpoint", "", "`URL` where tokens are given out")
	flags.StringVar(&p.method, "auth-method", "", "CustomOauth2: how the client proves who it is, `basic|post|private-key-jwt|id-token-jwt`; the last two have no secret, but a key that the server makes for the provider, or the server's own as an issuer that the provider trusts (default basic)")
	flags.StringVar(&p.tenant, "tenant-id", "", "MicrosoftOauth2: `id` of the tenant")
	flags.StringArrayVar(&p.allowed, "allow-parameter", nil, "`name` of a custom parameter that agents may send although it can widen a token, such as claims; may be given again")
	flags.StringArrayVar(&p.presentation, "presentation-parameter", nil, "`name` of a custom parameter that only changes how a user is asked, so that it makes no connection of its own; may be given again")
	complete(cmd, "allow-parameter", cobra.NoFileCompletions)
	complete(cmd, "presentation-parameter", cobra.NoFileCompletions)
	complete(cmd, "auth-method", oneOf(slices.Sorted(maps.Keys(authMethods()))...))
}

// changed is a list of names with those in add and without those in drop, or nil if that changes nothing.
func changed(names, add, drop []string) []string {
	out := []string{}
	for _, name := range append(slices.Clone(names), add...) {
		if !slices.Contains(out, name) && !slices.Contains(drop, name) {
			out = append(out, name)
		}
	}
	if slices.Equal(out, names) {
		return nil
	}
	return out
}

// bySigning reports whether --auth-method is one of these, which have no secret.
func (p *providerFlags) bySigning(methods ...string) bool { return slices.Contains(methods, p.method) }

// check refuses what contradicts itself, and what a vendor has no use for.
func (p *providerFlags) check() error {
	endpoints := p.issuer != "" || p.authorizationEndpoint != "" || p.tokenEndpoint != ""
	if p.discoveryURL != "" && endpoints {
		return usage("the metadata has the endpoints", "--discovery-url contradicts --issuer, --authorization-endpoint and --token-endpoint")
	}
	if endpoints && (p.issuer == "" || p.authorizationEndpoint == "" || p.tokenEndpoint == "") {
		return usage("for example --issuer https://idp.example.com --authorization-endpoint https://idp.example.com/authorize --token-endpoint https://idp.example.com/token",
			"--issuer, --authorization-endpoint and --token-endpoint go together")
	}
	if p.method != "" {
		var known bool
		if p.authMethod, known = authMethods()[p.method]; !known {
			return usage("--auth-method is basic, post, private-key-jwt or id-token-jwt", "unknown authentication method %q", oneLine(p.method))
		}
	}
	custom, microsoft := p.vendor == string(api.CredentialProviderVendorTypeCustomOauth2), p.vendor == string(api.CredentialProviderVendorTypeMicrosoftOauth2)
	switch {
	case !custom && p.discoveryURL != "":
		return usage("use CustomOauth2", "--discovery-url is for CustomOauth2, not for %s", oneLine(p.vendor))
	case !custom && p.method != "":
		return usage("use CustomOauth2", "--auth-method is for CustomOauth2, not for %s", oneLine(p.vendor))
	case !microsoft && p.tenant != "":
		return usage("only Microsoft has tenants", "--tenant-id is for MicrosoftOauth2, not for %s", oneLine(p.vendor))
	case custom && p.discoveryURL == "" && !endpoints:
		return usage("usage: --discovery-url URL, or --issuer URL --authorization-endpoint URL --token-endpoint URL", "CustomOauth2 needs the provider's endpoints")
	case endpoints && !custom && !included(p.vendor):
		return usage("use CustomOauth2", "%s has endpoints of its own", oneLine(p.vendor))
	}
	return nil
}

// included reports whether a vendor has no member of its own in the union of the API, but shares one.
func included(vendor string) bool {
	switch api.CredentialProviderVendorType(vendor) {
	case api.CredentialProviderVendorTypeCustomOauth2, api.CredentialProviderVendorTypeGoogleOauth2, api.CredentialProviderVendorTypeGithubOauth2,
		api.CredentialProviderVendorTypeSlackOauth2, api.CredentialProviderVendorTypeSalesforceOauth2, api.CredentialProviderVendorTypeMicrosoftOauth2,
		api.CredentialProviderVendorTypeAtlassianOauth2, api.CredentialProviderVendorTypeLinkedinOauth2:
		return false
	}
	return true
}

// input is the member of the union that the vendor has.
func (p *providerSettings) input() *api.Oauth2ProviderConfigInput {
	id, key := p.clientID, api.Sensitive(p.secret.Expose())
	switch api.CredentialProviderVendorType(p.vendor) {
	case api.CredentialProviderVendorTypeCustomOauth2:
		d := &api.Oauth2Discovery{DiscoveryURL: p.discoveryURL}
		if p.discoveryURL == "" {
			d.AuthorizationServerMetadata = &api.Oauth2AuthorizationServerMetadata{}
			if p.metadata != nil {
				*d.AuthorizationServerMetadata = *p.metadata
			}
			d.AuthorizationServerMetadata.Issuer = p.issuer
			d.AuthorizationServerMetadata.AuthorizationEndpoint, d.AuthorizationServerMetadata.TokenEndpoint = p.authorizationEndpoint, p.tokenEndpoint
		}
		in := &api.CustomOauth2ProviderConfigInput{OauthDiscovery: d, ClientID: id, ClientSecret: key, ClientAuthenticationMethod: p.authMethod}
		if p.custom != nil {
			in.OnBehalfOfTokenExchangeConfig = p.custom.OnBehalfOfTokenExchangeConfig // without privateKeyJwtConfig the server keeps it whole
			in.PrivateEndpoint, in.PrivateEndpointOverrides = p.custom.PrivateEndpoint, p.custom.PrivateEndpointOverrides
		}
		return &api.Oauth2ProviderConfigInput{CustomOauth2ProviderConfig: in}
	case api.CredentialProviderVendorTypeGoogleOauth2:
		return &api.Oauth2ProviderConfigInput{GoogleOauth2ProviderConfig: &api.GoogleOauth2ProviderConfigInput{ClientID: id, ClientSecret: key}}
	case api.CredentialProviderVendorTypeGithubOauth2:
		return &api.Oauth2ProviderConfigInput{GithubOauth2ProviderConfig: &api.GithubOauth2ProviderConfigInput{ClientID: id, ClientSecret: key}}
	case api.CredentialProviderVendorTypeSlackOauth2:
		return &api.Oauth2ProviderConfigInput{SlackOauth2ProviderConfig: &api.SlackOauth2ProviderConfigInput{ClientID: id, ClientSecret: key}}
	case api.CredentialProviderVendorTypeSalesforceOauth2:
		return &api.Oauth2ProviderConfigInput{SalesforceOauth2ProviderConfig: &api.SalesforceOauth2ProviderConfigInput{ClientID: id, ClientSecret: key}}
	case api.CredentialProviderVendorTypeMicrosoftOauth2:
		return &api.Oauth2ProviderConfigInput{MicrosoftOauth2ProviderConfig: &api.MicrosoftOauth2ProviderConfigInput{ClientID: id, ClientSecret: key, TenantID: p.tenant}}
	case api.CredentialProviderVendorTypeAtlassianOauth2:
		return &api.Oauth2ProviderConfigInput{AtlassianOauth2ProviderConfig: &api.AtlassianOauth2ProviderConfigInput{ClientID: id, ClientSecret: key}}
	case api.CredentialProviderVendorTypeLinkedinOauth2:
		return &api.Oauth2ProviderConfigInput{LinkedinOauth2ProviderConfig: &api.LinkedinOauth2ProviderConfigInput{ClientID: id, ClientSecret: key}}
	}
	return &api.Oauth2ProviderConfigInput{IncludedOauth2ProviderConfig: &api.IncludedOauth2ProviderConfigInput{ClientID: id, ClientSecret: key,
		Issuer: p.issuer, AuthorizationEndpoint: p.authorizationEndpoint, TokenEndpoint: p.tokenEndpoint}}
}

// settingsOf reads back what a provider is like, from whichever member of the union the server answers with.
func settingsOf(u *api.Oauth2ProviderConfigOutput) providerSettings {
	var s providerSettings
	var d *api.Oauth2Discovery
	switch {
	case u == nil:
	case u.CustomOauth2ProviderConfig != nil:
		s.custom = u.CustomOauth2ProviderConfig
		s.clientID, d, s.authMethod = s.custom.ClientID, s.custom.OauthDiscovery, s.custom.ClientAuthenticationMethod
	case u.IncludedOauth2ProviderConfig != nil:
		s.clientID, d = u.IncludedOauth2ProviderConfig.ClientID, u.IncludedOauth2ProviderConfig.OauthDiscovery
	case u.GoogleOauth2ProviderConfig != nil:
		s.clientID = u.GoogleOauth2ProviderConfig.ClientID
	case u.GithubOauth2ProviderConfig != nil:
		s.clientID = u.GithubOauth2ProviderConfig.ClientID
	case u.SlackOauth2ProviderConfig != nil:
		s.clientID = u.SlackOauth2ProviderConfig.ClientID
	case u.SalesforceOauth2ProviderConfig != nil:
		s.clientID = u.SalesforceOauth2ProviderConfig.ClientID
	case u.MicrosoftOauth2ProviderConfig != nil:
		s.clientID = u.MicrosoftOauth2ProviderConfig.ClientID
		s.tenant = tenantOf(u.MicrosoftOauth2ProviderConfig.OauthDiscovery)
	case u.AtlassianOauth2ProviderConfig != nil:
		s.clientID = u.AtlassianOauth2ProviderConfig.ClientID
	case u.LinkedinOauth2ProviderConfig != nil:
		s.clientID = u.LinkedinOauth2ProviderConfig.ClientID
	}
	if d != nil {
		s.discoveryURL = d.DiscoveryURL
		if m := d.AuthorizationServerMetadata; m != nil && s.discoveryURL == "" {
			s.metadata = m
			s.issuer, s.authorizationEndpoint, s.tokenEndpoint = m.Issuer, m.AuthorizationEndpoint, m.TokenEndpoint
		}
	}
	return s
}

// tenantOf reads the tenant, which the API does not tell, from Microsoft's endpoints: it is the first part of their
// paths.
func tenantOf(d *api.Oauth2Discovery) string {
	if d == nil {
		return ""
	}
	address := d.DiscoveryURL
	if m := d.AuthorizationServerMetadata; m != nil {
		address = m.AuthorizationEndpoint
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return tenant
}

func providerCreate(t terminal, f *finder) *cobra.Command {
	type answer = api.CreateOauth2CredentialProviderResponse
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a credential provider", Args: onlyName, ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Creates a credential provider, and prints the callback URL, which is the redirect URI to register there. CustomOauth2 is any\n" +
			"provider, by its endpoints. The client secret comes from a file, from standard input, or is asked for at the terminal.",
		Example: examples(
			"tabard provider create google-calendar --vendor GoogleOauth2 --client-id 123.apps.googleusercontent.com", "asks for the client secret",
			"tabard provider create tracker --vendor CustomOauth2 --client-id tabard --client-secret-file secret --discovery-url https://tracker.example.com/.well-known/openid-configuration", "any provider that has metadata",
			"pass show okta | tabard provider create okta --vendor OktaOauth2 --client-id 0oa --client-secret-file - --issuer https://dev.okta.com --authorization-endpoint https://dev.okta.com/oauth2/v1/authorize --token-endpoint https://dev.okta.com/oauth2/v1/token", "a vendor whose endpoints are yours",
			"tabard provider create bank --vendor CustomOauth2 --client-id tabard --client-secret-file secret --discovery-url https://bank.example.com/.well-known/openid-configuration --allow-parameter authorization_details", "agents may ask for more than scopes say"),
	}
	var p providerFlags
	p.add(cmd, t)
	cmd.Flags().StringVar(&p.vendor, "vendor", "", "`name` of the vendor, such as GoogleOauth2, or CustomOauth2")
	complete(cmd, "vendor", oneOf(vendors()...))
	var tags []string
	addTagFlag(cmd, &tags)
	var made answer
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (answer, error) {
		if p.vendor == "" || p.clientID == "" && !p.bySigning("id-token-jwt") {
			return answer{}, usage("usage: tabard provider create NAME --vendor GoogleOauth2 --client-id ID", "a provider needs --vendor and --client-id")
		}
		q := api.CreateOauth2CredentialProviderRequest{Name: args[0], CredentialProviderVendor: api.CredentialProviderVendorType(p.vendor),
			AllowedParameters: p.allowed, PresentationParameters: p.presentation}
		err := knownVendor(p.vendor)
		if err == nil {
			err = p.check()
		}
		if err == nil {
			q.Tags, err = parseTags(tags)
		}
		if err == nil && (!p.bySigning("private-key-jwt", "id-token-jwt") || p.key.given()) {
			p.secret, err = p.key.read(cmd)
		}
		if err != nil {
			return answer{}, err
		}
		q.Oauth2ProviderConfigInput = p.input()
		made, err = call[answer](ctx, c, api.OpCreateOauth2CredentialProvider, q)
		if excepted(err, api.ExceptionValidation) && p.issuer == "" && included(p.vendor) {
			err = hinted(err, "if the endpoints of %s are yours: --issuer URL --authorization-endpoint URL --token-endpoint URL", oneLine(p.vendor))
		}
		return made, err
	}, providerColumns(func(a answer) providerRow {
		return providerRow{a.Name, p.vendor, a.CallbackURL, a.Oauth2ProviderConfigOutput}
	}))
	sayTrust(cmd, func() trusting {
		return trusting{made.CredentialProviderARN, made.CallbackURL, made.Oauth2ProviderConfigOutput}
	})
	return cmd
}

func providerUpdate(t terminal, f *finder) *cobra.Command {
	type answer = api.UpdateOauth2CredentialProviderResponse
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Change a credential provider", Args: onlyName, ValidArgsFunction: providerNames(f),
		Long: "Changes what is given and leaves the rest. The client secret stays where none is given, unless the client or the endpoints\n" +
			"change: then it is needed again, and users have to consent again. Names of parameters are added to those that there are;\n" +
			"open consent sessions that use a dropped one end.",
		Example: examples(
			"tabard provider update google-calendar --client-secret-file secret", "a new client secret; users notice nothing",
			"tabard provider update tracker --discovery-url https://new.example.com/.well-known/openid-configuration --client-secret-file secret", "the provider moved",
			"tabard provider update bank --allow-parameter claims --drop-parameter authorization_details", "other parameters that agents may widen a token with"),
	}
	var p providerFlags
	p.add(cmd, t)
	var drop []string
	cmd.Flags().StringArrayVar(&drop, "drop-parameter", nil, "`name` of a custom parameter that neither of those two settings names any more; may be given again")
	complete(cmd, "drop-parameter", cobra.NoFileCompletions)
	var made answer
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (answer, error) {
		now, err := getProvider(ctx, c, args[0])
		if err != nil {
			return answer{}, err
		}
		p.vendor = string(now.CredentialProviderVendor)
		old := settingsOf(now.Oauth2ProviderConfigOutput)
		if p.issuer+p.authorizationEndpoint+p.tokenEndpoint == "" {
			p.discoveryURL = cmp.Or(p.discoveryURL, old.discoveryURL)
		}
		if p.discoveryURL == "" && (included(p.vendor) || old.custom != nil) {
			p.issuer, p.authorizationEndpoint, p.tokenEndpoint = cmp.Or(p.issuer, old.issuer), cmp.Or(p.authorizationEndpoint, old.authorizationEndpoint), cmp.Or(p.tokenEndpoint, old.tokenEndpoint)
		}
		if err := p.check(); err != nil {
			return answer{}, err
		}
		p.clientID, p.authMethod, p.tenant = cmp.Or(p.clientID, old.clientID), cmp.Or(p.authMethod, old.authMethod), cmp.Or(p.tenant, old.tenant)
		p.metadata, p.custom = old.metadata, old.custom
		if p.key.given() {
			if p.secret, err = p.key.read(cmd); err != nil {
				return answer{}, err
			}
		}
		made, err = call[answer](ctx, c, api.OpUpdateOauth2CredentialProvider, api.UpdateOauth2CredentialProviderRequest{
			Name: args[0], CredentialProviderVendor: now.CredentialProviderVendor, Oauth2ProviderConfigInput: p.input(),
			AllowedParameters:      changed(now.AllowedParameters, p.allowed, drop),
			PresentationParameters: changed(now.PresentationParameters, p.presentation, drop)})
		return made, err
	}, providerColumns(func(a answer) providerRow {
		return providerRow{a.Name, string(a.CredentialProviderVendor), a.CallbackURL, a.Oauth2ProviderConfigOutput}
	}))
	sayTrust(cmd, func() trusting {
		return trusting{made.CredentialProviderARN, made.CallbackURL, made.Oauth2ProviderConfigOutput}
	})
	return cmd
}
