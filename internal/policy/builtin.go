package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/tabard-id/tabard/internal/access"
)

const (
	builtInPrefix = "builtin:"
	upgradePrefix = "upgrade:"
	anyPrincipal  = "any-principal"
)

// ruleOf is the rule that the trail names where a built-in policy decided.
func ruleOf(policy string) (string, bool) {
	name, ok := strings.CutPrefix(policy, builtInPrefix)
	if ok && name != anyPrincipal {
		name = "role:" + name
	}
	return name, ok
}

// BuiltIn returns the built-in policies: the rights of the roles, made from the rule table of package access. They
// cannot be changed, and a forbid of the account takes from them, except from root's. The role agent has none.
func (e *Engine) BuiltIn() []Row {
	row := func(name, description, scope string, actions []string) Row {
		action := "action"
		if actions != nil {
			action = "action in [\n    " + strings.Join(actions, ",\n    ") + "\n  ]"
		}
		return Row{
			Name: builtInPrefix + name, Description: description, Source: BuiltIn,
			Text: fmt.Sprintf("permit (\n  %s,\n  %s,\n  resource\n);\n", scope, action),
		}
	}
	in := func(r access.Role) string {
		return "principal in " + types.EntityUID{Type: typeRole, ID: types.String(r)}.String()
	}
	may := func(rule func(access.Rule) bool) []string { return e.language.covering(rule) }
	return []Row{
		row(string(access.Root), "everything in its account, which no forbid takes away and the trail flags", in(access.Root), nil),
		row(string(access.Admin), "administers, and releases nothing", in(access.Admin), may(func(r access.Rule) bool { return r.Admin })),
		row(string(access.ConsentApp), "completes consent for the workload identities it is paired with", in(access.ConsentApp),
			may(func(r access.Rule) bool { return r.Paired == access.ConsentApp })),
		row(string(access.Auditor), "reads the trail and what exists", in(access.Auditor), may(func(r access.Rule) bool { return r.Auditor })),
		row(anyPrincipal, "what a principal learns or ends of a token that it holds", "principal", may(func(r access.Rule) bool { return r.Anyone })),
	}
}

// covering writes the actions that a rule allows: a group where it allows all of it, else the operation.
func (l *language) covering(allowed func(access.Rule) bool) []string {
	yes := map[access.Action]bool{}
	for a, r := range access.Rules() {
		yes[a] = allowed(r)
	}
	var out []string
	for uid, members := range l.members {
		_, single := l.operation[access.Action(uid.ID)]
		group := types.EntityUID{Type: typeAction, ID: types.String(l.operation[members[0]].group)}
		switch all := !slices.ContainsFunc(l.members[group], func(a access.Action) bool { return !yes[a] }); {
		case single && yes[members[0]] && !all, !single && all:
			out = append(out, uid.String())
		}
	}
	slices.Sort(out)
	return out
}

// tableActions are what the rule table allowed an agent before there were policies. Later operations are not among
// them.
func tableActions() []access.Action {
	return []access.Action{
		access.GetWorkloadAccessToken, access.GetWorkloadAccessTokenForJWT, access.GetWorkloadAccessTokenForUserID,
		access.GetResourceOauth2Token, access.GetResourceAPIKey, access.ReportTokenInvalid, access.DescribeUser, access.GetUserInfo,
	}
}

// UpgradePolicies returns one policy for each of the principals that has the role agent, with all the rights that the
// rule table gave it before there were policies: for the workload identities it is paired with, at every provider, with
// every scope. Account, Name, Text, Description and Source are set. A server writes them once, when it is upgraded.
func UpgradePolicies(principals []access.Caller) []Row {
	var names []string
	for _, a := range tableActions() {
		names = append(names, types.EntityUID{Type: typeAction, ID: types.String(a)}.String())
	}
	var out []Row
	for _, p := range principals {
		if !p.Has(access.Agent) {
			continue
		}
		who := types.EntityUID{Type: typePrincipal, ID: types.String(p.Name)}
		out = append(out, Row{
			Account: p.Account, Name: upgradeName(p.Name), Source: Upgrade,
			Description: "what every agent was allowed before there were policies: narrow it",
			Text:        fmt.Sprintf("permit (\n  principal == %s,\n  action in [\n    %s\n  ],\n  resource\n);\n", who, strings.Join(names, ",\n    ")),
		})
	}
	return out
}

// upgradeName is a policy's name for a principal's: a policy's cannot have a slash, and is no longer than a
// principal's.
func upgradeName(principal string) string {
	const longest = 128
	name := upgradePrefix + strings.ReplaceAll(principal, "/", ":")
	if len(name) > longest {
		sum := sha256.Sum256([]byte(principal))
		name = name[:longest-17] + ":" + hex.EncodeToString(sum[:8])
	}
	return name
}
