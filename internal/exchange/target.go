package exchange

import (
	"net/url"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

const (
	maxTarget = 512 // bytes
	maxScopes = 64
	maxScope  = 256 // bytes
)

// checkTarget refuses what no token is made for: what is no name, a URI with a fragment or without a path to it (RFC
// 8707 §2), and this server, whose tokens for others are of no use to itself (threat B06). An audience that is the ARN
// of a workload identity is asked for with another type of token.
func (s *Service) checkTarget(audience string) error {
	const field = "audience"
	switch {
	case audience == "" || len(audience) > maxTarget || strings.ContainsFunc(audience, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fault.Field(field, "must be 1 to %d printable ASCII characters without spaces", maxTarget)
	case s.Identity.Owns(audience):
		return fault.Field(field, "is this server itself, which takes no tokens of this kind")
	case access.IsWorkloadAudience(audience):
		return fault.Field(field, "is a workload identity: ask for a requested_token_type of workload access tokens")
	}
	if !strings.Contains(audience, "://") {
		return nil
	}
	u, err := url.Parse(audience)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || strings.Contains(audience, "#") {
		return fault.Field(field, "must be an absolute URI without user and fragment (RFC 8707 §2)")
	}
	return nil
}

// CheckResource returns an Invalid fault where a resource parameter is no absolute URI.
func CheckResource(resource string) error {
	u, err := url.Parse(resource)
	if err != nil || !u.IsAbs() || strings.Contains(resource, "#") {
		return fault.Field("audience", "of the parameter resource must be an absolute URI without a fragment (RFC 8707 §2)")
	}
	return nil
}

// checkScopes sorts out repetitions. A scope is of RFC 6749 §3.3.
func checkScopes(scopes []string) ([]string, error) {
	var out []string
	for _, scope := range scopes {
		bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }
		if scope == "" || len(scope) > maxScope || strings.ContainsFunc(scope, bad) {
			return nil, fault.Field("scope", "has a scope that is none (RFC 6749 §3.3)")
		}
		if !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	if len(out) > maxScopes {
		return nil, fault.Field("scope", "has %d scopes, of at most %d", len(out), maxScopes)
	}
	return out, nil
}

// validName reports whether a workload identity can have the name (AWS's model of CreateWorkloadIdentity).
func validName(s string) bool {
	return len(s) >= 3 && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-')
	})
}
