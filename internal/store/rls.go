package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Row-level security (ADR 0016). The first wall between accounts is the condition that every query has. The second is
// PostgreSQL's: a row is seen and written only where tabard.account of the session is the row's account. Each statement
// runs in the scope of the account that its own text holds the column account against; a statement without such a place
// is refused, unless its method says by system that it is about all accounts, and why. On SQLite there is no second
// wall, but the same statements are refused there, so that a forgotten condition shows in every test.

// everything is the scope that sees the rows of all accounts.
const everything = "*"

// reason says why statements are about all accounts. TestA02_SystemScopeIsCounted holds the list of who uses which.
type reason string

// The reasons.
const (
	byGlobalName reason = "the key of the row is unique in the server and a secret or an id of ours: the row says whose it is"
	dueWork      reason = "work that is due, of whatever account"
	everyAccount reason = "a list of accounts, or of what they all have"
	mixedTrail   reason = "one write of the trail has records of several accounts"
	ownTable     reason = "a table of the server itself, without accounts"
	atStart      reason = "the schema, at the start"
)

type scopeKey struct{}

// system returns a context whose statements see the rows of all accounts.
func system(ctx context.Context, _ reason) context.Context {
	return context.WithValue(ctx, scopeKey{}, everything)
}

// only returns a context whose statements see the rows of one account, whether their texts name it or not.
func only(ctx context.Context, account access.Account) context.Context {
	return context.WithValue(ctx, scopeKey{}, string(account))
}

// errNoScope is a fault of ours: a test of the method finds it.
func errNoScope(query string) error {
	return fault.New(fault.Internal, "this statement holds no column account against an argument, and its method does not say by system(ctx, ...) "+
		"that it is about all accounts (store/rls.go): %s", strings.Join(strings.Fields(query), " "))
}

// places finds, once for each text, which argument of a statement is the account.
type places struct{ known sync.Map } // text → int, 0 for none

var (
	accountEquals = regexp.MustCompile(`\baccount\s*=\s*(?:CAST\(\s*)?\$(\d+)`)
	insertValues  = regexp.MustCompile(`(?s)^\s*INSERT INTO \w+\s*\(([^)]*)\)\s*VALUES\s*\((.*)`)
	accountValue  = regexp.MustCompile(`^\s*\$(\d+)\s*$`)
)

// of returns the number of the argument, or 0.
func (p *places) of(query string) int {
	if n, ok := p.known.Load(query); ok {
		return n.(int)
	}
	n := placeOf(query)
	p.known.Store(query, n)
	return n
}

func placeOf(query string) int {
	if m := insertValues.FindStringSubmatch(query); m != nil {
		values := topLevel(m[2])
		for i, column := range strings.Split(m[1], ",") {
			if strings.TrimSpace(column) != "account" || i >= len(values) {
				continue
			}
			if v := accountValue.FindStringSubmatch(values[i]); v != nil {
				return number(v[1])
			}
		}
	}
	if m := accountEquals.FindStringSubmatch(query); m != nil {
		return number(m[1])
	}
	return 0
}

func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// topLevel splits a list of values at its commas, up to the parenthesis that closes it.
func topLevel(list string) (values []string) {
	depth, from := 0, 0
	for i, c := range list {
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return append(values, list[from:i])
			}
		case ',':
			if depth == 0 {
				values, from = append(values, list[from:i]), i+1
			}
		}
	}
	return values
}

// scopeOf returns the scope that a statement runs in. arg returns its arguments, counted from 1.
func (p *places) scopeOf(ctx context.Context, query string, args int, arg func(int) any) (string, error) {
	if scope, ok := ctx.Value(scopeKey{}).(string); ok {
		return scope, nil
	}
	place := p.of(query)
	if place == 0 || place > args {
		return "", errNoScope(query)
	}
	switch account := arg(place).(type) {
	case string:
		if account != everything { // "" is nobody's: the trail has records of requests whose sender is not known
			return account, nil
		}
	case access.Account:
		if account != everything {
			return string(account), nil
		}
	}
	return "", errNoScope(query)
}

// scoped is a session that refuses statements without a scope. It is SQLite's: PostgreSQL's connections do it
// themselves.
type scoped struct {
	session
	places *places
}

func (s scoped) check(ctx context.Context, query string, args []any) error {
	_, err := s.places.scopeOf(ctx, query, len(args), func(n int) any { return args[n-1] })
	return err
}

func (s scoped) exec(ctx context.Context, query string, args ...any) (int64, error) {
	if err := s.check(ctx, query, args); err != nil {
		return 0, err
	}
	return s.session.exec(ctx, query, args...)
}

func (s scoped) row(ctx context.Context, query string, args ...any) scanner {
	if err := s.check(ctx, query, args); err != nil {
		return noRow{err}
	}
	return s.session.row(ctx, query, args...)
}

func (s scoped) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := s.check(ctx, query, args); err != nil {
		return nil, err
	}
	return s.session.rows(ctx, query, args...)
}

// scopedConnector makes connections that keep to the scope of their statements.
type scopedConnector struct {
	driver.Connector
	places *places
}

// Connect implements driver.Connector.
func (c scopedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	pg, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a connection is a %T", conn), conn.Close())
	}
	return &scopedConn{Conn: pg, places: c.places}, nil
}

// scopedConn is a connection in the scope of one account. The scope is changed only where a statement needs another: a
// server of one account changes it next to never. database/sql lets one goroutine at a time use it.
type scopedConn struct {
	*stdlib.Conn
	places *places
	scope  string // tabard.account on the server
	known  bool   // whether scope is known
}

// enter brings the connection into the scope of a statement.
func (c *scopedConn) enter(ctx context.Context, query string, args []driver.NamedValue) error {
	want, err := c.places.scopeOf(ctx, query, len(args), func(n int) any { return args[n-1].Value })
	if err != nil || c.known && want == c.scope {
		return err
	}
	c.known = false
	const set = "SELECT set_config('tabard.account', $1, false)"
	if _, err := c.Conn.ExecContext(ctx, set, []driver.NamedValue{{Ordinal: 1, Value: want}}); err != nil {
		return err
	}
	c.scope, c.known = want, true
	return nil
}

// ExecContext implements driver.ExecerContext.
func (c *scopedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.enter(ctx, query, args); err != nil {
		return nil, err
	}
	return c.Conn.ExecContext(ctx, query, args)
}

// QueryContext implements driver.QueryerContext.
func (c *scopedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.enter(ctx, query, args); err != nil {
		return nil, err
	}
	return c.Conn.QueryContext(ctx, query, args)
}

var errPrepared = errors.New("statements that are prepared apart from their run have no scope")

// Prepare implements driver.Conn. It refuses: such a statement would run in the scope of whatever ran before it.
func (c *scopedConn) Prepare(string) (driver.Stmt, error) { return nil, errPrepared }

// PrepareContext implements driver.ConnPrepareContext, as Prepare does.
func (c *scopedConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return nil, errPrepared
}

// BeginTx implements driver.ConnBeginTx.
func (c *scopedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &scopedTx{tx, c}, nil
}

// scopedTx forgets the connection's scope where the transaction is undone: with it, the server undoes the setting.
type scopedTx struct {
	driver.Tx
	conn *scopedConn
}

// Commit implements driver.Tx.
func (t *scopedTx) Commit() error {
	err := t.Tx.Commit()
	if err != nil {
		t.conn.known = false
	}
	return err
}

// Rollback implements driver.Tx.
func (t *scopedTx) Rollback() error {
	t.conn.known = false
	return t.Tx.Rollback()
}

// SecondWall says why the database does not keep accounts apart by itself, or "" where it does. On SQLite nothing does
// but the conditions of the queries.
func (d *DB) SecondWall(ctx context.Context) (down string, err error) {
	if d.Engine() != PostgreSQL {
		return "", nil
	}
	const query = `SELECT CASE WHEN rolsuper THEN 'is a superuser' WHEN rolbypassrls THEN 'has BYPASSRLS' ELSE '' END
		FROM pg_roles WHERE rolname = current_user`
	err = d.engine.read().row(system(ctx, atStart), query).Scan(&down)
	if err != nil || down == "" {
		return "", classify(err)
	}
	return "the database role " + down + ", so row-level security does not hold it: give the server a role of its own", nil
}
