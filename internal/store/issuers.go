package store

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/vault"
)

const issuerColumns = `account, url, audiences, client_ids, token_use, workloads, claims, subject_claim, jwks_uri, jwks,
	user_info, policy_claims, from_config, created, backchannel_logout`

func scanIssuer(s scanner) (i identity.Issuer, err error) {
	var audiences, clients, workloads, claims, asked string
	var created int64
	err = s.Scan((*string)(&i.Account), &i.URL, &audiences, &clients, (*string)(&i.TokenUse), &workloads, &claims,
		&i.SubjectClaim, &i.JWKSURI, &i.JWKS, &i.UserInfo, &asked, &i.FromConfig, &created, &i.BackchannelLogout)
	if err != nil {
		return i, err
	}
	i.Audiences, i.ClientIDs = decodeList[string](audiences, &err), decodeList[string](clients, &err)
	i.Workloads, i.Claims = decodeList[string](workloads, &err), decodeMap[string](claims, &err)
	i.PolicyClaims = decodeList[string](asked, &err)
	i.JWKS, i.Created = sealed(i.JWKS), fromMillis(created)
	return i, err
}

// CreateIssuer implements identity.IssuerStore. It returns a Conflict fault where the URL exists in the account.
func (d *DB) CreateIssuer(ctx context.Context, i identity.Issuer) error {
	const query = `INSERT INTO issuers (` + issuerColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`
	_, err := d.exec(ctx, query, string(i.Account), i.URL, encodeList(i.Audiences), encodeList(i.ClientIDs), string(i.TokenUse),
		encodeList(i.Workloads), encodeMap(i.Claims), i.SubjectClaim, i.JWKSURI, blob(i.JWKS), flag(i.UserInfo),
		encodeList(i.PolicyClaims), flag(i.FromConfig), millis(i.Created), flag(i.BackchannelLogout))
	return unique(err, "issuer %q exists already", i.URL)
}

// Issuer implements identity.IssuerStore.
func (d *DB) Issuer(ctx context.Context, account access.Account, url string) (identity.Issuer, error) {
	const query = `SELECT ` + issuerColumns + ` FROM issuers WHERE account = $1 AND url = $2`
	return d.issuers.get(ctx, named{account, url}, func(ctx context.Context) (identity.Issuer, error) {
		i, err := scanIssuer(d.engine.read().row(ctx, query, string(account), url))
		return or(i, found(err, "issuer %q does not exist", url))
	})
}

// Issuers implements identity.IssuerStore, ordered by URL.
func (d *DB) Issuers(ctx context.Context, account access.Account, after string, limit int) ([]identity.Issuer, error) {
	const query = `SELECT ` + issuerColumns + ` FROM issuers WHERE account = $1 AND url > $2 ORDER BY url LIMIT $3`
	return list(ctx, d.engine.read(), scanIssuer, query, string(account), after, limit)
}

// DeleteIssuer implements identity.IssuerStore.
func (d *DB) DeleteIssuer(ctx context.Context, account access.Account, url string) error {
	n, err := d.exec(ctx, `DELETE FROM issuers WHERE account = $1 AND url = $2`, string(account), url)
	d.issuers.drop(named{account, url})
	if err == nil {
		_, err = d.exec(ctx, `DELETE FROM issuer_logins WHERE account = $1 AND issuer = $2`, string(account), url)
	}
	if err == nil {
		_, err = d.exec(ctx, `DELETE FROM issuer_pins WHERE account = $1 AND issuer = $2 AND endpoint <> $3`, string(account), url, keyring.WorkloadKeysPin)
	}
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, "issuer %q does not exist", url)
	}
	return classify(err)
}

// RememberUser implements identity.IssuerStore.
func (d *DB) RememberUser(ctx context.Context, account access.Account, ref string, sealed vault.Sealed, at time.Time) error {
	const query = `INSERT INTO users (account, ref, sealed, created) VALUES ($1, $2, $3, $4) ON CONFLICT (account, ref) DO NOTHING`
	_, err := d.exec(ctx, query, string(account), ref, blob(sealed), millis(at))
	return classify(err)
}
