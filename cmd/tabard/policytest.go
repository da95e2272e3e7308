package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

// questions is a file of questions with the answers that are expected.
type questions struct {
	Policies []string   `yaml:"policies"` // files; where there are any, the account's own policies are left out
	Cases    []question `yaml:"cases"`
}

// question is one of them. The words are those of the API.
type question struct {
	Name       string     `yaml:"name"`
	Principal  string     `yaml:"principal"`
	Operation  string     `yaml:"operation"`
	Workload   string     `yaml:"workload"`
	Provider   string     `yaml:"provider"`
	User       *whoseUser `yaml:"user"`
	Scopes     []string   `yaml:"scopes"`
	Parameters []string   `yaml:"parameters"` // names of custom parameters
	Flow       string     `yaml:"flow"`
	Audience   string     `yaml:"audience"`
	From       string     `yaml:"from"` // who hands its token on, where the audience is a workload identity
	Time       string     `yaml:"time"` // RFC 3339
	Expect     string     `yaml:"expect"`
	Rule       string     `yaml:"rule"`         // where set, it must have decided
	Beyond     []string   `yaml:"scopesBeyond"` // where set, these and no others are refused
}

type whoseUser struct {
	Issuer  string         `yaml:"issuer"`
	Subject string         `yaml:"subject"`
	ID      string         `yaml:"id"`
	Claims  map[string]any `yaml:"claims"`
}

// answer is a question with its answer.
type answered struct {
	Name     string             `json:"name"`
	Expected string             `json:"expected"`
	OK       bool               `json:"ok"`
	Decision api.PolicyDecision `json:"decision"`
}

func policyTest(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "test FILE", Short: "Ask questions whose answers are expected", Args: exactly("FILE"),
		Long: `Asks the server the questions in a file (YAML or JSON), without anything happening, and compares the answers: the exit code is
1 where one is not as expected. The file:

  policies: [agents.cedar]    # optional: answer with these, and not with the account's
  cases:
    - name: books events
      principal: calendar     # its roles and workload identities are the server's
      operation: GetResourceOauth2Token
      workload: calendar-agent
      provider: google-calendar
      scopes: [https://www.googleapis.com/auth/calendar.events]
      flow: USER_FEDERATION
      user: {issuer: https://login.example.com, subject: alice, claims: {groups: [staff]}}
      time: 2026-11-23T10:00:00Z
      expect: allow           # or deny; rule and scopesBeyond may be given too

ExchangeToken has an audience instead of a provider. If that is the ARN of a workload identity, from names the one that hands its
token on.`,
		Example: examples("tabard policy test policies_test.yaml", "before and after a change", "tabard policy test policies_test.yaml --output json", "in a pipeline"),
	}
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		q, texts, err := readQuestions(cmd, args[0])
		if err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		return askAll(cmd, c, out, q, texts)
	}
	return cmd
}

// readQuestions reads a file of questions and the policies that it names, which are relative to it.
func readQuestions(cmd *cobra.Command, name string) (questions, []string, error) {
	var q questions
	doc, err := readPolicy(cmd, name)
	if err != nil {
		return q, nil, err
	}
	if err := yaml.NewDecoder(bytes.NewReader([]byte(doc)), yaml.Strict()).Decode(&q); err != nil {
		return q, nil, usage("tabard policy test --help has the form", "%s: %s", name, oneLine(yaml.FormatError(err, false, false)))
	}
	if len(q.Cases) == 0 {
		return q, nil, usage("tabard policy test --help has the form", "%s has no cases", name)
	}
	var texts []string
	for _, p := range q.Policies {
		if !filepath.IsAbs(p) {
			p = filepath.Join(filepath.Dir(name), p)
		}
		text, err := readPolicy(cmd, p)
		if err != nil {
			return q, nil, err
		}
		texts = append(texts, text)
	}
	return q, texts, nil
}

func askAll(cmd *cobra.Command, c *client, out output, q questions, texts []string) error {
	all, wrong := make([]answered, len(q.Cases)), 0
	for i, one := range q.Cases {
		one.Name = cmp.Or(one.Name, fmt.Sprintf("case %d", i+1))
		asked, err := one.inAPI()
		if err != nil {
			return err
		}
		a, err := call[api.SimulateDecisionResponse](cmd.Context(), c, api.OpSimulateDecision, api.SimulateDecisionRequest{Question: asked, Policies: texts})
		if err != nil {
			if f := asFailure(err); f.exit == exitDenied || f.exit == exitUnavailable {
				return err
			}
			return fmt.Errorf("%s: %w", one.Name, err)
		}
		if a.Decision == nil {
			return fmt.Errorf("%s: the server's answer has no decision", one.Name)
		}
		all[i] = answered{Name: one.Name, Expected: one.Expect, Decision: *a.Decision, OK: one.meets(*a.Decision)}
		if !all[i].OK {
			wrong++
		}
	}
	if err := show(cmd, out, all, answerColumns()); err != nil || wrong == 0 {
		return err
	}
	return &failure{exit: exitFailed, msg: fmt.Sprintf("%d of %d answers are not as expected", wrong, len(all))}
}

// inAPI is the question in the form of the API.
func (q question) inAPI() (*api.PolicyQuestion, error) {
	if q.Expect != "allow" && q.Expect != "deny" {
		return nil, usage("expect is allow or deny", "%s: unknown answer %q", oneLine(q.Name), oneLine(q.Expect))
	}
	a := &api.PolicyQuestion{PrincipalName: q.Principal, Operation: q.Operation, WorkloadName: q.Workload, ProviderName: q.Provider,
		Scopes: q.Scopes, Parameters: q.Parameters, Flow: q.Flow, Audience: q.Audience, From: q.From}
	if q.Time != "" {
		at, err := time.Parse(time.RFC3339, q.Time)
		if err != nil {
			return nil, usage("for example 2026-11-23T10:00:00Z", "%s: %q is not a time", oneLine(q.Name), oneLine(q.Time))
		}
		a.Time = api.At(at)
	}
	if q.User != nil {
		a.User = &api.PolicyUser{Issuer: q.User.Issuer, Subject: q.User.Subject, UserID: q.User.ID}
		if q.User.Claims != nil {
			claims, err := json.Marshal(q.User.Claims)
			if err != nil {
				return nil, usage("claims are those of a token", "%s: the claims are not JSON", oneLine(q.Name))
			}
			a.User.Claims = string(claims)
		}
	}
	return a, nil
}

// meets reports whether the answer is the expected one.
func (q question) meets(d api.PolicyDecision) bool {
	if d.Allowed != (q.Expect == "allow") || q.Rule != "" && q.Rule != d.Rule {
		return false
	}
	return q.Beyond == nil || slices.Equal(slices.Sorted(slices.Values(q.Beyond)), slices.Sorted(slices.Values(d.ScopesBeyond)))
}

func decisionWord(d api.PolicyDecision) string {
	if d.Allowed {
		return "allow"
	}
	return "deny"
}

func answerColumns() []column[answered] {
	type row = answered
	return []column[row]{
		{name: "CASE", text: func(a row) string { return a.Name }},
		{name: "EXPECTED", text: func(a row) string { return a.Expected }},
		{name: "ANSWER", text: func(a row) string { return decisionWord(a.Decision) }},
		{name: "RESULT", text: func(a row) string {
			if a.OK {
				return "ok"
			}
			return "WRONG"
		}, tint: func(a row) colour {
			if a.OK {
				return plain
			}
			return red
		}},
		{name: "RULE", text: func(a row) string { return a.Decision.Rule }},
		{name: "SCOPES BEYOND", text: func(a row) string { return beyond(a.Decision.ScopesBeyond, a.Decision.ScopesUnknown) }},
	}
}

// beyond lists the scopes that are refused, or says that it depends on which are asked for: none were named.
func beyond(scopes []string, unknown bool) string {
	if unknown {
		return "unless named"
	}
	return list(scopes)
}

// replayed is one of the two answers of why.
type replayed struct {
	when string
	api.PolicyDecision
}

func policyWhy(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "why RECORD", Short: "Explain a recorded decision", Args: exactly("RECORD"), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Makes a decision of the audit trail again, with the policies of its time and with today's, and says what could not be made again\n" +
			"because the trail does not have it. RECORD is the id of the record: tabard audit tail --output json shows it as recordId.",
		Example: examples("tabard policy why 5c0f2e1b9d7a4f63-000000000000002a", "which policy decided, and whether it still would"),
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
		a, err := call[api.ExplainDecisionResponse](cmd.Context(), c, api.OpExplainDecision, api.ExplainDecisionRequest{RecordID: args[0]})
		if err != nil {
			return err
		}
		if a.Record == nil || a.Then == nil || a.Now == nil {
			return fmt.Errorf("the server's answer has no decision")
		}
		if out.format == "json" {
			return show(cmd, out, []api.ExplainDecisionResponse{a}, nil)
		}
		return showWhy(cmd, out, a)
	}
	return cmd
}

func showWhy(cmd *cobra.Command, out output, a api.ExplainDecisionResponse) error {
	if err := newTable(cmd.OutOrStdout(), out.env, auditColumns()).write([]api.AuditRecord{*a.Record}, true); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout())
	err := show(cmd, out, []replayed{{"then", *a.Then}, {"now", *a.Now}}, []column[replayed]{
		{name: "POLICIES OF", text: func(r replayed) string { return r.when }},
		{name: "DECISION", text: func(r replayed) string { return decisionWord(r.PolicyDecision) }},
		{name: "RULE", text: func(r replayed) string { return r.Rule }},
		{name: "POLICIES", text: func(r replayed) string { return list(r.Policies) }},
		{name: "MISSING", text: func(r replayed) string { return cmp.Or(r.missing(), "-") }},
	})
	for _, remark := range a.Remarks {
		if err == nil {
			err = say(cmd, "remark: %s", remark)
		}
	}
	return err
}

// missing is what the caller lacked.
func (r replayed) missing() string {
	if len(r.ScopesBeyond) > 0 {
		return "no policy allows the scopes " + strings.Join(r.ScopesBeyond, ", ")
	}
	return r.Missing
}

func policyWhoCan(t terminal, f *finder) *cobra.Command {
	type row = api.PolicyHolder
	cmd := &cobra.Command{
		Use: "who-can OPERATION", Short: "List who may do something", Args: exactly("OPERATION"),
		Long: "Lists the enabled principals who may do what is described, now and by which rule. A principal that may do it with fewer scopes only is\n" +
			"listed with those that are too much. Without --flow, or without a user, the answer is for a request that has none. Policies that ask\n" +
			"for one may permit it to others, or forbid it to these: they are named on standard error.\n" +
			"The answer is for all connections of the provider; scopes of two resources are in no token, and refused.",
		Example: examples(
			"tabard policy who-can GetResourceOauth2Token --workload calendar-agent --provider google-calendar --scopes openid", "who gets such a token",
			"tabard policy who-can ExchangeToken --workload booker --audience ARN_OF_BOOKER --from planner", "who acts as booker with a token of planner",
			"tabard policy who-can PutPolicy", "who writes policies"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	var q api.FindWhoCanRequest
	var user api.PolicyUser
	flags := cmd.Flags()
	flags.StringVar(&q.WorkloadName, "workload", "", "workload identity it is done for, by `name`")
	flags.StringVar(&q.ProviderName, "provider", "", "credential provider, by `name`")
	flags.StringSliceVar(&q.Scopes, "scopes", nil, "scopes of the token, a `list` (,); may be given again")
	flags.StringArrayVar(&q.Parameters, "parameter", nil, "`name` of a custom parameter that is sent along; may be given again")
	flags.StringVar(&q.Flow, "flow", "", "`flow`: USER_FEDERATION, M2M or ON_BEHALF_OF_TOKEN_EXCHANGE")
	flags.StringVar(&q.Audience, "audience", "", "`audience` of an exchanged token: a URL, a name, or the ARN of a workload identity")
	flags.StringVar(&q.From, "from", "", "`agent` that hands its token on, where --audience is a workload identity")
	flags.StringVar(&user.Issuer, "user-issuer", "", "issuer of the user's token, by `URL`")
	flags.StringVar(&user.Subject, "user-subject", "", "`subject` of the user's token")
	flags.StringVar(&user.UserID, "user-id", "", "`id` of a user whom the caller names")
	complete(cmd, "workload", inFlag(workloadNames(f)))
	complete(cmd, "from", inFlag(workloadNames(f)))
	complete(cmd, "provider", inFlag(providerNames(f)))
	complete(cmd, "flow", oneOf("USER_FEDERATION", "M2M", "ON_BEHALF_OF_TOKEN_EXCHANGE"))
	listing(cmd, t, f, func(ctx context.Context, c *client) ([]row, error) {
		q.Operation = cmd.Flags().Arg(0)
		if user != (api.PolicyUser{}) {
			q.User = &user
		}
		a, err := call[api.FindWhoCanResponse](ctx, c, api.OpFindWhoCan, q)
		if err == nil {
			err = notAsked(ctx, cmd, c, q)
		}
		return a.Principals, err
	}, []column[row]{
		{name: "PRINCIPAL", text: func(p row) string { return p.PrincipalName }},
		{name: "RULE", text: func(p row) string { return p.Rule }},
		{name: "POLICIES", text: func(p row) string { return list(p.Policies) }},
		{name: "SCOPES BEYOND", text: func(p row) string { return beyond(p.ScopesBeyond, p.ScopesUnknown) }},
	})
	return cmd
}

// notAsked says on standard error for which requests only the answer of who-can is, if there are policies that ask for
// what was not given: an empty list would read as if nobody could.
func notAsked(ctx context.Context, cmd *cobra.Command, c *client, q api.FindWhoCanRequest) error {
	all, err := listPolicies(&api.ListPoliciesRequest{WorkloadName: q.WorkloadName})(ctx, c)
	if err != nil {
		return err
	}
	for _, one := range []struct {
		given             bool
		what, reads, flag string
	}{
		{q.Flow != "", "flow", "context.flow", "--flow"},
		{q.User != nil, "user", "context.user", "--user-issuer, --user-subject or --user-id"},
	} {
		var names []string
		for _, p := range all {
			if !one.given && strings.Contains(p.Text, one.reads) && concerns(p.Text, q.ProviderName) {
				names = append(names, p.Name)
			}
		}
		if len(names) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: this is the answer for a request without a %s: %s would decide by it (%s)\n", one.what, strings.Join(names, ", "), one.flag)
		}
	}
	return nil
}

// concerns reports whether a policy may be about the provider: it names that one, or none.
func concerns(text, provider string) bool {
	return provider == "" || !strings.Contains(text, `Provider::"`) || strings.Contains(text, `Provider::"`+provider+`"`)
}
