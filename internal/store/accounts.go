package store

import (
	"context"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

var _ accounts.Store = (*DB)(nil)

const (
	accountColumns = `a.account, a.name, a.workloads, a.providers, a.principals, a.policies, a.connections, a.requests,
		a.version, a.created, a.updated, COALESCE(s.disabled, 0), COALESCE(s.reason, '')`
	accountTables = `accounts a LEFT JOIN standings s ON s.account = a.account AND s.kind = 'account' AND s.key = a.account`
)

func scanAccountRow(s scanner) (a accounts.Account, err error) {
	q := &a.Quotas
	var created, updated int64
	err = s.Scan((*string)(&a.ID), &a.Name, &q.WorkloadIdentities, &q.CredentialProviders, &q.Principals, &q.Policies, &q.Connections,
		&q.RequestsPerSecond, &a.Version, &created, &updated, &a.Disabled, &a.Reason)
	a.Created, a.Updated = fromMillis(created), fromMillis(updated)
	return a, err
}

// CreateAccount implements accounts.Store.
func (d *DB) CreateAccount(ctx context.Context, a accounts.Account, root *identity.NewRoot) error {
	const query = `INSERT INTO accounts (account, name, workloads, providers, principals, policies, connections, requests, version, created, updated)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`
	q := a.Quotas
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		_, err := s.exec(ctx, query, string(a.ID), a.Name, q.WorkloadIdentities, q.CredentialProviders, q.Principals, q.Policies, q.Connections,
			q.RequestsPerSecond, a.Version, millis(a.Created), millis(a.Updated))
		if err != nil {
			return unique(err, "an account with the number %s or the name %s exists already", a.ID, a.Name)
		}
		if root == nil {
			return nil
		}
		if err := insertPrincipal(ctx, s, root.Principal); err != nil {
			return err
		}
		return insertKey(ctx, s, root.Key)
	})
}

// Account implements accounts.Store.
func (d *DB) Account(ctx context.Context, id access.Account) (accounts.Account, error) {
	const query = `SELECT ` + accountColumns + ` FROM ` + accountTables + ` WHERE a.account = $1`
	return d.accounts.get(ctx, id, func(ctx context.Context) (accounts.Account, error) {
		a, err := scanAccountRow(d.engine.read().row(ctx, query, string(id)))
		return or(a, found(err, "account %s does not exist", id))
	})
}

// Accounts implements accounts.Store. It sees all of them: that is what it is for.
func (d *DB) Accounts(ctx context.Context, after string, limit int) ([]accounts.Account, error) {
	const query = `SELECT ` + accountColumns + ` FROM ` + accountTables + ` WHERE a.account > $1 ORDER BY a.account LIMIT $2`
	return list(system(ctx, everyAccount), d.engine.read(), scanAccountRow, query, after, limit)
}

// SwapAccount implements accounts.Store.
func (d *DB) SwapAccount(ctx context.Context, a accounts.Account, oldVersion int64) error {
	const query = `UPDATE accounts SET name = $1, workloads = $2, providers = $3, principals = $4, policies = $5, connections = $6,
		requests = $7, version = $8, updated = $9 WHERE account = $10 AND version = $11`
	q := a.Quotas
	n, err := d.exec(ctx, query, a.Name, q.WorkloadIdentities, q.CredentialProviders, q.Principals, q.Policies, q.Connections,
		q.RequestsPerSecond, a.Version, millis(a.Updated), string(a.ID), oldVersion)
	d.accounts.drop(a.ID)
	return changed(n, unique(err, "an account with the name %s exists already", a.Name), "account %s has changed meanwhile", a.ID)
}

// within runs op, one statement that adds one of what the account has a quota of. Where there is a quota, those who add
// wait for each other at the account's row, so that each counts what the others made: no race passes the quota. Where
// there is none, that costs a look at a cache.
func (d *DB) within(ctx context.Context, account access.Account, name accounts.Quota, op operation) error {
	quota, err := d.quota(ctx, account, name)
	if err != nil {
		return err
	}
	if quota == 0 {
		return d.engine.single(ctx, op)
	}
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		if err := room(ctx, s, account, name, quota); err != nil {
			return err
		}
		return op(ctx, s)
	})
}

// add is within for a statement without rows.
func (d *DB) add(ctx context.Context, account access.Account, name accounts.Quota, query string, args ...any) error {
	return d.within(ctx, account, name, func(ctx context.Context, s session) error {
		_, err := s.exec(ctx, query, args...)
		return err
	})
}

// quota returns the account's quota, or the server's where it has none, or 0.
func (d *DB) quota(ctx context.Context, account access.Account, name accounts.Quota) (int64, error) {
	a, err := d.Account(ctx, account)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return 0, err
	}
	return a.Quotas.Or(d.quotas).Of(name), nil
}

// room returns a Limit fault where the account has as many as the quota allows.
func room(ctx context.Context, s session, account access.Account, name accounts.Quota, quota int64) error {
	const lock = `UPDATE accounts SET version = version WHERE account = $1`
	if _, err := s.exec(ctx, lock, string(account)); err != nil {
		return classify(err)
	}
	var have int64
	if err := s.row(ctx, countOf(name), string(account)).Scan(&have); err != nil {
		return classify(err)
	}
	if have >= quota {
		return accounts.Reached(name, quota)
	}
	return nil
}

// roomForConsent returns a Limit fault where the consent would add a connection beyond the quota: before the user is
// asked, who would consent in vain. Consents that are under way at once may pass it by as many.
func roomForConsent(ctx context.Context, s session, f broker.Flow, quota int64) error {
	if quota == 0 {
		return nil
	}
	const there = `SELECT EXISTS (SELECT 1 FROM connections WHERE account = $1 AND workload = $2 AND user_ref = $3 AND provider = $4)`
	var again bool
	if err := s.row(ctx, there, string(f.Account), f.Workload, f.User, f.Provider).Scan(&again); err != nil || again {
		return classify(err)
	}
	var have int64
	if err := s.row(ctx, countOf(accounts.Connections), string(f.Account)).Scan(&have); err != nil {
		return classify(err)
	}
	if have >= quota {
		return accounts.Reached(accounts.Connections, quota)
	}
	return nil
}

// countOf returns the query that counts what a quota bounds.
func countOf(name accounts.Quota) string {
	switch name {
	case accounts.WorkloadIdentities:
		return `SELECT count(*) FROM workloads WHERE account = $1 AND deleted = 0`
	case accounts.CredentialProviders:
		return `SELECT (SELECT count(*) FROM providers WHERE account = $1) + (SELECT count(*) FROM api_key_providers WHERE account = $1)`
	case accounts.Principals:
		return `SELECT count(*) FROM principals WHERE account = $1`
	case accounts.Connections:
		return `SELECT count(*) FROM connections WHERE account = $1`
	}
	panic("store: nothing counts " + string(name))
}
