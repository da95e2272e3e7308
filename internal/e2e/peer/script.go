package peer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scriptPatience bounds one wait for a script: the official decorator alone sleeps 5 s before its first poll.
const scriptPatience = 90 * time.Second

// Script is a program under test/python or test/js that plays an agent's author: configured by environment only, it
// prints one JSON object a line with a member "event".
type Script struct {
	Name string            // threelo.py runs in Python, threelo.mjs in Node.js
	Args []string          // after the script's name
	Env  map[string]string // all that it gets, besides a path, an empty home and no metadata service
}

// Run is a started script.
type Run struct {
	events chan Event
	ended  chan error // closed after the process ended and its output was read
	stderr bytes.Buffer
}

// Event is one line of a script's output.
type Event map[string]any

// String returns a member that is a string, or "".
func (e Event) String(name string) string {
	s, _ := e[name].(string)
	return s
}

// AWSEnv is the environment that sends the AWS SDKs and bedrock-agentcore to a server at endpoint, with an access key.
// Settings of one script are added to it.
func AWSEnv(endpoint, region, accessKeyID, secretAccessKey string) map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL_BEDROCK_AGENTCORE":         endpoint,
		"AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL": endpoint,
		"AWS_ENDPOINT_URL_TABARD":                    endpoint,
		"BEDROCK_AGENTCORE_DP_ENDPOINT":              endpoint,
		"BEDROCK_AGENTCORE_CP_ENDPOINT":              endpoint,
		"AWS_REGION":                                 region,
		"AWS_ACCESS_KEY_ID":                          accessKeyID,
		"AWS_SECRET_ACCESS_KEY":                      secretAccessKey,
	}
}

// runtime returns what runs the script, and the script's path.
func (s Script) runtime(t testing.TB) (program, path string) {
	t.Helper()
	if filepath.Ext(s.Name) == ".mjs" {
		return Node(t), filepath.Join(Root(t), "test", "js", s.Name)
	}
	return Python(t), filepath.Join(Root(t), "test", "python", s.Name)
}

// Start runs the script with the Python of the virtual environment, or with node. It is killed when the test ends.
func (s Script) Start(t testing.TB) *Run {
	t.Helper()
	home := t.TempDir()
	program, path := s.runtime(t)
	cmd := exec.CommandContext(t.Context(), program, append([]string{path}, s.Args...)...)
	cmd.Dir = home
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + home, "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1",
		"AWS_EC2_METADATA_DISABLED=true",
	}
	for k, v := range s.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	r := &Run{events: make(chan Event, 1024), ended: make(chan error, 1)}
	cmd.Stderr = &r.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", s.Name, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.read(stdout)
		r.ended <- cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() { <-done }) // t.Context has ended by then and has killed a script that still runs
	return r
}

func (r *Run) read(stdout io.Reader) {
	defer close(r.events)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		// The official package prints plain sentences in some modes; only objects are events.
		if strings.HasPrefix(lines.Text(), "{") && json.Unmarshal(lines.Bytes(), &e) == nil {
			r.events <- e
		}
	}
}

// Next returns the next event of that kind, passing over others. The test fails if the script ends before, or prints
// an event "error" while another kind is awaited.
func (r *Run) Next(t testing.TB, kind string) Event {
	t.Helper()
	timeout := time.After(scriptPatience)
	for {
		select {
		case e, ok := <-r.events:
			switch {
			case !ok:
				err := <-r.ended
				t.Fatalf("the script ended before %q: %v\n%s", kind, err, &r.stderr)
			case e.String("event") == kind:
				return e
			case e.String("event") == "error":
				t.Fatalf("awaiting %q, the script failed: %v", kind, e)
			}
		case <-timeout:
			t.Fatalf("no %q from the script within %s", kind, scriptPatience)
		}
	}
}

// Wait lets the script end and returns all events not read yet. The test fails where the exit code is not zero.
func (r *Run) Wait(t testing.TB) []Event {
	t.Helper()
	timeout := time.After(scriptPatience)
	var rest []Event
	for {
		select {
		case e, ok := <-r.events:
			if ok {
				rest = append(rest, e)
				continue
			}
			if err := <-r.ended; err != nil {
				t.Fatalf("the script failed: %v\n%v\n%s", err, rest, &r.stderr)
			}
			return rest
		case <-timeout:
			t.Fatalf("the script did not end within %s", scriptPatience)
		}
	}
}

// Output returns what the script wrote to standard error. Call it after Wait.
func (r *Run) Output() string { return r.stderr.String() }
