package peer_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

func TestScript_EventsAndEnvironment(t *testing.T) {
	const program = `
import json, os, sys
print("a plain sentence")
print(json.dumps({"event": "first", "home": os.environ["HOME"], "given": os.environ["GIVEN"], "seen": "AWS_PROFILE" in os.environ}))
sys.stderr.write("noise\n")
print(json.dumps({"event": "second"}))
print(json.dumps({"event": "third"}))
`
	path := filepath.Join(t.TempDir(), "program.py")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_PROFILE", "the developer's own")
	name, err := filepath.Rel(filepath.Join(peer.Root(t), "test", "python"), path)
	if err != nil {
		t.Fatal(err)
	}
	run := peer.Script{Name: name, Env: map[string]string{"GIVEN": "yes"}}.Start(t)
	e := run.Next(t, "first")
	if e.String("given") != "yes" || e["seen"] != false || e.String("home") == os.Getenv("HOME") {
		t.Errorf("the script's environment: %v", e)
	}
	run.Next(t, "second")
	if rest := run.Wait(t); len(rest) != 1 || rest[0].String("event") != "third" {
		t.Errorf("rest: %v", rest)
	}
	if run.Output() != "noise\n" {
		t.Errorf("stderr: %q", run.Output())
	}
}
