package main

import (
	"cmp"
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func standingColumns() []column[api.Standing] {
	type row = api.Standing
	return []column[row]{
		{name: "NAME", text: func(s row) string { return cmp.Or(s.Name, s.Key) }},
		{name: "STATUS", text: func(s row) string { return string(s.Status) }, tint: func(s row) colour {
			if s.Status != api.StandingStatusActive {
				return red
			}
			return plain
		}},
		{name: "EPOCH", text: func(s row) string { return strconv.FormatInt(s.Epoch, 10) }},
		{name: "CHANGED", text: func(s row) string { return when(s.ChangedTime) }},
		{name: "REASON", text: func(s row) string { return cmp.Or(s.Reason, "-") }},
	}
}

// listStandings lists those of a kind that are disabled or frozen.
func listStandings(kind api.StandingKind) func(ctx context.Context, c *client) ([]api.Standing, error) {
	return func(ctx context.Context, c *client) ([]api.Standing, error) {
		all, err := allPages(func(token string) ([]api.Standing, string, error) {
			a, err := call[api.ListStandingsResponse](ctx, c, api.OpListStandings, api.ListStandingsRequest{Kind: kind, NextToken: token})
			return a.Standings, a.NextToken, err
		})
		var down []api.Standing
		for _, s := range all {
			if s.Status != api.StandingStatusActive {
				down = append(down, s)
			}
		}
		return down, err
	}
}

// standings says what the commands disable, enable and list-disabled of one kind of thing are called and do.
type standings struct {
	group    string // the command above
	argument string // NAME or URL
	example  string
	what     string // "a workload identity"
	effect   string // of disabling
	kind     api.StandingKind
	names    func(f *finder) cobra.CompletionFunc
	disable  func(ctx context.Context, c *client, name, reason string) (*api.Standing, error)
	enable   func(ctx context.Context, c *client, name string) (*api.Standing, error)
}

// addStandings adds the commands disable, enable and list-disabled.
func addStandings(cmd *cobra.Command, t terminal, f *finder, s standings) {
	path := "tabard " + s.group + " "
	disable := &cobra.Command{
		Use: "disable " + s.argument, Short: "Disable " + s.what, Args: exactly(s.argument), ValidArgsFunction: s.names(f),
		Long: "Disables " + s.what + ": " + s.effect + "\nIt takes effect everywhere within two seconds. Nothing is deleted: " + path + "enable undoes it, but workload access\n" +
			"tokens of before stay dead. To end what was granted too, at the providers as well: tabard revoke.",
		Example: examples(path+"disable "+s.example+" --reason 'key leaked, ticket 4711'", "the reason is told to those whom it stops, and is in the audit trail"),
	}
	reason := reasonFlag(disable)
	switching(disable, t, f, func(ctx context.Context, c *client, name string) (*api.Standing, error) {
		return s.disable(ctx, c, name, *reason)
	}, standingColumns())
	enable := &cobra.Command{
		Use: "enable " + s.argument, Short: "Enable what was disabled or frozen", Args: exactly(s.argument), ValidArgsFunction: s.names(f),
		Example: examples(path+"enable "+s.example, "it works again; workload access tokens of before do not"),
	}
	switching(enable, t, f, s.enable, standingColumns())
	cmd.AddCommand(disable, enable, listDisabled(t, f, path, s.kind))
}

func listDisabled(t terminal, f *finder, path string, kind api.StandingKind) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list-disabled", Short: "List what is disabled or frozen", Args: exactly(),
		Example: examples(path+"list-disabled", "with the reasons", path+"list-disabled --output json", "for scripts, in the form of the API"),
	}
	listing(cmd, t, f, listStandings(kind), standingColumns())
	return cmd
}

func reasonFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("reason", "", "`why`: for the audit trail")
}

func workloadStandings() standings {
	return standings{
		group: "workload", argument: "NAME", example: "calendar-agent", what: "a workload identity", kind: api.StandingKindWorkloadIdentity,
		effect: "the agent gets no tokens, those it has are dead, and its open consents cannot be finished.", names: workloadNames,
		disable: func(ctx context.Context, c *client, name, reason string) (*api.Standing, error) {
			a, err := call[api.DisableWorkloadIdentityResponse](ctx, c, api.OpDisableWorkloadIdentity, api.DisableWorkloadIdentityRequest{Name: name, Reason: reason})
			return a.Standing, err
		},
		enable: func(ctx context.Context, c *client, name string) (*api.Standing, error) {
			a, err := call[api.EnableWorkloadIdentityResponse](ctx, c, api.OpEnableWorkloadIdentity, api.EnableWorkloadIdentityRequest{Name: name})
			return a.Standing, err
		},
	}
}

func issuerStandings() standings {
	return standings{
		group: "issuer", argument: "URL", example: "https://login.example.com", what: "a trusted issuer", kind: api.StandingKindIssuer,
		effect: "its tokens name nobody, and workload access tokens of its users are dead.", names: issuerURLs,
		disable: func(ctx context.Context, c *client, url, reason string) (*api.Standing, error) {
			a, err := call[api.DisableTrustedIssuerResponse](ctx, c, api.OpDisableTrustedIssuer, api.DisableTrustedIssuerRequest{Issuer: url, Reason: reason})
			return a.Standing, err
		},
		enable: func(ctx context.Context, c *client, url string) (*api.Standing, error) {
			a, err := call[api.EnableTrustedIssuerResponse](ctx, c, api.OpEnableTrustedIssuer, api.EnableTrustedIssuerRequest{Issuer: url})
			return a.Standing, err
		},
	}
}

// issuerURLs completes the URL of a trusted issuer, also of one from the configuration file.
func issuerURLs(f *finder) cobra.CompletionFunc {
	return fromServer(f, namesOf(listIssuers, func(i api.TrustedIssuer) cobra.Completion { return i.Issuer }))
}

func providerStandings() standings {
	return standings{
		group: "provider", argument: "NAME", example: "google-calendar", what: "a credential provider", kind: api.StandingKindProvider,
		effect: "no token or API key of it is given out, and nobody can consent at it.", names: providerNames,
		disable: func(ctx context.Context, c *client, name, reason string) (*api.Standing, error) {
			a, err := call[api.DisableCredentialProviderResponse](ctx, c, api.OpDisableCredentialProvider, api.DisableCredentialProviderRequest{Name: name, Reason: reason})
			return a.Standing, err
		},
		enable: func(ctx context.Context, c *client, name string) (*api.Standing, error) {
			a, err := call[api.EnableCredentialProviderResponse](ctx, c, api.OpEnableCredentialProvider, api.EnableCredentialProviderRequest{Name: name})
			return a.Standing, err
		},
	}
}
