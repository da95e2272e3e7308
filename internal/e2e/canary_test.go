package e2e_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// hunt is a whole product under observation: browsers reach the server through one relay, the server reaches the
// provider's token endpoint through another, and what comes out anywhere falls into the trap.
type hunt struct {
	*world
	trap
	front, tokens *relay
	alice, bob    string // subjects
	clientSecret  string
	agent, app    key
	kept          string        // directory of the audit sink and the checkpoints
	paused        chan struct{} // a token request is held
	resume        chan struct{} // and may go on
}

// entitled are the members of answers that carry a secret by design, with the kind that may be in them.
var entitled = map[string]string{
	"accessToken": "access token", "workloadAccessToken": "WAT", "authorizationUrl": "session", "sessionUri": "session", "secretAccessKey": "access key",
	"apiKey": "API key",
}

// TestG01_CanaryNothingSecretAnywhere drives the whole product, failures included, and searches everything that it
// wrote, answered, logged, recorded and stored for every secret that went through it. It is also the scan of D02 (a
// stolen database) and D10 (the refresh token never leaves).
func TestG01_CanaryNothingSecretAnywhere(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		h := newHunt(t, db)
		alice := h.login(h.alice)
		h.bookings(alice)
		h.refusals(alice)
		h.consentsThatFail(alice)
		h.brokenRequests(alice)
		h.machines()
		h.hostedConsents()
		pods := h.workloads()
		h.exchanges(alice)
		h.delegations(alice)
		h.besides(pods, alice)
		h.revocations()
		h.tenants()
		h.statements(pods)
		h.operators()
		h.expiry(alice)
		h.sweep()
		for _, kind := range append(append(hostedKinds(), accessKinds()...),
			"root key", "access key", "client secret", "JWT", "WAT", "session", "state", "code", "verifier", "cookie", "access token",
			"refresh token", "custom state", "custom parameter", "subject", "server key", "API key",
		) {
			if h.kinds()[kind] == 0 {
				t.Errorf("no %s went through the product: the test has lost its way", kind)
			}
		}
		if n := h.tokens.unused(); n > 0 {
			t.Errorf("%d answers of the provider were not asked for: the test has lost its way", n)
		}
		for _, leak := range h.leaks() {
			t.Error(leak)
		}
	})
}

func newHunt(t *testing.T, db string) *hunt {
	h := &hunt{
		alice: "alice-" + rand.Text(), bob: "bob-" + rand.Text(), clientSecret: rand.Text() + "/+%&:=", paused: make(chan struct{}), resume: make(chan struct{}),
		world: &world{t: t, dataDir: filepath.Join(t.TempDir(), "data"), db: db, logs: &buffer{}, out: &buffer{}},
	}
	h.idp = peer.OIDCProvider(t, peer.OIDCConfig{
		AccessTokenTTL: 2 * time.Minute, Users: []string{h.alice, h.bob},
		Clients: []peer.Client{{ID: appClient, Secret: "app-secret", RedirectURIs: []string{"http://127.0.0.1:1/callback"}}},
	})
	h.front = newRelay(t, "", h.sawBrowser)
	h.tokens = newRelay(t, h.idp.Issuer, h.learnTokens)
	h.kept = t.TempDir()
	h.start(func(c *daemon.Config) {
		c.PublicURL, c.AdminAddr = h.front.URL, "127.0.0.1:0"
		c.AuditSinks, c.AuditCheckpointFile = []string{"file:" + filepath.Join(h.kept, "trail.jsonl")}, filepath.Join(h.kept, "checkpoints")
	})
	h.front.to(h.server.URL())
	h.know(t, "root key", rootSecret)
	h.know(t, "client secret", h.clientSecret)
	h.know(t, "subject", h.alice)
	h.know(t, "subject", h.bob)
	serverKey, err := daemon.ReadLine(filepath.Join(h.dataDir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	h.know(t, "server key", serverKey)
	h.trust()
	h.workload("calendar-agent")
	h.providerThroughRelay()
	h.agent, h.app = h.principal("agent", "calendar-agent", "agent"), h.principal("app", "calendar-agent", "consent-app")
	h.know(t, "access key", h.agent.Secret)
	h.know(t, "access key", h.app.Secret)
	apiKey := rand.Text()
	h.know(t, "API key", apiKey)
	h.tell(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "maps", "apiKey": apiKey})
	return h
}

// providerThroughRelay makes the provider with the token endpoint at the relay.
func (h *hunt) providerThroughRelay() {
	made := h.tell(root(), "CreateOauth2CredentialProvider", map[string]any{
		"name": "calendar", "credentialProviderVendor": "CustomOauth2", "oauth2ProviderConfigInput": h.config(h.clientSecret),
	})
	h.idp.Register(h.t, peer.Client{ID: clientID, Secret: h.clientSecret, RedirectURIs: []string{made.get("callbackUrl")}})
}

func (h *hunt) config(clientSecret string) map[string]any {
	return map[string]any{"customOauth2ProviderConfig": map[string]any{
		"clientId": clientID, "clientSecret": clientSecret, "oauthDiscovery": map[string]any{"authorizationServerMetadata": map[string]any{
			"issuer": h.idp.Issuer, "authorizationEndpoint": h.idp.Issuer + "/auth", "tokenEndpoint": h.tokens.URL + "/token",
		}},
	}}
}

// sawBrowser is what a browser gets from the server. State and custom parameters belong into the address of the
// provider, session and custom state into that of the application, the cookie into its header; nothing of it elsewhere.
func (h *hunt) sawBrowser(x exchange) {
	where := fmt.Sprintf("the page %s (%d)", x.request.URL.Path, x.status)
	for _, cookie := range (&http.Response{Header: x.header}).Cookies() {
		if cookie.Value != "" && cookie.Name != "tabard-connected" { // that one says 1, and is no secret
			h.know(h.t, "cookie", cookie.Value)
		}
	}
	for name, values := range x.header {
		text := name + ": " + strings.Join(values, "\n")
		switch {
		case name == "Set-Cookie":
			h.saw(where+" header "+name, text, "cookie")
		case name == "Location" && (strings.HasSuffix(x.request.URL.Path, "/authorize") || strings.HasSuffix(x.request.URL.Path, "/decide")):
			h.saw(where+" header "+name, text, "state", "nonce", "custom parameter")
		case name == "Location":
			h.saw(where+" header "+name, text, "session", "custom state")
		default:
			h.saw(where+" header "+name, text)
		}
	}
	h.saw(where, x.body, hostedAllowed(x)...)
}

// learnTokens learns what goes to the provider and what comes back.
func (h *hunt) learnTokens(x exchange) {
	form, err := url.ParseQuery(x.requestBody)
	if err != nil {
		h.t.Errorf("a token request with the body %q", x.requestBody)
	}
	var answer map[string]any
	_ = json.Unmarshal([]byte(x.body), &answer) // some answers are broken by intent
	for kind, value := range map[string]any{
		"code": form.Get("code"), "verifier": form.Get("code_verifier"), "refresh token": form.Get("refresh_token"),
		"access token": answer["access_token"], "refresh token ": answer["refresh_token"],
	} {
		if s, _ := value.(string); s != "" {
			h.know(h.t, strings.TrimSpace(kind), s)
		}
	}
	if id, _ := answer["id_token"].(string); id != "" {
		h.know(h.t, "JWT", signatureOf(id))
	}
}

// signatureOf is the part of a JWT that is no public knowledge; in the rest the subject is a canary of its own.
func signatureOf(jwt string) string { return jwt[strings.LastIndexByte(jwt, '.')+1:] }

func (h *hunt) login(user string) string {
	jwt := h.world.login(user)
	h.know(h.t, "JWT", signatureOf(jwt))
	return jwt
}

// send posts a body and keeps the answer: each entitled member may hold its own kind, all else nothing.
func (h *hunt) send(k key, op, body string) reply {
	r := h.post(k, op, body)
	h.keep("the answer of "+op, r)
	return r
}

func (h *hunt) keep(where string, r reply) {
	rest := r.body
	var members map[string]any
	_ = json.Unmarshal([]byte(r.body), &members) // not every answer is JSON
	for _, name := range []string{"accessKey", "rootAccessKey"} {
		if made, ok := members[name].(map[string]any); ok {
			members = made
		}
	}
	for name, kind := range entitled {
		value, _ := members[name].(string)
		if value == "" {
			continue
		}
		rest = strings.ReplaceAll(rest, strings.Trim(encode(h.t, value), `"`), "")
		h.learn(name, value)
		h.saw(fmt.Sprintf("%s, member %s", where, name), value, kind)
	}
	for name, values := range r.header {
		h.saw(where+" header "+name, name+": "+strings.Join(values, "\n"))
	}
	h.saw(fmt.Sprintf("%s (%d)", where, r.status), rest)
}

// learn makes a canary of what an entitled member carries, without the parts that all values of its kind share.
func (h *hunt) learn(name, value string) {
	switch name {
	case "workloadAccessToken":
		h.know(h.t, "WAT", value[len(value)/2:])
	case "sessionUri":
		h.know(h.t, "session", value[strings.LastIndexByte(value, ':')+1:])
	case "secretAccessKey":
		h.know(h.t, "access key", value)
	case "accessToken":
		h.know(h.t, "access token", value)
	}
}

// tell is send of a JSON value that must succeed.
func (h *hunt) tell(k key, op string, in any) reply {
	h.t.Helper()
	r := h.send(k, op, encode(h.t, in))
	if r.status/100 != 2 {
		h.t.Fatalf("%s answered %d %s", op, r.status, r.body)
	}
	return r
}

// fails is send of a JSON value that must be answered with one of the statuses.
func (h *hunt) fails(k key, op string, in any, statuses ...int) {
	h.t.Helper()
	if r := h.send(k, op, encode(h.t, in)); !slices.Contains(statuses, r.status) {
		h.t.Errorf("%s answered %d %s, want one of %v", op, r.status, r.body, statuses)
	}
}

// ask is a request for the token of the workload access token's user, with a custom state and parameter of its own.
func (h *hunt) ask(wat string) map[string]any {
	state, parameter := rand.Text(), rand.Text()
	h.know(h.t, "custom state", state)
	h.know(h.t, "custom parameter", parameter)
	return map[string]any{
		"workloadIdentityToken": wat, "resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION",
		"scopes": []string{"openid", "offline_access", "calendar.write"}, "resourceOauth2ReturnUrl": returnURL,
		"customState": state, "customParameters": map[string]string{"prompt": "consent", "login_hint": parameter},
	}
}

// begin opens a session and returns its URI and what the browser opens.
func (h *hunt) begin(wat string) (ask map[string]any, session, address string) {
	h.t.Helper()
	ask = h.ask(wat)
	ask["forceAuthentication"] = true
	first := h.tell(h.agent, "GetResourceOauth2Token", ask)
	delete(ask, "forceAuthentication")
	session, address = first.get("sessionUri"), first.get("authorizationUrl")
	if session == "" || address == "" {
		h.t.Fatalf("no session: %s", first.body)
	}
	return ask, session, address
}

// walk has a browser follow address to its end and learns the codes and states on the way.
func (h *hunt) walk(b *peer.Browser, address string) peer.Page {
	h.t.Helper()
	end := b.Walk(h.t, address, returnURL)
	h.learnTrail(b)
	return end
}

// learnTrail learns what stands in the addresses that the browser was sent to.
func (h *hunt) learnTrail(b *peer.Browser) {
	h.t.Helper()
	for _, visited := range b.Trail {
		u, err := url.Parse(visited)
		if err != nil {
			h.t.Fatal(err)
		}
		if strings.HasPrefix(visited, returnURL) {
			continue // its state is the custom one
		}
		for name, kind := range map[string]string{"state": "state", "code": "code", "nonce": "nonce"} {
			if value := u.Query().Get(name); value != "" {
				h.know(h.t, kind, value)
			}
		}
	}
}

func (h *hunt) complete(k key, session, jwt string) reply {
	return h.send(k, "CompleteResourceTokenAuth", encode(h.t, map[string]any{"sessionUri": session, "userIdentifier": map[string]any{"userToken": jwt}}))
}

func (h *hunt) mint(jwt string) string {
	h.t.Helper()
	return h.tell(h.agent, "GetWorkloadAccessTokenForJWT", map[string]any{"workloadName": "calendar-agent", "userToken": jwt}).get("workloadAccessToken")
}
