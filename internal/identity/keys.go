package identity

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/keyring"
)

// keysOf is how the keyring reads a document: any key for signatures will do.
func keysOf(_ keyring.Issuer, doc []byte) (jws.Set, error) { return jws.ParseSet(doc) }

// verifySignature checks the token's signature with the issuer's keys. It is Unavailable where that cannot be known
// because the issuer does not answer, and Unauthenticated where the issuer has no such key or the signature is wrong.
func (s *Service) verifySignature(ctx context.Context, account access.Account, i Issuer, t jws.Token) error {
	if len(i.JWKS) > 0 {
		keys, err := jws.ParseSet(i.JWKS)
		if err != nil {
			return fault.Wrap(fault.Internal, err, "the keys of issuer %s cannot be read", i.URL)
		}
		return t.Verify(keys)
	}
	return s.keys.Verify(ctx, keyring.Issuer{Account: account, URL: i.URL, JWKSURI: i.JWKSURI}, t.Verify)
}

// IssuerURLFlaw says what keeps s from being an issuer's URL in the canonical form that the claim iss is compared with,
// or "". With dev, plain http on loopback passes.
func IssuerURLFlaw(s string, dev bool) string { return canonicalURL(s, dev) }

// JWKSURIFlaw says what keeps s from being the address of an issuer's keys, or "". With dev, plain http passes; whether
// the host may be connected to is the dialer's decision.
func JWKSURIFlaw(s string, dev bool) string { return jwksURIFlaw(s, dev) }
