package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
)

// wire is a raw connection to the server.
type wire struct {
	t *testing.T
	net.Conn
}

func (w *world) dial() wire {
	w.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.server.URL(), "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return wire{w.t, c}
}

// tell writes a text. The server may close before it has read all of it.
func (c wire) tell(text string) { _, _ = io.WriteString(c.Conn, text) }

// answers reads responses until the server closes the connection, or says nothing for a while: then closed is false.
func (c wire) answers() (statuses []int, closed bool) {
	c.t.Helper()
	r := bufio.NewReader(c.Conn)
	for {
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			c.t.Fatal(err)
		}
		if _, err := r.Peek(1); err != nil {
			return statuses, !isTimeout(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			c.t.Fatalf("after %v: %v", statuses, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			c.t.Fatal(err)
		}
		statuses = append(statuses, resp.StatusCode)
	}
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// TestF03_RequestSmuggling sends what two servers in a row may read differently. Whatever is done with the first
// request, what hides behind it is never answered, and the connection ends.
func TestF03_RequestSmuggling(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	const (
		hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
		start  = "POST /identities/GetWorkloadAccessToken HTTP/1.1\r\nHost: x\r\n"
	)
	tests := map[string]string{
		"CL and TE":                 start + "Content-Length: " + strconv.Itoa(5+len(hidden)) + "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE and CL":                 start + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n23\r\n" + hidden + "\r\n0\r\n\r\n" + hidden,
		"two CL":                    start + "Content-Length: 0\r\nContent-Length: " + strconv.Itoa(len(hidden)) + "\r\n\r\n" + hidden,
		"a list of CL":              start + "Content-Length: 0, " + strconv.Itoa(len(hidden)) + "\r\n\r\n" + hidden,
		"negative CL":               start + "Content-Length: -1\r\n\r\n" + hidden,
		"CL with a sign":            start + "Content-Length: +0\r\n\r\n" + hidden,
		"CL in hexadecimal":         start + "Content-Length: 0x0\r\n\r\n" + hidden,
		"CL out of range":           start + "Content-Length: 18446744073709551616\r\n\r\n" + hidden,
		"CL with a space before":    start + "Content-Length : " + strconv.Itoa(len(hidden)) + "\r\n\r\n" + hidden,
		"TE with a space before":    start + "Transfer-Encoding : chunked\r\nContent-Length: " + strconv.Itoa(5+len(hidden)) + "\r\n\r\n0\r\n\r\n" + hidden,
		"TE xchunked":               start + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE identity":               start + "Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n" + hidden,
		"TE twice":                  start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
		"TE a list":                 start + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE with a tab":             start + "Transfer-Encoding:\tchunked\r\nContent-Length: " + strconv.Itoa(5+len(hidden)) + "\r\n\r\n0\r\n\r\n" + hidden,
		"TE with a vertical tab":    start + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE in HTTP/1.0":            strings.Replace(start, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + hidden,
		"obs-fold of TE":            start + "Transfer-Encoding:\r\n chunked\r\nContent-Length: " + strconv.Itoa(5+len(hidden)) + "\r\n\r\n0\r\n\r\n" + hidden,
		"bare CR in a value":        start + "X-A: b\rTransfer-Encoding: chunked\r\n\r\n" + hidden,
		"bare CR ends the header":   start + "X-A: b\r\rGET /healthz HTTP/1.1\rHost: x\r\r\r\n\r\n",
		"NUL in a value":            start + "X-A: b\x00c\r\n\r\n" + hidden,
		"NUL in a name":             start + "X-\x00A: b\r\n\r\n" + hidden,
		"no colon":                  start + "X-A\r\n\r\n" + hidden,
		"empty name":                start + ": b\r\n\r\n" + hidden,
		"space in the target":       "GET /healthz HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
		"no host":                   "GET /healthz HTTP/1.1\r\n\r\n" + hidden,
		"two hosts":                 "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + hidden,
		"HTTP/1.1 as 2.0":           "GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n" + hidden,
		"HTTP/2 preface in clear":   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden,
		"a chunk size overflows":    start + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + hidden,
		"a chunk size in decimal":   start + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + hidden,
		"a chunk extension":         start + "Transfer-Encoding: chunked\r\n\r\n0;a=\"\r\n" + hidden + "\"\r\n\r\n",
		"a bare LF in an extension": start + "Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n22\r\n\r\n0\r\n\r\n" + hidden,
		"a chunk without its end":   start + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc0\r\n\r\n" + hidden,
		"a trailer":                 start + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: " + strconv.Itoa(len(hidden)) + "\r\n\r\n" + hidden,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			c := w.dial()
			c.t = t
			c.tell(text)
			statuses, closed := c.answers()
			if len(statuses) > 1 || len(statuses) == 1 && statuses[0]/100 == 2 {
				t.Errorf("answered with %v, want one refusal", statuses)
			}
			if !closed {
				t.Errorf("the connection is open after %v", statuses)
			}
		})
	}
}

// RFC 9112 lets a server take LF as the end of a line (§2.2) and a folded line as one with a space (§5.2), and net/http
// does. Then the one reading is that of the RFC: the length that was given is the body's.
func TestF03_LenientFormsHaveOneReading(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	const hidden = "GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n"
	for name, header := range map[string]string{
		"LF alone":               "POST /healthz HTTP/1.1\nHost: x\nContent-Length: %d\n\n",
		"obs-fold":               "POST /healthz HTTP/1.1\r\nHost: x\r\nX-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n",
		"obs-fold of the length": "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n %d\r\n\r\n",
	} {
		c := w.dial()
		c.tell(fmt.Sprintf(header, len(hidden)) + hidden)
		if statuses, _ := c.answers(); len(statuses) != 1 || statuses[0]/100 == 2 {
			t.Errorf("%s: answered with %v, want one refusal", name, statuses)
		}
	}
}

func TestF01_DeclaredLengthIsRefusedEarly(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	c := w.dial()
	began := time.Now()
	c.tell("POST /identities/GetWorkloadAccessToken HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n{")
	statuses, closed := c.answers()
	if len(statuses) != 1 || statuses[0] != http.StatusRequestEntityTooLarge {
		t.Errorf("answered with %v, want 413", statuses)
	}
	if !closed || time.Since(began) > 3*time.Second {
		t.Errorf("closed %v after %v, want it closed at once", closed, time.Since(began))
	}
	r := w.request(root(), "POST", "/identities/GetWorkloadAccessToken", strings.Repeat("x", 512<<10+1))
	if got := do(t, r); got.status != http.StatusRequestEntityTooLarge || got.header.Get("X-Amzn-Errortype") != "RequestEntityTooLargeException" {
		t.Errorf("a body one byte too long: %d %s", got.status, got.body)
	}
	if got := w.post(root(), "GetWorkloadAccessToken", `{"workloadName":"nobody"}`+strings.Repeat(" ", 512<<10-25)); got.status != http.StatusNotFound {
		t.Errorf("a body that just fits: %d %s", got.status, got.body)
	}
}

func TestF01_EndlessChunksAreCutAndCostNoMemory(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	now := time.Now().UTC().Format("20060102T150405Z")
	// A signature of the right form: without one the body is not looked at.
	head := "POST /identities/GetWorkloadAccessToken HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
	signed := head + "X-Amz-Date: " + now + "\r\nAuthorization: AWS4-HMAC-SHA256 Credential=TABARDX/" + now[:8] +
		"/us-east-1/bedrock-agentcore/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0", 64) + "\r\n\r\n"
	c := w.dial()
	c.tell(signed)
	chunk := []byte("10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n")
	before := allocated()
	sent := 0
	for ; sent < 1<<30; sent += len(chunk) {
		if _, err := c.Write(chunk); err != nil {
			break
		}
	}
	if sent >= 64<<20 {
		t.Errorf("the server took %d MiB of an endless body", sent>>20)
	}
	if grown := allocated() - before; grown > 16<<20 {
		t.Errorf("it allocated %d MiB for it", grown>>20)
	}
	c = w.dial()
	c.tell(head + "\r\n" + string(chunk))
	if statuses, _ := c.answers(); len(statuses) != 1 || statuses[0] != http.StatusForbidden {
		t.Errorf("64 KiB without a signature: %v, want 403", statuses)
	}
	c = w.dial()
	c.tell(signed + strings.Repeat(string(chunk), 9) + "0\r\n\r\n")
	if statuses, _ := c.answers(); len(statuses) != 1 || statuses[0] != http.StatusRequestEntityTooLarge {
		t.Errorf("576 KiB in chunks: %v, want 413", statuses)
	}
}

// allocated is all that this process, the server in it, has ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestF01_HugeHeadersAre431(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	var many bytes.Buffer
	for i := range 5000 {
		fmt.Fprintf(&many, "X-%d: %s\r\n", i, strings.Repeat("b", 20))
	}
	for name, text := range map[string]string{
		"one huge header":     "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("b", 200<<10) + "\r\n\r\n",
		"many headers":        "GET /healthz HTTP/1.1\r\nHost: x\r\n" + many.String() + "\r\n",
		"a huge address":      "GET /healthz?" + strings.Repeat("b", 200<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"a name without end":  "GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("b", 200<<10),
		"a method that is it": strings.Repeat("G", 200<<10) + " / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c := w.dial()
		c.tell(text)
		if statuses, closed := c.answers(); len(statuses) != 1 || statuses[0] != http.StatusRequestHeaderFieldsTooLarge || !closed {
			t.Errorf("%s: %v, closed %v; want 431 and the end", name, statuses, closed)
		}
	}
}
