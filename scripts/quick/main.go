// Command quick runs the tests that need Go and nothing else, as go test ./... does, and says at the end which were
// skipped and why. A plain "ok" hides that half of the end-to-end tests want software that this machine may lack.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"./..."}
	}
	cmd := exec.Command("go", append([]string{"test", "-json", "-timeout", "15m"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quick:", err)
		os.Exit(1)
	}
	read(out, os.Stdout)
	if cmd.Wait() != nil {
		os.Exit(1)
	}
}

// skip is a test that was skipped.
type skip struct{ pkg, test, reason string }

// read prints what go test prints without -v: a line for each package, and what the tests that failed said. Then it
// prints the tests that were skipped, each with its reason.
func read(in io.Reader, out io.Writer) {
	said := map[string][]string{} // package and test → its output
	var skips []skip
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // of a build that failed
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "output":
			said[key] = append(said[key], e.Output)
		case "skip":
			if e.Test != "" {
				skips = append(skips, skip{e.Package, e.Test, reason(said[key])})
			} else {
				fmt.Fprintf(out, "?   \t%s\t[no test files]\n", e.Package)
			}
			delete(said, key)
		case "pass", "fail":
			if e.Action == "fail" || e.Test == "" {
				for _, l := range said[key] {
					if e.Test != "" || l != "PASS\n" && !strings.HasPrefix(l, "testing: warning:") {
						fmt.Fprint(out, l)
					}
				}
			}
			delete(said, key)
		}
	}
	if len(skips) == 0 {
		fmt.Fprintln(out, "\nquick: nothing was skipped")
		return
	}
	fmt.Fprintf(out, "\nquick: %d tests were skipped. make test installs what they need, as far as this machine lets it.\n", len(skips))
	slices.SortStableFunc(skips, func(a, b skip) int { return strings.Compare(a.pkg, b.pkg) })
	for i, s := range skips {
		if i == 0 || skips[i-1].pkg != s.pkg {
			fmt.Fprintln(out, s.pkg)
		}
		fmt.Fprintf(out, "    %s: %s\n", s.test, s.reason)
	}
}

// reason is what t.Skip was given: the last line of the test that names a place in the code.
func reason(said []string) string {
	for _, l := range slices.Backward(said) {
		if _, why, ok := strings.Cut(l, ".go:"); ok {
			if _, why, ok = strings.Cut(why, ": "); ok {
				return strings.TrimSpace(why)
			}
		}
	}
	return "it gives no reason"
}
