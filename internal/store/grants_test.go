package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
)

func ofGrant(key, user, ref string) broker.Connection {
	c := aConnection(account, key, "prov1")
	c.User, c.GrantRef, c.Flow, c.State = user, ref, broker.FlowUserFederation, broker.Active
	return c
}

func grant(c broker.Connection) broker.UpstreamGrant {
	return broker.UpstreamGrant{
		Account: c.Account, Connection: c.ID, Provider: c.Provider, Identity: c.Identity, User: c.User, Ref: c.GrantRef, At: at,
	}
}

// Of those who leave a grant at once one is the last: the provider is told once, and never not at all.
func TestLeavingAGrant(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p := withProvider(t, db)
		const n = 6
		revoke := func(i int, alone bool) error {
			c := ofGrant(fmt.Sprint("k", i), fmt.Sprint("u", i), "g1")
			g := grant(c)
			c.State, c.Access, c.Refresh, c.Generation = broker.Revoked, nil, nil, c.Generation+1
			return db.RevokeConnection(ctx, c, c.Generation-1, broker.Revocation{}, ttl, broker.Leaving{LastOfLineage: true, Grant: g, Alone: alone})
		}
		for i := range n {
			c := ofGrant(fmt.Sprint("k", i), fmt.Sprint("u", i), "g1")
			wantEqual(t, "the provider's identity", c.Identity, p.Identity) // what they wait at
			must(t, db.SwapConnection(ctx, c, 0))
		}
		wantCode(t, "as the last of six", revoke(0, true), fault.Conflict)
		wantEqual(t, "left as if others stayed", race(t, n, fault.Conflict, func(i int) error { return revoke(i, false) }), n-1)
		last := 0
		for i := range n {
			if c := got[broker.Connection](t)(db.Connection(ctx, account, fmt.Sprint("k", i))); c.State == broker.Active {
				wantCode(t, "the last, as if others stayed", revoke(i, false), fault.Conflict)
				must(t, revoke(i, true))
				last++
			}
		}
		wantEqual(t, "last ones", last, 1)
	})
}

// A resource is what a caller's scopes name: whatever is in it, it stays what it is, and nothing else changes.
func TestTextsThatAreReadAsOneColumn(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		withProvider(t, db)
		c := ofGrant("k", "u", "grant")
		c.Resource, c.Parameters, c.ParamNames, c.Lineage = "api://x\x1fl9\x1f\x1f", "mac", []string{"a\x1fb", "c"}, "l1"
		must(t, db.SwapConnection(t.Context(), c, 0))
		got, err := db.Connection(t.Context(), account, "k")
		must(t, err)
		wantEqual(t, "connection", got, c)
	})
}

func TestSharing(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		mine := ofGrant("mine", "alice", "g1")
		for key, c := range map[string]broker.Connection{
			"same account there": ofGrant("b", "bob", "g1"),
			"not known":          ofGrant("c", "alice", ""),
			"another account":    ofGrant("d", "alice", "g2"),
			"another user":       ofGrant("e", "bob", ""),
			"dead":               ofGrant("f", "alice", "g1"),
			"expired":            ofGrant("g", "alice", "g1"),
			"a machine's":        ofGrant("h", "alice", "g1"),
			"being renewed":      ofGrant("i", "bob", "g1"),
			"a deleted agent's":  ofGrant("j", "bob", "g1"),
		} {
			switch key {
			case "dead":
				c.State = broker.NeedsReauth
			case "expired":
				c.Refresh, c.Expires = nil, at.Add(-time.Second)
			case "a machine's":
				c.Flow = broker.FlowM2M
			case "being renewed":
				c.State = broker.Refreshing
			case "a deleted agent's":
				gone := aWorkload(account, "gone", "gone")
				must(t, db.CreateWorkload(ctx, gone))
				gone.Version, gone.Deleted, c.Workload = gone.Version+1, at, gone.UID
				must(t, db.SwapWorkload(ctx, gone, gone.Version-1))
			}
			must(t, db.SwapConnection(ctx, c, 0))
		}
		must(t, db.SwapConnection(ctx, mine, 0))
		wantEqual(t, "of a known account", got[[]string](t)(db.Sharing(ctx, grant(mine))), []string{"id-b", "id-c", "id-i"})
		mine.GrantRef = ""
		wantEqual(t, "of an unknown one", got[[]string](t)(db.Sharing(ctx, grant(mine))), []string{"id-c", "id-d"})
		elsewhere := grant(mine)
		elsewhere.Account = other
		wantEqual(t, "another account's", len(got[[]string](t)(db.Sharing(ctx, elsewhere))), 0)
	})
}
