package store

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/policy"
)

var (
	_ policy.Store      = (*DB)(nil)
	_ policy.Shelf      = (*DB)(nil)
	_ policy.Past       = (*DB)(nil)
	_ policy.Population = (*DB)(nil)
	_ policy.Upgrades   = (*DB)(nil)
)

const policyColumns = `account, name, text, description, source, version, deleted, created_by, created, updated`

func scanPolicy(s scanner) (p policy.Row, err error) {
	var created, updated int64
	err = s.Scan((*string)(&p.Account), &p.Name, &p.Text, &p.Description, (*string)(&p.Source), &p.Version, &p.Deleted, &p.CreatedBy, &created, &updated)
	p.Created, p.Updated = fromMillis(created), fromMillis(updated)
	return p, err
}

// PolicyVersion implements policy.Store.
func (d *DB) PolicyVersion(ctx context.Context, account access.Account) (int64, error) {
	const query = `SELECT coalesce(max(version), 0) FROM policy_versions WHERE account = $1`
	return d.policyVersions.get(ctx, account, func(ctx context.Context) (v int64, err error) {
		err = d.engine.read().row(ctx, query, string(account)).Scan(&v)
		return v, classify(err)
	})
}

// PoliciesSince implements policy.Store.
func (d *DB) PoliciesSince(ctx context.Context, account access.Account, version int64) ([]policy.Row, error) {
	const query = `SELECT ` + policyColumns + ` FROM policies WHERE account = $1 AND version > $2`
	return list(ctx, d.engine.read(), scanPolicy, query, string(account), version)
}

// PutPolicy implements policy.Shelf.
func (d *DB) PutPolicy(ctx context.Context, row policy.Row, expected, most int64) (policy.Row, error) {
	var stored policy.Row
	err := d.engine.write(ctx, func(ctx context.Context, s session) error {
		stored = row
		version, err := nextPolicyVersion(ctx, s, row.Account)
		if err != nil {
			return err
		}
		old, err := or(scanPolicy(s.row(ctx, `SELECT `+policyColumns+` FROM policies WHERE account = $1 AND name = $2`, string(row.Account), row.Name)))
		err = found(err, "policy %q does not exist", row.Name)
		exists := err == nil && !old.Deleted
		switch {
		case err != nil && fault.CodeOf(err) != fault.NotFound:
			return err
		case expected != 0 && (!exists || old.Version != expected):
			return fault.New(fault.Conflict, "policy %q has changed meanwhile: it is not at version %d", row.Name, expected)
		case exists:
			stored.Created, stored.CreatedBy = old.Created, old.CreatedBy
		default:
			var have int64
			if err := s.row(ctx, `SELECT COUNT(*) FROM policies WHERE account = $1 AND deleted = 0`, string(row.Account)).Scan(&have); err != nil {
				return classify(err)
			}
			if have >= most {
				return fault.New(fault.Limit, "the account has %d policies, and %d are allowed", have, most)
			}
		}
		stored.Version, stored.Deleted = version, false
		return writePolicy(ctx, s, stored, row.CreatedBy)
	})
	d.policyVersions.drop(row.Account)
	return or(stored, err)
}

// DeletePolicy implements policy.Shelf.
func (d *DB) DeletePolicy(ctx context.Context, account access.Account, name, by string, at time.Time) error {
	err := d.engine.write(ctx, func(ctx context.Context, s session) error {
		version, err := nextPolicyVersion(ctx, s, account)
		if err != nil {
			return err
		}
		p, err := scanPolicy(s.row(ctx, `SELECT `+policyColumns+` FROM policies WHERE account = $1 AND name = $2 AND deleted = 0`, string(account), name))
		if err != nil {
			return found(err, "policy %q does not exist", name)
		}
		p.Text, p.Version, p.Deleted, p.Updated = "", version, true, at
		return writePolicy(ctx, s, p, by)
	})
	d.policyVersions.drop(account)
	return err
}

// nextPolicyVersion takes the account's next version. Until the transaction ends no other takes one.
func nextPolicyVersion(ctx context.Context, s session, account access.Account) (v int64, err error) {
	const query = `INSERT INTO policy_versions (account, version) VALUES ($1, 1)
		ON CONFLICT (account) DO UPDATE SET version = policy_versions.version + 1 RETURNING version`
	return v, classify(s.row(ctx, query, string(account)).Scan(&v))
}

// writePolicy writes a policy and its line of the history.
func writePolicy(ctx context.Context, s session, p policy.Row, by string) error {
	const put = `INSERT INTO policies (` + policyColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (account, name) DO UPDATE SET text = excluded.text, description = excluded.description, source = excluded.source,
		version = excluded.version, deleted = excluded.deleted, created_by = excluded.created_by, created = excluded.created, updated = excluded.updated`
	const note = `INSERT INTO policy_history (account, version, name, text, source, deleted, written_by, written) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	_, err := s.exec(ctx, put, string(p.Account), p.Name, p.Text, p.Description, string(p.Source), p.Version, flag(p.Deleted), p.CreatedBy,
		millis(p.Created), millis(p.Updated))
	if err == nil {
		_, err = s.exec(ctx, note, string(p.Account), p.Version, p.Name, p.Text, string(p.Source), flag(p.Deleted), by, millis(p.Updated))
	}
	return classify(err)
}

// Policy implements policy.Shelf.
func (d *DB) Policy(ctx context.Context, account access.Account, name string) (policy.Row, error) {
	const query = `SELECT ` + policyColumns + ` FROM policies WHERE account = $1 AND name = $2 AND deleted = 0`
	p, err := scanPolicy(d.engine.read().row(ctx, query, string(account), name))
	return or(p, found(err, "policy %q does not exist", name))
}

// Policies implements policy.Shelf.
func (d *DB) Policies(ctx context.Context, account access.Account, after string, limit int) ([]policy.Row, error) {
	const query = `SELECT ` + policyColumns + ` FROM policies WHERE account = $1 AND name > $2 AND deleted = 0 ORDER BY name LIMIT $3`
	return list(ctx, d.engine.read(), scanPolicy, query, string(account), after, limit)
}

// PoliciesAt implements policy.Past.
func (d *DB) PoliciesAt(ctx context.Context, account access.Account, at time.Time) ([]policy.Row, error) {
	const query = `SELECT h.account, h.name, h.text, '', h.source, h.version, h.deleted, h.written_by, h.written, h.written FROM policy_history h
		WHERE h.account = $1 AND h.deleted = 0 AND h.version = (SELECT max(p.version) FROM policy_history p
			WHERE p.account = h.account AND p.name = h.name AND p.written <= $2)`
	return list(ctx, d.engine.read(), scanPolicy, query, string(account), at.UnixMilli())
}

// PolicyWrites implements policy.Past.
func (d *DB) PolicyWrites(ctx context.Context, account access.Account, from, to time.Time) (n int64, err error) {
	const query = `SELECT COUNT(*) FROM policy_history WHERE account = $1 AND written >= $2 AND written <= $3`
	return n, classify(d.engine.read().row(ctx, query, string(account), from.UnixMilli(), to.UnixMilli()).Scan(&n))
}

// AuditRecord implements policy.Past.
func (d *DB) AuditRecord(ctx context.Context, account access.Account, id string) (access.Record, error) {
	const query = `SELECT {settled}, tx, ` + auditColumns + ` FROM audit WHERE account = $2 AND writer = $3 AND sequence = $4`
	writer, place, _ := strings.Cut(id, "-")
	b, err := hex.DecodeString(place)
	if err != nil || len(b) != 8 {
		return access.Record{}, fault.New(fault.NotFound, "audit record %q does not exist", id)
	}
	e, err := scanEntry(d.engine.read().row(ctx, query, d.commits.Load(), string(account), writer, int64(binary.BigEndian.Uint64(b))))
	return or(e.record, found(err, "audit record %q does not exist", id))
}

// Member implements policy.Population.
func (d *DB) Member(ctx context.Context, account access.Account, name string) (policy.Member, error) {
	p, err := d.PrincipalByName(ctx, account, name)
	return or(memberOf(p), err)
}

// Members implements policy.Population.
func (d *DB) Members(ctx context.Context, account access.Account, after string, limit int) ([]policy.Member, error) {
	found, err := d.Principals(ctx, account, after, limit)
	out := make([]policy.Member, len(found))
	for i, p := range found {
		out[i] = memberOf(p)
	}
	return out, err
}

func memberOf(p identity.Principal) policy.Member {
	return policy.Member{
		Caller:   access.Caller{Account: p.Account, Principal: p.ID, Name: p.Name, Roles: p.Roles, Workloads: p.Workloads},
		Disabled: p.Disabled,
	}
}

// AssertsUsers implements policy.Population.
func (d *DB) AssertsUsers(ctx context.Context, account access.Account, workload string) (bool, error) {
	w, err := d.Workload(ctx, account, workload)
	if fault.CodeOf(err) == fault.NotFound {
		return false, nil
	}
	return w.Assertable(), err
}

// PendingUpgrades implements policy.Upgrades.
func (d *DB) PendingUpgrades(ctx context.Context) ([]access.Account, error) {
	scan := func(s scanner) (a access.Account, err error) { return a, s.Scan((*string)(&a)) }
	return list(system(ctx, everyAccount), d.engine.read(), scan, `SELECT account FROM policy_upgrades WHERE done = 0 ORDER BY account`)
}

// FinishUpgrade implements policy.Upgrades.
func (d *DB) FinishUpgrade(ctx context.Context, account access.Account, rows []policy.Row, at time.Time) error {
	err := d.engine.write(ctx, func(ctx context.Context, s session) error {
		n, err := s.exec(ctx, `UPDATE policy_upgrades SET done = $1 WHERE account = $2 AND done = 0`, millis(at), string(account))
		if err := changed(n, err, "account %s is upgraded already", account); err != nil {
			return err
		}
		for _, p := range rows {
			if p.Version, err = nextPolicyVersion(ctx, s, account); err != nil {
				return err
			}
			if err := writePolicy(ctx, s, p, p.CreatedBy); err != nil {
				return err
			}
		}
		return nil
	})
	d.policyVersions.drop(account)
	return err
}
