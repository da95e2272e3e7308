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
	"os/exec"
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
	t         *testing.T
	url, addr string
	pid       int // of the server's own process, 0 for one in the test's
}

var floodRoot = secret.New(strings.Repeat("s", 40))

const floodRootID = "TABARDROOT0000000000"

// floodConfig is that of a flooded server in the directory.
func floodConfig(dir string) Config {
	return Config{
		Addr: "127.0.0.1:0", DataDir: filepath.Join(dir, "data"), RootAccessKeyID: floodRootID, RootSecretAccessKey: floodRoot,
		Admission: Admission{BodyMemoryMiB: 8, ConnectionsPerAddress: 700}, TestOnlyRemote: true,
	}
}

func newFlooded(t *testing.T, change func(*Config)) *flooded {
	t.Helper()
	c := floodConfig(t.TempDir())
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
	return &flooded{t: t, url: s.URL(), addr: s.listener.Addr().String()}
}

// floodedDir tells a test binary that it is a flooded server in this directory, and nothing else.
const floodedDir = "TABARD_TEST_FLOODED_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(floodedDir); dir != "" {
		if err := serveFlooded(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveFlooded serves until its input ends. With a certificate in the directory it speaks TLS and HTTP/2.
func serveFlooded(dir string) error {
	c := floodConfig(dir)
	if cert := filepath.Join(dir, "cert"); exists(cert) {
		c.TLSCert, c.TLSKey = cert, filepath.Join(dir, "key")
	}
	s, err := New(context.Background(), c)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(s.URL(), s.listener.Addr())
	return s.Run(context.Background())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// newFloodedProcess is a flooded server in a process of its own, whose memory is nobody else's.
func newFloodedProcess(t *testing.T, http2 bool) *flooded {
	t.Helper()
	dir := t.TempDir()
	if http2 {
		certify(t, dir)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr = append(os.Environ(), floodedDir+"="+dir), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	f := &flooded{t: t, pid: cmd.Process.Pid}
	if _, err := fmt.Fscan(out, &f.url, &f.addr); err != nil {
		t.Fatalf("the server's process: %v", err)
	}
	return f
}

// certify writes a certificate for the test's server.
func certify(t *testing.T, dir string) {
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
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: cert}, "key": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
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
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.url+"/tabard/ListPrincipals", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	if hashed {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	creds := aws.Credentials{AccessKeyID: floodRootID, SecretAccessKey: floodRoot.Expose()}
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

// plausible is the head of a request whose signature is well-formed and names the key, and is not the body's.
func plausible(key string) http.Header {
	now := time.Now().UTC().Format("20060102T150405Z")
	return http.Header{
		"Content-Type": {"application/json"}, "X-Amz-Date": {now},
		"Authorization": {fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s/us-east-1/bedrock-agentcore/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=%s",
			key, now[:8], strings.Repeat("0", 64))},
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

// A flood is requests that never end: so many from each address, with so much of a body.
type flood struct {
	addresses, each, body int
	// full is a flood that leaves no room for those who have not proven who they are.
	full bool
	// named is one that names the very key that was proven from its address.
	named bool
}

func (how flood) head() http.Header {
	if how.named {
		return plausible(floodRootID)
	}
	return plausible("TABARDFLOOD000000000")
}

// From one address little stays for that address, be the bodies long or short. Many addresses together use up all but
// the reserve: of short bodies, since a long one that finds no room in the middle gives back what it has.
var floods = map[string]flood{
	"long bodies of one address":     {addresses: 1, each: 200, body: 500_000},
	"short bodies of one address":    {addresses: 1, each: 600, body: 15_000},
	"short bodies of many addresses": {addresses: 60, each: 12, body: 15_000, full: true},
	"short bodies that name the key": {addresses: 60, each: 12, body: 15_000, full: true, named: true},
}

// address is the nth address that a flood comes from.
func (flood) address(n int) string { return fmt.Sprintf("127.0.1.%d", n+1) }

// open sends one request of a flood, whose body lacks its last byte. It returns whether it was turned away with
// Retry-After.
type open func(ctx context.Context, f *flooded, how flood, c *http.Client, from string) bool

// overHTTP2 sends it as a stream of one of the client's connections.
func overHTTP2(ctx context.Context, f *flooded, how flood, c *http.Client, _ string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+"/tabard/ListPrincipals", &stalled{how.body, ctx.Done()})
	if err != nil {
		return false
	}
	r.Header, r.ContentLength = how.head(), int64(how.body)+1
	resp, err := c.Do(r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != ""
}

// overHTTP1 sends it on a connection of its own.
func overHTTP1(ctx context.Context, f *flooded, how flood, _ *http.Client, from string) bool {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(ctx, "tcp", f.addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var head strings.Builder
	fmt.Fprintf(&head, "POST /tabard/ListPrincipals HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", f.addr, how.body+1)
	_ = how.head().Write(&head)
	_, _ = io.WriteString(conn, head.String()+"\r\n")
	go func() { _, _ = conn.Write(make([]byte, how.body)) }()
	answer := make([]byte, 4096)
	got, _ := conn.Read(answer)
	text := string(answer[:got])
	return strings.Contains(text, " 429 ") && strings.Contains(text, "Retry-After: ")
}

// testFloods makes honest calls while each of the floods runs, and looks at the memory of the server.
func testFloods(t *testing.T, http2 bool, send open) {
	for name, how := range floods {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFloodedProcess(t, http2)
			for _, from := range []string{how.address(0), "127.0.0.9"} { // the key proves itself from these
				if status, err := f.ask(f.client(from), false); err != nil || status != http.StatusOK {
					t.Fatalf("before the flood: status %d, %v", status, err)
				}
			}
			before := f.resident()
			ctx, stop := context.WithCancel(t.Context())
			var group sync.WaitGroup
			var turnedAway atomic.Int64
			for n := range how.addresses {
				var c *http.Client
				for i := range how.each {
					if i%100 == 0 { // no connection has more streams
						c = f.client(how.address(n))
						c.Timeout = 0
					}
					group.Go(func() {
						if send(ctx, f, how, c, how.address(n)) {
							turnedAway.Add(1)
						}
					})
				}
			}
			time.Sleep(2 * time.Second)
			if grown := f.resident() - before; grown > floodMemory {
				t.Errorf("the flood made the server %d MiB larger", grown>>20)
			}
			f.wantService(how)
			// Over HTTP/1.1 a short body is read to its end before the answer is sent, and these have none.
			if turnedAway.Load() == 0 && (http2 || how.body > 16<<10) {
				t.Error("nothing of the flood was turned away with Retry-After")
			}
			stop()
			group.Wait()
		})
	}
}

// floodMemory is what 8 MiB of bodies may cost in all: beside them connections, streams and their goroutines. Without a
// bound the long bodies are 100 MiB.
const floodMemory = 64 << 20

// resident is the server's memory as the kernel counts it (VmRSS), 0 on a system that does not say.
func (f *flooded) resident() int64 {
	f.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.pid))
	if err != nil {
		if runtime.GOOS == "linux" {
			f.t.Fatal(err)
		}
		return 0
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	var kib int64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		f.t.Fatalf("VmRSS: %v", err)
	}
	return kib << 10
}

// wantService makes honest calls during a flood. Wrong signatures with the very key come in between (threat A34).
func (f *flooded) wantService(how flood) {
	f.t.Helper()
	stranger := http.StatusOK
	if how.full {
		stranger = http.StatusTooManyRequests
	}
	guess := plausible(floodRootID)
	guess.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64))
	guess.Set("Authorization", strings.Replace(guess.Get("Authorization"), "host;", "host;x-amz-content-sha256;", 1))
	guesser := f.client(how.address(0))
	// An attacker at the very address who names the very key uses up what is kept for the two, and for nobody else.
	same := http.StatusOK
	if how.named {
		same = http.StatusTooManyRequests
	}
	for i := range 6 {
		for range 10 {
			r, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.url+"/tabard/ListPrincipals", strings.NewReader("{}"))
			if err != nil {
				f.t.Fatal(err)
			}
			r.Header = guess.Clone()
			if resp, err := guesser.Do(r); err != nil {
				f.t.Errorf("a wrong signature: %v", err)
			} else if _ = resp.Body.Close(); resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusTooManyRequests {
				f.t.Errorf("a wrong signature: status %d", resp.StatusCode)
			}
		}
		for _, c := range []struct {
			what, from string
			hashed     bool
			want       int
		}{
			{"a key that is new at its address", fmt.Sprintf("127.0.2.%d", i+1), false, stranger},
			{"a key that is new at its address, whose head proves it", fmt.Sprintf("127.0.3.%d", i+1), true, http.StatusOK},
			{"a key that was proven from its address", "127.0.0.9", false, http.StatusOK},
			{"a key that was proven from an address of the flood", how.address(0), false, same},
			{"one from there whose head proves it", how.address(0), true, http.StatusOK},
		} {
			start := time.Now()
			if status, err := f.ask(f.client(c.from), c.hashed); err != nil || status != c.want || time.Since(start) > 5*time.Second {
				f.t.Errorf("%s (%s): status %d, %v, in %s; want %d", c.what, c.from, status, err, time.Since(start), c.want)
			}
		}
	}
}

// Requests that never end, of one address and of many, cost no more memory than the bound. Others are served: from
// another address as long as only one floods; if many do, those who have proven to have their key from their address,
// which may be one of the flood's, and those whose signature covers the hash of the body (threats M11, A34).
func TestM11_HTTP2Flood(t *testing.T) { testFloods(t, true, overHTTP2) }

func TestM11_HTTP1Flood(t *testing.T) { testFloods(t, false, overHTTP1) }

// A signature that cannot be one, and one that the head alone shows to be wrong, is refused before the body comes.
func TestM11_NoBodyIsReadForABadSignature(t *testing.T) {
	f := newFlooded(t, func(*Config) {})
	malformed, wrong := plausible(floodRootID), plausible(floodRootID)
	malformed.Set("Authorization", strings.Replace(malformed.Get("Authorization"), "Signature=0", "Signature=", 1))
	wrong.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64))
	wrong.Set("Authorization", strings.Replace(wrong.Get("Authorization"), "host;", "host;x-amz-content-sha256;", 1))
	for name, h := range map[string]http.Header{"malformed": malformed, "wrong": wrong} {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var head strings.Builder
		fmt.Fprintf(&head, "POST /tabard/ListPrincipals HTTP/1.1\r\nHost: %s\r\nContent-Length: 100000\r\n", f.addr)
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
			conn, err := d.Dial("tcp", f.addr)
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
		if resp, err := f.client("127.0.0.3").Get(f.url + "/healthz"); err != nil {
			t.Errorf("another address: %v", err)
		} else {
			_ = resp.Body.Close()
		}
	}
}

// What counts as one client: an address, an IPv6 network; not loopback, not a trusted proxy, and nobody where all have
// the proxy's address, which the start warns of.
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
