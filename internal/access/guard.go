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
	Config
	queue chan entry
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
}

type entry struct {
	record Record
	done   chan error
}

// Config is what a Guard needs. Only Ceilings may be nil: then there are none.
type Config struct {
	Log      Log
	Now      func() time.Time // the clock of the records
	Decider  Decider
	Ceilings Ceilings
}

// NewGuard starts a Guard. It panics where a part is missing, which is a fault of the wiring.
func NewGuard(c Config) *Guard {
	if c.Log == nil || c.Now == nil || c.Decider == nil {
		panic("access: a Guard needs a log, a clock and a decider")
	}
	g := &Guard{Config: c, queue: make(chan entry, maxBatch), stop: make(chan struct{}), done: make(chan struct{})}
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
// Check returns it, as a Denied fault that names the action and what is missing. Where facts say that a token or key is
// released (Released), the ceilings of the workload identity are asked too, and crossing one is a Throttled fault.
func (g *Guard) Check(ctx context.Context, caller Caller, action Action, facts Facts) (Receipt, error) {
	d, err := g.Decider.Decide(ctx, caller, action, facts)
	if err != nil {
		return Receipt{}, g.Refuse(ctx, caller, action, "policies-unavailable", facts, err)
	}
	if !d.Allow {
		facts.Outcome = "denied" // whatever would have come of it
		return Receipt{}, g.Refuse(ctx, caller, action, d.By, facts, fault.New(fault.Denied, "%s", d.refusal(caller, action, facts)))
	}
	if facts.Released && g.Ceilings != nil {
		crossed, err := g.Ceilings.Admit(ctx, caller.Account, facts)
		if err != nil {
			return Receipt{}, g.Refuse(ctx, caller, action, "ceilings-unavailable", facts, err)
		}
		if crossed != "" {
			facts.Outcome, facts.Detail = "ceiling", crossed
			return Receipt{}, g.Refuse(ctx, caller, action, "ceiling", facts, fault.New(fault.Throttled, "%s", crossed))
		}
	}
	return g.enqueue(ctx, caller, action, true, d.By, facts), nil
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
		Time: g.Now(), Account: c.Account, Principal: c.Principal, Name: c.Name, AccessKey: c.AccessKey,
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
	open, expect := chains{}, 1
	for {
		select {
		case e := <-g.queue:
			var batch []entry
			batch, expect = g.gather(e, expect)
			g.commit(open, batch)
		case <-g.stop:
			for {
				select {
				case e := <-g.queue:
					batch, _ := g.gather(e, 1)
					g.commit(open, batch)
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

// commit writes one batch and tells every waiter.
func (g *Guard) commit(open chains, batch []entry) {
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	err := g.append(ctx, open, batch)
	for _, e := range batch {
		e.done <- err
	}
}

// append seals a batch and writes it. After a failure the outcome of the write is unknown (it may have been committed
// and the answer lost), so its accounts go on in new chains: a sequence is never used for two records.
func (g *Guard) append(ctx context.Context, open chains, batch []entry) error {
	records, next := make([]Record, len(batch)), chains{}
	for i := range batch {
		r := &records[i]
		*r = batch[i].record
		c, ok := next[r.Account]
		if !ok {
			var err error
			if c, err = g.chainOf(ctx, open, r.Account); err != nil {
				return err
			}
		}
		c.sequence++
		r.Writer, r.Sequence = c.writer, c.sequence
		r.clean()
		r.bound()
		r.Seal(c.head)
		c.head = r.Hash
		next[r.Account] = c
	}
	err := g.Log.Append(ctx, records)
	now := g.Now()
	for account, c := range next {
		c.over, c.used = err != nil, now
		open[account] = c
	}
	return err
}

// chainOf returns the chain in which an account's records go on. One that failed or was idle is over: whoever makes
// checkpoints need not wait for what never comes.
func (g *Guard) chainOf(ctx context.Context, open chains, account Account) (chain, error) {
	old := open[account]
	if old.writer != "" && !old.over && g.Now().Sub(old.used).Abs() < ChainIdle {
		return old, nil
	}
	c := newChain()
	if begin, ok := g.Log.(Chains); ok {
		link, err := begin.BeginChain(ctx, account, c.writer, old.writer)
		if err != nil {
			return chain{}, err
		}
		c.head = link
	}
	open.forget(g.Now())
	return c, nil
}

// ChainIdle is how long a chain may be idle and still go on. Whoever makes checkpoints takes a writer that was idle for
// three times as long for ended.
const ChainIdle = 10 * time.Minute

// chains are what the writer goroutine goes on with, by account: each account's trail stands for itself.
type chains map[Account]chain

// forget drops what is over for long, so that the map is as large as the accounts that are in use.
func (cs chains) forget(now time.Time) {
	for account, c := range cs {
		if now.Sub(c.used).Abs() >= 2*ChainIdle {
			delete(cs, account)
		}
	}
}

type chain struct {
	writer   string
	sequence int64
	head     [32]byte
	over     bool      // a write failed
	used     time.Time // of the last write
}

func newChain() chain {
	var id [10]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	return chain{writer: hex.EncodeToString(id[:])}
}
