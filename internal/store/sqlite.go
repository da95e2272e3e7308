package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/tabard-id/tabard/internal/fault"
)

// sqliteTokens are the tokens of dialect. {now} is the database's clock in milliseconds. {tx} is the number of the
// audit transaction, given as the argument. {settled} says whether an audit row can be handed out: with one writer
// always.
func sqliteTokens() []string {
	return []string{
		"{now}", "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
		"{none}", "x''",
		"{tx}", "$1",
		"{settled}", "($1 = $1)",
	}
}

// sqliteReaders is how many reads run at once where the configuration does not say.
const sqliteReaders = 4

// sqliteEngine is a pool of readers and one writer.
type sqliteEngine struct {
	lock    *sql.DB
	readers *sql.DB
	session *pooled
	writer  *writer
	places  places
}

func openSQLite(ctx context.Context, c Config) (_ engine, base int64, err error) {
	e := &sqliteEngine{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	path, err := filepath.Abs(c.SQLitePath)
	if err != nil {
		return nil, 0, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, fault.Wrap(fault.Unavailable, err, "the data directory %q cannot be made", dir)
	}
	for _, file := range []string{filepath.Join(dir, "lock"), path} {
		if err := private(file); err != nil {
			return nil, 0, fault.Wrap(fault.Unavailable, err, "the file %q cannot be opened for writing", file)
		}
	}
	if e.lock, err = lockDirectory(ctx, dir); err != nil {
		return nil, 0, err
	}
	// The writer comes first: it sets the journal mode and makes the tables.
	if e.writer, err = openWriter(ctx, path); err != nil {
		return nil, 0, err
	}
	if err := migrate(ctx, e.writer.conn, SQLite); err != nil {
		return nil, 0, err
	}
	if err := e.writer.conn.QueryRowContext(ctx, newestAudit).Scan(&base); err != nil {
		return nil, 0, err
	}
	readers := c.MaxConns
	if readers <= 0 {
		readers = sqliteReaders
	}
	if e.readers, err = sql.Open("sqlite", sqliteDSN(path, "query_only(1)")); err != nil {
		return nil, 0, err
	}
	e.readers.SetMaxOpenConns(readers)
	e.readers.SetMaxIdleConns(readers)
	e.session = &pooled{db: e.readers, dialect: e.writer.dialect}
	go e.writer.run()
	e.writer.running = true
	return e, base, nil
}

// private makes sure that the file exists and only its owner can read it. SQLite gives its journals the same mode. A
// file that exists is not opened: closing it would release the POSIX locks that another DB of this process has on it.
func private(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return os.Chmod(file, 0o600)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// sqliteDSN escapes the path, so that none of its characters reaches the driver as a setting.
func sqliteDSN(path string, pragmas ...string) string {
	q := url.Values{"_pragma": append([]string{
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "secure_delete(1)",
		"trusted_schema(0)", "cache_size(-16000)", "mmap_size(0)", "journal_size_limit(67108864)",
	}, pragmas...)}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: q.Encode()}).String()
}

// lockDirectory keeps other servers out of the directory. The lock is SQLite's own, on an empty database, because that
// holds on every system it runs on, also against a second DB in this process, and ends with the process.
func lockDirectory(ctx context.Context, dir string) (*sql.DB, error) {
	path := (&url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(filepath.Join(dir, "lock")),
		RawQuery: "_pragma=journal_mode(MEMORY)"}).String()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		_ = db.Close()
		if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == lib.SQLITE_BUSY {
			return nil, fault.New(fault.Conflict, "another server uses the data directory %q", dir)
		}
		return nil, fault.Wrap(fault.Unavailable, err, "the data directory %q cannot be locked", dir)
	}
	return db, nil
}

func (e *sqliteEngine) name() Engine  { return SQLite }
func (e *sqliteEngine) read() session { return scoped{e.session, &e.places} }

func (e *sqliteEngine) write(ctx context.Context, op operation) error {
	return e.writer.do(ctx, func(ctx context.Context, s session) error { return op(ctx, scoped{s, &e.places}) })
}

func (e *sqliteEngine) single(ctx context.Context, op operation) error { return e.write(ctx, op) }

// ping writes too: a full or read-only disk must show.
func (e *sqliteEngine) ping(ctx context.Context) error {
	var n int
	if err := e.session.row(ctx, "SELECT count(*) FROM migrations").Scan(&n); err != nil {
		return err
	}
	return e.single(system(ctx, ownTable), func(ctx context.Context, s session) error {
		_, err := s.exec(ctx, "UPDATE migrations SET number = number WHERE number = 1")
		return err
	})
}

// close also undoes an open that failed half way.
func (e *sqliteEngine) close() error {
	var errs []error
	if e.session != nil {
		e.session.close()
	}
	if e.readers != nil {
		errs = append(errs, e.readers.Close())
	}
	if e.writer != nil {
		errs = append(errs, e.writer.close())
	}
	if e.lock != nil { // last: until here nobody else may open the file
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

// pooled is a session on a pool, with each statement prepared once on each connection.
type pooled struct {
	db      *sql.DB
	dialect *dialect
	mu      sync.Mutex // serializes prepare
	stmts   sync.Map   // query → *sql.Stmt
}

func (p *pooled) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := p.stmts.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.stmts.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := p.db.PrepareContext(ctx, p.dialect.text(query))
	if err != nil {
		return nil, err
	}
	p.stmts.Store(query, s)
	return s, nil
}

func (p *pooled) close() {
	p.stmts.Range(func(_, s any) bool {
		_ = s.(*sql.Stmt).Close()
		return true
	})
}

// The driver starts a goroutine for every statement whose context can end. Reads of a local file are short, so they
// run without.
func (p *pooled) exec(ctx context.Context, query string, args ...any) (int64, error) {
	return 0, fault.New(fault.Internal, "a write outside the writer")
}

func (p *pooled) row(ctx context.Context, query string, args ...any) scanner {
	if err := ctx.Err(); err != nil {
		return noRow{err}
	}
	s, err := p.stmt(context.WithoutCancel(ctx), query)
	if err != nil {
		return noRow{err}
	}
	return s.QueryRowContext(context.WithoutCancel(ctx), args...)
}

func (p *pooled) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := p.stmt(context.WithoutCancel(ctx), query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(context.WithoutCancel(ctx), args...)
}

// placeholder is one place for an argument.
var placeholder = regexp.MustCompile(`\$(\d+)`)

// sqlitePlaces makes $1 a place without a name where it is used first: SQLite counts those in order, and the driver
// looks up each name at each run, which would be a third of the cost of an audit record.
func sqlitePlaces(text string) string {
	used := 0
	return placeholder.ReplaceAllStringFunc(text, func(place string) string {
		if place == "$"+strconv.Itoa(used+1) {
			used++
			return "?"
		}
		return "?" + place[1:]
	})
}
