package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/revocation"
)

// errKilled is what every call returns of a server that was killed.
var errKilled = errors.New("killed")

// fuse lets n calls through, of the store and of what ends connections; the last of them happens, and its answer is
// lost.
type fuse struct {
	revocation.Store
	revocation.Connections
	left int
}

func (f *fuse) burn(do func() error) error {
	if f.left <= 0 {
		return errKilled
	}
	f.left--
	if err := do(); err != nil || f.left > 0 {
		return err
	}
	return errKilled
}

func (f *fuse) CreateJob(ctx context.Context, j revocation.Job, _ time.Duration) error {
	return f.burn(func() error { return f.Store.CreateJob(ctx, j, -time.Second) }) // as if the lease had run out
}

func (f *fuse) SaveJob(ctx context.Context, j revocation.Job, from revocation.Phase, _ time.Duration) error {
	return f.burn(func() error { return f.Store.SaveJob(ctx, j, from, -time.Second) })
}

func (f *fuse) LeaseJob(ctx context.Context, at time.Time, _ time.Duration) (j revocation.Job, err error) {
	if f.left <= 0 {
		return j, errKilled
	}
	return f.Store.LeaseJob(ctx, at, -time.Second)
}

func (f *fuse) EndConsents(ctx context.Context, a access.Account, s revocation.Selection, why string) error {
	return f.burn(func() error { return f.Store.EndConsents(ctx, a, s, why) })
}

func (f *fuse) EraseUser(ctx context.Context, a access.Account, ref string) error {
	return f.burn(func() error { return f.Store.EraseUser(ctx, a, ref) })
}

func (f *fuse) ListItems(ctx context.Context, j revocation.Job) error {
	return f.burn(func() error { return f.Store.ListItems(ctx, j) })
}

func (f *fuse) SaveItem(ctx context.Context, i revocation.Item) error {
	return f.burn(func() error { return f.Store.SaveItem(ctx, i) })
}

func (f *fuse) SyncItems(ctx context.Context, a access.Account, job string) error {
	return f.burn(func() error { return f.Store.SyncItems(ctx, a, job) })
}

func (f *fuse) EndConnection(ctx context.Context, c access.Caller, id string, upstream bool, why string) (e broker.Ended, err error) {
	err = f.burn(func() error { e, err = f.Connections.EndConnection(ctx, c, id, upstream, why); return err })
	return e, err
}

func (f *fuse) SweepRevocations(ctx context.Context) (n int, err error) {
	if f.left <= 0 {
		return 0, errKilled
	}
	return f.Connections.SweepRevocations(ctx)
}

// A server is killed after each step in turn, with its answer lost; another goes on and ends what was begun: every
// connection once, and the user forgotten.
func TestRevocation_KilledAtEveryStep(t *testing.T) {
	steps := 0
	for ; ; steps++ {
		w := newWorld(t)
		f := &fuse{Store: w.db, Connections: w.ends, left: steps}
		dying := w.service(func(c *revocation.Config) { c.Store, c.Connections = f, f })
		_, err := dying.EraseUser(t.Context(), w.root, identity.UserSelector{ID: "alice"}, "asked for it")
		if err == nil {
			err = dying.Drain(t.Context())
		}
		if err == nil && f.left > 0 {
			break // it got to its end
		}
		goOn(t, w, fmt.Sprintf("killed after %d steps", steps), steps > 0)
		if t.Failed() || steps > 60 {
			t.Fatalf("stopped after %d steps", steps)
		}
	}
	if steps < 12 {
		t.Errorf("only %d steps were tried", steps)
	}
}

// goOn lets another server work, and looks at what it leaves.
func goOn(t *testing.T, w *world, what string, begun bool) {
	t.Helper()
	ctx := t.Context()
	must(t, w.service().Drain(ctx))
	left, ended := w.active(), map[string]int{}
	for _, id := range w.ends.ended {
		ended[id]++
	}
	if !begun {
		if len(left) != 8 {
			t.Errorf("%s: %v is left, want all", what, left)
		}
		return
	}
	if len(left) != 4 || len(ended) != 4 {
		t.Errorf("%s: %v is left, and ended were %v", what, left, ended)
	}
	for id, n := range ended {
		r, err := w.db.RevocationOf(ctx, account, id)
		if n != 1 || err != nil || r.State != broker.RevocationDone {
			t.Errorf("%s: connection %s was ended %d times, and at its provider: %s %v", what, id, n, r.State, err)
		}
	}
	_, err := w.db.SealedUser(ctx, account, w.users["alice"])
	wantCode(t, what+": who alice is", err, fault.NotFound)
	_, err = w.db.LeaseJob(ctx, time.Now().Add(time.Hour), time.Minute)
	wantCode(t, what+": a job that is not done", err, fault.NotFound)
}

func TestEraseUser(t *testing.T) {
	w := newWorld(t)
	s, ctx := w.service(), t.Context()
	token := w.token("agent-a", "alice")
	e := ok(s.EraseUser(ctx, w.root, identity.UserSelector{ID: "alice"}, "asked for it"))(t)
	if e.User != w.users["alice"] || e.Connections != 4 || w.alive(token) {
		t.Errorf("got %+v, token alive %v", e, w.alive(token))
	}
	if c := w.claims(e.Receipt); c["user_erased"] != true {
		t.Errorf("receipt: %v", c)
	}
	_, err := w.people.UserByRef(ctx, account, w.users["alice"])
	wantCode(t, "who alice is", err, fault.NotFound)
	ok(w.people.UserByRef(ctx, account, w.users["bob"]))(t)
	for _, v := range ok(w.db.ConnectionViews(ctx, account, broker.ConnectionFilter{User: e.User}, "", 10))(t) {
		if c := ok(w.db.ConnectionByID(ctx, account, v.ID))(t); len(c.Access)+len(c.Refresh)+len(c.Upstream)+len(c.Attributes) > 0 {
			t.Errorf("connection %s still has something sealed", v.ID)
		}
	}
	again := ok(s.EraseUser(ctx, w.root, identity.UserSelector{ID: "alice"}, ""))(t)
	if again.Connections != 0 {
		t.Errorf("erased again: %+v", again)
	}
}

// More connections than one step ends: the call answers, and the background goes on.
func TestRevocation_ManyAndDelegations(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	agent := ok(w.people.FindWorkload(ctx, account, "agent-a"))(t)
	for i := range 600 {
		id := fmt.Sprintf("cn-many-%d", i)
		must(t, w.db.SwapConnection(ctx, broker.Connection{
			Account: account, ID: id, Key: id, Workload: agent.UID, User: fmt.Sprint("u", i/10), Provider: "p-google", Flow: broker.FlowM2M, State: broker.Active, Generation: 1,
			Created: time.Now(), Updated: time.Now(),
		}, 0))
	}
	d := &delegated{}
	s := w.service(func(c *revocation.Config) { c.Delegations = d })
	work, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); s.Work(work, nil) }()
	r := ok(s.RevokeAccess(ctx, w.root, revocation.Request{Workload: "agent-a"}))(t)
	for deadline := time.Now().Add(20 * time.Second); r.Phase != revocation.Done && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		r, _, _, err = s.Revocation(ctx, w.root, r.ID, "", 1)
		must(t, err)
	}
	stop()
	<-ended
	if r.Phase != revocation.Done || r.Connections != 604 || len(w.active()) != 4 {
		t.Errorf("got %s with %d connections, and %d are left", r.Phase, r.Connections, len(w.active()))
	}
	if r.Delegations != 3 || d.asked != (revocation.Selection{Workload: "agent-a"}) {
		t.Errorf("delegations: %d, asked for %+v", r.Delegations, d.asked)
	}
}

type delegated struct{ asked revocation.Selection }

func (d *delegated) EndDelegations(_ context.Context, _ access.Account, s revocation.Selection) (int, error) {
	d.asked = s
	return 3, nil
}
