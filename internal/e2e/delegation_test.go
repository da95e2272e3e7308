package e2e_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// consentAs takes a user of the crowd through consent, for whom the browser is signed in at the provider as account.
func (w *world) consentAs(agent, app key, jwt, provider, account string) {
	w.t.Helper()
	ask := map[string]any{
		"workloadIdentityToken": w.wat(agent, "agent", jwt), "resourceCredentialProviderName": provider, "oauth2Flow": "USER_FEDERATION",
		"scopes": []string{"openid", "offline_access", "calendar.write"}, "resourceOauth2ReturnUrl": returnURL, "customParameters": map[string]string{"prompt": "consent"},
	}
	first := w.call(agent, "GetResourceOauth2Token", ask)
	peer.NewBrowser(account).Walk(w.t, first.get("authorizationUrl"), returnURL)
	w.call(app, "CompleteResourceTokenAuth", map[string]any{"sessionUri": first.get("sessionUri"), "userIdentifier": map[string]any{"userToken": jwt}})
}

// delegate makes a delegation for a month and returns its id.
func (w *world) delegate(app key, jwt string, grants ...map[string]any) string {
	w.t.Helper()
	until := time.Now().Add(time.Duration(w.ahead.Load()) + 30*24*time.Hour)
	made := w.call(app, "CreateDelegation", map[string]any{
		"workloadName": "agent", "userToken": jwt, "grants": grants, "until": until.Unix(), "note": "books while I sleep",
	})
	_, rest, _ := strings.Cut(made.body, `"delegationId":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

// TestDelegationByNight: a user consents and delegates by day. At night, when the user's token has expired, a job gets
// the user's token with nothing but the agent's key and the delegation. The user ends it, and the next mint is refused.
func TestDelegationByNight(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db)
		jwt := w.crowd()
		w.workload("agent")
		w.provider("calendar")
		w.exchanger("desk")
		agent, app := w.principal("agent", "agent", "agent"), w.principal("app", "agent", "consent-app")
		stranger := w.principal("stranger", "other-*", "consent-app")
		day := jwt("alice")
		w.consentAs(agent, app, day, "calendar", "alice")
		scopes := []string{"openid", "offline_access", "calendar.write"}
		id := w.delegate(app, day, map[string]any{"providerName": "calendar", "scopes": scopes})
		narrow := w.delegate(app, day, map[string]any{"providerName": "calendar", "scopes": scopes[:2]})

		w.ahead.Store(int64(9 * time.Hour))
		if r := w.post(agent, "GetWorkloadAccessTokenForJWT", encode(t, map[string]any{"workloadName": "agent", "userToken": day})); r.status != http.StatusUnauthorized {
			t.Fatalf("the user's token at night: %d %s, want it expired", r.status, r.body)
		}
		job, err := tabard.New(t.Context(), tabard.Config{Workload: "agent", API: w.data(agent)})
		if err != nil {
			t.Fatal(err)
		}
		night := tabard.WithDelegation(t.Context(), id)
		token, err := job.Token(night, tabard.OAuth2{Provider: "calendar", Scopes: []string{"calendar.write"}})
		if err != nil {
			t.Fatalf("the job at night: %v", err)
		}
		if !w.alive(token.AccessToken) {
			t.Error("the provider does not know the token")
		}
		wat := w.call(agent, "GetWorkloadAccessTokenForDelegation", map[string]any{"workloadName": "agent", "delegationId": id}).get("workloadAccessToken")
		ask := map[string]any{
			"workloadIdentityToken": wat, "resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION",
			"scopes": []string{"calendar.write"}, "resourceOauth2ReturnUrl": returnURL,
		}
		narrowed := w.call(agent, "GetWorkloadAccessTokenForDelegation", map[string]any{"workloadName": "agent", "delegationId": narrow}).get("workloadAccessToken")
		w.bounded(agent, ask, narrowed)

		w.endedByUser(agent, app, stranger, jwt, id, ask)
		_, err = job.Token(tabard.WithDelegation(t.Context(), id), tabard.OAuth2{Provider: "calendar", Scopes: []string{"calendar.write"}})
		if !errors.Is(err, tabard.ErrDenied) || !strings.Contains(err.Error(), "ended") {
			t.Errorf("the job on the next night: %v, want it denied because the delegation has ended", err)
		}
		w.endedByStanding(agent, narrow, narrowed, ask)
	})
}

// bounded wants a token of a delegation to be good for what was delegated and nothing else.
func (w *world) bounded(agent key, ask map[string]any, narrowed string) {
	w.t.Helper()
	refuses := func(what, op string, in map[string]any, status int, words string) {
		w.t.Helper()
		if r := w.post(agent, op, encode(w.t, in)); r.status != status || !strings.Contains(r.body, words) {
			w.t.Errorf("%s: %d %s, want %d with %q", what, r.status, r.body, status, words)
		}
	}
	const get = "GetResourceOauth2Token"
	if w.call(agent, get, ask).get("accessToken") == "" {
		w.t.Error("no token under the delegation")
	}
	wat := map[string]any{"workloadIdentityToken": ask["workloadIdentityToken"]}
	refuses("a stored token with more than was delegated", get, with(ask, "workloadIdentityToken", narrowed), 403, "calendar.write")
	refuses("another provider", get, with(ask, "resourceCredentialProviderName", "desk"), 403, "not for provider desk")
	refuses("a new consent", get, with(ask, "forceAuthentication", true), 403, "consent")
	refuses("scopes that are not there", get, with(ask, "scopes", []string{"calendar.write", "mail"}), 403, "consent")
	refuses("who the user is at the issuer", "GetUserInfo", wat, 400, "userinfo")
	w.call(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "weather", "apiKey": "canary-api-key-51c7"})
	refuses("an API key", "GetResourceApiKey", map[string]any{"workloadIdentityToken": ask["workloadIdentityToken"], "resourceCredentialProviderName": "weather"}, 403, "not for provider weather")
}

// endedByUser lets the user end the delegation through the application, and nobody else.
func (w *world) endedByUser(agent, app, stranger key, jwt func(string) string, id string, ask map[string]any) {
	w.t.Helper()
	morning := jwt("alice")
	mine := w.call(app, "ListDelegations", map[string]any{"workloadName": "agent", "userToken": morning}).body
	if strings.Count(mine, `"ACTIVE"`) != 2 || !strings.Contains(mine, "books while I sleep") || !strings.Contains(mine, "lastUsedTime") {
		w.t.Errorf("the user sees %s", mine)
	}
	if theirs := w.call(app, "ListDelegations", map[string]any{"workloadName": "agent", "userToken": jwt("bob")}).body; strings.Contains(theirs, id) {
		w.t.Errorf("bob sees %s", theirs)
	}
	for what, r := range map[string]reply{
		"bob":                      w.post(app, "EndDelegation", encode(w.t, map[string]any{"delegationId": id, "userToken": jwt("bob")})),
		"an application of others": w.post(stranger, "EndDelegation", encode(w.t, map[string]any{"delegationId": id, "userToken": morning})),
		"what is not there":        w.post(app, "EndDelegation", encode(w.t, map[string]any{"delegationId": "dlg-none", "userToken": morning})),
	} {
		if r.status != http.StatusNotFound {
			w.t.Errorf("%s ends it: %d %s, want 404", what, r.status, r.body)
		}
	}
	if r := w.post(app, "EndDelegation", encode(w.t, map[string]any{"delegationId": id})); r.status != http.StatusBadRequest {
		w.t.Errorf("the application alone ends it: %d %s, want 400", r.status, r.body)
	}
	if r := w.post(agent, "EndDelegation", encode(w.t, map[string]any{"delegationId": id, "userToken": morning})); r.status != http.StatusForbidden {
		w.t.Errorf("the agent ends it: %d %s, want 403", r.status, r.body)
	}
	w.call(app, "EndDelegation", map[string]any{"delegationId": id, "userToken": morning})
	if r := w.post(agent, "GetResourceOauth2Token", encode(w.t, ask)); r.status != http.StatusUnauthorized || !strings.Contains(r.body, "has ended") {
		w.t.Errorf("a token of before: %d %s, want 401", r.status, r.body)
	}
	if r := w.post(agent, "GetWorkloadAccessTokenForDelegation", encode(w.t, map[string]any{"workloadName": "agent", "delegationId": id})); r.status != http.StatusForbidden {
		w.t.Errorf("the next mint: %d %s, want 403", r.status, r.body)
	}
}

// endedByStanding revokes the user's access: that ends what the user delegated, for good.
func (w *world) endedByStanding(agent key, id, wat string, ask map[string]any) {
	w.t.Helper()
	user := map[string]any{"issuer": corporateIssuer, "subject": "alice"}
	w.call(root(), "DisableUser", map[string]any{"user": user})
	w.call(root(), "EnableUser", map[string]any{"user": user})
	if r := w.post(agent, "GetResourceOauth2Token", encode(w.t, with(ask, "workloadIdentityToken", wat))); r.status != http.StatusUnauthorized {
		w.t.Errorf("a token of before the user was disabled: %d %s", r.status, r.body)
	}
	r := w.post(agent, "GetWorkloadAccessTokenForDelegation", encode(w.t, map[string]any{"workloadName": "agent", "delegationId": id}))
	if r.status != http.StatusForbidden || !strings.Contains(r.body, "delegate again") {
		w.t.Errorf("the delegation of a user who was disabled and enabled: %d %s, want 403", r.status, r.body)
	}
	revoked := w.call(root(), "RevokeAccess", map[string]any{"user": user}).body
	if !strings.Contains(revoked, `"delegationsEnded":1`) {
		w.t.Errorf("RevokeAccess: %s, want one delegation ended", revoked)
	}
}

// TestDelegationEndsOnEveryReplica: two seconds after its end, nothing is released or minted under a delegation
// anywhere.
func TestDelegationEndsOnEveryReplica(t *testing.T) {
	one := newWorld(t, peer.Postgres(t))
	jwt := one.crowd()
	one.workload("agent")
	agent, app := one.principal("agent", "agent", "agent"), one.principal("app", "agent", "consent-app")
	one.call(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "weather", "apiKey": "canary-api-key-51c7"})
	two := one.replica()
	id := one.delegate(app, jwt("alice"), map[string]any{"providerName": "weather"})
	mint := map[string]any{"workloadName": "agent", "delegationId": id}
	wat := two.call(agent, "GetWorkloadAccessTokenForDelegation", mint).get("workloadAccessToken")
	ask := map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "weather"}
	for _, w := range []*world{one, two} {
		if w.call(agent, "GetResourceApiKey", ask).get("apiKey") == "" {
			t.Fatal("no key under the delegation")
		}
	}
	one.call(root(), "EndDelegation", map[string]any{"delegationId": id})
	over := func(w *world) bool {
		return w.post(agent, "GetResourceApiKey", encode(t, ask)).status == http.StatusUnauthorized &&
			w.post(agent, "GetWorkloadAccessTokenForDelegation", encode(t, mint)).status == http.StatusForbidden
	}
	if !over(one) {
		t.Error("on the server that ended it, it goes on")
	}
	if !eventually(2*time.Second, func() bool { return over(two) }) {
		t.Error("on another server it goes on for more than two seconds")
	}
}
