package daemon

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/revocation"
)

// delegations ends what a revocation selects.
type delegations struct{ people *identity.Service }

var _ revocation.Delegations = delegations{}

// EndDelegations implements revocation.Delegations. A delegation with several providers is ended by each of them.
func (d delegations) EndDelegations(ctx context.Context, account access.Account, s revocation.Selection) (int, error) {
	f := identity.DelegationFilter{UserRef: s.User, Provider: s.Provider}
	if s.Workload != "" {
		w, err := d.people.NamedWorkload(ctx, account, s.Workload)
		if err != nil {
			return 0, err
		}
		f.Workload = w.UID
	}
	return d.people.EndDelegations(ctx, account, f)
}
