package policy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/policy"
)

func TestCheck(t *testing.T) {
	e := engine(t, &memory{})
	for _, c := range []struct {
		text, want string // want: severity, line:column and a part of the message; "" for nothing
	}{
		{calendar, ""},
		{`permit (principal == Tabard::Principal::"bot", action in Tabard::Action::"release", resource == Tabard::Provider::"google");`, ""},
		{`forbid (principal, action, resource);`, ""},
		{"permit (principal,\n  action resource);", `ERROR 2:18 it cannot be read: found resource instead of ,`},
		{"permit (principal, action, resource) when { context.scopes.contains(3) };", `ERROR 1:1 the types Long and String are not compatible`},
		{"\n\n  forbid (principal, action, resource) when { context.tme };", "ERROR 3:3 attribute `tme` in context not found"},
		{`permit (principal == Tabard::Principal::"b", action == Tabard::Action::"RotateRootKey", resource);`, "ERROR 1:1 unrecognized action `Tabard::Action::\"RotateRootKey\"`"},
		{`permit (principal == Tabard::Role::"agent", action, resource);`, `ERROR 1:1 no operation that it names`},
		{`permit (principal == Tabard::Principal::"b", action == Tabard::Action::"GetResourceOauth2Token", resource == Tabard::Audience::"b");`, `ERROR 1:1 no operation that it names`},
		{`permit (principal == User::"b", action, resource);`, "ERROR 1:1 unrecognized entity type `User`"},
		{`permit (principal, action, resource) when { context.user.getTag("x").contains("y") };`, `ERROR 1:1`},
		{"", `ERROR 0:0 the text holds no policy`},
		{strings.Repeat(`forbid (principal, action, resource);`, 101), `ERROR 0:0 the text holds 101 statements`},
		{strings.Repeat(" ", policy.MaxText+1), `ERROR 0:0 the policy has 32769 bytes`},
		{`permit (principal, action == Tabard::Action::"GetResourceOauth2Token", resource);`, `WARNING 1:1 it names no principal`},
		{`permit (principal == Tabard::Principal::"b", action, resource) when { context.from == "" };`, `WARNING 1:1 it names no action`},
		{`permit (principal == Tabard::Principal::"b", action, resource);`, `ERROR 1:1 it permits ExchangeToken for a workload identity and does not say whose tokens`},
		{`permit (principal == Tabard::Principal::"b", action in Tabard::Action::"administer", resource);`, `WARNING 1:1 the group administer includes writing policies`},
		{`permit (principal == Tabard::Principal::"b", action == Tabard::Action::"PutPolicy", resource);`, `WARNING 1:1 who may perform PutPolicy`},
		{`permit (principal in Tabard::Role::"agent", action == Tabard::Action::"CreatePrincipal", resource);`, `WARNING 1:1 it gives an administrator's operation to every agent`},
		{`permit (principal in Tabard::Role::"agnet", action in Tabard::Action::"release", resource);`, `WARNING 1:1 there is no role agnet`},
		{`permit (principal in Tabard::Role::"root", action in Tabard::Action::"release", resource);`, `WARNING 1:1 root may do everything already`},
		{`forbid (principal in Tabard::Role::"root", action in Tabard::Action::"release", resource);`, `WARNING 1:1 nothing can be forbidden to root`},
		{`permit (principal in Tabard::Role::"admin", action in Tabard::Action::"release", resource);`, `WARNING 1:1 it permits nothing of ["GetResourceApiKey" "GetResourceOauth2Token"] to a principal that has no other role`},
		{`permit (principal in Tabard::WorkloadIdentity::"w", action == Tabard::Action::"UpdateWorkloadIdentity", resource);`, `WARNING 1:1 it permits nothing of ["UpdateWorkloadIdentity"]: no agent acts`},
		{`forbid (principal in Tabard::WorkloadIdentity::"w", action == Tabard::Action::"RevokeToken", resource);`, `WARNING 1:1 it forbids nothing of ["RevokeToken"]`},
		{`permit (principal in Tabard::Role::"admin", action == Tabard::Action::"EndDelegation", resource);`, ``},
	} {
		var got []string
		for _, p := range e.Check(c.text) {
			got = append(got, fmt.Sprintf("%s %d:%d %s", p.Severity, p.Line, p.Column, p.Message))
		}
		switch {
		case c.want == "" && len(got) > 0, c.want != "" && (len(got) == 0 || !strings.HasPrefix(got[0], c.want)):
			t.Errorf("%.90s:\ngot  %q\nwant %q", c.text, got, c.want)
		}
		if len(got) > 3 {
			t.Errorf("%.90s: one fault is told %d times: %q", c.text, len(got), got)
		}
	}
}

// The schema knows the operations of the rule table and no other; those of agents are in no group of the roles.
func TestM06_SchemaAgreesWithTheTable(t *testing.T) {
	e := engine(t, &memory{})
	groups := []string{"mint", "assert", "release", "report", "describe", "exchange", "consent", "read", "administer", "holder"}
	engines := map[string]*policy.Engine{}
	for _, g := range groups {
		m := &memory{}
		m.put("x", fmt.Sprintf(`permit (principal, action in Tabard::Action::"%s", resource);`, g))
		engines[g] = engine(t, m)
	}
	may := func(group string, a access.Action) bool {
		for _, c := range []access.Caller{caller("p", nil), caller("p", []access.Role{access.Agent, access.ConsentApp}, "w")} {
			if d := decision(t, engines[group], c, a, access.Facts{Workload: "w", Assertable: true}); d.By == "policy:x" || len(d.Policies) == 2 {
				return true
			}
		}
		return false
	}
	for a, rule := range access.Rules() {
		if p := e.Check(fmt.Sprintf(`forbid (principal, action == Tabard::Action::"%s", resource);`, a)); len(p) > 0 {
			t.Errorf("%s: %v", a, p)
		}
		var in []string
		for _, g := range groups {
			if may(g, a) {
				in = append(in, g)
			}
		}
		var want []string
		switch {
		case rule.Anyone:
			want = []string{"holder"}
		case rule.Paired == access.ConsentApp:
			want = []string{"consent"}
		case rule.Admin && rule.Auditor:
			want = []string{"read"}
		case rule.Admin:
			want = []string{"administer"}
		case rule.AssertsUser:
			want = []string{"assert"}
		default:
			if len(in) != 1 || in[0] == "read" || in[0] == "administer" || in[0] == "holder" || in[0] == "consent" || in[0] == "assert" {
				t.Errorf("%s is in the groups %q, want one of an agent's", a, in)
			}
			continue
		}
		if diff := cmp.Diff(want, in); diff != "" {
			t.Errorf("%s: groups (-want +got):\n%s", a, diff)
		}
	}
	for _, a := range access.Actions() {
		if _, ruled := access.RuleOf(a); ruled {
			continue
		}
		if p := e.Check(fmt.Sprintf(`forbid (principal, action == Tabard::Action::"%s", resource);`, a)); len(p) == 0 || p[0].Severity != policy.Error {
			t.Errorf("the schema has %s, which policies do not decide", a)
		}
	}
}

// The built-in policies, as a reviewer and `tabard policy list` see them. UPDATE=1 go test writes the file anew.
func TestBuiltIn(t *testing.T) {
	var b strings.Builder
	for _, row := range engine(t, &memory{}).BuiltIn() {
		if row.Source != policy.BuiltIn {
			t.Errorf("%s has the source %s", row.Name, row.Source)
		}
		fmt.Fprintf(&b, "// %s: %s\n%s\n", row.Name, row.Description, row.Text)
	}
	golden := filepath.Join("testdata", "builtin.cedar")
	if os.Getenv("UPDATE") != "" {
		must(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestUpgradePolicies(t *testing.T) {
	long := strings.Repeat("x", 125)
	rows := policy.UpgradePolicies([]access.Caller{
		agent("team/bot", "w"), agent(`quo"te`), caller("boss", []access.Role{access.Admin}), agent(long + "1"), agent(long + "2"),
	})
	names, e := map[string]bool{}, engine(t, &memory{})
	allowed := regexp.MustCompile(`^[A-Za-z0-9_.:@-]{1,128}$`)
	for _, r := range rows {
		names[r.Name] = true
		if r.Name != `upgrade:quo"te` && !allowed.MatchString(r.Name) {
			t.Errorf("%q is no name of a policy", r.Name)
		}
		if p := e.Check(r.Text); len(p) > 0 || r.Source != policy.Upgrade || r.Account != account || r.Description == "" {
			t.Errorf("%+v: %v", r, p)
		}
	}
	if len(rows) != 4 || len(names) != 4 || rows[0].Name != "upgrade:team:bot" || !strings.Contains(rows[1].Text, `Tabard::Principal::"quo\"te"`) {
		t.Errorf("got %v: %+v", names, rows)
	}
}

func TestQuestions(t *testing.T) {
	m := &memory{}
	e := engine(t, m)
	m.put("calendar", calendar)
	m.put("late", `permit (principal == Tabard::Principal::"night", action, resource) when { context.time > datetime("2026-11-24") };`)
	q := policy.Question{Caller: agent("night", "w"), Action: access.GetResourceOauth2Token, Facts: release("w", "google", "read")}
	d, problems, err := e.Explain(t.Context(), q)
	must(t, err)
	if d.Allow || len(problems) > 0 {
		t.Errorf("by day: got %+v, %v", d, problems)
	}
	q.Time = noon().AddDate(0, 0, 1)
	if d, _, err := e.Explain(t.Context(), q); err != nil || d.By != "policy:late" {
		t.Errorf("the day after: got %+v, %v", d, err)
	}
	rows := []policy.Row{{Name: "tried", Text: `permit (principal == Tabard::Principal::"night", action in Tabard::Action::"release", resource);`}, {Name: "wrong", Text: `permit (`},
		{Name: "over", Text: `permit (principal, action in Tabard::Action::"release", resource) when { 9223372036854775807 + 1 > 0 };`}}
	d, problems, err = e.DecideWith(t.Context(), rows, policy.Question{Caller: q.Caller, Action: q.Action, Facts: q.Facts})
	must(t, err)
	if d.By != "policy:tried" || len(problems) != 2 || problems[0].Policy != "over" || problems[1].Policy != "wrong" {
		t.Errorf("with rows: got %+v, %v", d, problems)
	}
	d, _, err = e.DecideWith(t.Context(), nil, policy.Question{Caller: caller("r", []access.Role{access.Root}), Action: access.CreateAccount})
	if err != nil || d.By != "role:root" {
		t.Errorf("root: got %+v, %v", d, err)
	}
	callers := []access.Caller{
		agent("a", "mail-*"), agent("b", "calendar-*"), caller("boss", []access.Role{access.Admin}, "*"), caller("r", []access.Role{access.Root}), agent("night", "*"),
	}
	var got []string
	holders, err := e.WhoCan(t.Context(), callers, policy.Question{Action: access.GetResourceOauth2Token, Facts: release("calendar-agent", "google", "read", "delete")})
	must(t, err)
	for _, h := range holders {
		got = append(got, fmt.Sprintf("%s %v %v", h.Caller.Name, h.Decision.Allow, h.Decision.Beyond))
	}
	if diff := cmp.Diff([]string{"b false [delete]", "r true []", "night false [delete]"}, got); diff != "" {
		t.Error(diff)
	}
}

// Each example of the document can be used, and says what it is meant to.
func TestDocumentedExamples(t *testing.T) {
	doc, err := os.ReadFile("../../docs/policy.md")
	must(t, err)
	e := engine(t, &memory{})
	examples := regexp.MustCompile("(?s)```cedar\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(examples) < 10 {
		t.Fatalf("the document has %d examples", len(examples))
	}
	for _, x := range examples {
		for _, p := range e.Check(x[1]) {
			t.Errorf("%s\n%+v", x[1], p)
		}
	}
	if !strings.Contains(string(doc), strings.TrimSpace(policy.Schema()[strings.Index(policy.Schema(), "  type Request"):strings.Index(policy.Schema(), "  // What agents do")])) {
		t.Error("the document shows another context than the schema has")
	}
}
