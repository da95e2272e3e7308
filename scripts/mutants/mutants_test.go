package main

import (
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each row of the table applies to the code once, names a row of the threat model, and says so in the test's name or is
// beside it. So an edit that has gone stale fails here, and not only in make verify.
func TestTableApplies(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	mutants, err := parseTable(table)
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(filepath.Join(root, "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, m := range mutants {
		if !regexp.MustCompile(`(?m)^\| ` + m.row + ` \|`).Match(model) {
			t.Errorf("table.txt:%d: docs/threat-model.md has no row %s", m.line, m.row)
		}
		if at := seen[m.where()+m.edit()+m.test]; at > 0 {
			t.Errorf("table.txt:%d: the same edit and test as in line %d", m.line, at)
		}
		seen[m.where()+m.edit()+m.test] = m.line
	}
	if _, err := newLab(root, t.TempDir(), 1, mutants); err != nil {
		t.Error(err)
	}
}

const sampleCode = `package p

import "errors"

const bound = 10

func check(a, b int, err error) (string, error) {
	if err := errors.Join(err, nil); err != nil {
		return "", err
	}
	if a > b || b > bound { // both
		log(a)
		return "odd", errors.New("no")
	}
	return pair{A: a,
		B: b,
	}.String(), nil
}

func twice(v, a, b int, w *int) { v = a; step(); *w = 1; v = a }

func set(v *int, a, b int) { *v = a; v = a }

func (p *pair) check() bool { return p.A > p.B }
`

// sampled places one mutant in the sample code.
func sampled(t *testing.T, m mutant) (edit, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(sampleCode), 0o600); err != nil {
		t.Fatal(err)
	}
	m.pkg = "."
	return place(dir, m, 7)
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		name             string
		m                mutant
		switched, sealed string // what the two forms contain; "" where there is only one
	}{
		{"a condition after an initialisation", mutant{within: "check", verb: never, target: "err := errors.Join(err, nil); err != nil"},
			"if err := errors.Join(err, nil); (!mutantIs(7) && (err != nil)) {", "; false && (err != nil) {"},
		{"a part of a condition", mutant{within: "check", verb: never, target: "b>bound"}, "a > b || (!mutantIs(7) && (b > bound)) {", "a > b || false && (b > bound) {"},
		{"a condition", mutant{within: "check", verb: negate, target: "a > b || b > bound"}, "if (mutantIs(7) != (a > b || b > bound)) {", "if !(a > b || b > bound) {"},
		{"a method's", mutant{within: "pair.check", verb: always, target: "p.A > p.B"}, "return (mutantIs(7) || (p.A > p.B))", "return true || (p.A > p.B)"},
		{"a statement", mutant{within: "check", verb: drop, target: "log(a)"}, "if !mutantIs(7) { log(a) }", "if false { log(a) }"},
		{"an expression", mutant{within: "check", verb: replace, target: `"odd"`, with: `"even"`}, `return mutantPick(7, "odd", "even"), errors`, `return "even", errors`},
		{"a field", mutant{within: "check", verb: replace, target: "B: b", with: "B: a"}, "B: mutantPick(7, b, a),", "B: a,"},
		{"a layout of its own", mutant{within: "check", verb: replace, target: "pair{A: a, B: b}", with: "pair{}"}, "}, pair{}).String()", "pair{}.String()"},
		{"the first behind something", mutant{within: "check", verb: replace, target: "b", with: "a", after: "log(a)"}, "B: mutantPick(7, b, a),", "B: a,"},
		{"an assigned value", mutant{within: "set", verb: replace, target: "v = a", with: "v = b"}, "v = mutantPick(7, a, b)", "v = b"},
		{"the second of its kind", mutant{within: "twice", verb: replace, target: "v = a", with: "v = b", after: "step()"}, "step(); *w = 1; v = mutantPick(7, a, b)", "*w = 1; v = b"},
		{"a constant", mutant{within: "const bound", verb: text, target: "10", with: "99"}, "", "const bound = 99"},
		{"a text", mutant{within: "check", verb: text, target: "n", with: "y"}, "", `errors.New("yo")`},
	} {
		e, err := sampled(t, c.m)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for want, got := range map[string][]byte{c.switched: switched([]byte(sampleCode), []edit{e}), c.sealed: applied([]byte(sampleCode), e)} {
			if want == "" {
				continue
			}
			if !strings.Contains(string(got), want) {
				t.Errorf("%s: no %q in\n%s", c.name, want, got)
			}
			if _, err := format.Source(got); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
}

// Edits within edits, and several of one place, are all there.
func TestEditsNest(t *testing.T) {
	var edits []edit
	for i, m := range []mutant{
		{verb: never, target: "b > bound"}, {verb: always, target: "a > b || b > bound"}, {verb: never, target: "a > b || b > bound"},
		{verb: replace, target: "bound", with: "a"}, {verb: negate, target: "a > b"},
	} {
		m.within = "check"
		e, err := sampled(t, m)
		if err != nil {
			t.Fatal(err)
		}
		k := string(rune('1' + i))
		e.before, e.after = strings.ReplaceAll(e.before, "7", k), strings.ReplaceAll(e.after, "7", k)
		edits = append(edits, e)
	}
	for i := range edits {
		edits[i].file = "p.go"
	}
	got := switched([]byte(sampleCode), edits)
	if _, err := format.Source(got); err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	const want = `if (mutantIs(2) || ((!mutantIs(3) && ((mutantIs(5) != (a > b)) || (!mutantIs(1) && (b > mutantPick(4, bound, a))))))) {`
	if !strings.Contains(string(got), want) {
		t.Errorf("no %s in\n%s", want, got)
	}
}

func TestEditsThatDoNotApply(t *testing.T) {
	for want, m := range map[string]mutant{
		"no longer applies": {within: "check", verb: never, target: "a > c"},
		"applies 3 times":   {within: "check", verb: replace, target: "a", with: "b"},
	} {
		if want == "applies 3 times" {
			m.target = "b"
		}
		if _, err := sampled(t, m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	if _, err := sampled(t, mutant{within: "check", verb: drop, target: "log(a)", after: "log(b)"}); err == nil {
		t.Error("behind something that is gone: no error")
	}
	if _, err := sampled(t, mutant{within: "gone", verb: never, target: "a > b"}); err == nil {
		t.Error("a function that is gone: no error")
	}
}

func TestTableIsRead(t *testing.T) {
	got, err := parseTable("# words\n\nA01 internal/x T.f\n  replace a\n  with b\n  test TestA01_X internal/y\n\nB02 . file *.sql\n  text a b\n  with c\n  lint TestB02_X\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].testPkg != "internal/y" || got[0].with != "b" || got[0].within != "T.f" || got[1].target != "a b" || !got[1].lint || got[1].testPkg != "." {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{
		"A01 x\n  never a\n  test T", "A01 x f\n  test T", "A01 x f\n  never a", "A01 x f\n  replace a\n  test T", "A01 x f\n  break a\n  test T",
		"A01 x f\n  never a\n  never b\n  test T", "A01 x file *.sql\n  never a\n  test T",
	} {
		if _, err := parseTable(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestSampleIsTheSameForOneSeed(t *testing.T) {
	mutants, err := parseTable(table)
	if err != nil {
		t.Fatal(err)
	}
	a, b := choose(mutants, 5, 42), choose(mutants, 5, 42)
	if len(a) == 0 || len(a) > 5 {
		t.Fatalf("%d in the sample", len(a))
	}
	for i := range a {
		if a[i].line != b[i].line || a[i].alone() || costly(a[i].testPkg) {
			t.Errorf("%+v", a[i])
		}
	}
}
