package tabard_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// compared are the names of what nobody may learn byte by byte from how long a comparison takes.
var compared = regexp.MustCompile(`(?i)(secret|password|cookie|signature|verifier|nonce|passphrase|accesstoken|refreshtoken|apikey|credential|digest|^mac$|hmac|^tag$|^state$|^code$|challenge|commitment|expose|^sum$|hmacof)`)

// F17: secrets, states, signatures and tags are compared by secret.Text.Equal, crypto/subtle or hmac.Equal, and never
// with ==, bytes.Equal or the functions of strings. The lint goes by the names of what is compared; what it finds that
// is none of these is in the list, with the reason.
func TestF17_NothingSecretIsComparedByteByByte(t *testing.T) {
	found := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.dir, "internal/") || strings.HasPrefix(s.dir, "internal/e2e") || s.dir == "internal/standin" || s.dir == "internal/oauth/oauthtest" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			for _, name := range secretsCompared(s.file, n) {
				at := s.name + " " + name
				found[at] = true
				if why := notSecret()[at]; why == "" {
					t.Errorf("%s is compared in a time that depends on its bytes: use secret.Text.Equal, subtle or hmac.Equal, or list it with the reason", at)
				}
			}
			return true
		})
	}
	for at := range notSecret() {
		if !found[at] {
			t.Errorf("%s is listed and compared nowhere", at)
		}
	}
}

// The lint sees each way of comparing, and nothing where only a constant is compared with.
func TestF17_TheLintSeesComparisons(t *testing.T) {
	for code, want := range map[string]string{
		`func f(mac, got []byte) bool { return string(mac) == string(got) }`:                                        "mac",
		`func f(a, b secret.Text) bool { return a.Expose() == b.Expose() }`:                                         "Expose Expose",
		`func f(a secret.Text, b string) bool { return b != a.Expose() }`:                                           "Expose",
		`func f(a secret.Text, b string) int { switch a.Expose() { case b: return 1 }; return 0 }`:                  "Expose",
		`func f(cookie, given string) int { switch given { case cookie: return 1 }; return 0 }`:                     "cookie",
		`func f(cookie, given string) int { switch { case given == cookie: return 1 }; return 0 }`:                  "cookie",
		`import b "bytes"; func f(digest, x []byte) bool { return b.Equal(x, digest[:]) }`:                          "digest",
		`import s "strings"; func f(apiKey, x string) bool { return s.EqualFold(x, apiKey) }`:                       "apiKey",
		`import "slices"; func f(known []string, password string) bool { return slices.Contains(known, password) }`: "password",
		`import "bytes"; func f(signature []byte, a T) bool { return bytes.HasPrefix(a.body, signature) }`:          "signature",
		`func f(known map[string]bool, clientSecret string) bool { return known[clientSecret] }`:                    "",
		`func f(nonce string) bool { return nonce == "" || nonce != nil }`:                                          "",
		`func f(state State) int { switch state { case Open, fault.Denied: return 1 }; return 0 }`:                  "",
		`func f(secret string) bool { return len(secret) == 32 }`:                                                   "",
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package p; "+code, 0)
		if err != nil {
			t.Fatalf("%s: %v", code, err)
		}
		var got []string
		ast.Inspect(f, func(n ast.Node) bool {
			got = append(got, secretsCompared(f, n)...)
			return true
		})
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %q", code, got, want)
		}
	}
}

// secretsCompared returns the names of what looks secret in a comparison.
func secretsCompared(f *ast.File, n ast.Node) []string {
	var out []string
	for _, operand := range comparison(f, n) {
		if name := nameOf(operand); compared.MatchString(name) {
			out = append(out, name)
		}
	}
	return out
}

// comparison returns the operands of a comparison, where neither is a constant of the text: "" and nil say only whether
// there is a value, and the constants of our states are public.
func comparison(f *ast.File, n ast.Node) []ast.Expr {
	var all []ast.Expr
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if n.Op == token.EQL || n.Op == token.NEQ {
			all = []ast.Expr{n.X, n.Y}
		}
	case *ast.SwitchStmt: // each value is compared with the tag, one byte after the other
		if n.Tag == nil {
			return nil
		}
		all = []ast.Expr{n.Tag}
		for _, c := range n.Body.List {
			for _, e := range c.(*ast.CaseClause).List {
				if !constant(e) {
					all = append(all, e)
				}
			}
		}
		if len(all) == 1 {
			return nil
		}
		return all
	case *ast.CallExpr:
		switch p, name := imported(f, n.Fun); p + "." + name {
		case "bytes.Equal", "bytes.Compare", "bytes.EqualFold", "bytes.HasPrefix", "bytes.HasSuffix", "strings.Compare", "strings.EqualFold",
			"slices.Equal", "slices.Compare", "slices.Contains", "slices.Index", "cmp.Compare", "maps.Equal", "reflect.DeepEqual":
			all = n.Args
		}
	}
	if slices.ContainsFunc(all, constant) {
		return nil
	}
	return all
}

// constant reports whether the expression is a constant of the text, or looks so.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name == "nil" || e.Name == "true" || e.Name == "false" || ast.IsExported(e.Name)
	case *ast.SelectorExpr:
		x, ok := e.X.(*ast.Ident)
		return ok && ast.IsExported(e.Sel.Name) && x.Obj == nil && packages(x.Name)
	}
	return false
}

// packages are those whose exported constants are compared with.
func packages(name string) bool {
	switch name {
	case "broker", "identity", "access", "fault", "api", "http", "vault", "policy", "signing", "audit", "federation", "revocation", "exchange", "token", "secret":
		return true
	}
	return false
}

// nameOf is the last name of an expression.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.IndexExpr:
		return nameOf(e.X)
	case *ast.SliceExpr:
		return nameOf(e.X)
	case *ast.StarExpr:
		return nameOf(e.X)
	case *ast.ParenExpr:
		return nameOf(e.X)
	case *ast.CallExpr:
		if len(e.Args) == 1 { // a conversion, or len, which says no byte
			if f, ok := e.Fun.(*ast.Ident); ok && f.Name == "len" {
				return ""
			}
			return nameOf(e.Args[0])
		}
		return nameOf(e.Fun)
	}
	return ""
}

// notSecret lists what only looks secret by its name.
func notSecret() map[string]string {
	return map[string]string{
		"internal/awsapi/signature.go mac":               "the caller's own text, against itself in lower case",
		"internal/broker/tags.go apiKeyResource":         "the word in an ARN",
		"internal/broker/scopes.go Code":                 "an OAuth error code",
		"internal/issuer/endpoint.go typeAccessToken":    "a constant: the URI of a token type (RFC 8693 §3)",
		"internal/oauth/revoke.go code":                  "an OAuth error code",
		"internal/store/accounts.go CredentialProviders": "the name of a quota",
		"internal/fault/fault.go Code":                   "a code of ours",
		"internal/oauth/answer.go code":                  "an OAuth error code, against itself without what was sent",
		"internal/store/flows.go cookie":                 "SHA-256 of the cookie: who guesses bytes of it knows nothing of the cookie",
		"internal/store/store.go Code":                   "an error code of the database",
		"internal/store/store.go state":                  "an error code of the database",
	}
}
