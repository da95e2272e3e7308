package policy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/policy"
)

const account access.Account = "000000000000"

func noon() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a store of policies.
type memory struct {
	mu      sync.Mutex // guards what follows
	rows    map[string]policy.Row
	version int64
	err     error
	read    []string // the names that PoliciesSince has returned
}

func (m *memory) PolicyVersion(context.Context, access.Account) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version, m.err
}

func (m *memory) PoliciesSince(_ context.Context, a access.Account, version int64) ([]policy.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []policy.Row
	for _, name := range slices.Sorted(maps.Keys(m.rows)) {
		if r := m.rows[name]; r.Account == a && r.Version > version {
			out = append(out, r)
			m.read = append(m.read, name)
		}
	}
	return out, m.err
}

func (m *memory) put(name, text string) { m.write(policy.Row{Name: name, Text: text}) }

func (m *memory) write(r policy.Row) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version++
	r.Account, r.Version = account, m.version
	if m.rows == nil {
		m.rows = map[string]policy.Row{}
	}
	m.rows[r.Name] = r
}

func engine(t testing.TB, m *memory) *policy.Engine {
	t.Helper()
	e, err := policy.New(policy.Config{Store: m, Now: noon})
	must(t, err)
	return e
}

func caller(name string, roles []access.Role, workloads ...string) access.Caller {
	return access.Caller{Account: account, Principal: access.PrincipalID("prn-" + name), Name: name, Roles: roles, Workloads: workloads}
}

func agent(name string, workloads ...string) access.Caller {
	return caller(name, []access.Role{access.Agent}, workloads...)
}

func release(workload, provider string, scopes ...string) access.Facts {
	return access.Facts{Workload: workload, Provider: provider, Scopes: scopes, UserRef: "u1"}
}

// decide asks and expects the rule.
func decide(t *testing.T, e *policy.Engine, c access.Caller, a access.Action, f access.Facts, by string) access.Decision {
	t.Helper()
	d, err := e.Decide(t.Context(), c, a, f)
	must(t, err)
	if d.By != by {
		t.Errorf("%s by %s on %s/%s %q: got %s (allow %v, missing %q), want %s", a, c.Name, f.Workload, f.Provider, f.Scopes, d.By, d.Allow, d.Missing, by)
	}
	return d
}

const calendar = `permit (
  principal in Tabard::WorkloadIdentity::"calendar-agent",
  action in [Tabard::Action::"mint", Tabard::Action::"release"],
  resource
) when { ["read", "write"].containsAll(context.scopes) };`

func TestStory(t *testing.T) {
	m := &memory{}
	e := engine(t, m)
	bot := agent("bot", "calendar-*")
	const token = access.GetResourceOauth2Token
	d := decide(t, e, bot, token, release("calendar-agent", "google"), "default-deny")
	if want := "a policy that permits it, which an administrator writes: tabard allow calendar-agent google"; d.Missing != want {
		t.Errorf("missing: got %q, want %q", d.Missing, want)
	}
	// What the refusal tells an administrator to write permits what was asked for, and is safe to copy.
	for scope, want := range map[string]string{"read": "read", "https://a.example/b": "https://a.example/b", "a$(id)": "SCOPES", "a;b": "SCOPES", "a'b": "SCOPES", "a,b": "SCOPES"} {
		d = decide(t, e, bot, token, release("calendar-agent", "google", scope), "default-deny")
		if !strings.HasSuffix(d.Missing, "tabard allow calendar-agent google --scopes "+want) {
			t.Errorf("missing of %s: %q", scope, d.Missing)
		}
	}
	m.put("calendar", calendar)
	d = decide(t, e, bot, token, release("calendar-agent", "google", "read"), "policy:calendar")
	if diff := cmp.Diff(access.Decision{Allow: true, By: "policy:calendar", Policies: []string{"calendar"}}, d); diff != "" {
		t.Error(diff)
	}
	decide(t, e, bot, token, release("calendar-bot", "google", "read"), "default-deny")
	decide(t, e, agent("other", "mail-*"), token, release("calendar-agent", "google", "read"), "not-paired")
	decide(t, e, caller("boss", []access.Role{access.Admin}, "*"), token, release("calendar-agent", "google", "read"), "default-deny")
	d = decide(t, e, bot, token, release("calendar-agent", "google", "read", "delete", "admin", "delete"), "default-deny")
	if diff := cmp.Diff([]string{"delete", "admin"}, d.Beyond); diff != "" {
		t.Error(diff)
	}
	m.put("freeze", `forbid (principal, action, resource == Tabard::Provider::"google");`)
	d = decide(t, e, bot, token, release("calendar-agent", "google", "read"), "forbid:freeze")
	if d.Allow || d.Missing != "a change of policy freeze, which forbids it" || d.Beyond != nil {
		t.Errorf("got %+v", d)
	}
	d = decide(t, e, caller("r", []access.Role{access.Root}), token, release("calendar-agent", "google", "read"), "role:root")
	if diff := cmp.Diff([]string{"builtin:root"}, d.Policies); diff != "" {
		t.Error(diff)
	}
	m.write(policy.Row{Name: "freeze", Deleted: true})
	decide(t, e, bot, token, release("calendar-agent", "google", "read"), "policy:calendar")
	decide(t, e, caller("boss", []access.Role{access.Admin}), access.PutPolicy, access.Facts{}, "role:admin")
	decide(t, e, caller("eye", []access.Role{access.Auditor}), access.ListPolicies, access.Facts{}, "role:auditor")
	decide(t, e, caller("none", nil), access.RevokeToken, access.Facts{}, "any-principal")
}

// A05: naming a user without proof is a right of its own, which neither the group mint nor a policy for other minting
// gives, and which needs the workload identity's tag besides.
func TestA05_AssertingUsersIsAPermissionOfItsOwn(t *testing.T) {
	m := &memory{}
	e := engine(t, m)
	bot := agent("bot", "calendar-agent")
	tagged, plain := access.Facts{Workload: "calendar-agent", Assertable: true}, access.Facts{Workload: "calendar-agent"}
	decide(t, e, bot, access.GetWorkloadAccessTokenForUserID, tagged, "default-deny")
	m.put("mint", `permit (principal == Tabard::Principal::"bot", action in [Tabard::Action::"mint", Tabard::Action::"release", Tabard::Action::"describe"], resource);`)
	decide(t, e, bot, access.GetWorkloadAccessTokenForJWT, tagged, "policy:mint")
	decide(t, e, bot, access.GetWorkloadAccessTokenForUserID, tagged, "default-deny")
	m.put("assert", `permit (principal == Tabard::Principal::"bot", action == Tabard::Action::"GetWorkloadAccessTokenForUserId", resource == Tabard::WorkloadIdentity::"calendar-agent");`)
	decide(t, e, bot, access.GetWorkloadAccessTokenForUserID, tagged, "policy:assert")
	d := decide(t, e, bot, access.GetWorkloadAccessTokenForUserID, plain, "users-not-assertable")
	for _, want := range []string{"tabard tag add ARN tabard:assurance=asserted", "tabard workload get " + plain.Workload, "tabard allow " + plain.Workload + " PROVIDER --asserted-users"} {
		if !strings.Contains(d.Missing, want) {
			t.Errorf("missing %q lacks %q", d.Missing, want)
		}
	}
}

// B10: only the outermost actor counts. Whom a token came through gives nothing, and a policy cannot make it; a forbid
// may take because of it.
func TestB10_ThroughWidensNothing(t *testing.T) {
	m := &memory{}
	e := engine(t, m)
	m.put("calendar", calendar)
	m.put("through", `permit (principal, action, resource) when { context.through.contains("calendar-agent") };`)
	sub := agent("sub", "sub-agent")
	f := release("sub-agent", "google", "read")
	f.Through = []string{"calendar-agent"}
	decide(t, e, sub, access.GetResourceOauth2Token, f, "default-deny")
	for _, text := range []string{
		`context.through.contains("calendar-agent")`, `!(context["through"].isEmpty())`, `context has through`,
		`(if true then context else context).through.contains("x")`, `{"a": context.through} has a`, `[context.through].contains(["x"])`, `context == context`,
	} {
		if p := e.Check(`permit (principal == Tabard::Principal::"sub", action, resource) when { ` + text + ` };`); len(p) == 0 || p[0].Severity != policy.Error {
			t.Errorf("a permit when %s: got %v, want an error", text, p)
		}
	}
	m.put("sub", `permit (principal in Tabard::WorkloadIdentity::"sub-agent", action, resource);`)
	decide(t, e, sub, access.GetResourceOauth2Token, f, "policy:sub")
	m.put("indirect", `forbid (principal, action, resource) when { context.through.contains("calendar-agent") };`)
	decide(t, e, sub, access.GetResourceOauth2Token, f, "forbid:indirect")
	f.Through = nil
	decide(t, e, sub, access.GetResourceOauth2Token, f, "policy:sub")
}

// A principal is in a workload identity only while it acts for it: administering the workload identity is not that.
func TestPairingIsNotAdministration(t *testing.T) {
	m := &memory{}
	e := engine(t, m)
	m.put("wide", `permit (principal in Tabard::WorkloadIdentity::"w", action, resource);`)
	decide(t, e, agent("bot", "w"), access.GetResourceOauth2Token, release("w", "p"), "policy:wide")
	decide(t, e, agent("bot", "w"), access.DeleteWorkloadIdentity, access.Facts{Workload: "w"}, "default-deny")
	decide(t, e, agent("bot", "w"), access.CompleteResourceTokenAuth, access.Facts{Workload: "w"}, "default-deny")
	decide(t, e, agent("bot", "w"), access.ListDelegations, access.Facts{Workload: "w"}, "default-deny")
	m.put("all", `permit (principal, action, resource);`)
	decide(t, e, agent("bot", "w"), access.DeleteWorkloadIdentity, access.Facts{Workload: "w"}, "policy:all")
	decide(t, e, agent("bot", "w"), access.CompleteResourceTokenAuth, access.Facts{Workload: "w"}, "default-deny")
	decide(t, e, agent("bot", "w"), access.RotateRootKey, access.Facts{}, "default-deny")
	decide(t, e, agent("bot", "w"), access.CreateAccount, access.Facts{}, "default-deny")
}

// What each condition sees.
func TestContext(t *testing.T) {
	user := access.UserFacts{Issuer: "https://idp.example", Subject: "alice", Claims: `{"groups":["eng","ops"],"level":3,"staff":true,"deep":{"a":1},"none":[]}`}
	facts := access.Facts{
		Workload: "w", Provider: "p", Flow: "M2M", Scopes: []string{"a", "b"}, UserRef: "u1", Assertable: true,
		Unrecorded: access.Unrecorded{User: user, Vault: "v", Audience: "https://api", Through: []string{"x"}, Parameters: []string{"hd"}},
	}
	asserted := facts
	asserted.User, asserted.Asserted = access.UserFacts{}, true
	nobody := facts
	nobody.User, nobody.UserRef = access.UserFacts{}, ""
	for _, c := range []struct {
		condition string
		facts     access.Facts
		want      bool
	}{
		{`context.workload == "w" && context.provider like "p*" && context.vault == "v" && context.flow == "M2M" && context.audience == "https://api"`, facts, true},
		{`context.scopes == ["b", "a"] && context.assertable`, facts, true},
		{`context.time == datetime("2026-11-23T12:00:00Z") && context.time.toTime() < duration("13h")`, facts, true},
		{`context.user.kind == "verified" && context.user.issuer == "https://idp.example" && context.user.subject == "alice"`, facts, true},
		{`context.user.kind == "asserted" && context.user.issuer == "" && context.user.subject == ""`, asserted, true},
		{`context.user.kind == "none"`, nobody, true},
		{`context.user == Tabard::User::"u1"`, facts, true},
		{`context.user.hasTag("groups") && context.user.getTag("groups").contains("eng")`, facts, true},
		{`context.user.hasTag("groups") && context.user.getTag("groups").contains("hr")`, facts, false},
		{`context.user.hasTag("level") && context.user.getTag("level") == ["3"]`, facts, true},
		{`context.user.hasTag("staff") && context.user.getTag("staff").contains("true")`, facts, true},
		{`context.user.hasTag("deep")`, facts, false},
		{`context.user.hasTag("none") && context.user.getTag("none").isEmpty()`, facts, true},
		{`context.user.hasTag("groups")`, asserted, false},
		{`resource in Tabard::Vault::"v"`, facts, true},
		{`resource in Tabard::Vault::"default"`, facts, false},
		{`principal in Tabard::Role::"agent" && principal in Tabard::WorkloadIdentity::"w"`, facts, true},
		{`principal in Tabard::Role::"admin" || principal in Tabard::WorkloadIdentity::"x"`, facts, false},
		{`context.parameters == ["hd"]`, facts, true},
		{`context.parameters.contains("claims")`, facts, false},
		{`action in Tabard::Action::"release"`, facts, true},
	} {
		m := &memory{}
		e := engine(t, m)
		text := `permit (principal, action in Tabard::Action::"release", resource) when { ` + c.condition + ` };`
		for _, p := range e.Check(text) {
			if p.Severity == policy.Error {
				t.Errorf("%s: %s", c.condition, p.Message)
			}
		}
		m.put("x", text)
		d, err := e.Decide(t.Context(), agent("bot", "w"), access.GetResourceOauth2Token, c.facts)
		must(t, err)
		if d.Allow != c.want {
			t.Errorf("%s: got %v, want %v", c.condition, d.Allow, c.want)
		}
	}
	m := &memory{}
	m.put("x", `permit (principal, action, resource) when { context.user.kind == "verified" };`)
	facts.User.Claims = `{"a":`
	if _, err := engine(t, m).Decide(t.Context(), agent("bot", "w"), access.GetResourceOauth2Token, facts); fault.CodeOf(err) != fault.Internal {
		t.Errorf("claims that are no JSON: got %v, want internal", err)
	}
}

// What a stored policy cannot be read for is denied: a permit gives nothing, a forbid takes all it may have meant.
func TestUnreadablePoliciesDeny(t *testing.T) {
	bot, boss := agent("bot", "w"), caller("boss", []access.Role{access.Admin})
	f := release("w", "p", "a")
	for name, c := range map[string]struct{ text, release, put string }{
		"permit that does not parse": {`permit (principal, action, resource`, "policy:ok", "role:admin"},
		"permit of unknown word":     {`permit (principal, action, resource) when { context.tme };`, "policy:ok", "role:admin"},
		"no statement":               {`// nothing`, "policy:ok", "role:admin"},
		"forbid that does not parse": {`forbid (principal, action, resource`, "unreadable:bad", "unreadable:bad"},
		"too long":                   {`forbid (principal, action, resource);` + strings.Repeat(" ", policy.MaxText), "unreadable:bad", "unreadable:bad"},
		"forbid of unknown word": {
			`forbid (principal == Tabard::Principal::"bot", action, resource) when { context.tme };`, "unreadable:bad", "role:admin",
		},
		"forbid of unknown operation": {
			`forbid (principal, action == Tabard::Action::"GetOldThing", resource == Tabard::Provider::"p");`, "unreadable:bad", "role:admin",
		},
		"forbid of unknown operation elsewhere": {
			`forbid (principal, action == Tabard::Action::"GetOldThing", resource == Tabard::Provider::"q");`, "policy:ok", "role:admin",
		},
		"forbid of unknown entity type": {`forbid (principal, action, resource in Tabard::Region::"eu");`, "unreadable:bad", "unreadable:bad"},
		"forbid that overflows": {
			`forbid (principal in Tabard::Role::"agent", action, resource) when { 9223372036854775807 + 1 > 0 };`, "unreadable:bad", "role:admin",
		},
		"second statement": {`permit (principal, action, resource == Tabard::Provider::"zzz"); forbid (principal == Tabard::Principal::"bot", action, resource) when { context.tme };`, "unreadable:bad", "role:admin"},
	} {
		m := &memory{}
		var told []string
		e, err := policy.New(policy.Config{Store: m, Now: noon, Unreadable: func(a access.Account, p policy.Problem) { told = append(told, string(a)+" "+p.Policy) }})
		must(t, err)
		m.put("ok", `permit (principal == Tabard::Principal::"bot", action in Tabard::Action::"release", resource);`)
		m.put("bad", c.text)
		t.Run(name, func(t *testing.T) {
			decide(t, e, bot, access.GetResourceOauth2Token, f, c.release)
			decide(t, e, boss, access.PutPolicy, access.Facts{}, c.put)
			decide(t, e, caller("r", []access.Role{access.Root}), access.PutPolicy, access.Facts{}, "role:root")
			if name == "forbid that overflows" {
				return // it reads well
			}
			problems, err := e.Unreadable(t.Context(), account)
			must(t, err)
			if len(problems) == 0 || problems[0].Policy != "bad" || len(told) != len(problems) || told[0] != string(account)+" bad" {
				t.Errorf("problems %v, told %q", problems, told)
			}
		})
	}
}

// A reload reads what has changed, and no more; a store that goes back is read anew; without one nobody but root is
// served.
func TestReload(t *testing.T) {
	m := &memory{}
	for i := range 5 {
		m.put(fmt.Sprintf("p%d", i), fmt.Sprintf(`permit (principal == Tabard::Principal::"bot", action, resource == Tabard::Provider::"p%d");`, i))
	}
	e := engine(t, m)
	bot := agent("bot", "w")
	ask := func(provider, by string) {
		t.Helper()
		decide(t, e, bot, access.GetResourceOauth2Token, release("w", provider), by)
	}
	ask("p1", "policy:p1")
	ask("p2", "policy:p2")
	if len(m.read) != 5 {
		t.Errorf("read %q", m.read)
	}
	m.put("p2", `permit (principal == Tabard::Principal::"bot", action, resource == Tabard::Provider::"q");`)
	ask("p2", "default-deny")
	ask("q", "policy:p2")
	if diff := cmp.Diff([]string{"p2"}, m.read[5:]); diff != "" {
		t.Error(diff)
	}
	m.mu.Lock()
	m.version = 3
	maps.DeleteFunc(m.rows, func(_ string, r policy.Row) bool { return r.Version > 3 })
	m.mu.Unlock()
	ask("q", "default-deny")
	ask("p1", "policy:p1")
	m.err = errors.New("down")
	if _, err := e.Decide(t.Context(), bot, access.GetResourceOauth2Token, release("w", "p1")); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	decide(t, e, caller("r", []access.Role{access.Root}), access.PutPolicy, access.Facts{}, "role:root")
	m.err = nil
	other := bot
	other.Account = "111111111111"
	decide(t, e, other, access.GetResourceOauth2Token, release("w", "p1"), "default-deny")
}

func TestConcurrentReloads(t *testing.T) {
	m := &memory{}
	e := engine(t, m)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				if i == 0 {
					m.put("x", `permit (principal == Tabard::Principal::"bot", action, resource);`)
				}
				if _, err := e.Decide(t.Context(), agent("bot", "w"), access.GetResourceOauth2Token, release("w", fmt.Sprint(j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	decide(t, e, agent("bot", "w"), access.GetResourceOauth2Token, release("w", "p"), "policy:x")
}

func TestScopes(t *testing.T) {
	m := &memory{}
	e := engine(t, m)
	bot := agent("bot", "w")
	const token = access.GetResourceOauth2Token
	m.put("a", `permit (principal == Tabard::Principal::"bot", action, resource) when { ["a"].containsAll(context.scopes) };`)
	m.put("b", `permit (principal == Tabard::Principal::"bot", action, resource) when { ["b", "c"].containsAll(context.scopes) };`)
	decide(t, e, bot, token, release("w", "p", "b", "c"), "policy:b")
	d := decide(t, e, bot, token, release("w", "p", "a", "b"), "default-deny")
	if want := `one policy that permits the scopes ["a" "b"] together`; d.Missing != want || d.Beyond != nil {
		t.Errorf("got %+v, want %s", d, want)
	}
	d = decide(t, e, bot, token, release("w", "p", "b", "x", "c"), "default-deny")
	if diff := cmp.Diff([]string{"x"}, d.Beyond); diff != "" {
		t.Error(diff)
	}
	d = decide(t, e, bot, token, release("w", "p", "x"), "default-deny") // all of them are too much
	if diff := cmp.Diff([]string{"x"}, d.Beyond); diff != "" {
		t.Error(diff)
	}
	m.put("no-b", `forbid (principal, action, resource) when { context.scopes.contains("b") };`)
	d = decide(t, e, bot, token, release("w", "p", "b", "c"), "forbid:no-b")
	if diff := cmp.Diff([]string{"b"}, d.Beyond); diff != "" {
		t.Error(diff)
	}
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprint("s", i)
	}
	if d := decide(t, e, bot, token, release("w", "p", many...), "default-deny"); d.Beyond != nil {
		t.Errorf("500 scopes: got %d named, want none rather than some", len(d.Beyond))
	}
	// Not the scopes are at fault here, so none is named.
	other := agent("other", "w")
	if d := decide(t, e, other, token, release("w", "p", "a"), "default-deny"); d.Beyond != nil {
		t.Errorf("got %q beyond", d.Beyond)
	}
}
