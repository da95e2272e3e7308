package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/policy"
)

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// some returns some of the words, in any order.
func some[T any](r *rand.Rand, from ...T) []T {
	var out []T
	for _, i := range r.Perm(len(from))[:r.IntN(len(from)+1)] {
		out = append(out, from[i])
	}
	return out
}

func everyAction() []access.Action {
	actions := []access.Action{access.Authorize, access.Callback, access.CreateAccount, access.RotateRootKey, access.AssumeRole, "Unheard"}
	for a := range access.Rules() {
		actions = append(actions, a)
	}
	return actions
}

func randomCaller(r *rand.Rand) access.Caller {
	c := caller(pick(r, "p0", "p1", "p2", `q"uo\te`), some(r, access.Admin, access.Agent, access.ConsentApp, access.Auditor), some(r, "w0", "w*", "*2", "x")...)
	if r.IntN(12) == 0 {
		c.Roles = append(c.Roles, access.Root)
	}
	if r.IntN(30) == 0 {
		c.Principal = ""
	}
	return c
}

func randomFacts(r *rand.Rand) access.Facts {
	return access.Facts{
		Workload: pick(r, "", "w0", "w1", "v2", "x"), Provider: pick(r, "", "p0", "p1", "p2"), Flow: pick(r, "", "M2M"), Assertable: r.IntN(2) == 0,
		Scopes: some(r, "a", "b", "c"), UserRef: pick(r, "", "u"), Asserted: r.IntN(3) == 0,
		Unrecorded: access.Unrecorded{Vault: pick(r, "", "v"), Audience: pick(r, "", "aud"), Through: some(r, "w0", "w1"), Parameters: some(r, "hd", "claims"), From: pick(r, "", "", "w0", "w1")},
	}
}

// The built-in policies and those of an upgrade allow what the rule table did, except what it never allowed an agent in
// a released version.
func TestBuiltInAndUpgradePoliciesEqualTheTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var agents []access.Caller
	for _, name := range []string{"p0", "p1", "p2", `q"uo\te`} {
		agents = append(agents, agent(name))
	}
	upgraded, fresh := &memory{}, engine(t, &memory{})
	for _, row := range policy.UpgradePolicies(agents) {
		upgraded.write(row)
	}
	e := engine(t, upgraded)
	actions, allowed, fresher := everyAction(), 0, 0
	for range 10_000 {
		c, a, f := randomCaller(r), pick(r, actions...), randomFacts(r)
		want, err := access.Table{}.Decide(t.Context(), c, a, f)
		must(t, err)
		got, err := e.Decide(t.Context(), c, a, f)
		must(t, err)
		later := (a == access.ExchangeToken || a == access.GetWorkloadAccessTokenForDelegation) && want.By == "role:agent"
		if later {
			want.Allow = false
		}
		if c.Has(access.Agent) == false && strings.HasPrefix(got.By, "policy:") {
			t.Fatalf("%s by %+v: an upgrade policy gave rights to who is no agent", a, c)
		}
		if got.Allow != want.Allow {
			t.Fatalf("%s by %+v on %+v: got %+v, the table says %+v", a, c, f, got, want)
		}
		if want.By != got.By && want.By != "role:agent" {
			t.Fatalf("%s by %+v: decided by %s, the table's is %s", a, c, got.By, want.By)
		}
		if !want.Allow && !later && got.Missing != want.Missing {
			t.Fatalf("%s by %+v: got missing %q, the table's is %q", a, c, got.Missing, want.Missing)
		}
		if want.Allow {
			allowed++
		}
		unset, err := fresh.Decide(t.Context(), c, a, f)
		must(t, err)
		if unset.Allow != (want.Allow && want.By != "role:agent") {
			t.Fatalf("%s by %+v without upgrade policies: got %+v", a, c, unset)
		}
		if unset.Allow != want.Allow {
			fresher++
		}
	}
	if allowed < 1000 || fresher < 50 {
		t.Errorf("%d were allowed and %d are denied by default now: the cases are too one-sided", allowed, fresher)
	}
}

// randomPolicy writes a statement that can be used.
func randomPolicy(r *rand.Rand, e *policy.Engine) string {
	for {
		text := randomStatement(r)
		if !slices.ContainsFunc(e.Check(text), func(p policy.Problem) bool { return p.Severity == policy.Error }) {
			return text
		}
	}
}

func randomStatement(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString(pick(r, "permit", "permit", "permit", "forbid") + " (principal")
	b.WriteString(pick(r, "", ` == Tabard::Principal::"p0"`, ` == Tabard::Principal::"p1"`, ` in Tabard::Principal::"p2"`, ` in Tabard::Role::"agent"`,
		` in Tabard::Role::"admin"`, ` in Tabard::WorkloadIdentity::"w0"`, ` is Tabard::Principal in Tabard::WorkloadIdentity::"v2"`, ` is Tabard::Principal`))
	b.WriteString(", action" + pick(r, "", "", ` == Tabard::Action::"GetResourceOauth2Token"`, ` in Tabard::Action::"release"`, ` in Tabard::Action::"mint"`,
		` in [Tabard::Action::"mint", Tabard::Action::"GetResourceApiKey"]`, ` in Tabard::Action::"administer"`))
	b.WriteString(", resource" + pick(r, "", "", ` == Tabard::Provider::"p0"`, ` in Tabard::Vault::"default"`, ` is Tabard::Provider`, ` in Tabard::Provider::"p1"`,
		` == Tabard::WorkloadIdentity::"w0"`, ` is Tabard::Provider in Tabard::Vault::"v"`, ` == Tabard::Account::"000000000000"`, ` is Tabard::Audience`) + ")")
	for range r.IntN(3) {
		b.WriteString(pick(r, " when ", " unless ") + "{ " + pick(r, `["a", "b"].containsAll(context.scopes)`, `context.scopes.contains("c")`, `context.user.kind == "verified"`,
			`context.provider like "p*"`, `context.flow == "M2M" || context.assertable`, `context.time < datetime("2026-11-24")`, `resource in Tabard::Vault::"v"`,
			`principal in Tabard::Role::"auditor"`, `action == Tabard::Action::"GetResourceApiKey"`, `context.vault == "v" && context.workload != "w1" && context.audience == ""`,
			`context.from == ""`, `context.from == "w0"`, `["", "w0", "w1"].contains(context.from)`) + " }")
	}
	return b.String() + ";"
}

func decision(t *testing.T, e *policy.Engine, c access.Caller, a access.Action, f access.Facts) access.Decision {
	t.Helper()
	d, err := e.Decide(t.Context(), c, a, f)
	must(t, err)
	return d
}

// The index changes no answer, a permit takes no right away, a forbid gives none and wins, and order is nothing.
func TestRandomPolicies(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	actions := append(slices.Repeat([]access.Action{access.GetResourceOauth2Token, access.GetResourceAPIKey, access.GetWorkloadAccessToken}, 10), everyAction()...)
	decided, check := map[string]int{}, engine(t, &memory{})
	for range 60 {
		m, reversed, more, less := &memory{}, &memory{}, &memory{}, &memory{}
		var texts []string
		for range r.IntN(12) {
			text := randomPolicy(r, check)
			for r.IntN(4) == 0 {
				text += "\n" + randomPolicy(r, check)
			}
			texts = append(texts, text)
		}
		for i, text := range texts {
			name := fmt.Sprintf("n%02d", i)
			m.put(name, text)
			more.put(name, text)
			less.put(name, text)
		}
		for i := range texts {
			reversed.put(fmt.Sprintf("n%02d", len(texts)-1-i), texts[len(texts)-1-i])
		}
		more.put("more", strings.Replace(randomPolicy(r, check), "forbid", "permit", 1))
		less.put("less", strings.Replace(randomPolicy(r, check), "permit", "forbid", 1))
		e, er, em, el := engine(t, m), engine(t, reversed), engine(t, more), engine(t, less)
		if p, err := e.Unreadable(t.Context(), account); err != nil || len(p) > 0 {
			t.Fatalf("a generated policy is wrong: %v %v", p, err)
		}
		for range 80 {
			c, a, f := randomCaller(r), pick(r, actions...), randomFacts(r)
			d := decision(t, e, c, a, f)
			kind, _, _ := strings.Cut(d.By, ":")
			decided[kind]++
			whole, err := e.Unsliced(t.Context(), c, a, f)
			must(t, err)
			if diff := cmp.Diff(whole, d); diff != "" {
				t.Fatalf("%s by %+v on %+v: the index changes the answer (-all +sliced):\n%s\n%s", a, c, f, diff, strings.Join(texts, "\n"))
			}
			if diff := cmp.Diff(d, decision(t, er, c, a, f)); diff != "" {
				t.Fatalf("the order changes the answer: %s", diff)
			}
			if d.Allow && !decision(t, em, c, a, f).Allow {
				t.Fatal("a permit took a right away")
			}
			if !d.Allow && decision(t, el, c, a, f).Allow {
				t.Fatal("a forbid gave a right")
			}
		}
	}
	for _, kind := range []string{"policy", "forbid", "role", "default-deny"} {
		if decided[kind] < 100 {
			t.Errorf("%d were decided by %s: the cases are too one-sided: %v", decided[kind], kind, decided)
		}
	}
}

// No text makes Check or the engine panic, and what Check finds right is used: by the index as without it.
func FuzzPolicy(f *testing.F) {
	for _, s := range []string{calendar, `forbid (principal, action, resource);`, `permit (principal == ?principal, action, resource);`, `@id("x") permit (principal, action, resource) when { context.scopes.contains("a") };`,
		`permit (principal in Tabard::Role::"agent", action, resource is Tabard::Provider in Tabard::Vault::"default") unless { context.user.hasTag("a") };`, strings.Repeat("(", 200), `permit (principal, action in [], resource);`,
		`forbid (principal, action == Tabard::Action::"mint", resource == Tabard::Account::"000000000000"); permit (principal, action, resource);`, `permit (principal, action, resource) when { -9223372036854775808 - 1 < 0 };`} {
		f.Add(s, uint64(7))
	}
	e, err := policy.New(policy.Config{Now: noon})
	must(f, err)
	actions := everyAction()
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		wrong := slices.ContainsFunc(e.Check(text), func(p policy.Problem) bool { return p.Severity == policy.Error })
		m := &memory{}
		m.put("f", text)
		stored := engine(t, m)
		problems, err := stored.Unreadable(t.Context(), account)
		must(t, err)
		if wrong != (len(problems) > 0) {
			t.Fatalf("Check says wrong: %v; the engine says %v", wrong, problems)
		}
		if wrong {
			return
		}
		r := rand.New(rand.NewPCG(seed, 1))
		for range 20 {
			c, a, f := randomCaller(r), pick(r, actions...), randomFacts(r)
			got, want := decision(t, stored, c, a, f), access.Decision{}
			if strings.HasPrefix(got.By, "unreadable:") {
				continue // it failed to evaluate
			}
			want, err = stored.Unsliced(t.Context(), c, a, f)
			must(t, err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("the index changes the answer (-all +sliced):\n%s", diff)
			}
		}
	})
}
