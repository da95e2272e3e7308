package awsapi

import (
	"context"
	"hash/maphash"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/fault"
)

// How many failed authentications are answered with what was wrong: a burst, and so many a second after it. What is
// above is answered with ThrottlingException. Whoever authenticates is never turned away by them.
const (
	clientFailures = 20 // of one access key id
	clientRefill   = 1
	hostFailures   = 100 // from one address, or one IPv6 network of a customer (/64)
	hostRefill     = 5
)

// Admission decides who comes in: it slows down whoever guesses keys (threat A34), and holds each account to its
// requests a second. It is safe for concurrent use, and its memory is bounded.
//
// Security argument: only failures are counted and only failures are throttled, so an attacker who knows somebody's
// access key id cannot lock him out, and requests count against an account only after they were signed for it. The work
// is the same for every key id, known or not.
type Admission struct {
	accounts *accounts.Service
	now      func() time.Time
	failures failures
	rates    rates

	addresses func(netip.Addr) string // what an address counts as, "" for one that is not counted
	strangers Shares                  // of the bytes of requests that are held
	reserve   Shares                  // of those whose sender proved who it is
	proven    proven
}

// NewAdmission returns an Admission. accounts may be nil, in tests: then every account stands and has no quota.
func NewAdmission(a *accounts.Service, now func() time.Time) *Admission {
	out := &Admission{accounts: a, now: now, failures: failures{seed: maphash.MakeSeed()}}
	out.Bound(AdmissionBounds{})
	return out
}

// Admit passes on what an authentication came to. A caller whose account is disabled is Denied, one whose account has
// had its requests of this second is Throttled; a failure stays what it is, unless there were too many: then it is
// Throttled, whatever it was. For a Throttled fault Admit sets Retry-After on w.
func (a *Admission) Admit(w http.ResponseWriter, r *http.Request, caller access.Caller, err error) (access.Caller, error) {
	var wait time.Duration
	if err != nil {
		if wait = a.failed(r, err); wait > 0 {
			err = fault.Wrap(fault.Throttled, err, "too many requests failed to authenticate: try again later")
		}
		caller = access.Caller{}
	} else if wait, err = a.stands(r.Context(), caller.Account); wait > 0 {
		err = fault.New(fault.Throttled, "the account has made its requests of this second: its quota of %s is reached", accounts.RequestsPerSecond)
	}
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	return caller, err
}

// failed counts a failed authentication, and returns how long its client has to wait, or 0.
func (a *Admission) failed(r *http.Request, err error) time.Duration {
	switch code := fault.CodeOf(err); code {
	case fault.SignatureMissing, fault.SignatureInvalid, fault.SignatureUnknown, fault.CredentialsExpired, fault.Unauthenticated, fault.Denied:
	default:
		return 0 // nobody guessed: a malformed header, or the store did not answer
	}
	now := a.now()
	var wait time.Duration
	host, id := a.addressOf(r), claimantOf(r)
	if id == "" {
		id = host
	}
	if id != "" {
		wait = a.failures.add("key "+id, clientFailures, clientRefill, now)
	}
	if host != "" {
		wait = max(wait, a.failures.add("host "+host, hostFailures, hostRefill, now))
	}
	return wait
}

// stands refuses a disabled account, and returns how long one has to wait that asks too often.
func (a *Admission) stands(ctx context.Context, id access.Account) (time.Duration, error) {
	if a.accounts == nil {
		return 0, nil
	}
	if err := a.accounts.Admit(ctx, id); err != nil {
		return 0, err
	}
	q, err := a.accounts.QuotasOf(ctx, id)
	if err != nil || q.RequestsPerSecond == 0 {
		return 0, err
	}
	return a.rates.take(id, q.RequestsPerSecond, a.now()), nil
}

// enter authenticates a request, admits its caller and reads its body. What the head alone proves is verified before
// the body is read, and so is the form of a signature that covers it; a body that is read before its sender is known is
// one that Meter has room for.
func (s *server) enter(w http.ResponseWriter, r *http.Request, v *Verifier, read func() ([]byte, error)) (access.Caller, []byte, error) {
	var unread error
	caller, body, err := s.prove(w, r, v, func() (b []byte, err error) {
		b, unread = read()
		return b, unread
	})
	switch pair := s.admission.pairOf(r); {
	case unread != nil: // says nothing of the caller
	case err == nil && pair != "":
		s.admission.proven.add(pair, caller.Account, s.Now())
	default:
		switch fault.CodeOf(err) {
		case "", fault.Throttled, fault.Limit, fault.Unavailable, fault.Internal: // nor does this
		default:
			w.Header().Set(api.HeaderRefused, api.RefusedCaller)
		}
	}
	return caller, body, err
}

func (s *server) prove(w http.ResponseWriter, r *http.Request, v *Verifier, read func() ([]byte, error)) (access.Caller, []byte, error) {
	caller, rest, err := s.authenticate(r, v)
	early := err == nil && caller.Principal != ""
	if err != nil || early {
		if caller, err = s.admission.Admit(w, r, caller, err); err != nil {
			leaveUnread(w, r)
			return caller, nil, err
		}
		useReserve(r, Holder{Name: "account " + string(caller.Account)})
	} else if pair := s.admission.pairOf(r); pair != "" {
		if account, ok := s.admission.proven.lately(pair, s.Now()); ok {
			// Who is at the address and knows the key's name takes from this part alone.
			useReserve(r, Holder{Name: "account " + string(account), Part: pair})
		}
	}
	body, err := read()
	if err != nil || rest == nil {
		return caller, body, err
	}
	whole, err := rest(body)
	if err != nil || !early {
		caller, err = s.admission.Admit(w, r, whole, err)
	}
	return caller, body, err
}

// claimantOf returns the client that a request claims to come from: the access key id of its signature, or the user of
// its Basic authentication, or "".
func claimantOf(r *http.Request) string {
	header := r.Header.Get("Authorization")
	if _, after, ok := strings.Cut(header, "Credential="); ok {
		id, _, _ := strings.Cut(after, "/")
		return id[:min(len(id), maxAccessKeyID)]
	}
	if user, _, ok := r.BasicAuth(); ok {
		return user[:min(len(user), maxAccessKeyID)]
	}
	return ""
}

// failureSlots is how many clients' failures are told apart. Two that share a slot share their failures: that costs
// them nothing as long as they authenticate.
const failureSlots = 1 << 13

// failures are leaky buckets, one in each slot of a fixed table.
type failures struct {
	seed  maphash.Seed
	slots [failureSlots]struct {
		mu    sync.Mutex // guards what follows
		level float64
		at    time.Time
	}
}

// add pours one failure in, and returns how long the bucket needs until it takes another, or 0 where it took this one.
func (f *failures) add(client string, burst, refill float64, now time.Time) time.Duration {
	slot := &f.slots[maphash.String(f.seed, client)%failureSlots]
	slot.mu.Lock()
	defer slot.mu.Unlock()
	if passed := now.Sub(slot.at).Seconds(); passed > 0 {
		slot.level, slot.at = max(0, slot.level-passed*refill), now
	}
	if slot.level+1 > burst {
		return time.Duration((slot.level + 1 - burst) / refill * float64(time.Second))
	}
	slot.level++
	return 0
}

const (
	rateShards    = 16
	ratesPerShard = 4096 // more accounts than that at once share memory, not limits: one is forgotten and begins anew
)

// rates are the limiters of accounts. The zero rates is ready.
type rates struct{ shards [rateShards]rateShard }

type rateShard struct {
	mu        sync.Mutex // guards byAccount
	byAccount map[access.Account]*rate.Limiter
}

// take takes one request of an account that may make so many a second, and at once as many as in a second. It returns
// how long the account has to wait, or 0 where the request was taken.
func (r *rates) take(account access.Account, perSecond int64, now time.Time) time.Duration {
	l := r.shards[shardOf(account)].limiter(account, perSecond)
	if l.Limit() != rate.Limit(perSecond) { // the quota was changed
		l.SetLimitAt(now, rate.Limit(perSecond))
		l.SetBurstAt(now, int(perSecond))
	}
	reserved := l.ReserveN(now, 1)
	wait := reserved.DelayFrom(now)
	if wait > 0 {
		reserved.CancelAt(now)
	}
	return wait
}

// shardOf uses the last digits, which accounts differ in.
func shardOf(account access.Account) int {
	if account == "" {
		return 0
	}
	return int(account[len(account)-1]) % rateShards
}

func (s *rateShard) limiter(account access.Account, perSecond int64) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.byAccount[account]
	if ok {
		return l
	}
	if s.byAccount == nil {
		s.byAccount = map[access.Account]*rate.Limiter{}
	}
	if len(s.byAccount) >= ratesPerShard {
		for old := range s.byAccount {
			delete(s.byAccount, old)
			break
		}
	}
	l = rate.NewLimiter(rate.Limit(perSecond), int(perSecond))
	s.byAccount[account] = l
	return l
}
