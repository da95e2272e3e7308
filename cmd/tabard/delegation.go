package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newDelegation(t terminal) *cobra.Command {
	cmd := group("delegation", "Delegations: what agents may do while their users are away", `
A delegation is a user's word that an agent may have tokens of certain providers, with certain scopes, until a date, without
the user being there. The user's own application makes it, with the user's token, after the user consented at the providers.
The user ends it the same way, and an administrator can.`)
	cmd.Example = examples(
		"tabard delegation list --workload calendar-agent", "who delegates to an agent",
		"tabard delegation end dlg-c4qg5tpsx5ajq3gsswpbxvxxhe", "stop one")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(delegationCreate(t, &f), delegationList(t, &f), delegationEnd(t, &f))
	return cmd
}

func delegationColumns() []column[api.Delegation] {
	type row = api.Delegation
	return []column[row]{
		{name: "DELEGATION", text: func(d row) string { return d.DelegationID }},
		{name: "WORKLOAD", text: func(d row) string { return d.WorkloadName }},
		{name: "USER", text: func(d row) string { return shorten(d.UserRef) }},
		{name: "STATE", text: func(d row) string { return string(d.State) }},
		{name: "UNTIL", text: func(d row) string { return when(d.Until) }},
		{name: "GRANTS", text: func(d row) string {
			var all []string
			for _, g := range d.Grants {
				all = append(all, strings.TrimSuffix(g.ProviderName+"="+strings.Join(g.Scopes, ","), "="))
			}
			return list(all)
		}},
		{name: "LAST USED", text: func(d row) string { return when(d.LastUsedTime) }},
		{name: "NOTE", text: func(d row) string { return d.Note }},
	}
}

// userTokenFlag reads a user's own token, where it is given.
func userTokenFlag(cmd *cobra.Command, t terminal) func() (api.Sensitive, error) {
	token := &hidden{what: "user's token", flag: "user-token-file"}
	token.addFlag(cmd, t)
	return func() (api.Sensitive, error) {
		if !token.given() {
			return "", nil
		}
		text, err := token.read(cmd)
		return api.Sensitive(text.Expose()), err
	}
}

func delegationCreate(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create WORKLOAD", Short: "Delegate to an agent, as the user whose token is given", Args: exactly("WORKLOAD"), ValidArgsFunction: workloadNames(f),
		Long: "Delegates to an agent. It is signed by a principal with the role consent-app, which is what an application does; here it is for\n" +
			"trying and for scripts. The scopes of a grant are all that a token may have: a stored token with more is not released.",
		Example: examples(
			"tabard delegation create calendar-agent --user-token-file alice.jwt --grant google-calendar=openid,calendar.events --until 30d", "for a month",
			"tabard delegation create calendar-agent --user-token-file alice.jwt --grant weather --until 2026-12-24T18:00:00Z", "an API key, until a time"),
	}
	var grants []string
	var until string
	q := api.CreateDelegationRequest{}
	flags := cmd.Flags()
	flags.StringArrayVar(&grants, "grant", nil, "`provider[=scope,scope]` to delegate, with oauth2: or api-key: before it if there are two of the name; may be given again")
	flags.StringVar(&until, "until", "", "`time` at which it ends: a date, a time, or a number of days such as 30d")
	flags.StringVar(&q.Note, "note", "", "`text` for the user, when they see it listed")
	token := userTokenFlag(cmd, t)
	complete(cmd, "grant", providerNames(f))
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (api.Delegation, error) {
		var none api.Delegation
		var err error
		if q.UserToken, err = token(); err != nil {
			return none, err
		}
		if q.UserToken == "" || len(grants) == 0 || until == "" {
			return none, usage("usage: "+cmd.UseLine()+" --user-token-file FILE --grant PROVIDER=SCOPES --until 30d", "a delegation needs --user-token-file, --grant and --until")
		}
		at, err := parseUntil(until, time.Now())
		if err != nil {
			return none, err
		}
		q.WorkloadName, q.Grants, q.Until = args[0], parseGrants(grants), api.At(at)
		a, err := call[api.CreateDelegationResponse](ctx, c, api.OpCreateDelegation, q)
		if excepted(err, api.ExceptionValidation) && strings.Contains(err.Error(), "providerKind") {
			return none, hinted(err, "say which: --grant %s:NAME or --grant %s:NAME", kindOAuth2, kindAPIKey)
		}
		if err != nil || a.Delegation == nil {
			return none, err
		}
		return *a.Delegation, nil
	}, delegationColumns())
	return cmd
}

func parseGrants(given []string) []api.DelegationGrant {
	out := make([]api.DelegationGrant, 0, len(given))
	for _, text := range given {
		name, scopes, _ := strings.Cut(text, "=")
		var kind api.ProviderKind
		if given, rest, ok := strings.Cut(name, ":"); ok {
			kind, name = api.ProviderKind(strings.ToUpper(strings.ReplaceAll(given, "-", "_"))), rest
		}
		out = append(out, api.DelegationGrant{
			ProviderName: name, ProviderKind: kind, Scopes: strings.FieldsFunc(scopes, func(r rune) bool { return r == ',' || r == ' ' }),
		})
	}
	return out
}

// parseUntil reads a date, which ends with its day in UTC, a time or a number of days from now.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 100_000 {
			return now.AddDate(0, 0, n), nil
		}
	}
	if at, err := time.Parse(time.DateOnly, text); err == nil {
		return at.AddDate(0, 0, 1), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usage("for example 30d, 2026-12-24 or 2026-12-24T18:00:00Z", "--until %q is no time", oneLine(text))
	}
	return at, nil
}

func delegationList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the delegations", Args: exactly(),
		Long: "Lists the delegations, also those that are over: an administrator's all, or those that each given flag selects; an application's\n" +
			"those of the user whose token it gives, to one workload identity.",
		Example: examples(
			"tabard delegation list --user-issuer https://login.example.com --user-subject 8c1f", "of one user",
			"tabard delegation list --workload calendar-agent --user-token-file alice.jwt", "as that user's application"),
	}
	var q api.ListDelegationsRequest
	var user userFlags
	cmd.Flags().StringVar(&q.WorkloadName, "workload", "", "only those to this workload identity, by `name`")
	user.add(cmd, "user-ref", "user-")
	token := userTokenFlag(cmd, t)
	complete(cmd, "workload", workloadNames(f))
	listing(cmd, t, f, func(ctx context.Context, c *client) ([]api.Delegation, error) {
		var err error
		if q.User, err = user.selector(); err != nil {
			return nil, err
		}
		if q.UserToken, err = token(); err != nil {
			return nil, err
		}
		return allPages(func(next string) ([]api.Delegation, string, error) {
			q.NextToken = next
			a, err := call[api.ListDelegationsResponse](ctx, c, api.OpListDelegations, q)
			return a.Delegations, a.NextToken, err
		})
	}, delegationColumns())
	return cmd
}

func delegationEnd(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "end ID", Short: "End a delegation", Args: exactly("ID"), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Ends a delegation: within two seconds nothing is released under it anywhere. The user's consents stay: the agent may go on while\n" +
			"the user is there. An application gives the user's token; an administrator needs none.",
		Example: examples("tabard delegation end dlg-c4qg5tpsx5ajq3gsswpbxvxxhe", "as an administrator"),
	}
	token := userTokenFlag(cmd, t)
	switching(cmd, t, f, func(ctx context.Context, c *client, id string) (*api.Delegation, error) {
		given, err := token()
		if err != nil {
			return nil, err
		}
		a, err := call[api.EndDelegationResponse](ctx, c, api.OpEndDelegation, api.EndDelegationRequest{DelegationID: id, UserToken: given})
		return a.Delegation, err
	}, delegationColumns())
	return cmd
}
