package oauth_test

import (
	"net/netip"
	"testing"

	"github.com/tabard-id/tabard/internal/oauth"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func checkAddresses(t *testing.T, dev bool, allow []netip.Prefix, want bool, list ...string) {
	t.Helper()
	for _, s := range list {
		err := oauth.CheckAddress(dev, allow, netip.MustParseAddrPort(s))
		if got := err == nil; got != want {
			t.Errorf("dev %v, allow %v, %s: got allowed %v (%v), want %v", dev, allow, s, got, err, want)
		}
	}
}

func TestE01_OnlyPublicAddresses(t *testing.T) {
	checkAddresses(t, false, nil, true, "8.8.8.8:443", "1.1.1.1:8443", "192.0.1.1:443", "100.63.255.255:443", "100.128.0.1:443",
		"172.15.255.255:443", "172.32.0.1:443", "[2606:4700::1111]:443", "[2a00:1450:4001:800::200e]:443", "[2001:4860:4860::8888]:443")
	checkAddresses(t, false, nil, false,
		"127.0.0.1:443", "127.255.255.254:443", "[::1]:443", // loopback
		"0.0.0.0:443", "0.1.2.3:443", "[::]:443", // unspecified
		"10.0.0.1:443", "172.16.0.1:443", "172.31.255.255:443", "192.168.1.1:443", // private
		"100.64.0.1:443", "100.127.255.255:443", // CGNAT
		"169.254.1.1:443", "[fe80::1]:443", "[febf::1]:443", "[fec0::1]:443", // link-local, site-local
		"[fc00::1]:443", "[fdff::1]:443", // unique local
		"224.0.0.1:443", "239.255.255.255:443", "240.0.0.1:443", "255.255.255.255:443", "[ff02::1]:443", // multicast, reserved
		"192.0.2.1:443", "198.51.100.1:443", "203.0.113.1:443", "[2001:db8::1]:443", "[3fff::1]:443", // documentation
		"198.18.0.1:443", "198.19.255.255:443", "[2001:2::1]:443", // benchmarks
		"192.0.0.1:443", "192.88.99.1:443", "[2001:10::1]:443", "[100::1]:443", "[5f00::1]:443", // protocols, discard
	)
}

func TestE01_Ports(t *testing.T) {
	checkAddresses(t, false, nil, false, "8.8.8.8:80", "8.8.8.8:22", "8.8.8.8:8080", "8.8.8.8:65535", "[2606:4700::1111]:6379")
	checkAddresses(t, false, prefixes("8.8.8.8/32"), true, "8.8.8.8:6000")
	checkAddresses(t, true, nil, true, "8.8.8.8:6000", "127.0.0.1:6000")
}

func TestE06_EmbeddedIPv4(t *testing.T) {
	embedded := []string{
		"[::ffff:127.0.0.1]:443", "[::ffff:8.8.8.8]:443", // mapped
		"[::127.0.0.1]:443",                               // compatible
		"[64:ff9b::7f00:1]:443", "[64:ff9b::808:808]:443", // NAT64
		"[64:ff9b:1::a00:1]:443",                       // NAT64, local use
		"[2002:7f00:1::]:443", "[2002:808:808::1]:443", // 6to4
		"[2001:0:4136:e378:8000:63bf:3fff:fdd2]:443",    // Teredo
		"[fe80::1%eth0]:443", "[2606:4700::1111%1]:443", // zones
	}
	checkAddresses(t, false, nil, false, embedded...)
	// A network that has NAT64 opens its range; what the address leads to is still checked.
	nat64 := prefixes("64:ff9b::/96", "2002::/16", "::ffff:0:0/96")
	checkAddresses(t, false, nat64, true, "[64:ff9b::808:808]:443", "[2002:808:808::1]:443")
	checkAddresses(t, false, nat64, false, "[64:ff9b::7f00:1]:443", "[64:ff9b::a9fe:a9fe]:443", "[2002:a00:1::]:443", "[::ffff:10.0.0.1]:443")
}

func TestE09_MetadataServices(t *testing.T) {
	services := []string{"169.254.169.254:443", "[fd00:ec2::254]:443", "169.254.170.2:443", "169.254.170.23:443", "[fd00:ec2::23]:443",
		"[fd20:ce::254]:443", "168.63.129.16:443", "100.100.100.200:443", "192.0.0.192:443"}
	checkAddresses(t, false, nil, false, services...)
	checkAddresses(t, true, prefixes("0.0.0.0/0", "::/0", "169.254.0.0/16", "169.254.169.0/24", "fd00::/8"), false, services...)
	checkAddresses(t, false, prefixes("0.0.0.0/0", "::/0"), false, "[::ffff:169.254.169.254]:443", "[64:ff9b::a9fe:a9fe]:443")
	checkAddresses(t, false, prefixes("169.254.169.254/32", "fd00:ec2::254/128"), true, "169.254.169.254:80", "[fd00:ec2::254]:80")
}

func TestE10_AllowNetworks(t *testing.T) {
	allow := prefixes("10.1.2.3/16", "fd12::/32") // the host bits of the first do not count
	checkAddresses(t, false, allow, true, "10.1.0.1:443", "10.1.255.255:9000", "[fd12::1]:9000")
	checkAddresses(t, false, allow, false, "10.2.0.1:443", "127.0.0.1:443", "[fd13::1]:443", "[fd12::1%eth0]:443")
	checkAddresses(t, true, nil, true, "127.0.0.1:80", "[::1]:80")
	checkAddresses(t, true, nil, false, "10.0.0.1:443", "169.254.1.1:443", "[fe80::1]:443", "0.0.0.0:443")
}
