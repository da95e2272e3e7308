package revocation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

const (
	// leaseTTL is how long one server may work on a job before another takes it for dead. Two that work on one do no harm:
	// every step is a compare-and-set, or the same when it is repeated.
	leaseTTL = time.Minute

	lookEvery    = 5 * time.Second  // for jobs that another server left behind
	askAgain     = 15 * time.Second // while a provider is being asked
	killBatch    = 100              // connections between two looks at the clock
	killsAtATime = 500              // connections of one step
	askers       = 4                // that wait for providers at once

	followEvery = 50 * time.Millisecond // a job that a request has lost to a worker
	followFor   = 10 * time.Second
)

// Work does what there is to do, until ctx ends. One call is running at a time in a server. failing is told when steps
// begin to fail and when they work again, with the last error; it may be nil.
func (s *Service) Work(ctx context.Context, failing func(bool, error)) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	bad := false
	for {
		err := s.Drain(ctx)
		if (err != nil) != bad && ctx.Err() == nil {
			bad = err != nil
			if failing != nil {
				failing(bad, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.wake:
		}
	}
}

// Drain takes every step that is due, and returns when there is none or one failed.
func (s *Service) Drain(ctx context.Context) error {
	for ctx.Err() == nil {
		j, err := s.Store.LeaseJob(ctx, s.Now(), leaseTTL)
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := s.step(ctx, j, 0); err != nil && !errors.Is(err, fault.Conflict) {
			return err
		}
	}
	return nil
}

// nudge makes Work look at once.
func (s *Service) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it will
	}
}

// step takes a job that the caller has leased one step further, saves it, leased for keep from then on, and returns it
// as it is then. Where the server dies in the middle of one, it is taken again.
func (s *Service) step(ctx context.Context, j Job, keep time.Duration) (Job, error) {
	from := j.Phase
	var err error
	switch from {
	case Begun:
		j, err = s.begin(ctx, j)
	case Listed:
		j, err = s.kill(ctx, j)
	case Killed:
		j, err = s.ask(ctx, j)
	}
	if err != nil {
		return j, err
	}
	return j, s.Store.SaveJob(ctx, j, from, keep)
}

// begin ends what the selection may do from now on, tokens first, and lists the connections.
func (s *Service) begin(ctx context.Context, j Job) (Job, error) {
	if err := s.raise(ctx, j); err != nil {
		return j, err
	}
	if err := s.Store.EndConsents(ctx, j.Account, j.Selection, "access was revoked"); err != nil {
		return j, err
	}
	if s.Delegations != nil && j.tokens() {
		n, err := s.Delegations.EndDelegations(ctx, j.Account, j.Selection)
		if err != nil {
			return j, err
		}
		j.Delegations += n
	}
	if err := s.Store.ListItems(ctx, j); err != nil {
		return j, err
	}
	j.Phase = Listed
	return j, nil
}

// raise ends the workload access tokens of the selection. Where it names an agent and a user, every token of the user
// goes: there are fewer of them, and a fresh one is a call away for whoever still has the user's own.
func (s *Service) raise(ctx context.Context, j Job) error {
	switch {
	case !j.tokens():
		return nil
	case j.Whole:
		return s.Identity.RaiseEveryEpoch(ctx, j.Account)
	case j.User != "":
		return s.Identity.RaiseEpoch(ctx, j.Account, identity.UserStanding, j.User)
	}
	w, err := s.Identity.NamedWorkload(ctx, j.Account, j.Workload)
	if err != nil {
		return err
	}
	return s.Identity.RaiseEpoch(ctx, j.Account, identity.WorkloadStanding, w.UID)
}

// kill ends connections here, a bounded number at a time.
func (s *Service) kill(ctx context.Context, j Job) (Job, error) {
	for n := 0; n < killsAtATime; {
		open, err := s.Store.Items(ctx, j.Account, j.ID, true, "", killBatch)
		if err != nil {
			return j, err
		}
		for _, i := range open {
			if err := s.end(ctx, j, i); err != nil {
				return j, err
			}
		}
		if n += len(open); len(open) < killBatch {
			return s.killed(ctx, j)
		}
	}
	return j, nil
}

// end ends one connection here and stores that.
func (s *Service) end(ctx context.Context, j Job, i Item) error {
	out, err := s.Connections.EndConnection(ctx, j.caller(), i.Connection, j.Upstream, "revocation "+j.ID)
	if errors.Is(err, fault.NotFound) {
		out, err = broker.Ended{Upstream: broker.RevocationSkipped, Detail: "it was deleted meanwhile"}, nil
	}
	if err != nil {
		return err
	}
	i.Ended, i.Generation, i.Upstream, i.Detail = true, out.Generation, out.Upstream, out.Detail
	return s.Store.SaveItem(ctx, i)
}

// killed forgets the user where that was asked for. A job that has nothing to ask of providers is done.
func (s *Service) killed(ctx context.Context, j Job) (Job, error) {
	if j.Erase {
		if err := s.Store.EraseUser(ctx, j.Account, j.User); err != nil {
			return j, err
		}
	}
	j.Phase = Killed
	if !j.Upstream {
		return s.finish(ctx, j)
	}
	return j, nil
}

// ask makes the tries at the providers that are due, and ends the job when none is left.
func (s *Service) ask(ctx context.Context, j Job) (Job, error) {
	var group sync.WaitGroup
	failed := make([]error, askers)
	for a := range askers {
		group.Go(func() { _, failed[a] = s.Connections.SweepRevocations(ctx) })
	}
	group.Wait()
	if err := errors.Join(failed...); err != nil {
		return j, err
	}
	if err := s.Store.SyncItems(ctx, j.Account, j.ID); err != nil {
		return j, err
	}
	counts, err := s.Store.CountItems(ctx, j.Account, j.ID)
	if err != nil {
		return j, err
	}
	if counts.Upstream[broker.RevocationPending] == 0 {
		return s.finish(ctx, j)
	}
	j.Due = s.Now().Add(askAgain)
	return j, nil
}

// finish signs the receipt that stays.
func (s *Service) finish(ctx context.Context, j Job) (Job, error) {
	j.Phase, j.Finished = Done, s.Now()
	var err error
	j.Receipt, err = s.receipt(ctx, j)
	return j, err
}
