package broker_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// noWay is the rule table and a forbid of what came through agent-b.
type noWay struct{ access.Table }

func (n noWay) Decide(ctx context.Context, c access.Caller, a access.Action, f access.Facts) (access.Decision, error) {
	if a != access.ExchangeToken && slices.Contains(f.Through, "agent-b") {
		return access.Decision{By: "forbid:through"}, nil
	}
	return n.Table.Decide(ctx, c, a, f)
}

// opens are the operations of brokers and people that take a workload access token.
func opens(w *world, connection string) map[string]func(secret.Text) error {
	ctx := w.t.Context()
	return map[string]func(secret.Text) error{
		"GetResourceOauth2Token": func(wat secret.Text) error {
			_, err := w.Token(ctx, w.agentA, ask(wat, at("mail")))
			return err
		},
		"GetResourceApiKey": func(wat secret.Text) error { _, err := w.APIKey(ctx, w.agentA, wat, "weather"); return err },
		"ReportTokenInvalid": func(wat secret.Text) error {
			_, err := w.ReportTokenInvalid(ctx, w.agentA, wat, connection)
			return err
		},
		"DescribeUser": func(wat secret.Text) error { _, err := w.identity.DescribeUser(ctx, w.agentA, wat); return err },
		"GetUserInfo":  func(wat secret.Text) error { _, err := w.identity.UserInfo(ctx, w.agentA, wat); return err },
	}
}

func TestM06_EveryOperationSeesTheSame(t *testing.T) {
	var guard *access.Guard
	w := newWorld(t)
	w.createProvider("mail", "StrictOauth2")
	_, err := w.CreateAPIKeyProvider(t.Context(), w.admin, broker.APIKeySpec{Name: "weather", Key: secret.New("k")})
	must(t, err)
	mail := w.consent("alice", at("mail"))
	ops := opens(w, mail.Connection)

	elsewhere := w.delegated("alice", identity.Grant{Provider: "cal", Scopes: []string{"read"}})
	for _, name := range []string{"GetResourceOauth2Token", "GetResourceApiKey", "ReportTokenInvalid"} {
		if err := ops[name](elsewhere); !errors.Is(err, fault.Denied) {
			t.Errorf("%s under a delegation for another provider: %v", name, err)
		}
	}

	guard = access.NewGuard(access.Config{Log: w.db, Now: w.clock.now, Decider: noWay{}})
	t.Cleanup(guard.Close)
	config := w.config
	config.Guard = guard
	config.Identity, err = identity.New(identity.Config{Store: w.db, Vault: w.vault, Guard: guard, Issuer: publicURL, Region: "us-east-1", Now: w.clock.now, Keys: noKeys{}})
	must(t, err)
	v := *w
	v.identity = config.Identity
	v.Broker, err = broker.New(config)
	must(t, err)
	m, err := v.identity.MintTokenThrough(t.Context(), v.agentA, v.wat(v.agentB, "alice"), "agent-a")
	must(t, err)
	for name, op := range opens(&v, mail.Connection) {
		if err := op(m.Token); !errors.Is(err, fault.Denied) {
			t.Errorf("%s through an agent that is forbidden: %v", name, err)
		}
	}

	wat := w.wat(w.agentA, "alice")
	w.clock.add(2 * time.Hour)
	for name, op := range ops {
		if err := op(wat); !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("%s with an expired token: %v", name, err)
		}
	}
}

// heard keeps how the users of decisions were established.
type heard struct {
	access.Table
	asserted []bool
}

func (h *heard) Decide(ctx context.Context, c access.Caller, a access.Action, f access.Facts) (access.Decision, error) {
	h.asserted = append(h.asserted, f.Asserted)
	return h.Table.Decide(ctx, c, a, f)
}

// A token without a user is asked for with a workload access token of one, and policies see how that one was
// established.
func TestM06_MachineTokensOfAssertedUsers(t *testing.T) {
	w := newWorld(t)
	wat := w.watForID(w.agentA, "alice")
	h := &heard{}
	config := w.config
	config.Guard = access.NewGuard(access.Config{Log: w.db, Now: w.clock.now, Decider: h})
	t.Cleanup(config.Guard.Close)
	b, err := broker.New(config)
	must(t, err)
	_, err = b.Token(t.Context(), w.agentA, ask(wat, machine))
	must(t, err)
	if len(h.asserted) == 0 || slices.Contains(h.asserted, false) {
		t.Errorf("decisions about an asserted user's machine token were told asserted: %v", h.asserted)
	}
}

type noKeys struct{}

func (noKeys) JWKS(context.Context, access.Account, string, string) ([]byte, error) {
	return nil, fault.New(fault.Unavailable, "none")
}

func TestM06_ReportsOfAssertedUsers(t *testing.T) {
	w := newWorld(t)
	wat := w.watForID(w.agentA, "alice")
	out := w.token(w.agentA, ask(wat, machine))
	p, err := w.db.Provider(t.Context(), account, "cal")
	must(t, err)
	must(t, w.TagProvider(t, p))
	_, err = w.ReportTokenInvalid(t.Context(), w.agentA, wat, out.Connection)
	wantError(t, "a report at a provider for verified users", err, fault.Denied, "serves only verified users")
}

// TagProvider marks the provider as one for verified users.
func (w *world) TagProvider(t *testing.T, p broker.Provider) error {
	old := p.Version
	p.Version++
	p.Tags = map[string]string{broker.TagAssurance: "verified"}
	return w.db.SwapProvider(t.Context(), p, old)
}
