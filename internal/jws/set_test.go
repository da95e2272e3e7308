package jws_test

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
)

func TestA14_A23_KeysThatMayNotVerify(t *testing.T) {
	d := newDesk(t)
	small := ok(rsa.GenerateKey(rand.Reader, 1024))(t)
	public := func(extra map[string]any) map[string]any { return jwstest.Key(t, "rsa", &d.RSA.PublicKey, extra) }
	for name, key := range map[string]map[string]any{
		"use enc":          public(map[string]any{"use": "enc"}),
		"use number":       public(map[string]any{"use": 1}),
		"key_ops encrypt":  public(map[string]any{"key_ops": []string{"encrypt"}}),
		"key_ops empty":    public(map[string]any{"key_ops": []string{}}),
		"key_ops a string": public(map[string]any{"key_ops": "verify"}),
		"private":          jwstest.Key(t, "rsa", d.RSA, nil),
		"private, EC":      jwstest.Key(t, "rsa", d.EC, nil),
		"alg for keys":     public(map[string]any{"alg": "RSA-OAEP"}),
		"exponent 1":       public(map[string]any{"e": "AQ"}),
		"kid a number":     public(map[string]any{"kid": 5}),
		"no modulus":       {"kty": "RSA", "kid": "rsa", "e": "AQAB"},
		"symmetric":        {"kty": "oct", "kid": "rsa", "k": "AAAA"},
		"unknown type":     {"kty": "XYZ", "kid": "rsa"},
	} {
		d.publish(key, jwstest.Key(t, "ec", &d.EC.PublicKey, nil))
		d.unverified(name+": the key", d.sign(nil))
		d.unverified(name+": the EC key", jwstest.Sign(t, "ES256", map[string]any{"kid": "rsa"}, good(nil), d.EC))
		d.accepted(name+": the good key beside it", jwstest.Sign(t, "ES256", map[string]any{"kid": "ec"}, good(nil), d.EC))
	}
	d.publish(jwstest.Key(t, "small", &small.PublicKey, nil), jwstest.Key(t, "ec", &d.EC.PublicKey, nil))
	d.unverified("RSA with 1024 bits", jwstest.Sign(t, "RS256", map[string]any{"kid": "small"}, good(nil), small))
}

func TestA23_DocumentsThatCannotBeUsed(t *testing.T) {
	k := keypairs()
	public := jwstest.Key(t, "rsa", &k.RSA.PublicKey, nil)
	many := make([]map[string]any, 101)
	for i := range many {
		many[i] = jwstest.Key(t, fmt.Sprint(i), &k.EC.PublicKey, nil)
	}
	doc := string(jwstest.Set(t, public))
	for name, doc := range map[string]string{
		"empty": "", "HTML": "<html>", "no keys": `{}`, "no list": `{"keys":{}}`, "empty list": `{"keys":[]}`, "null": `null`, "two lists": `{"keys":[],` + doc[1:],
		"symmetric only": `{"keys":[{"kty":"oct","k":"AAAA","kid":"rsa"}]}`, "too many": string(jwstest.Set(t, many...)), "deep": `{"keys":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		"over 1 MiB": `{"pad":"` + strings.Repeat("x", 1<<20) + `",` + doc[1:], "twice": doc + doc,
	} {
		if _, err := jws.ParseSet([]byte(doc)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	ok(jws.ParseSet(jwstest.Set(t, many[:100]...)))(t)
}

func TestA23_KeysThatCannotBeToldApart(t *testing.T) {
	d := newDesk(t)
	public, mallory := jwstest.Key(t, "rsa", &d.RSA.PublicKey, nil), jwstest.Stranger(t)
	d.publish(jwstest.Key(t, "k", &d.EC.PublicKey, nil), jwstest.Key(t, "k", &mallory.PublicKey, nil), public, public)
	d.unverified("one key id, two keys", jwstest.Sign(t, "ES256", map[string]any{"kid": "k"}, good(nil), d.EC))
	d.unverified("one key id, two keys, the other", jwstest.Sign(t, "ES256", map[string]any{"kid": "k"}, good(nil), mallory))
	d.unverified("no key id, two keys", jwstest.Sign(t, "ES256", nil, good(nil), d.EC))
	d.accepted("the same key twice", d.sign(nil))
}

func FuzzParseSet(f *testing.F) {
	f.Add(keypairs().Set(f))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":""}]}`))
	forged := ok(parse(jwstest.SignRaw(f, "EdDSA", `{"alg":"EdDSA"}`, `{}`, make([]byte, 32))))(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		set, err := jws.ParseSet(doc)
		if err != nil {
			return
		}
		if err := forged.Verify(set); err == nil {
			t.Fatalf("a key of %q verifies a signature that no key made", doc)
		}
	})
}
