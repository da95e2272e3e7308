package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tabard-id/tabard/internal/daemon"
)

// certify writes a self-signed certificate for 127.0.0.1 with its key.
func certify(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600),
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// newTLS starts a server that speaks TLS.
func newTLS(t *testing.T) (w *world, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certify(t, cert, key, 1)
	return newBare(t, daemon.SQLite, func(c *daemon.Config) { c.TLSCert, c.TLSKey = cert, key }), cert, key
}

// handshake connects. The certificate is not the subject here, the serial number is its name.
func handshake(t *testing.T, w *world, c *tls.Config) *tls.Conn {
	t.Helper()
	c.InsecureSkipVerify = true
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", strings.TrimPrefix(w.server.URL(), "https://"), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestTLSCertificateIsReadAgain(t *testing.T) {
	w, cert, key := newTLS(t)
	serial := func() int64 {
		return handshake(t, w, &tls.Config{}).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Fatalf("certificate %d, want 1", n)
	}
	certify(t, cert, key, 2)
	if !eventually(4*time.Second, func() bool { return serial() == 2 }) {
		t.Fatal("the new certificate is not used")
	}
	if err := os.WriteFile(cert, []byte("half a renewal"), 0o600); err != nil {
		t.Fatal(err)
	}
	if eventually(1200*time.Millisecond, func() bool { return serial() != 2 }) { // the files are looked at once a second
		t.Error("a broken file changed the certificate")
	}
	old, err := tls.Dial("tcp", strings.TrimPrefix(w.server.URL(), "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11})
	if err == nil {
		_ = old.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

// stream is a connection that speaks HTTP/2.
type stream struct {
	*http2.Framer
	settings map[http2.SettingID]uint32 // the server's
	resets   atomic.Int64               // streams that the server has refused or ended
	ended    chan struct{}              // closed with the connection
}

// h2 opens a connection and reads until it ends.
func h2(t *testing.T, w *world) *stream {
	t.Helper()
	conn := handshake(t, w, &tls.Config{NextProtos: []string{"h2"}})
	if p := conn.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Fatalf("negotiated %q, want h2", p)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	fr := &stream{Framer: http2.NewFramer(conn, conn), settings: map[http2.SettingID]uint32{}, ended: make(chan struct{})}
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	first, err := fr.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	err = first.(*http2.SettingsFrame).ForeachSetting(func(s http2.Setting) error {
		fr.settings[s.ID] = s.Val
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(fr.ended)
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if _, reset := f.(*http2.RSTStreamFrame); reset {
				fr.resets.Add(1)
			}
		}
	}()
	return fr
}

// alive asks the server for its health on a connection of its own.
func alive(t *testing.T, w *world) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", w.server.URL()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatalf("the server does not answer: %v", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("the server answers %s %d", resp.Proto, resp.StatusCode)
	}
}

func headers(extra ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/identities/GetWorkloadAccessToken"},
	}, extra...) {
		_ = enc.WriteField(f) // a bytes.Buffer takes everything
	}
	return b.Bytes()
}

func TestF06_HTTP2StreamsAreLimited(t *testing.T) {
	w, _, _ := newTLS(t)
	fr := h2(t, w)
	if n, told := fr.settings[http2.SettingMaxConcurrentStreams]; !told || n == 0 || n > 100 {
		t.Errorf("%d concurrent streams are allowed (told: %v), want at most 100", n, told)
	}
	if n, told := fr.settings[http2.SettingMaxHeaderListSize]; !told || n > 128<<10 {
		t.Errorf("a header list of %d bytes is allowed (told: %v)", n, told)
	}
	// Bodies that never come keep streams open: those above the limit are refused, and others are still answered.
	for i := range uint32(400) {
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: headers(), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
	}
	alive(t, w)
	if !eventually(2*time.Second, func() bool { return fr.resets.Load() >= 300 }) {
		t.Errorf("of 400 open streams %d were refused, want 300", fr.resets.Load())
	}
}

func TestF06_HTTP2RapidReset(t *testing.T) {
	w, _, _ := newTLS(t)
	fr := h2(t, w)
	began := time.Now()
	sent := 0
	for i := range uint32(5000) {
		err := errors.Join(
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: headers(), EndHeaders: true, EndStream: true}),
			fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		if err != nil {
			break
		}
		sent++
	}
	alive(t, w)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%d streams that were reset at once held the server up for %v", sent, took)
	}
	select {
	case <-fr.ended: // the library ends a connection that it is not able to follow
	case <-time.After(100 * time.Millisecond):
	}
	alive(t, w)
}

func TestF06_HTTP2ContinuationFlood(t *testing.T) {
	w, _, _ := newTLS(t)
	fr := h2(t, w)
	if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers(), EndStream: true}); err != nil {
		t.Fatal(err)
	}
	fragment := headers(hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 10<<10), Sensitive: true})[60:]
	before, sent := allocated(), 0
	for ; sent < 256<<20; sent += len(fragment) {
		if fr.WriteContinuation(1, false, fragment) != nil {
			break
		}
	}
	if sent >= 256<<20 {
		t.Error("256 MiB of CONTINUATION frames were taken")
	}
	if grown := allocated() - before; grown > 32<<20 {
		t.Errorf("%d MiB were allocated for them", grown>>20)
	}
	<-fr.ended
	alive(t, w)
}

func TestF06_HPACKBomb(t *testing.T) {
	w, _, _ := newTLS(t)
	fr := h2(t, w)
	// One entry of almost 4 KiB goes into the table, and each byte after it stands for the whole entry.
	block := headers(hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 3<<10)})
	block = append(block, bytes.Repeat([]byte{0x80 | 62}, 15000-len(block))...)
	before := allocated()
	for i := range uint32(20) {
		if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true, EndStream: true}) != nil {
			break
		}
	}
	alive(t, w)
	if grown := allocated() - before; grown > 64<<20 {
		t.Errorf("300 KB of headers cost %d MiB", grown>>20)
	}
}
