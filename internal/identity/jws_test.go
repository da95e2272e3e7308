package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestVerifyUser_AcceptsEachAlgorithm(t *testing.T) {
	w := newWorld(t)
	w.trust()
	e384 := ok(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	e521 := ok(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))(t)
	w.idp.publish(jwks(t, jwk(t, "rsa", &w.idp.rsa.PublicKey, nil), jwk(t, "ec", &w.idp.ec.PublicKey, map[string]any{"use": "sig", "alg": "ES256"}),
		jwk(t, "ed", w.idp.ed.Public(), map[string]any{"key_ops": []string{"verify"}, "alg": "Ed25519"}),
		jwk(t, "e384", &e384.PublicKey, nil), jwk(t, "e521", &e521.PublicKey, nil)), nil)
	for _, c := range []struct {
		alg, kid string
		key      any
	}{
		{"RS256", "rsa", w.idp.rsa}, {"RS384", "rsa", w.idp.rsa}, {"RS512", "rsa", w.idp.rsa},
		{"PS256", "rsa", w.idp.rsa}, {"PS384", "rsa", w.idp.rsa}, {"PS512", "rsa", w.idp.rsa},
		{"ES256", "ec", w.idp.ec}, {"ES384", "e384", e384}, {"ES512", "e521", e521}, {"EdDSA", "ed", w.idp.ed},
	} {
		u := w.accepted(c.alg, sign(t, c.alg, map[string]any{"kid": c.kid, "typ": "JWT"}, w.claims(nil), c.key))
		if want := (identity.User{Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}); u.User != want {
			t.Errorf("%s: got user %+v, want %+v", c.alg, u.User, want)
		}
		broken := sign(t, c.alg, map[string]any{"kid": c.kid}, w.claims(nil), c.key)
		i := strings.LastIndex(broken, ".") + 5
		flip := "A"
		if broken[i] == 'A' {
			flip = "B"
		}
		w.refused(c.alg+" with a changed signature", broken[:i]+flip+broken[i+1:], fault.Unauthenticated)
	}
	// A token without a key id is for the one key that fits.
	w.accepted("no kid", sign(t, "EdDSA", nil, w.claims(nil), w.idp.ed))
}

func TestA10_AlgNoneAndEmptySignature(t *testing.T) {
	w := newWorld(t)
	w.trust()
	payload := string(ok(json.Marshal(w.claims(nil)))(t))
	for _, alg := range []string{
		"none", "None", "NONE", "nOnE", "nonE", " none", "none ", "none\\u0000", "", "null", "RS256 ", "rs256", "Rs256", "HS256", "HS384",
		"HS512", "RSA-OAEP", "dir", "ES256K", "RS1", "A128KW", "Ed25519", "PBES2-HS256+A128KW",
	} {
		header := `{"alg":"` + alg + `","kid":"rsa","typ":"JWT"}`
		w.refused("alg "+alg+", no signature", b64([]byte(header))+"."+b64([]byte(payload))+".", fault.Unauthenticated)
		w.refused("alg "+alg+", a signature", signRaw(t, "RS256", header, payload, w.idp.rsa), fault.Unauthenticated)
	}
	for _, header := range []string{`{"kid":"rsa"}`, `{"alg":null}`, `{"alg":["RS256"]}`, `{"alg":{}}`, `{"alg":1}`, `{"Alg":"RS256"}`} {
		w.refused(header, signRaw(t, "RS256", header, payload, w.idp.rsa), fault.Unauthenticated)
	}
	w.refused("empty signature", b64([]byte(`{"alg":"RS256","kid":"rsa"}`))+"."+b64([]byte(payload))+".", fault.Unauthenticated)
	if n := w.idp.fetches(); n != 0 {
		t.Errorf("got %d fetches of keys, want none before the algorithm is accepted", n)
	}
}

func TestA11_AlgorithmIsBoundToTheKey(t *testing.T) {
	w := newWorld(t)
	w.trust()
	der := ok(x509.MarshalPKIXPublicKey(&w.idp.rsa.PublicKey))(t)
	jwkText := ok(json.Marshal(jwk(t, "rsa", &w.idp.rsa.PublicKey, nil)))(t)
	for name, key := range map[string][]byte{
		"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "DER": der, "JWK": jwkText,
		"PKCS1": x509.MarshalPKCS1PublicKey(&w.idp.rsa.PublicKey), "modulus": w.idp.rsa.N.Bytes(), "empty": {},
	} {
		w.refused("HS256 with the public key as "+name, sign(t, "HS256", map[string]any{"kid": "rsa"}, w.claims(nil), key), fault.Unauthenticated)
	}
	w.refused("ES256 named, RSA key", sign(t, "ES256", map[string]any{"kid": "rsa"}, w.claims(nil), w.idp.ec), fault.Unauthenticated)
	w.refused("RS256 named, EC key", sign(t, "RS256", map[string]any{"kid": "ec"}, w.claims(nil), w.idp.rsa), fault.Unauthenticated)
	w.refused("ES384 named, P-256 key", sign(t, "ES384", map[string]any{"kid": "ec"}, w.claims(nil), w.idp.ec), fault.Unauthenticated)
	// The issuer binds the key to one algorithm.
	w.clock.add(time.Minute)
	w.idp.publish(jwks(t, jwk(t, "bound", &w.idp.rsa.PublicKey, map[string]any{"alg": "PS256"})), nil)
	w.refused("RS256 with a PS256 key", sign(t, "RS256", map[string]any{"kid": "bound"}, w.claims(nil), w.idp.rsa), fault.Unauthenticated)
	w.accepted("PS256 with a PS256 key", sign(t, "PS256", map[string]any{"kid": "bound"}, w.claims(nil), w.idp.rsa))
}

func TestA12_A17_A18_HeadersThatBringKeysOrChangeTheMeaning(t *testing.T) {
	w := newWorld(t)
	w.trust()
	mallory := ok(rsa.GenerateKey(rand.Reader, 2048))(t)
	for name, value := range map[string]any{
		"jwk": jwk(t, "rsa", &mallory.PublicKey, nil), "jku": "https://evil.example.com/jwks", "x5u": "https://evil.example.com/cert",
		"x5c": []string{"MIIB"}, "crit": []string{"exp"}, "b64": false, "zip": "DEF", "enc": "A128GCM", "p2c": 1 << 31, "cty": "JWT",
	} {
		w.refused("header "+name, sign(t, "RS256", map[string]any{"kid": "rsa", name: value}, w.claims(nil), w.idp.rsa), fault.Unauthenticated)
		w.refused("header "+name+", key of its own", sign(t, "RS256", map[string]any{"kid": "rsa", name: value}, w.claims(nil), mallory), fault.Unauthenticated)
	}
	w.refused("crit and b64", sign(t, "RS256", map[string]any{"kid": "rsa", "crit": []string{"b64"}, "b64": false}, w.claims(nil), w.idp.rsa), fault.Unauthenticated)
	if n := w.idp.fetches(); n != 0 {
		t.Errorf("got %d fetches, want none because of a header", n)
	}
	// A thumbprint brings nothing: Entra ID sends x5t.
	w.accepted("x5t", sign(t, "RS256", map[string]any{"kid": "rsa", "x5t": "abc"}, w.claims(nil), w.idp.rsa))

	good := w.jwt(nil)
	parts := strings.Split(good, ".")
	flat := fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
	w.refused("JSON serialization", flat, fault.Unauthenticated)
	w.refused("nested", signRaw(t, "RS256", `{"alg":"RS256","kid":"rsa"}`, good, w.idp.rsa), fault.Unauthenticated)
	for _, typ := range []string{"logout+jwt", "secevent+jwt", "dpop+jwt", "application/logout+jwt", "JOSE", "at+jwt2"} {
		w.refused("typ "+typ, sign(t, "RS256", map[string]any{"kid": "rsa", "typ": typ}, w.claims(nil), w.idp.rsa), fault.Unauthenticated)
	}
}

func TestA13_KeyIDsAreOpaque(t *testing.T) {
	w := newWorld(t)
	w.trust()
	for _, kid := range []any{
		"../../rsa", "rsa' OR '1'='1", "https://evil.example.com/jwks", "rsa\x00", "RSA", " rsa", strings.Repeat("k", 257), 1, true, nil, []string{"rsa"},
	} {
		w.refused(fmt.Sprintf("kid %.20v", kid), sign(t, "RS256", map[string]any{"kid": kid}, w.claims(nil), w.idp.rsa), fault.Unauthenticated)
	}
	for _, call := range w.idp.calls {
		if call != issuerURL+" " {
			t.Errorf("got a fetch of %q, want none but the issuer's", call)
		}
	}
}

func TestA14_A23_KeysThatMayNotVerify(t *testing.T) {
	small := ok(rsa.GenerateKey(rand.Reader, 1024))(t)
	k := keypairs()
	for name, key := range map[string]map[string]any{
		"use enc":          jwk(t, "rsa", &k.rsa.PublicKey, map[string]any{"use": "enc"}),
		"use number":       jwk(t, "rsa", &k.rsa.PublicKey, map[string]any{"use": 1}),
		"key_ops encrypt":  jwk(t, "rsa", &k.rsa.PublicKey, map[string]any{"key_ops": []string{"encrypt"}}),
		"key_ops empty":    jwk(t, "rsa", &k.rsa.PublicKey, map[string]any{"key_ops": []string{}}),
		"key_ops a string": jwk(t, "rsa", &k.rsa.PublicKey, map[string]any{"key_ops": "verify"}),
		"private":          jwk(t, "rsa", k.rsa, nil),
		"private, EC":      jwk(t, "rsa", k.ec, nil),
		"alg for keys":     jwk(t, "rsa", &k.rsa.PublicKey, map[string]any{"alg": "RSA-OAEP"}),
		"exponent 1":       jwk(t, "rsa", &k.rsa.PublicKey, map[string]any{"e": "AQ"}),
		"kid a number":     jwk(t, "rsa", &k.rsa.PublicKey, map[string]any{"kid": 5}),
		"no modulus":       {"kty": "RSA", "kid": "rsa", "e": "AQAB"},
		"symmetric":        {"kty": "oct", "kid": "rsa", "k": "AAAA"},
		"unknown type":     {"kty": "XYZ", "kid": "rsa"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.trust()
			w.idp.publish(jwks(t, key, jwk(t, "ec", &k.ec.PublicKey, nil)), nil)
			w.refused("the key", sign(t, "RS256", map[string]any{"kid": "rsa"}, w.claims(nil), k.rsa), fault.Unauthenticated)
			w.refused("the EC key", sign(t, "ES256", map[string]any{"kid": "rsa"}, w.claims(nil), k.ec), fault.Unauthenticated)
			w.accepted("the good key beside it", sign(t, "ES256", map[string]any{"kid": "ec"}, w.claims(nil), k.ec))
		})
	}
	w := newWorld(t)
	w.trust()
	w.idp.publish(jwks(t, jwk(t, "small", &small.PublicKey, nil), jwk(t, "ec", &k.ec.PublicKey, nil)), nil)
	w.refused("RSA with 1024 bits", sign(t, "RS256", map[string]any{"kid": "small"}, w.claims(nil), small), fault.Unauthenticated)
}

func TestA15_StrictSignaturesAndBase64(t *testing.T) {
	w := newWorld(t)
	w.trust()
	header, payload := `{"alg":"PS256","kid":"rsa"}`, string(ok(json.Marshal(w.claims(nil)))(t))
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	digest := crypto.SHA256.New()
	digest.Write([]byte(input))
	for _, salt := range []int{0, 20, 31, 33, 64, rsa.PSSSaltLengthAuto} {
		sig := ok(rsa.SignPSS(rand.Reader, w.idp.rsa, crypto.SHA256, digest.Sum(nil), &rsa.PSSOptions{SaltLength: salt}))(t)
		w.refused(fmt.Sprintf("PSS with a salt of %d", salt), input+"."+b64(sig), fault.Unauthenticated)
	}
	w.accepted("PSS with the salt of the hash", signRaw(t, "PS256", header, payload, w.idp.rsa))

	ec := sign(t, "ES256", map[string]any{"kid": "ec"}, w.claims(nil), w.idp.ec)
	p := strings.Split(ec, ".")
	last := p[2][len(p[2])-1]
	loose := string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", last)+1])
	raw := ok(base64.RawURLEncoding.DecodeString(p[2]))(t)
	der := ok(w.idp.ec.Sign(rand.Reader, digest.Sum(nil), crypto.SHA256))(t)
	for name, jwt := range map[string]string{
		"padded":            ec + "==",
		"padded header":     p[0] + "=." + p[1] + "." + p[2],
		"unused bits":       p[0] + "." + p[1] + "." + p[2][:len(p[2])-1] + loose,
		"standard alphabet": p[0] + "." + p[1] + "." + base64.RawStdEncoding.EncodeToString(append(raw[:63], 0xff)) + "/",
		"line break":        p[0] + "." + p[1] + "." + p[2][:10] + "\n" + p[2][10:],
		"carriage return":   p[0] + "." + p[1] + "\r." + p[2],
		"space before":      " " + ec,
		"space after":       ec + " ",
		"space inside":      p[0] + "." + p[1] + ". " + p[2],
		"Bearer":            "Bearer " + ec,
		"trailing dot":      ec + ".",
		"leading dot":       "." + ec,
		"two parts":         p[0] + "." + p[1],
		"DER signature":     p[0] + "." + p[1] + "." + b64(der),
		"long signature":    p[0] + "." + p[1] + "." + b64(append(raw, 0)),
		"empty":             "",
		"dots":              "..",
	} {
		w.refused(name, jwt, fault.Unauthenticated)
	}
	w.accepted("unchanged", ec)
}

func TestA16_DuplicateMembers(t *testing.T) {
	w := newWorld(t)
	w.trust()
	body := fmt.Sprintf(`"iss":%q,"aud":"tabard","exp":%d`, issuerURL, w.clock.now().Add(time.Hour).Unix())
	header := `{"alg":"RS256","kid":"rsa"}`
	for name, parts := range map[string][2]string{
		"two subs":            {header, `{` + body + `,"sub":"alice","sub":"bob"}`},
		"two subs, escaped":   {header, `{` + body + `,"sub":"alice","s\u0075b":"bob"}`},
		"two algs":            {`{"alg":"RS256","kid":"rsa","alg":"RS256"}`, `{` + body + `,"sub":"alice"}`},
		"two algs, one none":  {`{"alg":"none","alg":"RS256","kid":"rsa"}`, `{` + body + `,"sub":"alice"}`},
		"two kids":            {`{"alg":"RS256","kid":"rsa","kid":"rsa"}`, `{` + body + `,"sub":"alice"}`},
		"two inside a claim":  {header, `{` + body + `,"sub":"alice","act":{"sub":"x","sub":"y"}}`},
		"two objects":         {header, `{` + body + `,"sub":"alice"}{"sub":"bob"}`},
		"something follows":   {header, `{` + body + `,"sub":"alice"} x`},
		"an array":            {header, `[{` + body + `,"sub":"alice"}]`},
		"null":                {header, `null`},
		"not UTF-8":           {header, `{` + body + `,"sub":"alice` + "\xff" + `"}`},
		"not UTF-8, unused":   {header, `{` + body + `,"sub":"alice","note":"` + "\xff" + `"}`},
		"half a surrogate":    {header, `{` + body + `,"sub":"\ud800"}`},
		"sub in another case": {header, `{` + body + `,"Sub":"alice"}`},
	} {
		w.refused(name, signRaw(t, "RS256", parts[0], parts[1], w.idp.rsa), fault.Unauthenticated)
	}
	w.accepted("names that differ in case are different", signRaw(t, "RS256", header, `{`+body+`,"sub":"alice","SUB":"bob"}`, w.idp.rsa))
}

func TestA18_EncryptedTokensAreNamed(t *testing.T) {
	w := newWorld(t)
	w.trust()
	header := b64([]byte(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AAAA","zip":"DEF"}`))
	start := time.Now()
	_, err := w.verify(header + ".AAAA.AAAA." + strings.Repeat("A", 10_000) + ".AAAA")
	wantCode(t, "JWE", err, fault.Unauthenticated)
	if took := time.Since(start); took > 100*time.Millisecond {
		t.Errorf("a JWE took %v, want no work to be done for it", took)
	}
	if msg := fault.Public(err).Msg; !strings.Contains(msg, "encrypted") || !strings.Contains(msg, "Entra") {
		t.Errorf("got %q, want a message that says it is encrypted and hints at Entra ID", msg)
	}
}

func TestA19_A20_SizeAndDepth(t *testing.T) {
	w := newWorld(t)
	w.trust()
	deep := func(n int) string {
		return signRaw(t, "RS256", `{"alg":"RS256","kid":"rsa"}`, `{"a":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`}`, w.idp.rsa)
	}
	w.refused("nested 5000 deep", deep(5000), fault.Unauthenticated)
	w.refused("header nested 1000 deep", signRaw(t, "RS256", strings.Repeat(`{"alg":`, 1000)+`1`+strings.Repeat("}", 1000), `{}`, w.idp.rsa), fault.Unauthenticated)
	nest := func(n int) string {
		var v any = 1
		for range n {
			v = []any{v}
		}
		return w.jwt(map[string]any{"note": v})
	}
	w.accepted("31 deep inside the payload", nest(31))
	w.refused("32 deep inside the payload", nest(32), fault.Unauthenticated)
	w.accepted("quoted brackets are no depth", w.jwt(map[string]any{"note": strings.Repeat(`[{\"`, 100)}))
	for name, jwt := range map[string]string{
		"1e6 brackets": "e30." + strings.Repeat("[", 1_000_000) + ".AA", "a million dots": strings.Repeat(".", 1_000_000), "10 MB": strings.Repeat("A", 10<<20),
		"one byte too long": strings.Repeat("A", 16<<10+1),
	} {
		text := secret.New(jwt)
		var err error
		allocs := testing.AllocsPerRun(3, func() { _, err = w.VerifyUser(t.Context(), account, "agent-a", text) })
		wantCode(t, name, err, fault.Invalid)
		if f := fault.Public(err).Field; f != "userToken" {
			t.Errorf("%s: got field %q, want userToken", name, f)
		}
		if allocs > 20 {
			t.Errorf("%s: got %v allocations, want the size checked first", name, allocs)
		}
	}
	w.refused("16 KiB of dots", strings.Repeat(".", 16<<10), fault.Unauthenticated)
}

func FuzzVerifyUser(f *testing.F) {
	w := newWorld(f)
	good := w.jwt(nil)
	f.Add(good)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Fuzz(func(t *testing.T, jwt string) {
		u, err := w.VerifyUser(t.Context(), account, "agent-a", secret.New(jwt))
		if err == nil && jwt != good {
			t.Fatalf("%q was accepted as %q and is not the token that was signed", jwt, u.Subject)
		}
		if err != nil && fault.CodeOf(err) != fault.Unauthenticated && fault.CodeOf(err) != fault.Invalid {
			t.Fatalf("%q: got %v, want Unauthenticated or Invalid", jwt, err)
		}
	})
}
