package identity

import (
	"context"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// administers reports whether the caller sees and ends delegations without the user's own token.
func administers(c access.Caller) bool { return c.Has(access.Root) || c.Has(access.Admin) }

// DelegationQuery selects delegations to list.
type DelegationQuery struct {
	Workload string        // name
	User     *UserSelector // for administrators
	JWT      secret.Text   // the user's own: then it is that user's delegations to Workload
}

// ListDelegations lists delegations by id. With the user's own token an application sees that user's, to a workload
// identity that it is paired with; administrators see all. The cursor is "" on the last page.
func (s *Service) ListDelegations(ctx context.Context, caller access.Caller, q DelegationQuery, after string, limit int) ([]DelegationView, string, error) {
	const action = access.ListDelegations
	facts := access.Facts{Workload: q.Workload}
	w, lookup := Workload{}, error(nil)
	if q.Workload != "" {
		w, lookup = s.NamedWorkload(ctx, caller.Account, q.Workload)
		facts.WorkloadUID = w.UID
	}
	f := DelegationFilter{Workload: w.UID}
	var bad error
	if q.User != nil {
		f.UserRef, bad = s.SelectUser(ctx, caller.Account, *q.User)
		facts.UserRef = f.UserRef
	}
	if err := s.guard.Permit(ctx, caller, action, facts); err != nil {
		return nil, "", err
	}
	switch {
	case lookup != nil:
		return nil, "", lookup
	case bad != nil:
		return nil, "", bad
	case q.JWT.IsZero() && !administers(caller):
		return nil, "", fault.Field("userToken", "is needed: only an administrator lists delegations without the user's token")
	case !q.JWT.IsZero() && (q.Workload == "" || q.User != nil):
		return nil, "", fault.Field("userToken", "goes with workloadName, and not with user")
	case !q.JWT.IsZero():
		var err error
		if _, f.UserRef, err = s.presented(ctx, caller, action, facts, q.Workload, q.JWT); err != nil {
			return nil, "", err
		}
	}
	limit = pageSize(limit)
	found, err := s.store.Delegations(ctx, caller.Account, f, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	found, next := page(found, limit, func(d Delegation) string { return d.ID })
	views := make([]DelegationView, 0, len(found))
	for _, d := range found {
		v, err := s.viewDelegation(ctx, d)
		if err != nil {
			return nil, "", err
		}
		views = append(views, v)
	}
	return views, next, nil
}

func (s *Service) viewDelegation(ctx context.Context, d Delegation) (v DelegationView, err error) {
	v.Delegation = d
	if v.State, err = s.state(ctx, d); err != nil || len(d.Note) == 0 {
		return v, err
	}
	note, err := s.vault.Open(ctx, d.noteRef(), d.Note)
	if err != nil {
		return v, err
	}
	v.Note = note.Expose()
	return v, nil
}

// EndDelegation ends a delegation: the user's own application does with the user's token, and an administrator without.
// Within two seconds nothing is released or minted under it. Ending one that has ended changes nothing. A delegation of
// another user, or of a workload identity that the application is not paired with, looks like none.
func (s *Service) EndDelegation(ctx context.Context, caller access.Caller, id string, jwt secret.Text) (DelegationView, error) {
	const action = access.EndDelegation
	d, err := s.endable(ctx, caller, id)
	if err != nil {
		return DelegationView{}, err
	}
	facts := access.Facts{Resource: "delegation/" + d.ID, Workload: d.WorkloadName, WorkloadUID: d.Workload, UserRef: d.UserRef}
	switch {
	case !jwt.IsZero():
		_, ref, err := s.presented(ctx, caller, action, facts, d.WorkloadName, jwt)
		if err != nil {
			return DelegationView{}, err
		}
		if ref != d.UserRef {
			facts.Outcome, facts.Detail = "refused", "by "+ref
			return DelegationView{}, s.guard.Refuse(ctx, caller, action, "wrong-user", facts, noDelegation(id))
		}
	case !administers(caller):
		return DelegationView{}, fault.Field("userToken", "is needed: only an administrator ends a delegation without the user's token")
	}
	if d, err = s.store.EndDelegation(ctx, caller.Account, id, s.now()); err != nil {
		return DelegationView{}, err
	}
	facts.Outcome = "ended"
	if err := s.guard.Event(ctx, caller, action, facts).Wait(ctx); err != nil {
		return DelegationView{}, err
	}
	return s.viewDelegation(ctx, d)
}

// endable decides whether the caller may end the delegation, before it tells whether there is one.
func (s *Service) endable(ctx context.Context, caller access.Caller, id string) (Delegation, error) {
	const action = access.EndDelegation
	facts := access.Facts{Resource: "delegation/" + clip(id)}
	d, err := s.store.Delegation(ctx, caller.Account, id)
	if errors.Is(err, fault.NotFound) {
		if caller.Has(access.ConsentApp) && !administers(caller) {
			return Delegation{}, s.guard.Refuse(ctx, caller, action, "unknown-delegation", facts, noDelegation(id))
		}
		if err := s.guard.Permit(ctx, caller, action, facts); err != nil {
			return Delegation{}, notEnded(caller, err)
		}
		return Delegation{}, noDelegation(id)
	}
	if err != nil {
		return Delegation{}, err
	}
	facts.Workload, facts.WorkloadUID, facts.UserRef = d.WorkloadName, d.Workload, d.UserRef
	err = s.guard.Permit(ctx, caller, action, facts)
	switch {
	case errors.Is(err, fault.Denied) && caller.Has(access.ConsentApp):
		return Delegation{}, noDelegation(id)
	case err != nil:
		return Delegation{}, notEnded(caller, err)
	}
	return d, nil
}

// notEnded is the refusal without a word on whose the delegation is, or whether there is one: that is not for this
// caller.
func notEnded(caller access.Caller, err error) error {
	if !errors.Is(err, fault.Denied) {
		return err
	}
	return fault.New(fault.Denied, "%s is not allowed to perform %s: it needs the role %s or %s", caller, access.EndDelegation, access.Admin, access.ConsentApp)
}

// EndDelegations ends what f selects, and returns how many lived. It decides and records nothing about a caller: the
// caller of it has.
func (s *Service) EndDelegations(ctx context.Context, account access.Account, f DelegationFilter) (int, error) {
	return s.store.EndDelegations(ctx, account, f, s.now())
}
