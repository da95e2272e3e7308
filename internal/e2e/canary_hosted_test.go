package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
)

// entrance is an issuer that the test is: it signs in whoever User names, and tells the hunt every secret of a sign-in,
// those that no browser sees among them.
type entrance struct {
	*httptest.Server
	h   *hunt
	key *ecdsa.PrivateKey

	User   string
	Nonce  string           // in the ID token in place of the one asked for, if set
	Answer http.HandlerFunc // in place of the next answer to a token request, if set

	mu     sync.Mutex        // guards nonces
	nonces map[string]string // by code
}

const loginClient = "tabard-login"

func newEntrance(h *hunt) *entrance {
	e := &entrance{h: h, User: h.alice, nonces: map[string]string{}}
	var err error
	if e.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		h.t.Fatal(err)
	}
	mux := http.NewServeMux()
	e.Server = httptest.NewServer(mux)
	h.t.Cleanup(e.Close)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": e.URL, "authorization_endpoint": e.URL + "/login", "token_endpoint": e.URL + "/token", "jwks_uri": e.URL + "/keys",
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(jwstest.Set(h.t, jwstest.Key(h.t, "ec", &e.key.PublicKey, nil)))
	})
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		q, code := r.URL.Query(), rand.Text()
		e.mu.Lock()
		e.nonces[code] = q.Get("nonce")
		e.mu.Unlock()
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusSeeOther)
	})
	mux.HandleFunc("POST /token", e.token)
	return e
}

func (e *entrance) token(w http.ResponseWriter, r *http.Request) {
	if answer := e.Answer; answer != nil {
		e.Answer = nil
		answer(w, r)
		return
	}
	e.mu.Lock()
	nonce, ok := e.nonces[r.PostFormValue("code")]
	delete(e.nonces, r.PostFormValue("code"))
	e.mu.Unlock()
	if !ok {
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	e.h.know(e.h.t, "sign-in verifier", r.PostFormValue("code_verifier"))
	if e.Nonce != "" {
		nonce = e.Nonce
	}
	access := rand.Text()
	e.h.know(e.h.t, "sign-in access token", access)
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": access, "token_type": "Bearer", "id_token": e.sign(e.User, loginClient, nonce)})
}

// sign makes a token of the user. Its signature is a canary, and its subject is one already.
func (e *entrance) sign(user, audience, nonce string) string {
	now := time.Now().Add(time.Duration(e.h.ahead.Load()))
	claims := map[string]any{"iss": e.URL, "sub": user, "aud": audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	jwt := jwstest.Sign(e.h.t, "ES256", map[string]any{"kid": "ec"}, claims, e.key)
	e.h.know(e.h.t, "sign-in ID token", signatureOf(jwt))
	return jwt
}

// hostedConsents is consent for an agent without an application: the good way, and every way in which it ends
// otherwise.
func (h *hunt) hostedConsents() {
	e := newEntrance(h)
	h.tell(root(), "CreateTrustedIssuer", map[string]any{"issuer": e.URL, "audiences": []string{"cli"}})
	clientSecret := rand.Text()
	h.know(h.t, "client secret", clientSecret)
	h.tell(root(), "SetIssuerLogin", map[string]any{"issuer": e.URL, "clientId": loginClient, "clientSecret": clientSecret})
	ask, address := h.openHosted(e)
	b := peer.NewBrowser(h.alice)
	answer := h.answerOf(h.walk(b, address), "allow")
	h.adminPages() // a session is open, and its browser signed in
	h.ends("the good way", h.decides(b, answer), "Connected")
	if h.tell(h.agent, "GetResourceOauth2Token", ask).get("accessToken") == "" {
		h.t.Error("no token after hosted consent")
	}
	h.ends("the form again", h.decides(b, answer), "This cannot go on") // its cookie is gone
	for _, visited := range b.Trail {
		if strings.Contains(visited, "/hosted/callback/") {
			page(h.t, "GET", visited) // in another browser
			page(h.t, "HEAD", visited)
			page(h.t, "GET", visited+"&code=twice")
			h.ends("the sign-in again", b.Walk(h.t, visited, ""), "Another browser began this") // likewise
		}
	}

	h.hostedRefusals(e)
}

// openHosted begins a session of alice's with hosted consent.
func (h *hunt) openHosted(e *entrance) (ask map[string]any, address string) {
	h.t.Helper()
	ask = h.ask(h.mint(e.sign(h.alice, "cli", "")))
	ask["resourceOauth2ReturnUrl"], ask["forceAuthentication"] = h.front.URL+"/identities/hosted/done", true
	first := h.tell(h.agent, "GetResourceOauth2Token", ask)
	delete(ask, "forceAuthentication")
	ask["sessionUri"] = first.get("sessionUri")
	return ask, first.get("authorizationUrl")
}

// ends wants a page by its title.
func (h *hunt) ends(what string, p peer.Page, title string) {
	h.t.Helper()
	if !strings.Contains(p.Body, "<h1>"+title+"</h1>") {
		h.t.Errorf("%s ended at %s with %d\n%s", what, p.URL, p.Status, p.Body)
	}
}

// hostedRefusals are sign-ins, forms and users that are turned away.
func (h *hunt) hostedRefusals(e *entrance) {
	// Sign-ins that fail, one after the other on the same link.
	_, address := h.openHosted(e)
	for _, refuse := range []http.HandlerFunc{echo(http.StatusBadRequest, "invalid_grant"), echo(http.StatusServiceUnavailable, "temporarily_unavailable"), echoHTML(http.StatusOK), half} {
		e.Answer = refuse
		if p := h.walk(peer.NewBrowser(h.alice), address); p.Status/100 < 4 {
			h.t.Errorf("a sign-in that fails ended with %d\n%s", p.Status, p.Body)
		}
	}
	e.Nonce = rand.Text()
	h.ends("another nonce", h.walk(peer.NewBrowser(h.alice), address), "You are not signed in")
	e.Nonce = ""

	// A form that others send, and a user who says no.
	b := peer.NewBrowser(h.alice)
	answer := h.answerOf(h.walk(b, address), "deny")
	foreign := url.Values{"request_uri": answer["request_uri"], "answer": {"allow"}, "token": {strings.Repeat("0", 64)}}
	h.ends("a made-up form token", h.decides(b, foreign), "This cannot go on")
	h.ends("another browser", h.decides(peer.NewBrowser(h.bob), answer), "This cannot go on")
	h.ends("no", h.decides(b, answer), "You said no")

	// Somebody else opens the link.
	_, address = h.openHosted(e)
	e.User = h.bob
	h.ends("bob", h.walk(peer.NewBrowser(h.bob), address), "This link is somebody else&#39;s")
}

// answerOf is what the consent page sends. Its token stands for the browser's session.
func (h *hunt) answerOf(p peer.Page, answer string) url.Values {
	h.t.Helper()
	values := form(h.t, p, answer)
	h.know(h.t, "form token", values.Get("token"))
	return values
}

func (h *hunt) decides(b *peer.Browser, values url.Values) peer.Page {
	h.t.Helper()
	end := b.Submit(h.t, h.front.URL+"/identities/hosted/decide", values, "")
	h.learnTrail(b)
	return end
}

// hostedAllowed says which kinds belong into what hosted consent gives a browser: the consent page names its session
// and the user, and has the form's token. It is nil for other pages.
func hostedAllowed(x exchange) []string {
	if x.status == http.StatusOK && strings.HasSuffix(x.request.URL.Path, "/authorize") {
		return []string{"session", "form token", "subject"}
	}
	return nil
}

// hostedKinds are the kinds of secret that hosted consent alone brings.
func hostedKinds() []string {
	return []string{"nonce", "form token", "sign-in verifier", "sign-in ID token", "sign-in access token"}
}
