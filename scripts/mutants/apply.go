package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// edit is a change of the bytes [from, to) of one file: for a mutant that is switched on at run time something before
// and something behind them, for one with a build of its own other bytes in their place.
type edit struct {
	mutant        int // number of the mutant, from 1
	file          string
	from, to      int
	before, after string
	plain         string
}

// place finds the one place that m changes, below root.
func place(root string, m mutant, number int) (edit, error) {
	var found []edit
	var err error
	if pattern, ok := strings.CutPrefix(m.within, "file "); ok {
		found, err = placeInFiles(filepath.Join(root, m.pkg, pattern), m, number)
	} else {
		found, err = placeInPackage(filepath.Join(root, m.pkg), m, number)
	}
	if err != nil {
		return edit{}, fmt.Errorf("table.txt:%d: %w", m.line, err)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return edit{}, fmt.Errorf("table.txt:%d: %s: %s: the edit no longer applies", m.line, m.where(), m.edit())
	}
	return edit{}, fmt.Errorf("table.txt:%d: %s: %s: the edit applies %d times", m.line, m.where(), m.edit(), len(found))
}

func placeInFiles(pattern string, m mutant, number int) ([]edit, error) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var found []edit
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		found = append(found, inText(name, string(content), 0, m, number, func(s string) string { return s })...)
	}
	return found, nil
}

// inText finds m.target in text, which begins at byte at of the file. quote is how the replacement is written there.
func inText(file, text string, at int, m mutant, number int, quote func(string) string) []edit {
	var found []edit
	for i := 0; ; {
		j := strings.Index(text[i:], quote(m.target))
		if j < 0 {
			return found
		}
		i += j
		found = append(found, edit{mutant: number, file: file, from: at + i, to: at + i + len(quote(m.target)), plain: quote(m.with)})
		i += len(m.target)
	}
}

func placeInPackage(dir string, m mutant, number int) ([]edit, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var found []edit
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := parse(name, src)
		if err != nil {
			return nil, err
		}
		for _, n := range f.named(m.within) {
			found = append(found, f.find(n, m, number)...)
		}
	}
	return found, nil
}

// parsed is one file, with its tokens.
type parsed struct {
	name   string
	src    []byte
	set    *token.FileSet
	ast    *ast.File
	tokens []tok
}

type tok struct {
	at  int
	lit string
}

func parse(name string, src []byte) (*parsed, error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &parsed{name: name, src: src, set: set, ast: f, tokens: tokens(src)}, nil
}

// tokens splits Go code. What the layout alone puts there is left out: the semicolons of line ends, and commas before
// a closing bracket.
func tokens(src []byte) []tok {
	set := token.NewFileSet()
	file := set.AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0)
	var out []tok
	for {
		pos, t, lit := s.Scan()
		if t == token.EOF {
			return out
		}
		if t == token.SEMICOLON && lit == "\n" {
			continue
		}
		if t == token.RPAREN || t == token.RBRACE || t == token.RBRACK {
			if n := len(out); n > 0 && out[n-1].lit == "," {
				out = out[:n-1]
			}
		}
		if lit == "" || t.IsOperator() {
			lit = t.String()
		}
		out = append(out, tok{file.Offset(pos), lit})
	}
}

func (f *parsed) offset(p token.Pos) int { return f.set.Position(p).Offset }

// named returns the declarations that within names.
func (f *parsed) named(within string) []ast.Node {
	kind, name, isValue := strings.Cut(within, " ")
	var out []ast.Node
	for _, d := range f.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			full := d.Name.Name
			if d.Recv != nil {
				full = receiver(d.Recv.List[0].Type) + "." + full
			}
			if !isValue && full == within {
				out = append(out, d)
			}
		case *ast.GenDecl:
			if !isValue || d.Tok.String() != kind {
				continue
			}
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					if slices.ContainsFunc(s.Names, func(n *ast.Ident) bool { return n.Name == name }) {
						out = append(out, s)
					}
				case *ast.TypeSpec:
					if s.Name.Name == name {
						out = append(out, s)
					}
				}
			}
		}
	}
	return out
}

func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}

// find returns the edits of m below n.
func (f *parsed) find(n ast.Node, m mutant, number int) []edit {
	if m.verb == text {
		return f.findText(n, m, number)
	}
	want := tokens([]byte(m.target))
	var found []edit
	behind := f.behind(n, m.after)
	add := func(from, to token.Pos, with string) {
		e := edit{mutant: number, file: f.name, from: f.offset(from), to: f.offset(to)}
		if e.from < behind || m.after != "" && len(found) > 0 {
			return
		}
		switch code, k := string(f.src[e.from:e.to]), strconv.Itoa(number); m.verb {
		case never:
			e.before, e.after, e.plain = "(!mutantIs("+k+") && (", "))", "false && ("+code+")"
		case always:
			e.before, e.after, e.plain = "(mutantIs("+k+") || (", "))", "true || ("+code+")"
		case negate:
			e.before, e.after, e.plain = "(mutantIs("+k+") != (", "))", "!("+code+")"
		case drop:
			e.before, e.after, e.plain = "if !mutantIs("+k+") { ", " }", "if false { "+code+" }"
		case replace:
			e.before, e.after, e.plain = "mutantPick("+k+", ", ", "+with+")", with
		}
		if !slices.ContainsFunc(found, func(o edit) bool { return o.from == e.from && o.to == e.to }) {
			found = append(found, e)
		}
	}
	assigned := map[ast.Expr]bool{} // no value of the code
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, to := range n.Lhs {
				assigned[to] = true
			}
		case *ast.Field: // a parameter
			for _, name := range n.Names {
				assigned[name] = true
			}
		}
		switch n := n.(type) {
		case nil:
			return true
		case *ast.IfStmt:
			if n.Init != nil && m.verb != drop && m.verb != replace && f.reads(n.Init.Pos(), n.Cond.End(), want) {
				add(n.Cond.Pos(), n.Cond.End(), m.with)
			}
		case *ast.KeyValueExpr: // the key stays, and is no part of the replacement
			if m.verb == replace && f.reads(n.Pos(), n.End(), want) {
				_, value, _ := strings.Cut(m.with, ":")
				add(n.Value.Pos(), n.Value.End(), strings.TrimSpace(value))
			}
		case *ast.AssignStmt: // likewise
			if m.verb == replace && len(n.Rhs) == 1 && f.reads(n.Pos(), n.End(), want) {
				_, value, _ := strings.Cut(m.with, "=")
				add(n.Rhs[0].Pos(), n.Rhs[0].End(), strings.TrimSpace(value))
			}
			if m.verb == drop && f.reads(n.Pos(), n.End(), want) {
				add(n.Pos(), n.End(), m.with)
			}
		case ast.Expr:
			if m.verb != drop && !assigned[n] && f.reads(n.Pos(), n.End(), want) {
				add(n.Pos(), n.End(), m.with)
			}
		case ast.Stmt:
			if m.verb == drop && f.reads(n.Pos(), n.End(), want) {
				add(n.Pos(), n.End(), m.with)
			}
		}
		return true
	})
	return found
}

// behind returns the end of the code below n that reads so, 0 where nothing is asked for, and the end of the file where
// it is not there.
func (f *parsed) behind(n ast.Node, code string) int {
	if code == "" {
		return 0
	}
	end, want := len(f.src), tokens([]byte(code))
	ast.Inspect(n, func(n ast.Node) bool {
		if n != nil && f.reads(n.Pos(), n.End(), want) {
			end = min(end, f.offset(n.End()))
		}
		return true
	})
	return end
}

// findText finds a text in the literals below n, strings and numbers.
func (f *parsed) findText(n ast.Node, m mutant, number int) []edit {
	var found []edit
	ast.Inspect(n, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok {
			quote := func(s string) string { return s }
			if strings.HasPrefix(l.Value, `"`) {
				quote = func(s string) string { q := strconv.Quote(s); return q[1 : len(q)-1] }
			}
			found = append(found, inText(f.name, l.Value, f.offset(l.Pos()), m, number, quote)...)
		}
		return true
	})
	return found
}

// reads reports whether the code from one position to another has these tokens.
func (f *parsed) reads(from, to token.Pos, want []tok) bool {
	a, b := f.offset(from), f.offset(to)
	i, _ := slices.BinarySearchFunc(f.tokens, a, func(t tok, at int) int { return cmp.Compare(t.at, at) })
	for _, w := range want {
		if i == len(f.tokens) || f.tokens[i].at >= b || f.tokens[i].lit != w.lit {
			return false
		}
		i++
	}
	return i == len(f.tokens) || f.tokens[i].at >= b
}

// switched returns src with every edit in it, each off until the process is told its number.
func switched(src []byte, edits []edit) []byte {
	type insertion struct {
		at, order int // what is inserted at one place, in this order
		text      string
	}
	var all []insertion
	for i, e := range edits {
		size := e.to - e.from
		// Ends come before beginnings; of the ends the inner one first, of the beginnings the outer one.
		all = append(all, insertion{e.to, -1<<40 + size<<16 - i, e.after}, insertion{e.from, 1<<40 - size<<16 + i, e.before})
	}
	slices.SortFunc(all, func(a, b insertion) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.order, b.order)) })
	var out []byte
	last := 0
	for _, in := range all {
		out = append(out, src[last:in.at]...)
		out = append(out, in.text...)
		last = in.at
	}
	return append(out, src[last:]...)
}

// applied returns src with the one edit in it.
func applied(src []byte, e edit) []byte {
	return slices.Concat(src[:e.from], []byte(e.plain), src[e.to:])
}

// switches is the file that each changed package gets besides.
func switches(pkg string) []byte {
	return []byte(`package ` + pkg + `

import (
	"os"
	"strconv"
)

var mutantNumber, _ = strconv.Atoi(os.Getenv("` + variable + `"))

func mutantIs(n int) bool { return n == mutantNumber }

func mutantPick[T any](n int, code, other T) T {
	if mutantIs(n) {
		return other
	}
	return code
}

var _ = mutantPick[int]
`)
}
