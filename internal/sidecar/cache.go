package sidecar

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

const (
	// maxKept bounds the cache: that many users are served without a second mint.
	maxKept = 1024
	// keepFor is how long a token is given out again. AWS's SDKs wait for a consent for ten minutes with one token, and a
	// user who was disabled meanwhile should not reach the agent for long.
	keepFor = time.Minute
	// tokenSkew is how long before its end a token is no longer given out again.
	tokenSkew = time.Minute
)

type cacheKey [sha256.Size]byte

// keyOf is the key of the token of a workload identity, whose name has no NUL, for the user of a JWT or for nobody.
func keyOf(workload string, jwt secret.Text) cacheKey {
	return sha256.Sum256([]byte(workload + "\x00" + jwt.Expose()))
}

// cache keeps workload access tokens by the hash of the workload and the JWT that they were minted for, least recently
// used first out.
type cache struct {
	most int
	now  func() time.Time

	mu    sync.Mutex // guards the rest
	items map[cacheKey]*list.Element
	order *list.List // of kept, most recently used in front
	purge int        // how often everything was forgotten
}

type kept struct {
	key   cacheKey
	wat   secret.Text
	until time.Time
}

func newCache(most int, now func() time.Time) *cache {
	return &cache{most: most, now: now, items: map[cacheKey]*list.Element{}, order: list.New()}
}

// get returns the token that is kept, or the zero Text and a mark for put.
func (c *cache) get(key cacheKey) (wat secret.Text, mark int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return secret.Text{}, c.purge
	}
	if k := e.Value.(kept); c.now().Before(k.until) {
		c.order.MoveToFront(e)
		return k.wat, c.purge
	}
	c.remove(e)
	return secret.Text{}, c.purge
}

// put keeps a token that ends at expires. What has no known end is not kept, nor what was asked for before everything
// was forgotten since get gave the mark.
func (c *cache) put(key cacheKey, mark int, wat secret.Text, expires time.Time) {
	if expires.IsZero() {
		return
	}
	until := expires.Add(-tokenSkew)
	if most := c.now().Add(keepFor); until.After(most) {
		until = most
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if mark != c.purge {
		return
	}
	if e, ok := c.items[key]; ok {
		c.remove(e)
	}
	c.items[key] = c.order.PushFront(kept{key, wat, until})
	for len(c.items) > c.most {
		c.remove(c.order.Back())
	}
}

// forget drops everything: a token was refused, and others that were minted before may be just as dead.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.items)
	c.order.Init()
	c.purge++
}

// remove needs c.mu.
func (c *cache) remove(e *list.Element) {
	delete(c.items, e.Value.(kept).key)
	c.order.Remove(e)
}
