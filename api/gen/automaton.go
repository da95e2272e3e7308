package main

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// automaton is a regular expression, anchored at both ends, as a deterministic automaton over classes of characters.
type automaton struct {
	class  [128]byte
	other  byte // the class of all characters beyond ASCII
	width  int
	next   []byte // next[state*width+class]; state 0 is dead, 1 the start
	accept []byte
}

// maxStates keeps a state in one byte and the generated tables small.
const maxStates = 256

// compile builds the automaton, or says why it cannot.
func compile(expr string) (*automaton, error) {
	// The models write Java's \u000A where Go reads \x{000A}; classes such as \s mean the same in both.
	expr = regexp.MustCompile(`\\u([0-9A-Fa-f]{4})`).ReplaceAllString(expr, `\x{$1}`)
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, err
	}
	a := &automaton{}
	symbols, err := a.classify(prog)
	if err != nil {
		return nil, err
	}
	ids := map[string]int{}
	sets := [][]uint32{nil}
	intern := func(set []uint32) int {
		key := fmt.Sprint(set)
		if len(set) == 0 {
			return 0
		}
		id, ok := ids[key]
		if !ok {
			id = len(sets)
			ids[key] = id
			sets = append(sets, set)
		}
		return id
	}
	intern(closure(prog, []uint32{uint32(prog.Start)}))
	a.next = make([]byte, a.width) // the dead state
	for state := 1; state < len(sets); state++ {
		if len(sets) > maxStates {
			return nil, fmt.Errorf("more than %d states", maxStates)
		}
		for _, r := range symbols {
			var to []uint32
			for _, pc := range sets[state] {
				if in := &prog.Inst[pc]; consumes(in) && in.MatchRune(r) {
					to = append(to, in.Out)
				}
			}
			a.next = append(a.next, byte(intern(closure(prog, to))))
		}
	}
	a.accept = make([]byte, len(sets))
	for state, set := range sets {
		for _, pc := range set {
			if prog.Inst[pc].Op == syntax.InstMatch {
				a.accept[state] = 1
			}
		}
	}
	return a, nil
}

func consumes(in *syntax.Inst) bool {
	switch in.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	}
	return false
}

// classify puts characters that no instruction tells apart in one class, and returns a member of each class.
func (a *automaton) classify(prog *syntax.Prog) ([]rune, error) {
	signature := func(r rune) string {
		var b strings.Builder
		for i := range prog.Inst {
			if in := &prog.Inst[i]; consumes(in) {
				fmt.Fprintf(&b, "%t,", in.MatchRune(r))
			}
		}
		return b.String()
	}
	for i := range prog.Inst {
		in := &prog.Inst[i]
		if in.Op == syntax.InstEmptyWidth {
			return nil, fmt.Errorf("an anchor inside the expression")
		}
		for j := 0; consumes(in) && in.Op == syntax.InstRune && j+1 < len(in.Rune); j += 2 {
			if low, high := in.Rune[j], in.Rune[j+1]; high >= utf8.RuneSelf && (low > utf8.RuneSelf || high != unicode.MaxRune) {
				return nil, fmt.Errorf("characters beyond ASCII are told apart")
			}
		}
	}
	classes := map[string]byte{}
	var symbols []rune
	classOf := func(r rune) byte {
		sig := signature(r)
		c, ok := classes[sig]
		if !ok {
			c = byte(len(symbols))
			classes[sig] = c
			symbols = append(symbols, r)
		}
		return c
	}
	for r := rune(0); r < 128; r++ {
		a.class[r] = classOf(r)
	}
	a.other = classOf('é')
	a.width = len(symbols)
	return symbols, nil
}

// closure follows the instructions that consume nothing.
func closure(prog *syntax.Prog, from []uint32) []uint32 {
	seen := map[uint32]bool{}
	var out []uint32
	var walk func(pc uint32)
	walk = func(pc uint32) {
		if seen[pc] {
			return
		}
		seen[pc] = true
		switch in := &prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			walk(in.Out)
			walk(in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			walk(in.Out)
		case syntax.InstFail:
		default:
			out = append(out, pc)
		}
	}
	for _, pc := range from {
		walk(pc)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// matches runs the automaton as package api does.
func (a *automaton) matches(s string) bool {
	state := byte(1)
	for _, r := range s {
		class := a.other
		if r < 128 {
			class = a.class[r]
		}
		state = a.next[int(state)*a.width+int(class)]
	}
	return a.accept[state] == 1
}
