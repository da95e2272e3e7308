package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// DefaultQuota is how many policies an account may have where nothing else is said.
const DefaultQuota = 20_000

const (
	maxPage  = 100
	maxRead  = 5_000 // policies that one page of a filtered list looks at
	readPage = 500
)

// Shelf keeps the policies that are written.
type Shelf interface {
	// PutPolicy writes the policy, as the account's next version, and returns it. Where one of its name exists its creator
	// and time of creation stay. A Conflict fault where expected is not 0 and not its version; a Limit fault where it is
	// new and the account has most already.
	PutPolicy(ctx context.Context, row Row, expected, most int64) (Row, error)
	// DeletePolicy is a NotFound fault where there is none.
	DeletePolicy(ctx context.Context, account access.Account, name, by string, at time.Time) error
	Policy(ctx context.Context, account access.Account, name string) (Row, error)
	// Policies returns at most limit policies by name, those after a name.
	Policies(ctx context.Context, account access.Account, after string, limit int) ([]Row, error)
}

// Past is what was.
type Past interface {
	// PoliciesAt returns the policies as they were.
	PoliciesAt(ctx context.Context, account access.Account, at time.Time) ([]Row, error)
	// PolicyWrites counts the writes from one time to another.
	PolicyWrites(ctx context.Context, account access.Account, from, to time.Time) (int64, error)
	// AuditRecord returns the record with the id, or a NotFound fault.
	AuditRecord(ctx context.Context, account access.Account, id string) (access.Record, error)
}

// Member is a principal of an account.
type Member struct {
	access.Caller
	Disabled bool
}

// Population is who there is.
type Population interface {
	// Member is a NotFound fault where there is no principal of the name.
	Member(ctx context.Context, account access.Account, name string) (Member, error)
	// Members returns at most limit principals by name, those after a name.
	Members(ctx context.Context, account access.Account, after string, limit int) ([]Member, error)
	// AssertsUsers reports whether the workload identity accepts users whom the caller names.
	AssertsUsers(ctx context.Context, account access.Account, workload string) (bool, error)
}

// Library is everything that a Service reads and writes.
type Library interface {
	Shelf
	Past
	Population
	Upgrades
}

// ServiceConfig is what a Service needs.
type ServiceConfig struct {
	Library Library
	Engine  *Engine
	Guard   *access.Guard
	Now     func() time.Time
	// Quota says how many policies an account may have. nil: DefaultQuota for each.
	Quota func(ctx context.Context, account access.Account) (int64, error)
	// Resource is the resource that a token of the provider with the scopes is for, "" for none; an Invalid fault for
	// scopes of two. nil: there are none.
	Resource func(ctx context.Context, account access.Account, provider string, scopes []string) (string, error)
}

// Service has the operations on policies. Each decides and records by the Guard before it looks at anything stored.
// Whoever has texts read or policies searched waits for his account's turn.
type Service struct {
	ServiceConfig
	turns turns
}

// NewService makes a Service.
func NewService(c ServiceConfig) *Service { return &Service{ServiceConfig: c} }

// Draft is a policy on its way into the store.
type Draft struct {
	Name        string
	Text        string
	Description string
	Expected    int64 // the version that it replaces; 0: whatever is there, or nothing
}

// Put writes a policy, which takes effect on this replica at once and on others within two seconds. It returns the
// warnings of Check. A text with errors, and a name that begins with "builtin:" or "upgrade:", is an Invalid fault; a
// policy that is not at the expected version a Conflict.
func (s *Service) Put(ctx context.Context, caller access.Caller, d Draft) (Row, []Problem, error) {
	sum := sha256.Sum256([]byte(d.Text))
	facts := access.Facts{Resource: "policy/" + d.Name, Detail: "sha256 of the text: " + hex.EncodeToString(sum[:])}
	if err := s.Guard.Permit(ctx, caller, access.PutPolicy, facts); err != nil {
		return Row{}, nil, err
	}
	if strings.HasPrefix(d.Name, builtInPrefix) || strings.HasPrefix(d.Name, upgradePrefix) {
		return Row{}, nil, fault.Field("name", "names that begin with %s or %s are the server's own: choose another", builtInPrefix, upgradePrefix)
	}
	problems, err := s.checked(ctx, caller, d.Text)
	if err != nil {
		return Row{}, nil, err
	}
	if err := refused("text", problems); err != nil {
		return Row{}, nil, err
	}
	if err := s.Engine.room(ctx, caller.Account, d); err != nil {
		return Row{}, nil, err
	}
	most := int64(DefaultQuota)
	if s.Quota != nil {
		var err error
		if most, err = s.Quota(ctx, caller.Account); err != nil {
			return Row{}, nil, err
		}
	}
	now := s.Now()
	row, err := s.Library.PutPolicy(ctx, Row{
		Account: caller.Account, Name: d.Name, Text: d.Text, Description: d.Description, Source: Created,
		CreatedBy: caller.Name, Created: now, Updated: now,
	}, d.Expected, most)
	return row, problems, err
}

// refused is an Invalid fault where a text has errors. It says the first.
func refused(field string, problems []Problem) error {
	i := slices.IndexFunc(problems, func(p Problem) bool { return p.Severity == Error })
	switch {
	case i < 0:
		return nil
	case problems[i].Line > 0:
		return fault.Field(field, "line %d, column %d: %s", problems[i].Line, problems[i].Column, problems[i].Message)
	}
	return fault.Field(field, "%s", problems[i].Message)
}

// Validate says what is wrong with a text, and stores nothing.
func (s *Service) Validate(ctx context.Context, caller access.Caller, text string) ([]Problem, error) {
	if err := s.Guard.Permit(ctx, caller, access.ValidatePolicy, access.Facts{}); err != nil {
		return nil, err
	}
	return s.checked(ctx, caller, text)
}

// checked is Check, in the account's turn.
func (s *Service) checked(ctx context.Context, caller access.Caller, text string) ([]Problem, error) {
	ctx, done, err := s.turns.take(ctx, caller)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.Engine.check(ctx, text)
}

// Get returns a policy, also a built-in one.
func (s *Service) Get(ctx context.Context, caller access.Caller, name string) (Row, error) {
	if err := s.Guard.Permit(ctx, caller, access.GetPolicy, access.Facts{Resource: "policy/" + name}); err != nil {
		return Row{}, err
	}
	for _, b := range s.Engine.BuiltIn() {
		if b.Name == name {
			return b, nil
		}
	}
	return s.Library.Policy(ctx, caller.Account, name)
}

// Delete deletes a policy. Its texts stay in the history, for the decisions that it had a part in.
func (s *Service) Delete(ctx context.Context, caller access.Caller, name string) error {
	if err := s.Guard.Permit(ctx, caller, access.DeletePolicy, access.Facts{Resource: "policy/" + name}); err != nil {
		return err
	}
	if strings.HasPrefix(name, builtInPrefix) {
		return fault.Field("name", "%s is built in and cannot be deleted: a forbid takes from it", name)
	}
	return s.Library.DeletePolicy(ctx, caller.Account, name, caller.Name, s.Now())
}

// Filter selects policies that may concern a principal, or whoever acts for a workload identity. Where neither is set
// it selects all.
type Filter struct{ Principal, Workload string }

// List returns policies by name, the built-in ones among them. A filtered page may have fewer than limit while more
// follow; the cursor is "" on the last page.
func (s *Service) List(ctx context.Context, caller access.Caller, f Filter, after string, limit int) ([]Row, string, error) {
	facts := access.Facts{Workload: f.Workload}
	if f.Principal != "" {
		facts.Resource = "principal/" + f.Principal
	}
	if err := s.Guard.Permit(ctx, caller, access.ListPolicies, facts); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	if f != (Filter{}) {
		turn, done, err := s.turns.take(ctx, caller)
		if err != nil {
			return nil, "", err
		}
		defer done()
		ctx = turn
	}
	concerns, err := s.concerns(ctx, caller.Account, f)
	if err != nil {
		return nil, "", err
	}
	var out []Row
	for read := 0; read < maxRead; read += readPage {
		stored, err := s.Library.Policies(ctx, caller.Account, after, readPage)
		if err != nil {
			return nil, "", err
		}
		last := len(stored) < readPage
		for _, row := range merged(stored, s.Engine.BuiltIn(), after, last) {
			if ctx.Err() != nil {
				return nil, "", tooLong(ctx.Err())
			}
			if concerns(row) {
				if len(out) == limit {
					return out, out[limit-1].Name, nil
				}
				out = append(out, row)
			}
			after = row.Name
		}
		if last {
			return out, "", nil
		}
	}
	return out, after, nil
}

// merged puts the built-in policies among a page of stored ones that begins after a name.
func merged(stored, builtIn []Row, after string, last bool) []Row {
	all := slices.Clone(stored)
	for _, b := range builtIn {
		if b.Name > after && (last || b.Name < stored[len(stored)-1].Name) {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b Row) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// concerns returns the test of a filter.
func (s *Service) concerns(ctx context.Context, account access.Account, f Filter) (func(Row) bool, error) {
	var among []Member
	switch {
	case f.Principal != "":
		m, err := s.Library.Member(ctx, account, f.Principal)
		if err != nil {
			return nil, err
		}
		among = []Member{m}
	case f.Workload != "":
		err := s.everyone(ctx, account, func(m Member) error {
			if (m.Has(access.Agent) || m.Has(access.ConsentApp)) && m.PairedWith(f.Workload) {
				among = append(among, m)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	default:
		return func(Row) bool { return true }, nil
	}
	return func(row Row) bool {
		p, err := s.Engine.compiled(row)
		return err != nil || slices.ContainsFunc(p.statements, func(st *statement) bool {
			if st.principal.Type == typeWorkload && f.Workload != "" && f.Principal == "" {
				return string(st.principal.ID) == f.Workload
			}
			return st.principal.Type == "" || slices.ContainsFunc(among, st.concerns) && (f.Workload == "" || st.mayBeFor(f.Workload))
		})
	}, nil
}

// concerns reports whether the statement's scope may name the principal.
func (st *statement) concerns(m Member) bool {
	id := string(st.principal.ID)
	switch st.principal.Type {
	case typePrincipal:
		return id == m.Name
	case typeRole:
		return m.Has(access.Role(id))
	case typeWorkload:
		return m.PairedWith(id)
	}
	return true
}

// mayBeFor reports whether the statement's scope leaves the workload identity open or names it.
func (st *statement) mayBeFor(workload string) bool {
	return st.principal.Type != typeWorkload || string(st.principal.ID) == workload
}

// everyone calls f with each principal of the account, by name.
func (s *Service) everyone(ctx context.Context, account access.Account, f func(Member) error) error {
	for after := ""; ; {
		page, err := s.Library.Members(ctx, account, after, readPage)
		if err != nil {
			return err
		}
		for _, m := range page {
			if err := f(m); err != nil {
				return err
			}
			after = m.Name
		}
		if len(page) < readPage {
			return nil
		}
	}
}
