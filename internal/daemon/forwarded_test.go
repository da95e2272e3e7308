package daemon

import (
	"net/http"
	"net/netip"
	"testing"
)

// F18: the address that a trusted proxy adds is read as proxies write it, with a port and in brackets too: one that is
// not read would be the proxy's own, for which nothing is bounded (M11).
func TestF18_AddressesAsProxiesWriteThem(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for header, want := range map[string]string{
		"198.51.100.7":                          "198.51.100.7:0",
		"198.51.100.7:50123":                    "198.51.100.7:0",
		"[2001:db8::7]:50123":                   "[2001:db8::7]:0",
		"[2001:db8::7]":                         "[2001:db8::7]:0",
		"2001:db8::7":                           "[2001:db8::7]:0",
		"203.0.113.9, 198.51.100.7:1, 10.0.0.3": "198.51.100.7:0",
		"203.0.113.9, unknown":                  "10.0.0.2:1234",
		"203.0.113.9, 198.51.100.7:":            "10.0.0.2:1234",
		"":                                      "10.0.0.2:1234",
	} {
		r := &http.Request{RemoteAddr: "10.0.0.2:1234", Header: http.Header{"X-Forwarded-For": {header}}}
		if got := clientAddr(r, trusted); got != want {
			t.Errorf("%q: got %s, want %s", header, got, want)
		}
	}
}
