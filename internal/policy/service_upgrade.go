package policy

import (
	"context"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Upgrades remembers which accounts are older than policies.
type Upgrades interface {
	// PendingUpgrades returns the accounts whose agents have their rights of the rule table still to be written.
	PendingUpgrades(ctx context.Context) ([]access.Account, error)
	// FinishUpgrade writes the policies of an account, which is not pending from then on: both or nothing. It is a
	// Conflict fault where another server did it.
	FinishUpgrade(ctx context.Context, account access.Account, rows []Row, at time.Time) error
}

// UpgradedBy is who wrote the policies of an upgrade.
const UpgradedBy = "upgrade"

// Upgrade writes, once for each account that is older than policies, what the rule table allowed its agents. Each
// policy is recorded. It returns how many it wrote; call it before the server answers.
func (s *Service) Upgrade(ctx context.Context) (written int, err error) {
	pending, err := s.Library.PendingUpgrades(ctx)
	if err != nil {
		return 0, err
	}
	for _, account := range pending {
		n, err := s.upgrade(ctx, account)
		if errors.Is(err, fault.Conflict) {
			continue // another replica
		}
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

func (s *Service) upgrade(ctx context.Context, account access.Account) (int, error) {
	var agents []access.Caller
	err := s.everyone(ctx, account, func(m Member) error { // the disabled too: they may be enabled again
		agents = append(agents, m.Caller)
		return nil
	})
	if err != nil {
		return 0, err
	}
	rows, now := UpgradePolicies(agents), s.Now()
	for i := range rows {
		rows[i].CreatedBy, rows[i].Created, rows[i].Updated = UpgradedBy, now, now
		facts := access.Facts{Resource: "policy/" + rows[i].Name, Outcome: "upgraded"}
		if err := s.Guard.Event(ctx, access.Caller{Account: account, Name: UpgradedBy}, access.PutPolicy, facts).Wait(ctx); err != nil {
			return 0, err
		}
	}
	return len(rows), s.Library.FinishUpgrade(ctx, account, rows, now)
}
