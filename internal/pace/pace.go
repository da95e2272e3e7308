// Package pace bounds how often callers make this server call somebody else: a provider, an issuer.
//
// Security argument: a call that is due because a token ended is bounded by tokens' lives. One that a caller asks
// for, by force, by a request that fails or by a test, is bounded here, before it goes out. Each bound is of one
// account, and so is the memory that it costs: what one account does neither slows another nor makes its bounds be
// forgotten. What is remembered is this process's: each replica has its own pace.
package pace

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// maxKeys bounds what is remembered for one account.
const maxKeys = 4096

// sweepEvery is the time between two looks at what need not be remembered any more.
const sweepEvery = time.Minute

// Slow returns the Throttled fault of a call that has to wait, which tells how long.
func Slow(wait time.Duration, format string, args ...any) error {
	e := fault.New(fault.Throttled, format, args...)
	e.After = max(wait, time.Second)
	return e
}

// Pace lets so many calls of each kind through at once, and then one in each interval. It is safe for concurrent use.
type Pace struct {
	now   func() time.Time
	burst int
	each  time.Duration

	mu       sync.Mutex                              // guards what follows
	accounts map[access.Account]map[string]time.Time // when the kind's calls are made up for
	swept    time.Time
}

// New returns a Pace.
func New(now func() time.Time, burst int, each time.Duration) *Pace {
	return &Pace{now: now, burst: burst, each: each, accounts: map[access.Account]map[string]time.Time{}}
}

// Wait returns how long the next call of the account's kind has to wait, and counts nothing.
func (p *Pace) Wait(account access.Account, kind string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, wait := p.nextLocked(account, kind, p.now())
	return wait
}

// nextLocked returns when one more call would be made up for, and how long it has to wait, 0 for not at all.
func (p *Pace) nextLocked(account access.Account, kind string, now time.Time) (paid time.Time, wait time.Duration) {
	paid = p.accounts[account][kind]
	if paid.Before(now) {
		paid = now
	}
	paid = paid.Add(p.each)
	return paid, max(0, paid.Sub(now)-time.Duration(p.burst)*p.each)
}

// Take counts a call of the account's kind and returns 0, or counts nothing and returns how long to wait for the next.
func (p *Pace) Take(account access.Account, kind string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.sweepLocked(now)
	paid, wait := p.nextLocked(account, kind, now)
	if wait > 0 {
		return wait
	}
	kinds := p.accounts[account]
	if kinds == nil {
		kinds = map[string]time.Time{}
		p.accounts[account] = kinds
	}
	if _, known := kinds[kind]; !known && len(kinds) >= maxKeys {
		forgetFirst(kinds)
	}
	kinds[kind] = paid
	return 0
}

// sweepLocked forgets what is made up for.
func (p *Pace) sweepLocked(now time.Time) {
	if now.Sub(p.swept).Abs() < sweepEvery {
		return
	}
	p.swept = now
	for account, kinds := range p.accounts {
		for kind, paid := range kinds {
			if !paid.After(now) {
				delete(kinds, kind)
			}
		}
		if len(kinds) == 0 {
			delete(p.accounts, account)
		}
	}
}

// forgetFirst makes room for many: a quarter goes, those that are made up for first.
func forgetFirst(kinds map[string]time.Time) {
	until := slices.SortedFunc(maps.Values(kinds), time.Time.Compare)[len(kinds)/4]
	maps.DeleteFunc(kinds, func(_ string, paid time.Time) bool { return !paid.After(until) })
}

// Times of Turns.
const (
	patient    = 5               // calls in a row may fail before there is a pause
	firstPause = 2 * time.Second // doubled by each further failure
	lastPause  = time.Minute
	forgotten  = 10 * time.Minute // after a failure
)

// Turns lets one call at a time be made for each thing, and makes pauses that grow while its calls fail. It is safe for
// concurrent use.
type Turns struct {
	now func() time.Time

	mu       sync.Mutex // guards what follows, and what entries point to
	accounts map[access.Account]map[string]*turn
	swept    time.Time
}

type turn struct {
	busy     chan struct{} // closed when the call that is made now ends; nil while none is
	failures int           // in a row
	failed   time.Time     // when the last did
	until    time.Time     // of the pause
}

// NewTurns returns Turns.
func NewTurns(now func() time.Time) *Turns {
	return &Turns{now: now, accounts: map[access.Account]map[string]*turn{}}
}

// Enter takes the turn for the account's thing. While another has it, Enter waits for its end, and then returns
// without the turn: leave is nil, and the caller looks what the other left. In a pause it returns how long that is.
// Whoever has the turn calls leave once.
func (t *Turns) Enter(ctx context.Context, account access.Account, thing string) (leave func(), pause time.Duration, err error) {
	t.mu.Lock()
	now := t.now()
	t.sweepLocked(now)
	e := t.entryLocked(account, thing)
	switch {
	case e.busy != nil:
		busy := e.busy
		t.mu.Unlock()
		select {
		case <-busy:
			return nil, 0, nil
		case <-ctx.Done():
			return nil, 0, fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended while it waited")
		}
	case e.until.After(now):
		pause = e.until.Sub(now)
		t.mu.Unlock()
		return nil, pause, nil
	}
	e.busy = make(chan struct{})
	t.mu.Unlock()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		close(e.busy)
		e.busy = nil
		t.dropLocked(account, thing, e)
	}, 0, nil
}

// Pause returns how long no call is to be made for the thing.
func (t *Turns) Pause(account access.Account, thing string) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.accounts[account][thing]; e != nil {
		return max(0, e.until.Sub(t.now()))
	}
	return 0
}

// Ended says how a call for the thing ended.
func (t *Turns) Ended(account access.Account, thing string, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !failed {
		if e := t.accounts[account][thing]; e != nil {
			e.failures, e.until = 0, time.Time{}
			t.dropLocked(account, thing, e)
		}
		return
	}
	e := t.entryLocked(account, thing)
	e.failures++
	e.failed = t.now()
	if over := e.failures - patient; over >= 0 {
		e.until = e.failed.Add(min(firstPause<<min(over, 10), lastPause))
	}
}

// entryLocked finds or makes the entry.
func (t *Turns) entryLocked(account access.Account, thing string) *turn {
	things := t.accounts[account]
	if things == nil {
		things = map[string]*turn{}
		t.accounts[account] = things
	}
	e := things[thing]
	if e == nil {
		if len(things) >= maxKeys {
			evict(things)
		}
		e = &turn{}
		things[thing] = e
	}
	return e
}

// dropLocked forgets an entry that says nothing.
func (t *Turns) dropLocked(account access.Account, thing string, e *turn) {
	things := t.accounts[account]
	if e.busy == nil && e.failures == 0 && things[thing] == e {
		delete(things, thing)
		if len(things) == 0 {
			delete(t.accounts, account)
		}
	}
}

func (t *Turns) sweepLocked(now time.Time) {
	if now.Sub(t.swept).Abs() < sweepEvery {
		return
	}
	t.swept = now
	for account, things := range t.accounts {
		for thing, e := range things {
			if now.Sub(e.failed).Abs() >= forgotten {
				e.failures, e.until = 0, time.Time{}
				t.dropLocked(account, thing, e)
			}
		}
	}
}

// evict makes room for many: a quarter goes, those that failed longest ago. What is being called stays, and is as
// much as there are requests.
func evict(things map[string]*turn) {
	var failed []time.Time
	for _, e := range things {
		failed = append(failed, e.failed)
	}
	slices.SortFunc(failed, time.Time.Compare)
	until := failed[len(failed)/4]
	maps.DeleteFunc(things, func(_ string, e *turn) bool { return e.busy == nil && !e.failed.After(until) })
}
