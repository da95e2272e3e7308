package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/vault"
)

// VaultRow implements vault.Store.
func (d *DB) VaultRow(ctx context.Context, account access.Account, name string) (vault.Row, error) {
	const query = `SELECT key_uri, wrapped, keysets, version, created, modified FROM vaults WHERE account = $1 AND name = $2`
	r := vault.Row{Account: account, Name: name}
	var keysets string
	var created, modified int64
	err := d.engine.read().row(ctx, query, string(account), name).
		Scan(&r.KeyURI, &r.Wrapped, &keysets, &r.Version, &created, &modified)
	if err == nil {
		r.Keysets = decodeMap[[]byte](keysets, &err)
	}
	r.Created, r.Modified = fromMillis(created), fromMillis(modified)
	return or(r, found(err, "vault %q does not exist", name))
}

// CreateVaultRow implements vault.Store.
func (d *DB) CreateVaultRow(ctx context.Context, r vault.Row) error {
	const query = `INSERT INTO vaults (account, name, key_uri, wrapped, keysets, version, created, modified)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	_, err := d.exec(ctx, query, string(r.Account), r.Name, r.KeyURI, blob(r.Wrapped), encodeMap(r.Keysets), r.Version,
		millis(r.Created), millis(r.Modified))
	return unique(err, "vault %q exists already", r.Name)
}

// SwapVaultRow implements vault.Store.
func (d *DB) SwapVaultRow(ctx context.Context, r vault.Row, oldVersion int64) error {
	const query = `UPDATE vaults SET key_uri = $1, wrapped = $2, keysets = $3, version = $4, created = $5, modified = $6
		WHERE account = $7 AND name = $8 AND version = $9`
	n, err := d.exec(ctx, query, r.KeyURI, blob(r.Wrapped), encodeMap(r.Keysets), r.Version,
		millis(r.Created), millis(r.Modified), string(r.Account), r.Name, oldVersion)
	return changed(n, err, "vault %q has changed meanwhile", r.Name)
}

// or returns v, or the zero value with an error.
func or[T any](v T, err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return v, nil
}
