package access_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// memory is a trail that can be made to fail, and to wait.
type memory struct {
	mu      sync.Mutex // guards the rest
	batches [][]access.Record
	err     error
	gate    chan struct{} // when set, Append waits for it
}

func (m *memory) Append(ctx context.Context, batch []access.Record) error {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.batches = append(m.batches, batch)
	return nil
}

func (m *memory) set(err error, gate chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err, m.gate = err, gate
}

func (m *memory) records() []access.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []access.Record
	for _, b := range m.batches {
		all = append(all, b...)
	}
	return all
}

func (m *memory) last() access.Record {
	all := m.records()
	return all[len(all)-1]
}

// wantChains recomputes every hash, and wants each writer's records to be 1, 2, 3, ... without a gap.
func wantChains(t testing.TB, records []access.Record) (writers int) {
	t.Helper()
	heads, next := map[string][32]byte{}, map[string]int64{}
	for _, r := range records {
		if r.Prev != heads[r.Writer] || r.Sequence != next[r.Writer]+1 {
			t.Errorf("record %s does not follow the one before", r.ID())
		}
		again := r
		if again.Seal(r.Prev); again.Hash != r.Hash || r.Hash == [32]byte{} {
			t.Errorf("the hash of record %s is not that of its fields", r.ID())
		}
		heads[r.Writer], next[r.Writer] = r.Hash, r.Sequence
	}
	return len(heads)
}

func agent() access.Caller { return with(access.Agent, "w") }

var errDisk = errors.New("disk full")

func TestRecordSaysWhoAndWhat(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	log := &memory{}
	g := access.NewGuard(access.Config{Log: log, Now: clockAt(at), Decider: access.Table{}})
	defer g.Close()
	facts := access.Facts{Workload: "w", WorkloadUID: "wi-1", UserRef: "ref", Provider: "cal", Flow: "USER_FEDERATION", Scopes: []string{"read"}, Connection: "cn_1", Generation: 3, Outcome: "released"}
	receipt, err := g.Check(access.WithRequestID(t.Context(), "req-1"), agent(), access.GetResourceOauth2Token, facts)
	must(t, err)
	must(t, receipt.Wait(t.Context()))
	r := log.last()
	if r.Time != at || r.Account != account || r.Principal != "prn-1" || r.Name != "p" || r.AccessKey != "AK1" || r.RequestID != "req-1" ||
		r.Action != access.GetResourceOauth2Token || !r.Allow || r.Rule != "role:agent" || fmt.Sprint(r.Facts) != fmt.Sprint(facts) {
		t.Errorf("got %+v", r)
	}
	wantChains(t, log.records())
}

// Waiting twice for the same receipt gives the same answer.
func TestReceiptMayBeAwaitedTwice(t *testing.T) {
	log := &memory{}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	receipt := g.Event(t.Context(), agent(), access.RefreshTokens, access.Facts{})
	for range 3 {
		must(t, receipt.Wait(t.Context()))
	}
	log.set(errDisk, nil)
	receipt = g.Event(t.Context(), agent(), access.RefreshTokens, access.Facts{})
	for range 3 {
		wantCode(t, "a record that was not written", receipt.Wait(t.Context()), fault.Unavailable)
	}
	wantCode(t, "no record at all", access.Receipt{}.Wait(t.Context()), fault.Internal)
}

// A refusal is durable before the caller hears of it.
func TestRefusalsAreWrittenFirst(t *testing.T) {
	log := &memory{}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	_, err := g.Check(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "v"})
	wantCode(t, "not paired", err, fault.Denied)
	if r := log.last(); r.Allow || r.Rule != "not-paired" {
		t.Errorf("got %+v", r)
	}
	because := fault.New(fault.Denied, "because")
	if err := g.Refuse(t.Context(), agent(), access.GetResourceOauth2Token, "assurance", access.Facts{}, because); err != because {
		t.Errorf("got %v, want the reason as it is", err)
	}
	if r := log.last(); r.Allow || r.Rule != "assurance" {
		t.Errorf("got %+v", r)
	}
}

func TestNothingIsReleasedWithoutItsRecord(t *testing.T) {
	log := &memory{err: errDisk}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	receipt, err := g.Check(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "w"})
	must(t, err)
	err = receipt.Wait(t.Context())
	wantCode(t, "Check and Wait", err, fault.Unavailable)
	if !errors.Is(err, errDisk) || fault.Public(err).Msg != "the audit trail cannot be written, so nothing is released" {
		t.Errorf("got %v, want the cause inside and a sentence outside", err)
	}
	wantCode(t, "Permit", g.Permit(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "w"}), fault.Unavailable)
	_, err = g.Check(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "v"})
	wantCode(t, "a refusal that cannot be recorded", err, fault.Unavailable)
	wantCode(t, "Refuse", g.Refuse(t.Context(), agent(), "x", "rule", access.Facts{}, errDisk), fault.Unavailable)
	wantCode(t, "Event", g.Event(t.Context(), agent(), "x", access.Facts{}).Wait(t.Context()), fault.Unavailable)
}

// After a write of unknown outcome the same writer and sequence must not be used for another record.
func TestFailedWriteStartsAnotherChain(t *testing.T) {
	log := &memory{}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	write := func() error {
		return g.Event(t.Context(), agent(), access.RefreshTokens, access.Facts{}).Wait(t.Context())
	}
	must(t, write())
	must(t, write())
	log.set(errDisk, nil)
	wantCode(t, "while it fails", write(), fault.Unavailable)
	wantCode(t, "while it fails", write(), fault.Unavailable)
	log.set(nil, nil)
	must(t, write())
	must(t, write())
	records := log.records()
	if n := wantChains(t, records); n != 2 || len(records) != 4 || records[2].Sequence != 1 {
		t.Errorf("got %d records of %d writers, want 4 of 2", len(records), n)
	}
}

// While one batch commits the next gathers: a hundred callers share two commits.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		log := &memory{gate: gate}
		g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
		first := g.Event(t.Context(), agent(), "first", access.Facts{})
		synctest.Wait() // the writer is inside Append
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if err := g.Permit(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "w", Generation: int64(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all of them wait
		close(gate)
		all.Wait()
		must(t, first.Wait(t.Context()))
		g.Close()
		if len(log.batches) != 2 || len(log.batches[1]) != 100 {
			t.Errorf("got %d commits, want 2, the second of 100", len(log.batches))
		}
		wantChains(t, log.records())
	})
}

// Behind a store that stalls the queue fills, and a caller that waits for a place in it ends with its request.
func TestStalledTrailHoldsCallersBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		log := &memory{gate: gate}
		g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
		g.Event(t.Context(), agent(), "first", access.Facts{})
		synctest.Wait()
		receipts := make([]access.Receipt, 1024)
		for i := range receipts {
			receipts[i] = g.Event(t.Context(), agent(), "queued", access.Facts{})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		wantCode(t, "no place in the queue", g.Event(ctx, agent(), "late", access.Facts{}).Wait(t.Context()), fault.Unavailable)
		if d := time.Since(start); d != time.Second {
			t.Errorf("waited %s, want until its own deadline", d)
		}
		wantCode(t, "queued, and its request ends", receipts[0].Wait(ctx), fault.Unavailable)
		close(gate)
		for _, r := range receipts {
			must(t, r.Wait(t.Context()))
		}
		g.Close()
		if n := len(log.records()); n != 1025 {
			t.Errorf("got %d records, want 1025", n)
		}
	})
}

// One write ends after 15 seconds, whatever the store does.
func TestWriteIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memory{gate: make(chan struct{})}
		g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
		start := time.Now()
		wantCode(t, "a store that hangs", g.Event(t.Context(), agent(), "x", access.Facts{}).Wait(t.Context()), fault.Unavailable)
		if d := time.Since(start); d != 15*time.Second {
			t.Errorf("waited %s, want 15 s", d)
		}
		log.set(nil, nil)
		g.Close()
	})
}

func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		log := &memory{gate: gate}
		g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
		var receipts []access.Receipt
		for range 50 {
			receipts = append(receipts, g.Event(t.Context(), agent(), "x", access.Facts{}))
		}
		closed := make(chan struct{})
		go func() { g.Close(); g.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close returned while a write was under way")
		default:
		}
		close(gate)
		<-closed
		for _, r := range receipts {
			must(t, r.Wait(t.Context()))
		}
		wantCode(t, "after Close", g.Permit(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "w"}), fault.Unavailable)
		_, err := g.Check(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "v"})
		wantCode(t, "a refusal after Close", err, fault.Unavailable)
		if n := len(log.records()); n != 50 {
			t.Errorf("got %d records, want 50", n)
		}
	})
}

// Many callers, failures among them, and a Close in the middle: each is told the truth about its own record.
func TestConcurrency(t *testing.T) {
	log := &memory{}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	var mu sync.Mutex
	written := map[int64]bool{}
	var all sync.WaitGroup
	for i := range int64(400) {
		all.Go(func() {
			if i%40 == 0 {
				log.set(errDisk, nil)
			} else if i%40 == 3 {
				log.set(nil, nil)
			}
			if i == 350 {
				g.Close()
			}
			err := g.Permit(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "w", Generation: i})
			if err != nil && fault.CodeOf(err) != fault.Unavailable {
				t.Errorf("got %v, want it written or Unavailable", err)
			}
			mu.Lock()
			defer mu.Unlock()
			written[i] = err == nil
		})
	}
	all.Wait()
	g.Close()
	seen := map[int64]bool{}
	for _, r := range log.records() {
		seen[r.Facts.Generation] = true
	}
	for i, ok := range written {
		if ok && !seen[i] {
			t.Errorf("caller %d was told that its record is durable, and it is not", i)
		}
	}
	wantChains(t, log.records())
}
