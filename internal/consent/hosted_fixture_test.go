package consent_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

const hostedPolicy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self' http: https:; frame-ancestors 'none'"

// idp signs users in: whoever User names, without asking. A test bends the ID token with Change.
type idp struct {
	*httptest.Server
	t   testing.TB
	key *ecdsa.PrivateKey
	kid string
	now func() time.Time

	Path     string // of the issuer, behind the server's address
	User     string
	Redirect string         // the redirect URI that is registered for the client
	Move     map[string]any // members of the metadata that are other than they were
	Promises bool           // to name the issuer in its answers (RFC 9207 §3)
	Change   func(claims map[string]any)

	mu    sync.Mutex
	codes map[string]url.Values // what each code was asked with
}

func newIDP(t testing.TB, now func() time.Time) *idp {
	p := &idp{t: t, now: now, kid: "ec", User: "alice", codes: map[string]url.Values{}}
	var err error
	p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	mux := http.NewServeMux()
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	discovery := func(w http.ResponseWriter, _ *http.Request) {
		doc := map[string]any{
			"issuer": p.issuer(), "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": p.Promises,
		}
		maps.Copy(doc, p.Move)
		_ = json.NewEncoder(w).Encode(doc)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", discovery)
	mux.HandleFunc("GET /{realm}/.well-known/openid-configuration", discovery)
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(jwstest.Set(t, jwstest.Key(t, p.kid, &p.key.PublicKey, nil)))
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		q := r.URL.Query()
		if p.Redirect != "" && (q.Get("redirect_uri") != p.Redirect || q.Get("client_id") != "login") {
			http.Error(w, "this redirect URI is not registered", http.StatusBadRequest)
			return
		}
		code := fmt.Sprintf("code-%d", len(p.codes))
		p.codes[code] = q
		to := q.Get("redirect_uri") + "?" + url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
		http.Redirect(w, r, to, http.StatusSeeOther)
	})
	mux.HandleFunc("POST /token", p.token)
	return p
}

func (p *idp) issuer() string { return p.URL + p.Path }

func (p *idp) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	asked, ok := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	p.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	if !ok || id != "login" || secret != "login-secret" || r.PostFormValue("code_verifier") == "" || asked.Get("nonce") == "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
		return
	}
	claims := p.claims(p.User, "login")
	claims["nonce"] = asked.Get("nonce")
	if p.Change != nil {
		p.Change(claims)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "unused", "token_type": "Bearer", "id_token": p.sign(claims)})
}

func (p *idp) claims(user, aud string) map[string]any {
	return map[string]any{"iss": p.issuer(), "sub": user, "aud": aud, "iat": p.now().Unix(), "exp": p.now().Add(time.Hour).Unix()}
}

func (p *idp) sign(claims map[string]any) string {
	return jwstest.Sign(p.t, "ES256", map[string]any{"kid": p.kid}, claims, p.key)
}

// hosted is a world whose user alice is known by a token of an issuer with a login client.
type hosted struct {
	*world
	idp *idp
}

func newHosted(t testing.TB, secure bool) *hosted { return newHostedFor(t, secure, "alice", "") }

// newHostedFor is newHosted for another user, of an issuer with a path.
func newHostedFor(t testing.TB, secure bool, user, path string) *hosted {
	t.Helper()
	w := newWorld(t, secure)
	h := &hosted{world: w, idp: newIDP(t, w.clock.now)}
	h.idp.User, h.idp.Path = user, path
	_, err := w.people.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: h.idp.issuer(), Audiences: []string{"app"}})
	must(t, err)
	must(t, w.people.SetIssuerLogin(t.Context(), w.root, identity.NewLogin{Issuer: h.idp.issuer(), ClientID: "login", Secret: secret.New("login-secret")}))
	h.idp.Redirect = h.broker.LoginRedirectURI(account, h.idp.issuer())
	m, err := w.people.MintTokenForJWT(t.Context(), w.root, "agent-a", secret.New(h.idp.sign(h.idp.claims(user, "app"))))
	must(t, err)
	w.token = m.Token
	return h
}

func (h *hosted) request(scopes ...string) broker.Request {
	return broker.Request{
		Token: h.token, Provider: "cal", Flow: broker.FlowUserFederation, Scopes: scopes, ReturnURL: h.broker.HostedReturnURL(), Force: true,
	}
}

func (h *hosted) begin(scopes ...string) (session, address string) {
	h.t.Helper()
	out, err := h.broker.Token(h.t.Context(), h.root, h.request(scopes...))
	must(h.t, err)
	return out.Session, out.AuthorizationURL.Expose()
}

// poll asks for the token of a session.
func (h *hosted) poll(session string) (token string, err error) {
	h.t.Helper()
	r := h.request()
	r.Session, r.Force = session, false
	out, err := h.broker.Token(h.t.Context(), h.root, r)
	return out.AccessToken.Expose(), err
}

// signIn opens an address and goes through the issuer: it returns the callback's address and the sign-in's cookie.
func (h *hosted) signIn(address string) (callback *url.URL, cookie *http.Cookie) {
	h.t.Helper()
	return h.visit(address)
}

// arrive signs in and returns the cookie of the hosted session.
func (h *hosted) arrive(address string) *http.Cookie {
	h.t.Helper()
	callback, cookie := h.signIn(address)
	p := h.get(callback.String(), cookie)
	if p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != address {
		h.t.Fatalf("the callback of the sign-in got %d to %s\n%s", p.StatusCode, p.Header.Get("Location"), p.body)
	}
	return live(h.t, p, "tabard-hosted-")
}

// formToken is what a consent page has for the browser of this session.
func formToken(cookie *http.Cookie) string {
	sum := sha256.Sum256([]byte("hosted-form-1\x00" + cookie.Value))
	return hex.EncodeToString(sum[:])
}

// trail is every audit record, as text.
func (h *hosted) trail() string {
	h.t.Helper()
	records, _, err := h.store.Store.(access.Reader).Records(h.t.Context(), account, access.Query{Limit: 1000})
	must(h.t, err)
	return fmt.Sprintf("%+v", records)
}

// live finds a cookie that an answer sets.
func live(t testing.TB, p page, prefix string) *http.Cookie {
	t.Helper()
	for _, c := range p.Cookies() {
		if strings.HasPrefix(strings.TrimPrefix(c.Name, "__Host-"), prefix) && c.MaxAge > 0 {
			return c
		}
	}
	t.Fatalf("no cookie %s in %v", prefix, p.Cookies())
	return nil
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([a-z_]+)" value="([^"]*)">`)

func answers(t testing.TB, p page, answer string) url.Values {
	t.Helper()
	if p.StatusCode != http.StatusOK || !strings.Contains(p.body, "<form ") {
		t.Fatalf("no consent page: %d\n%s", p.StatusCode, p.body)
	}
	v := url.Values{"answer": {answer}}
	for _, m := range hidden.FindAllStringSubmatch(p.body, -1) {
		v.Set(m[1], html.UnescapeString(m[2]))
	}
	return v
}

func (h *hosted) post(form url.Values, change func(*http.Request), cookies ...*http.Cookie) page {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+"/identities/hosted/decide", strings.NewReader(form.Encode()))
	must(h.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range cookies {
		r.AddCookie(c)
	}
	if change != nil {
		change(r)
	}
	resp, err := h.client.Do(r)
	must(h.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(h.t, err)
	return page{resp, string(b)}
}

// allow answers the page with yes and consents at the provider.
func (h *hosted) allow(address string, cookie *http.Cookie) (callback string, cookies []*http.Cookie) {
	h.t.Helper()
	p := h.post(answers(h.t, h.get(address, cookie), "allow"), nil, cookie)
	if p.StatusCode != http.StatusSeeOther {
		h.t.Fatalf("allow got %d\n%s", p.StatusCode, p.body)
	}
	return h.get(p.Header.Get("Location")).Header.Get("Location"), []*http.Cookie{live(h.t, p, "tabard-visit-"), live(h.t, p, "tabard-hosted-")}
}
