package policy

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
	publicast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/tabard-id/tabard/internal/access"
)

// maxStatements bounds one policy.
const maxStatements = 100

// compiled is a stored policy, ready for use.
type compiled struct {
	name       string
	source     Source
	version    int64
	nodes      int // of its trees
	statements []*statement
	problems   []Problem // why it, or a part of it, cannot be used
}

// statement is one permit or forbid.
type statement struct {
	id     types.PolicyID // the policy's name, and what tells its statements apart
	name   string
	source Source
	forbid bool
	broken bool // a forbid that cannot be read: it forbids whatever its scope may have meant
	policy *cedar.Policy
	reads  attributes // of context
	nodes  int        // of its tree, or its part of those of its text

	// The agents whose tokens a permit lets its principal take over. nil where it does not say.
	senders []string

	// What the scope names. A zero UID, and no actions, is everything. Each may be wider than the scope, never narrower.
	principal, resource types.EntityUID
	actions             []access.Action
}

// compile parses a policy. It returns an error only for a built-in one: what a stored one cannot be used for is in its
// problems.
func (l *language) compile(row Row) (*compiled, error) {
	c := &compiled{name: row.Name, source: row.Source}
	list, nodes, problem := parse(row.Text)
	c.version, c.nodes = row.Version, nodes
	if problem != nil {
		c.problem(*problem)
		if strings.Contains(row.Text, "forbid") { // it may be one, of anything
			c.statements = []*statement{{id: types.PolicyID(row.Name), name: row.Name, forbid: true, broken: true}}
		}
	}
	for i, p := range list {
		s, problems := l.statement(row.Account, p)
		s.id, s.name, s.source, s.nodes = types.PolicyID(row.Name), row.Name, row.Source, nodes/len(list)+1
		if len(list) > 1 {
			s.id += types.PolicyID("\x00" + strconv.Itoa(i))
		}
		for _, p := range problems {
			c.problem(p)
		}
		if len(problems) == 0 || s.broken {
			c.statements = append(c.statements, s)
		}
		if m := s.sendersProblem(); m != "" && len(problems) == 0 { // it is stored, and good for anything else
			at := p.Position()
			c.problem(Problem{Severity: Warning, Line: at.Line, Column: at.Column, Message: m + ". Until then it permits no handing on"})
		}
	}
	if row.Source == BuiltIn && len(c.problems) > 0 {
		return nil, fmt.Errorf("policy %s: %s", row.Name, c.problems[0].Message)
	}
	return c, nil
}

func (c *compiled) problem(p Problem) {
	p.Policy = c.name
	c.problems = append(c.problems, p)
}

var position = regexp.MustCompile(`<input>:([0-9]+):([0-9]+)(?: "(?s:.*?)")?: ?`)

// parse reads a text of one or more statements, and counts its nodes.
func parse(text string) (list cedar.PolicyList, nodes int, problem *Problem) {
	if len(text) > MaxText {
		return nil, 0, &Problem{Severity: Error, Message: fmt.Sprintf("the policy has %d bytes, and %d are allowed", len(text), MaxText)}
	}
	if nodes, problem = tooCostly(text); problem != nil {
		return nil, 0, problem
	}
	list, err := cedar.NewPolicyListFromBytes("", []byte(text))
	if err != nil {
		p := &Problem{Severity: Error, Message: strings.TrimPrefix(err.Error(), "parser error: ")}
		if m := position.FindStringSubmatchIndex(p.Message); m != nil {
			p.Line, _ = strconv.Atoi(p.Message[m[2]:m[3]]) // digits
			p.Column, _ = strconv.Atoi(p.Message[m[4]:m[5]])
			p.Message = strings.TrimPrefix(p.Message[:m[0]], "parse error at ") + p.Message[m[1]:]
		}
		p.Message = "it cannot be read: " + strings.ReplaceAll(strings.ReplaceAll(p.Message, "exact got", "found"), " want ", " instead of ")
		return nil, 0, p
	}
	switch {
	case len(list) == 0:
		return nil, 0, &Problem{Severity: Error, Message: "the text holds no policy: it needs a permit or a forbid"}
	case len(list) > maxStatements:
		return nil, 0, &Problem{Severity: Error, Message: fmt.Sprintf("the text holds %d statements, and %d are allowed: make it several policies", len(list), maxStatements)}
	}
	return list, nodes, nil
}

// statement compiles one statement, or says why it cannot be used. The account is "" for a text that is not stored.
func (l *language) statement(account access.Account, p *cedar.Policy) (*statement, []Problem) {
	s := &statement{policy: p, forbid: p.Effect() == cedar.Forbid}
	var problems []Problem
	bad := func(message string) {
		problems = append(problems, Problem{Severity: Error, Line: p.Position().Line, Column: p.Position().Column, Message: message})
	}
	shape, reads := analyse(p)
	switch {
	case reads.whole:
		bad("it uses context as a whole: name its attributes, as in context.scopes")
	case reads.attributes&readsThrough != 0 && !s.forbid:
		// RFC 8693 §4.1: prior actors are not to be considered in access control decisions. A forbid only narrows.
		bad("a permit cannot depend on context.through, which says through whom a token came: write a forbid")
	}
	for _, m := range l.validate(p, account, shape) {
		bad(m)
	}
	s.reads = reads.attributes
	if reads.asks {
		evaluated, err := readsWhereItAsks(p)
		if err != nil {
			bad("it asks whether context has scopes in a way that cannot be evaluated: leave that out, since it always has them")
		} else {
			s.policy = evaluated
		}
	}
	s.broken = s.forbid && len(problems) > 0
	l.scope(s)
	if !s.forbid {
		s.senders, _ = senders((*ast.Policy)(p.AST()))
	}
	return s, problems
}

// scope notes what the statement's scope names. Of a broken one it notes only what is certain.
func (l *language) scope(s *statement) {
	a := (*ast.Policy)(s.policy.AST())
	switch e := named(a.Principal); e.Type {
	case typePrincipal, typeRole, typeWorkload:
		s.principal = e
	default:
		if !s.broken {
			s.principal = e
		}
	}
	switch e := named(a.Resource); e.Type {
	case typeProvider, typeAPIProvider, typeVault, typeWorkload, typeAudience, typeAccount:
		s.resource = e
	default:
		if !s.broken {
			s.resource = e
		}
	}
	if s.broken {
		return
	}
	switch sc := a.Action.(type) {
	case ast.ScopeTypeEq:
		s.actions = l.members[sc.Entity]
	case ast.ScopeTypeIn:
		s.actions = l.members[sc.Entity]
	case ast.ScopeTypeInSet:
		seen := map[access.Action]bool{}
		for _, e := range sc.Entities {
			for _, m := range l.members[e] {
				if !seen[m] {
					seen[m] = true
					s.actions = append(s.actions, m)
				}
			}
		}
	}
}

// named returns the entity that a scope names, or the zero UID.
func named(scope ast.IsScopeNode) types.EntityUID {
	switch sc := scope.(type) {
	case ast.ScopeTypeEq:
		return sc.Entity
	case ast.ScopeTypeIn:
		return sc.Entity
	case ast.ScopeTypeIsIn:
		return sc.Entity
	}
	return types.EntityUID{}
}

// attributes is a set of context's attributes. Only those that are read are built for a decision.
type attributes uint16

const (
	readsWorkload attributes = 1 << iota
	readsProvider
	readsVault
	readsUser
	readsScopes
	readsFlow
	readsAudience
	readsAssertable
	readsTime
	readsParameters
	readsThrough
	readsFrom
	readsAll = 1<<iota - 1
)

func attribute(name string) attributes {
	switch name {
	case "workload":
		return readsWorkload
	case "provider":
		return readsProvider
	case "vault":
		return readsVault
	case "user":
		return readsUser
	case "scopes":
		return readsScopes
	case "flow":
		return readsFlow
	case "audience":
		return readsAudience
	case "assertable":
		return readsAssertable
	case "time":
		return readsTime
	case "parameters":
		return readsParameters
	case "through":
		return readsThrough
	case "from":
		return readsFrom
	}
	return 0 // the validator refuses it
}

// reading is what conditions read of context.
type reading struct {
	attributes attributes
	whole      bool // context itself, and not an attribute of it
	asks       bool // whether context has scopes
}

// analyse returns what a statement reads of context, and its shape: the hash of all of it but the names in the scopes
// of principal and resource. It walks the tree once.
func analyse(p *cedar.Policy) (shape shape, r reading) {
	a := *(*ast.Policy)(p.AST())
	for _, c := range a.Conditions {
		ast.Inspect(ast.NewNode(c.Body), r.node)
	}
	a.Annotations = nil
	a.Principal, a.Resource = unnamed(a.Principal).(ast.IsPrincipalScopeNode), unnamed(a.Resource).(ast.IsResourceScopeNode)
	return sha256.Sum256(cedar.NewPolicyFromAST((*publicast.Policy)(&a)).MarshalCedar()), r
}

// unnamed is a scope without the name in it. Its type stays.
func unnamed(scope ast.IsScopeNode) ast.IsScopeNode {
	switch sc := scope.(type) {
	case ast.ScopeTypeEq:
		sc.Entity.ID = ""
		return sc
	case ast.ScopeTypeIn:
		sc.Entity.ID = ""
		return sc
	case ast.ScopeTypeIsIn:
		sc.Entity.ID = ""
		return sc
	}
	return scope
}

// node looks at one node, and reports whether those below it are to be looked at.
func (r *reading) node(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeAccess:
		return !r.names(n.StrOpNode)
	case ast.NodeTypeHas:
		named := r.names(n.StrOpNode)
		r.asks = r.asks || named && n.Value == "scopes"
		return !named
	case ast.NodeTypeVariable:
		r.whole = r.whole || n.Name == "context"
	}
	return true
}

// names notes the attribute of context that a node names, and reports whether it does.
func (r *reading) names(n ast.StrOpNode) bool {
	v, is := n.Arg.(ast.NodeTypeVariable)
	if !is || v.Name != "context" {
		return false
	}
	r.attributes |= attribute(string(n.Value))
	return true
}
