package store_test

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func anAssertion(handle string, expires time.Time) identity.Assertion {
	return identity.Assertion{
		Account: account, Handle: handle, Workload: "w", UserRef: "ref", Issuer: "https://idp.example.com", Expires: expires, Sealed: vault.Sealed("s"),
	}
}

func TestAssertions(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		a := anAssertion("h1", at)
		must(t, db.KeepAssertion(ctx, a))
		wantCode(t, "the same handle", db.KeepAssertion(ctx, a), fault.Conflict)
		wantEqual(t, "row", got[identity.Assertion](t)(db.Assertion(ctx, account, "h1")), a)
		_, err := db.Assertion(ctx, other, "h1")
		wantCode(t, "another account's", err, fault.NotFound)
		must(t, db.KeepAssertion(ctx, anAssertion("h2", at.Add(-time.Second))))
		must(t, db.KeepAssertion(ctx, anAssertion("h3", at.Add(time.Second))))
		wantEqual(t, "swept, one at a time", got[int](t)(db.SweepAssertions(ctx, at, 1)), 1)
		_, err = db.Assertion(ctx, account, "h2")
		wantCode(t, "the oldest", err, fault.NotFound)
		wantEqual(t, "swept", got[int](t)(db.SweepAssertions(ctx, at, 10)), 1)
		_, err = db.Assertion(ctx, account, "h1")
		wantCode(t, "what expires now", err, fault.NotFound)
		_, err = db.Assertion(ctx, account, "h3")
		must(t, err)
	})
}

func TestProvidersThatExchange(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		exchanges := func(what string, want bool) {
			t.Helper()
			wantEqual(t, what, got[bool](t)(db.ExchangesUserTokens(ctx, account)), want)
		}
		exchanges("no provider", false)
		p := aProvider(account, "p1", "first")
		must(t, db.CreateProvider(ctx, p))
		exchanges("a provider without it", false)
		p.OnBehalfOf = &broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorClient, ActorScopes: []string{"a", "b"}, NoClient: true}
		old := p.Version
		p.Version++
		must(t, db.SwapProvider(ctx, p, old))
		exchanges("after an update", true)
		wantEqual(t, "row", got[broker.Provider](t)(db.Provider(ctx, account, "first")), p)
		wantEqual(t, "another account", got[bool](t)(db.ExchangesUserTokens(ctx, other)), false)
		must(t, db.DeleteProvider(ctx, account, "first"))
		exchanges("after the end", false)
		p = aProvider(account, "p2", "second")
		p.OnBehalfOf = &broker.OnBehalfOf{Grant: broker.JWTAuthorizationGrant}
		must(t, db.CreateProvider(ctx, p))
		exchanges("created with it", true)
		wantEqual(t, "row", got[broker.Provider](t)(db.Provider(ctx, account, "second")), p)
	})
}
