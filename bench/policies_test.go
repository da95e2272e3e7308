package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/policy"
)

func TestParsePolicies(t *testing.T) {
	for text, want := range map[string][]policies{
		"":                            {{}},
		"principal:10":                {{form: "principal", n: 10}},
		"principal:10,resource:10000": {{form: "principal", n: 10}, {form: "resource", n: 10_000}},
		"principal:0":                 nil,
		"resource:20001":              nil,
		"other:1":                     nil,
		"principal":                   nil,
		"principal:1,":                nil,
		"resource:1,resource:1,resource:1,resource:1,resource:1,resource:1,resource:1,resource:1,resource:1": nil,
	} {
		got, err := parsePolicies(text)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(policies{})); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%q: %v %s", text, err, diff)
		}
	}
}

// Each policy that is written can be read, and of many the first is the agent's.
func TestPoliciesAreWellFormed(t *testing.T) {
	e, err := policy.New(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range []policies{{form: formPrincipal, n: 3}, {form: formResource, n: 3}} {
		for i := range p.n {
			text := p.text(i)
			for _, problem := range e.Check(text) {
				if problem.Severity == policy.Error {
					t.Errorf("%s: %s", text, problem.Message)
				}
			}
			if seen[text] {
				t.Errorf("%s twice", text)
			}
			seen[text] = true
		}
	}
}
