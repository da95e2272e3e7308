package identity_test

import (
	"testing"

	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
)

// migrated is what each test gets a copy of.
var migrated storetest.Template

// openStore opens a real database, closed when the test ends.
func openStore(t testing.TB) database {
	t.Helper()
	db := ok(store.Open(t.Context(), store.Config{SQLitePath: migrated.New(t)}))(t)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}
