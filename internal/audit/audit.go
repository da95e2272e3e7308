// Package audit makes the trail provable: checkpoints, verification, segments, pruning.
//
// Security argument: a checkpoint is a statement, signed with a key that the database does not give away, of how far
// each writer of an account's trail had come and under which hash. Records are hash-chained by writer, so the heads fix
// every record before them, and each checkpoint names the one before by hash, so the newest fixes all. Whoever can
// change the database can change no row that a checkpoint covers without the chain, the heads or the signature giving
// it away to someone who kept that checkpoint elsewhere. What came after the checkpoint is stated as unprovable and no
// more. A checkpoint never goes back: it is made from the one before, whose signature is verified, and not from what
// the database says a writer's head was.
package audit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

const (
	// closeAfter is how long a writer that does not say that it ended is waited for. It begins another chain long before.
	closeAfter = 3 * access.ChainIdle

	// overAfter is how long a writer that says that it ended is waited for: a commit of unknown outcome may still come.
	overAfter = time.Minute

	// listed bounds the writers of one checkpoint, and with it its size. Those beyond come into the next one: only servers
	// that break off again and again within half an hour come near.
	listed = 256

	leaseTTL = 50 * time.Second
	tries    = 5
)

// Hash is a SHA-256.
type Hash = [32]byte

// Writer is one writer of an account's trail.
type Writer struct {
	Name     string
	Sequence int64 // of its last record, 0 where it has none
	Hash     Hash  // of that record
	Closed   int64 // its place among the writers that ended, from 1; 0 while it may go on

	// Of the database, and of no checkpoint:
	Over bool          // it said that it ended
	Idle time.Duration // since a checkpoint saw it move
}

// Checkpoint is a checkpoint as it is stored.
type Checkpoint struct {
	Account access.Account
	Number  int64 // 1, 2, 3, ... in the account
	ID      string
	Time    time.Time
	Records int64 // how many records it covers, from the beginning of the trail
	Writers int64 // how many writers it lists
	Hash    Hash  // of Token
	Token   string
	Anew    *Anew // set where it was just made and begins a series behind a revoked key; never stored
}

// Store keeps checkpoints and who writes.
type Store interface {
	// LeaseCheckpoints reports whether holder has, or now takes, the lease for ttl.
	LeaseCheckpoints(ctx context.Context, holder string, ttl time.Duration) (bool, error)
	// OpenAccounts returns the accounts that have a writer that may go on.
	OpenAccounts(ctx context.Context) ([]access.Account, error)
	// OpenWriters returns the writers of an account that may go on, with the heads that the trail has now.
	OpenWriters(ctx context.Context, account access.Account) ([]Writer, error)
	// AddCheckpoint stores c and, in the same transaction, where the writers were. It MUST return a Conflict fault
	// where the account has a checkpoint of that number.
	AddCheckpoint(ctx context.Context, c Checkpoint, writers []Writer) error
	// Checkpoints returns up to limit checkpoints with numbers above after, in their order; newest returns the last ones
	// instead, the newest first, with numbers below after where that is above 0.
	Checkpoints(ctx context.Context, account access.Account, after int64, limit int, newest bool) ([]Checkpoint, error)
	// CheckpointBy returns the checkpoint of an id or of a hash, whichever is not zero, or a NotFound fault.
	CheckpointBy(ctx context.Context, account access.Account, id string, hash Hash) (Checkpoint, error)
}

// Entry is a record with its place in the order of commits, which no hash covers.
type Entry struct {
	Record access.Record
	Tx     int64
	Place  int64
}

// Trail reads the trail by writer.
type Trail interface {
	// WriterRecords returns up to limit records of a writer with sequences above after, in that order.
	WriterRecords(ctx context.Context, account access.Account, writer string, after int64, limit int) ([]Entry, error)
	// ClosedWriters returns up to limit ended writers with places above after, in that order.
	ClosedWriters(ctx context.Context, account access.Account, after int64, limit int) ([]Writer, error)
	// Strays returns up to limit writers with names above after that have records, in the order of names.
	Strays(ctx context.Context, account access.Account, after string, limit int) ([]Stray, error)
}

// Stray is a writer that the trail has records of.
type Stray struct {
	Writer  string
	Closed  int64 // its place among those that ended; 0 where it may go on or is not known
	Covered int64 // the sequence at which it ended
	First   time.Time
	Last    int64 // sequence of its last record; 0 where it is another account's
}

// Remover removes what was pruned.
type Remover interface {
	// RemoveRecords removes up to limit records of a writer with sequences up to upTo, the oldest first.
	RemoveRecords(ctx context.Context, account access.Account, writer string, upTo int64, limit int) (removed int64, err error)
	// RemoveBehind removes ended writers with places up to closed, and checkpoints with numbers below number.
	RemoveBehind(ctx context.Context, account access.Account, closed, number int64) error
}

// Signer signs checkpoints.
type Signer interface {
	// Sign returns the compact form of a JWT (ES256, with kid) of exactly the type typ, with the claims and iss.
	Sign(ctx context.Context, typ string, claims map[string]any) (string, error)
	// Keys returns the JWK set of every key that ever signed a checkpoint and was not revoked: they are kept for years.
	Keys(ctx context.Context) ([]byte, error)
	// Revoked returns the ids of the keys that were revoked, and when. It MUST NOT believe a bare row of the database.
	Revoked(ctx context.Context) (map[string]time.Time, error)
}

// Config is what a Service needs.
type Config struct {
	Store   Store
	Trail   Trail
	Remover Remover
	Signer  Signer
	Guard   *access.Guard
	Now     func() time.Time

	// Keep is how long every record stays: what a younger checkpoint covers is not pruned by anybody.
	Keep time.Duration
	// Carried reports whether every place outside the database that the trail is carried to, and that confirms what it
	// takes, has the account's trail up to the checkpoint of that number. Without any such place it is true, unless there
	// are only places that confirm nothing: then it is a Denied fault. It may be nil: the trail is carried nowhere.
	Carried func(ctx context.Context, account access.Account, checkpoint int64) (bool, error)

	// Emit is given each new checkpoint after it is stored, to be put where the database does not reach. It MUST NOT
	// block for long. It may be nil.
	Emit func(ctx context.Context, c Checkpoint)
	// Alarm is given a sentence when the database contradicts what was signed before. It may be nil.
	Alarm func(account access.Account, what string)
}

// Service makes and verifies checkpoints. It is safe for concurrent use.
type Service struct {
	Config
	holder string

	mu   sync.Mutex // guards last
	last map[access.Account]Checkpoint
}

// New returns a Service, or an error where a part is missing.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Trail == nil || c.Remover == nil || c.Signer == nil || c.Guard == nil || c.Now == nil {
		return nil, errors.New("audit: an incomplete Config")
	}
	if c.Carried == nil {
		c.Carried = func(context.Context, access.Account, int64) (bool, error) { return true, nil }
	}
	if c.Emit == nil {
		c.Emit = func(context.Context, Checkpoint) {}
	}
	if c.Alarm == nil {
		c.Alarm = func(access.Account, string) {}
	}
	return &Service{Config: c, holder: newID(), last: map[access.Account]Checkpoint{}}, nil
}

func newID() string {
	var id [10]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(id[:])
}

// Tick makes the checkpoints that are due: one for each account whose trail has moved. Of several replicas one does it.
// Call it each minute, and once when the Guard has ended.
func (s *Service) Tick(ctx context.Context) error {
	mine, err := s.Store.LeaseCheckpoints(ctx, s.holder, leaseTTL)
	if err != nil || !mine {
		return err
	}
	return s.All(ctx)
}

// All is Tick without the lease: two replicas that do it at once make one checkpoint after the other.
func (s *Service) All(ctx context.Context) error {
	accounts, err := s.Store.OpenAccounts(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, account := range accounts {
		if _, err := s.advance(ctx, account); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Create makes a checkpoint now, for tabard audit checkpoint. Where the trail has not moved it returns the last one; a
// call moves it by its own record.
func (s *Service) Create(ctx context.Context, caller access.Caller) (Checkpoint, error) {
	if err := s.Guard.Permit(ctx, caller, access.CreateAuditCheckpoint, access.Facts{}); err != nil {
		return Checkpoint{}, err
	}
	return s.advance(ctx, caller.Account)
}

// List returns up to limit checkpoints of the caller's account, the newest first, with numbers below before where that
// is above 0.
func (s *Service) List(ctx context.Context, caller access.Caller, before int64, limit int) ([]Checkpoint, error) {
	if err := s.Guard.Permit(ctx, caller, access.ListAuditCheckpoints, access.Facts{}); err != nil {
		return nil, err
	}
	return s.Store.Checkpoints(ctx, caller.Account, before, limit, true)
}

// advance makes the next checkpoint of an account, or returns the last one where nothing has changed since.
func (s *Service) advance(ctx context.Context, account access.Account) (Checkpoint, error) {
	return s.next(ctx, account, nil)
}

// next is advance. base is the checkpoint behind which records are about to be removed, nil for none.
func (s *Service) next(ctx context.Context, account access.Account, base *Ref) (Checkpoint, error) {
	var err error
	for range tries {
		var c Checkpoint
		var writers []Writer
		var changed bool
		if c, writers, changed, err = s.draft(ctx, account, base); err != nil || !changed {
			return c, err
		}
		if err = s.Store.AddCheckpoint(ctx, c, writers); err == nil {
			s.remember(c)
			s.Emit(ctx, c)
			return c, nil
		}
		if fault.CodeOf(err) != fault.Conflict { // another replica was faster
			return Checkpoint{}, err
		}
	}
	return Checkpoint{}, err
}

// remember keeps the last checkpoint of this process in memory, where the database does not reach.
func (s *Service) remember(c Checkpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Number >= s.last[c.Account].Number {
		s.last[c.Account] = c
	}
}

// lastOf returns the newest stored checkpoint with its claims. What this process made or saw before must still be
// there. Where its key was revoked, the claims are unproven, and their Anew names the checkpoint itself.
func (s *Service) lastOf(ctx context.Context, account access.Account) (Checkpoint, Claims, error) {
	stored, err := s.Store.Checkpoints(ctx, account, 0, 1, true)
	if err != nil {
		return Checkpoint{}, Claims{}, err
	}
	s.mu.Lock()
	known := s.last[account]
	s.mu.Unlock()
	if len(stored) == 0 {
		if known.Number > 0 {
			s.Alarm(account, "the checkpoints of the trail were removed")
			return s.readOrBegin(ctx, known)
		}
		return Checkpoint{}, Claims{}, nil
	}
	if stored[0].Number < known.Number || stored[0].Number == known.Number && stored[0].Hash != known.Hash {
		s.Alarm(account, "the last checkpoint of the trail was removed or replaced")
		return s.readOrBegin(ctx, known)
	}
	c, claims, err := s.readOrBegin(ctx, stored[0])
	if err != nil {
		s.Alarm(account, "the last checkpoint of the trail was changed")
		return c, claims, err
	}
	s.remember(c)
	return c, claims, nil
}

// read verifies a stored checkpoint.
func (s *Service) read(ctx context.Context, c Checkpoint) (Checkpoint, Claims, error) {
	claims, err := s.open(ctx, c.Account, c.Token)
	if err == nil && (claims.Number != c.Number || HashOf(c.Token) != c.Hash) {
		err = fault.New(fault.Internal, "checkpoint %d is another than its row says", c.Number)
	}
	return c, claims, err
}

// open verifies a token of this installation and account.
func (s *Service) open(ctx context.Context, account access.Account, token string) (Claims, error) {
	keys, err := s.Signer.Keys(ctx)
	if err != nil {
		return Claims{}, err
	}
	claims, err := Open(token, keys)
	if err != nil {
		if at, revoked := s.revokedAt(ctx, token); revoked {
			err = fault.New(fault.Invalid, "the checkpoint is signed with a key that was revoked at %s, and proves nothing: "+
				"take a later one, which tabard audit checkpoint makes", at.Format(time.RFC3339))
		}
		return Claims{}, err
	}
	if claims.Account != string(account) {
		err = fault.New(fault.Invalid, "the checkpoint is of another account's trail")
	}
	return claims, err
}
