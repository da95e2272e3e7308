package jws

import (
	"crypto"
	"crypto/rsa"
	_ "crypto/sha256" // hashes of the accepted algorithms
	_ "crypto/sha512"
	"errors"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/tabard-id/tabard/internal/fault"
)

// ErrNoKey says that a set has no key for a token; another version of the set may have one.
var ErrNoKey = errors.New("no such key")

// Verify checks the signature with the one key of the set that the token can be signed with. Every error is an
// Unauthenticated fault; it wraps ErrNoKey where another version of the set may have the key.
func (t Token) Verify(s Set) error {
	key, err := s.pick(t)
	if err != nil {
		return err
	}
	if !t.signedBy(key) {
		return bad(t.noun, "has a signature that does not verify")
	}
	return nil
}

// pick chooses the one key for a token. A token without a key id is verified only where one key fits.
func (s Set) pick(t Token) (crypto.PublicKey, error) {
	var found *publicKey
	named := false
	for i, k := range s.keys {
		if t.kid != "" && k.id != t.kid {
			continue
		}
		named = named || t.kid != ""
		switch {
		case !k.fits(t.alg):
		case found != nil && !found.equal(k):
			return nil, bad(t.noun, "can belong to more than one key of its issuer, so none is used")
		default:
			found = &s.keys[i]
		}
	}
	switch {
	case found != nil:
		return found.key, nil
	case named:
		return nil, bad(t.noun, "is signed with %s, which its issuer's key %.200q is not for", t.alg, t.kid)
	}
	return nil, fault.Wrap(fault.Unauthenticated, ErrNoKey, "%s is signed with a key that its issuer does not publish", t.noun)
}

// signedBy checks the signature. The key was chosen to fit the algorithm.
func (t Token) signedBy(key crypto.PublicKey) bool {
	compact := t.text.Expose()
	if pub, ok := key.(*rsa.PublicKey); ok && strings.HasPrefix(string(t.alg), "PS") {
		// The library takes any salt length; RFC 7518 §3.5 wants that of the hash.
		h := hashOf(t.alg)
		digest := h.New()
		digest.Write([]byte(compact[:strings.LastIndexByte(compact, '.')]))
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return rsa.VerifyPSS(pub, h, digest.Sum(nil), t.sig, opts) == nil
	}
	parsed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{t.alg})
	if err != nil {
		return false
	}
	_, err = parsed.Verify(key)
	return err == nil
}
