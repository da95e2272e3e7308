package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

const tenant = "123456789012"

// account makes an account with an agent of its own, and returns the keys of its root and of the agent's principal.
func (w *world) account(id string) (rootKey, agent key) {
	w.t.Helper()
	rootKey = keyIn(w.t, w.call(root(), "CreateAccount", map[string]any{"accountId": id, "name": "acme-" + id}), "rootAccessKey")
	w.call(rootKey, "CreateWorkloadIdentity", map[string]any{"name": "worker", "allowedResourceOauth2ReturnUrls": []string{returnURL}})
	w.call(rootKey, "CreatePrincipal", map[string]any{"name": "worker", "roles": []string{"agent", "consent-app"}, "workloads": []string{"worker"}})
	w.call(rootKey, "PutPolicy", map[string]any{"name": "worker", "text": agentPolicy("worker")})
	return rootKey, keyIn(w.t, w.call(rootKey, "CreateAccessKey", map[string]any{"principalName": "worker"}), "accessKey")
}

// keyIn reads the access key from an answer.
func keyIn(t *testing.T, r reply, member string) key {
	t.Helper()
	var members map[string]struct{ AccessKeyID, SecretAccessKey string }
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(r.body), &raw); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"k":`+string(raw[member])+`}`), &members); err != nil || members["k"].SecretAccessKey == "" {
		t.Fatalf("no access key in %s", r.body)
	}
	return key{members["k"].AccessKeyID, members["k"].SecretAccessKey}
}

// TestDisabledAccountIsRefusedEverywhere disables an account on one replica and tries every way in on both: its root,
// its agent, its workload access token, its consent page. Within two seconds all are shut; another account goes on.
func TestDisabledAccountIsRefusedEverywhere(t *testing.T) {
	one := newWorld(t, peer.Postgres(t))
	two := one.replica()
	boss, agent := one.account(tenant)
	other, _ := one.account("210987654321")
	one.call(boss, "CreateTrustedIssuer", map[string]any{"issuer": one.idp.Issuer, "audiences": []string{appClient}})
	made := one.call(boss, "CreateOauth2CredentialProvider", map[string]any{
		"name": "calendar", "credentialProviderVendor": "CustomOauth2", "oauth2ProviderConfigInput": map[string]any{"customOauth2ProviderConfig": map[string]any{
			"oauthDiscovery": map[string]any{"discoveryUrl": one.idp.DiscoveryURL()}, "clientId": clientID, "clientSecret": clientSecret}}})
	one.idp.Register(t, peer.Client{ID: clientID, Secret: clientSecret, RedirectURIs: []string{made.get("callbackUrl")}})
	wat := one.call(agent, "GetWorkloadAccessTokenForJWT", map[string]any{"workloadName": "worker", "userToken": one.login("alice")}).get("workloadAccessToken")
	ask := map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION",
		"scopes": []string{"openid"}, "resourceOauth2ReturnUrl": returnURL}
	link := one.call(agent, "GetResourceOauth2Token", ask).get("authorizationUrl")
	if got := page(t, "GET", link); got.status != http.StatusSeeOther {
		t.Fatalf("the consent page of a living account: %d", got.status)
	}
	one.call(root(), "DisableAccount", map[string]any{"accountId": tenant, "reason": "unpaid"})
	for i, w := range []*world{one, two} {
		shut := func() (open []string) {
			for name, got := range map[string]reply{
				"root":        w.post(boss, "ListPrincipals", `{}`),
				"the agent":   w.post(agent, "GetWorkloadAccessToken", `{"workloadName":"worker"}`),
				"the token":   w.post(agent, "GetResourceOauth2Token", encode(t, ask)),
				"the consent": page(t, "GET", strings.Replace(link, one.server.URL(), w.server.URL(), 1)),
			} {
				if got.status != http.StatusForbidden {
					open = append(open, fmt.Sprintf("%s: %d %s", name, got.status, got.body))
				}
			}
			return open
		}
		if !eventually(2*time.Second, func() bool { return len(shut()) == 0 }) {
			t.Errorf("replica %d still serves %v", i+1, shut())
		}
		w.call(other, "ListPrincipals", map[string]any{})
	}
	if got := one.post(boss, "ListPrincipals", `{}`); !strings.Contains(got.body, "the account "+tenant+" is disabled") {
		t.Errorf("the refusal says %s", got.body)
	}
	one.call(root(), "EnableAccount", map[string]any{"accountId": tenant})
	if !eventually(2*time.Second, func() bool { return one.post(boss, "ListPrincipals", `{}`).status == http.StatusOK }) {
		t.Error("an enabled account is still refused")
	}
	if got := one.post(agent, "GetResourceOauth2Token", encode(t, ask)); got.status/100 == 2 {
		t.Errorf("a token from before the account was disabled lives again: %d", got.status)
	}
	for _, id := range []string{"000000000000", "999999999999"} {
		if got := one.post(root(), "DisableAccount", `{"accountId":"`+id+`"}`); got.status/100 == 2 {
			t.Errorf("account %s was disabled: %d", id, got.status)
		}
	}
}

// TestOnlyTheInstallationsRootKeepsAccounts tries each operation on accounts as root of another account, and as the
// administrator of the installation's own.
func TestOnlyTheInstallationsRootKeepsAccounts(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	boss, _ := w.account(tenant)
	admin := w.principal("admin", "", "admin")
	for op, in := range map[string]string{
		"CreateAccount": `{"name":"x"}`, "ListAccounts": `{}`, "UpdateAccount": `{"accountId":"` + tenant + `","quotas":{}}`,
		"DisableAccount": `{"accountId":"` + tenant + `"}`, "EnableAccount": `{"accountId":"` + tenant + `"}`,
	} {
		for name, k := range map[string]key{"root of an account": boss, "an administrator": admin} {
			if got := w.post(k, op, in); got.status != http.StatusForbidden {
				t.Errorf("%s by %s: %d %s", op, name, got.status, got.body)
			}
		}
	}
}

// TestQuotasOfRequests holds an account to its requests a second, and no other.
func TestQuotasOfRequests(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	boss, _ := w.account(tenant)
	w.call(root(), "UpdateAccount", map[string]any{"accountId": tenant, "quotas": map[string]any{"requestsPerSecond": 5}})
	var refused reply
	if !eventually(5*time.Second, func() bool {
		for range 20 {
			if got := w.post(boss, "ListPrincipals", `{}`); got.status == http.StatusTooManyRequests {
				refused = got
			}
		}
		return refused.status != 0
	}) {
		t.Fatal("no request was refused")
	}
	if refused.header.Get("X-Amzn-Errortype") != "ThrottlingException" || refused.header.Get("Retry-After") != "1" {
		t.Errorf("refused with %v", refused.header)
	}
	for range 20 {
		w.call(root(), "ListPrincipals", map[string]any{})
	}
}

// TestA34_GuessingIsSlowedAndLocksNobodyOut guesses a key's secret until guesses are refused, while its owner goes on
// working from the same address. The addresses are what a trusted proxy says, since loopback is exempt.
func TestA34_GuessingIsSlowedAndLocksNobodyOut(t *testing.T) {
	w := newBare(t, daemon.SQLite, func(c *daemon.Config) { c.TrustedProxies = prefixes(t, []string{"127.0.0.0/8"}) })
	post := func(k key) reply {
		r := w.request(k, http.MethodPost, "/tabard/ListPrincipals", `{}`)
		r.Header.Set("X-Forwarded-For", "198.51.100.7")
		return do(t, r)
	}
	guess := key{rootID, "not-the-secret-of-root-at-all"}
	throttled := 0
	for range 60 {
		got := post(guess)
		switch got.status {
		case http.StatusTooManyRequests:
			if throttled++; got.header.Get("Retry-After") == "" || got.header.Get("X-Amzn-Errortype") != "ThrottlingException" {
				t.Fatalf("throttled without saying when to try again: %v", got.header)
			}
		case http.StatusForbidden:
		default:
			t.Fatalf("a guess answered %d %s", got.status, got.body)
		}
		if got := post(root()); got.status != http.StatusOK {
			t.Fatalf("the owner of the key: %d %s", got.status, got.body)
		}
	}
	if throttled < 20 {
		t.Errorf("%d of 60 guesses were throttled", throttled)
	}
	for i := range 150 { // other keys of the same client, known and unknown alike
		post(key{fmt.Sprintf("TABARDGUESS%09d", i), "x"})
	}
	if got := post(key{"TABARDANOTHER0000000", "x"}); got.status != http.StatusTooManyRequests {
		t.Errorf("a guess at another key from an address that guessed much: %d", got.status)
	}
	if got := post(root()); got.status != http.StatusOK {
		t.Errorf("the owner of the key in the end: %d %s", got.status, got.body)
	}
}

// TestF18_ForwardedAddressesAreBelievedFromTrustedHopsOnly guesses through proxies that are trusted and that are not,
// with another forged address each time: the address that counts is the one that the last trusted hop saw.
func TestF18_ForwardedAddressesAreBelievedFromTrustedHopsOnly(t *testing.T) {
	for name, c := range map[string]struct {
		trusted []string
		forward string // %d is forged
		remote  string
	}{
		"no proxy is trusted":                  {nil, "203.0.113.%d", "127.0.0.1"},
		"the trusted proxy adds what it saw":   {[]string{"127.0.0.0/8"}, "203.0.113.%d, 198.51.100.7", "198.51.100.7"},
		"two trusted hops":                     {[]string{"127.0.0.0/8", "10.0.0.0/8"}, "203.0.113.%d, 198.51.100.7, 10.1.2.3", "198.51.100.7"},
		"a hop in between that is not trusted": {[]string{"127.0.0.0/8", "10.0.0.0/8"}, "10.9.9.%d, 198.51.100.7", "198.51.100.7"},
		"what the client sent is no address":   {[]string{"127.0.0.0/8"}, "203.0.113.%d, evil", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBare(t, daemon.SQLite, func(c2 *daemon.Config) { c2.TrustedProxies = prefixes(t, c.trusted) })
			throttled := false
			for i := range 130 {
				r := w.request(key{fmt.Sprintf("TABARDGUESS%09d", i), "x"}, "POST", "/tabard/ListPrincipals", `{}`)
				r.Header.Set("X-Forwarded-For", fmt.Sprintf(c.forward, i))
				throttled = do(t, r).status == http.StatusTooManyRequests
			}
			if c.remote != "127.0.0.1" && !throttled { // loopback is exempt, whatever it says it forwards
				t.Error("a client escapes the limit of its address by X-Forwarded-For")
			}
			for _, line := range logLines(t, w.logs.String()) {
				if remote, ok := line["remote"].(string); ok && !strings.HasPrefix(remote, c.remote+":") {
					t.Errorf("the log has the client as %s, want %s", remote, c.remote)
				}
			}
		})
	}
}

// TestRootIsRecoveredBesideARunningServer disables root on PostgreSQL, recovers it with the server's key while the
// server runs, and finds both in the trail.
func TestRootIsRecoveredBesideARunningServer(t *testing.T) {
	w := newBare(t, peer.Postgres(t))
	auditor := w.principal("auditor", "", "auditor")
	w.call(root(), "DisablePrincipal", map[string]any{"name": "root"})
	if !eventually(2*time.Second, func() bool { return w.post(root(), "ListPrincipals", `{}`).status == http.StatusForbidden }) {
		t.Fatal("root is not disabled")
	}
	c := daemon.Config{DataDir: t.TempDir(), DB: w.db, KeyFile: filepath.Join(w.dataDir, "key")}
	got, err := daemon.RecoverRoot(t.Context(), c, "")
	if err != nil {
		t.Fatal(err)
	}
	fresh := key{got.AccessKeyID, got.Secret.Expose()}
	if !eventually(2*time.Second, func() bool { return w.post(fresh, "ListPrincipals", `{}`).status == http.StatusOK }) {
		t.Error("the recovered root is refused")
	}
	if w.post(root(), "ListPrincipals", `{}`).status != http.StatusForbidden {
		t.Error("the old root key lives")
	}
	if body := w.call(auditor, "ListAuditRecords", map[string]any{"maxResults": 50}).body; !strings.Contains(body, "recovered") || !strings.Contains(body, got.AccessKeyID) {
		t.Errorf("the trail does not have the recovery: %s", body)
	}
	c.KeyFile = filepath.Join(t.TempDir(), "nothing")
	if _, err := daemon.RecoverRoot(t.Context(), c, ""); err == nil {
		t.Error("root was recovered without the server's key")
	}
}
