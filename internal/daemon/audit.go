package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/audit"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/sink"
)

const (
	checkpointEvery = time.Minute
	lastCheckpoint  = 10 * time.Second // for the checkpoint of a server that ends
)

// auditing is what proves the trail and carries it elsewhere.
type auditing struct {
	service *audit.Service
	sinks   []*sink.Streamer
	close   []func() error
	made    prometheus.Counter
	alarms  prometheus.Counter

	mu   sync.Mutex // guards file
	file *os.File   // --audit-checkpoint-file, nil for none
}

// BeginChain implements access.Chains.
func (l countedLog) BeginChain(ctx context.Context, account access.Account, writer, over string) (link [32]byte, err error) {
	if chains, ok := l.Log.(access.Chains); ok {
		return chains.BeginChain(ctx, account, writer, over)
	}
	return link, nil
}

// wireAudit builds the service and the sinks.
func (s *Server) wireAudit() error {
	c := s.config
	a := &auditing{
		made:   prometheus.NewCounter(prometheus.CounterOpts{Name: "tabard_audit_checkpoints_total", Help: "Checkpoints of the audit trail made by this server."}),
		alarms: prometheus.NewCounter(prometheus.CounterOpts{Name: "tabard_audit_alarms_total", Help: "Times that the audit trail contradicted what was signed before."}),
	}
	s.audit = a
	s.metrics.registry.MustRegister(a.made, a.alarms)
	if c.AuditCheckpointFile != "" {
		f, err := os.OpenFile(c.AuditCheckpointFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return fmt.Errorf("audit-checkpoint-file: %w", err)
		}
		a.file = f
		a.close = append(a.close, f.Close)
	}
	if err := s.openSinks(); err != nil {
		return err
	}
	var err error
	a.service, err = audit.New(audit.Config{
		Store: s.db, Trail: s.db, Remover: s.db, Signer: statements{s.signing}, Guard: s.guard, Now: c.Now, Emit: s.emit,
		Keep: c.Bounds.auditKeep(), Carried: s.carried,
		Alarm: func(account access.Account, what string) {
			a.alarms.Inc()
			c.Log.Error("the audit trail was tampered with", "account", string(account), "what", what)
		},
	})
	return err
}

// carried reports whether the sinks that confirm what they take have the account's trail up to the checkpoint.
func (s *Server) carried(ctx context.Context, account access.Account, checkpoint int64) (bool, error) {
	confirming := 0
	for _, one := range s.audit.sinks {
		if !one.Sink.Confirms() {
			continue
		}
		confirming++
		if has, err := one.Has(ctx, account, checkpoint); err != nil || !has {
			return false, err
		}
	}
	if confirming == 0 && len(s.audit.sinks) > 0 {
		return false, fault.New(fault.Denied, "no audit sink of this server confirms what it takes (syslog does not), so that nobody knows whether the records are "+
			"elsewhere: add a file or an https sink with --audit-sink before pruning")
	}
	return true, nil
}

// emit puts a checkpoint where the database does not reach: the file and the sinks have it whole, the log its SHA-256.
// A log with signed tokens in it would set off every scanner that hunts for secrets, ours first.
func (s *Server) emit(_ context.Context, c audit.Checkpoint) {
	s.audit.made.Inc()
	sum := sha256.Sum256([]byte(c.Token))
	s.config.Log.Info("audit checkpoint", "account", string(c.Account), "number", c.Number, "id", c.ID, "records", c.Records, "sha256", hex.EncodeToString(sum[:]))
	if c.Anew != nil {
		s.config.Log.Warn("the audit trail has a new series of checkpoints", "account", string(c.Account), "number", c.Number, "revokedKey", c.Anew.Key)
	}
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	if s.audit.file == nil {
		return
	}
	_, err := s.audit.file.WriteString(c.Token + "\n")
	if err = errors.Join(err, s.audit.file.Sync()); err != nil {
		s.config.Log.Error("the audit checkpoint file cannot be written", "error", err)
	}
}

// runAudit makes checkpoints each minute and streams to the sinks until ctx ends.
func (s *Server) runAudit(ctx context.Context) {
	var group sync.WaitGroup
	for _, one := range s.audit.sinks {
		group.Go(func() { one.Run(ctx) })
	}
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	failing := false
	for ctx.Err() == nil {
		err := s.audit.service.Tick(ctx)
		if (err != nil) != failing && ctx.Err() == nil {
			failing = err != nil
			s.config.Log.Warn("audit checkpoints", "failing", failing, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	group.Wait()
}

// closeAudit makes the last checkpoint, when the Guard has written its last record.
func (s *Server) closeAudit() {
	if s.audit == nil {
		return
	}
	if s.audit.service != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lastCheckpoint)
		defer cancel()
		if err := s.audit.service.All(ctx); err != nil {
			s.config.Log.Warn("the last audit checkpoint", "error", err)
		}
	}
	for _, end := range s.audit.close {
		if err := end(); err != nil {
			s.config.Log.Warn("closing an audit sink", "error", err)
		}
	}
}
