package jws

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

var errBase64 = errors.New("not strict base64url")

// DecodeBase64 decodes base64url without padding, unused bits or line breaks (RFC 7515 §2), so that no two texts have
// the same bytes. encoding/base64 skips line breaks even when it is strict.
func DecodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errBase64
	}
	return b, nil
}

// decodeObject decodes one JSON object. Member names are compared as they are, a name that comes twice at any level
// is an error, numbers stay as they were written, and text that is not UTF-8 is refused: decoders turn it into U+FFFD,
// which would make two users one.
func decodeObject(b []byte) (map[string]any, error) {
	if !shallow(b) {
		return nil, errors.New("it is nested too deep")
	}
	if !utf8.Valid(b) {
		return nil, errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.SetNumberType(json.UnmarshalJSONNumber)
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, errors.New("it is no JSON object with distinct names")
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return m, nil
}

// shallow reports whether no array or object of the JSON text is deeper than maxDepth. It needs no stack.
func shallow(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}
