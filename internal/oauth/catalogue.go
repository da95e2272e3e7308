package oauth

import (
	_ "embed" // for the catalogue's data
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/broker"
)

//go:embed catalogue.json
var catalogueJSON string

// Catalogue implements broker.Catalogue with the vendors that this version knows. What a vendor does its own way is
// data, in catalogue.json. It does not change after NewCatalogue.
type Catalogue struct {
	vendors  []broker.Vendor
	verified map[string]Verification
}

// Verification says how far an entry of the catalogue was checked.
type Verification string

// Values of Verification.
const (
	ByDocumentation Verification = "documentation" // read in the vendor's public documentation
	ByScript        Verification = "scripted"      // tested against a server that imitates the vendor
	ByReality       Verification = "real"          // tested against the vendor itself
)

// row is an entry of catalogue.json. Members that are missing have the value that the comment gives.
type row struct {
	Name                  string            `json:"name"`
	Config                string            `json:"config"`                // member of oauth2ProviderConfigInput
	Issuer                string            `json:"issuer"`                // "": not fixed
	AuthorizationEndpoint string            `json:"authorizationEndpoint"` // "": not fixed
	TokenEndpoint         string            `json:"tokenEndpoint"`         // "": not fixed
	Tenant                bool              `json:"tenant"`                // false: endpoints are fixed, or the operator's own
	AuthMethod            broker.AuthMethod `json:"authMethod"`            // required
	NoPKCE                bool              `json:"noPkce"`                // false: S256 is sent
	ScopeSeparator        string            `json:"scopeSeparator"`        // " "
	ScopeAliases          map[string]string `json:"scopeAliases"`          // none
	AuthorizeParams       map[string]string `json:"authorizeParams"`       // none
	Rotation              broker.Rotation   `json:"rotation"`              // "unknown"
	OpenID                bool              `json:"openId"`                // false
	Verified              Verification      `json:"verified"`              // required
	Sources               []string          `json:"sources"`               // where the entry was read
	Notes                 []string          `json:"notes"`                 // for people
}

// NewCatalogue reads the embedded catalogue. It fails only where that is malformed.
func NewCatalogue() (*Catalogue, error) { return parseCatalogue(catalogueJSON) }

func parseCatalogue(data string) (*Catalogue, error) {
	d := json.NewDecoder(strings.NewReader(data))
	d.DisallowUnknownFields()
	var rows []row
	if err := d.Decode(&rows); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("catalogue: text after the end")
	}
	c := &Catalogue{verified: map[string]Verification{}}
	for _, r := range rows {
		if r.ScopeSeparator == "" {
			r.ScopeSeparator = " "
		}
		if r.Rotation == "" {
			r.Rotation = broker.RotationUnknown
		}
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("catalogue: %q: %w", r.Name, err)
		}
		if _, again := c.verified[r.Name]; again {
			return nil, fmt.Errorf("catalogue: %q occurs twice", r.Name)
		}
		c.verified[r.Name] = r.Verified
		c.vendors = append(c.vendors, r.vendor())
	}
	return c, nil
}

func (r row) check() error {
	fixed := r.Issuer != "" || r.AuthorizationEndpoint != "" || r.TokenEndpoint != ""
	strict := new(Client)
	for _, s := range []string{r.Issuer, r.AuthorizationEndpoint, r.TokenEndpoint} {
		if fixed {
			if _, err := strict.parseURL(s); err != nil {
				return fmt.Errorf("endpoint %q: %w", s, err)
			}
		}
	}
	switch {
	case r.Name == "" || r.Config == "":
		return fmt.Errorf("name and config are required")
	case r.Tenant && fixed:
		return fmt.Errorf("a tenant's endpoints cannot be fixed")
	case !slices.Contains([]broker.AuthMethod{broker.AuthBasic, broker.AuthPost, broker.AuthNone}, r.AuthMethod):
		return fmt.Errorf("authMethod %q", r.AuthMethod)
	case !slices.Contains([]broker.Rotation{broker.RotationUnknown, broker.RotationNone, broker.RotationStrict}, r.Rotation):
		return fmt.Errorf("rotation %q", r.Rotation)
	case !slices.Contains([]Verification{ByDocumentation, ByScript, ByReality}, r.Verified):
		return fmt.Errorf("verified %q", r.Verified)
	}
	for name := range r.AuthorizeParams {
		if reserved(name) {
			return fmt.Errorf("authorizeParams has %q, which the broker sets", name)
		}
	}
	return nil
}

func (r row) vendor() broker.Vendor {
	return broker.Vendor{
		Name:                  r.Name,
		Config:                r.Config,
		Issuer:                r.Issuer,
		AuthorizationEndpoint: r.AuthorizationEndpoint,
		TokenEndpoint:         r.TokenEndpoint,
		Tenant:                r.Tenant,
		AuthMethod:            r.AuthMethod,
		NoPKCE:                r.NoPKCE,
		ScopeSeparator:        r.ScopeSeparator,
		ScopeAliases:          r.ScopeAliases,
		AuthorizeParams:       r.AuthorizeParams,
		RefreshRotates:        r.Rotation,
		OpenID:                r.OpenID,
	}
}

// Vendor returns the entry of that exact name. Its maps are the caller's own.
func (c *Catalogue) Vendor(name string) (broker.Vendor, bool) {
	for _, v := range c.vendors {
		if v.Name == name {
			return own(v), true
		}
	}
	return broker.Vendor{}, false
}

// Vendors returns all entries, in the order of AWS's enum CredentialProviderVendorType.
func (c *Catalogue) Vendors() []broker.Vendor {
	vendors := slices.Clone(c.vendors)
	for i := range vendors {
		vendors[i] = own(vendors[i])
	}
	return vendors
}

// Verified says how far the entry was checked, "" where there is none.
func (c *Catalogue) Verified(name string) Verification { return c.verified[name] }

func own(v broker.Vendor) broker.Vendor {
	v.ScopeAliases, v.AuthorizeParams = maps.Clone(v.ScopeAliases), maps.Clone(v.AuthorizeParams)
	return v
}
