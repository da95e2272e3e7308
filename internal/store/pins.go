package store

import (
	"context"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// PinIssuer implements keyring.Pins.
func (d *DB) PinIssuer(ctx context.Context, account access.Account, issuer, endpoint, origin string) (string, error) {
	const read = `SELECT origin FROM issuer_pins WHERE account = $1 AND issuer = $2 AND endpoint = $3`
	const add = `INSERT INTO issuer_pins (account, issuer, endpoint, origin) VALUES ($1, $2, $3, $4) ON CONFLICT (account, issuer, endpoint) DO NOTHING`
	pinned := func() (origin string, err error) {
		err = d.engine.read().row(ctx, read, string(account), issuer, endpoint).Scan(&origin)
		return origin, found(err, "the endpoint is not pinned")
	}
	if have, err := pinned(); origin == "" || !errors.Is(err, fault.NotFound) {
		return or(have, err)
	}
	if _, err := d.exec(ctx, add, string(account), issuer, endpoint, origin); err != nil {
		return "", classify(err)
	}
	return pinned()
}

// RepinIssuer implements identity.PinStore.
func (d *DB) RepinIssuer(ctx context.Context, account access.Account, issuer string, origins map[string]string) error {
	const set = `INSERT INTO issuer_pins (account, issuer, endpoint, origin) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, issuer, endpoint) DO UPDATE SET origin = excluded.origin`
	for endpoint, origin := range origins {
		if _, err := d.exec(ctx, set, string(account), issuer, endpoint, origin); err != nil {
			return classify(err)
		}
	}
	return nil
}

// IssuerPins implements identity.PinStore.
func (d *DB) IssuerPins(ctx context.Context, account access.Account, issuer string) (map[string]string, error) {
	type pin struct{ endpoint, origin string }
	rows, err := list(ctx, d.engine.read(), func(s scanner) (p pin, err error) {
		return p, s.Scan(&p.endpoint, &p.origin)
	}, `SELECT endpoint, origin FROM issuer_pins WHERE account = $1 AND issuer = $2`, string(account), issuer)
	pins := map[string]string{}
	for _, p := range rows {
		pins[p.endpoint] = p.origin
	}
	return or(pins, err)
}
