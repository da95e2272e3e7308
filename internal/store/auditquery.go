package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

const (
	// auditWindow is how many records one selective query looks at. What selects by principal, user or provider has no
	// index, which each release would pay for.
	auditWindow = 20_000
	// auditSkew is how far the clocks of servers may be apart: the order of commits follows time that closely.
	auditSkew = 5 * time.Minute
)

// selective reports whether the query is for selected: everything but following the trail or a workload identity.
func selective(q access.Query) bool {
	return q.Principal != "" || q.UserRef != "" || q.Provider != "" || q.Action != "" || q.Outcome != "" || q.Denied || !q.From.IsZero() || !q.To.IsZero()
}

// position is a place in the order of commits.
type position struct{ tx, seq int64 }

func (p position) cursor() string {
	return strconv.FormatInt(p.tx, 10) + "." + strconv.FormatInt(p.seq, 10)
}

func (p position) before(o position) bool { return p.tx < o.tx || p.tx == o.tx && p.seq < o.seq }

func scanPosition(s scanner) (p position, err error) {
	err = s.Scan(&p.tx, &p.seq)
	return p, err
}

// conditions collects the conditions of a query with their arguments. $1 is that of {settled}, $2 the account.
type conditions struct {
	text strings.Builder
	args []any
}

func (c *conditions) add(format string, args ...any) {
	places := make([]any, len(args))
	for i, a := range args {
		c.args = append(c.args, a)
		places[i] = "$" + strconv.Itoa(len(c.args))
	}
	c.text.WriteString(fmt.Sprintf(format, places...))
}

// indexed are the conditions that have an index, or the order of commits itself.
func (d *DB) indexed(account access.Account, q access.Query, from, to position) *conditions {
	c := &conditions{args: []any{d.commits.Load()}}
	c.text.WriteString("{settled}")
	c.add(" AND account = %s", plain(string(account)))
	if q.Denied {
		c.text.WriteString(" AND allow = 0")
	}
	if q.Workload != "" {
		c.add(" AND workload <> '' AND workload = %s", plain(q.Workload))
	}
	c.add(" AND (tx, seq) > (%s, %s)", from.tx, from.seq)
	if to.tx != math.MaxInt64 {
		c.add(" AND (tx, seq) <= (%s, %s)", to.tx, to.seq)
	}
	return c
}

// selected is Records for a query that selects. It looks at one window of the trail.
func (d *DB) selected(ctx context.Context, account access.Account, q access.Query, tx, seq int64, limit int) ([]access.Record, string, error) {
	from, to, err := d.between(ctx, account, q, position{tx, seq})
	if err != nil {
		return nil, q.After, err
	}
	if err := d.settle(ctx, account, to); err != nil {
		return nil, q.After, err
	}
	newest := q.Newest && q.After == ""
	order := "ORDER BY tx, seq"
	if newest {
		order = "ORDER BY tx DESC, seq DESC"
	}
	window := d.indexed(account, q, from, to)
	window.add(" "+order+" LIMIT 1 OFFSET %s", int64(auditWindow-1))
	edges, err := list(ctx, d.engine.read(), scanPosition, "SELECT tx, seq FROM audit WHERE "+window.text.String(), window.args...)
	if err != nil {
		return nil, q.After, err
	}
	last, err := d.lastSettled(ctx, account, to)
	if err != nil {
		return nil, q.After, err
	}
	whole := len(edges) == 0
	switch {
	case whole && !newest:
		to = last
	case !whole && newest:
		from = position{edges[0].tx, edges[0].seq - 1}
	case !whole:
		to, last = edges[0], edges[0]
	}
	c := d.indexed(account, q, from, to)
	filter(c, q)
	c.add(" "+order+" LIMIT %s", int64(limit))
	entries, err := list(ctx, d.engine.read(), scanEntry, "SELECT {settled}, tx, "+auditColumns+" FROM audit WHERE "+c.text.String(), c.args...)
	if err != nil {
		return nil, q.After, err
	}
	if newest {
		slices.Reverse(entries)
	} else if len(entries) == limit {
		end := entries[limit-1]
		last, whole = position{end.tx, end.seq}, false
	}
	records := make([]access.Record, len(entries))
	for i, e := range entries {
		records[i] = e.record
	}
	return records, next(q, last, whole), nil
}

// next is the cursor behind last. whole says that nothing is left before the end of the query.
func next(q access.Query, last position, whole bool) string {
	if whole && !q.To.IsZero() {
		return ""
	}
	if after, seq, err := parseCursor(q.After); err != nil || last.before(position{after, seq}) {
		return q.After
	}
	if last.tx < 0 {
		return q.After
	}
	return last.cursor()
}

// filter adds the conditions that have no index.
func filter(c *conditions, q access.Query) {
	for _, f := range []struct{ column, value string }{
		{"name", q.Principal}, {"user_ref", q.UserRef}, {"provider", q.Provider}, {"action", string(q.Action)}, {"outcome", q.Outcome},
	} {
		if f.value != "" {
			c.add(" AND "+f.column+" = %s", plain(f.value))
		}
	}
	if !q.From.IsZero() {
		c.add(" AND time >= %s", q.From.UnixMilli())
	}
	if !q.To.IsZero() {
		c.add(" AND time < %s", q.To.UnixMilli())
	}
}

// between turns the times of a query into places: what lies outside is certainly not meant.
func (d *DB) between(ctx context.Context, account access.Account, q access.Query, from position) (position, position, error) {
	to := position{math.MaxInt64, 0}
	if !q.From.IsZero() && q.After == "" {
		tx, err := d.txAt(ctx, account, q.From.Add(-auditSkew))
		if err != nil {
			return from, to, err
		}
		from = position{tx - 1, math.MaxInt64}
	}
	if !q.To.IsZero() {
		tx, err := d.txAt(ctx, account, q.To.Add(auditSkew))
		if err != nil {
			return from, to, err
		}
		if tx != math.MaxInt64 {
			to = position{tx, -1}
		}
	}
	return from, to, nil
}

// txAt finds, by halving, the first transaction of the account that has a record of that time or later; MaxInt64 where
// there is none.
func (d *DB) txAt(ctx context.Context, account access.Account, t time.Time) (int64, error) {
	const query = "SELECT tx, time FROM audit WHERE account = $1 AND tx >= $2 ORDER BY tx, seq LIMIT 1"
	name, low, high := plain(string(account)), int64(0), int64(math.MaxInt64)
	newest, err := list(ctx, d.engine.read(), scanPosition, "SELECT tx, time FROM audit WHERE account = $1 ORDER BY tx DESC, seq DESC LIMIT 1", name)
	if err != nil || len(newest) == 0 || newest[0].seq < t.UnixMilli() {
		return high, err
	}
	for high = newest[0].tx; low < high; { // seq is the time here
		middle := low + (high-low)/2
		at, err := list(ctx, d.engine.read(), scanPosition, query, name, middle)
		if err != nil {
			return 0, err
		}
		if len(at) > 0 && at[0].seq < t.UnixMilli() {
			low = at[0].tx + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// settle waits until no transaction that is under way can add a record before to, but not for long.
func (d *DB) settle(ctx context.Context, account access.Account, to position) error {
	const query = "SELECT count(*) FROM (SELECT tx FROM audit WHERE account = $2 AND tx <= $3 AND NOT {settled} LIMIT 1) AS x"
	if d.engine.name() == SQLite {
		return nil // one writer
	}
	for deadline := time.Now().Add(settleWait); time.Now().Before(deadline); {
		var n int64
		if err := d.engine.read().row(ctx, query, d.commits.Load(), plain(string(account)), to.tx).Scan(&n); err != nil || n == 0 {
			return classify(err)
		}
		if err := pause(ctx, settleStep); err != nil {
			return classify(err)
		}
	}
	return nil
}

// lastSettled is the place of the account's newest record up to to, of those that can be handed out; -1 where there is
// none.
func (d *DB) lastSettled(ctx context.Context, account access.Account, to position) (position, error) {
	c := d.indexed(account, access.Query{}, position{-1, -1}, to)
	found, err := list(ctx, d.engine.read(), scanPosition, "SELECT tx, seq FROM audit WHERE "+c.text.String()+" ORDER BY tx DESC, seq DESC LIMIT 1", c.args...)
	if err != nil || len(found) == 0 {
		return position{-1, -1}, err
	}
	return found[0], nil
}
