package main

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newConnection(t terminal) *cobra.Command {
	cmd := group("connection", "Connections: which agent may act for whom, and where", `
A connection is what a user's consent made: the tokens of one user at one provider, for one agent. They are kept sealed and are
never shown. A revoked connection gives out nothing until the user consents again.`)
	cmd.Example = examples(
		"tabard connection list --provider google-calendar --state active", "who is connected to a provider",
		"tabard connection revoke cn_8f2kq3", "end one, also at the provider")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(connectionList(t, &f), connectionGet(t, &f), connectionRevoke(t, &f), connectionDelete(&f), connectionTransfer(t, &f))
	return cmd
}

func connectionColumns() []column[api.Connection] {
	type row = api.Connection
	return []column[row]{
		{name: "CONNECTION", text: func(c row) string { return c.ConnectionID }},
		{name: "WORKLOAD", text: func(c row) string { return c.WorkloadName }},
		{name: "USER", text: func(c row) string { return cmp.Or(shorten(c.UserRef), "-") }},
		{name: "PROVIDER", text: func(c row) string { return c.ProviderName }},
		{name: "STATE", text: func(c row) string { return string(c.State) }, tint: func(c row) colour {
			if c.State == api.ConnectionStateFilterRevoked || c.State == api.ConnectionStateFilterNeedsReauth {
				return red
			}
			return plain
		}},
		{name: "SCOPES", text: func(c row) string { return list(c.GrantedScopes) }},
		{name: "RESOURCE", text: func(c row) string { return cmp.Or(c.Resource, "-") }},
		{name: "PARAMETERS", text: func(c row) string { return cmp.Or(list(c.Parameters), "-") }},
		{name: "EXPIRES", text: func(c row) string { return when(c.ExpiresAt) }},
		{name: "UPDATED", text: func(c row) string { return when(c.LastUpdatedTime) }},
	}
}

func listConnections(q api.ListConnectionsRequest) func(ctx context.Context, c *client) ([]api.Connection, error) {
	return func(ctx context.Context, c *client) ([]api.Connection, error) {
		return allPages(func(token string) ([]api.Connection, string, error) {
			q.NextToken = token
			a, err := call[api.ListConnectionsResponse](ctx, c, api.OpListConnections, q)
			return a.Connections, a.NextToken, err
		})
	}
}

// connectionIDs completes the id of a connection.
func connectionIDs(f *finder) cobra.CompletionFunc {
	return fromServer(f, namesOf(listConnections(api.ListConnectionsRequest{}), func(c api.Connection) cobra.Completion {
		return cobra.CompletionWithDesc(c.ConnectionID, c.WorkloadName+" at "+c.ProviderName)
	}))
}

func connectionList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the connections", Args: exactly(),
		Long: "Lists the connections, all or those that each given flag selects. A user is named as the tokens name them: by an id that an\n" +
			"application asserts, or by issuer and subject. An agent has several for one user and provider if they are for several\n" +
			"resources, or were asked for with other custom parameters: RESOURCE and PARAMETERS say so.",
		Example: examples(
			"tabard connection list --workload calendar-agent", "of one agent",
			"tabard connection list --user-issuer https://login.example.com --user-subject 8c1f", "of one user",
			"tabard connection list --state needs_reauth --output json", "those whose users have to consent again, for scripts"),
	}
	var q api.ListConnectionsRequest
	var state string
	flags := cmd.Flags()
	flags.StringVar(&q.WorkloadName, "workload", "", "only those of this workload identity, by `name`")
	flags.StringVar(&q.ProviderName, "provider", "", "only those at this credential provider, by `name`")
	flags.StringVar(&state, "state", "", "only those in this `state`: active, refreshing, needs_reauth or revoked")
	flags.StringVar(&q.UserID, "user-id", "", "only those of the user with this `id`, which an application asserted")
	flags.StringVar(&q.UserIssuer, "user-issuer", "", "only those of a user of this issuer, by `URL`; with --user-subject")
	flags.StringVar(&q.UserSubject, "user-subject", "", "`subject` of the user at --user-issuer")
	complete(cmd, "workload", workloadNames(f))
	complete(cmd, "provider", providerNames(f))
	complete(cmd, "state", oneOf("active", "refreshing", "needs_reauth", "revoked"))
	listing(cmd, t, f, func(ctx context.Context, c *client) ([]api.Connection, error) {
		if (q.UserIssuer == "") != (q.UserSubject == "") {
			return nil, usage("a subject means something at its issuer only", "--user-issuer and --user-subject go together")
		}
		if q.UserID != "" && q.UserIssuer != "" {
			return nil, usage("give one of them", "--user-id and --user-issuer contradict each other")
		}
		q.State = api.ConnectionStateFilter(state)
		return listConnections(q)(ctx, c)
	}, connectionColumns())
	return cmd
}

func connectionGet(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a connection", Args: exactly("ID"), ValidArgsFunction: connectionIDs(f),
		Long: "Shows a connection. SHARES GRANT WITH are the others that the provider would end with this one: GitHub and\n" +
			"Google, for example, end all that a client has of a user. So they are told of a revocation with the last of\n" +
			"these connections.",
		Example: examples("tabard connection get cn_8f2kq3 --output json", "all there is to know about it, but its tokens"),
	}
	switching(cmd, t, f, func(ctx context.Context, c *client, id string) (*api.Connection, error) {
		a, err := call[api.GetConnectionResponse](ctx, c, api.OpGetConnection, api.GetConnectionRequest{ConnectionID: id})
		return a.Connection, err
	}, append(connectionColumns(), column[api.Connection]{
		name: "SHARES GRANT WITH", text: func(c api.Connection) string { return cmp.Or(list(c.SharesGrantWith), "-") },
	}))
	return cmd
}

func connectionRevoke(t terminal, f *finder) *cobra.Command {
	type answer = api.RevokeConnectionResponse
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "Revoke a connection", Args: exactly("ID"), ValidArgsFunction: connectionIDs(f),
		Long: "Revokes a connection: from now on nothing is given out of it, and its tokens are revoked at the provider. What came of that is\n" +
			"in the column UPSTREAM: revoked, pending (it is tried again), unsupported (the provider has no way; a token that is out lives\n" +
			"until it expires), failed or skipped. If the provider would end other connections too\n" +
			"(tabard connection get names them), it is told with the last of them, and DETAIL says so: tabard revoke ends\n" +
			"all of a user's at a provider in one stroke.",
		Example: examples(
			"tabard connection revoke cn_8f2kq3", "here and at the provider",
			"tabard connection revoke cn_8f2kq3 --skip-upstream", "here only"),
	}
	skip := cmd.Flags().Bool("skip-upstream", false, "do not tell the provider")
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (answer, error) {
		return call[answer](ctx, c, api.OpRevokeConnection, api.RevokeConnectionRequest{ConnectionID: args[0], SkipUpstream: *skip})
	}, []column[answer]{
		{name: "CONNECTION", text: func(a answer) string { return pointee(a.Connection).ConnectionID }},
		{name: "STATE", text: func(a answer) string { return string(pointee(a.Connection).State) }},
		{name: "UPSTREAM", text: func(a answer) string { return string(a.Upstream) }, tint: func(a answer) colour {
			if a.Upstream == api.UpstreamRevocationFailed {
				return red
			}
			return plain
		}},
		{name: "DETAIL", text: func(a answer) string { return cmp.Or(a.Detail, "-") }},
	})
	return cmd
}

func connectionDelete(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete ID", Short: "Delete a connection", Args: exactly("ID"), ValidArgsFunction: connectionIDs(f),
		Long:    "Deletes a connection with its tokens. The provider is not told: tabard connection revoke does that.",
		Example: examples("tabard connection delete cn_8f2kq3", "nothing of it is kept"),
	}
	saying(cmd, f, "deleted", func(ctx context.Context, c *client, args []string) error {
		_, err := call[api.DeleteConnectionResponse](ctx, c, api.OpDeleteConnection, api.DeleteConnectionRequest{ConnectionID: args[0]})
		return err
	})
	return cmd
}

func connectionTransfer(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "transfer ID WORKLOAD", Short: "Give a connection to another workload identity", Args: exactly("ID", "WORKLOAD"),
		Long:    "Gives a connection to another workload identity, for an agent that gets a new name. The user is not asked again, and the old one has it no more.",
		Example: examples("tabard connection transfer cn_8f2kq3 calendar-agent-2", "the user's consent goes along"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return workloadNames(f)(cmd, nil, typed)
			}
			return connectionIDs(f)(cmd, args, typed)
		},
	}
	columns := connectionColumns()
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
		a, err := call[api.TransferConnectionResponse](cmd.Context(), c, api.OpTransferConnection, api.TransferConnectionRequest{ConnectionID: args[0], WorkloadName: args[1]})
		if err != nil {
			return err
		}
		return show(cmd, out, pointed(a.Connection), columns)
	}
	return cmd
}
