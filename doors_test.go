package tabard_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// doors are the names that open a workload access token, each with the functions that may say it, and why.
func doors() map[string]map[string]string {
	const door, itself = "the door", "it is that"
	return map[string]map[string]string{
		"OpenServer(RingTokens)": {"internal/identity.openToken": door},
		"RingTokens": {
			"internal/identity.openToken": door, "internal/identity.mint": "seals one", "internal/daemon.ringOverlaps": "how long its keys stay",
			"internal/vault.": itself, "internal/vault.rotates": itself, "internal/vault.purposes": itself,
		},
		"decodeToken":     {"internal/identity.openToken": door},
		"decodeTokenBody": {"internal/identity.openToken": door},
		"openToken":       {"internal/identity.Open": "every operation of its agent", "internal/identity.openHandedOn": "who takes one over"},
		"openHandedOn":    {"internal/identity.MintTokenThrough": "who takes one over"},
		"OpenServer(?)":   {"internal/vault.OpenServer": itself},
	}
}

// opening returns what of doors a file says, as "what in function". A function that is declared is not said.
func opening(f *ast.File) []string {
	var out []string
	for _, d := range f.Decls {
		in := ""
		body := ast.Node(d)
		if fn, ok := d.(*ast.FuncDecl); ok {
			if in = fn.Name.Name; fn.Body == nil {
				continue
			}
			body = fn.Body
		}
		say := func(what string) { out = append(out, what+" in "+in) }
		ast.Inspect(body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				switch n.Name {
				case "RingTokens", "decodeToken", "decodeTokenBody", "openToken", "openHandedOn":
					say(n.Name)
				}
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && s == "workload-access-tokens" {
					say("RingTokens")
				}
			case *ast.SelectorExpr:
				if n.Sel.Name == "OpenServer" {
					say("OpenServer(?)") // unless it is called, which is looked at before
				}
			case *ast.CallExpr:
				s, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || s.Sel.Name != "OpenServer" || len(n.Args) < 2 {
					return true
				}
				ring, ok := n.Args[1].(*ast.SelectorExpr)
				switch {
				case !ok || !strings.HasPrefix(ring.Sel.Name, "Ring"):
					say("OpenServer(?)") // of a ring that is not named here: it could be any
				case ring.Sel.Name == "RingTokens":
					say("OpenServer(RingTokens)")
				}
				for _, a := range n.Args {
					ast.Inspect(a, func(n ast.Node) bool {
						if id, ok := n.(*ast.Ident); ok && id.Name == "RingTokens" {
							say("RingTokens")
						}
						return true
					})
				}
				return false
			}
			return true
		})
	}
	return out
}

// M06: one function opens workload access tokens, and two use it: one for the operations of the token's own agent, one
// for who takes it over. Both fill every fact and refuse what is dead, so that nothing else may open one by itself.
func TestM06_OnlyTheDoorOpensTokens(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.dir, "internal/e2e") {
			continue
		}
		for _, found := range opening(s.file) {
			what, in, _ := strings.Cut(found, " in ")
			at := s.dir + "." + in
			used[what+" in "+at] = true
			if doors()[what][at] == "" {
				t.Errorf("%s: %s says %s: a workload access token is opened by identity.Service.Open and MintTokenThrough, and by nothing else", s.name, at, what)
			}
		}
	}
	for what, where := range doors() {
		for at, why := range where {
			if !used[what+" in "+at] && why != "it is that" {
				t.Errorf("%s may say %s and does not", at, what)
			}
		}
	}
}

// The lint sees each way around the door.
func TestM06_TheLintSeesDoors(t *testing.T) {
	for code, want := range map[string]string{
		`func f(v V) { v.OpenServer(ctx, vault.RingTokens, aad, b) }`:                "[OpenServer(RingTokens) in f RingTokens in f]",
		`func f(v V) { x.y.OpenServer(ctx, ring.RingTokens, aad, b) }`:               "[OpenServer(RingTokens) in f RingTokens in f]",
		`func f(v V) { r := vault.RingTokens; v.OpenServer(ctx, r, aad, b) }`:        "[RingTokens in f OpenServer(?) in f]",
		`func f(v V) { v.OpenServer(ctx, vault.Ring("workload-access-tokens"), a) }`: "[OpenServer(?) in f]",
		`func f(v V) { r := vault.Ring("workload-access-tokens") }`:                  "[RingTokens in f]",
		`func f(v V) { open := v.OpenServer; open(ctx) }`:                            "[OpenServer(?) in f]",
		`func f(s S) { s.openToken(ctx, a, wat) }`:                                   "[openToken in f]",
		`func f(s S) { g := s.openHandedOn; g() }`:                                   "[openHandedOn in f]",
		`func f(s S) { decodeToken(wat); decodeTokenBody(b) }`:                       "[decodeToken in f decodeTokenBody in f]",
		`var ring = vault.RingTokens`:                                                "[RingTokens in ]",
		`func f(v V) { v.OpenServer(ctx, vault.RingSessions, aad, b) }`:              "[]",
		`func openToken() {}`: "[]",
		`func f(s S) { s.Open(ctx, caller, a, wat, facts, false); vault.RingSigning }`: "[]",
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package p; "+code, 0)
		if err != nil {
			t.Fatalf("%s: %v", code, err)
		}
		if got := fmt.Sprint(opening(f)); got != want {
			t.Errorf("%s: got %s, want %s", code, got, want)
		}
	}
}
