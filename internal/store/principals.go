package store

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/vault"
)

// keyPair is what a signature is checked with.
type keyPair struct {
	key       identity.AccessKey
	principal identity.Principal
}

const (
	principalColumns = `p.account, p.id, p.name, p.roles, p.workloads, p.disabled, p.created`
	keyColumns       = `access_keys.id, access_keys.account, access_keys.principal, access_keys.secret, access_keys.disabled, access_keys.version, access_keys.created, access_keys.last_used,
		(SELECT o.name FROM principals o WHERE o.account = access_keys.account AND o.id = access_keys.principal)`
)

// principalRow is a row on its way to an identity.Principal.
type principalRow struct {
	p                identity.Principal
	roles, workloads string
	created          int64
}

func (r *principalRow) dest() []any {
	return []any{(*string)(&r.p.Account), (*string)(&r.p.ID), &r.p.Name, &r.roles, &r.workloads, &r.p.Disabled, &r.created}
}

func (r *principalRow) principal() (_ identity.Principal, err error) {
	r.p.Roles = decodeList[access.Role](r.roles, &err)
	r.p.Workloads = decodeList[string](r.workloads, &err)
	r.p.Created = fromMillis(r.created)
	return r.p, err
}

func scanPrincipal(s scanner) (identity.Principal, error) {
	var r principalRow
	if err := s.Scan(r.dest()...); err != nil {
		return r.p, err
	}
	return r.principal()
}

// keyRow is a row on its way to an identity.AccessKey.
type keyRow struct {
	k             identity.AccessKey
	created, used int64
}

func (r *keyRow) dest() []any {
	return []any{&r.k.ID, (*string)(&r.k.Account), (*string)(&r.k.Principal), (*[]byte)(&r.k.Secret), &r.k.Disabled, &r.k.Version, &r.created, &r.used, &r.k.Owner}
}

func (r *keyRow) key() identity.AccessKey {
	r.k.Created, r.k.LastUsed, r.k.Secret = fromMillis(r.created), fromMillis(r.used), sealed(r.k.Secret)
	return r.k
}

func scanKey(s scanner) (identity.AccessKey, error) {
	var r keyRow
	err := s.Scan(r.dest()...)
	return r.key(), err
}

// sealed is the reverse of blob.
func sealed(b vault.Sealed) vault.Sealed {
	if len(b) == 0 {
		return nil
	}
	return b
}

// CreatePrincipal implements identity.PrincipalStore.
func (d *DB) CreatePrincipal(ctx context.Context, p identity.Principal) error {
	return d.within(ctx, p.Account, accounts.Principals, func(ctx context.Context, s session) error { return insertPrincipal(ctx, s, p) })
}

func insertPrincipal(ctx context.Context, s session, p identity.Principal) error {
	const query = `INSERT INTO principals (account, id, name, roles, workloads, disabled, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	_, err := s.exec(ctx, query, string(p.Account), string(p.ID), p.Name, encodeList(p.Roles), encodeList(p.Workloads),
		flag(p.Disabled), millis(p.Created))
	return unique(err, "principal %q exists already", p.Name)
}

// PrincipalByName implements identity.PrincipalStore.
func (d *DB) PrincipalByName(ctx context.Context, account access.Account, name string) (identity.Principal, error) {
	const query = `SELECT ` + principalColumns + ` FROM principals p WHERE p.account = $1 AND p.name = $2`
	p, err := scanPrincipal(d.engine.read().row(ctx, query, string(account), name))
	return or(p, found(err, "principal %q does not exist", name))
}

// Principals implements identity.PrincipalStore.
func (d *DB) Principals(ctx context.Context, account access.Account, after string, limit int) ([]identity.Principal, error) {
	const query = `SELECT ` + principalColumns + ` FROM principals p WHERE p.account = $1 AND p.name > $2 ORDER BY p.name LIMIT $3`
	return list(ctx, d.engine.read(), scanPrincipal, query, string(account), after, limit)
}

// SetPrincipalDisabled implements identity.PrincipalStore.
func (d *DB) SetPrincipalDisabled(ctx context.Context, account access.Account, name string, disabled bool) error {
	const query = `UPDATE principals SET disabled = $1 WHERE account = $2 AND name = $3 RETURNING id`
	err := d.engine.single(ctx, func(ctx context.Context, s session) error {
		var id string
		return found(s.row(ctx, query, flag(disabled), string(account), name).Scan(&id), "principal %q does not exist", name)
	})
	d.keys.clear()   // any of them may be the principal's
	d.trusts.clear() // any rule may be for it
	return err
}

// CreateAccessKey implements identity.PrincipalStore.
func (d *DB) CreateAccessKey(ctx context.Context, k identity.AccessKey) error {
	return d.engine.single(ctx, func(ctx context.Context, s session) error { return insertKey(ctx, s, k) })
}

func insertKey(ctx context.Context, s session, k identity.AccessKey) error {
	const query = `INSERT INTO access_keys (id, account, principal, secret, disabled, version, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	_, err := s.exec(ctx, query, k.ID, string(k.Account), string(k.Principal), blob(k.Secret), flag(k.Disabled), k.Version, millis(k.Created))
	return unique(orphan(err, "principal %q does not exist", k.Principal), "access key %q exists already", k.ID)
}

// KeyAndPrincipal implements identity.PrincipalStore.
func (d *DB) KeyAndPrincipal(ctx context.Context, id string) (identity.AccessKey, identity.Principal, error) {
	pair, err := d.keys.get(ctx, id, func(ctx context.Context) (keyPair, error) {
		const query = `SELECT ` + keyColumns + `, ` + principalColumns + ` FROM access_keys
			JOIN principals p ON p.account = access_keys.account AND p.id = access_keys.principal WHERE access_keys.id = $1`
		var k keyRow
		var p principalRow
		var pair keyPair
		err := d.engine.read().row(system(ctx, byGlobalName), query, id).Scan(append(k.dest(), p.dest()...)...)
		if err == nil {
			pair.key = k.key()
			pair.principal, err = p.principal()
		}
		return pair, found(err, "access key %q does not exist", id)
	})
	return pair.key, pair.principal, err
}

// AccessKeys implements identity.PrincipalStore.
func (d *DB) AccessKeys(ctx context.Context, account access.Account, principal access.PrincipalID, after string, limit int) ([]identity.AccessKey, error) {
	const all = `SELECT ` + keyColumns + ` FROM access_keys WHERE access_keys.account = $1 AND access_keys.id > $2 ORDER BY access_keys.id LIMIT $3`
	const one = `SELECT ` + keyColumns + ` FROM access_keys WHERE access_keys.account = $1 AND access_keys.principal = $2 AND access_keys.id > $3 ORDER BY access_keys.id LIMIT $4`
	if principal == "" {
		return list(ctx, d.engine.read(), scanKey, all, string(account), after, limit)
	}
	return list(ctx, d.engine.read(), scanKey, one, string(account), string(principal), after, limit)
}

// SetAccessKeyDisabled implements identity.PrincipalStore.
func (d *DB) SetAccessKeyDisabled(ctx context.Context, account access.Account, id string, disabled bool) (identity.AccessKey, error) {
	const query = `UPDATE access_keys SET disabled = $1, version = version + 1 WHERE account = $2 AND id = $3
		RETURNING ` + keyColumns
	var k identity.AccessKey
	err := d.engine.single(ctx, func(ctx context.Context, s session) error {
		var err error
		k, err = scanKey(s.row(ctx, query, flag(disabled), string(account), id))
		return found(err, "access key %q does not exist", id)
	})
	d.keys.drop(id)
	return or(k, err)
}

// ReplaceAccessKeys implements identity.PrincipalStore.
func (d *DB) ReplaceAccessKeys(ctx context.Context, k identity.AccessKey) (disabled []string, err error) {
	const query = `UPDATE access_keys SET disabled = 1, version = version + 1
		WHERE account = $1 AND principal = $2 AND id <> $3 AND disabled = 0 RETURNING id`
	err = d.engine.write(ctx, func(ctx context.Context, s session) error {
		if err := insertKey(ctx, s, k); err != nil {
			return err
		}
		disabled, err = list(ctx, s, func(s scanner) (id string, err error) { return id, s.Scan(&id) }, query, string(k.Account), string(k.Principal), k.ID)
		return err
	})
	d.keys.clear()
	slices.Sort(disabled)
	return or(disabled, err)
}

// KeysUsed implements identity.PrincipalStore.
func (d *DB) KeysUsed(ctx context.Context, batch []identity.Use) error {
	const query = `UPDATE access_keys SET last_used = $1 WHERE account = $2 AND id = $3 AND last_used < $1`
	slices.SortFunc(batch, func(a, b identity.Use) int { // replicas lock the rows in one order
		return cmp.Or(strings.Compare(string(a.Account), string(b.Account)), strings.Compare(a.ID, b.ID))
	})
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		for _, u := range batch {
			if _, err := s.exec(ctx, query, millis(u.At), string(u.Account), u.ID); err != nil {
				return classify(err)
			}
		}
		return nil
	})
}
