// Package jwstest makes signed tokens and key sets for tests, good ones and bad ones: it checks nothing, and does not
// share a line with the package that reads them.
package jwstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Keys are private keys of an issuer.
type Keys struct {
	RSA *rsa.PrivateKey // 2048 bits
	EC  *ecdsa.PrivateKey
	Ed  ed25519.PrivateKey
}

// NewKeys makes keys. An RSA key takes long, so a test binary does it once.
func NewKeys() Keys {
	var k Keys
	k.RSA, _ = rsa.GenerateKey(rand.Reader, 2048) // never fails
	k.EC, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, k.Ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
}

// Set publishes the keys under the ids "rsa", "ec" and "ed".
func (k Keys) Set(t testing.TB) []byte {
	t.Helper()
	return Set(t, Key(t, "rsa", &k.RSA.PublicKey, nil), Key(t, "ec", &k.EC.PublicKey, nil), Key(t, "ed", k.Ed.Public(), nil))
}

// Stranger is a P-256 key that no set has.
func Stranger(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

// Key is the JWK of a key, private where the key is, with further members or others.
func Key(t testing.TB, kid string, key any, extra map[string]any) map[string]any {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: kid})
	must(t, err)
	m := map[string]any{}
	must(t, json.Unmarshal(b, &m))
	maps.Copy(m, extra)
	return m
}

// Set is a JWK set document.
func Set(t testing.TB, keys ...map[string]any) []byte {
	t.Helper()
	return marshal(t, map[string]any{"keys": keys})
}

// B64 is base64url without padding.
func B64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Sign makes a token from values.
func Sign(t testing.TB, alg string, header, claims map[string]any, key any) string {
	t.Helper()
	h := map[string]any{"alg": alg}
	maps.Copy(h, header)
	return SignRaw(t, alg, string(marshal(t, h)), string(marshal(t, claims)), key)
}

// SignRaw makes a token from the text of header and payload, good or bad, with a signature that is right for alg.
func SignRaw(t testing.TB, alg, header, payload string, key any) string {
	t.Helper()
	input := B64([]byte(header)) + "." + B64([]byte(payload))
	return input + "." + B64(signature(t, alg, input, key))
}

// signature signs with an RSA, ECDSA or Ed25519 key as alg says; a key of bytes makes an HMAC.
func signature(t testing.TB, alg, input string, key any) []byte {
	t.Helper()
	h := crypto.SHA256
	switch {
	case strings.HasSuffix(alg, "384"):
		h = crypto.SHA384
	case strings.HasSuffix(alg, "512"):
		h = crypto.SHA512
	}
	d := h.New()
	d.Write([]byte(input))
	var sig []byte
	var err error
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			sig, err = rsa.SignPSS(rand.Reader, key, h, d.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(nil, key, h, d.Sum(nil))
		}
	case *ecdsa.PrivateKey:
		r, s, signErr := ecdsa.Sign(rand.Reader, key, d.Sum(nil))
		must(t, signErr)
		n := (key.Params().BitSize + 7) / 8
		sig = append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...)
	case ed25519.PrivateKey:
		sig = ed25519.Sign(key, []byte(input))
	case []byte:
		m := hmac.New(sha256.New, key)
		m.Write([]byte(input))
		sig = m.Sum(nil)
	default:
		t.Fatalf("no signature is made with a %T", key)
	}
	must(t, err)
	return sig
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
