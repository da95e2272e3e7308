package daemon_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/secret"
)

// The root key is made once for a database. A server that finds the database without its credentials file makes no
// second one behind the operator's back; a key given by the operator is the way back in.
func TestRootKeyIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	start := func(change func(*daemon.Config)) string {
		t.Helper()
		var out bytes.Buffer
		c := daemon.Config{Addr: "127.0.0.1:0", DataDir: dir, Out: &out}
		change(&c)
		s, err := daemon.New(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		return out.String()
	}
	none := func(*daemon.Config) {}
	file := daemon.CredentialsPath(dir)
	if out := start(none); !strings.Contains(out, file+" (new)") {
		t.Errorf("first start: got\n%s\nwant the credentials file announced as new", out)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("credentials file: %v %v, want mode 0600", info.Mode(), err)
	}
	start(none)
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, first) {
		t.Errorf("the second start changed the credentials file (%v)", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if out := start(none); !strings.Contains(out, "made at the first start") {
		t.Errorf("start without the file: got\n%s\nwant a line that says where the root key was made", out)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a start without the file made another root key")
	}
	start(func(c *daemon.Config) {
		c.RootAccessKeyID, c.RootSecretAccessKey = "TABARDGIVENGIVEN0000", secret.New("a-given-secret-of-forty-characters-or-so")
	})
}
