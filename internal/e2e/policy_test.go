package e2e_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to make a database older than it is

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
)

// newcomer makes an agent that no policy permits anything.
func (w *world) newcomer(name, workload string) key {
	w.t.Helper()
	k := w.principal(name, workload, "agent")
	w.call(root(), "DeletePolicy", map[string]any{"name": "all:" + name})
	return k
}

// releasing is a policy for an agent's tokens at the provider calendar, under a condition.
func releasing(condition string) string {
	return fmt.Sprintf(`permit (principal == Tabard::Principal::"agent", action in [Tabard::Action::"mint"], resource);
		permit (principal in Tabard::WorkloadIdentity::"calendar-agent", action in Tabard::Action::"release",
			resource == Tabard::Provider::"calendar") when { %s };`, condition)
}

// connected is a world where alice has consented to three scopes, and the request for the token that is kept.
func connected(t *testing.T, db string) (w *world, agent key, ask map[string]any) {
	w = newWorld(t, db)
	w.trust()
	w.workload("calendar-agent")
	w.provider("calendar")
	agent = w.principal("agent", "calendar-agent", "agent")
	ask = w.connect(agent, w.principal("app", "calendar-agent", "consent-app"), "calendar-agent", "calendar", "alice")
	ask["scopes"] = []string{"openid"} // the token has calendar.write and offline_access too
	return w, agent, ask
}

// TestPoliciesDecideOnTheTokenThatIsReleased holds one stored token against policies with each kind of condition.
func TestPoliciesDecideOnTheTokenThatIsReleased(t *testing.T) {
	w, agent, ask := connected(t, daemon.SQLite)
	for name, c := range map[string]struct {
		condition string
		refused   string // what the refusal says, "" where the token is released
	}{
		"every scope":      {`["openid", "offline_access", "calendar.write"].containsAll(context.scopes)`, ""},
		"a stored scope":   {`["openid", "offline_access"].containsAll(context.scopes)`, "calendar.write"},
		"its issuer":       {fmt.Sprintf("context.user.issuer == %q", w.idp.Issuer), ""},
		"another issuer":   {`context.user.issuer == "https://login.example.com"`, "needs a policy"},
		"its flow":         {`context.flow == "USER_FEDERATION"`, ""},
		"another flow":     {`context.flow == "M2M"`, "needs a policy"},
		"a time that is":   {`context.time > datetime("2020-01-01")`, ""},
		"a time that was":  {`context.time < datetime("2020-01-01")`, "needs a policy"},
		"a verified user":  {`context.user.kind == "verified"`, ""},
		"an asserted user": {`context.user.kind == "asserted"`, "needs a policy"},
		"another agent":    {`context.workload == "other-agent"`, "needs a policy"},
	} {
		w.put("all:agent", releasing(c.condition))
		r := w.post(agent, "GetResourceOauth2Token", encode(t, ask))
		switch {
		case c.refused == "":
			if r.status != http.StatusOK || r.get("accessToken") == "" {
				t.Errorf("%s: answered %d %s, want a token", name, r.status, r.body)
			}
		case r.status != http.StatusForbidden || !strings.Contains(r.get("message"), c.refused) || strings.Contains(r.body, "accessToken"):
			t.Errorf("%s: answered %d %s, want a refusal that says %q", name, r.status, r.body, c.refused)
		}
	}
}

// members trusts an issuer whose users' groups policies may ask for, and returns a function that makes a user's token.
func (w *world) members() func(user string, groups ...string) string {
	w.t.Helper()
	key := jwstest.Stranger(w.t)
	w.call(root(), "CreateTrustedIssuer", map[string]any{
		"issuer": corporateIssuer, "audiences": []string{appClient}, "policyClaims": []string{"groups"},
		"jwks": string(jwstest.Set(w.t, jwstest.Key(w.t, "k", &key.PublicKey, nil))),
	})
	return func(user string, groups ...string) string {
		claims := map[string]any{"iss": corporateIssuer, "sub": user, "aud": appClient, "exp": time.Now().Add(10 * time.Minute).Unix()}
		if groups != nil {
			claims["groups"] = groups
		}
		return jwstest.Sign(w.t, "ES256", map[string]any{"kid": "k"}, claims, key)
	}
}

// TestPoliciesDecideOnTheUsersGroups releases a key for the users of one group of their issuer's, also to a sub-agent
// that the user's token was handed on to. No record and no line of the log has a group.
func TestPoliciesDecideOnTheUsersGroups(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db)
		jwt := w.members()
		w.workload("calendar-agent")
		w.workload("booker")
		agent, booker := w.newcomer("agent", "calendar-agent"), w.newcomer("booker", "booker")
		w.call(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "calendar", "apiKey": "the key"})
		const ofTheGroup = `context.user.hasTag("groups") && context.user.getTag("groups").contains("calendar-users")`
		w.put("agent", strings.ReplaceAll(releasing(ofTheGroup), "Tabard::Provider::", "Tabard::ApiKeyProvider::"))
		w.put("booker", `permit (principal == Tabard::Principal::"booker", action == Tabard::Action::"ExchangeToken", resource) when { context.from == "calendar-agent" };
			permit (principal == Tabard::Principal::"booker", action in Tabard::Action::"release", resource) when { `+ofTheGroup+` };`)
		release := func(k key, wat string) reply {
			return w.post(k, "GetResourceApiKey", encode(t, map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "calendar"}))
		}
		for name, c := range map[string]struct {
			jwt  string
			want int
		}{
			"in the group":          {jwt("alice", "staff", "calendar-users"), http.StatusOK},
			"in another group":      {jwt("bob", "staff", "calendar-users-2"), http.StatusForbidden},
			"in no group":           {jwt("carol", []string{}...), http.StatusForbidden},
			"of whom none is known": {jwt("dave"), http.StatusForbidden},
		} {
			wat := w.wat(agent, "calendar-agent", c.jwt)
			for who, r := range map[string]reply{"the agent": release(agent, wat), "its sub-agent": release(booker, w.propagated(booker, wat, "booker"))} {
				if r.status != c.want || (r.get("apiKey") == "the key") != (c.want == http.StatusOK) || strings.Contains(r.body, "calendar-users") {
					t.Errorf("a user %s, %s: answered %d %s, want %d", name, who, r.status, r.body, c.want)
				}
			}
		}
		w.put("no-staff", `forbid (principal, action in Tabard::Action::"release", resource) when { context.user.hasTag("groups") && context.user.getTag("groups").contains("staff") };`)
		if r := release(agent, w.wat(agent, "calendar-agent", jwt("alice", "staff", "calendar-users"))); r.status != http.StatusForbidden {
			t.Errorf("forbidden for a group: answered %d %s", r.status, r.body)
		}
		// What a forbid asks for is never left out for want of room.
		many := append(strings.Split(strings.Repeat("g-0123456789 ", 200), " "), "staff")
		r := w.post(agent, "GetWorkloadAccessTokenForJWT", encode(t, map[string]any{"workloadName": "calendar-agent", "userToken": jwt("alice", many...)}))
		if r.status != http.StatusUnauthorized || !strings.Contains(r.get("message"), "the claim groups") || strings.Contains(r.body, "g-0123456789") {
			t.Errorf("more groups than fit: answered %d %s", r.status, r.body)
		}
		records := encode(t, w.must("ListAuditRecords", map[string]any{"newest": true, "maxResults": 200}))
		for what, text := range map[string]string{"the trail": records, "the log": w.logs.String() + w.out.String()} {
			if strings.Contains(text, "calendar-users") || strings.Contains(text, "g-0123456789") {
				t.Errorf("%s has the groups of a user", what)
			}
		}
	})
}

// TestForbidWinsOverEveryPermit forbids what is permitted, and takes it back; nothing is forbidden to root.
func TestForbidWinsOverEveryPermit(t *testing.T) {
	w, agent, ask := connected(t, daemon.SQLite)
	status := func(k key) int { return w.post(k, "GetResourceOauth2Token", encode(t, ask)).status }
	if got := status(agent); got != http.StatusOK {
		t.Fatalf("before: %d", got)
	}
	w.put("no-calendars", `forbid (principal, action in Tabard::Action::"release", resource == Tabard::Provider::"calendar") when { context.scopes.contains("calendar.write") };`)
	r := w.post(agent, "GetResourceOauth2Token", encode(t, ask))
	if r.status != http.StatusForbidden || !strings.Contains(r.get("message"), "no-calendars") {
		t.Errorf("forbidden: answered %d %s, want the policy named", r.status, r.body)
	}
	if got := status(root()); got != http.StatusOK {
		t.Errorf("root: %d, want %d", got, http.StatusOK)
	}
	w.call(root(), "DeletePolicy", map[string]any{"name": "no-calendars"})
	if got := status(agent); got != http.StatusOK {
		t.Errorf("afterwards: %d", got)
	}
}

// TestNothingIsAllowedWithoutAPolicy has an agent with a key, a role and a pairing, which is refused everything.
func TestNothingIsAllowedWithoutAPolicy(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	w.workload("calendar-agent")
	agent := w.newcomer("agent", "calendar-agent")
	w.call(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "weather", "apiKey": "the key"})
	wat := w.call(root(), "GetWorkloadAccessToken", map[string]any{"workloadName": "calendar-agent"}).get("workloadAccessToken")
	key := map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "weather"}
	for op, in := range map[string]map[string]any{
		"GetWorkloadAccessToken": {"workloadName": "calendar-agent"}, "GetResourceApiKey": key,
		"PutPolicy": {"name": "mine", "text": agentPolicy("agent")}, "ListPolicies": {}, "GetPolicy": {"name": "nobodys"},
		"FindWhoCan": {"operation": "PutPolicy"}, "ExplainDecision": {"recordId": "x-1"}, "ValidatePolicy": {"text": "x"},
		"SimulateDecision": {"question": map[string]any{"principalName": "nobody", "operation": "PutPolicy"}}, "DeletePolicy": {"name": "nobodys"},
	} {
		if r := w.post(agent, op, encode(t, in)); r.status != http.StatusForbidden {
			t.Errorf("%s: answered %d %s, want %d", op, r.status, r.body, http.StatusForbidden)
		}
	}
	w.put("weather", `permit (principal in Tabard::WorkloadIdentity::"calendar-agent", action in Tabard::Action::"release", resource == Tabard::ApiKeyProvider::"weather");`)
	if got := w.call(agent, "GetResourceApiKey", key).get("apiKey"); got != "the key" {
		t.Errorf("with a policy: got %q", got)
	}
}

// A05: a policy to mint is none to name a user without proof.
func TestA05_MintingIsNotAsserting(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	w.call(root(), "CreateWorkloadIdentity", map[string]any{"name": "helpdesk", "tags": map[string]string{"tabard:assurance": "asserted"}})
	agent := w.newcomer("agent", "helpdesk")
	const text = `permit (principal in Tabard::WorkloadIdentity::"helpdesk", action in Tabard::Action::"%s", resource);`
	assert := func() int {
		return w.post(agent, "GetWorkloadAccessTokenForUserId", `{"workloadName":"helpdesk","userId":"alice"}`).status
	}
	w.put("helpdesk", fmt.Sprintf(text, "mint"))
	w.call(agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "helpdesk"})
	if got := assert(); got != http.StatusForbidden {
		t.Errorf("with the right to mint: %d, want %d", got, http.StatusForbidden)
	}
	w.put("helpdesk", fmt.Sprintf(text, "assert"))
	if got := assert(); got != http.StatusOK {
		t.Errorf("with the right to assert: %d, want %d", got, http.StatusOK)
	}
}

// TestWhyAndWhoCan explains a refusal after the policies have changed, and lists who may do what.
func TestWhyAndWhoCan(t *testing.T) {
	w, agent, ask := connected(t, daemon.SQLite)
	w.put("all:agent", releasing(`["openid"].containsAll(context.scopes)`))
	if r := w.post(agent, "GetResourceOauth2Token", encode(t, ask)); r.status != http.StatusForbidden {
		t.Fatalf("answered %d %s", r.status, r.body)
	}
	auditor := w.principal("ada", "", "auditor")
	records := w.must("ListAuditRecords", map[string]any{"newest": true, "maxResults": 20})["records"].([]any)
	at := slices.IndexFunc(records, func(r any) bool {
		m := r.(map[string]any)
		return m["action"] == "GetResourceOauth2Token" && m["decision"] == "deny"
	})
	if at < 0 {
		t.Fatal("no record of the refusal")
	}
	record := records[at].(map[string]any)
	why := func() (then, now map[string]any, remarks string) {
		status, out := w.tabard(auditor, "ExplainDecision", map[string]any{"recordId": record["recordId"]})
		if status != http.StatusOK {
			t.Fatalf("ExplainDecision: %d %v", status, out)
		}
		return out["then"].(map[string]any), out["now"].(map[string]any), fmt.Sprint(out["remarks"])
	}
	then, now, _ := why()
	if then["allowed"] != false || then["rule"] != record["rule"] || now["allowed"] != false || fmt.Sprint(then["scopesBeyond"]) != "[calendar.write offline_access]" && fmt.Sprint(then["scopesBeyond"]) != "[offline_access calendar.write]" {
		t.Errorf("the refusal: then %v, now %v, want the record's rule and the scopes", then, now)
	}
	w.allow("agent")
	then, now, remarks := why()
	if then["allowed"] != false || now["allowed"] != true || now["rule"] != "policy:all:agent" {
		t.Errorf("after a change: then %v, now %v", then, now)
	}
	if !strings.Contains(remarks, "issuer, subject and claims") || !strings.Contains(remarks, "policies were written") {
		t.Errorf("what cannot be replayed: %s", remarks)
	}

	who := func(scopes ...string) string {
		in := map[string]any{"operation": "GetResourceOauth2Token", "workloadName": "calendar-agent", "providerName": "calendar", "scopes": scopes}
		var names []string
		for _, p := range w.must("FindWhoCan", in)["principals"].([]any) {
			h := p.(map[string]any)
			names = append(names, fmt.Sprint(h["principalName"], h["scopesBeyond"]))
		}
		return strings.Join(names, " ")
	}
	w.newcomer("stranger", "calendar-agent")
	if got := who("openid"); got != "agent<nil> root<nil>" {
		t.Errorf("who can: got %s", got)
	}
	w.put("all:agent", releasing(`["openid"].containsAll(context.scopes)`))
	if got := who("openid", "mail"); got != "agent[mail] root<nil> stranger[mail]" { // both act for the workload identity that the policy names
		t.Errorf("who can with another scope: got %s", got)
	}
}

// TestPoliciesTakeEffectOnEveryReplica narrows a policy on one replica and asks the other.
func TestPoliciesTakeEffectOnEveryReplica(t *testing.T) {
	one, two, agent, ask := twoReplicas(t)
	status := func() int { return two.post(agent, "GetResourceOauth2Token", encode(t, ask)).status }
	if got := status(); got != http.StatusOK {
		t.Fatalf("before: %d", got)
	}
	for _, step := range []struct {
		what string
		do   func()
		want int
	}{
		{"a forbid", func() { one.put("no", `forbid (principal, action in Tabard::Action::"release", resource);`) }, http.StatusForbidden},
		{"its deletion", func() { one.call(root(), "DeletePolicy", map[string]any{"name": "no"}) }, http.StatusOK},
		{"a deleted permit", func() { one.call(root(), "DeletePolicy", map[string]any{"name": "all:agent"}) }, http.StatusForbidden},
	} {
		step.do()
		if !eventually(2*time.Second, func() bool { return status() == step.want }) {
			t.Errorf("%s is not everywhere after two seconds: answered %d", step.what, status())
		}
	}
}

// TestPolicyVersionsAreComparedAndSet has two administrators replace one version.
func TestPolicyVersionsAreComparedAndSet(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db)
		put := func(expected int) (int, map[string]any) {
			return w.tabard(root(), "PutPolicy", map[string]any{"name": "p", "text": agentPolicy("p"), "expectedVersion": expected})
		}
		if status, out := put(7); status != http.StatusConflict {
			t.Errorf("a version that never was: %d %v", status, out)
		}
		w.put("p", agentPolicy("p"))
		version := int(w.must("GetPolicy", map[string]any{"name": "p"})["policy"].(map[string]any)["version"].(float64))
		if status, out := put(version); status != http.StatusOK {
			t.Errorf("the version that is: %d %v", status, out)
		}
		if status, out := put(version); status != http.StatusConflict {
			t.Errorf("the version that was: %d %v", status, out)
		}
		for name, text := range map[string]string{"builtin:p": agentPolicy("p"), "upgrade:p": agentPolicy("p"), "q": "permit (principal, action, nothing);", "r": `permit (principal, action == Tabard::Action::"Fly", resource);`} {
			if status, out := w.tabard(root(), "PutPolicy", map[string]any{"name": name, "text": text}); status != http.StatusBadRequest {
				t.Errorf("%s: %d %v, want it refused", name, status, out)
			}
		}
	})
}

// TestUpgradeWritesTheAgentsRightsOnce starts on a database that is marked as older than policies.
func TestUpgradeWritesTheAgentsRightsOnce(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	w.workload("calendar-agent")
	agent := w.newcomer("agent", "calendar-agent")
	w.newcomer("new.one", "other-agent")
	mint := func() int { return w.post(agent, "GetWorkloadAccessToken", `{"workloadName":"calendar-agent"}`).status }
	if got := mint(); got != http.StatusForbidden {
		t.Fatalf("before: %d", got)
	}
	w.stop()
	db, err := sql.Open("sqlite", filepath.Join(w.dataDir, "tabard.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO policy_upgrades (account, done) SELECT DISTINCT account, 0 FROM principals"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	if got := mint(); got != http.StatusOK {
		t.Errorf("after the upgrade: %d, want what the fixed rules allowed", got)
	}
	if !strings.Contains(w.out.String(), "what 2 agents were allowed until now is written down") {
		t.Errorf("the start does not say so:\n%s", w.out)
	}
	status, out := w.tabard(root(), "GetPolicy", map[string]any{"name": "upgrade:agent"})
	if p, _ := out["policy"].(map[string]any); status != http.StatusOK || p["source"] != "UPGRADE" || p["createdBy"] != "upgrade" {
		t.Errorf("the policy: %d %v", status, out)
	}
	if records := fmt.Sprint(w.must("ListAuditRecords", map[string]any{"newest": true, "maxResults": 50})); !strings.Contains(records, "policy/upgrade:agent") {
		t.Error("the trail does not have it")
	}
	w.call(root(), "DeletePolicy", map[string]any{"name": "upgrade:agent"})
	w.stop()
	w.start()
	if got := mint(); got != http.StatusForbidden {
		t.Errorf("deleted, and started again: %d, want %d", got, http.StatusForbidden)
	}
}
