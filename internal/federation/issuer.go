package federation

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/keyring"
)

// Bounds of an issuer's row.
const (
	maxURL       = 1024
	maxAudiences = 20
	maxJWKS      = 64 << 10
)

// spiffeScheme begins the name of a trust domain, and the id of each workload in it.
const spiffeScheme = "spiffe://"

// CreateIssuer trusts an issuer of workloads' tokens in the caller's account. It gives nobody anything: rules do. Where
// Kind is "" the URL tells it. One that is trusted already is a Conflict.
func (s *Service) CreateIssuer(ctx context.Context, caller access.Caller, i Issuer) (Issuer, error) {
	i.Account, i.UID, i.Created = caller.Account, newID("wis-"), s.Now()
	i, err := s.checkIssuer(i)
	if err != nil {
		return Issuer{}, err
	}
	if err := s.Guard.Permit(ctx, caller, access.CreateWorkloadIssuer, access.Facts{Resource: i.URL}); err != nil {
		return Issuer{}, err
	}
	err = s.Store.CreateWorkloadIssuer(ctx, i)
	if errors.Is(err, fault.Conflict) {
		return Issuer{}, fault.Wrap(fault.Conflict, err, "the workload issuer %s is trusted already", i.URL)
	}
	if err != nil {
		return Issuer{}, err
	}
	return i, nil
}

// Issuers lists by URL. The cursor is "" on the last page.
func (s *Service) Issuers(ctx context.Context, caller access.Caller, after string, limit int) ([]Issuer, string, error) {
	if err := s.Guard.Permit(ctx, caller, access.ListWorkloadIssuers, access.Facts{}); err != nil {
		return nil, "", err
	}
	limit = pageSize(limit)
	found, err := s.Store.WorkloadIssuers(ctx, caller.Account, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	found, next := page(found, limit, func(i Issuer) string { return i.URL })
	for n := range found {
		at, err := s.Store.Standing(ctx, caller.Account, identity.IssuerStanding, found[n].URL)
		if err != nil {
			return nil, "", err
		}
		found[n].Disabled = at.Down()
	}
	return found, next, nil
}

// DeleteIssuer ends the trust, deletes the issuer's rules, and with them what they gave: its tokens and the session
// credentials they were exchanged for are refused within two seconds, on every replica.
func (s *Service) DeleteIssuer(ctx context.Context, caller access.Caller, url string) error {
	if err := s.Guard.Permit(ctx, caller, access.DeleteWorkloadIssuer, access.Facts{Resource: clip(url)}); err != nil {
		return err
	}
	return s.Store.DeleteWorkloadIssuer(ctx, caller.Account, url)
}

// Reviewed reports whether the issuer is asked about each of its tokens.
func (s *Service) Reviewed(url string) bool { return s.Reviewer != nil && s.Reviewer.Reviews(url) }

// checkIssuer checks a row and fills its defaults.
func (s *Service) checkIssuer(i Issuer) (Issuer, error) {
	if i.Kind == "" {
		i.Kind = OIDC
		if strings.HasPrefix(i.URL, spiffeScheme) {
			i.Kind = SPIFFE
		}
	}
	if err := s.checkName(i); err != nil {
		return i, err
	}
	if identity.Under(s.Server, i.URL) || identity.Under(s.Server, i.JWKSURI) {
		return i, fault.Field("issuer", "is this server itself: what it signs names no workloads here")
	}
	if err := checkAudiences(i.Audiences); err != nil {
		return i, err
	}
	switch {
	case i.JWKSURI != "" && len(i.JWKS) > 0:
		return i, fault.Field("jwksUri", "give either a JWKS URI or a JWKS document")
	case i.Kind == SPIFFE && i.JWKSURI == "" && len(i.JWKS) == 0:
		return i, fault.Field("jwksUri", "a trust domain needs the address of its bundle, or the bundle as a JWKS document")
	case len(i.JWKS) > maxJWKS:
		return i, fault.Field("jwks", "the JWKS document is longer than %d bytes", maxJWKS)
	}
	if i.JWKSURI != "" {
		if why := identity.JWKSURIFlaw(i.JWKSURI, s.Dev); why != "" {
			return i, fault.Field("jwksUri", "%q cannot be a JWKS URI: %s", clip(i.JWKSURI), why)
		}
	}
	if len(i.JWKS) > 0 {
		if _, err := readKeys(keyring.Issuer{URL: i.URL}, i.JWKS); err != nil {
			return i, fault.Field("jwks", "the JWKS document cannot be used: %s", err.Error())
		}
	}
	return i, nil
}

func (s *Service) checkName(i Issuer) error {
	switch i.Kind {
	case SPIFFE:
		td, err := spiffeid.TrustDomainFromString(i.URL)
		if err != nil || len(i.URL) > maxURL || spiffeScheme+td.Name() != i.URL {
			return fault.Field("issuer", "%q is no trust domain of the form spiffe://example.org", clip(i.URL))
		}
	case OIDC:
		if why := identity.IssuerURLFlaw(i.URL, s.Dev); why != "" {
			return fault.Field("issuer", "%q cannot be an issuer: %s", clip(i.URL), why)
		}
	default:
		return fault.Field("kind", "%q is not one of OIDC, SPIFFE", clip(string(i.Kind)))
	}
	return nil
}

func checkAudiences(list []string) error {
	switch {
	case len(list) == 0:
		return fault.Field("audiences", "a workload issuer needs at least one audience: without it a token for any other service would do")
	case len(list) > maxAudiences:
		return fault.Field("audiences", "at most %d can be given", maxAudiences)
	}
	for n, a := range list {
		if !plainText(a) {
			return fault.Field("audiences", "%q is empty, too long or has a control character", clip(a))
		}
		if slices.Contains(list[:n], a) {
			return fault.Field("audiences", "%q is given twice", clip(a))
		}
	}
	return nil
}
