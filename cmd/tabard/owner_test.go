package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
)

// M17: ./tabard-data of somebody else does not decide where secrets that are typed go. A directory that was named does:
// who names it trusts it.
func TestM17_ForeignDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tabard-data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{daemon.EndpointPath(dir): "http://127.0.0.1:1", daemon.RegionPath(dir): "us-east-1"} {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	find := func(named string) (location, error) {
		f := finder{dataDir: named, env: func(string) string { return "" }}
		t.Chdir(filepath.Dir(dir))
		return f.find()
	}
	if _, err := find(""); err != nil {
		t.Fatalf("one's own: %v", err)
	}
	refused := func(what, want string) {
		t.Helper()
		if where, err := find(""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v", what, where.url, err)
		}
		if _, err := find(dir); err != nil {
			t.Errorf("%s, named: %v", what, err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	refused("writable by others", "can be written by others")
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Log("only root can give a directory away: the owner is not tested")
		return
	}
	real := dir + "-elsewhere" // one's own, until the owner of the link turns it
	if err := os.Rename(dir, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := find(""); err != nil {
		t.Errorf("one's own link: %v", err)
	}
	if err := os.Lchown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	refused("a link of another user", "is a link of another user (uid 65534)")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(real, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	refused("of another user", "belongs to another user (uid 65534)")
	if _, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: dir}); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("a server started in it: %v", err)
	}
}
