package awsapi

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

const (
	maxSigningKeys   = 1024            // of one account
	maxSigningKeyAge = 5 * time.Minute // as vault.KeyLife: no unwrapped key lives longer
)

// signingKeys caches derived signing keys. The zero value is empty and ready. Entries are bounded in number for each
// account, and in age, and bound to the version of the secret they come from.
type signingKeys struct {
	mu        sync.Mutex // guards what follows
	entries   map[access.Account]map[signingKeyID]signingKey
	nextSweep time.Time
}

type signingKeyID struct{ accessKey, day string }

type signingKey struct {
	version int64
	at      time.Time
	key     [sha256.Size]byte
}

func (s *signingKeys) get(account access.Account, accessKey, day string, version int64, now time.Time) ([sha256.Size]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepLocked(now)
	e, ok := s.entries[account][signingKeyID{accessKey, day}]
	if !ok || e.version != version || now.Sub(e.at) >= maxSigningKeyAge {
		return [sha256.Size]byte{}, false
	}
	return e.key, true
}

func (s *signingKeys) put(account access.Account, accessKey, day string, version int64, now time.Time, key [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.entries[account]
	if mine == nil {
		if s.entries == nil {
			s.entries = map[access.Account]map[signingKeyID]signingKey{}
		}
		mine = map[signingKeyID]signingKey{}
		s.entries[account] = mine
	}
	// The strings are cut from the request's header; keeping them would keep the whole header in memory.
	id := signingKeyID{string([]byte(accessKey)), string([]byte(day))}
	if _, ok := mine[id]; !ok && len(mine) >= maxSigningKeys {
		for victim := range mine { // any one: deriving again costs microseconds
			delete(mine, victim)
			break
		}
	}
	mine[id] = signingKey{version: version, at: now, key: key}
}

// sweepLocked drops what is too old, at most once a minute.
func (s *signingKeys) sweepLocked(now time.Time) {
	if now.Before(s.nextSweep) {
		return
	}
	s.nextSweep = now.Add(time.Minute)
	for account, mine := range s.entries {
		maps.DeleteFunc(mine, func(_ signingKeyID, e signingKey) bool { return now.Sub(e.at) >= maxSigningKeyAge })
		if len(mine) == 0 {
			delete(s.entries, account)
		}
	}
}
