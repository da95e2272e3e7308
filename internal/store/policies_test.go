package store_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/policy"
	"github.com/tabard-id/tabard/internal/store"
)

func aPolicy(a access.Account, name string) policy.Row {
	return policy.Row{
		Account: a, Name: name, Text: "permit (principal, action, resource); // " + name, Description: "käse", Source: policy.Created,
		CreatedBy: "ada", Created: at, Updated: at,
	}
}

func TestPoliciesAreVersioned(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		wantEqual(t, "version before the first write", got[int64](t)(db.PolicyVersion(ctx, account)), int64(0))
		first := got[policy.Row](t)(db.PutPolicy(ctx, aPolicy(account, "b"), 0, 10))
		want := aPolicy(account, "b")
		want.Version = 1
		wantEqual(t, "first", first, want)
		wantEqual(t, "read", got[policy.Row](t)(db.Policy(ctx, account, "b")), want)
		got[policy.Row](t)(db.PutPolicy(ctx, aPolicy(account, "a"), 0, 10))
		got[policy.Row](t)(db.PutPolicy(ctx, aPolicy(other, "b"), 0, 10))

		again := aPolicy(account, "b")
		again.Text, again.CreatedBy, again.Created, again.Updated = "forbid", "bob", at.Add(time.Hour), at.Add(time.Hour)
		_, err := db.PutPolicy(ctx, again, 2, 10)
		wantCode(t, "another's version", err, fault.Conflict)
		second := got[policy.Row](t)(db.PutPolicy(ctx, again, 1, 10))
		want.Text, want.Version, want.Updated = "forbid", 3, at.Add(time.Hour) // its creator stays
		wantEqual(t, "second", second, want)
		wantEqual(t, "version after three writes", got[int64](t)(db.PolicyVersion(ctx, account)), int64(3))
		wantEqual(t, "version of the other account", got[int64](t)(db.PolicyVersion(ctx, other)), int64(1))

		must(t, db.DeletePolicy(ctx, account, "a", "eve", at.Add(2*time.Hour)))
		wantCode(t, "deleted twice", db.DeletePolicy(ctx, account, "a", "eve", at), fault.NotFound)
		_, err = db.Policy(ctx, account, "a")
		wantCode(t, "deleted", err, fault.NotFound)
		wantEqual(t, "list", got[[]policy.Row](t)(db.Policies(ctx, account, "", 10)), []policy.Row{want})
		wantEqual(t, "list after the last", len(got[[]policy.Row](t)(db.Policies(ctx, account, "b", 10))), 0)

		since := got[[]policy.Row](t)(db.PoliciesSince(ctx, account, 3))
		if len(since) != 1 || since[0].Name != "a" || !since[0].Deleted || since[0].Version != 4 || since[0].Text != "" {
			t.Errorf("since 3: got %+v, want the deletion of a", since)
		}
		_, err = db.PutPolicy(ctx, aPolicy(account, "a"), 2, 10)
		wantCode(t, "a version that was deleted", err, fault.Conflict)
		back := got[policy.Row](t)(db.PutPolicy(ctx, aPolicy(account, "a"), 0, 10))
		wantEqual(t, "version of what came back", back.Version, int64(5))
	})
}

func TestPoliciesAsTheyWere(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p := aPolicy(account, "a")
		for hour, text := range []string{"one", "two"} {
			p.Text, p.Updated = text, at.Add(time.Duration(hour)*time.Hour)
			got[policy.Row](t)(db.PutPolicy(ctx, p, 0, 10))
		}
		must(t, db.DeletePolicy(ctx, account, "a", "eve", at.Add(2*time.Hour)))
		for hour, want := range map[time.Duration]string{-time.Minute: "", 0: "one", 59 * time.Minute: "one", time.Hour: "two", 2 * time.Hour: "", 9 * time.Hour: ""} {
			text := ""
			for _, row := range got[[]policy.Row](t)(db.PoliciesAt(ctx, account, at.Add(hour))) {
				text += row.Text
			}
			wantEqual(t, fmt.Sprint("text after ", hour), text, want)
		}
		wantEqual(t, "of another account", len(got[[]policy.Row](t)(db.PoliciesAt(ctx, other, at))), 0)
		wantEqual(t, "writes around the second", got[int64](t)(db.PolicyWrites(ctx, account, at.Add(time.Minute), at.Add(time.Hour))), int64(1))
	})
}

func TestPoliciesRace(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		got[policy.Row](t)(db.PutPolicy(ctx, aPolicy(account, "p"), 0, 10))
		won := race(t, 8, fault.Conflict, func(int) error {
			_, err := db.PutPolicy(ctx, aPolicy(account, "p"), 1, 10)
			return err
		})
		wantEqual(t, "replacements of version 1", won, 1)
		won = race(t, 8, fault.Limit, func(i int) error {
			_, err := db.PutPolicy(ctx, aPolicy(account, fmt.Sprint("q", i)), 0, 4)
			return err
		})
		wantEqual(t, "new ones below the quota", won, 3)
		wantEqual(t, "versions", got[int64](t)(db.PolicyVersion(ctx, account)), int64(5))
	})
}

func TestPolicyUpgradeIsDoneOnce(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		wantEqual(t, "pending in a new database", len(got[[]access.Account](t)(db.PendingUpgrades(ctx))), 0)
		wantCode(t, "an account that is not pending", db.FinishUpgrade(ctx, account, []policy.Row{aPolicy(account, "upgrade:x")}, at), fault.Conflict)
		_, err := db.Policy(ctx, account, "upgrade:x")
		wantCode(t, "its policy", err, fault.NotFound)
	})
}

// The migration marks the accounts that there are, and no other: an account that comes later has no rights to keep.
func TestPolicyMigrationMarksOlderAccounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old.db")
	old, err := sql.Open("sqlite", path)
	must(t, err)
	defer old.Close()
	for _, step := range []string{"0001_first.sql", "", "0012_policies.sql"} {
		text := "INSERT INTO principals (account, id, name, roles, workloads, disabled, created) VALUES ('111111111111', 'p', 'agent', '', '', 0, 0), ('111111111111', 'q', 'other', '', '', 0, 0)"
		if step != "" {
			doc, err := os.ReadFile(filepath.Join("migrations", "sqlite", step))
			must(t, err)
			text = string(doc)
		}
		_, err := old.ExecContext(t.Context(), text)
		must(t, err)
	}
	var accounts string
	must(t, old.QueryRowContext(t.Context(), "SELECT group_concat(account || ' ' || done) FROM policy_upgrades").Scan(&accounts))
	wantEqual(t, "accounts to upgrade", accounts, "111111111111 0")
}

func TestPoliciesPopulationAndRecords(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		must(t, db.CreatePrincipal(ctx, aPrincipal(account, "p1", "calendar")))
		must(t, db.CreatePrincipal(ctx, aPrincipal(account, "p2", "later")))
		must(t, db.SetPrincipalDisabled(ctx, account, "later", true))
		m := got[policy.Member](t)(db.Member(ctx, account, "calendar"))
		if m.Account != account || m.Principal != "p1" || m.Disabled || !m.Has(access.Agent) || !m.PairedWith("calendar") {
			t.Errorf("member: got %+v", m)
		}
		_, err := db.Member(ctx, other, "calendar")
		wantCode(t, "of another account", err, fault.NotFound)
		all := got[[]policy.Member](t)(db.Members(ctx, account, "calendar", 10))
		if len(all) != 1 || all[0].Name != "later" || !all[0].Disabled {
			t.Errorf("members: got %+v", all)
		}
		w := aWorkload(account, "w", "helpdesk")
		w.Tags = map[string]string{"tabard:assurance": "asserted"}
		must(t, db.CreateWorkload(ctx, w))
		for name, want := range map[string]bool{"helpdesk": true, "nobody": false} {
			wantEqual(t, name, got[bool](t)(db.AssertsUsers(ctx, account, name)), want)
		}

		r := access.Record{Writer: "0a1b", Sequence: 7, Time: at, Account: account, Principal: "p1", Name: "calendar", Action: access.PutPolicy, Rule: "role:root"}
		r.Seal([32]byte{})
		must(t, db.Append(ctx, []access.Record{r}))
		wantEqual(t, "record", got[access.Record](t)(db.AuditRecord(ctx, account, r.ID())), r)
		for _, id := range []string{"", "0a1b", "0a1b-", "0a1b-7", "0a1b-0000000000000008", r.ID() + "00"} {
			_, err := db.AuditRecord(ctx, account, id)
			wantCode(t, "record "+id, err, fault.NotFound)
		}
		_, err = db.AuditRecord(ctx, other, r.ID())
		wantCode(t, "another account's record", err, fault.NotFound)
	})
}
