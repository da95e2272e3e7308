package broker_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// expire lets the hour of the token pass until left remains.
func (w *world) expire(left time.Duration) { w.clock.add(time.Hour - left) }

// alice asks for her token again.
func (w *world) alice() (broker.Outcome, error) {
	w.t.Helper()
	return w.Token(w.t.Context(), w.agentA, ask(w.wat(w.agentA, "alice")))
}

// sentRefresh lists the refresh tokens that the provider got, in order.
func (w *world) sentRefresh() []string {
	var out []string
	for _, r := range w.provider.Requests() {
		if t := r.Form.Get("refresh_token"); t != "" {
			out = append(out, t)
		}
	}
	return out
}

func TestReleasedTokenHasAMinuteLeft(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	w.expire(60 * time.Second)
	if out, err := w.alice(); err != nil || !out.AccessToken.Equal(old.AccessToken) {
		t.Errorf("60 s left: got another token, or %v", err)
	}
	w.clock.add(time.Second)
	out, err := w.alice()
	must(t, err)
	if out.AccessToken.Equal(old.AccessToken) || !out.Expires.Equal(w.clock.now().Add(time.Hour)) {
		t.Error("59 s left: got the old token")
	}
	if c := w.connection(out.Connection); c.Generation != 2 || c.State != broker.Active || c.ID != old.Connection {
		t.Errorf("got generation %d, state %s, want 2, active, the same connection", c.Generation, c.State)
	}
	if !w.recorded(access.GetResourceOauth2Token, "refresh", "") || !w.recorded(access.RefreshTokens, "refreshed", "") {
		t.Error("a refresh has a record before the call and one after it, and one is missing")
	}
}

func TestRotationIsFollowed(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	for range 4 {
		w.expire(0)
		if _, err := w.alice(); err != nil {
			t.Fatal(err)
		}
	}
	sent := w.sentRefresh()
	if slices.Sort(sent); len(sent) != 4 || len(slices.Compact(sent)) != 4 {
		t.Errorf("sent %d refresh tokens, want 4, each once", len(sent))
	}
}

func TestProviderThatDoesNotRotateKeepsTheToken(t *testing.T) {
	w := newWorld(t)
	w.provider.SetRotate(false)
	w.consent("alice")
	for range 3 {
		w.expire(0)
		if _, err := w.alice(); err != nil {
			t.Fatal(err)
		}
	}
	if sent := w.sentRefresh(); len(sent) != 3 || sent[0] != sent[2] {
		t.Errorf("sent %d refresh tokens, want 3 times the same", len(sent))
	}
}

// A refresh may narrow the scopes, and where it does not name them they are what was granted before, not what was asked
// for (RFC 6749 §5.1, §6).
func TestRefreshKeepsWhatItIsNotTold(t *testing.T) {
	w := newWorld(t)
	say := func(scope string) { w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = scope })) }
	say("read write")
	w.consent("alice", scopes("read", "write", "admin"))
	w.provider.Queue("/token", edit(func(m map[string]any) { delete(m, "scope") }))
	say("read")
	say("")
	for _, want := range [][]string{{"read", "write"}, {"read"}, {"read"}} {
		w.expire(0)
		if out, err := w.alice(); err != nil || !slices.Equal(out.Granted, want) {
			t.Errorf("got %v granted and %v, want %v", out.Granted, err, want)
		}
	}
}

func TestInvalidGrantAsksTheUserAgain(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	w.provider.RevokeAll()
	w.expire(0)
	out, err := w.alice()
	must(t, err)
	if !out.AccessToken.IsZero() || out.Session == "" {
		t.Fatal("got no consent session after invalid_grant")
	}
	c := w.connection(old.Connection)
	if c.State != broker.NeedsReauth || c.Reason != "invalid_grant" || len(c.Refresh) == 0 {
		t.Errorf("got state %s, reason %q, %d bytes of refresh token; want needs_reauth, invalid_grant, and the token kept", c.State, c.Reason, len(c.Refresh))
	}
	if !w.recorded(access.RefreshTokens, "needs_reauth", "invalid_grant") {
		t.Error("the trail does not say why")
	}
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	if n := len(w.sentRefresh()); n != 1 {
		t.Errorf("the refused refresh token was sent %d times, want once", n)
	}
	// The new consent heals the same connection.
	again := w.consent("alice")
	if c := w.connection(again.Connection); again.Connection != old.Connection || c.State != broker.Active || c.Reason != "" || c.Generation != 2 {
		t.Errorf("after the new consent: %+v", c)
	}
}

// A token without a refresh token ends with its hour.
func TestNoRefreshTokenAsksTheUserAgain(t *testing.T) {
	w := newWorld(t)
	w.provider.Queue("/token", edit(func(m map[string]any) { delete(m, "refresh_token") }))
	w.consent("alice")
	w.expire(0)
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
}

// What a provider's failure means for the refresh token, by what it said and how it rotates.
func TestRefreshFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		vendor string
		fault  oauthtest.Fault
		code   fault.Code // "" where a consent session is the answer
		state  broker.ConnectionState
		reason string
	}{
		{"5xx", "StrictOauth2", oauthtest.Status(http.StatusServiceUnavailable, "down"), fault.Unavailable, broker.Active, ""},
		{"429", "StrictOauth2", oauthtest.Status(http.StatusTooManyRequests, `{"error":"slow_down"}`), fault.Unavailable, broker.Active, ""},
		{"client refused", "StrictOauth2", oauthtest.Status(http.StatusUnauthorized, `{"error":"invalid_client"}`), fault.Invalid, broker.Active, ""},
		{"unanswered, rotating", "StrictOauth2", oauthtest.Drop(), "", broker.NeedsReauth, "unanswered_refresh"},
		{"unanswered, unknown rotation", "CustomOauth2", oauthtest.Drop(), "", broker.NeedsReauth, "unanswered_refresh"},
		{"garbage, rotating", "StrictOauth2", oauthtest.Answer("<html>"), "", broker.NeedsReauth, "unanswered_refresh"},
		{"unanswered, not rotating", "SteadyOauth2", oauthtest.Drop(), fault.Unavailable, broker.Active, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.provider.SetRotate(c.vendor != "SteadyOauth2")
			w.createProvider("p", c.vendor)
			old := w.consent("alice", at("p"))
			w.expire(0)
			w.provider.Queue("/token", c.fault)
			out, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("p")))
			wantCode(t, "the call", err, c.code)
			if (out.Session != "") != (c.code == "") || !out.AccessToken.IsZero() {
				t.Errorf("got session %q", out.Session)
			}
			row := w.connection(old.Connection)
			if row.State != c.state || row.Reason != c.reason || len(row.Refresh) == 0 || row.Generation != 1 {
				t.Errorf("got state %s, reason %q, generation %d; want %s, %q, 1 and the tokens kept", row.State, row.Reason, row.Generation, c.state, c.reason)
			}
			if c.reason != "" {
				if !w.recorded(access.RefreshTokens, "needs_reauth", c.reason) {
					t.Error("the trail does not name the lost connection")
				}
				return
			}
			if got, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("p"))); err != nil || got.AccessToken.IsZero() {
				t.Errorf("once the provider is well: got %v, want a token", err)
			}
		})
	}
}

// The holder of a lease died between the journal and the result. Where the provider rotates, the refresh token may be
// spent, and is not sent again: one connection is lost, and the trail says so. Where it does not rotate, nothing is.
func TestInterruptedRefresh(t *testing.T) {
	for _, c := range []struct {
		vendor string
		lost   bool
	}{{"StrictOauth2", true}, {"CustomOauth2", true}, {"SteadyOauth2", false}} {
		t.Run(c.vendor, func(t *testing.T) {
			w := newWorld(t)
			w.provider.SetRotate(c.lost)
			w.createProvider("p", c.vendor)
			old := w.connection(w.consent("alice", at("p")).Connection)
			_, err := w.db.LeaseConnection(t.Context(), broker.Attempt{
				Account: account, Subject: old.ID, Kind: "refresh", Generation: 1, Started: w.clock.now(),
			}, old.Key, time.Millisecond) // and then it dies
			must(t, err)
			w.expire(0)
			time.Sleep(5 * time.Millisecond) // the database's clock is real
			out, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("p")))
			must(t, err)
			now, sent := w.connection(old.ID), len(w.sentRefresh())
			if !c.lost {
				if out.AccessToken.IsZero() || sent != 1 || now.State != broker.Active || now.Generation != 2 {
					t.Errorf("got %d refreshes, state %s, want a new token", sent, now.State)
				}
				return
			}
			if out.Session == "" || sent != 0 || now.State != broker.NeedsReauth || now.Reason != "interrupted_refresh" {
				t.Errorf("got session %q, %d refreshes, state %s (%s); want a consent session and no refresh", out.Session, sent, now.State, now.Reason)
			}
			if !w.recorded(access.RefreshTokens, "needs_reauth", "interrupted_refresh") {
				t.Error("the trail does not name the lost connection")
			}
		})
	}
}

// Fifty callers at the moment of expiry: one request to the provider, and everybody has the new token.
func TestOneRefreshForAll(t *testing.T) {
	for _, lifetime := range []int{3600, 30} { // also where no token ever has a minute left
		t.Run(strconv.Itoa(lifetime)+" s", func(t *testing.T) {
			w := newWorld(t)
			w.consent("alice")
			w.expire(0)
			w.provider.SetLifetime(lifetime)
			wat := w.wat(w.agentA, "alice")
			release := make(chan struct{})
			w.provider.Queue("/token", oauthtest.Slow(release))
			outs, errs := make([]broker.Outcome, 50), make([]error, 50)
			var all sync.WaitGroup
			for i := range outs {
				all.Go(func() { outs[i], errs[i] = w.Token(t.Context(), w.agentA, ask(wat)) })
			}
			for w.grants("refresh_token") == 0 {
				time.Sleep(time.Millisecond)
			}
			close(release)
			all.Wait()
			for i := range outs {
				if errs[i] != nil || !outs[i].AccessToken.Equal(outs[0].AccessToken) || outs[i].AccessToken.IsZero() {
					t.Errorf("caller %d: got session %q, %v; want the one new token", i, outs[i].Session, errs[i])
				}
			}
			if n := w.grants("refresh_token"); n != 1 {
				t.Errorf("the provider got %d refreshes, want 1", n)
			}
		})
	}
}

// The caller goes away while the provider answers: what was begun is finished.
func TestRefreshOutlivesItsCaller(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	w.expire(0)
	release := make(chan struct{})
	w.provider.Queue("/token", oauthtest.Slow(release))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	r := ask(w.wat(w.agentA, "alice"))
	go func() { _, err := w.Token(ctx, w.agentA, r); done <- err }()
	for w.grants("refresh_token") == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	select {
	case <-done:
		t.Error("the call ended before the provider answered")
	case <-time.After(50 * time.Millisecond):
		close(release)
		<-done
	}
	if c := w.connection(old.Connection); c.Generation != 2 || c.State != broker.Active {
		t.Errorf("got generation %d, state %s: the rotated token is lost", c.Generation, c.State)
	}
	if _, err := w.alice(); err != nil {
		t.Error(err)
	}
}

// The store does not take the result at first. It exists nowhere else, so it is offered until it is taken.
func TestCrashCommitIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	w.expire(0)
	w.store.fail(w.store.before, "FinishLease", times(3, fault.New(fault.Unavailable, "the store does not answer")))
	out, err := w.alice()
	must(t, err)
	if c := w.connection(old.Connection); c.Generation != 2 || out.AccessToken.Equal(old.AccessToken) {
		t.Errorf("got generation %d: the rotated token is lost", c.Generation)
	}
	w.expire(0)
	// The provider may take 10 s and the commit 25 s: whoever finds the lease run out takes its holder to be dead.
	if ttl := w.store.lastLease(); ttl < 36*time.Second {
		t.Errorf("the lease lives %s, and its holder may need 35 s", ttl)
	}
	if _, err := w.alice(); err != nil { // the refresh token that was stored is the provider's newest
		t.Error(err)
	}
}

// The store took the result and its answer was lost.
func TestCrashAnswerOfCommitIsLost(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	w.expire(0)
	w.store.fail(w.store.after, "FinishLease", times(1, errors.New("connection reset")))
	if _, err := w.alice(); err != nil {
		t.Error(err)
	}
	if c := w.connection(old.Connection); c.Generation != 2 || c.State != broker.Active {
		t.Errorf("got generation %d, state %s, want 2, active", c.Generation, c.State)
	}
}

func TestMachineToken(t *testing.T) {
	w := newWorld(t)
	m, err := w.identity.MintToken(t.Context(), w.agentA, "agent-a")
	must(t, err)
	first := w.token(w.agentA, ask(m.Token, machine))
	for _, c := range []struct {
		name   string
		change []func(*broker.Request)
		same   bool
	}{
		{"again", nil, true},
		{"other scopes", []func(*broker.Request){scopes("read", "write")}, false},
		{"fewer scopes", []func(*broker.Request){scopes()}, false},
		{"a resource", []func(*broker.Request){func(r *broker.Request) { r.Resources = []string{"https://r.example"} }}, false},
	} {
		out := w.token(w.agentA, ask(m.Token, append(c.change, machine)...))
		if (out.Connection == first.Connection) != c.same || out.AccessToken.Equal(first.AccessToken) != c.same {
			t.Errorf("%s: got the same token: %v, want %v", c.name, !c.same, c.same)
		}
	}
	// The token is the agent's own: for which user it asks does not matter. Another agent has its own.
	if out := w.token(w.agentA, ask(w.wat(w.agentA, "bob"), machine)); out.Connection != first.Connection {
		t.Error("with a user's token the agent gets another machine token")
	}
	if out := w.token(w.agentB, ask(w.wat(w.agentB, "bob"), machine)); out.Connection == first.Connection {
		t.Error("agent-b is served from agent-a's connection")
	}
	w.expire(30 * time.Second)
	if out := w.token(w.agentA, ask(w.wat(w.agentA, "bob"), machine)); out.AccessToken.Equal(first.AccessToken) || out.Connection != first.Connection {
		t.Error("with 30 s left: got the old token, or another connection")
	}
	if out := w.token(w.agentA, ask(w.wat(w.agentA, "bob"), machine, force)); w.connection(out.Connection).Generation != 3 {
		t.Error("force did not fetch")
	}
	for _, r := range w.records() {
		if r.Facts.Flow == broker.FlowM2M && r.Facts.UserRef != "" && r.Rule == "event" {
			t.Errorf("the record of a machine's token names a user: %+v", r.Facts)
		}
	}
}

func TestMachineTokenFailures(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	w.provider.Queue("/token", oauthtest.Status(http.StatusBadRequest, `{"error":"invalid_scope","error_description":"no <b>such</b> scope"}`))
	_, err := w.Token(t.Context(), w.agentA, ask(wat, machine))
	wantError(t, "rejected", err, fault.Invalid, "provider cal refused the client credentials: invalid_scope (no <b>such</b> scope)")
	w.provider.Queue("/token", oauthtest.Status(http.StatusBadGateway, "x"))
	_, err = w.Token(t.Context(), w.agentA, ask(wat, machine))
	wantCode(t, "5xx", err, fault.Unavailable)
	w.provider.Queue("/token", oauthtest.Drop())
	_, err = w.Token(t.Context(), w.agentA, ask(wat, machine))
	wantCode(t, "unanswered", err, fault.Unavailable)
	if !w.recorded(access.GetResourceOauth2Token, "failed", "invalid_scope") {
		t.Error("the trail does not say what the provider answered")
	}
}

// Callers that fetch at once: each is served, and all answers name the connection that exists.
func TestMachineTokenTogether(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	outs, errs := make([]broker.Outcome, 8), make([]error, 8)
	var all sync.WaitGroup
	for i := range outs {
		all.Go(func() { outs[i], errs[i] = w.Token(t.Context(), w.agentA, ask(wat, machine)) })
	}
	all.Wait()
	for i, out := range outs {
		if errs[i] != nil || out.AccessToken.IsZero() {
			t.Errorf("caller %d: %v", i, errs[i])
			continue
		}
		if c := w.connection(out.Connection); c.Flow != broker.FlowM2M {
			t.Errorf("caller %d: the answer names connection %+v", i, c)
		}
	}
}
