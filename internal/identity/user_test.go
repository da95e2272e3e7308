package identity_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestA06_AudienceOrClient(t *testing.T) {
	w := newWorld(t)
	w.trust(func(i *identity.Issuer) { i.Audiences, i.ClientIDs = []string{"tabard", "api"}, []string{"web-app"} })
	for name, c := range map[string]map[string]any{
		"aud":                             nil,
		"aud in a list":                   {"aud": []string{"else", "api"}},
		"Cognito access token":            {"aud": nil, "client_id": "web-app", "token_use": "access"},
		"Keycloak access token":           {"aud": "account", "azp": "web-app", "typ": "Bearer"},
		"ID token of the client":          {"aud": "web-app", "nonce": "n"},
		"ID token, list":                  {"aud": []string{"web-app", "x"}, "azp": "web-app", "nonce": "n"},
		"right aud, other client":         {"client_id": "else"},
		"client_id that no list has, azp": {"aud": nil, "client_id": "else", "azp": "web-app"},
	} {
		w.accepted(name, w.jwt(c))
	}
	for name, c := range map[string]map[string]any{
		"other aud":                  {"aud": "other-app"},
		"other aud, list":            {"aud": []string{"x", "y"}},
		"none of the three":          {"aud": nil},
		"empty list":                 {"aud": []string{}},
		"empty aud":                  {"aud": ""},
		"aud null":                   {"aud": []any{nil}},
		"aud a number":               {"aud": 5},
		"aud a list with a number":   {"aud": []any{"tabard", 5}},
		"aud an object":              {"aud": map[string]any{"tabard": true}},
		"aud in another case":        {"aud": "Tabard"},
		"aud with a space":           {"aud": "tabard "},
		"audiences in one string":    {"aud": "tabard api"},
		"other client":               {"aud": nil, "client_id": "else"},
		"client_id a list":           {"aud": nil, "client_id": []string{"web-app"}},
		"client_id a list, good aud": {"client_id": []string{"web-app"}},
		"aud is the client, no ID":   {"aud": "web-app"},
		"audience as client_id":      {"aud": nil, "client_id": "tabard"},
	} {
		w.refused(name, w.jwt(c), fault.Unauthenticated)
	}
}

func TestA07_TokenUse(t *testing.T) {
	access := map[string]map[string]any{
		"Cognito": {"token_use": "access"}, "Keycloak": {"typ": "Bearer"}, "scope": {"scope": "openid"}, "scp": {"scp": []string{"a"}},
		"Keycloak with nonce": {"typ": "Bearer", "nonce": "n"},
	}
	id := map[string]map[string]any{
		"Cognito": {"token_use": "id"}, "Keycloak": {"typ": "ID"}, "nonce": {"nonce": "n"}, "at_hash": {"at_hash": "h"}, "c_hash": {"c_hash": "h"},
	}
	unclear := map[string]map[string]any{
		"nothing": {}, "both names": {"token_use": "id", "typ": "Bearer"}, "both marks": {"nonce": "n", "scope": "a"}, "token_use else": {"token_use": "refresh"},
	}
	for _, use := range []identity.TokenUse{identity.UseAny, identity.UseAccess, identity.UseID} {
		t.Run(string(use), func(t *testing.T) {
			w := newWorld(t)
			w.trust(func(i *identity.Issuer) { i.TokenUse = use })
			check := func(kind string, tokens map[string]map[string]any, good bool) {
				t.Helper()
				for name, c := range tokens {
					if good {
						w.accepted(kind+" token, "+name, w.jwt(c))
					} else {
						w.refused(kind+" token, "+name, w.jwt(c), fault.Unauthenticated)
					}
				}
			}
			check("access", access, use != identity.UseID)
			check("ID", id, use != identity.UseAccess)
			check("unclear", unclear, use == identity.UseAny)

			typed := jwstest.Sign(t, "RS256", map[string]any{"kid": "rsa", "typ": "at+jwt"}, w.claims(nil), w.idp.RSA)
			if _, err := w.verify(typed); (err == nil) != (use != identity.UseID) {
				t.Errorf("at+jwt: got %v", err)
			}
			crossed := jwstest.Sign(t, "RS256", map[string]any{"kid": "rsa", "typ": "application/at+jwt"}, w.claims(map[string]any{"token_use": "id"}), w.idp.RSA)
			if _, err := w.verify(crossed); (err == nil) != (use == identity.UseAny) {
				t.Errorf("at+jwt that says it is an ID token: got %v", err)
			}
		})
	}
}

func TestA08_SameSubjectOfTwoIssuers(t *testing.T) {
	w := newWorld(t)
	w.trust()
	const second = issuerURL + "2"
	w.trust(func(i *identity.Issuer) { i.URL = second })
	a := w.accepted("first", w.jwt(nil))
	b := w.accepted("second", w.jwt(map[string]any{"iss": second}))
	if a.User == b.User {
		t.Errorf("got one user %+v for the subject of two issuers", a.User)
	}
	ra, rb := ok(w.UserRef(t.Context(), account, a.User))(t), ok(w.UserRef(t.Context(), account, b.User))(t)
	if ra == rb || len(ra) != 64 {
		t.Errorf("got references %s and %s, want two of 64 digits", ra, rb)
	}
	// Each issuer has keys of its own.
	if want := []string{issuerURL + " ", second + " "}; !slices.Equal(w.idp.calls, want) {
		t.Errorf("got fetches %q, want %q", w.idp.calls, want)
	}
}

func TestA09_IssuerIsComparedByteForByte(t *testing.T) {
	w := newWorld(t)
	w.trust()
	for _, iss := range []any{
		issuerURL + "/", "HTTPS://idp.example.com/realms/a", "https://IDP.example.com/realms/a", "https://idp.example.com:443/realms/a",
		"https://idp.example.com./realms/a", "https://user@idp.example.com/realms/a", "https://idp.example.com/realms/./a", issuerURL + "?x", issuerURL + "#",
		" " + issuerURL, issuerURL + "\x00", "https://idp.example.com/realms/%61", "https://idp.example.com/realms/\u0430", "http://idp.example.com/realms/a",
		"", nil, 5, []string{issuerURL}, strings.Repeat("a", 5000),
	} {
		w.refused(fmt.Sprintf("iss %.60v", iss), w.jwt(map[string]any{"iss": iss}), fault.Unauthenticated)
	}
	w.accepted("the same bytes", w.jwt(nil))
}

func TestA21_Times(t *testing.T) {
	w := newWorld(t)
	w.trust()
	now := w.clock.now().Unix()
	token := func(exp, rest string) string {
		p := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":"tabard"%s%s}`, issuerURL, exp, rest)
		return jwstest.SignRaw(t, "RS256", `{"alg":"RS256","kid":"rsa"}`, p, w.idp.RSA)
	}
	num := func(n int64) string { return fmt.Sprint(n) }
	in := func(s int64) string { return `,"exp":` + num(now+s) }
	for name, jwt := range map[string]string{
		"no exp": token("", ""), "exp in ms": token(`,"exp":`+num((now+60)*1000), ""), "exp a string": token(`,"exp":"`+num(now+60)+`"`, ""),
		"exp null":      token(`,"exp":null`, ""),
		"past the skew": token(in(-60), ""), "long past": token(in(-3600), ""),
		"iat in the future": token(in(600), `,"iat":`+num(now+61)), "nbf in the future": token(in(600), `,"nbf":`+num(now+61)), "iat in ms": token(in(600), `,"iat":`+num(now*1000)),
		"nbf a string": token(in(600), `,"nbf":"1"`), "auth_time in the future": token(in(600), `,"auth_time":`+num(now+61)), "auth_time a string": token(in(600), `,"auth_time":"x"`),
		"lives too long": token(in(24*3600+61), `,"iat":`+num(now)), "lives too long, no iat": token(in(24*3600+61), ""), "issued long ago": token(in(60), `,"iat":`+num(now-24*3600-60)),
	} {
		w.refused(name, jwt, fault.Unauthenticated)
	}
	for name, jwt := range map[string]string{
		"within the skew": token(in(-59), ""), "fraction": token(`,"exp":`+num(now+60)+".5", ""), "iat within the skew": token(in(600), `,"iat":`+num(now+60)),
		"nbf within the skew": token(in(600), `,"nbf":`+num(now+60)), "a day": token(in(24*3600), `,"iat":`+num(now)), "auth_time": token(in(600), `,"auth_time":`+num(now-5)),
	} {
		w.accepted(name, jwt)
	}
	u := w.accepted("times", token(in(600), `,"auth_time":`+num(now-5)))
	if !u.Expires.Equal(time.Unix(now+600, 0)) || !u.AuthTime.Equal(time.Unix(now-5, 0)) {
		t.Errorf("got expiry %v and auth_time %v, want now+600 s and now-5 s", u.Expires, u.AuthTime)
	}
}

func TestVerifyUser_SubjectRulesAndWorkloads(t *testing.T) {
	w := newWorld(t)
	w.trust(func(i *identity.Issuer) {
		i.SubjectClaim = "oid"
		i.Claims = map[string]string{"tid": "tenant-1", "email_verified": "true", "level": "2"}
		i.Workloads = []string{"agent-*"}
	})
	good := map[string]any{"oid": "o-1", "tid": "tenant-1", "email_verified": true, "level": 2}
	with := func(k string, v any) map[string]any {
		c := map[string]any{k: v}
		for name, value := range good {
			if name != k {
				c[name] = value
			}
		}
		return c
	}
	if u := w.accepted("good", w.jwt(good)); u.Subject != "o-1" {
		t.Errorf("got subject %q, want the claim oid", u.Subject)
	}
	w.accepted("255 characters", w.jwt(with("oid", strings.Repeat("ä", 255))))
	for name, c := range map[string]map[string]any{
		"no oid": with("oid", nil), "empty oid": with("oid", ""), "oid a number": with("oid", 7), "oid too long": with("oid", strings.Repeat("a", 256)),
		"control character": with("oid", "a\nb"), "NUL": with("oid", "a\x00"), "C1 control": with("oid", "a\u0085"), "replacement character": with("oid", "a\ufffd"),
		"no tid": with("tid", nil), "other tid": with("tid", "tenant-2"), "tid in another case": with("tid", "Tenant-1"), "tid in a list": with("tid", []string{"tenant-1"}),
		"not verified": with("email_verified", false), "level 20": with("level", 20), "level null": with("level", []any{}),
	} {
		w.refused(name, w.jwt(c), fault.Unauthenticated)
	}
	if _, err := w.VerifyUser(t.Context(), account, "robot", secret.New(w.jwt(good))); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("a workload identity that the issuer is not trusted for: got %v", err)
	}
	if _, err := w.VerifyUser(t.Context(), other, "agent-a", secret.New(w.jwt(good))); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("another account, which does not trust the issuer: got %v", err)
	}
}

func TestVerifyUser_RulesAreNotToldToForgers(t *testing.T) {
	w := newWorld(t)
	w.trust()
	forged := jwstest.Sign(t, "ES256", map[string]any{"kid": "ec"}, w.claims(map[string]any{"aud": "guess"}), jwstest.Stranger(t))
	_, err := w.verify(forged)
	if msg := fault.Public(err).Msg; !strings.Contains(msg, "signature") {
		t.Errorf("got %q, want nothing but that the signature is wrong", msg)
	}
}

func TestVerifyUser_DevTrustsLoopback(t *testing.T) {
	dev := newWorld(t, func(c *identity.Config) { c.Dev = true })
	for _, iss := range []string{"http://127.0.0.1:9000", "http://localhost:9000/realms/x", "http://[::1]:1", "https://127.3.4.5"} {
		dev.accepted(iss, dev.jwt(map[string]any{"iss": iss, "aud": "anything"}))
		dev.accepted(iss, dev.jwt(map[string]any{"iss": iss, "aud": nil}))
	}
	for _, iss := range []string{
		"http://127.0.0.1.evil.com", "http://localhost.evil.com", "http://127.1:9000", "http://2130706433", "http://user@127.0.0.1", "http://evil.com#@127.0.0.1",
		"http://[::ffff:127.0.0.1]", "http://0.0.0.0", "https://idp.example.com", "ftp://127.0.0.1", "127.0.0.1", "http://LOCALHOST",
	} {
		dev.refused(iss, dev.jwt(map[string]any{"iss": iss}), fault.Unauthenticated)
	}
	plain := newWorld(t)
	plain.refused("without --dev", plain.jwt(map[string]any{"iss": "http://127.0.0.1:9000"}), fault.Unauthenticated)
	// A registered issuer keeps its rules in dev mode.
	dev.trust(func(i *identity.Issuer) { i.URL = "http://127.0.0.1:7000" })
	dev.refused("registered, other audience", dev.jwt(map[string]any{"iss": "http://127.0.0.1:7000", "aud": "x"}), fault.Unauthenticated)
}

func TestA04_NamespacesAreDisjoint(t *testing.T) {
	w := newWorld(t)
	users := []identity.User{
		{Kind: identity.UIDUser, Subject: "iss|sub"}, {Kind: identity.JWTUser, Issuer: "iss", Subject: "sub"}, {Kind: identity.JWTUser, Issuer: "iss|", Subject: "sub"},
		{Kind: identity.JWTUser, Issuer: "iss", Subject: "|sub"}, {Kind: identity.JWTUser, Issuer: "is", Subject: "ssub"}, {Kind: identity.UIDUser, Subject: "\x00\x00\x00\x03iss\x00\x00\x00\x03sub"},
		{Kind: identity.JWTUser, Issuer: "x", Subject: "\x00\x00\x00\x01b"}, {Kind: identity.JWTUser, Issuer: "x\x00\x00\x00\x05", Subject: "b"},
		{Kind: identity.UIDUser, Subject: "jwt:iss:sub"}, {Kind: identity.UIDUser, Subject: "\u00e9"}, {Kind: identity.UIDUser, Subject: "e\u0301"},
	}
	seen := map[string]identity.User{}
	for _, u := range users {
		ref := ok(w.UserRef(t.Context(), account, u))(t)
		if v, dup := seen[ref]; dup {
			t.Errorf("%+v and %+v have one reference", u, v)
		}
		seen[ref] = u
		if elsewhere := ok(w.UserRef(t.Context(), other, u))(t); elsewhere == ref {
			t.Errorf("%+v has one reference in two accounts", u)
		}
	}
	if ref := ok(w.UserRef(t.Context(), account, identity.User{}))(t); ref != "" {
		t.Errorf("no user: got reference %q, want none", ref)
	}
	for _, id := range []string{"", "a\x00b", "a\nb", "\xff", "a\ufffd", strings.Repeat("a", 129)} {
		_, err := identity.AssertedUser(id)
		wantCode(t, fmt.Sprintf("user id %.20q", id), err, fault.Invalid)
	}
	ok(identity.AssertedUser(strings.Repeat("ü", 128)))(t)
}

func FuzzA04_Namespaces(f *testing.F) {
	w := newWorld(f)
	f.Add("iss", "sub", "iss|sub")
	f.Add("a", "b", "\x00\x00\x00\x01a\x00\x00\x00\x01b")
	f.Add("", "x", "x")
	f.Fuzz(func(t *testing.T, iss, sub, id string) {
		ref := func(u identity.User) string { return ok(w.UserRef(t.Context(), account, u))(t) }
		proven := ref(identity.User{Kind: identity.JWTUser, Issuer: iss, Subject: sub})
		if proven == ref(identity.User{Kind: identity.UIDUser, Subject: id}) {
			t.Fatalf("the asserted id %q reaches the user (%q, %q)", id, iss, sub)
		}
		if id != "" && proven == ref(identity.User{Kind: identity.JWTUser, Issuer: iss + id, Subject: sub}) {
			t.Fatalf("(%q, %q) and the same with %q after the issuer have one reference", iss, sub, id)
		}
		if sub != "" && proven == ref(identity.User{Kind: identity.JWTUser, Issuer: iss + sub[:1], Subject: sub[1:]}) {
			t.Fatalf("(%q, %q) and the same cut one byte later have one reference", iss, sub)
		}
	})
}
