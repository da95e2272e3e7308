package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

const (
	// part bounds the records of one call of Verify, so that a call takes a second or two.
	part = 20_000
	// page is how many rows are in memory at once.
	page = 1000
	// foundMax bounds the findings of one call: a trail that was replaced has one for each record.
	foundMax = 100
	// skew is how far clocks of servers may be apart.
	skew = 5 * time.Minute
)

// Verdict is what one call of Verify found.
type Verdict struct {
	Checked    int64 // records that were verified in this call
	Unprovable int64 // records that the checkpoint does not cover, seen in this call
	Findings   []Finding
	More       string // what the next call continues with; "" where all is done
	Short      bool   // all that was found may be so because the segments were exported before the checkpoint was made
}

// Sound reports whether nothing was found that speaks against the trail.
func (v Verdict) Sound() bool {
	return !slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Kind != Unprovable })
}

// progress is how far verifying has come. It is the caller's to keep between calls: who forges it deceives nobody else.
type progress struct {
	Token   string `json:"f,omitempty"` // the checkpoint, where the caller gave none
	Phase   int    `json:"s"`           // 0 checkpoints, 1 writers that ended, 2 writers that may go on, 3 writers that are not covered
	Number  int64  `json:"c,omitempty"` // of the last checkpoint that was read
	Link    string `json:"l,omitempty"` // its hash
	Begun   bool   `json:"b,omitempty"` // the end of a revoked key was told
	Closed  Closed `json:"e"`           // the ended writers so far
	Index   int    `json:"i,omitempty"` // in the checkpoint's list
	Head    head   `json:"h"`           // of the writer in hand
	Started bool   `json:"w,omitempty"` // the writer in hand was begun
	Stray   string `json:"z,omitempty"` // the last writer that was looked at
}

// verification is one call.
type verification struct {
	*Service
	account access.Account
	token   string // the checkpoint
	claims  Claims
	base    Claims // the checkpoint behind which records were pruned; zero where none were
	at      progress
	verdict Verdict
	left    int
}

// Verify verifies the trail of the caller's account up to a checkpoint: token, or the newest one where it is empty. The
// caller keeps token outside the database; without that, whoever can put back an older copy of the database is not
// found. A call reads a bounded number of records; more is what the call before returned. Verifying is recorded.
func (s *Service) Verify(ctx context.Context, caller access.Caller, token, more string) (Verdict, error) {
	if more == "" {
		if err := s.Guard.Permit(ctx, caller, access.VerifyAudit, access.Facts{}); err != nil {
			return Verdict{}, err
		}
	} else if _, err := s.Guard.Check(ctx, caller, access.VerifyAudit, access.Facts{Detail: "continued"}); err != nil {
		return Verdict{}, err
	}
	v := &verification{Service: s, account: caller.Account, left: part}
	if more != "" {
		if err := json.Unmarshal([]byte(more), &v.at); err != nil {
			return Verdict{}, fault.Field("nextToken", "is not a token that this operation returned")
		}
	}
	if token == "" {
		token = v.at.Token
	}
	if token == "" {
		newest, err := s.Store.Checkpoints(ctx, caller.Account, 0, 1, true)
		if err != nil {
			return Verdict{}, err
		}
		if len(newest) == 0 {
			return Verdict{}, fault.New(fault.NotFound, "the account has no checkpoint yet: the first is made within a minute")
		}
		token = newest[0].Token
		v.at.Token = token
	}
	if err := v.open(ctx, strings.TrimSpace(token)); err != nil {
		return Verdict{}, err
	}
	return v.run(ctx)
}

// open reads the checkpoint, and the one behind which records were pruned by now.
func (v *verification) open(ctx context.Context, token string) error {
	var err error
	v.token = token
	if v.claims, err = v.Service.open(ctx, v.account, token); err != nil {
		return err
	}
	// What was pruned, the newest checkpoint says.
	_, last, err := v.lastOf(ctx, v.account)
	if err != nil {
		if fault.CodeOf(err) == fault.Unavailable {
			return err
		}
		v.find(Broken, "the newest checkpoint in the database was changed: %v", err)
		last = v.claims
	}
	// A series that begins behind this checkpoint, whose key still counts, takes nothing from what it covers.
	if last.Anew != nil && last.Anew.Number >= v.claims.Number {
		last = v.claims
	}
	if last.Base == nil || last.Base.Number == 0 {
		return nil
	}
	if last.Base.Number > v.claims.Number {
		return fault.New(fault.Conflict, "what the checkpoint covers was pruned behind a later one, number %d: verify the exported segments", last.Base.Number)
	}
	v.base, err = v.named(ctx, *last.Base)
	if fault.CodeOf(err) == fault.NotFound || fault.CodeOf(err) == fault.Invalid {
		return fault.New(fault.Conflict, "the checkpoint behind which records were pruned, number %d, was removed or changed: nothing before the next prune can be verified here", last.Base.Number)
	}
	return err
}

// named returns the claims of a checkpoint that another one names.
func (v *verification) named(ctx context.Context, r Ref) (Claims, error) {
	if r.Hash == ref(v.token) {
		return v.claims, nil
	}
	return v.inherited(ctx, v.account, r)
}

// byRef returns the checkpoint that another one names.
func (s *Service) byRef(ctx context.Context, account access.Account, r Ref) (Checkpoint, error) {
	b, err := hex.DecodeString(r.Hash)
	if err != nil || len(b) != len(Hash{}) {
		return Checkpoint{}, fault.New(fault.Invalid, "the checkpoint names one that cannot be")
	}
	c, err := s.Store.CheckpointBy(ctx, account, "", Hash(b))
	if err == nil && ref(c.Token) != r.Hash {
		err = fault.New(fault.Invalid, "the checkpoint was changed")
	}
	return c, err
}

func (v *verification) find(k Kind, format string, args ...any) {
	v.add(Finding{Kind: k, Message: fmt.Sprintf(format, args...)})
}

func (v *verification) add(found ...Finding) {
	for _, f := range found {
		if len(v.verdict.Findings) < foundMax {
			v.verdict.Findings = append(v.verdict.Findings, f)
		}
	}
}

// run goes through the phases until it is done or this call has read enough.
func (v *verification) run(ctx context.Context) (Verdict, error) {
	phases := []func(context.Context) (done bool, err error){v.checkpoints, v.ended, v.current, v.strays}
	for v.at.Phase < len(phases) {
		done, err := phases[v.at.Phase](ctx)
		if err != nil {
			return Verdict{}, err
		}
		if done {
			v.at.Phase++
			continue
		}
		if v.left <= 0 {
			doc, err := json.Marshal(v.at)
			v.verdict.More = string(doc)
			return v.verdict, err
		}
	}
	return v.verdict, nil
}

// checkpoints follows the links from the first checkpoint that is kept to the one in hand.
func (v *verification) checkpoints(ctx context.Context) (bool, error) {
	if v.at.Number == 0 && v.base.Number > 0 { // what pruning left is linked too
		v.at.Number = v.base.Number - 1
		v.at.Link = v.base.Previous
	}
	if a := v.claims.Anew; a != nil && !v.at.Begun { // what a revoked key signed proves nothing, and is not followed
		v.at.Begun = true
		v.find(Unprovable, "%s", a)
		if v.at.Number < a.Number {
			v.at.Number, v.at.Link = a.Number, a.Hash
		}
	}
	list, err := v.Store.Checkpoints(ctx, v.account, v.at.Number, page, false)
	if err != nil {
		return false, err
	}
	v.left -= len(list)
	for _, c := range list {
		if c.Number > v.claims.Number {
			break
		}
		link, number, err := linkOf(c.Token)
		switch {
		case err != nil || HashOf(c.Token) != c.Hash || number != c.Number:
			v.find(Broken, "checkpoint %d was changed", c.Number)
		case c.Number != v.at.Number+1:
			v.find(Broken, "checkpoints %d to %d were removed", v.at.Number+1, c.Number-1)
		case link != v.at.Link:
			v.find(Broken, "checkpoint %d does not follow the one before it", c.Number)
		}
		v.at.Number, v.at.Link = c.Number, ref(c.Token)
	}
	if v.at.Number < v.claims.Number && len(list) == page {
		return false, nil
	}
	switch {
	case v.at.Number < v.claims.Number:
		v.find(Broken, "checkpoints %d to %d were removed", v.at.Number+1, v.claims.Number)
	case v.at.Link != ref(v.token):
		v.find(Broken, "the database has another checkpoint %d than the one given", v.claims.Number)
	}
	v.at.Closed = v.base.Closed
	return true, nil
}

// Peek reads, without verifying it, what a checkpoint says.
func Peek(token string) (c Claims, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, fault.New(fault.Invalid, "no token")
	}
	b, err := decodePart(parts[1])
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	return c, err
}

// linkOf reads, without verifying it, which checkpoint a token names. The newest one's signature covers the links.
func linkOf(token string) (link string, number int64, err error) {
	c, err := Peek(token)
	return c.Previous, c.Number, err
}

// NumberOf reads, without verifying it, which checkpoint of its account a token is.
func NumberOf(token string) (int64, error) {
	_, number, err := linkOf(token)
	return number, err
}

// ended verifies the writers that ended, and that they are those of the checkpoint.
func (v *verification) ended(ctx context.Context) (bool, error) {
	if v.at.Closed.Count >= v.claims.Closed.Count {
		if v.at.Closed.Hash != v.claims.Closed.Hash {
			v.find(Broken, "the list of the writers that ended was changed")
		}
		v.at.Index = 0
		return true, nil
	}
	list, err := v.Trail.ClosedWriters(ctx, v.account, v.at.Closed.Count, page)
	if err != nil {
		return false, err
	}
	if len(list) == 0 {
		v.find(Broken, "%d writers that ended were removed from the database, and their records cannot be told", v.claims.Closed.Count-v.at.Closed.Count)
		v.at.Index = 0
		return true, nil
	}
	from := baseHeads(v.base)
	for _, w := range list {
		if w.Closed > v.claims.Closed.Count {
			break
		}
		// A writer that the checkpoint still lists ended with it or before: then its place is there.
		done, err := v.writer(ctx, Head{Writer: w.Name, Sequence: w.Sequence, Hash: encodeHash(w.Hash)}, from)
		if err != nil || !done {
			return false, err
		}
		next, err := v.at.Closed.add(w)
		if err != nil {
			return false, err
		}
		if next.Count != w.Closed {
			v.find(Broken, "writers that ended were removed from the database: numbers %d to %d", next.Count, w.Closed-1)
			next.Count = w.Closed
		}
		v.at.Closed = next
		if v.left--; v.left <= 0 {
			return false, nil
		}
	}
	return false, nil
}

// current verifies the writers that the checkpoint lists as going on.
func (v *verification) current(ctx context.Context) (bool, error) {
	from := baseHeads(v.base)
	for ; v.at.Index < len(v.claims.Writers); v.at.Index++ {
		h := v.claims.Writers[v.at.Index]
		if h.Closed > 0 {
			continue // it is among the ended
		}
		done, err := v.writer(ctx, h, from)
		if err != nil || !done {
			return false, err
		}
	}
	return true, nil
}

// baseHeads are the heads up to which the records of writers were pruned.
func baseHeads(base Claims) map[string]Head {
	from := make(map[string]Head, len(base.Writers))
	for _, h := range base.Writers {
		from[h.Writer] = h
	}
	return from
}

// writer verifies the records of one writer, or as many as this call may read.
func (v *verification) writer(ctx context.Context, to Head, from map[string]Head) (done bool, err error) {
	c := chain{writer: to.Writer, at: v.at.Head, to: to, placed: true}
	if !v.at.Started {
		c.at = head{}
		if h, ok := from[to.Writer]; ok {
			c.at.Sequence = h.Sequence
			c.at.Hash, _ = decodeHash(h.Hash)
			c.at.Tx, c.at.Place = -1, -1
		}
		v.at.Started = true
	}
	for c.at.Sequence < to.Sequence {
		list, err := v.Trail.WriterRecords(ctx, v.account, to.Writer, c.at.Sequence, int(min(page, to.Sequence-c.at.Sequence)))
		if err != nil {
			return false, err
		}
		for _, e := range list {
			if e.Record.Sequence > to.Sequence {
				list = nil
				break
			}
			c.next(e)
			v.verdict.Checked++
		}
		if len(list) == 0 {
			break
		}
		if v.left -= len(list); v.left <= 0 && c.at.Sequence < to.Sequence {
			v.at.Head = c.at
			v.add(c.found...)
			return false, nil
		}
	}
	c.end()
	v.add(c.found...)
	v.at.Head, v.at.Started = head{}, false
	return true, nil
}

// strays counts what the checkpoint does not cover, and finds records that claim to be older than it and are not
// covered.
func (v *verification) strays(ctx context.Context) (bool, error) {
	covered := map[string]int64{}
	for _, h := range v.claims.Writers {
		covered[h.Writer] = h.Sequence
	}
	list, err := v.Trail.Strays(ctx, v.account, v.at.Stray, page)
	if err != nil {
		return false, err
	}
	at := time.UnixMilli(v.claims.Time)
	for _, w := range list {
		v.at.Stray = w.Writer
		if w.Last == 0 {
			continue // of another account
		}
		upTo, known := covered[w.Writer]
		if !known && w.Closed > 0 && w.Closed <= v.claims.Closed.Count {
			upTo, known = w.Covered, true
		}
		if !known && w.First.Before(at.Add(-skew)) {
			v.add(Finding{Kind: Edited, Writer: w.Writer, Sequence: w.Last,
				Message: "records of a writer that the checkpoint does not know claim to be older than it: they were put in"})
		}
		v.verdict.Unprovable += max(w.Last-upTo, 0)
	}
	v.left -= len(list)
	return len(list) < page, nil
}
