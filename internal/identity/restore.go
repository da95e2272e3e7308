package identity

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// RestoreLife is how long a deleted workload identity can be restored.
const RestoreLife = 7 * 24 * time.Hour

// RestoreWorkload brings back the workload identity of that name that was deleted last, with its uid, so with its
// connections. Tokens from before the deletion stay dead: the generation rises again, and for those that came through
// it the epoch, also where one was minted while the deletion was on its way to other servers. It is NotFound where none
// was deleted within RestoreLife, and a Conflict where another one has the name by now.
func (s *Service) RestoreWorkload(ctx context.Context, caller access.Caller, name string) (Workload, error) {
	w, lookup := s.store.DeletedWorkload(ctx, caller.Account, name)
	facts := access.Facts{Workload: name}
	if lookup == nil {
		facts.WorkloadUID, facts.Assertable = w.UID, w.Assertable()
	}
	if err := s.guard.Permit(ctx, caller, access.RestoreWorkloadIdentity, facts); err != nil {
		return Workload{}, err
	}
	switch _, err := s.store.Workload(ctx, caller.Account, name); {
	case err == nil:
		return Workload{}, taken(name)
	case !errors.Is(err, fault.NotFound):
		return Workload{}, err
	case errors.Is(lookup, fault.NotFound), lookup == nil && s.now().Sub(w.Deleted) > RestoreLife:
		return Workload{}, fault.New(fault.NotFound, "no workload identity with name: %s was deleted in the last 7 days", name)
	case lookup != nil:
		return Workload{}, lookup
	}
	// While it is deleted, nothing opens that came through it: so before it lives again.
	if err := s.RaiseEpoch(ctx, w.Account, WorkloadStanding, w.UID); err != nil {
		return Workload{}, err
	}
	next := w
	next.Generation++
	next.Version, next.Updated, next.Deleted = w.Version+1, s.now(), time.Time{}
	err := s.store.SwapWorkload(ctx, next, w.Version)
	if errors.Is(err, fault.Conflict) { // somebody created or restored one in between
		return Workload{}, taken(name)
	}
	if err != nil {
		return Workload{}, err
	}
	return next, nil
}

func taken(name string) error {
	return fault.New(fault.Conflict, "a workload identity with name: %s exists: delete it first to restore the one before it", name)
}

// AddReturnURL allows one more URL. Adding one that is there changes nothing.
func (s *Service) AddReturnURL(ctx context.Context, caller access.Caller, name, url string) (Workload, error) {
	if why := returnURLFlaw(url); why != "" {
		return Workload{}, fault.Field("url", "%q is not a return URL: %s", clip(url), why)
	}
	w, err := s.permitWorkload(ctx, caller, access.AddReturnURL, name)
	if err != nil {
		return Workload{}, err
	}
	return s.swapWorkload(ctx, w, func(w *Workload) error {
		if slices.Contains(w.ReturnURLs, url) {
			return nil
		}
		w.ReturnURLs = append(slices.Clone(w.ReturnURLs), url)
		w.Updated = s.now()
		return nil
	})
}

// RemoveReturnURL takes one URL from those allowed. Removing one that is not there changes nothing.
func (s *Service) RemoveReturnURL(ctx context.Context, caller access.Caller, name, url string) (Workload, error) {
	w, err := s.permitWorkload(ctx, caller, access.RemoveReturnURL, name)
	if err != nil {
		return Workload{}, err
	}
	return s.swapWorkload(ctx, w, func(w *Workload) error {
		if !slices.Contains(w.ReturnURLs, url) {
			return nil
		}
		w.ReturnURLs = slices.DeleteFunc(slices.Clone(w.ReturnURLs), func(u string) bool { return u == url })
		w.Updated = s.now()
		return nil
	})
}
