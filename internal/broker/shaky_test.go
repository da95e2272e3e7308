package broker_test

import (
	"context"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/vault"
)

// shaky is a store that a test makes fail: before a step (nothing is written), or after it (the answer is lost).
type shaky struct {
	broker.Store

	mu     sync.Mutex // guards what follows
	before map[string]func() error
	after  map[string]func() error
	flow   string        // whose code was held last
	lease  time.Duration // that was asked for last
}

func (s *shaky) fail(when map[string]func() error, step string, f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	when[step] = f
}

func (s *shaky) around(name string, step func() error) error {
	s.mu.Lock()
	before, after := s.before[name], s.after[name]
	s.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	if err := step(); err != nil {
		return err
	}
	if after != nil {
		return after()
	}
	return nil
}

// times returns a failure that occurs n times.
func times(n int, err error) func() error {
	var mu sync.Mutex
	return func() error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 {
			return nil
		}
		return err
	}
}

func (s *shaky) FinishLease(ctx context.Context, c broker.Connection, fence int64, outcome string) error {
	return s.around("FinishLease", func() error { return s.Store.FinishLease(ctx, c, fence, outcome) })
}

func (s *shaky) FinishLineage(ctx context.Context, l broker.Lineage, outcome string, c *broker.Connection, old int64) error {
	return s.around("FinishLineage", func() error { return s.Store.FinishLineage(ctx, l, outcome, c, old) })
}

func (s *shaky) FinishRedeem(ctx context.Context, id string, fence int64, c broker.Connection, old int64, l broker.Lineage) error {
	return s.around("FinishRedeem", func() error { return s.Store.FinishRedeem(ctx, id, fence, c, old, l) })
}

func (s *shaky) ReturnCode(ctx context.Context, id string, fence int64) error {
	return s.around("ReturnCode", func() error { return s.Store.ReturnCode(ctx, id, fence) })
}

func (s *shaky) SwapConnection(ctx context.Context, c broker.Connection, old int64) error {
	return s.around("SwapConnection", func() error { return s.Store.SwapConnection(ctx, c, old) })
}

func (s *shaky) ForgetRequested(ctx context.Context, a access.Account, key string) error {
	return s.around("ForgetRequested", func() error { return s.Store.ForgetRequested(ctx, a, key) })
}

func (s *shaky) ProviderByUID(ctx context.Context, a access.Account, uid string) (p broker.Provider, err error) {
	err = s.around("ProviderByUID", func() error {
		p, err = s.Store.ProviderByUID(ctx, a, uid)
		return err
	})
	return p, err
}

func (s *shaky) HoldCode(ctx context.Context, id string, code, verifier vault.Sealed) error {
	s.mu.Lock()
	s.flow = id
	s.mu.Unlock()
	return s.Store.HoldCode(ctx, id, code, verifier)
}

func (s *shaky) lastHeld() string { s.mu.Lock(); defer s.mu.Unlock(); return s.flow }

func (s *shaky) LeaseConnection(ctx context.Context, a broker.Attempt, key string, ttl time.Duration) (int64, error) {
	s.mu.Lock()
	s.lease = ttl
	s.mu.Unlock()
	return s.Store.LeaseConnection(ctx, a, key, ttl)
}

func (s *shaky) lastLease() time.Duration { s.mu.Lock(); defer s.mu.Unlock(); return s.lease }
