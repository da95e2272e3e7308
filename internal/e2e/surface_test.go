package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/daemon"
)

// listening returns the ports on which this process listens, from /proc: what the kernel says, not what we do.
func listening(t *testing.T) []string {
	t.Helper()
	own := map[string]bool{}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(fds) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this system has no /proc, so nobody can say what listens")
		}
		t.Skip("this system has no /proc")
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.Trim(to, "socket:[]")] = true
		}
	}
	var ports []string
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		doc, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(doc)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && own[f[9]] { // LISTEN
				var port int
				if _, err := fmt.Sscanf(f[1][strings.Index(f[1], ":")+1:], "%X", &port); err == nil {
					ports = append(ports, fmt.Sprint(port))
				}
			}
		}
	}
	return ports
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestF15_NothingListensThatWasNotAskedFor scans the process's own ports, and looks for the operator's surface on the
// main listener.
func TestF15_NothingListensThatWasNotAskedFor(t *testing.T) {
	before := listening(t)
	w := newBare(t, daemon.SQLite)
	for _, port := range listening(t) {
		if port != portOf(t, w.server.URL()) && !slices.Contains(before, port) {
			t.Errorf("the server listens on %s beside its address", port)
		}
	}
	operators := []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/vars", "/health", "/admin", "/-/metrics"}
	for _, path := range operators {
		if got := page(t, "GET", w.server.URL()+path); got.status != http.StatusNotFound || got.header.Get("X-Amzn-Errortype") != api.ExceptionUnknownOperation {
			t.Errorf("GET %s on the main listener: %d", path, got.status)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := page(t, "GET", w.server.URL()+path); got.status != http.StatusOK || strings.TrimSpace(got.body) != "ok" {
			t.Errorf("GET %s says more than ok: %d %q", path, got.status, got.body)
		}
	}
	with := newBare(t, daemon.SQLite, func(c *daemon.Config) { c.AdminAddr = "127.0.0.1:0" })
	if got := page(t, "GET", with.server.AdminURL()+"/metrics"); got.status != http.StatusOK {
		t.Errorf("metrics on the admin listener: %d", got.status)
	}
	if got := page(t, "GET", with.server.URL()+"/metrics"); got.status != http.StatusNotFound {
		t.Errorf("metrics on the main listener beside an admin listener: %d", got.status)
	}
}

// open are the operations that touch nothing, and so ask no more of a caller than a signature: they say that there is
// none of what they are for.
func open(op string) bool {
	return strings.Contains(op, "Payment") || strings.Contains(op, "ConsentPortal") || strings.Contains(op, "ResourcePolicy")
}

// TestF15_ControlOperationsAreRefused sends every operation of the models without a signature, and those that
// administer or inspect as an agent that policies permit nothing.
func TestF15_ControlOperationsAreRefused(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	agent := w.newcomer("agent", "calendar-agent")
	in := newInputs(t, nil)
	asAgent := 0
	for _, op := range api.Operations() {
		target, body := in.request(t, op.Name, op.Path, op.Name == api.OpCreateTrustedIssuer)
		r, err := http.NewRequestWithContext(t.Context(), op.Method, w.server.URL()+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if got := do(t, r); got.status != http.StatusForbidden && got.status != http.StatusTooManyRequests {
			t.Errorf("%s without a signature: %d %s", op.Name, got.status, got.body)
		}
		rule, _ := access.RuleOf(access.Action(op.Name))
		if rule.Paired != "" || rule.Anyone || open(op.Name) {
			continue
		}
		asAgent++
		if got := do(t, w.request(agent, op.Method, target, body)); got.status != http.StatusForbidden || got.header.Get("X-Amzn-Errortype") != api.ExceptionAccessDenied {
			t.Errorf("%s as an agent, with %s: %d %s", op.Name, body, got.status, got.body)
		}
	}
	if asAgent < 50 {
		t.Errorf("only %d operations were tried as an agent", asAgent)
	}
}
