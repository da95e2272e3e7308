package revocation_test

import (
	"context"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/revocation"
)

// shared is a store that others work on too: they get their turn before or after a job is saved.
type shared struct {
	revocation.Store
	lapsed        bool // leases have run out as soon as they are given
	before, after func(from revocation.Phase)
}

func (s *shared) ttl(given time.Duration) time.Duration {
	if s.lapsed {
		return -time.Second
	}
	return given
}

func (s *shared) CreateJob(ctx context.Context, j revocation.Job, ttl time.Duration) error {
	return s.Store.CreateJob(ctx, j, s.ttl(ttl))
}

func (s *shared) SaveJob(ctx context.Context, j revocation.Job, from revocation.Phase, ttl time.Duration) error {
	if s.before != nil {
		s.before(from)
	}
	err := s.Store.SaveJob(ctx, j, from, s.ttl(ttl))
	if s.after != nil {
		s.after(from)
	}
	return err
}

// A worker that is awake takes no job that a request is still at, so that the request is told how it ended.
func TestRevokeAccess_HoldsItsJob(t *testing.T) {
	w := newWorld(t)
	other := w.service()
	left := 8
	busy := &shared{Store: w.db, after: func(from revocation.Phase) {
		if from == revocation.Begun {
			must(t, other.Drain(t.Context()))
			if n := len(w.active()); n != left {
				t.Errorf("another worker took the job in the middle: %d of %d connections are left", n, left)
			}
			left = 4
		}
	}}
	s := w.service(func(c *revocation.Config) { c.Store = busy })
	r := ok(s.RevokeAccess(t.Context(), w.root, revocation.Request{Workload: "agent-a"}))(t)
	if r.Phase != revocation.Done || r.Connections != 4 || len(w.active()) != 4 {
		t.Errorf("got %s with %d connections, and %d are left", r.Phase, r.Connections, len(w.active()))
	}
	e := ok(s.EraseUser(t.Context(), w.root, identity.UserSelector{ID: "alice"}, ""))(t)
	if e.Connections != 2 || e.Receipt == "" {
		t.Errorf("got %+v", e)
	}
	// It is let go of where there is something left for the background to do.
	must(t, other.Drain(t.Context()))
	_, err := w.people.UserByRef(t.Context(), account, w.users["alice"])
	if err == nil {
		t.Error("the user is still known")
	}
	if claims := w.claims(e.Receipt); claims["connections_ended"] != 2.0 {
		t.Errorf("receipt: %v", claims)
	}
}

// A request that was stopped for longer than its lease finds that another worker has gone on, and tells how that ends.
func TestRevokeAccess_TakenOver(t *testing.T) {
	for _, at := range []revocation.Phase{revocation.Begun, revocation.Listed} {
		t.Run(string(at), func(t *testing.T) {
			w := newWorld(t)
			other := w.service()
			ended, taken := make(chan struct{}), false
			slow := &shared{Store: w.db, lapsed: true}
			slow.before = func(from revocation.Phase) {
				if from != at || taken {
					return
				}
				taken = true
				must(t, onestep(t, w))
				go func() { defer close(ended); other.Drain(context.WithoutCancel(t.Context())) }()
			}
			s := w.service(func(c *revocation.Config) { c.Store = slow })
			r, err := s.RevokeAccess(t.Context(), w.root, revocation.Request{Whole: true, Reason: "leaked"})
			<-ended
			must(t, err)
			if r.Phase != revocation.Done || r.Connections != 8 || len(w.active()) != 0 || w.claims(r.Receipt)["final"] != true {
				t.Errorf("got %s with %d connections and receipt %s, and %d are left", r.Phase, r.Connections, r.Receipt, len(w.active()))
			}
		})
	}
}

// onestep takes a single step of the job that is due.
func onestep(t *testing.T, w *world) error {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	one := w.service(func(c *revocation.Config) {
		c.Store = &shared{Store: w.db, after: func(revocation.Phase) { cancel() }}
	})
	return one.Drain(ctx)
}

// contested is a broker that somebody else keeps busy with a connection, once.
type contested struct {
	revocation.Connections
	met bool
}

func (c *contested) EndConnection(ctx context.Context, caller access.Caller, id string, upstream bool, why string) (broker.Ended, error) {
	if !c.met {
		c.met = true
		return broker.Ended{}, fault.New(fault.Conflict, "the connection changed meanwhile")
	}
	return c.Connections.EndConnection(ctx, caller, id, upstream, why)
}

// A request that fails in the middle lets the job go: the background ends it at once, and the request tells how.
func TestRevokeAccess_LetsGo(t *testing.T) {
	w := newWorld(t)
	s := w.service(func(c *revocation.Config) { c.Connections = &contested{Connections: w.ends} })
	work, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Work(work, nil) }()
	r, err := s.RevokeAccess(t.Context(), w.root, revocation.Request{Provider: "google"})
	stop()
	<-ended
	must(t, err)
	if r.Phase != revocation.Done || r.Connections != 4 || len(w.active()) != 4 {
		t.Errorf("got %s with %d connections, and %d are left", r.Phase, r.Connections, len(w.active()))
	}
}
