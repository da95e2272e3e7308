package main

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ast is what a reader of Smithy's JSON AST needs of it.
type ast struct {
	Smithy string
	Shapes map[string]struct {
		Type               string
		Version            string
		Operations         []reference
		Input, Output      reference
		Errors             []reference
		Member, Key, Value reference
		Members            map[string]struct {
			Target string
			Traits map[string]any
		}
		Traits map[string]json.RawMessage
	}
}

type reference struct{ Target string }

func smithyModel(t *testing.T) (ast, document) {
	t.Helper()
	files, err := published("../models")
	if err != nil {
		t.Fatal(err)
	}
	var a ast
	if err := json.Unmarshal(files[dataDir+"/tabard.smithy.json"], &a); err != nil {
		t.Fatal(err)
	}
	var d document
	for name, text := range files {
		if strings.HasSuffix(name, "/service-2.json") {
			if err := json.Unmarshal(text, &d); err != nil {
				t.Fatal(err)
			}
		}
	}
	return a, d
}

// Every operation and shape of the model is in the Smithy form, once, with the same members; nothing else is.
func TestSmithyHasEveryOperationAndShape(t *testing.T) {
	a, d := smithyModel(t)
	if a.Smithy != "2.0" {
		t.Errorf("smithy: got %q", a.Smithy)
	}
	service := a.Shapes[id("Tabard")]
	var offered []string
	for _, op := range service.Operations {
		offered = append(offered, strings.TrimPrefix(op.Target, id("")))
	}
	if diff := cmp.Diff(sorted(d.Operations), offered); diff != "" || len(offered) < 20 {
		t.Errorf("the service's operations (-model +Smithy):\n%s", diff)
	}
	want := append(append(sorted(d.Operations), sorted(d.Shapes)...), "Tabard")
	for i := range want {
		want[i] = id(want[i])
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(a.Shapes))); diff != "" {
		t.Errorf("shapes (-model +Smithy):\n%s", diff)
	}
	for name, s := range d.Shapes {
		got := a.Shapes[id(name)]
		if s.Type != "structure" {
			continue
		}
		for _, m := range s.Members {
			member, ok := got.Members[m.Name]
			if _, required := member.Traits["smithy.api#required"]; !ok || member.Target != id(m.Shape) || required != s.requires(m.Name) {
				t.Errorf("%s.%s: got %+v, want %s, required %t", name, m.Name, member, m.Shape, s.requires(m.Name))
			}
		}
		if len(got.Members) != len(s.Members) {
			t.Errorf("%s: got %d members, want %d", name, len(got.Members), len(s.Members))
		}
	}
}

// What a Smithy reader refuses first: a target that is not there, a name that is no identifier or differs from another
// in case only, an operation without a binding, an error without a status.
func TestSmithyHoldsTogether(t *testing.T) {
	a, _ := smithyModel(t)
	identifier := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	folded := map[string]string{}
	exists := func(from, target string, types ...string) {
		t.Helper()
		s, ok := a.Shapes[target]
		if target == "smithy.api#Unit" {
			return
		}
		if !ok || len(types) > 0 && !slices.Contains(types, s.Type) {
			t.Errorf("%s: its target %q is a %q, want one of %v", from, target, s.Type, types)
		}
	}
	for name, s := range a.Shapes {
		short, ok := strings.CutPrefix(name, id(""))
		if !ok || !identifier.MatchString(short) {
			t.Errorf("%s is no name of this namespace", name)
		}
		if other, taken := folded[strings.ToLower(short)]; taken {
			t.Errorf("%s and %s differ in case only", other, name)
		}
		folded[strings.ToLower(short)] = name
		for m, member := range s.Members {
			if !identifier.MatchString(m) {
				t.Errorf("%s: member %q is no identifier", name, m)
			}
			exists(name+"."+m, member.Target)
		}
		switch s.Type {
		case "list":
			exists(name, s.Member.Target)
		case "map":
			exists(name, s.Key.Target, "string", "enum")
			exists(name, s.Value.Target)
		case "operation":
			exists(name, s.Input.Target, "structure")
			exists(name, s.Output.Target, "structure")
			for _, e := range s.Errors {
				exists(name, e.Target, "structure")
				if a.Shapes[e.Target].Traits["smithy.api#httpError"] == nil || a.Shapes[e.Target].Traits["smithy.api#error"] == nil {
					t.Errorf("%s: %s is no error", name, e.Target)
				}
			}
			if !strings.Contains(string(s.Traits["smithy.api#http"]), `"/tabard/`+short+`"`) {
				t.Errorf("%s: bound to %s", name, s.Traits["smithy.api#http"])
			}
		}
	}
}

// A paginator's names are members of the operation's own shapes.
func TestPaginators(t *testing.T) {
	_, d := smithyModel(t)
	pages := d.paginators()
	for name, op := range d.Operations {
		p, ok := pages[name]
		// A revocation's connections come in pages; signing keys are a handful.
		if want := (strings.HasPrefix(name, "List") && name != feed && name != "ListSigningKeys") || name == "GetRevocation"; ok != want {
			t.Errorf("%s: got a paginator %t, want %t", name, ok, want)
		}
		if ok && !d.Shapes[op.Output.Shape].has(p.ResultKey) {
			t.Errorf("%s: its answer has no %q", name, p.ResultKey)
		}
	}
}
