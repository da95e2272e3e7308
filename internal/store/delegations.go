package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

const delegationColumns = `d.account, d.id, d.workload, COALESCE(w.name, ''), d.user_ref, d.issuer, d.grants, d.note, d.until,
	d.user_epoch, d.issuer_epoch, d.created_by, d.created, d.ended, d.last_used`

const delegationFrom = ` FROM delegations d LEFT JOIN workloads w ON w.account = d.account AND w.uid = d.workload `

func scanDelegation(s scanner) (d identity.Delegation, err error) {
	var grants string
	var until, created, ended, used int64
	err = s.Scan((*string)(&d.Account), &d.ID, &d.Workload, &d.WorkloadName, &d.UserRef, &d.Issuer, &grants, (*[]byte)(&d.Note), &until,
		&d.UserEpoch, &d.IssuerEpoch, &d.CreatedBy, &created, &ended, &used)
	if err != nil {
		return d, err
	}
	decodeJSON(grants, &d.Grants, &err)
	d.Note = sealed(d.Note)
	d.Until, d.Created, d.Ended, d.LastUsed = fromMillis(until), fromMillis(created), fromMillis(ended), fromMillis(used)
	return d, err
}

// CreateDelegation implements identity.DelegationStore. Calls for one user wait for each other at the user's row.
func (d *DB) CreateDelegation(ctx context.Context, n identity.Delegation, max int) error {
	const lock = `UPDATE users SET created = created WHERE account = $1 AND ref = $2`
	const count = `SELECT count(*) FROM delegations WHERE account = $1 AND user_ref = $2 AND workload = $3 AND ended = 0 AND until > $4`
	const query = `INSERT INTO delegations (account, id, workload, user_ref, issuer, grants, note, until, user_epoch, issuer_epoch,
		created_by, created, ended, last_used) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		if _, err := s.exec(ctx, lock, string(n.Account), n.UserRef); err != nil {
			return classify(err)
		}
		var live int
		if err := s.row(ctx, count, string(n.Account), n.UserRef, n.Workload, millis(n.Created)).Scan(&live); err != nil {
			return classify(err)
		}
		if live >= max {
			return fault.New(fault.Throttled, "the user has %d delegations to this workload identity, which is as many as there may be: end one first", live)
		}
		_, err := s.exec(ctx, query, string(n.Account), n.ID, n.Workload, n.UserRef, n.Issuer, encodeJSON(n.Grants), blob(n.Note), millis(n.Until),
			n.UserEpoch, n.IssuerEpoch, n.CreatedBy, millis(n.Created), millis(n.Ended), millis(n.LastUsed))
		return unique(err, "the delegation exists already")
	})
}

// Delegation implements identity.DelegationStore.
func (d *DB) Delegation(ctx context.Context, account access.Account, id string) (identity.Delegation, error) {
	return d.delegations.get(ctx, named{account, id}, func(ctx context.Context) (identity.Delegation, error) {
		return d.currentDelegation(ctx, account, id)
	})
}

func (d *DB) currentDelegation(ctx context.Context, account access.Account, id string) (identity.Delegation, error) {
	const query = `SELECT ` + delegationColumns + delegationFrom + `WHERE d.account = $1 AND d.id = $2`
	one, err := scanDelegation(d.engine.read().row(ctx, query, string(account), id))
	return or(one, found(err, "the delegation does not exist"))
}

// Delegations implements identity.DelegationStore.
func (d *DB) Delegations(ctx context.Context, account access.Account, f identity.DelegationFilter, after string, limit int) ([]identity.Delegation, error) {
	query := `SELECT ` + delegationColumns + delegationFrom + `WHERE d.account = $1 AND d.id > $2
		AND ($3 = '' OR d.workload = $3) AND ($4 = '' OR d.user_ref = $4) AND ($5 = '' OR replace(d.grants, $5, '') <> d.grants)
		ORDER BY d.id LIMIT $6`
	return list(ctx, d.engine.read(), scanDelegation, query, string(account), after, f.Workload, f.UserRef, grantOf(f.Provider), limit)
}

// grantOf is how a provider's name stands in the grants, where no scope can have it: JSON escapes the quotes of texts.
func grantOf(provider string) string {
	if provider == "" {
		return ""
	}
	name, err := json.Marshal(provider)
	if err != nil {
		return provider // a string marshals always
	}
	return `{"provider":` + string(name) + `,`
}

// EndDelegation implements identity.DelegationStore.
func (d *DB) EndDelegation(ctx context.Context, account access.Account, id string, at time.Time) (identity.Delegation, error) {
	const query = `UPDATE delegations SET ended = $1 WHERE account = $2 AND id = $3 AND ended = 0`
	_, err := d.exec(ctx, query, millis(at), string(account), id)
	d.delegations.drop(named{account, id})
	if err != nil {
		return identity.Delegation{}, classify(err)
	}
	return d.currentDelegation(ctx, account, id)
}

// EndDelegations implements identity.DelegationStore.
func (d *DB) EndDelegations(ctx context.Context, account access.Account, f identity.DelegationFilter, at time.Time) (int, error) {
	const end = `UPDATE delegations SET ended = $1 WHERE account = $2 AND ended = 0 AND until > $1
		AND ($3 = '' OR workload = $3) AND ($4 = '' OR user_ref = $4) AND ($5 = '' OR replace(grants, $5, '') <> grants)`
	const forget = `UPDATE delegations SET note = {none} WHERE account = $1 AND note <> {none}
		AND ($2 = '' OR workload = $2) AND ($3 = '' OR user_ref = $3) AND ($4 = '' OR replace(grants, $4, '') <> grants)`
	var n int64
	err := d.engine.write(ctx, func(ctx context.Context, s session) (err error) {
		if n, err = s.exec(ctx, end, millis(at), string(account), f.Workload, f.UserRef, grantOf(f.Provider)); err != nil {
			return classify(err)
		}
		_, err = s.exec(ctx, forget, string(account), f.Workload, f.UserRef, grantOf(f.Provider))
		return classify(err)
	})
	d.delegations.clear()
	return or(int(n), err)
}

// TouchDelegation implements identity.DelegationStore.
func (d *DB) TouchDelegation(ctx context.Context, account access.Account, id string, at time.Time) error {
	const query = `UPDATE delegations SET last_used = $1 WHERE account = $2 AND id = $3 AND last_used < $4`
	_, err := d.exec(ctx, query, millis(at), string(account), id, millis(at))
	d.delegations.drop(named{account, id})
	return classify(err)
}
