package policy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
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

	// What the scope names. A zero UID, and no actions, is everything. Each may be wider than the scope, never narrower.
	principal, resource types.EntityUID
	actions             []access.Action
}

// compile parses a policy. It returns an error only for a built-in one: what a stored one cannot be used for is in its
// problems.
func (l *language) compile(row Row) (*compiled, error) {
	c := &compiled{name: row.Name, source: row.Source}
	list, problem := parse(row.Text)
	if problem != nil {
		c.problem(*problem)
		if strings.Contains(row.Text, "forbid") { // it may be one, of anything
			c.statements = []*statement{{id: types.PolicyID(row.Name), name: row.Name, forbid: true, broken: true}}
		}
	}
	for i, p := range list {
		s, problems := l.statement(p)
		s.id, s.name, s.source = types.PolicyID(row.Name), row.Name, row.Source
		if len(list) > 1 {
			s.id += types.PolicyID("\x00" + strconv.Itoa(i))
		}
		for _, p := range problems {
			c.problem(p)
		}
		if len(problems) == 0 || s.broken {
			c.statements = append(c.statements, s)
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

// parse reads a text of one or more statements.
func parse(text string) (cedar.PolicyList, *Problem) {
	if len(text) > MaxText {
		return nil, &Problem{Severity: Error, Message: fmt.Sprintf("the policy has %d bytes, and %d are allowed", len(text), MaxText)}
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
		return nil, p
	}
	switch {
	case len(list) == 0:
		return nil, &Problem{Severity: Error, Message: "the text holds no policy: it needs a permit or a forbid"}
	case len(list) > maxStatements:
		return nil, &Problem{Severity: Error, Message: fmt.Sprintf("the text holds %d statements, and %d are allowed: make it several policies", len(list), maxStatements)}
	}
	return list, nil
}

// statement compiles one statement, or says why it cannot be used.
func (l *language) statement(p *cedar.Policy) (*statement, []Problem) {
	s := &statement{policy: p, forbid: p.Effect() == cedar.Forbid}
	var problems []Problem
	bad := func(message string) {
		problems = append(problems, Problem{Severity: Error, Line: p.Position().Line, Column: p.Position().Column, Message: message})
	}
	shape, reads, err := analyse(p)
	switch {
	case err != nil:
		bad("it cannot be read: it is too deep")
	case reads.whole:
		bad("it uses context as a whole: name its attributes, as in context.scopes")
	case reads.attributes&readsThrough != 0 && !s.forbid:
		// RFC 8693 §4.1: prior actors are not to be considered in access control decisions. A forbid only narrows.
		bad("a permit cannot depend on context.through, which says through whom a token came: write a forbid")
	}
	if err == nil {
		for _, m := range l.validate(p, shape) {
			bad(m)
		}
	}
	s.reads = reads.attributes
	s.broken = s.forbid && len(problems) > 0
	l.scope(s)
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
	case typeProvider, typeVault, typeWorkload, typeAudience, typeAccount:
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
	readsThrough
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
	case "through":
		return readsThrough
	}
	return 0 // the validator refuses it
}

// reading is what conditions read of context.
type reading struct {
	attributes attributes
	whole      bool // context itself, and not an attribute of it
}

// analyse returns the statement's shape, which is all of it but the names in the scopes of principal and resource, and
// what it reads of context. Both come from Cedar's JSON form of a policy, which is a tree without parentheses and sugar.
func analyse(p *cedar.Policy) (shape string, r reading, err error) {
	text, err := p.MarshalJSON()
	if err != nil {
		return "", r, err
	}
	type entity struct {
		Type string `json:"type"`
	}
	type scope struct {
		Op         string  `json:"op"`
		Entity     *entity `json:"entity"`
		EntityType string  `json:"entity_type"`
		In         *struct {
			Entity entity `json:"entity"`
		} `json:"in"`
	}
	var form struct {
		Effect     string          `json:"effect"`
		Principal  scope           `json:"principal"`
		Action     json.RawMessage `json:"action"`
		Resource   scope           `json:"resource"`
		Conditions json.RawMessage `json:"conditions"`
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return "", r, err
	}
	var conditions []struct {
		Body any `json:"body"`
	}
	if len(form.Conditions) > 0 {
		if err := json.Unmarshal(form.Conditions, &conditions); err != nil {
			return "", r, err
		}
	}
	for _, c := range conditions {
		r.expression(c.Body)
	}
	key, err := json.Marshal(form)
	return string(key), r, err
}

// expression walks an expression in JSON form: an object with one member, its operator.
func (r *reading) expression(e any) {
	object, _ := e.(map[string]any)
	for operator, operand := range object {
		switch operator {
		case "Value": // a literal
		case "Var":
			r.whole = r.whole || operand == "context"
		case "Record":
			fields, _ := operand.(map[string]any)
			for _, f := range fields {
				r.expression(f)
			}
		case ".", "has":
			access, _ := operand.(map[string]any)
			if left, _ := access["left"].(map[string]any); left["Var"] == "context" {
				name, _ := access["attr"].(string)
				r.attributes |= attribute(name)
				continue
			}
			r.operands(operand)
		default:
			r.operands(operand)
		}
	}
}

// operands walks the operands of an operator: a list of expressions, or an object whose members are expressions or words.
func (r *reading) operands(o any) {
	switch o := o.(type) {
	case []any:
		for _, e := range o {
			r.expression(e)
		}
	case map[string]any:
		for _, e := range o {
			r.expression(e)
		}
	}
}
