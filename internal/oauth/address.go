package oauth

import (
	"net/netip"
	"slices"
)

// rules decide which addresses may be connected to.
//
// They see the address that a socket is about to connect to, never a name: so a name that changes its answer between
// a check and a connect (DNS rebinding), and a name that is an odd spelling of an address, change nothing.
type rules struct {
	dev      bool
	allow    []netip.Prefix
	blocked  []netip.Prefix
	metadata []netip.Addr
}

func newRules(dev bool, allow []netip.Prefix) rules {
	r := rules{dev: dev}
	for _, p := range allow {
		r.allow = append(r.allow, p.Masked())
	}
	for _, s := range []string{
		// IPv4: the IANA special-purpose registry (RFC 6890), everything that is not the public internet.
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"224.0.0.0/4", "240.0.0.0/4",
		// IPv6, within 2000::/3 (all outside of it is refused anyway): Teredo and the other protocol assignments,
		// documentation, 6to4.
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	} {
		r.blocked = append(r.blocked, netip.MustParsePrefix(s))
	}
	for _, s := range []string{
		"169.254.169.254", "fd00:ec2::254", // AWS; the first also Google, Azure, Oracle, DigitalOcean, OpenStack
		"169.254.170.2",                  // AWS ECS task credentials
		"169.254.170.23", "fd00:ec2::23", // AWS EKS pod identity
		"fd20:ce::254",    // Google, IPv6
		"168.63.129.16",   // Azure WireServer: a public address
		"100.100.100.200", // Alibaba
		"192.0.0.192",     // Oracle Classic
	} {
		r.metadata = append(r.metadata, netip.MustParseAddr(s))
	}
	return r
}

// refusal is the private cause of a connection that the rules forbid. It names the address: for the operator only.
type refusal struct {
	to  netip.AddrPort
	why string
}

func (e *refusal) Error() string { return "no connection to " + e.to.String() + ": " + e.why }

// check returns a refusal unless to may be connected to. Ports: 443 and 8443, and any port on an address that is
// allowed by name (or of any address in development).
func (r rules) check(to netip.AddrPort) error {
	named, why := r.address(to.Addr())
	switch {
	case why != "":
		return &refusal{to, why}
	case named || r.dev || to.Port() == 443 || to.Port() == 8443:
		return nil
	}
	return &refusal{to, "only ports 443 and 8443, unless --allow-network names the address"}
}

// address reports why a is refused ("" where it is not), and whether --allow-network names it.
func (r rules) address(a netip.Addr) (named bool, why string) {
	if !a.IsValid() || a.Zone() != "" {
		return false, "an address with a zone"
	}
	if r.isMetadata(a) {
		return false, "a cloud's metadata service, which only its very address as --allow-network opens"
	}
	named = slices.ContainsFunc(r.allow, func(p netip.Prefix) bool { return p.Contains(a) })
	switch inner, ok := embedded(a); {
	case named && ok:
		// A range of translated addresses was opened (a network with NAT64): where they lead to counts as well.
		_, why = r.address(inner)
		return true, why
	case named, r.dev && a.IsLoopback(), r.public(a):
		return named, ""
	}
	return false, "not a public address, and --allow-network does not name it"
}

func (r rules) isMetadata(a netip.Addr) bool {
	return slices.Contains(r.metadata, a) && !slices.Contains(r.allow, netip.PrefixFrom(a, a.BitLen()))
}

// public reports whether a is a unicast address of the public internet. An IPv4-mapped one is not: nobody needs it.
func (r rules) public(a netip.Addr) bool {
	if a.Is6() && !netip.MustParsePrefix("2000::/3").Contains(a) {
		return false
	}
	return !slices.ContainsFunc(r.blocked, func(p netip.Prefix) bool { return p.Contains(a) })
}

// embedded returns the IPv4 address that an IPv6 address leads to: mapped and compatible (RFC 4291 §2.5.5), NAT64
// (RFC 6052, RFC 8215) or 6to4 (RFC 3056).
func embedded(a netip.Addr) (netip.Addr, bool) {
	b := a.As16()
	for _, s := range []string{"::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48"} {
		if a.Is6() && prefixOf(s, a) {
			return netip.AddrFrom4([4]byte(b[12:16])), true
		}
	}
	if prefixOf("2002::/16", a) {
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// prefixOf compares bytes, because netip.Prefix.Contains never matches a mapped address.
func prefixOf(s string, a netip.Addr) bool {
	p := netip.MustParsePrefix(s)
	if p.Addr().Is4In6() {
		return a.Is4In6()
	}
	return p.Contains(a)
}
