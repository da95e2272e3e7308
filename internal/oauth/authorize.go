package oauth

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// AuthorizationURL builds the address that the browser is sent to (RFC 6749 §4.1.1): a code flow with PKCE S256 (RFC
// 7636 §4.3) unless the vendor refuses it, resource indicators (RFC 8707 §2) and audiences repeated, the vendor's
// default parameters, and the caller's own. Custom parameters replace defaults, and never what the broker sets; the
// query of the endpoint stays, apart from names that the broker sets. It contacts nobody. It returns Invalid where e
// has no authorization endpoint that may be used.
func (c *Client) AuthorizationURL(e broker.Endpoints, p broker.Provider, v broker.Vendor, r broker.AuthorizationRequest) (string, error) {
	if e.Authorization == "" {
		return "", fault.New(fault.Invalid, "provider %s has no authorization endpoint", p.Name)
	}
	u, err := c.parseURL(e.Authorization)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "the authorization endpoint of provider %s cannot be used: %s", p.Name, err)
	}
	given, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", fault.New(fault.Invalid, "the authorization endpoint of provider %s cannot be used: its query is malformed", p.Name)
	}
	query := url.Values{}
	for name, values := range given {
		if !reserved(name) {
			query[name] = values
		}
	}
	for name, value := range v.AuthorizeParams {
		query.Set(name, value)
	}
	addCustom(query, r.Custom, r.Audiences)
	if !r.Claims.IsZero() { // in place of any other spelling, as a caller's
		addCustom(query, map[string]secret.Text{"claims": r.Claims}, nil)
	}
	query.Set("response_type", "code")
	query.Set("client_id", p.ClientID)
	query.Set("redirect_uri", r.RedirectURI)
	query.Set("state", r.State.Expose())
	setScopes(query, v, r.Scopes)
	if !v.NoPKCE {
		if r.Verifier.IsZero() {
			return "", fault.New(fault.Internal, "an authorization request without a PKCE verifier")
		}
		challenge := sha256.Sum256([]byte(r.Verifier.Expose()))
		query.Set("code_challenge", base64.RawURLEncoding.EncodeToString(challenge[:]))
		query.Set("code_challenge_method", "S256")
	}
	addTargets(query, r.Resources, r.Audiences)
	// Encode writes a space as "+", which some providers' URL parsers take for a plus sign. A plus sign itself is %2B.
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	u.ForceQuery = false
	return u.String(), nil
}

// addTargets adds resource indicators and audiences, one parameter each.
func addTargets(form url.Values, resources, audiences []string) {
	if len(resources) > 0 {
		form["resource"] = slices.Clone(resources)
	}
	if len(audiences) > 0 {
		form["audience"] = slices.Clone(audiences)
	}
}

// addCustom adds the caller's parameters that are not the broker's to set, in place of any other spelling of the same
// name. The broker has refused the others; this is the last line (threat C19).
func addCustom(form url.Values, custom map[string]secret.Text, audiences []string) {
	for _, name := range slices.Sorted(maps.Keys(custom)) {
		if reserved(name) || len(audiences) > 0 && strings.EqualFold(name, "audience") {
			continue
		}
		for other := range form {
			if strings.EqualFold(other, name) {
				delete(form, other)
			}
		}
		form.Set(name, custom[name].Expose())
	}
}

// reserved reports whether only the broker sets the parameter, in an authorization request or a token request.
func reserved(name string) bool {
	switch strings.ToLower(name) {
	case "response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce", "request", "request_uri",
		"code_challenge", "code_challenge_method", "resource",
		"grant_type", "code", "code_verifier", "refresh_token", "client_secret", "client_assertion", "client_assertion_type",
		"username", "password", "assertion", "subject_token", "actor_token", "actor_token_type":
		return true
	}
	return false
}

func separator(v broker.Vendor) string {
	if v.ScopeSeparator == "" {
		return " "
	}
	return v.ScopeSeparator
}
