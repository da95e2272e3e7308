package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func aLineage(id string) broker.Lineage {
	return broker.Lineage{
		Account: account, ID: id, Family: "family", Workload: "w1", User: "u1", Provider: "prov1", Refresh: vault.Sealed("rt"),
		Upstream: vault.Sealed("up"), Generation: 1, Identity: "identity-1", Created: at, Updated: at,
	}
}

// living is a connection on the lineage.
func living(key, lineage string) broker.Connection {
	c := aConnection(account, key, "prov1")
	c.Lineage, c.Refresh = lineage, nil
	return c
}

// grafted stores a consent's connection with its lineage.
func grafted(t *testing.T, db *store.DB, flow string, c broker.Connection, old int64, l broker.Lineage) error {
	t.Helper()
	must(t, db.CreateFlow(t.Context(), aFlow(account, flow, "prov1"), 50))
	must(t, db.HoldCode(t.Context(), flow, vault.Sealed("code"), vault.Sealed("verifier")))
	fence, err := db.StartRedeem(t.Context(), flow, broker.Attempt{Kind: "redeem", Started: at}, ttl)
	must(t, err)
	return db.FinishRedeem(t.Context(), flow, fence, c, old, l)
}

func TestM05_Lineages(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, grafted(t, db, "f1", living("k1", "l1"), 0, aLineage("l1")))
		got, err := db.LineageOf(ctx, account, "family")
		must(t, err)
		if diff := cmp.Diff(aLineage("l1"), got); diff != "" {
			t.Error(diff)
		}
		_, err = db.LineageOf(ctx, "111111111111", "family")
		wantCode(t, "another account's", err, fault.NotFound)
		_, err = db.Lineage(ctx, "111111111111", "l1")
		wantCode(t, "another account's, by id", err, fault.NotFound)

		a := broker.Attempt{Account: account, Subject: "l1", Kind: "refresh", Generation: 1, Started: at}
		for name, row := range map[string]struct {
			generation int64
			key        string
			of         int64
		}{"another generation": {2, "k1", 1}, "a connection that changed": {1, "k1", 2}, "one that exists": {1, "k1", 0}, "one that is gone": {1, "k2", 1}} {
			b := a
			b.Generation = row.generation
			_, err := db.LeaseLineage(ctx, b, row.key, row.of, ttl)
			wantCode(t, name, err, fault.Conflict)
		}
		won := race(t, 6, fault.Conflict, func(int) error { _, err := db.LeaseLineage(ctx, a, "k1", 1, ttl); return err })
		if won != 1 {
			t.Fatalf("%d have the lease", won)
		}
		// The new refresh token and the access token of a new sibling are one write, and may be written again.
		l := aLineage("l1")
		l.Fence, l.Generation, l.Refresh = 1, 2, vault.Sealed("rt2")
		sibling := living("k2", "l1")
		wrong := l
		wrong.Fence = 0
		wantCode(t, "another fence", db.FinishLineage(ctx, wrong, "stored", &sibling, 0), fault.Conflict)
		clash := living("k1", "l1")
		clash.Access = vault.Sealed("another token")
		wantCode(t, "a connection that is there", db.FinishLineage(ctx, l, "stored", &clash, 5), fault.Conflict)
		if now, err := db.Lineage(ctx, account, "l1"); err != nil || now.Generation != 1 {
			t.Errorf("half was written: %+v %v", now, err)
		}
		must(t, db.FinishLineage(ctx, l, "stored", &sibling, 0))
		must(t, db.FinishLineage(ctx, l, "stored", &sibling, 0))
		_, err = db.OpenAttempt(ctx, account, "l1", 9)
		wantCode(t, "an attempt that is open", err, fault.NotFound)
		if ids, err := db.Siblings(ctx, account, "l1"); err != nil || !cmp.Equal(ids, []string{"id-k1", "id-k2"}) {
			t.Errorf("siblings: %q %v", ids, err)
		}
		for _, v := range ok(db.ConnectionViews(ctx, account, broker.ConnectionFilter{}, "", 9))(t) {
			if !v.Refreshable || v.Resource != "api://x" || len(v.Claims) > 0 {
				t.Errorf("view: refreshable %v, resource %q, %d bytes of claims", v.Refreshable, v.Resource, len(v.Claims))
			}
		}
		// A refresh token that has ended serves nobody.
		l.Reason = "invalid_grant"
		must(t, db.FinishLineage(ctx, l, "rejected", nil, 0))
		_, err = db.LineageOf(ctx, account, "family")
		wantCode(t, "one that has ended", err, fault.NotFound)
		a.Generation = 2
		_, err = db.LeaseLineage(ctx, a, "k1", 1, ttl)
		wantCode(t, "the lease of one that has ended", err, fault.Conflict)
		// A consent begins it anew; what nobody lives on goes.
		l.Reason, l.Generation = "", 3
		next := living("k1", "l1")
		next.Generation = 2
		must(t, grafted(t, db, "f2", next, 1, l))
		stale := l
		stale.Generation = 9
		wantCode(t, "a generation that is not the next", grafted(t, db, "f3", living("k3", "l1"), 0, stale), fault.Conflict)
		other := living("k1", "l2")
		other.Generation = 3
		must(t, grafted(t, db, "f4", other, 2, aLineage("l2")))
		for _, id := range []string{"l1", "l2"} {
			ok(db.Lineage(ctx, account, id))(t)
		}
		alone := living("k2", "l2")
		alone.Generation = 2
		must(t, grafted(t, db, "f5", alone, 1, aLineage("l2")))
		_, err = db.Lineage(ctx, account, "l1")
		wantCode(t, "one that nobody lives on", err, fault.NotFound)
	})
}

// Whoever leaves last takes the refresh token along, also when several leave at once.
func TestM05_LeavingALineage(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, grafted(t, db, "f1", living("k1", "l1"), 0, aLineage("l1")))
		must(t, db.SwapConnection(ctx, living("k2", "l1"), 0))
		gone := func(key string) broker.Connection {
			c := living(key, "l1")
			c.State, c.Access, c.Generation = broker.Revoked, nil, 2
			return c
		}
		none := broker.Revocation{}
		wantCode(t, "not the last", db.RevokeConnection(ctx, gone("k1"), 1, none, 0, broker.Leaving{LastOfLineage: true}), fault.Conflict)
		moved := aLineage("l1")
		moved.Workload, moved.Generation = "w2", 2
		c := living("k1", "l1")
		c.Key, c.Workload = "k9", "w2"
		wantCode(t, "moving one of two", db.MoveConnection(ctx, c, "k1", 1, moved), fault.Conflict)
		won := race(t, 2, fault.Conflict, func(i int) error {
			return db.RevokeConnection(ctx, gone([]string{"k1", "k2"}[i]), 1, none, 0, broker.Leaving{LastOfLineage: false})
		})
		if won != 1 {
			t.Fatalf("%d of two left as if the other stayed", won)
		}
		if ids, err := db.Siblings(ctx, account, "l1"); err != nil || len(ids) != 1 {
			t.Errorf("siblings: %q %v", ids, err)
		}
		if _, err := db.LineageOf(ctx, account, "family"); err != nil {
			t.Error(err)
		}
		for _, key := range []string{"k1", "k2"} {
			err := db.RevokeConnection(ctx, gone(key), 1, none, 0, broker.Leaving{LastOfLineage: true})
			if c := ok(db.Connection(ctx, account, key))(t); err != nil && c.State != broker.Revoked {
				t.Error(err)
			}
		}
		_, err := db.Lineage(ctx, account, "l1")
		wantCode(t, "after the last", err, fault.NotFound)

		must(t, grafted(t, db, "f2", living("k3", "l3"), 0, aLineage("l3")))
		must(t, db.DeleteConnection(ctx, account, "id-k3"))
		_, err = db.Lineage(ctx, account, "l3")
		wantCode(t, "after the connection was deleted", err, fault.NotFound)
		must(t, grafted(t, db, "f4", living("k4", "l4"), 0, aLineage("l4")))
		must(t, db.EraseUser(ctx, account, "u1"))
		_, err = db.Lineage(ctx, account, "l4")
		wantCode(t, "after the user was erased", err, fault.NotFound)
		if c := ok(db.Connection(ctx, account, "k4"))(t); len(c.Claims)+len(c.Upstream) > 0 {
			t.Error("what a provider said of the user is left")
		}
	})
}

// ok returns the value of a call that must succeed.
func ok[V any](v V, err error) func(testing.TB) V {
	return func(t testing.TB) V {
		t.Helper()
		must(t, err)
		return v
	}
}
