package policy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/policy"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
)

// database is what each test gets a copy of.
var database storetest.Template

const house = access.Account("000000000000")

// desk is a Service on a database of its own, and its administrator.
type desk struct {
	*policy.Service
	db    *store.DB
	admin access.Caller
}

func newDesk(t *testing.T, change ...func(*policy.ServiceConfig)) *desk {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{SQLitePath: database.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := policy.New(policy.Config{Store: db})
	if err != nil {
		t.Fatal(err)
	}
	guard := access.NewGuard(access.Config{Log: db, Now: time.Now, Decider: engine})
	t.Cleanup(func() {
		guard.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	c := policy.ServiceConfig{Library: db, Engine: engine, Guard: guard, Now: time.Now}
	for _, f := range change {
		f(&c)
	}
	return &desk{policy.NewService(c), db, access.Caller{Account: house, Principal: "prn-admin", Name: "admin", Roles: []access.Role{access.Admin}}}
}

func (d *desk) hire(t *testing.T, name string, role access.Role, workloads ...string) {
	t.Helper()
	p := identity.Principal{Account: house, ID: access.PrincipalID("prn-" + name), Name: name, Roles: []access.Role{role}, Workloads: workloads, Created: time.Now()}
	if err := d.db.CreatePrincipal(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

func (d *desk) write(t *testing.T, name, text string) {
	t.Helper()
	if _, _, err := d.Put(t.Context(), d.admin, policy.Draft{Name: name, Text: text}); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestServiceRefusesWhoMayNot(t *testing.T) {
	d := newDesk(t)
	d.write(t, "p", `permit (principal == Tabard::Principal::"x", action in Tabard::Action::"mint", resource);`)
	ctx := t.Context()
	for _, c := range []access.Caller{{}, {Account: house, Principal: "prn-x", Name: "x", Roles: []access.Role{access.Agent}, Workloads: []string{"*"}}} {
		calls := map[string]error{}
		_, _, calls["Put"] = d.Put(ctx, c, policy.Draft{Name: "q", Text: "nonsense"})
		_, calls["Get"] = d.Get(ctx, c, "p")
		_, calls["Get of nothing"] = d.Get(ctx, c, "nothing")
		_, _, calls["List"] = d.List(ctx, c, policy.Filter{}, "", 0)
		calls["Delete"] = d.Delete(ctx, c, "p")
		_, calls["Validate"] = d.Validate(ctx, c, "nonsense")
		_, calls["Simulate"] = d.Simulate(ctx, c, policy.Case{Principal: "nobody", Action: access.PutPolicy}, nil)
		_, calls["Explain"] = d.Explain(ctx, c, "x-1")
		_, _, calls["WhoCan"] = d.WhoCan(ctx, c, policy.Case{Action: access.PutPolicy})
		for name, err := range calls {
			if !errors.Is(err, fault.Denied) {
				t.Errorf("%s by %q: got %v, want %s", name, c.Name, err, fault.Denied)
			}
		}
	}
	auditor := access.Caller{Account: house, Principal: "prn-a", Name: "a", Roles: []access.Role{access.Auditor}}
	if _, err := d.Get(ctx, auditor, "p"); err != nil {
		t.Errorf("an auditor reads: %v", err)
	}
	if err := d.Delete(ctx, auditor, "p"); !errors.Is(err, fault.Denied) {
		t.Errorf("an auditor deletes: %v", err)
	}
	if _, err := d.Get(ctx, access.Caller{Account: "111111111111", Principal: "prn-b", Name: "b", Roles: []access.Role{access.Admin}}, "p"); !errors.Is(err, fault.NotFound) {
		t.Errorf("another account's policy: %v, want %s", err, fault.NotFound)
	}
}

func TestServiceListsBuiltInsInOrder(t *testing.T) {
	d := newDesk(t)
	for _, n := range []string{"a", "builtio", "c", "z"} {
		d.write(t, n, `permit (principal == Tabard::Principal::"x", action in Tabard::Action::"mint", resource);`)
	}
	for limit := 1; limit <= 10; limit++ {
		var names []string
		for after := ""; ; {
			page, next, err := d.List(t.Context(), d.admin, policy.Filter{}, after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("a page of %d: %d, %v", limit, len(page), err)
			}
			for _, p := range page {
				names = append(names, p.Name)
			}
			if after = next; next == "" {
				break
			}
		}
		if want := "a builtin:admin builtin:any-principal builtin:auditor builtin:consent-app builtin:root builtio c z"; strings.Join(names, " ") != want {
			t.Errorf("in pages of %d: got %q, want %q", limit, names, want)
		}
	}
}

func TestServiceListsWhatMayConcern(t *testing.T) {
	d := newDesk(t)
	d.hire(t, "cal", access.Agent, "calendar-*")
	d.hire(t, "mail", access.Agent, "mail-agent")
	const one = `%s (principal %s, action in Tabard::Action::"release", resource);`
	for name, scope := range map[string]string{
		"of-cal": `== Tabard::Principal::"cal"`, "of-mail": `== Tabard::Principal::"mail"`, "of-agents": `in Tabard::Role::"agent"`,
		"of-calendar-eu": `in Tabard::WorkloadIdentity::"calendar-eu"`, "of-mail-agent": `in Tabard::WorkloadIdentity::"mail-agent"`,
	} {
		d.write(t, name, fmt.Sprintf(one, "permit", scope))
	}
	d.write(t, "of-all", fmt.Sprintf(one, "forbid", ""))
	for _, c := range []struct {
		filter policy.Filter
		want   string
	}{
		{policy.Filter{Principal: "cal"}, "builtin:any-principal of-agents of-all of-cal of-calendar-eu"},
		{policy.Filter{Principal: "mail"}, "builtin:any-principal of-agents of-all of-mail of-mail-agent"},
		{policy.Filter{Workload: "calendar-eu"}, "builtin:any-principal of-agents of-all of-cal of-calendar-eu"},
		{policy.Filter{Workload: "mail-agent"}, "builtin:any-principal of-agents of-all of-mail of-mail-agent"},
	} {
		page, _, err := d.List(t.Context(), d.admin, c.filter, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range page {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.filter, got, c.want)
		}
	}
	if _, _, err := d.List(t.Context(), d.admin, policy.Filter{Principal: "nobody"}, "", 0); !errors.Is(err, fault.NotFound) {
		t.Errorf("of nobody: %v, want %s", err, fault.NotFound)
	}
}

func TestServiceQuotaIsAsked(t *testing.T) {
	d := newDesk(t, func(c *policy.ServiceConfig) {
		c.Quota = func(context.Context, access.Account) (int64, error) { return 1, nil }
	})
	const text = `permit (principal == Tabard::Principal::"x", action in Tabard::Action::"mint", resource);`
	d.write(t, "one", text)
	d.write(t, "one", text)
	if _, _, err := d.Put(t.Context(), d.admin, policy.Draft{Name: "two", Text: text}); !errors.Is(err, fault.Limit) {
		t.Errorf("one too many: %v, want %s", err, fault.Limit)
	}
}

func TestServiceSimulates(t *testing.T) {
	d := newDesk(t)
	d.hire(t, "cal", access.Agent, "calendar-agent")
	d.hire(t, "many", access.Agent, "calendar-*")
	d.write(t, "cal", `permit (principal in Tabard::WorkloadIdentity::"calendar-agent", action in Tabard::Action::"release", resource) when { ["a"].containsAll(context.scopes) };`)
	ask := policy.Case{Principal: "cal", Action: access.GetResourceOauth2Token, Provider: "google", Scopes: []string{"a"}}
	if got, err := d.Simulate(t.Context(), d.admin, ask, nil); err != nil || got.By != "policy:cal" {
		t.Errorf("its one workload identity: %+v, %v", got, err)
	}
	if got, err := d.Simulate(t.Context(), d.admin, ask, []string{}); err != nil || got.Allow || got.By != "default-deny" {
		t.Errorf("with no policies: %+v, %v", got, err)
	}
	ask.Scopes = []string{"a", "b"}
	if got, err := d.Simulate(t.Context(), d.admin, ask, nil); err != nil || got.Allow || !slices.Equal(got.Beyond, []string{"b"}) {
		t.Errorf("a scope too many: %+v, %v", got, err)
	}
	if _, err := d.Simulate(t.Context(), d.admin, ask, []string{"permit"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a text with errors: %v", err)
	}
	ask.Principal = "many"
	if _, err := d.Simulate(t.Context(), d.admin, ask, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("which of many workload identities: %v, want %s", err, fault.Invalid)
	}
	ask.Action = "Fly"
	if _, err := d.Simulate(t.Context(), d.admin, ask, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("no operation: %v, want %s", err, fault.Invalid)
	}
	if err := d.db.SetPrincipalDisabled(t.Context(), house, "cal", true); err != nil {
		t.Fatal(err)
	}
	ask.Principal, ask.Action, ask.Scopes = "cal", access.GetResourceOauth2Token, nil
	if got, err := d.Simulate(t.Context(), d.admin, ask, nil); err != nil || got.By != "principal-disabled" {
		t.Errorf("a disabled principal: %+v, %v", got, err)
	}
}

func TestServiceExplainsOnlyDecisions(t *testing.T) {
	d := newDesk(t)
	if _, err := d.Explain(t.Context(), d.admin, "0a-0000000000000001"); !errors.Is(err, fault.NotFound) {
		t.Errorf("no such record: %v", err)
	}
	d.hire(t, "gone", access.Auditor)
	event := access.Record{Writer: "0a", Sequence: 1, Time: time.Now(), Account: house, Principal: "prn-gone", Name: "gone", Action: access.RefreshTokens, Rule: "event"}
	table := access.Record{Writer: "0a", Sequence: 2, Time: time.Now().Add(-time.Hour), Account: house, Principal: "prn-old", Name: "gone",
		Action: access.GetWorkloadAccessToken, Allow: true, Rule: "role:agent", Facts: access.Facts{Workload: "w"}}
	for _, r := range []*access.Record{&event, &table} {
		r.Seal([32]byte{})
		if err := d.db.Append(t.Context(), []access.Record{*r}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Explain(t.Context(), d.admin, event.ID()); !errors.Is(err, fault.Invalid) {
		t.Errorf("an event: %v, want %s", err, fault.Invalid)
	}
	x, err := d.Explain(t.Context(), d.admin, table.ID())
	if err != nil || x.Then.Allow || x.Now.Allow {
		t.Fatalf("another principal of the name: %+v, %v", x, err)
	}
	for _, want := range []string{"another than that of the record", "fixed rules of an earlier version"} {
		if !strings.Contains(strings.Join(x.Remarks, "\n"), want) {
			t.Errorf("remarks: got %q, want one that says %q", x.Remarks, want)
		}
	}
}

// M07: a question about a token that is handed on names who hands it on, and a record of one is answered with who did.
func TestM07_QuestionsNameTheSender(t *testing.T) {
	d := newDesk(t)
	d.hire(t, "booker", access.Agent, "booker")
	for _, text := range []string{`permit (principal == Tabard::Principal::"booker", action, resource);`, takes(`unless { context.from == "thief" }`)} {
		_, _, err := d.Put(t.Context(), d.admin, policy.Draft{Name: "b", Text: text})
		if !errors.Is(err, fault.Invalid) || fault.Public(err).Field != "text" || !strings.Contains(fault.Public(err).Msg, `when { context.from == "AGENT" }`) {
			t.Errorf("%s is stored: %v", text, err)
		}
	}
	d.write(t, "b", takes(`when { ["planner"].contains(context.from) }`))
	ask := policy.Case{Principal: "booker", Action: access.ExchangeToken, Workload: "booker", Audience: bookerARN, From: "planner"}
	if got, err := d.Simulate(t.Context(), d.admin, ask, nil); err != nil || got.By != "policy:b" {
		t.Errorf("from the planner: %+v, %v", got, err)
	}
	if _, err := d.Simulate(t.Context(), d.admin, ask, []string{takes("")}); !errors.Is(err, fault.Invalid) {
		t.Errorf("with a policy that names nobody: %v", err)
	}
	if got, _, err := d.WhoCan(t.Context(), d.admin, ask); err != nil || len(got) != 1 {
		t.Errorf("who can: %+v, %v", got, err)
	}
	ask.From = "thief"
	if got, err := d.Simulate(t.Context(), d.admin, ask, nil); err != nil || got.Allow {
		t.Errorf("from another: %+v, %v", got, err)
	}
	if got, _, err := d.WhoCan(t.Context(), d.admin, ask); err != nil || len(got) != 0 {
		t.Errorf("who can, from another: %+v, %v", got, err)
	}
	ask.From = ""
	if _, _, err := d.WhoCan(t.Context(), d.admin, ask); !errors.Is(err, fault.Invalid) || fault.Public(err).Field != "from" {
		t.Errorf("from nobody: %v", err)
	}
	ask.From, ask.Workload = "planner", "mailer"
	if _, _, err := d.WhoCan(t.Context(), d.admin, ask); !errors.Is(err, fault.Invalid) || fault.Public(err).Field != "audience" {
		t.Errorf("for another than the audience: %v", err)
	}
	ask.Audience, ask.Workload = "reports", "booker"
	if _, _, err := d.WhoCan(t.Context(), d.admin, ask); !errors.Is(err, fault.Invalid) || fault.Public(err).Field != "from" {
		t.Errorf("for a service: %v", err)
	}

	time.Sleep(2 * time.Millisecond) // the policy is older than the decision
	sequence := int64(0)
	for detail, allowed := range map[string]bool{"through planner, front": true, "through front, planner": false, "": false, "through planner-2": false} {
		sequence++
		r := access.Record{Writer: "0c", Sequence: sequence, Time: time.Now(), Account: house, Principal: "prn-booker", Name: "booker",
			Action: access.ExchangeToken, Allow: allowed, Rule: "policy:b", Facts: access.Facts{Workload: "booker", Resource: bookerARN, Detail: detail}}
		r.Seal([32]byte{})
		if err := d.db.Append(t.Context(), []access.Record{r}); err != nil {
			t.Fatal(err)
		}
		if x, err := d.Explain(t.Context(), d.admin, r.ID()); err != nil || x.Then.Allow != allowed || x.Now.Allow != allowed {
			t.Errorf("%q: then %+v, now %+v, %v", detail, x.Then, x.Now, err)
		}
	}
}
