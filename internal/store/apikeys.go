package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/broker"
)

const apiKeyColumns = `account, uid, name, api_key, secret_id, tags, version, created, updated`

func scanAPIKey(s scanner) (p broker.APIKeyProvider, err error) {
	var tags string
	var created, updated int64
	err = s.Scan((*string)(&p.Account), &p.UID, &p.Name, (*[]byte)(&p.Key), &p.SecretID, &tags, &p.Version, &created, &updated)
	if err != nil {
		return p, err
	}
	p.Key, p.Tags = sealed(p.Key), decodeMap[string](tags, &err)
	p.Created, p.Updated = fromMillis(created), fromMillis(updated)
	return p, err
}

// CreateAPIKeyProvider implements broker.APIKeyStore.
func (d *DB) CreateAPIKeyProvider(ctx context.Context, p broker.APIKeyProvider) error {
	const query = `INSERT INTO api_key_providers (` + apiKeyColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	err := d.add(ctx, p.Account, accounts.CredentialProviders, query, string(p.Account), p.UID, p.Name, blob(p.Key), p.SecretID, encodeMap(p.Tags), p.Version,
		millis(p.Created), millis(p.Updated))
	return unique(err, "API-key provider %q exists already", p.Name)
}

// APIKeyProvider implements broker.APIKeyStore.
func (d *DB) APIKeyProvider(ctx context.Context, account access.Account, name string) (broker.APIKeyProvider, error) {
	const query = `SELECT ` + apiKeyColumns + ` FROM api_key_providers WHERE account = $1 AND name = $2`
	return d.apiKeys.get(ctx, named{account, name}, func(ctx context.Context) (broker.APIKeyProvider, error) {
		p, err := scanAPIKey(d.engine.read().row(ctx, query, string(account), name))
		return or(p, found(err, "API-key provider %q does not exist", name))
	})
}

// APIKeyProviders implements broker.APIKeyStore.
func (d *DB) APIKeyProviders(ctx context.Context, account access.Account, after string, limit int) ([]broker.APIKeyProvider, error) {
	const query = `SELECT ` + apiKeyColumns + ` FROM api_key_providers WHERE account = $1 AND name > $2 ORDER BY name LIMIT $3`
	return list(ctx, d.engine.read(), scanAPIKey, query, string(account), after, limit)
}

// SwapAPIKeyProvider implements broker.APIKeyStore.
func (d *DB) SwapAPIKeyProvider(ctx context.Context, p broker.APIKeyProvider, oldVersion int64) error {
	const query = `UPDATE api_key_providers SET api_key = $1, secret_id = $2, tags = $3, version = $4, updated = $5
		WHERE account = $6 AND uid = $7 AND version = $8`
	n, err := d.exec(ctx, query, blob(p.Key), p.SecretID, encodeMap(p.Tags), p.Version, millis(p.Updated), string(p.Account), p.UID, oldVersion)
	d.apiKeys.drop(named{p.Account, p.Name})
	return changed(n, err, "API-key provider %q has changed meanwhile", p.Name)
}

// DeleteAPIKeyProvider implements broker.APIKeyStore.
func (d *DB) DeleteAPIKeyProvider(ctx context.Context, account access.Account, name string) error {
	const query = `DELETE FROM api_key_providers WHERE account = $1 AND name = $2 RETURNING uid`
	err := d.engine.single(ctx, func(ctx context.Context, s session) error {
		var uid string
		return found(s.row(ctx, query, string(account), name).Scan(&uid), "API-key provider %q does not exist", name)
	})
	d.apiKeys.drop(named{account, name})
	return err
}

// VaultTags implements broker.VaultTagStore.
func (d *DB) VaultTags(ctx context.Context, account access.Account, name string) (map[string]string, int64, error) {
	const query = `SELECT tags, version FROM vault_tags WHERE account = $1 AND name = $2`
	var text string
	var version int64
	err := d.engine.read().row(ctx, query, string(account), name).Scan(&text, &version)
	if err != nil {
		return nil, 0, found(err, "vault %q has no tags", name)
	}
	tags := decodeMap[string](text, &err)
	return tags, version, classify(err)
}

// SwapVaultTags implements broker.VaultTagStore.
func (d *DB) SwapVaultTags(ctx context.Context, account access.Account, name string, tags map[string]string, oldVersion int64) error {
	const insert = `INSERT INTO vault_tags (account, name, tags, version) VALUES ($1, $2, $3, 1)`
	const update = `UPDATE vault_tags SET tags = $1, version = version + 1 WHERE account = $2 AND name = $3 AND version = $4`
	if oldVersion == 0 {
		_, err := d.exec(ctx, insert, string(account), name, encodeMap(tags))
		return unique(err, "the tags of vault %q have changed meanwhile", name)
	}
	n, err := d.exec(ctx, update, encodeMap(tags), string(account), name, oldVersion)
	return changed(n, err, "the tags of vault %q have changed meanwhile", name)
}
