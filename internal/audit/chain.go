package audit

import (
	"fmt"

	"github.com/tabard-id/tabard/internal/access"
)

// Kind says what is wrong.
type Kind string

// The kinds of findings. They are the API's.
const (
	Edited     Kind = "EDITED"     // a record is not what was hashed, or was put in
	Missing    Kind = "MISSING"    // records that a checkpoint covers are not there
	Reordered  Kind = "REORDERED"  // records are not where they were written
	Broken     Kind = "CHECKPOINT" // a checkpoint, or the list of writers, was changed or removed
	Unprovable Kind = "UNPROVABLE" // not covered by the checkpoint; no fault by itself
)

// Finding is one thing that verifying found.
type Finding struct {
	Kind     Kind
	Writer   string
	Sequence int64
	Message  string
}

// head is how far one writer has been verified.
type head struct {
	Sequence int64 `json:"n"`
	Hash     Hash  `json:"h"`
	Tx       int64 `json:"t"` // place of the last record in the order of commits
	Place    int64 `json:"p"`
}

// chain verifies the records of one writer, in the order of their sequences, up to a head that was signed.
type chain struct {
	writer string
	at     head
	to     Head
	placed bool // entries have a place in the order of commits
	files  bool // the records are those of files, which may have been written before the head
	found  []Finding
}

func (c *chain) report(k Kind, sequence int64, format string, args ...any) {
	c.found = append(c.found, Finding{Kind: k, Writer: c.writer, Sequence: sequence, Message: fmt.Sprintf(format, args...)})
}

// next takes the next record, whose sequence is above the last one's and not above the head's.
func (c *chain) next(e Entry) {
	r := e.Record
	switch {
	case r.Sequence > c.at.Sequence+1:
		c.gap(r.Sequence)
	case c.at.Sequence > 0 && r.Prev != c.at.Hash && c.fits(r, r.Prev):
		if n := len(c.found); n == 0 || c.found[n-1].Sequence != c.at.Sequence {
			c.report(Edited, c.at.Sequence, "the record is another than the one that the next names")
		}
	}
	if !c.fits(r, r.Prev) {
		c.odd(r)
	}
	if c.placed && c.at.Sequence > 0 && (e.Tx < c.at.Tx || e.Tx == c.at.Tx && e.Place <= c.at.Place) {
		c.report(Reordered, r.Sequence, "the record was moved before one that its writer wrote earlier")
	}
	c.at = head{Sequence: r.Sequence, Hash: r.Hash, Tx: e.Tx, Place: e.Place}
}

// fits reports whether the record has the hash of what it says.
func (c *chain) fits(r access.Record, prev Hash) bool {
	again := r
	again.Seal(prev)
	return again.Hash == r.Hash
}

// near is how far from its place a record is looked for.
const near = 64

// odd tells a record that was changed from one that stands in another's place.
func (c *chain) odd(r access.Record) {
	for d := int64(1); d <= near && len(c.found) < foundMax; d++ {
		for _, sequence := range []int64{r.Sequence - d, r.Sequence + d} {
			moved := r
			moved.Sequence = sequence
			if c.fits(moved, r.Prev) {
				c.report(Reordered, r.Sequence, "the record was written as number %d of its writer", sequence)
				return
			}
		}
	}
	c.report(Edited, r.Sequence, "the record is not what was written: its hash is another")
}

// end is called when there are no more records up to the head.
func (c *chain) end() {
	want, _ := decodeHash(c.to.Hash) // it was verified
	switch {
	case c.at.Sequence < c.to.Sequence && c.files:
		c.report(Missing, c.at.Sequence+1, "the files have none of the writer's records %d to %d", c.at.Sequence+1, c.to.Sequence)
	case c.at.Sequence < c.to.Sequence:
		c.gap(c.to.Sequence + 1)
	case c.at.Sequence > 0 && c.at.Hash != want:
		c.report(Edited, c.at.Sequence, "the writer's last record is another than the checkpoint says")
	}
}

// gap reports the records between the last one and the sequence before.
func (c *chain) gap(before int64) {
	first, last := c.at.Sequence+1, before-1
	if first == last {
		c.report(Missing, first, "the record was removed")
		return
	}
	c.report(Missing, first, "%d records were removed: numbers %d to %d", last-first+1, first, last)
}
