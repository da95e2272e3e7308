package policy

import (
	"fmt"
	"strings"
)

// Bounds of a policy's text. They are looked at before the text is parsed, because Cedar's parser and validator take
// more than linear time for a tree that is deep, and exponential time for one whose parts are repeated (threat M10).
const (
	maxNodes     = 2_000 // of one statement, what "has a.b.c" stands for counted in full
	maxTextNodes = 8_000 // of all statements of one text
	maxDepth     = 24    // of parentheses, brackets, braces and ifs within each other
	maxOperators = 250   // of one statement: a chain of n operators is a tree of depth n
	maxPath      = 16    // names in a row, as in a.b.c and A::B::C
	maxLiteral   = 4_096 // bytes of one string
)

// level is what is open at one depth of nesting.
type level struct {
	open    byte // the bracket, or 'i' for an if
	done    int  // nodes of the operands that are complete
	current int  // nodes of the operand that is being read
}

// measure counts what a text would cost, by its tokens alone.
type measure struct {
	levels    []level
	operators int
	path      int // names in a row
	has       int // names in a row after a has; -1 where the row follows no has
	total     int // nodes of all statements before this one
}

// tooCostly returns how many nodes a text has, or why it is not parsed. It takes one pass, and reads tokens as Cedar's
// scanner does: what it cannot read Cedar refuses at that very place. A count is never below the tree's own.
func tooCostly(text string) (nodes int, why *Problem) {
	m := measure{levels: make([]level, 1, maxDepth+1), has: -1}
	for at := 0; at < len(text); {
		kind, end := token(text, at)
		if why := m.take(kind, text[at:end]); why != "" {
			before := text[:at]
			line := strings.LastIndexByte(before, '\n')
			return 0, &Problem{Severity: Error, Line: strings.Count(before, "\n") + 1, Column: at - line, Message: why}
		}
		at = end
	}
	return m.total + m.nodes(), nil
}

// The kinds of tokens.
const (
	space    = iota // and comments
	word            // a name, a keyword or a number
	literal         // a string
	operator        // everything else
)

// token returns the kind of the token at a place, and where it ends.
func token(text string, at int) (kind, end int) {
	rest := text[at:]
	switch c := rest[0]; {
	case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		return space, at + 1
	case strings.HasPrefix(rest, "//"):
		if n := strings.IndexByte(rest, '\n'); n >= 0 {
			return space, at + n
		}
		return space, len(text)
	case strings.HasPrefix(rest, "/*"):
		if n := strings.Index(rest[2:], "*/"); n >= 0 {
			return space, at + 2 + n + 2
		}
		return space, len(text)
	case c == '"':
		for i := 1; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				i++
			case '"':
				return literal, at + i + 1
			}
		}
		return literal, len(text)
	case inWord(c):
		n := 1
		for n < len(rest) && inWord(rest[n]) {
			n++
		}
		return word, at + n
	}
	for _, two := range []string{"::", "!=", "<=", ">=", "==", "||", "&&"} {
		if strings.HasPrefix(rest, two) {
			return operator, at + 2
		}
	}
	return operator, at + 1
}

func inWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// take counts one token, and says what is too much.
func (m *measure) take(kind int, text string) string {
	if kind == space {
		return ""
	}
	if kind == literal && len(text) > maxLiteral {
		return fmt.Sprintf("the string has more than %d bytes", maxLiteral)
	}
	top := &m.levels[len(m.levels)-1]
	top.current++
	inRow := kind == word && text != "in" && text != "has" && text != "is" && text != "like" || text == "." || text == "::"
	if m.has >= 0 && !inRow {
		// "E has a.b.c" is E has a && E.a has b && E.a.b has c: each name repeats what stands before it.
		top.current = min(top.current*max(1, m.has)+m.has*m.has, maxNodes+1)
		m.has = -1
	}
	switch {
	case text == "." || text == "::":
		m.path++
		if m.has >= 0 {
			m.has++
		}
	case kind == operator:
		m.path = 0
	}
	switch text {
	case "(", "[", "{":
		m.levels = append(m.levels, level{open: text[0]})
	case ")", "]", "}":
		m.close()
	case "if":
		m.operators++
		m.levels = append(m.levels, level{open: 'i'})
	case "has":
		m.operators++
		m.has = 1
	case "then", "else", ",", "&&", "||":
		m.operators++
		top.done, top.current = top.done+top.current, 0
		if text == "," {
			m.operators--
		}
	case "!", "-", "+", "*", "==", "!=", "<", "<=", ">", ">=", "in", "is", "like":
		m.operators++
	case ";":
		m.total, m.operators, m.path, m.has = m.total+m.nodes(), 0, 0, -1
		m.levels = append(m.levels[:0], level{})
	}
	switch {
	case len(m.levels) > maxDepth:
		return fmt.Sprintf("it nests more than %d deep", maxDepth)
	case m.operators > maxOperators:
		return fmt.Sprintf("the statement has more than %d operators: make it several statements, or name values in a set", maxOperators)
	case m.path > maxPath:
		return fmt.Sprintf("more than %d names stand in a row", maxPath)
	case m.nodes() > maxNodes:
		return fmt.Sprintf("the statement has more than %d parts: make it several statements", maxNodes)
	case m.total+m.nodes() > maxTextNodes:
		return fmt.Sprintf("the text has more than %d parts: make it several policies", maxTextNodes)
	}
	return ""
}

// close ends what the closing bracket ends, and the ifs in it.
func (m *measure) close() {
	for len(m.levels) > 1 {
		l := m.levels[len(m.levels)-1]
		m.levels = m.levels[:len(m.levels)-1]
		m.levels[len(m.levels)-1].current += l.done + l.current
		if l.open != 'i' {
			return
		}
	}
}

// nodes is how many nodes the statement that is being read has so far.
func (m *measure) nodes() int {
	n := 0
	for _, l := range m.levels {
		n += l.done + l.current
	}
	return n
}
