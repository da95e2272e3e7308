package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newWorkload(t terminal) *cobra.Command {
	cmd := group("workload", "Workload identities: who the agents are", `
A workload identity is what an agent acts as, and whose name its tokens are kept under. Its return URLs are where a browser
may be sent after consent; they are compared as they are, character by character.`)
	cmd.Example = examples(
		"tabard workload create calendar-agent --return-url https://app.example.com/connected", "an agent and where its users come back to",
		"tabard workload list", "all of them")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(workloadCreate(t, &f), workloadGet(t, &f), workloadList(t, &f), workloadUpdate(t, &f), workloadDelete(&f), workloadRestore(t, &f), newReturnURL(t, &f), workloadCeilings(t, &f))
	addStandings(cmd, t, &f, workloadStandings())
	return cmd
}

func workloadCreate(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a workload identity", Args: exactly("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Creates a workload identity. The principal that acts as it comes with tabard principal create --role agent --workload NAME, and\n" +
			"tabard allow NAME PROVIDER says which provider's tokens it may have.",
		Example: examples(
			"tabard workload create calendar-agent --return-url https://app.example.com/connected", "users come back to the application",
			"tabard workload create helpdesk --tag team=support --tag tabard:assurance=asserted", "one whose application says by an id who the user is"),
	}
	var q api.CreateWorkloadIdentityRequest
	var tags []string
	cmd.Flags().StringArrayVar(&q.AllowedResourceOauth2ReturnURLs, "return-url", nil, "`URL` a browser may be sent to after consent; may be given again")
	addTagFlag(cmd, &tags)
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (api.CreateWorkloadIdentityResponse, error) {
		var err error
		if q.Tags, err = parseTags(tags); err != nil {
			return api.CreateWorkloadIdentityResponse{}, err
		}
		q.Name = args[0]
		return call[api.CreateWorkloadIdentityResponse](ctx, c, api.OpCreateWorkloadIdentity, q)
	}, workloadColumns(func(w api.CreateWorkloadIdentityResponse) workloadRow {
		return workloadRow{w.Name, w.WorkloadIdentityARN, w.AllowedResourceOauth2ReturnURLs}
	}))
	return cmd
}

// workloadRow is what each answer about a workload identity has.
type workloadRow struct {
	name, arn  string
	returnURLs []string
}

func workloadColumns[T any](row func(T) workloadRow) []column[T] {
	return []column[T]{
		{name: "NAME", text: func(w T) string { return row(w).name }},
		{name: "RETURN URLS", text: func(w T) string { return list(row(w).returnURLs) }},
		{name: "ARN", text: func(w T) string { return row(w).arn }},
	}
}

func listWorkloads(ctx context.Context, c *client) ([]api.WorkloadIdentityType, error) {
	return allPages(func(token string) ([]api.WorkloadIdentityType, string, error) {
		a, err := call[api.ListWorkloadIdentitiesResponse](ctx, c, api.OpListWorkloadIdentities, api.ListWorkloadIdentitiesRequest{NextToken: token})
		return a.WorkloadIdentities, a.NextToken, err
	})
}

// workloadNames completes the name of a workload identity.
func workloadNames(f *finder) cobra.CompletionFunc {
	return fromServer(f, namesOf(listWorkloads, func(w api.WorkloadIdentityType) cobra.Completion { return w.Name }))
}

func workloadList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the workload identities", Args: exactly(),
		Example: examples("tabard workload list", "for people", "tabard workload list --output json", "for scripts, in the form of the API"),
	}
	listing(cmd, t, f, listWorkloads, []column[api.WorkloadIdentityType]{
		{name: "NAME", text: func(w api.WorkloadIdentityType) string { return w.Name }},
		{name: "ARN", text: func(w api.WorkloadIdentityType) string { return w.WorkloadIdentityARN }},
	})
	return cmd
}

func workloadGet(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a workload identity", Args: exactly("NAME"), ValidArgsFunction: workloadNames(f),
		Example: examples("tabard workload get calendar-agent", "with its return URLs"),
	}
	columns := workloadColumns(func(w api.GetWorkloadIdentityResponse) workloadRow {
		return workloadRow{w.Name, w.WorkloadIdentityARN, w.AllowedResourceOauth2ReturnURLs}
	})
	columns = append(columns, column[api.GetWorkloadIdentityResponse]{name: "CREATED", text: func(w api.GetWorkloadIdentityResponse) string { return when(w.CreatedTime) }})
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (api.GetWorkloadIdentityResponse, error) {
		return call[api.GetWorkloadIdentityResponse](ctx, c, api.OpGetWorkloadIdentity, api.GetWorkloadIdentityRequest{Name: args[0]})
	}, columns)
	return cmd
}

func workloadUpdate(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Replace the return URLs of a workload identity", Args: exactly("NAME"), ValidArgsFunction: workloadNames(f),
		Long: "Replaces the return URLs of a workload identity: those that are not given again are gone.",
		Example: examples(
			"tabard workload update calendar-agent --return-url https://app.example.com/connected", "this one and no other",
			"tabard workload update calendar-agent --no-return-urls", "none"),
	}
	q := api.UpdateWorkloadIdentityRequest{AllowedResourceOauth2ReturnURLs: []string{}}
	cmd.Flags().StringArrayVar(&q.AllowedResourceOauth2ReturnURLs, "return-url", []string{}, "`URL` a browser may be sent to after consent; may be given again")
	none := cmd.Flags().Bool("no-return-urls", false, "remove all")
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (api.UpdateWorkloadIdentityResponse, error) {
		if (len(q.AllowedResourceOauth2ReturnURLs) > 0) == *none {
			return api.UpdateWorkloadIdentityResponse{}, usage("usage: "+cmd.UseLine(), "give either --return-url or --no-return-urls")
		}
		q.Name = args[0]
		return call[api.UpdateWorkloadIdentityResponse](ctx, c, api.OpUpdateWorkloadIdentity, q)
	}, workloadColumns(func(w api.UpdateWorkloadIdentityResponse) workloadRow {
		return workloadRow{w.Name, w.WorkloadIdentityARN, w.AllowedResourceOauth2ReturnURLs}
	}))
	return cmd
}

func workloadDelete(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a workload identity", Args: exactly("NAME"), ValidArgsFunction: workloadNames(f),
		Long:    "Deletes a workload identity: its tokens and connections are of no use from now on. For 7 days tabard workload restore brings it back.",
		Example: examples("tabard workload delete calendar-agent", "the agent gets nothing any more"),
	}
	saying(cmd, f, "deleted", func(ctx context.Context, c *client, args []string) error {
		_, err := call[api.DeleteWorkloadIdentityResponse](ctx, c, api.OpDeleteWorkloadIdentity, api.DeleteWorkloadIdentityRequest{Name: args[0]})
		return err
	})
	return cmd
}

func workloadRestore(t terminal, f *finder) *cobra.Command {
	type answer = api.RestoreWorkloadIdentityResponse
	cmd := &cobra.Command{
		Use: "restore NAME", Short: "Bring a deleted workload identity back", Args: exactly("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		Long:    "Brings back a workload identity that was deleted less than 7 days ago, with its connections.",
		Example: examples("tabard workload restore calendar-agent", "as it was"),
	}
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (answer, error) {
		return call[answer](ctx, c, api.OpRestoreWorkloadIdentity, api.RestoreWorkloadIdentityRequest{WorkloadName: args[0]})
	}, []column[answer]{
		{name: "NAME", text: func(w answer) string { return w.WorkloadName }},
		{name: "ARN", text: func(w answer) string { return w.WorkloadIdentityARN }},
	})
	return cmd
}

// newReturnURL has the commands that change one return URL and leave the others.
func newReturnURL(t terminal, f *finder) *cobra.Command {
	cmd := group("return-url", "Add or remove one return URL", "Adds or removes one return URL and leaves the others as they are, also when somebody else changes them at the same time.")
	cmd.Example = examples("tabard workload return-url add calendar-agent https://app.example.com/connected", "one more")
	cmd.AddCommand(
		returnURLChange(t, f, "add", "Add a return URL", func(ctx context.Context, c *client, name, url string) ([]string, error) {
			a, err := call[api.AddReturnUrlResponse](ctx, c, api.OpAddReturnUrl, api.AddReturnUrlRequest{WorkloadName: name, URL: url})
			return a.AllowedResourceOauth2ReturnURLs, err
		}),
		returnURLChange(t, f, "remove", "Remove a return URL", func(ctx context.Context, c *client, name, url string) ([]string, error) {
			a, err := call[api.RemoveReturnUrlResponse](ctx, c, api.OpRemoveReturnUrl, api.RemoveReturnUrlRequest{WorkloadName: name, URL: url})
			return a.AllowedResourceOauth2ReturnURLs, err
		}))
	return cmd
}

func returnURLChange(t terminal, f *finder, verb, short string, do func(ctx context.Context, c *client, name, url string) ([]string, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " NAME URL", Short: short, Args: exactly("NAME", "URL"), ValidArgsFunction: workloadNames(f),
		Long:    short + ", and print those that there are then.",
		Example: examples("tabard workload return-url "+verb+" calendar-agent https://app.example.com/connected", "the others stay"),
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
		urls, err := do(cmd.Context(), c, args[0], args[1])
		if err != nil {
			return err
		}
		return show(cmd, out, urls, []column[string]{{name: "RETURN URL", text: func(u string) string { return u }}})
	}
	return cmd
}
