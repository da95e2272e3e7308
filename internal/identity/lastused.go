package identity

import (
	"context"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// Use is the last use of an access key, to about a minute.
type Use struct {
	Account access.Account
	ID      string
	At      time.Time
}

// useEvery is how often the use of one key is noted. What is noted between two writes is written together, so that the
// database sees at most one write a minute of a key from each server.
const useEvery = time.Minute

// uses notes which access keys were used. The zero uses is ready.
type uses struct {
	last    sync.Map   // id → when it was noted last, as Unix minutes; an entry for each key that ever signed here
	mu      sync.Mutex // guards pending
	pending map[string]Use
}

// note costs one look at a map where the key was noted within the minute.
func (u *uses) note(account access.Account, id string, now time.Time) {
	minute := now.Unix() / int64(useEvery/time.Second)
	if was, ok := u.last.Load(id); ok && was.(int64) == minute {
		return
	}
	u.last.Store(id, minute)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pending == nil {
		u.pending = map[string]Use{}
	}
	u.pending[id] = Use{Account: account, ID: id, At: now}
}

// WriteUses stores the uses of access keys that were noted since the last call. What cannot be written is noted again
// for the next. It is for a loop that calls it once a minute, and for the end of the server.
func (s *Service) WriteUses(ctx context.Context) error {
	s.uses.mu.Lock()
	pending := s.uses.pending
	s.uses.pending = nil
	s.uses.mu.Unlock()
	if len(pending) == 0 {
		return nil
	}
	batch := make([]Use, 0, len(pending))
	for _, u := range pending {
		batch = append(batch, u)
	}
	err := s.store.KeysUsed(ctx, batch)
	if err != nil {
		s.uses.mu.Lock()
		defer s.uses.mu.Unlock()
		if s.uses.pending == nil {
			s.uses.pending = pending
			return err
		}
		for id, u := range pending {
			if _, newer := s.uses.pending[id]; !newer {
				s.uses.pending[id] = u
			}
		}
	}
	return err
}
