package e2e_test

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
)

// takers are all the ways to send a workload access token: the operations of the models with such a member in their
// input, and the two kinds of exchange. Each is sent as k.
func (w *world) takers(k key, values map[string]any) map[string]func(wat string) reply {
	in, out := newInputs(w.t, nil), map[string]func(string) reply{}
	maps.Copy(in.values, values)
	for _, op := range api.Operations() {
		member := in.tokenMember(op.Name)
		if member == "" || open(op.Name) {
			continue
		}
		out[op.Name] = func(wat string) reply {
			in.values[member] = wat
			target, body := in.request(w.t, op.Name, op.Path, false)
			return do(w.t, w.request(k, op.Method, target, body))
		}
	}
	out["ExchangeToken for a service"] = func(wat string) reply { return w.form(k, "/oauth2/token", exchanging(wat, reports)) }
	out["ExchangeToken for another agent"] = func(wat string) reply {
		return w.form(k, "/oauth2/token", exchanging(wat, "mailer", "requested_token_type", workloadTokenType))
	}
	return out
}

// tokenMember is the member of an operation's input that is a workload access token, "" where it has none.
func (in *inputs) tokenMember(op string) string {
	for _, m := range in.models {
		o, ok := m.Operations[op]
		if !ok {
			continue
		}
		for name, of := range m.Shapes[o.Input.Shape].Members {
			if of.Shape == "WorkloadIdentityTokenType" || of.Shape == "WorkloadAccessToken" {
				return name
			}
		}
	}
	return ""
}

// verdict is what an answer says of the token: "dead", "denied" by a policy, or "taken" whatever came of it.
func verdict(r reply) string {
	switch {
	case r.header.Get("X-Amzn-Errortype") == api.ExceptionUnauthorized:
		return "dead"
	case r.header.Get("X-Amzn-Errortype") == api.ExceptionAccessDenied, r.get("error") == "invalid_target":
		return "denied"
	}
	return "taken"
}

// TestM06_EveryTakerSeesTheSame: each operation that takes a workload access token sees whom it came through and how
// its user is known, and refuses one that is dead, for each reason that there is.
func TestM06_EveryTakerSeesTheSame(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db)
		w.trust()
		for _, name := range []string{"planner", "booker", "mailer"} {
			w.call(root(), "CreateWorkloadIdentity", map[string]any{"name": name, "allowedResourceOauth2ReturnUrls": []string{returnURL},
				"tags": map[string]string{"tabard:assurance": "asserted"}})
		}
		w.provider("calendar")
		w.call(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "weather", "apiKey": "the key"})
		all := w.principal("all", "*er", "agent") // each of the three
		app := w.principal("app", "booker", "consent-app")
		w.connect(all, app, "booker", "calendar", "alice")
		list, _ := w.connectionsOf(map[string]any{})
		takers := w.takers(all, map[string]any{"resourceCredentialProviderName": "calendar", "oauth2Flow": "USER_FEDERATION",
			"scopes": []string{"openid"}, "connectionId": list[0]["connectionId"]})
		for a, rule := range access.Rules() {
			if name := string(a); rule.Paired == access.Agent && !strings.HasPrefix(name, "GetWorkloadAccessToken") &&
				!slices.ContainsFunc(slices.Collect(maps.Keys(takers)), func(taker string) bool { return strings.HasPrefix(taker, name) }) {
				t.Errorf("%s is an agent's and takes no token here", a)
			}
		}
		each := func(what, want string, wat string) {
			t.Helper()
			for _, name := range slices.Sorted(maps.Keys(takers)) {
				if r := takers[name](wat); verdict(r) != want {
					t.Errorf("%s: %s answers %d %s %s, want it %s", what, name, r.status, r.header.Get("X-Amzn-Errortype"), r.body, want)
				}
			}
		}
		user := func() string { return w.wat(all, "booker", w.login("alice")) }
		each("a good token", "taken", user())
		each("no token", "dead", "wat1.bm90")

		// What policies see of it.
		handed := w.propagated(all, w.wat(all, "planner", w.login("alice")), "booker")
		named := w.call(all, "GetWorkloadAccessTokenForUserId", map[string]any{"workloadName": "booker", "userId": "alice"}).get("workloadAccessToken")
		each("one that was handed on", "taken", handed)
		for condition, wat := range map[string]string{
			`context.through.contains("planner")`: handed, `context.user.kind == "asserted"`: named,
		} {
			w.put("never", `forbid (principal, action, resource) when { `+condition+` };`)
			each("a forbid when "+condition, "denied", wat)
			each("a forbid of another when "+condition, "taken", user())
			w.must("DeletePolicy", map[string]any{"name": "never"})
		}

		// What ends it, and is taken back.
		who := map[string]any{"issuer": w.idp.Issuer, "subject": "alice"}
		for what, c := range map[string]struct {
			end, undo string
			in        map[string]any
		}{
			"of a disabled agent":  {"DisableWorkloadIdentity", "EnableWorkloadIdentity", map[string]any{"name": "booker"}},
			"of a disabled user":   {"DisableUser", "EnableUser", map[string]any{"user": who}},
			"of a disabled issuer": {"DisableTrustedIssuer", "EnableTrustedIssuer", map[string]any{"issuer": w.idp.Issuer}},
		} {
			wat := user()
			w.must(c.end, c.in)
			each(what, "dead", wat)
			w.must(c.undo, c.in)
			each(what+", enabled again", "dead", wat)
		}
		wat := w.propagated(all, w.wat(all, "planner", w.login("alice")), "booker")
		w.must("DisableWorkloadIdentity", map[string]any{"name": "planner"})
		each("through a disabled agent", "dead", wat)
		w.must("EnableWorkloadIdentity", map[string]any{"name": "planner"})

		jwt := w.login("alice")
		grants := []any{map[string]any{"providerName": "calendar", "providerKind": "OAUTH2", "scopes": []string{"openid", "offline_access", "calendar.write"}}}
		made := w.call(app, "CreateDelegation", map[string]any{"workloadName": "booker", "userToken": jwt, "grants": grants, "until": time.Now().Add(time.Hour).Unix()})
		id := between(made.body, `"delegationId":"`, `"`)
		delegated := w.call(all, "GetWorkloadAccessTokenForDelegation", map[string]any{"workloadName": "booker", "delegationId": id}).get("workloadAccessToken")
		w.call(app, "EndDelegation", map[string]any{"delegationId": id, "userToken": jwt})
		each("of a delegation that is over", "dead", delegated)

		wat = user()
		w.ahead.Store(int64(2 * time.Hour))
		each("expired", "dead", wat)
		w.ahead.Store(0)
		each("a good token after all that", "taken", user())

		wat = user()
		w.must("RevokeAccess", map[string]any{"user": who})
		each("revoked with its user", "dead", wat)
		wat = user()
		w.must("RevokeAccess", map[string]any{"workloadName": "booker"})
		each("revoked with its agent", "dead", wat)
		wat = user()
		w.call(root(), "DeleteWorkloadIdentity", map[string]any{"name": "booker"})
		each("of a deleted agent", "dead", wat)
		w.must("RestoreWorkloadIdentity", map[string]any{"workloadName": "booker"})
		each("of an agent that was deleted and restored", "dead", wat)
		w.call(root(), "DeleteWorkloadIdentity", map[string]any{"name": "booker"})
		w.workload("booker")
		each("of a deleted agent whose name is another's", "dead", wat)

		r := w.form(all, "/oauth2/introspect", url.Values{"token": {user()}})
		if strings.TrimSpace(r.body) != `{"active":false}` {
			t.Errorf("introspection says something of a workload access token: %s", r.body)
		}
	})
}

// between is what of a text stands between two others.
func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	got, _, _ := strings.Cut(rest, after)
	return got
}
