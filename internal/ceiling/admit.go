package ceiling

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Admit counts a release of the workload identity that facts name, for the user that they name, if any. Where it would
// cross a ceiling it counts nothing, records the event Crossed, freezes the agent where that is wanted, and returns the
// sentence of the refusal.
func (s *Service) Admit(ctx context.Context, account access.Account, facts access.Facts) (string, error) {
	at := place{account, facts.WorkloadUID}
	if at.workload == "" {
		return "", fault.New(fault.Internal, "a release for no workload identity")
	}
	limits, err := s.limits(ctx, account, at.workload)
	if err != nil {
		return "", err
	}
	taken := func() {}
	if limit := limits.ReleasesPerMinute; limit > 0 {
		agent := s.agent(at)
		ok, err := s.takeRelease(ctx, at, agent, limit)
		if err != nil {
			return "", err
		}
		if !ok {
			return s.cross(ctx, at, facts, limits, fmt.Sprintf("workload identity %s has had %d releases in this minute, which is its ceiling: "+
				"wait for the next minute, or have an administrator raise releasesPerMinute with SetCeilings", facts.Workload, limit))
		}
		taken = func() { agent.giveBack(minuteOf(s.Now()), limit) }
	}
	if limit := limits.UsersPerHour; limit > 0 && facts.UserRef != "" {
		ok, err := s.seeUser(ctx, person{at, facts.UserRef}, limit)
		if err != nil || !ok {
			taken()
		}
		if err != nil {
			return "", err
		}
		if !ok {
			return s.cross(ctx, at, facts, limits, fmt.Sprintf("workload identity %s has had tokens of %d users in the last hour, which is its ceiling: "+
				"wait, or have an administrator raise usersPerHour with SetCeilings; those users are served as before", facts.Workload, limit))
		}
	}
	return "", nil
}

// agent returns what this server remembers of a workload identity.
func (s *Service) agent(at place) *agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.agents[at]
	if !ok {
		if len(s.agents) >= agents {
			clear(s.agents)
		}
		a = &agent{asking: make(chan struct{}, 1)}
		s.agents[at] = a
	}
	return a
}

// agent holds the releases that this server has leased and not given out.
type agent struct {
	asking chan struct{} // holds one value while somebody asks the store

	mu      sync.Mutex // guards what follows
	minute  int64
	limit   int64 // under which permits were leased: under another they are dropped
	permits int64
	empty   bool // the store has no more in this minute
}

// take reports whether a permit was there, and whether there may be any in the store.
func (a *agent) take(minute, limit int64) (ok, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.minute != minute || a.limit != limit {
		a.minute, a.limit, a.permits, a.empty = minute, limit, 0, false
	}
	if a.permits > 0 {
		a.permits--
		return true, true
	}
	return false, !a.empty
}

func (a *agent) giveBack(minute, limit int64) { a.add(minute, limit, 1) }

func (a *agent) add(minute, limit, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.minute == minute && a.limit == limit {
		a.permits += n
		a.empty = n == 0
	}
}

// takeRelease takes a permit of this minute. One request of those that find none asks the store, for as many as make
// writes rare and leave little with a server that does not need them.
func (s *Service) takeRelease(ctx context.Context, at place, a *agent, limit int64) (bool, error) {
	for {
		if ok, more := a.take(minuteOf(s.Now()), limit); ok || !more {
			return ok, nil
		}
		select {
		case a.asking <- struct{}{}:
		case <-ctx.Done():
			return false, fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended while it waited")
		}
		ok, err := s.lease(ctx, at, a, limit)
		<-a.asking
		if ok || err != nil {
			return ok, err
		}
	}
}

// lease fetches permits, and takes one where somebody else did meanwhile.
func (s *Service) lease(ctx context.Context, at place, a *agent, limit int64) (bool, error) {
	minute := minuteOf(s.Now())
	if ok, more := a.take(minute, limit); ok || !more {
		return ok, nil
	}
	n, err := s.Store.TakeReleases(ctx, at.account, at.workload, minute, limit, max(1, limit/leases))
	if err != nil {
		return false, err
	}
	a.add(minute, limit, n)
	return false, nil
}

// seeUser counts the user, unless this server did so lately.
func (s *Service) seeUser(ctx context.Context, who person, limit int64) (bool, error) {
	now := s.Now()
	s.mu.Lock()
	last, known := s.seen[who]
	s.mu.Unlock()
	if known && last.limit == limit && now.Before(last.until) {
		return true, nil
	}
	ok, err := s.Store.SeeUser(ctx, who.account, who.workload, who.user, now.Add(-hour-grain), now, limit)
	if err != nil || !ok {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) >= remembered {
		clear(s.seen)
	}
	s.seen[who] = sighting{until: now.Add(grain), limit: limit}
	return true, nil
}

// cross tells of a crossed ceiling and returns the sentence. Each refusal has a record of its own; the event is one in
// a minute, for somebody to be woken by.
func (s *Service) cross(ctx context.Context, at place, facts access.Facts, l Limits, why string) (string, error) {
	// The caller may go away; what it did is told all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if l.Freeze {
		why += "; it is frozen now, and works again after EnableWorkloadIdentity"
	}
	if s.untold(at) {
		event := access.Facts{Workload: facts.Workload, WorkloadUID: facts.WorkloadUID, UserRef: facts.UserRef, Provider: facts.Provider, Outcome: "crossed", Detail: why}
		if err := s.guard.Event(ctx, access.Caller{Account: at.account}, Crossed, event).Wait(ctx); err != nil {
			return "", err
		}
	}
	if !l.Freeze {
		return why, nil
	}
	// One at a time: those who cross together would only contend for the one row.
	a := s.agent(at)
	select {
	case a.asking <- struct{}{}:
	case <-ctx.Done():
		return "", fault.Wrap(fault.Unavailable, ctx.Err(), "the agent could not be frozen in time")
	}
	defer func() { <-a.asking }()
	return why, s.freezer.Freeze(ctx, at.account, at.workload, "it crossed its ceiling: "+l.String())
}

// untold reports whether an event is due.
func (s *Service) untold(at place) bool {
	now := s.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.told[at]; ok && now.Sub(last).Abs() < time.Minute {
		return false
	}
	if len(s.told) >= agents {
		clear(s.told)
	}
	s.told[at] = now
	return true
}

// String says the limits in words.
func (l Limits) String() string {
	text := ""
	add := func(n int64, of string) {
		if n == 0 {
			return
		}
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%d %s", n, of)
	}
	add(l.ReleasesPerMinute, "releases a minute")
	add(l.UsersPerHour, "users an hour")
	if text == "" {
		return "none"
	}
	if l.Freeze {
		text += ", frozen when crossed"
	}
	return text
}
