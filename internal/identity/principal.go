package identity

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// RootName is the name of the principal that exists from the first start. Nobody else can have it.
const RootName = "root"

// Bounds of a principal. The number of stars is bounded because matching tries every place for each of them.
const (
	maxPatterns     = 100
	maxPatternLen   = 255
	maxPatternStars = 3
)

// NewPrincipal says what principal to create.
type NewPrincipal struct {
	Name      string        // 1 to 128 of A-Z a-z 0-9 _ . @ -
	Roles     []access.Role // at least one
	Workloads []string      // names or patterns (*): for the roles agent and consent-app, and needed by them
}

// CreatePrincipal adds a principal, without a key. Only root may grant the role root. One principal that holds both
// agent and consent-app can confirm its own consent: that is allowed, and the audit record says it in these words.
// A name that exists is a Conflict.
func (s *Service) CreatePrincipal(ctx context.Context, caller access.Caller, n NewPrincipal) (Principal, error) {
	if err := n.check(); err != nil {
		return Principal{}, err
	}
	facts := access.Facts{Resource: "principal/" + n.Name, Detail: n.detail()}
	if slices.Contains(n.Roles, access.Root) {
		if err := s.onlyRoot(ctx, caller, access.CreatePrincipal, facts); err != nil {
			return Principal{}, err
		}
	}
	if err := s.guard.Permit(ctx, caller, access.CreatePrincipal, facts); err != nil {
		return Principal{}, err
	}
	p := Principal{
		Account: caller.Account, ID: access.PrincipalID(newID("prn-")), Name: n.Name,
		Roles: slices.Clone(n.Roles), Workloads: slices.Clone(n.Workloads), Created: s.now(),
	}
	if err := s.store.CreatePrincipal(ctx, p); err != nil {
		if errors.Is(err, fault.Conflict) {
			return Principal{}, fault.Wrap(fault.Conflict, err, "a principal with name: %s already exists", n.Name)
		}
		return Principal{}, err
	}
	return p, nil
}

// Principals lists by name. The cursor is "" on the last page.
func (s *Service) Principals(ctx context.Context, caller access.Caller, after string, limit int) ([]Principal, string, error) {
	if err := s.guard.Permit(ctx, caller, access.ListPrincipals, access.Facts{}); err != nil {
		return nil, "", err
	}
	limit = pageSize(limit)
	found, err := s.store.Principals(ctx, caller.Account, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	found, next := page(found, limit, func(p Principal) string { return p.Name })
	return found, next, nil
}

// SetPrincipalDisabled disables or enables a principal with all its keys. Only root may do that to a principal that
// has the role root. The last enabled root principal can be disabled too: RecoverRoot is the way back.
func (s *Service) SetPrincipalDisabled(ctx context.Context, caller access.Caller, name string, disabled bool) (Principal, error) {
	action := access.EnablePrincipal
	if disabled {
		action = access.DisablePrincipal
	}
	facts := access.Facts{Resource: "principal/" + clip(name)}
	p, err := s.permitOn(ctx, caller, action, name, facts)
	if err != nil {
		return Principal{}, err
	}
	if err := s.store.SetPrincipalDisabled(ctx, caller.Account, name, disabled); err != nil {
		return Principal{}, err
	}
	p.Disabled = disabled
	return p, nil
}

// Has reports whether the principal holds the role.
func (p Principal) Has(r access.Role) bool { return slices.Contains(p.Roles, r) }

// onlyRoot refuses, durably recorded, a caller without the role root.
func (s *Service) onlyRoot(ctx context.Context, caller access.Caller, action access.Action, facts access.Facts) error {
	if caller.Has(access.Root) {
		return nil
	}
	return s.guard.Refuse(ctx, caller, action, "root-only", facts,
		fault.New(fault.Denied, "%s on a principal with the role root needs the role root", action))
}

func (n NewPrincipal) check() error {
	switch {
	case !validName(n.Name, 128):
		return fault.Field("name", "the name of a principal is 1 to 128 letters, digits, _ . @ or -")
	case n.Name == RootName:
		return fault.Field("name", "the name %s is taken by the server's first principal", RootName)
	case len(n.Roles) == 0:
		return fault.Field("roles", "a principal needs at least one of the roles admin, agent, consent-app, auditor, root")
	}
	paired := false
	for i, r := range n.Roles {
		switch r {
		case access.Agent, access.ConsentApp:
			paired = true
		case access.Root, access.Admin, access.Auditor:
		default:
			return fault.Field("roles", "%q is not one of the roles admin, agent, consent-app, auditor, root", clip(string(r)))
		}
		if slices.Contains(n.Roles[:i], r) {
			return fault.Field("roles", "the role %s is given twice", r)
		}
	}
	switch {
	case paired && len(n.Workloads) == 0:
		return fault.Field("workloads", "the roles agent and consent-app need the workload identities that the principal is paired with")
	case !paired && len(n.Workloads) > 0:
		return fault.Field("workloads", "only the roles agent and consent-app are paired with workload identities")
	}
	return checkPatterns("workloads", n.Workloads)
}

// detail is the audit's sentence on what is granted.
func (n NewPrincipal) detail() string {
	names := make([]string, len(n.Roles))
	for i, r := range n.Roles {
		names[i] = string(r)
	}
	d := "roles: " + strings.Join(names, ", ")
	if slices.Contains(n.Roles, access.Agent) && slices.Contains(n.Roles, access.ConsentApp) {
		d += "; this agent can confirm its own consent"
	}
	return d
}

// checkPatterns checks patterns of names of workload identities.
func checkPatterns(field string, patterns []string) error {
	if len(patterns) > maxPatterns {
		return fault.Field(field, "at most %d names or patterns of workload identities can be given", maxPatterns)
	}
	for _, p := range patterns {
		switch {
		case !validName(strings.ReplaceAll(p, "*", "x"), maxPatternLen) || strings.Contains(p, "@"):
			return fault.Field(field, "%q is not a name or pattern of workload identities", clip(p))
		case strings.Count(p, "*") > maxPatternStars:
			return fault.Field(field, "the pattern %q has more than %d stars", clip(p), maxPatternStars)
		}
	}
	return nil
}

func validName(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_.@-", c) >= 0:
		default:
			return false
		}
	}
	return true
}
