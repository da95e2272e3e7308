package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// pair is the name of something of another account, and a name of the same form that nobody has.
type pair struct{ foreign, unknown string }

// inhabited makes an account with one of most things in it, and returns their names by the members that name them.
func (w *world) inhabited(id string) map[string]pair {
	w.t.Helper()
	boss, agent := w.account(id)
	call := func(op string, in map[string]any) reply { return w.call(boss, op, in) }
	call("CreateTrustedIssuer", map[string]any{"issuer": w.idp.Issuer, "audiences": []string{appClient}})
	made := call("CreateOauth2CredentialProvider", map[string]any{
		"name": "calendar", "credentialProviderVendor": "CustomOauth2", "oauth2ProviderConfigInput": map[string]any{"customOauth2ProviderConfig": map[string]any{
			"oauthDiscovery": map[string]any{"discoveryUrl": w.idp.DiscoveryURL()}, "clientId": clientID, "clientSecret": clientSecret}}})
	w.idp.Register(w.t, peer.Client{ID: clientID, Secret: clientSecret, RedirectURIs: []string{made.get("callbackUrl")}})
	call("CreateApiKeyCredentialProvider", map[string]any{"name": "maps", "apiKey": "k"})
	call("CreateWorkloadIssuer", map[string]any{"issuer": "https://k8s.example.com", "audiences": []string{"a"}})
	rule := nested(w.t, call("CreateFederationRule", map[string]any{"issuer": "https://k8s.example.com", "subject": "s", "principalName": "worker"}), "ruleId")
	jwt := w.login("alice")
	wat := w.call(agent, "GetWorkloadAccessTokenForJWT", map[string]any{"workloadName": "worker", "userToken": jwt}).get("workloadAccessToken")
	ask := map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION",
		"scopes": []string{"openid"}, "resourceOauth2ReturnUrl": returnURL}
	first := w.call(agent, "GetResourceOauth2Token", ask)
	peer.NewBrowser("alice").Walk(w.t, first.get("authorizationUrl"), returnURL)
	w.call(agent, "CompleteResourceTokenAuth", map[string]any{"sessionUri": first.get("sessionUri"), "userIdentifier": map[string]any{"userToken": jwt}})
	connection := nested(w.t, call("ListConnections", map[string]any{}), "connectionId")
	record := nested(w.t, call("ListAuditRecords", map[string]any{}), "recordId")
	arn := "arn:aws:bedrock-agentcore:us-east-1:%s:workload-identity-directory/default/workload-identity/worker"
	name := func(s string) pair { return pair{s, strings.Repeat("z", len(s))} }
	return map[string]pair{
		"name": name("worker"), "workloadName": name("worker"), "principalName": name("worker"), "resourceCredentialProviderName": name("calendar"), "providerName": name("calendar"),
		"accessKeyId": {agent.ID, altered(agent.ID)}, "ruleId": {rule, altered(rule)}, "connectionId": {connection, altered(connection)}, "recordId": {record, altered(record)},
		"sessionUri": {first.get("sessionUri"), altered(first.get("sessionUri"))}, "resourceArn": {fmt.Sprintf(arn, id), fmt.Sprintf(arn, "999999999999")},
		"issuer": {w.idp.Issuer, altered(w.idp.Issuer)}, "url": {"https://k8s.example.com", "https://zzz.example.com"}, "accountId": {id, "999999999999"},
		"workloadIdentityToken": {wat, wat[:len(wat)-40] + strings.Repeat("A", 40)},
	}
}

// altered returns a name of the same form: its last letters and digits replaced by others.
func altered(s string) string {
	b := []byte(s)
	for i := max(0, len(b)-8); i < len(b); i++ {
		switch c := b[i]; {
		case '0' <= c && c <= '9':
			b[i] = '0' + (c-'0'+3)%10
		case 'a' <= c && c <= 'f': // hexadecimal stays so
			b[i] = 'a' + (c-'a'+3)%6
		case 'g' <= c && c <= 'z':
			b[i] = 'g' + (c-'g'+3)%20
		case 'A' <= c && c <= 'Z':
			b[i] = 'A' + (c-'A'+3)%26
		}
	}
	return string(b)
}

// nested returns the first member of that name anywhere in an answer.
func nested(t *testing.T, r reply, name string) string {
	t.Helper()
	var find func(v any) string
	find = func(v any) string {
		switch v := v.(type) {
		case map[string]any:
			if s, ok := v[name].(string); ok {
				return s
			}
			for _, below := range v {
				if s := find(below); s != "" {
					return s
				}
			}
		case []any:
			for _, below := range v {
				if s := find(below); s != "" {
					return s
				}
			}
		}
		return ""
	}
	var doc any
	if err := json.Unmarshal([]byte(r.body), &doc); err != nil {
		t.Fatal(err)
	}
	s := find(doc)
	if s == "" {
		t.Fatalf("no %s in %s", name, r.body)
	}
	return s
}

// TestF16_AnothersLooksAbsent sends every operation that names something, as root of another account: once with the
// name of something that is there, in the first account, and once with a name that nobody has. Status, exception and
// sentence are the same but for the name.
func TestF16_AnothersLooksAbsent(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	names := w.inhabited(tenant)
	// Not the installation's own: the rights of its root over accounts are meant.
	stranger := keyIn(t, w.call(root(), "CreateAccount", map[string]any{"name": "stranger"}), "rootAccessKey")
	tried, found := 0, 0
	for _, op := range api.Operations() {
		if open(op.Name) || strings.HasPrefix(op.Name, "Create") || op.Name == api.OpRotateRootKey || op.Name == api.OpRotateSigningKey ||
			op.Name == api.OpSetIssuerLogin { // under --dev every issuer on loopback is the stranger's too, and it is the issuer that answers
			continue
		}
		var got [2]reply
		var sent [2]string
		for i := range got {
			values := map[string]any{}
			for member, p := range names {
				values[member] = []string{p.foreign, p.unknown}[i]
			}
			target, body := newInputs(t, values).request(t, op.Name, op.Path, op.Name == api.OpRevokeAccess)
			got[i], sent[i] = do(t, w.request(stranger, op.Method, target, body)), target+" "+body
		}
		if sent[0] == sent[1] {
			continue // it names nothing
		}
		tried++
		if got[0].status == http.StatusNotFound {
			found++
		}
		if a, b := told(got[0], names), told(got[1], names); a != b && !(ownBusiness(op.Name) && got[0].status == got[1].status) {
			t.Errorf("%s tells what is there from what is not:\n%s\n%s", op.Name, a, b)
		}
		if got[0].status/100 == 2 && op.Name != api.OpRevokeAccess && !strings.HasPrefix(op.Name, "List") && !ownBusiness(op.Name) {
			t.Errorf("%s on what is another's: %d %s", op.Name, got[0].status, got[0].body)
		}
	}
	if tried < 35 || found < 15 {
		t.Errorf("%d operations were tried, and %d found nothing", tried, found)
	}
}

// ownBusiness reports the operations that answer about the caller's own account, whatever they name.
func ownBusiness(op string) bool {
	return slices.Contains([]string{"DisableUser", "EnableUser", "EraseUser", "SimulateDecision", "FindWhoCan", "ValidatePolicy", "PutPolicy", "GetTokenVault", "SetTokenVaultCMK", "VerifyAudit", "PruneAudit",
		"DisableTrustedIssuer", "EnableTrustedIssuer", "SetIssuerLogin"}, op) // development mode trusts every issuer on loopback
}

// told is what an answer says, without the names that were sent and the id of the request.
func told(r reply, names map[string]pair) string {
	body := r.body
	var all []string
	for _, p := range names {
		all = append(all, p.foreign, p.unknown)
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // some are in others
	for _, name := range all {
		body = strings.ReplaceAll(body, name, "NAME")
	}
	if i := strings.Index(body, "request id"); i >= 0 {
		body = body[:i]
	}
	return fmt.Sprint(r.status, " ", r.header.Get("X-Amzn-Errortype"), " ", body)
}

// F16: what is another's takes as long to refuse as what is not there. The samples alternate, so that whatever else the
// machine does falls on both; how often a sample of the one kind takes longer than one of the other is near a half.
func TestF16_TimingTellsNothing(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	names := w.inhabited(tenant)
	stranger := keyIn(t, w.call(root(), "CreateAccount", map[string]any{"name": "stranger"}), "rootAccessKey")
	for _, op := range []struct{ name, member string }{
		{"GetConnection", "connectionId"}, {"DisableAccessKey", "accessKeyId"}, {"GetResourceOauth2Token", "workloadIdentityToken"},
	} {
		ask := func(id string) time.Duration {
			values := map[string]any{op.member: id}
			o, _ := api.Find(op.name)
			target, body := newInputs(t, values).request(t, op.name, o.Path, false)
			r := w.request(stranger, o.Method, target, body)
			began := time.Now()
			do(t, r)
			return time.Since(began)
		}
		overlap(t, op.name, func() time.Duration { return ask(names[op.member].foreign) }, func() time.Duration { return ask(names[op.member].unknown) })
	}
	wrong := func(id string) func() time.Duration {
		return func() time.Duration {
			r := w.request(key{id, "not the secret"}, "POST", "/tabard/ListPrincipals", "{}")
			began := time.Now()
			do(t, r)
			return time.Since(began)
		}
	}
	overlap(t, "an access key that is there, and one that is not", wrong(stranger.ID), wrong(altered(stranger.ID)))
}

// overlap fails where one kind of sample takes longer than the other in more than three of four comparisons, three
// times in a row.
func overlap(t *testing.T, what string, one, other func() time.Duration) {
	t.Helper()
	const samples = 60
	var share float64
	for range 3 {
		var a, b []time.Duration
		for range samples {
			a, b = append(a, one()), append(b, other())
		}
		longer := 0
		for _, x := range a {
			for _, y := range b {
				if x > y {
					longer++
				}
			}
		}
		if share = float64(longer) / (samples * samples); share > 0.25 && share < 0.75 {
			return
		}
	}
	t.Errorf("%s: one kind takes longer in %.0f%% of the comparisons", what, share*100)
}
