package identity_test

import (
	"path/filepath"
	"testing"

	"github.com/tabard-id/tabard/internal/store"
)

// openStore opens a real database, closed when the test ends.
func openStore(t testing.TB) database {
	t.Helper()
	db := ok(store.Open(t.Context(), store.Config{SQLitePath: filepath.Join(t.TempDir(), "tabard.db")}))(t)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}
