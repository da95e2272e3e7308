package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

// standingKey is the key of a cached standing. With key "" it is that of the answer whether there is any of its kind.
type standingKey struct {
	account access.Account
	kind    identity.StandingKind
	key     string
}

const standingColumns = `s.account, s.kind, s.key, s.epoch, s.disabled, s.frozen, s.reason, s.version, s.changed`

func standingDest(at *identity.Standing, changed *int64) []any {
	return []any{(*string)(&at.Account), (*string)(&at.Kind), &at.Key, &at.Epoch, &at.Disabled, &at.Frozen, &at.Reason, &at.Version, changed}
}

// Standing implements identity.StandingStore. Most accounts have nobody disabled or revoked: there the one answer to
// whether there is any row is all that is asked.
func (d *DB) Standing(ctx context.Context, account access.Account, kind identity.StandingKind, key string) (identity.Standing, error) {
	const anyRow = `SELECT EXISTS (SELECT 1 FROM standings WHERE account = $1 AND kind = $2)`
	some, err := d.standingKinds.get(ctx, standingKey{account: account, kind: kind}, func(ctx context.Context) (yes bool, err error) {
		err = d.engine.read().row(ctx, anyRow, string(account), string(kind)).Scan(&yes)
		return yes, classify(err)
	})
	if err != nil || !some {
		return identity.Standing{Account: account, Kind: kind, Key: key}, err
	}
	return d.standings.get(ctx, standingKey{account, kind, key}, func(ctx context.Context) (identity.Standing, error) {
		return d.CurrentStanding(ctx, account, kind, key)
	})
}

// CurrentStanding implements identity.StandingStore.
func (d *DB) CurrentStanding(ctx context.Context, account access.Account, kind identity.StandingKind, key string) (identity.Standing, error) {
	const query = `SELECT ` + standingColumns + ` FROM standings s WHERE s.account = $1 AND s.kind = $2 AND s.key = $3`
	var at identity.Standing
	var changed int64
	err := d.engine.read().row(ctx, query, string(account), string(kind), key).Scan(standingDest(&at, &changed)...)
	if errors.Is(err, sql.ErrNoRows) || isState(err, "22021") {
		return identity.Standing{Account: account, Kind: kind, Key: key}, nil
	}
	at.Changed = fromMillis(changed)
	return or(at, classify(err))
}

// SwapStanding implements identity.StandingStore.
func (d *DB) SwapStanding(ctx context.Context, at identity.Standing, oldVersion int64) error {
	const insert = `INSERT INTO standings (account, kind, key, epoch, disabled, frozen, reason, version, changed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	const update = `UPDATE standings SET epoch = $1, disabled = $2, frozen = $3, reason = $4, version = $5, changed = $6
		WHERE account = $7 AND kind = $8 AND key = $9 AND version = $10 AND epoch <= $11`
	defer d.dropStanding(at.Account, at.Kind, at.Key)
	if oldVersion == 0 {
		_, err := d.exec(ctx, insert, string(at.Account), string(at.Kind), at.Key, at.Epoch, flag(at.Disabled), flag(at.Frozen),
			at.Reason, at.Version, millis(at.Changed))
		return unique(err, "the standing was changed meanwhile")
	}
	n, err := d.exec(ctx, update, at.Epoch, flag(at.Disabled), flag(at.Frozen), at.Reason, at.Version, millis(at.Changed),
		string(at.Account), string(at.Kind), at.Key, oldVersion, at.Epoch)
	return changed(n, err, "the standing was changed meanwhile")
}

func (d *DB) dropStanding(account access.Account, kind identity.StandingKind, key string) {
	d.standings.drop(standingKey{account, kind, key})
	d.standingKinds.drop(standingKey{account: account, kind: kind})
}

// RaiseEveryWorkload implements identity.StandingStore. Those that were deleted are raised too: they may be restored.
func (d *DB) RaiseEveryWorkload(ctx context.Context, account access.Account, at time.Time) error {
	const query = `INSERT INTO standings (account, kind, key, epoch, disabled, frozen, reason, version, changed)
		SELECT w.account, 'workload', w.uid, 1, 0, 0, '', 1, CAST($1 AS BIGINT) FROM workloads w WHERE w.account = $2
		ON CONFLICT (account, kind, key) DO UPDATE SET epoch = standings.epoch + 1, version = standings.version + 1,
		changed = excluded.changed`
	_, err := d.exec(ctx, query, millis(at), string(account))
	d.standings.clear()
	d.standingKinds.clear()
	return classify(err)
}

// Standings implements identity.StandingStore. Names come from the rows that the keys are of.
func (d *DB) Standings(ctx context.Context, account access.Account, kind identity.StandingKind, after string, limit int) ([]identity.Standing, error) {
	const query = `SELECT ` + standingColumns + `, COALESCE(w.name, p.name, k.name, '') FROM standings s
		LEFT JOIN workloads w ON s.kind = 'workload' AND w.account = s.account AND w.uid = s.key
		LEFT JOIN providers p ON s.kind = 'provider' AND p.account = s.account AND p.uid = s.key
		LEFT JOIN api_key_providers k ON s.kind = 'provider' AND k.account = s.account AND k.uid = s.key
		WHERE s.account = $1 AND s.kind = $2 AND s.key > $3 ORDER BY s.key LIMIT $4`
	return list(ctx, d.engine.read(), func(s scanner) (at identity.Standing, err error) {
		var changed int64
		err = s.Scan(append(standingDest(&at, &changed), &at.Name)...)
		at.Changed = fromMillis(changed)
		return at, err
	}, query, string(account), string(kind), after, limit)
}
