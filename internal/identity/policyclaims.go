package identity

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
)

// Bounds of the names of claims that policies may ask for (the model of CreateTrustedIssuer).
const (
	maxPolicyClaims    = 20
	maxPolicyClaimName = 128
)

// fleeting reports whether a claim differs in every token, so that no policy can ask for it (RFC 7519 §4.1, OIDC Core
// §2 and §3.3.2.11, FAPI 1.0 for s_hash).
func fleeting(name string) bool {
	switch name {
	case "jti", "nonce", "exp", "iat", "nbf", "at_hash", "c_hash", "s_hash":
		return true
	}
	return false
}

// checkPolicyClaims checks the names of an issuer's claims that policies may ask for.
func checkPolicyClaims(names []string) error {
	const field = "policyClaims"
	if len(names) > maxPolicyClaims {
		return fault.Field(field, "at most %d can be given", maxPolicyClaims)
	}
	for n, name := range names {
		switch {
		case !plainText(name) || len(name) > maxPolicyClaimName:
			return fault.Field(field, "%q cannot be the name of a claim: it is empty, longer than %d bytes or has a control character", clip(name), maxPolicyClaimName)
		case fleeting(name):
			return fault.Field(field, "%s differs in every token: no policy can ask for it", name)
		case slices.Contains(names[:n], name):
			return fault.Field(field, "%s is given twice", clip(name))
		}
	}
	return nil
}

// policyClaims returns the claims that policies may ask for as a JSON object, "" for none. Texts, numbers and booleans
// are taken, and lists of them; what else a list has is left out, and so are other claims: policies cannot name them.
// Claims that make more than maxTokenClaims are an Unauthenticated fault that names the first one beyond, without its
// value: were it left out, a forbid that asks for it would not match.
func policyClaims(names []string, c jws.Claims) (string, error) {
	taken, text := make(map[string]any, len(names)), ""
	for _, name := range names {
		v, ok := c.Plain(name)
		if !ok {
			continue
		}
		taken[name] = v
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(taken); err != nil {
			return "", badToken("has a claim %s that cannot be written for policies", clip(name))
		}
		text = string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
		if len(text) > maxTokenClaims {
			return "", badToken("has too much in the claim %s: the claims that policies may ask for make more than %d bytes; have the issuer put fewer values into it, "+
				"or trust the issuer without this claim in policyClaims", clip(name), maxTokenClaims)
		}
	}
	return text, nil
}
