package audit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
)

// maxToken bounds a checkpoint, in bytes. It is the model's bound.
const maxToken = 64 << 10

// Open verifies a checkpoint with a JWK set (RFC 7517 §5) and returns what it says. It takes ES256 with a key that the
// token names and nothing else: package jws reads tokens of others, up to 16 KiB, and with a time to live, which a
// checkpoint has not. Whatever is wrong with it is an Invalid fault.
func Open(token string, keys []byte) (Claims, error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(token) > maxToken || len(parts) != 3 {
		return Claims{}, fault.New(fault.Invalid, "the checkpoint is no signed token (JWS, compact form)")
	}
	var decoded [3][]byte
	for i, p := range parts {
		var err error
		if decoded[i], err = decodePart(p); err != nil {
			return Claims{}, fault.New(fault.Invalid, "the checkpoint is no signed token: part %d is not base64url", i+1)
		}
	}
	var header struct {
		Alg string `json:"alg"`
		Typ string `json:"typ"`
		Kid string `json:"kid"`
	}
	if err := json.Unmarshal(decoded[0], &header); err != nil || header.Alg != "ES256" || header.Typ != Type {
		return Claims{}, fault.New(fault.Invalid, "the token is no checkpoint: its header is not of the type %s and ES256", Type)
	}
	key, err := find(keys, header.Kid)
	if err != nil {
		return Claims{}, err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	sig := decoded[2]
	if len(sig) != 64 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return Claims{}, fault.New(fault.Invalid, "the signature of the checkpoint does not verify: it was changed, or the keys are others")
	}
	return claimsOf(decoded[1])
}

// claimsOf reads the claims of a token.
func claimsOf(doc []byte) (Claims, error) {
	var c Claims
	if err := json.Unmarshal(doc, &c); err != nil || c.Version != 1 || c.Number < 1 {
		return Claims{}, fault.New(fault.Invalid, "the checkpoint is of a form that this version does not know")
	}
	for _, h := range c.Writers {
		if _, ok := decodeHash(h.Hash); !ok {
			return Claims{}, fault.New(fault.Invalid, "the checkpoint has a hash that is none")
		}
	}
	return c, nil
}

// decodePart decodes base64url without padding and line breaks (RFC 7515 §2).
func decodePart(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// find returns the P-256 key of the set that has the id.
func find(keys []byte, id string) (*ecdsa.PublicKey, error) {
	var set struct {
		Keys []struct {
			Kty string `json:"kty"`
			Crv string `json:"crv"`
			Kid string `json:"kid"`
			X   string `json:"x"`
			Y   string `json:"y"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(keys, &set); err != nil {
		return nil, fault.New(fault.Invalid, "the keys are no JWK set")
	}
	for _, k := range set.Keys {
		if k.Kid != id || id == "" || k.Kty != "EC" || k.Crv != "P-256" {
			continue
		}
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if errX != nil || errY != nil || len(x) != 32 || len(y) != 32 {
			break
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err != nil {
			break
		}
		return public, nil
	}
	return nil, fault.New(fault.Invalid, "the checkpoint is signed with a key that is not among the keys")
}
