package identity

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Reserved tags of a workload identity (docs/compatibility.md). Only a principal that may create one can set them.
const (
	reservedTags = "tabard:"
	TagAssurance = "tabard:assurance" // which users it acts for
	TagVault     = "tabard:vault"     // which vault keeps its connections; only "default", only at creation

	// Of a credential provider: names of custom parameters, with spaces between.
	TagPresentation = "tabard:presentation-parameters" // they change how a user is asked, and do not choose the token
	TagAllowed      = "tabard:allowed-parameters"      // they can widen a token, and may be sent all the same

	// Of a credential provider too: what a revocation there ends, "shared" or "separate", and how many refresh tokens it
	// keeps.
	TagGrants    = "tabard:grants"
	TagMaxTokens = "tabard:max-tokens"

	Verified = "verified" // value of TagAssurance: users proven by a token. It is what no tag means.
	Asserted = "asserted" // value of TagAssurance: also users whom the calling agent names
)

// swapTries bounds how often a change is tried again after somebody else's. Each round one of those who race gets
// through, so it is how many may race.
const swapTries = 10

// NewWorkload says what workload identity to create. The caller has checked the contract's constraints on Name.
type NewWorkload struct {
	Name       string
	ReturnURLs []string // where a browser may be sent after consent: compared exactly
	Tags       map[string]string
}

// Assertable reports whether the workload identity accepts users whom the calling agent names.
func (w Workload) Assertable() bool { return w.Tags[TagAssurance] == Asserted }

// CreateWorkload adds a workload identity. A name that lives already is an Invalid fault, as AWS has it.
func (s *Service) CreateWorkload(ctx context.Context, caller access.Caller, n NewWorkload) (Workload, error) {
	urls, err := checkReturnURLs(n.ReturnURLs)
	if err != nil {
		return Workload{}, err
	}
	if err := CheckTags(n.Tags); err != nil {
		return Workload{}, err
	}
	w := Workload{
		Account: caller.Account, Name: n.Name, UID: newID("wi-"), Generation: 1, ReturnURLs: urls,
		Tags: maps.Clone(n.Tags), Version: 1, Created: s.now(),
	}
	w.Updated = w.Created
	facts := access.Facts{Workload: n.Name, WorkloadUID: w.UID, Assertable: w.Assertable()}
	if err := s.guard.Permit(ctx, caller, access.CreateWorkloadIdentity, facts); err != nil {
		return Workload{}, err
	}
	err = s.store.CreateWorkload(ctx, w)
	if errors.Is(err, fault.Conflict) {
		return Workload{}, fault.Wrap(fault.Invalid, err, "workload identity with name: %s already exists", n.Name)
	}
	if err != nil {
		return Workload{}, err
	}
	return w, nil
}

// GetWorkload finds a live workload identity by name.
func (s *Service) GetWorkload(ctx context.Context, caller access.Caller, name string) (Workload, error) {
	return s.permitWorkload(ctx, caller, access.GetWorkloadIdentity, name)
}

// ListWorkloads lists those that live, by name. The cursor is "" on the last page.
func (s *Service) ListWorkloads(ctx context.Context, caller access.Caller, after string, limit int) ([]Workload, string, error) {
	if err := s.guard.Permit(ctx, caller, access.ListWorkloadIdentities, access.Facts{}); err != nil {
		return nil, "", err
	}
	limit = pageSize(limit)
	found, err := s.store.Workloads(ctx, caller.Account, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	found, next := page(found, limit, func(w Workload) string { return w.Name })
	return found, next, nil
}

// UpdateWorkload replaces the return URLs. A nil list leaves them, an empty one empties them.
func (s *Service) UpdateWorkload(ctx context.Context, caller access.Caller, name string, returnURLs []string) (Workload, error) {
	urls, err := checkReturnURLs(returnURLs)
	if err != nil {
		return Workload{}, err
	}
	w, err := s.permitWorkload(ctx, caller, access.UpdateWorkloadIdentity, name)
	if err != nil {
		return Workload{}, err
	}
	return s.swapWorkload(ctx, w, func(w *Workload) error {
		if returnURLs != nil {
			w.ReturnURLs = urls
		}
		w.Updated = s.now()
		return nil
	})
}

// DeleteWorkload ends a workload identity: its tokens are refused from now on, and one that is created under its name
// later has another uid, so it inherits nothing. The row stays, with its generation raised, so that it can be restored.
// Its epoch is raised first: were the server to die in between, the tokens that came through it are dead and it lives.
func (s *Service) DeleteWorkload(ctx context.Context, caller access.Caller, name string) error {
	w, err := s.permitWorkload(ctx, caller, access.DeleteWorkloadIdentity, name)
	if err != nil {
		return err
	}
	_, err = s.swapWorkload(ctx, w, func(w *Workload) error {
		if err := s.RaiseEpoch(ctx, w.Account, WorkloadStanding, w.UID); err != nil {
			return err
		}
		w.Generation++
		w.Updated = s.now()
		w.Deleted = w.Updated
		return nil
	})
	return err
}

// permitWorkload decides before it tells whether the name exists.
func (s *Service) permitWorkload(ctx context.Context, caller access.Caller, action access.Action, name string) (Workload, error) {
	w, lookup := s.store.Workload(ctx, caller.Account, name)
	facts := access.Facts{Workload: name}
	if lookup == nil {
		facts.WorkloadUID = w.UID
	}
	if err := s.guard.Permit(ctx, caller, action, facts); err != nil {
		return Workload{}, err
	}
	return w, lookup
}

// swapWorkload applies change, again on what it finds where somebody else was first. The slices and maps of what it is
// given belong to a cache: change replaces them and does not write to them. It is written even where nothing changed:
// what a cache says may be a second old.
func (s *Service) swapWorkload(ctx context.Context, w Workload, change func(*Workload) error) (Workload, error) {
	for try := 1; ; try++ {
		next := w
		if err := change(&next); err != nil {
			return Workload{}, err
		}
		next.Version = w.Version + 1
		err := s.store.SwapWorkload(ctx, next, w.Version)
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, fault.Conflict) || try == swapTries {
			return Workload{}, err
		}
		if w, err = s.store.Workload(ctx, w.Account, w.Name); err != nil {
			return Workload{}, err
		}
	}
}

// CheckTags checks the reserved tags of a workload identity or of a credential provider; a bad one is Invalid. A
// misspelt one must not pass for a tag of the user's own: it would be taken for a restriction that is not there.
func CheckTags(tags map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if !strings.HasPrefix(strings.ToLower(k), reservedTags) {
			continue
		}
		switch v := tags[k]; k {
		case TagAssurance:
			if v != Verified && v != Asserted {
				return fault.Field("tags", "the tag %s is %s or %s, not %q", k, Verified, Asserted, clip(v))
			}
		case TagVault:
			if v != "default" {
				return fault.Field("tags", "there is no vault %q: the tag %s can only be default", clip(v), k)
			}
		case TagPresentation, TagAllowed, TagGrants, TagMaxTokens:
		default:
			return fault.Field("tags", "%q is not a tag that the server knows, and tags that begin with %s are reserved", clip(k), reservedTags)
		}
	}
	return nil
}

// ARN returns the ARN of the workload identity in region.
func (w Workload) ARN(region string) string {
	return "arn:aws:bedrock-agentcore:" + region + ":" + string(w.Account) + ":workload-identity-directory/default/workload-identity/" + w.Name
}

// Lives reports whether the workload identity with this uid still lives in this generation. It may be a second late.
func (s *Service) Lives(ctx context.Context, account access.Account, uid string, generation int64) (bool, error) {
	w, err := s.store.WorkloadByUID(ctx, account, uid)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil && w.Deleted.IsZero() && w.Generation == generation, err
}
