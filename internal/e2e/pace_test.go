package e2e_test

import (
	"net/http"
	"strconv"
	"testing"
)

// M14: an agent whose requests make a provider fail, over and over, is told when to try again, as AWS's SDKs read it;
// so is an administrator who tests on and on. The other account's agent is served by the same host meanwhile.
func TestM14_ThrottlingTellsWhenToTryAgain(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db)
		boss, theirs := w.account(tenant)
		w.call(root(), "CreateWorkloadIdentity", map[string]any{"name": "worker"})
		ours := w.principal("worker", "worker", "agent")
		host, reached := counted(t)
		for _, admin := range []key{root(), boss} {
			w.call(admin, "CreateOauth2CredentialProvider", map[string]any{
				"name": "down", "credentialProviderVendor": "CustomOauth2", "oauth2ProviderConfigInput": map[string]any{
					"customOauth2ProviderConfig": map[string]any{"clientId": clientID, "clientSecret": clientSecret,
						"oauthDiscovery": map[string]any{"authorizationServerMetadata": map[string]any{
							"issuer": "http://" + host, "authorizationEndpoint": "http://" + host + "/a", "tokenEndpoint": "http://" + host + "/t"}}}}})
		}
		ask := func(agent key) func() reply {
			wat := w.call(agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "worker"}).get("workloadAccessToken")
			body := encode(t, map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "down", "oauth2Flow": "M2M",
				"scopes": []string{"read"}, "forceAuthentication": true})
			return func() reply { return w.post(agent, "GetResourceOauth2Token", body) }
		}
		for what, call := range map[string]func() reply{
			"an agent":         ask(ours),
			"an administrator": func() reply { return w.post(root(), "TestProvider", `{"providerName":"down"}`) },
		} {
			before := reached()
			var last reply
			for range 200 {
				last = call()
			}
			seconds, err := strconv.Atoi(last.header.Get("Retry-After"))
			if last.status != http.StatusTooManyRequests || last.header.Get("X-Amzn-Errortype") != "ThrottlingException" || err != nil || seconds < 1 || seconds > 60 {
				t.Errorf("%s: the last of 200 calls answered %d %q with Retry-After %q", what, last.status, last.body, last.header.Get("Retry-After"))
			}
			if n := reached() - before; n == 0 || n > 12 {
				t.Errorf("%s: 200 calls cost the provider %d connections", what, n)
			}
		}
		before := reached()
		if got := ask(theirs)(); got.status == http.StatusTooManyRequests || reached() == before {
			t.Errorf("another account's agent was answered %d %s, without a call", got.status, got.body)
		}
	})
}
