package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/tabard-id/tabard/internal/secret"
)

// newRSABits is the size of the RSA keys made here. It is what providers accept without exception.
const newRSABits = 2048

// Key is a private key of ours that signs with one algorithm, and with no other (RFC 8725 §3.1). Its id is the
// thumbprint of its public half (RFC 7638), so that two keys never share one.
type Key struct{ jwk jose.JSONWebKey }

// NewKey makes a key for ES256 (P-256), RS256 or PS256 (2048 bits). Any other algorithm is an error.
func NewKey(alg string) (Key, error) {
	var private crypto.Signer
	var err error
	switch jose.SignatureAlgorithm(alg) {
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.RS256, jose.PS256:
		private, err = rsa.GenerateKey(rand.Reader, newRSABits)
	default:
		return Key{}, fmt.Errorf("no keys are made for the algorithm %q", alg)
	}
	if err != nil {
		return Key{}, err
	}
	k := Key{jose.JSONWebKey{Key: private, Algorithm: alg, Use: "sig"}}
	print, err := k.jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return Key{}, err
	}
	k.jwk.KeyID = base64.RawURLEncoding.EncodeToString(print)
	return k, nil
}

// ParseKey reads what Private wrote.
func ParseKey(private secret.Text) (Key, error) {
	var k Key
	if err := k.jwk.UnmarshalJSON([]byte(private.Expose())); err != nil {
		return Key{}, errors.New("it is no private JWK") // the library's error quotes what it read
	}
	if k.jwk.IsPublic() || !slices.Contains([]string{string(jose.ES256), string(jose.RS256), string(jose.PS256)}, k.jwk.Algorithm) {
		return Key{}, errors.New("it is no private JWK of ours")
	}
	return k, nil
}

// Private is the key with its private half, as a JWK (RFC 7517 §4), to be sealed.
func (k Key) Private() (secret.Text, error) {
	doc, err := k.jwk.MarshalJSON()
	if err != nil {
		return secret.Text{}, err
	}
	return secret.New(string(doc)), nil
}

// Public is the public half as a JWK with kid, use and alg.
func (k Key) Public() (string, error) {
	doc, err := k.jwk.Public().MarshalJSON()
	return string(doc), err
}

// ID is the key's id.
func (k Key) ID() string { return k.jwk.KeyID }

// Sign is SignAs with the typ "JWT".
func (k Key) Sign(header map[string]secret.Text, claims map[string]any) (secret.Text, error) {
	return k.SignAs("JWT", header, claims)
}

// SignAs returns the compact form of a JWT with the claims, and typ and kid in its header beside what header says. The
// header never replaces alg or typ, nor has what would change how the rest is read (crit, b64).
func (k Key) SignAs(typ string, header map[string]secret.Text, claims map[string]any) (secret.Text, error) {
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(typ))
	for name, value := range header {
		if ReservedHeader(name) {
			return secret.Text{}, fmt.Errorf("the header %s is not the caller's to set", name)
		}
		options = options.WithHeader(jose.HeaderKey(name), value.Expose())
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.jwk.Algorithm), Key: k.jwk}, options)
	if err != nil {
		return secret.Text{}, err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return secret.Text{}, err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return secret.Text{}, err
	}
	compact, err := signed.CompactSerialize()
	return secret.New(compact), err
}

// ReservedHeader reports whether Sign refuses the header: what says how the token is to be read (RFC 7515 §4.1.1,
// §4.1.9, §4.1.11, RFC 7797 §3).
func ReservedHeader(name string) bool {
	return slices.Contains([]string{"alg", "typ", "crit", "b64"}, name)
}

// Algorithm is the one that the key signs with.
func (k Key) Algorithm() string { return k.jwk.Algorithm }
