package identity

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/secret"
)

// OpenToken opens a token as every operation does, without one.
func (s *Service) OpenToken(ctx context.Context, account access.Account, wat secret.Text) (Token, Workload, error) {
	return s.openToken(ctx, account, wat)
}
