package sidecar

import (
	"regexp"
	"strings"

	"github.com/tabard-id/tabard/internal/secret"
)

// tokens are JWTs and workload access tokens, wherever they stand in a text.
var tokens = regexp.MustCompile(`(eyJ|wat1\.)[A-Za-z0-9_-]{8,}[A-Za-z0-9_.=-]*`)

// mask returns a text of others with these secrets, and whatever looks like a token, replaced. Errors are such texts: a
// peer may quote what it was sent.
func mask(text string, known ...secret.Text) string {
	for _, k := range known {
		if !k.IsZero() {
			text = strings.ReplaceAll(text, k.Expose(), "[secret]")
		}
	}
	return tokens.ReplaceAllLiteralString(text, "[secret]")
}
