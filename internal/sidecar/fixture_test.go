package sidecar_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/sidecar"
)

const (
	podToken = "eyJhbGciOiJSUzI1NiJ9.canary-of-the-pod.c2ln"
	alice    = "eyJhbGciOiJSUzI1NiJ9.canary-of-alice.c2ln"
	bob      = "eyJhbGciOiJSUzI1NiJ9.canary-of-bob.c2ln"
)

// asked is a request that a peer got.
type asked struct {
	path   string
	header http.Header
	body   string
}

// peer is a fake on loopback that keeps what it was asked.
type peer struct {
	*httptest.Server
	mu     sync.Mutex // guards the rest
	got    []asked
	answer http.HandlerFunc // nil answers as a peer does that is content
}

func (p *peer) last(t *testing.T) asked {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.got) == 0 {
		t.Fatal("nobody asked")
	}
	return p.got[len(p.got)-1]
}

func (p *peer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got)
}

func (p *peer) answers(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = h
}

func newPeer(t *testing.T, usual http.HandlerFunc) *peer {
	p := &peer{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := usual
		p.mu.Lock()
		if p.answer != nil {
			answer = p.answer
		}
		p.mu.Unlock()
		body, _ := io.ReadAll(r.Body) // a test reads what came
		p.mu.Lock()
		p.got = append(p.got, asked{r.URL.Path, r.Header.Clone(), string(body)})
		p.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// buffer is a bytes.Buffer for concurrent use.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// scene is a sidecar between a fake agent and a fake Tabard.
type scene struct {
	t             *testing.T
	agent, tabard *peer
	beside        *sidecar.Sidecar
	logs          *buffer
	tokenFile     string
	mu            sync.Mutex // guards ahead
	ahead         time.Duration
	stop          func()
}

func (s *scene) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

func (s *scene) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

func newScene(t *testing.T, change ...func(*sidecar.Config)) *scene {
	t.Helper()
	s := &scene{t: t, logs: &buffer{}, tokenFile: filepath.Join(t.TempDir(), "token")}
	s.project(podToken)
	s.agent = newPeer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") })
	s.tabard = newPeer(t, s.mint)
	c := sidecar.Config{Endpoint: s.tabard.URL, Credentials: sidecar.TokenFile(s.tokenFile, ""), Workload: "calendar-agent", Log: slog.New(slog.NewJSONHandler(s.logs, nil)),
		Addr: "127.0.0.1:0", IdentityAddr: "127.0.0.1:0", Agent: s.agent.URL, Now: s.now}
	for _, f := range change {
		f(&c)
	}
	beside, err := sidecar.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.beside = beside
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- beside.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// mint answers as Tabard does: a token for the user, of which there is a new one each time.
func (s *scene) mint(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		return
	}
	n := s.tabard.count()
	_ = json.NewEncoder(w).Encode(map[string]any{"workloadAccessToken": "canary-wat-" + string(rune('a'+n)), "expiresAt": s.now().Add(15 * time.Minute).Unix()})
}

func (s *scene) project(token string) {
	s.t.Helper()
	if err := os.WriteFile(s.tokenFile, []byte(token), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// reply is an answer, read.
type reply struct {
	status int
	header http.Header
	body   string
}

// send sends a request with exactly these header fields.
func (s *scene) send(method, url, body string, header http.Header) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for name, v := range header {
		r.Header[name] = v
	}
	if host := header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(got)}
}

// invoke sends a request to the agent, as a user's client does.
func (s *scene) invoke(jwt string, header ...http.Header) reply {
	s.t.Helper()
	h := http.Header{}
	for _, more := range header {
		for name, v := range more {
			h[name] = v
		}
	}
	if jwt != "" {
		h.Set("Authorization", "Bearer "+jwt)
	}
	return s.send(http.MethodPost, s.beside.URL()+"/invocations", `{"prompt":"book"}`, h)
}

// identity sends an identity call, as the agent's SDK does.
func (s *scene) identity(path, body string, header http.Header) reply {
	s.t.Helper()
	return s.send(http.MethodPost, s.beside.IdentityURL()+path, body, header)
}

// refusingUs answers an exception of Tabard's that is about who asks.
func refusingUs(status int, exception, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Tabard-Refused", "caller")
		refusing(status, exception, message)(w, r)
	}
}

// refusing answers an exception of Tabard's.
func refusing(status int, exception, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Amzn-Errortype", exception)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
	}
}
