package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

// succeeding keeps two clients at work, each as fast as it gets answers, until the returned function is called; that
// returns when the first and the last success came.
func succeeding(w *world, agent key, op string, in any) (stop func() (first, last time.Time)) {
	o, _ := api.Find(op)
	body, done := encode(w.t, in), make(chan struct{})
	var mu sync.Mutex // guards first and last
	var first, last time.Time
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				r := do(w.t, w.request(agent, o.Method, o.Path, body))
				if r.status != http.StatusOK || r.get("accessToken") == "" && r.get("workloadAccessToken") == "" {
					time.Sleep(5 * time.Millisecond) // a refusal costs a record: not more of them than needed
					continue
				}
				mu.Lock()
				if last = time.Now(); first.IsZero() {
					first = last
				}
				mu.Unlock()
			}
		})
	}
	return func() (time.Time, time.Time) {
		close(done)
		clients.Wait()
		return first, last
	}
}

// TestB02_TwoSecondsUnderLoad disables each of the five kinds on one replica while the other is under load. Two seconds
// after the answer nothing succeeds there any more: neither a token of before, nor a new one.
func TestB02_TwoSecondsUnderLoad(t *testing.T) {
	one, two, agent, ask := twoReplicas(t)
	jwt := one.login("alice")
	mint := map[string]any{"workloadName": "calendar-agent", "userToken": jwt}
	issuer := one.idp.Issuer
	user := map[string]any{"issuer": issuer, "subject": "alice"}
	for _, kind := range []struct {
		name, off, on string
		in            map[string]any
		mints         bool // minting goes on: the provider has no part in it
	}{
		{"workload identity", "DisableWorkloadIdentity", "EnableWorkloadIdentity", map[string]any{"name": "calendar-agent"}, false},
		{"user", "DisableUser", "EnableUser", map[string]any{"user": user}, false},
		{"issuer", "DisableTrustedIssuer", "EnableTrustedIssuer", map[string]any{"issuer": issuer}, false},
		{"provider", "DisableCredentialProvider", "EnableCredentialProvider", map[string]any{"name": "calendar"}, true},
		{"principal", "DisablePrincipal", "EnablePrincipal", map[string]any{"name": "agent"}, false},
	} {
		ask["workloadIdentityToken"] = one.wat(agent, "calendar-agent", jwt)
		served := func() bool {
			return two.post(agent, "GetResourceOauth2Token", encode(t, ask)).get("accessToken") != "" &&
				two.post(agent, "GetWorkloadAccessTokenForJWT", encode(t, mint)).status == http.StatusOK
		}
		if !eventually(5*time.Second, served) {
			t.Fatalf("%s: nothing is served before it is disabled", kind.name)
		}
		releases, mints := succeeding(two, agent, "GetResourceOauth2Token", ask), succeeding(two, agent, "GetWorkloadAccessTokenForJWT", mint)
		time.Sleep(100 * time.Millisecond)
		one.call(root(), kind.off, kind.in)
		committed := time.Now()
		if r := one.post(agent, "GetResourceOauth2Token", encode(t, ask)); r.get("accessToken") != "" {
			t.Errorf("%s is disabled, and the same replica still releases", kind.name)
		}
		time.Sleep(2500*time.Millisecond - time.Since(committed))
		for what, stop := range map[string]func() (time.Time, time.Time){"released": releases, "minted": mints} {
			first, last := stop()
			if first.IsZero() || first.After(committed) {
				t.Errorf("%s: nothing was %s before it was disabled", kind.name, what)
			}
			if late := last.Sub(committed); late > 2*time.Second && !(kind.mints && what == "minted") {
				t.Errorf("%s: %s %v after it was disabled", kind.name, what, late)
			}
		}
		one.call(root(), kind.on, kind.in)
	}
}

// TestRevokeAccessEndsEverything revokes a user at a real provider, whose tokens die there too, and reads the receipt.
func TestRevokeAccessEndsEverything(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db)
		w.trust()
		w.workload("calendar-agent")
		w.provider("calendar")
		agent, app := w.principal("agent", "calendar-agent", "agent"), w.principal("app", "calendar-agent", "consent-app")
		ask := w.connect(agent, app, "calendar-agent", "calendar", "alice")
		asBob := w.connect(agent, app, "calendar-agent", "calendar", "bob")
		token := w.call(agent, "GetResourceOauth2Token", ask).get("accessToken")
		open := w.call(agent, "GetResourceOauth2Token", with(ask, "forceAuthentication", true)).get("authorizationUrl")

		admin := w.principal("admin", "", "admin")
		if r := w.post(admin, "RevokeAccess", `{"wholeAccount":true}`); r.status != http.StatusForbidden {
			t.Errorf("the whole account by an admin: %d %s", r.status, r.body)
		}
		began := w.call(admin, "RevokeAccess", map[string]any{
			"user": map[string]any{"issuer": w.idp.Issuer, "subject": "alice"}, "upstream": true, "reason": "lost laptop",
		})
		if r := w.post(agent, "GetResourceOauth2Token", encode(t, ask)); r.status != http.StatusUnauthorized || !strings.Contains(r.body, "was revoked") {
			t.Errorf("with a token of before: %d %s", r.status, r.body)
		}
		if r := w.call(agent, "GetResourceOauth2Token", asBob); r.get("accessToken") == "" {
			t.Errorf("another user: %s", r.body)
		}
		if r := page(t, "GET", open); r.status == http.StatusSeeOther || r.status == http.StatusFound {
			t.Errorf("a consent that was open goes on: %d", r.status)
		}
		fresh := with(ask, "workloadIdentityToken", w.wat(agent, "calendar-agent", w.login("alice")))
		if r := w.call(agent, "GetResourceOauth2Token", fresh); r.get("accessToken") != "" || r.get("authorizationUrl") == "" {
			t.Errorf("with a new token: %s", r.body)
		}
		w.readReceipt(began)
		if w.alive(token) {
			t.Error("the provider honours the token still")
		}
		w.erase(admin, agent, fresh)
	})
}

// readReceipt waits until the revocation is done, and reads what was signed.
func (w *world) readReceipt(began reply) {
	w.t.Helper()
	var started struct{ Revocation struct{ RevocationID string } }
	if err := json.Unmarshal([]byte(began.body), &started); err != nil {
		w.t.Fatal(err)
	}
	var last struct {
		Revocation struct {
			State                     string
			RevokedUpstream           int
			WorkloadAccessTokensEnded bool
			RequestedBy               string
		}
		Items   []map[string]any
		Receipt string
	}
	if !eventually(20*time.Second, func() bool {
		r := w.call(root(), "GetRevocation", map[string]any{"revocationId": started.Revocation.RevocationID})
		if err := json.Unmarshal([]byte(r.body), &last); err != nil {
			w.t.Fatal(err)
		}
		return last.Revocation.State == "DONE"
	}) {
		w.t.Fatalf("not done: %+v", last)
	}
	if v := last.Revocation; v.RevokedUpstream != 1 || !v.WorkloadAccessTokensEnded || v.RequestedBy != "admin" || len(last.Items) != 1 {
		w.t.Errorf("got %+v", last)
	}
	parts := strings.Split(last.Receipt, ".")
	if len(parts) != 3 {
		w.t.Fatalf("the receipt is no JWS: %q", last.Receipt)
	}
	text := func(part string) string {
		doc, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			w.t.Fatal(err)
		}
		return string(doc)
	}
	if head := text(parts[0]); !strings.Contains(head, `"typ":"tabard-revocation-receipt+jwt"`) || !strings.Contains(head, `"alg":"ES256"`) {
		w.t.Errorf("header of the receipt: %s", head)
	}
	for _, want := range []string{`"final":true`, `"reason":"lost laptop"`, `"connections_ended":1`, `"upstream":"revoked"`, `"iss":"` + w.server.PublicURL()} {
		if body := text(parts[1]); !strings.Contains(body, want) || strings.Contains(body, "alice") {
			w.t.Errorf("the receipt has no %s, or names the user: %s", want, body)
		}
	}
}

// erase forgets alice, who comes back as a user like any other.
func (w *world) erase(admin, agent key, fresh map[string]any) {
	w.t.Helper()
	r := w.call(admin, "EraseUser", map[string]any{"user": map[string]any{"issuer": w.idp.Issuer, "subject": "alice"}, "reason": "asked for it"})
	if len(r.get("userRef")) != 64 || r.get("receipt") == "" {
		w.t.Errorf("EraseUser: %s", r.body)
	}
	if r := w.post(agent, "GetResourceOauth2Token", encode(w.t, fresh)); r.status != http.StatusUnauthorized {
		w.t.Errorf("after EraseUser: %d %s", r.status, r.body)
	}
	again := with(fresh, "workloadIdentityToken", w.wat(agent, "calendar-agent", w.login("alice")))
	if r := w.call(agent, "GetResourceOauth2Token", again); r.get("authorizationUrl") == "" {
		w.t.Errorf("a user who comes back: %s", r.body)
	}
}

// TestStandingsOverTheWire has each operation on standings, and what its answers say.
func TestStandingsOverTheWire(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	w.workload("worker")
	w.call(root(), "CreateTrustedIssuer", map[string]any{"issuer": "https://idp.example.com", "audiences": []string{"a"}})
	w.call(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "maps", "apiKey": "canary-maps-key"})
	ref := strings.Repeat("ab", 32)
	for _, c := range []struct {
		off, on, kind string
		in            map[string]any
		name          string
	}{
		{"DisableWorkloadIdentity", "EnableWorkloadIdentity", "WORKLOAD_IDENTITY", map[string]any{"name": "worker"}, "worker"},
		{"DisableUser", "EnableUser", "USER", map[string]any{"user": map[string]any{"userRef": ref}}, ""},
		{"DisableTrustedIssuer", "EnableTrustedIssuer", "ISSUER", map[string]any{"issuer": "https://idp.example.com"}, ""},
		{"DisableCredentialProvider", "EnableCredentialProvider", "PROVIDER", map[string]any{"name": "maps"}, "maps"},
	} {
		off := w.call(root(), c.off, with(c.in, "reason", "why")).body
		if !strings.Contains(off, `"status":"DISABLED","epoch":1,"reason":"why"`) || !strings.Contains(off, `"kind":"`+c.kind+`"`) {
			t.Errorf("%s: %s", c.off, off)
		}
		list := w.call(root(), "ListStandings", map[string]any{"kind": c.kind}).body
		if !strings.Contains(list, `"status":"DISABLED"`) || c.name != "" && !strings.Contains(list, `"name":"`+c.name+`"`) {
			t.Errorf("ListStandings of %s: %s", c.kind, list)
		}
		if r := w.call(root(), c.on, c.in); !strings.Contains(r.body, `"status":"ACTIVE","epoch":1`) || strings.Contains(r.body, "why") {
			t.Errorf("%s: %s", c.on, r.body)
		}
	}
	for op, in := range map[string]string{
		"DisableUser": `{"user":{}}`, "EraseUser": `{"user":{"issuer":"https://idp.example.com"}}`, "RevokeAccess": `{}`, "ListStandings": `{"kind":"AGENT"}`,
	} {
		if r := w.post(root(), op, in); r.status != http.StatusBadRequest {
			t.Errorf("%s %s: %d %s", op, in, r.status, r.body)
		}
	}
	if r := w.post(root(), "GetRevocation", `{"revocationId":"rvk-nothing"}`); r.status != http.StatusNotFound {
		t.Errorf("GetRevocation of nothing: %d %s", r.status, r.body)
	}
}
