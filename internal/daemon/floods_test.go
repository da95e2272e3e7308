//go:build !race

// The race detector multiplies the memory that is measured here, so these tests are not for it.

package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
					client := c
					group.Go(func() {
						if send(ctx, f, how, client, how.address(n)) {
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
