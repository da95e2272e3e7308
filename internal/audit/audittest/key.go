// Package audittest makes keys that sign checkpoints for tests. The server signs with package signing.
package audittest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/tabard-id/tabard/internal/fault"
)

// Key signs checkpoints with ES256 (RFC 7518 §3.4). Its id is its thumbprint (RFC 7638).
type Key struct {
	private *ecdsa.PrivateKey
	x, y    string
}

// NewKey makes a key.
func NewKey() (Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Key{}, fault.Wrap(fault.Internal, err, "a key for checkpoints cannot be made")
	}
	return keyOf(private)
}

// ParseKey reads what Private wrote.
func ParseKey(private []byte) (Key, error) {
	k, err := x509.ParseECPrivateKey(private)
	if err != nil || k.Curve != elliptic.P256() {
		return Key{}, fault.New(fault.Internal, "a key for checkpoints cannot be read")
	}
	return keyOf(k)
}

func keyOf(private *ecdsa.PrivateKey) (Key, error) {
	point, err := private.PublicKey.Bytes()
	if err != nil || len(point) != 65 {
		return Key{}, fault.New(fault.Internal, "a key for checkpoints is of no use")
	}
	enc := base64.RawURLEncoding
	return Key{private: private, x: enc.EncodeToString(point[1:33]), y: enc.EncodeToString(point[33:])}, nil
}

// Private is the key with its private half (SEC 1, DER), to be sealed.
func (k Key) Private() ([]byte, error) { return x509.MarshalECPrivateKey(k.private) }

// ID is the key's id.
func (k Key) ID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, k.x, k.y))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Public is the public half as a JWK (RFC 7517 §4).
func (k Key) Public() string {
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q,"kid":%q,"use":"sig","alg":"ES256"}`, k.x, k.y, k.ID())
}

// Sign returns the compact form of a JWT of the type typ.
func (k Key) Sign(typ string, claims map[string]any) (string, error) {
	header, err := json.Marshal(map[string]string{"alg": "ES256", "typ": typ, "kid": k.ID()})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString(header) + "." + enc.EncodeToString(payload)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "a checkpoint cannot be signed")
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + enc.EncodeToString(sig[:]), nil
}
