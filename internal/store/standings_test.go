package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
)

func TestStandings(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		read := func(kind identity.StandingKind, key string) identity.Standing {
			t.Helper()
			recent := got[identity.Standing](t)(db.Standing(ctx, account, kind, key))
			wantEqual(t, "the newest row of "+key, got[identity.Standing](t)(db.CurrentStanding(ctx, account, kind, key)), recent)
			return recent
		}
		none := identity.Standing{Account: account, Kind: identity.UserStanding, Key: "u1"}
		wantEqual(t, "no row", read(identity.UserStanding, "u1"), none)
		at1 := identity.Standing{Account: account, Kind: identity.UserStanding, Key: "u1", Epoch: 1, Disabled: true, Reason: `left "the company"`, Version: 1, Changed: at}
		must(t, db.SwapStanding(ctx, at1, 0))
		wantEqual(t, "at once, although it was just read as absent", read(identity.UserStanding, "u1"), at1)
		wantEqual(t, "another key", read(identity.UserStanding, "u2"), identity.Standing{Account: account, Kind: identity.UserStanding, Key: "u2"})
		wantEqual(t, "another kind", read(identity.IssuerStanding, "u1"), identity.Standing{Account: account, Kind: identity.IssuerStanding, Key: "u1"})
		foreign := got[identity.Standing](t)(db.Standing(ctx, other, identity.UserStanding, "u1"))
		wantEqual(t, "another account", foreign, identity.Standing{Account: other, Kind: identity.UserStanding, Key: "u1"})

		wantCode(t, "added twice", db.SwapStanding(ctx, at1, 0), fault.Conflict)
		at2 := at1
		at2.Epoch, at2.Version, at2.Disabled, at2.Frozen, at2.Reason = 2, 2, false, true, ""
		wantCode(t, "an old version", db.SwapStanding(ctx, at2, 7), fault.Conflict)
		lower := at2
		lower.Epoch = 0
		wantCode(t, "an epoch that falls", db.SwapStanding(ctx, lower, 1), fault.Conflict)
		must(t, db.SwapStanding(ctx, at2, 1))
		wantEqual(t, "swapped", read(identity.UserStanding, "u1"), at2)
		won := race(t, 8, fault.Conflict, func(int) error {
			at3 := at2
			at3.Epoch, at3.Version = 3, 3
			return db.SwapStanding(context.Background(), at3, 2)
		})
		wantEqual(t, "of eight at once", won, 1)
	})
}

func TestRaiseEveryWorkload(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		for _, uid := range []string{"w1", "w2"} {
			must(t, db.CreateWorkload(ctx, aWorkload(account, uid, "name-"+uid)))
		}
		must(t, db.CreateWorkload(ctx, aWorkload(other, "w3", "name-w3")))
		must(t, db.SwapStanding(ctx, identity.Standing{Account: account, Kind: identity.WorkloadStanding, Key: "w2", Epoch: 4, Disabled: true, Reason: "r", Version: 2, Changed: at}, 0))
		wantEqual(t, "before", got[identity.Standing](t)(db.Standing(ctx, account, identity.WorkloadStanding, "w1")).Epoch, 0)
		later := at.Add(time.Second)
		must(t, db.RaiseEveryWorkload(ctx, account, later))
		want := []identity.Standing{
			{Account: account, Kind: identity.WorkloadStanding, Key: "w1", Name: "name-w1", Epoch: 1, Version: 1, Changed: later},
			{Account: account, Kind: identity.WorkloadStanding, Key: "w2", Name: "name-w2", Epoch: 5, Disabled: true, Reason: "r", Version: 3, Changed: later},
		}
		wantEqual(t, "list", got[[]identity.Standing](t)(db.Standings(ctx, account, identity.WorkloadStanding, "", 10)), want)
		wantEqual(t, "after the first, one", got[[]identity.Standing](t)(db.Standings(ctx, account, identity.WorkloadStanding, "w1", 1)), want[1:])
		wantEqual(t, "read at once", got[identity.Standing](t)(db.Standing(ctx, account, identity.WorkloadStanding, "w1")).Epoch, 1)
		wantEqual(t, "another account", got[identity.Standing](t)(db.Standing(ctx, other, identity.WorkloadStanding, "w3")).Epoch, 0)
		must(t, db.CreateProvider(ctx, aProvider(account, "p1", "google")))
		must(t, db.SwapStanding(ctx, identity.Standing{Account: account, Kind: identity.ProviderStanding, Key: "p1", Version: 1}, 0))
		wantEqual(t, "a provider's name", got[[]identity.Standing](t)(db.Standings(ctx, account, identity.ProviderStanding, "", 9))[0].Name, "google")
	})
}

// Where an account has nobody disabled or revoked, asking again costs no query; another replica's row shows in a
// second.
func TestStandingsAreCheapAndRecent(t *testing.T) {
	engines(t, func(t *testing.T, open opener) {
		db, ctx := open(t), t.Context()
		ask := func(key string) int64 {
			return got[identity.Standing](t)(db.Standing(ctx, account, identity.UserStanding, key)).Epoch
		}
		ask("u")
		// Behind the cache's back, as another replica would.
		must(t, db.TestOnlyWrite(ctx, func(ctx context.Context, s store.Statements) error {
			return s.Exec(ctx, `INSERT INTO standings (account, kind, key, epoch, disabled, frozen, reason, version, changed)
				VALUES ($1, 'user', 'u', 5, 0, 0, '', 1, 0)`, string(account))
		}))
		wrote := time.Now()
		wantEqual(t, "still from the cache", ask("other"), 0)
		for ask("u") == 0 && time.Since(wrote) < 3*time.Second {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(wrote); ask("u") != 5 || took > 1500*time.Millisecond {
			t.Errorf("another replica's row was seen after %v: epoch %d", took, ask("u"))
		}
	})
}
