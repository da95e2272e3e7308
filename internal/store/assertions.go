package store

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

// KeepAssertion implements identity.AssertionStore.
func (d *DB) KeepAssertion(ctx context.Context, a identity.Assertion) error {
	const query = `INSERT INTO user_assertions (account, handle, workload, user_ref, issuer, expires, sealed)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	_, err := d.exec(ctx, query, string(a.Account), a.Handle, a.Workload, a.UserRef, a.Issuer, millis(a.Expires), blob(a.Sealed))
	return unique(err, "the handle of a kept user token exists already")
}

// Assertion implements identity.AssertionStore.
func (d *DB) Assertion(ctx context.Context, account access.Account, handle string) (identity.Assertion, error) {
	const query = `SELECT workload, user_ref, issuer, expires, sealed FROM user_assertions WHERE account = $1 AND handle = $2`
	a := identity.Assertion{Account: account, Handle: handle}
	var expires int64
	err := d.engine.read().row(ctx, query, string(account), handle).
		Scan(&a.Workload, &a.UserRef, &a.Issuer, &expires, (*[]byte)(&a.Sealed))
	a.Expires, a.Sealed = fromMillis(expires), sealed(a.Sealed)
	return or(a, found(err, "the user token is not kept any more"))
}

// SweepAssertions implements identity.AssertionStore.
func (d *DB) SweepAssertions(ctx context.Context, t time.Time, limit int) (int, error) {
	const query = `DELETE FROM user_assertions WHERE (account, handle) IN
		(SELECT account, handle FROM user_assertions WHERE expires <= $1 ORDER BY expires LIMIT $2)`
	n, err := d.exec(system(ctx, dueWork), query, millis(t), limit)
	return int(n), classify(err)
}

// ExchangesUserTokens implements identity.AssertionStore.
func (d *DB) ExchangesUserTokens(ctx context.Context, account access.Account) (bool, error) {
	const query = `SELECT EXISTS (SELECT 1 FROM providers WHERE account = $1 AND obo <> '')`
	return d.exchanges.get(ctx, account, func(ctx context.Context) (yes bool, err error) {
		err = d.engine.read().row(ctx, query, string(account)).Scan(&yes)
		return yes, classify(err)
	})
}
