package sink_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/audit"
	"github.com/tabard-id/tabard/internal/sink"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lines(texts ...string) [][]byte {
	all := make([][]byte, len(texts))
	for i, s := range texts {
		all[i] = []byte(s)
	}
	return all
}

func TestFileRotatesAndSurvivesACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trail")
	must(t, os.WriteFile(path, []byte("whole\ncut off by a cra"), 0o600))
	f := &sink.File{Path: path, Max: 20, Keep: 2}
	must(t, f.Send(t.Context(), lines("1")))
	read := func(name string) string {
		doc, err := os.ReadFile(name)
		must(t, err)
		return string(doc)
	}
	if got := read(path); got != "whole\n1\n" {
		t.Errorf("got %q, want the cut line gone", got)
	}
	for range 4 {
		must(t, f.Send(t.Context(), lines(strings.Repeat("x", 12), "y")))
	}
	must(t, f.Close())
	names, err := filepath.Glob(path + "*")
	must(t, err)
	if len(names) != 3 {
		t.Errorf("got %v, want the file and 2 older ones", names)
	}
	info, err := os.Stat(path + ".1")
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

var message = regexp.MustCompile(`^<110>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z host tabard - audit - (.*)$`)

func TestSyslogOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	got := make(chan []string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		in := bufio.NewReader(conn)
		var all []string
		for len(all) < 2 {
			size, err := in.ReadString(' ')
			n, err2 := strconv.Atoi(strings.TrimSpace(size))
			if err != nil || err2 != nil {
				break
			}
			m := make([]byte, n)
			if _, err := io.ReadFull(in, m); err != nil {
				break
			}
			all = append(all, string(m))
		}
		got <- all
	}()
	s := &sink.Syslog{Target: "x", Host: "host", Now: time.Now, Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	}}
	must(t, s.Send(t.Context(), lines(`{"a":1}`, `{"b":2}`)))
	all := <-got
	must(t, s.Close())
	for i, want := range []string{`{"a":1}`, `{"b":2}`} {
		if m := message.FindStringSubmatch(all[i]); m == nil || m[1] != want {
			t.Errorf("message %q, want RFC 5424 with %s", all[i], want)
		}
	}
}

func TestSyslogOverUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenPacket("unixgram", path)
	must(t, err)
	defer conn.Close()
	s := &sink.Syslog{Target: "x", Host: "host", Now: time.Now, Datagram: true, Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unixgram", path)
	}}
	must(t, s.Send(t.Context(), lines(`{"a":1}`)))
	buf := make([]byte, 1000)
	n, _, err := conn.ReadFrom(buf)
	must(t, err)
	if m := message.FindStringSubmatch(string(buf[:n])); m == nil || m[1] != `{"a":1}` {
		t.Errorf("message %q", buf[:n])
	}
	must(t, s.Close())
}

// trail is a store of one account.
type trail struct {
	mu      sync.Mutex // guards what follows
	records []access.Record
	cursor  string
}

func (s *trail) Records(_ context.Context, _ access.Account, q access.Query) ([]access.Record, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := 0
	if q.After != "" {
		from, _ = strconv.Atoi(q.After)
	}
	to := min(from+q.Limit, len(s.records))
	return s.records[from:to], strconv.Itoa(to), nil
}

func (s *trail) Checkpoints(context.Context, access.Account, int64, int, bool) ([]audit.Checkpoint, error) {
	return nil, nil
}

func (s *trail) LeaseSink(context.Context, string, string, time.Duration) (bool, error) {
	return true, nil
}

func (s *trail) AuditAccounts(context.Context) ([]access.Account, error) {
	return []access.Account{"1"}, nil
}

func (s *trail) SinkCursor(context.Context, access.Account, string) (string, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor, 0, nil
}

func (s *trail) SetSinkCursor(_ context.Context, _ access.Account, _, position string, _ int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = position
	return nil
}

// flaky fails some batches after it took them.
type flaky struct {
	calls int
	got   map[string]int
	all   chan struct{}
}

func (*flaky) Name() string   { return "flaky" }
func (*flaky) Key() string    { return "flaky" }
func (*flaky) Close() error   { return nil }
func (*flaky) Confirms() bool { return true }

func (f *flaky) Send(_ context.Context, batch [][]byte) error {
	for _, l := range batch {
		f.got[string(l)]++
	}
	if f.calls++; f.calls == 1 {
		return errors.New("it took them, and does not say so")
	}
	if len(f.got) == 1200 {
		close(f.all)
	}
	return nil
}

// Each record gets to the sink at least once, whatever fails, and who is told hears of both changes.
func TestStreamerGivesEachRecord(t *testing.T) {
	s, f := &trail{}, &flaky{got: map[string]int{}, all: make(chan struct{})}
	for i := range 1200 {
		s.records = append(s.records, access.Record{Writer: "w", Sequence: int64(i + 1), Time: time.Now()})
	}
	told := make(chan error, 2)
	one := sink.New(sink.Config{Store: s, Sink: f, Now: time.Now, Changed: func(_ string, err error) { told <- err }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		one.Run(ctx)
	}()
	if err := <-told; err == nil {
		t.Error("told of no failure")
	}
	<-f.all
	if err := <-told; err != nil {
		t.Errorf("told of %v, want that it works again", err)
	}
	cancel()
	<-ended
	if _, sent, err := one.State(); err != nil || sent != 1200 {
		t.Errorf("state %v, %d lines", err, sent)
	}
}
