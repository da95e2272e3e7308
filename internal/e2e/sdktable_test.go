package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// The columns of docs/compatibility-table.md.
const (
	suiteGo = "AWS SDK for Go v2"
	suitePy = "boto3"
	suiteJS = "AWS SDK for JavaScript v3"
)

// sdkTable says by suite and operation what was exercised.
type sdkTable map[string]map[string]bool

func sdkTablePath(t *testing.T) string {
	t.Helper()
	return filepath.Join(peer.Root(t), "docs", "compatibility-table.md")
}

// readSDKTable reads the committed table; no file is an empty table.
func readSDKTable(t *testing.T) sdkTable {
	t.Helper()
	table := sdkTable{suiteGo: {}, suitePy: {}, suiteJS: {}}
	text, err := os.ReadFile(sdkTablePath(t))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		name := strings.Trim(cells[1], " `")
		for i, suite := range []string{suiteGo, suitePy, suiteJS} {
			if strings.TrimSpace(cells[i+2]) == "yes" {
				table[suite][name] = true
			}
		}
	}
	return table
}

// String writes the table as the file has it.
func (table sdkTable) String() string {
	var b strings.Builder
	b.WriteString("# Which official client exercises which operation\n\n" +
		"Written by `UPDATE=1 go test ./internal/e2e -run 'TestSDKTable|EveryOperation|TabardClient'` from what the suites do; `make test`\n" +
		"fails where it is old. *yes*: a test calls the operation through that client, against a running server on SQLite and PostgreSQL,\n" +
		"and asserts what comes back; for some operations that is that they are refused. *no*: none does. compatibility.md says what\n" +
		"answers. The column of Go is read from the tests' source, the others from what their scripts reported. AWS's SDKs for Go and\n" +
		"JavaScript have no client of our own operations. compatibility-members.md goes on to the members.\n\n" +
		"| operation | " + suiteGo + " | " + suitePy + " | " + suiteJS + " |\n|---|---|---|---|\n")
	for _, op := range api.Operations() {
		fmt.Fprintf(&b, "| `%s` |", op.Name)
		for _, suite := range []string{suiteGo, suitePy, suiteJS} {
			switch {
			case table[suite][op.Name]:
				b.WriteString(" yes |")
			case op.Plane == api.PlaneTabard && suite != suitePy:
				b.WriteString(" has no client |")
			default:
				b.WriteString(" no |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// goInput finds an operation that a test calls through the AWS SDK for Go: the SDK has one input type for each.
var goInput = regexp.MustCompile(`\bbedrockagentcore(?:control)?\.(\w+)Input\{`)

// TestSDKTableIsCurrent holds the column of Go, from the tests' sources, and that the file has every operation.
func TestSDKTableIsCurrent(t *testing.T) {
	paths, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	called := map[string]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range goInput.FindAllStringSubmatch(string(text), -1) {
			called[m[1]] = true
		}
	}
	wantInTable(t, suiteGo, func(api.Operation) bool { return true }, called)
	text, err := os.ReadFile(sdkTablePath(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(readSDKTable(t).String(), string(text)); d != "" {
		t.Errorf("docs/compatibility-table.md (-want +file):\n%s", d)
	}
}

// wantChecked fails the test unless a script came to its end, and the table has what it then says it checked among the
// operations that are its own.
func wantChecked(t *testing.T, suite string, own func(api.Operation) bool, events []peer.Event) {
	t.Helper()
	last := events[len(events)-1]
	list, ok := last["checked"].([]any)
	if last.String("event") != "done" || !ok {
		t.Fatalf("the script ended with %v", last)
	}
	checked := map[string]bool{}
	for _, name := range list {
		if checked[name.(string)] {
			t.Errorf("%s is checked twice", name)
		}
		checked[name.(string)] = true
	}
	wantInTable(t, suite, own, checked)
}

// wantInTable compares one suite's column with what it exercised. UPDATE=1 writes it instead.
func wantInTable(t *testing.T, suite string, own func(api.Operation) bool, exercised map[string]bool) {
	t.Helper()
	table := readSDKTable(t)
	var want []string
	for _, op := range api.Operations() {
		if !own(op) {
			continue
		}
		delete(table[suite], op.Name)
		if exercised[op.Name] {
			want = append(want, op.Name)
			table[suite][op.Name] = true
		}
	}
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(sdkTablePath(t), []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	committed := readSDKTable(t)[suite]
	for _, op := range api.Operations() {
		if own(op) && committed[op.Name] {
			got = append(got, op.Name)
		}
	}
	if d := cmp.Diff(want, got); d != "" || len(want) == 0 {
		t.Errorf("column %q of docs/compatibility-table.md, which UPDATE=1 writes (-exercised +file):\n%s", suite, d)
	}
	for name := range maps.Keys(committed) {
		if _, known := api.Find(name); !known {
			t.Errorf("docs/compatibility-table.md has %s, which no model has", name)
		}
	}
}

func awsOperation(op api.Operation) bool { return op.Plane != api.PlaneTabard }
func ownOperation(op api.Operation) bool { return op.Plane == api.PlaneTabard }
