package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

const providerColumns = `account, uid, name, callback_id, vendor, client_id, auth_method, secret, secret_id, discovery_url,
	issuer, authorization_endpoint, token_endpoint, response_types, token_auth_methods, pinned, identity, tags, version,
	created, updated, obo, private_key, public_key, pinned_authorization`

func scanProvider(s scanner) (p broker.Provider, err error) {
	var responses, methods, tags, obo string
	var created, updated int64
	err = s.Scan((*string)(&p.Account), &p.UID, &p.Name, &p.CallbackID, &p.Vendor, &p.ClientID, (*string)(&p.AuthMethod),
		(*[]byte)(&p.Secret), &p.SecretID, &p.DiscoveryURL, &p.Issuer, &p.AuthorizationEndpoint, &p.TokenEndpoint, &responses,
		&methods, &p.Pinned, &p.Identity, &tags, &p.Version, &created, &updated, &obo,
		(*[]byte)(&p.PrivateKey), &p.PublicKey, &p.PinnedAuthorization)
	if err != nil {
		return p, err
	}
	p.Secret, p.PrivateKey = sealed(p.Secret), sealed(p.PrivateKey)
	p.ResponseTypes, p.TokenAuthMethods = decodeList[string](responses, &err), decodeList[broker.AuthMethod](methods, &err)
	p.Tags = decodeMap[string](tags, &err)
	if obo != "" {
		decodeJSON(obo, &p.OnBehalfOf, &err)
	}
	p.Created, p.Updated = fromMillis(created), fromMillis(updated)
	return p, err
}

func (d *DB) dropProvider(account access.Account, uid, name string) {
	d.providers.drop(named{account, name})
	d.providerUIDs.drop(named{account, uid})
	d.exchanges.drop(account)
}

// encodeOBO is how the exchange of users' tokens is stored: JSON, "" for none.
func encodeOBO(o *broker.OnBehalfOf) string {
	if o == nil {
		return ""
	}
	return encodeJSON(o)
}

// CreateProvider implements broker.ProviderStore.
func (d *DB) CreateProvider(ctx context.Context, p broker.Provider) error {
	const query = `INSERT INTO providers (` + providerColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)`
	err := d.add(ctx, p.Account, accounts.CredentialProviders, query, string(p.Account), p.UID, p.Name, p.CallbackID, p.Vendor, p.ClientID, string(p.AuthMethod),
		blob(p.Secret), p.SecretID, p.DiscoveryURL, p.Issuer, p.AuthorizationEndpoint, p.TokenEndpoint,
		encodeList(p.ResponseTypes), encodeList(p.TokenAuthMethods), p.Pinned, p.Identity, encodeMap(p.Tags), p.Version,
		millis(p.Created), millis(p.Updated), encodeOBO(p.OnBehalfOf), blob(p.PrivateKey), p.PublicKey,
		p.PinnedAuthorization)
	d.exchanges.drop(p.Account)
	return unique(err, "credential provider %q exists already", p.Name)
}

// Provider implements broker.ProviderStore.
func (d *DB) Provider(ctx context.Context, account access.Account, name string) (broker.Provider, error) {
	const query = `SELECT ` + providerColumns + ` FROM providers WHERE account = $1 AND name = $2`
	return d.providers.get(ctx, named{account, name}, func(ctx context.Context) (broker.Provider, error) {
		p, err := scanProvider(d.engine.read().row(ctx, query, string(account), name))
		return or(p, found(err, "credential provider %q does not exist", name))
	})
}

// ProviderByUID implements broker.ProviderStore.
func (d *DB) ProviderByUID(ctx context.Context, account access.Account, uid string) (broker.Provider, error) {
	const query = `SELECT ` + providerColumns + ` FROM providers WHERE account = $1 AND uid = $2`
	return d.providerUIDs.get(ctx, named{account, uid}, func(ctx context.Context) (broker.Provider, error) {
		p, err := scanProvider(d.engine.read().row(ctx, query, string(account), uid))
		return or(p, found(err, "credential provider %q does not exist", uid))
	})
}

// ProviderByCallback implements broker.ProviderStore.
func (d *DB) ProviderByCallback(ctx context.Context, callbackID string) (broker.Provider, error) {
	const query = `SELECT ` + providerColumns + ` FROM providers WHERE callback_id = $1`
	p, err := scanProvider(d.engine.read().row(system(ctx, byGlobalName), query, callbackID))
	return or(p, found(err, "no credential provider has this callback address"))
}

// Providers implements broker.ProviderStore.
func (d *DB) Providers(ctx context.Context, account access.Account, after string, limit int) ([]broker.Provider, error) {
	const query = `SELECT ` + providerColumns + ` FROM providers WHERE account = $1 AND name > $2 ORDER BY name LIMIT $3`
	return list(ctx, d.engine.read(), scanProvider, query, string(account), after, limit)
}

// SwapProvider implements broker.ProviderStore. Connections whose lease is held count as active: the lease is taken
// away, so that what its holder brings back under the old identity is refused.
func (d *DB) SwapProvider(ctx context.Context, p broker.Provider, oldVersion int64) error {
	// The first statement locks the row until the transaction ends, on PostgreSQL too, and says what it was.
	const lock = `UPDATE providers SET version = version WHERE account = $1 AND uid = $2 AND version = $3 RETURNING identity`
	const update = `UPDATE providers SET name = $1, callback_id = $2, vendor = $3, client_id = $4, auth_method = $5, secret = $6,
		secret_id = $7, discovery_url = $8, issuer = $9, authorization_endpoint = $10, token_endpoint = $11, response_types = $12,
		token_auth_methods = $13, pinned = $14, identity = $15, tags = $16, version = $17, created = $18, updated = $19, obo = $20,
		private_key = $21, public_key = $22, pinned_authorization = $23 WHERE account = $24 AND uid = $25`
	err := d.engine.write(ctx, func(ctx context.Context, s session) error {
		var old string
		err := s.row(ctx, lock, string(p.Account), p.UID, oldVersion).Scan(&old)
		if errors.Is(err, sql.ErrNoRows) {
			return fault.New(fault.Conflict, "credential provider %q has changed meanwhile", p.Name)
		}
		if err != nil {
			return classify(err)
		}
		_, err = s.exec(ctx, update, p.Name, p.CallbackID, p.Vendor, p.ClientID, string(p.AuthMethod), blob(p.Secret), p.SecretID,
			p.DiscoveryURL, p.Issuer, p.AuthorizationEndpoint, p.TokenEndpoint, encodeList(p.ResponseTypes),
			encodeList(p.TokenAuthMethods), p.Pinned, p.Identity, encodeMap(p.Tags), p.Version, millis(p.Created),
			millis(p.Updated), encodeOBO(p.OnBehalfOf), blob(p.PrivateKey), p.PublicKey,
			p.PinnedAuthorization, string(p.Account), p.UID)
		if err != nil || old == p.Identity {
			return unique(err, "credential provider %q exists already", p.Name)
		}
		return invalidate(ctx, s, p)
	})
	d.dropProvider(p.Account, p.UID, p.Name)
	return err
}

// invalidate ends what was begun under the provider's former identity. Flows come first: a redemption that commits
// while the flows are locked has its connection seen by the statement after.
func invalidate(ctx context.Context, s session, p broker.Provider) error {
	const (
		flows = `UPDATE flows SET state = 'failed', reason = 'provider_changed', ` + eraseFlow + `
			WHERE account = $1 AND provider = $2 AND state IN ('created', 'code_held', 'redeeming')`
		visits = `UPDATE visits SET verifier = {none} WHERE flow IN
			(SELECT id FROM flows WHERE account = $1 AND provider = $2 AND state = 'failed')`
		connections = `UPDATE connections SET state = 'needs_reauth', reason = 'provider_changed', fence = fence + 1,
			lease_until = 0, updated = {now}
			WHERE account = $1 AND provider = $2 AND state IN ('active', 'refreshing')`
	)
	for _, query := range []string{flows, visits, connections} {
		if _, err := s.exec(ctx, query, string(p.Account), p.UID); err != nil {
			return classify(err)
		}
	}
	return nil
}

// DeleteProvider implements broker.ProviderStore. Connections, flows and visits go by their foreign keys, so that none
// can come in while the provider goes.
func (d *DB) DeleteProvider(ctx context.Context, account access.Account, name string) error {
	const attempts = `DELETE FROM attempts WHERE account = $1 AND subject IN
		(SELECT c.id FROM connections c JOIN providers p ON p.account = c.account AND p.uid = c.provider
			WHERE p.account = $1 AND p.name = $2
		UNION ALL SELECT f.id FROM flows f JOIN providers p ON p.account = f.account AND p.uid = f.provider
			WHERE p.account = $1 AND p.name = $2)`
	const provider = `DELETE FROM providers WHERE account = $1 AND name = $2 RETURNING uid`
	var uid string
	err := d.engine.write(ctx, func(ctx context.Context, s session) error {
		if _, err := s.exec(ctx, attempts, string(account), name); err != nil {
			return classify(err)
		}
		return found(s.row(ctx, provider, string(account), name).Scan(&uid), "credential provider %q does not exist", name)
	})
	d.dropProvider(account, uid, name)
	return err
}

// PinProvider implements broker.ProviderStore. Where it sets the pin it raises the version, so that a SwapProvider that
// read the row before does not undo it.
func (d *DB) PinProvider(ctx context.Context, account access.Account, uid, origin string) (string, error) {
	const query = `UPDATE providers SET version = version + CASE WHEN pinned = '' THEN 1 ELSE 0 END,
		pinned = CASE WHEN pinned = '' THEN $1 ELSE pinned END WHERE account = $2 AND uid = $3 RETURNING pinned, name`
	return d.pin(ctx, query, account, uid, origin)
}

// PinAuthorization implements broker.ProviderStore, as PinProvider does.
func (d *DB) PinAuthorization(ctx context.Context, account access.Account, uid, origin string) (string, error) {
	const query = `UPDATE providers SET version = version + CASE WHEN pinned_authorization = '' THEN 1 ELSE 0 END,
		pinned_authorization = CASE WHEN pinned_authorization = '' THEN $1 ELSE pinned_authorization END
		WHERE account = $2 AND uid = $3 RETURNING pinned_authorization, name`
	return d.pin(ctx, query, account, uid, origin)
}

func (d *DB) pin(ctx context.Context, query string, account access.Account, uid, origin string) (string, error) {
	var pinned, name string
	err := d.engine.single(ctx, func(ctx context.Context, s session) error {
		err := s.row(ctx, query, origin, string(account), uid).Scan(&pinned, &name)
		return found(err, "credential provider %q does not exist", uid)
	})
	d.dropProvider(account, uid, name)
	return or(pinned, err)
}
