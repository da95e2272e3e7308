package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

func newPolicy(t terminal) *cobra.Command {
	cmd := group("policy", "Policies: who may do what", `
A policy is a text in Cedar that permits or forbids. Nothing is allowed without one: those of the roles admin, consent-app
and auditor are built in, an agent has none until somebody writes it. tabard allow and tabard deny write the usual ones.
A forbid wins over every permit, and nothing can be forbidden to root. A change takes effect within two seconds.`)
	cmd.Example = examples(
		"tabard allow calendar-agent google-calendar --scopes https://www.googleapis.com/auth/calendar.events", "the usual policy of an agent",
		"tabard policy list", "all of them",
		"tabard policy who-can GetResourceOauth2Token --workload calendar-agent --provider google-calendar", "who gets such a token",
		"tabard policy why 5c0f2e1b9d7a4f63-000000000000002a", "why a record of the audit trail says deny")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(policyList(t, &f), policyShow(t, &f), policyPut(t, &f), policyDelete(&f), policyLint(t), policySchema(),
		policyTest(t, &f), policyWhy(t, &f), policyWhoCan(t, &f))
	return cmd
}

func policyColumns() []column[api.Policy] {
	type row = api.Policy
	return []column[row]{
		{name: "NAME", text: func(p row) string { return p.Name }},
		{name: "SOURCE", text: func(p row) string { return string(p.Source) }},
		{name: "VERSION", text: func(p row) string { return strconv.FormatInt(p.Version, 10) }},
		{name: "BY", text: func(p row) string { return cmp.Or(p.CreatedBy, "-") }},
		{name: "UPDATED", text: func(p row) string { return when(p.LastUpdatedTime) }},
		{name: "DESCRIPTION", text: func(p row) string { return cmp.Or(p.Description, "-") }},
	}
}

func listPolicies(q *api.ListPoliciesRequest) func(ctx context.Context, c *client) ([]api.Policy, error) {
	return func(ctx context.Context, c *client) ([]api.Policy, error) {
		return allPages(func(token string) ([]api.Policy, string, error) {
			q.NextToken = token
			a, err := call[api.ListPoliciesResponse](ctx, c, api.OpListPolicies, *q)
			return a.Policies, a.NextToken, err
		})
	}
}

// policyNames completes the name of a policy.
func policyNames(f *finder) cobra.CompletionFunc {
	return fromServer(f, namesOf(listPolicies(&api.ListPoliciesRequest{}), func(p api.Policy) cobra.Completion { return p.Name }))
}

func policyList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the policies", Args: exactly(),
		Long: "Lists the policies, the built-in ones too: all, or those that may concern a principal or who acts for a workload identity.",
		Example: examples(
			"tabard policy list", "for people",
			"tabard policy list --principal calendar", "what may concern one principal, also by its roles and workload identities",
			"tabard policy list --output json", "for scripts, with their texts"),
	}
	var q api.ListPoliciesRequest
	cmd.Flags().StringVar(&q.PrincipalName, "principal", "", "only those that may concern this principal, by `name`")
	cmd.Flags().StringVar(&q.WorkloadName, "workload", "", "only those that may concern who acts for this workload identity, by `name`")
	complete(cmd, "principal", inFlag(principalNames(f)))
	complete(cmd, "workload", inFlag(workloadNames(f)))
	listing(cmd, t, f, listPolicies(&q), policyColumns())
	return cmd
}

func policyShow(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Print the text of a policy", Args: exactly("NAME"), ValidArgsFunction: policyNames(f),
		Long:    "Prints the text of a policy, as it was written. --output json has the rest too.",
		Example: examples("tabard policy show allow:calendar-agent:google-calendar", "one that tabard allow wrote", "tabard policy show builtin:auditor", "the rights of a role"),
	}
	policyAnswering(cmd, t, f, func(ctx context.Context, c *client, args []string) (*api.Policy, []api.PolicyProblem, error) {
		a, err := call[api.GetPolicyResponse](ctx, c, api.OpGetPolicy, api.GetPolicyRequest{Name: args[0]})
		return a.Policy, nil, err
	}, func(*api.Policy) string { return "" })
	return cmd
}

func policyPut(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "put NAME FILE", Short: "Write a policy", Args: exactly("NAME", "FILE"),
		Long: "Writes a policy from a file, or from standard input where that is -, and prints it. What was there under the name is replaced; its\n" +
			"text stays in the history, for tabard policy why. Warnings go to standard error.",
		Example: examples(
			"tabard policy put office-hours office-hours.cedar --description 'no tokens at night'", "new, or instead of what is there",
			"tabard policy put office-hours office-hours.cedar --expected-version 7", "only where nobody has changed it since"),
	}
	var q api.PutPolicyRequest
	cmd.Flags().StringVar(&q.Description, "description", "", "what it is for, one `line`")
	cmd.Flags().Int64Var(&q.ExpectedVersion, "expected-version", 0, "the `version` to replace (default: whatever is there)")
	policyAnswering(cmd, t, f, func(ctx context.Context, c *client, args []string) (*api.Policy, []api.PolicyProblem, error) {
		text, err := readPolicy(cmd, args[1])
		if err != nil {
			return nil, nil, err
		}
		q.Name, q.Text = args[0], text
		return putPolicy(ctx, c, q)
	}, written)
	return cmd
}

func putPolicy(ctx context.Context, c *client, q api.PutPolicyRequest) (*api.Policy, []api.PolicyProblem, error) {
	a, err := call[api.PutPolicyResponse](ctx, c, api.OpPutPolicy, q)
	return a.Policy, a.Problems, err
}

// written says what became of a policy, above its text and as a comment of it.
func written(p *api.Policy) string {
	verb := "replaced"
	if p.CreatedTime.Equal(p.LastUpdatedTime.Time) {
		verb = "created"
	}
	return fmt.Sprintf("// %s policy %s, version %d\n", verb, p.Name, p.Version)
}

// policyAnswering makes cmd do one thing to a policy and print it: head and the text, or the whole as JSON.
func policyAnswering(cmd *cobra.Command, t terminal, f *finder, do func(context.Context, *client, []string) (*api.Policy, []api.PolicyProblem, error), head func(*api.Policy) string) {
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
		p, problems, err := do(cmd.Context(), c, args)
		if err != nil {
			return err
		}
		if p == nil {
			return errors.New("the server's answer has no policy")
		}
		for _, w := range problems {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: line %d: %s\n", w.Line, oneLine(w.Message))
		}
		if out.format == "json" {
			return show(cmd, out, []api.Policy{*p}, policyColumns())
		}
		_, err = io.WriteString(cmd.OutOrStdout(), head(p)+printable(p.Text))
		return err
	}
}

// printable is a text of several lines, safe for a terminal and ended.
func printable(text string) string {
	var out []byte
	for _, r := range text {
		if r != '\n' && r != '\t' && oneLine("x"+string(r)+"x") == "x x" && r != ' ' {
			r = ' '
		}
		out = append(out, string(r)...)
	}
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return string(out)
}

// maxPolicyFile bounds what is read; the server takes less.
const maxPolicyFile = 1 << 20

// readPolicy reads a file, or standard input where it is -.
func readPolicy(cmd *cobra.Command, name string) (string, error) {
	in := cmd.InOrStdin()
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return "", usage("usage: "+cmd.UseLine(), "%s", oneLine(err.Error()))
		}
		defer func() { _ = file.Close() }() // it was only read
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPolicyFile+1))
	if err == nil && len(text) > maxPolicyFile {
		err = usage("a policy has at most 32768 bytes", "%s is too large", name)
	}
	return string(text), err
}

func policyDelete(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a policy", Args: exactly("NAME"), ValidArgsFunction: policyNames(f),
		Long: "Deletes a policy: what it permitted is refused from now on, unless another permits it, and what it forbade is not forbidden.\n" +
			"Its text stays in the history, for tabard policy why.",
		Example: examples("tabard policy delete allow:calendar-agent:google-calendar", "what tabard allow wrote"),
	}
	saying(cmd, f, "deleted", func(ctx context.Context, c *client, args []string) error {
		_, err := call[api.DeletePolicyResponse](ctx, c, api.OpDeletePolicy, api.DeletePolicyRequest{Name: args[0]})
		return err
	})
	return cmd
}

// finding is a problem in a file.
type finding struct {
	File string `json:"file"`
	api.PolicyProblem
}

func policyLint(t terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use: "lint FILE...", Short: "Check policies in files, without a server",
		Long: "Checks the policies in files against the schema of this version, without a server. - is standard input. The exit code is 1 where\n" +
			"there are errors; with --strict also where there are warnings.",
		Example: examples("tabard policy lint *.cedar", "before they are put", "tabard policy lint --strict --output json *.cedar", "in a pipeline"),
		Args:    cobra.MinimumNArgs(1),
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exactly("FILE")(cmd, args)
		}
		return nil
	}
	strict := cmd.Flags().Bool("strict", false, "fail on warnings too")
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		var all []finding
		bad := 0
		for _, name := range args {
			text, err := readPolicy(cmd, name)
			if err != nil {
				return err
			}
			problems, err := daemon.CheckPolicy(text)
			if err != nil {
				return err
			}
			for _, p := range problems {
				s := api.PolicyProblemSeverity(p.Severity)
				all = append(all, finding{name, api.PolicyProblem{Severity: s, Line: int64(p.Line), Column: int64(p.Column), Message: p.Message}})
				if *strict || s == api.PolicyProblemSeverityError {
					bad++
				}
			}
		}
		if err := showFindings(cmd, out, all); err != nil || bad == 0 {
			return err
		}
		return &failure{exit: exitFailed, msg: counted(bad, "problem")}
	}
	return cmd
}

func showFindings(cmd *cobra.Command, out output, all []finding) error {
	if out.format != "json" && len(all) == 0 {
		return say(cmd, "nothing to complain about")
	}
	return show(cmd, out, all, []column[finding]{
		{name: "PLACE", text: func(f finding) string { return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column) }},
		{name: "SEVERITY", text: func(f finding) string { return string(f.Severity) }, tint: func(f finding) colour {
			if f.Severity == api.PolicyProblemSeverityError {
				return red
			}
			return plain
		}},
		{name: "PROBLEM", text: func(f finding) string { return f.Message }},
	})
}

func policySchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the Cedar schema of policies", Args: exactly(),
		Long:    "Prints the Cedar schema that policies are checked against: every operation, what it acts on, and what a condition may ask for.",
		Example: examples("tabard policy schema > tabard.cedarschema", "for an editor"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), daemon.PolicySchema())
			return err
		},
	}
}
