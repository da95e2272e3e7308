package oauthtest

import (
	"net/http"
	"slices"
)

// Killed returns the tokens that were revoked, as type hint, colon and token, oldest first.
func (s *Server) Killed() []string { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.killed) }

// serveRevoke ends the family of a refresh token. A token that is unknown is revoked too (RFC 7009 §2.2).
func (s *Server) serveRevoke(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.authenticLocked(r) {
		reply(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	token := r.PostForm.Get("token")
	if family := s.families[token]; family != 0 {
		s.revoked[family] = true
	}
	s.killed = append(s.killed, r.PostForm.Get("token_type_hint")+":"+token)
	w.WriteHeader(http.StatusOK)
}
