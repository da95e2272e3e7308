package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tabard-id/tabard/internal/fault"
)

// batchMax bounds the operations of one commit.
const batchMax = 256

// writer is the one writer of a SQLite database. One goroutine takes the operations that wait, runs each under its own
// savepoint in one transaction, commits once, and then answers all of them. While one batch is being flushed to disk
// the next one gathers: load makes batches larger, not waits longer.
type writer struct {
	db      *sql.DB
	conn    *sql.Conn
	dialect *dialect
	stmts   map[string]*sql.Stmt // of the goroutine only

	queue   chan *request
	done    chan struct{} // closed when the goroutine has ended
	running bool

	mu     sync.RWMutex // held for reading while sending to queue, guards closed
	closed bool
}

// request is one operation that waits. Either the writer starts it or its caller drops it, never both.
type request struct {
	ctx   context.Context
	op    operation
	taken atomic.Bool
	err   error
	done  chan struct{}
}

func openWriter(ctx context.Context, path string) (*writer, error) {
	db, err := sql.Open("sqlite", sqliteDSN(path))
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &writer{
		db: db, conn: conn, dialect: &dialect{tokens: strings.NewReplacer(sqliteTokens()...), places: sqlitePlaces}, stmts: map[string]*sql.Stmt{},
		queue: make(chan *request, batchMax), done: make(chan struct{}),
	}, nil
}

// do returns the result of op after the commit of its batch. A ctx that ends before op starts drops it; later it makes
// no difference.
func (w *writer) do(ctx context.Context, op operation) error {
	r := &request{ctx: ctx, op: op, done: make(chan struct{})}
	if err := w.send(ctx, r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return classify(ctx.Err())
		}
		<-r.done
	}
	return r.err
}

func (w *writer) send(ctx context.Context, r *request) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return fault.New(fault.Unavailable, "the server is shutting down")
	}
	select {
	case w.queue <- r:
		return nil
	case <-ctx.Done():
		return classify(ctx.Err())
	}
}

func (w *writer) run() {
	defer close(w.done)
	batch := make([]*request, 0, batchMax)
	for first := range w.queue {
		batch = w.gather(batch[:0], first)
		w.commit(batch)
		clear(batch)
	}
}

func (w *writer) gather(batch []*request, first *request) []*request {
	batch = w.take(batch, first)
	for len(batch) < batchMax {
		select {
		case r, ok := <-w.queue:
			if !ok {
				return batch
			}
			batch = w.take(batch, r)
		default:
			return batch
		}
	}
	return batch
}

func (w *writer) take(batch []*request, r *request) []*request {
	if !r.taken.CompareAndSwap(false, true) {
		return batch // its caller is gone
	}
	if err := r.ctx.Err(); err != nil {
		r.err = classify(err)
		close(r.done)
		return batch
	}
	return append(batch, r)
}

// commit runs a batch. What an operation saw may be what an earlier one of the batch wrote, so when the commit fails
// even the operations that failed by themselves fail with it.
func (w *writer) commit(batch []*request) {
	if len(batch) == 0 {
		return
	}
	ctx := context.Background()
	err := w.command(ctx, "BEGIN IMMEDIATE")
	if err == nil {
		err = w.operations(batch)
		if err == nil {
			err = w.command(ctx, "COMMIT")
		}
		if err != nil {
			_ = w.command(ctx, "ROLLBACK") // fails where SQLite has rolled back by itself
		}
	}
	for _, r := range batch {
		if err != nil {
			r.err = fault.Wrap(fault.Unavailable, err, "the store cannot be written")
		}
		close(r.done)
	}
}

// operations returns an error only where the transaction itself is broken.
func (w *writer) operations(batch []*request) error {
	for _, r := range batch {
		// Once started it finishes, whoever waits for it.
		ctx := context.WithoutCancel(r.ctx)
		if err := w.command(ctx, "SAVEPOINT operation"); err != nil {
			return err
		}
		r.err = classify(r.op(ctx, w))
		if r.err != nil {
			// A full disk ends the whole transaction: then there is no savepoint, and this fails.
			if err := w.command(ctx, "ROLLBACK TO operation"); err != nil {
				return errors.Join(r.err, err)
			}
		}
		if err := w.command(ctx, "RELEASE operation"); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) command(ctx context.Context, text string) error {
	_, err := w.exec(ctx, text)
	return err
}

func (w *writer) close() error {
	w.mu.Lock()
	already := w.closed
	w.closed = true
	w.mu.Unlock()
	if already {
		return nil
	}
	close(w.queue)
	if w.running {
		<-w.done
	}
	for _, s := range w.stmts {
		_ = s.Close()
	}
	return errors.Join(w.conn.Close(), w.db.Close())
}

func (w *writer) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := w.stmts[query]; ok {
		return s, nil
	}
	s, err := w.conn.PrepareContext(ctx, w.dialect.text(query))
	if err != nil {
		return nil, err
	}
	w.stmts[query] = s
	return s, nil
}

func (w *writer) exec(ctx context.Context, query string, args ...any) (int64, error) {
	s, err := w.stmt(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (w *writer) row(ctx context.Context, query string, args ...any) scanner {
	s, err := w.stmt(ctx, query)
	if err != nil {
		return noRow{err}
	}
	return s.QueryRowContext(ctx, args...)
}

func (w *writer) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := w.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}
