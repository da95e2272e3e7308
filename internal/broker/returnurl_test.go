package broker_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/secret"
)

// C17: whatever a workload identity may have as a return URL is one that a browser cannot be harmed by, a browser that
// is sent there goes to that host and path and nowhere else, and no other spelling of it is accepted.
func FuzzC17_ReturnURL(f *testing.F) {
	for _, s := range []string{
		returnURL, returnURL + "?a=1&b", "https://app.example.com", "http://localhost:3000/cb", "http://[::1]/", "com.example.app:/cb", "com.example.app://cb",
		"javascript:alert(1)", "JaVaScRiPt://x/%0aalert(1)", "data:text/html,x", "https://u@h/", "https://h/#f", "http://app.example.com/", "//h/x", "https:h",
		"https://h\\@evil.example/", "https://h/\t", "https://h%2eevil.example/", "https://é.example/", "https://h:/", "x:", "https://h/?x=%zz", "https://h/?a;b",
	} {
		f.Add(s)
	}
	shared := newWorld(f)
	wat := shared.wat(shared.agentA, "alice")
	strict := shared.strict()
	f.Fuzz(func(t *testing.T, s string) {
		w := *shared
		w.t, w.Broker = t, strict
		if _, err := w.identity.UpdateWorkload(t.Context(), w.admin, "agent-a", []string{s}); err != nil {
			return
		}
		to := func(u string) func(*broker.Request) { return func(r *broker.Request) { r.ReturnURL = u } }
		before, err := url.Parse(s)
		must(t, err)
		wantHarmless(t, s, before)
		for _, near := range []string{s + "/", s + "x", s + "#", s + "?", " " + s, s + "\n", strings.TrimSuffix(s, s[len(s)-1:])} {
			if _, err := w.Token(t.Context(), w.agentA, ask(wat, to(near))); err == nil && near != "" {
				t.Errorf("%q is registered, and %q is accepted", s, near)
			}
		}
		p := w.pending(w.agentA, ask(wat, to(s), func(r *broker.Request) { r.CustomState = secret.New("a&b#c") }))
		after := w.hold(p.Session)
		if after.Scheme != before.Scheme || after.Host != before.Host || after.Path != before.Path || after.Opaque != before.Opaque || after.Fragment != "" || after.User != nil {
			t.Errorf("%q is registered, and the browser goes to %q", s, after)
		}
		if !strings.HasPrefix(after.RawQuery, before.RawQuery) || !strings.HasSuffix(after.RawQuery, "&state=a%26b%23c") {
			t.Errorf("%q is registered, and the query becomes %q", s, after.RawQuery)
		}
	})
}

func wantHarmless(t *testing.T, s string, u *url.URL) {
	t.Helper()
	if u.Scheme == "" || u.User != nil || strings.ContainsAny(s, "#\\ \t\r\n\x00") || strings.Contains(u.Host, "@") {
		t.Errorf("%q is registered", s)
	}
	switch u.Scheme {
	case "https":
		if u.Hostname() == "" {
			t.Errorf("%q without a host is registered", s)
		}
	case "http":
		if a, err := netip.ParseAddr(u.Hostname()); u.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
			t.Errorf("%q is registered: plain http to another machine", s)
		}
	case "javascript", "data", "vbscript", "file", "blob", "about":
		t.Errorf("%q is registered", s)
	}
}
