package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/tabard-id/tabard/internal/access"
)

// handsOn reports whether the statement's scope leaves it open that a token is handed on from one agent to another.
// Nobody but root is in the role root, and root asks no policy.
func (s *statement) handsOn() bool {
	if s.principal == (types.EntityUID{Type: typeRole, ID: types.String(access.Root)}) {
		return false
	}
	if s.actions != nil && !slices.Contains(s.actions, access.ExchangeToken) {
		return false
	}
	kind, e := types.EntityType(""), types.EntityUID{}
	switch sc := (*ast.Policy)(s.policy.AST()).Resource.(type) {
	case ast.ScopeTypeEq:
		kind, e = sc.Entity.Type, sc.Entity
	case ast.ScopeTypeIn:
		kind, e = sc.Entity.Type, sc.Entity
	case ast.ScopeTypeIsIn:
		kind, e = sc.Type, sc.Entity
	case ast.ScopeTypeIs:
		kind = sc.Type
	}
	switch {
	case kind == "":
		return true
	case kind != typeAudience: // an audience is in nothing but itself
		return false
	}
	return e == (types.EntityUID{}) || access.IsWorkloadAudience(string(e.ID))
}

// senders returns the names that a statement requires context.from to be one of, where its conditions do so for
// certain.
//
// Sound are only conjuncts of a when, context.from == "a" and ["a", "b"].contains(context.from): if one of them is
// false the statement matches nothing, whatever stands beside it. A disjunction, a negation, an if, an unless and a
// comparison with anything but texts are not looked into. The name "" is that of no agent: it leaves out whatever is
// handed on.
func senders(p *ast.Policy) (names []string, certain bool) {
	for _, c := range p.Conditions {
		if c.Condition != ast.ConditionWhen {
			continue
		}
		if names, certain = sendersOf(c.Body); certain {
			return names, true
		}
	}
	return nil, false
}

func sendersOf(n ast.IsNode) ([]string, bool) {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		if names, certain := sendersOf(n.Left); certain {
			return names, true
		}
		return sendersOf(n.Right)
	case ast.NodeTypeEquals:
		if isFrom(n.Left) {
			return texts([]ast.IsNode{n.Right})
		}
		if isFrom(n.Right) {
			return texts([]ast.IsNode{n.Left})
		}
	case ast.NodeTypeContains:
		if set, ok := n.Left.(ast.NodeTypeSet); ok && isFrom(n.Right) {
			return texts(set.Elements)
		}
	}
	return nil, false
}

// isFrom reports whether a node is context.from.
func isFrom(n ast.IsNode) bool {
	a, ok := n.(ast.NodeTypeAccess)
	if !ok || a.Value != "from" {
		return false
	}
	v, ok := a.Arg.(ast.NodeTypeVariable)
	return ok && v.Name == "context"
}

// texts returns the texts of some nodes, where all of them are texts.
func texts(nodes []ast.IsNode) ([]string, bool) {
	names := []string{}
	for _, n := range nodes {
		v, ok := n.(ast.NodeValue)
		if !ok {
			return nil, false
		}
		text, ok := v.Value.(types.String)
		if !ok {
			return nil, false
		}
		names = append(names, string(text))
	}
	return names, true
}

// sendersProblem says what is wrong with a permit that may hand on: it names nobody for certain, or names what no agent
// is called. It is no reason not to use the statement for anything else.
func (s *statement) sendersProblem() string {
	if s.forbid || !s.handsOn() {
		return ""
	}
	names, certain := senders((*ast.Policy)(s.policy.AST()))
	if !certain {
		return `it permits ExchangeToken for a workload identity and does not say whose tokens it may take: add when { context.from == "AGENT" } ` +
			`or when { ["AGENT", "AGENT"].contains(context.from) }, by itself or joined by && alone, with the names of the workload identities ` +
			`that hand their tokens on; or when { context.from == "" }, if none may`
	}
	for _, name := range names {
		if strings.ContainsAny(name, "*?") {
			return fmt.Sprintf("context.from is the name of a workload identity and %q is a pattern: name each agent that hands its tokens on", name)
		}
	}
	return ""
}

// takesFrom reports whether the statement may decide that a token of the agent is handed on. A stored permit that does
// not name the agent for certain permits no handing on, whatever its conditions come to (threat M07): it may be older
// than this rule. A forbid always counts.
func (s *statement) takesFrom(agent string) bool {
	return s.forbid || agent != "" && slices.Contains(s.senders, agent)
}

// of returns the statements that may decide the request.
func (s slice) of(r *request) slice {
	if !r.handsOn() {
		return s
	}
	out := make(slice, 0, len(s))
	for _, st := range s {
		if st.takesFrom(r.facts.From) {
			out = append(out, st)
		}
	}
	return out
}

func (r *request) handsOn() bool {
	return r.action == access.ExchangeToken && (r.facts.From != "" || access.IsWorkloadAudience(r.facts.Audience))
}

// missingSender says what lacks where no policy permits that a token is handed on.
func (s slice) missingSender(r *request) string {
	who, reads := r.facts.Workload, attributes(0)
	var silent slice // permits that name no agent, and would permit it else
	for _, st := range s {
		if !st.forbid && st.senders == nil {
			silent, reads = append(silent, st), reads|st.reads
		}
	}
	if _, diag := cedar.Authorize(silent, r, r.cedar(reads, r.facts.Scopes)); len(diag.Reasons) > 0 {
		names := make([]string, len(diag.Reasons))
		for i, reason := range diag.Reasons {
			names[i] = rowName(reason.PolicyID)
		}
		return fmt.Sprintf(`policy %s to name whose tokens it lets %s take, as in when { context.from == "AGENT" }: it names none, so it permits no handing on. `+
			"An administrator writes: tabard allow %s --from AGENT", slices.Min(names), who, who)
	}
	return fmt.Sprintf("a policy that permits it and names the agent that handed the token on, which an administrator writes: tabard allow %s --from AGENT", who)
}
