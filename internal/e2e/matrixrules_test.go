package e2e_test

import (
	"fmt"
	"slices"
	"strings"
)

// The policies of the matrix: what they say in Cedar, and by docs/policy.md what that means.

// onOAuth2 stands among the providers of a right for each OAuth2 provider. Of two kinds with one name the API-key
// provider is "key:NAME".
const onOAuth2 = "each OAuth2 provider"

func keyOf(provider string) string { return "key:" + provider }

// right is a statement of a policy for one principal: a permit, or a forbid.
type right struct {
	forbid      bool
	verbs       []string
	providers   []string // nil is all
	user        string   // a verified one's subject; "" is all
	kind        string   // of the user; "" is all
	through     string   // of a forbid: the token came through this agent; "" is all
	parameter   string   // of a forbid: a custom parameter; "" is all
	from        []string // who hands the token on, "" for nobody; nil is all
	scopes      []string // of a permit: a ceiling; nil is none
	touching    []string // of a forbid: one of these scopes; nil is all
	scopesFirst bool     // the condition on scopes stands before the others
}

// policy writes an actor's rights in Cedar.
func (a *actor) policy() string {
	var b strings.Builder
	for _, r := range a.rights {
		effect := "permit"
		if r.forbid {
			effect = "forbid"
		}
		for _, resource := range r.resources() {
			fmt.Fprintf(&b, "%s (principal == Tabard::Principal::%q, action in [Tabard::Action::\"%s\"], %s) when { %s };\n",
				effect, a.name, strings.Join(r.verbs, `", Tabard::Action::"`), resource, r.conditions())
		}
	}
	return b.String()
}

func (r right) resources() (all []string) {
	for _, p := range r.providers {
		switch key, isKey := strings.CutPrefix(p, "key:"); {
		case p == onOAuth2:
			all = append(all, "resource is Tabard::Provider")
		case isKey:
			all = append(all, fmt.Sprintf("resource == Tabard::ApiKeyProvider::%q", key))
		default:
			all = append(all, fmt.Sprintf("resource == Tabard::Provider::%q", p))
		}
	}
	if r.providers == nil {
		return []string{"resource"}
	}
	return all
}

func (r right) conditions() string {
	all, scopes := []string{"true"}, ""
	add := func(is bool, format string, args ...any) {
		if is {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(r.user != "", `context.user.kind == "verified" && context.user.subject == %q`, r.user)
	add(r.kind != "", `context.user.kind == %q`, r.kind)
	add(r.through != "", `context.through.contains(%q)`, r.through)
	add(r.parameter != "", `context.parameters.contains(%q)`, r.parameter)
	list := func(s []string) string { return `["` + strings.Join(s, `", "`) + `"]` }
	from := r.from
	if from == nil && !r.forbid && slices.Contains(r.verbs, "exchange") { // a permit of that must name them
		from = append(matrixAgents(), onNothing, "")
	}
	add(from != nil, "%s.contains(context.from)", list(from))
	switch {
	case r.scopes != nil:
		scopes = list(r.scopes) + ".containsAll(context.scopes)"
	case r.touching != nil:
		scopes = "context.scopes.containsAny(" + list(r.touching) + ")"
	}
	if r.scopesFirst {
		return scopes + " && " + strings.Join(all, " && ")
	}
	add(scopes != "", "%s", scopes)
	return strings.Join(all, " && ")
}

// question is what policies are asked, in the words of the schema.
type question struct {
	verb, agent, user string
	provider          string // as among a right's, "" for none
	scopes            []string
	unknown           bool // nobody knows the scopes
	params, through   []string
	from              string
}

// hits reports whether the statement matches. Scopes that nobody knows are in no list: a permit that reads them permits
// nothing, and a forbid that reads them forbids, unless a condition before it is false.
func (r right) hits(q question) bool {
	named := r.providers == nil || slices.Contains(r.providers, q.provider) ||
		slices.Contains(r.providers, onOAuth2) && q.provider != "" && !strings.HasPrefix(q.provider, "key:")
	if !named || !slices.Contains(r.verbs, q.verb) {
		return false
	}
	others := (r.user == "" || r.user == q.user) && (r.kind == "" || r.kind == kindOf(q.user)) &&
		(r.through == "" || slices.Contains(q.through, r.through)) && (r.parameter == "" || slices.Contains(q.params, r.parameter)) &&
		(r.from == nil || slices.Contains(r.from, q.from))
	switch {
	case r.scopes == nil && r.touching == nil:
		return others
	case q.unknown:
		return r.forbid && (others || r.scopesFirst)
	case r.scopes != nil:
		return others && within(q.scopes, r.scopes)
	}
	return others && slices.ContainsFunc(q.scopes, func(s string) bool { return slices.Contains(r.touching, s) })
}

func kindOf(user string) string {
	switch {
	case user == byNobody:
		return "none"
	case asserted(user):
		return "asserted"
	}
	return "verified"
}

// may reports whether the principal may do what agents do: it acts for the agent, a policy permits it and none forbids
// it.
func (o *truth) may(a *actor, q question) bool {
	switch {
	case !acts(a, "agent", q.agent), slices.Contains(a.roles, "root"):
		return acts(a, "agent", q.agent)
	case q.verb == "release" && o.forbidden[a.account+"/"+q.provider]:
		return false
	}
	permitted := false
	for _, r := range a.rights {
		if r.hits(q) && r.forbid {
			return false
		}
		permitted = permitted || r.hits(q)
	}
	return permitted
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// acts reports whether the principal acts for the agent: as root, or by the role and the pairing.
func acts(a *actor, role, agent string) bool {
	return slices.Contains(a.roles, "root") || slices.Contains(a.roles, role) && slices.Contains(a.agents, agent)
}
