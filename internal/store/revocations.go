package store

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
)

const revocationColumns = `account, id, connection, in_column, key, workload, user_ref, provider, generation, identity, grant_ref, token,
	state, detail, tries, fence, due, created, updated`

func scanRevocation(s scanner) (r broker.Revocation, err error) {
	var due, created, updated int64
	err = s.Scan((*string)(&r.Account), &r.ID, &r.Connection, &r.Column, &r.Key, &r.Workload, &r.User, &r.Provider, &r.Generation,
		&r.Identity, &r.GrantRef, (*[]byte)(&r.Token), (*string)(&r.State), &r.Detail, &r.Tries, &r.Fence, &due, &created, &updated)
	r.Token = sealed(r.Token)
	r.Due, r.Created, r.Updated = fromMillis(due), fromMillis(created), fromMillis(updated)
	return r, err
}

// RevokeConnection implements broker.RevocationStore.
func (d *DB) RevokeConnection(ctx context.Context, c broker.Connection, oldGeneration int64, r broker.Revocation, ttl time.Duration, leaving broker.Leaving) error {
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		if err := leaveGrant(ctx, s, leaving); err != nil {
			return err
		}
		if err := leaveLineage(ctx, s, c, r, leaving.LastOfLineage); err != nil {
			return err
		}
		if err := swapConnection(ctx, s, c, oldGeneration); err != nil || r.ID == "" {
			return err
		}
		return addRevocation(ctx, s, r, ttl)
	})
}

// AddRevocation implements broker.RevocationStore. NotFound means that the provider is gone.
func (d *DB) AddRevocation(ctx context.Context, r broker.Revocation) error {
	return d.engine.single(ctx, func(ctx context.Context, s session) error { return addRevocation(ctx, s, r, 0) })
}

// addRevocation leases the row for ttl; with 0 nobody has the lease.
func addRevocation(ctx context.Context, s session, r broker.Revocation, ttl time.Duration) error {
	const query = `INSERT INTO revocations (` + revocationColumns + `, lease_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
		CASE WHEN $20 > 0 THEN {now} + $20 ELSE 0 END)`
	_, err := s.exec(ctx, query, string(r.Account), r.ID, r.Connection, r.Column, r.Key, r.Workload, r.User, r.Provider, r.Generation,
		r.Identity, r.GrantRef, blob(r.Token), string(r.State), r.Detail, r.Tries, r.Fence, millis(r.Due), millis(r.Created), millis(r.Updated),
		ttl.Milliseconds())
	return unique(orphan(err, "the credential provider of the revocation does not exist"), "the revocation exists already")
}

// LeaseRevocation implements broker.RevocationStore. Where two replicas choose the same row, the one that comes second
// finds it leased, and takes none this time.
func (d *DB) LeaseRevocation(ctx context.Context, t time.Time, ttl time.Duration) (broker.Revocation, error) {
	const query = `UPDATE revocations SET tries = tries + 1, fence = fence + 1, lease_until = {now} + $1
		WHERE state = 'pending' AND lease_until < {now} AND (account, id) IN
		(SELECT account, id FROM revocations WHERE state = 'pending' AND due <= $2 AND lease_until < {now} ORDER BY due LIMIT 1)
		RETURNING ` + revocationColumns
	var r broker.Revocation
	err := d.engine.single(system(ctx, dueWork), func(ctx context.Context, s session) (err error) {
		r, err = scanRevocation(s.row(ctx, query, ttl.Milliseconds(), millis(t)))
		return found(err, "no revocation is due")
	})
	return or(r, err)
}

// FinishRevocation implements broker.RevocationStore.
func (d *DB) FinishRevocation(ctx context.Context, r broker.Revocation) error {
	const query = `UPDATE revocations SET state = $1, detail = $2, due = $3, token = $4, updated = $5, lease_until = 0,
		grant_ref = CASE WHEN $1 = 'pending' THEN grant_ref ELSE '' END WHERE account = $6 AND id = $7 AND fence = $8`
	n, err := d.exec(ctx, query, string(r.State), r.Detail, millis(r.Due), blob(r.Token), millis(r.Updated), string(r.Account), r.ID, r.Fence)
	return changed(n, err, "revocation %q was taken by another", r.ID)
}

// RevocationOf implements broker.RevocationStore.
func (d *DB) RevocationOf(ctx context.Context, account access.Account, connection string) (broker.Revocation, error) {
	const query = `SELECT ` + revocationColumns + ` FROM revocations WHERE account = $1 AND connection = $2
		ORDER BY generation DESC LIMIT 1`
	r, err := scanRevocation(d.engine.read().row(ctx, query, string(account), connection))
	return or(r, found(err, "connection %q was not revoked", connection))
}

// SweepRevocations implements broker.RevocationStore.
func (d *DB) SweepRevocations(ctx context.Context, t time.Time, limit int) (int, error) {
	const query = `DELETE FROM revocations WHERE (account, id) IN
		(SELECT account, id FROM revocations WHERE state <> 'pending' AND updated < $1 LIMIT $2)`
	n, err := d.exec(system(ctx, dueWork), query, millis(t), limit)
	return int(n), err
}
