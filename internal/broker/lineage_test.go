package broker_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// siblings has a connection for Graph and one for api://x, on one refresh token.
func siblings(t *testing.T) (w *world, mail, x broker.Outcome) {
	t.Helper()
	w = entraWorld(t)
	w.provider.Consent("api://x/read")
	mail = w.entraConsent("Mail.Read", "offline_access")
	return w, mail, w.served("api://x", "api://x/read", "offline_access")
}

// Two siblings at once: the provider never has two requests with a refresh token of ours.
func TestM05_OneLeaseForSiblings(t *testing.T) {
	w, _, _ := siblings(t)
	w.clock.add(2 * time.Hour)
	wat, release, before := w.wat(w.agentA, "alice"), make(chan struct{}), w.grants("refresh_token")
	w.provider.Queue("/token", oauthtest.Slow(release))
	var all sync.WaitGroup
	for i := range 6 {
		s := "Mail.Read"
		if i%2 == 0 {
			s = "api://x/read"
		}
		all.Go(func() {
			if out, err := w.Token(t.Context(), w.agentA, ask(wat, at("v"), scopes(s))); err != nil || out.AccessToken.IsZero() {
				t.Errorf("%s: got session %q, %v", s, out.Session, err)
			}
		})
	}
	for w.grants("refresh_token") == before {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(150 * time.Millisecond)
	if n := w.grants("refresh_token") - before; n != 1 {
		t.Errorf("%d refreshes are under way, want 1", n)
	}
	close(release)
	all.Wait()
	if n := w.grants("refresh_token") - before; n != 2 {
		t.Errorf("%d refreshes, want one for each resource", n)
	}
}

// The answer to a commit is lost, or the store is away for a moment: nothing is lost.
func TestM05_CommitOfALineage(t *testing.T) {
	w, _, _ := siblings(t)
	for name, when := range map[string]map[string]func() error{"before": w.store.before, "after": w.store.after} {
		w.clock.add(2 * time.Hour)
		w.store.fail(when, "FinishLineage", times(1, fault.New(fault.Unavailable, "away")))
		w.served("api://x", "api://x/read")
		w.served(graph, "Mail.Read")
		w.store.fail(when, "FinishLineage", nil)
		_ = name
	}
	if n := w.grants("authorization_code"); n != 1 {
		t.Errorf("%d consents, want 1", n)
	}
}

// The provider answers with a token of another resource: it is not kept, and nobody gets it.
func TestM05_AnswerForAnotherResource(t *testing.T) {
	w, _, _ := siblings(t)
	w.clock.add(2 * time.Hour)
	lie := edit(func(m map[string]any) { m["scope"] = "https://graph.microsoft.com/Mail.Read" })
	w.provider.Queue("/token", lie)
	_, err := w.api("api://x/read")
	wantError(t, "a refresh", err, fault.Unavailable, "api://x")
	w.served("api://x", "api://x/read")
	p := w.asked("api://y/read")
	w.hold(p.Session)
	w.provider.Queue("/token", lie)
	wantEnding(t, "a code", w.complete(w.appA, p.Session, "alice"), broker.EndFailed)
}

// A refresh that grants less than was asked leaves the rest to the user: nobody declined it.
func TestM05_LessThanAsked(t *testing.T) {
	w := entraWorld(t)
	w.provider.Consent("api://x/read api://x/write")
	w.entraConsent("Mail.Read", "offline_access")
	w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = "api://x/read" }))
	w.asked("api://x/read", "api://x/write")
	w.asked("api://x/write")
	w.served("api://x", "api://x/read")
}

// Revoking one leaves the refresh token to the other, names it, and is not undone by it; the last one ends it upstream.
func TestM05_RevokingSiblings(t *testing.T) {
	engines(t, func(t *testing.T) {
		w, mail, x := siblings(t)
		out, err := w.RevokeConnection(t.Context(), w.admin, x.Connection, false)
		must(t, err)
		if out.Upstream != broker.RevocationSkipped || !strings.Contains(out.Detail, mail.Connection) {
			t.Errorf("got %s, %q; want what else lives on the refresh token", out.Upstream, out.Detail)
		}
		if !w.recorded(access.RevokeConnection, "revoked", mail.Connection) {
			t.Error("the trail does not name what lives on")
		}
		w.asked("api://x/read")
		w.clock.add(2 * time.Hour)
		w.served(graph, "Mail.Read")
		lineage := w.connection(mail.Connection).Lineage
		out, err = w.RevokeConnection(t.Context(), w.admin, mail.Connection, false)
		must(t, err)
		if out.Upstream != broker.RevocationUnsupported {
			t.Errorf("the last one: got %s %q", out.Upstream, out.Detail)
		}
		_, err = w.db.Lineage(t.Context(), account, lineage)
		wantCode(t, "the refresh token of nobody", err, fault.NotFound)
		w.asked("Mail.Read")
		w.asked("api://z/read")
	})
}

// Deleting one deletes the refresh token, which would bring it again without the user.
func TestM05_DeletingASibling(t *testing.T) {
	w, mail, x := siblings(t)
	must(t, w.DeleteConnection(t.Context(), w.admin, x.Connection))
	if !w.recorded(access.DeleteConnection, "", mail.Connection) {
		t.Error("the trail does not name what loses its refresh token")
	}
	w.asked("api://x/read")
	w.served(graph, "Mail.Read")
	w.clock.add(2 * time.Hour)
	w.asked("Mail.Read")
	if c := w.connection(mail.Connection); c.State != broker.NeedsReauth {
		t.Errorf("got state %s", c.State)
	}
}

// A connection that shares its refresh token stays where it is; alone, it takes it along.
func TestM05_TransferringASibling(t *testing.T) {
	w, mail, x := siblings(t)
	_, err := w.TransferConnection(t.Context(), w.admin, mail.Connection, "agent-b")
	wantError(t, "shared", err, fault.Conflict, x.Connection)
	_, err = w.RevokeConnection(t.Context(), w.admin, x.Connection, false)
	must(t, err)
	_, err = w.TransferConnection(t.Context(), w.admin, mail.Connection, "agent-b")
	must(t, err)
	w.clock.add(2 * time.Hour)
	got := w.token(w.agentB, ask(w.wat(w.agentB, "alice"), at("v"), scopes("Mail.Read")))
	if got.Connection != mail.Connection {
		t.Error("another connection")
	}
	w.asked("Mail.Read")
	// And nobody else's request is served by it: another agent, another user.
	w.pending(w.agentA, ask(w.wat(w.agentA, "bob"), at("v"), scopes("api://x/read")))
}

// A report of one sibling brings it another token, also just after the other was refreshed.
func TestM05_ReportingASibling(t *testing.T) {
	w, _, x := siblings(t)
	w.clock.add(2 * time.Hour)
	w.served("api://x", "api://x/read")
	w.clock.add(40 * time.Minute)
	old := w.served("api://x", "api://x/read")
	w.clock.add(15 * time.Minute)
	w.served(graph, "Mail.Read") // refreshed within the last 30 seconds, and not what is reported
	state, err := w.ReportTokenInvalid(t.Context(), w.agentA, w.wat(w.agentA, "alice"), x.Connection)
	must(t, err)
	if now := w.served("api://x", "api://x/read"); state != broker.Active || now.AccessToken.Equal(old.AccessToken) {
		t.Errorf("got %s, and the same token: %v", state, now.AccessToken.Equal(old.AccessToken))
	}
	n := w.grants("refresh_token")
	_, err = w.ReportTokenInvalid(t.Context(), w.agentA, w.wat(w.agentA, "alice"), x.Connection)
	must(t, err)
	if w.grants("refresh_token") != n {
		t.Error("a second report at once goes to the provider")
	}
}

// An answer that is none costs nothing where the old refresh token goes on.
func TestM05_ProviderIsAway(t *testing.T) {
	w := entraWorld(t)
	w.provider.Consent("api://x/read")
	w.entraConsent("Mail.Read", "offline_access")
	for _, f := range []oauthtest.Fault{oauthtest.Drop(), oauthtest.Status(http.StatusServiceUnavailable, "x")} {
		w.provider.Queue("/token", f)
		_, err := w.api("api://x/read")
		wantCode(t, "away", err, fault.Unavailable)
	}
	w.provider.Queue("/token", oauthtest.Status(http.StatusBadRequest, `{"error":"invalid_scope"}`))
	_, err := w.api("api://x/nothing")
	wantCode(t, "a scope that is none", err, fault.Invalid)
	w.served("api://x", "api://x/read")
}

// What is asked is decided before the provider is, and what came is decided again: a delegation for less gets neither.
func TestM05_DelegationOfASibling(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := entraWorld(t)
		w.provider.Consent("api://x/read api://x/write")
		w.entraConsent("Mail.Read", "offline_access")
		wat := w.delegated("alice", identity.Grant{Provider: "v", Scopes: []string{"api://x/read", "offline_access"}})
		_, err := w.Token(t.Context(), w.agentA, ask(wat, at("v"), scopes("api://x/write")))
		wantError(t, "asked beyond", err, fault.Denied, "api://x/write")
		if n := w.grants("refresh_token"); n != 0 {
			t.Errorf("%d refreshes before the decision", n)
		}
		w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = "api://x/read api://x/write" }))
		_, err = w.Token(t.Context(), w.agentA, ask(wat, at("v"), scopes("api://x/read")))
		wantError(t, "granted beyond", err, fault.Denied, "api://x/write")
		if !w.recorded(access.GetResourceOauth2Token, "refresh", "api://x") {
			t.Error("the trail does not have the decision on what was asked")
		}
	})
}

// A consent joins the refresh token that is there only if it is known to be of the same account at the provider: no
// connection changes its account because its user consented elsewhere with another.
func TestM05_ConsentOfAnotherAccount(t *testing.T) {
	for name, row := range map[string]struct {
		first, second map[string]any // of the ID token; nil for none
		joins         bool
	}{
		"the same":       {map[string]any{"sub": "work"}, map[string]any{"sub": "work"}, true},
		"another":        {map[string]any{"sub": "work"}, map[string]any{"sub": "home"}, false},
		"one is unknown": {map[string]any{"sub": "work"}, nil, false},
		"none is known":  {nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := entraWorld(t)
			w.provider.SetIDToken(row.first)
			mail := w.entraConsent("Mail.Read", "offline_access")
			w.provider.SetIDToken(row.second)
			x := w.entraConsent("api://x/read", "offline_access")
			first, second := w.connection(mail.Connection), w.connection(x.Connection)
			if first.Lineage == "" || second.Lineage == "" || (first.Lineage == second.Lineage) != row.joins {
				t.Errorf("got lineages %q and %q", first.Lineage, second.Lineage)
			}
			w.provider.SetIDToken(row.first)
			w.clock.add(2 * time.Hour)
			w.served(graph, "Mail.Read")
			w.provider.SetIDToken(row.second)
			w.served("api://x", "api://x/read")
			if row.joins {
				w.provider.SetIDToken(map[string]any{"sub": "home"})
				w.clock.add(2 * time.Hour)
				w.asked("Mail.Read") // the provider answers for another account: nobody's token is replaced
			}
		})
	}
}

// A refresh token that is dead is dead for all that live on it: it is sent once, and whoever has a token that lives is
// served until that ends.
func TestM05_DeadForAll(t *testing.T) {
	w, _, x := siblings(t)
	w.clock.add(30 * time.Minute)
	_, err := w.ReportTokenInvalid(t.Context(), w.agentA, w.wat(w.agentA, "alice"), x.Connection) // x lives longer now
	must(t, err)
	w.clock.add(40 * time.Minute)
	w.provider.RevokeAll()
	n := w.grants("refresh_token")
	w.asked("Mail.Read")
	w.served("api://x", "api://x/read")
	w.clock.add(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // of the real clock: whoever waits for a lease waits in vain
	defer cancel()
	if out, err := w.Token(ctx, w.agentA, ask(w.wat(w.agentA, "alice"), at("v"), scopes("api://x/read"))); err != nil || out.Session == "" {
		t.Fatalf("got session %q, %v", out.Session, err)
	}
	if c := w.connection(x.Connection); w.grants("refresh_token") != n+1 || c.State != broker.NeedsReauth || c.Reason != "invalid_grant" {
		t.Errorf("%d refreshes, state %s, reason %q", w.grants("refresh_token")-n, c.State, c.Reason)
	}
}
