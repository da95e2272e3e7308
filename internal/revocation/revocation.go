// Package revocation ends what many connections, tokens and delegations allow, in one stroke, and accounts for it.
//
// Security argument: what is selected is dead here before anybody at a provider is asked: the epochs rise first, so
// that workload access tokens end everywhere within two seconds, then open consents and kept users' tokens go, then
// each connection's tokens are erased. Each step is durable and may be taken again, so that a server that dies in the
// middle is continued by any other. What a provider did not confirm is named in the receipt and not passed over.
package revocation

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// Selection says what to end: what all the given members select, or with Whole everything in the account.
type Selection struct {
	Workload string // name: also of a workload identity that was deleted
	User     string // user reference
	Provider string // name
	Whole    bool
}

// Phase is how far a job has come. Each phase begins when the one before is durable.
type Phase string

// Values of Phase, in their order.
const (
	Begun  Phase = "begun"  // nothing has happened yet
	Listed Phase = "listed" // epochs are raised, consents are ended, and the connections are listed
	Killed Phase = "killed" // every listed connection is ended here
	Done   Phase = "done"   // and no provider is asked any more
)

// Job is one revocation.
type Job struct {
	Account access.Account
	ID      string
	Selection
	Upstream    bool // tell the providers too
	Erase       bool // forget who the user is, at the end
	Reason      string
	Principal   access.PrincipalID // who asked
	Name        string
	AccessKey   string
	Phase       Phase
	Delegations int // that were ended
	Receipt     string
	Due         time.Time // not worked on before
	Created     time.Time
	Finished    time.Time // zero unless Done
}

// tokens reports whether the job ends workload access tokens: not where it is about one provider only.
func (j Job) tokens() bool { return j.Provider == "" }

// caller is who asked, for the records of what is done in their name.
func (j Job) caller() access.Caller {
	return access.Caller{Account: j.Account, Principal: j.Principal, Name: j.Name, AccessKey: j.AccessKey}
}

// Item is what became of one connection.
type Item struct {
	Account    access.Account
	Job        string
	Connection string
	Workload   string // name
	User       string // reference
	Provider   string // name
	Ended      bool   // here
	Generation int64  // of the tokens that are revoked at the provider
	Upstream   broker.RevocationState
	Detail     string
}

// Counts sums a job's items up.
type Counts struct {
	Connections int
	Upstream    map[broker.RevocationState]int
}

// Store keeps jobs and their items.
type Store interface {
	JobStore
	ItemStore
}

// JobStore keeps jobs.
type JobStore interface {
	// CreateJob adds a job, leased for ttl by the database's clock.
	CreateJob(ctx context.Context, j Job, ttl time.Duration) error
	// Job returns NotFound where the account has no such job.
	Job(ctx context.Context, account access.Account, id string) (Job, error)
	// LeaseJob takes the job that is due by t for longest, is not done and that nobody has leased, and leases it for ttl.
	// It returns NotFound where there is none.
	LeaseJob(ctx context.Context, t time.Time, ttl time.Duration) (Job, error)
	// SaveJob stores phase, delegations, receipt, due and finished where the phase is still from, else returns Conflict;
	// and leases the job for ttl from now, or lets it go where ttl is 0.
	SaveJob(ctx context.Context, j Job, from Phase, ttl time.Duration) error
	// EndConsents fails the open consent sessions of the selection, also those whose code is being redeemed: what that
	// brings is not stored any more. Where the selection names no provider it deletes the kept users' tokens too.
	EndConsents(ctx context.Context, account access.Account, s Selection, reason string) error
	// EraseUser deletes who the user is, and what is sealed about their accounts at providers.
	EraseUser(ctx context.Context, account access.Account, ref string) error
}

// ItemStore keeps what became of each connection of a job.
type ItemStore interface {
	// ListItems adds an item for each connection that j selects and that is not revoked. Repeating it adds what is new.
	ListItems(ctx context.Context, j Job) error
	// Items returns up to limit items with connection ids after the given one, ordered by it; with open only those that
	// have not ended here.
	Items(ctx context.Context, account access.Account, job string, open bool, after string, limit int) ([]Item, error)
	SaveItem(ctx context.Context, i Item) error
	// SyncItems copies into pending items what the revocations at the providers have come to. What was deleted with its
	// provider has failed.
	SyncItems(ctx context.Context, account access.Account, job string) error
	CountItems(ctx context.Context, account access.Account, job string) (Counts, error)
}

// Connections ends connections. *broker.Broker has it.
type Connections interface {
	EndConnection(ctx context.Context, caller access.Caller, id string, upstream bool, why string) (broker.Ended, error)
	SweepRevocations(ctx context.Context) (int, error)
	HasProvider(ctx context.Context, account access.Account, name string) (bool, error)
}

// Delegations ends what users delegated to agents.
type Delegations interface {
	// EndDelegations ends those that s selects and returns how many. Repeating it is harmless.
	EndDelegations(ctx context.Context, account access.Account, s Selection) (int, error)
}

// Signer signs receipts with the key that signs statements about the audit trail. *signing.Service has it.
type Signer interface {
	// State returns the compact form of a JWT (RFC 7515 §7.1) of exactly the type typ.
	State(ctx context.Context, typ string, claims map[string]any) (string, error)
}

// Config is what a Service needs. Delegations and Signer may be nil: then nothing is delegated, and receipts are empty.
type Config struct {
	Store       Store
	Identity    *identity.Service
	Connections Connections
	Guard       *access.Guard
	Delegations Delegations
	Signer      Signer
	Now         func() time.Time
}

// Service revokes. It is safe for concurrent use.
type Service struct {
	Config
	wake chan struct{} // has a token where Work should look for jobs at once
}

// New returns a Service.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Identity == nil || c.Connections == nil || c.Guard == nil || c.Now == nil {
		return nil, errors.New("revocation: an incomplete Config")
	}
	return &Service{Config: c, wake: make(chan struct{}, 1)}, nil
}

// Request is what RevokeAccess takes.
type Request struct {
	Workload string                 // name
	User     *identity.UserSelector // nil for every user
	Provider string                 // name
	Whole    bool                   // everything in the account; only for root, and alone
	Upstream bool
	Reason   string
}

// Report is what is known of a job.
type Report struct {
	Job
	Counts
	Receipt string // of what is so far; "" before every connection has ended here, or without a Signer
}

// RevokeAccess ends the connections that r selects, and with them, unless r names a provider, the workload access
// tokens and the users' tokens that are kept. When it returns, no token of the selection is good for anything on this
// server and within two seconds on any other, and the connections are ended, or are being ended where there are many
// (the Phase is Listed then, and there is no receipt yet). Providers are told in the background: Revocation says how
// that goes.
//
// Errors: Denied, also where somebody other than root revokes the whole account; Invalid where nothing is selected;
// NotFound for an unknown workload identity or provider.
func (s *Service) RevokeAccess(ctx context.Context, caller access.Caller, r Request) (Report, error) {
	j := s.newJob(caller, r.Reason)
	j.Selection, j.Upstream = Selection{Workload: r.Workload, Provider: r.Provider, Whole: r.Whole}, r.Upstream
	var bad error
	if r.User != nil {
		j.User, bad = s.Identity.SelectUser(ctx, caller.Account, *r.User)
	}
	facts := access.Facts{Workload: r.Workload, UserRef: j.User, Provider: r.Provider, Resource: "revocation/" + j.ID, Detail: clip(r.Reason)}
	if r.Whole {
		facts.Detail = clip("the whole account: " + r.Reason)
	}
	if err := s.Guard.Permit(ctx, caller, access.RevokeAccess, facts); err != nil {
		return Report{}, err
	}
	if r.Whole && !caller.Has(access.Root) {
		return Report{}, s.Guard.Refuse(ctx, caller, access.RevokeAccess, "needs-root", facts,
			fault.New(fault.Denied, "%s is not allowed to revoke a whole account: it needs the role root", caller))
	}
	if bad != nil {
		return Report{}, bad
	}
	if err := s.check(ctx, j); err != nil {
		return Report{}, err
	}
	return s.start(ctx, j)
}

func (s *Service) newJob(caller access.Caller, reason string) Job {
	now := s.Now()
	return Job{
		Account: caller.Account, ID: "rvk-" + strings.ToLower(rand.Text()), Reason: reason, Principal: caller.Principal, Name: caller.Name,
		AccessKey: caller.AccessKey, Phase: Begun, Due: now, Created: now,
	}
}

// check holds a selection against what exists: a name with a typing error must not look like a success.
func (s *Service) check(ctx context.Context, j Job) error {
	given := j.Workload + j.User + j.Provider
	switch {
	case given == "" && !j.Whole:
		return fault.Field("workloadName", "name what to revoke: a workload identity, a user, a provider or the whole account")
	case given != "" && j.Whole:
		return fault.Field("wholeAccount", "means everything: nothing else is named beside it")
	}
	if j.Workload != "" {
		if _, err := s.Identity.NamedWorkload(ctx, j.Account, j.Workload); err != nil {
			return err
		}
	}
	if j.Provider == "" {
		return nil
	}
	there, err := s.Connections.HasProvider(ctx, j.Account, j.Provider)
	if err == nil && !there {
		err = fault.New(fault.NotFound, "credential provider %q does not exist", j.Provider)
	}
	return err
}

// start makes the job durable and does the first of it. It has the job leased until it hands it over, so that no worker
// takes it in between; where the lease ran out all the same, whoever took the job goes on with it.
func (s *Service) start(ctx context.Context, j Job) (Report, error) {
	if err := s.Store.CreateJob(ctx, j, leaseTTL); err != nil {
		return Report{}, err
	}
	// What was begun goes on even if the caller goes away: the job would be taken up again anyway, only later.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTTL/2)
	defer cancel()
	for j.Phase == Begun || j.Phase == Listed {
		before, keep := j, time.Duration(0)
		if j.Phase == Begun {
			keep = leaseTTL
		}
		var err error
		if j, err = s.step(ctx, j, keep); err != nil {
			s.letGo(ctx, before)
			if j, err = s.follow(ctx, before, err); err != nil {
				return Report{}, err
			}
			return s.report(ctx, j)
		}
		if before.Phase == Listed && j.Phase == Listed {
			break // there are many: the background does the rest
		}
	}
	s.nudge()
	return s.report(ctx, j)
}

// letGo lets a worker have a job that a step failed of, and not only when the lease runs out. j is as it was stored
// last.
func (s *Service) letGo(ctx context.Context, j Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), followFor)
	defer cancel()
	_ = s.Store.SaveJob(ctx, j, j.Phase, 0) // else it does run out
	s.nudge()
}

// follow waits for whoever goes on with j after a step was a Conflict, until what is selected has ended here or that
// takes long, and returns the job as it is then. Any other failure, and one before tokens are dead, it returns.
func (s *Service) follow(ctx context.Context, j Job, failed error) (Job, error) {
	if !errors.Is(failed, fault.Conflict) {
		return Job{}, failed
	}
	within := time.NewTimer(followFor)
	defer within.Stop()
	for {
		now, err := s.Store.Job(ctx, j.Account, j.ID)
		switch {
		case err != nil:
			return Job{}, err
		case now.Phase == Begun:
			return Job{}, failed
		case now.Phase != Listed:
			return now, nil
		}
		select {
		case <-ctx.Done():
			return now, nil
		case <-within.C:
			return now, nil
		case <-time.After(followEvery):
		}
	}
}

// Revocation tells how a job goes, with up to limit of its items after the given connection, and where to continue.
func (s *Service) Revocation(ctx context.Context, caller access.Caller, id, after string, limit int) (Report, []Item, string, error) {
	if err := s.Guard.Permit(ctx, caller, access.GetRevocation, access.Facts{Resource: "revocation/" + clip(id)}); err != nil {
		return Report{}, nil, "", err
	}
	j, err := s.Store.Job(ctx, caller.Account, id)
	if err != nil {
		return Report{}, nil, "", err
	}
	if j.Phase == Killed && j.Upstream {
		if err := s.Store.SyncItems(ctx, j.Account, j.ID); err != nil {
			return Report{}, nil, "", err
		}
	}
	items, err := s.Store.Items(ctx, j.Account, j.ID, false, after, limit+1)
	if err != nil {
		return Report{}, nil, "", err
	}
	next := ""
	if len(items) > limit {
		items = items[:limit]
		next = items[limit-1].Connection
	}
	report, err := s.report(ctx, j)
	return report, items, next, err
}

func (s *Service) report(ctx context.Context, j Job) (Report, error) {
	counts, err := s.Store.CountItems(ctx, j.Account, j.ID)
	if err != nil {
		return Report{}, err
	}
	r := Report{Job: j, Counts: counts, Receipt: j.Receipt}
	if j.Phase == Killed { // Done has one that stays
		r.Receipt, err = s.receipt(ctx, j)
	}
	return r, err
}

// Erasure is what EraseUser did.
type Erasure struct {
	User        string // reference
	Connections int
	Receipt     string
}

// EraseUser ends everything of a user, here and at the providers, and forgets who the user is: the reference in the
// audit trail and in what is left names nobody any more. The trail itself is not changed. A user who comes back is
// remembered anew, under the same reference.
func (s *Service) EraseUser(ctx context.Context, caller access.Caller, sel identity.UserSelector, reason string) (Erasure, error) {
	j := s.newJob(caller, reason)
	var bad error
	j.User, bad = s.Identity.SelectUser(ctx, caller.Account, sel)
	j.Upstream, j.Erase = true, true
	facts := access.Facts{UserRef: j.User, Resource: "revocation/" + j.ID, Detail: clip(reason)}
	if err := s.Guard.Permit(ctx, caller, access.EraseUser, facts); err != nil {
		return Erasure{}, err
	}
	if bad != nil {
		return Erasure{}, bad
	}
	r, err := s.start(ctx, j)
	return Erasure{User: j.User, Connections: r.Connections, Receipt: r.Receipt}, err
}

// clip bounds what a caller sent before it is recorded.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 200)], "") }
