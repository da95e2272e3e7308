package awsapi

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// text reads a JSON string. The caller has seen its opening quote.
func (s *scanner) text() (string, *bad) {
	start := s.pos + 1
	text, plain, err := s.scanText()
	if plain && err == nil {
		return string(s.data[start : s.pos-1]), nil
	}
	return text, err
}

// scanText moves behind a JSON string. Where it is plain, without escapes, its text is what lies between the quotes;
// else text has it.
func (s *scanner) scanText() (text string, plain bool, err *bad) {
	start := s.pos + 1
	for i := start; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			return "", true, nil
		case c == '\\':
			text, err = s.escaped(start, i)
			return text, false, err
		case c < ' ':
			s.pos = i
			return "", false, s.syntax("no control character in a string")
		}
	}
	s.pos = len(s.data)
	return "", false, s.syntax("the end of a string")
}

// escaped reads a string that began at start and has its first escape at i (RFC 8259 section 7).
func (s *scanner) escaped(start, i int) (string, *bad) {
	out := append(make([]byte, 0, i-start+64), s.data[start:i]...)
	for i < len(s.data) {
		c := s.data[i]
		switch {
		case c == '"':
			s.pos = i + 1
			return string(out), nil
		case c < ' ':
			s.pos = i
			return "", s.syntax("no control character in a string")
		case c != '\\':
			out = append(out, c)
			i++
		default:
			s.pos = i
			r, n := s.escape(s.data[i:])
			if n == 0 {
				return "", s.syntax("an escape that stands for one character other than U+0000")
			}
			out = utf8.AppendRune(out, r)
			i += n
		}
	}
	s.pos = len(s.data)
	return "", s.syntax("the end of a string")
}

// escape reads one escape sequence and returns its length, 0 where it is not valid. U+0000 is refused because
// PostgreSQL cannot store it, and both engines must answer alike.
func (s *scanner) escape(b []byte) (rune, int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := hex4(b)
		if r > 0 && !utf16.IsSurrogate(r) {
			return r, 6
		}
		if r > 0 && len(b) >= 12 {
			if pair := utf16.DecodeRune(r, hex4(b[6:])); pair != utf8.RuneError {
				return pair, 12
			}
		}
	}
	return 0, 0
}

// hex4 returns the value of a \uXXXX at the start of b, or -1.
func hex4(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
