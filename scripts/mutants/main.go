// Command mutants takes protections out of the code, one at a time, and requires that the test named for each fails.
//
// table.txt names each by the row of docs/threat-model.md, the package, the function and the code that is changed, so
// that a moved file or line changes nothing. A mutant fails the run if its edit applies nowhere or more than once, if
// its test passes with it, or if its test fails without it.
//
// All edits are compiled into the test binaries at once, through go's -overlay, and TABARD_MUTANT switches one on. So a
// run compiles each package once, not once for each mutant. Constants, SQL and other files have a build of their own.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed table.txt
var table string

func main() {
	sample := flag.Int("sample", 0, "try only so many, cheap ones, chosen by --seed")
	seed := flag.Uint64("seed", 0, "seed of the sample (default: today's date)")
	only := flag.String("run", "", "try only those whose row, package, function or test has this text")
	parallel := flag.Int("p", 2, "tests and compilers at a time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, *sample, *seed, *only, *parallel)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, sample int, seed uint64, only string, parallel int) (bool, error) {
	root, err := moduleRoot()
	if err != nil {
		return false, err
	}
	mutants, err := parseTable(table)
	if err != nil {
		return false, err
	}
	mutants = slices.DeleteFunc(mutants, func(m mutant) bool {
		return !strings.Contains(strings.Join([]string{m.row, m.pkg, m.within, m.test}, " "), only)
	})
	if sample > 0 {
		if seed == 0 {
			y, month, d := time.Now().UTC().Date()
			seed = uint64(y*10000 + int(month)*100 + d)
		}
		mutants = choose(mutants, sample, seed)
		fmt.Printf("mutants: a sample of %d by seed %d (again: go run ./scripts/mutants -sample %d -seed %d)\n", len(mutants), seed, sample, seed)
	}
	if len(mutants) == 0 {
		return false, fmt.Errorf("nothing in table.txt has %q", only)
	}
	dir, err := os.MkdirTemp("", "tabard-mutants-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	l, err := newLab(root, dir, parallel, mutants)
	if err != nil {
		return false, err
	}
	results, err := l.run(ctx)
	if err != nil {
		return false, err
	}
	rows, missed := map[string]bool{}, 0
	for i, r := range results {
		rows[mutants[i].row] = true
		if !r.caught {
			missed++
			fmt.Printf("MISSED %s %s: %s\n", mutants[i].row, mutants[i].where(), mutants[i].edit())
		}
	}
	fmt.Printf("mutants: %d of %d rows, %d caught, %d missed\n", len(results), len(rows), len(results)-missed, missed)
	return missed == 0, nil
}

// costly are the packages whose tests start whole servers, or compile much.
func costly(pkg string) bool {
	return pkg == "." || pkg == "demo" || pkg == "internal/e2e" || pkg == "internal/daemon" || pkg == "cmd/tabard"
}

// choose draws a sample: as many as it can of one package's tests, then of the next, since building is what costs.
func choose(mutants []mutant, n int, seed uint64) []mutant {
	random := rand.New(rand.NewPCG(seed, 0))
	mutants = slices.DeleteFunc(slices.Clone(mutants), func(m mutant) bool { return m.alone() || costly(m.testPkg) })
	random.Shuffle(len(mutants), func(i, j int) { mutants[i], mutants[j] = mutants[j], mutants[i] })
	var out []mutant
	for len(out) < n && len(mutants) > 0 {
		pkg := mutants[0].testPkg
		mutants = slices.DeleteFunc(mutants, func(m mutant) bool {
			if m.testPkg != pkg {
				return false
			}
			if len(out) < n {
				out = append(out, m)
			}
			return true
		})
	}
	return out
}

// moduleRoot is the directory of go.mod, at or above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod at or above the working directory")
		}
		dir = up
	}
}
