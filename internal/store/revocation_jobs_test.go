package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/revocation"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func aJob(a access.Account, id string) revocation.Job {
	return revocation.Job{
		Account: a, ID: id, Selection: revocation.Selection{User: "u1"}, Upstream: true, Erase: true, Reason: "why", Principal: "prn", Name: "ops",
		AccessKey: "K", Phase: revocation.Begun, Due: at, Created: at,
	}
}

func TestRevocationJobs(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		j := aJob(account, "rvk-1")
		must(t, db.CreateJob(ctx, j, time.Minute))
		wantCode(t, "twice", db.CreateJob(ctx, j, time.Minute), fault.Conflict)
		wantEqual(t, "row", got[revocation.Job](t)(db.Job(ctx, account, "rvk-1")), j)
		_, err := db.Job(ctx, other, "rvk-1")
		wantCode(t, "another account's", err, fault.NotFound)
		_, err = db.LeaseJob(ctx, at, time.Minute)
		wantCode(t, "leased by who made it", err, fault.NotFound)

		j.Phase, j.Delegations, j.Due = revocation.Listed, 3, at.Add(time.Second)
		must(t, db.SaveJob(ctx, j, revocation.Begun, time.Minute))
		wantCode(t, "saved from where it was", db.SaveJob(ctx, j, revocation.Begun, 0), fault.Conflict)
		_, err = db.LeaseJob(ctx, at.Add(time.Minute), time.Minute)
		wantCode(t, "leased on by who saved it", err, fault.NotFound)
		must(t, db.SaveJob(ctx, j, revocation.Listed, 0))
		_, err = db.LeaseJob(ctx, at, time.Minute)
		wantCode(t, "not due", err, fault.NotFound)
		won := race(t, 6, fault.NotFound, func(int) error {
			_, err := db.LeaseJob(context.Background(), at.Add(time.Minute), time.Minute)
			return err
		})
		wantEqual(t, "leases of six at once", won, 1)

		j.Phase, j.Receipt, j.Finished = revocation.Done, "jws", at.Add(time.Hour)
		must(t, db.SaveJob(ctx, j, revocation.Listed, 0))
		wantEqual(t, "done", got[revocation.Job](t)(db.Job(ctx, account, "rvk-1")), j)
		_, err = db.LeaseJob(ctx, at.Add(time.Hour), time.Minute)
		wantCode(t, "what is done", err, fault.NotFound)
	})
}

func TestRevocationItems(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, db.CreateProvider(ctx, aProvider(account, "prov2", "github")))
		must(t, db.CreateWorkload(ctx, aWorkload(account, "w1", "calendar")))
		one, two, three, dead := aConnection(account, "k1", "prov1"), aConnection(account, "k2", "prov2"), aConnection(account, "k3", "prov1"), aConnection(account, "k4", "prov1")
		two.User, three.Workload, dead.State = "u2", "w-gone", broker.Revoked
		for _, c := range []broker.Connection{one, two, three, dead} {
			must(t, db.SwapConnection(ctx, c, 0))
		}
		for name, c := range map[string]struct {
			sel  revocation.Selection
			want []string
		}{
			"all": {revocation.Selection{Whole: true}, []string{"id-k1", "id-k2", "id-k3"}}, "user": {revocation.Selection{User: "u1"}, []string{"id-k1", "id-k3"}},
			"agent": {revocation.Selection{Workload: "calendar"}, []string{"id-k1", "id-k2"}}, "provider": {revocation.Selection{Provider: "github"}, []string{"id-k2"}},
			"both": {revocation.Selection{Workload: "calendar", Provider: "google"}, []string{"id-k1"}}, "none": {revocation.Selection{Workload: "x"}, nil},
		} {
			j := aJob(account, "rvk-"+name)
			j.Selection = c.sel
			must(t, db.CreateJob(ctx, j, time.Minute))
			must(t, db.ListItems(ctx, j))
			must(t, db.ListItems(ctx, j))
			var ids []string
			for _, i := range got[[]revocation.Item](t)(db.Items(ctx, account, j.ID, true, "", 10)) {
				ids = append(ids, i.Connection)
			}
			wantEqual(t, name, ids, c.want)
		}
		items := got[[]revocation.Item](t)(db.Items(ctx, account, "rvk-all", false, "id-k1", 1))
		wantEqual(t, "a page", items, []revocation.Item{{
			Account: account, Job: "rvk-all", Connection: "id-k2", Workload: "calendar", User: "u2", Provider: "github", Upstream: broker.RevocationPending,
		}})
		syncs(t, db, one)
	})
}

// syncs ends the connection id-k1 of the job rvk-all, and follows its revocation.
func syncs(t *testing.T, db *store.DB, one broker.Connection) {
	ctx := t.Context()
	item := got[[]revocation.Item](t)(db.Items(ctx, account, "rvk-all", true, "", 1))[0]
	r := aRevocation(one, "rv-1")
	must(t, db.AddRevocation(ctx, r))
	item.Ended, item.Generation = true, one.Generation
	must(t, db.SaveItem(ctx, item))
	gone := got[[]revocation.Item](t)(db.Items(ctx, account, "rvk-all", true, "id-k2", 1))[0]
	gone.Ended, gone.Generation = true, 7
	must(t, db.SaveItem(ctx, gone))
	must(t, db.SyncItems(ctx, account, "rvk-all"))
	wantEqual(t, "while it is tried, while it has no row, and before it ended", got[revocation.Counts](t)(db.CountItems(ctx, account, "rvk-all")),
		revocation.Counts{Connections: 3, Upstream: map[broker.RevocationState]int{broker.RevocationPending: 2, broker.RevocationFailed: 1}})
	r.State, r.Detail = broker.RevocationDone, "fine"
	must(t, db.FinishRevocation(ctx, r))
	must(t, db.SyncItems(ctx, account, "rvk-all"))
	item.Upstream, item.Detail = broker.RevocationDone, "fine"
	wantEqual(t, "afterwards", got[[]revocation.Item](t)(db.Items(ctx, account, "rvk-all", false, "", 1))[0], item)
	wantEqual(t, "those that have not ended here", len(got[[]revocation.Item](t)(db.Items(ctx, account, "rvk-all", true, "", 10))), 1)
}

func TestEndConsents(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, db.CreateWorkload(ctx, aWorkload(account, "w1", "calendar")))
		open, held, redeeming, others := aFlow(account, "f1", "prov1"), aFlow(account, "f2", "prov1"), aFlow(account, "f3", "prov1"), aFlow(account, "f4", "prov1")
		others.User = "u2"
		for _, f := range []broker.Flow{open, held, redeeming, others} {
			must(t, db.CreateFlow(ctx, f, 10))
		}
		must(t, db.AddVisit(ctx, aVisit("s1", "f1"), 5))
		for _, id := range []string{"f2", "f3"} {
			must(t, db.HoldCode(ctx, id, vault.Sealed("code"), vault.Sealed("v")))
		}
		fence := got[int64](t)(db.StartRedeem(ctx, "f3", broker.Attempt{Account: account, Subject: "f3", Kind: "redeem", Started: at}, time.Minute))
		must(t, db.KeepAssertion(ctx, anAssertion("h1", at)))
		sel := revocation.Selection{User: "u1", Workload: "calendar", Provider: "google"}
		must(t, db.EndConsents(ctx, account, sel, "access was revoked"))
		for id, want := range map[string]broker.FlowState{"f1": broker.FlowFailed, "f2": broker.FlowFailed, "f3": broker.FlowFailed, "f4": broker.FlowCreated} {
			f := got[broker.Flow](t)(db.FlowByID(ctx, id))
			if f.State != want || want == broker.FlowFailed && (f.Reason != "access was revoked" || len(f.Code)+len(f.CustomState) > 0) {
				t.Errorf("flow %s: got state %s, reason %q, %d bytes of code", id, f.State, f.Reason, len(f.Code))
			}
		}
		wantCode(t, "a redemption that was under way", db.FinishRedeem(ctx, "f3", fence, aConnection(account, "k1", "prov1"), 0, broker.Lineage{}), fault.Conflict)
		if v := got[broker.Visit](t)(db.SpendVisit(ctx, "s1", "cookie-s1")); len(v.Verifier) > 0 {
			t.Error("the verifier of a visit is still there")
		}
		_, err := db.Assertion(ctx, account, "h1")
		must(t, err) // a provider was named: the users' own tokens stay

		must(t, db.EndConsents(ctx, account, revocation.Selection{User: "ref", Workload: "other"}, "r"))
		_, err = db.Assertion(ctx, account, "h1")
		must(t, err)
		must(t, db.EndConsents(ctx, account, revocation.Selection{User: "ref"}, "r"))
		_, err = db.Assertion(ctx, account, "h1")
		wantCode(t, "a kept user's token", err, fault.NotFound)
	})
}

func TestEraseUserRow(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		for _, u := range []string{"u1", "u2"} {
			must(t, db.RememberUser(ctx, account, u, vault.Sealed("sealed"), at))
		}
		c := aConnection(account, "k1", "prov1")
		must(t, db.SwapConnection(ctx, c, 0))
		must(t, db.EraseUser(ctx, other, "u1"))
		got[vault.Sealed](t)(db.SealedUser(ctx, account, "u1"))
		must(t, db.EraseUser(ctx, account, "u1"))
		must(t, db.EraseUser(ctx, account, "u1"))
		_, err := db.SealedUser(ctx, account, "u1")
		wantCode(t, "who the user is", err, fault.NotFound)
		got[vault.Sealed](t)(db.SealedUser(ctx, account, "u2"))
		if c := got[broker.Connection](t)(db.Connection(ctx, account, "k1")); len(c.Upstream)+len(c.Attributes) > 0 {
			t.Error("the account at the provider is still there")
		}
	})
}

// M05: what the user's custom parameters left behind goes with the user: names, MACs, and the key that has the MAC in
// it. The user may come back, and gets a connection of their own.
func TestM05_ErasingAUserLeavesNoParameters(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		for _, u := range []string{"u1", "u2"} {
			must(t, db.RememberUser(ctx, account, u, vault.Sealed("sealed"), at))
			for _, parameters := range []string{"mac-a", "mac-b"} {
				c := aConnection(account, "key-"+u+parameters, "prov1")
				c.User, c.Parameters, c.State = u, parameters, broker.Revoked
				must(t, db.SwapConnection(ctx, c, 0))
				f := aFlow(account, "flow-"+u+parameters, "prov1")
				f.User, f.Parameters, f.SentNames, f.State = u, parameters, []string{"hd", "prompt"}, broker.FlowFailed
				must(t, db.CreateFlow(ctx, f, 50))
			}
		}
		must(t, db.EraseUser(ctx, account, "u1"))
		must(t, db.EraseUser(ctx, account, "u1"))
		for _, c := range got[[]broker.ConnectionView](t)(db.ConnectionViews(ctx, account, broker.ConnectionFilter{}, "", 10)) {
			if c.User == "u1" && (c.Parameters != "" || len(c.ParamNames) > 0 || strings.HasPrefix(c.Key, "key-")) {
				t.Errorf("of the erased user is left: %q, %q under %q", c.Parameters, c.ParamNames, c.Key)
			}
			if c.User == "u2" && (c.Parameters == "" || len(c.ParamNames) == 0 || !strings.HasPrefix(c.Key, "key-")) {
				t.Errorf("of another user went: %+v", c)
			}
		}
		for _, id := range []string{"flow-u1mac-a", "flow-u1mac-b"} {
			if f := got[broker.Flow](t)(db.FlowByID(ctx, id)); f.Parameters != "" || len(f.ParamNames)+len(f.SentNames) > 0 {
				t.Errorf("of the erased user's session is left: %q, %q, %q", f.Parameters, f.ParamNames, f.SentNames)
			}
		}
		if f := got[broker.Flow](t)(db.FlowByID(ctx, "flow-u2mac-a")); f.Parameters == "" || len(f.SentNames) != 2 {
			t.Errorf("of another user's session went: %+v", f)
		}
		again := aConnection(account, "key-u1mac-a", "prov1")
		again.ID, again.Parameters = "id-again", "mac-a"
		must(t, db.SwapConnection(ctx, again, 0))
	})
}
