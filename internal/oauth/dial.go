// Package oauth talks to OAuth providers and identity providers: it is the only package that dials an address which
// somebody else can influence.
//
// Security argument: every connection is dialed for one account, by one function, which checks the address that is
// connected to at the moment of each attempt, by that account's rules (see rules). Accounts share no connection, no
// bound and no document. Nothing follows a redirect, reads a proxy variable, or skips certificate verification;
// everything ends after ten seconds and after a bounded number of bytes. A grant (code, refresh token) is written to at
// most one connection, once, and every failure says whether it may have arrived. What a provider answers is foreign
// text: parsed strictly, bounded, cleaned, and never part of an error as it came.
package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

const (
	totalTimeout  = 10 * time.Second // connect, send, headers and body together
	dialTimeout   = 5 * time.Second
	maxDocument   = 1 << 20  // bytes of metadata or keys, after decompression
	maxAnswer     = 64 << 10 // bytes of a token endpoint's answer, after decompression
	maxHeader     = 64 << 10 // bytes of an answer's header
	maxHostConns  = 32       // of one account at one time, so that one slow provider does not take every socket
	defaultAgent  = "tabard" // User-Agent
	maxURLLength  = 2048     // of any address we are given or discover
	mediaTypeJSON = "application/json"
	mediaTypeForm = "application/x-www-form-urlencoded"
)

// Config is what a Client may do. The zero Config reaches the public internet by https and nothing else.
type Config struct {
	// AllowNetworks are, by account, the address ranges that its calls reach although they are not public, on any port. A
	// metadata service is reached only where a range is exactly its address.
	AllowNetworks map[access.Account][]netip.Prefix
	// Dev also allows loopback addresses, plain http to loopback, and any port.
	Dev bool
	// RootCAs are trusted for TLS; nil means the system's.
	RootCAs *x509.CertPool
	// Now is the clock for caches; nil means time.Now.
	Now func() time.Time
	// UserAgent is sent with every request; "" means "tabard".
	UserAgent string
}

// Client implements broker.Upstream and identity.KeySource. It is safe for concurrent use. It dials nothing itself: the
// outbound of an account does.
type Client struct {
	dev     bool
	now     func() time.Time
	agent   string
	roots   *x509.CertPool
	allow   map[access.Account][]netip.Prefix
	timeout time.Duration // totalTimeout; only tests change it

	resolver *net.Resolver // nil is the system's; only tests set it

	mu       sync.Mutex // guards what follows
	accounts map[access.Account]*outbound
	swept    time.Time // when what is idle was last dropped
}

// New returns a Client.
func New(config Config) *Client {
	c := &Client{
		dev: config.Dev, now: config.Now, agent: config.UserAgent, roots: config.RootCAs, allow: config.AllowNetworks,
		timeout: totalTimeout, accounts: map[access.Account]*outbound{},
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.agent == "" {
		c.agent = defaultAgent
	}
	return c
}

// meteredConn knows whether bytes were written, exactly: seal stops all writing before it answers.
type meteredConn struct {
	net.Conn
	mu      sync.Mutex // guards the rest
	written int64      // bytes handed to the system, or about to be
	sealed  bool
}

func (m *meteredConn) Write(b []byte) (int, error) {
	m.mu.Lock()
	if m.sealed {
		m.mu.Unlock()
		return 0, net.ErrClosed
	}
	m.written += int64(len(b))
	m.mu.Unlock()
	return m.Conn.Write(b)
}

func (m *meteredConn) count() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written
}

// seal makes every later Write fail, and returns how many bytes were written before.
func (m *meteredConn) seal() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sealed = true
	return m.written
}

// metered finds the meteredConn under c, or nil.
func metered(c net.Conn) *meteredConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	m, _ := c.(*meteredConn)
	return m
}

// cause is what may be kept of a failed exchange. net/http quotes a malformed answer in its error, and an answer may
// hold a token; so only errors that are known to name addresses and reasons pass.
func cause(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return unreached(e)
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no complete answer in time")
	}
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection was closed before a complete answer")
	}
	return fmt.Errorf("the exchange failed (%T)", err)
}
