package e2e_test

import (
	"net/netip"
	"testing"
)

// prefixes parses networks.
func prefixes(t *testing.T, texts []string) []netip.Prefix {
	t.Helper()
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		all[i] = p
	}
	return all
}
