package identity

import (
	"context"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
)

// gates let a number of callers for each issuer of an account in at a time. The zero gates are open.
type gates struct {
	mu sync.Mutex // guards of
	of map[string]*gate
}

type gate struct {
	places chan struct{}
	users  int // of gate: those who are in, and those who wait
}

// enter waits for a place, and returns what gives it back. It is Throttled where none became free in time.
func (g *gates) enter(ctx context.Context, issuer string) (leave func(), err error) {
	const waiting = 16 * logoutsAtOnce // more than that are turned away at once
	g.mu.Lock()
	if g.of == nil {
		g.of = map[string]*gate{}
	}
	at := g.of[issuer]
	if at == nil {
		at = &gate{places: make(chan struct{}, logoutsAtOnce)}
		g.of[issuer] = at
	}
	full := at.users >= waiting
	if !full {
		at.users++
	}
	g.mu.Unlock()
	if full {
		return nil, busy()
	}
	done := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(g.of, issuer)
		}
	}
	timer := time.NewTimer(logoutWait)
	defer timer.Stop()
	select {
	case at.places <- struct{}{}:
		return func() { <-at.places; done() }, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	done()
	return nil, busy()
}

func busy() error {
	return fault.New(fault.Throttled, "too many logout tokens are being looked at: try again later")
}
