package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newAllow(t terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use: "allow AGENT [PROVIDER]", Short: "Let an agent have the tokens of a provider, or those that another agent hands on", Args: onwards,
		Long: `Writes the policy that an agent needs, and prints it: whoever acts for the workload identity AGENT may get workload access
tokens for it, and with them the tokens or the key of the credential provider PROVIDER. A token that has a scope besides those
given is refused, and the refusal names the scope. The same command again replaces the policy; one that leaves out scopes, a flow or an
issuer that the policy restricts takes --replace.

A name may be that of an OAuth2 provider and of an API-key provider: then --kind says which one is meant. If neither exists yet, an
OAuth2 provider is meant.

With --from, and without PROVIDER, AGENT may take over the workload access tokens of another agent: whoever acts for AGENT may
exchange one of those for a token of its own, for the same user (tabard token exchange --workload AGENT). Name who calls AGENT. No
policy lets an agent take over the tokens of whoever it likes: it could use any that it finds.

The principal that acts for AGENT comes with tabard principal create --role agent --workload AGENT.`,
		Example: examples(
			"tabard allow calendar-agent google-calendar --scopes https://www.googleapis.com/auth/calendar.events", "one scope",
			"tabard allow calendar-agent google-calendar --scopes openid,email --flow USER_FEDERATION", "two, and for users only",
			"tabard allow helpdesk github --user-issuer https://login.example.com", "only for users of one issuer",
			"tabard allow helpdesk weather --principal helpdesk-eu", "only one of the principals that act for it",
			"tabard allow booker --from planner", "the planner calls the booker and hands its token on"),
	}
	r := newRight(t, cmd, "may have")
	cmd.Flags().BoolVar(&r.asserted, "asserted-users", false, "also for users whom the caller names by an id, where the workload identity accepts those")
	r.run("allow", r.permit)
	return cmd
}

func newDeny(t terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use: "deny AGENT [PROVIDER]", Short: "Refuse an agent the tokens of a provider, or those that another agent hands on", Args: onwards,
		Long: `Writes a policy that forbids, and prints it: whoever acts for the workload identity AGENT gets no tokens of the credential
provider PROVIDER, or with --from no token of its own for one that the other agent hands on, whatever else is permitted. With flags
it forbids only what they all describe. The same command again replaces the policy; one that lifts something that it forbids takes
--replace. tabard policy delete takes all of it back.`,
		Example: examples(
			"tabard deny calendar-agent google-calendar", "nothing of this provider",
			"tabard deny calendar-agent google-calendar --scopes https://mail.google.com/", "no token that has this scope",
			"tabard deny booker --from browser-agent", "nothing that the browser agent hands on"),
	}
	r := newRight(t, cmd, "must not have")
	r.run("deny", r.forbid)
	return cmd
}

// right is what allow and deny write down.
type right struct {
	cmd               *cobra.Command
	terminal          terminal
	finder            finder
	agent, provider   string
	scopes            []string
	flow, userIssuer  string
	principal, policy string
	kind              string // oauth2 or api-key
	exists            bool   // the provider does
	replace           bool
	from              []string
	arn               string // of agent, where it is about what is handed on
	asserted          bool
}

func newRight(t terminal, cmd *cobra.Command, may string) *right {
	r := &right{cmd: cmd, terminal: t}
	r.finder.addFlags(cmd, t)
	flags := cmd.Flags()
	flags.StringSliceVar(&r.scopes, "scopes", nil, "scopes that a token "+may+", a `list` (,); may be given again (default: any)")
	flags.StringVar(&r.flow, "flow", "", "only this `flow`: USER_FEDERATION, M2M or ON_BEHALF_OF_TOKEN_EXCHANGE; an API key has none")
	flags.StringVar(&r.userIssuer, "user-issuer", "", "only for users whom a token of this issuer proves, by `URL`")
	flags.StringVar(&r.principal, "principal", "", "only this principal, by `name` (default: each that is paired with AGENT)")
	flags.StringVar(&r.kind, "kind", "", "`kind` of the provider, oauth2 or api-key (default: the one that exists)")
	flags.BoolVar(&r.replace, "replace", false, "replace a policy also where something that it restricts or forbids is then so no more")
	flags.StringVar(&r.policy, "name", "", "`name` of the policy (default made of AGENT and PROVIDER)")
	flags.StringSliceVar(&r.from, "from", nil, "`agent` whose tokens AGENT takes over, instead of PROVIDER; may be given again")
	complete(cmd, "from", inFlag(workloadNames(&r.finder)))
	complete(cmd, "flow", oneOf("USER_FEDERATION", "M2M", "ON_BEHALF_OF_TOKEN_EXCHANGE"))
	complete(cmd, "kind", oneOf(kindOAuth2, kindAPIKey))
	complete(cmd, "principal", inFlag(principalNames(&r.finder)))
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return workloadNames(&r.finder)(cmd, nil, typed)
		case 1:
			return providerNames(&r.finder)(cmd, nil, typed)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return r
}

func (r *right) run(verb string, text func() string) {
	policyAnswering(r.cmd, r.terminal, &r.finder, func(ctx context.Context, c *client, args []string) (*api.Policy, []api.PolicyProblem, error) {
		r.agent = args[0]
		if len(args) > 1 {
			r.provider = args[1]
		}
		if err := r.check(); err != nil {
			return nil, nil, err
		}
		if err := r.find(ctx, c); err != nil {
			return nil, nil, err
		}
		q := api.PutPolicyRequest{Name: r.policy, Text: text()}
		if q.Name == "" {
			q.Name = strings.Join([]string{verb, r.agent, r.provider}, ":")
			between := ":"
			if len(r.from) > 0 {
				q.Name += "from:" + strings.Join(r.from, ":")
				between = "@" // which no agent's name has: a principal is not taken for one more agent
			}
			if r.principal != "" {
				q.Name += between + strings.ReplaceAll(r.principal, "/", ":")
			}
			if r.kind == kindAPIKey { // always, so that a name is of one policy whatever providers come and go
				q.Name += ":" + kindAPIKey
			}
			if len(q.Name) > 128 {
				return nil, nil, usage("--name gives it another", "the policy's name would be too long")
			}
		}
		if err := r.keeps(ctx, c, &q, text); err != nil {
			return nil, nil, err
		}
		p, problems, err := putPolicy(ctx, c, q)
		if err == nil {
			r.unknown(ctx, c, verb)
		}
		return p, problems, err
	}, written)
}

// unknown warns of names in the policy that nothing has.
func (r *right) unknown(ctx context.Context, c *client, verb string) {
	until := "until there is one, the policy " + map[string]string{"allow": "permits", "deny": "forbids"}[verb] + " nothing"
	for _, name := range append([]string{r.agent}, r.from...) {
		unknownWorkload(ctx, r.cmd, c, name, until)
	}
	if r.provider != "" && !r.exists {
		what, names, err := "OAuth2 provider", []string(nil), error(nil)
		if r.kind == kindAPIKey {
			var all []api.ApiKeyCredentialProviderItem
			all, err = listAPIKeys(ctx, c)
			what, names = "API key", namesIn(all, func(p api.ApiKeyCredentialProviderItem) string { return p.Name })
		} else {
			var all []api.Oauth2CredentialProviderItem
			all, err = listProviders(ctx, c)
			names = namesIn(all, func(p api.Oauth2CredentialProviderItem) string { return p.Name })
			if keys, bad := listAPIKeys(ctx, c); bad == nil {
				names = append(names, namesIn(keys, func(p api.ApiKeyCredentialProviderItem) string { return p.Name })...)
			}
		}
		if err == nil {
			unknown(r.cmd, what, r.provider, until, names)
		}
	}
	if r.principal == "" {
		return
	}
	all, err := listPrincipals(ctx, c)
	names := namesIn(all, func(p api.Principal) string { return p.Name })
	if err == nil && !slices.Contains(names, r.principal) {
		unknown(r.cmd, "principal", r.principal, until, names)
	}
}

// onwards takes AGENT and PROVIDER, or AGENT and --from.
func onwards(cmd *cobra.Command, args []string) error {
	from := cmd.Flags().Changed("from")
	switch {
	case len(args) == 1 && !from:
		return usage("usage: "+cmd.CommandPath()+" AGENT PROVIDER; "+cmd.CommandPath()+" AGENT --from OTHER is for the tokens that another agent hands on",
			"%s needs PROVIDER, or --from", cmd.CommandPath())
	case len(args) == 1:
		return nil
	case len(args) == 2 && from:
		agent := cmd.CommandPath() + " " + oneLine(args[0])
		return usage(fmt.Sprintf("write two policies: %s %s, and %s --from OTHER", agent, oneLine(args[1]), agent),
			"--from and PROVIDER do not go together: what a provider gives does not depend on who handed the token on")
	}
	return exactly("AGENT", "PROVIDER")(cmd, args)
}

// find finds out what the policy is about.
func (r *right) find(ctx context.Context, c *client) error {
	if len(r.from) == 0 {
		return r.findKind(ctx, c)
	}
	w, err := call[api.GetWorkloadIdentityResponse](ctx, c, api.OpGetWorkloadIdentity, api.GetWorkloadIdentityRequest{Name: r.agent})
	r.arn = w.WorkloadIdentityARN
	return err
}

// checkFrom refuses what is no agent's name, and what is of providers.
func (r *right) checkFrom() error {
	for _, s := range r.from {
		if s == "" || strings.ContainsFunc(s, func(c rune) bool {
			return c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("_.-", c)
		}) {
			return usage("--from is the name of a workload identity, which tabard workload list shows", "%q is no agent's name: each whose tokens may be taken over is named", oneLine(s))
		}
	}
	if len(r.from) > 0 && (len(r.scopes) > 0 || r.flow != "" || r.kind != "" || r.asserted) {
		return usage("leave them out", "--scopes, --flow, --kind and --asserted-users are of a provider, and --from is of a token that is handed on")
	}
	return nil
}

// The kinds of providers, as --kind has them.
const (
	kindOAuth2 = "oauth2"
	kindAPIKey = "api-key"
)

// findKind finds out which kind of provider is meant, and refuses what the one that is meant does not have.
func (r *right) findKind(ctx context.Context, c *client) error {
	if r.kind != "" && r.kind != kindOAuth2 && r.kind != kindAPIKey {
		return usage("--kind is oauth2 or api-key", "unknown kind %q", oneLine(r.kind))
	}
	oauth2, isOAuth2, err := found(getProvider(ctx, c, r.provider))
	if err != nil {
		return err
	}
	_, isKey, err := found(call[api.GetApiKeyCredentialProviderResponse](ctx, c, api.OpGetApiKeyCredentialProvider, api.GetApiKeyCredentialProviderRequest{Name: r.provider}))
	if err != nil {
		return err
	}
	if isOAuth2 && isKey && r.kind == "" {
		return usage("add --kind oauth2 or --kind api-key", "%s is the name of an OAuth2 provider and of an API-key provider", r.provider)
	}
	switch {
	case r.kind != "":
	case isKey:
		r.kind = kindAPIKey
	default:
		r.kind = kindOAuth2
	}
	r.exists = r.kind == kindAPIKey && isKey || r.kind == kindOAuth2 && isOAuth2
	if r.kind == kindAPIKey && (len(r.scopes) > 0 || r.flow != "") {
		return usage("leave --scopes and --flow out, or say --kind oauth2", "an API key has no scopes and no flow")
	}
	if r.kind == kindOAuth2 && isOAuth2 && len(r.scopes) > 0 {
		return r.hasScopes(ctx, c, string(oauth2.CredentialProviderVendor))
	}
	return nil
}

// hasScopes refuses scopes at a vendor whose tokens have none: the policy would permit, or forbid, something else than
// it says.
func (r *right) hasScopes(ctx context.Context, c *client, vendor string) error {
	all, err := listVendors(ctx, c)
	if err != nil {
		return err
	}
	for _, v := range all {
		if v.Name == vendor && v.NoScopes {
			return usage("leave --scopes out: what a token may do is chosen at the vendor", "the tokens of vendor %s have no scopes, so that no list of scopes covers them", vendor)
		}
	}
	return nil
}

// found tells a thing that does not exist from a call that failed.
func found[T any](thing T, err error) (T, bool, error) {
	if e, ok := errors.AsType[*apiError](err); ok && e.exception == api.ExceptionResourceNotFound {
		return thing, false, nil
	}
	return thing, err == nil, err
}

// check refuses what could end a literal of the policy.
func (r *right) check() error {
	for _, s := range append([]string{r.agent, r.provider, r.flow, r.userIssuer, r.principal}, r.scopes...) {
		if strings.ContainsFunc(s, func(c rune) bool { return c == '"' || c == '\\' || unicode.IsControl(c) }) {
			return usage("usage: "+r.cmd.UseLine(), "%q has characters that no name, scope or URL has", s)
		}
	}
	if err := r.checkFrom(); err != nil {
		return err
	}
	switch r.flow {
	case "", "USER_FEDERATION", "M2M", "ON_BEHALF_OF_TOKEN_EXCHANGE":
		return nil
	}
	return usage("--flow is USER_FEDERATION, M2M or ON_BEHALF_OF_TOKEN_EXCHANGE", "unknown flow %q", oneLine(r.flow))
}

// permit is the policy of allow. What the user's token says is known when a token is released, not yet when the agent
// asks for a workload access token, so the conditions are of the release.
func (r *right) permit() string {
	if len(r.from) > 0 {
		return r.handingOn("permit")
	}
	acts := []string{"mint", "describe"}
	if r.asserted {
		acts = append(acts, "assert")
	}
	conditions := r.conditions()
	if len(r.scopes) > 0 {
		conditions = append(conditions, r.scopeSet()+".containsAll(context.scopes)")
	}
	atProvider := r.atProvider()
	text := r.statement("permit", acts, r.onWorkload(), nil)
	switch {
	case r.kind == kindAPIKey:
		return text + r.statement("permit", []string{"release"}, atProvider, conditions)
	case len(conditions) == 0:
		return text + r.statement("permit", []string{"release", "report"}, atProvider, nil)
	}
	return text + r.statement("permit", []string{"release"}, atProvider, conditions) + r.statement("permit", []string{"report"}, atProvider, r.onlyFor())
}

// forbid is the policy of deny.
func (r *right) forbid() string {
	if len(r.from) > 0 {
		return r.handingOn("forbid")
	}
	conditions := r.conditions()
	if len(r.scopes) > 0 {
		conditions = append(conditions, "context.scopes.containsAny("+r.scopeSet()+")")
	}
	return r.statement("forbid", []string{"release"}, r.atProvider(), conditions)
}

// handingOn is the policy about the tokens that others hand on to the agent.
func (r *right) handingOn(effect string) string {
	conditions := append([]string{set(r.from) + ".contains(context.from)"}, r.conditions()...)
	return r.statement(effect, []string{"exchange"}, fmt.Sprintf("resource == Tabard::Audience::%q", r.arn), conditions)
}

// atProvider is the scope of what is done to the provider, of the kind that is meant.
func (r *right) atProvider() string {
	kind := "Provider"
	if r.kind == kindAPIKey {
		kind = "ApiKeyProvider"
	}
	return fmt.Sprintf("resource == Tabard::%s::%q", kind, r.provider)
}

// onWorkload is the scope of what is done to the workload identity itself.
func (r *right) onWorkload() string {
	if r.principal == "" {
		return "resource" // who is in the workload identity acts for no other in one request
	}
	return fmt.Sprintf("resource == Tabard::WorkloadIdentity::%q", r.agent)
}

// onlyFor is the condition that a principal, who may be paired with several, acts for the agent.
func (r *right) onlyFor() []string {
	if r.principal == "" {
		return nil
	}
	return []string{fmt.Sprintf("context.workload == %q", r.agent)}
}

func (r *right) conditions() []string {
	c := r.onlyFor()
	if r.flow != "" {
		c = append(c, fmt.Sprintf("context.flow == %q", r.flow))
	}
	if r.userIssuer != "" {
		c = append(c, fmt.Sprintf("context.user.issuer == %q", r.userIssuer))
	}
	return c
}

func (r *right) scopeSet() string { return set(r.scopes) }

// set writes a set of strings.
func set(of []string) string { return `["` + strings.Join(of, `", "`) + `"]` }

func (r *right) statement(effect string, acts []string, resource string, conditions []string) string {
	who := fmt.Sprintf("principal in Tabard::WorkloadIdentity::%q", r.agent)
	if r.principal != "" {
		who = fmt.Sprintf("principal == Tabard::Principal::%q", r.principal)
	}
	for i, a := range acts {
		acts[i] = `Tabard::Action::"` + a + `"`
	}
	when := ""
	if len(conditions) > 0 {
		when = "\nwhen { " + strings.Join(conditions, " && ") + " }"
	}
	return fmt.Sprintf("%s (\n  %s,\n  action in [%s],\n  %s\n)%s;\n", effect, who, strings.Join(acts, ", "), resource, when)
}
