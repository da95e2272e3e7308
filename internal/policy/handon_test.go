package policy_test

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/policy"
)

const bookerARN = "arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/booker"

// handed are the facts where the booker would have the token of another agent.
func handed(from string) access.Facts {
	f := access.Facts{Workload: "booker"}
	f.Audience, f.From = bookerARN, from
	if from != "" {
		f.Through = []string{from, "front"}
	}
	return f
}

// takes writes a permit to take tokens over, with the conditions.
func takes(conditions string) string {
	return fmt.Sprintf("permit (principal in Tabard::WorkloadIdentity::\"booker\", action == Tabard::Action::\"ExchangeToken\", resource == Tabard::Audience::%q)\n%s;", bookerARN, conditions)
}

// whose are shapes of conditions: those that name a sender for certain, planner among them, and those that do not.
var whose = map[string]bool{
	`when { context.from == "planner" }`:                                                true,
	`when { "planner" == context.from }`:                                                true,
	`when { context["from"] == "planner" }`:                                             true,
	`when { ["planner", "triage"].contains(context.from) }`:                             true,
	`when { (context.from == "planner") }`:                                              true,
	`when { context has from && context.from == "planner" }`:                            true,
	`when { context.workload == "booker" && (context.from == "planner" && true) }`:      true,
	`when { context.workload == "booker" } when { context.from == "planner" }`:          true,
	`when { context.from == "planner" } unless { context.user.kind == "asserted" }`:     true,
	`when { context.from == "planner" && (context.from != "x" || context.assertable) }`: true,
	`when { context.from == "planner" && context.time > datetime("2026-01-01") }`:       true,
	`when { ["", "planner"].contains(context.from) }`:                                   true,
	``:                                       false,
	`when { context.workload == "planner" }`: false,
	`when { "planner" == context.workload }`: false,
	`when { ["planner"].contains(context.workload) }`: false,
	`when { true }`:                                                                                        false,
	`when { context.from != "" }`:                                                                          false,
	`when { context.from != "thief" }`:                                                                     false,
	`when { !(context.from == "thief") }`:                                                                  false,
	`when { !(context.from != "planner") }`:                                                                false,
	`when { context.from == "planner" || true }`:                                                           false,
	`when { context.from == "planner" || context.from == "triage" }`:                                       false,
	`when { context.workload == "booker" && (context.from == "planner" || true) }`:                         false,
	`when { context.from == "planner" || context.workload == "booker" }`:                                   false,
	`when { if context.from == "planner" then true else true }`:                                            false,
	`when { if true then context.from == "planner" else true }`:                                            false,
	`unless { context.from == "planner" }`:                                                                 false,
	`unless { context.from != "planner" }`:                                                                 false,
	`unless { ["planner"].contains(context.from) }`:                                                        false,
	`when { context.from like "*" }`:                                                                       false,
	`when { context.from like "pla*" }`:                                                                    false,
	`when { context.from like "planner" }`:                                                                 false,
	`when { context has from }`:                                                                            false,
	`when { context.from == context.from }`:                                                                false,
	`when { context.from == context.workload || context.from == context.from }`:                            false,
	`when { ["planner", context.from].contains(context.from) }`:                                            false,
	`when { [context.from].contains(context.from) }`:                                                       false,
	`when { [context.from].contains("planner") || true }`:                                                  false,
	`when { context.through.contains("planner") }`:                                                         false,
	`when { (context.from == "planner") == false || (context.from == "planner") }`:                         false,
	`when { (context.from == "planner") == (context.from == "planner") }`:                                  false,
	`when { ["planner"].containsAll([context.from]) || true }`:                                             false,
	`when { (if true then "planner" else "x") == context.from || true }`:                                   false,
	`when { context.workload == "planner" || "planner" == "planner" }`:                                     false,
	`when { context.user.kind == "verified" && context.audience like "*booker" }`:                          false,
	`when { context.from == "*" }`:                                                                         false,
	`when { ["planner", "p*"].contains(context.from) }`:                                                    false,
	`when { context.from == (if context.assertable then "planner" else context.from) }`:                    false,
	`when { {"from": "planner"}.from == "planner" }`:                                                       false,
	`when { context.from == "planner" } when { context.scopes.contains(context.flow) };` + "\n" + takesAny: false,
}

const takesAny = `permit (principal, action == Tabard::Action::"ExchangeToken", resource)`

func TestM07_APermitNamesWhoseTokens(t *testing.T) {
	e := engine(t, &memory{})
	for conditions, sound := range whose {
		var wrong []policy.Problem
		for _, p := range e.Check(takes(conditions)) {
			if p.Severity == policy.Error {
				wrong = append(wrong, p)
			}
		}
		if sound == (len(wrong) > 0) {
			t.Errorf("%q: got %+v, want it to be sound: %t", conditions, wrong, sound)
		}
		if conditions == "" && !strings.Contains(wrong[0].Message, `when { context.from == "AGENT" }`) {
			t.Errorf("the error does not say what to type: %q", wrong[0].Message)
		}
	}
}

// Whatever way a scope leaves to another agent's token is such a permit; what cannot be one needs no name.
func TestM07_WhatHandsOn(t *testing.T) {
	const exchange, external = `action == Tabard::Action::"ExchangeToken"`, `Tabard::Audience::"https://reports.example.com"`
	e := engine(t, &memory{})
	for scope, handsOn := range map[string]bool{
		`principal, action, resource`:                                                                 true,
		`principal == Tabard::Principal::"p", action, resource`:                                       true,
		`principal in Tabard::Role::"agent", action, resource`:                                        true,
		`principal in Tabard::Role::"admin", action, resource`:                                        true, // it may be an agent too
		`principal, action in Tabard::Action::"exchange", resource`:                                   true,
		`principal, ` + exchange + `, resource`:                                                       true,
		`principal, action in [Tabard::Action::"mint", Tabard::Action::"exchange"], resource`:         true,
		`principal, action in [Tabard::Action::"release", Tabard::Action::"ExchangeToken"], resource`: true,
		`principal, action, resource is Tabard::Audience`:                                             true,
		`principal, ` + exchange + `, resource in Tabard::Audience::"` + bookerARN + `"`:              true,
		`principal, action, resource is Tabard::Audience in Tabard::Audience::"` + bookerARN + `"`:    true,
		`principal in Tabard::Role::"root", action, resource`:                                         false,
		`principal, ` + exchange + `, resource == ` + external:                                        false,
		`principal, action, resource == ` + external:                                                  false,
		`principal, action, resource in ` + external:                                                  false,
		`principal, action, resource is Tabard::Audience in ` + external:                              false,
		`principal, action, resource is Tabard::Provider`:                                             false,
		`principal, action, resource == Tabard::Provider::"google"`:                                   false,
		`principal, action in Tabard::Action::"release", resource`:                                    false,
		`principal, action in [Tabard::Action::"mint", Tabard::Action::"report"], resource`:           false,
		`principal, action in [Tabard::Action::"administer", Tabard::Action::"read"], resource`:       false,
		`principal in Tabard::WorkloadIdentity::"booker", action in Tabard::Action::"mint", resource`: false,
		`principal, action == Tabard::Action::"GetResourceOauth2Token", resource is Tabard::Provider`: false,
		`principal, action, resource == Tabard::WorkloadIdentity::"booker"`:                           false,
		`principal, action, resource in Tabard::Vault::"default"`:                                     false,
	} {
		errors := func(text string) int {
			n := 0
			for _, p := range e.Check(text) {
				if p.Severity == policy.Error {
					n++
				}
			}
			return n
		}
		if got := errors("permit (" + scope + ");"); (got == 1) != handsOn || got > 1 {
			t.Errorf("permit (%s): %d errors", scope, got)
		}
		if got := errors("permit (" + scope + `) when { context.from == "" };`); got != 0 {
			t.Errorf("permit (%s) of nothing that is handed on: %d errors", scope, got)
		}
		if got := errors("forbid (" + scope + ");"); got != 0 {
			t.Errorf("forbid (%s): %d errors", scope, got)
		}
	}
}

// What is stored may be older than the rule, and Cedar may find it true: it hands nothing on, and does the rest.
func TestM07_OldPermitsHandNothingOn(t *testing.T) {
	booker := agent("b", "booker")
	for conditions, sound := range whose {
		m := &memory{}
		m.put("old", takes(conditions))
		e := engine(t, m)
		for _, from := range []string{"thief", "front", "booker", ""} {
			if d := decision(t, e, booker, access.ExchangeToken, handed(from)); d.Allow {
				t.Errorf("%q permits the booker a token from %q: %+v", conditions, from, d)
			}
		}
		d := decision(t, e, booker, access.ExchangeToken, handed("planner"))
		if sound && !d.Allow || d.Allow && !strings.Contains(conditions, "planner") {
			t.Errorf("%q, from the planner: %+v", conditions, d)
		}
	}

	m := &memory{}
	m.put("old", `permit (principal == Tabard::Principal::"b", action, resource);`)
	e := engine(t, m)
	d := decision(t, e, booker, access.ExchangeToken, handed("planner"))
	if d.Allow || d.By != "default-deny" || !strings.Contains(d.Missing, "policy old to name whose tokens") || !strings.Contains(d.Missing, "tabard allow booker --from AGENT") {
		t.Errorf("an old permit: %+v", d)
	}
	decide(t, e, booker, access.GetResourceOauth2Token, release("booker", "google", "read"), "policy:old")
	external := access.Facts{Workload: "booker"}
	external.Audience = "https://reports.example.com"
	decide(t, e, booker, access.ExchangeToken, external, "policy:old")
	problems, err := e.Unreadable(t.Context(), account)
	must(t, err)
	if len(problems) != 1 || problems[0].Severity != policy.Warning || problems[0].Policy != "old" || !strings.Contains(problems[0].Message, "Until then it permits no handing on") {
		t.Errorf("what is said of it: %+v", problems)
	}
	d = decision(t, engine(t, &memory{}), booker, access.ExchangeToken, handed("planner"))
	if !strings.Contains(d.Missing, "names the agent that handed the token on") || !strings.Contains(d.Missing, "tabard allow booker --from AGENT") {
		t.Errorf("without a policy: %+v", d)
	}
}

// The name of the one before the sender permits nothing; a forbid may read both, and one that fails forbids. A permit
// that fails permits nothing.
func TestM07_OnlyTheSenderCounts(t *testing.T) {
	booker := agent("b", "booker")
	ask := func(f access.Facts, policies ...string) access.Decision {
		m := &memory{}
		for i, text := range policies {
			m.put("p"+string(rune('0'+i)), text)
		}
		return decision(t, engine(t, m), booker, access.ExchangeToken, f)
	}
	planner := takes(`when { context.from == "planner" }`)
	for what, c := range map[string]struct {
		from     string
		policies []string
		allow    bool
	}{
		"the sender":                    {"planner", []string{planner}, true},
		"the one before":                {"planner", []string{takes(`when { context.from == "front" }`)}, false},
		"a forbid of the sender":        {"planner", []string{planner, `forbid (principal, action, resource) when { context.from like "pl*" };`}, false},
		"a forbid of the one before":    {"planner", []string{planner, `forbid (principal, action, resource) when { context.through.contains("front") };`}, false},
		"a forbid of another":           {"planner", []string{planner, `forbid (principal, action, resource) when { context.from == "triage" };`}, true},
		"a forbid that fails":           {"planner", []string{planner, `forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 && context.from == "x" };`}, false},
		"a permit that fails":           {"planner", []string{takes(`when { context.from == "planner" && 9223372036854775807 + 1 > 0 }`)}, false},
		"a failing permit and another":  {"planner", []string{takes(`when { 9223372036854775807 + 1 > 0 && context.from == "planner" }`), planner}, true},
		"for somebody else":             {"planner", []string{strings.ReplaceAll(planner, "booker", "mailer")}, false},
		"a wide one, and the named one": {"triage", []string{planner, takesAny + ";"}, false},
	} {
		if d := ask(handed(c.from), c.policies...); d.Allow != c.allow {
			t.Errorf("%s: %+v", what, d)
		}
	}
	f := handed("planner")
	f.Audience = "" // whatever the audience is called, a sender makes it handing on
	if d := ask(f, `permit (principal, action, resource);`); d.Allow {
		t.Errorf("by the sender alone: %+v", d)
	}
}

// No built-in and no upgraded policy hands anything on.
func TestM07_NothingBuiltInHandsOn(t *testing.T) {
	m := &memory{}
	for _, row := range policy.UpgradePolicies([]access.Caller{agent("b", "booker")}) {
		m.write(row)
	}
	e := engine(t, m)
	roles := []access.Role{access.Admin, access.Agent, access.ConsentApp, access.Auditor}
	if d := decision(t, e, caller("b", roles, "*"), access.ExchangeToken, handed("planner")); d.Allow {
		t.Errorf("got %+v", d)
	}
	if problems, err := e.Unreadable(t.Context(), account); err != nil || len(problems) > 0 {
		t.Errorf("got %v, %v", problems, err)
	}
	if slices.ContainsFunc(e.BuiltIn(), func(r policy.Row) bool { return strings.Contains(r.Text, "xchange") }) {
		t.Error("a built-in policy names the exchange")
	}
}

// The schema and the rule table know the same actions, or no server starts.
func TestM06_SchemaAndTableAreComplete(t *testing.T) {
	e := engine(t, &memory{})
	rules := func(change func(access.Action) bool, more ...access.Action) iter.Seq2[access.Action, access.Rule] {
		return func(yield func(access.Action, access.Rule) bool) {
			for a, r := range access.Rules() {
				if change(a) && !yield(a, r) {
					return
				}
			}
			for _, a := range more {
				yield(a, access.Rule{})
			}
		}
	}
	all := func(access.Action) bool { return true }
	must(t, e.Complete(rules(all)))
	if err := e.Complete(rules(func(a access.Action) bool { return a != access.ListVendors })); err == nil {
		t.Error("an action that only the schema has")
	}
	if err := e.Complete(rules(func(a access.Action) bool { return a != access.ListVendors }, "Fly")); err == nil || !strings.Contains(err.Error(), "Fly") {
		t.Errorf("an action that only the table has: %v", err)
	}
}
