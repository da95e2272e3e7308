package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// variable tells a process which mutant is on; overlaid tells a test that reads the source what to read in its place.
const (
	variable = "TABARD_MUTANT"
	overlaid = "TABARD_MUTANT_OVERLAY"
)

// testTimeout bounds one test of one mutant. A mutant that hangs is not caught: a test should say what is wrong.
const testTimeout = 90 * time.Second

// lab builds and runs mutants below a temporary directory. The tree is read and never written.
type lab struct {
	root     string
	dir      string
	parallel int
	mutants  []mutant
	edits    []edit
}

// result is what came of one mutant.
type result struct {
	caught bool
	why    string // "caught", or why not
	took   time.Duration
}

// newLab finds the place of each mutant. Each one that has none, or several, is an error.
func newLab(root, dir string, parallel int, mutants []mutant) (*lab, error) {
	l := &lab{root: root, dir: dir, parallel: parallel, mutants: mutants}
	var errs []error
	for i, m := range mutants {
		e, err := place(root, m, i+1)
		errs = append(errs, err)
		l.edits = append(l.edits, e)
	}
	return l, errors.Join(errs...)
}

// run tries every mutant. The tests run once without any before that, and must pass.
func (l *lab) run(ctx context.Context) ([]result, error) {
	overlay, err := l.switchedOverlay()
	if err != nil {
		return nil, err
	}
	tests := map[string][]string{} // package → its tests
	for _, m := range l.mutants {
		if !slices.Contains(tests[m.testPkg], m.test) {
			tests[m.testPkg] = append(tests[m.testPkg], m.test)
		}
	}
	began := time.Now()
	if err := l.build(ctx, filepath.Join(l.dir, "bin"), overlay, slices.Sorted(maps.Keys(tests))...); err != nil {
		return nil, err
	}
	fmt.Printf("mutants: %d test binaries built in %s\n", len(tests), time.Since(began).Round(time.Second))

	var mu sync.Mutex
	unfit := map[string]string{} // test → why it cannot judge
	each(l.parallel, slices.Sorted(maps.Keys(tests)), func(pkg string) {
		for _, test := range tests[pkg] {
			passed, out := l.test(ctx, l.binary("bin", pkg), pkg, test, variable+"=0")
			why := ""
			switch {
			case !passed:
				why = "its test fails without the mutation:\n" + tail(out)
			case skipped(out, test):
				why = "its test is skipped: " + strings.TrimSpace(reason(out))
			case !strings.Contains(out, "--- PASS: "+strings.Split(test, "/")[0]+" "):
				why = "there is no such test"
			}
			mu.Lock()
			unfit[pkg+" "+test] = why
			mu.Unlock()
		}
	})
	results := make([]result, len(l.mutants))
	numbers := make([]int, len(l.mutants))
	for i := range numbers {
		numbers[i] = i
	}
	each(l.parallel, numbers, func(i int) {
		m := l.mutants[i]
		began := time.Now()
		if why := unfit[m.testPkg+" "+m.test]; why != "" {
			results[i] = result{why: why}
		} else {
			results[i] = l.try(ctx, i)
		}
		results[i].took = time.Since(began)
		l.print(i, results[i])
	})
	return results, ctx.Err()
}

// try runs the test of one mutant.
func (l *lab) try(ctx context.Context, i int) result {
	m := l.mutants[i]
	bin, env := l.binary("bin", m.testPkg), variable+"="+strconv.Itoa(i+1)
	if m.alone() {
		own := "own" + strconv.Itoa(i+1)
		overlay, err := l.ownOverlay(i)
		if err == nil && m.lint {
			env = overlaid + "=" + overlay
			if strings.HasSuffix(l.edits[i].file, ".go") {
				err = l.goCommand(ctx, "build", "-overlay", overlay, "./"+m.pkg)
			}
		} else if err == nil {
			err = l.build(ctx, filepath.Join(l.dir, own), overlay, m.testPkg)
			bin = l.binary(own, m.testPkg)
		}
		if err != nil {
			return result{why: "it does not compile: " + err.Error()}
		}
	}
	passed, out := l.test(ctx, bin, m.testPkg, m.test, env)
	switch {
	case passed:
		return result{why: "NOT caught"}
	case strings.Contains(out, "panic: test timed out"):
		return result{why: "the test hangs instead of failing"}
	}
	return result{caught: true, why: "caught"}
}

// build compiles the test binaries of packages to dir.
func (l *lab) build(ctx context.Context, dir, overlay string, packages ...string) error {
	for _, p := range packages {
		bin := filepath.Join(dir, binaryName(p))
		if err := os.MkdirAll(filepath.Dir(bin), 0o700); err != nil {
			return err
		}
		if err := l.goCommand(ctx, "test", "-c", "-p", strconv.Itoa(l.parallel), "-overlay", overlay, "-o", bin, "./"+p); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) goCommand(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, tail(string(out)))
	}
	return nil
}

// test runs one test and returns whether it passed, and what it printed.
func (l *lab) test(ctx context.Context, bin, pkg, test, env string) (bool, string) {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	cmd := exec.CommandContext(ctx, bin, "-test.run", strings.Join(parts, "/"), "-test.v", "-test.count=1", "-test.failfast",
		"-test.timeout="+testTimeout.String())
	cmd.Dir = filepath.Join(l.root, pkg)
	cmd.Env = append(os.Environ(), env)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd.Run() == nil, out.String()
}

func (l *lab) binary(build, pkg string) string { return filepath.Join(l.dir, build, binaryName(pkg)) }

func binaryName(pkg string) string {
	return strings.ReplaceAll(strings.ReplaceAll(pkg, "/", "-"), ".", "root") + ".test"
}

// switchedOverlay has every mutant that can be switched on.
func (l *lab) switchedOverlay() (string, error) {
	edits := map[string][]edit{}
	for i, m := range l.mutants {
		if !m.alone() {
			edits[l.edits[i].file] = append(edits[l.edits[i].file], l.edits[i])
		}
	}
	files := map[string][]byte{}
	for name, some := range edits {
		src, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		f, err := parse(name, src)
		if err != nil {
			return "", err
		}
		files[name] = switched(src, some)
		files[filepath.Join(filepath.Dir(name), "mutants_switches.go")] = switches(f.ast.Name.Name)
	}
	return l.overlay("switched", files)
}

// ownOverlay has one mutant and nothing else.
func (l *lab) ownOverlay(i int) (string, error) {
	src, err := os.ReadFile(l.edits[i].file)
	if err != nil {
		return "", err
	}
	return l.overlay("own"+strconv.Itoa(i+1), map[string][]byte{l.edits[i].file: applied(src, l.edits[i])})
}

// overlay writes the files, and the JSON that go's -overlay reads.
func (l *lab) overlay(name string, files map[string][]byte) (string, error) {
	dir := filepath.Join(l.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var o struct{ Replace map[string]string }
	o.Replace = map[string]string{}
	for i, file := range slices.Sorted(maps.Keys(files)) {
		to := filepath.Join(dir, strconv.Itoa(i)+"-"+filepath.Base(file))
		if err := os.WriteFile(to, files[file], 0o600); err != nil {
			return "", err
		}
		o.Replace[file] = to
	}
	b, err := json.MarshalIndent(o, "", "\t")
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, "overlay.json")
	return to, os.WriteFile(to, b, 0o600)
}

// print writes one line of the table.
func (l *lab) print(i int, r result) {
	m := l.mutants[i]
	fmt.Printf("%-4s %-7s %5.1fs  %s: %s\n%21s%s\n", m.row, map[bool]string{true: "caught", false: "MISSED"}[r.caught],
		r.took.Seconds(), m.where(), m.edit(), "", m.test)
	if !r.caught {
		fmt.Printf("%21stable.txt:%d: %s\n", "", m.line, r.why)
	}
}

// each calls do for all, some at a time.
func each[T any](parallel int, all []T, do func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, a := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(a)
		})
	}
	wg.Wait()
}

// skipped reports whether the test, or what is named below it, was skipped.
func skipped(out, test string) bool {
	return strings.Contains(out, "--- SKIP: "+test+" ")
}

// reason is the line that a skipped test printed.
func reason(out string) string {
	if m := regexp.MustCompile(`(?m)^ +\w+_test\.go:\d+: (.*)$`).FindStringSubmatch(out); m != nil {
		return m[1]
	}
	return tail(out)
}

// tail returns the last lines of an output.
func tail(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
