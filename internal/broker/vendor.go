package broker

import (
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
)

// fix sets the endpoints that the vendor has for everybody, or for the tenant that s names. Endpoints in s that differ
// are refused: they would not be used.
func (p *Provider) fix(v Vendor, s ProviderSpec) error {
	at := "oauth2ProviderConfigInput." + s.Member + "."
	tenant := v.DefaultTenant
	if s.Tenant != "" {
		tenant = s.Tenant
	}
	if strings.ContainsFunc(tenant, notTenantChar) || strings.Trim(tenant, ".") != tenant {
		return fault.Field(at+"tenantId", "must be a tenant's id or domain: letters, digits, hyphens and dots")
	}
	for _, e := range []struct {
		name, fixed, given string
		to                 *string
	}{
		{"issuer", v.Issuer, s.Issuer, &p.Issuer},
		{"authorizationEndpoint", v.AuthorizationEndpoint, s.AuthorizationEndpoint, &p.AuthorizationEndpoint},
		{"tokenEndpoint", v.TokenEndpoint, s.TokenEndpoint, &p.TokenEndpoint},
	} {
		*e.to = strings.ReplaceAll(e.fixed, "{tenantId}", tenant)
		if e.given != "" && e.given != *e.to {
			return fault.Field(at+e.name, "is fixed for vendor %s: leave it out, or use CustomOauth2", v.Name)
		}
	}
	return nil
}

func notTenantChar(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
}
