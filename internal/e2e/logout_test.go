package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// sessionIn is the claim sid of a JWT.
func sessionIn(t *testing.T, jwt string) string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(jwt, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ Sid string }
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims.Sid
}

// A35: a real issuer tells of logouts, and tokens are dead within two seconds on every replica.
func TestA35_ARealIssuerTellsOfLogouts(t *testing.T) {
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			db := daemon.SQLite
			if engine == "postgres" {
				db = peer.Postgres(t)
			}
			w := newWorld(t, db)
			replicas := []*world{w}
			if engine == "postgres" {
				replicas = append(replicas, w.replica())
			}
			w.workload("agent")
			agent := w.principal("agent", "agent", "agent")
			created := w.must("CreateTrustedIssuer", map[string]any{"issuer": w.idp.Issuer, "audiences": []string{appClient, "plain"}, "backchannelLogout": true})
			uri, _ := created["trustedIssuer"].(map[string]any)["backchannelLogoutUri"].(string)
			w.idp.Register(t, peer.Client{ID: appClient, Secret: "app-secret", RedirectURIs: []string{"http://127.0.0.1:1/callback"}, LogoutURI: uri, LogoutSession: true})
			w.idp.Register(t, peer.Client{ID: "plain", Secret: "plain-secret", RedirectURIs: []string{"http://127.0.0.1:1/callback"}, LogoutURI: uri})

			phone, desk := w.login("alice"), w.login("alice")
			plain, bob := w.idp.Login(t, "plain", "alice").ID, w.login("bob")
			if sessionIn(t, phone) == "" || sessionIn(t, phone) == sessionIn(t, desk) || sessionIn(t, plain) != "" {
				t.Fatal("the ID tokens do not name two sessions and none")
			}
			wats := map[string]string{}
			for name, jwt := range map[string]string{"phone": phone, "desk": desk, "plain": plain, "bob": bob} {
				wats[name] = w.wat(agent, "agent", jwt)
			}
			status := func(at *world, name string) int {
				return at.form(agent, "/oauth2/token", exchanging(wats[name], reports)).status
			}
			for name := range wats {
				for i, at := range replicas {
					if got := status(at, name); got != http.StatusOK {
						t.Fatalf("%s at replica %d: %d before any logout", name, i, got)
					}
				}
			}
			ended := func(what string, dead, alive []string) {
				t.Helper()
				for i, at := range replicas {
					for _, name := range dead {
						if !eventually(2*time.Second, func() bool { return status(at, name) == http.StatusBadRequest }) {
							t.Errorf("%s: the token of %s lives at replica %d", what, name, i)
						}
					}
					for _, name := range alive {
						if got := status(at, name); got != http.StatusOK {
							t.Errorf("%s: the token of %s is dead at replica %d: %d", what, name, i, got)
						}
					}
				}
			}
			mint := func(at *world, jwt string) int {
				return at.post(agent, "GetWorkloadAccessTokenForJWT", encode(t, map[string]string{"workloadName": "agent", "userToken": jwt})).status
			}
			w.idp.Logout(t, appClient, "alice", sessionIn(t, phone))
			ended("the phone signed out", []string{"phone", "plain"}, []string{"desk", "bob"})
			for i, at := range replicas {
				if mint(at, phone) != http.StatusUnauthorized || mint(at, plain) != http.StatusUnauthorized || mint(at, desk) != http.StatusOK {
					t.Errorf("replica %d mints with a token of the session that ended, or not with one of another", i)
				}
			}
			w.idp.Logout(t, "plain", "alice", "")
			ended("alice was signed out everywhere", []string{"phone", "desk", "plain"}, []string{"bob"})
			time.Sleep(1100 * time.Millisecond) // iat has whole seconds
			if again := w.login("alice"); mint(w, again) != http.StatusOK {
				t.Error("a new sign-in is refused")
			}
			if n := len(w.must("ListAuditRecords", map[string]any{"operation": "BackchannelLogout"})["records"].([]any)); n != 2 {
				t.Errorf("the trail has %d logouts, want 2", n)
			}
		})
	}
}

// A35: what is answered at the address for logout tokens, as the specification says and to nobody more.
func TestA35_AnswersToLogoutTokens(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	created := w.must("CreateTrustedIssuer", map[string]any{"issuer": w.idp.Issuer, "audiences": []string{appClient}, "backchannelLogout": true})
	uri := created["trustedIssuer"].(map[string]any)["backchannelLogoutUri"].(string)
	const form = "application/x-www-form-urlencoded"
	token := url.Values{"logout_token": {w.login("alice")}}.Encode() // an ID token
	for name, c := range map[string]struct {
		method, uri, kind, body string
		status                  int
	}{
		"a token that is none":    {http.MethodPost, uri, form, token, http.StatusBadRequest},
		"no token":                {http.MethodPost, uri, form, "x=y", http.StatusBadRequest},
		"two tokens":              {http.MethodPost, uri, form, token + "&" + token, http.StatusBadRequest},
		"JSON":                    {http.MethodPost, uri, "application/json", `{"logout_token":"a"}`, http.StatusBadRequest},
		"in the URL":              {http.MethodPost, uri + "?" + token, form, "", http.StatusBadRequest},
		"a GET":                   {http.MethodGet, uri, form, "", http.StatusMethodNotAllowed},
		"too large":               {http.MethodPost, uri, form, "logout_token=" + strings.Repeat("a", 65<<10), http.StatusRequestEntityTooLarge},
		"an issuer nobody knows":  {http.MethodPost, uri + "0", form, token, http.StatusBadRequest},
		"an account nobody knows": {http.MethodPost, strings.Replace(uri, "000000000000", "999999999999", 1), form, token, http.StatusNotFound},
		"no account":              {http.MethodPost, strings.Replace(uri, "000000000000", "x", 1), form, token, http.StatusNotFound},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, c.uri, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", c.kind)
		got := do(t, r)
		if got.status != c.status || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d %q %s, want %d and no-store", name, got.status, got.header.Get("Cache-Control"), got.body, c.status)
		}
		if c.status == http.StatusBadRequest && !strings.Contains(got.body, `"error":"invalid_request"`) {
			t.Errorf("%s: got %s, want invalid_request", name, got.body)
		}
	}
	if strings.Contains(w.logs.String(), token[len("logout_token="):][:80]) {
		t.Error("the log has the token")
	}
}
