package e2e_test

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestL05_NothingOfTheAdminListenerOnTheMainOne asks the main listener for every address of the admin listener, with
// and without the root key's signature, while the admin listener is on.
func TestL05_NothingOfTheAdminListenerOnTheMainOne(t *testing.T) {
	w := newBare(t, daemon.SQLite, func(c *daemon.Config) { c.AdminAddr = "127.0.0.1:0" })
	for _, path := range []string{
		"/metrics", "/health", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=2", "/debug/pprof/profile?seconds=1",
		"/debug/pprof/symbol", "/debug/pprof/trace", "/debug/vars", "/debug", "/%6detrics", "//metrics", "/./metrics", "/identities/../metrics", "/tabard/metrics", "/metrics/",
	} {
		for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "TRACE"} {
			for what, r := range map[string]reply{
				"unsigned": page(t, method, w.server.URL()+path), "signed": do(t, w.request(root(), method, path, "")),
			} {
				if r.status != http.StatusNotFound || r.header.Get("X-Amzn-Errortype") != "UnknownOperationException" || strings.Contains(r.body, "go_") || strings.Contains(r.body, "pprof") {
					t.Errorf("%s %s %s: %d %.200s; want 404 and nothing more", what, method, path, r.status, r.body)
				}
			}
		}
	}
	if r := page(t, "GET", w.server.AdminURL()+"/metrics"); r.status != http.StatusOK || !strings.Contains(r.body, "tabard_panics_total") {
		t.Errorf("the admin listener: %d %.200s", r.status, r.body)
	}
	if r := page(t, "GET", w.server.AdminURL()+"/identities/oauth2/authorize"); r.status != http.StatusNotFound {
		t.Errorf("the admin listener serves the API: %d", r.status)
	}
}

func TestL05_TheAdminListenerIsOffAndOnLoopback(t *testing.T) {
	if at := newBare(t, daemon.SQLite).server.AdminURL(); at != "" {
		t.Errorf("an admin listener nobody asked for, at %s", at)
	}
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "example.com:0"} {
		srv, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "data"), AdminAddr: addr})
		if err == nil {
			srv.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("admin-addr %s: %v; want a refusal", addr, err)
		}
	}
}

// TestM17_AdminListenerServesNoForeignPage asks the admin listener under names that an attacker can let point at this
// machine, and as a page of another origin would. What an operator and a scraper send is answered.
func TestM17_AdminListenerServesNoForeignPage(t *testing.T) {
	w := newBare(t, daemon.SQLite, func(c *daemon.Config) { c.AdminAddr = "127.0.0.1:0" })
	_, port, _ := strings.Cut(strings.TrimPrefix(w.server.AdminURL(), "http://"), ":")
	ask := func(path, host string, header ...string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.AdminURL()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return do(t, r).status
	}
	for _, path := range []string{"/metrics", "/health", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/cmdline"} {
		for _, host := range []string{"127.0.0.1:" + port, "localhost:" + port, "127.0.0.1", "[::1]:" + port} {
			if got := ask(path, host); got != http.StatusOK {
				t.Errorf("%s at %s: got %d", path, host, got)
			}
		}
		if got := ask(path, "127.0.0.1:"+port, "Sec-Fetch-Site", "none"); got != http.StatusOK {
			t.Errorf("%s typed into a browser: got %d", path, got)
		}
		for _, host := range []string{"evil.example:" + port, "127.0.0.1.evil.example", "localhost.evil.example:" + port, "evil.example", "0.0.0.0:" + port} {
			if got := ask(path, host); got != http.StatusForbidden {
				t.Errorf("%s at %s: got %d, want 403", path, host, got)
			}
		}
		for _, h := range [][]string{{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
			if got := ask(path, "127.0.0.1:"+port, h...); got != http.StatusForbidden {
				t.Errorf("%s with %v: got %d, want 403", path, h, got)
			}
		}
	}
}

// TestL05_HealthSaysOnlyYesOrNo takes away the key and then the store. The main listener says only that the server is
// not ready; the admin listener says why; both come back with what was taken.
func TestL05_HealthSaysOnlyYesOrNo(t *testing.T) {
	db := peer.Postgres(t)
	w := newBare(t, db, func(c *daemon.Config) { c.AdminAddr = "127.0.0.1:0" })
	w.wantReady(true, "")
	keyFile := filepath.Join(w.dataDir, "key")
	if err := os.Rename(keyFile, keyFile+".away"); err != nil {
		t.Fatal(err)
	}
	w.wantReady(false, "key")
	if err := os.Rename(keyFile+".away", keyFile); err != nil {
		t.Fatal(err)
	}
	w.wantReady(true, "")
	restore := w.loseStore(db)
	w.wantReady(false, "store")
	restore()
	w.wantReady(true, "")
}

// wantReady checks both listeners; part is what the admin listener must name.
func (w *world) wantReady(ready bool, part string) {
	t := w.t
	t.Helper()
	status, body := http.StatusOK, "ok\n"
	if !ready {
		status, body = http.StatusServiceUnavailable, "not ready\n"
	}
	var last reply
	if !eventually(2*time.Second, func() bool { // an answer may be a second old
		last = page(t, "GET", w.server.URL()+"/readyz")
		return last.status == status && last.body == body
	}) {
		t.Errorf("/readyz without %q: %d %q, want %d %q", part, last.status, last.body, status, body)
	}
	if r := page(t, "GET", w.server.URL()+"/healthz"); r.status != http.StatusOK || r.body != "ok\n" {
		t.Errorf("/healthz without %q: %d %q", part, r.status, r.body)
	}
	r := page(t, "GET", w.server.AdminURL()+"/health")
	if r.status != status {
		t.Errorf("/health without %q: %d %s", part, r.status, r.body)
	}
	for _, name := range []string{"key", "store"} {
		if fine := r.get(name) == "ok"; fine != (name != part) && part != "store" { // the key is wrapped in the store
			t.Errorf("/health without %q says of the %s: %q", part, name, r.get(name))
		}
	}
	if part != "" && r.get(part) == "ok" {
		t.Errorf("/health without the %s: %s", part, r.body)
	}
}

// loseStore ends all connections to the database and lets no new one in, until restore is called.
func (w *world) loseStore(db string) (restore func()) {
	w.t.Helper()
	u, err := url.Parse(db)
	if err != nil {
		w.t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	u.Path = "/postgres"
	run := func(sql ...string) {
		ctx := w.t.Context()
		conn, err := pgx.Connect(ctx, u.String())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range sql {
			_, e := conn.Exec(ctx, s)
			err = errors.Join(err, e)
		}
		if err = errors.Join(err, conn.Close(ctx)); err != nil {
			w.t.Fatal(err)
		}
	}
	quoted := pgx.Identifier{name}.Sanitize()
	run("ALTER DATABASE "+quoted+" WITH ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+name+"'") // our own name
	return func() { run("ALTER DATABASE " + quoted + " WITH ALLOW_CONNECTIONS true") }
}
