package broker_test

import (
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

// An agent that begins consent over and over is stopped, for this user only, until the sessions end.
func TestC29_FlowFlood(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	first := w.pending(w.agentA, ask(wat))
	for range 49 {
		w.pending(w.agentA, ask(wat))
	}
	for range 2 {
		_, err := w.Token(t.Context(), w.agentA, ask(wat))
		wantError(t, "the 51st session", err, fault.Throttled, "50 consent sessions of this user are open at workload identity agent-a")
	}
	if n := w.refused("too-many-sessions"); n != 2 {
		t.Errorf("the trail has %d refusals, want 2", n)
	}
	w.pending(w.agentA, ask(w.wat(w.agentA, "bob")))
	w.pending(w.agentB, ask(w.wat(w.agentB, "alice")))
	w.pending(w.agentA, ask(wat, session(first.Session))) // a poll opens nothing

	w.hold(first.Session)
	must(t, w.complete(w.appA, first.Session, "alice"))
	w.pending(w.agentA, ask(wat, force)) // what is redeemed does not count
	_, err := w.Token(t.Context(), w.agentA, ask(wat, force))
	wantCode(t, "in its place, and one more", err, fault.Throttled)
	w.clock.add(broker.SessionLifetime)
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), force))
}
