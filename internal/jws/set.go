package jws

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
	maxSetSize = 1 << 20
	maxSetKeys = 100
	minRSABits = 2048
	maxRSABits = 8192 // more makes one verification a burden
)

// Set is the keys of one issuer. The zero Set has none. It never changes, so it may be shared.
type Set struct{ keys []publicKey }

// publicKey is a key that may verify signatures: *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
type publicKey struct {
	id  string // "" where the issuer names none
	alg string // "" where the issuer does not bind it
	key crypto.PublicKey
}

// ParseSet returns the keys of a JWK set document that may verify signatures. As RFC 7517 §5 says, it skips what it
// cannot use: symmetric and private keys, keys for encryption, weak and malformed ones. It is an error if none is left.
// The error is no fault but the reason, to be put behind the caller's own words.
func ParseSet(doc []byte) (Set, error) {
	if len(doc) > maxSetSize {
		return Set{}, fmt.Errorf("it is longer than %d bytes", maxSetSize)
	}
	members, err := decodeObject(doc)
	if err != nil {
		return Set{}, err
	}
	list, ok := members["keys"].([]any)
	if !ok {
		return Set{}, errors.New("it has no list of keys")
	}
	if len(list) > maxSetKeys {
		return Set{}, fmt.Errorf("it has more than %d keys", maxSetKeys)
	}
	var s Set
	for _, item := range list {
		if members, ok := item.(map[string]any); ok {
			if k, ok := parseKey(members); ok {
				s.keys = append(s.keys, k)
			}
		}
	}
	if len(s.keys) == 0 {
		return Set{}, errors.New("it has no key that can verify a signature")
	}
	return s, nil
}

func parseKey(m map[string]any) (publicKey, bool) {
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
