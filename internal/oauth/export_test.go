package oauth

import (
	"net"
	"net/netip"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/secret"
)

// CheckAddress asks the rules about an address and port.
func CheckAddress(dev bool, allow []netip.Prefix, to netip.AddrPort) error {
	return newRules(dev, allow).check(to)
}

// TestOnlyResolver replaces the system's resolver.
func (c *Client) TestOnlyResolver(r *net.Resolver) { c.resolver = r }

// TestOnlyTimeout replaces the ten seconds.
func (c *Client) TestOnlyTimeout(d time.Duration) { c.timeout = d }

// Classify reads an answer of a token endpoint.
func Classify(status int, body []byte, v broker.Vendor, sent ...secret.Text) (broker.Grant, error) {
	return classify(answer{status: status, body: body}, v, sent)
}

// ParseCatalogue reads a catalogue's data.
func ParseCatalogue(data string) (*Catalogue, error) { return parseCatalogue(data) }

// CatalogueJSON is the embedded data.
func CatalogueJSON() string { return catalogueJSON }

// Metered wraps conn as the dialer does; seal stops its writing and returns how many bytes were written.
func Metered(conn net.Conn) (metered net.Conn, seal func() int64) {
	m := &meteredConn{Conn: conn}
	return m, m.seal
}

// Pools returns how many accounts have connections of their own, and Accounts how many are remembered at all.
func (c *Client) Pools() (pools, accounts int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.accounts {
		if o.pool != nil {
			pools++
		}
	}
	return pools, len(c.accounts)
}
