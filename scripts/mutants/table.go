package main

import (
	"fmt"
	"path"
	"strings"
)

// verb is one way to break a protection.
type verb string

// The verbs. All but text can be switched on in a running binary.
const (
	never   verb = "never"   // the condition does not hold, and is not evaluated
	always  verb = "always"  // the condition holds, and is not evaluated
	negate  verb = "negate"  // the condition is turned round
	drop    verb = "drop"    // the statement is not executed
	replace verb = "replace" // the expression has the value of another; both are evaluated
	text    verb = "text"    // in a string literal, a constant or a file, one text stands for another
)

// mutant is one row of the table: a protection that is taken out, and the test that must notice.
type mutant struct {
	line    int    // in table.txt
	row     string // of docs/threat-model.md
	pkg     string // directory of the package that is changed, "." for the root
	within  string // function, Type.method, "const name", "var name" or "file pattern"
	verb    verb
	target  string // what is changed, as Go code, compared token by token
	with    string // what stands for it, of replace and text
	after   string // code that comes before it: the first place behind that is meant
	testPkg string // directory of the package of the test
	test    string
	lint    bool // the test reads the source and runs nothing of it
}

// alone reports whether the mutant needs a build of its own: what it changes is fixed when the code is compiled.
func (m mutant) alone() bool {
	return m.lint || m.verb == text
}

// where names the place of the edit.
func (m mutant) where() string {
	return strings.TrimPrefix(m.pkg, "internal/") + " " + m.within
}

// edit describes the edit in one line.
func (m mutant) edit() string {
	s := string(m.verb) + " " + m.target
	if m.with != "" || m.verb == replace || m.verb == text {
		s += " ⇒ " + m.with
	}
	if m.after != "" {
		s += ", after " + m.after
	}
	return s
}

// parseTable reads table.txt: blocks between empty lines, # begins a comment line. The first line of a block has row,
// package and function, the others begin with a verb, "with", "after", "test" or "lint".
func parseTable(content string) ([]mutant, error) {
	var out []mutant
	var m *mutant
	end := func() error {
		if m == nil {
			return nil
		}
		done := *m
		m = nil
		switch {
		case done.verb == "" || done.target == "":
			return fmt.Errorf("table.txt:%d: no edit", done.line)
		case done.test == "":
			return fmt.Errorf("table.txt:%d: no test", done.line)
		case done.verb == replace && done.with == "":
			return fmt.Errorf("table.txt:%d: replace by what? A line that begins with \"with\" says it", done.line)
		case strings.HasPrefix(done.within, "file ") && done.verb != text:
			return fmt.Errorf("table.txt:%d: a file that is not Go takes the verb text only", done.line)
		}
		out = append(out, done)
		return nil
	}
	for i, l := range strings.Split(content, "\n") {
		word, rest, _ := strings.Cut(strings.TrimSpace(l), " ")
		rest = strings.TrimSpace(rest)
		switch {
		case word == "":
			if err := end(); err != nil {
				return nil, err
			}
		case word == "#" || strings.HasPrefix(word, "##"):
		case m == nil:
			pkg, within, ok := strings.Cut(rest, " ")
			if !ok {
				return nil, fmt.Errorf("table.txt:%d: want a row, a package and a function, got %q", i+1, l)
			}
			m = &mutant{line: i + 1, row: word, pkg: path.Clean(pkg), within: strings.TrimSpace(within)}
		case word == "with":
			m.with = rest
		case word == "after":
			m.after = rest
		case word == "test" || word == "lint":
			test, pkg, _ := strings.Cut(rest, " ")
			m.test, m.lint, m.testPkg = test, word == "lint", m.pkg
			if pkg != "" {
				m.testPkg = path.Clean(pkg)
			}
		default:
			switch v := verb(word); v {
			case never, always, negate, drop, replace, text:
				if m.verb != "" {
					return nil, fmt.Errorf("table.txt:%d: a mutant is one edit", i+1)
				}
				m.verb, m.target = v, rest
			default:
				return nil, fmt.Errorf("table.txt:%d: unknown verb %q", i+1, word)
			}
		}
	}
	return out, end()
}
