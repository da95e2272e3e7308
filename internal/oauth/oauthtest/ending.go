package oauthtest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// ending is how a vendor takes revocations, where that is not RFC 7009 §2.1 at Revoke.
type ending struct {
	pattern             string // method and path
	kind                string // of token
	token               func(r *http.Request) string
	refused, dead, done said // not asked the vendor's way; of a token that is unknown or has ended; else
}

type said struct {
	status int
	body   any // nil for none
}

func (a said) write(w http.ResponseWriter) {
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	reply(w, a.status, a.body)
}

// serveEnding ends a token and the family that it is of. What it ended is in Killed.
func (s *Server) serveEnding(w http.ResponseWriter, r *http.Request) {
	e := s.manner.ends
	token := e.token(r)
	if token == "" {
		e.refused.write(w)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	family, known := s.issued[token]
	if e.kind == "refresh_token" {
		family, known = s.families[token]
	}
	if !known || s.ended[token] || s.revoked[family] {
		e.dead.write(w)
		return
	}
	s.ended[token] = true
	if family != 0 {
		s.revoked[family] = true
	}
	s.killed = append(s.killed, e.kind+":"+token)
	e.done.write(w)
}

func bearer(r *http.Request) string {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || r.ContentLength != 0 || r.Header.Get("Content-Type") != "" {
		return ""
	}
	return token
}

func endings() map[string]*ending {
	return map[string]*ending{
		"GithubOauth2": {
			pattern: "DELETE /applications/" + ClientID + "/grant", kind: "access_token",
			token: func(r *http.Request) string {
				var body map[string]string
				id, secret, _ := r.BasicAuth()
				b, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
				if err != nil || id != ClientID || secret != ClientSecret || json.Unmarshal(b, &body) != nil || len(body) != 1 {
					return ""
				}
				return body["access_token"]
			},
			refused: said{401, map[string]string{"message": "Bad credentials", "status": "401"}},
			dead:    said{404, map[string]string{"message": "Not Found", "status": "404"}},
			done:    said{204, nil},
		},
		"SlackOauth2": {
			pattern: "POST /api/auth.revoke", kind: "access_token", token: bearer,
			refused: said{200, map[string]any{"ok": false, "error": "not_authed"}},
			dead:    said{200, map[string]any{"ok": false, "error": "token_revoked"}},
			done:    said{200, map[string]any{"ok": true, "revoked": true}},
		},
		"DropboxOauth2": {
			pattern: "POST /2/auth/token/revoke", kind: "access_token", token: bearer,
			refused: said{400, "Error in call to API function"},
			dead:    said{401, map[string]any{"error_summary": "invalid_access_token/..", "error": map[string]string{".tag": "invalid_access_token"}}},
			done:    said{200, json.RawMessage("null")},
		},
		"FacebookOauth2": {
			pattern: "DELETE /v22.0/me/permissions", kind: "access_token", token: bearer,
			refused: said{400, map[string]any{"error": map[string]any{"message": "An access token is required", "type": "OAuthException", "code": 104}}},
			dead:    said{400, map[string]any{"error": map[string]any{"message": "The session was invalidated", "type": "OAuthException", "code": 190}}},
			done:    said{200, map[string]bool{"success": true}},
		},
		"NotionOauth2": {
			pattern: "POST /revoke", kind: "access_token",
			token: func(r *http.Request) string {
				_, _, basic := r.BasicAuth()
				if !basic || !authentic(r) || r.Header.Get("Notion-Version") == "" || len(r.PostForm) != 1 {
					return ""
				}
				return r.PostForm.Get("token")
			},
			refused: said{401, map[string]string{"error": "invalid_client"}},
			dead:    said{200, map[string]string{"request_id": "r1"}}, // not documented: RFC 7009's
			done:    said{200, map[string]string{"request_id": "r1"}},
		},
		"HubspotOauth2": {
			pattern: "POST /token/revoke", kind: "refresh_token",
			token: func(r *http.Request) string {
				if _, _, basic := r.BasicAuth(); basic || !authentic(r) || r.PostForm.Get("token_type_hint") != "refresh_token" {
					return ""
				}
				return r.PostForm.Get("token")
			},
			refused: said{401, map[string]string{"category": "VALIDATION_ERROR", "message": "Invalid input"}},
			dead:    said{200, nil}, // not documented: RFC 7009's
			done:    said{200, nil},
		},
	}
}
