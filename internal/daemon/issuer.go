package daemon

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/issuer"
	"github.com/tabard-id/tabard/internal/vault"
)

// newIssuer makes what this server is to others that take its tokens: the exchange, and the handler of its documents
// and endpoints.
func (s *Server) newIssuer(people *identity.Service) (http.Handler, error) {
	c := s.config
	var err error
	s.exchange, err = exchange.New(exchange.Config{
		Store: s.db, Identity: people, Signing: s.signing, Guard: s.guard, Trail: s.audit.service, Account: access.Account(c.Account), Region: c.Region, Now: c.Now,
	})
	if err != nil {
		return nil, err
	}
	clients := awsapi.NewClients(awsapi.Config{
		Identity: people, Federation: s.workloads, Accounts: s.accounts, Admission: s.admission, Region: c.Region, Now: c.Now,
	})
	return issuer.New(issuer.Config{
		Signing: s.signing, Exchange: s.exchange, Accounts: s.accounts, Authenticate: clients.Authenticate, Logout: people.BackchannelLogout, Now: c.Now, Log: c.Log, Observe: s.metrics.request,
	})
}

// ringAge is how old a key of a ring becomes that seals what lives for an hour or so. ringSkew is how far the clocks of
// replicas may differ, and how late a sweep may come.
const (
	ringAge  = 24 * time.Hour
	ringSkew = 5 * time.Minute
)

// ringOverlaps are how long a key of each ring that rotates opens what it sealed after another has taken its place: as
// long as anything lives that is sealed under the ring, and the skew (threat B12).
func ringOverlaps(b Bounds) map[vault.Ring]time.Duration {
	return map[vault.Ring]time.Duration{
		vault.RingTokens:   b.userTokenLife() + ringSkew,
		vault.RingSessions: federation.MaxDuration + ringSkew,
	}
}

// sweepIssuer forgets exchanged tokens that have ended, and renews the keys that seal what lives for minutes.
func (s *Server) sweepIssuer(ctx context.Context) error {
	_, err := s.exchange.Sweep(ctx)
	_, forgetting := s.people.SweepLogouts(ctx)
	err = errors.Join(err, forgetting)
	for ring, overlap := range ringOverlaps(s.config.Bounds) {
		_, rotating := s.vault.RotateRing(ctx, ring, ringAge, overlap)
		err = errors.Join(err, rotating)
	}
	return err
}
