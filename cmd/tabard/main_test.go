package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tabard": main})
}

// The scripts in testdata are what the command line promises. Each runs the real binary; servers listen on a free port
// of loopback, which the commands find in the data directory.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, quickExit, "ISSUER="+issuer())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor": waitFor, "mode": mode, "keyid": keyID, "sigterm": sigterm,
		},
	})
}

// issuer is the URL of an issuer that publishes metadata and nothing else.
var issuer = sync.OnceValue(func() string {
	var web *httptest.Server
	web = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/openid-configuration" {
			fmt.Fprintf(rw, `{"issuer":%q,"authorization_endpoint":"%[1]s/authorize","token_endpoint":"%[1]s/token","jwks_uri":"%[1]s/keys"}`, web.URL)
		}
	}))
	return web.URL
})

// quickExit keeps the race detector, where it is built in, from waiting a second at the end of each process.
const quickExit = "GORACE=atexit_sleep_ms=0"

// eventually polls until done says so, for 30 seconds at most.
func eventually(done func() bool) bool {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if done() {
			return true
		}
	}
	return false
}

// waitFor FILE [TEXT] waits until the file is there, not empty, and has the text.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: waitfor FILE [TEXT]")
	}
	want := []byte(strings.Join(args[1:], ""))
	if !eventually(func() bool {
		doc, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && len(doc) > 0 && bytes.Contains(doc, want)
	}) {
		ts.Fatalf("%s did not come, with %q in it", args[0], want)
	}
}

// mode PERM FILE checks who may read a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode PERM FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := info.Mode().Perm().String(); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// sigterm sends SIGTERM, which testscript's kill cannot, to the only background command.
func sigterm(ts *testscript.TestScript, neg bool, args []string) {
	running := ts.BackgroundCmds()
	if neg || len(args) > 0 || len(running) != 1 {
		ts.Fatalf("usage: sigterm, with one background command")
	}
	ts.Check(running[0].Process.Signal(syscall.SIGTERM))
}

// keyID FILE VARIABLE sets the variable to the access key id in a credentials file.
func keyID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keyid FILE VARIABLE")
	}
	_, after, ok := bytes.Cut([]byte(ts.ReadFile(args[0])), []byte("aws_access_key_id = "))
	id, _, whole := bytes.Cut(after, []byte("\n"))
	if !ok || !whole || len(id) == 0 {
		ts.Fatalf("%s has no access key id", args[0])
	}
	ts.Setenv(args[1], string(id))
}
