package identity

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// StandingKind says what a Standing is of.
type StandingKind string

// Values of StandingKind.
const (
	WorkloadStanding StandingKind = "workload" // its key is the uid
	UserStanding     StandingKind = "user"     // its key is the user reference
	IssuerStanding   StandingKind = "issuer"   // its key is the URL, wherever the trust in it comes from
	ProviderStanding StandingKind = "provider" // its key is the uid
)

// Standing says whether somebody may still be served. What has no row stands, in epoch 0. Workload access tokens carry
// the epochs of when they were minted, and are dead once one of them has risen.
type Standing struct {
	Account  access.Account
	Kind     StandingKind
	Key      string
	Name     string // of a workload identity or provider; set by lists only, "" where it is gone
	Epoch    int64  // never falls
	Disabled bool   // by an administrator
	Frozen   bool   // by the server itself, at a ceiling
	Reason   string // why it is disabled or frozen, in somebody's words
	Version  int64  // rises with every change; 0 without a row
	Changed  time.Time
}

// Down reports whether it is disabled or frozen.
func (s Standing) Down() bool { return s.Disabled || s.Frozen }

// state is what a sentence calls it.
func (s Standing) state() string {
	if s.Disabled {
		return "disabled"
	}
	return "frozen"
}

// because is the reason behind a sentence, or nothing.
func (s Standing) because() string {
	if s.Reason == "" {
		return ""
	}
	return ": " + s.Reason
}

// StandingStore keeps standings.
type StandingStore interface {
	// Standing is recent, and costs no query while the account has no row of the kind. What has no row is the zero
	// Standing with account, kind and key, and no error.
	Standing(ctx context.Context, account access.Account, kind StandingKind, key string) (Standing, error)
	// CurrentStanding is Standing, never from a cache.
	CurrentStanding(ctx context.Context, account access.Account, kind StandingKind, key string) (Standing, error)
	// SwapStanding replaces the row where its version is still oldVersion, or with 0 adds it; else it returns Conflict.
	SwapStanding(ctx context.Context, s Standing, oldVersion int64) error
	// RaiseEveryWorkload raises the epoch of every workload identity of the account, in one step.
	RaiseEveryWorkload(ctx context.Context, account access.Account, at time.Time) error
	// HasWorkloadIssuer reports whether tokens of the issuer sign in for principals of the account.
	HasWorkloadIssuer(ctx context.Context, account access.Account, url string) (bool, error)
	// Standings returns up to limit rows of the kind with keys after the given one, ordered by key.
	Standings(ctx context.Context, account access.Account, kind StandingKind, after string, limit int) ([]Standing, error)
}

// maxReason bounds a reason (model, ReasonText).
const maxReason = 512

// Standing returns who stands how. It may be a second old, and decides nothing about a caller.
func (s *Service) Standing(ctx context.Context, account access.Account, kind StandingKind, key string) (Standing, error) {
	return s.store.Standing(ctx, account, kind, key)
}

// ChangeStanding applies change to the newest row, again on what it finds where somebody else was first, and returns
// the row as it is then. It decides and records nothing: the caller of it has. After it has written, this server acts
// by the new row at once, and every other within a second. A row that change leaves as it is is not written: whoever
// asks for what is so already does not compete with others.
func (s *Service) ChangeStanding(ctx context.Context, account access.Account, kind StandingKind, key string, change func(*Standing)) (Standing, error) {
	for try := 1; ; try++ {
		old, err := s.store.CurrentStanding(ctx, account, kind, key)
		if err != nil {
			return Standing{}, err
		}
		next := old
		change(&next)
		if next == old && old.Version > 0 {
			return old, nil
		}
		next.Version, next.Changed, next.Epoch = old.Version+1, s.now(), max(next.Epoch, old.Epoch)
		err = s.store.SwapStanding(ctx, next, old.Version)
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, fault.Conflict) || try == swapTries {
			return Standing{}, err
		}
	}
}

// Disable is the change that disables: tokens of before stay dead when it is enabled again.
func Disable(reason string) func(*Standing) {
	return func(s *Standing) { s.Disabled, s.Reason, s.Epoch = true, clipReason(reason), s.Epoch+1 }
}

// Enable is the change that lifts both, disabled and frozen.
func Enable(s *Standing) { s.Disabled, s.Frozen, s.Reason = false, false, "" }

// RaiseEpoch ends every workload access token of before. It decides and records nothing.
func (s *Service) RaiseEpoch(ctx context.Context, account access.Account, kind StandingKind, key string) error {
	_, err := s.ChangeStanding(ctx, account, kind, key, func(s *Standing) { s.Epoch++ })
	return err
}

// RaiseEveryEpoch ends every workload access token of the account. It decides and records nothing.
func (s *Service) RaiseEveryEpoch(ctx context.Context, account access.Account) error {
	return s.store.RaiseEveryWorkload(ctx, account, s.now())
}

// DisableWorkload stops an agent: it gets no tokens, and those that it has are dead. Its connections stay.
func (s *Service) DisableWorkload(ctx context.Context, caller access.Caller, name, reason string) (Standing, error) {
	return s.moveWorkload(ctx, caller, access.DisableWorkloadIdentity, name, reason, Disable(reason))
}

// EnableWorkload lets an agent work again that was disabled or frozen. It mints new tokens: the old ones stay dead.
func (s *Service) EnableWorkload(ctx context.Context, caller access.Caller, name string) (Standing, error) {
	return s.moveWorkload(ctx, caller, access.EnableWorkloadIdentity, name, "", Enable)
}

func (s *Service) moveWorkload(ctx context.Context, caller access.Caller, action access.Action, name, reason string, change func(*Standing)) (Standing, error) {
	w, lookup := s.store.Workload(ctx, caller.Account, name)
	facts := access.Facts{Workload: name, WorkloadUID: w.UID, Detail: clipReason(reason)}
	if err := s.guard.Permit(ctx, caller, action, facts); err != nil {
		return Standing{}, err
	}
	if lookup != nil {
		return Standing{}, lookup
	}
	at, err := s.ChangeStanding(ctx, caller.Account, WorkloadStanding, w.UID, change)
	at.Name = w.Name
	return at, err
}

// Freeze stops an agent as DisableWorkload does, on the server's own account: at a ceiling. EnableWorkload lifts it.
// Freezing what is frozen changes nothing. The event is recorded before Freeze returns.
func (s *Service) Freeze(ctx context.Context, account access.Account, uid, reason string) error {
	w, err := s.store.WorkloadByUID(ctx, account, uid)
	if err != nil {
		return err
	}
	frozen := false
	_, err = s.ChangeStanding(ctx, account, WorkloadStanding, uid, func(at *Standing) {
		if frozen = !at.Frozen; frozen {
			at.Frozen, at.Epoch = true, at.Epoch+1
			if !at.Disabled { // an administrator's reason is worth more
				at.Reason = clipReason(reason)
			}
		}
	})
	if err != nil || !frozen {
		return err
	}
	facts := access.Facts{Workload: w.Name, WorkloadUID: uid, Outcome: "frozen", Detail: clipReason(reason)}
	return s.guard.Event(ctx, access.Caller{Account: account}, access.DisableWorkloadIdentity, facts).Wait(ctx)
}

// DisableIssuer stops an issuer's users and workloads: no token of it names anybody or signs in for a principal, and
// workload access tokens of its users are dead. An issuer of the configuration file can be disabled too, and one on
// loopback that development mode trusts.
func (s *Service) DisableIssuer(ctx context.Context, caller access.Caller, url, reason string) (Standing, error) {
	facts := access.Facts{Resource: clip(url), Detail: clipReason(reason)}
	if err := s.guard.Permit(ctx, caller, access.DisableTrustedIssuer, facts); err != nil {
		return Standing{}, err
	}
	_, err := s.trusted(ctx, caller.Account, url)
	if errors.Is(err, fault.Unauthenticated) {
		var has bool
		if has, err = s.store.HasWorkloadIssuer(ctx, caller.Account, url); err == nil && !has {
			err = fault.New(fault.NotFound, "the issuer %s is not trusted, so there is nothing to disable", clip(url))
		}
	}
	if err != nil {
		return Standing{}, err
	}
	return s.ChangeStanding(ctx, caller.Account, IssuerStanding, url, Disable(reason))
}

// EnableIssuer trusts a disabled issuer again. One that was never disabled is NotFound.
func (s *Service) EnableIssuer(ctx context.Context, caller access.Caller, url string) (Standing, error) {
	if err := s.guard.Permit(ctx, caller, access.EnableTrustedIssuer, access.Facts{Resource: clip(url)}); err != nil {
		return Standing{}, err
	}
	at, err := s.store.CurrentStanding(ctx, caller.Account, IssuerStanding, url)
	if err != nil {
		return Standing{}, err
	}
	if at.Version == 0 {
		return Standing{}, fault.New(fault.NotFound, "the issuer %s was never disabled", clip(url))
	}
	return s.ChangeStanding(ctx, caller.Account, IssuerStanding, url, Enable)
}

// UserSelector names a user in one of three ways.
type UserSelector struct {
	Ref     string // user reference
	Issuer  string // with Subject, a user of a token
	Subject string
	ID      string // a user whom a caller asserted
}

// SelectUser returns the reference of the user whom sel names, in exactly one way; else an Invalid fault. The user need
// not be known. It decides nothing about a caller.
func (s *Service) SelectUser(ctx context.Context, account access.Account, sel UserSelector) (string, error) {
	named := sel.Issuer != "" && sel.Subject != ""
	switch {
	case sel.Ref != "" && sel.Issuer+sel.Subject+sel.ID == "":
		return sel.Ref, nil
	case named && sel.Ref+sel.ID == "":
		return s.UserRef(ctx, account, User{Kind: JWTUser, Issuer: sel.Issuer, Subject: sel.Subject})
	case sel.ID != "" && sel.Ref+sel.Issuer+sel.Subject == "":
		u, err := AssertedUser(sel.ID)
		if err != nil {
			return "", err
		}
		return s.UserRef(ctx, account, u)
	}
	return "", fault.Field("user", "name the user by one of userRef, userId, or issuer with subject")
}

// DisableUser stops one user: no tokens are minted for or released on behalf of them, by any agent.
func (s *Service) DisableUser(ctx context.Context, caller access.Caller, sel UserSelector, reason string) (Standing, error) {
	return s.moveUser(ctx, caller, access.DisableUser, sel, reason, Disable(reason))
}

// EnableUser serves a disabled user again.
func (s *Service) EnableUser(ctx context.Context, caller access.Caller, sel UserSelector) (Standing, error) {
	return s.moveUser(ctx, caller, access.EnableUser, sel, "", Enable)
}

func (s *Service) moveUser(ctx context.Context, caller access.Caller, action access.Action, sel UserSelector, reason string, change func(*Standing)) (Standing, error) {
	ref, bad := s.SelectUser(ctx, caller.Account, sel)
	facts := access.Facts{UserRef: ref, Asserted: sel.ID != "", Detail: clipReason(reason)}
	if err := s.guard.Permit(ctx, caller, action, facts); err != nil {
		return Standing{}, err
	}
	if bad != nil {
		return Standing{}, bad
	}
	return s.ChangeStanding(ctx, caller.Account, UserStanding, ref, change)
}

// Standings lists who was ever disabled, frozen or revoked, by key. The cursor is "" on the last page.
func (s *Service) Standings(ctx context.Context, caller access.Caller, kind StandingKind, after string, limit int) ([]Standing, string, error) {
	if err := s.guard.Permit(ctx, caller, access.ListStandings, access.Facts{Resource: string(kind)}); err != nil {
		return nil, "", err
	}
	limit = pageSize(limit)
	found, err := s.store.Standings(ctx, caller.Account, kind, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	found, next := page(found, limit, func(at Standing) string { return at.Key })
	return found, next, nil
}

// NamedWorkload finds a workload identity by name, a live one or else the one that was deleted last, or returns
// NotFound. It decides and records nothing.
func (s *Service) NamedWorkload(ctx context.Context, account access.Account, name string) (Workload, error) {
	w, err := s.store.Workload(ctx, account, name)
	if errors.Is(err, fault.NotFound) {
		if gone, errGone := s.store.DeletedWorkload(ctx, account, name); errGone == nil {
			return gone, nil
		}
	}
	return w, err
}

// clipReason bounds a reason, and keeps control characters out of terminals and sentences.
func clipReason(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}
