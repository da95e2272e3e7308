package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// M02: an agent that asks for no scopes gets nothing that a list of scopes would have to cover: not by a policy, past a
// deny, nor under a delegation, and nobody is asked to consent to what could not be used. If the provider names the
// scopes, they count.
func TestM02_NoScopesAskedAndNoneNamed(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		m := newMatrix(t, db)
		boss, ann := m.boss(inHome), m.actor(inHome, "ann").key
		policy := func(text string) {
			m.call(boss, "PutPolicy", map[string]any{"name": "of:ann", "text": text})
		}
		const mint = `permit (principal == Tabard::Principal::"ann", action in [Tabard::Action::"mint", Tabard::Action::"report"], resource);`
		whole := mint + `permit (principal == Tabard::Principal::"ann", action in Tabard::Action::"release", resource);`
		ceiling := strings.TrimSuffix(whole, ";") + ` when { ["read"].containsAll(context.scopes) };`
		ask := func(user, flow string, scopes ...string) map[string]any {
			if scopes == nil {
				scopes = []string{}
			}
			op, in := m.mintInput("ann", user)
			token := m.call(ann, op, in).get("workloadAccessToken")
			provider := onCalendar
			if user != byNobody { // nothing is stored for bob there
				provider = onDrive
			}
			return m.tokenInput(&wat{text: token}, provider, flow, scopes, "")
		}
		refused := func(what string, in map[string]any, says string) {
			t.Helper()
			if r := m.post(ann, "GetResourceOauth2Token", encode(t, in)); r.status != http.StatusForbidden || !strings.Contains(r.body, says) {
				t.Errorf("%s: %d %s", what, r.status, r.body)
			}
		}
		m.stand.silent.Store(true) // the provider grants what it likes, and does not say what

		for _, user := range []string{byNobody, byBob} {
			flow := "M2M"
			if user != byNobody {
				flow = "USER_FEDERATION"
			}
			policy(ceiling)
			refused(flow+" under a ceiling", ask(user, flow), "policy of:ann permits those that it lists")
			policy(whole + `forbid (principal, action in Tabard::Action::"release", resource) when { context.scopes.contains("mail") };`)
			refused(flow+" past a deny", ask(user, flow), "policy of:ann forbids some")
		}

		// A token of unknown scopes that is stored, since a policy without a list allowed it, is released to no list either.
		policy(whole)
		first := m.call(ann, "GetResourceOauth2Token", ask(byNobody, "M2M"))
		if first.get("accessToken") == "" || strings.Contains(first.body, "grantedScopes") {
			t.Errorf("without a list: %s", first.body)
		}
		policy(ceiling)
		refused("the stored token", ask(byNobody, "M2M"), "policy of:ann permits those that it lists")
		r := m.call(boss, "FindWhoCan", map[string]any{"operation": "GetResourceOauth2Token", "workloadName": "ann", "providerName": onCalendar, "flow": "M2M"})
		if !strings.Contains(r.body, `"scopesUnknown":true`) {
			t.Errorf("who-can says %s", r.body)
		}

		// What was asked for and not said to be less is granted (RFC 6749 §5.1), also where the provider says nothing.
		asked := m.call(ann, "GetResourceOauth2Token", ask(byNobody, "M2M", "read"))
		if !strings.Contains(asked.body, `"grantedScopes":["read"]`) {
			t.Errorf("asked for read: %s", asked.body)
		}
		m.stand.silent.Store(false)
	})
}

// M03: neither a policy nor a delegation for an OAuth2 provider releases the API key of the same name, and the reverse.
func TestM03_AnAPIKeyOfTheSameName(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		m := newMatrix(t, db)
		boss, ann := m.boss(inHome), m.actor(inHome, "ann").key
		m.call(boss, "CreateApiKeyCredentialProvider", map[string]any{"name": onCalendar, "apiKey": "the-key-of-calendar"})
		wat := m.mint(inHome, "ann", byAlice)
		key := map[string]any{"workloadIdentityToken": wat.text, "resourceCredentialProviderName": onCalendar}
		token := m.tokenInput(wat, onCalendar, "USER_FEDERATION", []string{"read"}, "")
		status := func(op string, in map[string]any) int { return m.post(ann, op, encode(t, in)).status }
		for kind, want := range map[string][2]int{"Provider": {http.StatusOK, http.StatusForbidden}, "ApiKeyProvider": {http.StatusForbidden, http.StatusOK}} {
			m.call(boss, "PutPolicy", map[string]any{"name": "of:ann", "text": `permit (principal == Tabard::Principal::"ann", action, resource == Tabard::` + kind + `::"calendar");`})
			if got := [2]int{status("GetResourceOauth2Token", token), status("GetResourceApiKey", key)}; got != want {
				t.Errorf("a policy for the %s: token and key got %v, want %v", kind, got, want)
			}
		}
		m.call(boss, "PutPolicy", map[string]any{"name": "of:ann", "text": `permit (principal == Tabard::Principal::"ann", action, resource) when { context.from == "" };`})
		until := time.Now().Add(time.Hour).Unix()
		delegate := func(grant map[string]any) reply {
			return m.post(boss, "CreateDelegation", encode(t, map[string]any{"workloadName": "ann", "userToken": m.sign(byAlice), "until": until, "grants": []any{grant}}))
		}
		if r := delegate(map[string]any{"providerName": onCalendar}); r.status != http.StatusBadRequest || !strings.Contains(r.body, "providerKind") {
			t.Errorf("a delegation that does not say which: %d %s", r.status, r.body)
		}
		for kind, want := range map[string][2]int{"OAUTH2": {http.StatusOK, http.StatusForbidden}, "API_KEY": {http.StatusForbidden, http.StatusOK}} {
			grant := map[string]any{"providerName": onCalendar, "providerKind": kind}
			if kind == "OAUTH2" {
				grant["scopes"] = []string{"read", "write"}
			}
			id := nested(t, delegate(grant), "delegationId")
			under := m.call(ann, "GetWorkloadAccessTokenForDelegation", map[string]any{"workloadName": "ann", "delegationId": id}).get("workloadAccessToken")
			key["workloadIdentityToken"], token["workloadIdentityToken"] = under, under
			if got := [2]int{status("GetResourceOauth2Token", token), status("GetResourceApiKey", key)}; got != want {
				t.Errorf("a delegation of the %s: token and key got %v, want %v", kind, got, want)
			}
		}
	})
}
