package broker_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
)

// as has the provider say who the user is there.
func (w *world) as(sub string) {
	w.provider.SetIDToken(map[string]any{"sub": sub, "email": sub + "@p.example"})
}

func TestE17_RefreshOfAnotherAccount(t *testing.T) {
	w := newWorld(t)
	w.as("ada")
	id := w.consent("alice").Connection
	first := w.connection(id)
	if len(first.Upstream) == 0 || bytes.Contains(first.Upstream, []byte("ada")) {
		t.Fatal("the account at the provider is not kept, or not sealed")
	}
	w.expire(0)
	_, err := w.alice()
	must(t, err)
	w.provider.SetIDToken(nil) // a refresh need not bring an ID token, and what is known stays known
	w.expire(0)
	_, err = w.alice()
	must(t, err)

	before := w.connection(id)
	w.as("eve")
	w.expire(0)
	out, err := w.alice()
	must(t, err)
	if !out.AccessToken.IsZero() || out.Session == "" {
		t.Fatal("another account's token was released")
	}
	c := w.connection(id)
	if c.State != broker.NeedsReauth || c.Reason != "other_account" || c.Generation != before.Generation {
		t.Errorf("got state %s, reason %q, generation %d, want needs_reauth, other_account, %d", c.State, c.Reason, c.Generation, before.Generation)
	}
	if !bytes.Equal(c.Access, before.Access) || !bytes.Equal(c.Refresh, before.Refresh) {
		t.Error("another account's tokens were stored")
	}
	if !w.recorded(access.RefreshTokens, "needs_reauth", "other_account") {
		t.Error("the trail does not say why")
	}
}

// An ID token that is not for us says nothing about the account, and spoils nothing.
func TestE17_IDTokensThatSayNothing(t *testing.T) {
	for name, claims := range map[string]map[string]any{
		"another issuer":  {"sub": "eve", "iss": "https://other.example"},
		"another client":  {"sub": "eve", "aud": []string{"somebody-else"}},
		"no subject":      {"sub": ""},
		"a number":        {"sub": 7},
		"a long one":      {"sub": strings.Repeat("e", 2000)},
		"too large a one": {"sub": "eve", "more": strings.Repeat("m", 20_000)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.as("ada")
			id := w.consent("alice").Connection
			w.provider.SetIDToken(claims)
			w.expire(0)
			if _, err := w.alice(); err != nil {
				t.Fatal(err)
			}
			if c := w.connection(id); c.State != broker.Active || len(c.Upstream) == 0 {
				t.Errorf("got state %s, want active, and the account that was known", c.State)
			}
			w.as("eve")
			w.expire(0)
			if out, err := w.alice(); err != nil || !out.AccessToken.IsZero() {
				t.Errorf("the account that was known is known no more, or %v", err)
			}
		})
	}
}

func TestC31_ConsentWithAnotherAccount(t *testing.T) {
	w := newWorld(t)
	w.as("ada")
	old := w.consent("alice")
	before := w.connection(old.Connection)
	wat := w.wat(w.agentA, "alice")
	again := func(change ...func(*broker.Request)) (broker.Outcome, error) {
		p := w.pending(w.agentA, ask(wat, change...))
		w.hold(p.Session)
		return p, w.complete(w.appA, p.Session, "alice")
	}

	w.as("eve")
	const why = "consented with another account than before; use forceAuthentication to replace it"
	p, err := again(scopes("read", "write"))
	wantEnding(t, "consent with another account", err, broker.EndFailed)
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want the reason in it", err)
	}
	_, err = w.Token(t.Context(), w.agentA, ask(wat, scopes("read", "write"), session(p.Session)))
	wantEnding(t, "poll", err, broker.EndFailed)
	c := w.connection(old.Connection)
	if c.Generation != before.Generation || !bytes.Equal(c.Access, before.Access) || !bytes.Equal(c.Upstream, before.Upstream) {
		t.Error("the refused consent changed the connection")
	}
	if out := w.token(w.agentA, ask(wat)); !out.AccessToken.Equal(old.AccessToken) {
		t.Error("the former token is not served any more")
	}
	if !w.recorded(access.RedeemCode, "other_account", why) {
		t.Error("the trail does not say why")
	}

	w.as("ada")
	if _, err = again(scopes("read", "write")); err != nil {
		t.Errorf("the same account: %v", err)
	}
	w.as("eve")
	if _, err = again(force); err != nil {
		t.Errorf("another account, asked for: %v", err)
	}
	w.as("ada")
	w.clock.add(time.Second)
	_, err = again(scopes("read", "third"))
	wantEnding(t, "the first account, which is now another one", err, broker.EndFailed)
}

// A connection that only a new consent helps keeps to its account too; one that was given to another agent as well.
func TestC31_AccountIsKeptOverTime(t *testing.T) {
	w := newWorld(t)
	w.as("ada")
	id := w.consent("alice").Connection
	_, err := w.TransferConnection(t.Context(), w.admin, id, "agent-b")
	must(t, err)
	w.provider.RevokeAll()
	w.expire(0)
	wat := w.wat(w.agentB, "alice")
	p := w.pending(w.agentB, ask(wat))
	if c := w.connection(id); c.State != broker.NeedsReauth {
		t.Fatalf("got state %s, want needs_reauth", c.State)
	}
	w.as("eve")
	w.hold(p.Session)
	wantEnding(t, "another account", w.complete(w.appB, p.Session, "alice"), broker.EndFailed)
}
