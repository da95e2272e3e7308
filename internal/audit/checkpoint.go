package audit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Type is the type of a checkpoint's token (RFC 7515 §4.1.9).
const Type = "tabard-audit-checkpoint+jwt"

// Claims are what a checkpoint says. docs/format.md has them member by member.
type Claims struct {
	Version  int64  `json:"v"` // 1
	Issuer   string `json:"iss"`
	Account  string `json:"sub"`
	ID       string `json:"jti"`
	Issued   int64  `json:"iat"`  // seconds
	Time     int64  `json:"time"` // milliseconds
	Number   int64  `json:"number"`
	Previous string `json:"prev"` // hash of the checkpoint before, "" for the first
	Records  int64  `json:"records"`
	Base     *Ref   `json:"base,omitempty"` // what lies before it was pruned
	Anew     *Anew  `json:"anew,omitempty"` // behind which checkpoint of a revoked key the series begins
	Closed   Closed `json:"closed"`
	Writers  []Head `json:"writers"`
}

// Ref names a checkpoint.
type Ref struct {
	Number int64  `json:"number"`
	Hash   string `json:"hash"`
}

// Closed is the set of the writers that ended, as a running hash over them in the order of their ends.
type Closed struct {
	Count   int64  `json:"count"`
	Records int64  `json:"records"`
	Hash    string `json:"hash"`
}

// Head is where one writer was. Closed is its place among those that ended, where this checkpoint is the one that took
// it for ended.
type Head struct {
	Writer   string `json:"w"`
	Sequence int64  `json:"n"`
	Hash     string `json:"h"`
	Closed   int64  `json:"closed,omitempty"`
}

// HashOf is the hash by which checkpoints name each other, and chains begin.
func HashOf(token string) Hash { return sha256.Sum256([]byte(token)) }

// ref is the reference to a token.
func ref(token string) string { h := HashOf(token); return hex.EncodeToString(h[:]) }

func encodeHash(h Hash) string { return base64.RawURLEncoding.EncodeToString(h[:]) }

func decodeHash(s string) (h Hash, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return h, err == nil && copy(h[:], b) == len(h) && len(b) == len(h)
}

// add is the running hash with one more ended writer.
func (c Closed) add(w Writer) (Closed, error) {
	before, ok := decodeHash(c.Hash)
	if c.Count == 0 {
		before, ok = Hash{}, true
	}
	if !ok {
		return c, fault.New(fault.Invalid, "the checkpoint has a hash that is none")
	}
	b := append([]byte("tabard-audit-closed-1"), before[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(w.Name)))
	b = append(b, w.Name...)
	b = binary.BigEndian.AppendUint64(b, uint64(w.Sequence))
	b = append(b, w.Hash[:]...)
	return Closed{Count: c.Count + 1, Records: c.Records + w.Sequence, Hash: encodeHash(sha256.Sum256(b))}, nil
}

// draft makes the checkpoint that follows the last one. changed is false where there is nothing new to say: then the
// last one is returned.
func (s *Service) draft(ctx context.Context, account access.Account, base *Ref) (c Checkpoint, writers []Writer, changed bool, err error) {
	last, before, err := s.lastOf(ctx, account)
	if err != nil {
		return c, nil, false, err
	}
	open, err := s.Store.OpenWriters(ctx, account)
	if err != nil {
		return c, nil, false, err
	}
	begins := before.revoked(last)
	if begins {
		s.merge(account, before, open) // for its alarms: what a revoked key signed is compared, and binds nobody
		if before.Closed, err = s.endedAgain(ctx, account, before); err != nil {
			return c, nil, false, err
		}
		before.Writers = nil
	}
	writers, changed = s.merge(account, before, open)
	changed = changed || begins
	claims := Claims{
		Version: 1, Account: string(account), ID: newID(), Number: before.Number + 1, Base: before.Base, Anew: before.Anew, Closed: before.Closed,
	}
	if last.Number > 0 {
		claims.Previous = ref(last.Token)
	}
	if base != nil && (before.Base == nil || before.Base.Number < base.Number) {
		claims.Base, changed = base, true
	}
	if !changed {
		return last, nil, false, nil
	}
	for i := range writers {
		w := &writers[i]
		if w.Closed < 0 {
			if claims.Closed, err = claims.Closed.add(*w); err != nil {
				return c, nil, false, err
			}
			w.Closed = claims.Closed.Count
		} else {
			claims.Records += w.Sequence
		}
		claims.Writers = append(claims.Writers, Head{Writer: w.Name, Sequence: w.Sequence, Hash: encodeHash(w.Hash), Closed: w.Closed})
	}
	claims.Records += claims.Closed.Records
	now := s.Now()
	claims.Issued, claims.Time = now.Unix(), now.UnixMilli()
	text, err := s.Signer.Sign(ctx, Type, claims.members())
	if err != nil {
		return c, nil, false, err
	}
	c = Checkpoint{
		Account: account, Number: claims.Number, ID: claims.ID, Time: now.UTC().Truncate(1e6), Records: claims.Records,
		Writers: int64(len(writers)), Hash: HashOf(text), Token: text,
	}
	if begins {
		c.Anew = claims.Anew
	}
	return c, writers, true, nil
}

// merge returns the writers that the next checkpoint lists, by name, those that end with Closed -1. The heads that were
// signed before stand where the database has less or something else: it was changed, and verifying must show it.
func (s *Service) merge(account access.Account, before Claims, open []Writer) (writers []Writer, changed bool) {
	signed := map[string]Head{}
	for _, h := range before.Writers {
		if h.Closed == 0 {
			signed[h.Writer] = h
		}
	}
	for _, w := range open {
		h, known := signed[w.Name]
		delete(signed, w.Name)
		hash, _ := decodeHash(h.Hash) // it was verified
		if w.Sequence < h.Sequence || known && w.Sequence == h.Sequence && w.Hash != hash {
			s.Alarm(account, "records that a checkpoint covers were removed or changed: writer "+w.Name)
			w.Sequence, w.Hash = h.Sequence, hash
		}
		moved := w.Sequence != h.Sequence
		ended := !moved && w.Idle >= closeAfter || w.Over && w.Idle >= overAfter
		if !known && (w.Sequence == 0 && !ended || len(signed)+len(writers) >= listed) {
			continue // it has not written yet, or must wait for the next checkpoint
		}
		if ended {
			w.Closed = -1
		}
		changed = changed || moved || ended
		writers = append(writers, w)
	}
	for _, h := range signed {
		s.Alarm(account, "a writer of the trail that a checkpoint lists was removed: "+h.Writer)
		hash, _ := decodeHash(h.Hash)
		writers = append(writers, Writer{Name: h.Writer, Sequence: h.Sequence, Hash: hash})
	}
	slices.SortFunc(writers, func(a, b Writer) int { return strings.Compare(a.Name, b.Name) })
	return writers, changed
}

// members is the claims as a signer takes them.
func (c Claims) members() map[string]any {
	m := map[string]any{
		"v": c.Version, "sub": c.Account, "jti": c.ID, "iat": c.Issued, "time": c.Time, "number": c.Number,
		"prev": c.Previous, "records": c.Records, "closed": c.Closed, "writers": c.Writers,
	}
	if c.Base != nil {
		m["base"] = c.Base
	}
	if c.Anew != nil {
		m["anew"] = c.Anew
	}
	return m
}
