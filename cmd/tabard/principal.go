package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newPrincipal(t terminal) *cobra.Command {
	cmd := group("principal", "Principals: who calls the API", `
A principal calls the API with an access key of its own. Its roles say what it may do:

  admin        administers, and is given no token
  agent        gets tokens for the workload identities it is paired with, as far as policies permit (tabard allow)
  consent-app  completes the consent of their users
  auditor      reads the audit trail and what exists
  root         everything`)
	cmd.Example = examples("tabard principal create calendar --role agent --workload calendar-agent", "an agent", "tabard principal list", "all of them")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(principalCreate(t, &f), principalList(t, &f),
		principalSwitch(t, &f, "disable", "Refuse a principal with all its access keys", disablePrincipal),
		principalSwitch(t, &f, "enable", "Accept a principal again", enablePrincipal))
	return cmd
}

func principalCreate(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a principal", Args: exactly("NAME"),
		Long: "Creates a principal, without an access key: tabard key create makes one. A principal with the role agent may get nothing until\n" +
			"there is a policy: tabard allow AGENT PROVIDER writes one for who acts for the workload identity AGENT.",
		Example: examples(
			"tabard principal create calendar --role agent --workload calendar-agent", "an agent, paired with its workload identity",
			"tabard principal create web --role consent-app --workload 'calendar-*'", "the web application where users consent",
			"tabard principal create ada --role admin --role auditor", "a person"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	var roles, workloads []string
	cmd.Flags().StringSliceVar(&roles, "role", nil, "`role`: admin, agent, consent-app, auditor or root; may be given again")
	cmd.Flags().StringSliceVar(&workloads, "workload", nil, "workload identity it is paired with, a name or `pattern` (*); may be given again")
	complete(cmd, "role", oneOf("admin", "agent", "consent-app", "auditor", "root"))
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(roles) == 0 {
			return usage("usage: tabard principal create NAME --role agent --workload NAME", "a principal needs at least one --role")
		}
		q := api.CreatePrincipalRequest{Name: args[0], Workloads: workloads}
		for _, r := range roles {
			q.Roles = append(q.Roles, api.PrincipalRole(r))
		}
		if err := out.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		a, err := call[api.CreatePrincipalResponse](cmd.Context(), c, api.OpCreatePrincipal, q)
		if err != nil {
			return err
		}
		for _, w := range workloads {
			if !strings.Contains(w, "*") {
				unknownWorkload(cmd.Context(), cmd, c, w, "until there is one, the principal acts for nobody by it")
			}
		}
		return show(cmd, out, pointed(a.Principal), principalColumns())
	}
	return cmd
}

func principalColumns() []column[api.Principal] {
	type row = api.Principal
	return []column[row]{
		{name: "NAME", text: func(p row) string { return p.Name }},
		{name: "ROLES", text: func(p row) string { return list(p.Roles) }},
		{name: "WORKLOADS", text: func(p row) string { return list(p.Workloads) }},
		{name: "STATUS", text: func(p row) string { return string(p.Status) }, tint: func(p row) colour {
			if p.Status == api.PrincipalStatusDisabled {
				return red
			}
			return plain
		}},
		{name: "CREATED", text: func(p row) string { return when(p.CreatedTime) }},
	}
}

func listPrincipals(ctx context.Context, c *client) ([]api.Principal, error) {
	return allPages(func(token string) ([]api.Principal, string, error) {
		a, err := call[api.ListPrincipalsResponse](ctx, c, api.OpListPrincipals, api.ListPrincipalsRequest{NextToken: token})
		return a.Principals, a.NextToken, err
	})
}

// principalNames completes the name of a principal.
func principalNames(f *finder) cobra.CompletionFunc {
	return fromServer(f, func(ctx context.Context, c *client) ([]cobra.Completion, error) {
		all, err := listPrincipals(ctx, c)
		var names []cobra.Completion
		for _, p := range all {
			names = append(names, p.Name)
		}
		return names, err
	})
}

func principalList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the principals", Args: exactly(),
		Example: examples("tabard principal list", "for people", "tabard principal list --output json", "for scripts, in the form of the API"),
	}
	listing(cmd, t, f, listPrincipals, principalColumns())
	return cmd
}

func disablePrincipal(ctx context.Context, c *client, name string) (*api.Principal, error) {
	a, err := call[api.DisablePrincipalResponse](ctx, c, api.OpDisablePrincipal, api.DisablePrincipalRequest{Name: name})
	return a.Principal, err
}

func enablePrincipal(ctx context.Context, c *client, name string) (*api.Principal, error) {
	a, err := call[api.EnablePrincipalResponse](ctx, c, api.OpEnablePrincipal, api.EnablePrincipalRequest{Name: name})
	return a.Principal, err
}

func principalSwitch(t terminal, f *finder, verb, short string, do func(context.Context, *client, string) (*api.Principal, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Args: exactly("NAME"), ValidArgsFunction: principalNames(f),
		Long:    short + ". It takes effect within a second.",
		Example: examples("tabard principal "+verb+" calendar", "the principal named calendar"),
	}
	switching(cmd, t, f, do, principalColumns())
	return cmd
}
