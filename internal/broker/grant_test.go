package broker_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// sharedWorld has the provider "sh", where a revocation ends all that the client has of a user.
func sharedWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.createProvider("sh", "StrictOauth2", func(s *broker.ProviderSpec) {
		s.Tags = map[string]string{identity.TagGrants: string(broker.Shared), identity.TagMaxTokens: "2"}
	})
	return w
}

// connect walks a consent at a provider and returns the connection's id.
func (w *world) connect(agent, app access.Caller, provider, user string, change ...func(*broker.Request)) string {
	w.t.Helper()
	change = append([]func(*broker.Request){at(provider)}, change...)
	p := w.pending(agent, ask(w.wat(agent, user), change...))
	w.hold(p.Session)
	must(w.t, w.complete(app, p.Session, user))
	return w.token(agent, ask(w.wat(agent, user), append(change, session(p.Session))...)).Connection
}

// alive says that the connection's refresh token works.
func (w *world) alive(agent access.Caller, provider, user string) {
	w.t.Helper()
	w.clock.add(2 * time.Hour)
	if w.token(agent, ask(w.wat(agent, user), at(provider))).AccessToken.IsZero() {
		w.t.Error("the other connection does not live")
	}
}

func TestSharedGrantIsRevokedWithTheLast(t *testing.T) {
	w := sharedWorld(t)
	a, b := w.connect(w.agentA, w.appA, "sh", "alice"), w.connect(w.agentB, w.appB, "sh", "alice")
	bob := w.connect(w.agentA, w.appA, "sh", "bob")
	v, err := w.Connection(t.Context(), w.admin, a)
	if must(t, err); !slices.Equal(v.SharesGrantWith, []string{b}) {
		t.Errorf("with %s would end %q, want %s", a, v.SharesGrantWith, b)
	}
	wantUpstream(t, "the first of two", w.revoke(a, false), broker.RevocationSkipped, b)
	if n := w.provider.Hits(revokePath); n != 0 {
		t.Fatalf("the provider was told %d times while the other lives", n)
	}
	if !w.recorded(access.RevokeConnection, "revoked", "it would end the connections "+b) {
		t.Error("the trail does not say why the provider was not told")
	}
	w.alive(w.agentB, "sh", "alice")
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), at("sh")))
	wantUpstream(t, "the last", w.revoke(b, false), broker.RevocationDone, "")
	if n := w.provider.Hits(revokePath); n != 1 {
		t.Errorf("the provider was told %d times", n)
	}
	wantUpstream(t, "another user", w.revoke(bob, false), broker.RevocationDone, "")
}

// The grant is of the account at the provider, if that is known, and not of the user here.
func TestSharedGrantIsOfTheAccountThere(t *testing.T) {
	w := sharedWorld(t)
	w.as("team")
	a, bob := w.connect(w.agentA, w.appA, "sh", "alice"), w.connect(w.agentB, w.appB, "sh", "bob")
	w.as("private")
	other := w.connect(w.agentB, w.appB, "sh", "alice")
	w.provider.SetIDToken(nil)
	for _, id := range []string{a, bob, other} {
		if ref := w.connection(id).GrantRef; len(ref) != 64 || strings.Contains(ref, "team") {
			t.Errorf("the grant is named %q", ref)
		}
	}
	wantUpstream(t, "one of two users", w.revoke(a, false), broker.RevocationSkipped, bob)
	wantUpstream(t, "another account of the first", w.revoke(other, false), broker.RevocationDone, "")
	wantUpstream(t, "the last of the account", w.revoke(bob, false), broker.RevocationDone, "")
}

// Where it is not known whose tokens they are, those of one user may be of one grant.
func TestSharedGrantOfAnUnknownAccount(t *testing.T) {
	w := sharedWorld(t)
	a := w.connect(w.agentA, w.appA, "sh", "alice")
	w.as("ada")
	b := w.connect(w.agentB, w.appB, "sh", "alice")
	wantUpstream(t, "unknown beside known", w.revoke(a, false), broker.RevocationSkipped, b)
	wantUpstream(t, "the last", w.revoke(b, false), broker.RevocationDone, "")
}

// What does not live any more holds nothing back: else nobody would ever tell the provider.
func TestSharedGrantOfDeadConnections(t *testing.T) {
	w := sharedWorld(t)
	a, b := w.connect(w.agentA, w.appA, "sh", "alice"), w.connect(w.agentB, w.appB, "sh", "alice")
	dead := w.connection(b)
	dead.State, dead.Reason, dead.Generation = broker.NeedsReauth, "invalid_grant", dead.Generation+1
	must(t, w.db.SwapConnection(t.Context(), dead, dead.Generation-1))
	wantUpstream(t, "beside a dead one", w.revoke(a, false), broker.RevocationDone, "")
}

func TestSeparateGrantsAreRevokedEach(t *testing.T) {
	w := newWorld(t)
	a, b := w.connect(w.agentA, w.appA, "cal", "alice"), w.connect(w.agentB, w.appB, "cal", "alice")
	if v, err := w.Connection(t.Context(), w.admin, a); err != nil || len(v.SharesGrantWith) != 0 {
		t.Errorf("would end %q, %v", v.SharesGrantWith, err)
	}
	wantUpstream(t, "one", w.revoke(a, false), broker.RevocationDone, "")
	wantUpstream(t, "the other", w.revoke(b, false), broker.RevocationDone, "")
}

// A revocation that is still to be tried does not end what the user has consented to since.
func TestSharedGrantIsConsentedToMeanwhile(t *testing.T) {
	w := sharedWorld(t)
	a := w.connect(w.agentA, w.appA, "sh", "alice")
	w.provider.Queue(revokePath, oauthtest.Status(503, ""))
	wantUpstream(t, "busy", w.revoke(a, false), broker.RevocationPending, "busy")
	b := w.connect(w.agentB, w.appB, "sh", "alice")
	w.clock.add(6 * time.Hour)
	w.sweep()
	if n := w.provider.Hits(revokePath); n != 1 {
		t.Errorf("the provider was told %d times, and once was before the consent", n)
	}
	wantUpstream(t, "asked again", w.revoke(a, false), broker.RevocationSkipped, b)
	w.alive(w.agentB, "sh", "alice")
}

// Nor what the user is consenting to just now.
func TestSharedGrantIsBeingConsentedTo(t *testing.T) {
	w := sharedWorld(t)
	a := w.connect(w.agentA, w.appA, "sh", "alice")
	p := w.pending(w.agentB, ask(w.wat(w.agentB, "alice"), at("sh")))
	w.hold(p.Session)
	w.provider.Queue(oauthtest.Token, func(rw http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		wantUpstream(t, "while a code is redeemed", w.revoke(a, false), broker.RevocationPending, "")
		next(rw, r)
	})
	must(t, w.complete(w.appB, p.Session, "alice"))
	w.clock.add(6 * time.Hour)
	w.sweep()
	if n := w.provider.Hits(revokePath); n != 0 {
		t.Errorf("the provider was told %d times", n)
	}
}

// More connections than the provider keeps refresh tokens: the trail says that the oldest may have ended.
func TestCrowdedGrant(t *testing.T) {
	w := sharedWorld(t)
	org := func(name string) func(*broker.Request) {
		return func(r *broker.Request) { r.CustomParameters = map[string]secret.Text{"organization": secret.New(name)} }
	}
	const said = "keeps 2 refresh tokens"
	w.connect(w.agentA, w.appA, "sh", "alice", org("a"))
	w.connect(w.agentA, w.appA, "sh", "alice", org("b"))
	if w.recorded(access.RedeemCode, "redeemed", said) {
		t.Error("it is said of as many as there may be")
	}
	w.connect(w.agentA, w.appA, "sh", "alice", org("c"))
	if !w.recorded(access.RedeemCode, "redeemed", said) {
		t.Error("it is not said of one more")
	}
}

func TestGrantSettingsAreChecked(t *testing.T) {
	w := newWorld(t)
	for key, values := range map[string][]string{identity.TagGrants: {"", "Shared", "some"}, identity.TagMaxTokens: {"0", "-1", "many", "1001"}} {
		for _, v := range values {
			s := w.spec("x", "StrictOauth2")
			s.Tags = map[string]string{key: v}
			if _, err := w.CreateProvider(t.Context(), w.admin, s); err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("%s=%q: got %v", key, v, err)
			}
		}
	}
}

// Ending all of a user's connections at a provider tells it once, whichever of them is the last.
func TestSharedGrantEndsInOneStroke(t *testing.T) {
	w := sharedWorld(t)
	a, b := w.connect(w.agentA, w.appA, "sh", "alice"), w.connect(w.agentB, w.appB, "sh", "alice")
	first, err := w.EndConnection(t.Context(), w.admin, a, true, "all of alice's")
	must(t, err)
	last, err := w.EndConnection(t.Context(), w.admin, b, true, "all of alice's")
	must(t, err)
	if first.Upstream != broker.RevocationSkipped || !strings.Contains(first.Detail, b) || last.Upstream != broker.RevocationPending {
		t.Errorf("got %+v, then %+v", first, last)
	}
	w.sweep()
	if n := w.provider.Hits(revokePath); n != 1 {
		t.Errorf("the provider was told %d times", n)
	}
}

// A connection whose token is being renewed lives: it holds back a revocation that would end it.
func TestM05_SharedGrantIsBeingRenewed(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := sharedWorld(t)
		a, b := w.connect(w.agentA, w.appA, "sh", "alice"), w.connect(w.agentB, w.appB, "sh", "alice")
		w.clock.add(2 * time.Hour)
		w.provider.Queue(oauthtest.Token, func(rw http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
			wantUpstream(t, "while the other is renewed", w.revoke(a, false), broker.RevocationSkipped, b)
			next(rw, r)
		})
		w.token(w.agentB, ask(w.wat(w.agentB, "alice"), at("sh")))
		if n := w.provider.Hits(revokePath); n != 0 {
			t.Errorf("the provider was told %d times while the other lives", n)
		}
		w.alive(w.agentB, "sh", "alice")
	})
}

// A revocation that is still to be tried does not end what its own agent was granted since: the row is the same one.
func TestM05_SharedGrantIsConsentedToAgain(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := sharedWorld(t)
		a := w.connect(w.agentA, w.appA, "sh", "alice")
		w.provider.Queue(revokePath, oauthtest.Status(503, ""))
		wantUpstream(t, "busy", w.revoke(a, false), broker.RevocationPending, "busy")
		again := w.connect(w.agentA, w.appA, "sh", "alice")
		w.clock.add(6 * time.Hour)
		w.sweep()
		if n := w.provider.Hits(revokePath); n != 1 {
			t.Errorf("the provider was told %d times, and once was before the consent to %s (it was %s)", n, again, a)
		}
		w.alive(w.agentA, "sh", "alice")
	})
}

// A token that was exchanged is of no consent: a connection that has one does not hold back its revocation.
func TestM05_SharedGrantHasNoExchangedTokens(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := newWorld(t)
		w.createProvider("sh", "StrictOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}), func(s *broker.ProviderSpec) {
			s.Tags = map[string]string{identity.TagGrants: string(broker.Shared)}
		})
		w.connect(w.agentA, w.appA, "sh", "alice")
		out := w.token(w.agentA, ask(w.wat(w.agentA, "alice"), onBehalf("sh"), scopes("a")))
		wantUpstream(t, "an exchanged token", w.revoke(out.Connection, false), broker.RevocationDone, "")
		w.alive(w.agentA, "sh", "alice")
	})
}

// A deleted agent's connection holds nothing back: nobody would ever tell the provider.
func TestM05_SharedGrantOfADeletedAgent(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := sharedWorld(t)
		a := w.connect(w.agentA, w.appA, "sh", "alice")
		w.connect(w.agentB, w.appB, "sh", "alice")
		must(t, w.identity.DeleteWorkload(t.Context(), w.admin, "agent-b"))
		wantUpstream(t, "beside a deleted agent's", w.revoke(a, false), broker.RevocationDone, "")
	})
}

// Forgetting a user leaves what is still to be revoked its grant: another user of that account there may have consented
// since. When the revocation has ended, nothing of the account is left.
func TestM05_SharedGrantOfAnErasedUser(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := sharedWorld(t)
		w.as("team")
		a := w.connect(w.agentA, w.appA, "sh", "alice")
		w.provider.Queue(revokePath, oauthtest.Status(503, ""))
		wantUpstream(t, "busy", w.revoke(a, false), broker.RevocationPending, "busy")
		must(t, w.db.EraseUser(t.Context(), account, w.connection(a).User))
		w.connect(w.agentB, w.appB, "sh", "bob")
		w.clock.add(6 * time.Hour)
		w.sweep()
		if n := w.provider.Hits(revokePath); n != 1 {
			t.Errorf("the provider was told %d times, and once was before the other user's consent", n)
		}
		r, err := w.db.RevocationOf(t.Context(), account, a)
		if must(t, err); r.State != broker.RevocationSkipped || r.GrantRef != "" {
			t.Errorf("in the end the revocation is %s, of the grant %q", r.State, r.GrantRef)
		}
	})
}
