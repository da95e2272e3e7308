package broker_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// A ciphertext that is moved to another row or column, or back in time, does not open: the caller gets a fault of ours
// and no token.
func TestD01_MovedCiphertextsDoNotOpen(t *testing.T) {
	w := newWorld(t)
	w.createProvider("mail", "StrictOauth2")
	alice, bob := w.consent("alice"), w.consent("bob")
	mail := w.consent("alice", at("mail"))
	w.expire(0)
	_, err := w.alice() // a second generation
	must(t, err)
	old := w.connection(bob.Connection)
	for name, move := range map[string]func(c *broker.Connection){
		"another user's":        func(c *broker.Connection) { c.Access = w.connection(bob.Connection).Access },
		"another provider's":    func(c *broker.Connection) { c.Access = w.connection(mail.Connection).Access },
		"the refresh token":     func(c *broker.Connection) { c.Access = c.Refresh },
		"another generation":    func(c *broker.Connection) {}, // the swap below raises it
		"a damaged one":         func(c *broker.Connection) { c.Access = bytes.Clone(c.Access); c.Access[len(c.Access)-1] ^= 1 },
		"a truncated one":       func(c *broker.Connection) { c.Access = c.Access[:20] },
		"a whole row of bob's":  func(c *broker.Connection) { c.Access, c.Refresh = old.Access, old.Refresh },
		"no ciphertext, but ''": func(c *broker.Connection) { c.Access = []byte{1} },
	} {
		c := w.connection(alice.Connection)
		good, generation := c, c.Generation
		move(&c)
		c.Generation++
		must(t, w.db.SwapConnection(t.Context(), c, generation))
		out, err := w.alice()
		if wantCode(t, name, err, fault.Internal); !out.AccessToken.IsZero() {
			t.Errorf("%s: a token was released", name)
		}
		must(t, w.db.SwapConnection(t.Context(), good, c.Generation))
		if _, err := w.alice(); err != nil {
			t.Fatalf("after %s was put right: %v", name, err)
		}
	}
}

// Nothing that is secret is in the database's files.
func TestD02_DatabaseHoldsNoSecrets(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice-canary")
	secrets := map[string]string{"client secret": oauthtest.ClientSecret, "user": "alice-canary", "state of the app": "canary-state", "custom parameter": "canary-param"}
	p := w.pending(w.agentA, ask(wat, func(r *broker.Request) {
		r.CustomState, r.CustomParameters = secret.New("canary-state"), map[string]secret.Text{"login_hint": secret.New("canary-param")}
	}))
	secrets["session"] = p.Session[len(broker.SessionPrefix):]
	secrets["workload access token"] = wat.Expose()
	a := w.visit(p.Session)
	secrets["code"], secrets["state"], secrets["cookie"] = a.Code.Expose(), a.State.Expose(), a.Cookie.Expose()
	_, err := w.Callback(t.Context(), a)
	must(t, err)
	w.wantNowhere(secrets) // while all of it is held
	must(t, w.complete(w.appA, p.Session, "alice-canary"))
	secrets["access token"] = w.token(w.agentA, ask(wat, with("login_hint", "canary-param"))).AccessToken.Expose()
	w.expire(0)
	w.token(w.agentA, ask(w.wat(w.agentA, "alice-canary"), with("login_hint", "canary-param")))
	secrets["refresh token"] = w.sentRefresh()[0]
	secrets["verifier"] = w.provider.Requests()[0].Form.Get("code_verifier")
	w.wantNowhere(secrets)
}

func (w *world) wantNowhere(secrets map[string]string) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "*"))
	must(w.t, err)
	total := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		must(w.t, err)
		total += len(b)
		for what, s := range secrets {
			if len(s) < 5 || bytes.Contains(b, []byte(s)) {
				w.t.Errorf("%s has the %s in it (%d bytes)", filepath.Base(name), what, len(s))
			}
		}
	}
	if total < 10_000 {
		w.t.Errorf("looked at %d bytes only", total)
	}
}

// trail is a log that a test makes refuse records.
type trail struct {
	access.Log
	mu     sync.Mutex
	refuse func(access.Record) bool
}

func (l *trail) Append(ctx context.Context, batch []access.Record) error {
	l.mu.Lock()
	refuse := l.refuse
	l.mu.Unlock()
	for _, r := range batch {
		if refuse != nil && refuse(r) {
			return errors.New("disk full")
		}
	}
	return l.Log.Append(ctx, batch)
}

func (l *trail) set(refuse func(access.Record) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

// What cannot be recorded is not released, and not begun.
func TestNothingLeavesWithoutItsRecord(t *testing.T) {
	log := &trail{}
	w := newWorld(t, func(c *broker.Config) {
		log.Log = c.Store.(*shaky).Store.(access.Log)
		c.Guard = access.NewGuard(access.Config{Log: log, Now: c.Now, Decider: access.Table{}})
		t.Cleanup(c.Guard.Close)
	})
	old := w.consent("alice")
	never := func(r access.Record) bool { return true }
	outcome := func(o string) func(access.Record) bool {
		return func(r access.Record) bool { return r.Facts.Outcome == o }
	}
	unreleased := func(what string, r broker.Request) {
		t.Helper()
		out, err := w.Token(t.Context(), w.agentA, r)
		wantCode(t, what, err, fault.Unavailable)
		if !out.AccessToken.IsZero() || !out.AuthorizationURL.IsZero() {
			t.Errorf("%s: something left", what)
		}
	}
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat, force))
	visit := w.visit(p.Session)

	log.set(never)
	for what, r := range map[string]broker.Request{"hit": ask(wat), "new session": ask(wat, force), "poll": ask(wat, session(p.Session)), "machine": ask(wat, machine)} {
		unreleased(what, r)
	}
	_, err := w.Token(t.Context(), w.agentB, ask(wat))
	wantCode(t, "a refusal", err, fault.Unavailable)
	_, err = w.Authorize(t.Context(), p.Session)
	wantCode(t, "authorize", err, fault.Unavailable)
	wantCode(t, "complete", w.complete(w.appA, p.Session, "alice"), fault.Unavailable)
	if n := w.provider.Hits("/token"); n != 1 {
		t.Errorf("the token endpoint got %d requests, want none but the first", n)
	}
	log.set(nil)
	_, err = w.Callback(t.Context(), visit)
	must(t, err)

	// The record before the call fails: the provider is not asked. The record after it fails: what came is stored, and
	// not released.
	w.expire(0)
	wat = w.wat(w.agentA, "alice")
	log.set(outcome("refresh"))
	unreleased("refresh that cannot be announced", ask(wat))
	if n := w.grants("refresh_token"); n != 0 {
		t.Errorf("the provider got %d refreshes, want none", n)
	}
	log.set(outcome("refreshed"))
	unreleased("refresh whose result cannot be recorded", ask(wat))
	if c := w.connection(old.Connection); c.Generation != 2 || c.State != broker.Active {
		t.Errorf("got generation %d, state %s: the rotated token is lost", c.Generation, c.State)
	}
	log.set(nil)
	w.token(w.agentA, ask(wat))
	if n := w.grants("refresh_token"); n != 1 {
		t.Errorf("the provider got %d refreshes, want 1", n)
	}
}

// The app goes away while the provider answers: what was begun is finished.
func TestRedemptionOutlivesItsCaller(t *testing.T) {
	w := newWorld(t)
	s, release := w.held("alice"), make(chan struct{})
	w.provider.Queue("/token", oauthtest.Slow(release))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	user := broker.UserIdentifier{Token: w.jwt("alice")}
	go func() { done <- w.Complete(ctx, w.appA, s, user) }()
	for w.grants("authorization_code") == 0 {
		runtime.Gosched()
	}
	cancel()
	select {
	case <-done:
		t.Error("the call ended before the provider answered")
	case <-time.After(50 * time.Millisecond):
		close(release)
		<-done
	}
	w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
	must(t, w.complete(w.appA, s, "alice"))
}

// A session whose token has ended since says so; it does not hand out another.
func TestPollAfterTheTokenEnded(t *testing.T) {
	w := newWorld(t)
	s := w.held("alice")
	must(t, w.complete(w.appA, s, "alice"))
	spec := w.spec("cal", "StrictOauth2")
	spec.AuthMethod = broker.AuthPost
	_, err := w.UpdateProvider(t.Context(), w.admin, spec)
	must(t, err)
	_, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), session(s)))
	wantError(t, "poll", err, fault.Denied, "its token has ended")
}
