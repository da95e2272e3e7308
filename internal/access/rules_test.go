package access_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// M06: every action of the source is in the list of all, once, and it has a rule exactly if the list of rules has it.
// So what is made of the lists leaves none out.
func TestM06_EveryActionIsListed(t *testing.T) {
	listed, ruled := map[access.Action]int{}, map[access.Action]bool{}
	for _, a := range access.Actions() {
		listed[a]++
	}
	for a := range access.Rules() {
		ruled[a] = true
	}
	file, err := parser.ParseFile(token.NewFileSet(), "roles.go", nil, 0)
	must(t, err)
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Action" {
			return true
		}
		n++
		a := access.Action(strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
		if listed[a] != 1 {
			t.Errorf("%s is listed %d times, and has to be once, in ruled or in unruled", a, listed[a])
		}
		if _, known := access.RuleOf(a); known != ruled[a] {
			t.Errorf("%s has a rule: %t, and is listed as having one: %t", a, known, ruled[a])
		}
		return true
	})
	if n != len(listed) || n < 106 {
		t.Errorf("the source has %d actions, %d are listed", n, len(listed))
	}
}

// The gate decides what the table does, or leaves open what only a caller with a right role could be allowed.
func TestGate(t *testing.T) {
	callers := []access.Caller{{}, {Account: account, Principal: "p"}}
	for _, r := range []access.Role{access.Root, access.Admin, access.Agent, access.ConsentApp, access.Auditor} {
		callers = append(callers, with(r, "w"), with(r, "v"))
	}
	open := 0
	for _, c := range callers {
		for a := range access.Rules() {
			for _, f := range []access.Facts{{Workload: "w"}, {Workload: "w", Assertable: true}, {}} {
				want, err := access.Table{}.Decide(t.Context(), c, a, f)
				must(t, err)
				d, decided := access.Gate(c, a, f)
				if decided && d.Allow != want.Allow {
					t.Errorf("%s by %v: the gate says %+v, the table %+v", a, c.Roles, d, want)
				}
				rule, _ := access.RuleOf(a)
				if !decided {
					open++
					paired := c.Has(rule.Paired) && c.PairedWith(f.Workload)
					if rule.Paired != "" && !paired && !(rule.Admin && c.Has(access.Admin)) {
						t.Errorf("%s by %v is open to policies", a, c.Roles)
					}
				}
				if got, want := access.ActsFor(c, a, f), rule.Paired != "" && f.Workload == "w" && c.PairedWith("w"); got != want {
					t.Errorf("%s by %v acts for %q: got %v, want %v", a, c.Roles, f.Workload, got, want)
				}
			}
		}
	}
	if open < 100 {
		t.Errorf("the gate leaves %d cases open", open)
	}
}

type fixed access.Decision

func (d fixed) Decide(context.Context, access.Caller, access.Action, access.Facts) (access.Decision, error) {
	return access.Decision(d), nil
}

// A refusal because of scopes names them, and what refuses them.
func TestRefusalsNameScopes(t *testing.T) {
	for by, want := range map[string]string{
		"default-deny":  `principal p is not allowed to perform GetResourceOauth2Token for workload identity w with the scopes ["b" "c"] of google: no policy allows them`,
		"forbid:freeze": `principal p is not allowed to perform GetResourceOauth2Token for workload identity w with the scopes ["b" "c"] of google: policy freeze forbids them`,
	} {
		log := &memory{}
		g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: fixed{By: by, Missing: "x", Beyond: []string{"b", "c"}}})
		defer g.Close()
		_, err := g.Check(t.Context(), with(access.Agent, "w"), access.GetResourceOauth2Token, access.Facts{Workload: "w", Provider: "google", Scopes: []string{"a", "b", "c"}})
		wantCode(t, by, err, fault.Denied)
		if got := fault.Public(err).Msg; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if r := log.last(); r.Allow || r.Rule != by || r.Facts.Outcome != "denied" {
			t.Errorf("recorded %+v", r)
		}
	}
}
