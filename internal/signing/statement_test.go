package signing_test

import (
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
)

// A statement is read years later, by the keys of then, and never passes for a token or for a statement of another
// type.
func TestStatements(t *testing.T) {
	const typ = "tabard-test+jwt"
	w := newWorld(t)
	s := w.replica()
	statement, err := s.State(t.Context(), typ, map[string]any{"said": "so"})
	must(t, err)
	w.clock.at(40 * signing.Period)
	later, err := w.replica().State(t.Context(), typ, map[string]any{"said": "later"})
	must(t, err)
	keys, err := w.replica().StatementKeys(t.Context())
	must(t, err)
	for text, want := range map[string]string{statement: "so", later: "later"} {
		claims, err := signing.ReadStatement(keys, typ, text)
		must(t, err)
		if said, _ := claims.String("said"); said != want {
			t.Errorf("got %q, want %q", said, want)
		}
		if iss, _ := claims.String("iss"); iss != issuer {
			t.Errorf("iss: got %q", iss)
		}
	}
	_, err = signing.ReadStatement(keys, "other+jwt", statement)
	wantCode(t, "another type", err, fault.Unauthenticated)
	_, err = signing.ReadStatement(keys, typ, strings.Replace(statement, ".", ".A", 1))
	wantCode(t, "an edited statement", err, fault.Unauthenticated)
	tokens, err := w.replica().Keys(t.Context(), signing.Assertions)
	must(t, err)
	_, err = signing.ReadStatement(tokens, typ, later)
	wantCode(t, "the keys of tokens", err, fault.Unauthenticated)
	_, err = w.replica().Verify(t.Context(), signing.Assertions, typ, secret.New(later))
	wantCode(t, "a statement as a token", err, fault.Unauthenticated)
	_, err = s.State(t.Context(), typ, map[string]any{"iss": "x"})
	wantCode(t, "an iss", err, fault.Internal)
}
