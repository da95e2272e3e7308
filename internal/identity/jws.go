package identity

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha256" // hashes of the algorithms below
	_ "crypto/sha512"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Bounds of a user's token, each checked before the work that it bounds.
const (
	maxUserToken = 16 << 10 // bytes of the compact form
	maxDepth     = 32       // nested arrays and objects
	maxKeyID     = 256
)

// jws is a parsed token, not yet verified.
type jws struct {
	compact string
	input   []byte // what is signed
	sig     []byte
	alg     jose.SignatureAlgorithm
	kid     string
	typ     string // lower case, without "application/"
	claims  map[string]any
}

// badToken is the fault for a user's token; the sentence begins with "the user token".
func badToken(format string, args ...any) *fault.Error {
	return fault.New(fault.Unauthenticated, "the user token "+format, args...)
}

// parseJWS reads the compact form (RFC 7515 §7.1) more strictly than the library does: only base64url without padding
// and unused bits, no duplicate member, no header that would bring a key or change the meaning of the rest. A token
// that is too long is Invalid, anything else that is wrong Unauthenticated.
func parseJWS(token secret.Text) (jws, error) {
	t := jws{compact: token.Expose()}
	if len(t.compact) > maxUserToken {
		return jws{}, fault.Field("userToken", "a user token is at most %d bytes long", maxUserToken)
	}
	parts, err := splitCompact(t.compact)
	if err != nil {
		return jws{}, err
	}
	var decoded [3][]byte
	for i, p := range parts {
		if decoded[i], err = strictBase64(p); err != nil {
			return jws{}, badToken("is not a JWT: part %d is not strict base64url (RFC 7515 §2)", i+1)
		}
	}
	header, err := decodeObject(decoded[0])
	if err != nil {
		return jws{}, badToken("has a header that cannot be read: %s", err.Error())
	}
	if err := t.readHeader(header); err != nil {
		return jws{}, err
	}
	if len(decoded[2]) == 0 {
		return jws{}, badToken("is not signed")
	}
	if t.claims, err = decodeObject(decoded[1]); err != nil {
		return jws{}, badToken("has a payload that cannot be read: %s", err.Error())
	}
	t.input, t.sig = []byte(parts[0]+"."+parts[1]), decoded[2]
	return t, nil
}

func splitCompact(s string) ([]string, error) {
	switch dots := strings.Count(s, "."); {
	case s == "":
		return nil, badToken("is empty")
	case strings.HasPrefix(s, tokenPrefix):
		return nil, badToken("is a workload access token: it needs a token of the user's identity provider")
	case strings.HasPrefix(s, "{"):
		return nil, badToken("is in JSON serialization: it must be in compact form")
	case dots == 4:
		return nil, badToken("is encrypted (JWE): have the identity provider issue signed tokens only (with Entra ID, remove confidential optional claims and token encryption)")
	case dots != 2:
		return nil, badToken("is not a JWT: it must have three parts")
	}
	return strings.Split(s, "."), nil
}

// readHeader checks every parameter that it gives a meaning to, before any key is looked for.
func (t *jws) readHeader(h map[string]any) error {
	alg, ok := h["alg"].(string)
	if !ok {
		return badToken("names no algorithm")
	}
	t.alg = jose.SignatureAlgorithm(alg)
	if hashOf(t.alg) == 0 && t.alg != jose.EdDSA {
		return badToken("is signed with the algorithm %q, which is not accepted", clip(alg))
	}
	// jwk, jku, x5u and x5c would let the token bring its own key. crit and b64 (RFC 7797) change what is signed.
	// zip, enc and the PBES2 members belong to encryption.
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk", "p2c", "p2s"} {
		if _, ok := h[name]; ok {
			return badToken("has the header %s, which is not accepted", name)
		}
	}
	if kid, ok := h["kid"]; ok {
		t.kid, ok = kid.(string)
		if !ok || len(t.kid) > maxKeyID {
			return badToken("has a key id that is no string of at most %d bytes", maxKeyID)
		}
	}
	if cty, ok := h["cty"]; ok {
		if s, ok := cty.(string); !ok || mediaType(s) == "jwt" {
			return badToken("has another token inside")
		}
	}
	if typ, ok := h["typ"]; ok {
		s, ok := typ.(string)
		if !ok {
			return badToken("has a type that is no string")
		}
		t.typ = mediaType(s)
	}
	// Explicit typing (RFC 8725 §3.11): a logout token, a DPoP proof or a security event is signed by the same key.
	if t.typ != "" && t.typ != "jwt" && t.typ != "at+jwt" {
		return badToken("is of the type %q, which is no access or ID token", clip(t.typ))
	}
	return nil
}

func mediaType(s string) string { return strings.TrimPrefix(strings.ToLower(s), "application/") }

// verify checks the signature with the key. The key was chosen to fit the algorithm.
func (t jws) verify(key any) error {
	bad := badToken("has a signature that does not verify")
	if pub, ok := key.(*rsa.PublicKey); ok && strings.HasPrefix(string(t.alg), "PS") {
		// The library takes any salt length; RFC 7518 §3.5 wants that of the hash.
		h := hashOf(t.alg)
		digest := h.New()
		digest.Write(t.input)
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		if rsa.VerifyPSS(pub, h, digest.Sum(nil), t.sig, opts) != nil {
			return bad
		}
		return nil
	}
	parsed, err := jose.ParseSignedCompact(t.compact, []jose.SignatureAlgorithm{t.alg})
	if err != nil {
		return bad
	}
	if _, err := parsed.Verify(key); err != nil {
		return bad
	}
	return nil
}

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

var errBase64 = errors.New("not strict base64url")

// strictBase64 decodes base64url without padding. encoding/base64 skips line breaks even when it is strict.
func strictBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errBase64
	}
	return b, nil
}

// decodeObject decodes one JSON object. Member names are compared as they are, a name that comes twice at any level
// is an error, numbers stay as they were written, and text that is not UTF-8 is refused: decoders turn it into U+FFFD,
// which would make two users one.
func decodeObject(b []byte) (map[string]any, error) {
	if !shallow(b) {
		return nil, errors.New("it is nested too deep")
	}
	if !utf8.Valid(b) {
		return nil, errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.SetNumberType(json.UnmarshalJSONNumber)
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, errors.New("it is no JSON object with distinct names")
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return m, nil
}

// shallow reports whether no array or object of the JSON text is deeper than maxDepth. It needs no stack.
func shallow(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}
