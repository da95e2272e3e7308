package daemon

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// serveOn makes the HTTP servers. The bounds hold for every client: headers within 10 s and 64 KiB, a request within
// 30 s, an answer within a minute (the longest wait of the core is for another replica's refresh).
func (s *Server) serveOn(handler http.Handler) error {
	c := s.config
	s.http = &http.Server{
		Handler: s.outermost(s.admission.Meter(handler)), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug), // malformed requests: noise, and foreign text
	}
	s.listener = c.bounded(s.listener)
	if c.TLSCert != "" {
		keys := &reloadedKeys{cert: c.TLSCert, key: c.TLSKey}
		if _, err := keys.get(nil); err != nil {
			return err
		}
		s.listener = tls.NewListener(s.listener, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: keys.get, NextProtos: []string{"h2", "http/1.1"}})
		if err := enableHTTP2(s.http); err != nil {
			return err
		}
	}
	if c.AdminAddr == "" {
		return nil
	}
	var err error
	if s.admin, err = net.Listen("tcp", c.AdminAddr); err != nil {
		return err
	}
	s.adminSrv = &http.Server{Handler: s.adminHandler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	return nil
}

// enableHTTP2 bounds what one HTTP/2 connection may ask at once (threat F06); resets and floods are bounded by the
// library, whose version is pinned with Go's.
func enableHTTP2(srv *http.Server) error {
	srv.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 64 << 10, // what no handler has read yet
	}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	return nil
}

// outermost gives each request its correlation id and its client's address, and turns a panic into one logged 500
// (threat F19).
func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var id [16]byte
		_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
		requestID := hex.EncodeToString(id[:])
		r = r.WithContext(access.WithRequestID(r.Context(), requestID))
		r.RemoteAddr = clientAddr(r, s.config.TrustedProxies)
		if ambiguous(r) {
			w.Header().Set("Connection", "close")
		}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v) // net/http ends the connection, so that half an answer is not taken for a whole one
			}
			// The value of a panic may hold anything, so only its type and the stack (which holds no values) are logged.
			s.config.Log.Error("panic", "type", typeName(v), "request_id", requestID, "stack", string(debug.Stack()))
			s.metrics.panics.Inc()
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Amzn-Errortype", "InternalServerException")
			w.Header().Set("X-Amzn-Requestid", requestID)
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(`{"message":"internal error, request id ` + requestID + `"}`))
		}()
		next.ServeHTTP(w, r)
	})
}

// ambiguous reports whether a proxy in front may see another end of this request than we do, so that nothing after it
// on the connection may be answered (RFC 9112 §6.1, threat F03). net/http takes Transfer-Encoding over a Content-Length
// beside it, and drops it from HTTP/1.0, without a trace: so every chunked body and all of HTTP/1.0 count.
func ambiguous(r *http.Request) bool { return len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) }

// clientAddr is the address of the client: the peer's, unless the peer is a trusted proxy; then the last address in
// X-Forwarded-For that is not a trusted proxy's own.
func clientAddr(r *http.Request, trusted []netip.Prefix) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !within(peer.Addr(), trusted) {
		return r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := strings.TrimSpace(hops[i])
		a, err := netip.ParseAddr(strings.Trim(hop, "[]"))
		if err != nil {
			var at netip.AddrPort // some proxies add the port
			if at, err = netip.ParseAddrPort(hop); err != nil {
				break
			}
			a = at.Addr()
		}
		a = a.WithZone("") // a zone means something on one machine only, and may be any text
		if !within(a, trusted) {
			return netip.AddrPortFrom(a, 0).String()
		}
	}
	return r.RemoteAddr
}

func within(a netip.Addr, nets []netip.Prefix) bool {
	a = a.Unmap()
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// reloadedKeys serves a certificate from files and reads them again when they change.
type reloadedKeys struct {
	cert, key string

	mu      sync.Mutex // guards what follows
	read    time.Time
	changed time.Time
	current *tls.Certificate
}

// get returns the certificate. It looks at the file's time at most once a second; a pair that does not load (a renewal
// in progress) leaves the old one in use.
func (k *reloadedKeys) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil && time.Since(k.read) < time.Second {
		return k.current, nil
	}
	k.read = time.Now()
	info, err := os.Stat(k.cert)
	if err == nil && k.current != nil && info.ModTime().Equal(k.changed) {
		return k.current, nil
	}
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(k.cert, k.key); err == nil {
			k.current, k.changed = &pair, info.ModTime()
		}
	}
	if k.current != nil {
		return k.current, nil
	}
	return nil, err
}

// TuneMemory lets the garbage collector run a quarter as often as Go's default, unless GOGC says otherwise. A server's
// live heap is some ten megabytes, which by default means a collection every few hundred requests. It is for the main
// function of a process that serves and does nothing else.
func TuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
