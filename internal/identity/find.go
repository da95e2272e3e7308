package identity

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
)

// FindWorkload finds a live workload identity by name, or returns NotFound. It decides and records nothing: the caller
// of it has.
func (s *Service) FindWorkload(ctx context.Context, account access.Account, name string) (Workload, error) {
	return s.store.Workload(ctx, account, name)
}
