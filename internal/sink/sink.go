// Package sink streams the trail to where the database does not reach: a file, syslog, or a collector over HTTPS.
//
// Security argument: where a sink goes is said by the server's configuration and by nobody else. It is given what the
// trail has, which is no secret and no clear user; what it answers is not read. It runs beside the server and behind a
// cursor in the database: a sink that is slow or dead delays no release and loses nothing, and is told to the operator.
package sink

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/audit"
)

// Sink takes lines. It is used by one goroutine.
type Sink interface {
	// Name is what logs and metrics call it: its kind. Key is what the cursor is kept under.
	Name() string
	Key() string
	// Confirms reports whether what Send returned nil for is known to have arrived. Syslog has no answers.
	Confirms() bool
	// Send returns nil once the sink has all lines. What it took before an error is sent again.
	Send(ctx context.Context, lines [][]byte) error
	Close() error
}

// Store is what a Streamer reads, and where it keeps how far it has come.
type Store interface {
	access.Reader
	Checkpoints(ctx context.Context, account access.Account, after int64, limit int, newest bool) ([]audit.Checkpoint, error)
	LeaseSink(ctx context.Context, sink, holder string, ttl time.Duration) (bool, error)
	AuditAccounts(ctx context.Context) ([]access.Account, error)
	SinkCursor(ctx context.Context, account access.Account, sink string) (position string, checkpoint int64, err error)
	SetSinkCursor(ctx context.Context, account access.Account, sink, position string, checkpoint int64) error
}

const (
	batch    = 500
	every    = time.Second
	leaseTTL = 2 * time.Minute // longer than one batch to a slow sink may take
	sendTime = 30 * time.Second
	backoff  = time.Minute // at most
)

// Config is what a Streamer needs.
type Config struct {
	Store Store
	Sink  Sink
	Now   func() time.Time
	// Changed is called when the sink begins to fail (err is why) and when it works again (nil). It may be nil.
	Changed func(name string, err error)
}

// Streamer gives a sink the records and checkpoints of every account, in the order of commits, at least once.
type Streamer struct {
	Config
	holder string

	mu   sync.Mutex // guards what follows
	err  error
	lag  time.Duration
	sent int64
}

// New returns a Streamer. Run runs it.
func New(c Config) *Streamer {
	var id [10]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	if c.Changed == nil {
		c.Changed = func(string, error) {}
	}
	return &Streamer{Config: c, holder: hex.EncodeToString(id[:])}
}

// State returns how old the oldest record is that the sink has not been given, how many lines it was given, and why it
// does not work, nil where it does.
func (s *Streamer) State() (lag time.Duration, sent int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lag, s.sent, s.err
}

// Has reports whether the sink was given the account's trail up to the checkpoint of the number, and confirmed it.
func (s *Streamer) Has(ctx context.Context, account access.Account, checkpoint int64) (bool, error) {
	_, number, err := s.Store.SinkCursor(ctx, account, s.Sink.Key())
	return s.Sink.Confirms() && number >= checkpoint, err
}

// Run streams until ctx ends. After a failure it waits, each time longer, up to a minute.
func (s *Streamer) Run(ctx context.Context) {
	wait := every
	for {
		err := s.round(ctx)
		if ctx.Err() != nil {
			return
		}
		s.note(err)
		wait = min(2*wait, backoff)
		if err == nil {
			wait = every
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func (s *Streamer) note(err error) {
	s.mu.Lock()
	changed := (err == nil) != (s.err == nil)
	s.err = err
	s.mu.Unlock()
	if changed {
		s.Changed(s.Sink.Name(), err)
	}
}

// round gives the sink what there is, where this replica has the lease.
func (s *Streamer) round(ctx context.Context) error {
	mine, err := s.Store.LeaseSink(ctx, s.Sink.Key(), s.holder, leaseTTL)
	if err != nil || !mine {
		return err
	}
	accounts, err := s.Store.AuditAccounts(ctx)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		for more := true; more; {
			if more, err = s.account(ctx, account); err != nil {
				return err
			}
			if mine, err = s.Store.LeaseSink(ctx, s.Sink.Key(), s.holder, leaseTTL); err != nil || !mine {
				return err
			}
		}
	}
	s.measure(time.Time{})
	return nil
}

func (s *Streamer) measure(oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = 0
	if !oldest.IsZero() {
		s.lag = max(s.Now().Sub(oldest), 0)
	}
}

// account gives the sink one batch of an account's trail. Checkpoints come after the records that they cover.
func (s *Streamer) account(ctx context.Context, account access.Account) (more bool, err error) {
	position, number, err := s.Store.SinkCursor(ctx, account, s.Sink.Key())
	if err != nil {
		return false, err
	}
	// Read before the records, so that what they cover is there.
	checkpoints, err := s.Store.Checkpoints(ctx, account, number, batch, false)
	if err != nil {
		return false, err
	}
	records, next, err := s.Store.Records(ctx, account, access.Query{After: position, Limit: batch})
	if err != nil {
		return false, err
	}
	var lines [][]byte
	for _, r := range records {
		row := audit.RowOf(r)
		if lines, err = add(lines, audit.Line{Type: "record", Record: &row}); err != nil {
			return false, err
		}
	}
	more = len(records) == batch
	if !more {
		for _, c := range checkpoints {
			if lines, err = add(lines, audit.Line{Type: "checkpoint", Checkpoint: c.Token}); err != nil {
				return false, err
			}
			number = c.Number
		}
		more = len(checkpoints) == batch
	}
	if len(lines) == 0 {
		return false, nil
	}
	if len(records) > 0 {
		s.measure(records[0].Time)
	}
	sending, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	if err := s.Sink.Send(sending, lines); err != nil {
		return false, err
	}
	s.mu.Lock()
	s.sent += int64(len(lines))
	s.mu.Unlock()
	return more, s.Store.SetSinkCursor(ctx, account, s.Sink.Key(), next, number)
}

func add(lines [][]byte, l audit.Line) ([][]byte, error) {
	doc, err := json.Marshal(l)
	return append(lines, doc), err
}
