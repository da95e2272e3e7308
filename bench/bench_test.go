package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be its own children, as the bench is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childFlag {
		if err := runChild(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestWholeRunOnSQLite(t *testing.T) {
	var out bytes.Buffer
	args := []string{"--engine", "sqlite", "--requests", "120", "--rounds", "2", "--connections", "4", "--json", "--timeout", "2m", "--policies", "principal:2,resource:3", "--dir", t.TempDir()}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, line := range r.Rows {
		names = append(names, line.Name)
		if line.Errors != 0 || line.P99 < line.P50 || line.P50 <= 0 || line.Memory == 0 {
			t.Errorf("row %+v", line)
		}
	}
	if got, want := strings.Join(names, " "), "floor-hello floor-echo vault-hit/sqlite/principal-2 vault-hit/sqlite/resource-3"; got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
}

func TestRunIsBounded(t *testing.T) {
	for _, args := range [][]string{
		{"--requests", "1000001"}, {"--requests", "0"}, {"--rounds", "101"}, {"--connections", "257"}, {"--timeout", "2h"},
		{"--engine", "oracle"}, {"more"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("parse(%q): want an error", args)
		}
	}
	o, err := parse([]string{"--engine", "both"})
	if err != nil || len(o.engines) != 2 || o.connections != 16 {
		t.Errorf("parse = %+v, %v", o, err)
	}
}

// TestErrorsAreCounted: a server that answers one request in ten with an error, and closes the connection then.
func TestErrorsAreCounted(t *testing.T) {
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n++; n%10 == 0 {
			w.Header().Set("Connection", "close")
			http.Error(w, "out of order", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte("hello\n"))
	}))
	defer srv.Close()
	c, err := dial(t.Context(), helloTraffic(strings.TrimPrefix(srv.URL, "http://")), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	w, err := c.send(t.Context(), 100)
	if err != nil || w.requests != 100 || w.errors != 10 || len(w.latencies) != 100 {
		t.Errorf("%d requests, %d errors, %v; want 100 and 10", w.requests, w.errors, err)
	}
	if w.firstErr == nil || !strings.Contains(w.firstErr.Error(), "status 500: out of order") {
		t.Errorf("the first error is %v", w.firstErr)
	}
}

// TestWrongAnswersAreErrors: a 200 that is not what was asked for counts as an error too.
func TestWrongAnswersAreErrors(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("other\n")) }))
	defer srv.Close()
	c, err := dial(t.Context(), helloTraffic(strings.TrimPrefix(srv.URL, "http://")), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if w, err := c.send(t.Context(), 6); err != nil || w.errors != 6 {
		t.Errorf("%d errors, %v; want 6", w.errors, err)
	}
}

func TestAReportWithErrorsFails(t *testing.T) {
	r := &report{Time: time.Now(), Rows: []row{{Name: "floor-hello"}, {Name: "vault-hit/sqlite", Errors: 1}}}
	if err := r.failure(); err == nil || !strings.Contains(err.Error(), "vault-hit/sqlite: 1 requests failed") {
		t.Errorf("failure = %v", err)
	}
	var out bytes.Buffer
	if err := r.write(&out); err != nil || !strings.Contains(out.String(), "CPU-s/1k") {
		t.Errorf("write = %v:\n%s", err, &out)
	}
}
