package sidecar_test

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/sidecar"
	"net"
	"syscall"
)

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		setting string
		change  func(*sidecar.Config)
		says    string
	}{
		{"Addr", func(c *sidecar.Config) { c.Addr = ":9000" }, "can be reached from other machines"},
		{"Addr", func(c *sidecar.Config) { c.Addr = "0.0.0.0:9000" }, "can be reached from other machines"},
		{"IdentityAddr", func(c *sidecar.Config) { c.IdentityAddr = "[::]:8081" }, "acts as the agent"},
		{"IdentityAddr", func(c *sidecar.Config) { c.IdentityAddr = "192.168.0.1:8081" }, "acts as the agent"},
		{"IdentityAddr", func(c *sidecar.Config) { c.IdentityAddr = "tabard.example.com:8081" }, "acts as the agent"},
		{"IdentityAddr", func(c *sidecar.Config) { c.IdentityAddr = "8081" }, "not of the form"},
		{"Agent", func(c *sidecar.Config) { c.Agent = "http://10.0.0.1:8080" }, "not http on this machine"},
		{"Agent", func(c *sidecar.Config) { c.Agent = "https://127.0.0.1:8080" }, "not http on this machine"},
		{"Agent", func(c *sidecar.Config) { c.Agent = "http://127.0.0.1:8080/base" }, "nothing more"},
		{"Endpoint", func(c *sidecar.Config) { c.Endpoint = "http://tabard.example.com" }, "in clear"},
		{"Endpoint", func(c *sidecar.Config) { c.Endpoint = "tabard.example.com" }, "nothing more"},
		{"Endpoint", func(c *sidecar.Config) { c.Endpoint = "https://a:b@tabard.example.com" }, "nothing more"},
		{"Workload", func(c *sidecar.Config) { c.Workload = "a/b" }, "no name"},
		{"CallbackURL", func(c *sidecar.Config) { c.CallbackURL = "/connected" }, "no URL"},
		{"CallbackURL", func(c *sidecar.Config) { c.CallbackURL = "https://app.example.com/\r\nX: y" }, "no URL"},
	} {
		config := sidecar.Config{Endpoint: "https://tabard.example.com", Credentials: sidecar.TokenFile("none", ""), Workload: "calendar-agent",
			Log: slog.New(slog.DiscardHandler), Addr: "127.0.0.1:0", IdentityAddr: "127.0.0.1:0"}
		c.change(&config)
		s, err := sidecar.New(t.Context(), config)
		if wrong, ok := errors.AsType[*sidecar.SettingError](err); !ok || wrong.Setting != c.setting || !strings.Contains(wrong.Problem, c.says) {
			t.Errorf("%s: got %v, want %q", c.setting, err, c.says)
		}
		if err == nil {
			s.Close()
		}
	}
}

// An agent of AgentCore's SDK listens on 8080 unless it is told otherwise: that it runs unmodified is the point.
func TestDefaults(t *testing.T) {
	if sidecar.DefaultAgent != "http://127.0.0.1:8080" || sidecar.DefaultAddr != "127.0.0.1:9000" || sidecar.DefaultIdentityAddr != "127.0.0.1:8081" {
		t.Errorf("got %s before %s, and %s", sidecar.DefaultAddr, sidecar.DefaultAgent, sidecar.DefaultIdentityAddr)
	}
}

func TestASidecarDoesNotCallItself(t *testing.T) {
	for range 20 { // somebody else may be given the port meanwhile: then with another
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = sidecar.New(t.Context(), sidecar.Config{Endpoint: "http://" + addr, Credentials: sidecar.TokenFile("none", ""), Workload: "calendar-agent",
			Log: slog.New(slog.DiscardHandler), Addr: "127.0.0.1:0", IdentityAddr: addr})
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if wrong, ok := errors.AsType[*sidecar.SettingError](err); !ok || wrong.Setting != "Endpoint" {
			t.Errorf("got %v, want an error of Endpoint", err)
		}
		return
	}
	t.Error("no port was free twice")
}

// A request that is under way when the sidecar is told to end is answered, and nothing listens afterwards.
func TestRequestsUnderWayFinish(t *testing.T) {
	s := newScene(t)
	arrived, answer := make(chan struct{}), make(chan struct{})
	s.agent.answers(func(w http.ResponseWriter, _ *http.Request) { close(arrived); <-answer })
	done := make(chan reply, 1)
	go func() { done <- s.invoke(alice) }()
	<-arrived
	ended := make(chan struct{})
	go func() { s.stop(); close(ended) }()
	close(answer)
	if got := <-done; got.status != http.StatusOK {
		t.Errorf("got %d", got.status)
	}
	<-ended
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.beside.IdentityURL()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := (&http.Transport{}).RoundTrip(r); err == nil {
		resp.Body.Close()
		t.Error("it still listens")
	}
}

// The log has a line for each request, and nothing of what passed.
func TestTheLogHasNoSecret(t *testing.T) {
	s := newScene(t)
	s.invoke(alice)
	s.invoke("canary.no-jwt")
	s.send(http.MethodGet, s.beside.URL()+"/canary-path?token=canary-query", "", http.Header{"Authorization": {"Bearer " + bob}, "Cookie": {"canary-cookie"}})
	s.identity(forToken, `{"workloadIdentityToken":"canary-body"}`, http.Header{"Authorization": {"canary-signature"}})
	s.identity("/canary-path", "{}", nil)
	s.tabard.answers(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"workloadAccessToken":["canary-broken"]}`))
	})
	s.advance(1e12)
	s.invoke(alice)
	s.stop()
	logged := s.logs.String()
	if n := strings.Count(logged, "\n"); n != 6 {
		t.Errorf("%d lines, want 6:\n%s", n, logged)
	}
	for _, secret := range []string{"canary", podToken, alice} {
		if strings.Contains(logged, secret) {
			t.Errorf("the log has %q:\n%s", secret, logged)
		}
	}
}
