// Package store keeps everything in one database: SQLite, embedded, for one server, or PostgreSQL for many replicas.
//
// Security argument: the store sees only what the core sealed, and decides nothing but races. Every step that two
// requests could take at once is one compare-and-set in SQL, so exactly one of them takes it whatever the number of
// replicas. Every query that takes an account has it in its condition. A write that was answered is on disk.
package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/ceiling"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/signing"
	"github.com/tabard-id/tabard/internal/vault"
)

// Config says where the data is. Either SQLitePath or PostgresURL is set.
type Config struct {
	// SQLitePath is the database file. It is created with mode 0600, its directory with 0700. The directory belongs to
	// one server at a time.
	SQLitePath string
	// PostgresURL returns a postgres:// URL. It is called once, and what it returns is neither logged nor put in errors.
	PostgresURL func() string
	// Quotas bound what accounts have that have no quotas of their own.
	Quotas accounts.Quotas
	// MaxConns bounds the connections to PostgreSQL, or the readers of SQLite. 0 means 16 and 4.
	MaxConns int
}

// Engine names a database engine.
type Engine string

// The engines.
const (
	SQLite     Engine = "sqlite"
	PostgreSQL Engine = "postgres"
)

// DB is the store of every core package: vault.Store, identity.Store, broker.Store, signing.Store, access.Log and
// access.Reader. It is safe for concurrent use. All errors are faults: besides those of the interfaces, Unavailable
// where the database does not answer or the context ended, and Internal where it answers what it should not.
//
// Values of reads that are marked as recent in the interfaces are shared with a cache: their slices and maps MUST NOT
// be changed.
type DB struct {
	engine engine

	keys         cache[string, keyPair]
	workloads    cache[named, identity.Workload]
	workloadUIDs cache[named, identity.Workload]
	issuers      cache[named, identity.Issuer]
	providers    cache[named, broker.Provider]
	providerUIDs cache[named, broker.Provider]
	exchanges    cache[access.Account, bool] // whether an account has a provider that exchanges users' tokens
	apiKeys      cache[named, broker.APIKeyProvider]
	trusts       cache[named, federation.Trust]
	standings    cache[standingKey, identity.Standing]
	loggedOut    cache[named, identity.LoggedOut]
	// standingKinds says whether an account has any standing of a kind.
	standingKinds  cache[standingKey, bool]
	policyVersions cache[access.Account, int64]
	ceilings       cache[named, ceiling.Row]
	delegations    cache[named, identity.Delegation]
	commits        atomic.Int64 // SQLite: number of the last audit transaction. PostgreSQL: what xids are counted from
	auditInserts   sync.Map     // number of records → text of the INSERT
	accounts       cache[access.Account, accounts.Account]
	quotas         accounts.Quotas // of accounts that have none of their own
}

var (
	_ vault.Store    = (*DB)(nil)
	_ identity.Store = (*DB)(nil)
	_ broker.Store   = (*DB)(nil)
	_ signing.Store  = (*DB)(nil)
	_ access.Log     = (*DB)(nil)
	_ access.Reader  = (*DB)(nil)
)

// named is the key of a cached row: a name, uid or URL in an account.
type named struct {
	account access.Account
	name    string
}

// Open opens the database, creates it where there is none, and brings its schema up to date. It refuses a database that
// a newer server has changed, and a SQLite database that another server has open. Close the DB to release both.
func Open(ctx context.Context, c Config) (*DB, error) {
	var e engine
	var base int64
	var err error
	switch {
	case c.SQLitePath != "" && c.PostgresURL != nil:
		return nil, fault.New(fault.Invalid, "the store is either SQLite or PostgreSQL, not both")
	case c.SQLitePath != "":
		e, base, err = openSQLite(ctx, c)
	case c.PostgresURL != nil:
		e, base, err = openPostgres(ctx, c)
	default:
		return nil, fault.New(fault.Invalid, "the store needs the path of a SQLite file or the URL of a PostgreSQL database")
	}
	if err != nil {
		return nil, classify(err)
	}
	d := &DB{engine: e, quotas: c.Quotas}
	d.commits.Store(base)
	return d, nil
}

// Close finishes the writes that are under way, refuses those that come later, and returns when all is released.
func (d *DB) Close() error { return d.engine.close() }

// Engine says which engine the store is on.
func (d *DB) Engine() Engine { return d.engine.name() }

// Ping returns nil where the database can be read and, on SQLite, written.
func (d *DB) Ping(ctx context.Context) error { return classify(d.engine.ping(ctx)) }

// engine runs statements. Their text is the same for both engines, except for the tokens of dialect.
type engine interface {
	name() Engine
	// read is the session of reads outside a transaction.
	read() session
	// write runs op in one transaction, which is durable when write returns nil. op may run twice, so it MUST NOT leave
	// anything behind but what it assigns.
	write(ctx context.Context, op operation) error
	// single is write for an op of exactly one statement.
	single(ctx context.Context, op operation) error
	ping(ctx context.Context) error
	close() error
}

type operation func(ctx context.Context, s session) error

// session runs statements with placeholders $1, $2, ... numbered in the order of their first use, which is how SQLite
// counts them.
type session interface {
	exec(ctx context.Context, query string, args ...any) (rows int64, err error)
	row(ctx context.Context, query string, args ...any) scanner
	rows(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// scanner is one row, or why there is none.
type scanner interface{ Scan(dest ...any) error }

type noRow struct{ err error }

func (r noRow) Scan(...any) error { return r.err }

// dialect replaces the tokens in which the engines differ, and remembers the texts.
type dialect struct {
	tokens *strings.Replacer
	places func(string) string // rewrites placeholders, or nil
	texts  sync.Map
}

func (d *dialect) text(query string) string {
	if t, ok := d.texts.Load(query); ok {
		return t.(string)
	}
	t := d.tokens.Replace(query)
	if d.places != nil {
		t = d.places(t)
	}
	d.texts.Store(query, t)
	return t
}

// exec is single for a statement without rows.
func (d *DB) exec(ctx context.Context, query string, args ...any) (rows int64, err error) {
	err = d.engine.single(ctx, func(ctx context.Context, s session) error {
		rows, err = s.exec(ctx, query, args...)
		return err
	})
	return rows, err
}

// list scans every row of a query.
func list[T any](ctx context.Context, s session, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := s.rows(ctx, query, args...)
	if err != nil {
		return nil, classify(err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, classify(err)
		}
		all = append(all, one)
	}
	return all, classify(rows.Err())
}

// found turns the absence of a row into a NotFound fault.
func found(err error, format string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) || isState(err, "22021") { // PostgreSQL holds no text with such bytes
		return fault.New(fault.NotFound, format, args...)
	}
	return classify(err)
}

// unique turns the violation of a primary key or unique index into a Conflict fault.
func unique(err error, format string, args ...any) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		if e.Code() == lib.SQLITE_CONSTRAINT_PRIMARYKEY || e.Code() == lib.SQLITE_CONSTRAINT_UNIQUE {
			return fault.New(fault.Conflict, format, args...)
		}
	}
	if isState(err, "23505") {
		return fault.New(fault.Conflict, format, args...)
	}
	return classify(err)
}

// changed turns a compare-and-set that met no row into a Conflict fault.
func changed(rows int64, err error, format string, args ...any) error {
	if err == nil && rows == 0 {
		return fault.New(fault.Conflict, format, args...)
	}
	return classify(err)
}

// orphan turns the violation of a foreign key into a NotFound fault.
func orphan(err error, format string, args ...any) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == lib.SQLITE_CONSTRAINT_FOREIGNKEY || isState(err, "23503") {
		return fault.New(fault.NotFound, format, args...)
	}
	return classify(err)
}

func isState(err error, state string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == state
}

// classify gives an error of the database a code. What has one keeps it.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Wrap(fault.Unavailable, err, "the request ended before the store answered")
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_IOERR, lib.SQLITE_FULL, lib.SQLITE_CANTOPEN, lib.SQLITE_READONLY, lib.SQLITE_NOMEM:
			return fault.Wrap(fault.Unavailable, err, "the store does not answer")
		}
		return fault.Wrap(fault.Internal, err, "internal error")
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return classifyState(e, err)
	}
	if isDecode(err) {
		return fault.Wrap(fault.Internal, err, "internal error")
	}
	// What is left are errors of the network and of a pool that is closing.
	return fault.Wrap(fault.Unavailable, err, "the store does not answer")
}

func classifyState(e *pgconn.PgError, err error) error {
	if e.Code == "22021" || e.Code == "22P05" {
		return fault.Wrap(fault.Invalid, err, "the request has text with bytes that cannot be stored")
	}
	switch e.Code[:2] {
	case "08", "25", "28", "40", "53", "55", "57", "58": // connection, read-only, sign-in, rollback, resources, shutdown, I/O
		return fault.Wrap(fault.Unavailable, err, "the store does not answer")
	}
	return fault.Wrap(fault.Internal, err, "internal error")
}

// millis is how times are stored. The zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

// flag is how booleans are stored, because SQLite has none.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// blob is how sealed values are stored: never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
