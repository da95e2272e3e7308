package oauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// account and other are two accounts that call.
const (
	account access.Account = "000000000000"
	other   access.Account = "111111111111"
)

// open is the networks of account.
func open(list ...string) map[access.Account][]netip.Prefix {
	return map[access.Account][]netip.Prefix{account: prefixes(list...)}
}

func newClient(t *testing.T, config oauth.Config) *oauth.Client {
	t.Helper()
	c := oauth.New(config)
	t.Cleanup(c.Close)
	return c
}

// m2m asks for a token of the client itself, at base.
func m2m(t *testing.T, c *oauth.Client, base string) error {
	t.Helper()
	_, err := c.ClientCredentials(t.Context(), broker.Endpoints{Token: base + oauthtest.Token}, provider(base), broker.Vendor{}, clientSecret(), broker.TokenRequest{})
	return err
}

func clientSecret() secret.Text { return secret.New(oauthtest.ClientSecret) }

func provider(base string) broker.Provider {
	return broker.Provider{Account: account, Name: "p", ClientID: oauthtest.ClientID, AuthMethod: broker.AuthBasic, DiscoveryURL: base + oauthtest.Metadata}
}

// names is a resolver whose answer for a name's nth look-up is the nth of its addresses (and then the last).
func names(t *testing.T, answers map[string][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		asked := map[string]int{}
		for b := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(dnsAnswer(b[:n], answers, asked), from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

// dnsAnswer answers one question (RFC 1035 §4.1) for A, and says that there is nothing else.
func dnsAnswer(query []byte, answers map[string][]string, asked map[string]int) []byte {
	var labels []string
	i := 12
	for ; query[i] != 0; i += int(query[i]) + 1 {
		labels = append(labels, string(query[i+1:i+1+int(query[i])]))
	}
	end := i + 5
	name := strings.ToLower(strings.Join(labels, "."))
	out := append([]byte{}, query[:end]...)
	copy(out[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	list := answers[name]
	if binary.BigEndian.Uint16(query[i+1:]) != 1 || len(list) == 0 {
		return out
	}
	address := netip.MustParseAddr(list[min(asked[name], len(list)-1)]).As4()
	asked[name]++
	out[7] = 1
	out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
	return append(out, address[:]...)
}

func upstream(t *testing.T, err error) *broker.UpstreamError {
	t.Helper()
	e, ok := errors.AsType[*broker.UpstreamError](err)
	if !ok {
		t.Fatalf("got %v, want an UpstreamError", err)
	}
	return e
}

// each calls everything that dials: the token endpoint, discovery, and both ways to an issuer's keys.
func each(t *testing.T, c *oauth.Client, base string) map[string]error {
	t.Helper()
	_, metadata := c.Endpoints(t.Context(), provider(base))
	_, keys := c.JWKS(t.Context(), account, base, "")
	_, direct := c.JWKS(t.Context(), account, base, base+oauthtest.JWKS)
	return map[string]error{"token": m2m(t, c, base), "metadata": metadata, "keys": keys, "keys by URI": direct}
}

func TestE01_E02_E10_LoopbackIsReachedOnlyWhenAllowed(t *testing.T) {
	server := oauthtest.NewTLS(t, nil)
	for _, what := range []struct {
		name   string
		config oauth.Config
		want   bool
	}{
		{"by default", oauth.Config{}, false},
		{"another range allowed", oauth.Config{AllowNetworks: open("127.0.0.2/32", "10.0.0.0/8")}, false},
		{"allowed", oauth.Config{AllowNetworks: open("127.0.0.0/8")}, true},
		{"in development", oauth.Config{Dev: true}, true},
	} {
		what.config.RootCAs = server.Roots
		before := server.Hits(oauthtest.Token) + server.Hits(oauthtest.Metadata) + server.Hits(oauthtest.JWKS)
		for call, err := range each(t, newClient(t, what.config), server.URL) {
			if got := err == nil; got != what.want {
				t.Errorf("%s, %s: got %v, want reached %v", what.name, call, err, what.want)
			}
			if err != nil && strings.Contains(fault.Public(err).Msg, "127.0.0") {
				t.Errorf("%s, %s: the public message %q names the address", what.name, call, fault.Public(err).Msg)
			}
		}
		after := server.Hits(oauthtest.Token) + server.Hits(oauthtest.Metadata) + server.Hits(oauthtest.JWKS)
		if got := after > before; got != what.want {
			t.Errorf("%s: the server was reached %v, want %v", what.name, got, what.want)
		}
	}
}

func TestE01_RefusedAddressIsUnsent(t *testing.T) {
	server := oauthtest.NewTLS(t, nil)
	e := upstream(t, m2m(t, newClient(t, oauth.Config{RootCAs: server.Roots}), server.URL))
	if e.Kind != broker.Unsent || e.Description != "" || !strings.Contains(e.Err.Error(), "--allow-network") {
		t.Errorf("got %+v, want Unsent with the reason as private cause", e)
	}
}

func TestE01_PlainHTTPOnlyToLoopbackInDevelopment(t *testing.T) {
	server := oauthtest.New(t)
	for call, err := range each(t, newClient(t, oauth.Config{AllowNetworks: open("127.0.0.0/8")}), server.URL) {
		if err == nil || !strings.Contains(err.Error(), "it is not https") {
			t.Errorf("%s without development: got %v, want a refusal of plain http", call, err)
		}
	}
	dev := newClient(t, oauth.Config{Dev: true})
	for call, err := range each(t, dev, server.URL) {
		if err != nil {
			t.Errorf("%s in development: %v", call, err)
		}
	}
	for call, err := range each(t, dev, "http://idp.example") {
		if err == nil || !strings.Contains(err.Error(), "plain http to another host") {
			t.Errorf("%s by http to a name in development: got %v, want a refusal", call, err)
		}
	}
}

func TestE04_RebindingIsCheckedAtEachConnect(t *testing.T) {
	server := oauthtest.NewTLS(t, nil)
	port := portOf(t, server.URL)
	trap, err := net.Listen("tcp4", "127.0.0.2:"+port)
	if err != nil {
		t.Skip("this system has no 127.0.0.2") // macOS
	}
	defer trap.Close()
	var sprung atomic.Bool
	go func() {
		if conn, err := trap.Accept(); err == nil {
			sprung.Store(true)
			_ = conn.Close()
		}
	}()
	c := newClient(t, oauth.Config{AllowNetworks: open("127.0.0.1/32"), RootCAs: server.Roots})
	c.TestOnlyResolver(names(t, map[string][]string{"example.com": {"127.0.0.1", "127.0.0.2", "10.0.0.1", "169.254.169.254", "127.0.0.1"}}))
	base := "https://example.com:" + port
	for i, want := range []bool{true, false, false, false, true} {
		if err := m2m(t, c, base); (err == nil) != want {
			t.Errorf("request %d: got %v, want success %v", i, err, want)
		}
	}
	if sprung.Load() {
		t.Error("a connection reached the address that the name was rebound to")
	}
}

func TestE07_SpellingsOfLoopback(t *testing.T) {
	server := oauthtest.NewTLS(t, nil)
	c := newClient(t, oauth.Config{RootCAs: server.Roots})
	c.TestOnlyResolver(names(t, map[string][]string{"loop.example.com": {"127.0.0.1"}}))
	for _, host := range []string{"127.0.0.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "127.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]",
		"[::ffff:7f00:1]", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "localhost", "LOCALHOST.", "loop.example.com", "%31%32%37.0.0.1", "0", "0.0.0.0"} {
		for call, err := range each(t, c, "https://"+host+":"+portOf(t, server.URL)) {
			if err == nil {
				t.Errorf("%s at host %q succeeded", call, host)
			}
		}
	}
	if n := server.Hits(oauthtest.Token) + server.Hits(oauthtest.Metadata) + server.Hits(oauthtest.JWKS); n != 0 {
		t.Errorf("the server was reached %d times", n)
	}
}

func TestE05_RedirectsAreNotFollowed(t *testing.T) {
	target, server := oauthtest.New(t), oauthtest.New(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		c := newClient(t, oauth.Config{Dev: true})
		server.Queue(oauthtest.Token, oauthtest.Redirect(status, target.URL+oauthtest.Token))
		e := upstream(t, m2m(t, c, server.URL))
		if e.Kind != broker.Rejected || e.Status != status || !strings.Contains(e.Err.Error(), "redirect") {
			t.Errorf("token endpoint, %d: got %+v, want Rejected", status, e)
		}
		server.Queue(oauthtest.Metadata, oauthtest.Redirect(status, target.URL+oauthtest.Metadata))
		if _, err := c.Endpoints(t.Context(), provider(server.URL)); !errors.Is(err, fault.Invalid) || !strings.Contains(fault.Public(err).Msg, "redirect") {
			t.Errorf("metadata, %d: got %v, want Invalid that says so", status, err)
		}
		server.Queue(oauthtest.JWKS, oauthtest.Redirect(status, server.URL+oauthtest.JWKS))
		if _, err := c.JWKS(t.Context(), account, server.URL, server.URL+oauthtest.JWKS); !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("keys, %d: got %v, want Unauthenticated", status, err)
		}
	}
	if n := target.Hits(oauthtest.Token) + target.Hits(oauthtest.Metadata); n != 0 {
		t.Errorf("the target of the redirects was reached %d times", n)
	}
}

func TestE08_ProxyVariablesAreIgnored(t *testing.T) {
	if os.Getenv("TABARD_TEST_E08") == "" {
		// net/http reads the variables once in a process, so this test has one of its own.
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestE08_ProxyVariablesAreIgnored$", "-test.v")
		child.Env = append(os.Environ(), "TABARD_TEST_E08=1")
		if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestE08") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	var proxied atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		proxied.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(proxy.Close)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	t.Setenv("NO_PROXY", "")
	server := oauthtest.NewTLS(t, nil)
	// net/http never proxies an address of loopback, so the server has a name here.
	base := "https://example.com:" + portOf(t, server.URL)
	server.SetMetadata("issuer", base)
	server.SetMetadata("jwks_uri", base+oauthtest.JWKS)
	c := newClient(t, oauth.Config{AllowNetworks: open("127.0.0.0/8"), RootCAs: server.Roots})
	c.TestOnlyResolver(names(t, map[string][]string{"example.com": {"127.0.0.1"}}))
	for call, err := range each(t, c, base) {
		if err != nil {
			t.Errorf("%s: %v", call, err)
		}
	}
	if proxied.Load() != 0 {
		t.Errorf("the proxy of %s got %d requests", os.Getenv("HTTPS_PROXY"), proxied.Load())
	}
}

func TestE14_CertificatesAreVerified(t *testing.T) {
	now := time.Now()
	expired, expiredRoots := certificate(t, now.Add(-48*time.Hour), now.Add(-24*time.Hour))
	early, earlyRoots := certificate(t, now.Add(24*time.Hour), now.Add(48*time.Hour))
	good, goodRoots := certificate(t, now.Add(-time.Hour), now.Add(time.Hour))
	none := x509.NewCertPool()
	for _, what := range []struct {
		name   string
		tls    *tls.Config
		roots  *x509.CertPool
		host   string
		usable bool
	}{
		{"good", &tls.Config{Certificates: []tls.Certificate{good}}, goodRoots, "127.0.0.1", true},
		{"self-signed, system roots", &tls.Config{Certificates: []tls.Certificate{good}}, nil, "127.0.0.1", false},
		{"unknown authority", &tls.Config{Certificates: []tls.Certificate{good}}, none, "127.0.0.1", false},
		{"wrong host", &tls.Config{Certificates: []tls.Certificate{good}}, goodRoots, "other.example", false},
		{"expired", &tls.Config{Certificates: []tls.Certificate{expired}}, expiredRoots, "127.0.0.1", false},
		{"not yet valid", &tls.Config{Certificates: []tls.Certificate{early}}, earlyRoots, "127.0.0.1", false},
		{"TLS 1.1", &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, goodRoots, "127.0.0.1", false},
		{"TLS 1.2", &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12}, goodRoots, "127.0.0.1", true},
	} {
		server := oauthtest.NewTLS(t, what.tls)
		c := newClient(t, oauth.Config{AllowNetworks: open("127.0.0.0/8"), RootCAs: what.roots, Dev: true})
		c.TestOnlyResolver(names(t, map[string][]string{"other.example": {"127.0.0.1"}}))
		base := "https://" + what.host + ":" + portOf(t, server.URL)
		for call, err := range each(t, c, base) {
			if (err == nil) != what.usable {
				t.Errorf("%s, %s: got %v, want usable %v", what.name, call, err, what.usable)
			}
		}
		if !what.usable {
			if e := upstream(t, m2m(t, c, base)); e.Kind != broker.Unsent {
				t.Errorf("%s: got %+v, want Unsent", what.name, e)
			}
			if n := server.Hits(oauthtest.Token) + server.Hits(oauthtest.Metadata) + server.Hits(oauthtest.JWKS); n != 0 {
				t.Errorf("%s: the server got %d requests", what.name, n)
			}
		}
	}
}

// certificate makes a self-signed certificate for 127.0.0.1 and a pool that trusts it.
func certificate(t *testing.T, from, to time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, IPAddresses: []net.IP{{127, 0, 0, 1}},
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}
