package access

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
)

// appendTimeout bounds one write of the trail. It is longer than a slow disk needs and shorter than a client waits.
const appendTimeout = 15 * time.Second

// maxBatch bounds the records of one write, and with it the memory of the queue behind a store that stalls.
const maxBatch = 1024

// Guard decides and records. It owns one goroutine that writes waiting records together: many requests share one
// commit. Close it to wait for that goroutine.
type Guard struct {
	log   Log
	now   func() time.Time
	queue chan entry
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
}

type entry struct {
	record Record
	done   chan error
}

// NewGuard starts a Guard that writes to log. now is the clock of the records.
func NewGuard(log Log, now func() time.Time) *Guard {
	g := &Guard{log: log, now: now, queue: make(chan entry, maxBatch), stop: make(chan struct{}), done: make(chan struct{})}
	go g.write()
	return g
}

// Close writes what is queued and returns when the writer has ended. Records enqueued after it fail.
func (g *Guard) Close() {
	g.once.Do(func() { close(g.stop) })
	<-g.done
}

// Check decides whether caller may perform action on what facts describe, and enqueues the record of the decision.
// When it is allowed, the Receipt must be waited for before anything leaves. A refusal is recorded durably before
// Check returns it, as a Denied fault that names the action and what is missing.
func (g *Guard) Check(ctx context.Context, caller Caller, action Action, facts Facts) (Receipt, error) {
	allow, by, missing := decide(caller, action, facts)
	if !allow {
		facts.Outcome = "denied" // whatever would have come of it
	}
	receipt := g.enqueue(ctx, caller, action, allow, by, facts)
	if allow {
		return receipt, nil
	}
	if err := receipt.Wait(ctx); err != nil {
		return Receipt{}, err
	}
	on := ""
	if facts.Workload != "" {
		on = " for workload identity " + facts.Workload
	}
	return Receipt{}, fault.New(fault.Denied, "%s is not allowed to perform %s%s: it needs %s", caller, action, on, missing)
}

// Permit is Check and Wait in one, for operations that change something instead of releasing it.
func (g *Guard) Permit(ctx context.Context, caller Caller, action Action, facts Facts) error {
	receipt, err := g.Check(ctx, caller, action, facts)
	if err != nil {
		return err
	}
	return receipt.Wait(ctx)
}

// Refuse records that caller was turned away for a reason other than the rule table, and waits for the record.
// It returns because, unless the trail cannot be written.
func (g *Guard) Refuse(ctx context.Context, caller Caller, action Action, rule string, facts Facts, because error) error {
	if err := g.enqueue(ctx, caller, action, false, rule, facts).Wait(ctx); err != nil {
		return err
	}
	return because
}

// Event enqueues the record of something that happened under an earlier decision, such as the outcome of a refresh,
// or that a browser did. Wait for the Receipt where something leaves because of it.
func (g *Guard) Event(ctx context.Context, caller Caller, action Action, facts Facts) Receipt {
	return g.enqueue(ctx, caller, action, true, "event", facts)
}

func (g *Guard) enqueue(ctx context.Context, c Caller, a Action, allow bool, by string, f Facts) Receipt {
	done := make(chan error, 1)
	e := entry{done: done, record: Record{
		Time: g.now(), Account: c.Account, Principal: c.Principal, Name: c.Name, AccessKey: c.AccessKey,
		RequestID: RequestID(ctx), Action: a, Allow: allow, Rule: by, Facts: f,
	}}
	select {
	case g.queue <- e:
	case <-g.done: // Wait says so
	case <-ctx.Done():
		done <- ctx.Err()
	}
	return Receipt{done: done, closed: g.done}
}

// linger is how long a batch waits for company. Only where the batch before it was shared does it wait at all: a lone
// caller pays nothing, and under load each commit carries more records, which is where most of its cost goes.
const linger = 500 * time.Microsecond

// write drains the queue. While one batch commits, the next gathers: load makes batches larger, not waits longer.
func (g *Guard) write() {
	defer close(g.done)
	chain, expect := newChain(), 1
	for {
		select {
		case e := <-g.queue:
			var batch []entry
			batch, expect = g.gather(e, expect)
			chain = g.commit(chain, batch)
		case <-g.stop:
			for {
				select {
				case e := <-g.queue:
					batch, _ := g.gather(e, 1)
					chain = g.commit(chain, batch)
				default:
					return
				}
			}
		}
	}
}

// gather collects what is queued behind first. Where more than one record is expected, it waits for as many, but no
// longer than linger. It returns how many to expect next time: as many as came, and one more where they came in time.
func (g *Guard) gather(first entry, expect int) ([]entry, int) {
	batch := append(make([]entry, 0, max(expect, 8)), first)
	var late <-chan time.Time
	for len(batch) < maxBatch {
		select {
		case e := <-g.queue:
			batch = append(batch, e)
			continue
		default:
		}
		if len(batch) >= expect {
			return batch, len(batch) + min(len(batch)-1, 1) // a lone record expects no company
		}
		if late == nil {
			t := time.NewTimer(linger)
			defer t.Stop()
			late = t.C
		}
		select {
		case e := <-g.queue:
			batch = append(batch, e)
		case <-late:
			return batch, len(batch)
		case <-g.stop:
			return batch, 1
		}
	}
	return batch, maxBatch
}

// commit writes one batch and tells every waiter. After a failure the outcome of the write is unknown (it may have
// been committed and the answer lost), so the writer starts a new chain: a sequence is never used for two records.
func (g *Guard) commit(c chain, batch []entry) chain {
	records := make([]Record, len(batch))
	next := c
	for i := range batch {
		next.sequence++
		records[i] = batch[i].record
		records[i].Writer, records[i].Sequence = next.writer, next.sequence
		records[i].Seal(next.head)
		next.head = records[i].Hash
	}
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	err := g.log.Append(ctx, records)
	if err != nil {
		next = newChain()
	}
	for _, e := range batch {
		e.done <- err
	}
	return next
}

type chain struct {
	writer   string
	sequence int64
	head     [32]byte
}

func newChain() chain {
	var id [10]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	return chain{writer: hex.EncodeToString(id[:])}
}
