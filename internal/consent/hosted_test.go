package consent_test

import (
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

func TestHostedWalk(t *testing.T) {
	h := newHosted(t, false)
	session, address := h.begin("read")
	cookie := h.arrive(address)
	shown := h.get(address, cookie)
	for _, want := range []string{"agent-a", "cal", "alice", h.idp.URL, "<code>read</code>", strings.TrimPrefix(h.url, "http://")} {
		if !strings.Contains(shown.body, want) {
			t.Errorf("the page does not show %q:\n%s", want, shown.body)
		}
	}
	callback, cookies := h.allow(address, cookie)
	p := h.get(callback, cookies...)
	if p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != h.broker.HostedReturnURL() {
		t.Fatalf("got %d to %s\n%s", p.StatusCode, p.Header.Get("Location"), p.body)
	}
	h.wantPage("end", h.get(p.Header.Get("Location"), live(t, p, "tabard-connected")), 200, "Connected")
	if token, err := h.poll(session); token == "" || err != nil {
		t.Errorf("the poll got %v", err)
	}
	h.wantPage("the link again", h.get(address, cookies[1]), 409, "Already done")
}

// C01: the user who signs in must be the flow's.
func TestC01_HostedSignInOfAnother(t *testing.T) {
	h := newHosted(t, false)
	session, address := h.begin("read")
	h.idp.User = "bob"
	callback, cookie := h.signIn(address)
	p := h.get(callback.String(), cookie)
	h.wantPage("bob", p, 403, "This link is somebody else&#39;s")
	if len(p.Cookies()) != 0 {
		t.Errorf("bob got %v", p.Cookies())
	}
	if _, err := h.poll(session); fault.CodeOf(err) != fault.Denied {
		t.Errorf("the poll got %v", err)
	}
	if h.provider.Hits("/token") != 0 {
		t.Error("the provider's token endpoint was asked")
	}
}

// An ID token that is not of this sign-in, by this client, of this issuer, signs nobody in, and the link lives on.
func TestHostedForeignIDTokens(t *testing.T) {
	h := newHosted(t, false)
	session, address := h.begin("read")
	for name, change := range map[string]func(map[string]any){
		"another nonce":     func(c map[string]any) { c["nonce"] = "x" },
		"no nonce":          func(c map[string]any) { delete(c, "nonce") },
		"another audience":  func(c map[string]any) { c["aud"] = "app" },
		"another azp":       func(c map[string]any) { c["azp"] = "app" },
		"another issuer":    func(c map[string]any) { c["iss"] = "https://evil.example" },
		"expired":           func(c map[string]any) { c["exp"] = h.clock.now().Add(-time.Hour).Unix() },
		"an access token":   func(c map[string]any) { c["token_use"] = "access" },
		"no subject":        func(c map[string]any) { delete(c, "sub") },
		"issued in advance": func(c map[string]any) { c["iat"] = h.clock.now().Add(time.Hour).Unix() },
	} {
		h.idp.Change = change
		callback, cookie := h.signIn(address)
		p := h.get(callback.String(), cookie)
		h.wantPage(name, p, 403, "You are not signed in")
		if len(p.Cookies()) != 0 {
			t.Errorf("%s: got %v", name, p.Cookies())
		}
	}
	h.idp.Change = nil
	h.arrive(address)
	if _, err := h.poll(session); err != nil {
		t.Errorf("the poll got %v", err)
	}
}

// A sign-in counts only in the browser that began it: else a person could be signed in as the attacker (login CSRF).
func TestHostedSignInNeedsItsBrowser(t *testing.T) {
	h := newHosted(t, false)
	_, address := h.begin("read")
	callback, cookie := h.signIn(address)
	_, other := h.signIn(address)
	h.wantPage("no cookie", h.get(callback.String()), 403, "Another browser began this")
	h.wantPage("another's cookie", h.get(callback.String(), &http.Cookie{Name: cookie.Name, Value: other.Value}), 403, "Another browser began this")
	if p := h.get(callback.String(), cookie); p.StatusCode != http.StatusSeeOther {
		t.Fatalf("got %d\n%s", p.StatusCode, p.body)
	}
	h.wantPage("twice", h.get(callback.String(), cookie), 409, "Already done")
}

// The provider's answer completes nothing in a browser without the session of the user who said yes.
func TestHostedCompletionNeedsTheSession(t *testing.T) {
	h := newHosted(t, false)
	session, address := h.begin("read")
	before := h.arrive(address)
	callback, cookies := h.allow(address, before)
	h.wantPage("visit's cookie alone", h.get(callback, cookies[0]), 403, "You are not signed in")
	if token, err := h.poll(session); token != "" || err != nil {
		t.Fatalf("the poll got a token %v, %v", token != "", err)
	}
	// The code is held: the user's browser finishes.
	shown := h.get(address, cookies[1])
	if !strings.Contains(shown.body, "Finish") {
		t.Fatalf("got %d\n%s", shown.StatusCode, shown.body)
	}
	fresh := h.arrive(address) // signed in again, and has said nothing
	h.wantPage("not allowed in this session", h.post(answers(t, h.get(address, fresh), "finish"), nil, fresh), 403, "You are not signed in")
	if p := h.post(answers(t, shown, "finish"), nil, cookies[1]); p.StatusCode != http.StatusSeeOther {
		t.Fatalf("finish got %d\n%s", p.StatusCode, p.body)
	}
	if token, err := h.poll(session); token == "" || err != nil {
		t.Errorf("the poll got %v", err)
	}
}

func TestHostedDeny(t *testing.T) {
	h := newHosted(t, false)
	session, address := h.begin("read")
	cookie := h.arrive(address)
	h.wantPage("deny", h.post(answers(t, h.get(address, cookie), "deny"), nil, cookie), 200, "You said no")
	if _, err := h.poll(session); fault.CodeOf(err) != fault.Denied || !strings.Contains(fault.Public(err).Msg, "declined by the user") {
		t.Errorf("the poll got %v", err)
	}
	h.wantPage("the link again", h.get(address, cookie), 403, "Consent was not completed")
}

// C20: what an issuer says instead of a sign-in is text, and ends nothing.
func TestC20_IssuersWordsAreText(t *testing.T) {
	h := newHosted(t, false)
	_, address := h.begin("read")
	for _, words := range []string{`<script>alert(1)</script>`, `</blockquote><h1>x</h1>`, "\u202egnp", strings.Repeat("x", 5000)} {
		callback, cookie := h.signIn(address)
		p := h.get(with(callback, deny(words)), cookie)
		h.wantPage("refused", p, 403, "You are not signed in")
		_, shown, _ := strings.Cut(p.body, "<blockquote>")
		shown, _, _ = strings.Cut(shown, "</blockquote>")
		if strings.ContainsAny(shown, "<>\u202e") || len(html.UnescapeString(shown)) > 200 {
			t.Errorf("%q is shown as %q", words, shown)
		}
	}
	// After a mix-up it is not even that: whoever answered is not who was asked.
	callback, cookie := h.signIn(address)
	p := h.get(with(callback, func(q url.Values) {
		deny("call 555-0100 to go on")(q)
		q.Set("iss", "https://evil.example")
	}), cookie)
	if h.wantPage("mixed up, with words", p, 403, "The answer came from the wrong place"); strings.Contains(p.body, "555-0100") {
		t.Errorf("the words of another issuer are shown:\n%s", p.body)
	}
	callback, cookie = h.signIn(address)
	h.wantPage("mixed up", h.get(with(callback, func(q url.Values) { q.Set("iss", "https://evil.example") }), cookie), 403, "The answer came from the wrong place")
	h.arrive(address)
}

// C21: the page on which a click decides cannot be framed.
func TestC21_ConsentPageIsNotFramed(t *testing.T) {
	h := newHosted(t, false)
	_, address := h.begin("read")
	p := h.get(address, h.arrive(address))
	for name, want := range map[string]string{
		"Content-Security-Policy": hostedPolicy, "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
	} {
		if got := p.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
}

// C22: an answer counts only from the page that this browser got.
func TestC22_AnswersFromElsewhere(t *testing.T) {
	h := newHosted(t, false)
	session, address := h.begin("read")
	cookie := h.arrive(address)
	_, address2 := h.begin("read")
	other := h.arrive(address2)
	good := answers(t, h.get(address, cookie), "allow")
	foreign := answers(t, h.get(address2, other), "allow")
	changed := func(name, value string) url.Values {
		v := url.Values{}
		for k := range good {
			v.Set(k, good.Get(k))
		}
		v.Set(name, value)
		return v
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, p := range map[string]page{
		"cross-site":            h.post(good, header("Sec-Fetch-Site", "cross-site"), cookie),
		"same-site":             h.post(good, header("Sec-Fetch-Site", "same-site"), cookie),
		"another origin":        h.post(good, header("Origin", "https://evil.example"), cookie),
		"null origin":           h.post(good, header("Origin", "null"), cookie),
		"no cookie":             h.post(good, nil),
		"wrong token":           h.post(changed("token", "x"), nil, cookie),
		"another page's token":  h.post(changed("token", foreign.Get("token")), nil, cookie),
		"another session":       h.post(changed("request_uri", foreign.Get("request_uri")), nil, cookie),
		"another's cookie":      h.post(good, nil, &http.Cookie{Name: cookie.Name, Value: other.Value}),
		"deny, from cross-site": h.post(changed("answer", "deny"), header("Sec-Fetch-Site", "cross-site"), cookie),
	} {
		h.wantPage(name, p, 403, "This cannot go on")
		if len(p.Cookies()) != 0 {
			t.Errorf("%s: got %v", name, p.Cookies())
		}
	}
	for name, form := range map[string]url.Values{"no answer": changed("answer", ""), "another answer": changed("answer", "maybe"), "too long": changed("x", strings.Repeat("y", 9<<10))} {
		h.wantPage(name, h.post(form, nil, cookie), 400, "This address is not complete")
	}
	if p := h.get(h.url+"/identities/hosted/decide?"+good.Encode(), cookie); p.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET got %d", p.StatusCode)
	}
	if _, err := h.poll(session); err != nil {
		t.Errorf("the session ended: %v", err)
	}
	if p := h.post(good, header("Sec-Fetch-Site", "same-origin"), cookie); p.StatusCode != http.StatusSeeOther {
		t.Errorf("the real page got %d\n%s", p.StatusCode, p.body)
	}
}

// C23: a session comes only after a sign-in, is nobody else's choice, and is renewed when the user says yes.
func TestC23_SessionsAreNotFixed(t *testing.T) {
	for _, secure := range []bool{false, true} {
		h := newHosted(t, secure)
		session, address := h.begin("read")
		name := broker.HostedCookieName(session)
		if secure {
			name = "__Host-" + name
		}
		fixed := &http.Cookie{Name: name, Value: strings.Repeat("x", 43)}
		p := h.get(address, fixed)
		if p.StatusCode != http.StatusSeeOther || len(p.Cookies()) != 1 || strings.Contains(p.Cookies()[0].Name, "hosted") {
			t.Fatalf("with a made-up session: got %d, %v", p.StatusCode, p.Cookies())
		}
		callback, login := h.signIn(address)
		p = h.get(callback.String(), login, fixed)
		cookie := live(t, p, "tabard-hosted-")
		if cookie.Name != name || cookie.Value == fixed.Value || len(cookie.Value) != 43 || cookie.Value == login.Value {
			t.Errorf("secure %v: got %v", secure, cookie)
		}
		if cookie.Path != "/" || cookie.Domain != "" || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Secure != secure {
			t.Errorf("secure %v: got %v", secure, cookie)
		}
		form := answers(t, h.get(address, cookie), "allow")
		_, cookies := h.allow(address, cookie)
		if cookies[1].Value == cookie.Value || cookies[1].Name != name {
			t.Errorf("secure %v: the session was not renewed", secure)
		}
		h.wantPage("the old session", h.post(form, nil, cookie), 403, "You are not signed in")
	}
}

// C26: no name on the page can look like another.
func TestC26_NamesAreShownPlainly(t *testing.T) {
	h := newHosted(t, false)
	for scope, want := range map[string]string{
		"re\u0430d":             `re\u{430}d`,
		"x\u202edaer":           `x\u{202E}daer`,
		"a\u200bb":              `a\u{200B}b`,
		"a\u00adb":              `a\u{AD}b`,
		"<b>x</b>":              "&lt;b&gt;x&lt;/b&gt;",
		"email":                 "see your e-mail address <code>email</code>",
		strings.Repeat("s", 90): strings.Repeat("s", 90),
	} {
		_, address := h.begin(scope)
		p := h.get(address, h.arrive(address))
		if !strings.Contains(p.body, want) {
			t.Errorf("%q is not shown as %q:\n%s", scope, want, p.body)
		}
		if strings.ContainsAny(p.body, "\u0430\u202e\u200b\u00ad") || strings.Contains(p.body, "<b>") {
			t.Errorf("%q is shown as it came", scope)
		}
	}
}

// C26: nor can the user, as the issuer names them, or the issuer, whose URL may have a long path before the part that
// tells.
func TestC26_UserAndIssuerAreShownPlainly(t *testing.T) {
	long := "/" + strings.Repeat("a", 300)
	h := newHostedFor(t, false, "\u0430lice\u202e\u200b<b>", long)
	_, address := h.begin("read")
	p := h.get(address, h.arrive(address))
	_, you, _ := strings.Cut(p.body, "<dt>You are</dt><dd>")
	you, _, _ = strings.Cut(you, "</dd>")
	if user, issuer, _ := strings.Cut(you, " at "); user != `\u{430}lice\u{202E}\u{200B}&lt;b&gt;` || !strings.HasPrefix(issuer, h.idp.URL+"/aaa") ||
		!strings.HasSuffix(issuer, "...") || len(issuer) > 210 {
		t.Errorf("the page says %q", you)
	}
}

// C32: the address that an agent passes on names the session and nothing else.
func TestC32_TheLinkSaysNothing(t *testing.T) {
	h := newHosted(t, false)
	session, address := h.begin("read")
	u, err := url.Parse(address)
	must(t, err)
	if q := u.Query(); len(q) != 1 || q.Get("request_uri") != session || u.User != nil || u.Fragment != "" {
		t.Errorf("got %s", address)
	}
	for _, no := range []string{"alice", "agent-a", "cal", "read", h.token.Expose()} {
		if strings.Contains(u.RawQuery, no) {
			t.Errorf("%s names %s", address, no)
		}
	}
}

// C33: what fetches the link ahead of the user neither begins, allows nor ends anything; the page may be read again.
func TestC33_GetsChangeNothing(t *testing.T) {
	h := newHosted(t, false)
	session, address := h.begin("read")
	for range 10 {
		if p := h.do(http.MethodHead, address); p.StatusCode != http.StatusOK || len(p.Cookies()) != 0 {
			t.Fatalf("HEAD got %d, %v", p.StatusCode, p.Cookies())
		}
		if p := h.get(address); p.StatusCode != http.StatusSeeOther || !strings.HasPrefix(p.Header.Get("Location"), h.idp.URL) {
			t.Fatalf("GET got %d to %s", p.StatusCode, p.Header.Get("Location"))
		}
	}
	cookie := h.arrive(address)
	first := h.get(address, cookie)
	for range 10 {
		if p := h.get(address, cookie); p.body != first.body || len(p.Cookies()) != 0 {
			t.Fatalf("the page changed, or got %v", p.Cookies())
		}
		h.wantPage("done", h.get(h.url+"/identities/hosted/done?session_id="+url.QueryEscape(session), cookie), 200, "Nothing to do here")
	}
	if token, err := h.poll(session); token != "" || err != nil {
		t.Errorf("the poll got a token %v, %v", token != "", err)
	}
	if hits := h.provider.Hits("/authorize") + h.provider.Hits("/token"); hits != 0 {
		t.Errorf("the provider was asked %d times", hits)
	}
	for range 60 { // waiting sign-ins are bounded
		h.get(address)
	}
	h.wantPage("opened too often", h.get(address), 403, "Consent was not completed")
	if p := h.get(address, cookie); p.body != first.body {
		t.Errorf("the user who is signed in got %d\n%s", p.StatusCode, p.body)
	}
}

// C15: a provider whose metadata moved its consent page to another host gets no browser, and the page says in plain
// words that an administrator must look. Once one has, the same link goes on.
func TestC15_MovedProviderOnTheConsentPage(t *testing.T) {
	h := newHosted(t, false)
	_, address := h.begin("read")
	h.allow(address, h.arrive(address)) // the first use, which pins the host

	evil := oauthtest.New(t)
	h.provider.SetMetadata("authorization_endpoint", evil.URL+"/authorize")
	h.clock.add(11 * time.Minute) // past the metadata's time in the cache
	session, address := h.begin("read")
	cookie := h.arrive(address)
	good := url.Values{"answer": {"allow"}, "request_uri": {session}, "token": {formToken(cookie)}} // of a page from before the move
	for _, p := range []page{h.get(address, cookie), h.post(good, nil, cookie)} {
		h.wantPage("moved", p, 502, "The provider has moved")
		for _, want := range []string{"An administrator must look at this first", "Nothing was stored", requestID} {
			if !strings.Contains(p.body, want) {
				t.Errorf("the page does not say %q:\n%s", want, p.body)
			}
		}
		for _, no := range []string{evil.URL, strings.TrimPrefix(evil.URL, "http://"), strings.TrimPrefix(h.provider.URL, "http://")} {
			if strings.Contains(p.body, no) {
				t.Errorf("the page names the host %s:\n%s", no, p.body)
			}
		}
		if len(p.Cookies()) != 0 || p.Header.Get("Location") != "" {
			t.Errorf("got %v and the location %q", p.Cookies(), p.Header.Get("Location"))
		}
	}
	if n := evil.Hits("/authorize"); n != 0 {
		t.Errorf("the new host was reached %d times", n)
	}
	if !strings.Contains(h.log.String(), strings.TrimPrefix(evil.URL, "http://")) {
		t.Errorf("the log does not tell the operator where to:\n%s", h.log)
	}
	trail := h.trail()
	if !strings.Contains(trail, "moved its authorization endpoint") {
		t.Errorf("the trail has no record of it:\n%s", trail)
	}
	if _, err := h.poll(session); err != nil {
		t.Errorf("the session ended: %v", err)
	}
	_, err := h.broker.UpdateProvider(t.Context(), h.root, h.spec()) // brings the client secret
	must(t, err)
	if p := h.post(answers(t, h.get(address, cookie), "allow"), nil, cookie); p.StatusCode != http.StatusSeeOther || !strings.HasPrefix(p.Header.Get("Location"), evil.URL+"/") {
		t.Errorf("after the administrator: got %d to %q\n%s", p.StatusCode, p.Header.Get("Location"), p.body)
	}
}

// C15, for an agent with an application of its own: the same page, and no browser at the new host.
func TestC15_MovedProviderOnTheLink(t *testing.T) {
	w := newWorld(t, false)
	_, address := w.session()
	w.visit(address)
	evil := oauthtest.New(t)
	w.provider.SetMetadata("authorization_endpoint", evil.URL+"/authorize")
	w.clock.add(11 * time.Minute)
	_, address = w.session()
	w.wantPage("moved", w.get(address), 502, "The provider has moved")
}
