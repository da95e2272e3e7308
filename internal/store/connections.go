package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

const connectionColumns = `account, key, id, workload, user_ref, provider, flow, asserted, resources, audiences, requested,
	granted, access, refresh, token_type, expires, state, reason, generation, identity, fence, lease_until, created, updated,
	extra, upstream, claims, lineage || '` + between + `' || parameters || '` + between + `' || parameter_names || '` + between + `' ||
	grant_ref || '` + between + `' || resource`

// between stands between texts that are read as one column: a column costs what its name costs, on each read, and these
// are mostly empty. It is in none but the last: ids, MACs and JSON have no such byte, and a resource comes from a
// caller.
const between = "\x1f"

func scanConnection(s scanner) (c broker.Connection, err error) {
	var resources, audiences, requested, granted, names, joined string
	var expires, lease, created, updated int64
	err = s.Scan((*string)(&c.Account), &c.Key, &c.ID, &c.Workload, &c.User, &c.Provider, &c.Flow, &c.Asserted, &resources,
		&audiences, &requested, &granted, (*[]byte)(&c.Access), (*[]byte)(&c.Refresh), &c.TokenType, &expires,
		(*string)(&c.State), &c.Reason, &c.Generation, &c.Identity, &c.Fence, &lease, &created, &updated,
		(*[]byte)(&c.Attributes), (*[]byte)(&c.Upstream), (*[]byte)(&c.Claims), &joined)
	if err != nil {
		return c, err
	}
	for _, to := range []*string{&c.Lineage, &c.Parameters, &names, &c.GrantRef} {
		*to, joined, _ = strings.Cut(joined, between)
	}
	c.Resource = joined
	c.Resources, c.Audiences = decodeList[string](resources, &err), decodeList[string](audiences, &err)
	c.Requested, c.Granted = decodeList[string](requested, &err), decodeList[string](granted, &err)
	c.Access, c.Refresh, c.Attributes, c.Upstream = sealed(c.Access), sealed(c.Refresh), sealed(c.Attributes), sealed(c.Upstream)
	c.Claims, c.ParamNames = sealed(c.Claims), decodeList[string](names, &err)
	c.Expires, c.LeaseUntil = fromMillis(expires), fromMillis(lease)
	c.Created, c.Updated = fromMillis(created), fromMillis(updated)
	return c, err
}

// connectionValues are the columns that a swap replaces, in the order of connectionSet. The fence is not among
// them: it never falls.
func connectionValues(c broker.Connection) []any {
	return []any{c.ID, c.Workload, c.User, c.Provider, c.Flow, flag(c.Asserted), encodeList(c.Resources),
		encodeList(c.Audiences), encodeList(c.Requested), encodeList(c.Granted), blob(c.Access), blob(c.Refresh), c.TokenType,
		millis(c.Expires), string(c.State), c.Reason, c.Generation, c.Identity, millis(c.Created), millis(c.Updated),
		blob(c.Attributes), blob(c.Upstream), blob(c.Claims), c.Resource, c.Lineage, c.Parameters, encodeList(c.ParamNames),
		c.GrantRef, string(c.Account), c.Key}
}

const connectionSet = `id = $1, workload = $2, user_ref = $3, provider = $4, flow = $5, asserted = $6,
	resources = $7, audiences = $8, requested = $9, granted = $10, access = $11, refresh = $12, token_type = $13,
	expires = $14, state = $15, reason = $16, generation = $17, identity = $18, created = $19, updated = $20, extra = $21,
	upstream = $22, claims = $23, resource = $24, lineage = $25, parameters = $26, parameter_names = $27, grant_ref = $28,
	lease_until = 0 WHERE account = $29 AND key = $30`

// Connection implements broker.ConnectionStore.
func (d *DB) Connection(ctx context.Context, account access.Account, key string) (broker.Connection, error) {
	const query = `SELECT ` + connectionColumns + ` FROM connections WHERE account = $1 AND key = $2`
	c, err := scanConnection(d.engine.read().row(ctx, query, string(account), key))
	if err != nil {
		return broker.Connection{}, found(err, "the connection does not exist")
	}
	return c, nil
}

// ConnectionByID implements broker.ConnectionStore.
func (d *DB) ConnectionByID(ctx context.Context, account access.Account, id string) (broker.Connection, error) {
	const query = `SELECT ` + connectionColumns + ` FROM connections WHERE account = $1 AND id = $2`
	c, err := scanConnection(d.engine.read().row(ctx, query, string(account), id))
	return or(c, found(err, "connection %q does not exist", id))
}

// SwapConnection implements broker.ConnectionStore. Where it replaces it raises the fence, so that a holder whose lease
// it clears cannot finish. NotFound means that the provider is gone.
func (d *DB) SwapConnection(ctx context.Context, c broker.Connection, oldGeneration int64) error {
	op := func(ctx context.Context, s session) error { return swapConnection(ctx, s, c, oldGeneration) }
	if oldGeneration == 0 && c.Flow != broker.FlowUserFederation {
		return d.newWithoutConsent(ctx, c)
	}
	if oldGeneration == 0 {
		return d.within(ctx, c.Account, accounts.Connections, op)
	}
	return d.engine.write(ctx, op)
}

// newWithoutConsent inserts where there is room. Calls for one provider wait for each other at its row.
func (d *DB) newWithoutConsent(ctx context.Context, c broker.Connection) error {
	const lock = `UPDATE providers SET version = version WHERE account = $1 AND uid = $2`
	quota, err := d.quota(ctx, c.Account, accounts.Connections)
	if err != nil {
		return err
	}
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		if quota != 0 {
			if err := room(ctx, s, c.Account, accounts.Connections, quota); err != nil {
				return err
			}
		}
		if _, err := s.exec(ctx, lock, string(c.Account), c.Provider); err != nil {
			return classify(err)
		}
		if err := roomForConnection(ctx, s, c); err != nil {
			return err
		}
		return insertConnection(ctx, s, c)
	})
}

// RoomForConnection implements broker.ConnectionStore.
func (d *DB) RoomForConnection(ctx context.Context, c broker.Connection) error {
	return roomForConnection(ctx, d.engine.read(), c)
}

func roomForConnection(ctx context.Context, s session, c broker.Connection) error {
	const query = `SELECT count(*) FROM connections WHERE account = $1 AND workload = $2 AND user_ref = $3 AND provider = $4
		AND key <> $5 AND state <> 'revoked' AND (flow = 'USER_FEDERATION' OR expires = 0 OR expires > $6)`
	return crowded(s.row(ctx, query, string(c.Account), c.Workload, c.User, c.Provider, c.Key, millis(c.Created)))
}

func crowded(row scanner) error {
	var n int
	if err := row.Scan(&n); err != nil {
		return classify(err)
	}
	if n >= broker.MaxConnections {
		return fault.Wrap(fault.Throttled, broker.ErrManyConnections, "there are %d connections, which is as many as there may be", n)
	}
	return nil
}

func swapConnection(ctx context.Context, s session, c broker.Connection, oldGeneration int64) error {
	if oldGeneration == 0 {
		return insertConnection(ctx, s, c)
	}
	const query = `UPDATE connections SET fence = fence + 1, ` + connectionSet + ` AND generation = $31`
	n, err := s.exec(ctx, query, append(connectionValues(c), oldGeneration)...)
	if err := replaced(n, err, c); err != nil {
		return err
	}
	return settleOlder(ctx, s, c)
}

func insertConnection(ctx context.Context, s session, c broker.Connection) error {
	const query = `INSERT INTO connections (id, workload, user_ref, provider, flow, asserted, resources, audiences, requested,
		granted, access, refresh, token_type, expires, state, reason, generation, identity, created, updated, extra,
		upstream, claims, resource, lineage, parameters, parameter_names, grant_ref, account, key, fence,
		lease_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
		$27, $28, $29, $30, $31, 0)`
	_, err := s.exec(ctx, query, append(connectionValues(c), c.Fence)...)
	if err != nil {
		return unique(orphan(err, "the credential provider of the connection does not exist"), "the connection exists already")
	}
	return nil
}

// replaced says what became of a replacement.
func replaced(n int64, err error, c broker.Connection) error {
	if err != nil {
		return unique(orphan(err, "the credential provider of the connection does not exist"), "connection %q exists already", c.ID)
	}
	return changed(n, nil, "connection %q has changed meanwhile", c.ID)
}

// ForgetRequested implements broker.ConnectionStore.
func (d *DB) ForgetRequested(ctx context.Context, account access.Account, key string) error {
	_, err := d.exec(ctx, `UPDATE connections SET requested = $1 WHERE account = $2 AND key = $3`, encodeList[string](nil), string(account), key)
	return err
}

// LeaseConnection implements broker.ConnectionStore. A connection that needs re-authentication or is revoked has no
// lease to take: that is a Conflict too. Of a connection's finished attempts the last few are kept.
func (d *DB) LeaseConnection(ctx context.Context, a broker.Attempt, key string, ttl time.Duration) (fence int64, err error) {
	const lease = `UPDATE connections SET state = 'refreshing', fence = fence + 1, lease_until = {now} + $1
		WHERE account = $2 AND key = $3 AND id = $4 AND generation = $5 AND lease_until < {now}
		AND state IN ('active', 'refreshing') RETURNING fence`
	const prune = `DELETE FROM attempts WHERE account = $1 AND subject = $2 AND fence < $3 AND finished > 0`
	err = d.engine.write(ctx, func(ctx context.Context, s session) error {
		err := s.row(ctx, lease, ttl.Milliseconds(), string(a.Account), key, a.Subject, a.Generation).Scan(&fence)
		if errors.Is(err, sql.ErrNoRows) {
			return fault.New(fault.Conflict, "connection %q is leased or has changed meanwhile", a.Subject)
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

// attemptsKept is how many finished attempts of a connection stay in the journal.
const attemptsKept = 8

// journal stores the attempt that begins under fence.
func journal(ctx context.Context, s session, a broker.Attempt, fence int64) error {
	const query = `INSERT INTO attempts (account, subject, fence, kind, generation, started, finished, outcome)
		VALUES ($1, $2, $3, $4, $5, $6, 0, '')`
	_, err := s.exec(ctx, query, string(a.Account), a.Subject, fence, a.Kind, a.Generation, millis(a.Started))
	return unique(err, "the attempt is in the journal already")
}

// settle closes the attempt that began under fence, where it is open.
func settle(ctx context.Context, s session, account access.Account, subject string, fence int64, outcome string) error {
	const query = `UPDATE attempts SET finished = {now}, outcome = $1 WHERE account = $2 AND subject = $3 AND fence = $4 AND finished = 0`
	_, err := s.exec(ctx, query, outcome, string(account), subject, fence)
	return classify(err)
}

// settleOlder closes the attempts on tokens that the connection no longer has: what came of them does not matter now.
func settleOlder(ctx context.Context, s session, c broker.Connection) error {
	const query = `UPDATE attempts SET finished = {now}, outcome = 'unknown'
		WHERE account = $1 AND subject = $2 AND generation < $3 AND finished = 0`
	_, err := s.exec(ctx, query, string(c.Account), c.ID, c.Generation)
	return classify(err)
}

// FinishLease implements broker.ConnectionStore. A lease that has run out finishes too, as long as nobody took it or
// cleared it. Repeating a call that succeeded, because its answer was lost, succeeds.
func (d *DB) FinishLease(ctx context.Context, c broker.Connection, fence int64, outcome string) error {
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		const query = `UPDATE connections SET ` + connectionSet + ` AND fence = $31`
		n, err := s.exec(ctx, query, append(connectionValues(c), fence)...)
		if err := replaced(n, err, c); err != nil {
			return err
		}
		if err := settle(ctx, s, c.Account, c.ID, fence, outcome); err != nil {
			return err
		}
		return settleOlder(ctx, s, c)
	})
}

// OpenAttempt implements broker.ConnectionStore.
func (d *DB) OpenAttempt(ctx context.Context, account access.Account, subject string, before int64) (broker.Attempt, error) {
	const query = `SELECT fence, kind, generation, started FROM attempts
		WHERE account = $1 AND subject = $2 AND fence < $3 AND finished = 0 ORDER BY fence DESC LIMIT 1`
	a := broker.Attempt{Account: account, Subject: subject}
	var started int64
	err := d.engine.read().row(ctx, query, string(account), subject, before).Scan(&a.Fence, &a.Kind, &a.Generation, &started)
	a.Started = fromMillis(started)
	return or(a, found(err, "no attempt on %q is open", subject))
}
