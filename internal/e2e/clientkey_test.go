package e2e_test

import (
	"errors"
	"net/http"
	"path"
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

// keyed is the configuration of a client that has a key and no secret.
func keyed(discovery string, c *types.PrivateKeyJwtConfig) types.Oauth2ProviderConfigInput {
	return &types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig{Value: types.CustomOauth2ProviderConfigInput{
		OauthDiscovery: &types.Oauth2DiscoveryMemberDiscoveryUrl{Value: discovery}, ClientId: aws.String(clientID),
		ClientAuthenticationMethod: types.ClientAuthenticationMethodTypePrivateKeyJwt, PrivateKeyJwtConfig: c,
	}}
}

// A real third-party provider fetches the key set and accepts our assertions, in each algorithm; TestProvider says so,
// and says what is wrong before.
func TestPrivateKeyJWTAtOIDCProvider(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	w.trust()
	w.workload("calendar-agent")
	agent := w.principal("agent", "calendar-agent", "agent")
	wat := w.wat(agent, "calendar-agent", w.login("alice"))
	for _, alg := range []types.SigningAlgorithm{"", types.SigningAlgorithmEs256, types.SigningAlgorithmRs256, types.SigningAlgorithmPs256} {
		name := "keyed" + string(alg)
		var c *types.PrivateKeyJwtConfig
		if alg != "" {
			c = &types.PrivateKeyJwtConfig{SigningAlgorithm: alg}
		}
		made, err := w.control(root()).CreateOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
			Name: &name, CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2,
			Oauth2ProviderConfigInput: keyed(w.idp.DiscoveryURL(), c),
		})
		if err != nil {
			t.Fatal(err)
		}
		out := made.Oauth2ProviderConfigOutput.(*types.Oauth2ProviderConfigOutputMemberCustomOauth2ProviderConfig).Value
		if made.ClientSecretArn == nil || out.ClientAuthenticationMethod != types.ClientAuthenticationMethodTypePrivateKeyJwt ||
			out.PrivateKeyJwtConfig == nil || alg != "" && out.PrivateKeyJwtConfig.SigningAlgorithm != alg {
			t.Errorf("%s: got %+v", name, out)
		}
		// The provider still has the client with the keys of the round before, or does not have it.
		if got := w.check(name); got["client-authentication"] != "fail" {
			t.Errorf("%s: before the registration: got %v", name, got)
		}
		jwks := w.server.PublicURL() + "/identities/oauth2/jwks/" + path.Base(*made.CallbackUrl)
		w.idp.Register(t, peer.Client{ID: clientID, RedirectURIs: []string{*made.CallbackUrl}, JWKSURI: jwks})
		if got := w.check(name); got["client-authentication"] != "pass" || got["metadata"] != "pass" || got["issuer"] != "pass" || got["pkce"] != "pass" {
			t.Errorf("%s: got %v", name, got)
		}
		token, err := w.data(agent).GetResourceOauth2Token(t.Context(), &bedrockagentcore.GetResourceOauth2TokenInput{
			WorkloadIdentityToken: &wat, ResourceCredentialProviderName: &name, Oauth2Flow: data.Oauth2FlowTypeM2m, Scopes: []string{},
		})
		if err != nil || aws.ToString(token.AccessToken) == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// check runs TestProvider and returns the status of each check.
func (w *world) check(provider string) map[string]string {
	w.t.Helper()
	status, out := w.tabard(root(), "TestProvider", map[string]any{"providerName": provider})
	if status != http.StatusOK {
		w.t.Fatalf("TestProvider: %d %v", status, out)
	}
	got := map[string]string{}
	for _, c := range out["checks"].([]any) {
		check := c.(map[string]any)
		got[check["name"].(string)] = check["status"].(string)
	}
	return got
}

// What is not offered is refused by the member's name.
func TestPrivateKeyJWTRefusals(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	kms := keyed("https://idp.example.com/.well-known/openid-configuration", &types.PrivateKeyJwtConfig{
		PrivateKeySource: &types.PrivateKeySourceMemberKmsKeySource{Value: types.KmsKeySourceType{
			KmsKeyArn: aws.String("arn:aws:kms:us-east-1:000000000000:key/01234567-89ab-cdef-0123-456789abcdef"),
		}},
	})
	reserved := keyed("https://idp.example.com/.well-known/openid-configuration", &types.PrivateKeyJwtConfig{AdditionalPayloadClaims: map[string]string{"sub": "other"}})
	iam := keyed("https://idp.example.com/.well-known/openid-configuration", &types.PrivateKeyJwtConfig{})
	iam.(*types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig).Value.ClientAuthenticationMethod = types.ClientAuthenticationMethodTypeAwsIamIdTokenJwt
	for want, config := range map[string]types.Oauth2ProviderConfigInput{
		"leave privateKeySource out": kms, "cannot set sub": reserved, "is for clientAuthenticationMethod PRIVATE_KEY_JWT": iam,
	} {
		_, err := w.control(root()).CreateOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
			Name: aws.String("p"), CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2, Oauth2ProviderConfigInput: config,
		})
		invalid, ok := errors.AsType[*types.ValidationException](err)
		if !ok || !strings.Contains(*invalid.Message, want) {
			t.Errorf("got %v, want a ValidationException with %q", err, want)
		}
	}
}
