package e2e_test

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// grantor is a provider that says yes to everything at once, and whose tokens can be told from one another: each is issued
// once. What the parameter label of the authorization request says is in it.
type grantor struct {
	url string

	silent atomic.Bool // it does not name the scopes that it grants

	mu    sync.Mutex            // guards codes
	codes map[string]url.Values // the authorization request, by the code that answered it
}

func newGrantor(t *testing.T) *grantor {
	t.Helper()
	g := &grantor{codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		sayJSON(w, map[string]any{
			"issuer": g.url, "authorization_endpoint": g.url + "/authorize", "token_endpoint": g.url + "/token", "jwks_uri": g.url + "/jwks",
			"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"},
		})
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		q, code := r.URL.Query(), rand.Text()
		g.mu.Lock()
		g.codes[code] = q
		g.mu.Unlock()
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", g.token)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	g.url = server.URL
	return g
}

func sayJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// token redeems each code once. Nothing that it gives can be refreshed.
func (g *grantor) token(w http.ResponseWriter, r *http.Request) {
	answer := map[string]any{"token_type": "Bearer", "expires_in": 7 * 24 * 3600}
	if r.PostFormValue("grant_type") == "client_credentials" {
		answer["access_token"], answer["scope"] = "machine-"+rand.Text(), r.PostFormValue("scope")
		if g.silent.Load() {
			delete(answer, "scope")
		}
		sayJSON(w, answer)
		return
	}
	code := r.PostFormValue("code")
	g.mu.Lock()
	q, ok := g.codes[code]
	delete(g.codes, code)
	g.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		sayJSON(w, map[string]any{"error": "invalid_grant"})
		return
	}
	answer["access_token"], answer["scope"] = q.Get("label")+"-"+rand.Text(), q.Get("scope")
	sayJSON(w, answer)
}

// consents is a browser whose user says yes: it goes from the authorization URL to the application and no further.
func (g *grantor) consents(t *testing.T, link string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Transport: matrixTransport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), returnURL) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if end := resp.Header.Get("Location"); !strings.HasPrefix(end, returnURL) {
		t.Fatalf("the browser ended at %s with %d", resp.Request.URL, resp.StatusCode)
	}
}
