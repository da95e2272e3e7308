package store

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/revocation"
)

var _ revocation.Store = (*DB)(nil)

const jobColumns = `account, id, workload, user_ref, provider, whole_account, upstream, erase, reason, principal, principal_name,
	access_key, phase, delegations, receipt, due, created, finished`

func scanJob(s scanner) (j revocation.Job, err error) {
	var due, created, finished int64
	err = s.Scan((*string)(&j.Account), &j.ID, &j.Workload, &j.User, &j.Provider, &j.Whole, &j.Upstream, &j.Erase, &j.Reason,
		(*string)(&j.Principal), &j.Name, &j.AccessKey, (*string)(&j.Phase), &j.Delegations, &j.Receipt, &due, &created, &finished)
	j.Due, j.Created, j.Finished = fromMillis(due), fromMillis(created), fromMillis(finished)
	return j, err
}

// CreateJob implements revocation.JobStore.
func (d *DB) CreateJob(ctx context.Context, j revocation.Job, ttl time.Duration) error {
	const query = `INSERT INTO revocation_jobs (` + jobColumns + `, lease_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, {now} + $19)`
	_, err := d.exec(ctx, query, string(j.Account), j.ID, j.Workload, j.User, j.Provider, flag(j.Whole), flag(j.Upstream), flag(j.Erase),
		j.Reason, string(j.Principal), j.Name, j.AccessKey, string(j.Phase), j.Delegations, j.Receipt, millis(j.Due), millis(j.Created),
		millis(j.Finished), ttl.Milliseconds())
	return unique(err, "the revocation exists already")
}

// Job implements revocation.JobStore.
func (d *DB) Job(ctx context.Context, account access.Account, id string) (revocation.Job, error) {
	const query = `SELECT ` + jobColumns + ` FROM revocation_jobs WHERE account = $1 AND id = $2`
	j, err := scanJob(d.engine.read().row(ctx, query, string(account), id))
	return or(j, found(err, "revocation %q does not exist", id))
}

// LeaseJob implements revocation.JobStore. Where two replicas choose the same job, the one that comes second finds it
// leased, and takes none this time.
func (d *DB) LeaseJob(ctx context.Context, t time.Time, ttl time.Duration) (revocation.Job, error) {
	const query = `UPDATE revocation_jobs SET lease_until = {now} + $1 WHERE lease_until < {now} AND phase <> 'done' AND (account, id) IN
		(SELECT account, id FROM revocation_jobs WHERE phase <> 'done' AND due <= $2 AND lease_until < {now} ORDER BY due LIMIT 1)
		RETURNING ` + jobColumns
	var j revocation.Job
	err := d.engine.single(system(ctx, dueWork), func(ctx context.Context, s session) (err error) {
		j, err = scanJob(s.row(ctx, query, ttl.Milliseconds(), millis(t)))
		return found(err, "no revocation is due")
	})
	return or(j, err)
}

// SaveJob implements revocation.JobStore.
func (d *DB) SaveJob(ctx context.Context, j revocation.Job, from revocation.Phase, ttl time.Duration) error {
	const query = `UPDATE revocation_jobs SET phase = $1, delegations = $2, receipt = $3, due = $4, finished = $5,
		lease_until = CASE WHEN CAST($6 AS BIGINT) = 0 THEN 0 ELSE {now} + CAST($6 AS BIGINT) END WHERE account = $7 AND id = $8 AND phase = $9`
	n, err := d.exec(ctx, query, string(j.Phase), j.Delegations, j.Receipt, millis(j.Due), millis(j.Finished), ttl.Milliseconds(),
		string(j.Account), j.ID, string(from))
	return changed(n, err, "revocation %q went on elsewhere", j.ID)
}

// EndConsents implements revocation.JobStore. The fence of a redemption that is under way rises, so that it cannot
// finish.
func (d *DB) EndConsents(ctx context.Context, account access.Account, sel revocation.Selection, reason string) error {
	const flows = `UPDATE flows SET state = 'failed', reason = $1, fence = fence + 1, ` + eraseFlow + ` WHERE account = $2
		AND state IN ('created', 'code_held', 'redeeming') AND ($3 = '' OR workload_name = $3) AND ($4 = '' OR user_ref = $4)
		AND ($5 = '' OR provider_name = $5)`
	const visits = `UPDATE visits SET verifier = {none} WHERE length(verifier) > 0 AND flow IN
		(SELECT id FROM flows WHERE account = $1 AND state = 'failed' AND ($2 = '' OR workload_name = $2) AND ($3 = '' OR user_ref = $3)
		AND ($4 = '' OR provider_name = $4))`
	const assertions = `DELETE FROM user_assertions WHERE account = $1 AND ($2 = '' OR user_ref = $2) AND ($3 = '' OR workload IN
		(SELECT uid FROM workloads w WHERE w.account = $1 AND w.name = $3))`
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		if _, err := s.exec(ctx, flows, reason, string(account), sel.Workload, sel.User, sel.Provider); err != nil {
			return classify(err)
		}
		if _, err := s.exec(ctx, visits, string(account), sel.Workload, sel.User, sel.Provider); err != nil {
			return classify(err)
		}
		if sel.Provider != "" {
			return nil
		}
		_, err := s.exec(ctx, assertions, string(account), sel.User, sel.Workload)
		return classify(err)
	})
}

// EraseUser implements revocation.JobStore.
func (d *DB) EraseUser(ctx context.Context, account access.Account, ref string) error {
	statements := []string{
		`DELETE FROM users WHERE account = $1 AND ref = $2`,
		`DELETE FROM user_assertions WHERE account = $1 AND user_ref = $2`,
		`DELETE FROM lineages WHERE account = $1 AND user_ref = $2`,
		// The key has the MAC of the parameters in it (ADR 20). Nothing is looked up by it any more: the row is for the
		// trail.
		`UPDATE connections SET upstream = {none}, extra = {none}, claims = {none}, parameters = '', parameter_names = '',
			grant_ref = '', key = 'erased-' || id WHERE account = $1 AND user_ref = $2 AND state = 'revoked'`,
		`UPDATE connections SET upstream = {none}, extra = {none}, claims = {none} WHERE account = $1 AND user_ref = $2`,
		`UPDATE revocations SET grant_ref = '' WHERE account = $1 AND user_ref = $2 AND state <> 'pending'`, // until it has ended, as its key
		`UPDATE flows SET parameters = '', parameter_names = '', sent_names = '' WHERE account = $1 AND user_ref = $2
			AND state IN ('redeemed', 'failed')`,
	}
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		for _, query := range statements {
			if _, err := s.exec(ctx, query, string(account), ref); err != nil {
				return classify(err)
			}
		}
		return nil
	})
}

// ListItems implements revocation.ItemStore. What is selected is what ConnectionViews would list.
func (d *DB) ListItems(ctx context.Context, j revocation.Job) error {
	const query = `INSERT INTO revocation_items (account, job, connection, workload_name, user_ref, provider_name, ended, generation, upstream, detail)
		SELECT c.account, CAST($1 AS TEXT), c.id, COALESCE(w.name, ''), c.user_ref, p.name, 0, 0, CAST($2 AS TEXT), ''
		FROM connections c JOIN providers p ON p.account = c.account AND p.uid = c.provider
		LEFT JOIN workloads w ON w.account = c.account AND w.uid = c.workload
		WHERE c.account = $3 AND c.state <> 'revoked' AND ($4 = '' OR w.name = $4) AND ($5 = '' OR c.user_ref = $5) AND ($6 = '' OR p.name = $6)
		ON CONFLICT (account, job, connection) DO NOTHING`
	state := broker.RevocationSkipped
	if j.Upstream {
		state = broker.RevocationPending
	}
	_, err := d.exec(ctx, query, j.ID, string(state), string(j.Account), j.Workload, j.User, j.Provider)
	return classify(err)
}

// Items implements revocation.ItemStore.
func (d *DB) Items(ctx context.Context, account access.Account, job string, open bool, after string, limit int) ([]revocation.Item, error) {
	const query = `SELECT account, job, connection, workload_name, user_ref, provider_name, ended, generation, upstream, detail
		FROM revocation_items WHERE account = $1 AND job = $2 AND connection > $3 AND ($4 = 0 OR ended = 0) ORDER BY connection LIMIT $5`
	return list(ctx, d.engine.read(), func(s scanner) (i revocation.Item, err error) {
		err = s.Scan((*string)(&i.Account), &i.Job, &i.Connection, &i.Workload, &i.User, &i.Provider, &i.Ended, &i.Generation, (*string)(&i.Upstream), &i.Detail)
		return i, err
	}, query, string(account), job, after, flag(open), limit)
}

// SaveItem implements revocation.ItemStore.
func (d *DB) SaveItem(ctx context.Context, i revocation.Item) error {
	const query = `UPDATE revocation_items SET ended = $1, generation = $2, upstream = $3, detail = $4
		WHERE account = $5 AND job = $6 AND connection = $7`
	_, err := d.exec(ctx, query, flag(i.Ended), i.Generation, string(i.Upstream), i.Detail, string(i.Account), i.Job, i.Connection)
	return classify(err)
}

// SyncItems implements revocation.ItemStore.
func (d *DB) SyncItems(ctx context.Context, account access.Account, job string) error {
	const of = ` FROM revocations r WHERE r.account = revocation_items.account AND r.connection = revocation_items.connection
		AND r.generation = revocation_items.generation ORDER BY r.created LIMIT 1`
	const query = `UPDATE revocation_items SET upstream = COALESCE((SELECT r.state` + of + `), 'failed'),
		detail = COALESCE((SELECT r.detail` + of + `), 'the provider was deleted')
		WHERE account = $1 AND job = $2 AND ended = 1 AND upstream = 'pending'`
	_, err := d.exec(ctx, query, string(account), job)
	return classify(err)
}

// CountItems implements revocation.ItemStore.
func (d *DB) CountItems(ctx context.Context, account access.Account, job string) (revocation.Counts, error) {
	const query = `SELECT upstream, COUNT(*) FROM revocation_items WHERE account = $1 AND job = $2 GROUP BY upstream`
	type count struct {
		state broker.RevocationState
		n     int
	}
	counts, err := list(ctx, d.engine.read(), func(s scanner) (c count, err error) {
		err = s.Scan((*string)(&c.state), &c.n)
		return c, err
	}, query, string(account), job)
	out := revocation.Counts{Upstream: map[broker.RevocationState]int{}}
	for _, c := range counts {
		out.Connections += c.n
		out.Upstream[c.state] = c.n
	}
	return out, err
}
