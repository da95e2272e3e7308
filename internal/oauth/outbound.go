package oauth

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// poolIdle is how long an account's connections are kept after its last call. It is longer than any call takes, so
// what is dropped is not in use.
const poolIdle = time.Minute

// outbound is what the calls of one account go through: what they may reach, the connections, and the documents that
// were read. There is no other way out, so no call is without an account.
type outbound struct {
	*Client
	rules    rules
	metadata *metadataCache

	// Guarded by Client.mu.
	pool *pool // nil while the account is idle
	used time.Time
}

// pool is the connections of one account.
type pool struct {
	documents *http.Transport // GETs of metadata and keys: connections are reused
	tokens    *http.Transport // POSTs of grants: a connection each
}

// of returns what the account's calls go through.
func (c *Client) of(account access.Account) (*outbound, error) {
	if !account.Valid() {
		return nil, fault.New(fault.Internal, "a call to another host for no account")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.swept).Abs() >= poolIdle {
		c.swept = now
		c.dropIdleLocked(now)
	}
	o := c.accounts[account]
	if o == nil {
		o = &outbound{Client: c, rules: newRules(c.dev, c.allow[account])}
		o.metadata = newMetadataCache(c.now, o.fetchMetadata)
		c.accounts[account] = o
	}
	o.used = now
	return o, nil
}

// dropIdleLocked forgets connections of accounts that make no calls, and in the end their documents, which are of no
// use any more then.
func (c *Client) dropIdleLocked(now time.Time) {
	for account, o := range c.accounts {
		idle := now.Sub(o.used).Abs()
		if idle >= poolIdle && o.pool != nil {
			o.pool.close()
			o.pool = nil
		}
		if idle >= metadataStale {
			delete(c.accounts, account)
		}
	}
}

// Close closes idle connections. Calls in progress go on.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.accounts {
		if o.pool != nil {
			o.pool.close()
		}
	}
}

// connections returns the account's pool.
func (o *outbound) connections() *pool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pool == nil {
		o.pool = o.newPool()
	}
	return o.pool
}

func (o *outbound) newPool() *pool {
	p := &pool{documents: o.transport(), tokens: o.transport()}
	// A connection that was kept alive may have been closed by the server a moment ago. A request written to it is
	// lost, but we could not tell that from a provider that took it and died: a refresh token would count as spent.
	// A handshake for each grant is cheaper than a user's consent.
	p.tokens.DisableKeepAlives = true
	return p
}

func (p *pool) close() {
	p.documents.CloseIdleConnections()
	p.tokens.CloseIdleConnections()
}

func (o *outbound) transport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // HTTP/2 re-sends a request by itself after GOAWAY, and a grant must not be sent twice
	return &http.Transport{
		Proxy:                  nil, // HTTPS_PROXY and its kin would go round the rules
		DialContext:            o.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.roots},
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
func (o *outbound) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, Resolver: o.resolver, Control: o.control}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &meteredConn{Conn: conn}, nil
}

func (o *outbound) control(network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") {
		return fmt.Errorf("no connection by %s to %q", network, address)
	}
	return o.rules.check(to)
}
