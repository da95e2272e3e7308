package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	data "github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/tabard-id/tabard/internal/daemon"
)

const arnStart = "arn:aws:bedrock-agentcore:" + daemon.DefaultRegion + ":000000000000:"

// goAPIKeys does every operation of API-key providers with the official Go SDK, and releases the key.
func goAPIKeys(t *testing.T, seen *members) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db).noting(seen)
		c, ctx := w.control(root()), t.Context()
		made, err := c.CreateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.CreateApiKeyCredentialProviderInput{
			Name: aws.String("maps"), ApiKey: aws.String("canary-key-1"), ApiKeySecretSource: types.SecretSourceTypeManaged, Tags: map[string]string{"team": "x"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if *made.CredentialProviderArn != arnStart+"token-vault/default/apikeycredentialprovider/maps" || made.ApiKeySecretSource != types.SecretSourceTypeManaged ||
			!strings.Contains(*made.ApiKeySecretArn.SecretArn, ":secret:bedrock-agentcore-identity!default/apikey/maps-") {
			t.Errorf("created %s with %s", *made.CredentialProviderArn, *made.ApiKeySecretArn.SecretArn)
		}
		_, err = c.CreateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.CreateApiKeyCredentialProviderInput{Name: aws.String("maps"), ApiKey: aws.String("k")})
		wantError[*types.ConflictException](t, err, "Credential provider with name: maps already exists")
		_, err = c.CreateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.CreateApiKeyCredentialProviderInput{Name: aws.String("none")})
		wantError[*types.ValidationException](t, err, "apiKey")
		_, err = c.CreateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.CreateApiKeyCredentialProviderInput{
			Name: aws.String("far"), ApiKeySecretSource: types.SecretSourceTypeExternal, ApiKeySecretConfig: &types.SecretReference{SecretId: aws.String("s"), JsonKey: aws.String("k")},
		})
		wantError[*types.ValidationException](t, err, "apiKeySecretSource")
		_, err = c.UpdateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.UpdateApiKeyCredentialProviderInput{
			Name: aws.String("maps"), ApiKeySecretSource: types.SecretSourceTypeExternal, ApiKeySecretConfig: &types.SecretReference{SecretId: aws.String("s"), JsonKey: aws.String("k")},
		})
		wantError[*types.ValidationException](t, err, "apiKeySecretSource")
		got, err := c.GetApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.GetApiKeyCredentialProviderInput{Name: aws.String("maps")})
		if err != nil || *got.ApiKeySecretArn.SecretArn != *made.ApiKeySecretArn.SecretArn || time.Since(*got.CreatedTime).Abs() > time.Minute {
			t.Errorf("get: %+v %v", got, err)
		}
		_, err = c.GetApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.GetApiKeyCredentialProviderInput{Name: aws.String("none")})
		wantError[*types.ResourceNotFoundException](t, err, "ApiKeyCredentialProvider not found for none")
		if _, err := c.UpdateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.UpdateApiKeyCredentialProviderInput{Name: aws.String("maps"), ApiKey: aws.String("canary-key-2"), ApiKeySecretSource: types.SecretSourceTypeManaged}); err != nil {
			t.Error(err)
		}

		w.workload("worker")
		agent, stranger := w.principal("worker", "worker", "agent"), w.principal("stranger", "other-agent", "agent")
		token, err := w.data(agent).GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("worker")})
		if err != nil {
			t.Fatal(err)
		}
		ask := &bedrockagentcore.GetResourceApiKeyInput{WorkloadIdentityToken: token.WorkloadAccessToken, ResourceCredentialProviderName: aws.String("maps")}
		released, err := w.data(agent).GetResourceApiKey(ctx, ask)
		if err != nil || *released.ApiKey != "canary-key-2" {
			t.Errorf("the key: %v", err)
		}
		_, err = w.data(stranger).GetResourceApiKey(ctx, ask)
		wantError[*data.AccessDeniedException](t, err, "pairing")
		_, err = w.data(agent).GetResourceApiKey(ctx, &bedrockagentcore.GetResourceApiKeyInput{WorkloadIdentityToken: token.WorkloadAccessToken, ResourceCredentialProviderName: aws.String("none")})
		wantError[*data.ResourceNotFoundException](t, err, "ApiKeyCredentialProvider not found for none")
		_, err = w.data(agent).GetResourceApiKey(ctx, &bedrockagentcore.GetResourceApiKeyInput{WorkloadIdentityToken: aws.String("wat1.bm90IG9uZQ"), ResourceCredentialProviderName: aws.String("maps")})
		wantError[*data.UnauthorizedException](t, err, "workload access token")
		if strings.Contains(w.logs.String(), "canary-key") {
			t.Error("the log has an API key")
		}
		w.apiKeyPages(c)
	})
}

func (w *world) apiKeyPages(c *bedrockagentcorecontrol.Client) {
	t, ctx := w.t, w.t.Context()
	for i := range 24 {
		if _, err := c.CreateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.CreateApiKeyCredentialProviderInput{Name: aws.String(fmt.Sprintf("key-%02d", i)), ApiKey: aws.String("k")}); err != nil {
			t.Fatal(err)
		}
	}
	for size, want := range map[int32]int{10: 3, 100: 1} {
		var names []string
		n := 0
		pages := bedrockagentcorecontrol.NewListApiKeyCredentialProvidersPaginator(c, &bedrockagentcorecontrol.ListApiKeyCredentialProvidersInput{MaxResults: &size})
		for ; pages.HasMorePages(); n++ {
			page, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range page.CredentialProviders {
				names = append(names, *p.Name)
			}
		}
		if n != want || len(names) != 25 || !slices.IsSorted(names) {
			t.Errorf("pages of %d: %d with %d names", size, n, len(names))
		}
	}
	_, err := c.ListApiKeyCredentialProviders(ctx, &bedrockagentcorecontrol.ListApiKeyCredentialProvidersInput{MaxResults: aws.Int32(101)})
	wantError[*types.ValidationException](t, err, "maxResults")
	if _, err := c.DeleteApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.DeleteApiKeyCredentialProviderInput{Name: aws.String("maps")}); err != nil {
		t.Error(err)
	}
	_, err = c.DeleteApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.DeleteApiKeyCredentialProviderInput{Name: aws.String("maps")})
	wantError[*types.ResourceNotFoundException](t, err, "maps")
	_, err = c.UpdateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.UpdateApiKeyCredentialProviderInput{Name: aws.String("maps"), ApiKey: aws.String("k")})
	wantError[*types.ResourceNotFoundException](t, err, "maps")
}

// goTags tags one resource of each kind; their ARNs come percent-encoded in the path.
func goTags(t *testing.T, seen *members) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db).noting(seen)
		c, ctx := w.control(root()), t.Context()
		w.workload("worker")
		if _, err := c.CreateApiKeyCredentialProvider(ctx, &bedrockagentcorecontrol.CreateApiKeyCredentialProviderInput{Name: aws.String("maps_1"), ApiKey: aws.String("k")}); err != nil {
			t.Fatal(err)
		}
		_, err := c.CreateOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
			Name: aws.String("google"), CredentialProviderVendor: types.CredentialProviderVendorTypeGoogleOauth2, Tags: map[string]string{"from": "the start"},
			Oauth2ProviderConfigInput: &types.Oauth2ProviderConfigInputMemberGoogleOauth2ProviderConfig{Value: types.GoogleOauth2ProviderConfigInput{ClientId: aws.String("c"), ClientSecret: aws.String("s")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		agent := w.principal("worker", "worker", "agent")
		for _, end := range []string{
			"workload-identity-directory/default/workload-identity/worker", "token-vault/default/oauth2credentialprovider/google",
			"token-vault/default/apikeycredentialprovider/maps_1", "token-vault/default",
		} {
			arn := aws.String(arnStart + end)
			if _, err := c.TagResource(ctx, &bedrockagentcorecontrol.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"cost center": "a/b+c=1", "k": "", "from": "here"}}); err != nil {
				t.Errorf("tag %s: %v", end, err)
			}
			if _, err := c.UntagResource(ctx, &bedrockagentcorecontrol.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"k", "not there"}}); err != nil {
				t.Errorf("untag %s: %v", end, err)
			}
			got, err := c.ListTagsForResource(ctx, &bedrockagentcorecontrol.ListTagsForResourceInput{ResourceArn: arn})
			if err != nil || len(got.Tags) != 2 || got.Tags["cost center"] != "a/b+c=1" || got.Tags["from"] != "here" {
				t.Errorf("tags of %s: %v %v", end, got, err)
			}
			many := map[string]string{}
			for i := range 49 {
				many[fmt.Sprint("t", i)] = "x"
			}
			_, err = c.TagResource(ctx, &bedrockagentcorecontrol.TagResourceInput{ResourceArn: arn, Tags: many})
			wantError[*types.ServiceQuotaExceededException](t, err, "50")
			_, err = c.TagResource(ctx, &bedrockagentcorecontrol.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"tabard:vault": "default"}})
			wantError[*types.ValidationException](t, err, "tabard:vault")
			_, err = w.control(agent).ListTagsForResource(ctx, &bedrockagentcorecontrol.ListTagsForResourceInput{ResourceArn: arn})
			wantError[*types.AccessDeniedException](t, err, "ListTagsForResource")
		}
		for _, arn := range []string{
			arnStart + "token-vault/default/apikeycredentialprovider/none", arnStart + "runtime/x-1",
			strings.Replace(arnStart, "000000000000", "111111111111", 1) + "token-vault/default", strings.Replace(arnStart, daemon.DefaultRegion, "eu-west-9", 1) + "token-vault/default",
		} {
			_, err := c.ListTagsForResource(ctx, &bedrockagentcorecontrol.ListTagsForResourceInput{ResourceArn: &arn})
			wantError[*types.ResourceNotFoundException](t, err, arn)
		}
		_, err = c.ListTagsForResource(ctx, &bedrockagentcorecontrol.ListTagsForResourceInput{ResourceArn: aws.String("arn:aws:s3:::a-bucket-of-mine")})
		wantError[*types.ValidationException](t, err, "resourceArn")
		_, err = c.TagResource(ctx, &bedrockagentcorecontrol.TagResourceInput{ResourceArn: aws.String(arnStart + "token-vault/default"), Tags: map[string]string{"bad!": "x"}})
		wantError[*types.ValidationException](t, err, "tags")
	})
}

// goTokenVault: what can be told of the vault is told, and what cannot be done is refused by name.
func goTokenVault(t *testing.T, seen *members) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db).noting(seen)
		c, ctx := w.control(root()), t.Context()
		first, err := c.GetTokenVault(ctx, &bedrockagentcorecontrol.GetTokenVaultInput{TokenVaultId: aws.String("default")})
		if err != nil || *first.TokenVaultId != "default" || first.KmsConfiguration.KeyType != types.KeyTypeServiceManagedKey || time.Since(*first.LastModifiedDate).Abs() > time.Minute {
			t.Fatalf("get: %+v %v", first, err)
		}
		_, err = c.GetTokenVault(ctx, &bedrockagentcorecontrol.GetTokenVaultInput{TokenVaultId: aws.String("other")})
		wantError[*types.ResourceNotFoundException](t, err, "other")
		kept, err := c.SetTokenVaultCMK(ctx, &bedrockagentcorecontrol.SetTokenVaultCMKInput{TokenVaultId: aws.String("default"), KmsConfiguration: &types.KmsConfiguration{KeyType: types.KeyTypeServiceManagedKey}})
		if err != nil || !kept.LastModifiedDate.Equal(*first.LastModifiedDate) || kept.KmsConfiguration.KeyType != types.KeyTypeServiceManagedKey {
			t.Errorf("set: %+v %v", kept, err)
		}
		key := aws.String("arn:aws:kms:us-east-1:000000000000:key/01234567-89ab-cdef-0123-456789abcdef")
		_, err = c.SetTokenVaultCMK(ctx, &bedrockagentcorecontrol.SetTokenVaultCMKInput{KmsConfiguration: &types.KmsConfiguration{KeyType: types.KeyTypeCustomerManagedKey, KmsKeyArn: key}})
		wantError[*types.ValidationException](t, err, "CustomerManagedKey")
		_, err = c.SetTokenVaultCMK(ctx, &bedrockagentcorecontrol.SetTokenVaultCMKInput{KmsConfiguration: &types.KmsConfiguration{KeyType: types.KeyTypeServiceManagedKey, KmsKeyArn: key}})
		wantError[*types.ValidationException](t, err, "kmsKeyArn")
		_, err = c.ResetTokenVaultKeyMaterial(ctx, &bedrockagentcorecontrol.ResetTokenVaultKeyMaterialInput{TokenVaultId: aws.String("default")})
		wantError[*types.ValidationException](t, err, "not deleted")
		_, err = c.ResetTokenVaultKeyMaterial(ctx, &bedrockagentcorecontrol.ResetTokenVaultKeyMaterialInput{TokenVaultId: aws.String("other")})
		wantError[*types.ResourceNotFoundException](t, err, "other")
	})
}

// goNotOffered: the lists of what is not offered are empty, and each operation has a modelled answer.
func goNotOffered(t *testing.T, seen *members) {
	w := newBare(t, daemon.SQLite).noting(seen)
	c, ctx := w.control(root()), t.Context()
	payments, err := c.ListPaymentCredentialProviders(ctx, &bedrockagentcorecontrol.ListPaymentCredentialProvidersInput{MaxResults: aws.Int32(5)})
	if err != nil || payments.CredentialProviders == nil || len(payments.CredentialProviders) != 0 {
		t.Errorf("payment providers: %v %v", payments, err)
	}
	portals, err := c.ListConsentPortals(ctx, &bedrockagentcorecontrol.ListConsentPortalsInput{MaxResults: aws.Int32(5)})
	if err != nil || portals.ConsentPortals == nil || len(portals.ConsentPortals) != 0 {
		t.Errorf("consent portals: %v %v", portals, err)
	}
	config := &types.PaymentProviderConfigurationInputMemberStripePrivyConfiguration{Value: types.StripePrivyConfigurationInput{
		AppId: aws.String("a"), AppSecret: aws.String("s"), AuthorizationId: aws.String("i"), AuthorizationPrivateKey: aws.String("k"),
	}}
	name, vendor := aws.String("pay"), types.PaymentCredentialProviderVendorTypeStripePrivy
	_, err = c.CreatePaymentCredentialProvider(ctx, &bedrockagentcorecontrol.CreatePaymentCredentialProviderInput{Name: name, CredentialProviderVendor: vendor, ProviderConfigurationInput: config})
	wantError[*types.ValidationException](t, err, "payment credential providers are not offered by this server")
	_, err = c.CreatePaymentCredentialProvider(ctx, &bedrockagentcorecontrol.CreatePaymentCredentialProviderInput{Name: aws.String("no spaces"), CredentialProviderVendor: vendor, ProviderConfigurationInput: config})
	wantError[*types.ValidationException](t, err, "name")
	_, err = c.GetPaymentCredentialProvider(ctx, &bedrockagentcorecontrol.GetPaymentCredentialProviderInput{Name: name})
	wantError[*types.ResourceNotFoundException](t, err, "pay")
	_, err = c.UpdatePaymentCredentialProvider(ctx, &bedrockagentcorecontrol.UpdatePaymentCredentialProviderInput{Name: name, CredentialProviderVendor: vendor, ProviderConfigurationInput: config})
	wantError[*types.ResourceNotFoundException](t, err, "pay")
	_, err = c.DeletePaymentCredentialProvider(ctx, &bedrockagentcorecontrol.DeletePaymentCredentialProviderInput{Name: name})
	wantError[*types.ResourceNotFoundException](t, err, "pay")
	_, err = w.data(root()).GetResourcePaymentToken(ctx, &bedrockagentcore.GetResourcePaymentTokenInput{
		WorkloadIdentityToken: aws.String("w"), ResourceCredentialProviderName: name,
		PaymentTokenRequest: &data.PaymentTokenRequestInputMemberCoinbaseCdpTokenRequest{Value: data.CoinbaseCdpTokenRequestInput{RequestMethod: data.PaymentHttpMethodTypeGet, RequestPath: aws.String("/x")}},
	})
	wantError[*data.ResourceNotFoundException](t, err, "pay")

	role, portal := aws.String("arn:aws:iam::000000000000:role/x"), aws.String("portal-ABCDEFGHIJ")
	_, err = c.CreateConsentPortal(ctx, &bedrockagentcorecontrol.CreateConsentPortalInput{
		Name: aws.String("portal"), ExecutionRoleArn: role, Sources: []types.ConsentPortalSource{{Identifier: aws.String("gateway-1"), Type: types.ConsentPortalSourceTypeAgentcoreGateway}},
		IdpConfig: &types.ConsentPortalIdpConfig{CredentialProviderArn: aws.String(arnStart + "token-vault/default/oauth2credentialprovider/p"), Scopes: []string{"openid"}},
	})
	wantError[*types.ValidationException](t, err, "consent portals are not offered by this server")
	_, err = c.GetConsentPortal(ctx, &bedrockagentcorecontrol.GetConsentPortalInput{ConsentPortalIdentifier: portal})
	wantError[*types.ResourceNotFoundException](t, err, *portal)
	_, err = c.UpdateConsentPortal(ctx, &bedrockagentcorecontrol.UpdateConsentPortalInput{ConsentPortalIdentifier: portal, ExecutionRoleArn: role})
	wantError[*types.ResourceNotFoundException](t, err, *portal)
	_, err = c.DeleteConsentPortal(ctx, &bedrockagentcorecontrol.DeleteConsentPortalInput{ConsentPortalIdentifier: portal})
	wantError[*types.ResourceNotFoundException](t, err, *portal)

	arn := aws.String(arnStart + "token-vault/default")
	_, err = c.PutResourcePolicy(ctx, &bedrockagentcorecontrol.PutResourcePolicyInput{ResourceArn: arn, Policy: aws.String("{}")})
	wantError[*types.ValidationException](t, err, "resource policies are not offered by this server")
	_, err = c.GetResourcePolicy(ctx, &bedrockagentcorecontrol.GetResourcePolicyInput{ResourceArn: arn})
	wantError[*types.ResourceNotFoundException](t, err, "resource policy")
	_, err = c.DeleteResourcePolicy(ctx, &bedrockagentcorecontrol.DeleteResourcePolicyInput{ResourceArn: arn})
	wantError[*types.ResourceNotFoundException](t, err, "resource policy")
}

// goCallerIdentity: STS's one operation, as Terraform asks it before all else.
func goCallerIdentity(t *testing.T, seen *members) {
	w := newBare(t, daemon.SQLite).noting(seen)
	ctx, agent := t.Context(), w.principal("build@ci.example", "worker", "agent")
	for name, k := range map[string]key{"root": root(), "build@ci.example": agent} {
		got, err := sts.NewFromConfig(w.config(k)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if *got.Account != "000000000000" || *got.Arn != "arn:aws:iam::000000000000:user/"+name || *got.UserId == "" {
			t.Errorf("%s is %s, %s of %s", name, *got.Arn, *got.UserId, *got.Account)
		}
	}
	for code, k := range map[string]key{"InvalidClientTokenId": {"TABARDNOBODYNOBODY00", "x"}, "SignatureDoesNotMatch": {agent.ID, "wrong"}} {
		_, err := sts.NewFromConfig(w.config(k)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != code {
			t.Errorf("got %v, want %s", err, code)
		}
	}
	_, err := sts.NewFromConfig(w.config(root())).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "InvalidAction" {
		t.Errorf("GetSessionToken: got %v, want InvalidAction", err)
	}
}

// stsRequest is a form signed for STS.
func (w *world) stsRequest(form string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.server.URL()+"/", strings.NewReader(form))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256([]byte(form))
	err = v4.NewSigner().SignHTTP(w.t.Context(), aws.Credentials{AccessKeyID: rootID, SecretAccessKey: rootSecret}, r,
		hex.EncodeToString(sum[:]), "sts", daemon.DefaultRegion, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// A signature for one service is none for the other, and the form is served at its own path only.
func TestCallerIdentityKeepsServicesApart(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	const form = "Action=GetCallerIdentity&Version=2011-06-15"
	send := func(change func(*http.Request), body string) reply {
		r := w.request(root(), http.MethodPost, "/", body) // signed for bedrock-agentcore, as JSON
		change(r)
		return do(t, r)
	}
	asForm := func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }
	if r := send(asForm, form); r.status != http.StatusForbidden || !strings.Contains(r.body, "<Code>SignatureDoesNotMatch</Code>") || !strings.Contains(r.body, "bedrock-agentcore") {
		t.Errorf("a signature for bedrock-agentcore: %d %s", r.status, r.body)
	}
	if r := send(func(r *http.Request) { asForm(r); r.Header.Del("Authorization") }, form); r.status != http.StatusForbidden || !strings.Contains(r.body, "<Code>MissingAuthenticationToken</Code>") {
		t.Errorf("without a signature: %d %s", r.status, r.body)
	}
	for _, path := range []string{"/", "//", "/x"} {
		r := w.request(root(), http.MethodPost, path, "{}")
		if path != "/" {
			asForm(r)
		}
		if got := do(t, r); got.status != http.StatusNotFound || got.header.Get("X-Amzn-Errortype") != "UnknownOperationException" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

// F11: STS answers in XML and reads none; what a name could break the answer with is escaped.
func TestF11_STSReadsNoXML(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL()+"/", strings.NewReader(`<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>`))
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{"text/xml": "UnknownOperationException", "application/x-www-form-urlencoded": "MissingAuthenticationToken"} {
		req := r.Clone(t.Context())
		req.Body, _ = r.GetBody()
		req.Header.Set("Content-Type", kind)
		got := do(t, req)
		if !strings.Contains(got.body+got.header.Get("X-Amzn-Errortype"), want) || strings.Contains(got.body, "root:") {
			t.Errorf("%s: %d %s", kind, got.status, got.body)
		}
	}
}

// TestReturnURLsAndRestore does our own operations on workload identities over the wire.
func TestReturnURLsAndRestore(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db)
		w.workload("worker")
		const more = "https://app.example.com/cb"
		for range 2 {
			_, out := w.tabard(root(), "AddReturnUrl", map[string]any{"workloadName": "worker", "url": more})
			if got := fmt.Sprint(out["allowedResourceOauth2ReturnUrls"]); got != fmt.Sprint([]string{returnURL, more}) {
				t.Errorf("after adding: %v", out)
			}
		}
		for range 2 {
			_, out := w.tabard(root(), "RemoveReturnUrl", map[string]any{"workloadName": "worker", "url": returnURL})
			if got := fmt.Sprint(out["allowedResourceOauth2ReturnUrls"]); got != fmt.Sprint([]string{more}) {
				t.Errorf("after removing: %v", out)
			}
		}
		if status, out := w.tabard(root(), "AddReturnUrl", map[string]any{"workloadName": "worker", "url": "javascript:x"}); status != http.StatusBadRequest {
			t.Errorf("a bad URL: %d %v", status, out)
		}
		if status, out := w.tabard(root(), "RestoreWorkloadIdentity", map[string]any{"workloadName": "worker"}); status != http.StatusConflict {
			t.Errorf("restoring what lives: %d %v", status, out)
		}
		w.call(root(), "DeleteWorkloadIdentity", map[string]any{"name": "worker"})
		status, out := w.tabard(root(), "RestoreWorkloadIdentity", map[string]any{"workloadName": "worker"})
		if status != http.StatusOK || out["workloadIdentityArn"] != arnStart+"workload-identity-directory/default/workload-identity/worker" || out["workloadUid"] == "" {
			t.Errorf("restore: %d %v", status, out)
		}
		if r := w.call(root(), "GetWorkloadIdentity", map[string]any{"name": "worker"}); !strings.Contains(r.body, more) {
			t.Errorf("restored: %s", r.body)
		}
		if status, out := w.tabard(root(), "RestoreWorkloadIdentity", map[string]any{"workloadName": "nobody"}); status != http.StatusNotFound {
			t.Errorf("restoring nobody: %d %v", status, out)
		}
	})
}
