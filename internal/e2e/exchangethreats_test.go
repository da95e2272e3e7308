package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

// kinds makes one good token of each kind that there is, in a world that has all of them.
func kinds(t *testing.T) (w *world, agent, app key, tokens map[string]string) {
	w = newWorld(t, daemon.SQLite)
	w.trust()
	w.workload("calendar-agent")
	w.provider("calendar")
	agent, app = w.principal("agent", "calendar-agent", "agent"), w.principal("app", "calendar-agent", "consent-app")
	ask := w.connect(agent, app, "calendar-agent", "calendar", "alice")
	p := newPlatform(t)
	w.must("CreatePrincipal", map[string]any{"name": "calendar", "roles": []string{"agent"}, "workloads": []string{"calendar-agent"}})
	w.allow("calendar")
	w.must("CreateWorkloadIssuer", map[string]any{"issuer": p.url, "audiences": []string{"tabard"}})
	w.federate(p, "first")
	// Development mode trusts any issuer on loopback for users; this one is trusted for another audience, as an issuer of
	// both people and workloads would be.
	w.must("CreateTrustedIssuer", map[string]any{"issuer": p.url, "audiences": []string{"somebody-else"}})
	session := regexp.MustCompile(`<SessionToken>([^<]+)</SessionToken>`).FindStringSubmatch(w.assume(p, nil).body)
	if session == nil {
		t.Fatal("no session token")
	}
	wat := w.wat(agent, "calendar-agent", w.login("alice"))
	return w, agent, app, map[string]string{
		"a user's JWT": w.login("alice"), "a workload access token": wat, "a token for others": w.external(agent, wat, reports).get("access_token"),
		"a session token": session[1], "a provider's token": w.call(agent, "GetResourceOauth2Token", ask).get("accessToken"),
		"a workload's JWT": p.token("first", nil),
	}
}

// TestB06_EveryTokenEverywhere sends each kind of token wherever a token is taken: it is good in its own places only.
func TestB06_EveryTokenEverywhere(t *testing.T) {
	w, agent, app, tokens := kinds(t)
	wat := tokens["a workload access token"]
	// open begins another consent of alice's, for Complete to be asked about.
	open := func() string {
		return w.call(agent, "GetResourceOauth2Token", map[string]any{
			"workloadIdentityToken": wat, "resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION", "scopes": []string{"openid"},
			"resourceOauth2ReturnUrl": returnURL, "forceAuthentication": true,
		}).get("sessionUri")
	}
	endpoints := map[string]struct {
		takes string // the kinds that are good there, joined by |
		send  func(token string) bool
	}{
		"GetWorkloadAccessTokenForJWT": {"a user's JWT", func(token string) bool {
			return w.post(agent, "GetWorkloadAccessTokenForJWT", encode(t, map[string]any{"workloadName": "calendar-agent", "userToken": token})).status == 200
		}},
		"GetResourceOauth2Token": {"a workload access token", func(token string) bool {
			return w.post(agent, "GetResourceOauth2Token", encode(t, map[string]any{
				"workloadIdentityToken": token, "resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION", "scopes": []string{"openid"},
			})).status == 200
		}},
		"Authorization: Bearer": {"a workload's JWT", func(token string) bool {
			r := w.request(agent, http.MethodPost, "/identities/GetWorkloadAccessToken", `{"workloadName":"calendar-agent"}`)
			r.Header.Set("Authorization", "Bearer "+token)
			return do(t, r).status == 200
		}},
		"X-Amz-Security-Token": {"", func(token string) bool { // a session token is good with its own secret alone
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL()+"/identities/GetWorkloadAccessToken", strings.NewReader(`{"workloadName":"calendar-agent"}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: agent.ID, SecretAccessKey: agent.Secret, SessionToken: token}, r,
				sha256Hex(`{"workloadName":"calendar-agent"}`), "bedrock-agentcore", daemon.DefaultRegion, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return do(t, r).status == 200
		}},
		"/oauth2/token": {"a workload access token", func(token string) bool {
			return w.form(agent, "/oauth2/token", exchanging(token, reports)).status == 200
		}},
		"/oauth2/token as a bearer": {"a workload's JWT", func(token string) bool {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL()+"/oauth2/introspect", strings.NewReader("token=x"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Authorization", "Bearer "+token)
			return do(t, r).status == 200
		}},
		"/oauth2/introspect": {"a token for others", func(token string) bool { return w.active(agent, token) != nil }},
		"CompleteResourceTokenAuth": {"a user's JWT", func(token string) bool {
			r := w.post(app, "CompleteResourceTokenAuth", encode(t, map[string]any{"sessionUri": open(), "userIdentifier": map[string]any{"userToken": token}}))
			return r.status != http.StatusUnauthorized // nobody has consented, so that a good one is refused for that
		}},
	}
	for endpoint, e := range endpoints {
		for kind, token := range tokens {
			want := e.takes == kind
			if got := e.send(token); got != want {
				t.Errorf("%s at %s: accepted %t, want %t", kind, endpoint, got, want)
			}
		}
	}
}

// TestB10_OnlyTheOutermostActorCounts: policies permit by the agent that asks. Those that the token came through are
// nothing to a permit, and a forbid may name them.
func TestB10_OnlyTheOutermostActorCounts(t *testing.T) {
	w, planner, _ := agents(t, daemon.SQLite)
	booker := w.newcomer("booker-2", "booker")
	wat := w.wat(planner, "planner", w.login("alice"))
	own := func(f url.Values) reply { return w.form(booker, "/oauth2/token", f) }
	refused := func(what, code string, f url.Values) {
		t.Helper()
		if r := own(f); r.status != http.StatusBadRequest || r.get("error") != code {
			t.Errorf("%s: %d %s, want %s", what, r.status, r.body, code)
		}
	}
	subagent := exchanging(wat, "booker", "requested_token_type", workloadTokenType)
	// The planner is permitted everything, the booker nothing.
	refused("a sub-agent without a policy", "invalid_target", subagent)
	refused("the planner's token by the booker", "unauthorized_client", exchanging(wat, reports))

	w.put("sub", `permit (principal == Tabard::Principal::"booker-2", action == Tabard::Action::"ExchangeToken", resource == Tabard::Audience::"`+arnOf("booker")+`")
		when { context.from == "planner" };`)
	r := own(subagent)
	if r.status != http.StatusOK {
		t.Fatalf("permitted: %d %s", r.status, r.body)
	}
	chained := r.get("access_token")
	refused("another audience than the policy's, though the planner may", "invalid_target", exchanging(chained, reports))

	w.put("reports", `permit (principal in Tabard::WorkloadIdentity::"booker", action == Tabard::Action::"ExchangeToken", resource == Tabard::Audience::"`+reports+`")
		when { ["read", "list"].containsAll(context.scopes) };`)
	if r := own(exchanging(chained, reports, "scope", "read delete list")); r.status != http.StatusOK || r.get("scope") != "read list" {
		t.Errorf("with more scopes than the policy's: %d %s", r.status, r.body)
	}
	refused("with none of the policy's scopes", "invalid_scope", exchanging(chained, reports, "scope", "delete"))

	w.put("never", `forbid (principal, action == Tabard::Action::"ExchangeToken", resource) when { context.through.contains("planner") };`)
	refused("a forbid that names the inner actor", "invalid_target", exchanging(chained, reports))
	w.must("DeletePolicy", map[string]any{"name": "never"})
	w.put("never", `forbid (principal, action == Tabard::Action::"ExchangeToken", resource) when { context.through.contains("booker") };`)
	if r := own(exchanging(chained, reports)); r.status != http.StatusOK {
		t.Errorf("a forbid that names the outermost actor as one it came through: %d %s", r.status, r.body)
	}
}

// TestB11_NoTokenInAnAddress: a workload access token in a query is taken nowhere, and is in no log and no answer.
func TestB11_NoTokenInAnAddress(t *testing.T) {
	w, planner, _ := agents(t, daemon.SQLite)
	wat := w.wat(planner, "planner", w.login("alice"))
	if !strings.HasPrefix(wat, "wat1.") {
		t.Errorf("the token begins with %.5q, and scanners look for wat1.", wat)
	}
	query := "?" + url.Values{"workloadIdentityToken": {wat}, "subject_token": {wat}, "token": {wat}, "access_token": {wat}, "WorkloadAccessToken": {wat}}.Encode()
	for path, body := range map[string]string{
		"/identities/oauth2/token":   `{"resourceCredentialProviderName":"x","oauth2Flow":"M2M","scopes":[]}`,
		"/identities/api-key":        `{"resourceCredentialProviderName":"x"}`,
		"/tabard/DescribeUser":       `{}`,
		"/tabard/GetUserInfo":        `{}`,
		"/tabard/ReportTokenInvalid": `{"connectionId":"x"}`,
	} {
		if r := do(t, w.request(planner, http.MethodPost, path+query, body)); r.status/100 == 2 || strings.Contains(r.body, wat[:40]) {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	for path, f := range map[string]url.Values{
		"/oauth2/token": exchanging("", reports, "subject_token", ""), "/oauth2/introspect": {}, "/oauth2/revoke": {}, "/oauth2/token#whole": exchanging(wat, reports),
	} {
		path, _, _ = strings.Cut(path, "#")
		if r := w.form(planner, path+query, f); r.status != http.StatusBadRequest || r.get("error") != "invalid_request" || strings.Contains(r.body, wat[:40]) {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	for _, path := range []string{"/", "/.well-known/openid-configuration", "/oauth2/jwks", "/healthz", "/oauth2/token", "/identities/oauth2/authorize"} {
		if r := page(t, http.MethodGet, w.server.URL()+path+query); strings.Contains(r.body+r.header.Get("Location"), wat[:40]) {
			t.Errorf("%s repeats the token", path)
		}
	}
	w.external(planner, wat, reports)
	if strings.Contains(w.logs.String(), "wat1.") || strings.Contains(w.out.String(), "wat1.") {
		t.Error("a workload access token is in the log")
	}
}

// TestB12_RingRotatesUnderLoad renews the key that seals workload access tokens again and again while two replicas are
// asked for and shown tokens: none is refused.
func TestB12_RingRotatesUnderLoad(t *testing.T) {
	db := peer.Postgres(t)
	w := newWorld(t, db)
	two := w.replica()
	w.workload("agent")
	agent := w.principal("agent", "agent", "agent")
	rows, err := store.Open(t.Context(), store.Config{PostgresURL: func() string { return db }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	wrapper, err := kms.Open("file:" + filepath.Join(w.dataDir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	rotator, err := vault.New(vault.Config{Store: rows, Wrapper: wrapper, Region: daemon.DefaultRegion})
	if err != nil {
		t.Fatal(err)
	}
	defer rotator.Close()
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var group sync.WaitGroup
	var shown, rotations atomic.Int64
	group.Go(func() {
		for ctx.Err() == nil {
			if _, err := rotator.RotateRing(t.Context(), vault.RingTokens, 0, time.Hour); err != nil {
				t.Errorf("rotating: %v", err)
			}
			rotations.Add(1)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	for i := range 4 {
		from, to := w, two
		if i%2 == 1 {
			from, to = two, w
		}
		group.Go(func() {
			first := ""
			for ctx.Err() == nil {
				wat := from.post(agent, "GetWorkloadAccessToken", `{"workloadName":"agent"}`).get("workloadAccessToken")
				if first == "" {
					first = wat
				}
				for _, token := range []string{wat, first} {
					if r := to.form(agent, "/oauth2/token", exchanging(token, reports)); r.status != http.StatusOK {
						t.Errorf("a good token was answered %d %s", r.status, r.body)
						return
					}
					shown.Add(1)
				}
			}
		})
	}
	group.Wait()
	if shown.Load() < 20 || rotations.Load() < 5 {
		t.Errorf("only %d tokens and %d rotations", shown.Load(), rotations.Load())
	}
	t.Logf("%d tokens, %d rotations", shown.Load(), rotations.Load())
}

// TestF16_ClientsAreRefusedAlike: whatever is wrong with an access key as user and password, the answer is the same.
func TestF16_ClientsAreRefusedAlike(t *testing.T) {
	w, planner, _ := agents(t, daemon.SQLite)
	gone := w.principal("gone", "planner", "agent")
	w.must("DisablePrincipal", map[string]any{"name": "gone"})
	off := w.principal("off", "planner", "agent")
	w.must("DisableAccessKey", map[string]any{"accessKeyId": off.ID})
	wrong := planner
	wrong.Secret += "x"
	same := map[string]bool{}
	for what, k := range map[string]key{"a wrong secret": wrong, "an unknown id": {"TABARDNOBODYNOBODY00", planner.Secret}, "no key id at all": {"x", "y"}, "a disabled principal": gone,
		"a disabled key": off, "nothing": {}, "another's secret": {planner.ID, off.Secret}} {
		var r reply
		if !eventually(2*time.Second, func() bool {
			r = w.form(k, "/oauth2/token", exchanging("wat1.AAAA", reports))
			return r.status == http.StatusUnauthorized
		}) {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
		if r.get("error") != "invalid_client" || !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: %s %v", what, r.body, r.header)
		}
		same[r.body] = true
	}
	if len(same) != 1 {
		t.Errorf("%d different answers: %v", len(same), same)
	}
}

// TestOAuthErrors holds the codes of RFC 6749 §5.2 and RFC 8693 §2.2.2 against requests that are wrong in one thing.
func TestOAuthErrors(t *testing.T) {
	w, planner, booker := agents(t, daemon.SQLite)
	wat := w.wat(planner, "planner", w.login("alice"))
	machine := w.post(planner, "GetWorkloadAccessToken", `{"workloadName":"planner"}`).get("workloadAccessToken")
	twice := exchanging(wat, reports)
	twice.Add("scope", "a")
	twice.Add("scope", "b")
	targets := exchanging(wat, reports)
	targets.Add("audience", "inventory")
	for what, c := range map[string]struct {
		k    key
		form url.Values
		code string
	}{
		"no grant_type":             {planner, exchanging(wat, reports, "grant_type", ""), "invalid_request"},
		"another grant_type":        {planner, exchanging(wat, reports, "grant_type", "client_credentials"), "unsupported_grant_type"},
		"no subject_token":          {planner, exchanging("", reports, "subject_token", ""), "invalid_request"},
		"no subject_token_type":     {planner, exchanging(wat, reports, "subject_token_type", ""), "invalid_request"},
		"another type":              {planner, exchanging(wat, reports, "subject_token_type", accessTokenType), "invalid_request"},
		"a bad subject_token":       {planner, exchanging("wat1.AAAA", reports), "invalid_request"},
		"an actor_token":            {planner, exchanging(wat, reports, "actor_token", "x", "actor_token_type", accessTokenType), "invalid_request"},
		"a type without its token":  {planner, exchanging(wat, reports, "actor_token_type", accessTokenType), "invalid_request"},
		"an odd type to ask for":    {planner, exchanging(wat, reports, "requested_token_type", "urn:ietf:params:oauth:token-type:saml2"), "invalid_request"},
		"a parameter twice":         {planner, twice, "invalid_request"},
		"no target":                 {planner, exchanging(wat, "", "audience", ""), "invalid_request"},
		"two targets":               {planner, targets, "invalid_target"},
		"audience against resource": {planner, exchanging(wat, "inventory", "resource", reports), "invalid_target"},
		"a resource without scheme": {planner, exchanging(wat, "", "audience", "", "resource", "inventory"), "invalid_target"},
		"a resource with fragment":  {planner, exchanging(wat, "", "audience", "", "resource", reports+"#x"), "invalid_target"},
		"this server":               {planner, exchanging(wat, w.server.PublicURL()), "invalid_target"},
		"an issuer of this server":  {planner, exchanging(wat, w.server.PublicURL()+"/accounts/111111111111"), "invalid_target"},
		"a bad scope":               {planner, exchanging(wat, reports, "scope", `a"b`), "invalid_scope"},
		"another's token":           {booker, exchanging(wat, reports), "unauthorized_client"},
		"a secret in the body":      {planner, exchanging(wat, reports, "client_secret", planner.Secret), "invalid_request"},
		"another client_id":         {planner, exchanging(wat, reports, "client_id", booker.ID), "invalid_request"},
		"an unknown agent":          {planner, exchanging(wat, "nobody", "requested_token_type", workloadTokenType), "unauthorized_client"},
		"an agent of another ARN":   {booker, exchanging(wat, strings.Replace(arnOf("booker"), daemon.DefaultAccount, "999999999999", 1), "requested_token_type", workloadTokenType), "invalid_target"},
		"scopes for an agent":       {booker, exchanging(wat, "booker", "requested_token_type", workloadTokenType, "scope", "a"), "invalid_scope"},
		"nobody's token":            {booker, exchanging(machine, "booker", "requested_token_type", workloadTokenType), "invalid_request"},
	} {
		r := w.form(c.k, "/oauth2/token", c.form)
		if r.status != http.StatusBadRequest || r.get("error") != c.code || r.get("error_description") == "" {
			t.Errorf("%s: %d %s, want %s", what, r.status, r.body, c.code)
		}
		if r.header.Get("Cache-Control") != "no-store" || r.header.Get("X-Amzn-Requestid") == "" || r.get("access_token") != "" {
			t.Errorf("%s: %s %v", what, r.body, r.header)
		}
		if strings.ContainsAny(r.get("error_description"), "\"\\\n") {
			t.Errorf("%s: the description has what RFC 6749 forbids: %s", what, r.body)
		}
	}
	for what, f := range map[string]url.Values{
		"by ARN":     exchanging(wat, arnOf("booker"), "requested_token_type", workloadTokenType),
		"by name":    exchanging(wat, "booker", "requested_token_type", workloadTokenType, "unknown", "ignored"),
		"a resource": nil,
	} {
		k := booker
		if f == nil {
			k, f = planner, exchanging(wat, "", "audience", "", "resource", reports, "client_id", planner.ID, "requested_token_type", accessTokenType)
		}
		if r := w.form(k, "/oauth2/token", f); r.status != http.StatusOK {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	for what, change := range map[string]func(*http.Request){
		"JSON":       func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"no type":    func(r *http.Request) { r.Header.Del("Content-Type") },
		"a big body": func(r *http.Request) { r.Body = http.NoBody },
	} {
		body := exchanging(wat, reports).Encode()
		if what == "a big body" {
			body = strings.Repeat("a", 65<<10)
			change = func(*http.Request) {}
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL()+"/oauth2/token", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(planner.ID, planner.Secret)
		change(r)
		got := do(t, r)
		var answer map[string]string
		if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer["error"] != "invalid_request" {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// TestB08_ExchangeKeepsADelegationsBounds: a token that a job has under a delegation is handed on under the same
// delegation, and is made into no token for others, by the job or by whoever it was handed on to.
func TestB08_ExchangeKeepsADelegationsBounds(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	w.trust()
	w.workload("agent")
	w.workload("booker")
	w.provider("calendar")
	w.provider("drive")
	agent, app := w.principal("agent", "agent", "agent"), w.principal("app", "agent", "consent-app")
	booker := w.principal("booker", "booker", "agent")
	id := w.delegate(app, w.login("alice"), map[string]any{"providerName": "calendar", "scopes": []string{"openid"}})
	wat := w.call(agent, "GetWorkloadAccessTokenForDelegation", map[string]any{"workloadName": "agent", "delegationId": id}).get("workloadAccessToken")
	own := w.propagated(booker, wat, "booker")
	for _, c := range []struct {
		k   key
		wat string
	}{{agent, wat}, {booker, own}} {
		if r := w.form(c.k, "/oauth2/token", exchanging(c.wat, reports)); r.status != http.StatusBadRequest || r.get("error") != "invalid_request" || !strings.Contains(r.body, "delegation") {
			t.Errorf("a token for others: %d %s", r.status, r.body)
		}
	}
	ask := map[string]any{"workloadIdentityToken": own, "resourceCredentialProviderName": "drive", "oauth2Flow": "USER_FEDERATION", "scopes": []string{"openid"},
		"resourceOauth2ReturnUrl": returnURL}
	if r := w.post(booker, "GetResourceOauth2Token", encode(t, ask)); r.status/100 == 2 {
		t.Errorf("another provider than the delegation's, by the sub-agent: %d %s", r.status, r.body)
	}
	w.call(root(), "EndDelegation", map[string]any{"delegationId": id})
	if !eventually(2*time.Second, func() bool {
		ask["resourceCredentialProviderName"] = "calendar"
		return w.post(booker, "GetResourceOauth2Token", encode(t, ask)).status == http.StatusUnauthorized
	}) {
		t.Error("the sub-agent's token outlives the delegation")
	}
}
