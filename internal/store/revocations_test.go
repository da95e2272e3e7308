package store_test

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func aRevocation(c broker.Connection, id string) broker.Revocation {
	return broker.Revocation{
		Account: c.Account, ID: id, Connection: c.ID, Column: "refresh", Key: c.Key, Workload: c.Workload, User: c.User, Provider: c.Provider,
		Generation: c.Generation, Identity: c.Identity, GrantRef: c.GrantRef, Token: c.Refresh, State: broker.RevocationPending, Due: at, Created: at, Updated: at,
	}
}

func TestConnectionViews(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, db.CreateProvider(ctx, aProvider(account, "prov2", "github")))
		must(t, db.CreateWorkload(ctx, aWorkload(account, "w1", "calendar")))
		one, two, three := aConnection(account, "k1", "prov1"), aConnection(account, "k2", "prov2"), aConnection(account, "k3", "prov1")
		two.User, two.Refresh, two.Workload = "u2", nil, "w-gone"
		three.State = broker.Revoked
		for _, c := range []broker.Connection{one, two, three} {
			must(t, db.SwapConnection(ctx, c, 0))
		}
		bare := func(c broker.Connection) broker.Connection {
			c.Access, c.Refresh, c.Upstream, c.Claims = nil, nil, nil, nil
			return c
		}
		view := got[broker.ConnectionView](t)(db.ConnectionView(ctx, account, "id-k1"))
		wantEqual(t, "view", view, broker.ConnectionView{Connection: bare(one), WorkloadName: "calendar", ProviderName: "google", Refreshable: true})
		view = got[broker.ConnectionView](t)(db.ConnectionView(ctx, account, "id-k2"))
		wantEqual(t, "view without a refresh token", view, broker.ConnectionView{Connection: bare(two), ProviderName: "github"})
		for what, id := range map[string]string{"nothing": "id-k9", "a key": "k1"} {
			_, err := db.ConnectionView(ctx, account, id)
			wantCode(t, "view of "+what, err, fault.NotFound)
		}
		_, err := db.ConnectionView(ctx, other, "id-k1")
		wantCode(t, "another account's view", err, fault.NotFound)
		for what, c := range map[string]struct {
			f     broker.ConnectionFilter
			after string
			limit int
			want  []string
		}{
			"all":      {limit: 10, want: []string{"id-k1", "id-k2", "id-k3"}},
			"page":     {after: "id-k1", limit: 1, want: []string{"id-k2"}},
			"workload": {f: broker.ConnectionFilter{Workload: "calendar"}, limit: 10, want: []string{"id-k1", "id-k3"}},
			"provider": {f: broker.ConnectionFilter{Provider: "github"}, limit: 10, want: []string{"id-k2"}},
			"user":     {f: broker.ConnectionFilter{User: "u1"}, limit: 10, want: []string{"id-k1", "id-k3"}},
			"state":    {f: broker.ConnectionFilter{State: broker.Revoked}, limit: 10, want: []string{"id-k3"}},
			"all four": {f: broker.ConnectionFilter{Workload: "calendar", Provider: "google", User: "u1", State: broker.Active}, limit: 10, want: []string{"id-k1"}},
		} {
			list := got[[]broker.ConnectionView](t)(db.ConnectionViews(ctx, account, c.f, c.after, c.limit))
			var ids []string
			for _, v := range list {
				ids = append(ids, v.ID)
			}
			wantEqual(t, what, ids, c.want)
		}
		wantEqual(t, "another account's", got[[]broker.ConnectionView](t)(db.ConnectionViews(ctx, other, broker.ConnectionFilter{}, "", 10)), nil)
	})
}

func TestMoveAndDeleteConnection(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		c, taken := aConnection(account, "k1", "prov1"), aConnection(account, "k3", "prov1")
		must(t, db.SwapConnection(ctx, c, 0))
		must(t, db.SwapConnection(ctx, taken, 0))
		moved := c
		moved.Upstream, moved.Claims = vault.Sealed("u2"), vault.Sealed("c2")
		moved.Key, moved.Workload, moved.Generation, moved.Access, moved.Refresh, moved.Attributes = "k2", "w2", 2, vault.Sealed("a2"), vault.Sealed("r2"), vault.Sealed("x2")
		wantCode(t, "another generation", db.MoveConnection(ctx, moved, "k1", 7, broker.Lineage{}), fault.Conflict)
		clash := moved
		clash.Key = "k3"
		wantCode(t, "a key that is taken", db.MoveConnection(ctx, clash, "k1", 1, broker.Lineage{}), fault.Conflict)
		_, err := db.LastAttempt(ctx, account, c.ID)
		wantCode(t, "no attempt", err, fault.NotFound)
		fence := got[int64](t)(db.LeaseConnection(ctx, attempt(c), "k1", ttl))
		last := got[broker.Attempt](t)(db.LastAttempt(ctx, account, c.ID))
		wantEqual(t, "attempt", last, broker.Attempt{Account: account, Subject: c.ID, Fence: fence, Kind: "refresh", Generation: 1, Started: at})
		wantCode(t, "while it is leased", db.MoveConnection(ctx, moved, "k1", 1, broker.Lineage{}), fault.Conflict)
		must(t, db.FinishLease(ctx, c, fence, "not_sent"))
		won := race(t, 4, fault.Conflict, func(int) error { return db.MoveConnection(ctx, moved, "k1", 1, broker.Lineage{}) })
		wantEqual(t, "movers", won, 1)
		moved.Fence = fence + 1
		wantEqual(t, "moved", got[broker.Connection](t)(db.Connection(ctx, account, "k2")), moved)
		_, err = db.Connection(ctx, account, "k1")
		wantCode(t, "the former key", err, fault.NotFound)

		wantCode(t, "delete another account's", db.DeleteConnection(ctx, other, c.ID), fault.NotFound)
		must(t, db.DeleteConnection(ctx, account, c.ID))
		wantCode(t, "delete again", db.DeleteConnection(ctx, account, c.ID), fault.NotFound)
		_, err = db.LastAttempt(ctx, account, c.ID)
		wantCode(t, "the attempts", err, fault.NotFound)
		got[broker.Connection](t)(db.Connection(ctx, account, "k3"))
	})
}

func TestRevocations(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		c := aConnection(account, "k1", "prov1")
		must(t, db.SwapConnection(ctx, c, 0))
		fence := got[int64](t)(db.LeaseConnection(ctx, attempt(c), "k1", ttl))
		gone := c
		gone.Generation, gone.State, gone.Access, gone.Refresh = 2, broker.Revoked, nil, nil
		r := aRevocation(c, "r1")
		r.Tries, r.Fence = 1, 1
		wantCode(t, "another generation", db.RevokeConnection(ctx, gone, 5, r, ttl, broker.Leaving{LastOfLineage: true}), fault.Conflict)
		_, err := db.RevocationOf(ctx, account, c.ID)
		wantCode(t, "nothing is left of what failed", err, fault.NotFound)
		must(t, db.RevokeConnection(ctx, gone, 1, r, ttl, broker.Leaving{LastOfLineage: true}))
		wantEqual(t, "revocation", got[broker.Revocation](t)(db.RevocationOf(ctx, account, c.ID)), r)
		_, err = db.RevocationOf(ctx, other, c.ID)
		wantCode(t, "another account's", err, fault.NotFound)
		wantCode(t, "the refresh that was under way", db.FinishLease(ctx, c, fence, "stored"), fault.Conflict)
		row := got[broker.Connection](t)(db.Connection(ctx, account, "k1"))
		wantEqual(t, "sealed bytes in the row", len(row.Access)+len(row.Refresh), 0)

		none := func(what string, t0 time.Time) {
			t.Helper()
			_, err := db.LeaseRevocation(ctx, t0, ttl)
			wantCode(t, what, err, fault.NotFound)
		}
		none("it is leased", at.Add(time.Hour))
		r.Detail, r.Due, r.Updated = "busy", at.Add(time.Minute), at.Add(time.Second)
		must(t, db.FinishRevocation(ctx, r))
		none("it is not due", at)
		won := race(t, 4, fault.NotFound, func(int) error {
			_, err := db.LeaseRevocation(ctx, r.Due, ttl)
			return err
		})
		wantEqual(t, "holders of the lease", won, 1)
		wantCode(t, "a holder of the former lease", db.FinishRevocation(ctx, r), fault.Conflict)
		r = got[broker.Revocation](t)(db.RevocationOf(ctx, account, c.ID))
		wantEqual(t, "tries and fence", [2]int64{int64(r.Tries), r.Fence}, [2]int64{2, 2})
		r.State, r.Token, r.Updated = broker.RevocationDone, nil, at.Add(time.Hour)
		must(t, db.FinishRevocation(ctx, r))
		wantEqual(t, "ended", got[broker.Revocation](t)(db.RevocationOf(ctx, account, c.ID)), r)
		none("it ended", at.Add(time.Hour))

		must(t, db.AddRevocation(ctx, aRevocation(c, "r2")))
		wantEqual(t, "swept too early", got[int](t)(db.SweepRevocations(ctx, at.Add(time.Hour), 10)), 0)
		wantEqual(t, "swept", got[int](t)(db.SweepRevocations(ctx, at.Add(2*time.Hour), 10)), 1)
		wantEqual(t, "free at once", got[broker.Revocation](t)(db.LeaseRevocation(ctx, at, ttl)).ID, "r2")
		must(t, db.DeleteProvider(ctx, account, "google"))
		_, err = db.RevocationOf(ctx, account, c.ID)
		wantCode(t, "after the provider", err, fault.NotFound)
		wantCode(t, "one that comes late", db.AddRevocation(ctx, aRevocation(c, "r3")), fault.NotFound)
	})
}
