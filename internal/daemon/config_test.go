package daemon_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/identity"
)

// flags makes sources of pairs of a name and a value.
func flags(pairs ...string) daemon.Sources {
	m := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return daemon.Sources{Flags: m}
}

func TestContradictionsAreRefused(t *testing.T) {
	refusedBy(t, flags("account", "12345"), "account", "12 digits")
	refusedBy(t, flags("region", "Europe"), "region")
	refusedBy(t, flags("tls-cert", "c"), "tls-cert and tls-key go together")
	refusedBy(t, flags("tls-key", "k"), "tls-cert and tls-key go together")
	refusedBy(t, flags("tls-cert", "c", "tls-key", "k", "behind-tls-proxy", "true"), "tls-cert and behind-tls-proxy contradict each other")
	refusedBy(t, flags("addr", "8180"), "addr", "host:port")
}

func TestL04_ListeningBeyondLoopback(t *testing.T) {
	inside := []string{"127.0.0.1:0", "127.8.9.1:0", "[::1]:0", "localhost:0"}
	outside := []string{"0.0.0.0:0", "[::]:0", ":8180", "192.0.2.1:8180", "tabard.example.com:8180", "127.0.0.1.example.com:80"}
	for _, addr := range inside {
		load(t, flags("addr", addr))
		load(t, flags("addr", addr, "dev", "true"))
		load(t, flags("admin-addr", addr))
	}
	for _, addr := range outside {
		refusedBy(t, flags("addr", addr), "credentials in clear", "--tls-cert", "--behind-tls-proxy")
		refusedBy(t, flags("addr", addr, "dev", "true"), "--dev", "loopback only")
		refusedBy(t, flags("addr", addr, "dev", "true", "tls-cert", "c", "tls-key", "k"), "--dev", "loopback only")
		refusedBy(t, flags("addr", addr, "dev", "true", "behind-tls-proxy", "true"), "--dev", "loopback only")
		refusedBy(t, flags("admin-addr", addr), "admin-addr", "not on loopback")
		load(t, flags("addr", addr, "public-url", "https://tabard.example.com", "tls-cert", "c", "tls-key", "k"))
		load(t, flags("addr", addr, "public-url", "https://tabard.example.com", "behind-tls-proxy", "true"))
	}
}

func TestPublicURL(t *testing.T) {
	for given, want := range map[string]string{
		"https://tabard.example.com": "https://tabard.example.com", "https://tabard.example.com/": "https://tabard.example.com",
		"https://tabard.example.com:8443": "https://tabard.example.com:8443", "http://127.0.0.1:8180": "http://127.0.0.1:8180", "http://localhost:8180": "http://localhost:8180",
	} {
		if got := load(t, flags("public-url", given)).PublicURL; got != want {
			t.Errorf("--public-url %s: PublicURL = %q, want %q", given, got, want)
		}
	}
	for _, bad := range []string{
		"tabard.example.com", "ftp://tabard.example.com", "https://", "https://tabard.example.com/tabard", "https://tabard.example.com?x=1",
		"https://tabard.example.com#x", "https://user@tabard.example.com", "https://tabard.example.com:port",
	} {
		refusedBy(t, flags("public-url", bad), "public-url", "nothing more")
	}
	refusedBy(t, flags("public-url", "http://tabard.example.com"), "public-url", "must be https")
	// The default would be a URL that leads nowhere, or past the proxy.
	for _, addr := range []string{":8443", "0.0.0.0:8443", "[::]:8443"} {
		refusedBy(t, flags("addr", addr, "tls-cert", "c", "tls-key", "k"), "--public-url")
	}
	refusedBy(t, flags("addr", "127.0.0.1:8180", "behind-tls-proxy", "true"), "--public-url")
	load(t, flags("addr", "tabard.example.com:8443", "tls-cert", "c", "tls-key", "k"))
}

// New checks by itself, because not every Config comes from Load, and before anything is made.
func TestNewChecksBeforeItMakesAnything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	srv, err := daemon.New(t.Context(), daemon.Config{Addr: "0.0.0.0:0", DataDir: dir, Dev: true})
	if err == nil {
		srv.Close()
		t.Fatal("New in development mode on 0.0.0.0 succeeded")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("New made the data directory of a configuration that it refused")
	}
}

func TestL04_PlainHTTPIssuerIsRefused(t *testing.T) {
	for _, tt := range []struct {
		url string
		dev bool
		ok  bool
	}{
		{"http://127.0.0.1:9000", false, false},
		{"http://127.0.0.1:9000", true, true},
		{"http://idp.example.com", true, false},
		{"https://idp.example.com", false, true},
	} {
		srv, err := daemon.New(t.Context(), daemon.Config{
			Addr: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "data"), Dev: tt.dev, Issuers: []identity.Issuer{{URL: tt.url, Audiences: []string{"a"}, FromConfig: true}},
		})
		if err == nil {
			srv.Close()
		}
		if (err == nil) != tt.ok {
			t.Errorf("issuer %s, dev %v: %v; want success: %v", tt.url, tt.dev, err, tt.ok)
		}
	}
}

func TestStartTellsWhereItAnswers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for range 2 { // the second start, on another port, replaces what the first wrote
		srv, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: dir, Region: "eu-west-1"})
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{daemon.EndpointPath(dir): srv.URL(), daemon.RegionPath(dir): "eu-west-1"} {
			got, err := daemon.ReadLine(path)
			if err != nil || got != want {
				t.Errorf("%s has %q, %v; want %q", path, got, err, want)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v, %v; want 0600", path, info.Mode(), err)
			}
		}
		srv.Close()
	}
	if _, err := daemon.ReadLine(daemon.EndpointPath(dir)); err != nil {
		t.Errorf("after a stop: %v; want the file to stay", err)
	}
}

func TestFailedStartSaysNoEndpoint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	srv, err := daemon.New(t.Context(), daemon.Config{Addr: taken.Addr().String(), DataDir: dir})
	if err == nil {
		srv.Close()
		t.Fatal("New on an address that is taken succeeded")
	}
	if _, err := daemon.ReadLine(daemon.EndpointPath(dir)); err == nil {
		t.Error("a start that failed says where it answers")
	}
}

// Faults carry codes for programs; who starts a server reads a sentence.
func TestStartErrorsAreSentences(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	srv, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	second, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: dir})
	if err == nil {
		second.Close()
		t.Fatal("a second server on the same data directory started")
	}
	if !strings.HasPrefix(err.Error(), "another server uses the data directory") {
		t.Errorf("a second server: %q, want a sentence", err)
	}
}

// The data directory and everything in it is its owner's alone, and no start leaves a half-written file.
func TestFilesOfTheDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	srv, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	var names []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v: others can read it", path, info.Mode())
		}
		names = append(names, d.Name())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"key", "credentials", "endpoint", "region", "tabard.db"} {
		if !slices.Contains(names, name) {
			t.Errorf("the data directory has %q, without %s", names, name)
		}
	}
	if i := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, ".new") || strings.HasPrefix(n, ".tabard-key") }); i >= 0 {
		t.Errorf("%s was left behind", names[i])
	}
}
