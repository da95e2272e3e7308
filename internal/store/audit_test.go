package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
)

// chain makes sealed records of one writer.
type chain struct {
	writer   string
	sequence int64
	head     [32]byte
}

func (c *chain) record(a access.Account, workload string) access.Record {
	c.sequence++
	r := access.Record{
		Writer: c.writer, Sequence: c.sequence, Time: at.Add(time.Duration(c.sequence) * time.Millisecond), Account: a, Principal: "p1",
		Name: "bot", AccessKey: "AKIA1", RequestID: "req", Action: "GetResourceOauth2Token", Allow: true, Rule: "agent",
		Facts: access.Facts{
			Resource: "arn:x", Workload: workload, WorkloadUID: "uid", UserRef: "ref", Asserted: true, Assertable: true, Provider: "google",
			Flow: "M2M", Scopes: []string{"a", "https://s.example/b"}, Connection: "c1", Generation: 3, Outcome: "released", Detail: "d",
		},
	}
	r.Seal(c.head)
	c.head = r.Hash
	return r
}

func (c *chain) records(n int, a access.Account, workload string) []access.Record {
	batch := make([]access.Record, n)
	for i := range batch {
		batch[i] = c.record(a, workload)
	}
	return batch
}

// tail reads until it has n records or nothing comes for a while.
func tail(t testing.TB, db *store.DB, a access.Account, n, page int) []access.Record {
	t.Helper()
	var all []access.Record
	cursor := ""
	for deadline := time.Now().Add(20 * time.Second); len(all) < n && time.Now().Before(deadline); {
		records, next, err := db.Records(context.Background(), a, access.Query{After: cursor, Limit: page})
		must(t, err)
		if len(records) > page {
			t.Fatalf("got %d records, want at most %d", len(records), page)
		}
		if len(records) == 0 && next != cursor {
			t.Fatalf("the cursor of no records went from %q to %q", cursor, next)
		}
		all, cursor = append(all, records...), next
	}
	return all
}

func TestAuditRoundTrip(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		c := &chain{writer: "w1"}
		batch := c.records(131, account, "calendar") // more than one statement takes
		odd := c.record(account, "nul\x00 and \xff")
		odd.Name, odd.Facts.Detail, odd.RequestID = `\x00`, "\xc3\x28", "a\x00b"
		odd.Facts.Scopes = []string{"\xff", `\x41`, `"quote"`, "", "nul\x00"}
		odd.Seal(odd.Prev)
		bare := access.Record{Writer: "w2", Sequence: 1, Time: at, Account: account}
		bare.Seal([32]byte{})
		batch = append(batch, odd, bare)
		must(t, db.Append(ctx, batch))
		must(t, db.Append(ctx, nil))
		read := tail(t, db, account, len(batch), 50)
		wantEqual(t, "records", read, batch)
		for _, r := range read {
			again := r
			if again.Seal(r.Prev); again.Hash != r.Hash {
				t.Errorf("record %s: the hash of what was read is another", r.ID())
			}
		}
	})
}

func TestAuditRefusesARecordThatExists(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		c := &chain{writer: "w1"}
		first := c.records(3, account, "calendar")
		must(t, db.Append(ctx, first))
		second := append((&chain{writer: "w2"}).records(100, account, "x"), first[1])
		wantCode(t, "a batch with a record that exists", db.Append(ctx, second), fault.Conflict)
		moved := first[2]
		moved.Account = other
		wantCode(t, "the record in another account", db.Append(ctx, []access.Record{moved}), fault.Conflict)
		wantEqual(t, "records", tail(t, db, account, 3, 10), first)
		rest, _, err := db.Records(ctx, other, access.Query{Limit: 10})
		must(t, err)
		wantEqual(t, "records of the other account", len(rest), 0)
	})
}

func TestAuditQueries(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		c := &chain{writer: "w1"}
		var mine []access.Record
		for i := range 10 {
			batch := []access.Record{c.record(account, fmt.Sprint("agent", i%2)), c.record(other, "agent0")}
			must(t, db.Append(ctx, batch))
			mine = append(mine, batch[0])
		}
		wantEqual(t, "all", tail(t, db, account, 10, 3), mine)

		newest, cursor, err := db.Records(ctx, account, access.Query{Limit: 4, Newest: true})
		must(t, err)
		wantEqual(t, "newest", newest, mine[6:])
		after, same, err := db.Records(ctx, account, access.Query{Limit: 4, Newest: true, After: cursor})
		must(t, err)
		wantEqual(t, "after the newest", fmt.Sprint(len(after), same == cursor), "0 true")
		late := c.record(account, "agent1")
		must(t, db.Append(ctx, []access.Record{late}))
		after, _, err = db.Records(ctx, account, access.Query{Limit: 4, After: cursor})
		must(t, err)
		wantEqual(t, "what came later", after, []access.Record{late})

		one, _, err := db.Records(ctx, account, access.Query{Limit: 10, Workload: "agent0"})
		must(t, err)
		wantEqual(t, "of one workload identity", one, []access.Record{mine[0], mine[2], mine[4], mine[6], mine[8]})
		one, _, err = db.Records(ctx, account, access.Query{Limit: 2, Workload: "agent0", Newest: true})
		must(t, err)
		wantEqual(t, "its newest", one, []access.Record{mine[6], mine[8]})
		for _, cursor := range []string{"x", "1", "1.x", "-1.0", "1.2.3"} {
			_, _, err = db.Records(ctx, account, access.Query{Limit: 1, After: cursor})
			wantCode(t, "cursor "+cursor, err, fault.Invalid)
		}
	})
}

// Two servers, several writers, batches of all sizes, and a reader who follows: he gets each record once, those of one
// writer in their order.
func TestAuditTailMissesNothing(t *testing.T) {
	engines(t, func(t *testing.T, open opener) {
		db := open(t)
		stores := []*store.DB{db, db}
		if db.Engine() == store.PostgreSQL {
			stores[1] = open(t)
		}
		const writers, rounds = 8, 25
		var group sync.WaitGroup
		total := 0
		for w := range writers {
			for i := range rounds {
				total += 1 + (i*7+w)%40
			}
			group.Go(func() {
				c := &chain{writer: fmt.Sprint("w", w)}
				for i := range rounds {
					if err := stores[w%2].Append(context.Background(), c.records(1+(i*7+w)%40, account, "calendar")); err != nil {
						t.Errorf("append: %v", err)
					}
				}
			})
		}
		read := tail(t, db, account, total, 37)
		group.Wait()
		last := map[string]int64{}
		for _, r := range read {
			if r.Sequence != last[r.Writer]+1 {
				t.Fatalf("writer %s: record %d follows %d", r.Writer, r.Sequence, last[r.Writer])
			}
			last[r.Writer] = r.Sequence
		}
		wantEqual(t, "records", len(read), total)
	})
}

// A transaction that began earlier may still commit a record that belongs before one that is there already.
func TestAuditTailWaitsForOpenTransactions(t *testing.T) {
	engines(t, func(t *testing.T, open opener) {
		db := open(t)
		if db.Engine() == store.SQLite {
			return // one writer: there are no two transactions
		}
		ctx := t.Context()
		held, release, ended := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			ended <- db.TestOnlyWrite(context.Background(), func(ctx context.Context, s store.Statements) error {
				_, err := s.Text(ctx, "SELECT CAST(pg_current_xact_id() AS TEXT)")
				close(held)
				<-release
				return err
			})
		}()
		<-held
		c := &chain{writer: "w1"}
		must(t, db.Append(ctx, c.records(2, account, "calendar")))
		for _, newest := range []bool{false, true} {
			records, _, err := db.Records(ctx, account, access.Query{Limit: 10, Newest: newest})
			must(t, err)
			wantEqual(t, "records while an earlier transaction is open", len(records), 0)
		}
		close(release)
		must(t, <-ended)
		wantEqual(t, "records after it", len(tail(t, db, account, 2, 10)), 2)
	})
}

// A dump that comes back in another cluster meets lower transaction numbers.
func TestAuditSurvivesAnotherCluster(t *testing.T) {
	engines(t, func(t *testing.T, open opener) {
		db := open(t)
		ctx := t.Context()
		c := &chain{writer: "w1"}
		before := c.records(2, account, "calendar")
		must(t, db.Append(ctx, before))
		must(t, db.TestOnlyWrite(ctx, func(ctx context.Context, s store.Statements) error {
			return s.Exec(ctx, "UPDATE audit SET tx = tx + 1000000000")
		}))
		must(t, db.Close())
		db = open(t)
		after := c.records(2, account, "calendar")
		must(t, db.Append(ctx, after))
		wantEqual(t, "records", tail(t, db, account, 4, 10), append(before, after...))
	})
}
