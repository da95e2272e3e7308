package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func anAPIKey(a access.Account, uid, name string) broker.APIKeyProvider {
	return broker.APIKeyProvider{
		Account: a, Name: name, UID: uid, Key: vault.Sealed{1, 0, 2}, SecretID: "0a1b2c3d-ABCDEF",
		Tags: map[string]string{"team": "käse"}, Version: 1, Created: at, Updated: at.Add(time.Second),
	}
}

func TestAPIKeyProviders(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p := anAPIKey(account, "k1", "maps")
		must(t, db.CreateAPIKeyProvider(ctx, p))
		wantCode(t, "same name", db.CreateAPIKeyProvider(ctx, anAPIKey(account, "k2", "maps")), fault.Conflict)
		must(t, db.CreateAPIKeyProvider(ctx, anAPIKey(other, "k1", "maps")))
		must(t, db.CreateAPIKeyProvider(ctx, anAPIKey(account, "k3", "alpha")))
		read := func() broker.APIKeyProvider {
			return got[broker.APIKeyProvider](t)(db.APIKeyProvider(ctx, account, "maps"))
		}
		wantEqual(t, "by name", read(), p)
		list := got[[]broker.APIKeyProvider](t)(db.APIKeyProviders(ctx, account, "alpha", 10))
		wantEqual(t, "list after", list, []broker.APIKeyProvider{p})
		wantEqual(t, "page", len(got[[]broker.APIKeyProvider](t)(db.APIKeyProviders(ctx, account, "", 1))), 1)

		p.Key, p.Tags, p.Version, p.Updated = vault.Sealed{9}, nil, 2, at.Add(time.Hour)
		wantCode(t, "swap of another version", db.SwapAPIKeyProvider(ctx, p, 7), fault.Conflict)
		must(t, db.SwapAPIKeyProvider(ctx, p, 1))
		wantEqual(t, "swapped, at once", read(), p)
		won := race(t, 20, fault.Conflict, func(int) error {
			mine := p
			mine.Version = 3
			return db.SwapAPIKeyProvider(context.Background(), mine, 2)
		})
		wantEqual(t, "winners of a swap", won, 1)

		foreign := p
		foreign.Account = "222222222222"
		wantCode(t, "another account's swap", db.SwapAPIKeyProvider(ctx, foreign, 3), fault.Conflict)
		wantCode(t, "another account's delete", db.DeleteAPIKeyProvider(ctx, "222222222222", "maps"), fault.NotFound)
		must(t, db.DeleteAPIKeyProvider(ctx, account, "maps"))
		_, err := db.APIKeyProvider(ctx, account, "maps")
		wantCode(t, "deleted", err, fault.NotFound)
		wantCode(t, "delete again", db.DeleteAPIKeyProvider(ctx, account, "maps"), fault.NotFound)
		wantEqual(t, "the other account's", got[broker.APIKeyProvider](t)(db.APIKeyProvider(ctx, other, "maps")).UID, "k1")
	})
}

func TestVaultTags(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		_, _, err := db.VaultTags(ctx, account, "default")
		wantCode(t, "never set", err, fault.NotFound)
		one := map[string]string{"k": "v"}
		wantCode(t, "swap of what is not there", db.SwapVaultTags(ctx, account, "default", one, 1), fault.Conflict)
		won := race(t, 10, fault.Conflict, func(int) error { return db.SwapVaultTags(context.Background(), account, "default", one, 0) })
		wantEqual(t, "winners of the first", won, 1)
		tags, version, err := db.VaultTags(ctx, account, "default")
		must(t, err)
		wantEqual(t, "tags", tags, one)
		must(t, db.SwapVaultTags(ctx, account, "default", map[string]string{}, version))
		wantCode(t, "swap again", db.SwapVaultTags(ctx, account, "default", one, version), fault.Conflict)
		tags, _, err = db.VaultTags(ctx, account, "default")
		must(t, err)
		wantEqual(t, "emptied", tags, map[string]string{})
		_, _, err = db.VaultTags(ctx, other, "default")
		wantCode(t, "another account's", err, fault.NotFound)
	})
}

func TestDeletedWorkloads(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		_, err := db.DeletedWorkload(ctx, account, "calendar")
		wantCode(t, "nothing was deleted", err, fault.NotFound)
		var last identity.Workload
		for i, uid := range []string{"w3", "w1", "w2"} {
			last = aWorkload(account, uid, "calendar")
			must(t, db.CreateWorkload(ctx, last))
			last.Deleted, last.Version = at.Add(time.Duration(i)*time.Hour), 2
			must(t, db.SwapWorkload(ctx, last, 1))
		}
		must(t, db.CreateWorkload(ctx, aWorkload(account, "w4", "calendar")))
		wantEqual(t, "the newest", got[identity.Workload](t)(db.DeletedWorkload(ctx, account, "calendar")), last)
		_, err = db.DeletedWorkload(ctx, other, "calendar")
		wantCode(t, "another account's", err, fault.NotFound)
	})
}
