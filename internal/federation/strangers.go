package federation

import (
	"sync"
	"time"
)

// How many refusals of tokens that nobody vouches for the trail takes: a burst, and so many a second after it. Anybody can
// send such tokens, and each record is a durable write that stays.
const (
	strangersBurst  = 1000
	strangersRefill = 10
)

// strangers is a leaky bucket of such records. The zero strangers is empty.
type strangers struct {
	mu    sync.Mutex // guards what follows
	level float64
	at    time.Time
}

// take reports whether the trail takes one more.
func (b *strangers) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.level, b.at = max(0, b.level-passed*strangersRefill), now
	}
	if b.level+1 > strangersBurst {
		return false
	}
	b.level++
	return true
}
