package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

// connectionViews is the whole row but for its ciphertexts, which the list does not even read.
const connectionViews = `SELECT c.account, c.key, c.id, c.workload, c.user_ref, c.provider, c.flow, c.asserted, c.resources,
	c.audiences, c.requested, c.granted, {none}, {none}, c.token_type, c.expires, c.state, c.reason, c.generation, c.identity,
	c.fence, c.lease_until, c.created, c.updated, {none}, {none}, {none}, c.lineage || '` + between + `' ||
	c.parameters || '` + between + `' || c.parameter_names || '` + between + `' || c.grant_ref || '` + between + `' || c.resource, COALESCE(w.name, ''), p.name,
	CASE WHEN length(c.refresh) > 0 OR c.state <> 'revoked' AND EXISTS (SELECT 1 FROM lineages l
		WHERE c.lineage <> '' AND l.account = c.account AND l.id = c.lineage AND l.reason = '') THEN 1 ELSE 0 END
	FROM connections c JOIN providers p ON p.account = c.account AND p.uid = c.provider
	LEFT JOIN workloads w ON w.account = c.account AND w.uid = c.workload WHERE c.account = $1`

// viewed reads the columns of a connection, and those of its view behind them.
type viewed struct {
	scanner
	v *broker.ConnectionView
}

// Scan implements scanner.
func (s viewed) Scan(dest ...any) error {
	return s.scanner.Scan(append(dest, &s.v.WorkloadName, &s.v.ProviderName, &s.v.Refreshable)...)
}

func scanConnectionView(s scanner) (v broker.ConnectionView, err error) {
	v.Connection, err = scanConnection(viewed{s, &v})
	return v, err
}

// ConnectionViews implements broker.InventoryStore.
func (d *DB) ConnectionViews(ctx context.Context, account access.Account, f broker.ConnectionFilter, after string, limit int) ([]broker.ConnectionView, error) {
	const query = connectionViews + ` AND c.id > $2 AND ($3 = '' OR w.name = $3) AND ($4 = '' OR p.name = $4)
		AND ($5 = '' OR c.user_ref = $5) AND ($6 = '' OR c.state = $6) ORDER BY c.id LIMIT $7`
	return list(ctx, d.engine.read(), scanConnectionView, query, string(account), after, f.Workload, f.Provider, f.User, string(f.State), limit)
}

// ConnectionView implements broker.InventoryStore.
func (d *DB) ConnectionView(ctx context.Context, account access.Account, id string) (broker.ConnectionView, error) {
	const query = connectionViews + ` AND c.id = $2`
	v, err := scanConnectionView(d.engine.read().row(ctx, query, string(account), id))
	return or(v, found(err, "connection %q does not exist", id))
}

// MoveConnection implements broker.InventoryStore.
func (d *DB) MoveConnection(ctx context.Context, c broker.Connection, oldKey string, oldGeneration int64, l broker.Lineage) error {
	const query = `UPDATE connections SET key = $1, workload = $2, access = $3, refresh = $4, generation = $5, updated = $6,
		extra = $7, upstream = $8, claims = $9, fence = fence + 1 WHERE account = $10 AND key = $11 AND generation = $12 AND state = 'active'`
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		if err := moveLineage(ctx, s, l, c.ID); err != nil {
			return err
		}
		n, err := s.exec(ctx, query, c.Key, c.Workload, blob(c.Access), blob(c.Refresh), c.Generation, millis(c.Updated), blob(c.Attributes),
			blob(c.Upstream), blob(c.Claims), string(c.Account), oldKey, oldGeneration)
		if err != nil {
			return unique(err, "the workload identity has such a connection already: delete that one first")
		}
		return changed(n, nil, "connection %q has changed meanwhile", c.ID)
	})
}

// DeleteConnection implements broker.InventoryStore.
func (d *DB) DeleteConnection(ctx context.Context, account access.Account, id string) error {
	const attempts = `DELETE FROM attempts WHERE account = $1 AND subject = $2`
	const lineage = `DELETE FROM lineages WHERE account = $1 AND id = (SELECT lineage FROM connections WHERE account = $1 AND id = $2)`
	const connection = `DELETE FROM connections WHERE account = $1 AND id = $2`
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		if _, err := s.exec(ctx, lineage, string(account), id); err != nil {
			return classify(err)
		}
		n, err := s.exec(ctx, connection, string(account), id)
		if err != nil {
			return classify(err)
		}
		if n == 0 {
			return fault.New(fault.NotFound, "connection %q does not exist", id)
		}
		_, err = s.exec(ctx, attempts, string(account), id)
		return classify(err)
	})
}

// LastAttempt implements broker.InventoryStore.
func (d *DB) LastAttempt(ctx context.Context, account access.Account, subject string) (broker.Attempt, error) {
	const query = `SELECT fence, kind, generation, started, finished, outcome FROM attempts
		WHERE account = $1 AND subject = $2 ORDER BY fence DESC LIMIT 1`
	a := broker.Attempt{Account: account, Subject: subject}
	var started, finished int64
	err := d.engine.read().row(ctx, query, string(account), subject).Scan(&a.Fence, &a.Kind, &a.Generation, &started, &finished, &a.Outcome)
	a.Started, a.Finished = fromMillis(started), fromMillis(finished)
	return or(a, found(err, "there was no attempt on %q", subject))
}
