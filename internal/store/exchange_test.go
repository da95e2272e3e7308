package store_test

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
)

func anExchanged(account access.Account, id string) exchange.Exchanged {
	return exchange.Exchanged{Account: account, ID: id, Expires: at.Add(time.Minute), Ground: identity.Ground{
		Workload: "wi-1", Generation: 2, UserRef: "ref", Issuer: "https://idp.example", Epochs: [3]int64{3, 4, 5}, Actors: []string{"wi-2", "wi-3"}, Since: at,
	}}
}

func TestExchangedTokens(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		one, bare := anExchanged(account, "one"), exchange.Exchanged{Account: account, ID: "bare", Expires: at, Ground: identity.Ground{Workload: "wi-1", Since: at}}
		must(t, db.AddExchanged(ctx, one))
		must(t, db.AddExchanged(ctx, bare))
		wantCode(t, "the id again", db.AddExchanged(ctx, one), fault.Conflict)
		const other = access.Account("999999999999")
		must(t, db.AddExchanged(ctx, anExchanged(other, "one")))
		for _, want := range []exchange.Exchanged{one, bare} {
			wantEqual(t, want.ID, got[exchange.Exchanged](t)(db.Exchanged(ctx, account, want.ID)), want)
		}
		_, err := db.Exchanged(ctx, other, "bare")
		wantCode(t, "another account's", err, fault.NotFound)
		wantCode(t, "revoking another account's", db.RevokeExchanged(ctx, other, "bare"), fault.NotFound)
		must(t, db.RevokeExchanged(ctx, account, "one"))
		must(t, db.RevokeExchanged(ctx, account, "one"))
		one.Revoked = true
		wantEqual(t, "revoked", got[exchange.Exchanged](t)(db.Exchanged(ctx, account, "one")), one)
		wantEqual(t, "the other account's of that id", got[exchange.Exchanged](t)(db.Exchanged(ctx, other, "one")), anExchanged(other, "one"))

		wantEqual(t, "swept", got[int](t)(db.SweepExchanged(ctx, at, 10)), 1)
		_, err = db.Exchanged(ctx, account, "bare")
		wantCode(t, "the swept one", err, fault.NotFound)
		wantEqual(t, "swept, one at most", got[int](t)(db.SweepExchanged(ctx, at.Add(time.Minute), 1)), 1)
		wantEqual(t, "the rest", got[int](t)(db.SweepExchanged(ctx, at.Add(time.Minute), 10)), 1)
	})
}
