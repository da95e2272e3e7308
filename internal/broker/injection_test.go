package broker_test

import (
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/secret"
)

// The attacker has a code of his own, from the same provider and client, and puts it into alice's flow.
func TestC11_InjectedCode(t *testing.T) {
	inject := func(change func(attack *broker.Answer, victim broker.Answer)) (w *world, wat secret.Text, session string, err error) {
		w = newWorld(t)
		wat = w.wat(w.agentA, "alice")
		session = w.pending(w.agentA, ask(wat)).Session
		victim := w.visit(session)
		attack := w.visit(w.pending(w.agentA, ask(w.wat(w.agentA, "mallory"))).Session)
		change(&attack, victim)
		_, err = w.Callback(t.Context(), attack)
		return w, wat, session, err
	}

	// With the victim's state and cookie the callback cannot tell. The provider does: the verifier is that of alice's
	// visit.
	w, wat, s, err := inject(func(a *broker.Answer, v broker.Answer) { a.State, a.Cookie = v.State, v.Cookie })
	must(t, err)
	wantEnding(t, "alice completes", w.complete(w.appA, s, "alice"), broker.EndFailed)
	if n := w.grants("authorization_code"); n != 1 {
		t.Errorf("the token endpoint got %d codes, want the one that it refused", n)
	}
	_, err = w.Token(t.Context(), w.agentA, ask(wat, session(s)))
	wantEnding(t, "alice's agent polls", err, broker.EndFailed)
	if !w.recorded(access.RedeemCode, "failed", "invalid_grant") {
		t.Error("the trail does not say that the provider refused the code")
	}
	w.nothingStored(wat)

	// With the attacker's state the answer is of his visit, whose cookie alice's browser does not have.
	w, wat, s, err = inject(func(a *broker.Answer, v broker.Answer) { a.Cookie = v.Cookie })
	wantEnding(t, "the attacker's state, the victim's cookie", err, broker.EndOtherBrowser)
	wantEnding(t, "alice completes without an answer", w.complete(w.appA, s, "alice"), broker.EndUnknown)
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none", n)
	}
	w.nothingStored(wat)

	// With both it is his flow from end to end, and alice's is where it was.
	w, wat, s, err = inject(func(*broker.Answer, broker.Answer) {})
	must(t, err)
	wantEnding(t, "alice completes her own", w.complete(w.appA, s, "alice"), broker.EndUnknown)
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none", n)
	}
	w.nothingStored(wat)
}

// nothingStored wants no connection of the token's user at "cal".
func (w *world) nothingStored(wat secret.Text) {
	w.t.Helper()
	w.pending(w.agentA, ask(wat))
	list, _, err := w.Connections(w.t.Context(), w.admin, broker.ConnectionQuery{}, "", 10)
	must(w.t, err)
	if len(list) != 0 {
		w.t.Errorf("%d connections are stored, want none", len(list))
	}
}
