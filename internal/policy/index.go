package policy

import (
	"iter"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/tabard-id/tabard/internal/access"
)

// index finds the statements whose scope may match: by principal, then by resource, then by action. What a scope leaves
// open is under the zero key. Statements that leave all three open, or the same two and one action, are told apart only
// by their conditions, so each of them is evaluated.
type index map[types.EntityUID]branch

// branch has the statements of one principal scope, by resource.
type branch map[types.EntityUID]*leaf

type leaf struct {
	any []*statement
	by  map[access.Action][]*statement
}

func (x index) add(s *statement) {
	b := x[s.principal]
	if b == nil {
		b = branch{}
		x[s.principal] = b
	}
	l := b[s.resource]
	if l == nil {
		l = &leaf{}
		b[s.resource] = l
	}
	if s.actions == nil {
		l.any = append(l.any, s)
		return
	}
	if l.by == nil {
		l.by = map[access.Action][]*statement{}
	}
	for _, a := range s.actions {
		l.by[a] = append(l.by[a], s)
	}
}

// slice is some statements, in the form that Cedar takes.
type slice []*statement

// All returns the statements for Cedar.
func (s slice) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, st := range s {
			if !st.broken && !yield(st.id, st.policy) {
				return
			}
		}
	}
}

// find appends to s the statements that may match the request.
func (x index) find(s slice, r *request) slice {
	s = x[types.EntityUID{}].find(s, r)
	s = x[r.principal].find(s, r)
	for _, role := range r.caller.Roles {
		s = x[types.EntityUID{Type: typeRole, ID: types.String(role)}].find(s, r)
	}
	if r.actsFor {
		s = x[types.EntityUID{Type: typeWorkload, ID: types.String(r.facts.Workload)}].find(s, r)
	}
	return s
}

func (b branch) find(s slice, r *request) slice {
	if b == nil {
		return s
	}
	s = b[types.EntityUID{}].find(s, r.action)
	s = b[r.resource].find(s, r.action)
	if r.resource.Type == typeProvider || r.resource.Type == typeAPIProvider {
		s = b[r.vault()].find(s, r.action)
	}
	return s
}

func (l *leaf) find(s slice, a access.Action) slice {
	if l == nil {
		return s
	}
	s = append(s, l.any...)
	return append(s, l.by[a]...)
}
