package awsapi

import (
	"bytes"
	"net/url"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
)

// maxQuery bounds the query: UntagResource may name 200 keys of 128 characters.
const maxQuery = 128 << 10

// canonicalQueries returns the canonical form of a raw query. SDKs sort by the encoded names and values, and some by
// the plain ones; where that differs, other is the second form. Both stand for the same parameters, so accepting either
// accepts no other request.
func canonicalQueries(raw string) (query, other string, err error) {
	if raw == "" {
		return "", "", nil
	}
	if len(raw) > maxQuery {
		return "", "", fault.New(fault.SignatureInvalid, "the query is too long")
	}
	type parameter struct{ name, value, encodedName, encodedValue string }
	var all []parameter
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		n, nerr := url.QueryUnescape(name)
		v, verr := url.QueryUnescape(value)
		// net/url drops what has a bare semicolon, so a handler would see less than what was signed.
		if nerr != nil || verr != nil || strings.Contains(part, ";") {
			return "", "", fault.New(fault.SignatureInvalid, "the query is not percent-encoded")
		}
		all = append(all, parameter{n, v, escaped(n), escaped(v)})
	}
	join := func() string {
		var b strings.Builder
		for i, p := range all {
			if i > 0 {
				b.WriteByte('&')
			}
			b.WriteString(p.encodedName + "=" + p.encodedValue)
		}
		return b.String()
	}
	slices.SortFunc(all, func(a, b parameter) int {
		if c := strings.Compare(a.encodedName, b.encodedName); c != 0 {
			return c
		}
		return strings.Compare(a.encodedValue, b.encodedValue)
	})
	query = join()
	slices.SortFunc(all, func(a, b parameter) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	if other = join(); other == query {
		other = ""
	}
	return query, other, nil
}

// presigned reports whether a parameter of the query has to do with signing.
func presigned(raw string) bool {
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil && hasAmzPrefix(plain) {
			return true
		}
	}
	return false
}

func escaped(s string) string {
	var b bytes.Buffer
	writeEscaped(&b, s)
	return b.String()
}
