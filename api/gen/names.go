package main

import (
	"strings"
	"unicode"
)

// initialisms are the words that Go writes in capitals, as they occur in the models' member names.
var initialisms = map[string]string{
	"Id": "ID", "Ids": "IDs", "Url": "URL", "Urls": "URLs", "Uri": "URI", "Arn": "ARN", "Api": "API", "Json": "JSON",
	"Jwt": "JWT", "Jwks": "JWKS", "Kms": "KMS", "Ip": "IP", "Vpc": "VPC", "Cmk": "CMK",
}

// fieldName turns a wire name such as jwksUri into a Go name such as JWKSURI.
func fieldName(wire string) string {
	var out, word strings.Builder
	flush := func() {
		w := word.String()
		if up, ok := initialisms[w]; ok {
			w = up
		}
		out.WriteString(w)
		word.Reset()
	}
	for i, r := range wire {
		if i == 0 {
			r = unicode.ToUpper(r)
		} else if unicode.IsUpper(r) {
			flush()
		}
		word.WriteRune(r)
	}
	flush()
	return out.String()
}

// constantName turns an enum's value into the end of a Go name: IN_PROGRESS becomes InProgress, and what has a digit
// (RS256, M2M) or small letters stays.
func constantName(value string) string {
	var out strings.Builder
	for _, w := range strings.FieldsFunc(value, func(r rune) bool { return r == '_' || r == '-' }) {
		switch {
		case w == strings.ToUpper(w) && !strings.ContainsAny(w, "0123456789"):
			out.WriteString(w[:1] + strings.ToLower(w[1:]))
		default:
			out.WriteString(strings.ToUpper(w[:1]) + w[1:])
		}
	}
	if up, ok := initialisms[out.String()]; ok {
		return up
	}
	return out.String()
}
