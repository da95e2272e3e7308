package main

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newTag(t terminal) *cobra.Command {
	cmd := group("tag", "Tags of workload identities, providers and API keys", `
Tags are names and values for people and reports, and no secret. Only keys that begin with tabard: are rules of the
server, such as tabard:assurance=asserted on a workload identity, or tabard:allowed-parameters on a provider, whose names
have spaces between.`)
	cmd.Example = examples(
		"tabard tag add arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/calendar-agent team=web",
		"by the ARN that tabard workload get shows")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(tagList(t, &f), tagAdd(&f), tagRemove(&f))
	return cmd
}

// tag is one tag in the output.
type tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func addTagFlag(cmd *cobra.Command, tags *[]string) {
	cmd.Flags().StringArrayVar(tags, "tag", nil, "`key=value` to tag it with; may be given again")
	complete(cmd, "tag", cobra.NoFileCompletions)
}

func parseTags(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	tags := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usage("for example team=web", "the tag %q is not key=value", oneLine(pair))
		}
		if _, twice := tags[key]; twice {
			return nil, usage("a tag has one value", "the tag %s is given twice", oneLine(key))
		}
		tags[key] = value
	}
	return tags, nil
}

// atLeast checks that there is an argument for each of names; the last may be given again.
func atLeast(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		return exactly(names...)(cmd, args[:min(len(args), len(names))])
	}
}

// arns completes the ARN of what can have tags.
func arns(f *finder) cobra.CompletionFunc {
	return fromServer(f, func(ctx context.Context, c *client) ([]cobra.Completion, error) {
		all, err := namesOf(listWorkloads, func(w api.WorkloadIdentityType) cobra.Completion { return w.WorkloadIdentityARN })(ctx, c)
		if err != nil {
			return nil, err
		}
		providers, err := namesOf(listProviders, func(p api.Oauth2CredentialProviderItem) cobra.Completion { return p.CredentialProviderARN })(ctx, c)
		if err != nil {
			return nil, err
		}
		keys, err := namesOf(listAPIKeys, func(k api.ApiKeyCredentialProviderItem) cobra.Completion { return k.CredentialProviderARN })(ctx, c)
		return slices.Concat(all, providers, keys), err
	})
}

func tagList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list ARN", Short: "List the tags of a resource", Args: exactly("ARN"), ValidArgsFunction: arns(f),
		Example: examples("tabard tag list arn:aws:bedrock-agentcore:us-east-1:000000000000:token-vault/default/oauth2credentialprovider/google-calendar", "of a provider"),
	}
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		a, err := callOn[api.ListTagsForResourceResponse](cmd.Context(), c, api.OpListTagsForResource, args[0], nil, api.ListTagsForResourceRequest{ResourceARN: args[0]})
		if err != nil {
			return err
		}
		var tags []tag
		for _, key := range slices.Sorted(maps.Keys(a.Tags)) {
			tags = append(tags, tag{key, a.Tags[key]})
		}
		return show(cmd, out, tags, []column[tag]{
			{name: "KEY", text: func(t tag) string { return t.Key }},
			{name: "VALUE", text: func(t tag) string { return t.Value }},
		})
	}
	return cmd
}

func tagAdd(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "add ARN KEY=VALUE...", Short: "Add tags to a resource", Args: atLeast("ARN", "KEY=VALUE"), ValidArgsFunction: arns(f),
		Long:    "Adds tags to a resource. A key that it has gets the new value.",
		Example: examples("tabard tag add arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/calendar-agent team=web stage=prod", "two"),
	}
	saying(cmd, f, "tagged", func(ctx context.Context, c *client, args []string) error {
		tags, err := parseTags(args[1:])
		if err != nil {
			return err
		}
		_, err = callOn[api.TagResourceResponse](ctx, c, api.OpTagResource, args[0], nil, api.TagResourceRequest{ResourceARN: args[0], Tags: tags})
		return err
	})
	return cmd
}

func tagRemove(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove ARN KEY...", Short: "Remove tags from a resource", Args: atLeast("ARN", "KEY"), ValidArgsFunction: arns(f),
		Example: examples("tabard tag remove arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/calendar-agent stage", "by their keys"),
	}
	saying(cmd, f, "untagged", func(ctx context.Context, c *client, args []string) error {
		_, err := callOn[api.UntagResourceResponse](ctx, c, api.OpUntagResource, args[0], url.Values{"tagKeys": args[1:]},
			api.UntagResourceRequest{ResourceARN: args[0], TagKeys: args[1:]})
		return err
	})
	return cmd
}
