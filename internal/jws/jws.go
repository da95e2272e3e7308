// Package jws reads one signed token (RFC 7515, RFC 7519) strictly, with the key sets that verify it, and signs with
// keys of our own.
//
// Security argument: a token comes from anybody, and its header is written by whoever made it. So the header chooses
// nothing: it may name an algorithm of a fixed list and the id of a key, and whatever would bring a key, fetch one or
// change what is signed is refused before a key is looked for. Keys come from the set that the caller gives, and the
// algorithm must fit the one key by its type, its curve and what its owner says about it. Text that two decoders could
// read in two ways (duplicate members, loose base64, bytes that are not UTF-8) is refused, so that what was signed is
// what is read. Size and depth are bounded before the work that they bound. Whose tokens are trusted, for whom and
// until when is not decided here.
package jws

import (
	"crypto"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// MaxSize bounds the compact form of a token, in bytes.
const MaxSize = 16 << 10

const (
	maxDepth = 32  // nested arrays and objects
	maxKeyID = 256 // bytes of a key's id, and of its algorithm's name
)

// Token is a token that was read. Nothing that it says is known to be true before Verify returned nil.
type Token struct {
	Type   string // the header typ, in lower case and without "application/": "", "jwt" or "at+jwt"
	Claims Claims

	noun string
	text secret.Text
	sig  []byte
	alg  jose.SignatureAlgorithm
	kid  string
}

// Parse reads the compact form (RFC 7515 §7.1) more strictly than the library does: only base64url without padding and
// unused bits, no duplicate member, no header that would bring a key or change the meaning of the rest. The noun, such
// as "the user token", begins the sentence of every fault of the token and of its claims. A token that is longer than
// MaxSize is Invalid, anything else that is wrong Unauthenticated.
//
// The type is none, JWT or at+jwt: a logout token, a DPoP proof or a security event is signed by the same key
// (RFC 8725 §3.11).
func Parse(noun string, token secret.Text) (Token, error) {
	t, err := parse(noun, token, "", "jwt", "at+jwt")
	if err == nil && t.Claims.Has("events") { // RFC 8417 §2.2: there are issuers that do not give them a type of their own
		return Token{}, bad(noun, "is a security event, which names nobody here")
	}
	return t, err
}

// ParseLogout is Parse of a logout token (OpenID Connect Back-Channel Logout 1.0 §2.4, which advises the type and does
// not require it).
func ParseLogout(noun string, token secret.Text) (Token, error) {
	return parse(noun, token, "", "jwt", "logout+jwt")
}

// ParseTyped is Parse of a token of exactly the one type, such as "at+jwt".
func ParseTyped(noun, typ string, token secret.Text) (Token, error) {
	return parse(noun, token, mediaType(typ))
}

func parse(noun string, token secret.Text, types ...string) (Token, error) {
	compact := token.Expose()
	if len(compact) > MaxSize {
		return Token{}, fault.New(fault.Invalid, "%s is longer than %d bytes", noun, MaxSize)
	}
	parts, err := splitCompact(noun, compact)
	if err != nil {
		return Token{}, err
	}
	var decoded [3][]byte
	for i, p := range parts {
		if decoded[i], err = DecodeBase64(p); err != nil {
			return Token{}, bad(noun, "is not a JWT: part %d is not strict base64url (RFC 7515 §2)", i+1)
		}
	}
	t := Token{noun: noun, text: token, sig: decoded[2]}
	header, err := decodeObject(decoded[0])
	if err != nil {
		return Token{}, bad(noun, "has a header that cannot be read: %s", err.Error())
	}
	if err := t.readHeader(header); err != nil {
		return Token{}, err
	}
	if !slices.Contains(types, t.Type) {
		return Token{}, bad(noun, "is of the type %.200q, which is not accepted here", t.Type)
	}
	if len(t.sig) == 0 {
		return Token{}, bad(noun, "is not signed")
	}
	members, err := decodeObject(decoded[1])
	if err != nil {
		return Token{}, bad(noun, "has a payload that cannot be read: %s", err.Error())
	}
	t.Claims = Claims{noun: noun, members: members}
	return t, nil
}

func splitCompact(noun, s string) ([]string, error) {
	switch dots := strings.Count(s, "."); {
	case s == "":
		return nil, bad(noun, "is empty")
	case strings.HasPrefix(s, "{"):
		return nil, bad(noun, "is in JSON serialization: it must be in compact form")
	case dots == 4:
		return nil, bad(noun, "is encrypted (JWE): have the identity provider issue signed tokens only (with Entra ID, remove confidential optional claims and token encryption)")
	case dots != 2:
		return nil, bad(noun, "is not a JWT: it must have three parts")
	}
	return strings.Split(s, "."), nil
}

// readHeader checks every parameter that it gives a meaning to, before any key is looked for.
func (t *Token) readHeader(h map[string]any) error {
	alg, ok := h["alg"].(string)
	if !ok {
		return bad(t.noun, "names no algorithm")
	}
	t.alg = jose.SignatureAlgorithm(alg)
	if hashOf(t.alg) == 0 && t.alg != jose.EdDSA {
		return bad(t.noun, "is signed with the algorithm %.200q, which is not accepted", alg)
	}
	// jwk, jku, x5u and x5c would let the token bring its own key. crit and b64 (RFC 7797) change what is signed.
	// zip, enc and the PBES2 members belong to encryption.
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk", "p2c", "p2s"} {
		if _, ok := h[name]; ok {
			return bad(t.noun, "has the header %s, which is not accepted", name)
		}
	}
	if kid, ok := h["kid"]; ok {
		t.kid, ok = kid.(string)
		if !ok || len(t.kid) > maxKeyID {
			return bad(t.noun, "has a key id that is no string of at most %d bytes", maxKeyID)
		}
	}
	if cty, ok := h["cty"]; ok {
		if s, ok := cty.(string); !ok || mediaType(s) == "jwt" {
			return bad(t.noun, "has another token inside")
		}
	}
	if typ, ok := h["typ"]; ok {
		s, ok := typ.(string)
		if !ok {
			return bad(t.noun, "has a type that is no string")
		}
		t.Type = mediaType(s)
	}
	return nil
}

func mediaType(s string) string { return strings.TrimPrefix(strings.ToLower(s), "application/") }

// hashOf returns the hash of an accepted algorithm, or 0. EdDSA has its own inside.
func hashOf(alg jose.SignatureAlgorithm) crypto.Hash {
	switch alg {
	case jose.RS256, jose.PS256, jose.ES256:
		return crypto.SHA256
	case jose.RS384, jose.PS384, jose.ES384:
		return crypto.SHA384
	case jose.RS512, jose.PS512, jose.ES512:
		return crypto.SHA512
	}
	return 0
}

// bad is the fault for a token; its sentence begins with the noun.
func bad(noun, format string, args ...any) *fault.Error {
	return fault.New(fault.Unauthenticated, noun+" "+format, args...)
}

// KeyID is the id of the key that the header names, "" where it names none.
func (t Token) KeyID() string { return t.kid }
