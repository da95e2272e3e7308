package policy

import (
	"context"
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/tabard-id/tabard/internal/access"
)

// Check says what is wrong with the text of a policy: errors, with which it cannot be stored, and warnings. nil is all
// right. It does not look at what exists: a principal or provider may be named before it is created.
func (e *Engine) Check(text string) []Problem {
	problems, _ := e.check(context.Background(), text) // nothing ends it
	return problems
}

// check is Check, and ends between two statements where ctx has ended.
func (e *Engine) check(ctx context.Context, text string) ([]Problem, error) {
	list, _, problem := parse(text)
	if problem != nil {
		return []Problem{*problem}, nil
	}
	var out []Problem
	for _, p := range list {
		if ctx.Err() != nil {
			return nil, tooLong(ctx.Err())
		}
		s, problems := e.language.statement("", p)
		out = append(out, problems...)
		if len(problems) > 0 {
			continue
		}
		if m := s.sendersProblem(); m != "" {
			out = append(out, Problem{Severity: Error, Line: p.Position().Line, Column: p.Position().Column, Message: m})
			continue
		}
		for _, w := range e.language.warnings(s) {
			out = append(out, Problem{Severity: Warning, Line: p.Position().Line, Column: p.Position().Column, Message: w})
		}
	}
	return out, nil
}

// warnings says what a statement that can be used may not do, or does too much of.
func (l *language) warnings(s *statement) []string {
	a := (*ast.Policy)(s.policy.AST())
	var out []string
	if s.principal.Type == typeRole && !slices.Contains(roles(), access.Role(s.principal.ID)) {
		out = append(out, fmt.Sprintf("there is no role %s: it concerns nobody", s.principal.ID))
	}
	if s.principal.Type == typeRole && access.Role(s.principal.ID) == access.Root {
		if s.forbid {
			return append(out, "nothing can be forbidden to root: disable its principals instead")
		}
		return append(out, "root may do everything already")
	}
	if s.forbid {
		return append(out, l.idle(s, "forbids")...)
	}
	if s.principal == (types.EntityUID{}) {
		out = append(out, "it names no principal: whoever has the role and the pairing that an operation needs is permitted")
	}
	if s.actions == nil {
		out = append(out, "it names no action: it permits everything that the principal's roles do not rule out, and what later versions add")
	}
	for _, e := range actionScope(a.Action) {
		if _, single := l.operation[access.Action(e.ID)]; !single && e.ID == "administer" {
			out = append(out, "the group administer includes writing policies and principals: name the operations")
		}
	}
	if slices.Contains(s.actions, access.PutPolicy) && len(s.actions) < 3 {
		out = append(out, "who may perform PutPolicy may give itself whatever its roles do not rule out")
	}
	if s.principal.Type == typeRole && access.Role(s.principal.ID) == access.Agent && slices.ContainsFunc(s.actions, forAdministrators) {
		out = append(out, "it gives an administrator's operation to every agent")
	}
	return append(out, l.idle(s, "permits")...)
}

// idle names the operations that the statement names in vain: no request for them has such a principal.
func (l *language) idle(s *statement, effect string) []string {
	var never []access.Action
	for _, a := range s.actions {
		r, _ := access.RuleOf(a)
		switch s.principal.Type {
		case typeWorkload:
			if r.Paired == "" {
				never = append(never, a)
			}
		case typeRole:
			role := access.Role(s.principal.ID)
			other := (role == access.Admin && !r.Admin || role == access.Auditor) && r.Paired != ""
			if other && !s.forbid {
				never = append(never, a)
			}
		}
	}
	switch {
	case len(never) == 0:
		return nil
	case s.principal.Type == typeWorkload:
		return []string{fmt.Sprintf("it %s nothing of %q: no agent acts for a workload identity in them, so name the principal or its role", effect, never)}
	}
	return []string{fmt.Sprintf("it %s nothing of %q to a principal that has no other role: they need the role agent or consent-app", effect, never)}
}

func forAdministrators(a access.Action) bool {
	r, _ := access.RuleOf(a)
	return r.Admin
}

func roles() []access.Role {
	return []access.Role{access.Root, access.Admin, access.Agent, access.ConsentApp, access.Auditor}
}

// actionScope returns the entities that an action scope names.
func actionScope(scope ast.IsActionScopeNode) []types.EntityUID {
	if set, ok := scope.(ast.ScopeTypeInSet); ok {
		return set.Entities
	}
	if e := named(scope); e != (types.EntityUID{}) {
		return []types.EntityUID{e}
	}
	return nil
}
