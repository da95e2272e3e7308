package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tabard-id/tabard/internal/sink"
)

// sinkHealth adds the sinks to the detailed health. A sink that fails does not make the server unready: releases go on.
func (s *Server) sinkHealth(parts map[string]string) {
	for i, one := range s.audit.sinks {
		name := fmt.Sprintf("audit sink %d (%s)", i+1, one.Sink.Name())
		lag, _, err := one.State()
		parts[name] = "ok, " + lag.Round(time.Second).String() + " behind"
		if err != nil {
			parts[name] = err.Error()
		}
	}
}

// openSinks makes a Streamer for each setting audit-sink.
func (s *Server) openSinks() error {
	for _, target := range s.config.AuditSinks {
		to, err := s.openSink(target)
		if err != nil {
			return fmt.Errorf("audit-sink: %w", err)
		}
		one := sink.New(sink.Config{Store: s.db, Sink: to, Now: s.config.Now, Changed: func(name string, err error) {
			if err != nil {
				s.config.Log.Error("an audit sink does not take records: they wait in the database", "sink", name, "error", err)
				return
			}
			s.config.Log.Info("an audit sink takes records again", "sink", name)
		}})
		s.audit.sinks = append(s.audit.sinks, one)
		s.audit.close = append(s.audit.close, to.Close)
		labels := prometheus.Labels{"sink": strconv.Itoa(len(s.audit.sinks)), "kind": to.Name()}
		gauge := func(name, help string, value func() float64) {
			s.metrics.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
		}
		gauge("tabard_audit_sink_lag_seconds", "Age of the oldest record that the sink has not been given.", func() float64 {
			lag, _, _ := one.State()
			return lag.Seconds()
		})
		gauge("tabard_audit_sink_up", "Whether the sink takes records.", func() float64 {
			if _, _, err := one.State(); err != nil {
				return 0
			}
			return 1
		})
	}
	return nil
}

// openSink reads file:/path?max-mb=100&keep=10, syslog+unix:///dev/log, syslog+udp://, syslog+tcp://,
// syslog+tls://host:port or https://host/path. Errors do not repeat the target: it may hold what nobody should see.
func (s *Server) openSink(target string) (sink.Sink, error) {
	u, err := url.Parse(target)
	if err != nil || u.User != nil {
		return nil, errors.New("is file:/path, syslog+unix:///dev/log, syslog+udp|tcp|tls://host:port or https://host/path, without a user")
	}
	roots, err := s.sinkRoots()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	network, isSyslog := strings.CutPrefix(u.Scheme, "syslog+")
	switch {
	case u.Scheme == "file":
		return fileSink(u)
	case u.Scheme == "https" && u.Host != "" || u.Scheme == "http" && s.config.Dev:
		return s.httpSink(target, dialer, roots)
	case !isSyslog:
		return nil, fmt.Errorf("of the kind %q: there are file, syslog+unix, syslog+udp, syslog+tcp, syslog+tls and https", u.Scheme)
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-"
	}
	to := &sink.Syslog{Target: target, Host: host, Now: s.config.Now, Datagram: network == "udp" || network == "unix"}
	switch network {
	case "udp", "tcp":
		to.Dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, network, u.Host) }
	case "tls":
		secure := &tls.Dialer{NetDialer: dialer, Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}}
		to.Dial = func(ctx context.Context) (net.Conn, error) { return secure.DialContext(ctx, "tcp", u.Host) }
	case "unix":
		to.Dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "unixgram", u.Path) }
	default:
		return nil, fmt.Errorf("of the kind %q: syslog goes over unix, udp, tcp or tls", u.Scheme)
	}
	return to, nil
}

func fileSink(u *url.URL) (sink.Sink, error) {
	path, q := u.Path, u.Query()
	if path == "" {
		path = u.Opaque
	}
	f := sink.NewFile(path)
	for name, set := range map[string]func(int64){"max-mb": func(n int64) { f.Max = n << 20 }, "keep": func(n int64) { f.Keep = int(n) }} {
		if q.Get(name) == "" {
			continue
		}
		n, err := strconv.ParseInt(q.Get(name), 10, 32)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s of a file is a number above 0", name)
		}
		set(n)
	}
	if path == "" {
		return nil, errors.New("a file has no path")
	}
	return f, nil
}

// sinkRoots are the certificate authorities of audit-sink-ca-file, nil for the system's.
func (s *Server) sinkRoots() (*x509.CertPool, error) {
	if s.config.AuditSinkCAFile == "" {
		return nil, nil
	}
	doc, err := os.ReadFile(s.config.AuditSinkCAFile)
	if err != nil {
		return nil, fmt.Errorf("audit-sink-ca-file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(doc) {
		return nil, errors.New("audit-sink-ca-file holds no certificate")
	}
	return roots, nil
}

// httpSink posts with a client of its own: the target is the operator's, so it may be in a private network, where the
// guarded dialer for providers does not go.
func (s *Server) httpSink(target string, dialer *net.Dialer, roots *x509.CertPool) (sink.Sink, error) {
	client := &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	tokenFile := s.config.AuditSinkTokenFile
	return &sink.HTTPS{URL: target, Post: func(ctx context.Context, to string, body []byte) (int, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
		if err != nil {
			return 0, err
		}
		r.Header.Set("Content-Type", "application/jsonl")
		if tokenFile != "" { // read each time: it may be rotated
			token, err := os.ReadFile(tokenFile)
			if err != nil {
				return 0, fmt.Errorf("audit-sink-token-file: %w", err)
			}
			r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		}
		resp, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // what it says is of no interest
		return resp.StatusCode, resp.Body.Close()
	}}, nil
}
