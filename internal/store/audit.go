package store

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

const auditColumns = `account, seq, writer, sequence, time, principal, name, access_key, request_id, action, allow, rule,
	resource, workload, workload_uid, user_ref, asserted, assertable, provider, flow, scopes, connection, generation, outcome,
	detail, prev, hash`

// auditWidth is the number of auditColumns.
const auditWidth = 27

// newestAudit is the highest tx of all accounts: it steps from account to account by the primary key, and so reads two
// entries an account.
const newestAudit = `WITH RECURSIVE accounts (account) AS (
	SELECT min(account) FROM audit
	UNION ALL SELECT (SELECT min(a.account) FROM audit a WHERE a.account > accounts.account) FROM accounts WHERE accounts.account IS NOT NULL)
	SELECT coalesce(max((SELECT max(a.tx) FROM audit a WHERE a.account = accounts.account)), 0) FROM accounts`

// auditExact is the size of batches up to which PostgreSQL has a statement for each number of records: one round trip,
// where two statements in a transaction take four. At 5 records that halves what a record costs.
const auditExact = 16

// auditChunk is how many records one statement takes. PostgreSQL is paid by the round trip, SQLite by the record.
func auditChunk(e Engine, left int) int {
	if e == PostgreSQL && left <= auditExact {
		return left // in one statement, which is its own transaction
	}
	sizes := []int{64, 48, 32, 24, auditExact}
	if e == SQLite {
		sizes = []int{8}
	}
	for _, n := range sizes {
		if left >= n {
			return n
		}
	}
	return 1
}

// Append implements access.Log.
func (d *DB) Append(ctx context.Context, batch []access.Record) error {
	if len(batch) == 0 {
		return nil
	}
	engine := d.engine.name()
	if slices.ContainsFunc(batch, func(r access.Record) bool { return r.Account != batch[0].Account }) {
		ctx = system(ctx, mixedTrail)
	}
	op := func(ctx context.Context, s session) error {
		base := d.commits.Load()
		if engine == SQLite { // one writer: its operations run one after another
			base = d.commits.Add(1)
		}
		args := make([]any, 0, 1+auditChunk(engine, len(batch))*auditWidth)
		for at := 0; at < len(batch); {
			n := auditChunk(engine, len(batch)-at)
			args = append(args[:0], base)
			for i := range batch[at : at+n] {
				args = appendRecord(args, &batch[at+i], at+i)
			}
			if _, err := s.exec(ctx, d.insertAudit(n), args...); err != nil {
				return unique(err, "an audit record exists already")
			}
			at += n
		}
		return nil
	}
	if auditChunk(engine, len(batch)) == len(batch) {
		return d.engine.single(ctx, op)
	}
	return d.engine.write(ctx, op)
}

// insertAudit returns the statement that inserts n records.
func (d *DB) insertAudit(n int) string {
	if text, ok := d.auditInserts.Load(n); ok {
		return text.(string)
	}
	var b strings.Builder
	b.WriteString("INSERT INTO audit (tx, " + auditColumns + ") VALUES ")
	place := 1
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("({tx}")
		for range auditWidth {
			place++
			b.WriteString(", $" + strconv.Itoa(place))
		}
		b.WriteString(")")
	}
	d.auditInserts.Store(n, b.String())
	return b.String()
}

func appendRecord(args []any, r *access.Record, place int) []any {
	f := &r.Facts
	return append(args, plain(string(r.Account)), int64(place), plain(r.Writer), r.Sequence, r.Time.UnixMilli(), plain(string(r.Principal)),
		plain(r.Name), plain(r.AccessKey), plain(r.RequestID), plain(string(r.Action)), flag(r.Allow), plain(r.Rule), plain(f.Resource),
		plain(f.Workload), plain(f.WorkloadUID), plain(f.UserRef), flag(f.Asserted), flag(f.Assertable), plain(f.Provider), plain(f.Flow),
		encodeScopes(f.Scopes), plain(f.Connection), f.Generation, plain(f.Outcome), plain(f.Detail), r.Prev[:], r.Hash[:])
}

// encodeScopes is encodeList for scopes that may be no valid text, which JSON would change.
func encodeScopes(scopes []string) string {
	for _, s := range scopes {
		if plain(s) != s || !utf8.ValidString(s) {
			safe := make([]string, len(scopes))
			for i := range scopes {
				safe[i] = plain(scopes[i])
			}
			return encodeList(safe)
		}
	}
	return encodeList(scopes)
}

// entry is a record with its place in the order of commits.
type entry struct {
	record  access.Record
	tx, seq int64
	settled bool
}

func scanEntry(s scanner) (e entry, err error) {
	r := &e.record
	f := &r.Facts
	var millis int64
	var scopes string
	var prev, hash []byte
	err = s.Scan(&e.settled, &e.tx, (*string)(&r.Account), &e.seq, &r.Writer, &r.Sequence, &millis, (*string)(&r.Principal), &r.Name,
		&r.AccessKey, &r.RequestID, (*string)(&r.Action), &r.Allow, &r.Rule, &f.Resource, &f.Workload, &f.WorkloadUID, &f.UserRef,
		&f.Asserted, &f.Assertable, &f.Provider, &f.Flow, &scopes, &f.Connection, &f.Generation, &f.Outcome, &f.Detail, &prev, &hash)
	if err != nil {
		return e, err
	}
	r.Time = time.UnixMilli(millis).UTC()
	f.Scopes = decodeList[string](scopes, &err)
	for _, s := range []*string{(*string)(&r.Account), &r.Writer, (*string)(&r.Principal), &r.Name, &r.AccessKey, &r.RequestID,
		(*string)(&r.Action), &r.Rule, &f.Resource, &f.Workload, &f.WorkloadUID, &f.UserRef, &f.Provider, &f.Flow, &f.Connection,
		&f.Outcome, &f.Detail} {
		unplain(s, &err)
	}
	for i := range f.Scopes {
		unplain(&f.Scopes[i], &err)
	}
	if len(prev) != len(r.Prev) || len(hash) != len(r.Hash) {
		return e, errDecode
	}
	copy(r.Prev[:], prev)
	copy(r.Hash[:], hash)
	return e, err
}

const (
	// settleWait bounds how long Records waits for transactions that are under way, so that who appends and then reads
	// finds the record.
	settleWait = time.Second
	settleStep = 5 * time.Millisecond

	recordsMax = 10_000 // records of one answer, whatever the query says
)

// Records implements access.Reader. On PostgreSQL a record is handed out only when every transaction that began before
// its own has ended, so that none is missed: a long transaction elsewhere in the cluster delays the tail.
func (d *DB) Records(ctx context.Context, account access.Account, q access.Query) ([]access.Record, string, error) {
	limit := min(q.Limit, recordsMax)
	if limit <= 0 {
		return nil, q.After, nil
	}
	tx, seq, err := parseCursor(q.After)
	if err != nil {
		return nil, q.After, err
	}
	if selective(q) {
		return d.selected(ctx, account, q, tx, seq, limit)
	}
	newest := q.Newest && q.After == ""
	query := recordsQuery(newest, q.Workload != "")
	args := []any{d.commits.Load(), string(account), tx, seq}
	if q.Workload != "" {
		args = append(args, plain(q.Workload))
	}
	args = append(args, limit)
	var entries []entry
	for deadline := time.Now().Add(settleWait); ; {
		if entries, err = list(ctx, d.engine.read(), scanEntry, query, args...); err != nil {
			return nil, q.After, err
		}
		if newest {
			slices.Reverse(entries)
		}
		open := slices.IndexFunc(entries, func(e entry) bool { return !e.settled })
		if open < 0 {
			break
		}
		if entries = entries[:open]; len(entries) > 0 && !newest || time.Now().After(deadline) {
			break
		}
		if err := pause(ctx, settleStep); err != nil {
			return nil, q.After, classify(err)
		}
	}
	cursor := q.After
	records := make([]access.Record, len(entries))
	for i, e := range entries {
		records[i] = e.record
		cursor = strconv.FormatInt(e.tx, 10) + "." + strconv.FormatInt(e.seq, 10)
	}
	return records, cursor, nil
}

func recordsQuery(newest, workload bool) string {
	order, filter, limit := "ORDER BY tx, seq", "", " LIMIT $5"
	if newest {
		order = "ORDER BY tx DESC, seq DESC"
	}
	if workload {
		filter, limit = "AND workload <> '' AND workload = $5 ", " LIMIT $6"
	}
	return "SELECT {settled}, tx, " + auditColumns + " FROM audit WHERE account = $2 AND (tx, seq) > ($3, $4) " + filter + order + limit
}

func parseCursor(cursor string) (tx, seq int64, err error) {
	if cursor == "" {
		return -1, -1, nil
	}
	a, b, ok := strings.Cut(cursor, ".")
	tx, err1 := strconv.ParseInt(a, 10, 64)
	seq, err2 := strconv.ParseInt(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || tx < 0 || seq < 0 {
		return 0, 0, fault.New(fault.Invalid, "%q is no cursor of the audit trail", cursor)
	}
	return tx, seq, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
