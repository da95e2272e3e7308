package store

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/audit"
)

var (
	_ access.Chains = (*DB)(nil)
	_ audit.Store   = (*DB)(nil)
	_ audit.Trail   = (*DB)(nil)
	_ audit.Remover = (*DB)(nil)
)

// BeginChain implements access.Chains.
func (d *DB) BeginChain(ctx context.Context, account access.Account, writer, over string) (link [32]byte, err error) {
	err = d.engine.write(ctx, func(ctx context.Context, s session) error {
		link = [32]byte{}
		const begin = `INSERT INTO audit_writers (account, writer, begun, moved, over, closed, sequence, hash)
			VALUES ($1, $2, {now}, {now}, 0, 0, 0, {none})`
		if _, err := s.exec(ctx, begin, plain(string(account)), writer); err != nil {
			return unique(err, "the writer exists already")
		}
		if over != "" {
			const end = `UPDATE audit_writers SET over = 1, moved = {now} WHERE account = $1 AND writer = $2 AND closed = 0`
			if _, err := s.exec(ctx, end, plain(string(account)), over); err != nil {
				return err
			}
		}
		const last = `SELECT hash FROM audit_checkpoints WHERE account = $1 ORDER BY number DESC LIMIT 1`
		hashes, err := list(ctx, s, scanHash, last, plain(string(account)))
		if err == nil && len(hashes) > 0 {
			link = hashes[0]
		}
		return err
	})
	return link, err
}

func scanHash(s scanner) (h [32]byte, err error) {
	var b []byte
	if err := s.Scan(&b); err != nil {
		return h, err
	}
	return hashOf(b)
}

// hashOf reads a stored hash; one of no bytes is that of nothing.
func hashOf(b []byte) (h [32]byte, err error) {
	if copy(h[:], b) != len(b) || len(b) != 0 && len(b) != len(h) {
		return h, errDecode
	}
	return h, nil
}

// LeaseCheckpoints implements audit.Store.
func (d *DB) LeaseCheckpoints(ctx context.Context, holder string, ttl time.Duration) (bool, error) {
	return d.lease(ctx, "checkpoints", holder, ttl)
}

func (d *DB) lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	const query = `INSERT INTO audit_leases (name, holder, until) VALUES ($1, $2, {now} + $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
		WHERE audit_leases.holder = excluded.holder OR audit_leases.until < {now}`
	rows, err := d.exec(system(ctx, ownTable), query, name, holder, ttl.Milliseconds())
	return rows > 0, err
}

// OpenAccounts implements audit.Store.
func (d *DB) OpenAccounts(ctx context.Context) ([]access.Account, error) {
	return list(system(ctx, everyAccount), d.engine.read(), scanAccount, "SELECT DISTINCT account FROM audit_writers WHERE closed = 0 ORDER BY account")
}

func scanAccount(s scanner) (a access.Account, err error) {
	err = s.Scan((*string)(&a))
	unplain((*string)(&a), &err)
	return a, err
}

// OpenWriters implements audit.Store. The head is read by the key of (writer, sequence), so it costs the same however
// long the trail is.
func (d *DB) OpenWriters(ctx context.Context, account access.Account) ([]audit.Writer, error) {
	const head = "FROM audit a WHERE a.writer = w.writer ORDER BY a.writer DESC, a.sequence DESC LIMIT 1"
	const query = `SELECT w.writer, w.sequence, w.hash, w.over, {now} - w.moved, coalesce((SELECT a.sequence ` + head + `), 0),
			coalesce((SELECT a.hash ` + head + `), {none})
		FROM audit_writers w WHERE w.account = $1 AND w.closed = 0 ORDER BY w.writer`
	return list(ctx, d.engine.read(), func(s scanner) (w audit.Writer, err error) {
		var hash, found []byte
		var over, idle, sequence int64
		if err := s.Scan(&w.Name, &w.Sequence, &hash, &over, &idle, &sequence, &found); err != nil {
			return w, err
		}
		w.Over, w.Idle = over != 0, time.Duration(idle)*time.Millisecond
		if sequence > w.Sequence || sequence == w.Sequence && sequence > 0 {
			w.Sequence, hash = sequence, found
		}
		w.Hash, err = hashOf(hash)
		return w, err
	}, query, plain(string(account)))
}

// AddCheckpoint implements audit.Store.
func (d *DB) AddCheckpoint(ctx context.Context, c audit.Checkpoint, writers []audit.Writer) error {
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		const add = `INSERT INTO audit_checkpoints (account, number, id, time, records, writers, hash, token)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
		_, err := s.exec(ctx, add, plain(string(c.Account)), c.Number, c.ID, millis(c.Time), c.Records, c.Writers, c.Hash[:], c.Token)
		if err != nil {
			return unique(err, "the account has a checkpoint of that number")
		}
		const move = `UPDATE audit_writers SET moved = CASE WHEN sequence <> $1 THEN {now} ELSE moved END, sequence = $1, hash = $2, closed = $3
			WHERE account = $4 AND writer = $5 AND closed = 0`
		for _, w := range writers {
			if _, err := s.exec(ctx, move, w.Sequence, w.Hash[:], w.Closed, plain(string(c.Account)), w.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

const checkpointColumns = `account, number, id, time, records, writers, hash, token`

func scanCheckpoint(s scanner) (c audit.Checkpoint, err error) {
	var at int64
	var hash []byte
	if err := s.Scan((*string)(&c.Account), &c.Number, &c.ID, &at, &c.Records, &c.Writers, &hash, &c.Token); err != nil {
		return c, err
	}
	c.Time = fromMillis(at)
	if c.Hash, err = hashOf(hash); err != nil {
		return c, err
	}
	unplain((*string)(&c.Account), &err)
	return c, err
}

// Checkpoints implements audit.Store.
func (d *DB) Checkpoints(ctx context.Context, account access.Account, after int64, limit int, newest bool) ([]audit.Checkpoint, error) {
	query := "SELECT " + checkpointColumns + " FROM audit_checkpoints WHERE account = $1 AND number > $2 ORDER BY number LIMIT $3"
	if newest {
		query = "SELECT " + checkpointColumns + " FROM audit_checkpoints WHERE account = $1 AND ($2 = 0 OR number < $2) ORDER BY number DESC LIMIT $3"
	}
	return list(ctx, d.engine.read(), scanCheckpoint, query, plain(string(account)), after, limit)
}

// CheckpointBy implements audit.Store.
func (d *DB) CheckpointBy(ctx context.Context, account access.Account, id string, hash audit.Hash) (audit.Checkpoint, error) {
	query, key := "SELECT "+checkpointColumns+" FROM audit_checkpoints WHERE account = $1 AND id = $2", any(id)
	if id == "" {
		query, key = "SELECT "+checkpointColumns+" FROM audit_checkpoints WHERE account = $1 AND hash = $2 LIMIT 1", hash[:]
	}
	c, err := scanCheckpoint(d.engine.read().row(ctx, query, plain(string(account)), key))
	return c, found(err, "the account has no such checkpoint")
}

// WriterRecords implements audit.Trail.
func (d *DB) WriterRecords(ctx context.Context, account access.Account, writer string, after int64, limit int) ([]audit.Entry, error) {
	// The key of (writer, sequence) is the only good way, and the account must not tempt PostgreSQL to another.
	const query = `SELECT {settled}, tx, ` + auditColumns + ` FROM (SELECT * FROM audit
		WHERE writer = $2 AND sequence > $3 ORDER BY writer, sequence LIMIT $4) AS a WHERE account = $5 ORDER BY sequence`
	return list(ctx, d.engine.read(), func(s scanner) (audit.Entry, error) {
		e, err := scanEntry(s)
		return audit.Entry{Record: e.record, Tx: e.tx, Place: e.seq}, err
	}, query, d.commits.Load(), plain(writer), after, limit, plain(string(account)))
}

// ClosedWriters implements audit.Trail.
func (d *DB) ClosedWriters(ctx context.Context, account access.Account, after int64, limit int) ([]audit.Writer, error) {
	const query = `SELECT writer, sequence, hash, closed FROM audit_writers WHERE account = $1 AND closed > $2 AND closed > 0 ORDER BY closed LIMIT $3`
	return list(ctx, d.engine.read(), func(s scanner) (w audit.Writer, err error) {
		var hash []byte
		if err := s.Scan(&w.Name, &w.Sequence, &hash, &w.Closed); err != nil {
			return w, err
		}
		w.Hash, err = hashOf(hash)
		return w, err
	}, query, plain(string(account)), after, limit)
}

// Strays implements audit.Trail. It steps from writer to writer by the key, and so reads a few entries each.
func (d *DB) Strays(ctx context.Context, account access.Account, after string, limit int) ([]audit.Stray, error) {
	const query = `WITH RECURSIVE steps (writer, n) AS (
			SELECT (SELECT min(a.writer) FROM audit a WHERE a.writer > $1), 1
			UNION ALL SELECT (SELECT min(a.writer) FROM audit a WHERE a.writer > steps.writer), n + 1 FROM steps WHERE steps.writer IS NOT NULL AND n < $2)
		SELECT s.writer, coalesce(w.closed, 0), coalesce(w.sequence, 0),
			(SELECT a.time FROM audit a WHERE a.writer = s.writer ORDER BY a.sequence LIMIT 1),
			CASE WHEN (SELECT a.account FROM audit a WHERE a.writer = s.writer ORDER BY a.sequence LIMIT 1) = $3
				THEN (SELECT max(a.sequence) FROM audit a WHERE a.writer = s.writer) ELSE 0 END
		FROM steps s LEFT JOIN audit_writers w ON w.account = $3 AND w.writer = s.writer WHERE s.writer IS NOT NULL ORDER BY s.writer`
	return list(ctx, d.engine.read(), func(s scanner) (w audit.Stray, err error) {
		var first int64
		err = s.Scan(&w.Writer, &w.Closed, &w.Covered, &first, &w.Last)
		w.First = time.UnixMilli(first)
		return w, err
	}, query, plain(after), limit, plain(string(account)))
}

// RemoveRecords implements audit.Remover.
func (d *DB) RemoveRecords(ctx context.Context, account access.Account, writer string, upTo int64, limit int) (int64, error) {
	const query = `DELETE FROM audit WHERE account = $1 AND writer = $2 AND sequence <= $3 AND sequence < $4 +
		(SELECT min(sequence) FROM audit WHERE writer = $2)`
	return d.exec(ctx, query, plain(string(account)), plain(writer), upTo, int64(limit))
}

// RemoveBehind implements audit.Remover.
func (d *DB) RemoveBehind(ctx context.Context, account access.Account, closed, number int64) error {
	return d.engine.write(ctx, func(ctx context.Context, s session) error {
		const writers = "DELETE FROM audit_writers WHERE account = $1 AND closed > 0 AND closed <= $2"
		if _, err := s.exec(ctx, writers, plain(string(account)), closed); err != nil {
			return err
		}
		_, err := s.exec(ctx, "DELETE FROM audit_checkpoints WHERE account = $1 AND number < $2", plain(string(account)), number)
		return err
	})
}
