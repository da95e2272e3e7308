package sidecar

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/tabard-id/tabard/internal/secret"
)

// socketScheme is the subprotocol in which AWS's SDKs carry the user's JWT where a browser opens a WebSocket, which can
// set no header but that: "base64UrlBearerAuthorization.TOKEN, base64UrlBearerAuthorization".
const (
	socketScheme    = "base64UrlBearerAuthorization"
	socketProtocols = "Sec-WebSocket-Protocol"
)

// isWebSocket reports whether a request opens a WebSocket (RFC 6455 §4.1), and asks for no other protocol besides.
func isWebSocket(r *http.Request) bool {
	to := r.Header.Values("Upgrade")
	if r.Method != http.MethodGet || len(to) != 1 || !strings.EqualFold(to[0], "websocket") {
		return false
	}
	for _, line := range r.Header.Values("Connection") {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(option), "Upgrade") {
				return true
			}
		}
	}
	return false
}

// socketToken returns the JWT among the subprotocols that are offered, and whether there is one.
func socketToken(r *http.Request) (secret.Text, bool, error) {
	if !isWebSocket(r) {
		return secret.Text{}, false, nil
	}
	var found secret.Text
	for _, p := range offered(r.Header) {
		encoded, ok := strings.CutPrefix(p, socketScheme+".")
		if !ok {
			continue
		}
		token, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil || len(token) == 0 || !found.IsZero() {
			return secret.Text{}, true, badToken("the subprotocols have no token, or more than one, of the form " + socketScheme + ".TOKEN")
		}
		found = secret.New(string(token))
	}
	return found, !found.IsZero(), nil
}

func offered(h http.Header) []string {
	var all []string
	for _, line := range h.Values(socketProtocols) {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" {
				all = append(all, p)
			}
		}
	}
	return all
}

// withoutSocketToken takes the token and the name of its scheme from the subprotocols, which leaves those of the agent.
func withoutSocketToken(h http.Header) {
	var rest []string
	all := offered(h)
	for _, p := range all {
		if p != socketScheme && !strings.HasPrefix(p, socketScheme+".") {
			rest = append(rest, p)
		}
	}
	switch {
	case len(rest) == 0:
		h.Del(socketProtocols)
	case len(rest) < len(all):
		h.Set(socketProtocols, strings.Join(rest, ", "))
	}
}

// acceptScheme selects the scheme where the client offered it and the agent selected nothing: a browser closes a
// connection for which none of its subprotocols was selected (RFC 6455 §4.1).
func acceptScheme(resp *http.Response, r *http.Request) {
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get(socketProtocols) != "" {
		return
	}
	for _, p := range offered(r.Header) {
		if p == socketScheme {
			resp.Header.Set(socketProtocols, socketScheme)
		}
	}
}
