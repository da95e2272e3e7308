package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

const (
	lineageColumns = `account, id, family, workload, user_ref, provider, refresh, upstream, reason, generation, identity, fence, created, updated`

	// livesOn is whether a connection that is not revoked lives on the lineage l.
	livesOn = `EXISTS (SELECT 1 FROM connections c WHERE c.account = l.account AND c.lineage = l.id AND c.state <> 'revoked')`
)

func scanLineage(s scanner) (l broker.Lineage, err error) {
	var created, updated int64
	err = s.Scan((*string)(&l.Account), &l.ID, &l.Family, &l.Workload, &l.User, &l.Provider, (*[]byte)(&l.Refresh), (*[]byte)(&l.Upstream),
		&l.Reason, &l.Generation, &l.Identity, &l.Fence, &created, &updated)
	l.Refresh, l.Upstream = sealed(l.Refresh), sealed(l.Upstream)
	l.Created, l.Updated = fromMillis(created), fromMillis(updated)
	return l, err
}

// Lineage implements broker.LineageStore.
func (d *DB) Lineage(ctx context.Context, account access.Account, id string) (broker.Lineage, error) {
	const query = `SELECT ` + lineageColumns + ` FROM lineages WHERE account = $1 AND id = $2`
	l, err := scanLineage(d.engine.read().row(ctx, query, string(account), id))
	return or(l, found(err, "the refresh token does not exist"))
}

// LineageOf implements broker.LineageStore.
func (d *DB) LineageOf(ctx context.Context, account access.Account, family string) (broker.Lineage, error) {
	const query = `SELECT ` + lineageColumns + ` FROM lineages l WHERE account = $1 AND family = $2 AND reason = '' AND ` + livesOn + `
		ORDER BY created DESC, id LIMIT 1`
	l, err := scanLineage(d.engine.read().row(ctx, query, string(account), family))
	return or(l, found(err, "there is no refresh token of the family"))
}

// Siblings implements broker.LineageStore.
func (d *DB) Siblings(ctx context.Context, account access.Account, id string) ([]string, error) {
	const query = `SELECT id FROM connections WHERE account = $1 AND lineage = $2 AND lineage <> '' AND state <> 'revoked' ORDER BY id`
	return list(ctx, d.engine.read(), func(s scanner) (id string, err error) { err = s.Scan(&id); return id, err }, query, string(account), id)
}

// LeaseLineage implements broker.LineageStore. Of finished attempts the last few are kept.
func (d *DB) LeaseLineage(ctx context.Context, a broker.Attempt, key string, generation int64, ttl time.Duration) (fence int64, err error) {
	const lease = `UPDATE lineages SET fence = fence + 1, lease_until = {now} + $1
		WHERE account = $2 AND id = $3 AND generation = $4 AND lease_until < {now} AND reason = ''
		AND COALESCE((SELECT c.generation FROM connections c WHERE c.account = lineages.account AND c.key = $5), 0) = $6 RETURNING fence`
	const prune = `DELETE FROM attempts WHERE account = $1 AND subject = $2 AND fence < $3 AND finished > 0`
	err = d.engine.write(ctx, func(ctx context.Context, s session) error {
		err := s.row(ctx, lease, ttl.Milliseconds(), string(a.Account), a.Subject, a.Generation, key, generation).Scan(&fence)
		if errors.Is(err, sql.ErrNoRows) {
			return fault.New(fault.Conflict, "the refresh token is leased or has changed meanwhile")
		}
		if err != nil {
			return classify(err)
		}
		if _, err := s.exec(ctx, prune, string(a.Account), a.Subject, fence-attemptsKept); err != nil {
			return classify(err)
		}
		return journal(ctx, s, a, fence)
	})
	return or(fence, err)
}

// FinishLineage implements broker.LineageStore.
func (d *DB) FinishLineage(ctx context.Context, l broker.Lineage, outcome string, c *broker.Connection, oldGeneration int64) error {
	const query = `UPDATE lineages SET refresh = $1, upstream = $2, reason = $3, generation = $4, updated = $5, lease_until = 0
		WHERE account = $6 AND id = $7 AND fence = $8`
	const stored = `SELECT count(*) FROM connections WHERE account = $1 AND key = $2 AND generation = $3 AND access = $4 AND length(access) > 0`
	quota := int64(0)
	if c != nil && oldGeneration == 0 {
		var err error
		if quota, err = d.quota(ctx, l.Account, accounts.Connections); err != nil {
			return err
		}
	}
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		n, err := s.exec(ctx, query, blob(l.Refresh), blob(l.Upstream), l.Reason, l.Generation, millis(l.Updated), string(l.Account), l.ID, l.Fence)
		if err := changed(n, err, "the refresh token has changed meanwhile"); err != nil {
			return err
		}
		if err := settle(ctx, s, l.Account, l.ID, l.Fence, outcome); err != nil || c == nil {
			return err
		}
		if c.Generation != oldGeneration {
			var already int
			if err := s.row(ctx, stored, string(c.Account), c.Key, c.Generation, blob(c.Access)).Scan(&already); err != nil || already > 0 {
				return classify(err) // the answer to the call that stored it was lost
			}
		}
		if quota > 0 {
			if err := room(ctx, s, l.Account, accounts.Connections, quota); err != nil {
				return err
			}
		}
		return swapConnection(ctx, s, *c, oldGeneration)
	})
}

// graftLineage stores the lineage that a consent brought, or renewed.
func graftLineage(ctx context.Context, s session, l broker.Lineage) error {
	const query = `INSERT INTO lineages (` + lineageColumns + `, lease_until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0)
		ON CONFLICT (account, id) DO UPDATE SET refresh = excluded.refresh, upstream = excluded.upstream, reason = excluded.reason,
		generation = excluded.generation, updated = excluded.updated, fence = lineages.fence + 1, lease_until = 0
		WHERE lineages.generation IN (excluded.generation - 1, excluded.generation)`
	if l.ID == "" {
		return nil
	}
	n, err := s.exec(ctx, query, string(l.Account), l.ID, l.Family, l.Workload, l.User, l.Provider, blob(l.Refresh), blob(l.Upstream), l.Reason,
		l.Generation, l.Identity, l.Fence, millis(l.Created), millis(l.Updated))
	return changed(n, orphan(err, "the credential provider of the connection does not exist"), "the refresh token has changed meanwhile")
}

// pruneLineages deletes what no connection of c's user and provider lives on any more.
func pruneLineages(ctx context.Context, s session, c broker.Connection) error {
	const query = `DELETE FROM lineages AS l WHERE l.account = $1 AND l.user_ref = $2 AND l.provider = $3 AND NOT ` + livesOn
	_, err := s.exec(ctx, query, string(c.Account), c.User, c.Provider)
	return classify(err)
}

// leaveLineage deletes the lineage of a connection that is revoked, if it is the last on it. The fence orders those who
// leave at once.
func leaveLineage(ctx context.Context, s session, c broker.Connection, r broker.Revocation, last bool) error {
	const lock = `UPDATE lineages SET fence = fence + 1 WHERE account = $1 AND id = $2 RETURNING ` + lineageColumns
	const others = `SELECT count(*) FROM connections WHERE account = $1 AND lineage = $2 AND state <> 'revoked' AND id <> $3`
	const leave = `DELETE FROM lineages WHERE account = $1 AND id = $2`
	if c.Lineage == "" {
		return nil
	}
	l, err := scanLineage(s.row(ctx, lock, string(c.Account), c.Lineage))
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return classify(err)
	}
	var n int
	if err := s.row(ctx, others, string(c.Account), c.Lineage, c.ID).Scan(&n); err != nil {
		return classify(err)
	}
	if (n == 0) != last || r.OfOther(l) {
		return fault.New(fault.Conflict, "the refresh token of connection %q has changed meanwhile", c.ID)
	}
	if !last {
		return nil
	}
	_, err = s.exec(ctx, leave, string(c.Account), c.Lineage)
	return classify(err)
}

// moveLineage stores the lineage of a connection that is moved to another workload identity.
func moveLineage(ctx context.Context, s session, l broker.Lineage, connection string) error {
	const query = `UPDATE lineages SET family = $1, workload = $2, refresh = $3, upstream = $4, generation = $5, updated = $6, fence = fence + 1
		WHERE account = $7 AND id = $8 AND generation = $9 AND lease_until < {now} AND NOT EXISTS (SELECT 1 FROM connections c
		WHERE c.account = lineages.account AND c.lineage = lineages.id AND c.state <> 'revoked' AND c.id <> $10)`
	if l.ID == "" {
		return nil
	}
	n, err := s.exec(ctx, query, l.Family, l.Workload, blob(l.Refresh), blob(l.Upstream), l.Generation, millis(l.Updated), string(l.Account), l.ID,
		l.Generation-1, connection)
	return changed(n, err, "the refresh token of connection %q has changed meanwhile", connection)
}
