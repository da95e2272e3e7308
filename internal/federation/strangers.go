package federation

import (
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// How many refusals the trail takes of tokens that lead nowhere: a burst, and so many a second after it. Anybody can
// send such tokens, a public issuer signs them for everybody, and each record is a durable write that stays.
const (
	strangersBurst  = 1000 // of tokens that nobody vouches for
	strangersRefill = 10
	issuerBurst     = 100 // of tokens of one issuer that an account trusts
	issuerRefill    = 2
)

// strangers are leaky buckets of such records, for each issuer that an account trusts one, so that no issuer's
// strangers hide another's. There are as many as administrators trusted issuers. The zero strangers is empty.
type strangers struct {
	mu      sync.Mutex // guards what follows
	buckets map[stranger]*bucket
}

// stranger is where a token came from: "" for one that nobody vouches for.
type stranger struct {
	account access.Account
	issuer  string
}

type bucket struct {
	level float64
	at    time.Time
	left  int // records that were left out since the last that was taken
}

// take reports whether the trail takes one more, and if it does, how many were left out before it.
func (s *strangers) take(of stranger, now time.Time) (leftOut int, ok bool) {
	burst, refill := float64(issuerBurst), float64(issuerRefill)
	if of.issuer == "" {
		burst, refill = strangersBurst, strangersRefill
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[of]
	if b == nil {
		if s.buckets == nil {
			s.buckets = map[stranger]*bucket{}
		}
		b = &bucket{at: now}
		s.buckets[of] = b
	}
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.level, b.at = max(0, b.level-passed*refill), now
	}
	if b.level+1 > burst {
		b.left++
		return 0, false
	}
	b.level++
	leftOut, b.left = b.left, 0
	return leftOut, true
}
