package daemon

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/issuer"
	"github.com/tabard-id/tabard/internal/vault"
)

// newIssuer makes what this server is to others that take its tokens: the exchange, and the handler of its documents and
// endpoints.
func (s *Server) newIssuer(people *identity.Service) (http.Handler, error) {
	c := s.config
	var err error
	s.exchange, err = exchange.New(exchange.Config{
		Store: s.db, Identity: people, Signing: s.signing, Guard: s.guard, Account: access.Account(c.Account), Region: c.Region, Now: c.Now,
	})
	if err != nil {
		return nil, err
	}
	clients := awsapi.NewClients(awsapi.Config{
		Identity: people, Federation: s.workloads, Accounts: s.accounts, Admission: s.admission, Region: c.Region, Now: c.Now,
	})
	return issuer.New(issuer.Config{
		Signing: s.signing, Exchange: s.exchange, Authenticate: clients.Authenticate, Now: c.Now, Log: c.Log, Observe: s.metrics.request,
	})
}

// ringOverlap is how long a key of a ring opens what it sealed after another has taken its place: longer than anything that
// is sealed under these rings lives, with a margin for clocks that differ. ringAge is when that happens.
const (
	ringOverlap = 2 * time.Hour
	ringAge     = 24 * time.Hour
)

// sweepIssuer forgets exchanged tokens that have ended, and renews the keys that seal what lives for minutes.
func (s *Server) sweepIssuer(ctx context.Context) error {
	_, err := s.exchange.Sweep(ctx)
	for _, ring := range []vault.Ring{vault.RingTokens, vault.RingSessions} {
		_, rotating := s.vault.RotateRing(ctx, ring, ringAge, ringOverlap)
		err = errors.Join(err, rotating)
	}
	return err
}
