package daemon

import (
	"context"
	"fmt"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/policy"
)

// PolicyProblem is what is wrong with a policy.
type PolicyProblem = policy.Problem

// CheckPolicy says what is wrong with the text of a policy, without a server: what a server of this version would say.
func CheckPolicy(text string) ([]PolicyProblem, error) {
	e, err := policy.New(policy.Config{})
	if err != nil {
		return nil, err
	}
	return e.Check(text), nil
}

// PolicySchema is the Cedar schema of policies.
func PolicySchema() string { return policy.Schema() }

// openPolicies makes the Guard, which asks the account's policies, and the operations on them. What the fixed rules of
// earlier versions allowed the agents of this database it writes as policies, where that has not been done.
func (s *Server) openPolicies(ctx context.Context) error {
	c := s.config
	engine, err := policy.New(policy.Config{Store: s.db, Now: c.Now, Unreadable: func(account access.Account, p policy.Problem) {
		what := "a stored policy cannot be read"
		if p.Severity == policy.Warning {
			what = "a stored policy permits less than it says"
		}
		c.Log.Warn(what, "account", string(account), "policy", p.Policy, "line", p.Line, "problem", p.Message)
	}})
	if err != nil {
		return err
	}
	ceilings, err := s.newCeilings()
	if err != nil {
		return err
	}
	var trail access.Log = s.db
	if c.TestOnlyLog != nil {
		trail = c.TestOnlyLog
	}
	s.guard = access.NewGuard(access.Config{Log: s.metrics.count(trail), Now: c.Now, Decider: s.gate(engine), Ceilings: ceilings})
	s.policies = policy.NewService(policy.ServiceConfig{Library: s.db, Engine: engine, Guard: s.guard, Quota: s.policyQuota, Now: c.Now,
		Resource: func(ctx context.Context, account access.Account, provider string, scopes []string) (string, error) {
			return s.broker.ResourceOf(ctx, account, provider, scopes)
		}})
	if s.upgraded, err = s.policies.Upgrade(ctx); err != nil {
		return fmt.Errorf("writing the agents' rights as policies: %w", err)
	}
	return nil
}
