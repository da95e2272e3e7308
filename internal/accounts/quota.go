package accounts

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Quotas bound what an account has. 0 is no bound of the account's own.
type Quotas struct {
	WorkloadIdentities  int64 // that live
	CredentialProviders int64 // of both kinds together
	Principals          int64
	Policies            int64
	Connections         int64 // revoked ones that are kept count too
	RequestsPerSecond   int64 // at each server
}

// Quota names one of Quotas.
type Quota string

// The quotas, as the settings and sentences name them.
const (
	WorkloadIdentities  Quota = "workload identities"
	CredentialProviders Quota = "credential providers"
	Principals          Quota = "principals"
	Policies            Quota = "policies"
	Connections         Quota = "connections"
	RequestsPerSecond   Quota = "requests per second"
)

// maxQuota bounds a quota: more than any account has, and far from where counting overflows.
const maxQuota = 1_000_000_000

// Of returns the quota's value.
func (q Quotas) Of(name Quota) int64 { return *q.at(name) }

// at panics for a name that is none of the constants.
func (q *Quotas) at(name Quota) *int64 {
	switch name {
	case WorkloadIdentities:
		return &q.WorkloadIdentities
	case CredentialProviders:
		return &q.CredentialProviders
	case Principals:
		return &q.Principals
	case Policies:
		return &q.Policies
	case Connections:
		return &q.Connections
	case RequestsPerSecond:
		return &q.RequestsPerSecond
	}
	panic("accounts: no quota " + string(name))
}

// all lists the quotas.
func all() []Quota {
	return []Quota{WorkloadIdentities, CredentialProviders, Principals, Policies, Connections, RequestsPerSecond}
}

// Or returns q with the defaults where it has none.
func (q Quotas) Or(defaults Quotas) Quotas {
	for _, name := range all() {
		if at := q.at(name); *at == 0 {
			*at = defaults.Of(name)
		}
	}
	return q
}

// Set changes the quota of that name, with dashes for its spaces.
func (q *Quotas) Set(name string, value int64) error {
	for _, known := range all() {
		if strings.ReplaceAll(string(known), " ", "-") == name {
			*q.at(known) = value
			return q.check()
		}
	}
	return fault.New(fault.Invalid, "there is no quota %q: it is one of %s", name, strings.ReplaceAll(Quotas{}.names(), " ", "-"))
}

func (Quotas) names() string {
	var b strings.Builder
	for i, name := range all() {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(string(name))
	}
	return b.String()
}

// String lists what is bounded, for the trail.
func (q Quotas) String() string {
	var parts []string
	for _, name := range all() {
		if n := q.Of(name); n != 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, n))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func (q Quotas) check() error {
	for _, name := range all() {
		if n := q.Of(name); n < 0 || n > maxQuota {
			return fault.Field("quotas", "the quota of %s is 0 to %d", name, maxQuota)
		}
	}
	return nil
}

// Reached is the answer where an account has as much as its quota allows.
func Reached(name Quota, quota int64) error {
	return fault.New(fault.Limit, "the account may have %d %s, and has them: delete some, or have root of the installation raise the quota", quota, name)
}

// QuotasOf returns what bounds the account, defaults included. It may be a second old. An account without a row is
// bounded by the defaults.
func (s *Service) QuotasOf(ctx context.Context, id access.Account) (Quotas, error) {
	a, err := s.Store.Account(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return s.Defaults, nil
	}
	return a.Quotas.Or(s.Defaults), err
}

// PolicyQuota returns how many policies the account may have, and otherwise where nothing bounds them.
func (s *Service) PolicyQuota(otherwise int64) func(context.Context, access.Account) (int64, error) {
	return func(ctx context.Context, id access.Account) (int64, error) {
		q, err := s.QuotasOf(ctx, id)
		if q.Policies == 0 {
			q.Policies = otherwise
		}
		return q.Policies, err
	}
}
