package broker_test

import (
	"context"
	"sync"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// tally counts what it is asked to admit, and refuses while it is shut.
type tally struct {
	mu    sync.Mutex // guards what follows
	count int
	shut  bool
	last  access.Facts
}

// Admit implements access.Ceilings.
func (c *tally) Admit(_ context.Context, _ access.Account, f access.Facts) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = f
	if c.shut {
		return "it has had enough", nil
	}
	c.count++
	return "", nil
}

func (c *tally) shutting(shut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = shut
}

// took returns how many were admitted since the last call.
func (c *tally) took() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.count
	c.count = 0
	return n
}

// counted is a world whose releases are counted from here on, with a connection of alice and an API key.
func counted(t *testing.T) (*world, *tally, secret.Text) {
	w := newWorld(t)
	w.createProvider("obo", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	_, err := w.CreateAPIKeyProvider(t.Context(), w.admin, broker.APIKeySpec{Name: "weather", Key: secret.New("key")})
	must(t, err)
	c := &tally{}
	w.guard.Ceilings = c
	w.consent("alice")
	if n := c.took(); n != 1 {
		t.Errorf("a consent that was polled for counted %d releases, want 1", n)
	}
	return w, c, w.wat(w.agentA, "alice")
}

func TestEveryReleaseIsCountedOnce(t *testing.T) {
	w, c, wat := counted(t)
	want := func(what string, n int) {
		t.Helper()
		if got := c.took(); got != n {
			t.Errorf("%s: %d releases were counted, want %d", what, got, n)
		}
	}
	want("minting", 0)
	w.token(w.agentA, ask(wat))
	want("a stored token", 1)
	w.expire(0)
	wat = w.wat(w.agentA, "alice")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := w.Token(t.Context(), w.agentA, ask(wat)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	want("eight callers of a token that one of them refreshed", 8)
	w.token(w.agentA, ask(wat, machine))
	want("a machine's new token", 1)
	w.token(w.agentA, ask(wat, machine))
	want("a machine's stored token", 1)
	w.token(w.agentA, ask(wat, onBehalf("obo")))
	want("an exchanged token", 1)
	_, err := w.APIKey(t.Context(), w.agentA, wat, "weather")
	must(t, err)
	want("an API key", 1)
	_, err = w.APIKey(t.Context(), w.agentA, wat, "nothing")
	wantCode(t, "no such key", err, fault.NotFound)
	w.pending(w.agentA, ask(w.wat(w.agentA, "bob")))
	want("what releases nothing", 0)
}

func TestRefusedAdmissionReleasesNothing(t *testing.T) {
	w, c, wat := counted(t)
	c.shutting(true)
	for what, r := range map[string]broker.Request{
		"a stored token": ask(wat), "a machine's": ask(wat, machine), "an exchanged one": ask(wat, onBehalf("obo")),
	} {
		out, err := w.Token(t.Context(), w.agentA, r)
		wantError(t, what, err, fault.Throttled, "it has had enough")
		if !out.AccessToken.IsZero() {
			t.Errorf("%s: a token came with the refusal", what)
		}
	}
	key, err := w.APIKey(t.Context(), w.agentA, wat, "weather")
	wantError(t, "an API key", err, fault.Throttled, "it has had enough")
	if !key.IsZero() || c.took() != 0 {
		t.Error("something was released")
	}
	if n := w.refused("ceiling"); n != 4 {
		t.Errorf("%d refusals are on record, want 4", n)
	}
	if n := w.grants("client_credentials") + w.grants("urn:ietf:params:oauth:grant-type:token-exchange"); n != 0 {
		t.Errorf("the provider was asked %d times for tokens that were beyond the ceiling", n)
	}
	c.shutting(false)
	w.token(w.agentA, ask(wat, machine))
}
