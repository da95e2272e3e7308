package daemon

import (
	"context"

	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/revocation"
)

// newRevocation wires the revocation of many connections at once.
func (s *Server) newRevocation(people *identity.Service) (*revocation.Service, error) {
	return revocation.New(revocation.Config{Store: s.db, Identity: people, Connections: s.broker, Guard: s.guard, Delegations: delegations{people}, Signer: s.signing, Now: s.config.Now})
}

// revoke works on revocations until ctx ends. It logs when that begins and stops to fail.
func (s *Server) revoke(ctx context.Context) {
	s.revocation.Work(ctx, func(failing bool, err error) {
		s.config.Log.Warn("revoking access", "failing", failing, "error", err)
	})
}
