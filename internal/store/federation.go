package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/keyring"
)

var _ federation.Store = (*DB)(nil)

const (
	workloadIssuerColumns = `account, url, uid, kind, audiences, jwks_uri, jwks, other_audiences, created`
	ruleColumns           = `r.account, r.id, r.issuer, r.subject, r.claims, r.principal, p.name, r.created`
	ruleTables            = `federation_rules r JOIN principals p ON p.account = r.account AND p.id = r.principal`
)

func scanWorkloadIssuer(s scanner) (i federation.Issuer, err error) {
	var audiences string
	var created int64
	err = s.Scan((*string)(&i.Account), &i.URL, &i.UID, (*string)(&i.Kind), &audiences, &i.JWKSURI, &i.JWKS, &i.OtherAudiences, &created)
	if err != nil {
		return i, err
	}
	i.Audiences, i.JWKS, i.Created = decodeList[string](audiences, &err), sealed(i.JWKS), fromMillis(created)
	return i, err
}

// ruleRow is a row on its way to a federation.Rule.
type ruleRow struct {
	r       federation.Rule
	claims  string
	created int64
}

func (w *ruleRow) dest() []any {
	return []any{(*string)(&w.r.Account), &w.r.ID, &w.r.Issuer, &w.r.Subject, &w.claims, (*string)(&w.r.Principal), &w.r.Name, &w.created}
}

func (w *ruleRow) rule() (_ federation.Rule, err error) {
	w.r.Claims, w.r.Created = decodeMap[string](w.claims, &err), fromMillis(w.created)
	return w.r, err
}

func scanRule(s scanner) (federation.Rule, error) {
	var w ruleRow
	if err := s.Scan(w.dest()...); err != nil {
		return w.r, err
	}
	return w.rule()
}

func scanGrant(s scanner) (g federation.Grant, err error) {
	var w ruleRow
	var p principalRow
	if err := s.Scan(append(w.dest(), p.dest()...)...); err != nil {
		return g, err
	}
	if g.Rule, err = w.rule(); err == nil {
		g.To, err = p.principal()
	}
	return g, err
}

// CreateWorkloadIssuer implements federation.IssuerStore.
func (d *DB) CreateWorkloadIssuer(ctx context.Context, i federation.Issuer) error {
	const query = `INSERT INTO workload_issuers (` + workloadIssuerColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	_, err := d.exec(ctx, query, string(i.Account), i.URL, i.UID, string(i.Kind), encodeList(i.Audiences), i.JWKSURI, blob(i.JWKS),
		flag(i.OtherAudiences), millis(i.Created))
	d.trusts.drop(named{i.Account, i.URL})
	return unique(err, "workload issuer %q exists already", i.URL)
}

// WorkloadIssuers implements federation.IssuerStore.
func (d *DB) WorkloadIssuers(ctx context.Context, account access.Account, after string, limit int) ([]federation.Issuer, error) {
	const query = `SELECT ` + workloadIssuerColumns + ` FROM workload_issuers WHERE account = $1 AND url > $2 ORDER BY url LIMIT $3`
	return list(ctx, d.engine.read(), scanWorkloadIssuer, query, string(account), after, limit)
}

// DeleteWorkloadIssuer implements federation.IssuerStore.
func (d *DB) DeleteWorkloadIssuer(ctx context.Context, account access.Account, url string) error {
	n, err := d.exec(ctx, `DELETE FROM workload_issuers WHERE account = $1 AND url = $2`, string(account), url)
	d.trusts.drop(named{account, url})
	if err == nil {
		_, err = d.exec(ctx, `DELETE FROM issuer_pins WHERE account = $1 AND issuer = $2 AND endpoint = $3`, string(account), url, keyring.WorkloadKeysPin)
	}
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, "workload issuer %q does not exist", url)
	}
	return found(err, "workload issuer %q does not exist", url)
}

// HasWorkloadIssuer implements identity.StandingStore.
func (d *DB) HasWorkloadIssuer(ctx context.Context, account access.Account, url string) (bool, error) {
	const query = `SELECT COUNT(*) FROM workload_issuers WHERE account = $1 AND url = $2`
	n := 0
	err := d.engine.read().row(ctx, query, string(account), url).Scan(&n)
	return n > 0, err
}

// WorkloadTrust implements federation.IssuerStore.
func (d *DB) WorkloadTrust(ctx context.Context, account access.Account, url string) (federation.Trust, error) {
	const issuer = `SELECT ` + workloadIssuerColumns + ` FROM workload_issuers WHERE account = $1 AND url = $2`
	const grants = `SELECT ` + ruleColumns + `, ` + principalColumns + ` FROM ` + ruleTables + `
		WHERE r.account = $1 AND r.issuer = $2 ORDER BY r.id`
	return d.trusts.get(ctx, named{account, url}, func(ctx context.Context) (t federation.Trust, err error) {
		if t.Issuer, err = scanWorkloadIssuer(d.engine.read().row(ctx, issuer, string(account), url)); err != nil {
			return federation.Trust{}, found(err, "workload issuer %q does not exist", url)
		}
		t.Grants, err = list(ctx, d.engine.read(), scanGrant, grants, string(account), url)
		return or(t, err)
	})
}

// CreateFederationRule implements federation.RuleStore.
func (d *DB) CreateFederationRule(ctx context.Context, r federation.Rule) error {
	const query = `INSERT INTO federation_rules (account, id, issuer, subject, claims, principal, created) VALUES ($1, $2, $3, $4, $5, $6, $7)`
	_, err := d.exec(ctx, query, string(r.Account), r.ID, r.Issuer, r.Subject, encodeMap(r.Claims), string(r.Principal), millis(r.Created))
	d.trusts.drop(named{r.Account, r.Issuer})
	return unique(orphan(err, "workload issuer %q or principal %q does not exist", r.Issuer, r.Principal), "rule %q exists already", r.ID)
}

// FederationRules implements federation.RuleStore.
func (d *DB) FederationRules(ctx context.Context, account access.Account, issuer, principal, after string, limit int) ([]federation.Rule, error) {
	const query = `SELECT ` + ruleColumns + ` FROM ` + ruleTables + ` WHERE r.account = $1 AND r.id > $2`
	switch {
	case issuer != "" && principal != "":
		const both = query + ` AND r.issuer = $3 AND p.name = $4 ORDER BY r.id LIMIT $5`
		return list(ctx, d.engine.read(), scanRule, both, string(account), after, issuer, principal, limit)
	case issuer != "":
		return list(ctx, d.engine.read(), scanRule, query+` AND r.issuer = $3 ORDER BY r.id LIMIT $4`, string(account), after, issuer, limit)
	case principal != "":
		return list(ctx, d.engine.read(), scanRule, query+` AND p.name = $3 ORDER BY r.id LIMIT $4`, string(account), after, principal, limit)
	}
	return list(ctx, d.engine.read(), scanRule, query+` ORDER BY r.id LIMIT $3`, string(account), after, limit)
}

// DeleteFederationRule implements federation.RuleStore.
func (d *DB) DeleteFederationRule(ctx context.Context, account access.Account, id string) error {
	const query = `DELETE FROM federation_rules WHERE account = $1 AND id = $2 RETURNING issuer`
	var issuer string
	err := d.engine.single(ctx, func(ctx context.Context, s session) error {
		return found(s.row(ctx, query, string(account), id).Scan(&issuer), "federation rule %q does not exist", id)
	})
	d.trusts.drop(named{account, issuer})
	return err
}
