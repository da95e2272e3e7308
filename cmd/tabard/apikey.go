package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newAPIKey(t terminal) *cobra.Command {
	cmd := group("apikey", "API keys: kept for agents", `
An API key is kept sealed under a name. An agent gets it by that name, with a workload access token; it is never shown here.
The access keys that principals sign with are something else: tabard key.`)
	cmd.Example = examples("tabard apikey create weather --key-file weather.key", "keep a key", "tabard apikey list", "all of them, without the keys")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(apiKeyCreate(t, &f), apiKeyGet(t, &f), apiKeyList(t, &f), apiKeyUpdate(t, &f), apiKeyDelete(&f))
	return cmd
}

func apiKeyInput() hidden { return hidden{what: "API key", flag: "key-file"} }

// apiKeyRow is what each answer about an API key has.
type apiKeyRow struct{ name, arn string }

func apiKeyColumns[T any](row func(T) apiKeyRow) []column[T] {
	return []column[T]{
		{name: "NAME", text: func(k T) string { return row(k).name }},
		{name: "ARN", text: func(k T) string { return row(k).arn }},
	}
}

func apiKeyCreate(t terminal, f *finder) *cobra.Command {
	type answer = api.CreateApiKeyCredentialProviderResponse
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Keep an API key", Args: onlyName, ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Keeps an API key. It is read from a file, from standard input, or asked for at the terminal, which does not show it.",
		Example: examples(
			"tabard apikey create weather", "asks for the key",
			"pass show weather | tabard apikey create weather --key-file - --tag team=web", "from a password manager"),
	}
	key := apiKeyInput()
	key.addFlag(cmd, t)
	var tags []string
	addTagFlag(cmd, &tags)
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (answer, error) {
		q := api.CreateApiKeyCredentialProviderRequest{Name: args[0]}
		var err error
		if q.Tags, err = parseTags(tags); err != nil {
			return answer{}, err
		}
		value, err := key.read(cmd)
		if err != nil {
			return answer{}, err
		}
		q.APIKey = api.Sensitive(value.Expose())
		return call[answer](ctx, c, api.OpCreateApiKeyCredentialProvider, q)
	}, apiKeyColumns(func(a answer) apiKeyRow { return apiKeyRow{a.Name, a.CredentialProviderARN} }))
	return cmd
}

func apiKeyGet(t terminal, f *finder) *cobra.Command {
	type answer = api.GetApiKeyCredentialProviderResponse
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show what is known of an API key", Args: exactly("NAME"), ValidArgsFunction: apiKeyNames(f),
		Long:    "Shows what is known of an API key, which is not the key.",
		Example: examples("tabard apikey get weather", "when it was changed last"),
	}
	columns := append(apiKeyColumns(func(a answer) apiKeyRow { return apiKeyRow{a.Name, a.CredentialProviderARN} }),
		column[answer]{name: "CREATED", text: func(a answer) string { return when(a.CreatedTime) }},
		column[answer]{name: "UPDATED", text: func(a answer) string { return when(a.LastUpdatedTime) }})
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (answer, error) {
		return call[answer](ctx, c, api.OpGetApiKeyCredentialProvider, api.GetApiKeyCredentialProviderRequest{Name: args[0]})
	}, columns)
	return cmd
}

func listAPIKeys(ctx context.Context, c *client) ([]api.ApiKeyCredentialProviderItem, error) {
	return allPages(func(token string) ([]api.ApiKeyCredentialProviderItem, string, error) {
		a, err := call[api.ListApiKeyCredentialProvidersResponse](ctx, c, api.OpListApiKeyCredentialProviders, api.ListApiKeyCredentialProvidersRequest{NextToken: token})
		return a.CredentialProviders, a.NextToken, err
	})
}

// apiKeyNames completes the name of an API key.
func apiKeyNames(f *finder) cobra.CompletionFunc {
	return fromServer(f, namesOf(listAPIKeys, func(k api.ApiKeyCredentialProviderItem) cobra.Completion { return k.Name }))
}

func apiKeyList(t terminal, f *finder) *cobra.Command {
	type row = api.ApiKeyCredentialProviderItem
	cmd := &cobra.Command{
		Use: "list", Short: "List the API keys", Args: exactly(),
		Long:    "Lists the names of the API keys, never the keys.",
		Example: examples("tabard apikey list", "for people", "tabard apikey list --output json", "for scripts, in the form of the API"),
	}
	listing(cmd, t, f, listAPIKeys, []column[row]{
		{name: "NAME", text: func(k row) string { return k.Name }},
		{name: "CREATED", text: func(k row) string { return when(k.CreatedTime) }},
		{name: "UPDATED", text: func(k row) string { return when(k.LastUpdatedTime) }},
	})
	return cmd
}

func apiKeyUpdate(t terminal, f *finder) *cobra.Command {
	type answer = api.UpdateApiKeyCredentialProviderResponse
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Replace an API key", Args: onlyName, ValidArgsFunction: apiKeyNames(f),
		Long:    "Replaces an API key. Agents get the new one from their next request on.",
		Example: examples("tabard apikey update weather --key-file weather.key", "after it was rotated"),
	}
	key := apiKeyInput()
	key.addFlag(cmd, t)
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (answer, error) {
		value, err := key.read(cmd)
		if err != nil {
			return answer{}, err
		}
		return call[answer](ctx, c, api.OpUpdateApiKeyCredentialProvider, api.UpdateApiKeyCredentialProviderRequest{Name: args[0], APIKey: api.Sensitive(value.Expose())})
	}, apiKeyColumns(func(a answer) apiKeyRow { return apiKeyRow{a.Name, a.CredentialProviderARN} }))
	return cmd
}

func apiKeyDelete(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete an API key", Args: exactly("NAME"), ValidArgsFunction: apiKeyNames(f),
		Long:    "Deletes an API key here. Where it was made it goes on working until it is ended there.",
		Example: examples("tabard apikey delete weather", "agents get it no more"),
	}
	saying(cmd, f, "deleted", func(ctx context.Context, c *client, args []string) error {
		_, err := call[api.DeleteApiKeyCredentialProviderResponse](ctx, c, api.OpDeleteApiKeyCredentialProvider, api.DeleteApiKeyCredentialProviderRequest{Name: args[0]})
		return err
	})
	return cmd
}
