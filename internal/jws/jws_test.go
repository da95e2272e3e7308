package jws_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestVerify_AcceptsEachAlgorithm(t *testing.T) {
	d := newDesk(t)
	e384 := ok(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	e521 := ok(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))(t)
	d.publish(jwstest.Key(t, "rsa", &d.RSA.PublicKey, nil), jwstest.Key(t, "ec", &d.EC.PublicKey, map[string]any{"use": "sig", "alg": "ES256"}),
		jwstest.Key(t, "ed", d.Ed.Public(), map[string]any{"key_ops": []string{"verify"}, "alg": "Ed25519"}),
		jwstest.Key(t, "e384", &e384.PublicKey, nil), jwstest.Key(t, "e521", &e521.PublicKey, nil))
	for _, c := range []struct {
		alg, kid string
		key      any
	}{
		{"RS256", "rsa", d.RSA}, {"RS384", "rsa", d.RSA}, {"RS512", "rsa", d.RSA}, {"PS256", "rsa", d.RSA}, {"PS384", "rsa", d.RSA}, {"PS512", "rsa", d.RSA},
		{"ES256", "ec", d.EC}, {"ES384", "e384", e384}, {"ES512", "e521", e521}, {"EdDSA", "ed", d.Ed},
	} {
		token := jwstest.Sign(t, c.alg, map[string]any{"kid": c.kid, "typ": "JWT"}, good(nil), c.key)
		d.accepted(c.alg, token)
		i := strings.LastIndex(token, ".") + 5
		flip := "A"
		if token[i] == 'A' {
			flip = "B"
		}
		d.unverified(c.alg+" with a changed signature", token[:i]+flip+token[i+1:])
		p := strings.Split(token, ".")
		d.unverified(c.alg+" with another payload", p[0]+"."+jwstest.B64([]byte(text(t, good(map[string]any{"sub": "bob"}))))+"."+p[2])
	}
	// A token without a key id is for the one key that fits.
	d.accepted("no kid", jwstest.Sign(t, "EdDSA", nil, good(nil), d.Ed))
}

func TestVerify_NoSuchKey(t *testing.T) {
	d := newDesk(t)
	read := func(kid string) jws.Token {
		return ok(parse(jwstest.Sign(t, "RS256", map[string]any{"kid": kid}, good(nil), d.RSA)))(t)
	}
	for name, err := range map[string]error{"another id": read("next").Verify(d.set), "no set": read("rsa").Verify(jws.Set{})} {
		wantCode(t, name, err, fault.Unauthenticated)
		if !errors.Is(err, jws.ErrNoKey) || fault.Public(err).Msg != "the token is signed with a key that its issuer does not publish" {
			t.Errorf("%s: got %v, want the public sentence around ErrNoKey", name, err)
		}
	}
	if err := read("ec").Verify(d.set); errors.Is(err, jws.ErrNoKey) {
		t.Errorf("the id of a key that does not fit: got %v, want another version of the set not to be asked for", err)
	}
}

func TestA10_AlgNoneAndEmptySignature(t *testing.T) {
	d := newDesk(t)
	payload := text(t, good(nil))
	for _, alg := range []string{
		"none", "None", "NONE", "nOnE", "nonE", " none", "none ", "none\\u0000", "", "null", "RS256 ", "rs256", "Rs256", "HS256", "HS384",
		"HS512", "RSA-OAEP", "dir", "ES256K", "RS1", "A128KW", "Ed25519", "PBES2-HS256+A128KW",
	} {
		header := `{"alg":"` + alg + `","kid":"rsa","typ":"JWT"}`
		d.unread("alg "+alg+", no signature", jwstest.B64([]byte(header))+"."+jwstest.B64([]byte(payload))+".")
		d.unread("alg "+alg+", a signature", jwstest.SignRaw(t, "RS256", header, payload, d.RSA))
	}
	for _, header := range []string{`{"kid":"rsa"}`, `{"alg":null}`, `{"alg":["RS256"]}`, `{"alg":{}}`, `{"alg":1}`, `{"Alg":"RS256"}`} {
		d.unread(header, jwstest.SignRaw(t, "RS256", header, payload, d.RSA))
	}
	d.unread("empty signature", jwstest.B64([]byte(`{"alg":"RS256","kid":"rsa"}`))+"."+jwstest.B64([]byte(payload))+".")
}

func TestA11_AlgorithmIsBoundToTheKey(t *testing.T) {
	d := newDesk(t)
	der := ok(x509.MarshalPKIXPublicKey(&d.RSA.PublicKey))(t)
	for name, key := range map[string][]byte{
		"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "DER": der, "JWK": []byte(text(t, jwstest.Key(t, "rsa", &d.RSA.PublicKey, nil))),
		"PKCS1": x509.MarshalPKCS1PublicKey(&d.RSA.PublicKey), "modulus": d.RSA.N.Bytes(), "empty": {},
	} {
		d.unread("HS256 with the public key as "+name, jwstest.Sign(t, "HS256", map[string]any{"kid": "rsa"}, good(nil), key))
	}
	d.unverified("ES256 named, RSA key", jwstest.Sign(t, "ES256", map[string]any{"kid": "rsa"}, good(nil), d.EC))
	d.unverified("RS256 named, EC key", jwstest.Sign(t, "RS256", map[string]any{"kid": "ec"}, good(nil), d.RSA))
	d.unverified("ES384 named, P-256 key", jwstest.Sign(t, "ES384", map[string]any{"kid": "ec"}, good(nil), d.EC))
	// The issuer binds the key to one algorithm.
	d.publish(jwstest.Key(t, "bound", &d.RSA.PublicKey, map[string]any{"alg": "PS256"}))
	d.unverified("RS256 with a PS256 key", jwstest.Sign(t, "RS256", map[string]any{"kid": "bound"}, good(nil), d.RSA))
	d.accepted("PS256 with a PS256 key", jwstest.Sign(t, "PS256", map[string]any{"kid": "bound"}, good(nil), d.RSA))
}

func TestA12_KeysThatTheTokenBrings(t *testing.T) {
	d := newDesk(t)
	mallory := ok(rsa.GenerateKey(rand.Reader, 2048))(t)
	for name, value := range map[string]any{
		"jwk": jwstest.Key(t, "rsa", &mallory.PublicKey, nil), "jku": "https://evil.example.com/jwks", "x5u": "https://evil.example.com/cert", "x5c": []string{"MIIB"},
	} {
		d.unread("header "+name, d.sign(map[string]any{name: value}))
		d.unread("header "+name+", key of its own", jwstest.Sign(t, "RS256", map[string]any{"kid": "rsa", name: value}, good(nil), mallory))
	}
	// A thumbprint brings nothing: Entra ID sends x5t.
	d.accepted("x5t", d.sign(map[string]any{"x5t": "abc"}))
}

func TestA17_A18_HeadersThatChangeTheMeaning(t *testing.T) {
	d := newDesk(t)
	for name, value := range map[string]any{
		"crit": []string{"exp"}, "b64": false, "zip": "DEF", "enc": "A128GCM", "epk": map[string]any{}, "p2c": 1 << 31, "p2s": "AAAA", "cty": "JWT",
	} {
		d.unread("header "+name, d.sign(map[string]any{name: value}))
	}
	d.unread("crit and b64", d.sign(map[string]any{"crit": []string{"b64"}, "b64": false}))

	token := d.sign(nil)
	parts := strings.Split(token, ".")
	d.unread("JSON serialization", fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]))
	d.unread("nested", jwstest.SignRaw(t, "RS256", `{"alg":"RS256","kid":"rsa"}`, token, d.RSA))
	for _, typ := range []any{"logout+jwt", "secevent+jwt", "dpop+jwt", "application/logout+jwt", "JOSE", "at+jwt2", 1, nil} {
		d.unread(fmt.Sprintf("typ %v", typ), d.sign(map[string]any{"typ": typ}))
	}
	for typ, want := range map[string]string{"JWT": "jwt", "at+jwt": "at+jwt", "Application/AT+JWT": "at+jwt"} {
		if got := ok(parse(d.sign(map[string]any{"typ": typ})))(t).Type; got != want {
			t.Errorf("typ %s: got type %q, want %q", typ, got, want)
		}
	}
}

func TestA13_KeyIDsAreOpaque(t *testing.T) {
	d := newDesk(t)
	for _, kid := range []string{"../../rsa", "rsa' OR '1'='1", "https://evil.example.com/jwks", "rsa\x00", "RSA", " rsa", strings.Repeat("k", 256)} {
		d.unverified(fmt.Sprintf("kid %.20q", kid), d.sign(map[string]any{"kid": kid}))
	}
	for _, kid := range []any{strings.Repeat("k", 257), 1, true, nil, []string{"rsa"}} {
		d.unread(fmt.Sprintf("kid %.20v", kid), d.sign(map[string]any{"kid": kid}))
	}
}

func TestA15_StrictSignaturesAndBase64(t *testing.T) {
	d := newDesk(t)
	header, payload := `{"alg":"PS256","kid":"rsa"}`, text(t, good(nil))
	input := jwstest.B64([]byte(header)) + "." + jwstest.B64([]byte(payload))
	digest := crypto.SHA256.New()
	digest.Write([]byte(input))
	for _, salt := range []int{0, 20, 31, 33, 64, rsa.PSSSaltLengthAuto} {
		sig := ok(rsa.SignPSS(rand.Reader, d.RSA, crypto.SHA256, digest.Sum(nil), &rsa.PSSOptions{SaltLength: salt}))(t)
		d.unverified(fmt.Sprintf("PSS with a salt of %d", salt), input+"."+jwstest.B64(sig))
	}
	d.accepted("PSS with the salt of the hash", jwstest.SignRaw(t, "PS256", header, payload, d.RSA))

	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	ec := jwstest.Sign(t, "ES256", map[string]any{"kid": "ec"}, good(nil), d.EC)
	p := strings.Split(ec, ".")
	loose := alphabet[strings.IndexByte(alphabet, p[2][len(p[2])-1])+1]
	raw := ok(base64.RawURLEncoding.DecodeString(p[2]))(t)
	der := ok(d.EC.Sign(rand.Reader, digest.Sum(nil), crypto.SHA256))(t)
	for name, token := range map[string]string{
		"padded":            ec + "==",
		"padded header":     p[0] + "=." + p[1] + "." + p[2],
		"unused bits":       p[0] + "." + p[1] + "." + p[2][:len(p[2])-1] + string(loose),
		"standard alphabet": p[0] + "." + p[1] + "." + base64.RawStdEncoding.EncodeToString(append(raw[:63:63], 0xff)) + "/",
		"line break":        p[0] + "." + p[1] + "." + p[2][:10] + "\n" + p[2][10:],
		"carriage return":   p[0] + "." + p[1] + "\r." + p[2],
		"space before":      " " + ec,
		"space after":       ec + " ",
		"space inside":      p[0] + "." + p[1] + ". " + p[2],
		"Bearer":            "Bearer " + ec,
		"trailing dot":      ec + ".",
		"leading dot":       "." + ec,
		"two parts":         p[0] + "." + p[1],
		"empty":             "",
		"dots":              "..",
	} {
		d.unread(name, token)
	}
	d.unverified("DER signature", p[0]+"."+p[1]+"."+jwstest.B64(der))
	d.unverified("long signature", p[0]+"."+p[1]+"."+jwstest.B64(append(raw, 0)))
	d.accepted("unchanged", ec)
}

func TestA16_DuplicateMembers(t *testing.T) {
	d := newDesk(t)
	const body, header = `"aud":"tabard","exp":2000000000`, `{"alg":"RS256","kid":"rsa"}`
	for name, parts := range map[string][2]string{
		"two subs":           {header, `{` + body + `,"sub":"alice","sub":"bob"}`},
		"two subs, escaped":  {header, `{` + body + `,"sub":"alice","s\u0075b":"bob"}`},
		"two algs":           {`{"alg":"RS256","kid":"rsa","alg":"RS256"}`, `{` + body + `,"sub":"alice"}`},
		"two algs, one none": {`{"alg":"none","alg":"RS256","kid":"rsa"}`, `{` + body + `,"sub":"alice"}`},
		"two kids":           {`{"alg":"RS256","kid":"rsa","kid":"rsa"}`, `{` + body + `,"sub":"alice"}`},
		"two inside a claim": {header, `{` + body + `,"sub":"alice","act":{"sub":"x","sub":"y"}}`},
		"two objects":        {header, `{` + body + `,"sub":"alice"}{"sub":"bob"}`},
		"something follows":  {header, `{` + body + `,"sub":"alice"} x`},
		"an array":           {header, `[{` + body + `,"sub":"alice"}]`},
		"null":               {header, `null`},
		"not UTF-8":          {header, `{` + body + `,"sub":"alice` + "\xff" + `"}`},
		"not UTF-8, unused":  {header, `{` + body + `,"sub":"alice","note":"` + "\xff" + `"}`},
	} {
		d.unread(name, jwstest.SignRaw(t, "RS256", parts[0], parts[1], d.RSA))
	}
	// Names that differ in case are different.
	both := ok(parse(jwstest.SignRaw(t, "RS256", header, `{`+body+`,"sub":"alice","SUB":"bob"}`, d.RSA)))(t)
	if sub, _ := both.Claims.String("sub"); sub != "alice" {
		t.Errorf("got sub %q beside SUB, want alice", sub)
	}
	other := ok(parse(jwstest.SignRaw(t, "RS256", header, `{`+body+`,"Sub":"alice"}`, d.RSA)))(t)
	if _, found := other.Claims.String("sub"); found || other.Claims.Has("sub") {
		t.Error("the claim Sub was taken for sub")
	}
}

func TestA18_EncryptedTokensAreNamed(t *testing.T) {
	header := jwstest.B64([]byte(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AAAA","zip":"DEF"}`))
	start := time.Now()
	_, err := parse(header + ".AAAA.AAAA." + strings.Repeat("A", 10_000) + ".AAAA")
	wantCode(t, "JWE", err, fault.Unauthenticated)
	if took := time.Since(start); took > 100*time.Millisecond {
		t.Errorf("a JWE took %v, want no work to be done for it", took)
	}
	if msg := fault.Public(err).Msg; !strings.HasPrefix(msg, "the token is encrypted") || !strings.Contains(msg, "Entra") {
		t.Errorf("got %q, want a message that says it is encrypted and hints at Entra ID", msg)
	}
}

func TestA19_A20_SizeAndDepth(t *testing.T) {
	d := newDesk(t)
	const header = `{"alg":"RS256","kid":"rsa"}`
	deep := func(n int) string {
		return jwstest.SignRaw(t, "RS256", header, `{"a":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`}`, d.RSA)
	}
	d.unread("nested 5000 deep", deep(5000))
	d.unread("header nested 1000 deep", jwstest.SignRaw(t, "RS256", strings.Repeat(`{"alg":`, 1000)+`1`+strings.Repeat("}", 1000), `{}`, d.RSA))
	d.accepted("31 deep inside the payload", deep(31))
	d.unread("32 deep inside the payload", deep(32))
	d.accepted("quoted brackets are no depth", jwstest.Sign(t, "RS256", map[string]any{"kid": "rsa"}, good(map[string]any{"note": strings.Repeat(`[{\"`, 100)}), d.RSA))
	for name, token := range map[string]string{
		"1e6 brackets": "e30." + strings.Repeat("[", 1_000_000) + ".AA", "a million dots": strings.Repeat(".", 1_000_000), "10 MB": strings.Repeat("A", 10<<20),
		"one byte too long": strings.Repeat("A", jws.MaxSize+1),
	} {
		s := secret.New(token)
		var err error
		allocs := testing.AllocsPerRun(3, func() { _, err = jws.Parse("the token", s) })
		wantCode(t, name, err, fault.Invalid)
		if allocs > 10 {
			t.Errorf("%s: got %v allocations, want the size checked first", name, allocs)
		}
	}
	d.unread("16 KiB of dots", strings.Repeat(".", jws.MaxSize))
}

func FuzzVerify(f *testing.F) {
	d := newDesk(f)
	signed := d.sign(nil)
	f.Add(signed)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add(strings.Replace(signed, ".", "..", 1))
	f.Fuzz(func(t *testing.T, token string) {
		err := d.verify(token)
		if err == nil && token != signed {
			t.Fatalf("%q was accepted and is not the token that was signed", token)
		}
		if err != nil && fault.CodeOf(err) != fault.Unauthenticated && fault.CodeOf(err) != fault.Invalid {
			t.Fatalf("%q: got %v, want Unauthenticated or Invalid", token, err)
		}
	})
}
