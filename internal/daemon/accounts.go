package daemon

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/policy"
)

// openAccounts builds the accounts over the principals, makes the row of the installation's own account, and looks at
// whether the database keeps accounts apart by itself.
func (s *Server) openAccounts(ctx context.Context, people *identity.Service) (err error) {
	c := s.config
	s.accounts, err = accounts.New(accounts.Config{
		Store: s.db, Standings: s.db, People: people, Guard: s.guard, Home: access.Account(c.Account), Defaults: c.DefaultQuotas, Now: c.Now,
	})
	if err != nil {
		return err
	}
	s.people, s.admission = people, awsapi.NewAdmission(s.accounts, c.Now)
	s.admission.Bound(awsapi.AdmissionBounds{BodyMemory: c.Admission.BodyMemoryMiB << 20, Addresses: c.addressOf})
	if err := s.accounts.EnsureHome(ctx); err != nil {
		return err
	}
	down, err := s.db.SecondWall(ctx)
	if down != "" {
		s.config.Warnings = append(s.config.Warnings, "the second wall between accounts is down: "+down)
	}
	return err
}

// gate refuses what callers of disabled accounts ask.
func (s *Server) gate(next access.Decider) access.Decider {
	return accounts.Gate{Standings: s.db, Next: next}
}

// policyQuota says how many policies an account may have.
func (s *Server) policyQuota(ctx context.Context, account access.Account) (int64, error) {
	return s.accounts.PolicyQuota(policy.DefaultQuota)(ctx, account)
}

// writeUses stores when access keys were last used. At the end of the server there is no context left to wait in.
func (s *Server) writeUses() {
	if s.people == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.people.WriteUses(ctx); err != nil {
		s.config.Log.Warn("noting when access keys were last used", "error", err)
	}
}

// addQuota reads NAME=NUMBER into the default quotas.
func (c *Config) addQuota(text string) error {
	name, number, _ := strings.Cut(text, "=")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("default-quota: %q is not of the form workload-identities=100", text)
	}
	if err := c.DefaultQuotas.Set(name, n); err != nil {
		return fmt.Errorf("default-quota: %s", sentence(err))
	}
	return nil
}
