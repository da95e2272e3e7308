package signing

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/vault"
)

// series is the keys of one purpose that count at one time. It does not change once made.
type series struct {
	at      time.Time
	current Row
	next    bool    // it has the key of the next period
	doc     []byte  // the JWK set of all of them
	set     jws.Set // the same
}

// Keys returns the JWK set (RFC 7517 §5) that verifies what was signed for the purpose: the keys of the last period and
// of this one, and in the week before it begins that of the next. Errors are as for Sign. The bytes MUST NOT be changed.
func (s *Service) Keys(ctx context.Context, p Purpose) ([]byte, error) {
	keys, err := s.series(ctx, p)
	return keys.doc, err
}

// Prepare makes the keys that it is time for, so that the next one is published a week ahead even where nobody asks for
// anything in that week. Errors are as for Sign.
func (s *Service) Prepare(ctx context.Context) error {
	_, err := s.series(ctx, Tokens)
	return err
}

// periodOf numbers the period of t.
func periodOf(t time.Time) int64 { return t.Unix() / int64(Period/time.Second) }

// due says which period it is, and whether the key of the next should be there.
func due(t time.Time) (period int64, next bool) {
	period = periodOf(t)
	return period, periodOf(t.Add(Ahead)) != period
}

// series returns the keys that count now, and makes those that are missing.
func (s *Service) series(ctx context.Context, p Purpose) (series, error) {
	now := s.now()
	period, next := due(now)
	s.mu.Lock()
	k, ok := s.read[p]
	s.mu.Unlock()
	if age := now.Sub(k.at); ok && age >= 0 && age < rowsFresh && k.current.Period == period && (k.next || !next) {
		return k, nil
	}
	rows, err := s.rows(ctx, p, period, next)
	if err != nil {
		return series{}, err
	}
	if k, err = s.assemble(ctx, rows, period); err != nil {
		return series{}, err
	}
	k.at = now
	s.mu.Lock()
	s.read[p] = k
	s.mu.Unlock()
	return k, nil
}

// rows reads the keys from the period before this one on, and adds what is missing.
func (s *Service) rows(ctx context.Context, p Purpose, period int64, next bool) ([]Row, error) {
	wanted := []int64{period}
	if next {
		wanted = append(wanted, period+1)
	}
	for range 2 {
		rows, err := s.store.SigningKeys(ctx, p, period-1)
		if err != nil {
			return nil, err
		}
		have := make(map[int64]bool, len(rows))
		for _, r := range rows {
			have[r.Period] = true
		}
		added := false
		for _, n := range wanted {
			if have[n] {
				continue
			}
			if err := s.add(ctx, p, n); err != nil {
				return nil, err
			}
			added = true
		}
		if !added {
			return rows, nil
		}
	}
	return nil, fault.New(fault.Internal, "a signing key was stored and is not there")
}

// add makes the key of a period. Where another replica was faster its key stays, and this one is forgotten.
func (s *Service) add(ctx context.Context, p Purpose, period int64) error {
	key, err := jws.NewKey(algorithm)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a signing key cannot be made")
	}
	private, err := key.Private()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a signing key cannot be written")
	}
	public, err := key.Public()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a signing key cannot be written")
	}
	r := Row{Purpose: p, Period: period, ID: key.ID(), Public: public, Created: s.now()}
	plain := []byte(private.Expose())
	defer clear(plain)
	if r.Sealed, err = s.vault.SealServer(ctx, vault.RingSigning, r.aad(), plain); err != nil {
		return err
	}
	if err := s.store.AddSigningKey(ctx, r); err != nil && !errors.Is(err, fault.Conflict) {
		return err
	}
	return nil
}

// assemble opens each key once, to publish what the sealed halves say.
func (s *Service) assemble(ctx context.Context, rows []Row, period int64) (series, error) {
	var k series
	publics := make([]string, 0, len(rows))
	for _, r := range rows {
		if r.Period > period+1 {
			continue // of a replica whose clock is wrong
		}
		key, err := s.open(ctx, r)
		if err != nil {
			return series{}, err
		}
		public, err := key.Public()
		if err != nil {
			return series{}, fault.Wrap(fault.Internal, err, "signing key %q cannot be published", r.ID)
		}
		publics = append(publics, public)
		switch r.Period {
		case period:
			k.current = r
		case period + 1:
			k.next = true
		}
	}
	k.doc = []byte(`{"keys":[` + strings.Join(publics, ",") + `]}`)
	var err error
	if k.set, err = jws.ParseSet(k.doc); err != nil {
		return series{}, fault.Wrap(fault.Internal, err, "the published keys cannot be read")
	}
	return k, nil
}
