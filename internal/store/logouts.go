package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

// AddLogout implements identity.LogoutStore. An epoch is never lower than the time, so that it rises also where an
// earlier one was forgotten.
func (d *DB) AddLogout(ctx context.Context, l identity.Logout) error {
	const token = `INSERT INTO logout_tokens (account, key, expires) VALUES ($1, $2, $3)`
	const key = `INSERT INTO logouts (account, key, epoch, issued, expires) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (account, key) DO UPDATE SET epoch = CASE WHEN excluded.epoch > logouts.epoch THEN excluded.epoch ELSE logouts.epoch + 1 END,
		issued = CASE WHEN excluded.issued > logouts.issued THEN excluded.issued ELSE logouts.issued END, expires = excluded.expires`
	const user = `INSERT INTO standings (account, kind, key, epoch, disabled, frozen, reason, version, changed)
		VALUES ($1, 'user', $2, 1, 0, 0, '', 1, $3)
		ON CONFLICT (account, kind, key) DO UPDATE SET epoch = standings.epoch + 1, version = standings.version + 1, changed = excluded.changed`
	defer func() {
		d.dropStanding(l.Account, identity.UserStanding, l.UserRef)
		d.loggedOut.drop(named{l.Account, ""})
		for _, k := range l.Keys {
			d.loggedOut.drop(named{l.Account, k})
		}
	}()
	return d.engine.write(only(ctx, l.Account), func(ctx context.Context, s session) error {
		if _, err := s.exec(ctx, token, string(l.Account), l.Token, millis(l.Until)); err != nil {
			return unique(err, "the logout token was taken already")
		}
		for _, k := range l.Keys {
			if _, err := s.exec(ctx, key, string(l.Account), k, millis(l.At), millis(l.Issued), millis(l.Expires)); err != nil {
				return classify(err)
			}
		}
		if l.UserRef == "" {
			return nil
		}
		_, err := s.exec(ctx, user, string(l.Account), l.UserRef, millis(l.At))
		return classify(err)
	})
}

// LoggedOut implements identity.LogoutStore. The key "" is the answer to whether the account has any logout.
func (d *DB) LoggedOut(ctx context.Context, account access.Account, key string) (identity.LoggedOut, error) {
	const anyRow = `SELECT COUNT(*) FROM (SELECT 1 FROM logouts WHERE account = $1 LIMIT 1) AS one`
	some, err := d.loggedOut.get(ctx, named{account, ""}, func(ctx context.Context) (at identity.LoggedOut, err error) {
		err = d.engine.read().row(ctx, anyRow, string(account)).Scan(&at.Epoch)
		return at, classify(err)
	})
	if err != nil || some.Epoch == 0 {
		return identity.LoggedOut{}, err
	}
	return d.loggedOut.get(ctx, named{account, key}, func(ctx context.Context) (identity.LoggedOut, error) {
		return d.CurrentlyLoggedOut(ctx, account, key)
	})
}

// CurrentlyLoggedOut implements identity.LogoutStore.
func (d *DB) CurrentlyLoggedOut(ctx context.Context, account access.Account, key string) (identity.LoggedOut, error) {
	const query = `SELECT epoch, issued FROM logouts WHERE account = $1 AND key = $2`
	var at identity.LoggedOut
	var issued int64
	err := d.engine.read().row(ctx, query, string(account), key).Scan(&at.Epoch, &issued)
	if errors.Is(err, sql.ErrNoRows) {
		return identity.LoggedOut{}, nil
	}
	at.Issued = fromMillis(issued)
	return or(at, classify(err))
}

// SweepLogouts implements identity.LogoutStore.
func (d *DB) SweepLogouts(ctx context.Context, t time.Time, limit int) (int, error) {
	ctx = system(ctx, dueWork)
	total := int64(0)
	for _, query := range []string{
		`DELETE FROM logouts WHERE (account, key) IN (SELECT account, key FROM logouts WHERE expires <= $1 ORDER BY expires LIMIT $2)`,
		`DELETE FROM logout_tokens WHERE (account, key) IN (SELECT account, key FROM logout_tokens WHERE expires <= $1 ORDER BY expires LIMIT $2)`,
	} {
		n, err := d.exec(ctx, query, millis(t), limit)
		if err != nil {
			return 0, classify(err)
		}
		total = max(total, n)
	}
	return int(total), nil
}
