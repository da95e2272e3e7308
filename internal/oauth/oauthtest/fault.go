package oauthtest

import (
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
)

// Status answers with a status and a body, and does nothing else.
func Status(status int, body string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // a client that left has its own test
	}
}

// Answer is Status 200.
func Answer(body string) Fault { return Status(http.StatusOK, body) }

// Redirect sends the client to another address.
func Redirect(status int, to string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) { http.Redirect(w, r, to, status) }
}

// Drop takes the grant and resets the connection without an answer.
func Drop() Fault {
	return func(w http.ResponseWriter, r *http.Request, behave http.HandlerFunc) {
		behave(httptest.NewRecorder(), r)
		hangUp(w, nil)
	}
}

// DropHalfway takes the grant and closes the connection in the middle of the answer.
func DropHalfway() Fault {
	return func(w http.ResponseWriter, r *http.Request, behave http.HandlerFunc) {
		behave(httptest.NewRecorder(), r)
		hangUp(w, []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"access_token\":"))
	}
}

// Garbage answers with bytes that are not HTTP.
func Garbage(text string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { hangUp(w, []byte(text)) }
}

func hangUp(w http.ResponseWriter, last []byte) {
	conn, buffer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // only a server without hijacking, which httptest's is not
	}
	_, _ = buffer.Write(last)
	_ = buffer.Flush()
	if tcp, ok := conn.(*net.TCPConn); ok && len(last) == 0 {
		_ = tcp.SetLinger(0) // close by RST
	}
	_ = conn.Close()
}

// Slow takes the grant and answers nothing until release is closed or the client is gone.
func Slow(release <-chan struct{}) Fault {
	return func(w http.ResponseWriter, r *http.Request, behave http.HandlerFunc) {
		recorded := httptest.NewRecorder()
		behave(recorded, r)
		select {
		case <-release:
		case <-r.Context().Done():
			return
		}
		w.WriteHeader(recorded.Code)
		_, _ = w.Write(recorded.Body.Bytes())
	}
}

// Oversized answers with n bytes of JSON.
func Oversized(n int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		_, _ = io.WriteString(w, `{"access_token":"`+strings.Repeat("a", n)+`"}`)
	}
}

// Endless sends chunks for as long as the client reads, and reports how many bytes it sent.
func Endless(sent chan<- int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		chunk, total := []byte(strings.Repeat(" ", 4096)), 0
		for total < 1<<28 {
			n, err := w.Write(chunk)
			total += n
			if err != nil {
				break
			}
		}
		sent <- total
	}
}

// Bomb answers with a gzip stream that is n bytes when unpacked.
func Bomb(n int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.CopyN(z, blanks{}, int64(n))
		_ = z.Close()
	}
}

// blanks is an endless text that JSON ignores.
type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// LongHeader answers with a header of n bytes.
func LongHeader(n int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		for i := range n / 1024 {
			w.Header().Set("X-Long-"+strconv.Itoa(i), strings.Repeat("a", 1024))
		}
		_, _ = io.WriteString(w, "{}")
	}
}
