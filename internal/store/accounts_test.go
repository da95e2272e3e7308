package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func anAccount(id access.Account, name string) accounts.Account {
	return accounts.Account{
		ID: id, Name: name, Version: 1, Created: at, Updated: at,
		Quotas: accounts.Quotas{WorkloadIdentities: 1, CredentialProviders: 2, Principals: 3, Policies: 4, Connections: 5, RequestsPerSecond: 6},
	}
}

func aRoot(a access.Account) *identity.NewRoot {
	return &identity.NewRoot{
		Principal: identity.Principal{Account: a, ID: "prn-root", Name: "root", Roles: []access.Role{access.Root}, Created: at},
		Key:       identity.AccessKey{ID: "TABARDROOT" + string(a), Account: a, Principal: "prn-root", Owner: "root", Secret: vault.Sealed{1}, Version: 1, Created: at},
	}
}

func TestAccounts(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		_, err := db.Account(ctx, account)
		wantCode(t, "an account that is not there", err, fault.NotFound)
		a, b := anAccount(account, "home"), anAccount(other, "acme")
		must(t, db.CreateAccount(ctx, a, nil))
		must(t, db.CreateAccount(ctx, b, aRoot(other)))
		wantCode(t, "the number again", db.CreateAccount(ctx, anAccount(account, "x"), nil), fault.Conflict)
		wantCode(t, "the name again", db.CreateAccount(ctx, anAccount("222222222222", "acme"), nil), fault.Conflict)
		k, p, err := db.KeyAndPrincipal(ctx, "TABARDROOT111111111111")
		must(t, err)
		wantEqual(t, "the first key", k, aRoot(other).Key)
		wantEqual(t, "the first principal", p.Name, "root")
		if err := db.CreateAccount(ctx, anAccount("333333333333", "taken"), &identity.NewRoot{Principal: aRoot("333333333333").Principal, Key: aRoot(other).Key}); err == nil {
			t.Error("an account was made with the key of another")
		}
		_, err = db.Account(ctx, "333333333333")
		wantCode(t, "what was made with it", err, fault.NotFound)
		wantEqual(t, "list", got[[]accounts.Account](t)(db.Accounts(ctx, "", 10)), []accounts.Account{a, b})
		wantEqual(t, "list after the first", got[[]accounts.Account](t)(db.Accounts(ctx, string(account), 10)), []accounts.Account{b})
		b.Quotas, b.Version = accounts.Quotas{Principals: 9}, 2
		must(t, db.SwapAccount(ctx, b, 1))
		wantCode(t, "an old version", db.SwapAccount(ctx, b, 1), fault.Conflict)
		wantEqual(t, "changed", got[accounts.Account](t)(db.Account(ctx, other)), b)
		must(t, db.SwapStanding(ctx, identity.Standing{Account: other, Kind: identity.AccountStanding, Key: string(other), Disabled: true, Reason: "r", Version: 1, Epoch: 1, Changed: at}, 0))
		b.Disabled, b.Reason = true, "r"
		wantEqual(t, "disabled, in the list", got[[]accounts.Account](t)(db.Accounts(ctx, string(account), 10))[0], b)
	})
}

// Those who add at once count what the others made: a quota is never passed, and is reached.
func TestQuotasHoldInARace(t *testing.T) {
	engines(t, func(t *testing.T, opens opener) {
		db := opens(t)
		stores := []*store.DB{db}
		if db.Engine() == store.PostgreSQL {
			stores = append(stores, opens(t)) // another replica
		}
		a := anAccount(account, "home")
		a.Quotas = accounts.Quotas{WorkloadIdentities: 5, CredentialProviders: 4, Principals: 3, Connections: 2}
		must(t, db.CreateAccount(t.Context(), a, nil))
		must(t, db.CreateProvider(t.Context(), aProvider(account, "prov", "google")))
		for what, try := range map[string]struct {
			want int
			add  func(db *store.DB, i int) error
		}{
			"workload identities": {5, func(db *store.DB, i int) error {
				return db.CreateWorkload(context.Background(), aWorkload(account, fmt.Sprint("u", i), fmt.Sprint("w", i)))
			}},
			"providers of both kinds": {3, func(db *store.DB, i int) error {
				if i%2 == 0 {
					p := aProvider(account, fmt.Sprint("uid", i), fmt.Sprint("p", i))
					p.CallbackID = fmt.Sprint("callback", i)
					return db.CreateProvider(context.Background(), p)
				}
				return db.CreateAPIKeyProvider(context.Background(), anAPIKey(account, fmt.Sprint("uid", i), fmt.Sprint("k", i)))
			}},
			"principals": {3, func(db *store.DB, i int) error {
				return db.CreatePrincipal(context.Background(), aPrincipal(account, fmt.Sprint("p", i), fmt.Sprint("p", i)))
			}},
			"connections": {2, func(db *store.DB, i int) error {
				return db.SwapConnection(context.Background(), aConnection(account, fmt.Sprintf("%064x", i), "prov"), 0)
			}},
		} {
			won := race(t, 16, fault.Limit, func(i int) error { return try.add(stores[i%len(stores)], i) })
			wantEqual(t, what, won, try.want)
		}
		must(t, db.CreateWorkload(t.Context(), aWorkload(other, "u", "w"))) // another account has its own
	})
}

func TestDefaultQuotas(t *testing.T) {
	url := t.TempDir() + "/tabard.db"
	db := open(t, store.Config{SQLitePath: url, Quotas: accounts.Quotas{WorkloadIdentities: 1}})
	must(t, db.CreateWorkload(t.Context(), aWorkload(account, "a", "a")))
	wantCode(t, "beyond the server's default", db.CreateWorkload(t.Context(), aWorkload(account, "b", "b")), fault.Limit)
	must(t, db.CreateAccount(t.Context(), accounts.Account{ID: other, Name: "o", Version: 1, Created: at, Updated: at, Quotas: accounts.Quotas{WorkloadIdentities: 2}}, nil))
	must(t, db.CreateWorkload(t.Context(), aWorkload(other, "a", "a")))
	must(t, db.CreateWorkload(t.Context(), aWorkload(other, "b", "b")))
	wantCode(t, "beyond the account's own", db.CreateWorkload(t.Context(), aWorkload(other, "c", "c")), fault.Limit)
}

func TestReplaceAccessKeys(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		must(t, db.CreateAccount(ctx, anAccount(account, "home"), aRoot(account)))
		second := aRoot(account).Key
		second.ID = "TABARDSECOND00000000"
		disabled, err := db.ReplaceAccessKeys(ctx, second)
		must(t, err)
		wantEqual(t, "disabled", disabled, []string{"TABARDROOT000000000000"})
		k, _, err := db.KeyAndPrincipal(ctx, "TABARDROOT000000000000")
		must(t, err)
		if !k.Disabled || k.Version != 2 {
			t.Errorf("the old key: got %+v, want it disabled in version 2", k)
		}
		_, err = db.ReplaceAccessKeys(ctx, second)
		wantCode(t, "the same again", err, fault.Conflict)
		k, _, err = db.KeyAndPrincipal(ctx, second.ID)
		must(t, err)
		wantEqual(t, "the new key, after a replacement that failed", k.Disabled, false)
	})
}

func TestKeysUsed(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		must(t, db.CreateAccount(ctx, anAccount(account, "home"), aRoot(account)))
		id := aRoot(account).Key.ID
		used := func() time.Time {
			keys, err := db.AccessKeys(ctx, account, "", "", 10)
			must(t, err)
			return keys[slices.IndexFunc(keys, func(k identity.AccessKey) bool { return k.ID == id })].LastUsed
		}
		wantEqual(t, "never used", used(), time.Time{})
		must(t, db.KeysUsed(ctx, []identity.Use{{Account: account, ID: "gone", At: at}, {Account: account, ID: id, At: at}, {Account: other, ID: id, At: at.Add(time.Hour)}}))
		wantEqual(t, "used", used(), at)
		must(t, db.KeysUsed(ctx, []identity.Use{{Account: account, ID: id, At: at.Add(-time.Minute)}}))
		wantEqual(t, "an earlier use that comes later", used(), at)
	})
}
