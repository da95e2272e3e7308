package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestG05_H08_RevokedAuditKeyDrill is the drill of a stolen key of the trail over the wire: one call, and the trail
// of the account can be verified again, by the new key, with a sentence that says what is lost.
func TestG05_H08_RevokedAuditKeyDrill(t *testing.T) {
	for name, engine := range map[string]func(*testing.T) string{
		"SQLite": func(*testing.T) string { return daemon.SQLite }, "PostgreSQL": func(t *testing.T) string { return peer.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			w, _, _ := agents(t, engine(t))
			var kept struct {
				Checkpoint struct{ Token, CheckpointID string }
			}
			made := w.call(root(), "CreateAuditCheckpoint", map[string]any{})
			must(t, json.Unmarshal([]byte(made.body), &kept))
			w.call(root(), "RotateSigningKey", map[string]any{"purpose": "AUDIT", "revoke": true})
			if got := w.call(root(), "VerifyAudit", map[string]any{}).body; !strings.Contains(got, `"verified":true`) || !strings.Contains(got, "prove nothing") {
				t.Errorf("got %s", got)
			}
			if r := w.post(root(), "VerifyAudit", `{"checkpoint":"`+kept.Checkpoint.Token+`"}`); !strings.Contains(r.body, "was revoked at") {
				t.Errorf("by the old key: %d %s", r.status, r.body)
			}
			if got := w.call(root(), "ListAuditRecords", map[string]any{"operation": "RotateSigningKey"}).body; !strings.Contains(got, kept.Checkpoint.CheckpointID+", of key ") {
				t.Errorf("the record says %s", got)
			}
		})
	}
}
