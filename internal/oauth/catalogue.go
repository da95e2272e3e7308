package oauth

import (
	_ "embed" // for the catalogue's data
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/broker"
)

//go:embed catalogue.json
var catalogueJSON string

// presentationJSON names the parameters of OpenID Connect (Core §3.1.2.1 and §5.2) that change how a user is asked and
// not what comes of it. They are each vendor's; what one has beside them is in its entry.
//
//go:embed presentation.json
var presentationJSON string

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
	DefaultTenant         string            `json:"defaultTenant"`         // "": {tenantId} is not in the endpoints
	AuthMethod            broker.AuthMethod `json:"authMethod"`            // required
	NoPKCE                bool              `json:"noPkce"`                // false: S256 is sent
	Scopes                string            `json:"scopes"`                // "": tokens have scopes; "none": they have none
	ScopeSeparator        string            `json:"scopeSeparator"`        // " "
	AnswerSeparator       string            `json:"answerSeparator"`       // as scopeSeparator
	ScopeAliases          map[string]string `json:"scopeAliases"`          // none
	Resources             *resources        `json:"resources"`             // null: tokens are for no one resource
	UserScopes            string            `json:"userScopes"`            // "": all scopes are the user's
	AuthorizeParams       map[string]string `json:"authorizeParams"`       // none
	Presentation          []string          `json:"presentation"`          // those of OpenID Connect only; here are more
	TokenHeaders          map[string]string `json:"tokenHeaders"`          // none
	JSONBody              bool              `json:"jsonBody"`              // false: a form
	FormAnswer            bool              `json:"formAnswer"`            // false: answers are JSON
	OKMember              string            `json:"okMember"`              // "": the status says it
	MessageName           string            `json:"messageName"`           // "error_description"
	GrantErrors           []string          `json:"grantErrors"`           // invalid_grant only
	TokenMember           string            `json:"tokenMember"`           // "": the answer itself
	TokenTypes            []string          `json:"tokenTypes"`            // Bearer only
	Attributes            []string          `json:"attributes"`            // none
	Rotation              broker.Rotation   `json:"rotation"`              // "unknown"
	Revocation            string            `json:"revocation"`            // "": nowhere. Relative to the token endpoint, or https on one of hosts
	Hosts                 []string          `json:"hosts"`                 // none. The vendor's hosts, beside the token endpoint's, that get its tokens
	Revoke                recipe            `json:"revoke"`                // RFC 7009
	Grants                broker.Sharing    `json:"grants"`                // "": not known. "shared" or "separate": what a revocation ends
	MaxTokens             int               `json:"maxTokens"`             // 0: not known. Refresh tokens of one grant, the oldest of which goes
	Verified              Verification      `json:"verified"`              // required
	Sources               []string          `json:"sources"`               // where the entry was read
	Notes                 []string          `json:"notes"`                 // for people
}

// NewCatalogue reads the embedded catalogue. It fails only where that is malformed.
func NewCatalogue() (*Catalogue, error) { return parseCatalogue(catalogueJSON) }

// WithOperators returns the catalogue with an operator's own vendors after its own. They are data of the same form and
// under the same rules (threat L03): endpoints are fixed and https, or a tenant's; the configuration's member is
// includedOauth2ProviderConfig; and no name of a built-in vendor is taken.
func (c *Catalogue) WithOperators(data []byte) (*Catalogue, error) {
	if len(data) > maxCatalogue {
		return nil, fmt.Errorf("catalogue: it is larger than %d bytes", maxCatalogue)
	}
	if !utf8.Valid(data) {
		return nil, errors.New("catalogue: it is not UTF-8")
	}
	own, err := parseCatalogue(string(data))
	if err != nil {
		return nil, err
	}
	all := &Catalogue{vendors: slices.Clone(c.vendors), verified: maps.Clone(c.verified)}
	for _, v := range own.vendors {
		switch _, taken := all.verified[v.Name]; {
		case taken:
			return nil, fmt.Errorf("catalogue: %q is a built-in vendor and cannot be replaced", v.Name)
		case v.Config != operatorsConfig:
			return nil, fmt.Errorf("catalogue: %q: config is %s for a vendor of your own", v.Name, operatorsConfig)
		case v.TokenEndpoint == "" && !v.Tenant:
			return nil, fmt.Errorf("catalogue: %q: give its endpoints, or say tenant", v.Name)
		}
		v.Own = true
		all.verified[v.Name] = own.verified[v.Name]
		all.vendors = append(all.vendors, v)
	}
	return all, nil
}

const (
	maxCatalogue    = 1 << 20
	operatorsConfig = "includedOauth2ProviderConfig"
)

func parseCatalogue(data string) (*Catalogue, error) {
	d := json.NewDecoder(strings.NewReader(data))
	d.DisallowUnknownFields()
	var rows []row
	if err := d.Decode(&rows); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("catalogue: text after the end")
	}
	var everywhere []string
	if err := json.Unmarshal([]byte(presentationJSON), &everywhere); err != nil {
		return nil, fmt.Errorf("catalogue: presentation: %w", err)
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
		v := r.vendor()
		v.Presentation = append(slices.Clone(everywhere), v.Presentation...)
		c.vendors = append(c.vendors, v)
	}
	return c, nil
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

// Vendors returns all entries, in the order of AWS's enum CredentialProviderVendorType, and then the operator's own.
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
	if r := v.Resources; r != nil {
		v.Resources = &broker.ResourceRule{Default: r.Default, Free: slices.Clone(r.Free), Whole: r.Whole, Aliases: maps.Clone(r.Aliases)}
	}
	v.ScopeAliases, v.AuthorizeParams, v.TokenHeaders = maps.Clone(v.ScopeAliases), maps.Clone(v.AuthorizeParams), maps.Clone(v.TokenHeaders)
	v.GrantErrors, v.TokenTypes, v.Attributes = slices.Clone(v.GrantErrors), slices.Clone(v.TokenTypes), slices.Clone(v.Attributes)
	v.Presentation = slices.Clone(v.Presentation)
	v.Revoke.Dead, v.Notes, v.Sources = slices.Clone(v.Revoke.Dead), slices.Clone(v.Notes), slices.Clone(v.Sources)
	return v
}
