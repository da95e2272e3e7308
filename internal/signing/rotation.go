package signing

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/vault"
)

// series is the keys of one purpose that count at one time. It does not change once made.
type series struct {
	at     time.Time
	period int64   // when it was read
	rows   []Row   // those that are not revoked, by Begins
	doc    []byte  // the JWK set of all of them
	set    jws.Set // the same
}

// current is the key that signs at t: the last that has begun. ok is false where it is not of this period.
func (k series) current(t time.Time) (r Row, ok bool) {
	for _, one := range k.rows {
		if !one.Begins.After(t) {
			r = one
		}
	}
	return r, r.ID != "" && r.Period == periodOf(t)
}

// has reports whether there is a key that signs from the beginning of the period on.
func has(rows []Row, period int64) bool {
	return slices.ContainsFunc(rows, func(r Row) bool { return r.Period == period && r.live() && !r.Begins.After(beginOf(period)) })
}

func (r Row) live() bool { return r.Revoked.IsZero() }

// Keys returns the JWK set (RFC 7517 §5) that verifies what was signed for the purpose: the keys of the last period and
// of this one, and in the week before it begins that of the next. Errors are as for Sign. The bytes MUST NOT be
// changed.
func (s *Service) Keys(ctx context.Context, p Purpose) ([]byte, error) {
	keys, err := s.series(ctx, p)
	return keys.doc, err
}

// Prepare makes the keys that it is time for, so that the next one is published a week ahead even where nobody asks for
// anything in that week: for the installation, and for each account that has signed in this period. Errors are as for
// Sign.
func (s *Service) Prepare(ctx context.Context) error {
	_, err := s.series(ctx, Assertions)
	period, next := due(s.now())
	if err != nil || !next {
		return err
	}
	purposes, err := s.store.SigningPurposes(ctx, period)
	for _, p := range purposes {
		if _, failed := s.series(ctx, p); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// periodOf numbers the period of t.
func periodOf(t time.Time) int64 { return t.Unix() / int64(Period/time.Second) }

// due says which period it is, and whether the key of the next should be there.
func due(t time.Time) (period int64, next bool) {
	period = periodOf(t)
	return period, periodOf(t.Add(Ahead)) != period
}

// beginOf is when the period with the number n begins.
func beginOf(n int64) time.Time { return time.Unix(n*int64(Period/time.Second), 0) }

// series returns the keys that count now, and makes those that are missing.
func (s *Service) series(ctx context.Context, p Purpose) (series, error) {
	now := s.now()
	period, next := due(now)
	s.mu.Lock()
	k, ok := s.read[p]
	s.mu.Unlock()
	_, signs := k.current(now)
	if age := now.Sub(k.at); ok && age >= 0 && age < rowsFresh && k.period == period && signs && (!next || has(k.rows, period+1)) {
		return k, nil
	}
	return s.reread(ctx, p)
}

// reread is series, never from memory.
func (s *Service) reread(ctx context.Context, p Purpose) (series, error) {
	now := s.now()
	period, next := due(now)
	rows, err := s.rows(ctx, p, period, next)
	if err != nil {
		return series{}, err
	}
	k, err := s.assemble(ctx, rows, period)
	if err != nil {
		return series{}, err
	}
	if _, signs := k.current(now); !signs {
		return series{}, fault.New(fault.Internal, "no signing key signs now")
	}
	k.at = now
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read[p] = k
	return k, nil
}

// rows reads the keys from the period before this one on, and adds what is missing.
func (s *Service) rows(ctx context.Context, p Purpose, period int64, next bool) ([]Row, error) {
	const tries = 4 // others may be adding, or revoking what was added
	for range tries {
		rows, err := s.store.SigningKeys(ctx, p, period-1)
		if err != nil {
			return nil, err
		}
		switch signs := func(r Row) bool { return r.Period == period && r.live() && !r.Begins.After(s.now()) }; {
		case !slices.ContainsFunc(rows, signs):
			err = s.add(ctx, p, rows, period)
		case next && !has(rows, period+1):
			err = s.add(ctx, p, rows, period+1)
		default:
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fault.New(fault.Unavailable, "the signing keys are being changed by others: try again")
}

// add makes the key of a period, which signs from its beginning on. Where another replica was faster its key stays, and
// this one is forgotten.
func (s *Service) add(ctx context.Context, p Purpose, rows []Row, period int64) error {
	r, err := s.make(ctx, p, rows, period, beginOf(period), nil)
	if err != nil {
		return err
	}
	if err := s.store.AddSigningKey(ctx, r); err != nil && !errors.Is(err, fault.Conflict) {
		return err
	}
	return nil
}

// make makes a key with the serial after those in rows. replaces are the ids of the keys that were revoked for it, and
// when, in milliseconds.
func (s *Service) make(ctx context.Context, p Purpose, rows []Row, period int64, begins time.Time, replaces map[string]int64) (Row, error) {
	key, err := jws.NewKey(algorithm)
	if err != nil {
		return Row{}, fault.Wrap(fault.Internal, err, "a signing key cannot be made")
	}
	private, err := key.Private()
	if err != nil {
		return Row{}, fault.Wrap(fault.Internal, err, "a signing key cannot be written")
	}
	public, err := key.Public()
	if err != nil {
		return Row{}, fault.Wrap(fault.Internal, err, "a signing key cannot be written")
	}
	r := Row{Purpose: p, Period: period, ID: key.ID(), Public: public, Begins: begins, Created: s.now()}
	for _, other := range rows {
		if other.Period == period && other.Serial >= r.Serial {
			r.Serial = other.Serial + 1
		}
	}
	plain, err := withReplaced([]byte(private.Expose()), replaces)
	if err != nil {
		return Row{}, err
	}
	defer clear(plain)
	r.Sealed, err = s.vault.SealServer(ctx, vault.RingSigning, r.aad(), plain)
	return r, err
}

// assemble opens each key once, to publish what the sealed halves say.
func (s *Service) assemble(ctx context.Context, rows []Row, period int64) (series, error) {
	k := series{period: period}
	publics := make([]string, 0, len(rows))
	for _, r := range rows {
		if r.Period > period+1 || !r.live() { // of a replica whose clock is wrong, or revoked
			continue
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
		k.rows = append(k.rows, r)
	}
	slices.SortStableFunc(k.rows, func(a, b Row) int { return a.Begins.Compare(b.Begins) })
	k.doc = []byte(`{"keys":[` + strings.Join(publics, ",") + `]}`)
	var err error
	if k.set, err = jws.ParseSet(k.doc); err != nil {
		return series{}, fault.Wrap(fault.Internal, err, "the published keys cannot be read")
	}
	return k, nil
}
