package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
)

// Statements is what a test may run on a store beside its methods.
type Statements struct{ s session }

// Exec runs a statement.
func (x Statements) Exec(ctx context.Context, query string, args ...any) error {
	_, err := x.s.exec(ctx, query, args...)
	return err
}

// Text returns the first column of the first row.
func (x Statements) Text(ctx context.Context, query string, args ...any) (text string, err error) {
	err = x.s.row(ctx, query, args...).Scan(&text)
	return text, err
}

// TestOnlyWrite runs op as one write operation.
func (d *DB) TestOnlyWrite(ctx context.Context, op func(context.Context, Statements) error) error {
	return d.engine.write(system(ctx, atStart), func(ctx context.Context, s session) error { return op(ctx, Statements{s}) })
}

// TestOnlyQueued returns how many operations wait for the writer of SQLite.
func (d *DB) TestOnlyQueued() int { return len(d.engine.(*sqliteEngine).writer.queue) }

// TestOnlyAs runs op as one write operation in the scope of an account, whatever its statements say: as a method would
// whose queries had forgotten their condition.
func (d *DB) TestOnlyAs(ctx context.Context, account access.Account, op func(context.Context, Statements) error) error {
	return d.engine.write(only(ctx, account), func(ctx context.Context, s session) error { return op(ctx, Statements{s}) })
}

// TestOnlyUnscoped runs op without saying what it is about.
func (d *DB) TestOnlyUnscoped(ctx context.Context, op func(context.Context, Statements) error) error {
	return d.engine.write(ctx, func(ctx context.Context, s session) error { return op(ctx, Statements{s}) })
}

// PlaceOf returns the number of the argument that is the statement's account, or 0.
func PlaceOf(query string) int { return placeOf(query) }

// Rows runs a statement and returns how many rows it changed.
func (x Statements) Rows(ctx context.Context, query string, args ...any) (int64, error) {
	return x.s.exec(ctx, query, args...)
}

// Lines returns the columns of each row, all of them text.
func (x Statements) Lines(ctx context.Context, query string, args ...any) ([][]string, error) {
	rows, err := x.s.rows(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var lines [][]string
	for rows.Next() {
		line, dest := make([]string, len(columns)), make([]any, len(columns))
		for i := range line {
			dest[i] = &line[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, rows.Err()
}
