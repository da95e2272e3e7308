package daemon_test

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/daemon"
)

// E10: a private network is opened to one account: to the installation's own, unless another is named.
func TestE10_NetworksNameTheirAccount(t *testing.T) {
	want := map[access.Account][]netip.Prefix{
		"":             {netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd12::/32")},
		"111122223333": {netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("10.3.0.0/16")},
	}
	given := "10.1.2.3/16, 111122223333=10.2.0.0/16, fd12::/32, 111122223333=10.3.0.0/16"
	flag := load(t, daemon.Sources{Flags: map[string]string{"allow-network": given}})
	inFile := load(t, daemon.Sources{File: file(t, "allow-network: [10.1.2.3/16, 111122223333=10.2.0.0/16, \"fd12::/32\", 111122223333=10.3.0.0/16]")})
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	for from, c := range map[string]daemon.Config{"flag": flag, "file": inFile} {
		if diff := cmp.Diff(want, c.AllowNetworks, same); diff != "" {
			t.Errorf("by the %s:\n%s", from, diff)
		}
	}
	for _, wrong := range []string{"1111=10.0.0.0/8", "=10.0.0.0/8", "*=10.0.0.0/8", "111122223333=", "111122223333=10.0.0.1", "111122223333"} {
		refusedBy(t, daemon.Sources{Flags: map[string]string{"allow-network": wrong}}, "allow-network", "is not a network")
	}
	refusedBy(t, daemon.Sources{Flags: map[string]string{"trusted-proxy": "111122223333=10.0.0.0/8"}}, "trusted-proxy", "is not a network")

	var out strings.Builder
	srv, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "data"), AllowNetworks: want, Account: "444455556666", Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	for _, line := range []string{"account 444455556666 may be in 10.1.0.0/16 fd12::/32", "account 111122223333 may be in 10.2.0.0/16 10.3.0.0/16"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the start says\n%s\nwant %q in it", out.String(), line)
		}
	}
}
