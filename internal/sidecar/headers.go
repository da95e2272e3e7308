package sidecar

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
)

// The headers in which the Runtime hands an agent its identity.
const (
	headerWAT       = "WorkloadAccessToken"
	headerReturnURL = "OAuth2CallbackUrl"
	headerSession   = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
	headerRequest   = "X-Amzn-Bedrock-AgentCore-Runtime-Request-Id"

	customPrefix = "X-Amzn-Bedrock-Agentcore-Runtime-Custom-" // canonical: a client's own, which the Runtime passes on
)

// stripIdentity removes what says, or could be taken to say, on whose behalf a request is. Frameworks differ in how
// they read names (WSGI and CGI read _ as -), so names are compared by their letters and digits alone.
func stripIdentity(h http.Header) {
	for name := range h {
		if isIdentity(name) {
			delete(h, name)
		}
	}
}

// stripFraming removes what a framework that reads _ as - could take for a second word on the body's length, or on
// where the request came from, of which the proxy has removed the first.
func stripFraming(h http.Header) {
	for name := range h {
		switch {
		case !strings.ContainsFunc(name, func(r rune) bool { return r != '-' && !isLetter(r) }):
		case strings.HasPrefix(letters(name), "xforwarded"), letters(name) == "contentlength", letters(name) == "transferencoding":
			delete(h, name)
		}
	}
}

// trailing is an answer's body. Where it ends, the answer gets its trailers.
type trailing struct {
	io.ReadCloser
	of *http.Response
}

// Read removes what names an identity from the trailers when there are some.
func (b trailing) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		stripIdentity(b.of.Trailer)
	}
	return n, err
}

func isIdentity(name string) bool {
	if rest, ok := strings.CutPrefix(name, customPrefix); ok && rest != "" {
		return false
	}
	plain := letters(name)
	switch plain {
	case "workloadaccesstoken", "oauth2callbackurl":
		return true
	}
	for _, prefix := range []string{"xamzbedrockagentcore", "xamznbedrockagentcore", "xtabard"} {
		if strings.HasPrefix(plain, prefix) {
			return true
		}
	}
	return false
}

// letters are the letters, small, and digits of a name.
func letters(name string) string {
	return strings.Map(func(r rune) rune {
		if !isLetter(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

func isLetter(r rune) bool {
	return 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9'
}

// session returns the client's session id, or a new one where it has none that AWS would take: one value of 33 to 256
// visible characters, in the header or, for a WebSocket, whose headers a browser cannot set, in the query.
func session(r *http.Request) string {
	v := r.Header.Values(headerSession)
	if len(v) == 0 && isWebSocket(r) {
		v = r.URL.Query()[headerSession]
	}
	if len(v) == 1 && len(v[0]) >= 33 && len(v[0]) <= 256 && !strings.ContainsFunc(v[0], func(r rune) bool { return r <= ' ' || r > '~' }) {
		return v[0]
	}
	return newID()
}

// newID is a random UUID (RFC 9562 §5.4), whose 36 characters are a valid session id too.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
