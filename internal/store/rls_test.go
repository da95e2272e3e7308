package store_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
)

// serverTables have no rows of accounts. A new table is here, or has row-level security.
func serverTables() []string {
	return []string{"audit_base", "audit_leases", "migrations", "signing_keys"}
}

// tables returns the tables of the database, and the names and types of their columns.
func tables(t *testing.T, db *store.DB) map[string][][]string {
	t.Helper()
	const query = `SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
		WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position`
	out := map[string][][]string{}
	must(t, db.TestOnlyWrite(t.Context(), func(ctx context.Context, s store.Statements) error {
		lines, err := s.Lines(ctx, query)
		for _, l := range lines {
			out[l[0]] = append(out[l[0]], l[1:])
		}
		return err
	}))
	return out
}

// insertFor returns a statement that adds a row of the account to a table. Every text but the account is the same in
// all tables, so that foreign keys find what they name.
func insertFor(table string, columns [][]string, a access.Account) string {
	names, values := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		names[i] = `"` + c[0] + `"`
		switch {
		case c[0] == "account":
			values[i] = "'" + string(a) + "'"
		case c[1] == "text":
			values[i] = "'x" + string(a) + "'"
		case c[1] == "bytea":
			values[i] = "'\\x01'"
		default:
			values[i] = "1"
		}
	}
	return fmt.Sprintf(`INSERT INTO "%s" (%s) VALUES (%s)`, table, strings.Join(names, ", "), strings.Join(values, ", "))
}

// fill puts one row of each account into every table with row-level security, in whatever order their foreign keys
// allow.
func fill(t *testing.T, db *store.DB, all map[string][][]string, accounts ...access.Account) {
	t.Helper()
	left := map[string]error{}
	for name := range all {
		if !slices.Contains(serverTables(), name) {
			left[name] = nil
		}
	}
	for before := -1; len(left) > 0 && len(left) != before; {
		before = len(left)
		for name := range left {
			left[name] = db.TestOnlyWrite(t.Context(), func(ctx context.Context, s store.Statements) error {
				for _, a := range accounts {
					if err := s.Exec(ctx, insertFor(name, all[name], a)); err != nil {
						return err
					}
				}
				return nil
			})
			if left[name] == nil {
				delete(left, name)
			}
		}
	}
	for name, err := range left {
		t.Fatalf("no row can be put into %s: %v", name, err)
	}
}

// A02: with every condition of the application gone, the database itself shows, changes, deletes and takes no row of
// another account. The tables are those of the catalogue: a new one without a policy fails here.
func TestA02_RowLevelSecurityHoldsWithoutTheFilter(t *testing.T) {
	url := peer.Postgres(t)
	db := open(t, store.Config{PostgresURL: func() string { return url }, MaxConns: 2})
	down, err := db.SecondWall(t.Context())
	must(t, err)
	wantEqual(t, "what breaks the second wall", down, "")
	all := tables(t, db)
	if len(all) < 25 {
		t.Fatalf("only %d tables were found", len(all))
	}
	fill(t, db, all, account, other)
	for name, columns := range all {
		if slices.Contains(serverTables(), name) {
			continue
		}
		for _, mine := range []access.Account{account, other} {
			theirs := other
			if mine == other {
				theirs = account
			}
			var seen, changed, deleted, unset string
			must(t, db.TestOnlyAs(t.Context(), mine, func(ctx context.Context, s store.Statements) error {
				var err error
				// row_to_json names every column, so that nothing of a row that is not ours can hide.
				seen, err = s.Text(ctx, fmt.Sprintf(`SELECT count(*)::text || ' ' || count(*) FILTER (WHERE row_to_json(r)::text LIKE '%%%s%%')::text FROM "%s" r`, mine, name))
				return err
			}))
			wantEqual(t, fmt.Sprintf("rows of %s that %s sees, and how many are its own", name, mine), seen, "1 1")
			for what, try := range map[*string]struct{ statement, reaches string }{
				&changed: {fmt.Sprintf(`UPDATE "%s" SET "%s" = "%s"`, name, columns[0][0], columns[0][0]), "1"},
				&deleted: {fmt.Sprintf(`DELETE FROM "%s" r WHERE row_to_json(r)::text LIKE '%%%s%%'`, name, theirs), "0"},
			} {
				err := db.TestOnlyAs(t.Context(), mine, func(ctx context.Context, s store.Statements) error {
					n, err := s.Rows(ctx, try.statement)
					if err != nil {
						return err
					}
					*what = fmt.Sprint(n)
					return errUndo
				})
				wantCode(t, "an undone change", err, fault.Limit)
				wantEqual(t, fmt.Sprintf("rows of %s that %s reaches with %s", name, mine, try.statement), *what, try.reaches)
			}
			err := db.TestOnlyAs(t.Context(), mine, func(ctx context.Context, s store.Statements) error {
				return s.Exec(ctx, insertFor(name, columns, theirs))
			})
			if err == nil || !strings.Contains(err.Error(), "42501") { // insufficient_privilege
				t.Errorf("%s of %s: an insert for the other account ended with %v, want row-level security to refuse it", name, mine, err)
			}
			must(t, db.TestOnlyAs(t.Context(), "", func(ctx context.Context, s store.Statements) error {
				var err error
				unset, err = s.Text(ctx, fmt.Sprintf(`SELECT count(*)::text FROM "%s"`, name))
				return err
			}))
			wantEqual(t, "rows of "+name+" that nobody sees", unset, "0")
		}
	}
}

// errUndo makes an operation roll back.
var errUndo = fault.New(fault.Limit, "undo")

// A02: a connection that was in one account's scope is in the other's before the other's statement runs, also after a
// transaction was undone, which undoes the setting with it.
func TestA02_PooledConnectionsChangeScope(t *testing.T) {
	url := peer.Postgres(t)
	db := open(t, store.Config{PostgresURL: func() string { return url }, MaxConns: 1})
	must(t, db.CreateWorkload(t.Context(), aWorkload(account, "u1", "mine")))
	must(t, db.CreateWorkload(t.Context(), aWorkload(other, "u2", "theirs")))
	for i := range 20 {
		a, name, undo := account, "mine", i%3 == 0
		if i%2 == 1 {
			a, name = other, "theirs"
		}
		err := db.TestOnlyAs(t.Context(), a, func(ctx context.Context, s store.Statements) error {
			have, err := s.Text(ctx, `SELECT string_agg(name, ' ') FROM workloads`)
			wantEqual(t, "workload identities seen", have, name)
			if err == nil && undo {
				return errUndo
			}
			return err
		})
		if undo {
			wantCode(t, "an undone operation", err, fault.Limit)
		} else {
			must(t, err)
		}
		found, err := db.Workloads(t.Context(), a, "", 10)
		must(t, err)
		wantEqual(t, "workload identities listed", len(found), 1)
	}
}

// A02: what says neither whose rows it is about nor that it is about all accounts does not run, on either engine.
func TestA02_StatementsWithoutAScopeAreRefused(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		for _, query := range []string{"SELECT CAST(count(*) AS TEXT) FROM workloads", "SELECT name FROM workloads WHERE uid = $1"} {
			err := db.TestOnlyUnscoped(t.Context(), func(ctx context.Context, s store.Statements) error {
				if strings.Contains(query, "$1") {
					_, err := s.Text(ctx, query, "u")
					return err
				}
				_, err := s.Text(ctx, query)
				return err
			})
			wantCode(t, query, err, fault.Internal)
		}
		err := db.TestOnlyUnscoped(t.Context(), func(ctx context.Context, s store.Statements) error {
			_, err := s.Text(ctx, "SELECT name FROM workloads WHERE account = $1", "*")
			return err
		})
		wantCode(t, "the scope of everything, as an account", err, fault.Internal)
	})
}

func TestAccountOfAStatement(t *testing.T) {
	for query, want := range map[string]int{
		"SELECT 1 FROM t WHERE account = $1":                                          1,
		"UPDATE t SET a = $1 WHERE b = $2 AND t.account = $3":                         3,
		"SELECT 1 FROM t JOIN u ON u.account = t.account WHERE t.account = $12":       12,
		"INSERT INTO t (id, account, n) VALUES ($1, $2, $3)":                          2,
		"INSERT INTO t (tx, account) VALUES (CAST($1 AS INT) + f(a, b), $2), (1)":     2,
		"INSERT INTO t (n, account) SELECT $1, w.account FROM w WHERE w.account = $2": 2,
		"INSERT INTO t (account) VALUES (lower($1))":                                  0,
		"SELECT 1 FROM t WHERE other_account = $1":                                    0,
		"SELECT 1 FROM t WHERE account <> $1":                                         0,
		"SELECT account FROM t WHERE id = $1":                                         0,
	} {
		wantEqual(t, query, store.PlaceOf(query), want)
	}
}

// A02: which methods see the rows of all accounts, and why: a list that a reviewer reads. UPDATE=1 go test writes it
// anew.
func TestA02_SystemScopeIsCounted(t *testing.T) {
	const golden = "testdata/system_scope.txt"
	var lines []string
	sources, err := fs.Glob(os.DirFS("."), "*.go")
	must(t, err)
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		must(t, err)
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "system" && len(call.Args) == 2 {
					lines = append(lines, fmt.Sprintf("%-14s %s", call.Args[1].(*ast.Ident).Name, fn.Name.Name))
				}
				return true
			})
		}
	}
	slices.Sort(lines)
	got := strings.Join(slices.Compact(lines), "\n") + "\n"
	if os.Getenv("UPDATE") != "" {
		must(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	wantEqual(t, "methods in the system scope", got, string(want))
}
