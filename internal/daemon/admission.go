package daemon

import (
	"net"
	"net/netip"
	"sync"

	"github.com/tabard-id/tabard/internal/awsapi"
)

// byAddress reports whether clients can be told apart by their addresses: not behind a proxy that is not named, whose
// address all of them have.
func (c Config) byAddress() bool { return !c.BehindTLSProxy || len(c.TrustedProxies) > 0 }

// addressOf returns what an address counts as, or "" for one that is not counted: loopback, a trusted proxy, and any
// where clients cannot be told apart.
func (c Config) addressOf(a netip.Addr) string {
	switch {
	case !c.byAddress() || within(a, c.TrustedProxies):
		return ""
	case c.TestOnlyRemote && a.Unmap().IsLoopback():
		return a.String()
	}
	return awsapi.AddressOf(a)
}

// warnOfAddresses says so where nothing is bounded by address.
func (c *Config) warnOfAddresses() {
	if !c.byAddress() {
		c.Warnings = append(c.Warnings, "all clients have the proxy's address, so nothing is bounded by address: name the proxy's network with --trusted-proxy")
	}
}

// bounded returns the listener with the bounds on connections.
func (c Config) bounded(l net.Listener) net.Listener {
	total, each := c.Admission.Connections, c.Admission.ConnectionsPerAddress
	if total == 0 {
		total = 4096
	}
	if each == 0 {
		each = 256
	}
	if total < 0 {
		total = maxBound
	}
	return &boundedListener{Listener: l, shares: awsapi.Shares{Total: total}, each: max(0, each), config: c}
}

// boundedListener closes connections for which there is no room (threat M11). Connections of trusted proxies are not
// counted: they carry those of everybody.
type boundedListener struct {
	net.Listener
	shares awsapi.Shares
	each   int64
	config Config
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			return conn, nil
		}
		at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err == nil && within(at.Addr(), l.config.TrustedProxies) {
			return conn, nil
		}
		var holder awsapi.Holder
		if err == nil {
			holder.Name = l.config.addressOf(at.Addr())
		}
		if !l.shares.Take(holder, 1, l.each) {
			_ = conn.Close() // there is no room to say why
			continue
		}
		return &countedConn{TCPConn: tcp, give: sync.OnceFunc(func() { l.shares.Give(holder, 1) })}, nil
	}
}

// countedConn gives its place back when it is closed. It keeps CloseWrite, without which net/http would reset
// connections whose client is still sending.
type countedConn struct {
	*net.TCPConn
	give func()
}

func (c *countedConn) Close() error {
	c.give()
	return c.TCPConn.Close()
}
