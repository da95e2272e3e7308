// Command bench measures what the server costs: CPU-seconds per 1,000 requests, and the ratio of that to a bare
// net/http answer measured in the same run. README.md in this directory says how to read it.
//
// It starts itself again, once for each process whose CPU time is counted apart: the two floors, the server on each
// engine, and PostgreSQL. The load generator is the first process, whose CPU time is nobody's. Everything listens on
// 127.0.0.1 and ends with the first process, however that ends.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	engines     []string
	policies    []policies // a server of its own for each, on each engine
	requests    int        // of a workload, in one round
	rounds      int
	connections int
	postgresURL string // empty: a cluster of its own
	dir         string // where the databases are; empty: a temporary directory
	profile     string // directory for profiles; empty: none
	asJSON      bool
	timeout     time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 2 && args[0] == childFlag {
		return runChild(ctx, args[1], os.Stdin, out)
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after %s (--timeout)", o.timeout))
	defer cancel()
	rep, err := measure(ctx, o)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	if o.asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(rep)
	} else {
		err = rep.write(out)
	}
	return errors.Join(err, rep.failure())
}

// The bounds of one run: it is a measurement, not a stress test.
const (
	maxRequests    = 1_000_000
	maxRounds      = 100
	maxConnections = 256
)

func parse(args []string) (options, error) {
	var o options
	var engine, written string
	var noAudit bool
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&engine, "engine", "both", "sqlite, postgres or both")
	fs.BoolVar(&noAudit, "no-audit", false, "measure a server without an audit trail too; there is no such setting of the product")
	fs.StringVar(&written, "policies", "", "policies of the account, as FORM:NUMBER,...: a server for each; the forms are principal and resource (default: one policy, the agent's own)")
	fs.IntVar(&o.requests, "requests", 20_000, "requests of the workload in one round; each floor gets three times as many")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds; in each, the floors and the workload take turns")
	fs.IntVar(&o.connections, "connections", 16, "keep-alive connections, each with one request at a time")
	fs.StringVar(&o.postgresURL, "postgres-url", "", "a PostgreSQL server on this machine whose role may create databases (default: start one)")
	fs.StringVar(&o.dir, "dir", "", "directory for the databases, which go at the end (default: a temporary one); what disk it is on matters")
	fs.StringVar(&o.profile, "profile", "", "directory to write CPU and allocation profiles of the server to, from a round of its own at the end")
	fs.BoolVar(&o.asJSON, "json", false, "write the report as JSON")
	fs.DurationVar(&o.timeout, "timeout", 10*time.Minute, "bound on the whole run")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.policies, err = parsePolicies(written); err != nil {
		return o, err
	}
	if noAudit {
		o.policies = append(o.policies, policies{noAudit: true})
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("unknown argument %q", fs.Arg(0))
	case engine == "both":
		o.engines = []string{engineSQLite, enginePostgres}
	case engine == engineSQLite || engine == enginePostgres:
		o.engines = []string{engine}
	default:
		return o, fmt.Errorf("--engine %q is none of sqlite, postgres and both", engine)
	}
	for _, b := range []struct {
		name       string
		value, max int
	}{{"requests", o.requests, maxRequests}, {"rounds", o.rounds, maxRounds}, {"connections", o.connections, maxConnections}} {
		if b.value < 1 || b.value > b.max {
			return o, fmt.Errorf("--%s must be 1 to %d", b.name, b.max)
		}
	}
	if o.timeout <= 0 || o.timeout > time.Hour {
		return o, errors.New("--timeout must be more than 0 and at most 1h")
	}
	if o.profile != "" {
		return o, os.MkdirAll(filepath.Clean(o.profile), 0o700)
	}
	return o, nil
}
