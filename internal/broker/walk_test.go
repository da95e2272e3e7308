package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// The consent of docs/design.md, step by step.
func TestWalk(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")

	// 1. Nothing is stored: the agent gets an address for the user and a session to poll.
	p := w.pending(w.agentA, ask(wat, func(r *broker.Request) { r.CustomState = secret.New("a b&c") }))
	if want := publicURL + "/identities/oauth2/authorize?request_uri=urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3A"; !strings.HasPrefix(p.AuthorizationURL.Expose(), want) {
		t.Errorf("got authorization URL %q, want it to begin with %q", p.AuthorizationURL.Expose(), want)
	}
	if again := w.pending(w.agentA, ask(wat, session(p.Session))); again.Session != p.Session {
		t.Errorf("the poll names session %q, want %q", again.Session, p.Session)
	}

	// 2. The browser goes to the provider and comes back with a code, which is held.
	to := w.hold(p.Session)
	if got := to.Scheme + "://" + to.Host + to.Path; got != returnURL {
		t.Errorf("the browser goes to %q, want %q", got, returnURL)
	}
	if q := to.Query(); q.Get("session_id") != p.Session || q.Get("state") != "a b&c" || len(q) != 2 {
		t.Errorf("got query %v, want session_id and state", q)
	}
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests before the user was confirmed, want none", n)
	}
	w.pending(w.agentA, ask(wat, session(p.Session)))

	// 3. The app confirms the user, with another token of the same user than the agent had. Only now the code is spent.
	must(t, w.complete(w.appA, p.Session, "alice"))
	must(t, w.complete(w.appA, p.Session, "alice")) // again: still 200
	if n := w.grants("authorization_code"); n != 1 {
		t.Errorf("the code was redeemed %d times, want once", n)
	}

	// 4. The poll has the token, and so has every later call.
	first := w.token(w.agentA, ask(wat, session(p.Session)))
	hit := w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
	if !hit.AccessToken.Equal(first.AccessToken) || hit.Connection != first.Connection || first.Connection == "" {
		t.Errorf("the second call got another token or connection than the poll")
	}
	if hit.TokenType != "Bearer" || hit.State != broker.Active || !slices.Equal(hit.Granted, []string{"read"}) || !hit.Expires.Equal(w.clock.now().Add(time.Hour)) {
		t.Errorf("got %+v, want a Bearer token for read that lives an hour", hit)
	}
	if n := w.provider.Hits("/token"); n != 1 {
		t.Errorf("the token endpoint got %d requests, want 1", n)
	}
	w.wantTrail()
}

// wantTrail holds the trail of one walk against what docs/audit.md says.
func (w *world) wantTrail() {
	w.t.Helper()
	var got []string
	for _, r := range w.records() {
		switch r.Action {
		case access.GetResourceOauth2Token, access.Authorize, access.Callback, access.RedeemCode, access.CompleteResourceTokenAuth:
			got = append(got, string(r.Action)+" "+r.Facts.Outcome+" by "+r.Name)
			if r.Facts.Workload != "agent-a" || r.Facts.UserRef == "" || r.Facts.Provider != "cal" || strings.Contains(r.Facts.UserRef, "alice") || !r.Allow {
				w.t.Errorf("record %s says %+v", r.ID(), r.Facts)
			}
		}
	}
	want := []string{
		"GetResourceOauth2Token consent_required by agent-a",
		"GetResourceOauth2Token pending by agent-a",
		"Authorize sent_to_provider by ",
		"Callback code_held by ",
		"GetResourceOauth2Token pending by agent-a",
		"CompleteResourceTokenAuth complete by app-a",
		"RedeemCode redeemed by app-a",
		"CompleteResourceTokenAuth complete by app-a",
		"GetResourceOauth2Token released by agent-a",
		"GetResourceOauth2Token released by agent-a",
	}
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("trail (-want +got):\n%s", d)
	}
}

func TestScopesAreJoined(t *testing.T) {
	w := newWorld(t)
	w.consent("alice", scopes("read"))
	out := w.consent("alice", scopes("write"))
	if !slices.Equal(out.Granted, []string{"write", "read"}) {
		t.Errorf("got %v granted, want write and, still, read", out.Granted)
	}
	for _, s := range [][]string{{"read"}, {"write"}, {"read", "write"}, nil} {
		w.token(w.agentA, ask(w.wat(w.agentA, "alice"), scopes(s...)))
	}
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("read", "admin")))
	if n := w.connection(out.Connection).Generation; n != 2 {
		t.Errorf("got generation %d, want 2: one connection for both", n)
	}
}

// What the user declined is not asked for again and again; the answer says what was granted.
func TestDeclinedScopesDoNotNag(t *testing.T) {
	w := newWorld(t)
	w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = "read" }))
	out := w.consent("alice", scopes("read", "write"))
	if !slices.Equal(out.Granted, []string{"read"}) {
		t.Errorf("got %v granted, want read alone", out.Granted)
	}
	for _, s := range [][]string{{"write"}, {"read", "write"}} {
		if got := w.token(w.agentA, ask(w.wat(w.agentA, "alice"), scopes(s...))); !slices.Equal(got.Granted, []string{"read"}) {
			t.Errorf("asked for %v: got %v granted, want read", s, got.Granted)
		}
	}
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("write", "more")))
}

func TestScopeAliasesCount(t *testing.T) {
	w := newWorld(t)
	w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = "https://p.example/auth/email" }))
	w.consent("alice", scopes("email"))
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("email")))
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("https://p.example/auth/email")))
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("email", "read")))
	v, err := w.Authorize(t.Context(), p.Session)
	must(t, err)
	if got := query(t, v.URL).Get("scope"); got != "email read" {
		t.Errorf("asked the provider for %q, want %q", got, "email read")
	}
}

// A provider that says nothing of scopes or expiry granted what was asked, until somebody says otherwise.
func TestSilentProviderIsBelieved(t *testing.T) {
	w := newWorld(t)
	w.provider.Queue("/token", edit(func(m map[string]any) { delete(m, "scope"); delete(m, "expires_in") }))
	out := w.consent("alice", scopes("read"))
	if !slices.Equal(out.Granted, []string{"read"}) || !out.Expires.IsZero() {
		t.Errorf("got %v until %v, want read without an end", out.Granted, out.Expires)
	}
	w.clock.add(24 * time.Hour)
	w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
	if n := w.grants("refresh_token"); n != 0 {
		t.Errorf("refreshed %d times, want never", n)
	}
}

// Resources and audiences are part of what a connection is for, in any order, and cannot be mistaken for each other.
func TestTargetsSeparateConnections(t *testing.T) {
	w := newWorld(t)
	const r1, r2 = "https://r1.example", "https://r2.example"
	target := func(resources, audiences []string) func(*broker.Request) {
		return func(r *broker.Request) { r.Resources, r.Audiences = resources, audiences }
	}
	lists := [][2][]string{
		{nil, nil}, {{r1}, nil}, {{r1, r2}, nil}, {nil, {r1}}, {{r1}, {r2}}, {{"audiences"}, nil}, {nil, {"audiences"}},
	}
	seen := map[string]bool{}
	for _, l := range lists {
		out := w.consent("alice", target(l[0], l[1]))
		if seen[out.Connection] {
			t.Errorf("resources %v and audiences %v are served from another target's connection", l[0], l[1])
		}
		seen[out.Connection] = true
	}
	out := w.token(w.agentA, ask(w.wat(w.agentA, "alice"), target([]string{r2, r1, r2}, nil)))
	if c := w.connection(out.Connection); !slices.Equal(c.Resources, []string{r1, r2}) {
		t.Errorf("order and repetition made another connection, for %v", c.Resources)
	}
	var sent [][]string
	for _, r := range w.provider.Requests() {
		sent = append(sent, r.Form["resource"])
	}
	want := [][]string{nil, {r1}, {r1, r2}, nil, {r1}, {"audiences"}, nil}
	if d := cmp.Diff(want, sent); d != "" {
		t.Errorf("resources sent (-want +got):\n%s", d)
	}
}

func TestForceKeepsTheOldToken(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat, force))
	stillOld := func(when string) {
		t.Helper()
		if got := w.token(w.agentA, ask(wat)); !got.AccessToken.Equal(old.AccessToken) {
			t.Errorf("%s: an ordinary call got another token than the old one", when)
		}
		w.pending(w.agentA, ask(wat, session(p.Session)))
		w.pending(w.agentA, ask(wat, session(p.Session), force))
	}
	stillOld("at once")
	w.hold(p.Session)
	stillOld("with a held code")
	must(t, w.complete(w.appA, p.Session, "alice"))
	fresh := w.token(w.agentA, ask(wat, session(p.Session)))
	if fresh.AccessToken.Equal(old.AccessToken) || fresh.Connection != old.Connection {
		t.Error("the new consent gave the old token, or another connection")
	}
	if got := w.token(w.agentA, ask(wat)); !got.AccessToken.Equal(fresh.AccessToken) {
		t.Error("an ordinary call still gets the old token")
	}
}

// A declined consent leaves the old token where it was.
func TestForceDeclinedKeepsTheOldToken(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat, force))
	a := w.visit(p.Session)
	a.Code, a.Error, a.Description = secret.Text{}, "access_denied", "no \x00thanks\r\n"
	_, err := w.Callback(t.Context(), a)
	wantEnding(t, "declined", err, broker.EndDeclined)
	_, err = w.Token(t.Context(), w.agentA, ask(wat, session(p.Session)))
	wantEnding(t, "poll", err, broker.EndFailed)
	wantError(t, "poll", err, fault.Denied, "Invalid or expired session: consent was declined at the provider (access_denied): no thanks")
	if got := w.token(w.agentA, ask(wat)); !got.AccessToken.Equal(old.AccessToken) {
		t.Error("the old token is gone")
	}
}

// Two users, two agents and an asserted user of the same name have a connection each.
func TestConnectionsDoNotMix(t *testing.T) {
	w := newWorld(t)
	alice := w.consent("alice")
	w.pending(w.agentA, ask(w.wat(w.agentA, "bob")))
	w.pending(w.agentB, ask(w.wat(w.agentB, "alice")))
	w.pending(w.agentA, ask(w.watForID(w.agentA, "alice")))
	bob := w.consent("bob")
	if alice.Connection == bob.Connection || alice.AccessToken.Equal(bob.AccessToken) {
		t.Error("alice and bob share a connection")
	}
	w.createProvider("mail", "StrictOauth2")
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), at("mail")))
}

func TestAssertedUserWalks(t *testing.T) {
	w := newWorld(t)
	wat := w.watForID(w.agentA, "u-17")
	p := w.pending(w.agentA, ask(wat))
	w.hold(p.Session)
	must(t, w.Complete(t.Context(), w.appA, p.Session, broker.UserIdentifier{ID: "u-17"}))
	out := w.token(w.agentA, ask(wat, session(p.Session)))
	if c := w.connection(out.Connection); !c.Asserted {
		t.Error("the connection does not say that its user was asserted")
	}
}

// A call that names no user has no user's token.
func TestUserFederationNeedsAUser(t *testing.T) {
	w := newWorld(t)
	m, err := w.identity.MintToken(t.Context(), w.agentA, "agent-a")
	must(t, err)
	_, err = w.Token(t.Context(), w.agentA, ask(m.Token))
	wantError(t, "no user", err, fault.Invalid, "names no user")
	_, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), func(r *broker.Request) { r.Flow = broker.FlowOnBehalfOf }))
	wantError(t, "a provider that exchanges no tokens", err, fault.Invalid, "has no onBehalfOfTokenExchangeConfig")
	_, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("nothing")))
	wantCode(t, "unknown provider", err, fault.NotFound)
	_, err = w.Token(t.Context(), w.agentB, ask(w.wat(w.agentA, "alice"), at("nothing")))
	wantCode(t, "unknown provider, for a caller that may not ask", err, fault.Denied)
}

// A provider that quotes the address it was called with tells nobody the state: not the page, not the trail, not the
// agent's polls.
func TestG01_DeclinedAnswerQuotesNoState(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat))
	a := w.visit(p.Session)
	state := a.State.Expose()
	a.Code, a.Error, a.Description = secret.Text{}, "server_error", "called with state "+state
	_, err := w.Callback(t.Context(), a)
	wantEnding(t, "declined", err, broker.EndFailed)
	_, polled := w.Token(t.Context(), w.agentA, ask(wat, session(p.Session)))
	for what, text := range map[string]string{"the page": err.Error(), "a poll": polled.Error(), "the trail": fmt.Sprintf("%+v", w.records())} {
		if strings.Contains(text, state) {
			t.Errorf("%s quotes the state: %s", what, text)
		}
	}
}
