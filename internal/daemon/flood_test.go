package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
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
