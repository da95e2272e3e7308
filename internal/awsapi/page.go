package awsapi

import (
	"encoding/base64"
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
)

// cursorPrefix tells our page tokens from other text, and their versions from each other.
const cursorPrefix = "1:"

// cursor encodes where the next page continues, "" for none.
func cursor(after string) string {
	if after == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + after))
}

// page decodes a page token and applies the default size.
func page(token string, size, most int) (after string, limit int, err error) {
	if size == 0 {
		size = most
	}
	if token == "" {
		return "", size, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) > 2200 || !strings.HasPrefix(string(b), cursorPrefix) {
		return "", 0, fault.Field("nextToken", "is not a token that this operation returned")
	}
	return string(b[len(cursorPrefix):]), size, nil
}
