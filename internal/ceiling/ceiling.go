// Package ceiling bounds what one workload identity may have in a time: releases in a minute, and users in an hour. It
// is for the agent whose key was stolen: whatever policies allow, it yields the tokens of so many users and then stops.
//
// Security argument: the Guard asks here once for each release that was allowed, so no way to a token passes by. What
// is counted is in the store, under one lock for each workload identity, so it holds among replicas and over restarts.
// What a server remembers only saves writes: it holds permits that the store has counted, and users that the store has
// seen. Where the store does not answer, nothing is released.
package ceiling

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// Crossed is the action of the event that tells that a ceiling was crossed.
const Crossed access.Action = "CeilingCrossed"

// DefaultUsersPerHour is the ceiling of a workload identity for which nobody set another.
const DefaultUsersPerHour = 1000

const (
	hour = time.Hour
	// grain is how long a server remembers that it counted a user, and how much longer than an hour the store counts one:
	// so in any hour there are tokens of no more users than the ceiling says.
	grain = 5 * time.Minute
	// remembered bounds the users that a server remembers, and agents the workload identities. Full, it forgets all: that
	// costs writes, and permits that nobody uses.
	remembered = 100_000
	agents     = 10_000
	// leases is into how many leases a minute's releases are cut at least.
	leases = 32
	// patience is how long the event and the freezing of an agent may take.
	patience = 10 * time.Second
)

// Limits are the ceilings of a workload identity. 0 is none.
type Limits struct {
	ReleasesPerMinute int64
	UsersPerHour      int64
	Freeze            bool // who crosses one is frozen until EnableWorkloadIdentity
}

// Row is what was set for a workload identity. Without Set nothing was, and the server's defaults hold.
type Row struct {
	Limits
	Set bool
}

// Usage is what was counted. Users are those of the last hour, some of them up to five minutes longer; releases are
// those that servers have or have taken to give out in this minute.
type Usage struct {
	Releases int64
	Users    int64
}

// Store keeps ceilings and counts.
type Store interface {
	// Ceilings is recent. What was never set is the zero Row.
	Ceilings(ctx context.Context, account access.Account, workload string) (Row, error)
	SetCeilings(ctx context.Context, account access.Account, workload string, l Limits, at time.Time) error
	// TakeReleases counts up to want releases of the minute (since 1970), and returns how many the limit leaves of them.
	// An earlier minute than the one that is counted is taken for that one: clocks differ.
	TakeReleases(ctx context.Context, account access.Account, workload string, minute, limit, want int64) (int64, error)
	// SeeUser counts the user as seen at the time, and reports true; or reports false where limit others were seen after
	// since. Calls from any number of replicas MUST NOT exceed the limit together.
	SeeUser(ctx context.Context, account access.Account, workload, user string, since, at time.Time, limit int64) (bool, error)
	// CeilingUsage counts users seen after since, and the releases taken in the minute.
	CeilingUsage(ctx context.Context, account access.Account, workload string, minute int64, since time.Time) (Usage, error)
	// SweepSeen forgets users last seen at since or before, of at most limit workload identities, and returns of how many.
	SweepSeen(ctx context.Context, since time.Time, limit int) (int, error)
}

// Workloads finds a live workload identity by name, or returns NotFound.
type Workloads interface {
	WorkloadUID(ctx context.Context, account access.Account, name string) (string, error)
}

// Freezer stops an agent until an administrator enables it. *identity.Service has it.
type Freezer interface {
	Freeze(ctx context.Context, account access.Account, uid, reason string) error
}

// Config is what a Service needs.
type Config struct {
	Store     Store
	Workloads Workloads
	Now       func() time.Time
	Defaults  Limits // of workload identities for which nothing was set
}

// Service counts and decides. It implements access.Ceilings, and is safe for concurrent use.
type Service struct {
	Config
	guard   *access.Guard
	freezer Freezer

	mu     sync.Mutex // guards what follows
	agents map[place]*agent
	seen   map[person]sighting
	told   map[place]time.Time // when the last event was recorded
}

// place is a workload identity.
type place struct {
	account  access.Account
	workload string
}

type person struct {
	place
	user string
}

// sighting is until when a user need not be counted again, under this limit.
type sighting struct {
	until time.Time
	limit int64
}

var _ access.Ceilings = (*Service)(nil)

// New returns a Service that is not bound yet: see Bind.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Workloads == nil || c.Now == nil {
		return nil, errors.New("ceiling: an incomplete Config")
	}
	return &Service{Config: c, agents: map[place]*agent{}, seen: map[person]sighting{}, told: map[place]time.Time{}}, nil
}

// Bind names the Guard that asks the Service, by which it records, and who freezes. It is called once, before the Guard
// is used: each needs the other.
func (s *Service) Bind(guard *access.Guard, freezer Freezer) { s.guard, s.freezer = guard, freezer }

// limits returns what holds for the workload identity now. It may be a second old.
func (s *Service) limits(ctx context.Context, account access.Account, workload string) (Limits, error) {
	row, err := s.Store.Ceilings(ctx, account, workload)
	if err != nil || row.Set {
		return row.Limits, err
	}
	return s.Defaults, nil
}

// Ceilings is what holds for a workload identity, and what was counted.
type Ceilings struct {
	Limits
	Usage
	UID string
}

// Get tells the ceilings of a workload identity.
func (s *Service) Get(ctx context.Context, caller access.Caller, name string) (Ceilings, error) {
	uid, err := s.permit(ctx, caller, access.GetCeilings, access.Facts{Workload: name})
	if err != nil {
		return Ceilings{}, err
	}
	limits, err := s.limits(ctx, caller.Account, uid)
	if err != nil {
		return Ceilings{}, err
	}
	now := s.Now()
	usage, err := s.Store.CeilingUsage(ctx, caller.Account, uid, minuteOf(now), now.Add(-hour-grain))
	return Ceilings{Limits: limits, Usage: usage, UID: uid}, err
}

// Set replaces the ceilings of a workload identity. What was counted stays counted.
func (s *Service) Set(ctx context.Context, caller access.Caller, name string, l Limits) error {
	uid, err := s.permit(ctx, caller, access.SetCeilings, access.Facts{Workload: name, Detail: l.String()})
	if err != nil {
		return err
	}
	return s.Store.SetCeilings(ctx, caller.Account, uid, l, s.Now())
}

// permit decides before it tells whether the name exists.
func (s *Service) permit(ctx context.Context, caller access.Caller, action access.Action, facts access.Facts) (string, error) {
	uid, lookup := s.Workloads.WorkloadUID(ctx, caller.Account, facts.Workload)
	facts.WorkloadUID = uid
	if err := s.guard.Permit(ctx, caller, action, facts); err != nil {
		return "", err
	}
	return uid, lookup
}

// Sweep forgets users who were not served for an hour, and returns of how many workload identities.
func (s *Service) Sweep(ctx context.Context) (int, error) {
	const batch = 100
	for total := 0; ; {
		n, err := s.Store.SweepSeen(ctx, s.Now().Add(-hour-grain), batch)
		total += n
		if err != nil || n < batch {
			return total, err
		}
	}
}

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }
