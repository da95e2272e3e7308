package oauth

import (
	"fmt"
	"strings"
	"testing"
)

// M02: of scopes that cannot be kept nobody knows what they allow, and then nobody knows what the token may do.
func TestM02_ScopesThatCannotBeKept(t *testing.T) {
	var many []string
	for i := range maxScopes {
		many = append(many, fmt.Sprint("s", i))
	}
	for what, c := range map[string]struct {
		list []string
		kept int
	}{
		"as many as are kept": {many, maxScopes}, "one more": {append(many[:maxScopes:maxScopes], "admin"), 0},
		"one of them twice": {append(many[:maxScopes:maxScopes], "s0"), maxScopes}, "as long as one is": {[]string{"a", strings.Repeat("x", maxScope)}, 2},
		"one byte longer": {[]string{"a", strings.Repeat("x", maxScope+1)}, 0}, "what is no scope": {[]string{"a", "admin\u202e"}, 0}, "a quote": {[]string{"a", `"`}, 0},
	} {
		if got := scopeTokens(c.list); len(got) != c.kept || got == nil {
			t.Errorf("%s: %d are kept, want %d", what, len(got), c.kept)
		}
	}
}
