package daemon

import (
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/tabard-id/tabard/internal/consent"
)

// onlyCanonical sends a path that is not in its canonical form to where no operation is. A ServeMux would redirect to
// the canonical one, and its answer would repeat the query, which at the callback holds state and code. It would also
// take a percent-encoded letter for the letter, which a rule of a proxy in front of it does not (threat M20).
func onlyCanonical(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clean := path.Clean(r.URL.Path)
		if strings.HasSuffix(r.URL.Path, "/") && clean != "/" {
			clean += "/"
		}
		if clean != r.URL.Path || clean+"/" == consent.Prefix || encodesUnreserved(r.URL.RawPath) {
			r = r.Clone(r.Context())
			r.URL = &url.URL{Path: "/"}
		}
		next.ServeHTTP(w, r)
	})
}

// encodesUnreserved reports whether a path has an unreserved character (RFC 3986 §2.3) in percent-encoded form, which
// has the same meaning without (§6.2.2.2) and which no client of ours sends.
func encodesUnreserved(path string) bool {
	for i := 0; i+2 < len(path); i++ {
		if path[i] != '%' {
			continue
		}
		c, err := strconv.ParseUint(path[i+1:i+3], 16, 8)
		if err != nil || c < 0x80 && (unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c)) || strings.ContainsRune("-._~", rune(c))) {
			return true
		}
	}
	return false
}
