package identity_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// standWorld has an agent that may act for proven and asserted users.
func standWorld(t *testing.T) (*world, identity.Workload, access.Caller) {
	w := newWorld(t)
	w.trust()
	return w, w.workload("agent-a", asserted()), caller(access.Agent, "agent-a")
}

func (w *world) mintJWT(agent access.Caller, sub string) secret.Text {
	w.t.Helper()
	return ok(w.MintTokenForJWT(w.t.Context(), agent, "agent-a", secret.New(w.jwt(map[string]any{"sub": sub}))))(w.t).Token
}

func (w *world) open(token secret.Text) error {
	_, _, err := w.OpenToken(w.t.Context(), account, token)
	return err
}

// Each kind that is disabled ends tokens of before and minting; enabling it lets new tokens be minted, and the old ones
// stay dead.
func TestB02_DisabledEndsTokens(t *testing.T) {
	alice := identity.UserSelector{Issuer: issuerURL, Subject: "alice"}
	for _, c := range []struct {
		name     string
		disable  func(context.Context, *world) error
		enable   func(context.Context, *world) error
		what     string // in what is told to the agent itself
		others   bool   // it ends other users' tokens too
		mintCode fault.Code
	}{
		{"agent", func(ctx context.Context, w *world) error {
			return only(w.DisableWorkload(ctx, w.root, "agent-a", "leaked"))
		},
			func(ctx context.Context, w *world) error { return only(w.EnableWorkload(ctx, w.root, "agent-a")) }, "the agent agent-a is disabled: leaked", true, fault.Denied},
		{"frozen agent", func(ctx context.Context, w *world) error {
			found := ok(w.FindWorkload(ctx, account, "agent-a"))(t)
			return w.Freeze(ctx, account, found.UID, "61 releases in a minute")
		},
			func(ctx context.Context, w *world) error { return only(w.EnableWorkload(ctx, w.root, "agent-a")) }, "the agent agent-a is frozen: 61 releases in a minute", true, fault.Denied},
		{"user", func(ctx context.Context, w *world) error { return only(w.DisableUser(ctx, w.root, alice, "left")) },
			func(ctx context.Context, w *world) error { return only(w.EnableUser(ctx, w.root, alice)) }, "the user is disabled: left", false, fault.Denied},
		{"issuer", func(ctx context.Context, w *world) error {
			return only(w.DisableIssuer(ctx, w.root, issuerURL, "breach"))
		},
			func(ctx context.Context, w *world) error { return only(w.EnableIssuer(ctx, w.root, issuerURL)) }, "the issuer " + issuerURL + " is disabled: breach", true, fault.Unauthenticated},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, _, agent := standWorld(t)
			ctx := t.Context()
			old, bob := w.mintJWT(agent, "alice"), w.mintJWT(agent, "bob")
			must(t, w.open(old))
			must(t, c.disable(ctx, w))
			err := w.open(old)
			wantCode(t, "a token of before", err, fault.Unauthenticated)
			if msg := fault.Public(err).Msg; strings.Contains(msg, "agent-a") || strings.Contains(msg, ": ") {
				t.Errorf("whoever holds the token is told %q", msg)
			}
			if told := fault.Public(identity.Tell(agent, err)).Msg; told != c.what {
				t.Errorf("the agent itself is told %q, want %q", told, c.what)
			}
			if told := fault.Public(identity.Tell(caller(access.Agent, "agent-b"), err)).Msg; strings.Contains(told, "agent-a") || strings.Contains(told, ": ") {
				t.Errorf("another agent is told %q", told)
			}
			if got := w.open(bob) != nil; got != c.others {
				t.Errorf("another user's token is refused: %v, want %v", got, c.others)
			}
			_, err = w.MintTokenForJWT(ctx, agent, "agent-a", secret.New(w.jwt(map[string]any{"sub": "alice"})))
			wantCode(t, "mint", err, c.mintCode)
			if last := w.records()[len(w.records())-1]; last.Allow || last.Facts.Outcome != "refused" {
				t.Errorf("the last record is %+v, want the refusal", last)
			}
			must(t, c.enable(ctx, w))
			wantCode(t, "a token of before, after it was enabled", w.open(old), fault.Unauthenticated)
			must(t, w.open(w.mintJWT(agent, "alice")))
		})
	}
}

func only(_ identity.Standing, err error) error { return err }

// An expired token may poll its session, but not once it was revoked.
func TestB02_RevokedWhileItPolls(t *testing.T) {
	w, a, agent := standWorld(t)
	token := w.mintJWT(agent, "alice")
	w.clock.add(16 * time.Minute)
	must(t, w.open(token))
	must(t, w.RaiseEpoch(t.Context(), account, identity.WorkloadStanding, a.UID))
	wantCode(t, "an expired token that was revoked", w.open(token), fault.Unauthenticated)
}

func TestB02_RevokedByEachEpoch(t *testing.T) {
	alice := identity.User{Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}
	for name, raise := range map[string]func(*world, identity.Workload) error{
		"workload": func(w *world, a identity.Workload) error {
			return w.RaiseEpoch(t.Context(), account, identity.WorkloadStanding, a.UID)
		},
		"user": func(w *world, _ identity.Workload) error {
			return w.RaiseEpoch(t.Context(), account, identity.UserStanding, ok(w.UserRef(t.Context(), account, alice))(t))
		},
		"issuer": func(w *world, _ identity.Workload) error {
			return w.RaiseEpoch(t.Context(), account, identity.IssuerStanding, issuerURL)
		},
		"account": func(w *world, _ identity.Workload) error { return w.RaiseEveryEpoch(t.Context(), account) },
	} {
		w, a, agent := standWorld(t)
		for range 2 { // from no row to one, and from one to the next
			token := w.mintJWT(agent, "alice")
			must(t, w.open(token))
			must(t, raise(w, a))
			err := w.open(token)
			wantCode(t, name, err, fault.Unauthenticated)
			if msg := fault.Public(err).Msg; !strings.Contains(msg, "was revoked: mint a new one") {
				t.Errorf("%s: got %q", name, msg)
			}
		}
	}
}

// countedSwaps counts what is written.
type countedSwaps struct {
	identity.Store
	n atomic.Int64
}

func (c *countedSwaps) SwapStanding(ctx context.Context, at identity.Standing, oldVersion int64) error {
	c.n.Add(1)
	return c.Store.SwapStanding(ctx, at, oldVersion)
}

// Freezing what is frozen writes nothing: an agent that runs into its ceiling a thousand times a second costs no more.
func TestFreeze_WritesOnce(t *testing.T) {
	w, a, _ := standWorld(t)
	ctx := t.Context()
	counted := &countedSwaps{Store: w.db}
	w.config.Store = counted
	s := ok(identity.New(w.config))(t)
	must(t, s.Freeze(ctx, account, a.UID, "61 releases in a minute"))
	frozen := ok(w.db.CurrentStanding(ctx, account, identity.WorkloadStanding, a.UID))(t)
	counted.n.Store(0)
	w.clock.add(time.Second)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := s.Freeze(ctx, account, a.UID, "again"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if at := ok(w.db.CurrentStanding(ctx, account, identity.WorkloadStanding, a.UID))(t); at != frozen || counted.n.Load() != 0 {
		t.Errorf("%d writes, from %+v to %+v", counted.n.Load(), frozen, at)
	}
}

// A token that another replica minted after a change that this one has not seen yet is good.
func TestTokensOfLaterEpochsOpen(t *testing.T) {
	w, a, agent := standWorld(t)
	behind := &staleStandings{Store: w.db}
	w.config.Store = behind
	other := ok(identity.New(w.config))(t)
	must(t, w.RaiseEpoch(t.Context(), account, identity.WorkloadStanding, a.UID))
	if _, _, err := other.OpenToken(t.Context(), account, w.mintJWT(agent, "alice")); err != nil {
		t.Errorf("got %v, want it opened", err)
	}
}

// staleStandings knows of no standing yet.
type staleStandings struct{ identity.Store }

func (staleStandings) Standing(_ context.Context, a access.Account, kind identity.StandingKind, key string) (identity.Standing, error) {
	return identity.Standing{Account: a, Kind: kind, Key: key}, nil
}

func TestStandings_WhoMay(t *testing.T) {
	w, a, _ := standWorld(t)
	ctx := t.Context()
	sel := identity.UserSelector{ID: "alice"}
	for _, c := range []access.Caller{caller(access.Agent, "*"), caller(access.ConsentApp, "*"), caller(access.Auditor)} {
		for name, err := range map[string]error{
			"disable agent": only(w.DisableWorkload(ctx, c, "agent-a", "")), "enable agent": only(w.EnableWorkload(ctx, c, "agent-a")),
			"disable user": only(w.DisableUser(ctx, c, sel, "")), "enable user": only(w.EnableUser(ctx, c, sel)),
			"disable issuer": only(w.DisableIssuer(ctx, c, issuerURL, "")), "enable issuer": only(w.EnableIssuer(ctx, c, issuerURL)),
			"disable nobody": only(w.DisableWorkload(ctx, c, "agent-x", "")),
		} {
			wantCode(t, name+" by "+c.Name, err, fault.Denied)
		}
	}
	admin := caller(access.Admin)
	must(t, only(w.DisableWorkload(ctx, admin, "agent-a", "why\nnot")))
	must(t, only(w.DisableUser(ctx, admin, sel, "")))
	wantCode(t, "no such agent", only(w.DisableWorkload(ctx, admin, "agent-x", "")), fault.NotFound)
	wantCode(t, "no such issuer", only(w.DisableIssuer(ctx, admin, "https://other.example.com", "")), fault.NotFound)
	wantCode(t, "never disabled", only(w.EnableIssuer(ctx, admin, issuerURL)), fault.NotFound)
	for _, bad := range []identity.UserSelector{{}, {Issuer: issuerURL}, {Subject: "alice"}, {ID: "a", Ref: "b"}, {ID: "a", Issuer: issuerURL, Subject: "b"}, {ID: "a\nb"}} {
		wantCode(t, "a user named badly", only(w.DisableUser(ctx, admin, bad, "")), fault.Invalid)
	}
	list, next, err := w.Standings(ctx, caller(access.Auditor), identity.WorkloadStanding, "", 10)
	must(t, err)
	if len(list) != 1 || next != "" || list[0].Key != a.UID || list[0].Name != "agent-a" || !list[0].Disabled || list[0].Reason != "why not" || list[0].Epoch != 1 {
		t.Errorf("got %+v", list)
	}
	_, _, err = w.Standings(ctx, caller(access.Agent, "*"), identity.UserStanding, "", 10)
	wantCode(t, "listing by an agent", err, fault.Denied)
}

// Freezing is an event of the server's own, happens once, and hides no administrator's reason.
func TestFreeze(t *testing.T) {
	w, a, _ := standWorld(t)
	ctx := t.Context()
	must(t, only(w.DisableWorkload(ctx, w.root, "agent-a", "by hand")))
	before := len(w.records())
	must(t, w.Freeze(ctx, account, a.UID, "too many users"))
	must(t, w.Freeze(ctx, account, a.UID, "too many users"))
	if got := w.records()[before:]; len(got) != 1 || got[0].Rule != "event" || got[0].Facts.Outcome != "frozen" || got[0].Facts.Workload != "agent-a" {
		t.Errorf("got records %+v, want one event", got)
	}
	at := ok(w.Standing(ctx, account, identity.WorkloadStanding, a.UID))(t)
	if !at.Frozen || !at.Disabled || at.Reason != "by hand" || at.Epoch != 2 {
		t.Errorf("got %+v", at)
	}
	at = ok(w.EnableWorkload(ctx, w.root, "agent-a"))(t)
	if at.Down() || at.Reason != "" || at.Epoch != 2 {
		t.Errorf("enabled: %+v", at)
	}
	wantCode(t, "nobody", w.Freeze(ctx, account, "wi-nothing", ""), fault.NotFound)
}

// A disabled user's JWT is not kept, and a consent page learns who is down without a token.
func TestDisabledUserLeavesNothing(t *testing.T) {
	w, a, agent := standWorld(t)
	ctx := t.Context()
	alice := identity.User{Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}
	ref := ok(w.UserRef(ctx, account, alice))(t)
	wantCode(t, "a user who is not remembered", w.Serves(ctx, account, a.UID, ref), fault.Denied)
	must(t, w.RememberUser(ctx, account, alice))
	must(t, w.Serves(ctx, account, a.UID, ref))
	kept := &keptAssertions{Store: w.db}
	w.config.Store = kept
	s := ok(identity.New(w.config))(t)
	mint := func() error {
		_, err := s.MintTokenForJWT(ctx, agent, "agent-a", secret.New(w.jwt(nil)))
		return err
	}
	must(t, mint())
	must(t, only(w.DisableUser(ctx, w.root, identity.UserSelector{Ref: ref}, "left")))
	wantCode(t, "mint", mint(), fault.Denied)
	if kept.n != 1 {
		t.Errorf("%d users' tokens were kept, want the one of before", kept.n)
	}
	err := w.Serves(ctx, account, a.UID, ref)
	wantCode(t, "the consent page", err, fault.Denied)
	if strings.Contains(fault.Public(err).Msg, "left") {
		t.Errorf("the browser is told the reason: %v", err)
	}
}

// keptAssertions counts, for an account that exchanges users' tokens.
type keptAssertions struct {
	identity.Store
	n int
}

func (k *keptAssertions) KeepAssertion(ctx context.Context, a identity.Assertion) error {
	k.n++
	return k.Store.KeepAssertion(ctx, a)
}

func (*keptAssertions) ExchangesUserTokens(context.Context, access.Account) (bool, error) {
	return true, nil
}

// Where it cannot be known whether somebody is disabled, nothing is minted or opened.
func TestStandingsUnavailable(t *testing.T) {
	w, _, agent := standWorld(t)
	token := w.mintJWT(agent, "alice")
	w.config.Store = &noStandings{w.db}
	s := ok(identity.New(w.config))(t)
	_, _, err := s.OpenToken(t.Context(), account, token)
	wantCode(t, "open", err, fault.Unavailable)
	_, err = s.MintToken(t.Context(), agent, "agent-a")
	wantCode(t, "mint", err, fault.Unavailable)
}

type noStandings struct{ identity.Store }

func (noStandings) Standing(context.Context, access.Account, identity.StandingKind, string) (identity.Standing, error) {
	return identity.Standing{}, fault.Wrap(fault.Unavailable, errors.New("down"), "the store does not answer")
}
