package store

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/exchange"
)

var _ exchange.Store = (*DB)(nil)

const exchangedColumns = `account, jti, workload, generation, user_ref, issuer, workload_epoch, user_epoch, issuer_epoch, actors, since, expires, revoked,
	session, session_epoch`

// AddExchanged implements exchange.Store.
func (d *DB) AddExchanged(ctx context.Context, e exchange.Exchanged) error {
	const query = `INSERT INTO exchanged_tokens (` + exchangedColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`
	_, err := d.exec(ctx, query, string(e.Account), e.ID, e.Workload, e.Generation, e.UserRef, e.Issuer, e.Epochs[0], e.Epochs[1], e.Epochs[2],
		encodeList(e.Actors), millis(e.Since), millis(e.Expires), flag(e.Revoked), e.Session, e.SessionEpoch)
	return unique(err, "the id of an exchanged token exists already")
}

// Exchanged implements exchange.Store.
func (d *DB) Exchanged(ctx context.Context, account access.Account, id string) (exchange.Exchanged, error) {
	const query = `SELECT ` + exchangedColumns + ` FROM exchanged_tokens WHERE account = $1 AND jti = $2`
	var e exchange.Exchanged
	var actors string
	var since, expires int64
	err := d.engine.read().row(ctx, query, string(account), id).Scan((*string)(&e.Account), &e.ID, &e.Workload, &e.Generation, &e.UserRef, &e.Issuer,
		&e.Epochs[0], &e.Epochs[1], &e.Epochs[2], &actors, &since, &expires, &e.Revoked, &e.Session, &e.SessionEpoch)
	if err == nil {
		e.Since, e.Expires = fromMillis(since), fromMillis(expires)
		e.Actors = decodeList[string](actors, &err)
	}
	return or(e, found(err, "the token does not exist"))
}

// RevokeExchanged implements exchange.Store.
func (d *DB) RevokeExchanged(ctx context.Context, account access.Account, id string) error {
	const query = `UPDATE exchanged_tokens SET revoked = 1 WHERE account = $1 AND jti = $2 RETURNING jti`
	return d.engine.single(ctx, func(ctx context.Context, s session) error {
		return found(s.row(ctx, query, string(account), id).Scan(&id), "the token does not exist")
	})
}

// SweepExchanged implements exchange.Store.
func (d *DB) SweepExchanged(ctx context.Context, t time.Time, limit int) (int, error) {
	const query = `DELETE FROM exchanged_tokens WHERE (account, jti) IN
		(SELECT account, jti FROM exchanged_tokens WHERE expires <= $1 ORDER BY expires LIMIT $2)`
	n, err := d.exec(system(ctx, dueWork), query, millis(t), limit)
	return int(n), classify(err)
}
