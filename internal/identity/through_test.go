package identity_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// arnOf is the ARN of a workload identity of the test's account.
func arnOf(name string) string {
	return identity.Workload{Account: account, Name: name}.ARN("us-east-1")
}

// The claim may_act says who alone may use a user's token (RFC 8693 §4.4).
func TestB09_MayActIsObeyed(t *testing.T) {
	w := newWorld(t)
	w.trust()
	for name, mayAct := range map[string]any{
		"by name": map[string]any{"sub": "agent-a"},
		"by ARN":  map[string]any{"sub": arnOf("agent-a")},
		"of us":   map[string]any{"sub": "agent-a", "iss": publicURL},
		"none":    nil,
	} {
		w.accepted(name, w.jwt(map[string]any{"may_act": mayAct}))
	}
	for name, mayAct := range map[string]any{
		"another agent":            map[string]any{"sub": "agent-b"},
		"another account":          map[string]any{"sub": identity.Workload{Account: "999999999999", Name: "agent-a"}.ARN("us-east-1")},
		"another agent of no sub":  map[string]any{"iss": publicURL},
		"nobody":                   map[string]any{},
		"another issuer's":         map[string]any{"sub": "agent-a", "iss": issuerURL},
		"another issuer, a list":   map[string]any{"sub": "agent-a", "iss": []string{publicURL}},
		"what cannot be checked":   map[string]any{"sub": "agent-a", "client_id": "web"},
		"a string":                 "agent-a",
		"a list":                   []any{map[string]any{"sub": "agent-a"}},
		"a number as sub":          map[string]any{"sub": 5},
		"a pattern":                map[string]any{"sub": "agent-*"},
		"in another case":          map[string]any{"sub": "Agent-A"},
		"a chain instead of names": map[string]any{"sub": "agent-b", "may_act": map[string]any{"sub": "agent-a"}},
	} {
		w.refused(name, w.jwt(map[string]any{"may_act": mayAct}), fault.Unauthenticated)
	}
	// An act claim in a user's token is foreign history: it makes nobody an actor here, and none of it is passed on.
	w.accepted("a forged act", w.jwt(map[string]any{"act": map[string]any{"sub": arnOf("agent-b"), "act": map[string]any{"sub": "x"}}}))

	w.workload("agent-b", nil)
	_, err := w.MintTokenForJWT(t.Context(), caller(access.Agent, "agent-b"), "agent-b", secret.New(w.jwt(map[string]any{"may_act": map[string]any{"sub": "agent-a"}})))
	wantCode(t, "a mint for another actor", err, fault.Unauthenticated)
	records := w.records()
	if last := records[len(records)-1]; last.Allow || last.Facts.Outcome != "refused" || !strings.Contains(last.Facts.Detail, "may_act") {
		t.Errorf("the trail says %+v", last)
	}
}

// through makes agent-0 … agent-n, has the user's token handed on from each to the next, and returns the last one's.
func (w *world) through(n int) (secret.Text, error) {
	w.t.Helper()
	for i := range n + 1 {
		if _, err := w.GetWorkload(w.t.Context(), w.root, fmt.Sprint("agent-", i)); errors.Is(err, fault.NotFound) {
			w.workload(fmt.Sprint("agent-", i), nil)
		}
	}
	m := ok(w.MintTokenForJWT(w.t.Context(), caller(access.Agent, "agent-0"), "agent-0", secret.New(w.jwt(nil))))(w.t)
	token := m.Token
	for i := 1; i <= n; i++ {
		name := fmt.Sprint("agent-", i)
		got, err := w.MintTokenThrough(w.t.Context(), caller(access.Agent, name), token, name)
		if err != nil {
			return secret.Text{}, err
		}
		if got.Expires.After(m.Expires) {
			w.t.Errorf("%s got a token until %s, and the first ends at %s", name, got.Expires, m.Expires)
		}
		token = got.Token
	}
	return token, nil
}

// The chain is built here, has a bound, and says the same to the trail.
func TestB09_ChainHasABound(t *testing.T) {
	w := newWorld(t)
	w.trust()
	last, err := w.through(identity.MaxActors)
	must(t, err)
	opened, of, err := w.OpenToken(t.Context(), account, last)
	must(t, err)
	names := ok(w.Names(t.Context(), account, opened.Actors()))(t)
	if of.Name != "agent-8" || !slices.Equal(names, []string{"agent-7", "agent-6", "agent-5", "agent-4", "agent-3", "agent-2", "agent-1", "agent-0"}) || opened.User.Subject != "alice" {
		t.Errorf("the token is of %s for %q through %v", of.Name, opened.User.Subject, names)
	}
	if opened.Retains() {
		t.Error("what was kept of the user's token went along")
	}
	_, err = w.through(identity.MaxActors + 1)
	wantCode(t, "one more", err, fault.Invalid)
	found := slices.ContainsFunc(w.records(), func(r access.Record) bool {
		return r.Action == access.ExchangeToken && r.Facts.Workload == "agent-2" && r.Facts.Detail == "through agent-1, agent-0" && r.Facts.Resource == arnOf("agent-2")
	})
	if !found {
		t.Error("no record names the chain")
	}
}

func TestMintTokenThroughRefuses(t *testing.T) {
	w := newWorld(t)
	w.trust(func(i *identity.Issuer) { i.Workloads = []string{"agent-*"} })
	ctx := t.Context()
	w.workload("agent-0", nil)
	w.workload("agent-1", nil)
	w.workload("other", nil)
	w.workload("vouching", map[string]string{identity.TagAssurance: identity.Asserted})
	jwt := func() secret.Text {
		return ok(w.MintTokenForJWT(ctx, caller(access.Agent, "agent-0"), "agent-0", secret.New(w.jwt(nil))))(t).Token
	}
	good := jwt()
	machine := ok(w.MintToken(ctx, caller(access.Agent, "agent-0"), "agent-0"))(t).Token
	asserted := ok(w.MintTokenForUserID(ctx, caller(access.Agent, "vouching"), "vouching", "alice"))(t).Token
	for name, c := range map[string]struct {
		caller  access.Caller
		token   secret.Text
		to      string
		code    fault.Code
		mention string
	}{
		"for one that is not paired":   {caller(access.Agent, "agent-0"), good, "agent-1", fault.Denied, "pairing"},
		"by an application":            {caller(access.ConsentApp, "agent-1"), good, "agent-1", fault.Denied, "role agent"},
		"for one that there is not":    {caller(access.Agent, "agent-9"), good, "agent-9", fault.NotFound, ""},
		"for itself":                   {caller(access.Agent, "agent-0"), good, "agent-0", fault.Invalid, "already"},
		"without a user":               {caller(access.Agent, "agent-1"), machine, "agent-1", fault.Invalid, "no user"},
		"nonsense":                     {caller(access.Agent, "agent-1"), secret.New("wat1.AAAA"), "agent-1", fault.Unauthenticated, ""},
		"an issuer for others":         {caller(access.Agent, "other"), good, "other", fault.Denied, "not trusted"},
		"a user whom nobody proved":    {caller(access.Agent, "agent-1"), asserted, "agent-1", fault.Denied, "asserted"},
		"a user's own token":           {caller(access.Agent, "agent-1"), secret.New(w.jwt(nil)), "agent-1", fault.Unauthenticated, "wat1."},
		"with nothing to be exchanged": {caller(access.Agent, "agent-1"), secret.Text{}, "agent-1", fault.Unauthenticated, ""},
	} {
		_, err := w.MintTokenThrough(ctx, c.caller, c.token, c.to)
		wantCode(t, name, err, c.code)
		if err != nil && !strings.Contains(fault.Public(err).Msg, c.mention) {
			t.Errorf("%s: %q does not mention %q", name, fault.Public(err).Msg, c.mention)
		}
		w.refusedLast(name)
	}
	w.clock.add(identity.UserTokenLife)
	_, err := w.MintTokenThrough(ctx, caller(access.Agent, "agent-1"), good, "agent-1")
	wantCode(t, "an expired token", err, fault.Unauthenticated)
	w.refusedLast("an expired token")
	ok(w.DisableWorkload(ctx, w.root, "agent-0", "stolen"))(t)
	_, err = w.MintTokenThrough(ctx, caller(access.Agent, "agent-1"), good, "agent-1")
	wantCode(t, "of a disabled agent", err, fault.Unauthenticated)
	if last := w.refusedLast("of a disabled agent"); last.Rule != "workload-disabled" {
		t.Errorf("of a disabled agent: %+v", last)
	}
}

// refusedLast holds the newest record to be a refusal of an exchange that names its rule.
func (w *world) refusedLast(name string) access.Record {
	w.t.Helper()
	records := w.records()
	last := records[len(records)-1]
	if last.Action != access.ExchangeToken || last.Allow || last.Rule == "" || last.Facts.Outcome != "refused" && last.Facts.Outcome != "denied" {
		w.t.Errorf("%s: the trail says %+v", name, last)
	}
	return last
}

// Whoever disables or revokes an agent ends what came through it, and what was made of that.
func TestB02_ChainDiesWithEachOfItsAgents(t *testing.T) {
	for i := range 3 {
		for what, do := range map[string]func(w *world, ctx context.Context, of identity.Workload) error{
			"disabled": func(w *world, ctx context.Context, of identity.Workload) error {
				_, err := w.DisableWorkload(ctx, w.root, of.Name, "stolen")
				return err
			},
			"revoked": func(w *world, ctx context.Context, of identity.Workload) error {
				return w.RaiseEpoch(ctx, account, identity.WorkloadStanding, of.UID)
			},
		} {
			w := newWorld(t)
			w.trust()
			token, err := w.through(2)
			must(t, err)
			opened, _, err := w.OpenToken(t.Context(), account, token)
			must(t, err)
			ground, whole := opened.Ground()
			if holds, err := w.Holds(t.Context(), account, ground); !holds || !whole || err != nil {
				t.Fatalf("before: %t %t %v", holds, whole, err)
			}
			w.clock.add(time.Second)
			must(t, do(w, t.Context(), ok(w.GetWorkload(t.Context(), w.root, fmt.Sprint("agent-", i)))(t)))
			_, _, err = w.OpenToken(t.Context(), account, token)
			wantCode(t, fmt.Sprintf("agent %d %s: the token", i, what), err, fault.Unauthenticated)
			if holds, err := w.Holds(t.Context(), account, ground); holds || err != nil {
				t.Errorf("agent %d %s: what rests on the token: %t, %v", i, what, holds, err)
			}
			w.clock.add(time.Second)
			if _, err := w.EnableWorkload(t.Context(), w.root, fmt.Sprint("agent-", i)); err != nil {
				t.Fatal(err)
			}
			if holds, err := w.Holds(t.Context(), account, ground); holds || err != nil {
				t.Errorf("agent %d %s and enabled again: %t, %v", i, what, holds, err)
			}
			if _, err := w.through(2); err != nil {
				t.Errorf("agent %d %s and enabled again, a new chain: %v", i, what, err)
			}
		}
	}
}

// A token of this server itself names no user here, whoever trusts its address.
func TestB06_OwnTokensNameNoUser(t *testing.T) {
	w := newWorld(t, func(c *identity.Config) { c.Dev, c.Issuer = true, "http://127.0.0.1:8180" })
	w.refused("where development mode trusts loopback", w.jwt(map[string]any{"iss": "http://127.0.0.1:8180"}), fault.Unauthenticated)
	w.idp.mu.Lock()
	defer w.idp.mu.Unlock()
	if len(w.idp.calls) != 0 {
		t.Errorf("its keys were asked for: %q", w.idp.calls)
	}
}

// asked is the rule table, and what it was asked about exchanges.
type asked struct {
	access.Table
	from []string
}

func (a *asked) Decide(ctx context.Context, c access.Caller, action access.Action, f access.Facts) (access.Decision, error) {
	if action == access.ExchangeToken {
		a.from = append(a.from, f.From)
	}
	return a.Table.Decide(ctx, c, action, f)
}

// M07: whoever decides knows who handed the token on, also where the token is dead: else the refusal of a dead token
// would be for everybody. A token that does not open is nobody's, which only who may act for the receiver is told.
func TestM07_TheSenderIsKnown(t *testing.T) {
	a := &asked{}
	w := newWorld(t, func(c *identity.Config) {
		c.Guard = access.NewGuard(access.Config{Log: c.Guard.Log, Now: c.Now, Decider: a})
		t.Cleanup(c.Guard.Close)
	})
	w.trust()
	ctx := t.Context()
	for _, name := range []string{"agent-0", "agent-1", "agent-2"} {
		w.workload(name, nil)
	}
	mint := func() secret.Text {
		return ok(w.MintTokenForJWT(ctx, caller(access.Agent, "agent-0"), "agent-0", secret.New(w.jwt(nil))))(t).Token
	}
	exchange := func(what string, token secret.Text, to string, code fault.Code, from ...string) secret.Text {
		t.Helper()
		a.from = nil
		got, err := w.MintTokenThrough(ctx, caller(access.Agent, to), token, to)
		if fault.CodeOf(err) != code || !slices.Equal(a.from, from) {
			t.Errorf("%s: %v, and it was asked about the senders %q; want %q and %q", what, err, a.from, code, from)
		}
		return got.Token
	}
	own := exchange("a good token", mint(), "agent-1", "", "agent-0")
	exchange("one that was handed on already", own, "agent-2", "", "agent-1")
	exchange("for itself", mint(), "agent-0", fault.Invalid, "agent-0")

	expired := mint()
	w.clock.add(identity.UserTokenLife)
	exchange("an expired token", expired, "agent-1", fault.Unauthenticated, "agent-0")
	revoked := mint()
	must(t, w.RaiseEpoch(ctx, account, identity.WorkloadStanding, ok(w.GetWorkload(ctx, w.root, "agent-0"))(t).UID))
	exchange("a revoked token", revoked, "agent-1", fault.Unauthenticated, "agent-0")
	disabled := mint()
	ok(w.DisableWorkload(ctx, w.root, "agent-0", "stolen"))(t)
	exchange("of a disabled agent", disabled, "agent-1", fault.Unauthenticated, "agent-0")
	ok(w.EnableWorkload(ctx, w.root, "agent-0"))(t)
	deleted := mint()
	must(t, w.DeleteWorkload(ctx, w.root, "agent-0"))
	exchange("of a deleted agent", deleted, "agent-1", fault.Unauthenticated, "agent-0")

	exchange("no token", secret.New("wat1.bm90"), "agent-1", fault.Unauthenticated)
	a.from = nil
	_, err := w.MintTokenThrough(ctx, caller(access.Agent, "agent-2"), secret.New("wat1.bm90"), "agent-1")
	wantCode(t, "no token, by another agent", err, fault.Denied)
	w.refusedLast("no token")
}
