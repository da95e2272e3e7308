package e2e_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

const (
	workloadTokenType = "urn:tabard:params:oauth:token-type:workload-access-token"
	accessTokenType   = "urn:ietf:params:oauth:token-type:access_token"
	tokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange"
	reports           = "https://reports.example.com"
)

// form sends a form to an endpoint of OAuth with the access key as user and password.
func (w *world) form(k key, path string, f url.Values) reply {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.server.URL()+path, strings.NewReader(f.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(k.ID), url.QueryEscape(k.Secret))
	return do(w.t, r)
}

// exchanging is the form that asks for a token for an audience.
func exchanging(wat, audience string, change ...string) url.Values {
	f := url.Values{"grant_type": {tokenExchange}, "subject_token": {wat}, "subject_token_type": {workloadTokenType}, "audience": {audience}}
	for i := 0; i < len(change); i += 2 {
		if f.Del(change[i]); change[i+1] != "" {
			f.Set(change[i], change[i+1])
		}
	}
	return f
}

// external exchanges a workload access token for one for an audience.
func (w *world) external(k key, wat, audience string, change ...string) reply {
	w.t.Helper()
	r := w.form(k, "/oauth2/token", exchanging(wat, audience, change...))
	if r.status != http.StatusOK {
		w.t.Fatalf("the exchange answered %d %s", r.status, r.body)
	}
	return r
}

// propagated exchanges an agent's workload access token for one of another agent's.
func (w *world) propagated(k key, wat, workload string) string {
	w.t.Helper()
	r := w.external(k, wat, workload, "requested_token_type", workloadTokenType)
	if r.get("issued_token_type") != workloadTokenType || r.get("token_type") != "N_A" {
		w.t.Errorf("got %s", r.body)
	}
	return r.get("access_token")
}

// active introspects a token, and returns what is said of it; nil where it is inactive.
func (w *world) active(k key, token string) map[string]any {
	w.t.Helper()
	r := w.form(k, "/oauth2/introspect", url.Values{"token": {token}})
	var out map[string]any
	if err := json.Unmarshal([]byte(r.body), &out); err != nil || r.status != http.StatusOK {
		w.t.Fatalf("introspection answered %d %s", r.status, r.body)
	}
	if out["active"] == true {
		return out
	}
	if len(out) != 1 || out["active"] != false {
		w.t.Errorf("of an inactive token it says %s", r.body)
	}
	return nil
}

// agents is a world with a chain of two agents and an application, alice logged in.
func agents(t *testing.T, db string, change ...func(*daemon.Config)) (w *world, first, second key) {
	w = newWorld(t, db, change...)
	w.trust()
	w.workload("planner")
	w.workload("booker")
	return w, w.principal("planner", "planner", "agent"), w.principal("booker", "booker", "agent")
}

func arnOf(workload string) string {
	return "arn:aws:bedrock-agentcore:" + daemon.DefaultRegion + ":" + daemon.DefaultAccount + ":workload-identity-directory/default/workload-identity/" + workload
}

// issuer is the issuer of the tokens that the home account makes for others.
func (w *world) issuer() string { return w.server.PublicURL() + "/accounts/" + daemon.DefaultAccount }

// TestExchange follows a user's token from the planner over the booker to a service that verifies what it gets with an
// OpenID Connect library and knows nothing of the server but its address.
func TestExchange(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w, planner, booker := agents(t, db)
		wat := w.wat(planner, "planner", w.login("alice"))
		own := w.propagated(booker, wat, "booker")
		if own == wat || !strings.HasPrefix(own, "wat1.") {
			t.Fatalf("the booker got %.12q", own)
		}
		answer := w.external(booker, own, reports, "scope", "read write")
		if answer.get("issued_token_type") != accessTokenType || answer.get("token_type") != "Bearer" || answer.get("scope") != "read write" ||
			answer.header.Get("Cache-Control") != "no-store" || answer.header.Get("Pragma") != "no-cache" || answer.header.Get("X-Amzn-Requestid") == "" {
			t.Errorf("got %s %v", answer.body, answer.header)
		}
		provider, err := oidc.NewProvider(t.Context(), w.issuer())
		if err != nil {
			t.Fatal(err)
		}
		token, err := provider.VerifierContext(t.Context(), &oidc.Config{ClientID: reports}).Verify(t.Context(), answer.get("access_token"))
		if err != nil {
			t.Fatal(err)
		}
		var claims map[string]any
		if err := token.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		if life := token.Expiry.Sub(token.IssuedAt); life > 10*time.Minute || life <= 0 {
			t.Errorf("it lives %s", life)
		}
		act := map[string]any{"sub": arnOf("booker"), "iss": w.issuer(), "act": map[string]any{"sub": arnOf("planner"), "iss": w.issuer()}}
		for name, want := range map[string]any{"aud": reports, "client_id": arnOf("booker"), "scope": "read write", "account": daemon.DefaultAccount, "act": act, "assurance": "verified"} {
			if !reflect.DeepEqual(claims[name], want) {
				t.Errorf("%s is %v, want %v", name, claims[name], want)
			}
		}
		if strings.Contains(token.Subject, "alice") || token.Subject == "" {
			t.Errorf("the subject is %q", token.Subject)
		}
		w.pairwise(booker, own, provider, token.Subject)

		said := w.active(planner, answer.get("access_token"))
		for _, name := range []string{"iss", "sub", "aud", "client_id", "scope", "exp", "iat", "jti", "act", "account"} {
			if !reflect.DeepEqual(said[name], claims[name]) {
				t.Errorf("introspection says %s is %v, the token %v", name, said[name], claims[name])
			}
		}
		w.dies(booker, own)
	})
}

// pairwise wants the user's subject to be the same for one audience, and another for each.
func (w *world) pairwise(k key, wat string, provider *oidc.Provider, subject string) {
	w.t.Helper()
	for audience, same := range map[string]bool{reports: true, reports + "/": false, "inventory": false} {
		token, err := provider.VerifierContext(w.t.Context(), &oidc.Config{ClientID: audience}).Verify(w.t.Context(), w.external(k, wat, audience).get("access_token"))
		if err != nil {
			w.t.Fatal(err)
		}
		if (token.Subject == subject) != same {
			w.t.Errorf("%s knows the user as %s, %s as %s", audience, token.Subject, reports, subject)
		}
	}
}

// dies revokes an exchanged token each way there is.
func (w *world) dies(k key, wat string) {
	w.t.Helper()
	fresh := func() string { return w.external(k, wat, reports).get("access_token") }
	one, other := fresh(), fresh()
	if r := w.form(k, "/oauth2/revoke", url.Values{"token": {one}}); r.status != http.StatusOK || r.body != "" {
		w.t.Errorf("revoke answered %d %s", r.status, r.body)
	}
	if w.active(k, one) != nil || w.active(k, other) == nil {
		w.t.Error("revoking one token did not end it, or ended another")
	}
	for _, token := range []string{one, "nonsense", other[:len(other)-8] + "AAAAAAAA"} {
		if r := w.form(k, "/oauth2/revoke", url.Values{"token": {token}}); r.status != http.StatusOK {
			w.t.Errorf("revoking what is none answered %d %s", r.status, r.body)
		}
	}
	if r := w.form(k, "/oauth2/revoke", url.Values{"token": {wat}}); r.status != http.StatusBadRequest || r.get("error") != "unsupported_token_type" {
		w.t.Errorf("revoking a workload access token answered %d %s", r.status, r.body)
	}
	ended := func(what string) {
		w.t.Helper()
		if !eventually(2*time.Second, func() bool { return w.active(k, other) == nil }) {
			w.t.Errorf("%s: the token is active two seconds later", what)
		}
	}
	w.call(root(), "DisableWorkloadIdentity", map[string]any{"name": "planner"}) // which it only came through
	ended("an agent of its chain is disabled")
	if r := w.form(k, "/oauth2/token", exchanging(wat, reports)); r.status != http.StatusBadRequest || r.get("error") != "invalid_request" {
		w.t.Errorf("and the exchange of a token that came through it answered %d %s", r.status, r.body)
	}
	w.call(root(), "EnableWorkloadIdentity", map[string]any{"name": "planner"})
}

// TestH08_RevokedSigningKeyDrill is the drill of a stolen key over the wire, on two replicas: one call, and within a
// minute (here seconds) neither publishes it, and tokens of it are inactive on both.
func TestH08_RevokedSigningKeyDrill(t *testing.T) {
	w, planner, _ := agents(t, peer.Postgres(t))
	two := w.replica()
	wat := w.wat(planner, "planner", w.login("alice"))
	stolen := w.external(planner, wat, reports).get("access_token")
	kids := func(w *world) string {
		return page(t, http.MethodGet, w.server.URL()+"/accounts/"+daemon.DefaultAccount+"/oauth2/jwks").body
	}
	before := kids(two)
	if two.active(planner, stolen) == nil || before != kids(w) {
		t.Fatal("the replicas differ before the drill")
	}
	keys := w.call(root(), "ListSigningKeys", map[string]any{})
	var listed struct {
		Keys []struct{ KeyID, Purpose, Status string }
	}
	if err := json.Unmarshal([]byte(keys.body), &listed); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(listed.Keys, func(k struct{ KeyID, Purpose, Status string }) bool {
		return k.Purpose == "TOKENS" && k.Status == "CURRENT"
	})
	if i < 0 || !strings.Contains(before, listed.Keys[i].KeyID) {
		t.Fatalf("got %s, and %s is published", keys.body, before)
	}
	old, began := listed.Keys[i].KeyID, time.Now()
	w.call(root(), "RotateSigningKey", map[string]any{"purpose": "TOKENS", "revoke": true})
	if w.active(planner, stolen) != nil || strings.Contains(kids(w), old) {
		t.Error("where it was revoked the key still counts")
	}
	if !eventually(30*time.Second, func() bool { return two.active(planner, stolen) == nil && !strings.Contains(kids(two), old) }) {
		t.Error("on the other replica the key still counts")
	}
	t.Logf("drill: %s", time.Since(began).Round(10*time.Millisecond))
	if two.active(planner, w.external(planner, wat, reports).get("access_token")) == nil {
		t.Error("a token of the new key is inactive on the other replica")
	}
}

// TestJSVerifiesAnExchangedToken has npm jose verify what an agent without any SDK of ours gets, by discovery alone.
func TestJSVerifiesAnExchangedToken(t *testing.T) {
	peer.Node(t)
	w, planner, booker := agents(t, daemon.SQLite)
	own := w.propagated(booker, w.wat(planner, "planner", w.login("alice")), "booker")
	run := peer.Script{Name: "exchange.mjs", Env: map[string]string{
		"ISSUER": w.issuer(), "AUDIENCE": reports, "WORKLOAD_TOKEN": own, "KEY_ID": booker.ID, "KEY_SECRET": booker.Secret,
	}}.Start(t)
	got := run.Next(t, "verified")
	act := map[string]any{"sub": arnOf("booker"), "iss": w.issuer(), "act": map[string]any{"sub": arnOf("planner"), "iss": w.issuer()}}
	if got.String("clientId") != arnOf("booker") || got.String("scope") != "read" || !reflect.DeepEqual(got["act"], act) {
		t.Errorf("got %v", got)
	}
	if life, _ := got["life"].(float64); life <= 0 || life > 600 {
		t.Errorf("it lives %v seconds", got["life"])
	}
	for range 5 {
		run.Next(t, "refused")
	}
	if said := run.Next(t, "introspected"); said["active"] != true || said.String("sub") != got.String("sub") {
		t.Errorf("introspection says %v", said)
	}
	run.Wait(t)
}

// TestGoSDKExchangesTokens is TestExchange through our own SDK: the booker accepts what the planner hands on, and asks
// for a token for a service. What is refused is told by kind.
func TestGoSDKExchangesTokens(t *testing.T) {
	w, planner, booker := agents(t, daemon.SQLite)
	client := func(k key, workload string) *tabard.Client {
		conf := w.config(k)
		c, err := tabard.New(t.Context(), tabard.Config{Workload: workload, AWS: &conf})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	handed := http.Header{}
	handed.Set(tabard.HeaderWAT, w.wat(planner, "planner", w.login("alice")))
	c := client(booker, "booker")
	ctx, err := c.AcceptToken(tabard.FromHeader(t.Context(), handed))
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.ExchangeToken(ctx, tabard.Audience{Target: reports, Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	said := w.active(planner, token.AccessToken)
	if said["aud"] != reports || said["client_id"] != arnOf("booker") || !token.HasScope("read") || token.Expiry.Before(time.Now()) {
		t.Errorf("got %v until %s", said, token.Expiry)
	}
	ours, err := client(planner, "planner").ExchangeToken(t.Context(), tabard.Audience{Target: "inventory", Machine: true})
	if err != nil {
		t.Fatal(err)
	}
	if said := w.active(planner, ours.AccessToken); said["sub"] != arnOf("planner") {
		t.Errorf("for the agent itself: %v", said)
	}
	w.must("PutPolicy", map[string]any{"name": "no", "text": `forbid (principal, action == Tabard::Action::"ExchangeToken", resource == Tabard::Audience::"secret");`})
	if !eventually(2*time.Second, func() bool {
		_, err = c.ExchangeToken(ctx, tabard.Audience{Target: "secret"})
		return errors.Is(err, tabard.ErrDenied)
	}) {
		t.Errorf("forbidden: %v", err)
	}
	if _, err := c.ExchangeToken(ctx, tabard.Audience{Target: w.server.PublicURL()}); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("for the server itself: %v", err)
	}
	w.must("DisableWorkloadIdentity", map[string]any{"name": "planner"})
	if !eventually(2*time.Second, func() bool {
		_, err = c.ExchangeToken(ctx, tabard.Audience{Target: reports})
		return errors.Is(err, tabard.ErrUnauthenticated)
	}) {
		t.Errorf("after the planner was disabled: %v", err)
	}
}
