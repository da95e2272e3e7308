package broker_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

const revokePath = oauthtest.Revoke

func (w *world) revoke(id string, skip bool) broker.RevokeOutcome {
	w.t.Helper()
	out, err := w.RevokeConnection(w.t.Context(), w.admin, id, skip)
	must(w.t, err)
	if c := w.connection(id); c.State != broker.Revoked || len(c.Access)+len(c.Refresh)+len(c.Attributes) != 0 || out.View.State != broker.Revoked {
		w.t.Errorf("after the revocation the row is %s with %d bytes of tokens", c.State, len(c.Access)+len(c.Refresh)+len(c.Attributes))
	}
	return out
}

func wantUpstream(t *testing.T, what string, out broker.RevokeOutcome, want broker.RevocationState, words string) {
	t.Helper()
	if out.Upstream != want || !strings.Contains(out.Detail, words) {
		t.Errorf("%s: got %s (%s), want %s (%s)", what, out.Upstream, out.Detail, want, words)
	}
}

// sweep makes the tries that are due, and returns how many.
func (w *world) sweep() int {
	w.t.Helper()
	n, err := w.SweepRevocations(w.t.Context())
	must(w.t, err)
	return n
}

func TestRevokedHereAndAtTheProvider(t *testing.T) {
	w := newWorld(t)
	out := w.consent("alice")
	wantUpstream(t, "revoke", w.revoke(out.Connection, false), broker.RevocationDone, "")
	if got := w.provider.Killed(); len(got) != 1 || !strings.HasPrefix(got[0], "refresh_token:rt-") {
		t.Errorf("the provider was asked to revoke %d tokens, want the refresh token", len(got))
	}
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	wantUpstream(t, "again", w.revoke(out.Connection, false), broker.RevocationDone, "")
	if n := w.provider.Hits(revokePath); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
	for _, outcome := range []string{"revoked", "upstream_revoked"} {
		if !w.recorded(access.RevokeConnection, outcome, "") {
			t.Errorf("no record with the outcome %s", outcome)
		}
	}
	// A new consent makes it serve again.
	w.hold(p.Session)
	must(t, w.complete(w.appA, p.Session, "alice"))
	if again := w.token(w.agentA, ask(w.wat(w.agentA, "alice"))); again.AccessToken.Equal(out.AccessToken) {
		t.Error("the revoked token is served after a new consent")
	}
	wantUpstream(t, "the second time", w.revoke(out.Connection, true), broker.RevocationSkipped, "")
	wantUpstream(t, "and again", w.revoke(out.Connection, false), broker.RevocationSkipped, "")
}

func TestRevokeTellsWhatTheProviderSaid(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(w *world)
		want    broker.RevocationState
		words   string
	}{
		"no endpoint": {func(w *world) {
			w.provider.SetMetadata("revocation_endpoint", nil)
		}, broker.RevocationUnsupported, ""},
		"endpoint on another host": {func(w *world) {
			w.provider.SetMetadata("revocation_endpoint", "https://elsewhere.example.com/revoke")
		}, broker.RevocationUnsupported, ""},
		"refusal": {func(w *world) {
			w.provider.Queue(revokePath, oauthtest.Status(400, `{"error":"unsupported_token_type","error_description":"not <this>"}`))
		}, broker.RevocationFailed, "unsupported_token_type"},
		"token dead already": {func(w *world) {
			w.provider.Queue(revokePath, oauthtest.Status(400, `{"error":"invalid_token"}`))
		}, broker.RevocationDone, ""},
		"busy": {func(w *world) { w.provider.Queue(revokePath, oauthtest.Status(503, "")) }, broker.RevocationPending, "busy"},
		"drop": {func(w *world) { w.provider.Queue(revokePath, oauthtest.Drop()) }, broker.RevocationPending, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.arrange(w)
			id := w.consent("alice").Connection
			wantUpstream(t, "revoke", w.revoke(id, false), c.want, c.words)
			wantUpstream(t, "asked again", w.revoke(id, false), c.want, c.words)
			w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
		})
	}
}

// The token is in the provider's error, and in nothing that we keep or say.
func TestRevocationEchoesNoToken(t *testing.T) {
	w := newWorld(t)
	out := w.consent("alice")
	w.provider.Queue(revokePath, func(rw http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		rw.WriteHeader(400)
		_, _ = rw.Write([]byte(`{"error":"invalid_request","error_description":"bad token ` + r.PostForm.Get("token") + `"}`))
	})
	got := w.revoke(out.Connection, false)
	wantUpstream(t, "revoke", got, broker.RevocationFailed, "bad token [secret]")
}

func TestRevocationIsTriedAgainAndGivesUp(t *testing.T) {
	w := newWorld(t)
	id := w.consent("alice").Connection
	for range 7 {
		w.provider.Queue(revokePath, oauthtest.Status(503, ""))
	}
	wantUpstream(t, "revoke", w.revoke(id, false), broker.RevocationPending, "busy")
	if n := w.sweep(); n != 0 {
		t.Errorf("tried %d times before it was due", n)
	}
	for try := 2; try <= 7; try++ {
		w.clock.add(6 * time.Hour)
		if n := w.sweep(); n != 1 {
			t.Fatalf("try %d: the sweep made %d", try, n)
		}
	}
	wantUpstream(t, "after seven", w.revoke(id, false), broker.RevocationPending, "")
	w.clock.add(6 * time.Hour)
	w.sweep()
	wantUpstream(t, "after eight", w.revoke(id, false), broker.RevocationDone, "")
	if n := len(w.provider.Killed()); n != 1 {
		t.Errorf("%d tokens were revoked", n)
	}

	bob := w.consent("bob").Connection
	for range 8 {
		w.provider.Queue(revokePath, oauthtest.Status(503, ""))
	}
	w.revoke(bob, false)
	for range 10 {
		w.clock.add(6 * time.Hour)
		w.sweep()
	}
	wantUpstream(t, "after eight failures", w.revoke(bob, false), broker.RevocationFailed, "busy")
	if n := w.provider.Hits(revokePath); n != 16 {
		t.Errorf("the provider was asked %d times, want 8 for each", n)
	}
	r, err := w.db.RevocationOf(t.Context(), account, bob)
	must(t, err)
	if len(r.Token) != 0 {
		t.Error("the sealed token outlives its revocation")
	}
	w.clock.add(8 * 24 * time.Hour)
	w.sweep()
	_, err = w.db.RevocationOf(t.Context(), account, bob)
	wantCode(t, "the outcome after a week", err, fault.NotFound)
}

// E18: a stored token does not go to where an edit of the provider points.
func TestE18_RevocationStaysWithItsProvider(t *testing.T) {
	w := newWorld(t)
	id := w.consent("alice").Connection
	evil := oauthtest.New(t)
	spec := w.spec("cal", "StrictOauth2")
	spec.DiscoveryURL = evil.URL + oauthtest.Metadata
	_, err := w.UpdateProvider(t.Context(), w.admin, spec)
	must(t, err)
	wantUpstream(t, "revoke", w.revoke(id, false), broker.RevocationFailed, "")
	if evil.Hits(revokePath)+evil.Hits(oauthtest.Token) != 0 {
		t.Error("the token went to the new address")
	}
}

// A refresh that is under way while the connection is revoked brings a token that only we know: it is revoked too.
func TestRevokedWhileItRefreshes(t *testing.T) {
	w := newWorld(t)
	out := w.consent("alice")
	w.clock.add(2 * time.Hour)
	w.provider.Queue(oauthtest.Token, func(rw http.ResponseWriter, r *http.Request, behave http.HandlerFunc) {
		w.revoke(out.Connection, false)
		behave(rw, r)
	})
	// The provider of this test ended the whole family, so let it hand out tokens all the same.
	w.provider.Queue(revokePath, oauthtest.Status(200, ""))
	_, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice")))
	wantCode(t, "the refresh that lost", err, fault.Unavailable)
	if n := w.sweep(); n != 1 {
		t.Fatalf("the sweep made %d revocations, want that of the new token", n)
	}
	if n := len(w.provider.Killed()); n != 1 {
		t.Errorf("%d tokens were revoked by the sweep", n)
	}
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
}

func TestReportedTokenIsRefreshedOnce(t *testing.T) {
	w := newWorld(t)
	out := w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	for range 5 {
		state, err := w.report(w.agentA, wat, out.Connection)
		must(t, err)
		if state != broker.Active {
			t.Errorf("state %s", state)
		}
	}
	if n := w.grants("refresh_token"); n != 1 {
		t.Errorf("five reports made %d refreshes", n)
	}
	if got := w.token(w.agentA, ask(wat)); got.AccessToken.Equal(out.AccessToken) {
		t.Error("the reported token is served again")
	}
	w.clock.add(31 * time.Second)
	_, err := w.report(w.agentA, wat, out.Connection)
	must(t, err)
	if n := w.grants("refresh_token"); n != 2 {
		t.Errorf("after the pause there were %d refreshes", n)
	}
	if !w.recorded(access.ReportTokenInvalid, "reported", "") {
		t.Error("no record of the report")
	}
	w.clock.add(31 * time.Second)
	w.provider.Queue(oauthtest.Token, oauthtest.Status(503, ""))
	_, err = w.report(w.agentA, wat, out.Connection)
	wantCode(t, "a provider that is down", err, fault.Unavailable)
	_, err = w.report(w.agentA, wat, out.Connection)
	wantCode(t, "right after it", err, fault.Throttled)
	w.clock.add(31 * time.Second)
	w.provider.RevokeAll()
	state, err := w.report(w.agentA, wat, out.Connection)
	must(t, err)
	if state != broker.NeedsReauth {
		t.Errorf("the provider refused the refresh token: %s", state)
	}
	w.pending(w.agentA, ask(wat))
}

func TestReportWithoutRefreshToken(t *testing.T) {
	w := newWorld(t)
	w.provider.Queue(oauthtest.Token, edit(func(m map[string]any) { delete(m, "refresh_token") }))
	out := w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	for range 2 {
		state, err := w.report(w.agentA, wat, out.Connection)
		must(t, err)
		if state != broker.NeedsReauth {
			t.Errorf("state %s", state)
		}
	}
	w.pending(w.agentA, ask(wat))

	first := w.token(w.agentA, ask(wat, machine))
	for range 3 {
		state, err := w.report(w.agentA, wat, first.Connection)
		must(t, err)
		if state != broker.Active {
			t.Errorf("a machine's token that was just fetched: %s", state)
		}
	}
	w.clock.add(31 * time.Second)
	_, err := w.report(w.agentA, wat, first.Connection)
	must(t, err)
	if again := w.token(w.agentA, ask(wat, machine)); again.AccessToken.Equal(first.AccessToken) || w.grants("client_credentials") != 2 {
		t.Errorf("after the report there were %d machine tokens, want a second", w.grants("client_credentials"))
	}
}

// Negative space: each pair of agent and user reports its own connections, and no other exists for it.
func TestReportIsForItsOwn(t *testing.T) {
	w := newWorld(t)
	id := w.consent("alice").Connection
	_, err := w.report(w.agentA, w.wat(w.agentA, "bob"), id)
	wantCode(t, "another user", err, fault.NotFound)
	_, err = w.report(w.agentB, w.wat(w.agentB, "alice"), id)
	wantCode(t, "another agent", err, fault.NotFound)
	_, err = w.report(w.agentA, w.wat(w.agentA, "alice"), "cn_nothing")
	wantCode(t, "nothing", err, fault.NotFound)
	_, err = w.report(w.agentB, w.wat(w.agentA, "alice"), id)
	wantCode(t, "another's workload access token", err, fault.Denied)
	_, err = w.report(w.appA, w.wat(w.agentA, "alice"), id)
	wantCode(t, "the app", err, fault.Denied)
	_, err = w.report(w.admin, w.wat(w.agentA, "alice"), id)
	wantCode(t, "an administrator", err, fault.Denied)
	old := w.wat(w.agentA, "alice")
	w.clock.add(identity.UserTokenLife)
	_, err = w.report(w.agentA, old, id)
	wantCode(t, "an expired token", err, fault.Unauthenticated)
	if n := w.grants("refresh_token"); n != 0 {
		t.Errorf("%d refreshes", n)
	}
	if n := w.refused("not-its-connection"); n != 3 {
		t.Errorf("%d records of it, want 3", n)
	}
}
