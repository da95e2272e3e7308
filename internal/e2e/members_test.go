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
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// awsModel is the part of AWS's models that says which members an operation has.
type awsModel struct {
	Operations map[string]struct {
		HTTP          struct{ RequestURI string }
		Input, Output struct{ Shape string }
	}
	Shapes map[string]struct {
		Type    string
		Members map[string]struct{ Shape string }
		Member  struct{ Shape string }
	}
}

// memberRows lists the members of every operation of AWS's, two levels deep, as "Operation direction path", in order.
func memberRows(t *testing.T) []string {
	t.Helper()
	var rows []string
	for _, name := range []string{"identity-control.json", "identity-data.json"} {
		text, err := os.ReadFile(filepath.Join(peer.Root(t), "api", "models", name))
		if err != nil {
			t.Fatal(err)
		}
		var m awsModel
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		for _, op := range slices.Sorted(maps.Keys(m.Operations)) {
			o := m.Operations[op]
			rows = append(rows, m.below(op+" in ", o.Input.Shape, 2)...)
			rows = append(rows, m.below(op+" out ", o.Output.Shape, 2)...)
		}
	}
	return rows
}

// below lists the members of a shape. Those of a list's items count as the list's.
func (m awsModel) below(prefix, shape string, depth int) []string {
	s := m.Shapes[shape]
	for s.Type == "list" {
		s = m.Shapes[s.Member.Shape]
	}
	if depth == 0 {
		return nil
	}
	var rows []string
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		rows = append(rows, prefix+name)
		rows = append(rows, m.below(prefix+name+".", s.Members[name].Shape, depth-1)...)
	}
	return rows
}

// memberTap stands between a client and the server and notes which members are in what they say to each other. It
// passes Host on as it is, because that is signed.
type memberTap struct {
	t      *testing.T
	target string

	mu   sync.Mutex // guards seen
	seen map[string]bool
}

// tap puts a memberTap in front of the server and returns it with its address.
func (w *world) tap() (*memberTap, string) {
	w.t.Helper()
	m := &memberTap{t: w.t, target: w.server.URL(), seen: map[string]bool{}}
	s := httptest.NewServer(m)
	w.t.Cleanup(s.Close)
	return m, s.URL
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

// note adds the members of one exchange: all of a request, and of an answer that is no error.
func (m *memberTap) note(r *http.Request, status int, sent, got []byte) {
	mux, name := http.NewServeMux(), ""
	for _, op := range api.Operations() {
		mux.HandleFunc(op.Method+" "+op.Path, func(_ http.ResponseWriter, r *http.Request) {
			name = op.Name
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, segment := range strings.Split(op.Path, "/") { // members that are in the path
				if label, isLabel := strings.CutPrefix(segment, "{"); isLabel {
					m.seen[name+" in "+strings.TrimRight(label, ".}")] = true
				}
			}
		})
	}
	mux.ServeHTTP(httptest.NewRecorder(), r)
	for key := range r.URL.Query() {
		m.add(name+" in ", map[string]any{key: ""})
	}
	var v any
	if json.Unmarshal(sent, &v) == nil {
		m.add(name+" in ", v)
	}
	if v = nil; status < 300 && json.Unmarshal(got, &v) == nil {
		m.add(name+" out ", v)
	}
}

func (m *memberTap) add(prefix string, v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			m.add(prefix, item)
		}
	case map[string]any:
		for name, inner := range v {
			m.mu.Lock()
			m.seen[prefix+name] = true
			m.mu.Unlock()
			m.add(prefix+name+".", inner)
		}
	}
}

// notOffered matches the rows of operations that compatibility.md calls not offered.
var notOffered = regexp.MustCompile(`^\w+(ConsentPortals?|Payment(CredentialProviders?|Token)|ResourcePolicy|KeyMaterial) `)

const membersIntro = `# Which official client exercises which member

Written by ` + "`UPDATE=1 go test ./internal/e2e -run EveryOperation`" + ` from what went over the wire while boto3's and JavaScript's suites
called every operation; ` + "`make test`" + ` fails where it is old. Members of AWS's models, two levels deep; those of a list's items count as the
list's. *yes*: the member was in a request (in), or in an answer that was no error (out). *no*: it was not, in these two suites; other tests may
use it. *not offered*: it was not, as the operation makes and finds nothing here; compatibility.md says why.
The Go suite is judged by operation only, in [compatibility-table.md](compatibility-table.md).

| operation | | member | ` + suitePy + " | " + suiteJS + " |\n|---|---|---|---|---|\n"

// wantMembers compares a suite's column of docs/compatibility-members.md with what the tap saw. UPDATE=1 writes it.
func (m *memberTap) wantMembers(t *testing.T, suite string) {
	t.Helper()
	path := filepath.Join(peer.Root(t), "docs", "compatibility-members.md")
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	other := map[string]string{} // the column of the other suite, as it is
	for line := range strings.Lines(string(old)) {
		if c := strings.Split(line, "|"); len(c) == 7 && strings.HasPrefix(c[1], " `") {
			other[strings.Trim(c[1], " `")+" "+strings.TrimSpace(c[2])+" "+strings.Trim(c[3], " `")] = strings.TrimSpace(c[map[string]int{suitePy: 5, suiteJS: 4}[suite]])
		}
	}
	b := strings.Builder{}
	b.WriteString(membersIntro)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, row := range memberRows(t) {
		mine, theirs := "no", other[row]
		if notOffered.MatchString(row) {
			mine = "not offered"
		}
		if theirs == "" {
			theirs = mine
		}
		if m.seen[row] {
			mine = "yes"
		}
		part := strings.SplitN(row, " ", 3)
		if suite == suiteJS {
			mine, theirs = theirs, mine
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", part[0], part[1], part[2], mine, theirs)
	}
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(b.String(), string(old)); d != "" {
		t.Errorf("column %q of docs/compatibility-members.md, which UPDATE=1 writes (-seen +file):\n%s", suite, d)
	}
}
