package e2e_test

import (
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestShutdownFinishesWhatHasBegun ends the server while a request waits for the provider: nobody new is let in, and
// the request gets its answer.
func TestShutdownFinishesWhatHasBegun(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	token := rand.Text()
	asked, goOn := make(chan struct{}), make(chan struct{})
	provider := newRelay(t, "", func(exchange) {})
	provider.answer(func(rw http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-goOn
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{"access_token":"`+token+`","token_type":"Bearer","expires_in":3600}`)
	})
	w.workload("worker")
	w.call(root(), "CreateOauth2CredentialProvider", map[string]any{
		"name": "api", "credentialProviderVendor": "CustomOauth2", "oauth2ProviderConfigInput": map[string]any{"customOauth2ProviderConfig": map[string]any{
			"clientId": "c", "clientSecret": "s", "oauthDiscovery": map[string]any{"authorizationServerMetadata": map[string]any{
				"issuer": provider.URL, "authorizationEndpoint": provider.URL + "/auth", "tokenEndpoint": provider.URL + "/token",
			}}}},
	})
	agent := w.principal("worker", "worker", "agent")
	wat := w.call(agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "worker"}).get("workloadAccessToken")
	ask := w.request(agent, "POST", "/identities/oauth2/token", encode(t, map[string]any{
		"workloadIdentityToken": wat, "resourceCredentialProviderName": "api", "oauth2Flow": "M2M", "scopes": []string{},
	}))
	answered := make(chan reply, 1)
	go func() { answered <- do(t, ask) }()
	<-asked
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.stop()
	}()
	addr := strings.TrimPrefix(w.server.URL(), "http://")
	if !eventually(5*time.Second, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}) {
		t.Error("the server lets connections in while it ends")
	}
	select {
	case <-stopped:
		t.Error("the server did not wait for the request")
	default:
	}
	close(goOn)
	if r := <-answered; r.status != http.StatusOK || r.get("accessToken") != token {
		t.Errorf("the request in flight: %d %s", r.status, r.body)
	}
	<-stopped
	w.start() // and what it obtained was stored
	if r := w.post(agent, "ListWorkloadIdentities", "{}"); r.status >= 500 {
		t.Errorf("after the restart: %d %s", r.status, r.body)
	}
}

// TestRestartLosesNothing ends the server with a stored token and a session whose code is held, and starts it again on
// the same data: the token is released without asking the provider, and the session goes on to its token.
func TestRestartLosesNothing(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		h := newHunt(t, db)
		jwt := h.login(h.alice)
		wat := h.mint(jwt)
		ask, session, address := h.begin(wat)
		h.walk(peer.NewBrowser(h.alice), address)
		if r := h.complete(h.app, session, jwt); r.status != http.StatusOK {
			t.Fatalf("Complete: %d %s", r.status, r.body)
		}
		stored := h.tell(h.agent, "GetResourceOauth2Token", ask).get("accessToken")
		_, open, address := h.begin(wat)
		h.walk(peer.NewBrowser(h.alice), address)
		_, untouched, later := h.begin(wat)

		h.stop()
		before := h.idp.Count(t, "authorization_code", "ok")
		h.start(func(c *daemon.Config) { c.PublicURL = h.front.URL })
		h.front.to(h.server.URL())

		if got := h.tell(h.agent, "GetResourceOauth2Token", ask).get("accessToken"); got == "" || got != stored {
			t.Error("the stored token is not released after the restart")
		}
		if after := h.idp.Count(t, "authorization_code", "ok"); after != before {
			t.Errorf("the restart redeemed %d codes", after-before)
		}
		if r := h.complete(h.app, open, jwt); r.status != http.StatusOK {
			t.Errorf("Complete of the session with a held code: %d %s", r.status, r.body)
		}
		poll := h.ask(wat)
		poll["sessionUri"] = open
		if got := h.tell(h.agent, "GetResourceOauth2Token", poll).get("accessToken"); got == "" || got == stored {
			t.Error("the session that was open has no token of its own")
		}
		h.walk(peer.NewBrowser(h.alice), later) // a link that nobody had opened before the restart
		if r := h.complete(h.app, untouched, jwt); r.status != http.StatusOK {
			t.Errorf("Complete of the session that had only begun: %d %s", r.status, r.body)
		}
	})
}
