package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// binary builds the command.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tabard")
	goCommand(t, "build", "-o", path, "./cmd/tabard")
	return path
}

// TestG01_CanaryTheProcess runs the real command on PostgreSQL with its secrets in files, and searches what others on
// the machine can see of it: arguments, environment, output, the data directory; and what it says when it cannot start.
func TestG01_CanaryTheProcess(t *testing.T) {
	tabard, dir := binary(t), t.TempDir()
	u, err := url.Parse(peer.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	password, rootKey := rand.Text(), rand.Text()+rand.Text()
	u.User = url.UserPassword(u.User.Username(), password)
	tr := &trap{}
	tr.know(t, "database password", password)
	tr.know(t, "root key", rootKey)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data := filepath.Join(dir, "data")
	environ := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TABARD_DB_FILE=" + file("db", u.String()), "TABARD_ROOT_ACCESS_KEY_ID=" + rootID,
		"TABARD_ROOT_SECRET_ACCESS_KEY_FILE=" + file("root", rootKey)}
	cmd := exec.Command(tabard, "serve", "--addr", "127.0.0.1:0", "--data-dir", data)
	stdout, stderr := &buffer{}, &buffer{}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, environ, stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	up := eventually(20*time.Second, func() bool {
		at, err := daemon.ReadLine(daemon.EndpointPath(data))
		return err == nil && at != "" && page(t, "GET", at+"/readyz").status == http.StatusOK || len(ended) > 0
	})
	seeProcess(t, tr, cmd.Process.Pid)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil || !up {
		t.Fatalf("tabard serve: up %v, %v\n%s%s", up, err, stdout, stderr)
	}
	serverKey, err := daemon.ReadLine(filepath.Join(data, "key"))
	if err != nil {
		t.Fatal(err)
	}
	tr.know(t, "server key", serverKey)
	tr.saw("standard output", stdout.String())
	tr.saw("standard error", stderr.String())
	seeFiles(t, tr, data)
	if !strings.Contains(stdout.String(), "listening") {
		t.Errorf("no start-up lines: %s", stdout)
	}
	badDatabases(t, tr, tabard, u, password, environ)
	for _, leak := range tr.leaks() {
		t.Error(leak)
	}
}

// seeFiles keeps every file of a data directory but the key.
func seeFiles(t *testing.T, tr *trap, data string) {
	t.Helper()
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "key" {
			return err
		}
		doc, err := os.ReadFile(path)
		tr.saw("the file "+d.Name(), string(doc))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// seeProcess keeps what every user of the machine, and every other process of this one, can read of a process.
func seeProcess(t *testing.T, tr *trap, pid int) {
	t.Helper()
	for _, name := range []string{"cmdline", "environ"} {
		doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil || !bytes.Contains(bytes.ToLower(doc), []byte("tabard")) {
			t.Errorf("/proc/…/%s: %q %v", name, doc, err)
		}
		tr.saw("/proc/…/"+name, string(doc))
	}
}

// badDatabases keeps what a server says that cannot open its database.
func badDatabases(t *testing.T, tr *trap, tabard string, u *url.URL, password string, environ []string) {
	t.Helper()
	dir := t.TempDir()
	for what, db := range map[string]string{
		"nothing listens": "postgres://tabard:" + password + "@127.0.0.1:1/x", "no such database": strings.Replace(u.String(), u.Path, "/nothing", 1),
		"not a URL": "postgres://tabard:" + password + "@127.0.0.1:port/x", "another scheme": "mysql://tabard:" + password + "@127.0.0.1/x",
		"an unknown parameter": u.String() + "&passwrd=" + password,
	} {
		path := filepath.Join(dir, "db")
		if err := os.WriteFile(path, []byte(db), 0o600); err != nil {
			t.Fatal(err)
		}
		tr.saw("the refusal where "+what, refusedStart(t, tabard, dir, append(environ, "TABARD_DB_FILE="+path)))
	}
}

// refusedStart runs a server that cannot start, and returns what it says.
func refusedStart(t *testing.T, tabard, dir string, environ []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, tabard, "serve", "--addr", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "other"))
	cmd.Dir, cmd.Env = dir, environ
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok || len(out) == 0 {
		t.Errorf("tabard serve: %v %s; want a refusal", err, out)
	}
	return string(out)
}
