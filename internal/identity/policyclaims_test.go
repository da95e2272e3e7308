package identity_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

func asking(names ...string) func(*identity.Issuer) {
	return func(i *identity.Issuer) { i.PolicyClaims = names }
}

// mintWith mints a token for the user's claims, changed, and opens it.
func (w *world) mintWith(change map[string]any) (identity.Token, error) {
	w.t.Helper()
	m, err := w.MintTokenForJWT(w.t.Context(), caller(access.Agent, "agent-a"), "agent-a", secret.New(w.jwt(change)))
	if err != nil {
		return identity.Token{}, err
	}
	t, _, err := w.OpenToken(w.t.Context(), account, m.Token)
	return t, err
}

func TestPolicyClaimsAreWhatTheIssuerAsksFor(t *testing.T) {
	w := newWorld(t)
	i := w.trust(asking("groups", "email", "hd", "acr"))
	w.workload("agent-a", nil)
	if len(i.PolicyClaims) != 4 {
		t.Errorf("the answer has %q", i.PolicyClaims)
	}
	for name, c := range map[string]struct {
		claims map[string]any
		want   string
	}{
		"none is there":          {nil, ""},
		"a text":                 {map[string]any{"email": "alice@example.com"}, `{"email":"alice@example.com"}`},
		"a list":                 {map[string]any{"groups": []string{"a", "b"}}, `{"groups":["a","b"]}`},
		"an empty list":          {map[string]any{"groups": []string{}}, `{"groups":[]}`},
		"numbers and a boolean":  {map[string]any{"acr": 2, "hd": true, "groups": []any{1.5, false}}, `{"acr":2,"groups":[1.5,false],"hd":true}`},
		"an empty text":          {map[string]any{"hd": ""}, `{"hd":""}`},
		"nobody asked":           {map[string]any{"Groups": []string{"a"}, "name": "Alice", "acr": "1"}, `{"acr":"1"}`},
		"an object":              {map[string]any{"groups": map[string]any{"a": true}, "acr": "1"}, `{"acr":"1"}`},
		"other things in a list": {map[string]any{"groups": []any{"a", nil, map[string]any{"b": 1}, []string{"c"}, "d"}}, `{"groups":["a","d"]}`},
		"as they are":            {map[string]any{"hd": "<b> & \"é\" 😀"}, `{"hd":"<b> & \"é\" 😀"}`},
	} {
		token, err := w.mintWith(c.claims)
		if err != nil || token.Claims != c.want || token.UserFacts().Claims != c.want {
			t.Errorf("%s: got %s and %v, want %s", name, token.Claims, err, c.want)
		}
	}
	null := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":"tabard","exp":%d,"hd":null,"acr":1e2}`, issuerURL, w.clock.now().Unix()+600)
	m := ok(w.MintTokenForJWT(t.Context(), caller(access.Agent, "agent-a"), "agent-a", secret.New(jwstest.SignRaw(t, "RS256", `{"alg":"RS256","kid":"rsa"}`, null, w.idp.RSA))))(t)
	if token, _, err := w.OpenToken(t.Context(), account, m.Token); err != nil || token.Claims != `{"acr":1e2}` {
		t.Errorf("null, and a number with an exponent: got %s, %v", token.Claims, err)
	}
}

// What policies are told stays what the user's issuer said: no more than fits is taken, and none is cut away.
func TestPolicyClaimsHaveABound(t *testing.T) {
	w := newWorld(t)
	long := "https://idp.example.com/" + strings.Repeat("p", 1000)
	w.trust(asking("groups", "hd"), func(i *identity.Issuer) { i.URL = long })
	w.workload("agent-a", nil)
	const most, around = 2048, len(`{"groups":["g-canary",""],"hd":"x"}`)
	groups := func(n int) map[string]any {
		return map[string]any{"iss": long, "sub": strings.Repeat("é", 255), "hd": "x", "groups": []string{"g-canary", strings.Repeat("g", n-around)}}
	}
	token, err := w.mintWith(groups(most))
	if err != nil || len(token.Claims) != most {
		t.Fatalf("the most, with the longest issuer and subject: got %d bytes, %v", len(token.Claims), err)
	}
	_, err = w.mintWith(groups(most + 1))
	wantCode(t, "one byte more", err, fault.Unauthenticated)
	if msg := fault.Public(err).Msg; !strings.Contains(msg, "claim hd") || !strings.Contains(msg, "2048 bytes") {
		t.Errorf("the refusal says %q, want the claim and the bound", msg)
	}
	_, err = w.mintWith(groups(3 * most))
	if msg := fault.Public(err).Msg; !strings.Contains(msg, "claim groups") {
		t.Errorf("the refusal says %q, want the claim", msg)
	}
	// It is for the token alone: the same user may still consent.
	if _, err := w.verify(w.jwt(groups(most + 1))); err != nil {
		t.Errorf("verified for something else: %v", err)
	}
	_, _, err = w.ExamineUser(t.Context(), account, secret.New(w.jwt(groups(most+1))))
	wantCode(t, "examined", err, fault.Unauthenticated)

	refused := 0
	for _, r := range w.records() {
		if text := fmt.Sprintf("%+v", r); strings.Contains(text, "g-canary") || strings.Contains(text, "gggg") {
			t.Errorf("a record has the user's claims: %s", text)
		}
		if r.Facts.Outcome == "refused" && strings.Contains(r.Facts.Detail, "2048 bytes") {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("%d records say why the mint was refused, want 2", refused)
	}
}

func TestPolicyClaimsGoThrough(t *testing.T) {
	w := newWorld(t)
	w.trust(asking("groups"))
	w.workload("agent-a", nil)
	w.workload("agent-b", nil)
	m := ok(w.MintTokenForJWT(t.Context(), caller(access.Agent, "agent-a"), "agent-a", secret.New(w.jwt(map[string]any{"groups": []string{"a", "b"}}))))(t)
	got := ok(w.MintTokenThrough(t.Context(), caller(access.Agent, "agent-b"), m.Token, "agent-b"))(t)
	token, _, err := w.OpenToken(t.Context(), account, got.Token)
	if err != nil || token.UserFacts().Claims != `{"groups":["a","b"]}` {
		t.Errorf("the sub-agent's token has %s, %v", token.Claims, err)
	}
}

func TestPolicyClaimNames(t *testing.T) {
	w := newWorld(t)
	many := make([]string, 21)
	for n := range many {
		many[n] = fmt.Sprint("claim-", n)
	}
	for name, names := range map[string][]string{
		"too many": many, "twice": {"groups", "hd", "groups"}, "empty": {""}, "too long": {strings.Repeat("a", 129)}, "a control character": {"a\x00b"}, "no UTF-8": {"\xff"},
		"jti": {"jti"}, "nonce": {"groups", "nonce"}, "exp": {"exp"}, "iat": {"iat"}, "nbf": {"nbf"}, "at_hash": {"at_hash"}, "c_hash": {"c_hash"}, "s_hash": {"s_hash"},
	} {
		i := identity.Issuer{URL: issuerURL, Audiences: []string{"tabard"}, PolicyClaims: names}
		_, err := w.CreateIssuer(t.Context(), w.root, i)
		if f := fault.Public(err); f == nil || f.Code != fault.Invalid || f.Field != "policyClaims" {
			t.Errorf("%s: got %v, want policyClaims to be invalid", name, err)
		}
		config := w.config
		config.Issuers = []identity.Issuer{i}
		if _, err := identity.New(config); err == nil {
			t.Errorf("%s: accepted from the configuration file", name)
		}
	}
	names := []string{strings.Repeat("a", 128), "https://example.com/roles", "cognito:groups", "Groups", "groups"}
	w.trust(asking(append(names, many[:15]...)...))
	listed, _, err := w.ListIssuers(t.Context(), w.root, "", 10)
	if err != nil || len(listed) != 1 || len(listed[0].PolicyClaims) != 20 {
		t.Errorf("listed: %+v, %v", listed, err)
	}
}

// An issuer of the configuration file asks as one of the database does.
func TestPolicyClaimsOfTheConfiguration(t *testing.T) {
	w := newWorld(t, func(c *identity.Config) {
		c.Issuers = []identity.Issuer{{URL: issuerURL, Audiences: []string{"tabard"}, PolicyClaims: []string{"acr"}}}
	})
	w.workload("agent-a", nil)
	if token, err := w.mintWith(map[string]any{"acr": "urn:mfa"}); err != nil || token.Claims != `{"acr":"urn:mfa"}` {
		t.Errorf("got %s, %v", token.Claims, err)
	}
}
