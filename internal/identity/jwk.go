package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// Bounds of a JWK set document (RFC 7517 §5).
const (
	maxJWKS     = 1 << 20
	maxJWKSKeys = 100
	minRSABits  = 2048
	maxRSABits  = 8192 // more makes one verification a burden
)

// errUnknownKey says that a set has no key for a token; another version of the set may have one.
var errUnknownKey = errors.New("no such key")

// publicKey is a key of an issuer that may verify signatures: *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
type publicKey struct {
	id  string // "" where the issuer names none
	alg string // "" where the issuer does not bind it
	key crypto.PublicKey
}

// parseJWKS returns the keys of a document that may verify signatures. As RFC 7517 §5 says, it skips what it cannot
// use: symmetric and private keys, keys for encryption, weak and malformed ones. It is an error if none is left.
func parseJWKS(doc []byte) ([]publicKey, error) {
	if len(doc) > maxJWKS {
		return nil, fmt.Errorf("it is longer than %d bytes", maxJWKS)
	}
	set, err := decodeObject(doc)
	if err != nil {
		return nil, err
	}
	list, ok := set["keys"].([]any)
	if !ok {
		return nil, errors.New("it has no list of keys")
	}
	if len(list) > maxJWKSKeys {
		return nil, fmt.Errorf("it has more than %d keys", maxJWKSKeys)
	}
	var keys []publicKey
	for _, item := range list {
		if members, ok := item.(map[string]any); ok {
			if k, ok := parseJWK(members); ok {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no key that can verify a signature")
	}
	return keys, nil
}

func parseJWK(m map[string]any) (publicKey, bool) {
	for _, private := range []string{"k", "d", "p", "q", "dp", "dq", "qi", "oth", "priv"} {
		if _, ok := m[private]; ok {
			return publicKey{}, false
		}
	}
	if use, ok := m["use"]; ok && use != "sig" {
		return publicKey{}, false
	}
	if ops, ok := m["key_ops"]; ok {
		list, _ := ops.([]any)
		if !slices.Contains(list, any("verify")) {
			return publicKey{}, false
		}
	}
	var k publicKey
	for name, text := range map[string]*string{"kid": &k.id, "alg": &k.alg} {
		if v, ok := m[name]; ok {
			if *text, ok = v.(string); !ok || len(*text) > maxKeyID {
				return publicKey{}, false
			}
		}
	}
	// Only the members that make the key: certificates (x5c, x5u) are not looked at, since nothing here trusts them.
	bare := map[string]any{}
	for _, name := range []string{"kty", "crv", "n", "e", "x", "y"} {
		if v, ok := m[name]; ok {
			bare[name] = v
		}
	}
	doc, err := json.Marshal(bare)
	if err != nil {
		return publicKey{}, false
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(doc); err != nil {
		return publicKey{}, false
	}
	k.key = parsed.Key
	return k, usable(k.key)
}

func usable(key crypto.PublicKey) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		return bits >= minRSABits && bits <= maxRSABits && key.E >= 3 && key.E%2 == 1
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// fits reports whether the key may verify signatures of the algorithm: by its type, its curve, and what the issuer
// says about it. The header of a token never widens that (RFC 8725 §3.1).
func (k publicKey) fits(alg jose.SignatureAlgorithm) bool {
	// RFC 9864 gave EdDSA with this curve the name Ed25519, which issuers may use for the key already.
	if k.alg != "" && k.alg != string(alg) && (k.alg != "Ed25519" || alg != jose.EdDSA) {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return alg != jose.ES256 && alg != jose.ES384 && alg != jose.ES512 && alg != jose.EdDSA
	case *ecdsa.PublicKey:
		switch key.Curve.Params().Name {
		case "P-256":
			return alg == jose.ES256
		case "P-384":
			return alg == jose.ES384
		case "P-521":
			return alg == jose.ES512
		}
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	}
	return false
}

func (k publicKey) equal(o publicKey) bool {
	e, ok := k.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(o.key)
}

// pick chooses the one key for a token. A token without a key id is verified only where one key fits. The error is
// errUnknownKey where another version of the set may have the key.
func pick(keys []publicKey, t jws) (crypto.PublicKey, error) {
	var found *publicKey
	named := false
	for i, k := range keys {
		if t.kid != "" && k.id != t.kid {
			continue
		}
		named = named || t.kid != ""
		switch {
		case !k.fits(t.alg):
		case found != nil && !found.equal(k):
			return nil, badToken("can belong to more than one key of its issuer, so none is used")
		default:
			found = &keys[i]
		}
	}
	switch {
	case found != nil:
		return found.key, nil
	case named:
		return nil, badToken("is signed with %s, which its issuer's key %q is not for", t.alg, clip(t.kid))
	}
	return nil, errUnknownKey
}
