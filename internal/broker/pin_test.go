package broker_test

import (
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// The metadata of a provider moves its authorization endpoint: no browser is sent there until an administrator brings
// the client secret again. Tokens that are stored go on.
func TestC15_AuthorizationEndpointMoves(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	evil := oauthtest.New(t)
	flip := func(to string) {
		w.provider.SetMetadata("authorization_endpoint", to)
		w.expire(0)
	}
	flip(evil.URL + "/authorize")
	w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
	open := w.pending(w.agentA, ask(w.wat(w.agentA, "bob"))).Session
	for range 2 {
		v, err := w.Authorize(t.Context(), open)
		wantError(t, "authorize", err, fault.Denied, "moved its authorization endpoint to another host")
		if !v.URL.IsZero() || strings.Contains(fault.Public(err).Msg, "127.0.0.1") {
			t.Errorf("got the address %q and %v, want none, and no host in what is shown", v.URL.Expose(), err)
		}
	}

	_, err := w.UpdateProvider(t.Context(), w.admin, w.spec("cal", "StrictOauth2")) // brings the secret
	must(t, err)
	v, err := w.Authorize(t.Context(), open)
	must(t, err)
	if got := v.URL.Expose(); !strings.HasPrefix(got, evil.URL+"/") {
		t.Errorf("after the update the browser is sent to %s, want %s", got, evil.URL)
	}
	flip(w.provider.URL + "/authorize") // and now that one is pinned
	_, err = w.Authorize(t.Context(), w.pending(w.agentA, ask(w.wat(w.agentA, "bob"))).Session)
	wantCode(t, "back without an administrator", err, fault.Denied)
}

// Another path on the same host is the provider's own business.
func TestC15_PathsMayMove(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	moved := w.provider.URL + "/v2/authorize"
	w.provider.SetMetadata("authorization_endpoint", moved)
	w.expire(0)
	v, err := w.Authorize(t.Context(), w.pending(w.agentA, ask(w.wat(w.agentA, "bob"))).Session)
	must(t, err)
	if got := v.URL.Expose(); !strings.HasPrefix(got, moved+"?") {
		t.Errorf("the browser is sent to %s, want %s", got, moved)
	}
}
