package tabard_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tabard-id/tabard"

// allowed is the table of docs/design.md: which packages of this module a package's own code may import. Adding a row
// or an edge is a reviewed decision. Tests may import what they like, except that nothing but a test imports a peer.
func allowed() map[string][]string {
	core := []string{"internal/access", "internal/fault", "internal/secret", "internal/identity", "internal/vault", "internal/broker",
		"internal/policy", "internal/federation", "internal/audit", "internal/revocation", "internal/exchange", "internal/accounts", "internal/ceiling", "internal/signing"}
	adapters := []string{"internal/oauth", "internal/kms", "internal/store", "internal/awsapi", "internal/consent", "internal/issuer", "internal/sink"}
	any := []string{"*"}
	return map[string][]string{
		"internal/secret":          {},
		"internal/fault":           {},
		"api":                      {},
		"api/gen":                  {},
		"internal/access":          {"internal/fault", "internal/secret"},
		"internal/pace":            {"internal/access", "internal/fault"},
		"internal/vault":           {"internal/access", "internal/fault", "internal/secret"},
		"internal/jws":             {"internal/fault", "internal/secret"},
		"internal/jws/jwstest":     {},
		"internal/keyring":         {"internal/access", "internal/fault", "internal/jws"},
		"internal/identity":        {"internal/access", "internal/fault", "internal/jws", "internal/keyring", "internal/pace", "internal/secret", "internal/vault"},
		"internal/signing":         {"internal/fault", "internal/jws", "internal/secret", "internal/vault"},
		"internal/broker":          {"internal/access", "internal/fault", "internal/jws", "internal/pace", "internal/secret", "internal/identity", "internal/signing", "internal/vault"},
		"internal/policy":          {"internal/access", "internal/fault"},
		"internal/ceiling":         {"internal/access", "internal/fault"},
		"internal/audit":           {"internal/access", "internal/fault", "internal/jws", "internal/secret", "internal/signing"},
		"internal/federation":      {"internal/access", "internal/fault", "internal/identity", "internal/jws", "internal/keyring", "internal/secret", "internal/vault"},
		"internal/revocation":      {"internal/access", "internal/broker", "internal/fault", "internal/identity", "internal/secret", "internal/signing"},
		"internal/exchange":        {"internal/access", "internal/fault", "internal/identity", "internal/jws", "internal/secret", "internal/signing"},
		"internal/accounts":        {"internal/access", "internal/fault", "internal/identity", "internal/secret"},
		"internal/store/storetest": {"internal/store"},
		"internal/audit/audittest": {"internal/fault"},
		"internal/sink":            {"internal/audit", "internal/access", "internal/fault", "internal/secret"},
		"internal/sidecar":         {"", "api", "internal/secret"},
		"internal/oauth":           {"internal/access", "internal/broker", "internal/identity", "internal/fault", "internal/keyring", "internal/secret"},
		"internal/oauth/oauthtest": {"internal/secret"},
		"internal/kms":             {"internal/vault", "internal/broker", "internal/fault", "internal/secret"},
		"internal/store": {"internal/access", "internal/identity", "internal/keyring", "internal/vault", "internal/broker", "internal/fault", "internal/policy", "internal/federation",
			"internal/audit", "internal/revocation", "internal/exchange", "internal/accounts", "internal/ceiling", "internal/signing"},
		"internal/awsapi":     append([]string{"api"}, core...),
		"internal/consent":    core,
		"internal/issuer":     core,
		"internal/daemon":     append(slices.Clone(core), adapters...),
		"internal/standin":    {"internal/secret"},
		"internal/e2e":        any,
		"internal/e2e/peer":   {"internal/secret"},
		"":                    {"api", "internal/secret"},
		"tabardtest":          {"", "internal/daemon", "internal/secret"},
		"cmd/tabard":          {"", "api", "internal/secret", "internal/daemon", "internal/sidecar", "internal/audit"},
		"demo":                {"", "internal/secret", "internal/daemon", "internal/standin"},
		"bench":               any,
		"chaos":               any,
		"examples/quickstart": {""},
		"scripts/mutants":     {},
		"scripts/quick":       {},
	}
}

// isCore lists the packages that know no HTTP, no SQL, no files and no HTML.
func isCore(dir string) bool {
	switch dir {
	case "internal/secret", "internal/fault", "internal/access", "internal/jws", "internal/keyring", "internal/vault", "internal/identity", "internal/broker",
		"internal/policy", "internal/ceiling", "internal/audit", "internal/federation", "internal/revocation", "internal/exchange", "internal/accounts", "internal/signing":
		return true
	}
	return false
}

// mayExpose lists who may turn a secret back into a string.
func mayExpose(dir string) bool {
	switch dir {
	case "internal/secret", "internal/jws", "internal/vault", "internal/signing", "internal/identity", "internal/federation", "internal/broker", "internal/oauth", "internal/kms",
		"internal/awsapi", "internal/consent", "internal/issuer", "internal/sidecar", "internal/daemon", "internal/standin", "", "cmd/tabard":
		return true
	}
	return false
}

// coreLibraries are the core's dependencies outside the standard library, each with an ADR.
func coreLibraries() map[string][]string {
	return map[string][]string{
		"internal/vault":      {"github.com/tink-crypto/tink-go/v2/", "google.golang.org/protobuf/"},
		"internal/jws":        {"github.com/go-jose/go-jose/v4"},
		"internal/policy":     {"github.com/cedar-policy/cedar-go"},
		"internal/federation": {"github.com/spiffe/go-spiffe/v2/"},
	}
}

type source struct {
	dir  string // package directory, "" for the root
	name string
	test bool
	file *ast.File
}

// sources parses every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != "." && (strings.HasPrefix(n, ".") || n == "testdata" || n == "node_modules") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); p != "." && err == nil {
				return filepath.SkipDir // a module of its own, of which nothing gets into ours
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := readSource(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, src, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(p))
		if dir == "." {
			dir = ""
		}
		out = append(out, source{dir: dir, name: filepath.ToSlash(p), test: strings.HasSuffix(p, "_test.go"), file: f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d files found: the walk is broken", len(out))
	}
	return out
}

func TestArchWhoMayImportWhom(t *testing.T) {
	table := allowed()
	for _, s := range sources(t) {
		may, known := table[s.dir]
		if !known {
			t.Errorf("%s: package %q is not in the table", s.name, s.dir)
			continue
		}
		for _, i := range s.file.Imports {
			p := strings.Trim(i.Path.Value, `"`)
			own, inModule := strings.CutPrefix(p, module)
			own = strings.TrimPrefix(own, "/")
			if s.test || !inModule && !strings.HasPrefix(p, module) {
				continue
			}
			if !slices.Contains(may, own) && !slices.Contains(may, "*") {
				t.Errorf("%s imports %s, which the table does not allow", s.name, own)
			}
		}
	}
}

func TestArchTheCoreKnowsNoHTTPNoSQLNoFiles(t *testing.T) {
	forbidden := []string{"net", "net/http", "database/sql", "os", "html/template", "os/exec", "io/ioutil", "log"}
	libraries := coreLibraries()
	for _, s := range sources(t) {
		if !isCore(s.dir) || s.test {
			continue
		}
		for _, i := range s.file.Imports {
			p := strings.Trim(i.Path.Value, `"`)
			if slices.Contains(forbidden, p) {
				t.Errorf("%s imports %s", s.name, p)
			}
			first, _, _ := strings.Cut(p, "/")
			outside := strings.Contains(first, ".") && !strings.HasPrefix(p, module)
			if outside && !slices.ContainsFunc(libraries[s.dir], func(l string) bool { return strings.HasPrefix(p, l) }) {
				t.Errorf("%s imports %s: the core's libraries each have an ADR", s.name, p)
			}
		}
	}
}

func TestArchExposeIsCalledOnlyWhereListed(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || mayExpose(s.dir) || strings.HasPrefix(s.dir, "internal/e2e") || s.dir == "bench" || s.dir == "internal/oauth/oauthtest" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Expose" {
				t.Errorf("%s calls Expose", s.name)
			}
			return true
		})
	}
}

func TestArchNoInitAndNoMutablePackageVariable(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.dir == "api/gen" || s.dir == "internal/e2e/peer" { // a generator and a test's servers: no product code
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s has an init function", s.name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					v, ok := spec.(*ast.ValueSpec)
					if !ok || d.Tok != token.VAR {
						continue
					}
					for i, name := range v.Names {
						if name.Name != "_" && !constantLike(v, i, d) {
							t.Errorf("%s: package variable %s can change, or looks as if it could", s.name, name.Name)
						}
					}
				}
			}
		}
	}
}

// constantLike reports whether a package variable is one of the few forms that nothing changes: an error value, a
// compiled pattern, a replacer, an embedded file.
func constantLike(v *ast.ValueSpec, i int, d *ast.GenDecl) bool {
	for _, g := range []*ast.CommentGroup{v.Doc, d.Doc} {
		if g != nil {
			for _, c := range g.List {
				if strings.HasPrefix(c.Text, "//go:embed ") {
					return true
				}
			}
		}
	}
	if i >= len(v.Values) {
		return false
	}
	call, ok := v.Values[i].(*ast.CallExpr)
	if !ok {
		return false
	}
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name == "ending" // broker: makes an error
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			switch x.Name + "." + f.Sel.Name {
			case "errors.New", "fmt.Errorf", "regexp.MustCompile", "strings.NewReplacer", "fault.New", "netip.MustParsePrefix", "netip.MustParseAddr":
				return true
			}
		}
	}
	return false
}

func TestArchEveryExportedNameIsDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || strings.HasSuffix(s.name, "_gen.go") {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s: %s has no comment", s.name, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
						t.Errorf("%s: %s has no comment", s.name, ts.Name.Name)
					}
				}
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	if ix, ok := t.(*ast.IndexExpr); ok {
		t = ix.X
	}
	id, ok := t.(*ast.Ident)
	return ok && id.IsExported()
}

// TestArchEveryBuiltThreatRowHasATest holds docs/threat-model.md to its word: each row it lists as built names at least
// one test whose name begins with the row's number, and each such test is of a listed row.
func TestArchEveryBuiltThreatRowHasATest(t *testing.T) {
	doc, err := os.ReadFile("docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([A-M][0-9]{2}) \|`).FindAllStringSubmatch(string(doc), -1) {
		rows[m[1]] = false
	}
	if len(rows) < 60 {
		t.Fatalf("docs/threat-model.md lists %d rows: the table is broken", len(rows))
	}
	name, number := regexp.MustCompile(`^(?:Test|Fuzz)((?:[A-M][0-9]{2}_)+)`), regexp.MustCompile(`[A-M][0-9]{2}`)
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			m := name.FindStringSubmatch(f.Name.Name)
			if m == nil {
				continue
			}
			for _, row := range number.FindAllString(m[1], -1) {
				if _, listed := rows[row]; !listed {
					t.Errorf("%s: %s is of row %s, which docs/threat-model.md does not list", s.name, f.Name.Name, row)
				}
				rows[row] = true
			}
		}
	}
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		if !rows[row] {
			t.Errorf("row %s of docs/threat-model.md has no test named Test%s_…", row, row)
		}
	}
}
