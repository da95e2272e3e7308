package federation

import (
	"context"
	"errors"
	"maps"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Bounds of rules. The number of stars is bounded because matching tries every place for each of them.
const (
	maxRules      = 500 // of one issuer
	maxClaimRules = 20
	maxStars      = 5
)

// CreateRule maps tokens of an issuer of the caller's account to a principal of it, whose name is r.Name. It is Invalid
// for a principal with the role root, and for a rule that any workload of the issuer would fit; NotFound where the
// issuer or the principal does not exist; Conflict where the same rule exists; and Limit where the issuer has too many.
func (s *Service) CreateRule(ctx context.Context, caller access.Caller, r Rule) (Rule, error) {
	if err := checkRule(r); err != nil {
		return Rule{}, err
	}
	facts := access.Facts{Resource: "principal/" + clip(r.Name), Detail: "issuer " + clip(r.Issuer) + ", subject " + clip(r.Subject)}
	if err := s.Guard.Permit(ctx, caller, access.CreateFederationRule, facts); err != nil {
		return Rule{}, err
	}
	p, err := s.Store.PrincipalByName(ctx, caller.Account, r.Name)
	if err != nil {
		return Rule{}, err
	}
	if p.Has(access.Root) {
		return Rule{}, fault.Field("principalName", "principal %s has the role root, which no workload may have", p.Name)
	}
	trust, err := s.Store.WorkloadTrust(ctx, caller.Account, r.Issuer)
	if errors.Is(err, fault.NotFound) {
		return Rule{}, fault.Wrap(fault.NotFound, err, "the workload issuer %s is not trusted: trust it first", clip(r.Issuer))
	}
	if err != nil {
		return Rule{}, err
	}
	if len(trust.Grants) >= maxRules {
		return Rule{}, fault.New(fault.Limit, "the workload issuer %s has %d rules already", r.Issuer, len(trust.Grants))
	}
	for _, g := range trust.Grants {
		if g.Subject == r.Subject && g.To.ID == p.ID && maps.Equal(g.Claims, r.Claims) {
			return Rule{}, fault.New(fault.Conflict, "rule %s is the same", g.Rule.ID)
		}
	}
	r.Account, r.ID, r.Principal, r.Created = caller.Account, newID("frl-"), p.ID, s.Now()
	if err := s.Store.CreateFederationRule(ctx, r); err != nil {
		return Rule{}, err
	}
	return r, nil
}

// Rules lists by id, those of one issuer and of one principal where they are not "". The cursor is "" on the last page.
func (s *Service) Rules(ctx context.Context, caller access.Caller, issuer, principal, after string, limit int) ([]Rule, string, error) {
	if err := s.Guard.Permit(ctx, caller, access.ListFederationRules, access.Facts{}); err != nil {
		return nil, "", err
	}
	limit = pageSize(limit)
	found, err := s.Store.FederationRules(ctx, caller.Account, issuer, principal, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	found, next := page(found, limit, func(r Rule) string { return r.ID })
	return found, next, nil
}

// DeleteRule deletes a rule, and with it what it gave: within two seconds, on every replica.
func (s *Service) DeleteRule(ctx context.Context, caller access.Caller, id string) error {
	if err := s.Guard.Permit(ctx, caller, access.DeleteFederationRule, access.Facts{Resource: "federation-rule/" + clip(id)}); err != nil {
		return err
	}
	return s.Store.DeleteFederationRule(ctx, caller.Account, id)
}

func checkRule(r Rule) error {
	switch {
	case !plainText(r.Subject):
		return fault.Field("subject", "a subject is 1 to %d bytes without control characters", maxText)
	case strings.Count(r.Subject, "*") > maxStars:
		return fault.Field("subject", "the pattern has more than %d stars", maxStars)
	case strings.Trim(r.Subject, "*") == "" && len(r.Claims) == 0:
		return fault.Field("subject", "the pattern fits every workload of the issuer: narrow it, or say which claims a token must have")
	case strings.HasPrefix(r.Issuer, spiffeScheme) && !strings.HasPrefix(r.Subject, r.Issuer+"/"):
		return fault.Field("subject", "the ids of this trust domain begin with %s/", clip(r.Issuer))
	case len(r.Claims) > maxClaimRules:
		return fault.Field("claims", "at most %d claims can be given", maxClaimRules)
	}
	for name, value := range r.Claims {
		if !plainText(name) || !plainText(value) {
			return fault.Field("claims", "the rule for %q has an empty or too long text or a control character", clip(name))
		}
	}
	return nil
}

// misses says in which respect the token does not fit the rule, or "".
func (r Rule) misses(v verified) string {
	if !access.MatchName(r.Subject, v.subject) {
		return "the subject"
	}
	for name, want := range r.Claims {
		switch have, ok := v.claims.Nested(name); {
		case !ok:
			return "the claim " + name + ", which is missing or no single value"
		case have != want:
			return "the claim " + name
		}
	}
	return ""
}
