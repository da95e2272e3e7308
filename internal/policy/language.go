package policy

import (
	"crypto/sha256"
	_ "embed" // the schema
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/tabard-id/tabard/internal/access"
)

//go:embed schema.cedarschema
var schemaText string

// The entity types of the schema.
const (
	typePrincipal   types.EntityType = "Tabard::Principal"
	typeRole        types.EntityType = "Tabard::Role"
	typeWorkload    types.EntityType = "Tabard::WorkloadIdentity"
	typeProvider    types.EntityType = "Tabard::Provider"
	typeAPIProvider types.EntityType = "Tabard::ApiKeyProvider"
	typeVault       types.EntityType = "Tabard::Vault"
	typeAudience    types.EntityType = "Tabard::Audience"
	typeAccount     types.EntityType = "Tabard::Account"
	typeUser        types.EntityType = "Tabard::User"
	typeAction      types.EntityType = "Tabard::Action"
)

// language is the schema, ready for use.
type language struct {
	validator *validate.Validator
	actions   types.EntityMap                     // each operation and group
	operation map[access.Action]operation         // what the schema says of each operation
	members   map[types.EntityUID][]access.Action // the operations of each group, and each operation's own

	mu      sync.Mutex                            // guards checked
	checked map[access.Account]map[shape][]string // what the validator said of an account's policies of one shape
}

// operation is what requests of one action are about.
type operation struct {
	uid      types.EntityUID
	group    string
	resource types.EntityType // "" where it depends on the facts
}

func newLanguage() (*language, error) {
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(schemaText)); err != nil {
		return nil, fmt.Errorf("the policy schema: %w", err)
	}
	resolved, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("the policy schema: %w", err)
	}
	l := &language{
		validator: validate.New(resolved), actions: types.EntityMap{}, operation: map[access.Action]operation{},
		members: map[types.EntityUID][]access.Action{}, checked: map[access.Account]map[shape][]string{},
	}
	for uid, a := range resolved.Actions {
		l.actions[uid] = types.Entity{UID: uid, Parents: a.Entity.Parents}
		if a.AppliesTo == nil {
			continue
		}
		op := operation{uid: uid}
		if len(a.AppliesTo.Resources) == 1 {
			op.resource = a.AppliesTo.Resources[0]
		}
		name := access.Action(uid.ID)
		for group := range a.Entity.Parents.All() {
			op.group = string(group.ID)
			l.members[group] = append(l.members[group], name)
		}
		l.operation[name] = op
		l.members[uid] = []access.Action{name}
	}
	for _, m := range l.members {
		slices.Sort(m)
	}
	return l, l.complete(access.Rules())
}

// complete returns an error where the schema and the rule table know different actions: of one that only the table
// knows nothing could be written, and one that only the schema knows nobody has.
func (l *language) complete(rules iter.Seq2[access.Action, access.Rule]) error {
	n := 0
	for a := range rules {
		if _, known := l.operation[a]; !known {
			return fmt.Errorf("the policy schema does not have the action %s", a)
		}
		n++
	}
	if n != len(l.operation) {
		return fmt.Errorf("the policy schema has %d actions, and the rule table %d", len(l.operation), n)
	}
	return nil
}

// shape tells statements apart, but not by the names in their scopes.
type shape [sha256.Size]byte

// maxShapes bounds what is remembered of the validator's answers, for each account: none makes another's be forgotten.
const maxShapes = 1_000

// validate returns what is wrong with a statement of the shape. The validator takes 0.2 ms, because it looks at each
// operation, and does not look at the names in a scope; so statements that differ in those alone have one shape, and
// are validated once. Of texts that are not stored nothing is remembered.
func (l *language) validate(p *cedar.Policy, account access.Account, of shape) []string {
	l.mu.Lock()
	said, known := l.checked[account][of]
	l.mu.Unlock()
	if known {
		return said
	}
	said = complaints(l.validator.Policy("", (*ast.Policy)(p.AST())))
	if account == "" {
		return said
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	shapes := l.checked[account]
	if shapes == nil || len(shapes) >= maxShapes {
		shapes = map[shape][]string{}
		l.checked[account] = shapes
	}
	shapes[of] = said
	return said
}

var forAction = regexp.MustCompile(` for Tabard::Action::"[A-Za-z0-9]+"`)

// inapplicable is what the validator says of a scope that no operation has, and after each other fault of a scope.
const inapplicable = "unable to find an applicable action given the policy scope constraints"

// maxComplaints bounds what is said of one statement.
const maxComplaints = 20

// complaints makes the validator's errors one sentence each. It says the same of each operation in turn.
func complaints(err error) []string {
	if err == nil {
		return nil
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	var out []string
	for _, e := range all {
		out = append(out, forAction.ReplaceAllString(strings.ReplaceAll(e.Error(), "\n", " "), ""))
	}
	slices.Sort(out)
	out = slices.Compact(out)
	out = out[:min(len(out), maxComplaints)]
	if len(out) > 1 {
		return slices.DeleteFunc(out, func(m string) bool { return m == inapplicable })
	}
	if out[0] == inapplicable {
		out[0] = "no operation that it names has such a principal and such a resource: the schema says which has what"
	}
	return out
}
