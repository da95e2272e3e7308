package broker_test

import (
	"encoding/json"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// signed is a token of the users' issuer: alice's, with other claims.
func (w *world) signed(change map[string]any) string {
	w.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: issuerKey(), KeyID: "k1"}}, nil)
	must(w.t, err)
	now := w.clock.now()
	claims := map[string]any{"iss": issuerURL, "sub": "alice", "aud": "web", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(claims, change)
	doc, err := json.Marshal(claims)
	must(w.t, err)
	s, err := signer.Sign(doc)
	must(w.t, err)
	text, err := s.CompactSerialize()
	must(w.t, err)
	return text
}

// userCheck is what TestProvider says of a user's token. None of it may be the token.
func (w *world) userCheck(token string) broker.Check {
	w.t.Helper()
	w.clock.add(10 * time.Second) // the pause between tests
	checks, err := w.TestProvider(w.t.Context(), w.admin, "cal", secret.New(token))
	must(w.t, err)
	last := checks[len(checks)-1]
	if last.Name != "user-token" {
		w.t.Fatalf("got %+v", checks)
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 20 && strings.Contains(last.Detail, part) {
			w.t.Errorf("the detail %q has a piece of the token", last.Detail)
		}
	}
	if len(last.Detail) > 1000 || strings.ContainsAny(last.Detail, "\x1b\n\u009b") {
		w.t.Errorf("the detail %q is not bounded and clean", last.Detail)
	}
	return last
}

func TestTestProviderSaysWhatIsWrongWithAUserToken(t *testing.T) {
	w := newWorld(t)
	jwe := strings.Join([]string{"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ", "a2V5", "aXY", "Y2lwaGVydGV4dA", "dGFn"}, ".")
	for name, c := range map[string]struct{ token, want string }{
		"encrypted":         {jwe, "is encrypted (JWE): have the identity provider issue signed tokens only"},
		"another issuer":    {w.signed(map[string]any{"iss": "https://else.example"}), `is of the issuer "https://else.example", which is not trusted: those that are trusted: ` + issuerURL},
		"a slash more":      {w.signed(map[string]any{"iss": issuerURL + "/"}), "not trusted: the issuer " + issuerURL + " is trusted, and they are compared byte for byte"},
		"another audience":  {w.signed(map[string]any{"aud": "mobile", "azp": "app-7"}), `(aud "mobile", client "app-7"): the issuer allows the audiences "web" and the client ids ""`},
		"expired":           {w.signed(map[string]any{"exp": w.clock.now().Add(-time.Hour).Unix()}), "expired at "},
		"a broken one":      {w.signed(nil) + "AAAA", "signature"},
		"opaque":            {"4/0AbCd", "is not a JWT"},
		"a workload's":      {w.wat(w.agentA, "alice").Expose(), "is a workload access token"},
		"long":              {strings.Repeat("a", 17<<10), "at most 16384 bytes"},
		"an endless issuer": {w.signed(map[string]any{"iss": "https://" + strings.Repeat("x", 900) + "\x1b[2J.example"}), "which is not trusted"},
		"an endless aud":    {w.signed(map[string]any{"aud": strings.Repeat("x", 9000) + "\x1b[2J"}), "for another audience"},
	} {
		if got := w.userCheck(c.token); got.Status != broker.CheckFail || !strings.Contains(got.Detail, c.want) {
			t.Errorf("%s: got %s (%s), want fail with %q", name, got.Status, got.Detail, c.want)
		}
	}
	if got := w.userCheck(w.signed(nil)); got.Status != broker.CheckPass || !strings.Contains(got.Detail, `names the user "alice" of the issuer `+issuerURL) {
		t.Errorf("a good one: got %+v", got)
	}
	if _, err := w.TestProvider(t.Context(), w.agentA, "cal", w.jwt("alice")); fault.CodeOf(err) != fault.Denied {
		t.Errorf("by an agent: got %v", err)
	}
}

// Metadata is foreign text too.
func TestTestProviderBoundsWhatIsPublished(t *testing.T) {
	w := newWorld(t)
	w.provider.SetMetadata("issuer", "https://"+strings.Repeat("x", 5000)+"\x1b[2J")
	w.provider.SetMetadata("code_challenge_methods_supported", []string{strings.Repeat("p", 5000), "\u202eplain\x07"})
	checks, err := w.TestProvider(t.Context(), w.admin, "cal", secret.Text{})
	must(t, err)
	for _, c := range checks {
		if len(c.Detail) > 1000 || c.Detail == "" || strings.ContainsFunc(c.Detail, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: got a detail of %d bytes: %.100q", c.Name, len(c.Detail), c.Detail)
		}
	}
}

// An issuer that is for some agents only, one with a rule of claims, and one whose keys cannot be had.
func TestTestProviderReadsTheIssuersRow(t *testing.T) {
	w := newWorld(t)
	must(t, w.identity.DeleteIssuer(t.Context(), w.root, issuerURL))
	_, err := w.identity.CreateIssuer(t.Context(), w.root, identity.Issuer{
		URL: issuerURL, ClientIDs: []string{"web"}, JWKS: issuerJWKS(t), Workloads: []string{"agent-*"}, Claims: map[string]string{"tid": "contoso"},
	})
	must(t, err)
	if got := w.userCheck(w.signed(map[string]any{"azp": "web", "tid": "contoso"})); got.Status != broker.CheckPass || !strings.Contains(got.Detail, "for the workload identities agent-* only") {
		t.Errorf("got %+v", got)
	}
	if got := w.userCheck(w.signed(map[string]any{"azp": "web", "tid": "fabrikam"})); got.Status != broker.CheckFail || !strings.Contains(got.Detail, `the rule asks for "contoso"`) {
		t.Errorf("got %+v", got)
	}
	// What an agent reads of the same token names nothing of the row.
	_, err = w.identity.MintTokenForJWT(t.Context(), w.agentA, "agent-a", secret.New(w.signed(map[string]any{"azp": "else", "tid": "contoso"})))
	if msg := fault.Public(err).Msg; fault.CodeOf(err) != fault.Unauthenticated || strings.Contains(msg, `"web" and`) || strings.Contains(msg, "allows") {
		t.Errorf("the agent reads %q", msg)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	gone := "https://" + closed.Addr().String()
	_, err = w.identity.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: gone, ClientIDs: []string{"web"}})
	must(t, err)
	if got := w.userCheck(w.signed(map[string]any{"iss": gone, "azp": "web"})); got.Status != broker.CheckFail || strings.Contains(got.Detail, "dial") ||
		got.Hidden == nil || !strings.Contains(got.Hidden.Error(), "nothing listens there (dial tcp ") {
		t.Errorf("got %+v", got)
	}
}
