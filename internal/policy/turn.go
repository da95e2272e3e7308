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
	free    chan struct{} // holds one element while nobody has it
	waiting int           // who has it among them
}

// maxWaiting is how many requests of one account may wait for their turn.
const maxWaiting = 8

// take waits for the account's turn. done gives it back, and ends the context that the work is done under.
func (t *turns) take(ctx context.Context, account access.Account) (work context.Context, done func(), err error) {
	t.mu.Lock()
	mine := t.busy[account]
	if mine == nil {
		if t.busy == nil {
			t.busy = map[access.Account]*turn{}
		}
		mine = &turn{free: make(chan struct{}, 1)}
		mine.free <- struct{}{}
		t.busy[account] = mine
	}
	if mine.waiting > maxWaiting {
		t.mu.Unlock()
		return nil, nil, fault.New(fault.Throttled, "the account has %d requests at work on policies: one is answered at a time", mine.waiting)
	}
	mine.waiting++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
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
	return fault.Wrap(fault.Throttled, err, "work on policies took longer than %s: ask for less at once", workTime)
}
