package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/vault"
)

const (
	loginColumns  = `account, issuer, client_id, secret, scopes, updated, authorization_endpoint, token_endpoint`
	hostedColumns = `state, flow, cookie, verifier, iss_sent, spent, session, allowed, created`
)

// SetLogin implements identity.LoginStore.
func (d *DB) SetLogin(ctx context.Context, c identity.LoginClient) error {
	const query = `INSERT INTO issuer_logins (` + loginColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (account, issuer) DO UPDATE SET client_id = excluded.client_id, secret = excluded.secret,
		scopes = excluded.scopes, updated = excluded.updated, authorization_endpoint = excluded.authorization_endpoint,
		token_endpoint = excluded.token_endpoint`
	_, err := d.exec(ctx, query, string(c.Account), c.Issuer, c.ClientID, blob(c.Secret), encodeList(c.Scopes), millis(c.Updated), c.Authorization, c.Token)
	return unique(err, "another issuer has the client at the same endpoint")
}

// Login implements identity.LoginStore.
func (d *DB) Login(ctx context.Context, account access.Account, issuer string) (identity.LoginClient, error) {
	const query = `SELECT ` + loginColumns + ` FROM issuer_logins WHERE account = $1 AND issuer = $2`
	c, err := scanLogin(d.engine.read().row(ctx, query, string(account), issuer))
	return or(c, found(err, "issuer %q has no login client", issuer))
}

func scanLogin(s scanner) (c identity.LoginClient, err error) {
	var scopes string
	var updated int64
	if err = s.Scan((*string)(&c.Account), &c.Issuer, &c.ClientID, (*[]byte)(&c.Secret), &scopes, &updated, &c.Authorization, &c.Token); err != nil {
		return c, err
	}
	c.Secret, c.Scopes, c.Updated = sealed(c.Secret), decodeList[string](scopes, &err), fromMillis(updated)
	return c, err
}

// SealedUser implements identity.LoginStore.
func (d *DB) SealedUser(ctx context.Context, account access.Account, ref string) (vault.Sealed, error) {
	var s vault.Sealed
	err := d.engine.read().row(ctx, `SELECT sealed FROM users WHERE account = $1 AND ref = $2`, string(account), ref).Scan((*[]byte)(&s))
	return or(sealed(s), found(err, "the user is not known"))
}

func scanHosted(s scanner) (l broker.Login, err error) {
	var created int64
	err = s.Scan(&l.State, &l.Flow, &l.Cookie, (*[]byte)(&l.Verifier), &l.IssSent, &l.Spent, &l.Session, &l.Allowed, &created)
	l.Verifier, l.Created = sealed(l.Verifier), fromMillis(created)
	return l, err
}

// AddLogin implements broker.HostedStore.
func (d *DB) AddLogin(ctx context.Context, l broker.Login, max int) error {
	const lock = `UPDATE flows SET id = id WHERE id = $1 AND state IN ('created', 'code_held')` // logins of one flow queue up here
	const count = `SELECT COUNT(*) FROM hosted_logins WHERE flow = $1`
	const login = `INSERT INTO hosted_logins (` + hostedColumns + `) VALUES ($1, $2, $3, $4, $5, 0, '', 0, $6)`
	return d.engine.write(system(ctx, byGlobalName), func(ctx context.Context, s session) error {
		if n, err := s.exec(ctx, lock, l.Flow); err != nil || n == 0 {
			return step(n, err)
		}
		var have int
		if err := s.row(ctx, count, l.Flow).Scan(&have); err != nil {
			return classify(err)
		}
		if have >= max {
			return fault.New(fault.Limit, "the authorization address was opened %d times, which is as often as it may be", max)
		}
		_, err := s.exec(ctx, login, l.State, l.Flow, l.Cookie, blob(l.Verifier), flag(l.IssSent), millis(l.Created))
		return unique(err, "the state of the sign-in exists already")
	})
}

// SpendLogin implements broker.HostedStore.
func (d *DB) SpendLogin(ctx context.Context, state, cookie string) (broker.Login, error) {
	return spend(ctx, d, "hosted_logins", hostedColumns, scanHosted, state, cookie)
}

// OpenHosted implements broker.HostedStore.
func (d *DB) OpenHosted(ctx context.Context, state, session string) error {
	const query = `UPDATE hosted_logins SET session = $1, verifier = {none} WHERE state = $2 AND spent = 1 AND session = ''`
	n, err := d.exec(system(ctx, byGlobalName), query, session, state)
	return step(n, err)
}

// HostedSession implements broker.HostedStore.
func (d *DB) HostedSession(ctx context.Context, flow, session string) (broker.Login, error) {
	const query = `SELECT ` + hostedColumns + ` FROM hosted_logins WHERE flow = $1 AND session = $2 AND session <> ''`
	l, err := scanHosted(d.engine.read().row(system(ctx, byGlobalName), query, flow, session))
	return or(l, found(err, "the browser is not signed in"))
}

// BindHosted implements broker.HostedStore.
func (d *DB) BindHosted(ctx context.Context, flow, old, session string) error {
	const query = `UPDATE hosted_logins SET session = $1, allowed = 1 WHERE flow = $2 AND session = $3 AND session <> ''`
	n, err := d.exec(system(ctx, byGlobalName), query, session, flow, old)
	return step(n, err)
}
