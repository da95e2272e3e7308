// Package oauth talks to OAuth providers and identity providers: it is the only package that dials an address which
// somebody else can influence.
//
// Security argument: every connection passes one dialer, which checks the address that is connected to at the moment
// of each attempt (see rules). Nothing follows a redirect, reads a proxy variable, or skips certificate verification;
// everything ends after ten seconds and after a bounded number of bytes. A grant (code, refresh token) is written to
// at most one connection, once, and every failure says whether it may have arrived. What a provider answers is
// foreign text: parsed strictly, bounded, cleaned, and never part of an error as it came.
package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	totalTimeout  = 10 * time.Second // connect, send, headers and body together
	dialTimeout   = 5 * time.Second
	maxDocument   = 1 << 20  // bytes of metadata or keys, after decompression
	maxAnswer     = 64 << 10 // bytes of a token endpoint's answer, after decompression
	maxHeader     = 64 << 10 // bytes of an answer's header
	maxHostConns  = 32       // at one time, so that one slow provider does not take every socket
	defaultAgent  = "tabard" // User-Agent
	maxURLLength  = 2048     // of any address we are given or discover
	mediaTypeJSON = "application/json"
	mediaTypeForm = "application/x-www-form-urlencoded"
)

// Config is what a Client may do. The zero Config reaches the public internet by https and nothing else.
type Config struct {
	// AllowNetworks are address ranges that are reached although they are not public, on any port. A metadata service
	// is reached only where a range is exactly its address.
	AllowNetworks []netip.Prefix
	// Dev also allows loopback addresses, plain http to loopback, and any port.
	Dev bool
	// RootCAs are trusted for TLS; nil means the system's.
	RootCAs *x509.CertPool
	// Now is the clock for caches; nil means time.Now.
	Now func() time.Time
	// UserAgent is sent with every request; "" means "tabard".
	UserAgent string
}

// Client implements broker.Upstream and identity.KeySource. It is safe for concurrent use.
type Client struct {
	dev     bool
	now     func() time.Time
	agent   string
	rules   rules
	timeout time.Duration // totalTimeout; only tests change it

	resolver  *net.Resolver   // nil is the system's; only tests set it
	documents *http.Transport // GETs of metadata and keys: connections are reused
	tokens    *http.Transport // POSTs of grants: a connection each
	metadata  *metadataCache
}

// New returns a Client.
func New(config Config) *Client {
	c := &Client{
		dev:     config.Dev,
		now:     config.Now,
		agent:   config.UserAgent,
		rules:   newRules(config.Dev, config.AllowNetworks),
		timeout: totalTimeout,
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.agent == "" {
		c.agent = defaultAgent
	}
	c.metadata = newMetadataCache(c.now, c.fetchMetadata)
	c.documents = c.transport(config.RootCAs)
	// A connection that was kept alive may have been closed by the server a moment ago. A request written to it is
	// lost, but we could not tell that from a provider that took it and died: a refresh token would count as spent.
	// A handshake for each grant is cheaper than a user's consent.
	c.tokens = c.transport(config.RootCAs)
	c.tokens.DisableKeepAlives = true
	return c
}

// Close closes idle connections. Calls in progress go on.
func (c *Client) Close() {
	c.documents.CloseIdleConnections()
	c.tokens.CloseIdleConnections()
}

func (c *Client) transport(roots *x509.CertPool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // HTTP/2 re-sends a request by itself after GOAWAY, and a grant must not be sent twice
	return &http.Transport{
		Proxy:                  nil, // HTTPS_PROXY and its kin would go round the rules
		DialContext:            c.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  totalTimeout,
		MaxResponseHeaderBytes: maxHeader,
		MaxConnsPerHost:        maxHostConns,
		MaxIdleConnsPerHost:    2,
		MaxIdleConns:           64,
		IdleConnTimeout:        30 * time.Second,
		Protocols:              protocols,
	}
}

// dial connects to the first address of the name that answers. Each attempt asks the rules, in control.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, Resolver: c.resolver, Control: c.control}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &meteredConn{Conn: conn}, nil
}

func (c *Client) control(network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") {
		return fmt.Errorf("no connection by %s to %q", network, address)
	}
	return c.rules.check(to)
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
