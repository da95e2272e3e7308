package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

// sharing finds the connections that live on a grant: those of the same account at the provider and, if of one of the
// two that account is not known, those of the same user. One that has no token that works is not among them; one whose
// token is being renewed is. Nor is that of an agent that was deleted: nobody would use it, and nobody end it.
const sharing = `SELECT id FROM (
	SELECT id, workload, state, flow, refresh, lineage, access, expires FROM connections WHERE account = $1 AND grant_ref <> '' AND grant_ref = $2
	UNION ALL
	SELECT id, workload, state, flow, refresh, lineage, access, expires FROM connections WHERE account = $1 AND user_ref = $3 AND provider = $4
		AND identity = $5 AND (grant_ref = '' OR $2 = '')) AS c
	WHERE id <> $6 AND state IN ('active', 'refreshing') AND flow = 'USER_FEDERATION'
	AND (length(refresh) > 0 OR lineage <> '' OR length(access) > 0 AND (expires = 0 OR expires > $7))
	AND NOT EXISTS (SELECT 1 FROM workloads w WHERE w.account = $1 AND w.uid = c.workload AND w.deleted > 0) ORDER BY id LIMIT $8`

func sharingOf(ctx context.Context, s session, g broker.UpstreamGrant) ([]string, error) {
	return list(ctx, s, func(row scanner) (id string, err error) { err = row.Scan(&id); return id, err }, sharing,
		string(g.Account), g.Ref, g.User, g.Provider, g.Identity, g.Connection, millis(g.At), broker.MaxMaxTokens)
}

// Sharing implements broker.RevocationStore.
func (d *DB) Sharing(ctx context.Context, g broker.UpstreamGrant) ([]string, error) {
	return sharingOf(ctx, d.engine.read(), g)
}

// BeingRedeemed implements broker.RevocationStore.
func (d *DB) BeingRedeemed(ctx context.Context, g broker.UpstreamGrant) (bool, error) {
	const query = `SELECT count(*) FROM flows WHERE account = $1 AND provider = $2 AND user_ref = $3 AND state = 'redeeming' AND expires > $4`
	var n int
	err := d.engine.read().row(ctx, query, string(g.Account), g.Provider, g.User, millis(g.At)).Scan(&n)
	return n > 0, classify(err)
}

// leaveGrant holds what is known of a grant against what is so now. Those who leave grants of one client at once wait
// for each other at the rows of its providers.
func leaveGrant(ctx context.Context, s session, l broker.Leaving) error {
	const lock = `UPDATE providers SET version = version WHERE account = $1 AND identity = $2`
	if l.Grant.Connection == "" {
		return nil
	}
	if _, err := s.exec(ctx, lock, string(l.Grant.Account), l.Grant.Identity); err != nil {
		return classify(err)
	}
	others, err := sharingOf(ctx, s, l.Grant)
	if err != nil {
		return err
	}
	if (len(others) == 0) != l.Alone {
		return fault.New(fault.Conflict, "the connections of the grant have changed meanwhile")
	}
	return nil
}
