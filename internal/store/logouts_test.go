package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
)

func TestLogouts(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		is := func(what, key string, want identity.LoggedOut) {
			t.Helper()
			for _, read := range []func(context.Context, string) (identity.LoggedOut, error){
				func(ctx context.Context, key string) (identity.LoggedOut, error) {
					return db.LoggedOut(ctx, account, key)
				},
				func(ctx context.Context, key string) (identity.LoggedOut, error) {
					return db.CurrentlyLoggedOut(ctx, account, key)
				},
			} {
				at, err := read(ctx, key)
				must(t, err)
				wantEqual(t, what, at, want)
			}
		}
		epoch := func(want int64) {
			t.Helper()
			at, err := db.Standing(ctx, account, identity.UserStanding, "u1")
			must(t, err)
			wantEqual(t, "epoch of the user", at.Epoch, want)
		}
		is("nothing", "k1", identity.LoggedOut{})
		epoch(0)
		l := identity.Logout{Account: account, Token: "t1", Until: at.Add(time.Minute), Keys: []string{"k1", "k2"}, Issued: at, At: at.Add(time.Second), Expires: at.Add(time.Hour)}
		won := race(t, 20, fault.Conflict, func(int) error { return db.AddLogout(context.Background(), l) })
		wantEqual(t, "times that one token was taken", won, 1)
		first := identity.LoggedOut{Epoch: at.Add(time.Second).UnixMilli(), Issued: at}
		is("ended", "k1", first)
		is("ended too", "k2", first)
		is("another key", "k3", identity.LoggedOut{})
		epoch(0)
		got, err := db.LoggedOut(ctx, other, "k1")
		must(t, err)
		wantEqual(t, "of another account", got, identity.LoggedOut{})

		l.Token, l.Keys, l.UserRef, l.Issued = "t2", []string{"k1"}, "u1", at.Add(-time.Minute)
		must(t, db.AddLogout(ctx, l))
		is("again in the same moment, by an older token", "k1", identity.LoggedOut{Epoch: first.Epoch + 1, Issued: at})
		epoch(1)
		wantCode(t, "again", db.AddLogout(ctx, l), fault.Conflict)
		epoch(1)
		l.Token, l.At, l.Issued = "t3", at.Add(time.Minute), at.Add(time.Minute)
		must(t, db.AddLogout(ctx, l))
		is("later", "k1", identity.LoggedOut{Epoch: at.Add(time.Minute).UnixMilli(), Issued: at.Add(time.Minute)})
		epoch(2)
		l.Account = other
		must(t, db.AddLogout(ctx, l)) // what another account took is not taken here
		epoch(2)

		sweep := func(when time.Time) int {
			t.Helper()
			n, err := db.SweepLogouts(ctx, when, 10)
			must(t, err)
			return n
		}
		wantEqual(t, "tokens that ended", sweep(at.Add(time.Minute)), 4)
		is("still ended", "k2", first)
		wantEqual(t, "logouts that ended", sweep(at.Add(time.Hour)), 3)
	})
}
