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
	"github.com/tabard-id/tabard/internal/vault"
)

const (
	flowColumns = `id, account, workload, workload_name, generation, token, user_ref, user_kind, provider, provider_name, identity,
	resources, audiences, scopes, requested, return_url, session, custom_state, custom_params, code, verifier, state, reason, fence,
	lease_until, connection, created, expires, force, upstream, resource, parameters,
	parameter_names, sent_names`
	visitColumns = `state, flow, cookie, verifier, issuer, iss_sent, spent, created`

	// eraseFlow removes what is sealed in a flow.
	eraseFlow = `session = {none}, custom_state = {none}, custom_params = {none}, upstream = {none}, code = {none}, verifier = {none}, lease_until = 0`
	// eraseVisits removes what is sealed in the visits of a flow.
	eraseVisits = `UPDATE visits SET verifier = {none} WHERE flow = $1`
)

func scanFlow(s scanner) (f broker.Flow, err error) {
	var resources, audiences, scopes, requested, names, sent string
	var lease, created, expires int64
	err = s.Scan(&f.ID, (*string)(&f.Account), &f.Workload, &f.WorkloadName, &f.Generation, &f.Token, &f.User, &f.UserKind,
		&f.Provider, &f.ProviderName, &f.Identity, &resources, &audiences, &scopes, &requested, &f.ReturnURL,
		(*[]byte)(&f.Session), (*[]byte)(&f.CustomState), (*[]byte)(&f.CustomParams), (*[]byte)(&f.Code), (*[]byte)(&f.Verifier), (*string)(&f.State),
		&f.Reason, &f.Fence, &lease, &f.Connection, &created, &expires, &f.Force, (*[]byte)(&f.Upstream), &f.Resource,
		&f.Parameters, &names, &sent)
	if err != nil {
		return f, err
	}
	f.Resources, f.Audiences = decodeList[string](resources, &err), decodeList[string](audiences, &err)
	f.Scopes, f.Requested = decodeList[string](scopes, &err), decodeList[string](requested, &err)
	f.ParamNames, f.SentNames = decodeList[string](names, &err), decodeList[string](sent, &err)
	f.Session, f.Upstream = sealed(f.Session), sealed(f.Upstream)
	f.CustomState, f.CustomParams, f.Code, f.Verifier = sealed(f.CustomState), sealed(f.CustomParams), sealed(f.Code), sealed(f.Verifier)
	f.LeaseUntil, f.Created, f.Expires = fromMillis(lease), fromMillis(created), fromMillis(expires)
	return f, err
}

func scanVisit(s scanner) (v broker.Visit, err error) {
	var created int64
	err = s.Scan(&v.State, &v.Flow, &v.Cookie, (*[]byte)(&v.Verifier), &v.Issuer, &v.IssSent, &v.Spent, &created)
	v.Verifier, v.Created = sealed(v.Verifier), fromMillis(created)
	return v, err
}

// CreateFlow implements broker.FlowStore. It returns Conflict where the id exists, and NotFound where the provider is
// gone. Calls for one user wait for each other at the user's row, so that each counts what the others made.
func (d *DB) CreateFlow(ctx context.Context, f broker.Flow, max int) error {
	const lock = `UPDATE users SET created = created WHERE account = $1 AND ref = $2`
	const count = `SELECT count(*) FROM flows WHERE account = $1 AND workload = $2 AND user_ref = $3 AND expires > $4
		AND state IN ('created', 'code_held', 'redeeming')`
	// What the user has and is being asked for, each once, and not what this session is for.
	const names = `SELECT count(*) FROM (SELECT resources, audiences, resource, parameters FROM connections WHERE account = $1
		AND workload = $2 AND user_ref = $3 AND provider = $4 AND state <> 'revoked' AND flow = 'USER_FEDERATION'
		UNION SELECT resources, audiences, resource, parameters FROM flows WHERE account = $1 AND workload = $2 AND user_ref = $3
		AND provider = $4 AND expires > $5 AND state IN ('created', 'code_held', 'redeeming')) AS n
		WHERE NOT (resources = $6 AND audiences = $7 AND resource = $8 AND parameters = $9)`
	const query = `INSERT INTO flows (` + flowColumns + `, visits) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
		$15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, 0)`
	quota, err := d.quota(ctx, f.Account, accounts.Connections)
	if err != nil {
		return err
	}
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		if _, err := s.exec(ctx, lock, string(f.Account), f.User); err != nil {
			return classify(err)
		}
		if err := roomForConsent(ctx, s, f, quota); err != nil {
			return err
		}
		var open int
		if err := s.row(ctx, count, string(f.Account), f.Workload, f.User, millis(f.Created)).Scan(&open); err != nil {
			return classify(err)
		}
		if err := crowded(s.row(ctx, names, string(f.Account), f.Workload, f.User, f.Provider, millis(f.Created), encodeList(f.Resources),
			encodeList(f.Audiences), f.Resource, f.Parameters)); err != nil {
			return err
		}
		if open >= max {
			return fault.New(fault.Throttled, "%d consent sessions of this user are open at this workload identity, which is as many as there may be", open)
		}
		_, err := s.exec(ctx, query, f.ID, string(f.Account), f.Workload, f.WorkloadName, f.Generation, f.Token, f.User, f.UserKind,
			f.Provider, f.ProviderName, f.Identity, encodeList(f.Resources), encodeList(f.Audiences), encodeList(f.Scopes),
			encodeList(f.Requested), f.ReturnURL, blob(f.Session), blob(f.CustomState), blob(f.CustomParams), blob(f.Code), blob(f.Verifier),
			string(f.State), f.Reason, f.Fence, millis(f.LeaseUntil), f.Connection, millis(f.Created), millis(f.Expires), flag(f.Force), blob(f.Upstream), f.Resource,
			f.Parameters, encodeList(f.ParamNames), encodeList(f.SentNames))
		return unique(orphan(err, "credential provider %q does not exist", f.ProviderName), "the session exists already")
	})
}

// FlowByID implements broker.FlowStore.
func (d *DB) FlowByID(ctx context.Context, id string) (broker.Flow, error) {
	const query = `SELECT ` + flowColumns + ` FROM flows WHERE id = $1`
	f, err := scanFlow(d.engine.read().row(system(ctx, byGlobalName), query, id))
	return or(f, found(err, "the session does not exist"))
}

// AddVisit implements broker.FlowStore. A flow that does not exist is a Conflict.
func (d *DB) AddVisit(ctx context.Context, v broker.Visit, max int) error {
	const count = `UPDATE flows SET visits = visits + 1 WHERE id = $1 AND state = 'created' AND visits < $2`
	const state = `SELECT state FROM flows WHERE id = $1`
	const visit = `INSERT INTO visits (` + visitColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	return d.engine.write(system(ctx, byGlobalName), func(ctx context.Context, s session) error {
		n, err := s.exec(ctx, count, v.Flow, max)
		if err != nil {
			return classify(err)
		}
		if n == 0 {
			var now string
			if err := s.row(ctx, state, v.Flow).Scan(&now); err != nil && !errors.Is(err, sql.ErrNoRows) {
				return classify(err)
			}
			if now == string(broker.FlowCreated) {
				return fault.New(fault.Limit, "the authorization address was opened %d times, which is as often as it may be", max)
			}
			return moved()
		}
		_, err = s.exec(ctx, visit, v.State, v.Flow, v.Cookie, blob(v.Verifier), v.Issuer, flag(v.IssSent), flag(v.Spent), millis(v.Created))
		return unique(err, "the state of the visit exists already")
	})
}

// moved is the answer to a step that a flow's state does not allow.
func moved() error { return fault.New(fault.Conflict, "the session has moved on meanwhile") }

// SpendVisit implements broker.FlowStore.
func (d *DB) SpendVisit(ctx context.Context, state, cookie string) (broker.Visit, error) {
	return spend(ctx, d, "visits", visitColumns, scanVisit, state, cookie)
}

// spend marks the row of table with this state as spent and returns it, where it is not spent and its cookie is cookie.
// NotFound means that the state is not known, Denied that the cookie differs, Conflict that it was spent already.
func spend[R any](ctx context.Context, d *DB, table, columns string, scan func(scanner) (R, error), state, cookie string) (R, error) {
	once := `UPDATE ` + table + ` SET spent = 1 WHERE state = $1 AND cookie = $2 AND spent = 0 RETURNING ` + columns
	why := `SELECT cookie FROM ` + table + ` WHERE state = $1`
	var row R
	err := d.engine.write(system(ctx, byGlobalName), func(ctx context.Context, s session) error {
		var err error
		row, err = scan(s.row(ctx, once, state, cookie))
		if !errors.Is(err, sql.ErrNoRows) {
			return classify(err)
		}
		var want string
		if err := s.row(ctx, why, state).Scan(&want); err != nil {
			return found(err, "the state is not known")
		}
		if want != cookie {
			return fault.New(fault.Denied, "the state belongs to another browser")
		}
		return fault.New(fault.Conflict, "the state was used already")
	})
	return or(row, err)
}

// HoldCode implements broker.FlowStore.
func (d *DB) HoldCode(ctx context.Context, id string, code, verifier vault.Sealed) error {
	const query = `UPDATE flows SET state = 'code_held', code = $1, verifier = $2 WHERE id = $3 AND state = 'created'`
	n, err := d.exec(system(ctx, byGlobalName), query, blob(code), blob(verifier), id)
	return step(n, err)
}

func step(n int64, err error) error {
	if err == nil && n == 0 {
		return moved()
	}
	return classify(err)
}

// StartRedeem implements broker.FlowStore. The account and subject of a are the flow's, whatever they say.
func (d *DB) StartRedeem(ctx context.Context, id string, a broker.Attempt, ttl time.Duration) (fence int64, err error) {
	const query = `UPDATE flows SET state = 'redeeming', fence = fence + 1, lease_until = {now} + $1
		WHERE id = $2 AND state = 'code_held' RETURNING fence, account`
	err = d.engine.write(system(ctx, byGlobalName), func(ctx context.Context, s session) error {
		err := s.row(ctx, query, ttl.Milliseconds(), id).Scan(&fence, (*string)(&a.Account))
		if errors.Is(err, sql.ErrNoRows) {
			return moved()
		}
		if err != nil {
			return classify(err)
		}
		a.Subject = id
		return journal(ctx, s, a, fence)
	})
	return or(fence, err)
}

// ReturnCode implements broker.FlowStore.
func (d *DB) ReturnCode(ctx context.Context, id string, fence int64) error {
	const query = `UPDATE flows SET state = 'code_held', lease_until = 0 WHERE id = $1 AND state = 'redeeming' AND fence = $2
		RETURNING account`
	return d.engine.write(system(ctx, byGlobalName), func(ctx context.Context, s session) error {
		account, err := stepped(s.row(ctx, query, id, fence))
		if err != nil {
			return err
		}
		return settle(ctx, s, account, id, fence, "not_sent")
	})
}

// stepped returns the account of a flow that took a step.
func stepped(row scanner) (account access.Account, err error) {
	err = row.Scan((*string)(&account))
	if errors.Is(err, sql.ErrNoRows) {
		return "", moved()
	}
	return account, classify(err)
}

// FinishRedeem implements broker.FlowStore. The verifiers of the flow's visits go too.
func (d *DB) FinishRedeem(ctx context.Context, id string, fence int64, c broker.Connection, oldGeneration int64, l broker.Lineage) error {
	const query = `UPDATE flows SET state = 'redeemed', connection = $1, ` + eraseFlow + `
		WHERE id = $2 AND account = $3 AND state = 'redeeming' AND fence = $4 RETURNING account`
	return d.engine.write(only(ctx, c.Account), func(ctx context.Context, s session) error {
		account, err := stepped(s.row(ctx, query, c.ID, id, string(c.Account), fence))
		if err != nil {
			return err
		}
		if _, err := s.exec(ctx, eraseVisits, id); err != nil {
			return classify(err)
		}
		if err := graftLineage(ctx, s, l); err != nil {
			return err
		}
		if err := swapConnection(ctx, s, c, oldGeneration); err != nil {
			return err
		}
		if err := pruneLineages(ctx, s, c); err != nil {
			return err
		}
		return settle(ctx, s, account, id, fence, "stored")
	})
}

// AnswerFlow implements broker.FlowStore. The verifiers of the flow's visits go too.
func (d *DB) AnswerFlow(ctx context.Context, account access.Account, id, connection string) error {
	const query = `UPDATE flows SET state = 'redeemed', connection = $1, ` + eraseFlow + `
		WHERE id = $2 AND account = $3 AND state IN ('created', 'code_held')`
	return d.engine.write(only(ctx, account), func(ctx context.Context, s session) error {
		if err := step(s.exec(ctx, query, connection, id, string(account))); err != nil {
			return err
		}
		_, err := s.exec(ctx, eraseVisits, id)
		return classify(err)
	})
}

// FailFlow implements broker.FlowStore. An attempt that is open is closed as unknown, and the verifiers of the flow's
// visits go too.
func (d *DB) FailFlow(ctx context.Context, id, reason string, fence int64) (bool, error) {
	const query = `UPDATE flows SET state = 'failed', reason = $1, ` + eraseFlow + ` WHERE id = $2 AND (state IN ('created', 'code_held')
		OR state = 'redeeming' AND (fence = $3 OR lease_until < {now})) RETURNING account`
	const attempts = `UPDATE attempts SET finished = {now}, outcome = 'unknown' WHERE account = $1 AND subject = $2 AND finished = 0`
	var failed bool
	err := d.engine.write(system(ctx, byGlobalName), func(ctx context.Context, s session) error {
		failed = false
		var account string
		err := s.row(ctx, query, reason, id, fence).Scan(&account)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return classify(err)
		}
		failed = true
		if _, err := s.exec(ctx, eraseVisits, id); err != nil {
			return classify(err)
		}
		_, err = s.exec(ctx, attempts, account, id)
		return classify(err)
	})
	return failed && err == nil, err
}

// SweepFlows implements broker.FlowStore. Visits go by their foreign key.
func (d *DB) SweepFlows(ctx context.Context, t time.Time, limit int) (int, error) {
	const expired = `SELECT account, id FROM flows WHERE expires < $1 ORDER BY expires LIMIT $2`
	const attempts = `DELETE FROM attempts WHERE account = $1 AND subject = $2`
	const flow = `DELETE FROM flows WHERE id = $1`
	var swept int
	err := d.engine.write(system(ctx, dueWork), func(ctx context.Context, s session) error {
		swept = 0
		old, err := list(ctx, s, scanNamed, expired, millis(t), limit)
		if err != nil {
			return err
		}
		for _, f := range old {
			if _, err := s.exec(ctx, attempts, string(f.account), f.name); err != nil {
				return classify(err)
			}
			n, err := s.exec(ctx, flow, f.name)
			if err != nil {
				return classify(err)
			}
			swept += int(n)
		}
		return nil
	})
	return or(swept, err)
}

func scanNamed(s scanner) (n named, err error) {
	err = s.Scan((*string)(&n.account), &n.name)
	return n, err
}
