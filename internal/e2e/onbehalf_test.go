package e2e_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	data "github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/standin"
)

// TestGoSDKOnBehalfOf makes a provider that exchanges users' tokens with the official SDK, and exchanges the ID token
// of a real login there.
func TestGoSDKOnBehalfOf(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db)
		w.trust()
		w.workload("agent")
		agent := w.principal("agent", "agent", "agent")
		jwt := w.login("alice")
		early := w.wat(agent, "agent", jwt)

		provider := oauthtest.New(t)
		obo := &types.OnBehalfOfTokenExchangeConfigType{
			GrantType: types.OnBehalfOfTokenExchangeGrantTypeTypeTokenExchange,
			TokenExchangeGrantTypeConfig: &types.TokenExchangeGrantTypeConfigType{
				ActorTokenContent: types.ActorTokenContentTypeM2m, ActorTokenScopes: []string{"act"},
			},
		}
		config := &types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig{Value: types.CustomOauth2ProviderConfigInput{
			OauthDiscovery: &types.Oauth2DiscoveryMemberDiscoveryUrl{Value: provider.URL + oauthtest.Metadata},
			ClientId:       aws.String(oauthtest.ClientID), ClientSecret: aws.String(oauthtest.ClientSecret), OnBehalfOfTokenExchangeConfig: obo,
		}}
		_, err := w.control(root()).CreateOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
			Name: aws.String("obo"), CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2, Oauth2ProviderConfigInput: config,
		})
		if err != nil {
			t.Fatal(err)
		}
		made, err := w.control(root()).GetOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.GetOauth2CredentialProviderInput{Name: aws.String("obo")})
		if err != nil {
			t.Fatal(err)
		}
		custom, ok := made.Oauth2ProviderConfigOutput.(*types.Oauth2ProviderConfigOutputMemberCustomOauth2ProviderConfig)
		if !ok || custom.Value.OnBehalfOfTokenExchangeConfig == nil ||
			custom.Value.OnBehalfOfTokenExchangeConfig.TokenExchangeGrantTypeConfig.ActorTokenContent != types.ActorTokenContentTypeM2m {
			t.Fatalf("the provider does not say how it exchanges users' tokens: %+v", made.Oauth2ProviderConfigOutput)
		}

		ask := &bedrockagentcore.GetResourceOauth2TokenInput{
			WorkloadIdentityToken: &early, ResourceCredentialProviderName: aws.String("obo"),
			Oauth2Flow: data.Oauth2FlowTypeOnBehalfOfTokenExchange, Scopes: []string{"read"},
		}
		_, err = w.data(agent).GetResourceOauth2Token(t.Context(), ask)
		if invalid, ok := errors.AsType[*data.ValidationException](err); !ok || !strings.Contains(invalid.ErrorMessage(), "GetWorkloadAccessTokenForJWT") {
			t.Fatalf("a token from before: got %v, want a ValidationException that says to mint again", err)
		}
		late := w.wat(agent, "agent", jwt)
		ask.WorkloadIdentityToken = &late
		first, err := w.data(agent).GetResourceOauth2Token(t.Context(), ask)
		if err != nil || aws.ToString(first.AccessToken) == "" || first.AuthorizationUrl != nil {
			t.Fatalf("got %v, want a token without consent", err)
		}
		again, err := w.data(agent).GetResourceOauth2Token(t.Context(), ask)
		if err != nil || aws.ToString(again.AccessToken) != *first.AccessToken {
			t.Fatalf("the second call: got %v, want the same token", err)
		}
		requests := provider.Requests()
		if len(requests) != 2 || requests[0].Form.Get("grant_type") != "client_credentials" {
			t.Fatalf("the provider got %d requests, want one for the actor and one exchange", len(requests))
		}
		if form := requests[1].Form; form.Get("grant_type") != oauthtest.GrantTokenExchange || form.Get("subject_token") != jwt || form.Get("actor_token") == "" {
			t.Errorf("the exchange was %s, with the user's own token: %t", form.Get("grant_type"), form.Get("subject_token") == jwt)
		}
		if strings.Contains(w.logs.String(), jwt) {
			t.Error("the log has the user's token")
		}
	})
}

// corporate starts the OpenID provider of zitadel's library, whose access tokens are JWTs that its UserInfo takes.
func corporate(t *testing.T) *standin.OIDC {
	t.Helper()
	var handler http.Handler
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	issuer := "http://" + server.Listener.Addr().String()
	idp, err := standin.NewOIDC(standin.OIDCConfig{
		Issuer: issuer, Clients: []standin.Client{{ID: appClient, Secret: secret.New("app-secret"), RedirectURIs: []string{returnURL}, Scopes: []string{"openid", "profile", "email"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	handler = idp.Handler()
	server.Start()
	t.Cleanup(server.Close)
	return idp
}

// TestUserInfoOfTheRightUser asks a real UserInfo endpoint for alice and for bob, and for nobody else.
func TestUserInfoOfTheRightUser(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db)
		idp := corporate(t)
		w.call(root(), "CreateTrustedIssuer", map[string]any{"issuer": idp.Issuer(), "clientIds": []string{appClient}, "userinfo": true})
		w.call(root(), "CreateTrustedIssuer", map[string]any{"issuer": w.idp.Issuer, "audiences": []string{appClient}, "userinfo": true})
		_, err := w.control(root()).CreateWorkloadIdentity(t.Context(), &bedrockagentcorecontrol.CreateWorkloadIdentityInput{
			Name: aws.String("agent"), Tags: map[string]string{"tabard:assurance": "asserted"},
		})
		if err != nil {
			t.Fatal(err)
		}
		agent := w.principal("agent", "agent", "agent")
		for user, email := range map[string]string{"alice": "alice@corp.example", "bob": "bob@corp.example"} {
			wat := w.wat(agent, "agent", idp.MintAccessToken(user, appClient).Expose())
			info := w.call(agent, "GetUserInfo", map[string]any{"workloadIdentityToken": wat})
			who := w.call(agent, "DescribeUser", map[string]any{"workloadIdentityToken": wat})
			if info.get("email") != email || info.get("subject") == "" || info.get("subject") != who.get("subject") || !strings.Contains(info.get("claims"), email) {
				t.Errorf("%s: got %s of %s", user, info.body, who.body)
			}
			sdk, err := tabard.New(t.Context(), tabard.Config{Workload: "agent", API: w.data(agent)})
			if err != nil {
				t.Fatal(err)
			}
			ctx := tabard.WithUserToken(t.Context(), idp.MintAccessToken(user, appClient).Expose())
			if u, err := sdk.UserInfo(ctx); err != nil || u.Email != email || u.Subject != who.get("subject") {
				t.Errorf("%s by the Go SDK: got %+v, %v", user, u, err)
			}
			if d, err := sdk.DescribeUser(ctx); err != nil || d.Subject != who.get("subject") || d.Kind != "jwt" {
				t.Errorf("%s by the Go SDK: got %+v, %v", user, d, err)
			}
			if who.get("kind") != "jwt" || who.get("issuer") != idp.Issuer() || who.get("userRef") == "" {
				t.Errorf("%s: got %s", user, who.body)
			}
		}
		out, err := w.data(agent).GetWorkloadAccessTokenForUserId(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenForUserIdInput{WorkloadName: aws.String("agent"), UserId: aws.String("alice")})
		if err != nil {
			t.Fatal(err)
		}
		if who := w.call(agent, "DescribeUser", map[string]any{"workloadIdentityToken": *out.WorkloadAccessToken}); who.get("kind") != "uid" || who.get("userId") != "alice" {
			t.Errorf("an asserted user: got %s", who.body)
		}
		for what, wat := range map[string]string{
			"an asserted user":           *out.WorkloadAccessToken,
			"an ID token, oidc-provider": w.wat(agent, "agent", w.login("alice")),
		} {
			r := w.post(agent, "GetUserInfo", encode(t, map[string]any{"workloadIdentityToken": wat}))
			if r.status != http.StatusBadRequest || r.header.Get("X-Amzn-Errortype") != "ValidationException" || strings.Contains(r.body, "@") {
				t.Errorf("%s: got %d %s", what, r.status, r.body)
			}
		}
	})
}
