// Package storetest makes SQLite databases for tests. Migrating a new one takes most of a second under the race
// detector, so one is made for each test binary, and every test gets a copy of it.
package storetest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tabard-id/tabard/internal/store"
)

// Template is an empty database whose schema is up to date. The zero Template is ready; it is safe for concurrent use.
type Template struct {
	once sync.Once
	data []byte
	err  error
}

// New returns the path of a copy of its own, in a directory of its own, which goes with the test.
func (t *Template) New(tb testing.TB) string {
	tb.Helper()
	return t.In(tb, tb.TempDir())
}

// In is New in the given directory.
func (t *Template) In(tb testing.TB, dir string) string {
	tb.Helper()
	t.once.Do(func() { t.data, t.err = migrated(tb.TempDir()) })
	if t.err != nil {
		tb.Fatalf("the database that tests copy: %v", t.err)
	}
	path := filepath.Join(dir, "tabard.db")
	if err := os.WriteFile(path, t.data, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// migrated returns the bytes of a new database, closed in good order.
func migrated(dir string) ([]byte, error) {
	path := filepath.Join(dir, "template.db")
	db, err := store.Open(context.Background(), store.Config{SQLitePath: path})
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}
