package access

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/fault"
)

// Record is one line of the trail. It says who, as which agent, for which user, with which provider; never a secret.
// Records of one writer form a chain: each hash covers the one before, and the first that of the account's last
// checkpoint.
type Record struct {
	Writer   string // one for each account and process start; a failed write and a long idle time begin another
	Sequence int64  // 1, 2, 3, ... per writer
	Time     time.Time
	Account  Account

	Principal PrincipalID // empty for events of the browser
	Name      string      // name of the principal
	AccessKey string
	RequestID string

	Action Action
	Allow  bool
	Rule   string // which rule decided
	Facts  Facts

	Prev [32]byte // hash of the record before; for the first that of the last checkpoint, zeros where there was none
	Hash [32]byte
}

// ID names the record: writer and sequence.
func (r Record) ID() string {
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], uint64(r.Sequence))
	return r.Writer + "-" + hex.EncodeToString(seq[:])
}

// Seal sets Prev and Hash. The hash covers every other field in a length-prefixed form, so that no two different
// records have the same bytes.
func (r *Record) Seal(prev [32]byte) {
	r.Prev = prev
	b := make([]byte, 0, 512)
	b = append(b, "tabard-audit-1"...)
	b = append(b, prev[:]...)
	str := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	num := func(n int64) { b = binary.BigEndian.AppendUint64(b, uint64(n)) }
	flag := func(v bool) {
		if v {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	str(r.Writer)
	num(r.Sequence)
	num(r.Time.UnixMilli())
	str(string(r.Account))
	str(string(r.Principal))
	str(r.Name)
	str(r.AccessKey)
	str(r.RequestID)
	str(string(r.Action))
	flag(r.Allow)
	str(r.Rule)
	f := r.Facts
	for _, s := range []string{f.Resource, f.Workload, f.WorkloadUID, f.UserRef, f.Provider, f.Flow, f.Connection, f.Outcome, f.Detail} {
		str(s)
	}
	flag(f.Asserted)
	flag(f.Assertable)
	num(f.Generation)
	num(int64(len(f.Scopes)))
	for _, s := range f.Scopes {
		str(s)
	}
	r.Hash = sha256.Sum256(b)
}

// clean makes every text valid UTF-8, so that an exported record, which is JSON, has the bytes that were hashed.
func (r *Record) clean() {
	f := &r.Facts
	for _, s := range []*string{(*string)(&r.Account), (*string)(&r.Principal), &r.Name, &r.AccessKey, &r.RequestID, (*string)(&r.Action), &r.Rule,
		&f.Resource, &f.Workload, &f.WorkloadUID, &f.UserRef, &f.Provider, &f.Flow, &f.Connection, &f.Outcome, &f.Detail} {
		if !utf8.ValidString(*s) {
			*s = strings.ToValidUTF8(*s, "\uFFFD")
		}
	}
	for i, s := range f.Scopes {
		if !utf8.ValidString(s) {
			f.Scopes = slices.Clone(f.Scopes) // the caller's
			f.Scopes[i] = strings.ToValidUTF8(s, "\uFFFD")
		}
	}
}

// Bounds of a record, in bytes: what others say (a provider's scopes, an issuer's URL, a sentence about either) is
// written into each record of a connection, and none may make the trail grow by more than a few kilobytes a request.
const (
	maxRecordText   = 2_048 // of each text
	maxRecordScopes = 4_096 // of all scopes
)

// bound cuts what is too long. Of scopes that are left out Detail has the number, and the hash of the whole list: one
// name in a line each. What was decided was decided on all of them.
func (r *Record) bound() {
	f := &r.Facts
	size := 0
	for i, s := range f.Scopes {
		if size += len(s); size <= maxRecordScopes {
			continue
		}
		sum := sha256.Sum256([]byte(strings.Join(f.Scopes, "\n")))
		note := strconv.Itoa(len(f.Scopes)-i) + " more scopes, sha256 of all " + hex.EncodeToString(sum[:])
		f.Scopes = f.Scopes[:i:i]
		f.Detail = note + "; " + f.Detail
		break
	}
	for _, s := range []*string{&r.Name, &r.AccessKey, &r.Rule, &f.Resource, &f.Workload, &f.Provider, &f.Flow, &f.Detail} {
		if len(*s) > maxRecordText {
			*s = strings.ToValidUTF8((*s)[:maxRecordText], "") + "..."
		}
	}
}

// Log keeps the trail.
type Log interface {
	// Append MUST store all records of the batch durably or none, and MUST refuse a (writer, sequence) that exists.
	Append(ctx context.Context, batch []Record) error
}

// Chains is what a Log may do besides: link chains to checkpoints. Without it a chain begins with zeros.
type Chains interface {
	// BeginChain registers a writer durably before its first record, and returns what that links to: the hash of the
	// account's last checkpoint, or zeros. over names a writer of this process that writes no more, "" for none.
	BeginChain(ctx context.Context, account Account, writer, over string) (link [32]byte, err error)
}

// Query selects records of one account, oldest first. Fields that are set must all match.
type Query struct {
	After  string // cursor of an earlier answer, or ""
	Limit  int
	Newest bool // with After "": start so that the last Limit records are returned

	Workload  string // name of the workload identity
	Principal string // name of the principal
	UserRef   string
	Provider  string // name of the credential provider
	Action    Action
	Outcome   string
	Denied    bool      // only refusals
	From, To  time.Time // From ≤ time < To, each where set
}

// Reader reads the trail.
type Reader interface {
	// Records returns up to q.Limit records of the account in the order they were committed, and the cursor that
	// continues after them (the same cursor when nothing was read). A query that selects little reads a bounded number of
	// records at a time: an answer may be short, or empty, while more follow. Where q.To is set reading ends: the cursor
	// is "" when nothing is left before it.
	Records(ctx context.Context, account Account, q Query) (records []Record, cursor string, err error)
}

// Receipt stands for a record on its way to the trail.
type Receipt struct {
	done   chan error      // buffered: it keeps the outcome for every Wait
	closed <-chan struct{} // the writer has ended
}

// Wait returns nil once the record is durable, and an Unavailable fault if it cannot be: then nothing may be released.
func (r Receipt) Wait(ctx context.Context) error {
	if r.done == nil {
		return fault.New(fault.Internal, "a receipt without a record")
	}
	select {
	case err := <-r.done:
		r.done <- err
		return written(err)
	case <-r.closed:
		select {
		case err := <-r.done: // both were ready
			r.done <- err
			return written(err)
		default:
			return fault.New(fault.Unavailable, "the server is shutting down")
		}
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended before its audit record was durable")
	}
}

func written(err error) error {
	if err == nil {
		return nil
	}
	return fault.Wrap(fault.Unavailable, err, "the audit trail cannot be written, so nothing is released")
}
