package store_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/signing"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func aSigningKey(p signing.Purpose, period int64, id string) signing.Row {
	return signing.Row{Purpose: p, Period: period, ID: id, Public: `{"kty":"EC"}`, Sealed: vault.Sealed{1, 0, 2}, Begins: at, Created: at}
}

func TestSigningKeys(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		read := func(p signing.Purpose, from int64) []signing.Row {
			return got[[]signing.Row](t)(db.SigningKeys(ctx, p, from))
		}
		wantEqual(t, "none", len(read("tokens", 0)), 0)
		third, first := aSigningKey("tokens", 12, "c"), aSigningKey("tokens", 10, "a")
		second := aSigningKey("tokens", 11, "B")
		for _, r := range []signing.Row{third, first, second, aSigningKey("audit", 11, "d")} {
			must(t, db.AddSigningKey(ctx, r))
		}
		wantEqual(t, "the oldest first", read("tokens", 0), []signing.Row{first, second, third})
		wantEqual(t, "from a period on", read("tokens", 11), []signing.Row{second, third})
		wantCode(t, "the period again", db.AddSigningKey(ctx, aSigningKey("tokens", 11, "e")), fault.Conflict)
		wantCode(t, "the id again", db.AddSigningKey(ctx, aSigningKey("audit", 12, "a")), fault.Conflict)
		wantEqual(t, "after what was refused", read("tokens", 11), []signing.Row{second, third})
		won := race(t, 20, fault.Conflict, func(i int) error {
			return db.AddSigningKey(context.Background(), aSigningKey("tokens", 13, fmt.Sprint("race-", i)))
		})
		wantEqual(t, "winners of a period", won, 1)
	})
}

// H08: in one step the new key is there and the sealed halves of all others of its purpose are not.
func TestReplaceSigningKeys(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		old, other := aSigningKey("tokens", 10, "a"), aSigningKey("audit", 10, "b")
		must(t, db.AddSigningKey(ctx, old))
		must(t, db.AddSigningKey(ctx, other))
		taken := aSigningKey("tokens", 10, "c")
		wantCode(t, "a serial that is taken", db.ReplaceSigningKeys(ctx, taken, at), fault.Conflict)
		wantEqual(t, "after what was refused", got[[]signing.Row](t)(db.SigningKeys(ctx, "tokens", 0)), []signing.Row{old})
		next := aSigningKey("tokens", 10, "c")
		next.Serial = 1
		must(t, db.ReplaceSigningKeys(ctx, next, at))
		old.Sealed, old.Revoked = nil, at
		wantEqual(t, "the revoked one and the new one", got[[]signing.Row](t)(db.SigningKeys(ctx, "tokens", 0)), []signing.Row{old, next})
		wantEqual(t, "another purpose's", got[[]signing.Row](t)(db.SigningKeys(ctx, "audit", 0)), []signing.Row{other})
	})
}
