package e2e_test

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	data "github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"
	"github.com/aws/smithy-go"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestGoSDK runs the scenarios that drive the official Go SDK, and holds what they exercised to the tables of members.
func TestGoSDK(t *testing.T) {
	seen, ran := newMembers(), 0
	scenarios := map[string]func(*testing.T, *members){
		"ThreeLeggedFlow": goThreeLeggedFlow, "ControlPlane": goControlPlane, "MachineTokensAndErrors": goMachineTokensAndErrors,
		"APIKeys": goAPIKeys, "Tags": goTags, "TokenVault": goTokenVault, "NotOffered": goNotOffered, "GetCallerIdentity": goCallerIdentity,
		"Vendors": goVendors, "Targets": goTargets, "AssertedUser": goAssertedUser, "Root": goRoot,
	}
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		t.Run(name, func(t *testing.T) {
			scenarios[name](t, seen)
			ran++
		})
	}
	if ran == len(scenarios) && !t.Failed() { // -run may have chosen some
		seen.wantMembers(t, awsMembers, suiteGo)
		seen.wantMembers(t, ownMembers, suiteRoot)
	}
}

// goThreeLeggedFlow is the spine: the official Go SDK completes a 3LO flow against npm oidc-provider, the second
// call is a vault hit, refreshing rotates, and nothing is ever redeemed twice. On both engines.
func goThreeLeggedFlow(t *testing.T, seen *members) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db).noting(seen)
		w.trust()
		w.workload("calendar-agent")
		w.provider("calendar")
		agent := w.principal("agent", "calendar-agent", "agent")
		app := w.principal("app", "calendar-agent", "consent-app")
		jwt := w.login("alice")
		wat := w.wat(agent, "calendar-agent", jwt)

		ask := &bedrockagentcore.GetResourceOauth2TokenInput{
			WorkloadIdentityToken: &wat, ResourceCredentialProviderName: aws.String("calendar"), Oauth2Flow: data.Oauth2FlowTypeUserFederation,
			Scopes: []string{"openid", "offline_access", "calendar.write"}, ResourceOauth2ReturnUrl: aws.String(returnURL),
			CustomState: aws.String("of the browser's session"), CustomParameters: map[string]string{"prompt": "consent"},
		}
		first, err := w.data(agent).GetResourceOauth2Token(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		if first.AccessToken != nil || first.AuthorizationUrl == nil || first.SessionUri == nil || first.SessionStatus != data.SessionStatusInProgress {
			t.Fatalf("first call: got token %t, status %q; want a session in progress", first.AccessToken != nil, first.SessionStatus)
		}
		end := peer.NewBrowser("alice").Walk(t, *first.AuthorizationUrl, returnURL)
		q := end.URL.Query()
		if got := q.Get("session_id"); got != *first.SessionUri || q.Get("state") != "of the browser's session" {
			t.Fatalf("the browser ended at %s %d with session_id %q and state %q\n%s", end.URL.Path, end.Status, got, q.Get("state"), end.Body)
		}
		poll := *ask
		poll.SessionUri = first.SessionUri
		if out, err := w.data(agent).GetResourceOauth2Token(t.Context(), &poll); err != nil || out.AccessToken != nil || out.SessionStatus != data.SessionStatusInProgress {
			t.Fatalf("a poll before Complete: %v, %v; want in progress", out, err)
		}
		if n := w.idp.Count(t, "authorization_code", "ok"); n != 1 { // the login of alice at the web application
			t.Fatalf("%d codes redeemed before Complete, want only the login's", n)
		}
		complete := &bedrockagentcore.CompleteResourceTokenAuthInput{SessionUri: first.SessionUri, UserIdentifier: &data.UserIdentifierMemberUserToken{Value: w.login("alice")}}
		for range 2 { // a fresh token of the same user does, and the second call answers 200 too
			if _, err := w.data(app).CompleteResourceTokenAuth(t.Context(), complete); err != nil {
				t.Fatal(err)
			}
		}
		got, err := w.data(agent).GetResourceOauth2Token(t.Context(), &poll)
		if err != nil || got.AccessToken == nil {
			t.Fatalf("the poll after Complete: %v", err)
		}
		before := len(w.idp.Journal(t))
		hit, err := w.data(agent).GetResourceOauth2Token(t.Context(), ask)
		if err != nil || aws.ToString(hit.AccessToken) != *got.AccessToken {
			t.Fatalf("the second call: %v; want the same token", err)
		}
		if after := len(w.idp.Journal(t)); after != before {
			t.Errorf("the vault hit made %d requests to the provider", after-before)
		}

		// Twice the token is about to expire: each time it is refreshed with the newest refresh token.
		token := *got.AccessToken
		for i := 1; i <= 2; i++ {
			w.ahead.Add(int64(90 * time.Second))
			fresh, err := w.data(agent).GetResourceOauth2Token(t.Context(), ask)
			if err != nil || fresh.AccessToken == nil || *fresh.AccessToken == token {
				t.Fatalf("refresh %d: %v", i, err)
			}
			token = *fresh.AccessToken
			if n := w.idp.Count(t, "refresh_token", "ok"); n != i {
				t.Errorf("refresh %d: the provider saw %d refreshes", i, n)
			}
		}
		force := *ask
		force.ForceAuthentication = aws.Bool(true)
		if out, err := w.data(agent).GetResourceOauth2Token(t.Context(), &force); err != nil || out.AccessToken != nil || out.SessionUri == nil {
			t.Errorf("forced: %v; want a session", err)
		}
	})
}

// goControlPlane does every control-plane operation of the walkthrough with the official Go SDK.
func goControlPlane(t *testing.T, seen *members) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db).noting(seen)
		c, ctx := w.control(root()), t.Context()
		for _, name := range []string{"w-1", "w-2", "w-3"} {
			w.workload(name)
		}
		_, err := c.CreateWorkloadIdentity(ctx, &bedrockagentcorecontrol.CreateWorkloadIdentityInput{Name: aws.String("w-1")})
		wantError[*types.ValidationException](t, err, "already exists")
		var names []string
		pages := bedrockagentcorecontrol.NewListWorkloadIdentitiesPaginator(c, &bedrockagentcorecontrol.ListWorkloadIdentitiesInput{MaxResults: aws.Int32(2)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range page.WorkloadIdentities {
				names = append(names, *i.Name)
			}
		}
		if !slices.Equal(names, []string{"w-1", "w-2", "w-3"}) {
			t.Errorf("listed %v", names)
		}
		kept, err := c.UpdateWorkloadIdentity(ctx, &bedrockagentcorecontrol.UpdateWorkloadIdentityInput{Name: aws.String("w-1")})
		if err != nil || !slices.Equal(kept.AllowedResourceOauth2ReturnUrls, []string{returnURL}) {
			t.Errorf("update without the list: %v %v; want it unchanged", kept, err)
		}
		emptied, err := c.UpdateWorkloadIdentity(ctx, &bedrockagentcorecontrol.UpdateWorkloadIdentityInput{Name: aws.String("w-1"), AllowedResourceOauth2ReturnUrls: []string{}})
		if err != nil || len(emptied.AllowedResourceOauth2ReturnUrls) != 0 {
			t.Errorf("update with an empty list: %v %v", emptied, err)
		}
		if got, err := c.GetWorkloadIdentity(ctx, &bedrockagentcorecontrol.GetWorkloadIdentityInput{Name: aws.String("w-2")}); err != nil || !slices.Equal(got.AllowedResourceOauth2ReturnUrls, []string{returnURL}) {
			t.Errorf("get: %v %v", got, err)
		}
		if _, err := c.DeleteWorkloadIdentity(ctx, &bedrockagentcorecontrol.DeleteWorkloadIdentityInput{Name: aws.String("w-1")}); err != nil {
			t.Error(err)
		}
		_, err = c.GetWorkloadIdentity(ctx, &bedrockagentcorecontrol.GetWorkloadIdentityInput{Name: aws.String("w-1")})
		wantError[*types.ResourceNotFoundException](t, err, "w-1")
		_, err = c.DeleteWorkloadIdentity(ctx, &bedrockagentcorecontrol.DeleteWorkloadIdentityInput{Name: aws.String("w-1")})
		wantError[*types.ResourceNotFoundException](t, err, "w-1")

		w.providerOperations()
	})
}

func (w *world) providerOperations() {
	t, c, ctx := w.t, w.control(root()), w.t.Context()
	callback := w.provider("p-1")
	if _, err := url.Parse(callback); err != nil || !strings.HasPrefix(callback, w.server.PublicURL()+"/identities/oauth2/callback/") {
		t.Errorf("callback URL %q", callback)
	}
	_, err := c.CreateOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: aws.String("p-1"), CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2, Oauth2ProviderConfigInput: customConfig(w.idp.DiscoveryURL()),
	})
	wantError[*types.ConflictException](t, err, "Credential provider with name: p-1 already exists")
	google, err := c.CreateOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: aws.String("google"), CredentialProviderVendor: types.CredentialProviderVendorTypeGoogleOauth2,
		Oauth2ProviderConfigInput: &types.Oauth2ProviderConfigInputMemberGoogleOauth2ProviderConfig{Value: types.GoogleOauth2ProviderConfigInput{ClientId: aws.String("c"), ClientSecret: aws.String("s")}},
	})
	if err != nil || google.Status != types.StatusReady || google.ClientSecretArn == nil {
		t.Fatalf("create google: %v", err)
	}
	got, err := c.GetOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.GetOauth2CredentialProviderInput{Name: aws.String("p-1")})
	if err != nil || *got.CallbackUrl != callback || time.Since(*got.CreatedTime).Abs() > time.Minute {
		t.Errorf("get: %v %v", got, err)
	}
	updated, err := c.UpdateOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.UpdateOauth2CredentialProviderInput{
		Name: aws.String("p-1"), CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2, Oauth2ProviderConfigInput: customConfig(w.idp.DiscoveryURL()),
	})
	if err != nil || *updated.CallbackUrl != callback {
		t.Errorf("update: %v", err)
	}
	var names []string
	pages := bedrockagentcorecontrol.NewListOauth2CredentialProvidersPaginator(c, &bedrockagentcorecontrol.ListOauth2CredentialProvidersInput{MaxResults: aws.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page.CredentialProviders {
			names = append(names, *p.Name)
		}
	}
	if !slices.Equal(names, []string{"google", "p-1"}) {
		t.Errorf("listed %v", names)
	}
	for range 2 {
		_, err = c.DeleteOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.DeleteOauth2CredentialProviderInput{Name: aws.String("google")})
		if err != nil {
			wantError[*types.ResourceNotFoundException](t, err, "google")
		}
	}
	_, err = c.GetOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.GetOauth2CredentialProviderInput{Name: aws.String("google")})
	wantError[*types.ResourceNotFoundException](t, err, "google")
}

// goMachineTokensAndErrors covers the rest of the data plane: tokens without a user, by id, M2M, and how each
// failure reaches the SDK.
func goMachineTokensAndErrors(t *testing.T, seen *members) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db).noting(seen)
		w.workload("worker")
		w.provider("api")
		agent := w.principal("worker", "worker", "agent")
		ctx, d := t.Context(), w.data(agent)
		machine, err := d.GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("worker")})
		if err != nil {
			t.Fatal(err)
		}
		ask := &bedrockagentcore.GetResourceOauth2TokenInput{
			WorkloadIdentityToken: machine.WorkloadAccessToken, ResourceCredentialProviderName: aws.String("api"), Oauth2Flow: data.Oauth2FlowTypeM2m, Scopes: []string{},
		}
		one, err := d.GetResourceOauth2Token(ctx, ask)
		if err != nil {
			t.Fatal(err)
		}
		two, err := d.GetResourceOauth2Token(ctx, ask)
		if err != nil || *one.AccessToken != *two.AccessToken || w.idp.Count(t, "client_credentials", "ok") != 1 {
			t.Errorf("the second machine token is no vault hit: %v", err)
		}
		_, err = d.GetWorkloadAccessTokenForUserId(ctx, &bedrockagentcore.GetWorkloadAccessTokenForUserIdInput{WorkloadName: aws.String("worker"), UserId: aws.String("u")})
		wantError[*data.AccessDeniedException](t, err, "tabard:assurance")
		if _, err := w.data(root()).GetWorkloadAccessTokenForUserId(ctx, &bedrockagentcore.GetWorkloadAccessTokenForUserIdInput{WorkloadName: aws.String("worker"), UserId: aws.String("u")}); err != nil {
			t.Errorf("root asserts a user: %v", err)
		}
		_, err = w.data(root()).GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("nobody")})
		wantError[*data.ResourceNotFoundException](t, err, "nobody")
		_, err = d.GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("x")})
		wantError[*data.ValidationException](t, err, "workloadName")
		ask.WorkloadIdentityToken = aws.String("wat1.bm90IG9uZQ")
		_, err = d.GetResourceOauth2Token(ctx, ask)
		wantError[*data.UnauthorizedException](t, err, "workload access token")

		for code, k := range map[string]key{"UnrecognizedClientException": {"TABARDNOBODYNOBODY00", "x"}, "InvalidSignatureException": {agent.ID, "wrong"}} {
			_, err = w.data(k).GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("worker")})
			if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != code {
				t.Errorf("got %v, want %s", err, code)
			}
		}
	})
}

// wantError checks the modelled type of an error and a part of its text.
func wantError[E error](t *testing.T, err error, words string) {
	t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Errorf("got %v, want a %T", err, e)
	} else if !strings.Contains(e.Error(), words) {
		t.Errorf("got %v, want a text with %q", err, words)
	}
}
