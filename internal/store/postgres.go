package store

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tabard-id/tabard/internal/fault"
)

// postgresTokens are the tokens of dialect. {now} is the database's clock in milliseconds. {tx} is the number of the
// audit transaction: its xid, counted from the base given as the argument. {settled} says whether every transaction up
// to that of an audit row has ended, so that none can still add a row before it.
func postgresTokens() []string {
	return []string{
		"{now}", "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
		"{none}", "CAST('' AS BYTEA)",
		"{tx}", "CAST($1 AS BIGINT) + CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)",
		"{settled}", "(tx < CAST($1 AS BIGINT) + CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT))",
	}
}

const (
	postgresConns   = 16
	postgresConnect = 10 * time.Second
)

// postgresEngine is a pool. pgx prepares each statement once on each connection, by its text.
type postgresEngine struct {
	db      *sql.DB
	dialect *dialect
	session session
}

func openPostgres(ctx context.Context, c Config) (_ engine, base int64, err error) {
	config, err := pgx.ParseConfig(c.PostgresURL())
	if err != nil {
		// The cause quotes the URL.
		return nil, 0, fault.New(fault.Invalid, "the PostgreSQL URL cannot be parsed")
	}
	if config.ConnectTimeout == 0 || config.ConnectTimeout > postgresConnect {
		config.ConnectTimeout = postgresConnect
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "tabard"
	}
	// An answered write must be on disk, whatever the server's default is. Stronger settings stay.
	db := sql.OpenDB(scopedConnector{places: &places{}, Connector: stdlib.GetConnector(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false)
			WHERE current_setting('synchronous_commit') IN ('off', 'local')`)
		return err
	}))})
	conns := c.MaxConns
	if conns <= 0 {
		conns = postgresConns
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	e := &postgresEngine{db: db, dialect: &dialect{tokens: strings.NewReplacer(postgresTokens()...)}}
	e.session = statements{db, e.dialect}
	if base, err = e.prepare(ctx); err != nil {
		return nil, 0, errors.Join(err, db.Close())
	}
	return e, base, nil
}

func (e *postgresEngine) prepare(ctx context.Context) (base int64, err error) {
	ctx = system(ctx, atStart)
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "the PostgreSQL database cannot be reached")
	}
	defer conn.Close()
	if err := migrate(ctx, conn, PostgreSQL); err != nil {
		return 0, err
	}
	return auditBase(ctx, conn)
}

// auditBase returns what xids are counted from. A dump that was restored into another cluster holds records with
// higher xids than those that come; then the base is raised above them.
func auditBase(ctx context.Context, conn *sql.Conn) (base int64, err error) {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	if err := tx.QueryRowContext(ctx, "SELECT base FROM audit_base FOR UPDATE").Scan(&base); err != nil {
		return 0, err
	}
	var newest, next int64
	if err := tx.QueryRowContext(ctx, newestAudit).Scan(&newest); err != nil {
		return 0, err
	}
	const xmax = "SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT)"
	if err := tx.QueryRowContext(ctx, xmax).Scan(&next); err != nil {
		return 0, err
	}
	if newest >= base+next {
		base = newest
		if _, err := tx.ExecContext(ctx, "UPDATE audit_base SET base = $1", base); err != nil {
			return 0, err
		}
	}
	return base, tx.Commit()
}

func (e *postgresEngine) name() Engine  { return PostgreSQL }
func (e *postgresEngine) read() session { return e.session }
func (e *postgresEngine) close() error  { return e.db.Close() }

func (e *postgresEngine) ping(ctx context.Context) error {
	var n int
	return e.session.row(system(ctx, ownTable), "SELECT 1").Scan(&n)
}

func (e *postgresEngine) write(ctx context.Context, op operation) error {
	return again(ctx, func() error {
		tx, err := e.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := op(ctx, statements{tx, e.dialect}); err != nil {
			_ = tx.Rollback() // fails where the connection is gone, and the transaction with it
			return err
		}
		return tx.Commit()
	})
}

func (e *postgresEngine) single(ctx context.Context, op operation) error {
	return again(ctx, func() error { return op(ctx, e.session) })
}

// postgresTries is how often an operation that the server rolled back because of others is tried.
const postgresTries = 3

// again repeats what the server rolled back because of others, after a moment, so that they get ahead. Any other
// failure of a commit may have been a success, so it is not repeated.
func again(ctx context.Context, run func() error) error {
	err := run()
	for try := 1; try < postgresTries && (isState(err, "40001") || isState(err, "40P01")); try++ {
		if pause(ctx, time.Duration(try)*10*time.Millisecond+rand.N(10*time.Millisecond)) != nil {
			break
		}
		err = run()
	}
	return classify(err)
}

// statements is a session on a pool or in a transaction.
type statements struct {
	on interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
	dialect *dialect
}

func (s statements) exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := s.on.ExecContext(ctx, s.dialect.text(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (s statements) row(ctx context.Context, query string, args ...any) scanner {
	return s.on.QueryRowContext(ctx, s.dialect.text(query), args...)
}

func (s statements) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return s.on.QueryContext(ctx, s.dialect.text(query), args...)
}
