package policy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// reloadTimeout bounds one reload. Requests of the account wait for it.
const reloadTimeout = 10 * time.Second

// tenant is one account's policies.
type tenant struct {
	mu      sync.Mutex // one reload at a time
	current atomic.Pointer[snapshot]
}

// snapshot is an account's policies at one version. It does not change.
type snapshot struct {
	seen    int64 // what the store said of the version when this was read
	applied int64 // the latest version of a row that is in it
	rows    map[string]*compiled
	nodes   int // of the trees of rows
	index   index
}

// newSnapshot indexes the policies and the built-in ones.
func (e *Engine) newSnapshot(rows map[string]*compiled) *snapshot {
	s := &snapshot{rows: rows, index: index{}}
	for _, p := range e.builtIn {
		s.add(p)
	}
	for _, p := range rows {
		s.add(p)
		s.nodes += p.nodes
	}
	return s
}

func (s *snapshot) add(p *compiled) {
	for _, st := range p.statements {
		s.index.add(st)
	}
}

// snapshot returns the account's policies, as recent as the store's version is.
func (e *Engine) snapshot(ctx context.Context, account access.Account) (*snapshot, error) {
	v, ok := e.tenants.Load(account)
	if !ok {
		v, _ = e.tenants.LoadOrStore(account, &tenant{})
	}
	t := v.(*tenant) // nothing else is stored
	if e.config.Store == nil {
		if t.current.Load() == nil {
			t.current.Store(e.newSnapshot(nil))
		}
		return t.current.Load(), nil
	}
	version, err := e.config.Store.PolicyVersion(ctx, account)
	if err != nil {
		return nil, unavailable(err)
	}
	if s := t.current.Load(); s != nil && s.seen == version {
		return s, nil
	}
	return e.reload(ctx, t, account, version)
}

// reload reads what has changed. A version that goes back is another database's: then everything is read.
func (e *Engine) reload(ctx context.Context, t *tenant, account access.Account, version int64) (*snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.current.Load()
	if old != nil && old.seen == version {
		return old, nil // somebody else did it
	}
	if old == nil || version < old.seen {
		old = &snapshot{}
	}
	// What is read is for everybody who waits, so it does not depend on this caller's patience.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadTimeout)
	defer cancel()
	changed, err := e.config.Store.PoliciesSince(ctx, account, old.applied)
	if err != nil {
		return nil, unavailable(err)
	}
	rows := make(map[string]*compiled, len(old.rows)+len(changed))
	for name, p := range old.rows {
		rows[name] = p
	}
	applied := old.applied
	for _, row := range changed {
		applied = max(applied, row.Version)
		delete(rows, row.Name)
		if row.Deleted {
			continue
		}
		p, err := e.language.compile(row)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "a stored policy says that it is built in")
		}
		rows[row.Name] = p
		e.tell(account, p)
	}
	s := e.newSnapshot(rows)
	s.seen, s.applied = version, applied
	t.current.Store(s)
	return s, nil
}

// maxAccountNodes bounds all policies of one account, so that no account's fill the memory or make the next start long.
// An ordinary policy has sixty nodes, and there may be 20,000.
const maxAccountNodes = 2_000_000

// room refuses a policy for which the account has no room. Other replicas may write at the same time, so the bound can
// be passed by what is written in a second.
func (e *Engine) room(ctx context.Context, account access.Account, d Draft) error {
	s, err := e.snapshot(ctx, account)
	if err != nil {
		return err
	}
	nodes, _ := tooCostly(d.Text) // it was checked
	if old := s.rows[d.Name]; old != nil {
		nodes -= old.nodes
	}
	if nodes > 0 && s.nodes+nodes > maxAccountNodes {
		return fault.New(fault.Limit, "the account's policies have %d parts in all, and %d are allowed: delete some, or make them shorter", s.nodes, maxAccountNodes)
	}
	return nil
}

func (e *Engine) tell(account access.Account, p *compiled) {
	if e.config.Unreadable == nil {
		return
	}
	for _, problem := range p.problems {
		e.config.Unreadable(account, problem)
	}
}

// Unreadable returns what is wrong with the account's stored policies, by name. A permit among them permits nothing,
// and a forbid forbids all that it could have meant.
func (e *Engine) Unreadable(ctx context.Context, account access.Account) ([]Problem, error) {
	s, err := e.snapshot(ctx, account)
	if err != nil {
		return nil, err
	}
	var out []Problem
	for _, p := range s.rows {
		out = append(out, p.problems...)
	}
	sortProblems(out)
	return out, nil
}

func unavailable(err error) error {
	if errors.Is(err, fault.Unavailable) {
		return err
	}
	return fault.Wrap(fault.Unavailable, err, "the policies cannot be read, so nothing is allowed")
}
