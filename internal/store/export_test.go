package store

import "context"

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
	return d.engine.write(ctx, func(ctx context.Context, s session) error { return op(ctx, Statements{s}) })
}

// TestOnlyQueued returns how many operations wait for the writer of SQLite.
func (d *DB) TestOnlyQueued() int { return len(d.engine.(*sqliteEngine).writer.queue) }
