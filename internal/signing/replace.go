package signing

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
)

// Status says what a key is for now.
type Status string

// Values of Status.
const (
	Next     Status = "NEXT"     // published, and signs later
	Current  Status = "CURRENT"  // signs
	Previous Status = "PREVIOUS" // verifies what it signed
	Revoked  Status = "REVOKED"  // verifies nothing any more
)

// Key is what may be known of a key.
type Key struct {
	ID      string
	Purpose Purpose
	Status  Status
	Begins  time.Time // when it signs, or signed, first
	Created time.Time
}

// maxLive bounds the published set: verifiers have bounds of their own.
const maxLive = 16

// List returns the keys of the last period and later ones, also revoked ones, in the order in which they sign.
func (s *Service) List(ctx context.Context, p Purpose) ([]Key, error) {
	if _, err := s.series(ctx, p); err != nil { // makes what is missing
		return nil, err
	}
	now := s.now()
	period := periodOf(now)
	rows, err := s.store.SigningKeys(ctx, p, period-1)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return a.Begins.Compare(b.Begins) })
	live := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !r.live() })
	current, _ := series{rows: live}.current(now)
	keys := make([]Key, 0, len(rows))
	for _, r := range rows {
		k := Key{ID: r.ID, Purpose: p, Status: Previous, Begins: r.Begins, Created: r.Created}
		switch {
		case !r.live():
			k.Status = Revoked
		case r.ID == current.ID:
			k.Status = Current
		case r.Begins.After(now):
			k.Status = Next
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Rotate makes a key that signs in place of today's, and returns it. Without revoke it signs after Overlap, when every
// verifier knows it, and what was signed before verifies until its end. With revoke it signs at once, and every other
// key of the purpose is erased, the one of the next period too: whoever got hold of one may have got hold of them all.
// What they signed verifies no more: here at once, on other replicas within seconds, and elsewhere when the verifier
// reads the key set again. A Conflict says that somebody else rotates at this moment, and a Limit that it was done too
// often.
func (s *Service) Rotate(ctx context.Context, p Purpose, revoke bool) (Key, error) {
	const tries = 4
	for try := 1; ; try++ {
		now := s.now()
		begins := now
		if !revoke {
			begins = now.Add(Overlap)
		}
		period := periodOf(begins)
		rows, err := s.rows(ctx, p, periodOf(now), false)
		if err != nil {
			return Key{}, err
		}
		if live := len(slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !r.live() })); !revoke && live >= maxLive {
			return Key{}, fault.New(fault.Limit, "there are %d signing keys of the purpose already: they go away %d days after their period, or are revoked", live, int(Period/(24*time.Hour)))
		}
		var replaces map[string]int64
		if revoke && p == Audit {
			if replaces, err = s.replaced(ctx, now); err != nil {
				return Key{}, err
			}
		}
		r, err := s.make(ctx, p, rows, period, begins, replaces)
		if err != nil {
			return Key{}, err
		}
		if revoke {
			err = s.store.ReplaceSigningKeys(ctx, r, now)
		} else {
			err = s.store.AddSigningKey(ctx, r)
		}
		if errors.Is(err, fault.Conflict) && try < tries {
			continue
		}
		if err != nil {
			return Key{}, err
		}
		k := Key{ID: r.ID, Purpose: p, Status: Next, Begins: begins, Created: r.Created}
		if revoke {
			k.Status = Current
		}
		_, err = s.reread(ctx, p)
		return k, err
	}
}
