package broker_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// calls is what an agent that went wrong, or a thief, makes at once.
const calls = 200

// all is that, and some that come together.
const all = calls + 40

// handful is as many requests as that may cost a provider.
const handful = 8

// neighbour is an agent of another account, with the same names at the same provider. It returns the agent, its
// administrator, and a request for a machine's token.
func (w *world) neighbour() (agent, admin access.Caller, r broker.Request) {
	w.t.Helper()
	boss := caller(other, "root-of-other", access.Root)
	w.workloadOf(boss, identity.NewWorkload{Name: "agent-a"})
	w.trust(boss)
	admin = caller(other, "admin-of-other", access.Admin)
	_, err := w.CreateProvider(w.t.Context(), admin, w.spec("cal", "StrictOauth2"))
	must(w.t, err)
	agent = caller(other, "agent-a", access.Agent, "agent-a")
	return agent, admin, ask(w.wat(agent, "alice"), machine)
}

// hammer makes calls in turn, and then as many at once, and returns their errors that are no throttling. Each
// throttling must tell how long to wait.
func (w *world) hammer(call func() error) (served, slowed int, others []error) {
	w.t.Helper()
	var mu sync.Mutex
	one := func() {
		err := call()
		mu.Lock()
		defer mu.Unlock()
		e, _ := errors.AsType[*fault.Error](err)
		switch {
		case err == nil:
			served++
		case errors.Is(err, fault.Throttled):
			slowed++
			if p := fault.Public(err); p.After < time.Second || p.After > 2*time.Minute || e == nil {
				w.t.Errorf("a throttling tells to wait for %s: %v", p.After, err)
			}
		default:
			others = append(others, err)
		}
	}
	for range calls {
		one()
	}
	var group sync.WaitGroup
	for range all - calls {
		group.Go(one)
	}
	group.Wait()
	return served, slowed, others
}

// M14: a machine's token that is asked for by force costs the provider a handful of requests. Who asks gets the token
// that lives, and another account asks the same provider meanwhile.
func TestM14_ForcedFetchesAreFew(t *testing.T) {
	w := newWorld(t)
	w.createProvider("obo", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	agent, _, theirs := w.neighbour()
	wat := w.wat(w.agentA, "alice")
	for kind, r := range map[string]broker.Request{
		"client_credentials": ask(wat, machine, force), "urn:ietf:params:oauth:grant-type:token-exchange": ask(wat, onBehalf("obo"), force),
	} {
		before := w.grants(kind)
		served, slowed, others := w.hammer(func() error { _, err := w.Token(t.Context(), w.agentA, r); return err })
		if n := w.grants(kind) - before; n == 0 || n > handful {
			t.Errorf("%s: %d forced requests cost the provider %d", kind, all, n)
		}
		if served != all || slowed+len(others) != 0 {
			t.Errorf("%s: %d were served, %d throttled, %d failed (%v): want the token that lives for all", kind, served, slowed, len(others), others)
		}
		w.token(agent, theirs)
		before = w.grants(kind)
		w.clock.add(31 * time.Second)
		r.Token = w.wat(w.agentA, "alice")
		w.token(w.agentA, r)
		if n := w.grants(kind) - before; n != 1 {
			t.Errorf("%s: after the pause a forced request cost %d, want 1", kind, n)
		}
	}
}

// M14: many who ask at once for a token that is not there yet get the one that the first of them brings.
func TestM14_OneRequestAsks(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	var group sync.WaitGroup
	for range calls {
		group.Go(func() {
			if _, err := w.Token(t.Context(), w.agentA, ask(wat, machine)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := w.grants("client_credentials"); n != 1 {
		t.Errorf("%d requests at once cost the provider %d, want 1", calls, n)
	}
}

// M14: a provider that refuses or fails is not asked on and on. Each attempt counts at the ceiling.
func TestM14_FailingFetchesPause(t *testing.T) {
	for what, f := range map[string]oauthtest.Fault{
		"refuses": oauthtest.Status(http.StatusUnauthorized, `{"error":"invalid_client"}`), "is down": oauthtest.Status(http.StatusServiceUnavailable, "down"),
		"hangs up": oauthtest.Drop(),
	} {
		w, c, wat := counted(t)
		agent, _, theirs := w.neighbour()
		c.took()
		w.provider.Queue(oauthtest.Token, slices.Repeat([]oauthtest.Fault{f}, handful)...)
		hits := w.provider.Hits(oauthtest.Token)
		served, slowed, others := w.hammer(func() error { _, err := w.Token(t.Context(), w.agentA, ask(wat, machine)); return err })
		if n := w.provider.Hits(oauthtest.Token) - hits; n > handful || len(others) != n || served != 0 {
			t.Errorf("%s: %d requests cost the provider %d, with %d failures, %d served and %d throttled", what, all, n, len(others), served, slowed)
		}
		if n := c.took(); n != all {
			t.Errorf("%s: %d of %d attempts counted at the ceiling", what, n, all)
		}
		if n := w.refused("pause"); n != slowed {
			t.Errorf("%s: %d of %d throttlings are on record", what, n, slowed)
		}
		w.provider.Queue(oauthtest.Token) // and then it works again
		for range handful {
			w.clock.add(2 * time.Minute)
			_, _ = w.Token(t.Context(), agent, theirs)
			_, _ = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), machine))
		}
		w.clock.add(2 * time.Minute)
		w.token(w.agentA, ask(w.wat(w.agentA, "alice"), machine, force))
	}
}

// M14: another account's agent is served by a provider that the first one's agent is not let to any more.
func TestM14_PausesAreOneAccounts(t *testing.T) {
	w := newWorld(t)
	agent, admin, theirs := w.neighbour()
	wat := w.wat(w.agentA, "alice")
	w.provider.Queue(oauthtest.Token, slices.Repeat([]oauthtest.Fault{oauthtest.Status(http.StatusServiceUnavailable, "down")}, 5)...)
	w.hammer(func() error { _, err := w.Token(t.Context(), w.agentA, ask(wat, machine)); return err })
	_, err := w.Token(t.Context(), w.agentA, ask(wat, machine))
	wantError(t, "the agent that hammered", err, fault.Throttled, "provider cal is not asked for this token now, because the last requests for it failed: try again in")
	w.token(agent, theirs)
	w.token(w.agentB, ask(w.wat(w.agentB, "alice"), machine))
	w.hammer(func() error { _, err := w.TestProvider(t.Context(), w.admin, "cal", secret.Text{}); return err })
	_, err = w.TestProvider(t.Context(), w.admin, "cal", secret.Text{})
	wantError(t, "an administrator who hammered", err, fault.Throttled, "provider cal was tested several times just now: try again in")
	_, err = w.TestProvider(t.Context(), admin, "cal", secret.Text{})
	must(t, err)
}

// M14: other scopes, resources or parameters each time are other tokens, and bounded together also where none comes.
func TestM14_NamesDoNotMultiplyFetches(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	w.provider.Queue(oauthtest.Token, slices.Repeat([]oauthtest.Fault{oauthtest.Status(http.StatusBadRequest, `{"error":"invalid_scope"}`)}, calls)...)
	before := w.provider.Hits(oauthtest.Token)
	i := 0
	var mu sync.Mutex
	w.hammer(func() error {
		mu.Lock()
		i++
		r := ask(wat, machine, scopes(fmt.Sprintf("s%d", i)))
		mu.Unlock()
		_, err := w.Token(t.Context(), w.agentA, r)
		return err
	})
	if n := w.provider.Hits(oauthtest.Token) - before; n == 0 || n > 30 {
		t.Errorf("%d requests for as many scopes cost the provider %d", all, n)
	}
}

// M14: a refresh that fails is not tried on and on; a token that still lives serves meanwhile.
func TestM14_FailingRefreshesPause(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	w.expire(30 * time.Second)
	wat := w.wat(w.agentA, "alice")
	down := slices.Repeat([]oauthtest.Fault{oauthtest.Status(http.StatusServiceUnavailable, "down")}, 2*handful)
	w.provider.Queue(oauthtest.Token, down...)
	try := func() error { _, err := w.Token(t.Context(), w.agentA, ask(wat)); return err }
	served, slowed, others := w.hammer(try)
	if n := w.grants("refresh_token"); n > handful || slowed != 0 || served != all-len(others) {
		t.Errorf("%d requests cost the provider %d refreshes; %d were served, %d throttled, %d failed", all, n, served, slowed, len(others))
	}
	w.clock.add(time.Minute) // the token has ended
	before := w.grants("refresh_token")
	if served, slowed, others = w.hammer(try); served != 0 || slowed == 0 || len(others) > handful || w.grants("refresh_token")-before > handful {
		t.Errorf("without a living token %d were served, %d throttled, %d failed", served, slowed, len(others))
	}
}

// M14: neither is one that an agent's reports force, whether it works or fails.
func TestM14_ReportsForceFewRefreshes(t *testing.T) {
	for what, faults := range map[string][]oauthtest.Fault{
		"works": nil, "fails": slices.Repeat([]oauthtest.Fault{oauthtest.Status(http.StatusServiceUnavailable, "down")}, handful),
	} {
		w := newWorld(t)
		c := w.consent("alice").Connection
		wat := w.wat(w.agentA, "alice")
		w.provider.Queue(oauthtest.Token, faults...)
		report := func() error { _, err := w.ReportTokenInvalid(t.Context(), w.agentA, wat, c); return err }
		if served, _, others := w.hammer(report); what == "works" && served != all || what == "fails" && len(others) != 1 {
			t.Errorf("%s: %d reports were answered with a state, and %d failed (%v)", what, served, len(others), others)
		}
		if n := w.grants("refresh_token"); n != 1 {
			t.Errorf("%s: %d reports cost the provider %d refreshes, want 1", what, all, n)
		}
	}
}

// M14: nor does an administrator hammer a provider by testing it.
func TestM14_TestsOfAProviderAreFew(t *testing.T) {
	w := newWorld(t)
	before := w.provider.Hits(oauthtest.Token) + w.provider.Hits(oauthtest.Metadata)
	served, slowed, others := w.hammer(func() error { _, err := w.TestProvider(t.Context(), w.admin, "cal", secret.Text{}); return err })
	if n := w.provider.Hits(oauthtest.Token) + w.provider.Hits(oauthtest.Metadata) - before; n > 2*handful || served > handful || len(others) != 0 {
		t.Errorf("%d tests cost the provider %d requests; %d were served, %d throttled, %d failed", all, n, served, slowed, len(others))
	}
	w.clock.add(10 * time.Second)
	_, err := w.TestProvider(t.Context(), w.admin, "cal", secret.Text{})
	must(t, err)
}

// M14: nor does it help to make a provider anew for each test of it.
func TestM14_TestsOfMadeUpProvidersAreFew(t *testing.T) {
	w := newWorld(t)
	_, admin, _ := w.neighbour()
	before := w.provider.Hits(oauthtest.Token) + w.provider.Hits(oauthtest.Metadata)
	served, slowed, others := w.hammer(func() error {
		name := "made-up-" + rand.Text()
		if _, err := w.CreateProvider(t.Context(), w.admin, w.spec(name, "StrictOauth2")); err != nil {
			return err
		}
		_, err := w.TestProvider(t.Context(), w.admin, name, secret.Text{})
		return errors.Join(err, w.DeleteProvider(t.Context(), w.admin, name))
	})
	if n := w.provider.Hits(oauthtest.Token) + w.provider.Hits(oauthtest.Metadata) - before; n > 130 || slowed == 0 || len(others) != 0 {
		t.Errorf("%d tests cost the provider %d requests; %d were served, %d throttled, %d failed", all, n, served, slowed, len(others))
	}
	_, err := w.TestProvider(t.Context(), admin, "cal", secret.Text{})
	must(t, err)
	w.clock.add(time.Second)
	_, err = w.TestProvider(t.Context(), w.admin, "cal", secret.Text{})
	must(t, err)
}

// M14: codes that the provider refuses, one after the other, are slowed. A code that waits is redeemed later.
func TestM14_RefusedCodesAreSlowed(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	w.provider.Queue(oauthtest.Token, slices.Repeat([]oauthtest.Fault{oauthtest.Status(http.StatusBadRequest, `{"error":"invalid_grant"}`)}, calls)...)
	before := w.provider.Hits(oauthtest.Token)
	var last string
	slowed := 0
	for range 60 {
		p := w.pending(w.agentA, ask(wat))
		w.hold(p.Session)
		if err := w.complete(w.appA, p.Session, "alice"); errors.Is(err, fault.Throttled) {
			last = p.Session
			if slowed++; slowed == 3 {
				break
			}
		}
	}
	if n := w.provider.Hits(oauthtest.Token) - before; n > 30 || slowed == 0 {
		t.Fatalf("60 refused codes cost the provider %d requests, and %d were slowed", n, slowed)
	}
	// Nothing is begun for a code that waits: dying on the way costs no consent.
	w.store.fail(w.store.before, "ReturnCode", func() error { t.Error("a redemption was begun in the pause"); return nil })
	if err := w.complete(w.appA, last, "alice"); !errors.Is(err, fault.Throttled) {
		t.Errorf("in the pause: %v", err)
	}
	w.store.fail(w.store.before, "ReturnCode", nil)
	w.clock.add(10 * time.Second)
	err := w.complete(w.appA, last, "alice") // it was held: the provider is asked now
	wantEnding(t, "a code that waited", err, broker.EndFailed)
}

// M14: the ceiling is asked before the provider, whichever way a token is renewed.
func TestM14_CeilingBeforeTheProvider(t *testing.T) {
	w, c, _ := counted(t)
	w.expire(0)
	wat := w.wat(w.agentA, "alice")
	c.shutting(true)
	before := w.provider.Hits(oauthtest.Token)
	for what, r := range map[string]broker.Request{
		"a refresh": ask(wat), "a machine's": ask(wat, machine), "by force": ask(wat, machine, force), "an exchange": ask(wat, onBehalf("obo")),
	} {
		_, err := w.Token(t.Context(), w.agentA, r)
		wantError(t, what, err, fault.Throttled, "it has had enough")
	}
	if n := w.provider.Hits(oauthtest.Token) - before; n != 0 {
		t.Errorf("the provider was asked %d times beyond the ceiling", n)
	}
}

// M14: a refresh token that serves several resources brings no more for made-up ones, nor for one that the provider
// does not serve now.
func TestM14_SiblingsAreFew(t *testing.T) {
	for what, c := range map[string]struct {
		fault oauthtest.Fault
		scope func(i int) string
		most  int
	}{
		"made-up resources": {oauthtest.Status(http.StatusBadRequest, `{"error":"invalid_scope"}`), func(i int) string { return fmt.Sprintf("api://r%d/read", i) }, 30},
		"a provider away":   {oauthtest.Status(http.StatusServiceUnavailable, "down"), func(int) string { return "api://x/read" }, handful},
	} {
		w := entraWorld(t)
		w.entraConsent("Mail.Read", "offline_access")
		w.provider.Queue("/token", slices.Repeat([]oauthtest.Fault{c.fault}, calls)...)
		before, slowed := w.provider.Hits("/token"), 0
		for i := range calls {
			if _, err := w.api(c.scope(i)); errors.Is(err, fault.Throttled) {
				slowed++
			}
		}
		if n := w.provider.Hits("/token") - before; n == 0 || n > c.most || n+slowed != calls {
			t.Errorf("%s: %d requests cost the provider %d, and %d were throttled", what, calls, n, slowed)
		}
	}
}
