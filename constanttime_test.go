package tabard_test

import (
	"go/ast"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

// compared are the names of what nobody may learn byte by byte from how long a comparison takes.
var compared = regexp.MustCompile(`(?i)(secret|password|cookie|signature|verifier|nonce|passphrase|accesstoken|refreshtoken|apikey|credential|digest|^mac$|hmac|^tag$|^state$|^code$|challenge|commitment)`)

// F17: secrets, states, signatures and tags are compared by secret.Text.Equal, crypto/subtle or hmac.Equal, and never with
// ==, bytes.Equal or the functions of strings. The lint goes by the names of what is compared; what it finds that is none
// of these is in the list, with the reason.
func TestF17_NothingSecretIsComparedByteByByte(t *testing.T) {
	found := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.dir, "internal/") || strings.HasPrefix(s.dir, "internal/e2e") || s.dir == "internal/standin" || s.dir == "internal/oauth/oauthtest" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			for _, operand := range comparison(n) {
				name := nameOf(operand)
				if !compared.MatchString(name) {
					continue
				}
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

// comparison returns the operands of a comparison, where neither is a constant of the text: "" and nil say only whether
// there is a value, and the constants of our states are public.
func comparison(n ast.Node) []ast.Expr {
	var pair []ast.Expr
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if n.Op == token.EQL || n.Op == token.NEQ {
			pair = []ast.Expr{n.X, n.Y}
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && len(n.Args) == 2 {
			if x, ok := f.X.(*ast.Ident); ok {
				switch x.Name + "." + f.Sel.Name {
				case "bytes.Equal", "bytes.Compare", "strings.Compare", "strings.EqualFold", "slices.Equal", "cmp.Compare", "reflect.DeepEqual":
					pair = n.Args
				}
			}
		}
	}
	for _, e := range pair {
		switch e := e.(type) {
		case *ast.BasicLit:
			return nil
		case *ast.Ident:
			if e.Name == "nil" || e.Name == "true" || e.Name == "false" || ast.IsExported(e.Name) {
				return nil
			}
		case *ast.SelectorExpr:
			if x, ok := e.X.(*ast.Ident); ok && ast.IsExported(e.Sel.Name) && x.Obj == nil && packages(x.Name) {
				return nil // a constant of a package
			}
		}
	}
	return pair
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
		"internal/awsapi/signature.go mac":       "the caller's own text, against itself in lower case",
		"internal/broker/tags.go apiKeyResource": "the word in an ARN",
		"internal/fault/fault.go Code":           "a code of ours",
		"internal/oauth/answer.go code":          "an OAuth error code, against itself without what was sent",
		"internal/store/flows.go cookie":         "SHA-256 of the cookie: who guesses bytes of it knows nothing of the cookie",
		"internal/store/store.go Code":           "an error code of the database",
		"internal/store/store.go state":          "an error code of the database",
	}
}
