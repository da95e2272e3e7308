package main

import (
	"cmp"
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newProvider(t terminal) *cobra.Command {
	cmd := group("provider", "Credential providers: where users' tokens come from", `
A credential provider is an OAuth client of yours at a provider such as Google. Its callback URL is the redirect URI to register
there. The client secret is read from a file, from standard input, or asked for at the terminal; it is never shown again.`)
	cmd.Example = examples(
		"tabard provider create google-calendar --vendor GoogleOauth2 --client-id 123.apps.googleusercontent.com", "asks for the client secret",
		"tabard provider callback-url google-calendar", "the redirect URI to register at Google")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(providerCreate(t, &f), providerGet(t, &f), providerList(t, &f), providerUpdate(t, &f), providerDelete(&f), providerCallbackURL(&f), providerTest(t, &f), providerVendors(t, &f))
	addStandings(cmd, t, &f, providerStandings())
	return cmd
}

// providerRow is what each answer about one provider has.
type providerRow struct {
	name, vendor, callback string
	config                 *api.Oauth2ProviderConfigOutput
}

func providerColumns[T any](row func(T) providerRow) []column[T] {
	return []column[T]{
		{name: "NAME", text: func(p T) string { return row(p).name }},
		{name: "VENDOR", text: func(p T) string { return cmp.Or(row(p).vendor, "-") }},
		{name: "CLIENT ID", text: func(p T) string { return cmp.Or(settingsOf(row(p).config).clientID, "-") }},
		{name: "CALLBACK URL", text: func(p T) string { return cmp.Or(row(p).callback, "-") }},
	}
}

func listProviders(ctx context.Context, c *client) ([]api.Oauth2CredentialProviderItem, error) {
	return allPages(func(token string) ([]api.Oauth2CredentialProviderItem, string, error) {
		a, err := call[api.ListOauth2CredentialProvidersResponse](ctx, c, api.OpListOauth2CredentialProviders, api.ListOauth2CredentialProvidersRequest{NextToken: token})
		return a.CredentialProviders, a.NextToken, err
	})
}

// providerNames completes the name of a credential provider.
func providerNames(f *finder) cobra.CompletionFunc {
	return fromServer(f, namesOf(listProviders, func(p api.Oauth2CredentialProviderItem) cobra.Completion {
		return cobra.CompletionWithDesc(p.Name, string(p.CredentialProviderVendor))
	}))
}

func providerList(t terminal, f *finder) *cobra.Command {
	type row = api.Oauth2CredentialProviderItem
	cmd := &cobra.Command{
		Use: "list", Short: "List the credential providers", Args: exactly(),
		Example: examples("tabard provider list", "for people", "tabard provider list --output json", "for scripts, in the form of the API"),
	}
	listing(cmd, t, f, listProviders, []column[row]{
		{name: "NAME", text: func(p row) string { return p.Name }},
		{name: "VENDOR", text: func(p row) string { return string(p.CredentialProviderVendor) }},
		{name: "CREATED", text: func(p row) string { return when(p.CreatedTime) }},
		{name: "UPDATED", text: func(p row) string { return when(p.LastUpdatedTime) }},
	})
	return cmd
}

func getProvider(ctx context.Context, c *client, name string) (api.GetOauth2CredentialProviderResponse, error) {
	return call[api.GetOauth2CredentialProviderResponse](ctx, c, api.OpGetOauth2CredentialProvider, api.GetOauth2CredentialProviderRequest{Name: name})
}

func providerGet(t terminal, f *finder) *cobra.Command {
	type answer = api.GetOauth2CredentialProviderResponse
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a credential provider", Args: exactly("NAME"), ValidArgsFunction: providerNames(f),
		Long:    "Shows a credential provider, without its client secret.",
		Example: examples("tabard provider get google-calendar --output json", "with its endpoints"),
	}
	var got answer
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (_ answer, err error) {
		got, err = getProvider(ctx, c, args[0])
		return got, err
	},
		providerColumns(func(a answer) providerRow {
			return providerRow{a.Name, string(a.CredentialProviderVendor), a.CallbackURL, a.Oauth2ProviderConfigOutput}
		}))
	sayTrust(cmd, func() trusting {
		return trusting{got.CredentialProviderARN, got.CallbackURL, got.Oauth2ProviderConfigOutput}
	})
	return cmd
}

func providerCallbackURL(f *finder) *cobra.Command {
	return &cobra.Command{
		Use: "callback-url NAME", Short: "Print the redirect URI to register at the provider", Args: exactly("NAME"), ValidArgsFunction: providerNames(f),
		Example: examples("tabard provider callback-url google-calendar", "nothing but the URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial(cmd.Context())
			if err != nil {
				return err
			}
			p, err := getProvider(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if p.CallbackURL == "" {
				return errors.New("the server's answer has no callback URL")
			}
			return say(cmd, "%s", p.CallbackURL)
		},
	}
}

func providerDelete(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a credential provider", Args: exactly("NAME"), ValidArgsFunction: providerNames(f),
		Long:    "Deletes a credential provider with every connection it has. Nothing is revoked at the provider.",
		Example: examples("tabard provider delete google-calendar", "its users' tokens are gone here"),
	}
	saying(cmd, f, "deleted", func(ctx context.Context, c *client, args []string) error {
		_, err := call[api.DeleteOauth2CredentialProviderResponse](ctx, c, api.OpDeleteOauth2CredentialProvider, api.DeleteOauth2CredentialProviderRequest{Name: args[0]})
		return err
	})
	return cmd
}
