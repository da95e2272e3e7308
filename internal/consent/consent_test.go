package consent_test

import (
	"encoding/json"
	"errors"
	"html"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

func TestWalk(t *testing.T) {
	w := newWorld(t, false)
	session, address := w.session()
	if !strings.HasPrefix(address, w.url+"/identities/oauth2/authorize?request_uri=") {
		t.Fatalf("got authorization URL %s", address)
	}
	callback, cookie := w.visit(address)
	if !strings.HasPrefix(callback.String(), w.url+"/identities/oauth2/callback/") {
		t.Fatalf("the provider sends the browser to %s", callback)
	}
	p := w.get(callback.String(), cookie)
	to, err := url.Parse(p.Header.Get("Location"))
	must(t, err)
	if p.StatusCode != http.StatusSeeOther || to.Host != "app.example.com" || to.Query().Get("session_id") != session || to.Query().Get("state") != "app-state" {
		t.Errorf("got %d to %s", p.StatusCode, to)
	}
	if c := p.Cookies(); len(c) != 1 || c[0].Name != cookie.Name || c[0].MaxAge >= 0 || c[0].Value != "" {
		t.Errorf("got cookies %v, want the visit's cookie removed", c)
	}
	must(t, w.complete(session, "alice"))
}

// C24: neither code nor state is in an address that leaves here, nor in a page.
func TestC24_CodeAndStateDoNotLeak(t *testing.T) {
	w := newWorld(t, false)
	_, address := w.session()
	callback, cookie := w.visit(address)
	again := w.get(callback.String())
	p := w.get(callback.String(), cookie)
	code, state := callback.Query().Get("code"), callback.Query().Get("state")
	for _, secret := range []string{code, state} {
		if to := p.Header.Get("Location"); strings.Contains(to, secret) || strings.Contains(again.body, secret) {
			t.Errorf("the code or state is in %s", to)
		}
	}
	for _, page := range []page{p, again, w.get(address), w.get(callback.String(), cookie)} {
		wantProtected(t, "answer", page)
	}
}

// G02: a log line names the route, and nothing of the query.
func TestG02_QueriesAreNotLogged(t *testing.T) {
	w := newWorld(t, false)
	session, address := w.session()
	callback, cookie := w.visit(address)
	w.get(callback.String())
	w.get(callback.String(), cookie)
	w.get(with(callback, deny("some words of the provider")), cookie)
	w.get(address + "&x=%zz")
	must(t, w.complete(session, "alice"))
	code, state, log := callback.Query().Get("code"), callback.Query().Get("state"), w.log.String()
	id := session[len(broker.SessionPrefix):]
	for _, secret := range []string{code, state, id, cookie.Value, "app-state", "words of the provider", "request_uri", "code=", callback.Path} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q in it:\n%s", secret, log)
		}
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if len(lines) != 5 {
		t.Fatalf("got %d log lines, want one a request:\n%s", len(lines), log)
	}
	var line map[string]any
	must(t, json.Unmarshal([]byte(lines[1]), &line))
	delete(line, "time")
	delete(line, "latency_ms")
	want := map[string]any{
		"level": "INFO", "msg": "request", "method": "GET", "route": "/identities/oauth2/callback/{id}", "status": 403.0, "code": "denied", "request_id": requestID,
	}
	if d := cmp.Diff(want, line); d != "" {
		t.Errorf("log line (-want +got):\n%s", d)
	}
}

// C25: a browser repeats no body after a redirect.
func TestC25_RedirectsAre303(t *testing.T) {
	w := newWorld(t, false)
	_, address := w.session()
	p := w.get(address)
	if p.StatusCode != http.StatusSeeOther {
		t.Errorf("authorize: got %d, want 303", p.StatusCode)
	}
	callback, cookie := w.visit(address)
	if p := w.get(callback.String(), cookie); p.StatusCode != http.StatusSeeOther || p.body != "" {
		t.Errorf("callback: got %d with body %q, want 303 without", p.StatusCode, p.body)
	}
}

func TestEndings(t *testing.T) {
	w := newWorld(t, false)
	begin := func() (string, *url.URL, *http.Cookie) {
		session, address := w.session()
		callback, cookie := w.visit(address)
		return session, callback, cookie
	}
	w.wantPage("unknown session", w.get(w.url+"/identities/oauth2/authorize?request_uri=urn%3Ax"), 404, "We do not know this link")
	_, callback, cookie := begin()
	w.wantPage("unknown state", w.get(with(callback, func(q url.Values) { q.Set("state", "x") }), cookie), 404, "We do not know this link")
	w.wantPage("no state", w.get(with(callback, func(q url.Values) { q.Del("state") }), cookie), 404, "We do not know this link")
	w.wantPage("no cookie", w.get(callback.String()), 403, "Another browser began this")
	w.wantPage("another cookie", w.get(callback.String(), &http.Cookie{Name: cookie.Name, Value: "x"}), 403, "Another browser began this")
	w.wantPage("mixed up", w.get(with(callback, func(q url.Values) { q.Set("iss", "https://evil.example") }), cookie), 403, "The answer came from the wrong place")
	w.wantPage("used after it", w.get(callback.String(), cookie), 409, "Already done")

	session, address := w.session()
	callback, cookie = w.visit(address)
	if p := w.get(callback.String(), cookie); p.StatusCode != http.StatusSeeOther {
		t.Fatalf("got %d: %s", p.StatusCode, p.body)
	}
	w.wantPage("same answer again", w.get(callback.String(), cookie), 409, "Already done")
	w.wantPage("link after consent", w.get(address), 409, "Already done")
	if err := w.complete(session, "bob"); fault.CodeOf(err) != fault.Denied {
		t.Errorf("another user: got %v", err)
	}
	w.wantPage("link after the session died", w.get(address), 403, "Consent was not completed")

	_, callback, cookie = begin()
	p := w.get(with(callback, deny("I'd rather not")), cookie)
	w.wantPage("declined", p, 403, "You declined")
	if !strings.Contains(p.body, "<blockquote>I&#39;d rather not</blockquote>") {
		t.Errorf("the provider's words are not shown:\n%s", p.body)
	}
	_, callback, cookie = begin()
	w.wantPage("another error", w.get(with(callback, func(q url.Values) { q.Del("code"); q.Set("error", "server_error") }), cookie), 403, "Consent was not completed")
	_, callback, cookie = begin()
	w.wantPage("neither code nor error", w.get(with(callback, func(q url.Values) { q.Del("code") }), cookie), 403, "Consent was not completed")
	_, callback, cookie = begin()
	w.wantPage("another provider's callback", w.get(strings.Replace(callback.String(), callback.Path, "/identities/oauth2/callback/other", 1), cookie), 403, "The answer came from the wrong place")

	_, address = w.session()
	callback, cookie = w.visit(address)
	w.clock.add(broker.SessionLifetime)
	w.wantPage("link after ten minutes", w.get(address), 410, "This link has expired")
	w.wantPage("answer after ten minutes", w.get(callback.String(), cookie), 410, "This link has expired")
}

// What is not the user's doing is not called so, and nothing of our inside is shown.
func TestFaultsOfOthers(t *testing.T) {
	w := newWorld(t, false)
	_, address := w.session()
	w.provider.Queue(oauthtest.Metadata, oauthtest.Status(http.StatusInternalServerError, "x"))
	w.wantPage("provider down", w.get(address), 503, "Not possible right now")
	w.clock.add(time.Minute)
	w.provider.SetMetadata("code_challenge_methods_supported", []string{"plain"})
	w.wantPage("provider without S256", w.get(address), 502, "The provider cannot be used")
	w.provider.SetMetadata("code_challenge_methods_supported", nil)

	w.clock.add(time.Hour)
	_, address = renew(w)
	w.visit(address) // pins the token endpoint
	w.provider.SetMetadata("token_endpoint", "http://127.0.0.1:9/token")
	w.clock.add(time.Hour)
	_, address = renew(w)
	w.wantPage("token endpoint moved", w.get(address), 502, "The provider has moved")

	w.store.err = errors.New("pq: password of tabard@db.internal is hunter2")
	p := w.get(address)
	w.wantPage("a fault of ours", p, 500, "Something went wrong here")
	if strings.Contains(p.body, "hunter2") || strings.Contains(p.body, "db.internal") {
		t.Errorf("the page shows what is inside:\n%s", p.body)
	}
	if !strings.Contains(w.log.String(), "db.internal") || !strings.Contains(p.body, requestID) {
		t.Error("the log has not the cause, or the page not the reference that leads to it")
	}
	w.store.err = fault.Wrap(fault.Unavailable, errors.New("dsn"), "the store does not answer")
	w.wantPage("store down", w.get(address), 503, "Not possible right now")
}

// renew mints a new workload access token, after the old one ended, and begins a session.
func renew(w *world) (string, string) {
	w.t.Helper()
	m, err := w.people.MintTokenForUserID(w.t.Context(), w.root, "agent-a", "alice")
	must(w.t, err)
	w.token = m.Token
	return w.session()
}

// What a provider says (threat C20) is foreign text. It is bounded, printable, and shown as text.
func TestProvidersWordsAreText(t *testing.T) {
	w := newWorld(t, false)
	for _, words := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</blockquote><h1>Your password please</h1>`, `{{.Ref}}`,
		"a\x00b\r\nSet-Cookie: x=1", "\u202egnp.exe", "javascript:alert(1)", `&lt;script&gt;`, strings.Repeat("x", 5000),
	} {
		_, address := w.session()
		callback, cookie := w.visit(address)
		p := w.get(with(callback, deny(words)), cookie)
		w.wantPage(words, p, 403, "You declined")
		_, shown, _ := strings.Cut(p.body, "<blockquote>")
		shown, _, _ = strings.Cut(shown, "</blockquote>")
		if strings.ContainsAny(shown, "<>\"\x00\r\n\u202e") || len(html.UnescapeString(shown)) > 200 {
			t.Errorf("%.40q is shown as %.300q", words, shown)
		}
		if strings.Count(p.body, "<h1>") != 1 || strings.Contains(p.body, "<script") || strings.Contains(p.body, "<img") || len(p.Cookies()) != 0 {
			t.Errorf("%.40q changes the page:\n%s", words, p.body)
		}
	}
	// In an error of another kind, too; and a mixed-up answer's words are not shown at all.
	_, address := w.session()
	callback, cookie := w.visit(address)
	p := w.get(with(callback, func(q url.Values) {
		deny("call +1 555 0100")(q)
		q.Set("iss", "https://evil.example")
	}), cookie)
	w.wantPage("mixed up", p, 403, "The answer came from the wrong place")
	if strings.Contains(p.body, "555") || strings.Contains(p.body, "evil") {
		t.Errorf("shows the words of the wrong provider:\n%s", p.body)
	}
	_, address = w.session()
	callback, cookie = w.visit(address)
	p = w.get(with(callback, func(q url.Values) { q.Del("code"); q.Set("error", "<b>x</b>"); q.Set("error_description", "<i>y</i>") }), cookie)
	if strings.Contains(p.body, "<b>x") || strings.Contains(p.body, "<i>y") {
		t.Errorf("the error code is not escaped:\n%s", p.body)
	}
}

// C30: a parameter that is given twice is not chosen from.
func TestC30_RepeatedParameters(t *testing.T) {
	w := newWorld(t, false)
	session, address := w.session()
	w.wantPage("two sessions", w.get(address+"&request_uri=x"), 400, "This address is not complete")
	callback, cookie := w.visit(address)
	for _, name := range []string{"code", "state", "iss", "error", "error_description"} {
		for _, value := range []string{"", "x", callback.Query().Get(name)} {
			p := w.get(with(callback, func(q url.Values) {
				q.Add(name, value)
				if len(q[name]) == 1 {
					q.Add(name, value)
				}
			}), cookie)
			w.wantPage(name, p, 400, "This address is not complete")
			if !strings.Contains(p.body, "repeats the parameter "+name) {
				t.Errorf("%s: got %s", name, p.body)
			}
		}
	}
	if p := w.get(callback.String(), cookie); p.StatusCode != http.StatusSeeOther { // none of them spent the state
		t.Errorf("got %d: %s", p.StatusCode, p.body)
	}
	must(t, w.complete(session, "alice"))
}

func TestMalformedQueries(t *testing.T) {
	w := newWorld(t, false)
	_, address := w.session()
	callback, cookie := w.visit(address)
	base := w.url + "/identities/oauth2/"
	for name, u := range map[string]string{
		"no query":            base + "authorize",
		"empty session":       base + "authorize?request_uri=",
		"long session":        base + "authorize?request_uri=" + strings.Repeat("x", 1025),
		"bad escape":          callback.String() + "&x=%zz",
		"semicolon":           callback.String() + ";x=1",
		"query of 17 KiB":     callback.String() + "&x=" + strings.Repeat("y", 17<<10),
		"session, bad escape": base + "authorize?request_uri=%zz",
	} {
		w.wantPage(name, w.get(u, cookie), 400, "This address is not complete")
	}
	if p := w.get(base + "nothing"); p.StatusCode != http.StatusNotFound {
		t.Errorf("another path: got %d", p.StatusCode)
	}
	if p := w.get(callback.String(), cookie); p.StatusCode != http.StatusSeeOther {
		t.Errorf("got %d: %s", p.StatusCode, p.body)
	}
}

// Link previews and prefetching begin nothing and end nothing.
func TestHeadIsHarmless(t *testing.T) {
	w := newWorld(t, false)
	session, address := w.session()
	callback, cookie := w.visit(address)
	for range 60 { // more than there may be visits
		for _, u := range []string{address, callback.String(), with(callback, deny("no"))} {
			p := w.do(http.MethodHead, u, cookie)
			if p.StatusCode != http.StatusOK || len(p.Cookies()) != 0 || p.Header.Get("Location") != "" {
				t.Fatalf("HEAD: got %d, cookies %v, Location %q", p.StatusCode, p.Cookies(), p.Header.Get("Location"))
			}
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		if p := w.do(method, callback.String(), cookie); p.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %d, want 405", method, p.StatusCode)
		}
	}
	if p := w.get(callback.String(), cookie); p.StatusCode != http.StatusSeeOther {
		t.Errorf("got %d: %s", p.StatusCode, p.body)
	}
	must(t, w.complete(session, "alice"))
}

func TestCookies(t *testing.T) {
	for _, secure := range []bool{false, true} {
		w := newWorld(t, secure)
		_, address := w.session()
		first, second := w.get(address).Cookies()[0], w.get(address).Cookies()[0]
		if first.Name == second.Name || first.Value == second.Value || len(first.Value) != 43 {
			t.Errorf("secure %v: two visits share a cookie, or one has fewer than 256 bits", secure)
		}
		if first.Path != "/" || first.Domain != "" || !first.HttpOnly || first.SameSite != http.SameSiteLaxMode || first.Secure != secure || first.MaxAge != 600 {
			t.Errorf("secure %v: got %s", secure, first)
		}
		if strings.HasPrefix(first.Name, "__Host-") != secure {
			t.Errorf("secure %v: got name %s", secure, first.Name)
		}
		callback, cookie := w.visit(address)
		if secure { // a cookie that a plain page could have set is not the visit's
			bare := &http.Cookie{Name: strings.TrimPrefix(cookie.Name, "__Host-"), Value: cookie.Value}
			w.wantPage("cookie without the prefix", w.get(callback.String(), bare), 403, "Another browser began this")
		}
		if p := w.get(callback.String(), cookie); p.StatusCode != http.StatusSeeOther || p.Cookies()[0].Secure != secure || p.Cookies()[0].Path != "/" {
			t.Errorf("secure %v: got %d, %v", secure, p.StatusCode, p.Cookies())
		}
	}
}

func TestStyle(t *testing.T) {
	w := newWorld(t, false)
	p := w.get(w.url + "/identities/oauth2/style.css")
	if p.StatusCode != http.StatusOK || p.Header.Get("Content-Type") != "text/css; charset=utf-8" || p.Header.Get("X-Content-Type-Options") != "nosniff" || len(p.body) < 100 {
		t.Errorf("got %d, %q, %d bytes", p.StatusCode, p.Header.Get("Content-Type"), len(p.body))
	}
	if strings.Contains(p.body, "url(") || strings.Contains(p.body, "@import") {
		t.Error("the style loads something else")
	}
}

// The whole page, as a reviewer sees it: UPDATE=1 go test writes it anew.
func TestPage(t *testing.T) {
	const golden = "testdata/declined.html"
	w := newWorld(t, false)
	_, address := w.session()
	callback, cookie := w.visit(address)
	p := w.get(with(callback, deny("The user & the admin said <no>")), cookie)
	if os.Getenv("UPDATE") != "" {
		must(t, os.WriteFile(golden, []byte(p.body), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if d := cmp.Diff(string(want), p.body); d != "" {
		t.Errorf("page (-want +got):\n%s", d)
	}
}
