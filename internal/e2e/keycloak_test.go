package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	data "github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

const (
	corpAgent = "calendar-agent"

	// Another application at Keycloak. Unlike appClient's, its access tokens have an audience: Tabard's client there.
	assistantClient = "assistant"
)

// corp is a server whose users, and whose credential provider "corp", are at Keycloak.
type corp struct {
	*world
	keycloak *peer.KeycloakIdP
	agent    key
}

// TestKeycloak has Keycloak as the issuer of users, and as a credential provider in each of the three flows.
func TestKeycloak(t *testing.T) {
	keycloak := peer.Keycloak(t) // takes seconds: one for all
	start := func(t *testing.T) corp {
		w := newBare(t, daemon.SQLite)
		w.workload(corpAgent)
		return corp{world: w, keycloak: keycloak, agent: w.principal("agent", corpAgent, "agent")}
	}
	t.Run("kinds of tokens", func(t *testing.T) { start(t).kinds() })
	t.Run("users", func(t *testing.T) { start(t).users() })
	t.Run("machine", func(t *testing.T) { start(t).machine() })
	t.Run("on behalf of", func(t *testing.T) { start(t).onBehalfOf() })
	t.Run("consent", func(t *testing.T) { start(t).consent() })
}

// trustAs trusts Keycloak by a row that replaces the one before.
func (c corp) trustAs(row map[string]any) {
	c.t.Helper()
	c.tabard(root(), "DeleteTrustedIssuer", map[string]any{"issuer": c.keycloak.Issuer})
	row["issuer"] = c.keycloak.Issuer
	if status, out := c.tabard(root(), "CreateTrustedIssuer", row); status != http.StatusOK {
		c.t.Fatalf("CreateTrustedIssuer: %d %v", status, out)
	}
}

// kinds has the issuer's row decide which tokens of Keycloak name a user.
func (c corp) kinds() {
	web, other := c.keycloak.Login(c.t, appClient, "alice"), c.keycloak.Login(c.t, assistantClient, "alice")
	for _, row := range []struct {
		trust map[string]any
		jwt   string
		why   string // of the refusal; "" where the token names a user
	}{
		{map[string]any{"clientIds": []string{appClient}, "tokenUse": "access"}, web.Access, ""},
		{map[string]any{"clientIds": []string{appClient}, "tokenUse": "access"}, web.ID, "is an ID token"},
		{map[string]any{"clientIds": []string{appClient}, "tokenUse": "access"}, other.Access, "another audience and client"},
		{map[string]any{"clientIds": []string{appClient}, "tokenUse": "id"}, web.ID, ""},
		{map[string]any{"clientIds": []string{appClient}, "tokenUse": "id"}, web.Access, "is an access token"},
		{map[string]any{"clientIds": []string{appClient}, "tokenUse": "id"}, other.ID, "another audience and client"},
		{map[string]any{"audiences": []string{appClient}}, web.ID, ""},
		{map[string]any{"audiences": []string{appClient}}, web.Access, "another audience and client"}, // it has none
		{map[string]any{"audiences": []string{clientID}}, other.Access, ""},
		{map[string]any{"audiences": []string{clientID}}, other.ID, "another audience and client"},
	} {
		c.trustAs(row.trust)
		_, err := c.data(c.agent).GetWorkloadAccessTokenForJWT(c.t.Context(), &bedrockagentcore.GetWorkloadAccessTokenForJWTInput{WorkloadName: aws.String(corpAgent), UserToken: &row.jwt})
		if row.why == "" && err != nil || row.why != "" && (err == nil || !strings.Contains(err.Error(), row.why)) {
			c.t.Errorf("%v, a token of %q: got %v, want %q", row.trust, claims(c.t, row.jwt)["azp"], err, row.why)
		}
	}
}

// users asks who alice and bob are: Tabard by either token, Keycloak by the access token, the only one that it takes.
func (c corp) users() {
	c.trustAs(map[string]any{"clientIds": []string{appClient}, "userinfo": true})
	for name, u := range c.keycloak.Users {
		tokens := c.keycloak.Login(c.t, appClient, name)
		for kind, jwt := range map[string]string{"ID": tokens.ID, "access": tokens.Access} {
			in := map[string]any{"workloadIdentityToken": c.wat(c.agent, corpAgent, jwt)}
			if status, out := c.tabard(c.agent, "DescribeUser", in); status != http.StatusOK || out["issuer"] != c.keycloak.Issuer || out["subject"] != u.ID {
				c.t.Errorf("%s's %s token names %v (%d), want %s of %s", name, kind, out, status, u.ID, c.keycloak.Issuer)
			}
			status, out := c.tabard(c.agent, "GetUserInfo", in)
			if kind == "ID" {
				if message, _ := out["message"].(string); status != http.StatusBadRequest || !strings.Contains(message, "access token with the scope openid") {
					c.t.Errorf("Keycloak says %v (%d) of %s by the ID token, want a refusal", out, status, name)
				}
			} else if status != http.StatusOK || out["subject"] != u.ID || out["email"] != u.Email {
				c.t.Errorf("Keycloak says %v (%d) of %s by the access token, want %s", out, status, name, u.Email)
			}
		}
	}
}

// providerWith makes the credential provider "corp", with the realm's client for Tabard.
func (c corp) providerWith(obo *types.OnBehalfOfTokenExchangeConfigType) {
	c.t.Helper()
	config, ok := customConfig(c.keycloak.DiscoveryURL()).(*types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig)
	if !ok {
		c.t.Fatal("the configuration is of another type")
	}
	config.Value.OnBehalfOfTokenExchangeConfig = obo
	_, err := c.control(root()).CreateOauth2CredentialProvider(c.t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: aws.String("corp"), CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2, Oauth2ProviderConfigInput: config,
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// twice asks for a token two times; the second answer has to come from the vault. It returns the token's claims.
func (c corp) twice(ask *bedrockagentcore.GetResourceOauth2TokenInput) map[string]any {
	c.t.Helper()
	first, err := c.data(c.agent).GetResourceOauth2Token(c.t.Context(), ask)
	if err != nil || aws.ToString(first.AccessToken) == "" || first.AuthorizationUrl != nil {
		c.t.Fatalf("got %v, want a token", err)
	}
	again, err := c.data(c.agent).GetResourceOauth2Token(c.t.Context(), ask)
	if err != nil || aws.ToString(again.AccessToken) != *first.AccessToken {
		c.t.Fatalf("the second call: got %v, want the same token", err)
	}
	return claims(c.t, *first.AccessToken)
}

// machine gets a token for the agent itself.
func (c corp) machine() {
	c.providerWith(nil)
	minted, err := c.data(c.agent).GetWorkloadAccessToken(c.t.Context(), &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String(corpAgent)})
	if err != nil {
		c.t.Fatal(err)
	}
	got := c.twice(&bedrockagentcore.GetResourceOauth2TokenInput{
		WorkloadIdentityToken: minted.WorkloadAccessToken, ResourceCredentialProviderName: aws.String("corp"), Oauth2Flow: data.Oauth2FlowTypeM2m, Scopes: []string{"email"},
	})
	if got["iss"] != c.keycloak.Issuer || got["azp"] != clientID || got["preferred_username"] != "service-account-"+clientID {
		c.t.Errorf("the token is by %v for %v as %v", got["iss"], got["azp"], got["preferred_username"])
	}
}

// onBehalfOf exchanges each user's access token for one of Tabard's client. Keycloak exchanges only access tokens that
// have that client as audience, and wants their type said.
func (c corp) onBehalfOf() {
	c.trustAs(map[string]any{"clientIds": []string{appClient, assistantClient}})
	c.providerWith(&types.OnBehalfOfTokenExchangeConfigType{
		GrantType:                    types.OnBehalfOfTokenExchangeGrantTypeTypeTokenExchange,
		TokenExchangeGrantTypeConfig: &types.TokenExchangeGrantTypeConfigType{ActorTokenContent: types.ActorTokenContentTypeNone},
	})
	asking := func(client, user string) *bedrockagentcore.GetResourceOauth2TokenInput {
		wat := c.wat(c.agent, corpAgent, c.keycloak.Login(c.t, client, user).Access)
		return &bedrockagentcore.GetResourceOauth2TokenInput{
			WorkloadIdentityToken: &wat, ResourceCredentialProviderName: aws.String("corp"), Oauth2Flow: data.Oauth2FlowTypeOnBehalfOfTokenExchange,
			Scopes: []string{"email"}, CustomParameters: map[string]string{"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"},
		}
	}
	_, err := c.data(c.agent).GetResourceOauth2Token(c.t.Context(), asking(appClient, "alice"))
	if err == nil || !strings.Contains(err.Error(), "access_denied") {
		c.t.Errorf("a token that is not for Tabard's client: got %v, want Keycloak's refusal", err)
	}
	for name, u := range c.keycloak.Users {
		got := c.twice(asking(assistantClient, name))
		if got["iss"] != c.keycloak.Issuer || got["azp"] != clientID || got["sub"] != u.ID || got["email"] != u.Email {
			c.t.Errorf("%s: the token is by %v for %v of %v, %v", name, got["iss"], got["azp"], got["sub"], got["email"])
		}
	}
}

// consent takes alice through Keycloak's login page, and revokes there what she allowed.
func (c corp) consent() {
	c.trustAs(map[string]any{"clientIds": []string{appClient}})
	c.providerWith(nil)
	app := c.principal("app", corpAgent, "consent-app")
	jwt := c.keycloak.Login(c.t, appClient, "alice").Access
	wat := c.wat(c.agent, corpAgent, jwt)
	ask := &bedrockagentcore.GetResourceOauth2TokenInput{
		WorkloadIdentityToken: &wat, ResourceCredentialProviderName: aws.String("corp"), Oauth2Flow: data.Oauth2FlowTypeUserFederation,
		Scopes: []string{"openid", "email"}, ResourceOauth2ReturnUrl: aws.String(returnURL),
	}
	first, err := c.data(c.agent).GetResourceOauth2Token(c.t.Context(), ask)
	if err != nil || first.AuthorizationUrl == nil {
		c.t.Fatalf("got %v, want an authorization URL", err)
	}
	end := c.keycloak.Walk(c.t, "alice", *first.AuthorizationUrl, returnURL)
	if end.URL.Query().Get("session_id") != *first.SessionUri {
		c.t.Fatalf("the browser ended at %s %d\n%s", end.URL, end.Status, end.Body)
	}
	_, err = c.data(app).CompleteResourceTokenAuth(c.t.Context(), &bedrockagentcore.CompleteResourceTokenAuthInput{SessionUri: first.SessionUri, UserIdentifier: &data.UserIdentifierMemberUserToken{Value: jwt}})
	if err != nil {
		c.t.Fatal(err)
	}
	if got := c.twice(ask); got["azp"] != clientID || got["sub"] != c.keycloak.Users["alice"].ID {
		c.t.Errorf("the token is for %v of %v", got["azp"], got["sub"])
	}
	list, _ := c.connectionsOf(map[string]any{"workloadName": corpAgent})
	if len(list) != 1 || list[0]["refreshable"] != true {
		c.t.Fatalf("the connections: %v", list)
	}
	if r := c.call(root(), "RevokeConnection", map[string]any{"connectionId": list[0]["connectionId"]}); r.get("upstream") != "revoked" {
		c.t.Errorf("RevokeConnection: %s", r.body)
	}
	if out, err := c.data(c.agent).GetResourceOauth2Token(c.t.Context(), ask); err != nil || out.AuthorizationUrl == nil {
		c.t.Errorf("after RevokeConnection: %v, want to be asked again", err)
	}
}

// claims reads a JWT without a look at its signature.
func claims(t *testing.T, jwt string) map[string]any {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts are no JWT", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var all map[string]any
	if err := errors.Join(err, json.Unmarshal(payload, &all)); err != nil {
		t.Fatal(err)
	}
	return all
}
