package e2e_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/internal/daemon"
)

// calendar is a provider's API that asks the provider itself whether a token is good, and may forget one for a while.
type calendar struct {
	*httptest.Server
	w *world

	mu      sync.Mutex // guards what follows
	refused string     // a token that it does not take although the provider would
	hits    int
}

func newCalendar(w *world) *calendar {
	c := &calendar{w: w}
	c.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		c.mu.Lock()
		c.hits++
		bad := token == c.refused
		c.mu.Unlock()
		if bad || !w.alive(token) {
			rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}))
	w.t.Cleanup(c.Close)
	return c
}

func (c *calendar) refuse(token string) { c.mu.Lock(); defer c.mu.Unlock(); c.refused = token }

func (c *calendar) count() int { c.mu.Lock(); defer c.mu.Unlock(); return c.hits }

// TestGoSDKReportsARefusedToken: the package's HTTP client is answered 401 by the provider's API: it reports the token,
// and goes on with the refreshed one; or, where the provider ended the grant, says that the user has to consent again.
func TestGoSDKReportsARefusedToken(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	w.trust()
	w.workload("calendar-agent")
	w.provider("calendar")
	agent, app := w.principal("agent", "calendar-agent", "agent"), w.principal("app", "calendar-agent", "consent-app")
	ask := w.connect(agent, app, "calendar-agent", "calendar", "alice")
	api, conf := newCalendar(w), w.config(agent)
	client, err := tabard.New(t.Context(), tabard.Config{Workload: "calendar-agent", AWS: &conf, ReturnURL: returnURL})
	if err != nil {
		t.Fatal(err)
	}
	need := tabard.OAuth2{Provider: "calendar", Scopes: ask["scopes"].([]string)}
	hc := client.HTTPClient(tabard.WithUserToken(t.Context(), w.login("alice")), need)
	get := func() (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", api.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		return hc.Do(r)
	}
	status := func() int {
		t.Helper()
		resp, err := get()
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}

	first := w.call(agent, "GetResourceOauth2Token", ask).get("accessToken")
	api.refuse(first)
	if got := status(); got != http.StatusOK || api.count() != 2 || w.idp.Count(t, "refresh_token", "ok") != 1 {
		t.Fatalf("got %d after %d requests and %d refreshes", got, api.count(), w.idp.Count(t, "refresh_token", "ok"))
	}
	// It was refreshed just now: another report brings nothing, and the 401 is the API's last word.
	api.refuse(w.call(agent, "GetResourceOauth2Token", ask).get("accessToken"))
	if got := status(); got != http.StatusUnauthorized || w.idp.Count(t, "refresh_token", "ok") != 1 {
		t.Errorf("got %d after %d refreshes", got, w.idp.Count(t, "refresh_token", "ok"))
	}
	api.refuse("")
	w.ahead.Add(int64(31 * time.Second))
	if w.idp.EndGrants(t, "alice") == 0 {
		t.Fatal("the provider ended no grant")
	}
	before := api.count()
	_, err = get()
	if consent, ok := errors.AsType[*tabard.ConsentRequiredError](err); !ok || consent.URL == "" || api.count() != before+1 {
		t.Errorf("after the provider ended the grant: got %v after %d requests", err, api.count()-before)
	}
}
