package store_test

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func aDelegation(id, workload, user string, grants ...identity.Grant) identity.Delegation {
	return identity.Delegation{
		Account: account, ID: id, Workload: workload, UserRef: user, Issuer: "https://idp.example.com", Grants: grants, Note: vault.Sealed("n"),
		Until: at.Add(time.Hour), UserEpoch: 2, IssuerEpoch: 3, CreatedBy: "app", Created: at,
	}
}

func TestDelegations(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		must(t, db.CreateWorkload(ctx, aWorkload(account, "w1", "calendar")))
		google := identity.Grant{Provider: "google", Kind: identity.OAuth2Kind, UID: "p1", Scopes: []string{"a", `{"provider":"mail",`}}
		d := aDelegation("d1", "w1", "u1", google, identity.Grant{Provider: "go_gle", Kind: identity.APIKeyKind, UID: "p3"})
		must(t, db.CreateDelegation(ctx, d, 2))
		wantCode(t, "the same id", db.CreateDelegation(ctx, d, 2), fault.Conflict)
		d.WorkloadName = "calendar"
		wantEqual(t, "row", got[identity.Delegation](t)(db.Delegation(ctx, account, "d1")), d)
		_, err := db.Delegation(ctx, other, "d1")
		wantCode(t, "another account's", err, fault.NotFound)
		must(t, db.CreateDelegation(ctx, aDelegation("d2", "w1", "u1", google), 2))
		wantCode(t, "one too many", db.CreateDelegation(ctx, aDelegation("d3", "w1", "u1", google), 2), fault.Throttled)
		must(t, db.CreateDelegation(ctx, aDelegation("d3", "w2", "u1", identity.Grant{Provider: "mail"}), 2))
		must(t, db.CreateDelegation(ctx, aDelegation("d4", "w1", "u2", google), 2))

		ids := func(what string, f identity.DelegationFilter, after string, want ...string) {
			t.Helper()
			var found []string
			for _, d := range got[[]identity.Delegation](t)(db.Delegations(ctx, account, f, after, 10)) {
				found = append(found, d.ID)
			}
			wantEqual(t, what, found, want)
		}
		ids("all", identity.DelegationFilter{}, "", "d1", "d2", "d3", "d4")
		ids("after", identity.DelegationFilter{}, "d2", "d3", "d4")
		ids("of a workload identity", identity.DelegationFilter{Workload: "w2"}, "", "d3")
		ids("of a user", identity.DelegationFilter{UserRef: "u1"}, "", "d1", "d2", "d3")
		ids("of a provider, and no scope that looks like it", identity.DelegationFilter{Provider: "mail"}, "", "d3")
		ids("an underscore is no wildcard", identity.DelegationFilter{Provider: "go_gle"}, "", "d1")

		must(t, db.TouchDelegation(ctx, account, "d1", at.Add(time.Minute)))
		must(t, db.TouchDelegation(ctx, account, "d1", at))
		d.LastUsed = at.Add(time.Minute)
		wantEqual(t, "touched", got[identity.Delegation](t)(db.Delegation(ctx, account, "d1")), d)
		d.Ended = at.Add(2 * time.Minute)
		wantEqual(t, "ended", got[identity.Delegation](t)(db.EndDelegation(ctx, account, "d1", d.Ended)), d)
		wantEqual(t, "ended again", got[identity.Delegation](t)(db.EndDelegation(ctx, account, "d1", at.Add(time.Hour))), d)
		wantEqual(t, "read", got[identity.Delegation](t)(db.Delegation(ctx, account, "d1")), d)
		must(t, db.CreateDelegation(ctx, aDelegation("d5", "w1", "u1", google), 2))

		wantEqual(t, "ended by user and provider", got[int](t)(db.EndDelegations(ctx, account, identity.DelegationFilter{UserRef: "u1", Provider: "google"}, at)), 2)
		wantEqual(t, "in another account", got[int](t)(db.EndDelegations(ctx, other, identity.DelegationFilter{}, at)), 0)
		wantEqual(t, "what had expired", got[int](t)(db.EndDelegations(ctx, account, identity.DelegationFilter{}, at.Add(2*time.Hour))), 0)
		wantEqual(t, "the rest", got[int](t)(db.EndDelegations(ctx, account, identity.DelegationFilter{}, at)), 2)
		for _, id := range []string{"d1", "d4"} {
			if d := got[identity.Delegation](t)(db.Delegation(ctx, account, id)); d.Ended.IsZero() || d.Note != nil {
				t.Errorf("got %+v, want it ended and its note gone", d)
			}
		}
		_, err = db.EndDelegation(ctx, account, "d9", at)
		wantCode(t, "one that is not there", err, fault.NotFound)
	})
}
