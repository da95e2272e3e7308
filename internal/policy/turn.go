package policy

import (
	"context"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// workTime bounds how long one operation reads and tries policies, waiting for its turn included.
const workTime = 10 * time.Second

// turns lets each account have policies checked, tried and searched by one request at a time, so that one account's
// questions take one processor at most and the others' decisions are not late (threat M10). The zero turns is ready.
type turns struct {
	mu   sync.Mutex // guards busy
	busy map[access.Account]*turn
}

// turn is an account's, while somebody has it or waits for it.
type turn struct {
	free    chan struct{}              // holds one element while nobody has it
	waiting int                        // who has it among them
	by      map[access.PrincipalID]int // of waiting
}

// maxWaiting is how many requests of one account may have its turn or wait for it. No principal has more than half of
// the places that are free when it asks, so one that asks for very much leaves room for the others.
const maxWaiting = 16

// busyFor is how long who finds no place is told to wait.
const busyFor = time.Second

// full reports whether there is no place for one more request of the principal.
func (t *turn) full(of access.PrincipalID) bool {
	free := maxWaiting - t.waiting
	return free == 0 || t.by[of] >= max(1, free/2)
}

// take waits for the turn of the caller's account. done gives it back, and ends the context that the work is done
// under.
func (t *turns) take(ctx context.Context, c access.Caller) (work context.Context, done func(), err error) {
	account, of := c.Account, c.Principal
	t.mu.Lock()
	mine := t.busy[account]
	if mine == nil {
		if t.busy == nil {
			t.busy = map[access.Account]*turn{}
		}
		mine = &turn{free: make(chan struct{}, 1), by: map[access.PrincipalID]int{}}
		mine.free <- struct{}{}
		t.busy[account] = mine
	}
	if mine.full(of) {
		e := fault.New(fault.Throttled, "the account has %d requests at work on policies, %d of them of this principal: one is answered at a time",
			mine.waiting, mine.by[of])
		e.After = busyFor
		t.mu.Unlock()
		return nil, nil, e
	}
	mine.waiting++
	mine.by[of]++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.by[of]--; mine.by[of] == 0 {
			delete(mine.by, of)
		}
		if mine.waiting--; mine.waiting == 0 {
			delete(t.busy, account)
		}
	}
	work, cancel := context.WithTimeout(ctx, workTime)
	select {
	case <-mine.free:
		return work, func() { cancel(); mine.free <- struct{}{}; leave() }, nil
	case <-work.Done():
		cancel()
		leave()
		return nil, nil, tooLong(work.Err())
	}
}

func tooLong(err error) error {
	e := fault.Wrap(fault.Throttled, err, "work on policies took longer than %s: ask for less at once", workTime)
	e.After = busyFor
	return e
}
