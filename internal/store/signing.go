package store

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/signing"
)

const signingColumns = `purpose, period, serial, kid, public, sealed, begins, revoked, created_at`

// SigningKeys implements signing.Store.
func (d *DB) SigningKeys(ctx context.Context, p signing.Purpose, from int64) ([]signing.Row, error) {
	const query = `SELECT ` + signingColumns + ` FROM signing_keys WHERE purpose = $1 AND period >= $2 ORDER BY period, serial`
	return list(system(ctx, ownTable), d.engine.read(), scanSigningKey, query, string(p), from)
}

func scanSigningKey(s scanner) (r signing.Row, err error) {
	var begins, revoked, created int64
	err = s.Scan((*string)(&r.Purpose), &r.Period, &r.Serial, &r.ID, &r.Public, (*[]byte)(&r.Sealed), &begins, &revoked, &created)
	r.Sealed, r.Begins, r.Revoked, r.Created = sealed(r.Sealed), fromMillis(begins), fromMillis(revoked), fromMillis(created)
	return r, err
}

// SigningPurposes implements signing.Store.
func (d *DB) SigningPurposes(ctx context.Context, from int64) ([]signing.Purpose, error) {
	const query = `SELECT DISTINCT purpose FROM signing_keys WHERE period >= $1 ORDER BY purpose`
	return list(system(ctx, ownTable), d.engine.read(), func(s scanner) (p signing.Purpose, err error) {
		err = s.Scan((*string)(&p))
		return p, err
	}, query, from)
}

// AddSigningKey implements signing.Store.
func (d *DB) AddSigningKey(ctx context.Context, r signing.Row) error {
	return d.engine.single(system(ctx, ownTable), func(ctx context.Context, s session) error { return addSigningKey(ctx, s, r) })
}

func addSigningKey(ctx context.Context, s session, r signing.Row) error {
	const query = `INSERT INTO signing_keys (` + signingColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	_, err := s.exec(ctx, query, string(r.Purpose), r.Period, r.Serial, r.ID, r.Public, blob(r.Sealed), millis(r.Begins), millis(r.Revoked),
		millis(r.Created))
	return unique(err, "there is a signing key for the period already")
}

// ReplaceSigningKeys implements signing.Store.
func (d *DB) ReplaceSigningKeys(ctx context.Context, r signing.Row, at time.Time) error {
	const revoke = `UPDATE signing_keys SET revoked = $1, sealed = $2 WHERE purpose = $3 AND revoked = 0`
	return d.engine.write(system(ctx, ownTable), func(ctx context.Context, s session) error {
		if _, err := s.exec(ctx, revoke, millis(at), blob(nil), string(r.Purpose)); err != nil {
			return classify(err)
		}
		return addSigningKey(ctx, s, r)
	})
}
