package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

const acme = `[{"name":"AcmeOauth2","config":"includedOauth2ProviderConfig","authMethod":"client_secret_post","verified":"documentation",
	"issuer":"https://login.acme.example","authorizationEndpoint":"https://login.acme.example/a","tokenEndpoint":"https://login.acme.example/t"}]`

// Every vendor of the contract, and one of the operator's own, is created through the API by its member of the union,
// and comes back in the same member with the endpoints that it has.
func TestEveryVendor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vendors.json")
	if err := os.WriteFile(file, []byte(acme), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newBare(t, daemon.SQLite, func(c *daemon.Config) { c.VendorsFile = file })
	catalogue, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	if catalogue, err = catalogue.WithOperators([]byte(acme)); err != nil {
		t.Fatal(err)
	}
	for _, v := range catalogue.Vendors() {
		config := map[string]any{"clientId": "client", "clientSecret": "s3cret"}
		token := strings.ReplaceAll(v.TokenEndpoint, "{tenantId}", "contoso.example")
		switch {
		case v.Name == "CustomOauth2":
			token = "https://idp.example/t"
			config["oauthDiscovery"] = map[string]any{"authorizationServerMetadata": map[string]any{"issuer": "https://idp.example",
				"authorizationEndpoint": "https://idp.example/a", "tokenEndpoint": token}}
		case v.Tenant:
			token = "https://" + strings.ToLower(v.Name) + ".example/t"
			config["issuer"], config["authorizationEndpoint"], config["tokenEndpoint"] = "https://i.example", "https://i.example/a", token
		case v.DefaultTenant != "":
			config["tenantId"] = "contoso.example"
		}
		w.call(root(), "CreateOauth2CredentialProvider", map[string]any{"name": v.Name, "credentialProviderVendor": v.Name,
			"oauth2ProviderConfigInput": map[string]any{v.Config: config}})
		var got struct {
			Vendor string `json:"credentialProviderVendor"`
			Config map[string]struct {
				Discovery struct {
					Metadata struct {
						Token string `json:"tokenEndpoint"`
					} `json:"authorizationServerMetadata"`
				} `json:"oauthDiscovery"`
				ClientID string `json:"clientId"`
			} `json:"oauth2ProviderConfigOutput"`
		}
		r := w.call(root(), "GetOauth2CredentialProvider", map[string]any{"name": v.Name})
		if err := json.Unmarshal([]byte(r.body), &got); err != nil {
			t.Fatal(err)
		}
		if c := got.Config[v.Config]; got.Vendor != v.Name || len(got.Config) != 1 || c.ClientID != "client" || c.Discovery.Metadata.Token != token {
			t.Errorf("%s: want the member %s with %s, got %s", v.Name, v.Config, token, r.body)
		}
	}
	for vendor, config := range map[string]map[string]any{
		"NoneOauth2":   {"includedOauth2ProviderConfig": map[string]any{"clientId": "c", "clientSecret": "s"}},
		"NotionOauth2": {"slackOauth2ProviderConfig": map[string]any{"clientId": "c", "clientSecret": "s"}},
		"Bad/Name":     {"includedOauth2ProviderConfig": map[string]any{"clientId": "c", "clientSecret": "s"}},
	} {
		r := w.post(root(), "CreateOauth2CredentialProvider", encode(t, map[string]any{"name": "wrong", "credentialProviderVendor": vendor, "oauth2ProviderConfigInput": config}))
		if r.status != http.StatusBadRequest || !strings.Contains(r.body, "FieldValidationFailed") {
			t.Errorf("%s: got %d %s, want a validation error", vendor, r.status, r.body)
		}
	}
}

// A vendor of the operator's own serves tokens, and what it answers beside them reaches the caller.
func TestVendorAttributesReachTheCaller(t *testing.T) {
	provider := oauthtest.New(t)
	file := filepath.Join(t.TempDir(), "vendors.json")
	const local = `[{"name":"LocalOauth2","config":"includedOauth2ProviderConfig","tenant":true,"authMethod":"client_secret_post","verified":"documentation",
		"attributes":["expires_in","region"]}]`
	if err := os.WriteFile(file, []byte(local), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newBare(t, daemon.SQLite, func(c *daemon.Config) { c.VendorsFile = file })
	w.workload("calendar-agent")
	agent := w.principal("agent", "calendar-agent", "agent")
	w.call(root(), "CreateOauth2CredentialProvider", map[string]any{"name": "local", "credentialProviderVendor": "LocalOauth2",
		"oauth2ProviderConfigInput": map[string]any{"includedOauth2ProviderConfig": map[string]any{"clientId": oauthtest.ClientID, "clientSecret": oauthtest.ClientSecret,
			"issuer": provider.URL, "authorizationEndpoint": provider.URL + "/authorize", "tokenEndpoint": provider.URL + oauthtest.Token}}})
	var wat struct{ WorkloadAccessToken string }
	r := w.call(agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "calendar-agent"})
	if err := json.Unmarshal([]byte(r.body), &wat); err != nil {
		t.Fatal(err)
	}
	for range 2 { // fetched, and then from the vault
		var got struct {
			AccessToken      string
			VendorAttributes map[string]string
		}
		r := w.call(agent, "GetResourceOauth2Token", map[string]any{"workloadIdentityToken": wat.WorkloadAccessToken, "resourceCredentialProviderName": "local",
			"oauth2Flow": "M2M", "scopes": []string{"read"}})
		if err := json.Unmarshal([]byte(r.body), &got); err != nil {
			t.Fatal(err)
		}
		if got.AccessToken == "" || len(got.VendorAttributes) != 1 || got.VendorAttributes["expires_in"] != "3600" {
			t.Errorf("got the attributes %q", got.VendorAttributes)
		}
	}
	if n := provider.Hits(oauthtest.Token); n != 1 {
		t.Errorf("the provider was asked %d times, want once", n)
	}
}
