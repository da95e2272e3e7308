package audit

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

const (
	// pruneMax bounds the records that one call removes. Callers repeat until nothing was removed.
	pruneMax = 50_000
	// pruneStep is how many records one write removes: requests share the store's writer with it.
	pruneStep = 500
	// linkedMax is how many checkpoints before the one in hand a chain may begin with: a writer that was registered and
	// wrote nothing for closeAfter is taken for ended, and there is at most one checkpoint a minute, and some on demand.
	linkedMax = 200
)

// Prune removes the records that a checkpoint of the caller's account covers, a bounded number a call, and returns how
// many that were; 0 means that all of them are gone. Before the first is removed, a new checkpoint says behind which
// one the trail begins from now on: the chain stays verifiable, and rows that were removed in any other way are found.
// Pruning is recorded, and that record has left the database before the first one is removed: whoever releases
// something and prunes does not remove the trace (threat M15). Errors: NotFound if there is no such checkpoint; Denied
// if it is younger than Keep; Unavailable as long as the trail was not carried to where it goes, up to the record of
// the pruning.
func (s *Service) Prune(ctx context.Context, caller access.Caller, id string) (removed int64, err error) {
	if err := s.Guard.Permit(ctx, caller, access.PruneAudit, access.Facts{Resource: id}); err != nil {
		return 0, err
	}
	account := caller.Account
	c, err := s.Store.CheckpointBy(ctx, account, id, Hash{})
	if err != nil {
		return 0, err
	}
	c, claims, err := s.read(ctx, c)
	if err != nil {
		return 0, err
	}
	// A checkpoint is made after the newest record that it covers. Its time is signed; that of a row is not.
	if ripe := time.UnixMilli(claims.Time).Add(s.Keep); s.Now().Before(ripe) {
		return 0, s.Guard.Refuse(ctx, caller, access.PruneAudit, "audit-keep", access.Facts{Resource: id, Outcome: "refused"}, fault.New(fault.Denied,
			"checkpoint %d covers records that are kept until %s: the server's setting audit-keep-days holds for everybody", c.Number, ripe.UTC().Format(time.RFC3339)))
	}
	if err := s.carried(ctx, account, c.Number, false); err != nil {
		return 0, err
	}
	base, err := s.begin(ctx, c)
	if err != nil {
		return 0, err
	}
	if err := s.carried(ctx, account, base, true); err != nil {
		return 0, err
	}
	if removed, err = s.remove(ctx, account, claims); err != nil || removed > 0 {
		return removed, err
	}
	return 0, s.Remover.RemoveBehind(ctx, account, claims.Closed.Count, claims.Number-linkedMax)
}

// carriedWait is how long a caller waits for the sinks. They are given what is new each second.
const carriedWait = 10 * time.Second

// carried returns an Unavailable fault as long as the trail was not carried outside up to the checkpoint. With wait it
// gives the sinks some seconds for that.
func (s *Service) carried(ctx context.Context, account access.Account, checkpoint int64, wait bool) error {
	const pause = 200 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		has, err := s.Carried(ctx, account, checkpoint)
		if err != nil || has {
			return err
		}
		if !wait || waited >= carriedWait {
			return fault.New(fault.Unavailable, "an audit sink does not have the trail up to checkpoint %d yet: nothing is removed before it has", checkpoint)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// begin signs that the trail begins behind c from now on, unless that is signed already. It returns the number of a
// checkpoint that says so, and covers the record of the pruning.
func (s *Service) begin(ctx context.Context, c Checkpoint) (int64, error) {
	last, claims, err := s.lastOf(ctx, c.Account)
	switch {
	case err != nil:
		return 0, err
	case claims.Base == nil || claims.Base.Number < c.Number:
		made, err := s.next(ctx, c.Account, &Ref{Number: c.Number, Hash: hex.EncodeToString(c.Hash[:])})
		return made.Number, err
	case claims.Base.Number > c.Number:
		return 0, fault.New(fault.Conflict, "the trail was pruned behind checkpoint %d already, which is later", claims.Base.Number)
	}
	return last.Number, nil
}

// remove removes what claims cover.
func (s *Service) remove(ctx context.Context, account access.Account, claims Claims) (removed int64, err error) {
	for after := int64(0); removed < pruneMax; {
		list, err := s.Trail.ClosedWriters(ctx, account, after, page)
		if err != nil {
			return removed, err
		}
		for _, w := range list {
			if w.Closed > claims.Closed.Count || removed >= pruneMax {
				break
			}
			n, err := s.removeWriter(ctx, account, w.Name, w.Sequence, pruneMax-removed)
			if removed += n; err != nil {
				return removed, err
			}
			after = w.Closed
		}
		if len(list) < page || list[len(list)-1].Closed > claims.Closed.Count {
			break
		}
	}
	for _, h := range claims.Writers {
		if h.Closed > 0 || removed >= pruneMax {
			continue
		}
		n, err := s.removeWriter(ctx, account, h.Writer, h.Sequence, pruneMax-removed)
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, nil
}

func (s *Service) removeWriter(ctx context.Context, account access.Account, writer string, upTo, limit int64) (removed int64, err error) {
	for removed < limit {
		n, err := s.Remover.RemoveRecords(ctx, account, writer, upTo, int(min(pruneStep, limit-removed)))
		if removed += n; err != nil || n == 0 {
			return removed, err
		}
	}
	return removed, nil
}
