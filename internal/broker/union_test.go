package broker_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// scopesAt opens a session and returns which scopes the provider is asked for in it.
func (w *world) scopesAt(session string) string {
	w.t.Helper()
	v, err := w.Authorize(w.t.Context(), session)
	must(w.t, err)
	u, err := url.Parse(v.URL.Expose())
	must(w.t, err)
	return u.Query().Get("scope")
}

// A new consent asks for what was asked for before and now, in those words and not in the provider's. If the tokens are
// dead, it asks for the request alone; after the provider refused to be asked for both together, too.
func TestConsentAsksForWhatWasRequested(t *testing.T) {
	w := newWorld(t)
	w.provider.Queue(oauthtest.Token, edit(func(m map[string]any) { m["scope"] = "a/.default" }))
	c := w.connection(w.consent("alice", scopes("a")).Connection)
	if got := strings.Join(c.Granted, " "); got != "a/.default" {
		t.Fatalf("got %q granted", got)
	}
	more := func() string { return w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("b"))).Session }
	session := more()
	if got := w.scopesAt(session); got != "b a" {
		t.Errorf("the provider is asked for %q, want the words of the requests", got)
	}
	v := w.visit(session)
	v.Code, v.Error = broker.Answer{}.Code, "invalid_scope"
	_, err := w.Callback(t.Context(), v)
	wantCode(t, "a refused union", err, fault.Denied)
	if got := w.scopesAt(more()); got != "b" {
		t.Errorf("after a refused union the provider is asked for %q, want the request alone", got)
	}
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("a/.default"))) // what was granted is still there

	w.consent("bob", scopes("a"))
	w.provider.RevokeAll()
	w.clock.add(2 * time.Hour)
	if got := w.scopesAt(w.pending(w.agentA, ask(w.wat(w.agentA, "bob"), scopes("a"))).Session); got != "a" {
		t.Errorf("got %q", got)
	}
	if got := w.scopesAt(w.pending(w.agentA, ask(w.wat(w.agentA, "bob"), scopes("b"))).Session); got != "b" {
		t.Errorf("with dead tokens the provider is asked for %q, want the request alone", got)
	}
}

// M02: what a provider grants without a word to a request without scopes is unknown, and stays so at a refresh that
// says nothing. A vendor whose tokens have no scopes grants none, whatever was asked for.
func TestM02_GrantedScopesThatAreUnknown(t *testing.T) {
	w := newWorld(t)
	silent := edit(func(m map[string]any) { delete(m, "scope") })
	w.provider.Queue(oauthtest.Token, silent)
	out := w.consent("alice", scopes())
	if c := w.connection(out.Connection); c.Granted != nil || out.Granted != nil {
		t.Errorf("got %q granted, and %q answered", c.Granted, out.Granted)
	}
	w.expire(0)
	w.provider.Queue(oauthtest.Token, silent)
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), scopes()))
	if c := w.connection(out.Connection); c.Granted != nil || c.Generation < 2 {
		t.Errorf("after a refresh: got %q granted, generation %d", c.Granted, c.Generation)
	}
	w.provider.Queue(oauthtest.Token, silent)
	if c := w.connection(w.consent("bob", scopes("a", "b")).Connection); strings.Join(c.Granted, " ") != "a b" {
		t.Errorf("asked for two and told nothing: got %q granted (RFC 6749 §5.1)", c.Granted)
	}
	w.provider.Queue(oauthtest.Token, edit(func(m map[string]any) { m["scope"] = "" }))
	if c := w.connection(w.consent("carol", scopes("a")).Connection); c.Granted != nil {
		t.Errorf("told that there are none: got %q granted", c.Granted)
	}
	w.createProvider("bare", "BareOauth2")
	bare := w.consent("dave", at("bare"), scopes("a"))
	if c := w.connection(bare.Connection); c.Granted != nil {
		t.Errorf("a vendor without scopes: got %q granted", c.Granted)
	}
	w.token(w.agentA, ask(w.wat(w.agentA, "dave"), at("bare"), scopes("b"))) // there is nothing else to consent to
	d := w.delegated("dave", identity.Grant{Provider: "bare", Scopes: []string{"a"}})
	_, err := w.Token(t.Context(), w.agentA, ask(d, at("bare"), scopes("a")))
	wantCode(t, "a delegation that lists scopes there", err, fault.Denied)
	w.token(w.agentA, ask(w.delegated("dave", identity.Grant{Provider: "bare"}), at("bare"), scopes("a")))
	w.token(w.agentA, ask(w.delegated("dave", identity.Grant{Provider: "bare"}), machine, at("bare"), scopes("b"))) // which is not stored
}

// What died is not asked for again: a consent after a refused refresh asks for the request alone.
func TestConsentAfterARefusedRefreshAsksForTheRequest(t *testing.T) {
	w := newWorld(t)
	w.consent("alice", scopes("read", "admin"))
	w.provider.RevokeAll()
	w.clock.add(2 * time.Hour)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("read")))
	v, err := w.Authorize(t.Context(), p.Session)
	must(t, err)
	if got := query(t, v.URL).Get("scope"); got != "read" {
		t.Errorf("the user is asked for %q", got)
	}
}
