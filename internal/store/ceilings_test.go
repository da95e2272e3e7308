package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/ceiling"
	"github.com/tabard-id/tabard/internal/store"
)

func TestCeilings(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		wantEqual(t, "nothing set", got[ceiling.Row](t)(db.Ceilings(ctx, account, "w")), ceiling.Row{})
		for _, l := range []ceiling.Limits{{ReleasesPerMinute: 5, UsersPerHour: 6, Freeze: true}, {}} {
			must(t, db.SetCeilings(ctx, account, "w", l, at))
			wantEqual(t, "set", got[ceiling.Row](t)(db.Ceilings(ctx, account, "w")), ceiling.Row{Limits: l, Set: true})
		}
		wantEqual(t, "another account", got[ceiling.Row](t)(db.Ceilings(ctx, other, "w")), ceiling.Row{})
	})
}

func TestReleasesAreTakenOnce(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		take := func(what string, minute, limit, want, expect int64) {
			t.Helper()
			wantEqual(t, what, got[int64](t)(db.TakeReleases(ctx, account, "w", minute, limit, want)), expect)
		}
		take("the first", 100, 10, 4, 4)
		take("what is left", 100, 10, 40, 6)
		take("nothing is left", 100, 10, 1, 0)
		take("a clock that is behind counts on", 99, 10, 1, 0)
		take("a higher limit", 100, 12, 40, 2)
		take("a lower limit", 100, 5, 1, 0)
		take("the next minute", 101, 10, 3, 3)
		wantEqual(t, "usage", got[ceiling.Usage](t)(db.CeilingUsage(ctx, account, "w", 101, at)), ceiling.Usage{Releases: 3})
		wantEqual(t, "usage a minute later", got[ceiling.Usage](t)(db.CeilingUsage(ctx, account, "w", 102, at)), ceiling.Usage{})
		var total atomic.Int64
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for {
					n, err := db.TakeReleases(ctx, account, "crowd", 7, 100, 7)
					if err != nil {
						t.Errorf("take: %v", err)
					}
					if n == 0 {
						return
					}
					total.Add(n)
				}
			})
		}
		group.Wait()
		wantEqual(t, "all that eight took", total.Load(), 100)
	})
}

func TestUsersAreCountedOnce(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		see := func(what, user string, after time.Duration, want bool) {
			t.Helper()
			now := at.Add(after)
			wantEqual(t, what, got[bool](t)(db.SeeUser(ctx, account, "w", user, now.Add(-time.Hour), now, 2)), want)
		}
		see("the first", "a", 0, true)
		see("the second", "b", time.Minute, true)
		see("the third", "c", 2*time.Minute, false)
		see("the first again", "a", 10*time.Minute, true)
		wantEqual(t, "usage", got[ceiling.Usage](t)(db.CeilingUsage(ctx, account, "w", 0, at)).Users, 2)
		see("an hour after the second", "c", 61*time.Minute, true)
		see("the second is one more now", "b", 62*time.Minute, false)
		see("an hour after the first was seen last", "b", 70*time.Minute, true)
		wantEqual(t, "swept agents", got[int](t)(db.SweepSeen(ctx, at.Add(65*time.Minute), 10)), 1)
		wantEqual(t, "swept again", got[int](t)(db.SweepSeen(ctx, at.Add(65*time.Minute), 10)), 0)
		see("one more after the sweep", "d", 71*time.Minute, true)
		see("and then none", "e", 71*time.Minute, false)
	})
}

// Two replicas count in parallel, and together never more than the ceiling.
func TestUsersOfTwoReplicas(t *testing.T) {
	engines(t, func(t *testing.T, open opener) {
		one := open(t)
		two := one
		if one.Engine() == store.PostgreSQL {
			two = open(t)
		}
		const limit = 7
		var admitted atomic.Int64
		var group sync.WaitGroup
		for i := range 40 {
			db := []*store.DB{one, two}[i%2]
			group.Go(func() {
				// Each user comes twice, to both.
				ok, err := db.SeeUser(t.Context(), account, "w", fmt.Sprint("user", i/2), at.Add(-time.Hour), at, limit)
				if err != nil {
					t.Errorf("see: %v", err)
				}
				if ok {
					admitted.Add(1)
				}
			})
		}
		group.Wait()
		if n := admitted.Load(); n < limit || n > 2*limit {
			t.Errorf("%d calls were admitted, want those of %d users", n, limit)
		}
		wantEqual(t, "users", got[ceiling.Usage](t)(one.CeilingUsage(t.Context(), account, "w", 0, at.Add(-time.Hour))).Users, limit)
	})
}

// Agents that existed before there were ceilings go on without any: the migration, run on a database that has one.
func TestUpgradeSetsNoCeiling(t *testing.T) {
	text, err := os.ReadFile("migrations/sqlite/0015_delegations.sql")
	must(t, err)
	comments := regexp.MustCompile(`(?m)^--.*$`)
	statements := strings.Split(strings.TrimSpace(comments.ReplaceAllString(string(text), "")), ";\n")
	db := open(t, store.Config{SQLitePath: filepath.Join(t.TempDir(), "tabard.db")})
	ctx := t.Context()
	must(t, db.CreateWorkload(ctx, aWorkload(account, "w-old", "old")))
	must(t, db.TestOnlyWrite(ctx, func(ctx context.Context, s store.Statements) error {
		drop := []string{"DROP TABLE delegations", "DROP TABLE ceilings", "DROP TABLE ceiling_counts", "DROP TABLE ceiling_users"}
		for _, statement := range append(drop, statements...) {
			if err := s.Exec(ctx, strings.TrimSuffix(statement, ";")); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, db.CreateWorkload(ctx, aWorkload(account, "w-new", "new")))
	wantEqual(t, "the old one", got[ceiling.Row](t)(db.Ceilings(ctx, account, "w-old")), ceiling.Row{Set: true})
	wantEqual(t, "the new one", got[ceiling.Row](t)(db.Ceilings(ctx, account, "w-new")), ceiling.Row{})
}
