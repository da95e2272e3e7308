package e2e_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// exchange is one request and its answer as a relay saw them.
type exchange struct {
	request     *http.Request
	requestBody string
	status      int
	header      http.Header
	body        string
}

// relay stands in front of a server, passes everything on and shows it to the test. It can answer in the server's
// place.
type relay struct {
	URL string

	mu      sync.Mutex // guards what follows
	target  string     // scheme://host of the server
	observe func(exchange)
	instead []http.HandlerFunc // answers for the next requests, in place of the server's; the body has been read
}

// newRelay starts a relay on loopback. It ends with the test.
func newRelay(t *testing.T, target string, observe func(exchange)) *relay {
	t.Helper()
	r := &relay{target: target, observe: observe}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.URL = s.URL
	return r
}

// to names the server, where that was not known at the start.
func (r *relay) to(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// answer has the next requests answered in the server's place.
func (r *relay) answer(instead ...http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instead = append(r.instead, instead...)
}

// unused returns how many answers were not asked for.
func (r *relay) unused() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.instead)
}

func (r *relay) next() (target string, instead http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.instead) > 0 {
		instead = r.instead[0]
		r.instead = r.instead[1:]
	}
	return r.target, instead
}

// ServeHTTP implements http.Handler.
func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		http.Error(w, "relay: "+err.Error(), http.StatusBadGateway)
		return
	}
	target, instead := r.next()
	x := exchange{request: req, requestBody: string(body)}
	if instead != nil {
		rec := httptest.NewRecorder()
		req.Body = io.NopCloser(bytes.NewReader(body))
		instead(rec, req)
		x.status, x.header, x.body = rec.Code, rec.Header(), rec.Body.String()
	} else {
		out, err := http.NewRequestWithContext(req.Context(), req.Method, target+req.RequestURI, bytes.NewReader(body))
		if err != nil {
			http.Error(w, "relay: "+err.Error(), http.StatusBadGateway)
			return
		}
		out.Header = req.Header.Clone()
		resp, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			http.Error(w, "relay: "+err.Error(), http.StatusBadGateway)
			return
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			http.Error(w, "relay: "+err.Error(), http.StatusBadGateway)
			return
		}
		x.status, x.header, x.body = resp.StatusCode, resp.Header, string(answer)
	}
	r.observe(x)
	for name, values := range x.header {
		w.Header()[name] = values
	}
	w.Header().Del("Content-Length")
	w.WriteHeader(x.status)
	_, _ = io.WriteString(w, x.body) // the client may have gone
}
