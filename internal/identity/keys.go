package identity

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
)

// Times of the cache of issuers' keys.
const (
	keysFresh   = time.Hour        // used without asking the issuer again
	keysStale   = 24 * time.Hour   // used when the issuer does not answer; not longer
	keysCool    = 30 * time.Second // at least, between two fetches for key ids that nobody knows
	keysRetry   = 5 * time.Second  // at least, between two fetches while there is nothing to use
	keysTimeout = 15 * time.Second // of one fetch
	maxKeyrings = 256              // issuers whose keys are kept
)

// keyring keeps the signing keys of issuers. One fetch runs at a time for each of them, in the goroutine of the
// request that needed it; it goes on when that request ends, because others wait for it.
type keyring struct {
	source KeySource
	now    func() time.Time

	mu   sync.Mutex // guards sets and what its entries point to
	sets map[setID]*keySet
}

type setID struct {
	account access.Account
	issuer  string
	uri     string
}

type keySet struct {
	keys    jws.Set
	fetched time.Time     // when keys came
	tried   time.Time     // when the last fetch ended
	forced  time.Time     // when an unknown key id last caused a fetch
	version int           // rises with each success; 0 before the first
	failed  error         // of the last fetch
	busy    chan struct{} // closed when the fetch that runs now ends; nil while none does
	used    time.Time
}

func newKeyring(source KeySource, now func() time.Time) *keyring {
	return &keyring{source: source, now: now, sets: map[setID]*keySet{}}
}

// verify checks the token's signature with the issuer's keys. It is Unavailable where that cannot be known because the
// issuer does not answer, and Unauthenticated where the issuer has no such key or the signature is wrong.
func (r *keyring) verify(ctx context.Context, account access.Account, i Issuer, t jws.Token) error {
	if len(i.JWKS) > 0 {
		keys, err := jws.ParseSet(i.JWKS)
		if err != nil {
			return fault.Wrap(fault.Internal, err, "the keys of issuer %s cannot be read", i.URL)
		}
		return t.Verify(keys)
	}
	id := setID{account, i.URL, i.JWKSURI}
	keys, version, err := r.current(ctx, id)
	if err != nil {
		return err
	}
	if err := t.Verify(keys); !errors.Is(err, jws.ErrNoKey) {
		return err
	}
	// The issuer may have changed its keys since (OIDC Core §10.1.1).
	if keys, err = r.newer(ctx, id, version); err != nil {
		return err
	}
	return t.Verify(keys)
}

// current returns keys that may be used, and fetches them where there are none or they are old.
func (r *keyring) current(ctx context.Context, id setID) (jws.Set, int, error) {
	for {
		r.mu.Lock()
		e := r.entryLocked(id)
		now := r.now()
		age := now.Sub(e.fetched)
		fresh := e.version > 0 && age < keysFresh
		stale := e.version > 0 && age < keysStale
		switch {
		case fresh, stale && (e.busy != nil || now.Sub(e.tried) < keysCool):
			keys, version := e.keys, e.version
			r.mu.Unlock()
			return keys, version, nil
		case e.busy != nil:
			if err := r.waitLocked(ctx, e.busy); err != nil {
				return jws.Set{}, 0, err
			}
		case e.failed != nil && now.Sub(e.tried) < keysRetry:
			err := e.failed
			r.mu.Unlock()
			return jws.Set{}, 0, err
		default:
			r.fetchLocked(ctx, id, e)
		}
	}
}

// newer returns keys that came after the given version, or the same again where it is too early to ask for others.
func (r *keyring) newer(ctx context.Context, id setID, version int) (jws.Set, error) {
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
				return jws.Set{}, err
			}
		case !e.forced.IsZero() && now.Sub(e.forced) < keysCool:
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
func (r *keyring) waitLocked(ctx context.Context, busy <-chan struct{}) error {
	r.mu.Unlock()
	select {
	case <-busy:
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended before the issuer's keys came")
	}
}

// fetchLocked unlocks, fetches, and leaves the outcome in e.
func (r *keyring) fetchLocked(ctx context.Context, id setID, e *keySet) {
	busy := make(chan struct{})
	e.busy = busy
	r.mu.Unlock()
	keys, err := jws.Set{}, error(fault.New(fault.Internal, "the fetch of the issuer's keys was cut off"))
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
	defer cancel()
	doc, fetchErr := r.source.JWKS(ctx, id.issuer, id.uri)
	if fetchErr != nil {
		err = fetchErr
		return
	}
	if keys, err = jws.ParseSet(doc); err != nil {
		err = fault.Wrap(fault.Unauthenticated, err, "the keys of the issuer %s cannot be used", id.issuer)
	}
}

// entryLocked finds or makes the entry. Where there are too many it drops the one that was not used for longest.
func (r *keyring) entryLocked(id setID) *keySet {
	e := r.sets[id]
	if e == nil {
		if len(r.sets) >= maxKeyrings {
			r.evictLocked()
		}
		e = &keySet{}
		r.sets[id] = e
	}
	e.used = r.now()
	return e
}

func (r *keyring) evictLocked() {
	var oldest setID
	var at time.Time
	for id, e := range r.sets {
		if e.busy == nil && (at.IsZero() || e.used.Before(at)) {
			oldest, at = id, e.used
		}
	}
	if !at.IsZero() {
		delete(r.sets, oldest)
	}
}
