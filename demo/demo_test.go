package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/standin"
)

func noEnv(string) string { return "" }

// TestStory runs what `go run ./demo --once` runs.
func TestStory(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"--once", "--verbose"}, noEnv, &out, &errOut); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, &out, &errOut)
	}
	for _, want := range []string{"● human access token", "■ workload access token", "▲ calendar access token", "checks held",
		"generation 1", "5. The agent polls", "Alice's own token, as itself"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the story does not say %q", want)
		}
	}
	if strings.Contains(out.String(), "✗") || strings.Contains(out.String(), "\x1b") {
		t.Errorf("a failed check, or colour where there is no terminal:\n%s", &out)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n >= 100 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	// What the story says and what the server logs: no token of any kind, no code, no state.
	if m := secrets.FindString(out.String() + errOut.String()); m != "" {
		t.Errorf("the output holds a secret: %.12s…", m)
	}
	if !strings.Contains(errOut.String(), "GetResourceOauth2Token") {
		t.Error("--verbose shows no log, so nothing was searched")
	}
}

var secrets = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8}|wat1\.|ya29\.|1//standin|4/[A-Z0-9]{10}|tabard_[A-Za-z0-9]{8}|alice-at-|bob-at-`)

// The demo leaves nothing behind, and a directory that was asked for stays and can be used again.
func TestDataDirectory(t *testing.T) {
	tmp, keep := t.TempDir(), t.TempDir()+"/data"
	t.Setenv("TMPDIR", tmp)
	for _, dir := range []string{"", keep, keep} {
		w, err := newWorld(t.Context(), quiet(t, "--data-dir="+dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(w.dataDir + "/tabard.db"); err != nil {
			t.Error(err)
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind in the temporary directory: %v, %v", left, err)
	}
	if _, err := os.Stat(keep + "/tabard.db"); err != nil {
		t.Error(err)
	}
}

func TestCommandLine(t *testing.T) {
	google := func(string) string { return "secret" }
	for _, c := range []struct {
		args   string
		getenv func(string) string
		code   int
		out    string
	}{
		{"--help", noEnv, 0, "Examples:"},
		{"--nonsense", noEnv, 2, "nonsense"},
		{"extra", noEnv, 2, "extra"},
		{"--web-addr=0.0.0.0:80", noEnv, 2, "127.0.0.1 only"},
		{"--google-client-id=x", noEnv, 2, "GOOGLE_CLIENT_SECRET"},
		{"--google-client-secret-file=x", noEnv, 2, "needs --google-client-id"},
		{"--once --google-client-id=x", google, 2, "stand-in"},
		{"--once --zone=Mars/Olympus", noEnv, 1, "time zone"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), strings.Fields(c.args), c.getenv, &out, &out); code != c.code || !strings.Contains(out.String(), c.out) {
			t.Errorf("%s: code %d, want %d, with %q in:\n%s", c.args, code, c.code, c.out, &out)
		}
	}
}

// With Google nothing is redeemed here; but the link leads to Google, with everything it needs.
func TestGoogle(t *testing.T) {
	s, err := parse([]string{"--google-client-id=demo.apps.googleusercontent.com", "--tabard-addr=127.0.0.1:0"}, func(k string) string {
		return map[string]string{"GOOGLE_CLIENT_SECRET": "not-a-real-one"}[k]
	})
	if err != nil {
		t.Fatal(err)
	}
	s.errOut = io.Discard
	w, err := newWorld(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, w)
	var out bytes.Buffer
	p := newPrinter(&out, noEnv)
	p.places(w)
	if !strings.Contains(strings.Join(strings.Fields(out.String()), ""), w.callback) || !strings.Contains(w.callback, "/identities/oauth2/callback/") {
		t.Errorf("the callback URL %s is not printed:\n%s", w.callback, &out)
	}
	alice := &actor{standin.NewBrowser(), standin.OIDCUsers()[0], standin.User{}, w.webURL}
	if _, err := alice.logIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := alice.ask(t.Context(), "lunch tomorrow at noon")
	if err != nil {
		t.Fatal(err)
	}
	alice.browser.Stop = func(u *url.URL) bool { return u.Hostname() == "accounts.google.com" }
	page, err := alice.browser.Visit(t.Context(), v.link())
	if err != nil {
		t.Fatal(err)
	}
	q := page.URL.Query()
	for name, want := range map[string]string{"client_id": "demo.apps.googleusercontent.com", "redirect_uri": w.callback, "response_type": "code",
		"access_type": "offline", "scope": standin.ScopeCalendarEvents, "code_challenge_method": "S256"} {
		if q.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, q.Get(name), want)
		}
	}
}

func quiet(t *testing.T, args ...string) settings {
	t.Helper()
	s, err := parse(append(args, "--zone=Europe/Zurich"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	s.errOut = io.Discard
	return s
}

func closed(t *testing.T, w *world) {
	t.Helper()
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

func newTestWorld(t *testing.T) *world {
	t.Helper()
	w, err := newWorld(t.Context(), quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, w) })
	return w
}

func actors(w *world) (alice, bob *actor) {
	s := newStory(w, nil)
	return s.alice, s.bob
}

// TestTwoPeopleAtOnce has Alice and Bob use the web app at the same time, several browsers each. Nobody sees or gets
// anything of the other.
func TestTwoPeopleAtOnce(t *testing.T) {
	w := newTestWorld(t)
	var all sync.WaitGroup
	alice, bob := actors(w)
	for i := range 6 {
		who, other := *alice, *bob
		if i%2 == 1 {
			who, other = *bob, *alice
		}
		who.browser = standin.NewBrowser()
		all.Go(func() { walk(t.Context(), t, &who, &other) })
	}
	all.Wait()
	for _, a := range []*actor{alice, bob} {
		events := w.calendar.Events(a.calendar.Name)
		if len(events) != 6 {
			t.Errorf("%s has %d events, want 6", a.atWork.Name, len(events))
		}
		for _, e := range events {
			if !strings.HasSuffix(e.Summary, "for "+a.atWork.FullName) {
				t.Errorf("%s's calendar has %q", a.atWork.Name, e.Summary)
			}
		}
	}
}

// walk books twice as a person does: with the pages, not the view for programs.
func walk(ctx context.Context, t *testing.T, who, other *actor) {
	if _, err := who.logIn(ctx); err != nil {
		t.Error(err)
		return
	}
	for range 2 {
		if _, err := who.ask(ctx, "lunch for "+who.atWork.FullName+" tomorrow at noon"); err != nil {
			t.Error(err)
			return
		}
		page, err := who.browser.Visit(ctx, who.home+"/")
		if err != nil {
			t.Error(err)
			return
		}
		if m := allowLink.FindStringSubmatch(page.Body); m != nil {
			if page, err = who.browser.Approve(ctx, m[1], who.calendar); err != nil {
				t.Error(err)
				return
			}
		}
		for _, want := range []string{"In your calendar", who.atWork.FullName, who.atWork.Email, "What just happened", "audit "} {
			if !strings.Contains(page.Body, want) {
				t.Errorf("%s: the page lacks %q: %s", who.atWork.Name, want, page.Body)
			}
		}
		if strings.Contains(page.Body, other.atWork.FullName) || strings.Contains(page.Body, other.atWork.Email) {
			t.Errorf("%s sees %s", who.atWork.Name, other.atWork.Name)
		}
		if m := secrets.FindString(page.Body); m != "" {
			t.Errorf("the page holds a secret: %.12s…", m)
		}
	}
}

var allowLink = regexp.MustCompile(`id="allow" href="([^"]+)"`)

func TestPages(t *testing.T) {
	w := newTestWorld(t)
	alice, _ := actors(w)
	if _, err := alice.logIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{"/": 200, "/style.css": 200, "/state.json": 200, "/connected": 403, "/connected?session_id=urn:ietf:params:oauth:request_uri:x&state=y": 403,
		"/login/callback?code=x&state=y": 403, "/nowhere": 404} {
		page, err := alice.browser.Visit(t.Context(), w.webURL+path)
		if err != nil {
			t.Fatal(err)
		}
		if page.Status != status {
			t.Errorf("%s answers %d, want %d", path, page.Status, status)
		}
		if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: Content-Security-Policy %q", path, csp)
		}
		for _, inline := range []string{"<script", " style=", "<style", " onclick"} {
			if strings.Contains(page.Body, inline) {
				t.Errorf("%s has %q, which its policy forbids", path, inline)
			}
		}
	}
}

// A form of another site does nothing, and neither does one of another port of this host, which browsers call
// same-site.
func TestForeignForms(t *testing.T) {
	w := newTestWorld(t)
	alice, _ := actors(w)
	if _, err := alice.logIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, site := range []string{"cross-site", "same-site"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.webURL+"/ask", strings.NewReader("prompt=lunch+tomorrow+at+noon"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", site)
		resp, err := alice.browser.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: status %d, want 403", site, resp.StatusCode)
		}
	}
	if v, err := alice.look(t.Context()); err != nil || v.Prompt != "" {
		t.Errorf("a foreign form was served: %q, %v", v.Prompt, err)
	}
}

// Whoever is logged out, or says no at the calendar, gets nothing, and hears why.
func TestRefusals(t *testing.T) {
	w := newTestWorld(t)
	alice, _ := actors(w)
	if _, err := alice.logIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	for prompt, code := range map[string]string{"lunch with Sam": "prompt", "tomorrow at noon": "prompt"} {
		if v, err := alice.ask(t.Context(), prompt); err != nil || v.Heard.Failed == nil || v.Heard.Failed.Code != code {
			t.Errorf("%q: %+v, %v; want failure %q", prompt, v.Heard.Failed, err, code)
		}
	}
	v, err := alice.ask(t.Context(), "lunch tomorrow at noon")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.browser.Deny(t.Context(), v.link(), alice.calendar); err != nil {
		t.Fatal(err)
	}
	wait(t.Context(), w.web.sessions.live(alice.atWork.Email).latest().done, patience)
	page, err := alice.browser.Visit(t.Context(), w.webURL+"/")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.Body, "Nothing was booked") {
		t.Errorf("after a no, the page is: %s", page.Body)
	}
	if n := w.calendar.Redemptions(); n != 0 {
		t.Errorf("%d codes were redeemed", n)
	}
	resp, err := alice.browser.Client().PostForm(w.webURL+"/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if v, err := alice.look(t.Context()); err != nil || v.Name != "" {
		t.Errorf("still logged in after logging out: %q, %v", v.Name, err)
	}
}

// Alice begins and Bob's browser finishes, at the web app that a person uses.
func TestC01_AnotherBrowserFinishes(t *testing.T) {
	w := newTestWorld(t)
	alice, bob := actors(w)
	for _, a := range []*actor{alice, bob} {
		if _, err := a.logIn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	v, err := alice.ask(t.Context(), "lunch tomorrow at noon")
	if err != nil {
		t.Fatal(err)
	}
	page, seen, err := bob.approve(t.Context(), v.link())
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != http.StatusForbidden || seen.Heard.Booked != nil {
		t.Errorf("bob ended with status %d and %+v", page.Status, seen.Heard.Booked)
	}
	if v, err = alice.ask(t.Context(), "lunch tomorrow at noon"); err != nil {
		t.Fatal(err)
	}
	nobody := *bob
	nobody.browser = standin.NewBrowser() // logged in nowhere
	if page, _, err := nobody.approve(t.Context(), v.link()); err != nil || page.Status != http.StatusForbidden {
		t.Errorf("a browser without a login ended with %+v, %v", page, err)
	}
	if n := len(w.calendar.TokenRequests()); n != 0 {
		t.Errorf("%d requests reached the token endpoint", n)
	}
	if v, err = alice.look(t.Context()); err != nil || v.Heard.Booked != nil || v.token(providerToken).Fingerprint != "" {
		t.Errorf("alice got %+v, %v", v.Heard, err)
	}
}

// The address with session and state is left at once, and goes to nobody as a referrer.
func TestC24_TheReturnAddressIsLeft(t *testing.T) {
	w := newTestWorld(t)
	alice, _ := actors(w)
	if _, err := alice.logIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := alice.ask(t.Context(), "lunch tomorrow at noon")
	if err != nil {
		t.Fatal(err)
	}
	alice.browser.Stop = func(u *url.URL) bool { return u.Path == "/connected" }
	page, _, err := alice.approve(t.Context(), v.link())
	if err != nil {
		t.Fatal(err)
	}
	resp, err := alice.browser.Client().Get(page.URL.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/" {
		t.Errorf("status %d to %q, want 303 to /", resp.StatusCode, resp.Header.Get("Location"))
	}
	if resp.Header.Get("Referrer-Policy") != "no-referrer" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", resp.Header)
	}
}
