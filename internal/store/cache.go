package store

import (
	"context"
	"sync"
	"time"
)

const (
	cacheTTL     = time.Second     // the age that reads marked "recent" may have
	cacheMax     = 10_000          // entries of one cache
	cacheTimeout = 5 * time.Second // one load, which several requests may wait for
)

// cache holds rows that were read at most cacheTTL ago. Readers that miss together load once. What is absent is not
// remembered: a name that was just created on another replica must be seen. The zero cache is ready.
type cache[K comparable, V any] struct {
	mu      sync.RWMutex // guards what follows
	entries map[K]cached[V]
	flights map[K]*flight[V]
}

type cached[V any] struct {
	value V
	until time.Time
}

type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// get returns the row from the cache or by load. load runs detached from the reader's cancellation, for others may wait
// for the same row.
func (c *cache[K, V]) get(ctx context.Context, key K, load func(context.Context) (V, error)) (V, error) {
	c.mu.RLock()
	e, ok := c.entries[key]
	c.mu.RUnlock()
	if ok && time.Now().Before(e.until) {
		return e.value, nil
	}
	c.mu.Lock()
	f, ok := c.flights[key]
	if ok {
		c.mu.Unlock()
		select {
		case <-f.done:
			return f.value, f.err
		case <-ctx.Done():
			var none V
			return none, classify(ctx.Err())
		}
	}
	f = &flight[V]{done: make(chan struct{})}
	if c.flights == nil {
		c.flights = map[K]*flight[V]{}
	}
	c.flights[key] = f
	c.mu.Unlock()

	began := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
	f.value, f.err = load(ctx)
	cancel()
	c.land(key, f, began.Add(cacheTTL))
	return f.value, f.err
}

// land ends a flight. Its row is kept only where no write dropped the key since the flight began: then what it read
// may be the row before the write.
func (c *cache[K, V]) land(key K, f *flight[V], until time.Time) {
	c.mu.Lock()
	if c.flights[key] == f {
		delete(c.flights, key)
		if f.err == nil {
			c.put(key, cached[V]{value: f.value, until: until})
		}
	}
	c.mu.Unlock()
	close(f.done)
}

// put needs c.mu held. A full cache gives up any entry: with this TTL the choice does not matter.
func (c *cache[K, V]) put(key K, e cached[V]) {
	if c.entries == nil {
		c.entries = map[K]cached[V]{}
	}
	if len(c.entries) >= cacheMax {
		for k := range c.entries {
			delete(c.entries, k)
			break
		}
	}
	c.entries[key] = e
}

// drop forgets a key. A write calls it after its commit and before it returns.
func (c *cache[K, V]) drop(key K) {
	c.mu.Lock()
	delete(c.entries, key)
	delete(c.flights, key)
	c.mu.Unlock()
}

// clear forgets every key.
func (c *cache[K, V]) clear() {
	c.mu.Lock()
	clear(c.entries)
	clear(c.flights)
	c.mu.Unlock()
}
