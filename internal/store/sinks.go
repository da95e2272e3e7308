package store

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// LeaseSink reports whether holder streams to the sink for ttl: of several replicas one does.
func (d *DB) LeaseSink(ctx context.Context, sink, holder string, ttl time.Duration) (bool, error) {
	return d.lease(ctx, "sink "+sink, holder, ttl)
}

// AuditAccounts returns the accounts that have a trail.
func (d *DB) AuditAccounts(ctx context.Context) ([]access.Account, error) {
	const query = `WITH RECURSIVE accounts (account) AS (
		SELECT min(account) FROM audit
		UNION ALL SELECT (SELECT min(a.account) FROM audit a WHERE a.account > accounts.account) FROM accounts WHERE accounts.account IS NOT NULL)
		SELECT account FROM accounts WHERE account IS NOT NULL`
	return list(system(ctx, everyAccount), d.engine.read(), scanAccount, query)
}

// SinkCursor returns how far a sink was given an account's trail: a cursor of Records, and the number of a checkpoint.
func (d *DB) SinkCursor(ctx context.Context, account access.Account, sink string) (position string, checkpoint int64, err error) {
	const query = "SELECT coalesce(max(position), ''), coalesce(max(checkpoint), 0) FROM audit_cursors WHERE account = $1 AND sink = $2"
	err = d.engine.read().row(ctx, query, plain(string(account)), sink).Scan(&position, &checkpoint)
	return position, checkpoint, classify(err)
}

// SetSinkCursor stores how far a sink was given an account's trail.
func (d *DB) SetSinkCursor(ctx context.Context, account access.Account, sink, position string, checkpoint int64) error {
	const query = `INSERT INTO audit_cursors (account, sink, position, checkpoint, updated) VALUES ($1, $2, $3, $4, {now})
		ON CONFLICT (account, sink) DO UPDATE SET position = excluded.position, checkpoint = excluded.checkpoint, updated = excluded.updated`
	_, err := d.exec(ctx, query, plain(string(account)), sink, position, checkpoint)
	return err
}
