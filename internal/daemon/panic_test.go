package daemon

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// lines is a log for concurrent use.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// secretive is a value of a panic that would print itself.
type secretive struct{ token string }

func (s secretive) String() string { return s.token }
func (s secretive) Error() string  { return s.token }

// panicking serves a handler that panics with what the path names, behind the wrapper that every request passes.
func panicking(t *testing.T, log *lines, value string) (*Server, *httptest.Server) {
	s := &Server{config: Config{Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, metrics: newMetrics()}
	mux := http.NewServeMux()
	for path, v := range map[string]any{
		"/string": value, "/error": errors.New(value), "/wrapped": fmt.Errorf("x: %w", secretive{value}), "/stringer": secretive{value},
		"/pointer": &secretive{value}, "/map": map[string]string{value: value}, "/abort": http.ErrAbortHandler,
	} {
		mux.HandleFunc(path, func(http.ResponseWriter, *http.Request) { panic(v) })
	}
	mux.HandleFunc("/runtime", func(http.ResponseWriter, *http.Request) {
		var none []string
		none[len(value)] = value
	})
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	srv := httptest.NewUnstartedServer(s.outermost(mux))
	srv.Config.ErrorLog = slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug)
	srv.Start()
	t.Cleanup(srv.Close)
	return s, srv
}

func TestF19_APanicIsOneJSON500(t *testing.T) {
	const value = "canary-9b1d7c52e0f84a36"
	log := &lines{}
	s, srv := panicking(t, log, value)
	for i, path := range []string{"/string", "/error", "/wrapped", "/stringer", "/pointer", "/map", "/runtime"} {
		resp, err := http.Post(srv.URL+path+"?token="+value, "application/json", strings.NewReader(value))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		id := resp.Header.Get("X-Amzn-Requestid")
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
			t.Errorf("%s: request id %q", path, id)
		}
		want := `{"message":"internal error, request id ` + id + `"}`
		if resp.StatusCode != 500 || string(body) != want || resp.Header.Get("X-Amzn-Errortype") != "InternalServerException" ||
			resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %q %v; want 500 %q", path, resp.StatusCode, body, resp.Header, want)
		}
		text := log.take()
		if strings.Contains(text, value) || strings.Contains(fmt.Sprint(resp.Header), value) {
			t.Errorf("%s: the value of the panic is in the log or a header: %s", path, text)
		}
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil || line["level"] != "ERROR" || line["request_id"] != id || !strings.Contains(fmt.Sprint(line["stack"]), "panic_test.go") {
			t.Errorf("%s: want one line with the request id and the stack, got %s", path, text)
		}
		if n := counted(t, s); n != float64(i+1) {
			t.Errorf("%s: %v panics counted, want %d", path, n, i+1)
		}
	}
	resp, err := http.Get(srv.URL + "/ok")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("after the panics: %v", err)
	}
	_ = resp.Body.Close()
}

// counted reads the counter of panics as the admin listener shows it.
func counted(t *testing.T, s *Server) float64 {
	t.Helper()
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tabard_panics_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

// A handler that aborts must not look like one that has finished.
func TestF19_AnAbortEndsTheConnection(t *testing.T) {
	log := &lines{}
	_, srv := panicking(t, log, "")
	resp, err := http.Post(srv.URL+"/abort", "", nil)
	if err == nil {
		_ = resp.Body.Close()
		t.Errorf("answered with %s, want the end of the connection", resp.Status)
	}
	if text := log.take(); text != "" {
		t.Errorf("logged: %s", text)
	}
}
