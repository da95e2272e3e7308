package broker_test

import (
	"context"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// A disabled provider gives nothing out, by any flow, and its open consents go no further; enabled, it serves again.
func TestB02_DisabledProvider(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.consent("alice")
	w.apiKey("maps", nil)
	alice := w.wat(w.agentA, "alice")
	pending := w.pending(w.agentA, ask(w.wat(w.agentA, "bob")))
	began := w.visit(pending.Session)
	apiKey := func(c access.Caller) error {
		_, err := w.APIKey(ctx, c, alice, "maps")
		return err
	}
	must(t, apiKey(w.agentA))
	for _, name := range []string{"cal", "maps"} {
		at, err := w.DisableProvider(ctx, w.admin, name, "breach at the vendor")
		must(t, err)
		if !at.Disabled || at.Name != name || at.Kind != identity.ProviderStanding {
			t.Errorf("got %+v", at)
		}
	}
	for what, r := range map[string]broker.Request{"stored": ask(alice), "machine": ask(alice, machine), "forced": ask(alice, force), "a poll": ask(w.wat(w.agentA, "bob"), session(pending.Session))} {
		_, err := w.Token(ctx, w.agentA, r)
		wantError(t, what, err, fault.Denied, "credential provider cal is disabled: breach at the vendor")
		_, err = w.Token(ctx, w.agentB, r)
		if msg := fault.Public(err).Msg; strings.Contains(msg, "breach") || strings.Contains(msg, "is disabled") {
			t.Errorf("%s: an agent that is not paired is told %q", what, msg)
		}
	}
	wantError(t, "the API key", apiKey(w.agentA), fault.Denied, "credential provider maps is disabled: breach at the vendor")
	if err := apiKey(w.agentB); strings.Contains(fault.Public(err).Msg, "breach") {
		t.Errorf("an agent that is not paired is told %v", err)
	}
	if n := w.refused("provider-disabled"); n != 5 {
		t.Errorf("got %d refusals in the trail, want 5", n)
	}
	_, err := w.Authorize(ctx, pending.Session)
	wantEnding(t, "the consent page", err, broker.EndFailed)
	_, err = w.Callback(ctx, began)
	wantEnding(t, "the provider's answer", err, broker.EndFailed)

	for _, name := range []string{"cal", "maps"} {
		_, err := w.EnableProvider(ctx, w.admin, name)
		must(t, err)
	}
	w.token(w.agentA, ask(alice))
	must(t, apiKey(w.agentA))
	w.hold(pending.Session) // another opening of the same link
	must(t, w.complete(w.appA, pending.Session, "bob"))

	_, err = w.DisableProvider(ctx, w.admin, "nothing", "")
	wantCode(t, "none of that name", err, fault.NotFound)
	_, err = w.DisableProvider(ctx, w.agentA, "cal", "")
	wantCode(t, "by an agent", err, fault.Denied)
}

// Consents of a disabled agent, user or issuer go no further at any step, and go on when it is enabled in time.
func TestB02_DisabledInTheMiddleOfConsent(t *testing.T) {
	alice := identity.UserSelector{Issuer: issuerURL, Subject: "alice"}
	for name, c := range map[string]struct {
		disable func(context.Context, *world) (identity.Standing, error)
		enable  func(context.Context, *world) (identity.Standing, error)
	}{
		"agent": {
			func(ctx context.Context, w *world) (identity.Standing, error) {
				return w.identity.DisableWorkload(ctx, w.admin, "agent-a", "")
			},
			func(ctx context.Context, w *world) (identity.Standing, error) {
				return w.identity.EnableWorkload(ctx, w.admin, "agent-a")
			},
		},
		"user": {
			func(ctx context.Context, w *world) (identity.Standing, error) {
				return w.identity.DisableUser(ctx, w.admin, alice, "")
			},
			func(ctx context.Context, w *world) (identity.Standing, error) {
				return w.identity.EnableUser(ctx, w.admin, alice)
			},
		},
		"issuer": {
			func(ctx context.Context, w *world) (identity.Standing, error) {
				return w.identity.DisableIssuer(ctx, w.admin, issuerURL, "")
			},
			func(ctx context.Context, w *world) (identity.Standing, error) {
				return w.identity.EnableIssuer(ctx, w.admin, issuerURL)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ctx := t.Context()
			p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
			off := func() { t.Helper(); _, err := c.disable(ctx, w); must(t, err) }
			on := func() { t.Helper(); _, err := c.enable(ctx, w); must(t, err) }
			off()
			_, err := w.Authorize(ctx, p.Session)
			wantEnding(t, "opening the link", err, broker.EndFailed)
			on()
			w.hold(p.Session)
			off()
			if err := w.complete(w.appA, p.Session, "alice"); err == nil {
				t.Error("the consent was completed")
			}
			if n := w.grants("authorization_code"); n != 0 {
				t.Errorf("the provider saw %d codes", n)
			}
			on()
			must(t, w.complete(w.appA, p.Session, "alice"))
		})
	}
}

// EndConnection ends a connection once, and tells of it as often as it is asked.
func TestEndConnection(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	first, second := w.consent("alice"), w.consent("bob")
	for range 2 {
		out, err := w.EndConnection(ctx, w.admin, first.Connection, true, "revocation rvk-1")
		must(t, err)
		if out != (broker.Ended{Generation: 1, Upstream: broker.RevocationPending}) {
			t.Errorf("got %+v", out)
		}
	}
	if w.provider.Hits(revokePath) != 0 || w.sweep() != 1 || w.provider.Hits(revokePath) != 1 {
		t.Error("the provider was not asked by the sweep, once")
	}
	out, err := w.EndConnection(ctx, w.admin, first.Connection, true, "")
	must(t, err)
	if out.Upstream != broker.RevocationDone {
		t.Errorf("afterwards: %+v", out)
	}
	out, err = w.EndConnection(ctx, w.admin, second.Connection, false, "")
	must(t, err)
	if out.Upstream != broker.RevocationSkipped || w.sweep() != 0 || w.connection(second.Connection).State != broker.Revoked {
		t.Errorf("without the provider: %+v", out)
	}
	if !w.recorded(access.RevokeConnection, "revoked", "revocation rvk-1") {
		t.Error("no record of the end")
	}
	_, err = w.EndConnection(ctx, w.admin, "cn_nothing", true, "")
	wantCode(t, "nothing", err, fault.NotFound)
}
