package e2e_test

import (
	"crypto/rand"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// connect takes a user through consent and returns the request that is served from the vault from then on.
func (w *world) connect(agent, app key, workload, provider, user string) map[string]any {
	w.t.Helper()
	jwt := w.login(user)
	ask := map[string]any{
		"workloadIdentityToken": w.wat(agent, workload, jwt), "resourceCredentialProviderName": provider, "oauth2Flow": "USER_FEDERATION",
		"scopes": []string{"openid", "offline_access", "calendar.write"}, "resourceOauth2ReturnUrl": returnURL, "customParameters": map[string]string{"prompt": "consent"},
	}
	first := w.call(agent, "GetResourceOauth2Token", ask)
	end := peer.NewBrowser(user).Walk(w.t, first.get("authorizationUrl"), returnURL)
	if end.URL.Query().Get("session_id") != first.get("sessionUri") {
		w.t.Fatalf("the browser ended at %s %d\n%s", end.URL, end.Status, end.Body)
	}
	w.call(app, "CompleteResourceTokenAuth", map[string]any{"sessionUri": first.get("sessionUri"), "userIdentifier": map[string]any{"userToken": jwt}})
	if w.call(agent, "GetResourceOauth2Token", ask).get("accessToken") == "" {
		w.t.Fatal("no token after Complete")
	}
	return ask
}

// twoReplicas starts two servers on one PostgreSQL database, with a user connected through the first.
func twoReplicas(t *testing.T) (one, two *world, agent key, ask map[string]any) {
	one = newWorld(t, peer.Postgres(t))
	one.trust()
	one.workload("calendar-agent")
	one.provider("calendar")
	agent = one.principal("agent", "calendar-agent", "agent")
	ask = one.connect(agent, one.principal("app", "calendar-agent", "consent-app"), "calendar-agent", "calendar", "alice")
	return one, one.replica(), agent, ask
}

// TestB02_DisabledIsRefusedOnEveryReplica disables on one replica and asks on both: refused at once on the first, and
// within two seconds on the second. On SQLite, which one server has, it is refused at once.
func TestB02_DisabledIsRefusedOnEveryReplica(t *testing.T) {
	one, two, agent, ask := twoReplicas(t)
	steps := []struct {
		name   string
		op     string
		in     map[string]any
		status int
		undo   string
	}{
		{"an access key", "DisableAccessKey", map[string]any{"accessKeyId": agent.ID}, http.StatusForbidden, "EnableAccessKey"},
		{"a principal", "DisablePrincipal", map[string]any{"name": "agent"}, http.StatusForbidden, "EnablePrincipal"},
		{"a workload identity", "DeleteWorkloadIdentity", map[string]any{"name": "calendar-agent"}, http.StatusUnauthorized, ""},
	}
	for _, s := range steps {
		released := func(w *world) bool {
			r := w.post(agent, "GetResourceOauth2Token", encode(t, ask))
			if r.status == http.StatusOK {
				return true
			}
			// A client that goes on with a key that is refused is slowed down in the end.
			if r.status != s.status && r.status != http.StatusNotFound && r.status != http.StatusTooManyRequests {
				t.Errorf("%s is gone: answered %d %s", s.name, r.status, r.body)
			}
			return false
		}
		if !eventually(2*time.Second, func() bool { return one.post(agent, "GetResourceOauth2Token", encode(t, ask)).status == 200 }) ||
			!eventually(2*time.Second, func() bool { return two.post(agent, "GetResourceOauth2Token", encode(t, ask)).status == 200 }) {
			t.Fatalf("%s: no token before it is gone", s.name)
		}
		one.call(root(), s.op, s.in)
		gone := time.Now()
		if released(one) {
			t.Errorf("%s is gone, and the same replica still releases", s.name)
		}
		if !eventually(2*time.Second, func() bool { return !released(two) }) {
			t.Errorf("%s is gone, and the other replica releases after %v", s.name, time.Since(gone))
		}
		for range 5 {
			if released(one) || released(two) {
				t.Errorf("%s is gone, was refused, and is released again", s.name)
			}
		}
		if s.undo != "" {
			one.call(root(), s.undo, s.in)
		}
	}
}

func TestB02_DisabledIsRefusedAtOnce(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	w.workload("worker")
	agent := w.principal("worker", "worker", "agent")
	mint := func() int { return w.post(agent, "GetWorkloadAccessToken", `{"workloadName":"worker"}`).status }
	for _, s := range []struct {
		off, on string
		in      map[string]any
	}{
		{"DisableAccessKey", "EnableAccessKey", map[string]any{"accessKeyId": agent.ID}},
		{"DisablePrincipal", "EnablePrincipal", map[string]any{"name": "worker"}},
	} {
		if got := mint(); got != http.StatusOK {
			t.Fatalf("before %s: %d", s.off, got)
		}
		w.call(root(), s.off, s.in)
		if got := mint(); got != http.StatusForbidden {
			t.Errorf("after %s: %d, want 403", s.off, got)
		}
		w.call(root(), s.on, s.in)
	}
	w.call(root(), "DeleteWorkloadIdentity", map[string]any{"name": "worker"})
	if got := mint(); got != http.StatusNotFound {
		t.Errorf("after DeleteWorkloadIdentity: %d, want 404", got)
	}
}

// TestTwoReplicasRefreshOnce: fifty callers at two servers find a token that is about to expire, at a provider that
// rotates refresh tokens and ends the whole grant when one is used twice. One of them refreshes; the grant survives.
func TestTwoReplicasRefreshOnce(t *testing.T) {
	one, two, agent, ask := twoReplicas(t)
	old := one.call(agent, "GetResourceOauth2Token", ask).get("accessToken")
	for round := 1; round <= 2; round++ {
		one.ahead.Add(int64(90 * time.Second))
		two.ahead.Add(int64(90 * time.Second))
		var wait sync.WaitGroup
		var mu sync.Mutex // guards what follows
		tokens, refused := map[string]int{}, []string(nil)
		for i := range 50 {
			w := []*world{one, two}[i%2]
			req := w.request(agent, "POST", "/identities/oauth2/token", encode(t, ask))
			wait.Go(func() {
				r := do(t, req)
				mu.Lock()
				defer mu.Unlock()
				if r.status != http.StatusOK || r.get("accessToken") == "" {
					refused = append(refused, fmt.Sprint(r.status, " ", r.body))
					return
				}
				tokens[r.get("accessToken")]++
			})
		}
		wait.Wait()
		if len(refused) > 0 || len(tokens) != 1 || tokens[old] > 0 {
			t.Fatalf("round %d: %d tokens, %d of them the old one, and refused: %v", round, len(tokens), tokens[old], refused)
		}
		if n := one.idp.Count(t, "refresh_token", "ok"); n != round {
			t.Errorf("round %d: the provider saw %d refreshes", round, n)
		}
		for token := range tokens {
			old = token
		}
	}
	if n := one.idp.Count(t, "refresh_token", "invalid_grant"); n != 0 {
		t.Errorf("%d refresh tokens were replayed", n)
	}
}

// TestA02_TwoAccountsOnOneDatabase: a second server serves another account from the same database. Neither finds
// anything of the other by name, by ARN, by session, by token, by callback or by a guessed id.
func TestA02_TwoAccountsOnOneDatabase(t *testing.T) {
	one := newWorld(t, peer.Postgres(t))
	other := key{"TABARDROOTROOTROOT11", rootSecret}
	two := one.replica(func(c *daemon.Config) { c.Account, c.RootAccessKeyID = "111122223333", other.ID })
	one.trust()
	two.call(other, "CreateTrustedIssuer", map[string]any{"issuer": two.idp.Issuer, "audiences": []string{appClient}})
	one.workload("calendar-agent")
	one.provider("calendar")
	agent, app := one.principal("agent", "calendar-agent", "agent"), one.principal("app", "calendar-agent", "consent-app")
	ask := one.connect(agent, app, "calendar-agent", "calendar", "alice")
	open := one.call(agent, "GetResourceOauth2Token", with(ask, "forceAuthentication", true)).get("sessionUri")
	made := encode(t, map[string]any{"name": "calendar-agent"})
	if r := two.post(other, "CreateWorkloadIdentity", made); r.status != http.StatusCreated {
		t.Fatalf("the same name in another account: %d %s", r.status, r.body)
	}
	theirs := two.call(other, "GetWorkloadAccessTokenForJWT", map[string]any{"workloadName": "calendar-agent", "userToken": two.login("alice")}).get("workloadAccessToken")
	for name, r := range map[string]reply{
		"its token with our root":     two.post(other, "GetResourceOauth2Token", encode(t, ask)),
		"our token with its provider": two.post(other, "GetResourceOauth2Token", encode(t, with(ask, "workloadIdentityToken", theirs))),
		"our token with its session":  two.post(other, "GetResourceOauth2Token", encode(t, with(with(ask, "workloadIdentityToken", theirs), "sessionUri", open))),
		"its provider":                two.post(other, "GetOauth2CredentialProvider", `{"name":"calendar"}`),
		"its provider, deleted":       two.post(other, "DeleteOauth2CredentialProvider", `{"name":"calendar"}`),
		"its principal, disabled":     two.post(other, "DisablePrincipal", `{"name":"agent"}`),
		"its key, disabled":           two.post(other, "DisableAccessKey", encode(t, map[string]any{"accessKeyId": agent.ID})),
		"its session, completed":      two.post(other, "CompleteResourceTokenAuth", encode(t, map[string]any{"sessionUri": open, "userIdentifier": map[string]any{"userToken": two.login("alice")}})),
	} {
		if r.status != http.StatusNoContent && r.status/100 != 4 || r.status == http.StatusNoContent && !strings.Contains(name, "deleted") {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	neverCross(t, one, two, root(), other, agent.ID)
	if one.call(agent, "GetResourceOauth2Token", ask).get("accessToken") == "" {
		t.Error("the first account has lost its connection")
	}
}

// neverCross makes things with random names in random accounts and asks the other account for them.
func neverCross(t *testing.T, one, two *world, first, second key, keyID string) {
	worlds, roots := []*world{one, two}, []key{first, second}
	for range 30 {
		n, err := rand.Int(rand.Reader, big.NewInt(2))
		if err != nil {
			t.Fatal(err)
		}
		here, there := n.Int64(), 1-n.Int64()
		name := encode(t, map[string]any{"name": "w-" + rand.Text()})
		if r := worlds[here].post(roots[here], "CreateWorkloadIdentity", name); r.status != http.StatusCreated {
			t.Fatalf("create: %d %s", r.status, r.body)
		}
		never := encode(t, map[string]any{"name": "w-" + rand.Text()})
		foreign, absent := worlds[there].post(roots[there], "GetWorkloadIdentity", name), worlds[there].post(roots[there], "GetWorkloadIdentity", never)
		if foreign.status != http.StatusNotFound || absent.status != http.StatusNotFound || len(foreign.body) != len(absent.body) {
			t.Errorf("what another account has: %d %s; what nobody has: %d %s", foreign.status, foreign.body, absent.status, absent.body)
		}
	}
	for _, op := range []string{"ListWorkloadIdentities", "ListOauth2CredentialProviders", "ListPrincipals", "ListAccessKeys", "ListTrustedIssuers", "ListAuditRecords"} {
		body := two.call(second, op, map[string]any{}).body
		for _, theirs := range []string{":000000000000:", `"principal":"agent"`, `"name":"agent"`, `"name":"calendar"`, `"accessKeyId":"` + keyID, `"accessKeyId":"` + first.ID} {
			if strings.Contains(body, theirs) {
				t.Errorf("%s of the second account shows %s of the first: %s", op, theirs, body)
			}
		}
	}
}

// with is a copy of a request with one member changed.
func with(in map[string]any, name string, value any) map[string]any {
	out := maps.Clone(in)
	out[name] = value
	return out
}
