package tabard_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// readSource reads a file of the tree, or what scripts/mutants says is in its place: a test that reads the source must
// notice, too, when what it forbids comes in.
func readSource(name string) ([]byte, error) {
	if overlay := os.Getenv("TABARD_MUTANT_OVERLAY"); overlay != "" {
		b, err := os.ReadFile(overlay)
		if err != nil {
			return nil, err
		}
		var o struct{ Replace map[string]string }
		if err := json.Unmarshal(b, &o); err != nil {
			return nil, err
		}
		full, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		if other, ok := o.Replace[full]; ok {
			name = other
		}
	}
	return os.ReadFile(name)
}

// imported returns the path of the package that an expression such as x.Name takes its name from, "" where x is none,
// and the name. What the package is called in this file makes no difference.
func imported(f *ast.File, e ast.Expr) (pkg, name string) {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok || x.Obj != nil { // a variable
		return "", ""
	}
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if i.Name != nil && i.Name.Name == x.Name || i.Name == nil && path.Base(p) == x.Name {
			return p, s.Sel.Name
		}
	}
	return "", ""
}

// dialing is what reaches out by itself, by package.
func dialing() map[string]*regexp.Regexp {
	return map[string]*regexp.Regexp{
		"net":                           regexp.MustCompile(`^(Dial.*|Resolver|DefaultResolver|Lookup.*)$`),
		"net/http":                      regexp.MustCompile(`^(Get|Post|PostForm|Head|DefaultClient|DefaultTransport|Client|Transport)$`),
		"net/http/httputil":             regexp.MustCompile(`^(ReverseProxy|NewSingleHostReverseProxy|New.*ClientConn)$`),
		"net/rpc":                       regexp.MustCompile(`^Dial.*$`),
		"net/smtp":                      regexp.MustCompile(`^(Dial|SendMail)$`),
		"net/textproto":                 regexp.MustCompile(`^Dial$`),
		"log/syslog":                    regexp.MustCompile(`^(Dial|New|NewLogger)$`),
		"crypto/tls":                    regexp.MustCompile(`^(Dial.*|Client)$`),
		"golang.org/x/net/http2":        regexp.MustCompile(`^(Transport|ConfigureTransport.*)$`),
		"golang.org/x/net/proxy":        regexp.MustCompile(`.*`),
		"golang.org/x/net/websocket":    regexp.MustCompile(`^(Dial.*|NewClient|NewConfig)$`),
		"golang.org/x/oauth2":           regexp.MustCompile(`^(NewClient|Config)$`),
		"github.com/aws/aws-sdk-go-v2/": regexp.MustCompile(`^(New|NewFromConfig|LoadDefaultConfig)$`),
		"github.com/coreos/go-oidc/v3/": regexp.MustCompile(`.*`),
	}
}

// mayDial lists, by package and name, who may all the same, and why.
func mayDial() map[string]string {
	const configured = "an address that only the configuration names"
	return map[string]string{
		"internal/daemon net.Dialer": configured, "internal/daemon tls.Dialer": configured,
		"internal/daemon http.Client": configured, "internal/daemon http.Transport": configured,
		"internal/sidecar net.Dialer":     "the agent on this machine, and the server that the configuration names",
		"internal/sidecar http.Transport": "likewise", "internal/sidecar httputil.ReverseProxy": "with that transport",
	}
}

// dials returns what in the file reaches out by itself.
func dials(f *ast.File) []string {
	var out []string
	table := dialing()
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if i.Name != nil && i.Name.Name == "." && table[p] != nil {
			out = append(out, "everything of "+p)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		p, name := imported(f, e)
		for prefix, names := range table {
			if (p == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(p, prefix)) && names.MatchString(name) {
				out = append(out, path.Base(p)+"."+name)
			}
		}
		return true
	})
	return out
}

// E02: what others can influence goes through oauth's guarded dialer. So nothing else in the server's packages reaches
// out, whatever a package is called where it is imported.
func TestE02_OnlyTheGuardedDialerDials(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.dir, "internal/") || s.dir == "internal/oauth" || s.dir == "internal/standin" ||
			s.dir == "internal/oauth/oauthtest" || strings.HasPrefix(s.dir, "internal/e2e") {
			continue
		}
		for _, what := range dials(s.file) {
			used[s.dir+" "+what] = true
			if mayDial()[s.dir+" "+what] == "" {
				t.Errorf("%s uses %s: what others can influence goes through oauth's guarded dialer", s.name, what)
			}
		}
	}
	for what := range mayDial() {
		if !used[what] {
			t.Errorf("%s may dial and does not", what)
		}
	}
}

// E10: the guarded dialer itself dials for an account only: what reaches out in its package is a method of what the
// calls of one account go through.
func TestE10_TheGuardedDialerDialsForAnAccount(t *testing.T) {
	found := 0
	for _, s := range sources(t) {
		if s.test || s.dir != "internal/oauth" {
			continue
		}
		for _, d := range s.file.Decls {
			what := dials(&ast.File{Imports: s.file.Imports, Decls: []ast.Decl{d}, Name: s.file.Name})
			f, isFunc := d.(*ast.FuncDecl)
			if !isFunc || len(what) == 0 {
				continue // a type says what there is, and dials nothing
			}
			found += len(what)
			if f.Recv == nil || receiver(f) != "outbound" {
				t.Errorf("%s: %s uses %v, for no account: it belongs to outbound", s.name, f.Name.Name, what)
			}
		}
	}
	if found == 0 {
		t.Error("nothing in internal/oauth dials: this lint looks in the wrong place")
	}
}

// receiver is the name of the type that a method is of.
func receiver(f *ast.FuncDecl) string {
	e := f.Recv.List[0].Type
	if p, ok := e.(*ast.StarExpr); ok {
		e = p.X
	}
	i, _ := e.(*ast.Ident)
	if i == nil {
		return ""
	}
	return i.Name
}

// The lint sees each way of reaching out, and nothing where there is none.
func TestE02_TheLintSeesDialing(t *testing.T) {
	for code, want := range map[string]string{
		`import "net"; var _ = net.Dial`:                                       "net.Dial",
		`import n "net"; var _, _ = n.DialTimeout("", "", 0)`:                  "net.DialTimeout",
		`import "net"; var d = net.Dialer{}`:                                   "net.Dialer",
		`import "net"; var d = &net.Dialer{Timeout: 1}`:                        "net.Dialer",
		`import "net"; var d = new(net.Dialer)`:                                "net.Dialer",
		`import "net"; type t struct{ net.Dialer }`:                            "net.Dialer",
		`import web "net/http"; var c = web.Client{}`:                          "http.Client",
		`import "net/http"; var c *http.Client`:                                "http.Client",
		`import "net/http"; var _ = http.DefaultClient.Do`:                     "http.DefaultClient",
		`import . "net/http"; var c = Client{}`:                                "everything of net/http",
		`import x "crypto/tls"; var d x.Dialer`:                                "tls.Dialer",
		`import "net"; var _, _ = net.LookupHost("x")`:                         "net.LookupHost",
		`import "net"; var l, _ = net.Listen("tcp", "")`:                       "",
		`import "net/http"; var m = http.MethodGet`:                            "",
		`import net "net/url"; var _ = net.Parse`:                              "",
		`type dialer struct{ Dial func() }; func f(net dialer) { net.Dial() }`: "",
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package p; "+code, 0)
		if err != nil {
			t.Fatalf("%s: %v", code, err)
		}
		if got := strings.Join(dials(f), " "); got != want {
			t.Errorf("%s: got %q, want %q", code, got, want)
		}
	}
}

// L01: what is downloaded to build, check or test is named by a version that stays what it is.
func TestL01_NothingRunsAtAMovingVersion(t *testing.T) {
	moving := regexp.MustCompile(`@(latest|master|main|HEAD|next|upgrade|patch)\b|\b(uses|image): *[^ @]+$|:latest\b|--pre\b|\bpip install (-U|--upgrade)\b`)
	seen := 0
	for _, pattern := range []string{"Makefile", "scripts/*.sh", ".ci/*", ".ci/*/*", ".github/*/*", "test/*.sh", "*/*.go", "*.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if info, err := os.Stat(name); err != nil || info.IsDir() || strings.HasSuffix(name, "_test.go") {
				continue
			}
			b, err := readSource(name)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			for i, line := range strings.Split(string(b), "\n") {
				if strings.HasSuffix(name, ".go") && !strings.HasPrefix(line, "//go:generate") {
					continue
				}
				if m := moving.FindString(line); m != "" && !strings.HasPrefix(strings.TrimSpace(line), "#") {
					t.Errorf("%s:%d: %s", name, i+1, m)
				}
			}
		}
	}
	if seen < 10 {
		t.Fatalf("%d files seen: the scan is broken", seen)
	}
}

// cited finds documents that a reader is sent to: files, and sections of what has a name.
var (
	citedFile    = regexp.MustCompile(`[A-Za-z0-9_./-]*[A-Za-z0-9_-]\.md\b`)
	citedSection = regexp.MustCompile(`([A-Za-z0-9._)-]+),? §`)
	citedByName  = regexp.MustCompile(`(?i)\b(design|contract|decisions?|style|behaviou?rs?|standards|perf|anchors|journeys)(\.md)?,? (§|[A-F][0-9]{1,2}\b)|\((contract|design|decisions), |/work/|\.\./shared`)
	public       = regexp.MustCompile(`^([0-9.]+|Core|Discovery|Bundle|JWT-SVID|Contexts?|Fetch|and|by|,)$`) // RFCs, OpenID, SPIFFE, W3C
)

// What comments and documents send a reader to is in the repository, or public. "design §5" means nothing to whoever
// has only this.
func TestArchCitedDocumentsExist(t *testing.T) {
	documents, texts := map[string]bool{}, map[string]string{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n := d.Name(); d.IsDir() && p != "." && (strings.HasPrefix(n, ".") || n == "node_modules" || n == "testdata" || n == "dist") {
			return filepath.SkipDir
		}
		switch ext := filepath.Ext(p); {
		case d.IsDir():
		case ext == ".md":
			documents[filepath.Base(p)] = true
			fallthrough
		case ext == ".go" || ext == ".sh" || ext == ".sql" || ext == ".html" || ext == ".py" || ext == ".mjs" || d.Name() == "Makefile":
			b, err := readSource(p)
			texts[filepath.ToSlash(p)] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) < 100 || len(documents) < 20 {
		t.Fatalf("%d texts and %d documents: the walk is broken", len(texts), len(documents))
	}
	for name, text := range texts {
		if name == "lint_test.go" {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			if m := citedByName.FindString(line); m != "" {
				t.Errorf("%s:%d cites %q, which is not in the repository: say the reason itself", name, i+1, strings.TrimSpace(m))
			}
			for _, m := range citedSection.FindAllStringSubmatch(line, -1) {
				if !public.MatchString(m[1]) {
					t.Errorf("%s:%d cites a section of %q, which is no public document that we know", name, i+1, m[1])
				}
			}
			for _, m := range citedFile.FindAllString(line, -1) {
				if !documents[path.Base(m)] && !strings.Contains(line, "://") && !strings.Contains(m, "LICENSE") {
					t.Errorf("%s:%d cites %s, which is not in the repository", name, i+1, m)
				}
			}
		}
	}
}

// No line of a comment has more than 120 columns, except in generated code, and one that is a single word, such as an
// address.
func TestArchCommentLines(t *testing.T) {
	const columns = 120
	for _, s := range sources(t) {
		if ast.IsGenerated(s.file) {
			continue
		}
		src, err := readSource(s.name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(src), "\n") {
			text, is := strings.CutPrefix(strings.TrimSpace(line), "// ")
			if n := utf8.RuneCountInString(line); is && n > columns && strings.Contains(text, " ") {
				t.Errorf("%s:%d: a comment line of %d columns, %d are allowed", s.name, i+1, n, columns)
			}
		}
	}
}
