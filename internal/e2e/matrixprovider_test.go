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

// The paths of the grantor: each is a provider with habits of its own.
const (
	silently = "/silent" // it never names the scopes that it grants
	telling  = "/tells"  // it grants read where it is asked for nothing, and says so
	forAll   = "/suite"  // a token is for one API, and a refresh token for all
)

// grantor is a provider that says yes to everything at once, and whose tokens can be told from one another: each is
// issued once. What the parameter label of the authorization request says is in it.
type grantor struct {
	url string

	silent  atomic.Bool  // it does not name the scopes that it grants
	fetched atomic.Int64 // tokens that it was asked for without a user

	mu    sync.Mutex            // guards codes
	codes map[string]url.Values // the authorization request, by the code that answered it and the refresh token that came of it
}

func newGrantor(t *testing.T) *grantor {
	t.Helper()
	g := &grantor{codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	for _, path := range []string{"", silently, telling, forAll} {
		mux.HandleFunc("GET "+path+"/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
			sayJSON(w, map[string]any{
				"issuer": g.url + path, "authorization_endpoint": g.url + path + "/authorize", "token_endpoint": g.url + path + "/token", "jwks_uri": g.url + path + "/jwks",
				"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"},
			})
		})
		mux.HandleFunc("GET "+path+"/authorize", func(w http.ResponseWriter, r *http.Request) {
			q, code := r.URL.Query(), rand.Text()
			g.mu.Lock()
			g.codes[code] = q
			g.mu.Unlock()
			http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
		})
		mux.HandleFunc("POST "+path+"/token", func(w http.ResponseWriter, r *http.Request) { g.token(w, r, path) })
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	g.url = server.URL
	return g
}

func sayJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// token redeems each code once. With a code, only the scope offline_access brings a refresh token, which serves every
// API.
func (g *grantor) token(w http.ResponseWriter, r *http.Request, path string) {
	_ = r.ParseForm()
	kind, q := r.PostForm.Get("grant_type"), r.PostForm
	if kind != "authorization_code" {
		g.fetched.Add(1)
	}
	label, scope := "machine", r.PostForm.Get("scope")
	if kind != "client_credentials" {
		g.mu.Lock()
		q = g.codes[r.PostForm.Get("code")+r.PostForm.Get("refresh_token")]
		delete(g.codes, r.PostForm.Get("code"))
		g.mu.Unlock()
		label = q.Get("label")
	}
	if q == nil {
		w.WriteHeader(http.StatusBadRequest)
		sayJSON(w, map[string]any{"error": "invalid_grant"})
		return
	}
	if kind == "authorization_code" {
		scope = q.Get("scope")
	}
	if path == telling && scope == "" {
		scope = "read"
	}
	at := place{params: ask{params: said(q)}.naming()}
	if path == forAll {
		at.resource, _ = offer{suite: true}.resource(strings.Fields(scope))
	}
	answer := map[string]any{"token_type": "Bearer", "expires_in": 7 * 24 * 3600, "scope": scope,
		"access_token": label + strings.TrimPrefix(at.label(), "machine") + rand.Text()}
	if path == silently || g.silent.Load() && kind == "client_credentials" {
		delete(answer, "scope")
	}
	if path == forAll && kind == "authorization_code" && strings.Contains(scope, forLater) {
		refresh := "refresh-" + rand.Text()
		g.mu.Lock()
		g.codes[refresh] = q
		g.mu.Unlock()
		answer["refresh_token"] = refresh
	}
	sayJSON(w, answer)
}

// said are the custom parameters of a request that the matrix sends.
func said(q url.Values) string {
	var all []string
	for _, name := range []string{"org", "Org", "claims"} {
		if q.Has(name) {
			all = append(all, name+"="+q.Get(name))
		}
	}
	return strings.Join(all, " ")
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
