package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

const ttl = time.Minute

// withProvider makes the provider that connections and flows hang on.
func withProvider(t testing.TB, db *store.DB) broker.Provider {
	t.Helper()
	p := aProvider(account, "prov1", "google")
	must(t, db.CreateProvider(t.Context(), p))
	return p
}

func TestProviders(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p := withProvider(t, db)
		dup := aProvider(account, "prov2", "google")
		wantCode(t, "same name", db.CreateProvider(ctx, dup), fault.Conflict)
		provider := got[broker.Provider](t)
		wantEqual(t, "by name", provider(db.Provider(ctx, account, "google")), p)
		wantEqual(t, "by uid", provider(db.ProviderByUID(ctx, account, "prov1")), p)
		wantEqual(t, "by callback", provider(db.ProviderByCallback(ctx, p.CallbackID)), p)
		_, err := db.ProviderByCallback(ctx, "nobody")
		wantCode(t, "unknown callback", err, fault.NotFound)
		list, err := db.Providers(ctx, account, "", 10)
		must(t, err)
		wantEqual(t, "list", list, []broker.Provider{p})

		wantEqual(t, "first pin", got[string](t)(db.PinProvider(ctx, account, "prov1", "https://a")), "https://a")
		wantEqual(t, "second pin", got[string](t)(db.PinProvider(ctx, account, "prov1", "https://b")), "https://a")
		wantEqual(t, "pinned row", provider(db.Provider(ctx, account, "google")).Pinned, "https://a")
		_, err = db.PinProvider(ctx, other, "prov1", "https://c")
		wantCode(t, "pin of another account's", err, fault.NotFound)
		wantCode(t, "swap of what was read before the pin", db.SwapProvider(ctx, p, 1), fault.Conflict)

		p = provider(db.ProviderByUID(ctx, account, "prov1"))
		old := p.Version
		p.Version, p.ClientID, p.Tags = old+1, "client2", nil
		must(t, db.SwapProvider(ctx, p, old))
		wantEqual(t, "swapped", provider(db.ProviderByUID(ctx, account, "prov1")), p)
		wantCode(t, "swap again", db.SwapProvider(ctx, p, old), fault.Conflict)
	})
}

// E18, D01: nobody redirects stored tokens by editing an endpoint.
func TestProviderChangeInvalidates(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p := withProvider(t, db)
		second := aProvider(account, "prov2", "github")
		must(t, db.CreateProvider(ctx, second))
		active, leased, mine := aConnection(account, "k1", "prov1"), aConnection(account, "k2", "prov1"), aConnection(account, "k3", "prov2")
		for _, c := range []broker.Connection{active, leased, mine} {
			must(t, db.SwapConnection(ctx, c, 0))
		}
		fence := got[int64](t)(db.LeaseConnection(ctx, attempt(leased), "k2", ttl))
		must(t, db.CreateFlow(ctx, aFlow(account, "f1", "prov1"), 50))
		must(t, db.CreateFlow(ctx, aFlow(account, "f2", "prov2"), 50))
		must(t, db.AddVisit(ctx, aVisit("s1", "f1"), 5))

		p.Version, p.Tags = 2, map[string]string{"only": "tags"}
		must(t, db.SwapProvider(ctx, p, 1))
		wantEqual(t, "state after a harmless change", got[broker.Connection](t)(db.Connection(ctx, account, "k1")).State, broker.Active)

		p.Version, p.Identity = 3, "identity-2"
		must(t, db.SwapProvider(ctx, p, 2))
		for _, key := range []string{"k1", "k2"} {
			c := got[broker.Connection](t)(db.Connection(ctx, account, key))
			wantEqual(t, key+" state", c.State, broker.NeedsReauth)
			wantEqual(t, key+" reason", c.Reason, "provider_changed")
		}
		wantEqual(t, "the other provider's connection", got[broker.Connection](t)(db.Connection(ctx, account, "k3")), mine)
		leased.Generation = 2
		wantCode(t, "finish under the old identity", db.FinishLease(ctx, leased, fence, "stored"), fault.Conflict)
		_, err := db.LeaseConnection(ctx, attempt(active), "k1", ttl)
		wantCode(t, "lease of what needs a new consent", err, fault.Conflict)

		f := got[broker.Flow](t)(db.FlowByID(ctx, "f1"))
		wantEqual(t, "flow", [2]string{string(f.State), f.Reason}, [2]string{"failed", "provider_changed"})
		wantEqual(t, "sealed in the flow", len(f.CustomState)+len(f.CustomParams), 0)
		wantEqual(t, "the other provider's flow", got[broker.Flow](t)(db.FlowByID(ctx, "f2")), aFlow(account, "f2", "prov2"))
	})
}

func TestDeleteProviderErases(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p := withProvider(t, db)
		c := aConnection(account, "k1", "prov1")
		must(t, db.SwapConnection(ctx, c, 0))
		got[int64](t)(db.LeaseConnection(ctx, attempt(c), "k1", ttl))
		must(t, db.CreateFlow(ctx, aFlow(account, "f1", "prov1"), 50))
		must(t, db.AddVisit(ctx, aVisit("s1", "f1"), 5))
		got[broker.Provider](t)(db.Provider(ctx, account, "google"))

		wantCode(t, "another account's", db.DeleteProvider(ctx, other, "google"), fault.NotFound)
		must(t, db.DeleteProvider(ctx, account, "google"))
		_, err := db.Connection(ctx, account, "k1")
		wantCode(t, "connection", err, fault.NotFound)
		_, err = db.FlowByID(ctx, "f1")
		wantCode(t, "flow", err, fault.NotFound)
		_, err = db.SpendVisit(ctx, "s1", "cookie-s1")
		wantCode(t, "visit", err, fault.NotFound)
		_, err = db.OpenAttempt(ctx, account, c.ID, 100)
		wantCode(t, "attempt", err, fault.NotFound)
		_, err = db.Provider(ctx, account, "google")
		wantCode(t, "provider, read before", err, fault.NotFound)
		_, err = db.ProviderByUID(ctx, account, p.UID)
		wantCode(t, "provider by uid", err, fault.NotFound)
		wantCode(t, "again", db.DeleteProvider(ctx, account, "google"), fault.NotFound)
		wantCode(t, "a connection that comes late", db.SwapConnection(ctx, c, 0), fault.NotFound)
		wantCode(t, "a flow that comes late", db.CreateFlow(ctx, aFlow(account, "f1", "prov1"), 50), fault.NotFound)
	})
}

func TestConnections(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		connection := got[broker.Connection](t)
		c := aConnection(account, "k1", "prov1")
		must(t, db.SwapConnection(ctx, c, 0))
		wantEqual(t, "by key", connection(db.Connection(ctx, account, "k1")), c)
		wantEqual(t, "by id", connection(db.ConnectionByID(ctx, account, "id-k1")), c)
		wantCode(t, "insert again", db.SwapConnection(ctx, c, 0), fault.Conflict)
		bare := broker.Connection{Account: account, ID: "bare", Key: "k0", Provider: "prov1", State: broker.Active, Generation: 1}
		must(t, db.SwapConnection(ctx, bare, 0))
		wantEqual(t, "bare", connection(db.Connection(ctx, account, "k0")), bare)

		next := c
		next.Generation, next.Access, next.Refresh, next.Granted, next.Reason = 2, vault.Sealed("access 2"), nil, []string{}, "why"
		wantCode(t, "swap of another generation", db.SwapConnection(ctx, next, 4), fault.Conflict)
		must(t, db.SwapConnection(ctx, next, 1))
		next.Fence = 1 // no lease taken before the swap can finish
		wantEqual(t, "swapped", connection(db.Connection(ctx, account, "k1")), next)

		won := race(t, 50, fault.Conflict, func(i int) error {
			mine := next
			mine.Generation = 3
			return db.SwapConnection(context.Background(), mine, 2)
		})
		wantEqual(t, "winners of a swap", won, 1)
		won = race(t, 50, fault.Conflict, func(i int) error {
			mine := aConnection(account, "k9", "prov1")
			mine.ID = fmt.Sprint("id-", i)
			return db.SwapConnection(context.Background(), mine, 0)
		})
		wantEqual(t, "winners of an insert", won, 1)
	})
}

func TestLeases(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		connection := got[broker.Connection](t)
		c := aConnection(account, "k1", "prov1")
		must(t, db.SwapConnection(ctx, c, 0))

		won := race(t, 50, fault.Conflict, func(int) error {
			_, err := db.LeaseConnection(context.Background(), attempt(c), "k1", ttl)
			return err
		})
		wantEqual(t, "winners of a lease", won, 1)
		held := connection(db.Connection(ctx, account, "k1"))
		wantEqual(t, "state and fence", fmt.Sprint(held.State, held.Fence), "refreshing1")
		if until := time.Until(held.LeaseUntil); until < ttl/2 || until > 2*ttl {
			t.Errorf("lease ends in %v, want about %v", until, ttl)
		}
		a, err := db.OpenAttempt(ctx, account, c.ID, 2)
		must(t, err)
		want := attempt(c)
		want.Fence = 1
		wantEqual(t, "attempt", a, want)
		_, err = db.OpenAttempt(ctx, account, c.ID, 1)
		wantCode(t, "attempt below its own fence", err, fault.NotFound)
		_, err = db.OpenAttempt(ctx, other, c.ID, 2)
		wantCode(t, "another account's attempt", err, fault.NotFound)

		next := c
		next.Generation, next.Access = 2, vault.Sealed("access 2")
		wantCode(t, "finish under another fence", db.FinishLease(ctx, next, 7, "stored"), fault.Conflict)
		must(t, db.FinishLease(ctx, next, 1, "stored"))
		must(t, db.FinishLease(ctx, next, 1, "stored")) // whose answer was lost
		next.Fence = 1
		wantEqual(t, "finished", connection(db.Connection(ctx, account, "k1")), next)
		_, err = db.OpenAttempt(ctx, account, c.ID, 2)
		wantCode(t, "attempt after its end", err, fault.NotFound)
		_, err = db.LeaseConnection(ctx, attempt(c), "k1", ttl)
		wantCode(t, "lease of an old generation", err, fault.Conflict)
		_, err = db.LeaseConnection(ctx, broker.Attempt{Account: other, Subject: c.ID, Generation: 2}, "k1", ttl)
		wantCode(t, "lease of another account's", err, fault.Conflict)

	})
}

// A holder that dies: its lease runs out, and its attempt stays open until the tokens are others.
func TestLeaseThatRunsOut(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		c := aConnection(account, "k1", "prov1")
		must(t, db.SwapConnection(ctx, c, 0))
		wantEqual(t, "fence", got[int64](t)(db.LeaseConnection(ctx, attempt(c), "k1", 0)), 1)
		wantEqual(t, "next fence", leaseSoon(t, db, attempt(c), "k1"), 2)
		a, err := db.OpenAttempt(ctx, account, c.ID, 2)
		must(t, err)
		wantEqual(t, "open attempt", a.Fence, 1)
		wantCode(t, "the dead one finishes", db.FinishLease(ctx, c, 1, "stored"), fault.Conflict)
		must(t, db.FinishLease(ctx, c, 2, "not_sent")) // tokens as they were
		_, err = db.OpenAttempt(ctx, account, c.ID, 9)
		must(t, err)

		// A consent meanwhile: the holder of the lease must not overwrite it.
		fence := leaseSoon(t, db, attempt(c), "k1")
		next := c
		next.Generation = 2
		must(t, db.SwapConnection(ctx, next, 1))
		wantCode(t, "finish after a consent", db.FinishLease(ctx, c, fence, "stored"), fault.Conflict)
		_, err = db.OpenAttempt(ctx, account, c.ID, 99)
		wantCode(t, "attempts on tokens that are gone", err, fault.NotFound)
	})
}

// leaseSoon takes a lease as soon as the one before has run out.
func leaseSoon(t testing.TB, db *store.DB, a broker.Attempt, key string) int64 {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		fence, err := db.LeaseConnection(t.Context(), a, key, ttl)
		if err == nil || time.Now().After(deadline) {
			must(t, err)
			return fence
		}
	}
}

func TestFlow(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		flow := got[broker.Flow](t)
		f := aFlow(account, "f1", "prov1")
		must(t, db.CreateFlow(ctx, f, 50))
		wantEqual(t, "flow", flow(db.FlowByID(ctx, "f1")), f)
		wantCode(t, "create again", db.CreateFlow(ctx, f, 50), fault.Conflict)
		_, err := db.FlowByID(ctx, "f9")
		wantCode(t, "unknown flow", err, fault.NotFound)

		must(t, db.AddVisit(ctx, aVisit("s1", "f1"), 2))
		must(t, db.AddVisit(ctx, aVisit("s2", "f1"), 2))
		wantCode(t, "one visit too many", db.AddVisit(ctx, aVisit("s3", "f1"), 2), fault.Limit)
		wantCode(t, "visit of nothing", db.AddVisit(ctx, aVisit("s3", "f9"), 2), fault.Conflict)
		wantCode(t, "same state", db.AddVisit(ctx, aVisit("s1", "f1"), 9), fault.Conflict)

		won := race(t, 50, fault.Conflict, func(i int) error {
			return db.HoldCode(context.Background(), "f1", vault.Sealed("code"), vault.Sealed("verifier"))
		})
		wantEqual(t, "winners of the code", won, 1)
		wantCode(t, "visit after the code", db.AddVisit(ctx, aVisit("s3", "f1"), 9), fault.Conflict)
		f.State, f.Code, f.Verifier = broker.FlowCodeHeld, vault.Sealed("code"), vault.Sealed("verifier")
		wantEqual(t, "held", flow(db.FlowByID(ctx, "f1")), f)

		start := func(int) error {
			_, err := db.StartRedeem(context.Background(), "f1", broker.Attempt{Account: account, Subject: "f1", Kind: "redeem", Started: at}, ttl)
			return err
		}
		wantEqual(t, "winners of the redemption", race(t, 50, fault.Conflict, start), 1)
		a, err := db.OpenAttempt(ctx, account, "f1", 9)
		must(t, err)
		wantEqual(t, "attempt", a, broker.Attempt{Account: account, Subject: "f1", Fence: 1, Kind: "redeem", Started: at})
		wantCode(t, "return under another fence", db.ReturnCode(ctx, "f1", 4), fault.Conflict)
		must(t, db.ReturnCode(ctx, "f1", 1))
		f.Fence = 1
		wantEqual(t, "returned", flow(db.FlowByID(ctx, "f1")), f)
		must(t, start(0))

		c := aConnection(account, "k1", "prov1")
		wantCode(t, "finish under another fence", db.FinishRedeem(ctx, "f1", 1, c, 0, broker.Lineage{}), fault.Conflict)
		_, err = db.Connection(ctx, account, "k1")
		wantCode(t, "connection of a refused redemption", err, fault.NotFound)
		won = race(t, 50, fault.Conflict, func(i int) error {
			mine := c
			mine.ID = fmt.Sprint("id-", i)
			return db.FinishRedeem(context.Background(), "f1", 2, mine, 0, broker.Lineage{})
		})
		wantEqual(t, "winners of the redemption's end", won, 1)
		done := flow(db.FlowByID(ctx, "f1"))
		wantEqual(t, "end", fmt.Sprint(done.State, len(done.Code), len(done.Verifier)), "redeemed0 0")
		wantEqual(t, "connection", got[broker.Connection](t)(db.Connection(ctx, account, "k1")).ID, done.Connection)
		_, err = db.OpenAttempt(ctx, account, "f1", 9)
		wantCode(t, "attempt after its end", err, fault.NotFound)
		failed, err := db.FailFlow(ctx, "f1", "late", 2)
		must(t, err)
		wantEqual(t, "a redeemed flow fails", failed, false)
	})
}

// A redemption that cannot store its connection must leave the flow as it was.
func TestFinishRedeemIsWhole(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, db.SwapConnection(ctx, aConnection(account, "k1", "prov1"), 0))
		must(t, db.CreateFlow(ctx, aFlow(account, "f1", "prov1"), 50))
		must(t, db.HoldCode(ctx, "f1", vault.Sealed("code"), vault.Sealed("verifier")))
		fence, err := db.StartRedeem(ctx, "f1", broker.Attempt{Kind: "redeem"}, ttl)
		must(t, err)
		wantCode(t, "stale generation", db.FinishRedeem(ctx, "f1", fence, aConnection(account, "k1", "prov1"), 5, broker.Lineage{}), fault.Conflict)
		f := got[broker.Flow](t)(db.FlowByID(ctx, "f1"))
		wantEqual(t, "flow", fmt.Sprint(f.State, string(f.Code)), "redeemingcode")
		next := aConnection(account, "k1", "prov1")
		next.Generation = 2
		must(t, db.FinishRedeem(ctx, "f1", fence, next, 1, broker.Lineage{}))
	})
}

// A session is answered by another's connection while nobody redeems its code, and only then.
func TestAnswerFlow(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		for id, steps := range map[string]int{"f1": 0, "f2": 1, "f3": 2, "f4": 3} {
			must(t, db.CreateFlow(ctx, aFlow(account, id, "prov1"), 50))
			must(t, db.AddVisit(ctx, aVisit("s-"+id, id), 2))
			if steps > 0 {
				must(t, db.HoldCode(ctx, id, vault.Sealed("code"), vault.Sealed("verifier")))
			}
			if steps > 1 {
				_, err := db.StartRedeem(ctx, id, broker.Attempt{Kind: "redeem"}, ttl)
				must(t, err)
			}
			if steps > 2 {
				_, err := db.FailFlow(ctx, id, "because", 1)
				must(t, err)
			}
			wantCode(t, id+" of another account", db.AnswerFlow(ctx, other, id, "cn_1"), fault.Conflict)
			err := db.AnswerFlow(ctx, account, id, "cn_1")
			if steps > 1 {
				wantCode(t, id, err, fault.Conflict)
				continue
			}
			must(t, err)
			f := got[broker.Flow](t)(db.FlowByID(ctx, id))
			wantEqual(t, id, fmt.Sprint(f.State, f.Connection, len(f.Code)+len(f.Verifier)+len(f.Session)+len(f.CustomState)+len(f.CustomParams)+len(f.Upstream)), "redeemedcn_10")
			v, err := db.SpendVisit(ctx, "s-"+id, aVisit("s-"+id, id).Cookie)
			must(t, err)
			wantEqual(t, "verifier of a visit", len(v.Verifier), 0)
			wantCode(t, id+" again", db.AnswerFlow(ctx, account, id, "cn_2"), fault.Conflict)
			wantCode(t, "a code that comes late", db.HoldCode(ctx, id, vault.Sealed("c"), vault.Sealed("v")), fault.Conflict)
		}
	})
}

func TestFailFlow(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		fail := got[bool](t)
		must(t, db.CreateFlow(ctx, aFlow(account, "f1", "prov1"), 50))
		must(t, db.HoldCode(ctx, "f1", vault.Sealed("code"), vault.Sealed("verifier")))
		fence, err := db.StartRedeem(ctx, "f1", broker.Attempt{Kind: "redeem"}, ttl)
		must(t, err)
		wantEqual(t, "somebody else's redemption fails", fail(db.FailFlow(ctx, "f1", "no", fence+1)), false)
		wantEqual(t, "fails", fail(db.FailFlow(ctx, "f1", "because", fence)), true)
		wantEqual(t, "fails twice", fail(db.FailFlow(ctx, "f1", "again", fence)), false)
		f := got[broker.Flow](t)(db.FlowByID(ctx, "f1"))
		wantEqual(t, "flow", fmt.Sprint(f.State, f.Reason, len(f.Code), len(f.Verifier), len(f.CustomState), len(f.CustomParams)), "failedbecause0 0 0 0")
		wantCode(t, "a code that comes late", db.HoldCode(ctx, "f1", vault.Sealed("c"), vault.Sealed("v")), fault.Conflict)
		wantEqual(t, "unknown flow fails", fail(db.FailFlow(ctx, "f9", "no", 0)), false)

		must(t, db.CreateFlow(ctx, aFlow(account, "f2", "prov1"), 50))
		must(t, db.HoldCode(ctx, "f2", vault.Sealed("code"), vault.Sealed("verifier")))
		_, err = db.StartRedeem(ctx, "f2", broker.Attempt{Kind: "redeem"}, 0)
		must(t, err)
		failed := false
		for deadline := time.Now().Add(5 * time.Second); !failed && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			failed = fail(db.FailFlow(ctx, "f2", "interrupted", 0))
		}
		wantEqual(t, "a redemption whose lease ran out fails", failed, true)
	})
}

// A state is spent once, by the browser that got its cookie, however many callbacks come at once.
func TestC06_VisitIsSpentOnce(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, db.CreateFlow(ctx, aFlow(account, "f1", "prov1"), 50))
		v := aVisit("s1", "f1")
		must(t, db.AddVisit(ctx, v, 5))
		_, err := db.SpendVisit(ctx, "s1", "another")
		wantCode(t, "another browser", err, fault.Denied)
		_, err = db.SpendVisit(ctx, "s9", "cookie-s1")
		wantCode(t, "unknown state", err, fault.NotFound)
		won := race(t, 50, fault.Conflict, func(int) error {
			spent, err := db.SpendVisit(context.Background(), "s1", "cookie-s1")
			if err == nil {
				want := v
				want.Spent = true
				wantEqual(t, "visit", spent, want)
			}
			return err
		})
		wantEqual(t, "winners", won, 1)
		_, err = db.SpendVisit(ctx, "s1", "another")
		wantCode(t, "another browser, spent", err, fault.Denied)
	})
}

func TestSweepFlows(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		for i := range 5 {
			f := aFlow(account, fmt.Sprint("f", i), "prov1")
			f.Expires = at.Add(time.Duration(i) * time.Minute)
			must(t, db.CreateFlow(ctx, f, 50))
			must(t, db.AddVisit(ctx, aVisit(fmt.Sprint("s", i), f.ID), 5))
		}
		sweep := got[int](t)
		wantEqual(t, "first sweep", sweep(db.SweepFlows(ctx, at.Add(3*time.Minute), 2)), 2)
		wantEqual(t, "second sweep", sweep(db.SweepFlows(ctx, at.Add(3*time.Minute), 2)), 1)
		wantEqual(t, "third sweep", sweep(db.SweepFlows(ctx, at.Add(3*time.Minute), 2)), 0)
		_, err := db.SpendVisit(ctx, "s0", "cookie-s0")
		wantCode(t, "visit of a swept flow", err, fault.NotFound)
		got[broker.Flow](t)(db.FlowByID(ctx, "f3"))
	})
}

// Names, uids, keys and ids that exist in several accounts, and some that exist in one only: each account reads what it
// wrote and nothing else.
func TestA02_AccountsNeverCross(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		rng := rand.New(rand.NewPCG(1, 2))
		accounts := []access.Account{"100000000001", "100000000002", "100000000003"}
		has := map[string]bool{}
		for _, a := range accounts {
			must(t, db.CreateProvider(ctx, aProvider(a, "home", "home-"+string(a))))
			for i := range 12 {
				id := fmt.Sprint("x", i)
				if rng.IntN(2) == 0 {
					continue
				}
				has[string(a)+id] = true
				must(t, db.CreatePrincipal(ctx, aPrincipal(a, id, id)))
				must(t, db.CreateWorkload(ctx, aWorkload(a, id, id)))
				must(t, db.CreateProvider(ctx, aProvider(a, id, id)))
				must(t, db.SwapConnection(ctx, aConnection(a, id, "home"), 0))
				must(t, db.RememberUser(ctx, a, id, vault.Sealed("s"), at))
			}
		}
		for range 300 {
			a, id := accounts[rng.IntN(len(accounts))], fmt.Sprint("x", rng.IntN(12))
			for what, read := range map[string]func() (access.Account, error){
				"principal":    func() (access.Account, error) { v, err := db.PrincipalByName(ctx, a, id); return v.Account, err },
				"workload":     func() (access.Account, error) { v, err := db.Workload(ctx, a, id); return v.Account, err },
				"workload uid": func() (access.Account, error) { v, err := db.WorkloadByUID(ctx, a, id); return v.Account, err },
				"provider":     func() (access.Account, error) { v, err := db.Provider(ctx, a, id); return v.Account, err },
				"provider uid": func() (access.Account, error) { v, err := db.ProviderByUID(ctx, a, id); return v.Account, err },
				"connection":   func() (access.Account, error) { v, err := db.Connection(ctx, a, id); return v.Account, err },
				"connection id": func() (access.Account, error) {
					v, err := db.ConnectionByID(ctx, a, "id-"+id)
					return v.Account, err
				},
			} {
				owner, err := read()
				switch {
				case has[string(a)+id] && (err != nil || owner != a):
					t.Errorf("%s %s of %s: got one of %s, error %v", what, id, a, owner, err)
				case !has[string(a)+id]:
					wantCode(t, what+" of another account", err, fault.NotFound)
				}
			}
		}
		for _, a := range accounts {
			providers, err := db.Providers(ctx, a, "", 100)
			must(t, err)
			for _, p := range providers {
				if p.Account != a {
					t.Errorf("list of %s has provider %s of %s", a, p.Name, p.Account)
				}
			}
		}
	})
}
