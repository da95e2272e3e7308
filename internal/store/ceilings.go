package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/ceiling"
)

var (
	_ ceiling.Store     = (*DB)(nil)
	_ ceiling.Workloads = (*DB)(nil)
)

// Ceilings implements ceiling.Store.
func (d *DB) Ceilings(ctx context.Context, account access.Account, workload string) (ceiling.Row, error) {
	const query = `SELECT releases_per_minute, users_per_hour, freezes FROM ceilings WHERE account = $1 AND workload = $2`
	return d.ceilings.get(ctx, named{account, workload}, func(ctx context.Context) (ceiling.Row, error) {
		r := ceiling.Row{Set: true}
		err := d.engine.read().row(ctx, query, string(account), workload).Scan(&r.ReleasesPerMinute, &r.UsersPerHour, &r.Freeze)
		if errors.Is(err, sql.ErrNoRows) {
			return ceiling.Row{}, nil
		}
		return or(r, classify(err))
	})
}

// SetCeilings implements ceiling.Store.
func (d *DB) SetCeilings(ctx context.Context, account access.Account, workload string, l ceiling.Limits, at time.Time) error {
	const query = `INSERT INTO ceilings (account, workload, releases_per_minute, users_per_hour, freezes, changed)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account, workload) DO UPDATE SET
		releases_per_minute = excluded.releases_per_minute, users_per_hour = excluded.users_per_hour, freezes = excluded.freezes,
		changed = excluded.changed`
	_, err := d.exec(ctx, query, string(account), workload, l.ReleasesPerMinute, l.UsersPerHour, flag(l.Freeze), millis(at))
	d.ceilings.drop(named{account, workload})
	return classify(err)
}

// WorkloadUID implements ceiling.Workloads.
func (d *DB) WorkloadUID(ctx context.Context, account access.Account, name string) (string, error) {
	w, err := d.Workload(ctx, account, name)
	return w.UID, err
}

// lockCounts makes the row of counts where there is none, and holds it until the transaction ends.
const lockCounts = `INSERT INTO ceiling_counts (account, workload, minute, taken, users) VALUES ($1, $2, 0, 0, 0)
	ON CONFLICT (account, workload) DO UPDATE SET users = ceiling_counts.users RETURNING minute, taken, users`

// counts is a row of ceiling_counts.
type counts struct{ minute, taken, users int64 }

func lockedCounts(ctx context.Context, s session, account access.Account, workload string) (c counts, err error) {
	err = s.row(ctx, lockCounts, string(account), workload).Scan(&c.minute, &c.taken, &c.users)
	return c, classify(err)
}

// TakeReleases implements ceiling.Store.
func (d *DB) TakeReleases(ctx context.Context, account access.Account, workload string, minute, limit, want int64) (n int64, err error) {
	const query = `UPDATE ceiling_counts SET minute = $1, taken = $2 WHERE account = $3 AND workload = $4`
	err = d.engine.write(ctx, func(ctx context.Context, s session) error {
		c, err := lockedCounts(ctx, s, account, workload)
		if err != nil {
			return err
		}
		if c.minute < minute {
			c.minute, c.taken = minute, 0
		}
		n = max(0, min(want, limit-c.taken))
		_, err = s.exec(ctx, query, c.minute, c.taken+n, string(account), workload)
		return classify(err)
	})
	return or(n, err)
}

// SeeUser implements ceiling.Store. A user who is counted already is no reason to wait for others.
func (d *DB) SeeUser(ctx context.Context, account access.Account, workload, user string, since, at time.Time, limit int64) (ok bool, err error) {
	const again = `UPDATE ceiling_users SET seen = CASE WHEN seen < $1 THEN $1 ELSE seen END
		WHERE account = $2 AND workload = $3 AND user_ref = $4 AND seen > $5`
	const insert = `INSERT INTO ceiling_users (account, workload, user_ref, seen) VALUES ($1, $2, $3, $4)`
	seen, err := d.exec(ctx, again, millis(at), string(account), workload, user, millis(since))
	if err != nil || seen > 0 {
		return err == nil, classify(err)
	}
	err = d.engine.write(ctx, func(ctx context.Context, s session) error {
		c, err := lockedCounts(ctx, s, account, workload)
		if err != nil {
			return err
		}
		if c.users, err = forget(ctx, s, account, workload, since, c.users); err != nil {
			return err
		}
		// Another call may have counted the user since: then it is counted.
		seen, err := s.exec(ctx, again, millis(at), string(account), workload, user, millis(since))
		if err != nil {
			return classify(err)
		}
		if ok = seen > 0 || c.users < limit; !ok || seen > 0 {
			return setUsers(ctx, s, account, workload, c.users)
		}
		if _, err := s.exec(ctx, insert, string(account), workload, user, millis(at)); err != nil {
			return classify(err)
		}
		return setUsers(ctx, s, account, workload, c.users+1)
	})
	return ok && err == nil, err
}

// forget deletes the users seen at since or before, and returns how many of users are left. The caller holds the row of
// counts.
func forget(ctx context.Context, s session, account access.Account, workload string, since time.Time, users int64) (int64, error) {
	const query = `DELETE FROM ceiling_users WHERE account = $1 AND workload = $2 AND seen <= $3`
	n, err := s.exec(ctx, query, string(account), workload, millis(since))
	return users - n, classify(err)
}

func setUsers(ctx context.Context, s session, account access.Account, workload string, users int64) error {
	const query = `UPDATE ceiling_counts SET users = $1 WHERE account = $2 AND workload = $3`
	_, err := s.exec(ctx, query, users, string(account), workload)
	return classify(err)
}

// CeilingUsage implements ceiling.Store.
func (d *DB) CeilingUsage(ctx context.Context, account access.Account, workload string, minute int64, since time.Time) (ceiling.Usage, error) {
	const taken = `SELECT COALESCE(sum(taken), 0) FROM ceiling_counts WHERE account = $1 AND workload = $2 AND minute >= $3`
	const users = `SELECT count(*) FROM ceiling_users WHERE account = $1 AND workload = $2 AND seen > $3`
	var u ceiling.Usage
	err := d.engine.read().row(ctx, taken, string(account), workload, minute).Scan(&u.Releases)
	if err == nil {
		err = d.engine.read().row(ctx, users, string(account), workload, millis(since)).Scan(&u.Users)
	}
	return or(u, classify(err))
}

// SweepSeen implements ceiling.Store.
func (d *DB) SweepSeen(ctx context.Context, since time.Time, limit int) (int, error) {
	const query = `SELECT DISTINCT account, workload FROM ceiling_users WHERE seen <= $1 LIMIT $2`
	due, err := list(system(ctx, dueWork), d.engine.read(), func(s scanner) (at named, err error) {
		err = s.Scan((*string)(&at.account), &at.name)
		return at, err
	}, query, millis(since), limit)
	if err != nil {
		return 0, err
	}
	for _, at := range due {
		err := d.engine.write(ctx, func(ctx context.Context, s session) error {
			c, err := lockedCounts(ctx, s, at.account, at.name)
			if err != nil {
				return err
			}
			if c.users, err = forget(ctx, s, at.account, at.name, since, c.users); err != nil {
				return err
			}
			return setUsers(ctx, s, at.account, at.name, c.users)
		})
		if err != nil {
			return 0, err
		}
	}
	return len(due), nil
}
