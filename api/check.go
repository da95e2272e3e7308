package api

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// FieldError says what is wrong with one member of a request. Name is its path, such as scopes[3] or
// oauth2ProviderConfigInput.customOauth2ProviderConfig.clientId. Message states the constraint and never the value.
type FieldError struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// maxFieldErrors bounds what one request can make us answer.
const maxFieldErrors = 20

const isRequired = "is required"

// checks collects what is wrong with one structure.
type checks []FieldError

func (c *checks) add(name, message string) {
	if message != "" && len(*c) < maxFieldErrors {
		*c = append(*c, FieldError{Name: name, Message: message})
	}
}

// sub adds the errors of a nested structure under its member's name.
func (c *checks) sub(name string, inner []FieldError) {
	for _, e := range inner {
		switch {
		case e.Name == "":
			c.add(name, e.Message)
		case e.Name[0] == '[':
			c.add(name+e.Name, e.Message)
		default:
			c.add(name+"."+e.Name, e.Message)
		}
	}
}

// one checks a union: exactly one of its members is present.
func (c *checks) one(present ...bool) {
	n := 0
	for _, p := range present {
		if p {
			n++
		}
	}
	if n != 1 {
		c.add("", fmt.Sprintf("must have exactly one member, has %d", n))
	}
}

// eachString checks the elements of a list.
func eachString[T ~string](c *checks, name string, list []T, check func(string) string) {
	for i := range list {
		if m := check(string(list[i])); m != "" {
			c.add(at(name, i), m)
		}
	}
}

// eachEntry checks keys and values of a map. A key that breaks its constraint is not echoed.
func eachEntry[V ~string](c *checks, name string, entries map[string]V, key, value func(string) string) {
	var found checks
	for k, v := range entries {
		if m := key(k); m != "" {
			found = append(found, FieldError{Name: name, Message: "has a key that " + m})
		} else if m := value(string(v)); m != "" {
			found = append(found, FieldError{Name: name + "[" + k + "]", Message: m})
		}
	}
	// Maps iterate in random order, answers do not.
	sort.Slice(found, func(i, j int) bool {
		return found[i].Name < found[j].Name || found[i].Name == found[j].Name && found[i].Message < found[j].Message
	})
	for _, e := range found {
		c.add(e.Name, e.Message)
	}
}

func at(name string, i int) string { return name + "[" + strconv.Itoa(i) + "]" }

// unbounded is the upper bound of what has none.
const unbounded = -1

// checkLength counts characters, not bytes.
func checkLength(s string, low, high int) string {
	if len(s) >= low*utf8.UTFMax && (high == unbounded || len(s) <= high) {
		return "" // within the bounds however many bytes a character has
	}
	return checkCount(utf8.RuneCountInString(s), low, high, "characters")
}

func checkSize(n, low, high int) string { return checkCount(n, low, high, "entries") }

func checkCount(n, low, high int, unit string) string {
	switch {
	case n >= low && (high == unbounded || n <= high):
		return ""
	case high == unbounded:
		return fmt.Sprintf("must have at least %d %s", low, unit)
	case low == 0:
		return fmt.Sprintf("must have at most %d %s", high, unit)
	case low == high:
		return fmt.Sprintf("must have exactly %d %s", low, unit)
	default:
		return fmt.Sprintf("must have %d to %d %s", low, high, unit)
	}
}

func checkRange(n, low, high int64) string {
	if n >= low && n <= high {
		return ""
	}
	return fmt.Sprintf("must be from %d to %d", low, high)
}

func oneOf(values ...string) string { return "must be one of " + strings.Join(values, ", ") }

// pattern is a regular expression over the whole value, turned into a deterministic automaton when the code was
// generated: one table look-up a byte, no compilation at start, and no cost that a caller's value can drive up.
//
// State 0 is the dead state and state 1 the start. Every character beyond ASCII is of one class, which the generator
// makes sure of.
type pattern struct {
	source string // for the message
	class  string // the class of each ASCII character
	other  byte   // the class of every other character
	width  int    // number of classes
	next   string // next[state*width+class]
	accept string // accept[state] is 1 in an accepting state
}

func (p *pattern) match(s string) bool {
	state := byte(1)
	for i := 0; i < len(s); i++ {
		class := p.other
		switch b := s[i]; {
		case b < utf8.RuneSelf:
			class = p.class[b]
		case !utf8.RuneStart(b):
			continue // inside a character that its first byte has stood for
		}
		if state = p.next[int(state)*p.width+int(class)]; state == 0 {
			return false
		}
	}
	return p.accept[state] == 1
}

func (p *pattern) check(s string) string {
	if p.match(s) {
		return ""
	}
	return "must match " + p.source
}
