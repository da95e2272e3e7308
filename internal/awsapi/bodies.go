package awsapi

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// DefaultBodyMemory is how many bytes of requests are held at once where nothing else is said.
const DefaultBodyMemory = 64 << 20

const (
	bodyStep     = 16 << 10 // bytes that are asked for at a time
	reservePart  = 4        // one in so many bytes is the reserve of those who proved who they are
	sharePart    = 4        // nobody holds more than one in so many of the bytes that are free
	busySeconds  = "1"      // Retry-After of a body that found no room
	provenFor    = 15 * time.Minute
	provenPairs  = 1024 // of one account
	provenUpdate = time.Minute
)

// Shares hands out a number of units to holders by name. No holder has more than a quarter of what is free when it
// asks, so a few take less the more they have taken, and whoever comes next finds room. Units without a name are
// bounded in all only.
type Shares struct {
	Total int64

	mu   sync.Mutex // guards what follows
	used int64
	by   map[Holder]int64
}

// Holder is who takes units: by name, and one part of it, which has no more than a quarter of what the holder may have.
// "" is neither counted nor bounded.
type Holder struct{ Name, Part string }

// Take takes n units, or none. most, if it is not 0, bounds the holder besides.
func (s *Shares) Take(h Holder, n, most int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := s.Total - s.used
	if n > free {
		return false
	}
	if has := s.by[Holder{h.Name, ""}] + n; h.Name != "" && (has > max(1, free/sharePart) || most > 0 && has > most) {
		return false
	}
	if h.Part != "" && s.by[h]+n > max(1, free/sharePart/sharePart) {
		return false
	}
	s.addLocked(h, n)
	return true
}

// Give returns what was taken.
func (s *Shares) Give(h Holder, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addLocked(h, -n)
}

func (s *Shares) addLocked(h Holder, n int64) {
	s.used += n
	if s.by == nil {
		s.by = map[Holder]int64{}
	}
	count := func(h Holder) {
		if s.by[h] += n; s.by[h] <= 0 {
			delete(s.by, h)
		}
	}
	if h.Name != "" {
		count(Holder{h.Name, ""})
	}
	if h.Part != "" {
		count(h)
	}
}

// AddressOf returns what an address counts as: itself, or of an IPv6 address the network of a customer (/64), or "" for
// loopback, which is this machine's own and is not counted by address.
func AddressOf(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() {
		return ""
	}
	if a.Is6() {
		if network, err := a.Prefix(64); err == nil {
			return network.String()
		}
	}
	return a.String()
}

// AdmissionBounds are how much is admitted before anybody is known.
type AdmissionBounds struct {
	BodyMemory int64 // bytes of requests that are held at once; 0 means DefaultBodyMemory
	// Addresses returns what an address counts as, "" for one that is not counted. nil means AddressOf.
	Addresses func(netip.Addr) string
}

// Bound sets the bounds. It is called before the first request.
func (a *Admission) Bound(b AdmissionBounds) {
	if b.BodyMemory == 0 {
		b.BodyMemory = DefaultBodyMemory
	}
	if b.Addresses == nil {
		b.Addresses = AddressOf
	}
	a.addresses = b.Addresses
	a.reserve.Total = b.BodyMemory / reservePart
	a.strangers.Total = b.BodyMemory - a.reserve.Total
}

// addressOf returns what the request's address counts as. The daemon has taken it from trusted proxies only (threat
// F18).
func (a *Admission) addressOf(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return a.addresses(at.Addr())
}

// Meter bounds the bytes of requests that are held at once, in all and by address (threat M11): a body is given to next
// no faster than there is room for it, and what next has read counts until it has answered. Where there is no room,
// reading fails with a Throttled fault, and the answer has Retry-After. A head counts likewise, from its first byte
// where there is no body.
func (a *Admission) Meter(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bodyless := r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0
		holder, head := Holder{Name: a.addressOf(r)}, headSteps(r, bodyless)
		if head > 0 {
			if !a.strangers.Take(holder, head, 0) {
				w.Header().Set("Retry-After", busySeconds)
				leaveUnread(w, r)
				writeError(w, r, fault.New(fault.Throttled, "too many requests are being received: try again later"))
				return
			}
			defer a.strangers.Give(holder, head)
		}
		if bodyless {
			next.ServeHTTP(w, r)
			return
		}
		m := &meteredBody{ReadCloser: r.Body, admission: a, answer: w, request: r, pool: &a.strangers, holder: holder}
		defer m.giveBack()
		r.Body = m
		next.ServeHTTP(w, r)
	})
}

// headSteps is what the head of a request counts as: whole steps, and one at least where no body is counted. A probe
// that says no more than it must is not counted.
func headSteps(r *http.Request, bodyless bool) int64 {
	n := int64(len(r.RequestURI))
	for name, values := range r.Header {
		for _, v := range values {
			n += int64(len(name) + len(v))
		}
	}
	if steps := n / bodyStep * bodyStep; steps > 0 || !bodyless || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return steps
	}
	return bodyStep
}

// meteredBody is a request's body that asks for room before it is read.
type meteredBody struct {
	io.ReadCloser
	admission *Admission
	answer    http.ResponseWriter
	request   *http.Request
	pool      *Shares
	holder    Holder
	room      int64 // bytes that may be read until more are asked for
	held      []holding
}

type holding struct {
	pool   *Shares
	holder Holder
	n      int64
}

func (m *meteredBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if m.room == 0 && !m.more() {
		m.answer.Header().Set("Retry-After", busySeconds)
		leaveUnread(m.answer, m.request)
		return 0, fault.New(fault.Throttled, "too many requests are being received: try again later")
	}
	n, err := m.ReadCloser.Read(p[:min(int64(len(p)), m.room)])
	m.room -= int64(n)
	return n, err
}

// leaveUnread has the answer sent at once, and not after the rest of a body that may be long in coming. It ends a
// connection of HTTP/1; in HTTP/2 it is the stream alone that ends.
func leaveUnread(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && (r.ContentLength < 0 || r.ContentLength > bodyStep) {
		w.Header().Set("Connection", "close")
	}
}

// more asks the pool that the request belongs to, and where that is the reserve, then the others'.
func (m *meteredBody) more() bool {
	pools := []*Shares{m.pool, &m.admission.strangers}
	for i, pool := range pools {
		if i > 0 && pool == m.pool {
			break
		}
		if pool.Take(m.holder, bodyStep, 0) {
			m.room = bodyStep
			if n := len(m.held); n > 0 && m.held[n-1].pool == pool && m.held[n-1].holder == m.holder {
				m.held[n-1].n += bodyStep
			} else {
				m.held = append(m.held, holding{pool, m.holder, bodyStep})
			}
			return true
		}
	}
	return false
}

func (m *meteredBody) giveBack() {
	for _, h := range m.held {
		h.pool.Give(h.holder, h.n)
	}
	m.held, m.room = nil, 0
}

// useReserve lets the rest of the body be read from the reserve, on the account of holder.
func useReserve(r *http.Request, holder Holder) {
	if m, ok := r.Body.(*meteredBody); ok {
		m.pool, m.holder = &m.admission.reserve, holder
	}
}

// proven remembers which client proved itself from which address lately: who only knows the name of a key gains nothing
// by it. The zero proven is ready.
type proven struct {
	mu    sync.Mutex // guards what follows
	pairs map[string]proof
	by    map[access.Account][]string // of each account, the oldest first
}

type proof struct {
	account access.Account
	at      time.Time
}

// pairOf is what proven knows a request by, "" where it names no client.
func (a *Admission) pairOf(r *http.Request) string {
	id := claimantOf(r)
	if id == "" {
		return ""
	}
	return id + " " + a.addressOf(r)
}

// lately reports whether the client has proven itself from its address, and of which account it was.
func (p *proven) lately(pair string, now time.Time) (access.Account, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.pairs[pair]
	return e.account, ok && now.Sub(e.at) < provenFor
}

func (p *proven) add(pair string, account access.Account, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.pairs[pair]
	if ok && now.Sub(e.at) < provenUpdate {
		return
	}
	pair = strings.Clone(pair) // not the request's whole header
	if !ok {
		if p.pairs == nil {
			p.pairs, p.by = map[string]proof{}, map[access.Account][]string{}
		}
		mine := p.by[account]
		if len(mine) >= provenPairs {
			delete(p.pairs, mine[0])
			mine = mine[1:]
		}
		p.by[account] = append(mine, pair)
	} else {
		account = e.account
	}
	p.pairs[pair] = proof{account, now}
}
