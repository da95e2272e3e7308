package oauth

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/broker"
)

// check is the schema of an entry. An entry is data that somebody else may have written (threat L03): it names https
// addresses, parameters and members, and can set nothing that the broker sets, nor where a token is taken from but the
// answer.
func (r row) check() error {
	switch {
	case r.Name == "" || r.Config == "":
		return errors.New("name and config are required")
	case !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,63}$`).MatchString(r.Name):
		return errors.New("a name is at most 64 letters and digits, a letter first")
	case !slices.Contains([]broker.AuthMethod{broker.AuthBasic, broker.AuthPost, broker.AuthNone}, r.AuthMethod):
		return fmt.Errorf("authMethod %q", r.AuthMethod)
	case !slices.Contains([]broker.Rotation{broker.RotationUnknown, broker.RotationNone, broker.RotationStrict}, r.Rotation):
		return fmt.Errorf("rotation %q", r.Rotation)
	case !slices.Contains([]broker.Sharing{broker.SharingUnknown, broker.Shared, broker.Separate}, r.Grants):
		return fmt.Errorf("grants %q: leave it out, or say %q or %q", r.Grants, broker.Shared, broker.Separate)
	case r.MaxTokens < 0 || r.MaxTokens > broker.MaxMaxTokens:
		return fmt.Errorf("maxTokens %d: 1 to %d, or leave it out", r.MaxTokens, broker.MaxMaxTokens)
	case !slices.Contains([]Verification{ByDocumentation, ByScript, ByReality}, r.Verified):
		return fmt.Errorf("verified %q", r.Verified)
	case !separates(r.ScopeSeparator) || !separates(r.AnswerSeparator):
		return errors.New("scopes are separated by a space, a comma, a plus sign or a semicolon")
	}
	for _, check := range []func() error{r.checkEndpoints, r.checkRequest, r.Resources.check, r.checkAnswer, r.checkRevocation, r.Revoke.check, r.checkWords} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func separates(s string) bool { return s == "" || len(s) == 1 && strings.Contains(" ,+;", s) }

// tenantMark stands in endpoints for the tenant that a provider's configuration names.
const tenantMark = "{tenantId}"

func (r row) checkEndpoints() error {
	fixed := r.Issuer != "" || r.AuthorizationEndpoint != "" || r.TokenEndpoint != ""
	if r.Tenant && fixed {
		return errors.New("a tenant's endpoints cannot be fixed")
	}
	if !fixed {
		return nil
	}
	strict := new(Client)
	for _, s := range []string{r.Issuer, r.AuthorizationEndpoint, r.TokenEndpoint} {
		if (r.DefaultTenant != "") != strings.Contains(s, tenantMark) {
			return fmt.Errorf("endpoint %q: %s and defaultTenant go together", s, tenantMark)
		}
		u, err := strict.parseURL(strings.ReplaceAll(s, tenantMark, r.DefaultTenant))
		if err != nil {
			return fmt.Errorf("endpoint %q: %w", s, err)
		}
		if host, _, _ := strings.Cut(strings.TrimPrefix(s, "https://"), "/"); strings.ContainsAny(host, "{}") || strings.ContainsAny(u.Path, "{}") {
			return fmt.Errorf("endpoint %q: a tenant is a part of the path", s)
		}
	}
	return nil
}

func (r row) checkRequest() error {
	parameter := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)
	for name, value := range r.AuthorizeParams {
		if reserved(name) {
			return fmt.Errorf("authorizeParams has %q, which the broker sets", name)
		}
		if !parameter.MatchString(name) || !plain(value) {
			return fmt.Errorf("authorizeParams: %q", name)
		}
	}
	if len(r.Presentation) > 16 {
		return errors.New("at most 16 names in presentation")
	}
	for _, name := range r.Presentation {
		if why := broker.NoPresentation(name); why != "" || !parameter.MatchString(name) {
			return fmt.Errorf("presentation has %q: %s", name, cmp.Or(why, "no name of a parameter"))
		}
	}
	if r.Scopes != "" && r.Scopes != noScopes {
		return fmt.Errorf("scopes %q: leave it out, or say %q", r.Scopes, noScopes)
	}
	if s := r.UserScopes; s != "" && (reserved(s) || !parameter.MatchString(s)) {
		return fmt.Errorf("userScopes %q", s)
	}
	header := regexp.MustCompile(`^(User-Agent|[A-Z][A-Za-z-]{0,40}-Version)$`)
	for name, value := range r.TokenHeaders {
		if !header.MatchString(name) || !plain(value) {
			return fmt.Errorf("tokenHeaders has %q: only User-Agent and headers that end in -Version may be set", name)
		}
	}
	return nil
}

// resources is broker.ResourceRule as data.
type resources struct {
	Default string            `json:"default"`
	Free    []string          `json:"free"`
	Whole   string            `json:"whole"`
	Aliases map[string]string `json:"aliases"`
}

// check holds the rule to names as they come out of scopes: a default that no scope could name in full would be a
// resource apart.
func (r *resources) check() error {
	if r == nil {
		return nil
	}
	name := regexp.MustCompile(`^[!-~]*[!-.0-~]$`)
	if !name.MatchString(r.Default) || len(r.Free) > 16 || len(r.Aliases) > 16 || !plain(r.Whole) || strings.ContainsAny(r.Whole, "/ ") {
		return errors.New("resources: default is required and has no slash at its end, and there are at most 16 free scopes and aliases")
	}
	for _, s := range append(slices.Collect(maps.Keys(r.Aliases)), slices.Collect(maps.Values(r.Aliases))...) {
		if !name.MatchString(s) {
			return fmt.Errorf("resources: %q names no resource", s)
		}
	}
	for _, s := range r.Free {
		if s == "" || !plain(s) || strings.ContainsAny(s, " /") {
			return fmt.Errorf("resources: %q is no scope", s)
		}
	}
	return nil
}

func (r row) checkAnswer() error {
	member := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)
	for _, name := range []string{r.OKMember, r.MessageName, r.TokenMember} {
		if name != "" && !member.MatchString(name) {
			return fmt.Errorf("%q names no member of an answer", name)
		}
	}
	path := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}(\.[A-Za-z][A-Za-z0-9_]{0,63})?$`)
	hidden := regexp.MustCompile(`(?i)token|secret|password|assertion|credential|api_?key|cookie`)
	if len(r.Attributes) > 16 {
		return errors.New("at most 16 attributes")
	}
	for _, name := range r.Attributes {
		if !path.MatchString(name) {
			return fmt.Errorf("attribute %q names no member of an answer", name)
		}
		if hidden.MatchString(name[strings.LastIndex(name, ".")+1:]) {
			return fmt.Errorf("attribute %q: a token or secret is not an attribute", name)
		}
	}
	for _, kind := range r.TokenTypes {
		// What binds a token to a key of ours, or to a signature, cannot be called Bearer (threat E16).
		if lower := strings.ToLower(kind); !parameterWord(kind) || lower == "dpop" || lower == "mac" || lower == "pop" || lower == "n_a" {
			return fmt.Errorf("tokenTypes: %q is not a bearer token", kind)
		}
	}
	for _, code := range r.GrantErrors {
		if !plain(code) || code == "" {
			return fmt.Errorf("grantErrors: %q", code)
		}
	}
	return nil
}

// noScopes is the value of scopes for a vendor whose tokens have none.
const noScopes = "none"

// checkWords bounds what is only for people: it is shown to them, and is no place for anything that a terminal acts on.
func (r row) checkWords() error {
	if len(r.Notes) > 16 || len(r.Sources) > 16 {
		return errors.New("at most 16 notes and 16 sources")
	}
	for _, s := range r.Notes {
		if s == "" || !plain(s) {
			return fmt.Errorf("notes: %q is no sentence of at most 256 printable ASCII characters", s)
		}
	}
	for _, s := range r.Sources {
		if !strings.HasPrefix(s, "https://") || !plain(s) {
			return fmt.Errorf("sources: %q is no https address", s)
		}
	}
	return nil
}

func parameterWord(s string) bool {
	return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`).MatchString(s)
}

// plain reports whether s is printable ASCII of a bounded length.
func plain(s string) bool {
	return len(s) <= 256 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func (r row) vendor() broker.Vendor {
	return broker.Vendor{
		Name:                  r.Name,
		Config:                r.Config,
		Issuer:                r.Issuer,
		AuthorizationEndpoint: r.AuthorizationEndpoint,
		TokenEndpoint:         r.TokenEndpoint,
		Tenant:                r.Tenant,
		DefaultTenant:         r.DefaultTenant,
		AuthMethod:            r.AuthMethod,
		NoPKCE:                r.NoPKCE,
		NoScopes:              r.Scopes == noScopes,
		ScopeSeparator:        r.ScopeSeparator,
		AnswerSeparator:       r.AnswerSeparator,
		ScopeAliases:          r.ScopeAliases,
		AuthorizeParams:       r.AuthorizeParams,
		Presentation:          r.Presentation,
		RefreshRotates:        r.Rotation,
		Revocation:            r.Revocation,
		Revoke:                broker.RevokeRecipe(r.Revoke),
		Grants:                r.Grants,
		MaxTokens:             r.MaxTokens,
		Resources:             (*broker.ResourceRule)(r.Resources),
		UserScopes:            r.UserScopes,
		TokenHeaders:          r.TokenHeaders,
		JSONBody:              r.JSONBody,
		FormAnswer:            r.FormAnswer,
		OKMember:              r.OKMember,
		MessageName:           r.MessageName,
		GrantErrors:           r.GrantErrors,
		TokenMember:           r.TokenMember,
		TokenTypes:            r.TokenTypes,
		Attributes:            r.Attributes,
		Verified:              string(r.Verified),
		Notes:                 r.Notes,
		Sources:               r.Sources,
	}
}
