// Package keyring keeps the signing keys of issuers and verifies with them.
//
// Security argument: an issuer is asked for its keys by one request at a time, at most every 30 seconds for a key id
// that nobody knows, so strangers with made-up tokens cannot make this server hammer an issuer. Keys that were fetched
// serve for a day while the issuer does not answer, and no longer: then nothing verifies, and the answer says that it
// is for now. An account's issuers make no other account's keys be forgotten.
package keyring

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
)

// Times of the cache.
const (
	fresh   = time.Hour        // used without asking the issuer again
	stale   = 24 * time.Hour   // used when the issuer does not answer; not longer
	cool    = 30 * time.Second // at least, between two fetches for key ids that nobody knows
	retry   = 5 * time.Second  // at least, between two fetches while there is nothing to use
	timeout = 15 * time.Second // of one fetch
	maxSets = 256              // issuers of one account whose keys are kept
)

// Source fetches the signing keys of an issuer through the guarded dialer.
type Source interface {
	// JWKS returns the JWK set document of the issuer: from jwksURI, or where that is "" from the issuer's discovery
	// document, whose "issuer" MUST equal issuer. The answer is at most 1 MiB. An Unavailable fault means that the
	// issuer did not answer; an Unauthenticated fault that its answer cannot be used.
	JWKS(ctx context.Context, account access.Account, issuer, jwksURI string) ([]byte, error)
}

// Issuer says whose keys are meant, and where they are.
type Issuer struct {
	Account access.Account // two accounts share no entry, whatever their issuers are called
	URL     string
	JWKSURI string // "" means by discovery from URL
}

// Ring keeps keys of the type K, which parse makes of a JWK set document. One fetch runs at a time for each issuer, in
// the goroutine of the request that needed it; it goes on when that request ends, because others wait for it.
type Ring[K any] struct {
	source Source
	parse  func(i Issuer, doc []byte) (K, error)
	now    func() time.Time

	metadata MetadataSource // nil where the source follows metadata itself, which only tests do
	pins     Pins
	pin      string

	mu   sync.Mutex // guards sets and what its entries point to
	sets map[access.Account]map[Issuer]*keySet[K]
}

type keySet[K any] struct {
	keys    K
	fetched time.Time     // when keys came
	tried   time.Time     // when the last fetch ended
	forced  time.Time     // when an unknown key id last caused a fetch
	version int           // rises with each success; 0 before the first
	failed  error         // of the last fetch
	busy    chan struct{} // closed when the fetch that runs now ends; nil while none does
	used    time.Time
}

// New returns a Ring. An error of parse is the reason, to be put behind the ring's own words.
func New[K any](source Source, parse func(i Issuer, doc []byte) (K, error), now func() time.Time) *Ring[K] {
	return &Ring[K]{source: source, parse: parse, now: now, sets: map[access.Account]map[Issuer]*keySet[K]{}}
}

// Verify calls check with keys of the issuer, and once more with newer ones where check returns an error that wraps
// jws.ErrNoKey and newer ones may be asked for: the issuer may have changed its keys since (OIDC Core §10.1.1). It
// returns what check returned last, Unavailable where the issuer does not answer, and Unauthenticated where its keys
// cannot be used.
func (r *Ring[K]) Verify(ctx context.Context, i Issuer, check func(K) error) error {
	keys, version, err := r.current(ctx, i)
	if err != nil {
		return err
	}
	if err := check(keys); !errors.Is(err, jws.ErrNoKey) {
		return err
	}
	if keys, err = r.newer(ctx, i, version); err != nil {
		return err
	}
	return check(keys)
}

// VerifyHeld is Verify with the keys in memory alone, and never waits. settled is false if there are none that Verify
// would use without a fetch, or none among them that check needs.
func (r *Ring[K]) VerifyHeld(i Issuer, check func(K) error) (settled bool, err error) {
	r.mu.Lock()
	e := r.sets[i.Account][i]
	if e == nil || !e.usable(r.now()) {
		r.mu.Unlock()
		return false, nil
	}
	keys := e.keys
	e.used = r.now()
	r.mu.Unlock()
	if err = check(keys); errors.Is(err, jws.ErrNoKey) {
		return false, nil
	}
	return true, err
}

// usable reports whether the keys may be used without asking the issuer first.
func (e *keySet[K]) usable(now time.Time) bool {
	age := now.Sub(e.fetched)
	return e.version > 0 && (age < fresh || age < stale && (e.busy != nil || now.Sub(e.tried) < cool))
}

// current returns keys that may be used, and fetches them where there are none or they are old.
func (r *Ring[K]) current(ctx context.Context, id Issuer) (K, int, error) {
	var none K
	for {
		r.mu.Lock()
		e := r.entryLocked(id)
		now := r.now()
		switch {
		case e.usable(now):
			keys, version := e.keys, e.version
			r.mu.Unlock()
			return keys, version, nil
		case e.busy != nil:
			if err := r.waitLocked(ctx, e.busy); err != nil {
				return none, 0, err
			}
		case e.failed != nil && now.Sub(e.tried) < retry:
			err := e.failed
			r.mu.Unlock()
			return none, 0, err
		default:
			r.fetchLocked(ctx, id, e)
		}
	}
}

// newer returns keys that came after the given version, or the same again where it is too early to ask for others.
func (r *Ring[K]) newer(ctx context.Context, id Issuer, version int) (K, error) {
	var none K
	for {
		r.mu.Lock()
		e := r.entryLocked(id)
		now := r.now()
		switch {
		case e.version != version: // none at all, where they were evicted meanwhile
			keys := e.keys
			r.mu.Unlock()
			return keys, nil
		case e.busy != nil:
			if err := r.waitLocked(ctx, e.busy); err != nil {
				return none, err
			}
		case !e.forced.IsZero() && now.Sub(e.forced) < cool:
			keys, err := e.keys, e.failed
			r.mu.Unlock()
			return keys, err
		default:
			e.forced = now
			r.fetchLocked(ctx, id, e)
		}
	}
}

// waitLocked unlocks, and waits for another request's fetch.
func (r *Ring[K]) waitLocked(ctx context.Context, busy <-chan struct{}) error {
	r.mu.Unlock()
	select {
	case <-busy:
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended before the issuer's keys came")
	}
}

// fetchLocked unlocks, fetches, and leaves the outcome in e.
func (r *Ring[K]) fetchLocked(ctx context.Context, id Issuer, e *keySet[K]) {
	busy := make(chan struct{})
	e.busy = busy
	r.mu.Unlock()
	var keys K
	err := error(fault.New(fault.Internal, "the fetch of the issuer's keys was cut off"))
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		e.busy, e.tried, e.failed = nil, r.now(), err
		if err == nil {
			e.keys, e.fetched = keys, e.tried
			e.version++
		}
		close(busy)
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	address, fetchErr := r.address(ctx, id)
	if fetchErr != nil {
		err = fetchErr
		return
	}
	doc, fetchErr := r.source.JWKS(ctx, id.Account, id.URL, address)
	if fetchErr != nil {
		err = fetchErr
		return
	}
	if keys, err = r.parse(id, doc); err != nil {
		err = fault.Wrap(fault.Unauthenticated, err, "the keys of the issuer %s cannot be used", id.URL)
	}
}

// entryLocked finds or makes the entry. Where the account has too many it drops the one of them that was not used for
// longest.
func (r *Ring[K]) entryLocked(id Issuer) *keySet[K] {
	sets := r.sets[id.Account]
	e := sets[id]
	if e == nil {
		if len(sets) >= maxSets {
			evict(sets)
		}
		if sets == nil {
			sets = map[Issuer]*keySet[K]{}
			r.sets[id.Account] = sets
		}
		e = &keySet[K]{}
		sets[id] = e
	}
	e.used = r.now()
	return e
}

func evict[K any](sets map[Issuer]*keySet[K]) {
	var oldest Issuer
	var at time.Time
	for id, e := range sets {
		if e.busy == nil && (at.IsZero() || e.used.Before(at)) {
			oldest, at = id, e.used
		}
	}
	if !at.IsZero() {
		delete(sets, oldest)
	}
}
