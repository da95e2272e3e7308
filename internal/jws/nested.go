package jws

import (
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4/json"
)

// Nested returns a string, number or boolean inside the claims, the latter two as the token writes them. Its path is
// the names on the way, joined by '/': Kubernetes' kubernetes.io/serviceaccount/uid is the member uid of the member
// serviceaccount of the claim kubernetes.io. A name may have a '/' itself, as claims that are URLs do, so a path can be
// read in more than one way; ok is false where not exactly one of them leads somewhere, and where that is anything
// else.
func (c Claims) Nested(path string) (s string, ok bool) {
	var found []any
	walk(c.members, path, &found)
	if len(found) != 1 {
		return "", false
	}
	switch v := found[0].(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return string(v), true
	}
	return "", false
}

// walk collects what every reading of the path leads to. Each step takes at least one character of the path and one
// level of the object, whose depth Parse has bounded.
func walk(object map[string]any, path string, found *[]any) {
	if v, ok := object[path]; ok {
		*found = append(*found, v)
	}
	for i := 0; i < len(path) && len(*found) < 2; i++ {
		if path[i] != '/' {
			continue
		}
		if inner, ok := object[path[:i]].(map[string]any); ok {
			walk(inner, strings.TrimPrefix(path[i:], "/"), found)
		}
	}
}
