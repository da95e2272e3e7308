package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// suiteRoot is the column of this module's own Go SDK, its root package.
const suiteRoot = "Go SDK `tabard`"

// memberTable is one table of docs/compatibility-members.md.
type memberTable struct {
	models []string // files under api/models
	suites []string // columns
}

var (
	awsMembers = memberTable{models: []string{"identity-control.json", "identity-data.json"}, suites: []string{suiteGo, suitePy, suiteJS}}
	ownMembers = memberTable{models: []string{"tabard.json"}, suites: []string{suitePy, suiteRoot}}
)

// The cells of the tables.
const (
	cellYes     = "yes"     // in a request that was answered, or in an answer
	cellRefused = "refused" // in requests that were refused only
	cellNo      = "no"
	cellNoCall  = "no call" // the client has nothing for the operation
)

// serviceModel is the part of a model that says which members an operation has.
type serviceModel struct {
	Operations map[string]struct {
		Input, Output struct{ Shape string }
	}
	Shapes map[string]struct {
		Type    string
		Members map[string]struct{ Shape string }
		Member  struct{ Shape string }
	}
}

// rows lists the members of every operation, at any depth, as "Operation direction path", in order.
func (table memberTable) rows(t *testing.T) []string {
	t.Helper()
	var rows []string
	for _, name := range table.models {
		text, err := os.ReadFile(filepath.Join(peer.Root(t), "api", "models", name))
		if err != nil {
			t.Fatal(err)
		}
		var m serviceModel
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		for _, op := range slices.Sorted(maps.Keys(m.Operations)) {
			o := m.Operations[op]
			rows = append(rows, m.below(op+" in ", o.Input.Shape)...)
			rows = append(rows, m.below(op+" out ", o.Output.Shape)...)
		}
	}
	return rows
}

// below lists the members of a shape. Those of a list's items count as the list's. No shape is inside itself.
func (m serviceModel) below(prefix, shape string) []string {
	s := m.Shapes[shape]
	for s.Type == "list" {
		s = m.Shapes[s.Member.Shape]
	}
	var rows []string
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		rows = append(rows, prefix+name)
		rows = append(rows, m.below(prefix+name+".", s.Members[name].Shape)...)
	}
	return rows
}

// members notes which members clients and servers send each other.
type members struct {
	operations *http.ServeMux           // gives the pattern of a request
	names      map[string]api.Operation // by pattern

	mu   sync.Mutex // guards seen
	seen map[string]string
}

func newMembers() *members {
	m := &members{operations: http.NewServeMux(), names: map[string]api.Operation{}, seen: map[string]string{}}
	for _, op := range api.Operations() {
		pattern := op.Method + " " + op.Path
		m.operations.Handle(pattern, http.NotFoundHandler())
		m.names[pattern] = op
	}
	return m
}

// memberTap stands between a client and the server and notes what they say to each other. It passes Host on as it is,
// because that is signed.
type memberTap struct {
	*members
	t      *testing.T
	target string
}

// tap puts a memberTap in front of the server and returns its address.
func (w *world) tap(m *members) string {
	w.t.Helper()
	s := httptest.NewServer(&memberTap{members: m, t: w.t, target: w.server.URL()})
	w.t.Cleanup(s.Close)
	return s.URL
}

// noting puts the members that the official Go clients and the server send each other from now on into m.
func (w *world) noting(m *members) *world {
	w.t.Helper()
	w.front = w.tap(m)
	return w
}

// ServeHTTP implements http.Handler.
func (m *memberTap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sent, err := io.ReadAll(r.Body)
	if err != nil {
		m.t.Error(err)
		return
	}
	out, err := http.NewRequestWithContext(r.Context(), r.Method, m.target+r.RequestURI, bytes.NewReader(sent))
	if err != nil {
		m.t.Error(err)
		return
	}
	out.Host, out.Header = r.Host, r.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		m.t.Error(err)
		return
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Error(err)
	}
	m.note(r, resp.StatusCode, sent, got)
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(got) // the client may have gone
}

// note adds the members of one exchange: those of a request, and of an answer that is no error.
func (m *members) note(r *http.Request, status int, sent, got []byte) {
	_, pattern := m.operations.Handler(r)
	op, known := m.names[pattern]
	if !known {
		return // STS, or nothing of ours
	}
	cell := cellRefused
	if status < 300 {
		cell = cellYes
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for segment := range strings.SplitSeq(op.Path, "/") { // members that are in the path
		if label, isLabel := strings.CutPrefix(segment, "{"); isLabel {
			m.addLocked(op.Name+" in ", map[string]any{strings.TrimRight(label, ".}"): ""}, cell)
		}
	}
	for key := range r.URL.Query() {
		m.addLocked(op.Name+" in ", map[string]any{key: ""}, cell)
	}
	var v any
	if json.Unmarshal(sent, &v) == nil {
		m.addLocked(op.Name+" in ", v, cell)
	}
	if v = nil; cell == cellYes && json.Unmarshal(got, &v) == nil {
		m.addLocked(op.Name+" out ", v, cell)
	}
}

func (m *members) addLocked(prefix string, v any, cell string) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			m.addLocked(prefix, item, cell)
		}
	case map[string]any:
		for name, inner := range v {
			if m.seen[prefix+name] != cellYes {
				m.seen[prefix+name] = cell
			}
			m.addLocked(prefix+name+".", inner, cell)
		}
	}
}

const membersIntro = `# Which official client exercises which member

Written by ` + "`UPDATE=1 go test ./internal/e2e -run 'TestGoSDK|EveryOperation|TabardClient'`" + ` from what went over the wire between the clients
and a running server while the suites ran; ` + "`make test`" + ` fails where it is old. Members of the models at any depth; those of a list's
items count as the list's. *yes*: the member was in a request that was answered (in), or in an answer (out). *refused*: it was sent, and
every request with it was refused. *no*: it was not sent, or did not come back. *no call*: the client has nothing for the operation. Where
a cell is not *yes*, the last column says why. [compatibility-table.md](compatibility-table.md) has the operations,
[compatibility.md](compatibility.md) what differs from AWS on purpose.
`

// readMembers reads the cells of the committed tables, by row and suite.
func readMembers(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile(membersPath(t))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	cells := map[string]map[string]string{}
	var suites []string
	for line := range strings.Lines(string(text)) {
		c := strings.Split(strings.TrimSpace(line), "|")
		if len(c) < 7 {
			continue
		}
		for i := range c {
			c[i] = strings.TrimSpace(c[i])
		}
		if c[1] == "operation" {
			suites = c[4 : len(c)-2]
		} else if strings.HasPrefix(c[1], "`") && len(c) == len(suites)+6 {
			row := map[string]string{}
			for i, suite := range suites {
				row[suite] = c[i+4]
			}
			cells[strings.Trim(c[1], "`")+" "+c[2]+" "+strings.Trim(c[3], "`")] = row
		}
	}
	return cells
}

func membersPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(peer.Root(t), "docs", "compatibility-members.md")
}

// membersText writes the file.
func membersText(t *testing.T, cells map[string]map[string]string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(membersIntro + "\n## AWS's operations\n\n")
	awsMembers.write(t, &b, cells)
	b.WriteString("\n## Our own operations\n\nboto3 knows them by `AWS_DATA_PATH`, and is the client of record; of Go's SDK this is the root package, which has calls for agents.\n\n")
	ownMembers.write(t, &b, cells)
	return b.String()
}

func (table memberTable) write(t *testing.T, b *strings.Builder, cells map[string]map[string]string) {
	t.Helper()
	fmt.Fprintf(b, "| operation | | member | %s | why not *yes* |\n|---|---|---|%s---|\n", strings.Join(table.suites, " | "), strings.Repeat("---|", len(table.suites)))
	for _, row := range table.rows(t) {
		part := strings.SplitN(row, " ", 3)
		fmt.Fprintf(b, "| `%s` | %s | `%s` |", part[0], part[1], part[2])
		for _, suite := range table.suites {
			fmt.Fprintf(b, " %s |", cellOr(cells[row][suite]))
		}
		why := "-"
		if !table.exercised(cells[row]) {
			why = reasonOf(row)
		}
		fmt.Fprintf(b, " %s |\n", why)
	}
}

func cellOr(cell string) string {
	if cell == "" {
		return cellNo
	}
	return cell
}

// exercised says whether nothing is to be explained in a row.
func (table memberTable) exercised(cells map[string]string) bool {
	return !slices.ContainsFunc(table.suites, func(suite string) bool { return cells[suite] != cellYes && cells[suite] != cellNoCall })
}

// wantMembers compares a suite's column of a table with what was seen. UPDATE=1 writes it.
func (m *members) wantMembers(t *testing.T, table memberTable, suite string) {
	t.Helper()
	cells := readMembers(t)
	m.mu.Lock()
	for _, row := range table.rows(t) {
		if cells[row] == nil {
			cells[row] = map[string]string{}
		}
		cells[row][suite] = cellOr(m.seen[row])
		if op, _, _ := strings.Cut(row, " "); suite == suiteRoot && !slices.Contains(rootCalls(t), op) {
			cells[row][suite] = cellNoCall
		}
	}
	m.mu.Unlock()
	text := membersText(t, cells)
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(membersPath(t), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(text, string(mustRead(t, membersPath(t)))); d != "" {
		t.Errorf("column %q of docs/compatibility-members.md, which UPDATE=1 writes (-seen +file):\n%s", suite, d)
	}
}

// TestMembersAreExplained: every member of every operation is in the tables, as exercised or with a reason, and no
// reason is left over.
func TestMembersAreExplained(t *testing.T) {
	if os.Getenv("UPDATE") == "1" {
		return // the suites write the file after this
	}
	cells := readMembers(t)
	used := map[string]bool{}
	for _, table := range []memberTable{awsMembers, ownMembers} {
		for _, row := range table.rows(t) {
			if len(cells[row]) != len(table.suites) {
				t.Errorf("%s is not in docs/compatibility-members.md, which UPDATE=1 writes", row)
			} else if why := reasonOf(row); !table.exercised(cells[row]) && why == "" {
				t.Errorf("%s: %v, and reasons says nothing of it: exercise it, or say why not", row, cells[row])
			} else if !table.exercised(cells[row]) {
				used[why] = true
			}
		}
	}
	for _, r := range reasons {
		if !used[r.why] {
			t.Errorf("%s, %q: every client exercises those members, or they are no more", r.rows, r.why)
		}
	}
	if d := cmp.Diff(membersText(t, cells), string(mustRead(t, membersPath(t)))); d != "" {
		t.Errorf("docs/compatibility-members.md, which UPDATE=1 writes (-want +file):\n%s", d)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
