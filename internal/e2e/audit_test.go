package e2e_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/audit"
	"github.com/tabard-id/tabard/internal/daemon"
)

// TestG04_KillDuringLoad kills the real server while it releases secrets; chaos/ says what must hold. Longer:
// go run ./chaos -tabard bin/tabard -dir /tmp/chaos -for 10m, which make verify does for a minute on each engine.
func TestG04_KillDuringLoad(t *testing.T) {
	tabard, chaos := binary(t), filepath.Join(t.TempDir(), "chaos")
	goCommand(t, "build", "-o", chaos, "./chaos")
	length := "6s"
	if long := os.Getenv("TABARD_TEST_CHAOS"); long != "" {
		length = long
	}
	engines(t, func(t *testing.T, db string) {
		out, err := exec.CommandContext(t.Context(), chaos, "-tabard", tabard, "-db", db, "-dir", filepath.Join(t.TempDir(), "chaos"), "-for", length).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
	})
}

// collector is an HTTPS sink's other end. While it is down it answers 503.
type collector struct {
	down  atomic.Bool
	mu    sync.Mutex // guards lines
	lines []audit.Line
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || c.down.Load() || r.Header.Get("Authorization") != "Bearer sink-canary" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	for line := range bytes.Lines(body) {
		var l audit.Line
		if err := json.Unmarshal(line, &l); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		c.lines = append(c.lines, l)
		c.mu.Unlock()
	}
}

func (c *collector) has(requestID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		if l.Record != nil && l.Record.RequestID == requestID {
			return true
		}
	}
	return false
}

// The trail reaches a file and a collector; a dead collector is loud and delays nothing, and gets what it missed. What
// the file has verifies by itself.
func TestAuditSinks(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		c := &collector{}
		c.down.Store(true)
		peer := httptest.NewServer(c)
		t.Cleanup(peer.Close)
		dir := t.TempDir()
		file, kept, token := filepath.Join(dir, "trail.jsonl"), filepath.Join(dir, "kept"), filepath.Join(dir, "token")
		must(t, os.WriteFile(token, []byte("sink-canary\n"), 0o600))
		w := newWorld(t, db, func(c *daemon.Config) {
			c.AuditSinks, c.AuditSinkTokenFile, c.AuditCheckpointFile = []string{"file:" + file, peer.URL + "/audit"}, token, kept
			c.AdminAddr = "127.0.0.1:0"
		})
		w.principal("bot", "calendar-agent", "agent")
		if !eventually(20*time.Second, func() bool { return strings.Contains(w.logs.String(), "an audit sink does not take records") }) {
			t.Error("nobody was told of a dead sink")
		}
		health := page(t, "GET", w.server.AdminURL()+"/health").body
		if !strings.Contains(health, "audit sink 2 (https)") || !strings.Contains(health, "answered 503") {
			t.Errorf("health: %s", health)
		}
		if got := page(t, "GET", w.server.URL()+"/readyz").status; got != http.StatusOK {
			t.Errorf("a dead sink makes the server unready: %d", got)
		}
		if m := page(t, "GET", w.server.AdminURL()+"/metrics").body; !strings.Contains(m, `tabard_audit_sink_up{kind="https",sink="2"} 0`) {
			t.Error("the metric of a dead sink does not say so")
		}
		c.down.Store(false)
		_, out := w.tabard(root(), "ListAuditRecords", map[string]any{"operation": "CreatePrincipal"})
		made := out["records"].([]any)[0].(map[string]any)["requestId"].(string)
		if !eventually(20*time.Second, func() bool { return c.has(made) }) {
			t.Error("the collector did not get what it missed")
		}
		status, out := w.tabard(root(), "CreateAuditCheckpoint", map[string]any{})
		if status != 200 {
			t.Fatalf("CreateAuditCheckpoint: %d %v", status, out)
		}
		checkpoint := out["checkpoint"].(map[string]any)["token"].(string)
		if doc, err := os.ReadFile(kept); err != nil || !strings.HasSuffix(string(doc), checkpoint+"\n") {
			t.Errorf("the checkpoint is not where the database does not reach: %v", err)
		}
		hash := audit.HashOf(checkpoint) // the log shows which token was signed, and no token
		if log := w.logs.String(); !strings.Contains(log, `"sha256":"`+hex.EncodeToString(hash[:])+`"`) || strings.Contains(log, checkpoint) {
			t.Error("the log does not name the checkpoint by its hash alone")
		}
		if !eventually(20*time.Second, func() bool {
			doc, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(doc), checkpoint)
		}) {
			t.Fatal("the file did not get the checkpoint")
		}
		verifyFile(t, file, checkpoint, page(t, "GET", w.server.URL()+"/tabard/audit-keys.json").body)
	})
}

// verifyFile verifies what a sink wrote, and that a change of it is found.
func verifyFile(t *testing.T, file, checkpoint, keys string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	doc, err := os.ReadFile(file)
	must(t, err)
	for _, changed := range []bool{false, true} {
		if changed {
			doc = bytes.Replace(doc, []byte(`"principal":"root"`), []byte(`"principal":"toor"`), 1)
		}
		s, err := audit.NewSegments(checkpoint, []byte(keys))
		must(t, err)
		must(t, s.Scan(bytes.NewReader(doc)))
		must(t, s.Begin())
		must(t, s.Records(bytes.NewReader(doc), func(int64) {}))
		if v := s.End(); v.Sound() == changed || v.Checked == 0 {
			t.Errorf("changed %v: %d records, %v", changed, v.Checked, v.Findings)
		}
	}
}

// Reading the trail ends, although each read adds a record; what is read has all that its hash covers.
func TestAuditReadingEnds(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	for i := range 5 {
		w.principal(fmt.Sprint("bot", i), "calendar-agent", "agent")
	}
	seen, next := 0, ""
	for pages := 0; ; pages++ {
		in := map[string]any{"maxResults": 3}
		if next != "" {
			in["nextToken"] = next
		}
		_, out := w.tabard(root(), "ListAuditRecords", in)
		for _, r := range out["records"].([]any) {
			if r := r.(map[string]any); r["previousHash"] == "" || r["account"] == "" {
				t.Errorf("a record lacks what was hashed: %v", r)
			}
			seen++
		}
		if next, _ = out["nextToken"].(string); next == "" {
			break
		}
		if pages > 50 {
			t.Fatal("reading does not end")
		}
	}
	if seen < 10 {
		t.Errorf("got %d records, want 10 at least", seen)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
