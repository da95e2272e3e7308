package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
)

// process is a tabard serve of its own: the real binary, in a directory of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	dir  string
	url  string
	done chan error // its end
	once sync.Once
}

// Standard output and standard error of the process, as far as they are written.
func (p *process) stdout() string { return read(p.t, filepath.Join(p.dir, "stdout")) }
func (p *process) stderr() string { return read(p.t, filepath.Join(p.dir, "stderr")) }

// command returns a command line of the binary that sees only the given environment.
func command(ctx context.Context, dir string, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "tabard", args...)
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, quickExit}, env...)
	return cmd
}

// refused runs a command line that must fail, and returns its exit code and standard error.
func refused(t *testing.T, dir string, env []string, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := command(ctx, dir, env, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("tabard %s: %v; want a refusal", strings.Join(args, " "), err)
	}
	return exit.ExitCode(), stderr.String()
}

func start(t *testing.T, dir string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, dir: dir, done: make(chan error, 1)}
	p.cmd = command(context.Background(), dir, env, append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	stdout, stderr := create(t, filepath.Join(dir, "stdout")), create(t, filepath.Join(dir, "stderr"))
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	err := p.cmd.Start()
	if err = errors.Join(err, stdout.Close(), stderr.Close()); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(p.stop)
	ended := false
	eventually(func() bool {
		ended = len(p.done) > 0
		p.url, err = daemon.ReadLine(daemon.EndpointPath(filepath.Join(dir, daemon.DefaultDataDir)))
		return ended || err == nil && p.url != ""
	})
	if ended || p.url == "" {
		t.Fatalf("no start:\n%s%s", p.stdout(), p.stderr())
	}
	return p
}

// stop ends the server and waits for it.
func (p *process) stop() {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGINT) // it may have ended
		if err := <-p.done; err != nil {
			p.t.Errorf("tabard serve: %v\n%s", err, p.stderr())
		}
	})
}

func create(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t *testing.T, path string) string {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestL04_DevModeIsRefusedBeyondLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "example.com:0"} {
		for _, env := range [][]string{nil, {"TABARD_DEV=true"}} {
			dir := t.TempDir()
			args := []string{"serve", "--addr", addr}
			if env == nil {
				args = append(args, "--dev")
			}
			code, stderr := refused(t, dir, env, args...)
			if code != exitUsage || !strings.Contains(stderr, "listens on loopback only") {
				t.Errorf("--dev on %s (environment %v): exit %d, %q; want a refusal with exit %d", addr, env, code, stderr, exitUsage)
			}
			if exists(filepath.Join(dir, daemon.DefaultDataDir)) {
				t.Errorf("--dev on %s: the data directory was made before the refusal", addr)
			}
		}
	}
}

func TestL04_PlainHTTPIssuerNeedsDev(t *testing.T) {
	const entry = "issuers:\n  - issuer: %s\n    audiences: [app]\n"
	tests := []struct {
		issuer string
		dev    bool
		starts bool
	}{
		{"http://127.0.0.1:9000", false, false},
		{"http://127.0.0.1:9000", true, true},
		{"http://idp.example.com", false, false},
		{"http://idp.example.com", true, false},
		{"https://idp.example.com", false, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s dev=%v", strings.ReplaceAll(tt.issuer, "/", ""), tt.dev), func(t *testing.T) {
			dir := t.TempDir()
			args := []string{"--config", write(t, filepath.Join(dir, "tabard.yaml"), fmt.Sprintf(entry, tt.issuer))}
			if tt.dev {
				args = append(args, "--dev")
			}
			if tt.starts {
				start(t, dir, nil, args...).stop()
				return
			}
			code, stderr := refused(t, dir, nil, append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
			if code != exitFailed || !strings.Contains(stderr, "https") {
				t.Errorf("exit %d, %q; want a refusal that names https", code, stderr)
			}
		})
	}
}

func TestL05_DebugOnlyOnTheAdminListener(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, nil, "--admin-addr", "127.0.0.1:0")
	debugging := []string{"/metrics", "/health", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=2"}
	for _, path := range append(debugging, "/debug/vars", "/debug/pprof", "/debug/", "/admin", "/%6detrics", "//metrics") {
		status, body := get(t, p.url+path)
		if status != http.StatusNotFound || !strings.Contains(body, "there is no such operation") {
			t.Errorf("main listener, GET %s: %d %q; want 404 and nothing more", path, status, body)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := get(t, p.url+path); status != http.StatusOK || body != "ok\n" {
			t.Errorf("main listener, GET %s: %d %q; want 200 and ok", path, status, body)
		}
	}
	var admin string // the start-up lines come just after the endpoint file
	line := regexp.MustCompile(`(?m)^admin +(http://127\.0\.0\.1:[0-9]+) `)
	if !eventually(func() bool {
		if m := line.FindStringSubmatch(p.stdout()); m != nil {
			admin = m[1]
		}
		return admin != ""
	}) {
		t.Fatalf("no line says where the admin listener is:\n%s", p.stdout())
	}
	for _, path := range debugging {
		if status, _ := get(t, admin+path); status != http.StatusOK {
			t.Errorf("admin listener, GET %s: %d, want 200", path, status)
		}
	}
}

// listening returns the TCP ports of IPv4 that a process listens on.
func listening(t *testing.T, pid int) []int {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]bool{}
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && strings.HasPrefix(link, "socket:[") {
			ours[strings.Trim(link, "socket:[]")] = true
		}
	}
	doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	var ports []int
	for line := range strings.Lines(string(doc)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && ours[f[9]] { // 0A is LISTEN
			var port int
			if _, err := fmt.Sscanf(f[1][strings.Index(f[1], ":")+1:], "%X", &port); err != nil {
				t.Fatal(err)
			}
			ports = append(ports, port)
		}
	}
	return ports
}

func TestL05_AdminListenerIsOffByDefault(t *testing.T) {
	p := start(t, t.TempDir(), nil)
	if ports := listening(t, p.cmd.Process.Pid); len(ports) != 1 || p.url != fmt.Sprintf("http://127.0.0.1:%d", ports[0]) {
		t.Errorf("the server at %s listens on ports %v, want only its own", p.url, ports)
	}
	for _, addr := range []string{"0.0.0.0:0", ":9090", "192.0.2.1:9090"} {
		if code, stderr := refused(t, t.TempDir(), nil, "serve", "--addr", "127.0.0.1:0", "--admin-addr", addr); code != exitUsage || !strings.Contains(stderr, "not on loopback") {
			t.Errorf("--admin-addr %s: exit %d, %q; want a refusal", addr, code, stderr)
		}
	}
}

func TestL07_SecretsAreNotInProc(t *testing.T) {
	dir := t.TempDir()
	const rootKey = "tabard_ROOTKEYROOTKEYROOTKEYROOTKEYROOTKEY1"
	file := write(t, filepath.Join(dir, "root"), rootKey+"\n")
	p := start(t, dir, []string{"TABARD_ROOT_ACCESS_KEY_ID=TABARDROOTKEY0123456", "TABARD_ROOT_SECRET_ACCESS_KEY_FILE=" + file})
	serverKey, err := daemon.ReadLine(filepath.Join(dir, daemon.DefaultDataDir, "key"))
	if err != nil || serverKey == "" {
		t.Fatalf("the server's key: %q, %v", serverKey, err)
	}
	for _, name := range []string{"cmdline", "environ"} {
		doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(doc, []byte("tabard")) && !bytes.Contains(doc, []byte("TABARD")) {
			t.Fatalf("/proc/…/%s is not that of a server: %q", name, doc)
		}
		for what, value := range map[string]string{"root key": rootKey, "server's key": serverKey} {
			if bytes.Contains(doc, []byte(value)) {
				t.Errorf("/proc/…/%s holds the %s", name, what)
			}
		}
	}
	// The key is in use all the same.
	cmd := command(t.Context(), dir, []string{"AWS_ACCESS_KEY_ID=TABARDROOTKEY0123456", "AWS_SECRET_ACCESS_KEY=" + rootKey}, "principal", "list")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tabard principal list with the configured root key: %v\n%s", err, out)
	}
	p.stop()
	if strings.Contains(p.stdout(), "warning") {
		t.Errorf("a secret in a file gives a warning:\n%s", p.stdout())
	}
	for name, text := range map[string]string{"stdout": p.stdout(), "stderr": p.stderr()} {
		if strings.Contains(text, rootKey) || strings.Contains(text, serverKey) {
			t.Errorf("%s holds a secret", name)
		}
	}
}

func TestL07_SecretsInTheEnvironmentGiveAWarning(t *testing.T) {
	p := start(t, t.TempDir(), []string{"TABARD_ROOT_ACCESS_KEY_ID=TABARDROOTKEY0123456", "TABARD_ROOT_SECRET_ACCESS_KEY=tabard_ROOTKEYROOTKEYROOTKEYROOTKEYROOTKEY2"})
	p.stop()
	want := regexp.MustCompile(`(?m)^warning +TABARD_ROOT_SECRET_ACCESS_KEY holds a secret.*TABARD_ROOT_SECRET_ACCESS_KEY_FILE is safer$`)
	if !want.MatchString(p.stdout()) {
		t.Errorf("start-up lines have no warning:\n%s", p.stdout())
	}
	if strings.Contains(p.stdout()+p.stderr(), "ROOTKEYROOTKEY") {
		t.Error("the warning repeats the secret")
	}
}

func TestL07_SecretsAreNoArguments(t *testing.T) {
	tests := [][]string{
		{"--db", "postgres://tabard:hunter2@127.0.0.1/tabard"},
		{"--db=postgres://127.0.0.1/tabard?user=tabard&password=hunter2"},
		{"--db", "postgres://tabard:hunter2@127.0.0.1:port/tabard"}, // cannot be parsed
		{"--root-secret-access-key", "hunter2"},                     // no such flag
	}
	for _, args := range tests {
		code, stderr := refused(t, t.TempDir(), nil, append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
		if code != exitUsage {
			t.Errorf("serve %s: exit %d, want %d", args[0], code, exitUsage)
		}
		if strings.Contains(stderr, "hunter2") {
			t.Errorf("serve %s repeats the secret: %s", args[0], stderr)
		}
	}
}
