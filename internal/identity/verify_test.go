package identity_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestVerifyUser_IsWhoTheTokenSays(t *testing.T) {
	w := newWorld(t)
	w.trust()
	for alg, key := range map[string]any{"PS256": w.idp.RSA, "ES256": w.idp.EC, "EdDSA": w.idp.Ed} {
		u := w.accepted(alg, jwstest.Sign(t, alg, nil, w.claims(nil), key))
		if want := (identity.User{Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}); u.User != want {
			t.Errorf("%s: got user %+v, want %+v", alg, u.User, want)
		}
	}
	w.refused("signed by a stranger", jwstest.Sign(t, "ES256", map[string]any{"kid": "ec"}, w.claims(nil), jwstest.Stranger(t)), fault.Unauthenticated)
}

// What is wrong with a token by itself is told in the words of this API.
func TestVerifyUser_Sentences(t *testing.T) {
	w := newWorld(t)
	w.trust()
	for jwt, want := range map[string]string{
		"":                               "the user token is empty",
		"a.b":                            "the user token is not a JWT: it must have three parts",
		"wat1.AAAA":                      "the user token is a workload access token: it needs a token of the user's identity provider",
		"a.b.c.d.e":                      "the user token is encrypted (JWE): have the identity provider issue signed tokens only (with Entra ID, remove confidential optional claims and token encryption)",
		w.jwt(map[string]any{"aud": 5}):  "the user token has a claim aud that is neither a string nor a list of strings",
		w.jwt(map[string]any{"iss": ""}): "the user token names no issuer of at most 1024 bytes",
		jwstest.Sign(t, "ES256", map[string]any{"kid": "next"}, w.claims(nil), w.idp.EC): "the user token is signed with a key that its issuer does not publish",
	} {
		_, err := w.verify(jwt)
		wantCode(t, want, err, fault.Unauthenticated)
		if got := fault.Public(err).Msg; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestA10_A12_NoHeaderCausesAFetch(t *testing.T) {
	w := newWorld(t)
	w.trust()
	for name, header := range map[string]string{
		"none": `{"alg":"none","kid":"rsa"}`, "HS256": `{"alg":"HS256","kid":"rsa"}`, "jku": `{"alg":"RS256","kid":"rsa","jku":"https://evil.example.com/jwks"}`,
		"x5u": `{"alg":"RS256","kid":"x","x5u":"https://evil.example.com/cert"}`, "jwk": `{"alg":"RS256","kid":"rsa","jwk":{}}`,
	} {
		payload := `{"iss":"` + issuerURL + `","sub":"alice","aud":"tabard"}`
		w.refused(name, jwstest.SignRaw(t, "RS256", header, payload, w.idp.RSA), fault.Unauthenticated)
	}
	if n := w.idp.fetches(); n != 0 {
		t.Errorf("got %d fetches of keys, want none before the header is accepted", n)
	}
}

func TestA13_KeyIDsNameNoAddress(t *testing.T) {
	w := newWorld(t)
	w.trust()
	for _, kid := range []string{"../../rsa", "https://evil.example.com/jwks", "rsa\x00", "RSA", strings.Repeat("k", 256)} {
		w.refused(fmt.Sprintf("kid %.20q", kid), jwstest.Sign(t, "RS256", map[string]any{"kid": kid}, w.claims(nil), w.idp.RSA), fault.Unauthenticated)
	}
	if w.idp.fetches() == 0 {
		t.Error("got no fetch of the issuer's keys: the key ids were not looked for")
	}
	for _, call := range w.idp.calls {
		if call != issuerURL+" " {
			t.Errorf("got a fetch of %q, want none but the issuer's", call)
		}
	}
}

func TestA16_NoTwoSubjectsBecomeOne(t *testing.T) {
	w := newWorld(t)
	w.trust()
	body := fmt.Sprintf(`{"iss":%q,"aud":"tabard","exp":%d,`, issuerURL, w.clock.now().Unix()+600)
	for name, sub := range map[string]string{
		"two subs": `"sub":"alice","sub":"bob"`, "half a surrogate": `"sub":"\ud800"`, "not UTF-8": "\"sub\":\"alice\xff\"", "sub in another case": `"Sub":"alice"`,
	} {
		w.refused(name, jwstest.SignRaw(t, "RS256", `{"alg":"RS256","kid":"rsa"}`, body+sub+`}`, w.idp.RSA), fault.Unauthenticated)
	}
	w.accepted("one sub", jwstest.SignRaw(t, "RS256", `{"alg":"RS256","kid":"rsa"}`, body+`"sub":"alice","SUB":"bob"}`, w.idp.RSA))
}

func TestA20_ALongTokenIsAnInvalidRequest(t *testing.T) {
	w := newWorld(t)
	for name, start := range map[string]string{"letters": "A", "workload access token": "wat1."} {
		text := secret.New(start + strings.Repeat("A", 10<<20))
		var err error
		allocs := testing.AllocsPerRun(3, func() { _, err = w.VerifyUser(t.Context(), account, "agent-a", text) })
		wantCode(t, name, err, fault.Invalid)
		if f := fault.Public(err); f.Field != "userToken" || f.Msg != "a user token is at most 16384 bytes long" {
			t.Errorf("%s: got field %q and %q, want userToken and its bound", name, f.Field, f.Msg)
		}
		if allocs > 20 {
			t.Errorf("%s: got %v allocations, want the size checked first", name, allocs)
		}
	}
}

func FuzzVerifyUser(f *testing.F) {
	w := newWorld(f)
	w.trust()
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
