package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/internal/secret"
)

// flooded is a server for which loopback addresses are as remote as any.
type flooded struct {
	*Server
	t *testing.T
}

func newFlooded(t *testing.T, change func(*Config)) *flooded {
	t.Helper()
	c := Config{
		Addr: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "data"), RootAccessKeyID: "TABARDROOT0000000000", RootSecretAccessKey: secret.New(strings.Repeat("s", 40)),
		Admission: Admission{BodyMemoryMiB: 8}, TestOnlyRemote: true,
	}
	change(&c)
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() {
		_ = s.http.Close() // the flood does not end by itself
		stop()
		<-done
	})
	return &flooded{s, t}
}

// withTLS writes a certificate for the test's server.
func withTLS(t *testing.T, c *Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c.TLSCert, c.TLSKey = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for path, block := range map[string]*pem.Block{c.TLSCert: {Type: "CERTIFICATE", Bytes: cert}, c.TLSKey: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// client comes from an address of loopback.
func (f *flooded) client(from string) *http.Client {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	tr := &http.Transport{DialContext: d.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// ask sends a signed request, with or without the hash of its body in the header, and returns the status.
func (f *flooded) ask(c *http.Client, hashed bool) (int, error) {
	const body = "{}"
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.URL()+"/tabard/ListPrincipals", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	if hashed {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	creds := aws.Credentials{AccessKeyID: f.config.RootAccessKeyID, SecretAccessKey: f.config.RootSecretAccessKey.Expose()}
	if err := v4.NewSigner().SignHTTP(f.t.Context(), creds, r, hash, "bedrock-agentcore", "us-east-1", time.Now()); err != nil {
		return 0, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}

// plausible is the head of a request whose signature is well-formed and of a key that exists, and whose body is not its own.
func (f *flooded) plausible() http.Header {
	now := time.Now().UTC().Format("20060102T150405Z")
	return http.Header{
		"Content-Type": {"application/json"}, "X-Amz-Date": {now},
		"Authorization": {fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s/us-east-1/bedrock-agentcore/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=%s",
			f.config.RootAccessKeyID, now[:8], strings.Repeat("0", 64))},
	}
}

// stalled is a body that never ends: all but its last byte come at once.
type stalled struct {
	left int
	done <-chan struct{}
}

func (s *stalled) Read(p []byte) (int, error) {
	if s.left == 0 {
		<-s.done
		return 0, io.EOF
	}
	n := min(len(p), s.left)
	s.left -= n
	return n, nil
}

const floodBody = 500_000

// wantService makes honest calls during a flood, and looks at the memory.
func (f *flooded) wantService(before uint64, throttled *atomic.Int64) {
	f.t.Helper()
	time.Sleep(time.Second)
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if grown := int64(m.HeapAlloc) - int64(before); grown > 50<<20 {
		f.t.Errorf("the flood holds %d MiB", grown>>20)
	}
	for what, from := range map[string]string{"another address": "127.0.0.3", "the address of the flood": "127.0.0.1"} {
		c := f.client(from)
		for i := range 6 {
			start := time.Now()
			status, err := f.ask(c, i%2 == 0)
			if err != nil || status != http.StatusOK || time.Since(start) > 5*time.Second {
				f.t.Errorf("a signed request from %s: status %d, %v, in %s", what, status, err, time.Since(start))
			}
		}
	}
	if throttled.Load() == 0 {
		f.t.Error("nothing of the flood was turned away with Retry-After")
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Three HTTP/2 connections with a hundred requests each that never end cost no more than the bound, and others are served: from
// another address, and from the very same with a key that has proven itself (threats M11, A34).
func TestM11_HTTP2Flood(t *testing.T) {
	f := newFlooded(t, func(c *Config) { withTLS(t, c) })
	if status, err := f.ask(f.client("127.0.0.1"), false); err != nil || status != http.StatusOK {
		t.Fatalf("before the flood: status %d, %v", status, err)
	}
	before := heap()
	done := make(chan struct{})
	var group sync.WaitGroup
	var throttled atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	for range 3 {
		c := f.client("127.0.0.2")
		for range 100 {
			group.Go(func() {
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL()+"/tabard/ListPrincipals", &stalled{floodBody, done})
				if err != nil {
					t.Error(err)
					return
				}
				r.Header, r.ContentLength = f.plausible(), floodBody+1
				resp, err := c.Do(r)
				if err != nil {
					return
				}
				if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" {
					throttled.Add(1)
				}
				_ = resp.Body.Close()
			})
		}
	}
	f.wantService(before, &throttled)
	stop()
	close(done)
	group.Wait()
}

// The same by HTTP/1.1, from the address that the honest client has.
func TestM11_HTTP1Flood(t *testing.T) {
	f := newFlooded(t, func(*Config) {})
	if status, err := f.ask(f.client("127.0.0.1"), false); err != nil || status != http.StatusOK {
		t.Fatalf("before the flood: status %d, %v", status, err)
	}
	before := heap()
	var throttled atomic.Int64
	var conns []net.Conn
	var group sync.WaitGroup
	body := make([]byte, floodBody)
	for range 150 {
		conn, err := net.Dial("tcp", f.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		group.Go(func() {
			var head strings.Builder
			fmt.Fprintf(&head, "POST /tabard/ListPrincipals HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", f.listener.Addr(), floodBody+1)
			_ = f.plausible().Write(&head)
			_, _ = io.WriteString(conn, head.String()+"\r\n")
			go func() { _, _ = conn.Write(body) }()
			answer := make([]byte, 4096)
			n, _ := conn.Read(answer)
			if text := string(answer[:n]); strings.Contains(text, " 429 ") && strings.Contains(text, "Retry-After: ") {
				throttled.Add(1)
			}
		})
	}
	f.wantService(before, &throttled)
	for _, c := range conns {
		_ = c.Close()
	}
	group.Wait()
}

// A signature that cannot be one, and one that the head alone shows to be wrong, is refused before the body comes.
func TestM11_NoBodyIsReadForABadSignature(t *testing.T) {
	f := newFlooded(t, func(*Config) {})
	malformed, wrong := f.plausible(), f.plausible()
	malformed.Set("Authorization", strings.Replace(malformed.Get("Authorization"), "Signature=0", "Signature=", 1))
	wrong.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64))
	wrong.Set("Authorization", strings.Replace(wrong.Get("Authorization"), "host;", "host;x-amz-content-sha256;", 1))
	for name, h := range map[string]http.Header{"malformed": malformed, "wrong": wrong} {
		conn, err := net.Dial("tcp", f.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var head strings.Builder
		fmt.Fprintf(&head, "POST /tabard/ListPrincipals HTTP/1.1\r\nHost: %s\r\nContent-Length: 100000\r\n", f.listener.Addr())
		_ = h.Write(&head)
		_, _ = io.WriteString(conn, head.String()+"\r\n")
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		if err != nil || !strings.Contains(string(answer[:n]), " 403 ") {
			t.Errorf("%s: got %.100q, %v, want 403 though no body was sent", name, answer[:n], err)
		}
	}
}

// One address has a bounded number of connections, and others come in; a trusted proxy has as many as it opens.
func TestM11_Connections(t *testing.T) {
	for name, trusted := range map[string]bool{"an address": false, "a trusted proxy": true} {
		f := newFlooded(t, func(c *Config) {
			c.Admission.ConnectionsPerAddress = 20
			if trusted {
				c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
			}
		})
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		open := 0
		for range 40 {
			conn, err := d.Dial("tcp", f.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
			if n, _ := conn.Read(make([]byte, 1)); n == 1 {
				open++
			}
		}
		if want := map[bool]int{false: 20, true: 40}[trusted]; open != want {
			t.Errorf("%s: %d of 40 connections are open, want %d", name, open, want)
		}
		if resp, err := f.client("127.0.0.3").Get(f.URL() + "/healthz"); err != nil {
			t.Errorf("another address: %v", err)
		} else {
			_ = resp.Body.Close()
		}
	}
}

// What counts as one client: an address, an IPv6 network; not loopback, not a trusted proxy, and nobody where all have the
// proxy's address, which the start warns of.
func TestM11_AddressesThatCount(t *testing.T) {
	plain, behind := Config{}, Config{BehindTLSProxy: true}
	named := Config{BehindTLSProxy: true, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, c := range []struct {
		config     Config
		addr, want string
	}{
		{plain, "203.0.113.9", "203.0.113.9"}, {plain, "2001:db8:1:2:3::4", "2001:db8:1:2::/64"}, {plain, "::ffff:203.0.113.9", "203.0.113.9"},
		{plain, "127.0.0.1", ""}, {plain, "::1", ""}, {behind, "203.0.113.9", ""}, {named, "203.0.113.9", "203.0.113.9"}, {named, "10.1.2.3", ""},
	} {
		if got := c.config.addressOf(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s: counts as %q, want %q", c.addr, got, c.want)
		}
	}
	behind.warnOfAddresses()
	named.warnOfAddresses()
	if len(behind.Warnings) != 1 || !strings.Contains(behind.Warnings[0], "--trusted-proxy") || len(named.Warnings) != 0 {
		t.Errorf("warnings: %q and %q", behind.Warnings, named.Warnings)
	}
}
