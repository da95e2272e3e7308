package daemon

import (
	"context"
	"net/http"
	"time"

	"github.com/tabard-id/tabard/internal/signing"
)

// statements signs checkpoints as the statements that they are: their keys are published for ever, as checkpoints are
// kept for ever.
type statements struct{ signing *signing.Service }

// Sign implements audit.Signer.
func (s statements) Sign(ctx context.Context, typ string, claims map[string]any) (string, error) {
	return s.signing.State(ctx, typ, claims)
}

// Keys implements audit.Signer.
func (s statements) Keys(ctx context.Context) ([]byte, error) { return s.signing.StatementKeys(ctx) }

// Revoked implements audit.Signer.
func (s statements) Revoked(ctx context.Context) (map[string]time.Time, error) {
	return s.signing.RevokedStatementKeys(ctx)
}

// auditKeys publishes the keys that verify checkpoints and receipts: GET /tabard/audit-keys.json.
func (s *Server) auditKeys(w http.ResponseWriter, r *http.Request) {
	doc, err := s.signing.StatementKeys(r.Context())
	if err != nil {
		s.config.Log.Warn("the keys of statements", "error", err)
		plain(w, http.StatusServiceUnavailable, "not available")
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(append(doc, '\n'))
}
