package accounts

import (
	"context"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// Standings says who is disabled. *identity.Service has it, and so has its store.
type Standings interface {
	Standing(ctx context.Context, account access.Account, kind identity.StandingKind, key string) (identity.Standing, error)
}

// Admit returns a Denied fault where the account is disabled. It may be a second old.
func Admit(ctx context.Context, s Standings, id access.Account) error {
	at, err := s.Standing(ctx, id, identity.AccountStanding, string(id))
	if err != nil || !at.Down() {
		return err
	}
	return fault.New(fault.Denied, "the account %s is disabled", id)
}

// Admit returns a Denied fault where the account is disabled.
func (s *Service) Admit(ctx context.Context, id access.Account) error {
	return Admit(ctx, s.Standings, id)
}

// Served returns a NotFound fault if the account does not exist or is disabled. It decides nothing about a caller: it
// is for what is public of an account.
func (s *Service) Served(ctx context.Context, id access.Account) error {
	a, err := s.Store.Account(ctx, id)
	if err != nil {
		return err
	}
	if err := s.Admit(ctx, id); errors.Is(err, fault.Denied) {
		return fault.Wrap(fault.NotFound, err, "account %s is not served", a.ID)
	} else if err != nil {
		return err
	}
	return nil
}

// Gate is a Decider that refuses what callers of a disabled account ask, whatever allows it, and asks Next about
// everything else.
type Gate struct {
	Standings Standings
	Next      access.Decider
}

// Decide implements access.Decider.
func (g Gate) Decide(ctx context.Context, c access.Caller, a access.Action, f access.Facts) (access.Decision, error) {
	if c.Account != "" {
		at, err := g.Standings.Standing(ctx, c.Account, identity.AccountStanding, string(c.Account))
		if err != nil {
			return access.Decision{}, err
		}
		if at.Down() {
			return access.Decision{By: "account-disabled", Missing: "an account that is not disabled"}, nil
		}
	}
	return g.Next.Decide(ctx, c, a, f)
}
