package e2e_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// script prepares a script of test/python or test/js that uses key k at this server.
func (w *world) script(name string, k key, settings map[string]string) peer.Script {
	return w.scriptAt(w.server.URL(), name, k, settings)
}

// scriptAt is script for a server that is reached at another address.
func (w *world) scriptAt(endpoint, name string, k key, settings map[string]string) peer.Script {
	env := peer.AWSEnv(endpoint, daemon.DefaultRegion, k.ID, k.Secret)
	maps.Copy(env, settings)
	return peer.Script{Name: name, Env: env}
}

// TestPythonEveryOperation calls all operations through boto3, which asserts shapes, times and errors itself.
func TestPythonEveryOperation(t *testing.T) {
	peer.Python(t)
	engines(t, func(t *testing.T, db string) { everyOperation(t, db, suitePy, "operations.py") })
}

// everyOperation runs a script that calls all operations and asserts what they answer.
func everyOperation(t *testing.T, db, suite, script string) {
	t.Helper()
	w := newWorld(t, db)
	w.trust()
	w.idp.Register(t, peer.Client{ID: clientID, Secret: clientSecret})
	provider := oauthtest.New(t)
	seen := newMembers()
	run := w.scriptAt(w.tap(seen), script, root(), map[string]string{
		"DISCOVERY_URL": w.idp.DiscoveryURL(), "CLIENT_ID": clientID, "CLIENT_SECRET": clientSecret,
		"M2M_SCOPE": "calendar.read", "USER_TOKEN": w.login("alice"), "EXCHANGE_DISCOVERY_URL": provider.URL + oauthtest.Metadata,
		"EXCHANGE_CLIENT_ID": oauthtest.ClientID, "EXCHANGE_CLIENT_SECRET": oauthtest.ClientSecret,
	}).Start(t)
	for range 3 {
		w.consent(run.Next(t, "consent"))
	}
	wantChecked(t, suite, awsOperation, run.Wait(t))
	seen.wantMembers(t, awsMembers, suite)
}

// consent registers the callback URL that a script's event names, and walks alice's browser to where it wants her.
func (w *world) consent(e peer.Event) {
	w.t.Helper()
	w.idp.Register(w.t, peer.Client{ID: clientID, Secret: clientSecret, RedirectURIs: []string{e.String("callback")}})
	if end := peer.NewBrowser("alice").Walk(w.t, e.String("url"), ""); end.Status != http.StatusOK || end.URL.Query().Get("session_id") == "" {
		w.t.Fatalf("the browser ended at %s %d\n%s", end.URL.Path, end.Status, end.Body)
	}
}

// TestPythonRequiresAccessToken is the flow as an agent's author writes it: boto3, and @requires_access_token of the
// official package with its own poller, against a provider that rotates.
func TestPythonRequiresAccessToken(t *testing.T) {
	peer.Python(t)
	engines(t, func(t *testing.T, db string) { officialFlow(t, db, "threelo.py", "complete.py") })
}

// officialFlow is the 3LO flow where one script is the agent and another the application behind the return URL.
func officialFlow(t *testing.T, db, agentScript, completeScript string) {
	t.Helper()
	w := newWorld(t, db)
	w.trust()
	w.workload("calendar-agent")
	w.provider("calendar")
	jwt := w.login("alice")

	// 1. The agent asks, and nobody has consented yet.
	agent := w.script(agentScript, w.principal("agent", "calendar-agent", "agent"), map[string]string{
		"WORKLOAD": "calendar-agent", "USER_TOKEN": jwt, "PROVIDER": "calendar", "RETURN_URL": returnURL,
		"SCOPES": "openid offline_access calendar.write", "CUSTOM_STATE": "of the browser's session",
		"CUSTOM_PARAMETERS": `{"prompt":"consent"}`,
	}).Start(t)
	authURL := agent.Next(t, "auth_url").String("url")

	// 2. Alice consents in her browser, and the application says who sat there.
	end := peer.NewBrowser("alice").Walk(t, authURL, returnURL)
	q := end.URL.Query()
	if q.Get("session_id") == "" || q.Get("state") != "of the browser's session" {
		t.Fatalf("the browser ended at %s %d\n%s", end.URL.Path, end.Status, end.Body)
	}
	if n := len(w.redemptions()); n != 0 {
		t.Errorf("%d codes redeemed before the user was confirmed, want 0", n)
	}
	w.script(completeScript, w.principal("app", "calendar-agent", "consent-app"), map[string]string{
		"SESSION_URI": q.Get("session_id"), "USER_TOKEN": jwt,
	}).Start(t).Wait(t)

	// 3. The first call gets the token by polling, the second from the vault, with no prompt.
	first, second := agent.Next(t, "token"), agent.Next(t, "token")
	agent.Wait(t)
	if first["asked"] != true || second["asked"] != false || first.String("fingerprint") != second.String("fingerprint") {
		t.Errorf("got %v and %v, want the same token, asked for once", first, second)
	}
	all := w.redemptions()
	if len(all) != 1 || all[0].Result != "ok" || !all[0].PKCE || all[0].AccessToken != first.String("fingerprint") {
		t.Errorf("the provider saw %+v, want one redemption with PKCE that gave the agent's token", all)
	}
	if strings.Contains(agent.Output(), "Traceback") {
		t.Error(agent.Output())
	}
}

// redemptions returns the token requests of Tabard's client with a code.
func (w *world) redemptions() []peer.JournalEntry {
	w.t.Helper()
	var found []peer.JournalEntry
	for _, e := range w.idp.Journal(w.t) {
		if e.GrantType == "authorization_code" && e.ClientID == clientID {
			found = append(found, e)
		}
	}
	return found
}
