package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// The engines.
const (
	engineSQLite   = "sqlite"
	enginePostgres = "postgres"
)

const (
	floorFactor = 3     // the floors are cheap: they need more requests for the same precision
	warmUp      = 4_000 // requests before anything counts
	warmAgain   = 200   // before each window: the caches, and the branch predictor, remember the last server
)

// subject is something that is measured: a floor, or the server on one engine.
type subject struct {
	name     string
	child    *child
	master   int // of PostgreSQL; 0 for the others
	seed     *seeded
	conns    *connections
	requests int // of one window

	server   []float64 // CPU-s per 1,000 requests, by round
	database []float64
	latency  []window
	memory   int // KiB
	errors   int
}

// bench is one run.
type bench struct {
	options
	dir      string
	calendar *calendar
	subjects []*subject // hello, echo, then the engines
	close    []func() error
}

// measure does the whole run.
func measure(ctx context.Context, o options) (rep *report, err error) {
	b := &bench{options: o}
	defer func() {
		for i := len(b.close) - 1; i >= 0; i-- {
			err = errors.Join(err, b.close[i]())
		}
	}()
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	for _, s := range b.subjects {
		if _, err := b.window(ctx, s, min(warmUp, s.requests)); err != nil {
			return nil, err
		}
	}
	for range o.rounds {
		for _, s := range b.subjects {
			if err := b.round(ctx, s); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	if o.profile != "" {
		for _, s := range b.subjects {
			if s.seed == nil {
				continue
			}
			if err := b.profileOf(ctx, s); err != nil {
				return nil, fmt.Errorf("profile of %s: %w", s.name, err)
			}
		}
	}
	return newReport(o, b.subjects), nil
}

// prepare starts every process and seeds the servers.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.dir, err = os.MkdirTemp(b.options.dir, "tabard-bench-"); err != nil {
		return err
	}
	b.close = append(b.close, func() error { return os.RemoveAll(b.dir) })
	if err := os.Chmod(b.dir, 0o711); err != nil { // PostgreSQL's own directory is below it, and another user's
		return err
	}
	if b.calendar, err = startCalendar(rand.Text()); err != nil {
		return err
	}
	b.close = append(b.close, b.calendar.close)
	var engines []*subject
	for _, engine := range b.engines {
		for _, p := range b.policies {
			s, err := b.startServer(ctx, engine, p)
			if err != nil {
				return err
			}
			engines = append(engines, s)
		}
	}
	for _, role := range []string{roleHello, roleEcho} {
		c, err := b.start(ctx, role, role, struct{}{})
		if err != nil {
			return err
		}
		b.subjects = append(b.subjects, &subject{name: role, child: c, requests: b.requests * floorFactor})
	}
	b.subjects = append(b.subjects, engines...)
	for _, s := range b.subjects {
		if err := b.connect(ctx, s, engines[0]); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// start starts a child whose output goes to a file.
func (b *bench) start(ctx context.Context, role, name string, config any) (*child, error) {
	log, err := os.OpenFile(filepath.Join(b.dir, name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	b.close = append(b.close, log.Close)
	c, err := startChild(ctx, role, config, log)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, b.tail(name))
	}
	b.close = append(b.close, c.stop)
	return c, nil
}

// tail is the end of what a child wrote, for an error: the file goes with the directory.
func (b *bench) tail(name string) string {
	text, err := os.ReadFile(filepath.Join(b.dir, name+".log"))
	if err != nil || len(text) == 0 {
		return ""
	}
	return "\n" + string(text[max(0, len(text)-2000):])
}

// startServer starts the server on a database of its own and seeds it.
func (b *bench) startServer(ctx context.Context, engine string, p policies) (*subject, error) {
	s := &subject{name: "vault-hit/" + engine + p.suffix(), requests: b.requests}
	dir := engine + strings.ReplaceAll(p.suffix(), "/", "-")
	config := serverConfig{DataDir: filepath.Join(b.dir, dir), DB: engineSQLite, NoAudit: p.noAudit, RootID: "TABARDBENCH000000000", RootSecret: rand.Text() + rand.Text()}
	if engine == enginePostgres {
		db, err := b.startDatabase(ctx)
		if err != nil {
			return nil, err
		}
		config.DB, s.master = db.url, db.master
	}
	var err error
	if s.child, err = b.start(ctx, roleServer, "tabard-"+dir, config); err != nil {
		return nil, err
	}
	root := caller{addr: s.child.Addr, keys: aws.Credentials{AccessKeyID: config.RootID, SecretAccessKey: config.RootSecret}}
	if s.seed, err = seed(ctx, root, b.calendar); err != nil {
		return nil, fmt.Errorf("seed the server on %s: %w%s", engine, err, b.tail("tabard-"+dir))
	}
	if err := p.write(ctx, root); err != nil {
		return nil, fmt.Errorf("write the policies of the server on %s: %w%s", engine, err, b.tail("tabard-"+dir))
	}
	return s, nil
}

func (b *bench) startDatabase(ctx context.Context) (*database, error) {
	server := b.postgresURL
	if server == "" {
		dir := filepath.Join(b.dir, "cluster")
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
		c, err := b.start(ctx, rolePostgres, rolePostgres, postgresConfig{Dir: dir})
		if err != nil {
			return nil, err
		}
		server = c.URL
		b.postgresURL = server // the next database is in the same cluster
	}
	db, err := createDatabase(ctx, server)
	if err != nil {
		return nil, err
	}
	b.close = append(b.close, db.drop)
	return db, nil
}

// connect opens the connections over which s is loaded. The echo floor gets what the server of like gets.
func (b *bench) connect(ctx context.Context, s, like *subject) error {
	t, err := b.traffic(ctx, s, like)
	if err != nil {
		return err
	}
	if s.conns, err = dial(ctx, t, b.connections); err != nil {
		return err
	}
	b.close = append(b.close, func() error { s.conns.close(); return nil })
	return nil
}

func (b *bench) traffic(ctx context.Context, s, like *subject) (traffic, error) {
	switch {
	case s.seed != nil:
		return s.seed.vaultHit(ctx)
	case s.child.role == roleEcho:
		t, err := like.seed.vaultHit(ctx)
		return echoTraffic(s.child.Addr, t), err
	}
	return helloTraffic(s.child.Addr), nil
}

// cpu is what has been used so far: by the server, and by PostgreSQL.
func (s *subject) cpu() (server, database time.Duration, err error) {
	if server, err = processCPU(s.child.pid); err == nil && s.master != 0 {
		database, err = treeCPU(s.master)
	}
	return server, database, err
}

// round measures one window and checks that it was what it claims: each answer a vault hit with a committed record.
func (b *bench) round(ctx context.Context, s *subject) error {
	if s.seed != nil { // a workload access token lives 15 minutes
		t, err := s.seed.vaultHit(ctx)
		if err != nil {
			return err
		}
		s.conns.traffic = t
	}
	if _, err := b.window(ctx, s, warmAgain); err != nil {
		return err
	}
	asked := len(b.calendar.TokenRequests())
	recordsBefore, err := s.records(ctx)
	if err != nil {
		return err
	}
	server, database, err := s.cpu()
	if err != nil {
		return err
	}
	w, err := b.window(ctx, s, s.requests)
	if err != nil {
		return err
	}
	serverAfter, databaseAfter, err := s.cpu()
	if err != nil {
		return err
	}
	s.server = append(s.server, perThousand(serverAfter-server, w.requests))
	s.database = append(s.database, perThousand(databaseAfter-database, w.requests))
	s.latency = append(s.latency, w)
	if s.memory, err = residentKiB(s.child.pid); err != nil {
		return err
	}
	if n := len(b.calendar.TokenRequests()); n != asked {
		return fmt.Errorf("the provider was asked for a token %d times: these were no vault hits", n-asked)
	}
	recordsAfter, err := s.records(ctx)
	if err != nil {
		return err
	}
	if s.seed != nil && recordsAfter-recordsBefore != w.requests-w.errors {
		return fmt.Errorf("%d answers made %d audit records", w.requests-w.errors, recordsAfter-recordsBefore)
	}
	return nil
}

// window sends n requests. A window with too many errors ends the run; a few are reported at its end.
func (b *bench) window(ctx context.Context, s *subject, n int) (window, error) {
	w, err := s.conns.send(ctx, n)
	s.errors += w.errors
	if err == nil && w.errors > maxErrors {
		err = fmt.Errorf("more than %d errors; the first: %w", maxErrors, w.firstErr)
	}
	if w.errors > 0 {
		fmt.Fprintf(os.Stderr, "bench: %s: %d errors; the first: %v\n", s.name, w.errors, w.firstErr)
	}
	return w, err
}

func describeMachine() string {
	return fmt.Sprintf("%s, %s/%s, %d CPUs", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
}
