package awsapi

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	maxSigningKeys   = 4096
	maxSigningKeyAge = 5 * time.Minute // as vault.KeyLife: no unwrapped key lives longer
)

// signingKeys caches derived signing keys. The zero value is empty and ready. Entries are bounded in number and age, and
// bound to the version of the secret they come from.
type signingKeys struct {
	mu        sync.Mutex // guards what follows
	entries   map[signingKeyID]signingKey
	nextSweep time.Time
}

type signingKeyID struct{ accessKey, day string }

type signingKey struct {
	version int64
	at      time.Time
	key     [sha256.Size]byte
}

func (s *signingKeys) get(accessKey, day string, version int64, now time.Time) ([sha256.Size]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepLocked(now)
	e, ok := s.entries[signingKeyID{accessKey, day}]
	if !ok || e.version != version || now.Sub(e.at) >= maxSigningKeyAge {
		return [sha256.Size]byte{}, false
	}
	return e.key, true
}

func (s *signingKeys) put(accessKey, day string, version int64, now time.Time, key [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[signingKeyID]signingKey{}
	}
	// The strings are cut from the request's header; keeping them would keep the whole header in memory.
	id := signingKeyID{string([]byte(accessKey)), string([]byte(day))}
	if _, ok := s.entries[id]; !ok && len(s.entries) >= maxSigningKeys {
		for victim := range s.entries { // any one: deriving again costs microseconds
			delete(s.entries, victim)
			break
		}
	}
	s.entries[id] = signingKey{version: version, at: now, key: key}
}

// sweepLocked drops what is too old, at most once a minute.
func (s *signingKeys) sweepLocked(now time.Time) {
	if now.Before(s.nextSweep) {
		return
	}
	s.nextSweep = now.Add(time.Minute)
	for id, e := range s.entries {
		if now.Sub(e.at) >= maxSigningKeyAge {
			delete(s.entries, id)
		}
	}
}
