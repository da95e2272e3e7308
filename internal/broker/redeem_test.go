package broker_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// held walks to a held code.
func (w *world) held(user string) string {
	w.t.Helper()
	p := w.pending(w.agentA, ask(w.wat(w.agentA, user)))
	w.hold(p.Session)
	return p.Session
}

// What a provider's failure at the redemption means for the code.
func TestRedemptionFailures(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault oauthtest.Fault
		code  fault.Code
		msg   string
		again bool // the code is still held
	}{
		{"5xx", oauthtest.Status(http.StatusServiceUnavailable, "down"), fault.Unavailable, "cannot answer the code now", true},
		{"429", oauthtest.Status(http.StatusTooManyRequests, "{}"), fault.Unavailable, "", true},
		{"invalid_grant", oauthtest.Status(http.StatusBadRequest, `{"error":"invalid_grant","error_description":"too old\u0000"}`), fault.Denied, "Invalid or expired session: provider cal refused the code: invalid_grant (too old", false},
		{"unanswered", oauthtest.Drop(), fault.Denied, "gave no usable answer", false},
		{"no token in the answer", oauthtest.Answer("{}"), fault.Denied, "gave no usable answer", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			s := w.held("alice")
			w.provider.Queue("/token", c.fault)
			wantError(t, "complete", w.complete(w.appA, s, "alice"), c.code, c.msg)
			err := w.complete(w.appA, s, "alice")
			if c.again {
				must(t, err)
				if !w.recorded(access.RedeemCode, "postponed", "busy") {
					t.Error("the trail does not say that it was postponed")
				}
				return
			}
			wantEnding(t, "complete again", err, broker.EndFailed)
			if n := w.grants("authorization_code"); n != 1 {
				t.Errorf("the code was sent %d times, want once", n)
			}
			if !w.recorded(access.RedeemCode, "failed", "") {
				t.Error("the trail does not say that it failed")
			}
		})
	}
}

// A refused code is in the trail before what is remembered of the refusal, which the store may not take.
func TestCrashRefusedCodeIsInTheTrailFirst(t *testing.T) {
	w := newWorld(t)
	w.consent("alice", scopes("a"))
	s := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), scopes("b"))).Session
	w.hold(s)
	w.provider.Queue(oauthtest.Token, oauthtest.Status(http.StatusBadRequest, `{"error":"invalid_scope"}`))
	w.store.fail(w.store.before, "ForgetRequested", times(1, errors.New("connection reset")))
	if err := w.complete(w.appA, s, "alice"); err == nil {
		t.Error("got no error of a store that failed")
	}
	if !w.recorded(access.RedeemCode, "failed", "invalid_scope") {
		t.Error("the trail does not say that the code was refused")
	}
	wantEnding(t, "complete again", w.complete(w.appA, s, "alice"), broker.EndFailed)
}

// The store's answer to FinishRedeem was lost after the commit: the redemption succeeded.
func TestCrashAnswerOfRedemptionIsLost(t *testing.T) {
	w := newWorld(t)
	s := w.held("alice")
	w.store.fail(w.store.after, "FinishRedeem", times(1, errors.New("connection reset")))
	must(t, w.complete(w.appA, s, "alice"))
	out := w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
	if c := w.connection(out.Connection); c.Generation != 1 {
		t.Errorf("got generation %d, want 1", c.Generation)
	}
}

// The store does not answer at first: what the code brought is offered again.
func TestCrashRedemptionIsStoredLater(t *testing.T) {
	w := newWorld(t)
	s := w.held("alice")
	w.store.fail(w.store.before, "FinishRedeem", times(3, fault.New(fault.Unavailable, "the store does not answer")))
	must(t, w.complete(w.appA, s, "alice"))
	w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
}

// Another session of the same user changes the connection between our read and our write: neither consent is lost.
func TestRedemptionMeetsAnotherChange(t *testing.T) {
	w := newWorld(t)
	first := w.held("alice")
	second := w.held("alice")
	inside := false
	w.store.fail(w.store.before, "FinishRedeem", func() error {
		if inside {
			return nil
		}
		inside = true
		return w.complete(w.appA, second, "alice")
	})
	must(t, w.complete(w.appA, first, "alice"))
	out := w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
	if c := w.connection(out.Connection); c.Generation != 2 {
		t.Errorf("got generation %d, want 2: both consents stored", c.Generation)
	}
}

// The server that redeemed died with the answer on its way. The code is not sent again, and the session says so.
func TestInterruptedRedemption(t *testing.T) {
	w := newWorld(t)
	s := w.held("alice")
	id := w.store.lastHeld()
	_, err := w.db.StartRedeem(t.Context(), id, broker.Attempt{Account: account, Subject: id, Kind: "redeem", Started: w.clock.now()}, time.Millisecond)
	must(t, err)
	time.Sleep(5 * time.Millisecond) // the database's clock is real
	wantEnding(t, "complete", w.complete(w.appA, s, "alice"), broker.EndFailed)
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none", n)
	}
	if f, err := w.db.FlowByID(t.Context(), id); err != nil || f.State != broker.FlowFailed || len(f.Code) != 0 || !strings.Contains(f.Reason, "interrupted") {
		t.Errorf("got state %s (%s), %d bytes of code, %v; want it failed and erased", f.State, f.Reason, len(f.Code), err)
	}
}

// A store that cannot answer is not a provider that was deleted.
func TestStoreOutageIsNotAnEnding(t *testing.T) {
	w := newWorld(t)
	s := w.held("alice")
	fresh := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"))).Session
	w.store.fail(w.store.before, "ProviderByUID", times(2, fault.New(fault.Unavailable, "the store does not answer")))
	_, err := w.Authorize(t.Context(), fresh)
	wantCode(t, "authorize", err, fault.Unavailable)
	wantCode(t, "complete", w.complete(w.appA, s, "alice"), fault.Unavailable)
	must(t, w.complete(w.appA, s, "alice"))
}

func TestCompleteBeforeConsent(t *testing.T) {
	w := newWorld(t)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	wantError(t, "complete", w.complete(w.appA, p.Session, "alice"), fault.Denied, "the user has not consented yet")
	w.hold(p.Session)
	must(t, w.complete(w.appA, p.Session, "alice"))
}

// What is sealed in a session is gone once it is over.
func TestEndedSessionHoldsNoSecrets(t *testing.T) {
	w := newWorld(t)
	s := w.held("alice")
	id := w.store.lastHeld()
	must(t, w.complete(w.appA, s, "alice"))
	f, err := w.db.FlowByID(t.Context(), id)
	must(t, err)
	if f.State != broker.FlowRedeemed || len(f.Code) != 0 || len(f.Verifier) != 0 {
		t.Errorf("got state %s with %d bytes of code and %d of verifier, want none", f.State, len(f.Code), len(f.Verifier))
	}
}

// C16: a PKCE challenge S256 goes with every authorization request and its verifier with every code, and a provider
// that says it cannot do S256 is not used.
func TestC16_PKCECannotBeDowngraded(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	s := w.pending(w.agentA, ask(w.wat(w.agentA, "bob"))).Session
	var challenges []string
	for range 3 {
		v, err := w.Authorize(t.Context(), s)
		must(t, err)
		q := query(t, v.URL)
		if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q["code_challenge"]) != 1 {
			t.Errorf("got challenge %q by %q", q["code_challenge"], q["code_challenge_method"])
		}
		challenges = append(challenges, q.Get("code_challenge"), q.Get("state"))
	}
	if slices.Sort(challenges); len(slices.Compact(challenges)) != 6 {
		t.Error("two visits share a challenge or a state")
	}
	if v := w.provider.Requests()[0].Form.Get("code_verifier"); len(v) < 43 {
		t.Errorf("got verifier %q, want 43 characters (RFC 7636 §4.1)", v)
	}
	for _, methods := range [][]string{{"plain"}, {"plain", "s256"}} {
		w.provider.SetMetadata("code_challenge_methods_supported", methods)
		w.clock.add(11 * time.Minute)
		p := w.pending(w.agentA, ask(w.wat(w.agentA, "bob")))
		_, err := w.Authorize(t.Context(), p.Session)
		wantError(t, strings.Join(methods, " "), err, fault.Invalid, "without S256")
	}
}
