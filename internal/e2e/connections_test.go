package e2e_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"
)

// connectionsOf is the answer of ListConnections.
func (w *world) connectionsOf(in map[string]any) (list []map[string]any, next string) {
	w.t.Helper()
	var out struct {
		Connections []map[string]any
		NextToken   string
	}
	if err := json.Unmarshal([]byte(w.call(root(), "ListConnections", in).body), &out); err != nil {
		w.t.Fatal(err)
	}
	return out.Connections, out.NextToken
}

// alive asks the provider's UserInfo endpoint whether the access token is good.
func (w *world) alive(token string) bool {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "GET", w.idp.Issuer+"/me", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	got := do(w.t, r)
	if got.status != http.StatusOK && got.status != http.StatusUnauthorized {
		w.t.Fatalf("the provider answered %d %s", got.status, got.body)
	}
	return got.status == http.StatusOK
}

// TestConnectionsOverTheWire has each operation on connections, with npm oidc-provider's own revocation endpoint.
func TestConnectionsOverTheWire(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db)
		w.trust()
		for _, name := range []string{"calendar-agent", "other-agent"} {
			w.workload(name)
		}
		w.provider("calendar")
		agent, next := w.principal("agent", "calendar-agent", "agent"), w.principal("next", "other-agent", "agent")
		app := w.principal("app", "calendar-agent", "consent-app")
		ask := w.connect(agent, app, "calendar-agent", "calendar", "alice")
		asBob := w.connect(agent, app, "calendar-agent", "calendar", "bob")

		list, more := w.connectionsOf(map[string]any{"maxResults": 1})
		rest, end := w.connectionsOf(map[string]any{"maxResults": 1, "nextToken": more})
		if len(list) != 1 || len(rest) != 1 || end != "" || list[0]["connectionId"] == rest[0]["connectionId"] {
			t.Fatalf("two pages of one: %v, %v", list, rest)
		}
		list, _ = w.connectionsOf(map[string]any{"workloadName": "calendar-agent", "providerName": "calendar", "state": "active", "userIssuer": w.idp.Issuer, "userSubject": "alice"})
		if len(list) != 1 || list[0]["refreshable"] != true || list[0]["workloadName"] != "calendar-agent" || list[0]["providerName"] != "calendar" {
			t.Fatalf("alice's connections: %v", list)
		}
		id := list[0]["connectionId"].(string)
		in := map[string]any{"connectionId": id}
		w.call(root(), "GetConnection", in)

		w.reportOverTheWire(agent, ask, asBob, id)
		w.transferOverTheWire(agent, next, ask, id)
		w.refusedOverTheWire(agent, id)

		token := w.call(agent, "GetResourceOauth2Token", ask).get("accessToken")
		if !w.alive(token) {
			t.Fatal("the token is no good before it is revoked")
		}
		if r := w.call(root(), "RevokeConnection", in); r.get("upstream") != "revoked" {
			t.Errorf("RevokeConnection: %s", r.body)
		}
		if w.alive(token) {
			t.Error("the provider honours the token after RevokeConnection")
		}
		if r := w.call(agent, "GetResourceOauth2Token", ask); r.get("accessToken") != "" || r.get("authorizationUrl") == "" {
			t.Errorf("after RevokeConnection: %s", r.body)
		}
		w.call(root(), "DeleteConnection", in)
		if r := w.post(root(), "GetConnection", encode(t, in)); r.status != http.StatusNotFound {
			t.Errorf("GetConnection after DeleteConnection: %d", r.status)
		}
		if bobs := w.call(agent, "GetResourceOauth2Token", asBob).get("accessToken"); bobs == "" || !w.alive(bobs) {
			t.Error("bob's connection went with alice's")
		}
	})
}

// reportOverTheWire: a report brings a new token, once in a while, and only for one's own connection.
func (w *world) reportOverTheWire(agent key, ask, another map[string]any, id string) {
	w.t.Helper()
	before := w.call(agent, "GetResourceOauth2Token", ask).get("accessToken")
	report := func(of map[string]any) reply {
		return w.post(agent, "ReportTokenInvalid", encode(w.t, map[string]any{"workloadIdentityToken": of["workloadIdentityToken"], "connectionId": id}))
	}
	if r := report(another); r.status != http.StatusNotFound {
		w.t.Errorf("bob reports alice's connection: %d %s", r.status, r.body)
	}
	for range 3 {
		if r := report(ask); r.status != http.StatusOK || r.get("connectionState") != "active" {
			w.t.Errorf("ReportTokenInvalid: %d %s", r.status, r.body)
		}
	}
	if n := w.idp.Count(w.t, "refresh_token", "ok"); n != 1 {
		w.t.Errorf("three reports made %d refreshes", n)
	}
	if after := w.call(agent, "GetResourceOauth2Token", ask).get("accessToken"); after == before || after == "" {
		w.t.Error("the reported token is served again")
	}
}

// transferOverTheWire gives the connection to another agent and back.
func (w *world) transferOverTheWire(agent, next key, ask map[string]any, id string) {
	w.t.Helper()
	w.call(root(), "TransferConnection", map[string]any{"connectionId": id, "workloadName": "other-agent"})
	theirs := map[string]any{}
	for k, v := range ask {
		theirs[k] = v
	}
	theirs["workloadIdentityToken"] = w.wat(next, "other-agent", w.login("alice"))
	if r := w.call(next, "GetResourceOauth2Token", theirs); r.get("connectionId") != id {
		w.t.Errorf("the new owner got %s", r.body)
	}
	if r := w.call(agent, "GetResourceOauth2Token", ask); r.get("accessToken") != "" {
		w.t.Error("the former owner still has the token")
	}
	w.ahead.Add(int64(90 * time.Second))
	if r := w.call(next, "GetResourceOauth2Token", theirs); r.get("connectionId") != id || r.get("accessToken") == "" {
		w.t.Errorf("the new owner's refresh: %s", r.body)
	}
	w.call(root(), "TransferConnection", map[string]any{"connectionId": id, "workloadName": "calendar-agent"})
}

// refusedOverTheWire: agents administer nothing, and what does not exist is not found.
func (w *world) refusedOverTheWire(agent key, id string) {
	w.t.Helper()
	for _, op := range []string{"ListConnections", "GetConnection", "RevokeConnection", "DeleteConnection", "TransferConnection"} {
		body := map[string]any{"connectionId": id}
		switch op {
		case "ListConnections":
			body = map[string]any{}
		case "TransferConnection":
			body["workloadName"] = "other-agent"
		}
		if r := w.post(agent, op, encode(w.t, body)); r.status != http.StatusForbidden {
			w.t.Errorf("%s by an agent: %d %s", op, r.status, r.body)
		}
		if body["connectionId"] = "cn_nothing"; op != "ListConnections" {
			if r := w.post(root(), op, encode(w.t, body)); r.status != http.StatusNotFound {
				w.t.Errorf("%s of nothing: %d %s", op, r.status, r.body)
			}
		}
	}
}
