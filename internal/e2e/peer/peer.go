// Package peer starts other people's software for a test, and stops it again: PostgreSQL, the npm oidc-provider, Dex,
// Keycloak, the official Python clients, Chromium. The product never imports it.
//
// What a machine lacks skips the test with a sentence that names the remedy; where CI=true it fails the test instead,
// so that nothing goes untested unseen. Every process is tied to the test process by a pipe and ends with it, however
// it ends, and is stopped by its own process id only.
package peer

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The settings that name a peer by hand. Each wins over what is found on the machine.
const (
	envPostgres    = "TABARD_TEST_POSTGRES"     // postgres:// URL of a server where the user may create databases
	envPostgresBin = "TABARD_TEST_POSTGRES_BIN" // directory with initdb, pg_ctl and postgres
	envPython      = "TABARD_TEST_PYTHON"
	envNode        = "TABARD_TEST_NODE"
	envChromium    = "TABARD_TEST_CHROMIUM"
)

// Root returns the directory of go.mod, found upwards from the test's package.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test's directory")
		}
		dir = filepath.Dir(dir)
	}
}

// Python returns the interpreter of the virtual environment that holds boto3 and bedrock-agentcore.
func Python(t testing.TB) string {
	t.Helper()
	return first(t, "the Python environment test/.venv", os.Getenv(envPython),
		filepath.Join(Root(t), "test", ".venv", "bin", "python"))
}

// Node returns the node binary. The packages of test/package.json are installed.
func Node(t testing.TB) string {
	t.Helper()
	first(t, "the npm packages in test/node_modules",
		filepath.Join(Root(t), "test", "node_modules", "oidc-provider", "package.json"))
	return first(t, "node", os.Getenv(envNode), inPath("node"))
}

// Chromium returns a Chromium binary.
func Chromium(t testing.TB) string {
	t.Helper()
	return first(t, "Chromium", os.Getenv(envChromium), inPath("chromium"), inPath("chromium-browser"),
		inPath("google-chrome"), "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
}

// first returns the first of the paths that exists.
func first(t testing.TB, what string, paths ...string) string {
	t.Helper()
	for _, p := range paths {
		if p == "" {
			continue
		}
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	missing(t, what)
	return ""
}

func missing(t testing.TB, what string) {
	t.Helper()
	const remedy = "%s is not on this machine; `make test` installs it where it can"
	if os.Getenv("CI") == "true" {
		t.Fatalf(remedy+", and CI=true forbids to skip", what)
	}
	t.Skipf(remedy, what)
}

func inPath(name string) string {
	p, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return p
}
