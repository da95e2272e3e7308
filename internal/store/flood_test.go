package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

// Sessions that are open at once are bounded, for each workload identity and user apart, and exactly: those who come
// together do not pass together.
func TestC29_OpenSessionsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, db.RememberUser(ctx, account, "u1", vault.Sealed("user"), at))
		won := race(t, 30, fault.Throttled, func(i int) error {
			return db.CreateFlow(context.Background(), aFlow(account, fmt.Sprint("r", i), "prov1"), 5)
		})
		wantEqual(t, "sessions of those who came together", won, 5)

		n := 0
		create := func(change func(*broker.Flow)) error {
			f := aFlow(account, fmt.Sprint("n", n), "prov1")
			n++
			change(&f)
			return db.CreateFlow(ctx, f, 5)
		}
		same := func(*broker.Flow) {}
		wantCode(t, "one more", create(same), fault.Throttled)
		wantCode(t, "one more, before the others end", create(func(f *broker.Flow) { f.Created = at.Add(10*time.Minute - 1) }), fault.Throttled)
		must(t, create(func(f *broker.Flow) { f.User = "u2" }))
		must(t, create(func(f *broker.Flow) { f.Workload = "w2" }))
		for i := range 30 {
			if failed, err := db.FailFlow(ctx, fmt.Sprint("r", i), "declined", 0); err != nil || failed {
				must(t, err)
				break
			}
		}
		must(t, create(same)) // in the place of the one that ended
		wantCode(t, "one more again", create(same), fault.Throttled)
		must(t, create(func(f *broker.Flow) { f.Created, f.Expires = at.Add(10*time.Minute), at.Add(20*time.Minute) }))
	})
}
