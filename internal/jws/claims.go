package jws

import (
	standard "encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// Claims are the members of a token's payload. Names are compared as they are; no value is converted to another type.
type Claims struct {
	noun    string
	members map[string]any
}

// Has reports whether the claim is there, with whatever value.
func (c Claims) Has(name string) bool {
	_, ok := c.members[name]
	return ok
}

// String returns a claim that is a string; ok is false where it is missing or anything else.
func (c Claims) String(name string) (s string, ok bool) {
	s, ok = c.members[name].(string)
	return s, ok
}

// Strings returns a claim that is a string or a list of strings, as aud is (RFC 7519 §4.1.3); none where it is missing.
// Anything else, null too, is an Unauthenticated fault.
func (c Claims) Strings(name string) ([]string, error) {
	v, ok := c.members[name]
	if !ok {
		return nil, nil
	}
	if s, ok := v.(string); ok {
		return []string{s}, nil
	}
	flaw := bad(c.noun, "has a claim %s that is neither a string nor a list of strings", name)
	list, ok := v.([]any)
	if !ok {
		return nil, flaw
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			return nil, flaw
		}
		out = append(out, s)
	}
	return out, nil
}

// Object returns a claim that is an object, to be read as claims are; ok is false where it is missing or anything else.
func (c Claims) Object(name string) (inner Claims, ok bool) {
	members, ok := c.members[name].(map[string]any)
	return Claims{noun: c.noun, members: members}, ok
}

// Names returns the names of the claims, in order.
func (c Claims) Names() []string { return slices.Sorted(maps.Keys(c.members)) }

// Scalar returns a claim that is a string, a number or a boolean, the latter two as the token writes them; ok is false
// where it is missing or anything else.
func (c Claims) Scalar(name string) (s string, ok bool) {
	switch v := c.members[name].(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return string(v), true
	}
	return "", false
}

// Plain returns a claim that is a string, a boolean or a number (an encoding/json.Number, as the token writes it), or a
// list of them, a []any that lacks whatever else the token's has; ok is false where it is missing or anything else.
func (c Claims) Plain(name string) (v any, ok bool) {
	list, isList := c.members[name].([]any)
	if !isList {
		return plain(c.members[name])
	}
	out := make([]any, 0, len(list))
	for _, item := range list {
		if v, ok := plain(item); ok {
			out = append(out, v)
		}
	}
	return out, true
}

func plain(v any) (any, bool) {
	switch v := v.(type) {
	case string, bool:
		return v, true
	case json.Number:
		return standard.Number(v), true
	}
	return nil, false
}

// Time returns a claim that is a NumericDate (RFC 7519 §2): a JSON number of seconds, perhaps with a fraction, which is
// cut off; the zero Time where it is missing. Exponents, numbers that are not positive, anything that can only be
// milliseconds and other types are an Unauthenticated fault.
func (c Claims) Time(name string) (time.Time, error) {
	v, ok := c.members[name]
	if !ok {
		return time.Time{}, nil
	}
	n, _ := v.(json.Number)
	whole, fraction, _ := strings.Cut(string(n), ".")
	const tooLate = 100_000_000_000 // the year 5138 in seconds, and 1973 in milliseconds
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec <= 0 || sec >= tooLate || strings.ContainsAny(fraction, "eE+-") {
		return time.Time{}, bad(c.noun, "has a claim %s that is no number of seconds since 1970", name)
	}
	return time.Unix(sec, 0), nil
}
