package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

// metrics are counted always and shown on the admin listener. No label has an id of a user, agent or request.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	audited  *prometheus.CounterVec
	panics   prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tabard_request_duration_seconds", Help: "Duration of API requests.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"route", "status"}),
		audited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tabard_audit_records_total", Help: "Audit records committed, by action, decision and outcome.",
		}, []string{"action", "decision", "outcome"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "tabard_panics_total", Help: "Requests that ended in a panic."}),
	}
	m.registry.MustRegister(m.requests, m.audited, m.panics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// request observes one API request.
func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Observe(took.Seconds())
}

// count wraps a log so that each committed record is counted: refreshes by outcome among them.
func (m *metrics) count(log access.Log) access.Log { return countedLog{log, m.audited} }

type countedLog struct {
	access.Log
	audited *prometheus.CounterVec
}

// Append implements access.Log.
func (l countedLog) Append(ctx context.Context, batch []access.Record) error {
	if err := l.Log.Append(ctx, batch); err != nil {
		return err
	}
	for _, r := range batch {
		decision := "deny"
		if r.Allow {
			decision = "allow"
		}
		l.audited.WithLabelValues(string(r.Action), decision, r.Facts.Outcome).Inc()
	}
	return nil
}

// adminHandler serves metrics, pprof and detailed health, on a loopback listener of its own.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /health", s.health)
	return ownPagesOnly(mux)
}

// ownPagesOnly refuses what a page elsewhere can make a browser on this machine send: a request under a name that is
// not this machine's (DNS rebinding), and one of another origin (threat M17).
func ownPagesOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		site := r.Header.Get("Sec-Fetch-Site")
		if !identity.IsLoopback(host) || r.Header.Get("Origin") != "" || site != "" && site != "none" && site != "same-origin" {
			plain(w, http.StatusForbidden, "the admin listener answers on loopback names, and no page of another origin")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// health says which part is not well, and why.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	status, parts := http.StatusOK, map[string]string{}
	for name, check := range map[string]func(context.Context) error{"key": s.vault.Ready, "store": s.db.Ping} {
		parts[name] = "ok"
		if err := check(ctx); err != nil {
			status, parts[name] = http.StatusServiceUnavailable, err.Error()
		}
	}
	s.sinkHealth(parts)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(parts) // the peer went away
}

func typeName(v any) string { return fmt.Sprintf("%T", v) }
