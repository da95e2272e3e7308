package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/signing"
)

const signingColumns = `purpose, period, kid, public, sealed, created_at`

// SigningKeys implements signing.Store.
func (d *DB) SigningKeys(ctx context.Context, p signing.Purpose, from int64) ([]signing.Row, error) {
	const query = `SELECT ` + signingColumns + ` FROM signing_keys WHERE purpose = $1 AND period >= $2 ORDER BY period`
	return list(ctx, d.engine.read(), scanSigningKey, query, string(p), from)
}

func scanSigningKey(s scanner) (r signing.Row, err error) {
	var created int64
	err = s.Scan((*string)(&r.Purpose), &r.Period, &r.ID, &r.Public, (*[]byte)(&r.Sealed), &created)
	r.Sealed, r.Created = sealed(r.Sealed), fromMillis(created)
	return r, err
}

// AddSigningKey implements signing.Store.
func (d *DB) AddSigningKey(ctx context.Context, r signing.Row) error {
	const query = `INSERT INTO signing_keys (` + signingColumns + `) VALUES ($1, $2, $3, $4, $5, $6)`
	_, err := d.exec(ctx, query, string(r.Purpose), r.Period, r.ID, r.Public, blob(r.Sealed), millis(r.Created))
	return unique(err, "there is a signing key for the period already")
}
