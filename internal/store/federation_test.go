package store_test

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/store"
)

func aWorkloadIssuer() federation.Issuer {
	return federation.Issuer{
		Account: account, URL: "https://kubernetes.default.svc", UID: "wis-1", Kind: federation.OIDC, Audiences: []string{"tabard", `quo"te`},
		JWKSURI: "https://keys.example.com", JWKS: []byte(`{"keys":[]}`), OtherAudiences: true, Created: at,
	}
}

func TestFederation(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		i := aWorkloadIssuer()
		must(t, db.CreateWorkloadIssuer(ctx, i))
		wantCode(t, "the same issuer", db.CreateWorkloadIssuer(ctx, i), fault.Conflict)
		foreign := i
		foreign.Account, foreign.UID, foreign.JWKS = other, "wis-2", nil
		must(t, db.CreateWorkloadIssuer(ctx, foreign))
		wantEqual(t, "issuers", got[[]federation.Issuer](t)(db.WorkloadIssuers(ctx, account, "", 10)), []federation.Issuer{i})
		wantEqual(t, "issuers after the last", got[[]federation.Issuer](t)(db.WorkloadIssuers(ctx, account, i.URL, 10)), nil)

		p := aPrincipal(account, "p1", "calendar")
		must(t, db.CreatePrincipal(ctx, p))
		r := federation.Rule{Account: account, ID: "frl-1", Issuer: i.URL, Subject: "a:*", Claims: map[string]string{"b/c": "d", "a": `"`}, Principal: p.ID, Name: p.Name, Created: at}
		must(t, db.CreateFederationRule(ctx, r))
		wantCode(t, "the same rule", db.CreateFederationRule(ctx, r), fault.Conflict)
		second := federation.Rule{Account: account, ID: "frl-2", Issuer: i.URL, Subject: "e", Principal: p.ID, Name: p.Name, Created: at}
		must(t, db.CreateFederationRule(ctx, second))
		bad := second
		bad.ID, bad.Issuer = "frl-3", "https://nobody.example"
		wantCode(t, "no issuer", db.CreateFederationRule(ctx, bad), fault.NotFound)
		bad.Issuer, bad.Account = i.URL, other
		wantCode(t, "another account's principal", db.CreateFederationRule(ctx, bad), fault.NotFound)

		trust := got[federation.Trust](t)(db.WorkloadTrust(ctx, account, i.URL))
		wantEqual(t, "trust", trust, federation.Trust{Issuer: i, Grants: []federation.Grant{{Rule: r, To: p}, {Rule: second, To: p}}})
		wantEqual(t, "the other's trust", got[federation.Trust](t)(db.WorkloadTrust(ctx, other, i.URL)), federation.Trust{Issuer: foreign})
		_, err := db.WorkloadTrust(ctx, account, "https://nobody.example")
		wantCode(t, "no trust", err, fault.NotFound)

		for q, want := range map[[3]string][]federation.Rule{
			{"", "", ""}: {r, second}, {"", "", "frl-1"}: {second}, {i.URL, "", ""}: {r, second}, {"", "calendar", "frl-1"}: {second},
			{i.URL, "calendar", ""}: {r, second}, {"x", "", ""}: nil, {"", "x", ""}: nil, {"x", "calendar", ""}: nil,
		} {
			wantEqual(t, "rules", got[[]federation.Rule](t)(db.FederationRules(ctx, account, q[0], q[1], q[2], 10)), want)
		}
		wantEqual(t, "one rule", got[[]federation.Rule](t)(db.FederationRules(ctx, account, "", "", "", 1)), []federation.Rule{r})
		wantEqual(t, "the other's rules", got[[]federation.Rule](t)(db.FederationRules(ctx, other, "", "", "", 10)), nil)

		wantCode(t, "another's rule", db.DeleteFederationRule(ctx, other, r.ID), fault.NotFound)
		must(t, db.DeleteFederationRule(ctx, account, r.ID))
		wantCode(t, "a rule twice", db.DeleteFederationRule(ctx, account, r.ID), fault.NotFound)
		wantEqual(t, "trust at once", len(got[federation.Trust](t)(db.WorkloadTrust(ctx, account, i.URL)).Grants), 1)
		must(t, db.DeleteWorkloadIssuer(ctx, account, i.URL))
		wantCode(t, "an issuer twice", db.DeleteWorkloadIssuer(ctx, account, i.URL), fault.NotFound)
		wantEqual(t, "rules of what is gone", got[[]federation.Rule](t)(db.FederationRules(ctx, account, "", "", "", 10)), nil)
		_, err = db.WorkloadTrust(ctx, account, i.URL)
		wantCode(t, "trust that ended", err, fault.NotFound)
		got[federation.Trust](t)(db.WorkloadTrust(ctx, other, i.URL))
	})
}

// A replica sees another's change within two seconds.
func TestFederationAcrossReplicas(t *testing.T) {
	engines(t, func(t *testing.T, open opener) {
		one := open(t)
		two := one // SQLite has one server, and its end is seen at once
		if one.Engine() == store.PostgreSQL {
			two = open(t)
		}
		ctx, i := t.Context(), aWorkloadIssuer()
		must(t, one.CreateWorkloadIssuer(ctx, i))
		got[federation.Trust](t)(two.WorkloadTrust(ctx, account, i.URL))
		must(t, one.DeleteWorkloadIssuer(ctx, account, i.URL))
		for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if _, err := two.WorkloadTrust(ctx, account, i.URL); err != nil {
				wantCode(t, "after the end", err, fault.NotFound)
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the other replica still trusts the issuer after two seconds")
			}
		}
	})
}
