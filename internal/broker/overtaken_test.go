package broker_test

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

// Two tools ask at once, and the user opens one link: the poll of the other's session is answered too.
func TestOvertakenSessionIsAnswered(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	one, two := w.pending(w.agentA, ask(wat)), w.pending(w.agentA, ask(wat))
	late := w.visit(two.Session)
	w.pending(w.agentA, ask(wat, session(two.Session)))
	w.hold(one.Session)
	w.pending(w.agentA, ask(wat, session(two.Session)))
	must(t, w.complete(w.appA, one.Session, "alice"))
	first := w.token(w.agentA, ask(wat, session(one.Session)))
	for range 2 { // an answer may be lost
		second := w.token(w.agentA, ask(wat, session(two.Session)))
		if second.Connection != first.Connection || !second.AccessToken.Equal(first.AccessToken) {
			t.Errorf("the other session got connection %s, want %s", second.Connection, first.Connection)
		}
	}
	if !w.recorded(access.GetResourceOauth2Token, "overtaken", "") {
		t.Error("the trail does not say that the session was overtaken")
	}
	before := w.connection(first.Connection)
	_, err := w.Callback(t.Context(), late)
	wantEnding(t, "a late callback", err, broker.EndUsed)
	_, err = w.Authorize(t.Context(), two.Session)
	wantEnding(t, "opening the other link", err, broker.EndUsed)
	must(t, w.complete(w.appA, two.Session, "alice"))
	wantCode(t, "completed by another user", w.complete(w.appA, two.Session, "bob"), fault.Denied)
	if after := w.connection(first.Connection); after.Generation != before.Generation || w.grants("authorization_code") != 1 {
		t.Errorf("the connection is of generation %d after %d codes, want %d and 1", after.Generation, w.grants("authorization_code"), before.Generation)
	}
}

// The second consent got as far as a code: the session is answered, and that code is never sent.
func TestOvertakenSessionWithACode(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	one, two := w.pending(w.agentA, ask(wat)), w.pending(w.agentA, ask(wat))
	w.hold(two.Session)
	w.hold(one.Session)
	must(t, w.complete(w.appA, one.Session, "alice"))
	w.token(w.agentA, ask(wat, session(two.Session)))
	must(t, w.complete(w.appA, two.Session, "alice"))
	if n := w.grants("authorization_code"); n != 1 {
		t.Errorf("%d codes were redeemed, want 1", n)
	}
	f, err := w.db.FlowByID(t.Context(), w.store.lastHeld())
	must(t, err)
	if len(f.Code)+len(f.Verifier)+len(f.Upstream) != 0 {
		t.Error("a session that ended keeps what was sealed in it")
	}
}

// What does not serve the session leaves it pending, and what another one did not do for it changes nothing.
func TestOvertakenSessionStaysPending(t *testing.T) {
	for name, c := range map[string]struct {
		ask  func(*broker.Request) // of the session that is polled
		then func(*world)          // what happens meanwhile
	}{
		"it was forced":             {force, func(w *world) { w.consent("alice") }},
		"fewer scopes":              {scopes("read", "write"), func(w *world) { w.consent("alice") }},
		"another resource":          {func(r *broker.Request) { r.Resources = []string{"https://api.example"} }, func(w *world) { w.consent("alice") }},
		"another audience":          {func(r *broker.Request) { r.Audiences = []string{"api"} }, func(w *world) { w.consent("alice") }},
		"another user's connection": {scopes("read"), func(w *world) { w.consent("bob") }},
		"a connection that ended":   {scopes("read"), func(w *world) { w.revoke(w.consent("alice").Connection, true) }},
		"a dead refresh token": {scopes("read"), func(w *world) {
			w.provider.SetLifetime(60)
			w.consent("alice")
			w.provider.SetLifetime(3600)
			w.provider.RevokeAll()
			w.clock.add(30 * time.Second)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			wat := w.wat(w.agentA, "alice")
			p := w.pending(w.agentA, ask(wat, c.ask))
			c.then(w)
			w.pending(w.agentA, ask(wat, c.ask, session(p.Session)))
			w.hold(p.Session)
			must(t, w.complete(w.appA, p.Session, "alice"))
			w.token(w.agentA, ask(wat, c.ask, session(p.Session)))
		})
	}
}

// A token that is about to expire is refreshed first.
func TestOvertakenSessionIsAnsweredByAFreshToken(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat))
	w.provider.SetLifetime(60)
	old := w.consent("alice")
	w.provider.SetLifetime(3600)
	w.clock.add(30 * time.Second)
	if out := w.token(w.agentA, ask(wat, session(p.Session))); out.AccessToken.Equal(old.AccessToken) || out.Connection != old.Connection {
		t.Error("got the token that expires, want the connection's next one")
	}
}

// C31: a session that began when the connection was of one account is not answered with the token of another, also
// where the one or the other is not known.
func TestC31_OvertakenByAnotherAccount(t *testing.T) {
	as := func(sub string) func(*world) {
		return func(w *world) {
			if w.provider.SetIDToken(nil); sub != "" {
				w.as(sub)
			}
		}
	}
	for name, c := range map[string]struct {
		before, then func(*world)
		answered     bool
	}{
		"the same":         {as("ada"), as("ada"), true},
		"another":          {as("ada"), as("eve"), false},
		"it is not known":  {as("ada"), as(""), false},
		"it was not known": {as(""), as("eve"), false},
		"neither is known": {as(""), as(""), true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.before(w)
			w.consent("alice")
			wat := w.wat(w.agentA, "alice")
			both := scopes("read", "write")
			p := w.pending(w.agentA, ask(wat, both))
			c.then(w)
			forced := w.consent("alice", both, force)
			out, err := w.Token(t.Context(), w.agentA, ask(wat, both, session(p.Session)))
			must(t, err)
			if answered := out.AccessToken.Equal(forced.AccessToken); answered != c.answered || answered == (out.Session != "") {
				t.Errorf("answered with the token of the forced consent: %t, want %t", answered, c.answered)
			}
		})
	}
}

// A poll by somebody who may not act for the agent ends no session.
func TestC02_PollOfAStrangerOvertakesNothing(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat))
	w.consent("alice")
	for _, c := range []access.Caller{w.agentB, w.appA, w.admin} {
		_, err := w.Token(t.Context(), c, ask(wat, session(p.Session)))
		wantCode(t, c.Name, err, fault.Denied)
	}
	_, err := w.Token(t.Context(), w.agentB, ask(w.wat(w.agentB, "alice"), session(p.Session)))
	wantCode(t, "another agent", err, fault.Denied)
	if _, err := w.Authorize(t.Context(), p.Session); err != nil {
		t.Errorf("the session ended: %v", err)
	}
}
