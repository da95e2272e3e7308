package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/audit"
)

// segment is what an exported file has.
type segment struct {
	path        string
	whole       int64 // bytes, up to the end of the last whole line
	paged       bool  // it has a position
	position    string
	account     string
	writer      string                 // the last one
	ends        map[string]audit.Row   // the last record of each writer, where it has any
	writers     map[string]bool        // also those that checkpoints name
	last        map[recordPlace]string // hashes of the records behind the position
	upTo        int64                  // checkpoints are complete up to this number
	checkpoints map[int64]bool         // numbers of those above
	newest      audit.Claims           // of the newest checkpoint
}

type recordPlace struct {
	writer   string
	sequence int64
}

// errForeign is of a file that this command does not add to.
func (s *segment) errForeign(format string, args ...any) error {
	return &failure{exit: exitFailed, msg: s.path + " " + fmt.Sprintf(format, args...) + ": nothing is written to it",
		hints: []string{"tabard audit export NEW_FILE begins another one"}}
}

// readSegment reads what earlier exports wrote into a file. The last line may have been cut by an interruption.
func readSegment(path string, in io.Reader) (segment, error) {
	s := segment{path: path, ends: map[string]audit.Row{}, writers: map[string]bool{}, last: map[recordPlace]string{}, checkpoints: map[int64]bool{}}
	r := bufio.NewReaderSize(in, 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) > 0 && n == 1:
			return s, s.errForeign("is no export of the audit trail")
		case errors.Is(err, io.EOF):
			return s, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return s, s.errForeign("is no export of the audit trail: line %d is too long", n)
		case err != nil:
			return s, err
		}
		var l audit.Line
		if err := json.Unmarshal(line, &l); err != nil {
			return s, s.errForeign("is no export of the audit trail, or was changed: line %d cannot be read", n)
		}
		if err := s.take(l, n); err != nil {
			return s, err
		}
		s.whole += int64(len(line))
	}
}

// take takes line n.
func (s *segment) take(l audit.Line, n int) error {
	switch {
	case l.Type == "position":
		if l.Position != s.position {
			clear(s.last)
		}
		s.position, s.upTo = l.Position, s.newest.Number
		clear(s.checkpoints)
		s.paged = true
	case l.Type == "checkpoint":
		c, err := audit.Peek(l.Checkpoint)
		if err != nil {
			return s.errForeign("has a checkpoint in line %d that is none", n)
		}
		s.checkpoints[c.Number] = true
		if c.Number > s.newest.Number {
			s.newest = c
		}
		for _, h := range c.Writers {
			s.writers[h.Writer] = true
			s.writer = cmp.Or(s.writer, h.Writer)
		}
		s.account = c.Account
	case l.Type == "record" && l.Record != nil && !s.paged:
		return s.errForeign("was not written by tabard audit export: its records are not in pages, as if a sink wrote it")
	case l.Type == "record" && l.Record != nil:
		w := *l.Record
		s.account, s.writer = w.Account, w.Writer
		s.writers[w.Writer] = true
		s.last[recordPlace{w.Writer, w.Sequence}] = w.Hash
		if w.Sequence > s.ends[w.Writer].Sequence {
			s.ends[w.Writer] = audit.Row{Sequence: w.Sequence, Hash: w.Hash}
		}
	default:
		return s.errForeign("is no export of the audit trail: line %d is of no kind that one has", n)
	}
	return nil
}

// sameTrail refuses a server that has another trail than the file: of another account, or one that no writer of the
// file writes. A server's name and keys may change, and writers come and go, but a trail is never without one that is
// in the file, or in a checkpoint behind it, as long as it goes on from there.
func (s *segment) sameTrail(url string, newest api.AuditRecord, records []api.AuditRecord, checkpoints []api.AuditCheckpoint) error {
	if len(s.writers) == 0 {
		return nil
	}
	common := s.writers[newest.Writer]
	for _, r := range records {
		common = common || s.writers[r.Writer]
	}
	var latest audit.Claims
	forked := false
	for i, c := range checkpoints {
		claims, err := audit.Peek(c.Token)
		if err != nil {
			return fmt.Errorf("the server's checkpoint %s cannot be read", oneLine(c.CheckpointID))
		}
		for _, h := range claims.Writers {
			common = common || s.writers[h.Writer]
		}
		if i == 0 {
			latest = claims
		}
		if claims.Number == s.newest.Number {
			forked = claims.ID != s.newest.ID
		}
	}
	switch {
	case !common || newest.Account != s.account:
		return &failure{exit: exitFailed, hints: []string{"check --endpoint, AWS_PROFILE and AWS_ACCESS_KEY_ID, or begin another file: tabard audit export NEW_FILE"},
			msg: fmt.Sprintf("%s is the trail of account %s, writer %s: the server at %s has that of account %s, writer %s, and nothing is written",
				s.path, oneLine(s.account), oneLine(s.writer), url, oneLine(newest.Account), oneLine(newest.Writer))}
	case latest.Number < s.newest.Number:
		return s.errForeign("has checkpoint %d of account %s, and the server at %s has none after %d, as if its database were an older copy",
			s.newest.Number, oneLine(s.account), url, latest.Number)
	case forked:
		return s.errForeign("has another checkpoint %d of account %s than the server at %s, as if its database were a copy that went on by itself",
			s.newest.Number, oneLine(s.account), url)
	}
	return nil
}

// continued returns those of a page that the file has not, or refuses a page that does not follow on the file.
func (s *segment) continued(page []api.AuditRecord) (more []api.AuditRecord, err error) {
	seen := map[string]bool{}
	for _, r := range page {
		end := s.ends[r.Writer]
		hash, here := s.last[recordPlace{r.Writer, r.Sequence}]
		switch {
		case here && hash != r.Hash:
			return nil, s.errForeign("has another record %d of writer %s than the server", r.Sequence, oneLine(r.Writer))
		case r.Sequence <= end.Sequence:
			continue
		case len(s.writers) > 0 && !seen[r.Writer] && r.Sequence > end.Sequence+1:
			return nil, s.errForeign("cannot be continued: the server no longer has records %d to %d of writer %s", end.Sequence+1, r.Sequence-1, oneLine(r.Writer))
		case !seen[r.Writer] && end.Sequence > 0 && r.PreviousHash != end.Hash:
			return nil, s.errForeign("has another record %d of writer %s than the one that the server's next one names", end.Sequence, oneLine(r.Writer))
		}
		seen[r.Writer] = true
		more = append(more, r)
	}
	return more, nil
}
