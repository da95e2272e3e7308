package consent_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// evilIDP is an issuer of sign-ins in the attacker's hands. Who is sent to it is sent on to the honest issuer, with the
// honest client, for the attacker's own visit there; it keeps what comes to its token endpoint (RFC 9700 §4.4.1).
type evilIDP struct {
	*idp
	onward func(asked url.Values) string

	mu    sync.Mutex
	forms []url.Values
}

func newEvilIDP(t testing.TB, h *hosted) *evilIDP {
	e := &evilIDP{idp: newIDP(t, h.clock.now)}
	honest := e.Config.Handler
	e.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/authorize":
			http.Redirect(w, r, e.onward(r.URL.Query()), http.StatusSeeOther)
		case "/token":
			_ = r.ParseForm()
			e.mu.Lock()
			e.forms = append(e.forms, r.PostForm)
			e.mu.Unlock()
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
		default:
			honest.ServeHTTP(w, r)
		}
	})
	return e
}

// code is what came to the token endpoint, or "".
func (e *evilIDP) code() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.forms {
		if c := f.Get("code"); c != "" {
			return c
		}
	}
	return ""
}

// lure makes the attacker's own consent session, in account, at the evil issuer.
func (h *hosted) lure(account access.Account, e *evilIDP) (address string) {
	h.t.Helper()
	ctx := h.t.Context()
	root := access.Caller{Account: account, Principal: "prn-mallory", Name: "mallory", Roles: []access.Role{access.Root}}
	_, err := h.people.CreateIssuer(ctx, root, identity.Issuer{URL: e.URL, Audiences: []string{"app"}})
	must(h.t, err)
	must(h.t, h.people.SetIssuerLogin(ctx, root, identity.NewLogin{Issuer: e.URL, ClientID: "login", Secret: secret.New("login-secret")}))
	_, err = h.people.CreateWorkload(ctx, root, identity.NewWorkload{Name: "lure"})
	must(h.t, err)
	spec := h.spec()
	spec.Name = "lure"
	_, err = h.broker.CreateProvider(ctx, root, spec)
	must(h.t, err)
	m, err := h.people.MintTokenForJWT(ctx, root, "lure", secret.New(e.sign(e.claims("mallory", "app"))))
	must(h.t, err)
	r := h.request("read")
	r.Token, r.Provider = m.Token, "lure"
	out, err := h.broker.Token(ctx, root, r)
	must(h.t, err)
	return out.AuthorizationURL.Expose()
}

// browser follows redirects and keeps cookies, as alice's does.
func browser(t testing.TB) *http.Client {
	jar, err := cookiejar.New(nil)
	must(t, err)
	return &http.Client{Jar: jar}
}

func (h *hosted) walk(b *http.Client, address string) page {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, address, nil)
	must(h.t, err)
	resp, err := b.Do(r)
	must(h.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(h.t, err)
	return page{resp, string(body)}
}

// M01: the whole chain of a mix-up. Mallory has the link of alice's consent session and opens it: the honest issuer is
// to answer to mallory's browser. Alice, who is signed in at the honest issuer, opens mallory's link, whose issuer
// sends her on to the honest one, for mallory's visit. The honest issuer names itself in no answer. If alice's code
// comes to mallory's token endpoint, mallory redeems it in a browser that is then alice.
func TestM01_MixUpOfIssuers(t *testing.T) {
	for where, account := range map[string]access.Account{"one account": account, "two accounts": "111111111111"} {
		for name, redirect := range map[string]func(h *hosted, asked url.Values) string{
			"to the honest client's own callback": func(h *hosted, _ url.Values) string { return h.idp.Redirect },
			"to the callback that was asked for":  func(_ *hosted, asked url.Values) string { return asked.Get("redirect_uri") },
		} {
			t.Run(where+", "+name, func(t *testing.T) {
				h := newHosted(t, false)
				_, victim := h.begin("read")
				p := h.get(victim)
				cookie := p.Cookies()[0]
				there, err := url.Parse(p.Header.Get("Location"))
				must(t, err)
				evil := newEvilIDP(t, h)
				var asked url.Values
				evil.onward = func(q url.Values) string {
					asked = q
					return with(there, func(v url.Values) {
						v.Set("state", q.Get("state"))
						v.Set("redirect_uri", redirect(h, q))
					})
				}
				end := h.walk(browser(t), h.lure(account, evil))
				if asked == nil {
					t.Fatal("alice was not sent to the evil issuer")
				}
				if asked.Get("redirect_uri") == h.idp.Redirect {
					t.Error("two issuers have one redirect URI")
				}
				code := evil.code()
				if code != "" || strings.Contains(end.body, "code-") {
					t.Errorf("alice's code came to the evil issuer's token endpoint (%q) or onto the page:\n%s", code, end.body)
				}
				replay := h.idp.Redirect + "?" + url.Values{"code": {code}, "state": {there.Query().Get("state")}}.Encode()
				if p := h.get(replay, cookie); p.StatusCode == http.StatusSeeOther {
					t.Error("mallory's browser has alice's session")
				}
			})
		}
	}
}

// M01: an answer at another issuer's callback is refused before its code or its words are used, and recorded; the
// consent session goes on. The path that all issuers once shared leads nowhere.
func TestM01_CallbackOfAnotherIssuer(t *testing.T) {
	h := newHosted(t, false)
	_, address := h.begin("read")
	for name, other := range map[string]string{
		"another issuer":  h.broker.LoginRedirectURI(account, h.idp.URL+"/"),
		"another account": h.broker.LoginRedirectURI("111111111111", h.idp.URL),
		"a made-up one":   h.url + "/identities/hosted/callback/x",
	} {
		if other == h.idp.Redirect {
			t.Fatalf("%s: the redirect URI is the same", name)
		}
		for _, change := range []func(url.Values){func(url.Values) {}, deny("the-evil-words")} {
			callback, cookie := h.signIn(address)
			p := h.get(other+"?"+mustParse(t, with(callback, change)).RawQuery, cookie)
			h.wantPage(name, p, 403, "The answer came from the wrong place")
			if strings.Contains(p.body, "evil-words") || strings.Contains(p.body, "access_denied") || len(p.Cookies()) != 0 {
				t.Errorf("%s: got %v and\n%s", name, p.Cookies(), p.body)
			}
		}
	}
	callback, cookie := h.signIn(address)
	if n := h.idp.waiting(); n != 7 {
		t.Errorf("%d codes wait at the issuer, want 7: one was redeemed", n)
	}
	if p := h.get(h.url+"/identities/hosted/callback?"+callback.RawQuery, cookie); p.StatusCode != http.StatusNotFound {
		t.Errorf("the common path got %d\n%s", p.StatusCode, p.body)
	}
	if trail := h.trail(); !strings.Contains(trail, "came to the callback URL of another issuer") {
		t.Errorf("the trail has no record of it:\n%s", trail)
	}
	if p := h.get(callback.String(), cookie); p.StatusCode != http.StatusSeeOther {
		t.Errorf("the right answer got %d\n%s", p.StatusCode, p.body)
	}
}

// C09 and M01, RFC 9207 §2.4: an issuer that is named must be the right one, and must be named where it was promised.
func TestC09_IssuerOfASignIn(t *testing.T) {
	for _, promised := range []bool{false, true} {
		h := newHosted(t, false)
		h.idp.Promises = promised
		h.clock.add(11 * time.Minute) // past the metadata's time in the cache
		_, address := h.begin("read")
		for name, c := range map[string]struct {
			iss []string
			ok  bool
		}{
			"none": {nil, !promised}, "right": {[]string{h.idp.URL}, true}, "wrong": {[]string{"https://evil.example"}, false},
			"empty": {[]string{""}, false}, "with a slash": {[]string{h.idp.URL + "/"}, false},
		} {
			callback, cookie := h.signIn(address)
			p := h.get(with(callback, func(q url.Values) { q["iss"] = c.iss }), cookie)
			if c.ok {
				if p.StatusCode != http.StatusSeeOther {
					t.Errorf("promised %v, %s: got %d\n%s", promised, name, p.StatusCode, p.body)
				}
				continue
			}
			h.wantPage(name, p, 403, "The answer came from the wrong place")
		}
	}
}

// waiting is how many codes were not redeemed.
func (p *idp) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.codes)
}

func mustParse(t testing.TB, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	return u
}
