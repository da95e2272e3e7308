package accounts_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
	"github.com/tabard-id/tabard/internal/vault"
)

// database is what each test gets a copy of.
var database storetest.Template

const home = access.Account("000000000000")

// people makes roots without a vault, and keeps the standings of a real store.
type people struct{ db *store.DB }

func (p people) NewRoot(_ context.Context, a access.Account) (identity.NewRoot, secret.Text, error) {
	return identity.NewRoot{
		Principal: identity.Principal{Account: a, ID: "prn-1", Name: "root", Roles: []access.Role{access.Root}},
		Key:       identity.AccessKey{ID: "TABARDROOT" + string(a), Account: a, Principal: "prn-1", Secret: vault.Sealed{1}, Version: 1},
	}, secret.New("canary"), nil
}

func (p people) ChangeStanding(ctx context.Context, a access.Account, kind identity.StandingKind, key string, change func(*identity.Standing)) (identity.Standing, error) {
	at, err := p.db.CurrentStanding(ctx, a, kind, key)
	if err != nil {
		return at, err
	}
	old := at.Version
	change(&at)
	at.Version++
	return at, p.db.SwapStanding(ctx, at, old)
}

func (p people) RaiseEveryEpoch(ctx context.Context, a access.Account) error {
	return p.db.RaiseEveryWorkload(ctx, a, time.Now())
}

// world is a service on a real store. Its Guard decides by the gate over the fixed table.
type world struct {
	*accounts.Service
	db    *store.DB
	guard *access.Guard
}

func newWorld(t *testing.T, defaults accounts.Quotas) world {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{SQLitePath: database.New(t)})
	must(t, err)
	guard := access.NewGuard(access.Config{Log: db, Now: time.Now, Decider: accounts.Gate{Standings: db, Next: access.Table{}}})
	t.Cleanup(func() {
		guard.Close()
		must(t, db.Close())
	})
	s, err := accounts.New(accounts.Config{Store: db, Standings: db, People: people{db}, Guard: guard, Home: home, Defaults: defaults})
	must(t, err)
	must(t, s.EnsureHome(t.Context()))
	return world{s, db, guard}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

func root(a access.Account) access.Caller {
	return access.Caller{Account: a, Principal: "p", Name: "root", Roles: []access.Role{access.Root}}
}

func TestCreateAccount(t *testing.T) {
	w := newWorld(t, accounts.Quotas{})
	ctx := t.Context()
	must(t, w.EnsureHome(ctx))
	made, err := w.Create(ctx, root(home), accounts.NewAccount{Name: "acme", Quotas: accounts.Quotas{Principals: 7}})
	must(t, err)
	if len(made.ID) != 12 || made.ID == home || made.Key.Secret != nil || made.Secret.IsZero() {
		t.Errorf("made %+v", made)
	}
	_, err = w.Create(ctx, root(home), accounts.NewAccount{Name: "acme"})
	wantCode(t, "the name again", err, fault.Conflict)
	_, err = w.Create(ctx, root(home), accounts.NewAccount{Name: "x", ID: made.ID})
	wantCode(t, "the number again", err, fault.Conflict)
	_, err = w.Create(ctx, root(home), accounts.NewAccount{Name: "x", ID: home})
	wantCode(t, "the installation's own number", err, fault.Conflict)
	_, err = w.Create(ctx, root(home), accounts.NewAccount{Name: "x", Quotas: accounts.Quotas{Policies: -1}})
	wantCode(t, "a negative quota", err, fault.Invalid)
	first, next, err := w.Accounts(ctx, root(home), "", 1)
	must(t, err)
	rest, end, err := w.Accounts(ctx, root(home), next, 1)
	must(t, err)
	if len(first) != 1 || len(rest) != 1 || first[0].ID != home || rest[0].Name != "acme" || next == "" || end != "" {
		t.Errorf("pages %v %q %v %q", first, next, rest, end)
	}
}

func TestOnlyHomeRootAdministersAccounts(t *testing.T) {
	w := newWorld(t, accounts.Quotas{})
	made, err := w.Create(t.Context(), root(home), accounts.NewAccount{Name: "acme"})
	must(t, err)
	for name, c := range map[string]access.Caller{
		"root of another account": root(made.ID), "nobody": {},
		"an administrator": {Account: home, Principal: "p", Roles: []access.Role{access.Admin}},
	} {
		_, err := w.Create(t.Context(), c, accounts.NewAccount{Name: "x"})
		wantCode(t, name+" creates", err, fault.Denied)
		_, _, err = w.Accounts(t.Context(), c, "", 0)
		wantCode(t, name+" lists", err, fault.Denied)
		_, err = w.SetQuotas(t.Context(), c, made.ID, accounts.Quotas{})
		wantCode(t, name+" sets quotas", err, fault.Denied)
		_, err = w.Disable(t.Context(), c, home, "")
		wantCode(t, name+" disables", err, fault.Denied)
		_, err = w.Enable(t.Context(), c, made.ID)
		wantCode(t, name+" enables", err, fault.Denied)
	}
}

func TestDisable(t *testing.T) {
	w := newWorld(t, accounts.Quotas{})
	ctx := t.Context()
	made, err := w.Create(ctx, root(home), accounts.NewAccount{Name: "acme"})
	must(t, err)
	must(t, w.Admit(ctx, made.ID))
	must(t, w.guard.Permit(ctx, root(made.ID), access.ListPrincipals, access.Facts{}))
	_, err = w.Disable(ctx, root(home), home, "")
	wantCode(t, "the installation's own", err, fault.Invalid)
	_, err = w.Disable(ctx, root(home), "999999999999", "")
	wantCode(t, "one that is not there", err, fault.NotFound)
	a, err := w.Disable(ctx, root(home), made.ID, "unpaid")
	must(t, err)
	if !a.Disabled || a.Reason != "unpaid" {
		t.Errorf("got %+v", a)
	}
	wantCode(t, "a caller of it", w.Admit(ctx, made.ID), fault.Denied)
	wantCode(t, "even root of it", w.guard.Permit(ctx, root(made.ID), access.ListPrincipals, access.Facts{}), fault.Denied)
	must(t, w.guard.Permit(ctx, root(home), access.ListPrincipals, access.Facts{}))
	a, err = w.Enable(ctx, root(home), made.ID)
	must(t, err)
	if a.Disabled {
		t.Errorf("got %+v", a)
	}
	must(t, w.Admit(ctx, made.ID))
}

func TestQuotas(t *testing.T) {
	w := newWorld(t, accounts.Quotas{Principals: 3, RequestsPerSecond: 9})
	ctx := t.Context()
	made, err := w.Create(ctx, root(home), accounts.NewAccount{Name: "acme", Quotas: accounts.Quotas{Principals: 5}})
	must(t, err)
	for id, want := range map[access.Account]accounts.Quotas{
		made.ID: {Principals: 5, RequestsPerSecond: 9}, home: {Principals: 3, RequestsPerSecond: 9}, "999999999999": {Principals: 3, RequestsPerSecond: 9},
	} {
		got, err := w.QuotasOf(ctx, id)
		must(t, err)
		if got != want {
			t.Errorf("quotas of %s: got %+v, want %+v", id, got, want)
		}
	}
	var all sync.WaitGroup
	for i := range 4 { // whoever comes second begins again
		all.Go(func() {
			if _, err := w.SetQuotas(ctx, root(home), made.ID, accounts.Quotas{Policies: int64(i + 1)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := w.PolicyQuota(100)(ctx, made.ID)
	must(t, err)
	if got < 1 || got > 4 {
		t.Errorf("policies: got %d", got)
	}
	if got, err = w.PolicyQuota(100)(ctx, home); err != nil || got != 100 {
		t.Errorf("policies without a quota: got %d, %v, want what the caller has", got, err)
	}
	var q accounts.Quotas
	must(t, q.Set("requests-per-second", 4))
	if q.RequestsPerSecond != 4 || q.String() != "requests per second 4" || (accounts.Quotas{}).String() != "none" {
		t.Errorf("got %+v, %q", q, q)
	}
	wantCode(t, "an unknown quota", q.Set("cows", 1), fault.Invalid)
	wantCode(t, "too much", q.Set("policies", 2_000_000_000), fault.Invalid)
}
