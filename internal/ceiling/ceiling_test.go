package ceiling_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/ceiling"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
)

// database is what each test gets a copy of.
var database storetest.Template

const account access.Account = "000000000000"

// counting is a store that counts the calls that write, and can be made to fail.
type counting struct {
	*store.DB
	mu     sync.Mutex // guards what follows
	leases int
	seen   int
	err    error
}

func (c *counting) TakeReleases(ctx context.Context, a access.Account, w string, minute, limit, want int64) (int64, error) {
	c.mu.Lock()
	c.leases++
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.DB.TakeReleases(ctx, a, w, minute, limit, want)
}

func (c *counting) SeeUser(ctx context.Context, a access.Account, w, user string, since, at time.Time, limit int64) (bool, error) {
	c.mu.Lock()
	c.seen++
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return false, err
	}
	return c.DB.SeeUser(ctx, a, w, user, since, at, limit)
}

// writes returns how many leases and sightings there were since the last call.
func (c *counting) writes() (leases, seen int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	leases, seen = c.leases, c.seen
	c.leases, c.seen = 0, 0
	return leases, seen
}

func (c *counting) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// ice counts who was frozen.
type ice struct {
	mu     sync.Mutex // guards frozen
	frozen []string
	err    error
}

// Freeze implements ceiling.Freezer.
func (i *ice) Freeze(_ context.Context, _ access.Account, uid, _ string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.frozen = append(i.frozen, uid)
	return i.err
}

// world is a Service behind a Guard that allows everything, for the agent with the uid "wi-agent".
type world struct {
	*ceiling.Service
	t     *testing.T
	db    *counting
	guard *access.Guard
	ice   *ice
	mu    sync.Mutex // guards now
	now   time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) add(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// yes allows everything.
type yes struct{}

func (yes) Decide(context.Context, access.Caller, access.Action, access.Facts) (access.Decision, error) {
	return access.Decision{Allow: true, By: "test"}, nil
}

func newWorld(t *testing.T, defaults ceiling.Limits) *world {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{SQLitePath: database.New(t)})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	w := &world{t: t, db: &counting{DB: db}, ice: &ice{}, now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	must(t, db.CreateWorkload(t.Context(), identity.Workload{Account: account, Name: "agent", UID: "wi-agent", Generation: 1, Version: 1, Created: w.now, Updated: w.now}))
	w.Service, err = ceiling.New(ceiling.Config{Store: w.db, Workloads: db, Now: w.clock, Defaults: defaults})
	must(t, err)
	w.guard = access.NewGuard(access.Config{Log: db, Now: w.clock, Decider: yes{}, Ceilings: w.Service})
	t.Cleanup(w.guard.Close)
	w.Bind(w.guard, w.ice)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func caller() access.Caller {
	return access.Caller{Account: account, Principal: "prn-1", Name: "agent", Roles: []access.Role{access.Agent}}
}

func (w *world) set(l ceiling.Limits) {
	w.t.Helper()
	must(w.t, w.Set(w.t.Context(), caller(), "agent", l))
}

// release asks the Guard for a release on behalf of the user, "" for none.
func (w *world) release(user string) error {
	w.t.Helper()
	_, err := w.guard.Check(w.t.Context(), caller(), access.GetResourceOauth2Token,
		access.Facts{Workload: "agent", WorkloadUID: "wi-agent", UserRef: user, Unrecorded: access.Unrecorded{Released: true}})
	return err
}

func (w *world) events() (crossed int) {
	w.t.Helper()
	records, _, err := w.db.Records(w.t.Context(), account, access.Query{Limit: 1000})
	must(w.t, err)
	for _, r := range records {
		if r.Action == ceiling.Crossed {
			crossed++
		}
	}
	return crossed
}

func TestNoCeilingCostsNothing(t *testing.T) {
	w := newWorld(t, ceiling.Limits{})
	for i := range 50 {
		must(t, w.release(fmt.Sprint(i)))
	}
	if leases, seen := w.db.writes(); leases+seen != 0 {
		t.Errorf("without a ceiling there were %d writes", leases+seen)
	}
}

func TestUsersPerHour(t *testing.T) {
	w := newWorld(t, ceiling.Limits{UsersPerHour: 3})
	for range 10 {
		for _, user := range []string{"a", "b", "c", ""} {
			must(t, w.release(user))
		}
	}
	if _, seen := w.db.writes(); seen != 3 {
		t.Errorf("three users cost %d writes, want one each", seen)
	}
	err := w.release("d")
	if !errors.Is(err, fault.Throttled) || !strings.Contains(err.Error(), "3 users") || !strings.Contains(err.Error(), "usersPerHour") {
		t.Errorf("the fourth user: %v, want it throttled by a sentence that names the ceiling", err)
	}
	for range 3 {
		if w.release("d") == nil {
			t.Error("the fourth user was admitted")
		}
	}
	if n := w.events(); n != 1 {
		t.Errorf("%d events of one crossing, want 1", n)
	}
	must(t, w.release("a"))
	w.add(64 * time.Minute)
	if w.release("d") == nil {
		t.Error("the fourth user was admitted within the hour after the others were served last")
	}
	if n := w.events(); n != 2 {
		t.Errorf("%d events after an hour, want another", n)
	}
	w.add(2 * time.Minute)
	must(t, w.release("d"))
	held, err := w.Get(t.Context(), caller(), "agent")
	must(t, err)
	if held.Users != 1 || held.UsersPerHour != 3 || held.UID != "wi-agent" {
		t.Errorf("got %+v, want one user of three", held)
	}
	w.add(2 * time.Hour)
	if n, err := w.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("swept %d agents, %v, want one", n, err)
	}
	if len(w.ice.frozen) != 0 {
		t.Error("it was frozen, and nobody wanted that")
	}
}

// Whatever is served when: in no hour are there tokens of more users than the ceiling says.
func TestNoHourHasMoreUsers(t *testing.T) {
	const limit = 3
	w := newWorld(t, ceiling.Limits{UsersPerHour: limit})
	type sight struct {
		at   time.Time
		user string
	}
	var served []sight
	for i := range 200 {
		user := string(rune('a' + (i*i+i/7)%9))
		if w.release(user) == nil {
			served = append(served, sight{w.clock(), user})
		}
		w.add(time.Duration(1+(i*7)%11) * time.Minute)
	}
	for _, first := range served {
		users := map[string]bool{}
		for _, s := range served {
			if d := s.at.Sub(first.at); d >= 0 && d <= time.Hour {
				users[s.user] = true
			}
		}
		if len(users) > limit {
			t.Errorf("in the hour from %s there were tokens of %d users, want at most %d", first.at.Format(time.TimeOnly), len(users), limit)
		}
	}
	if len(served) < 50 {
		t.Errorf("only %d of 200 were served: the test shows nothing", len(served))
	}
}

func TestReleasesAreLeased(t *testing.T) {
	const limit = 320
	w := newWorld(t, ceiling.Limits{ReleasesPerMinute: limit})
	released := 0
	for range limit + 50 {
		if w.release("a") == nil {
			released++
		}
	}
	if released != limit {
		t.Errorf("%d releases in a minute, want %d", released, limit)
	}
	if leases, _ := w.db.writes(); leases > 40 {
		t.Errorf("%d leases for %d releases and their end, want some 33", leases, limit)
	}
	w.add(time.Minute)
	must(t, w.release("a"))
	w.set(ceiling.Limits{ReleasesPerMinute: 1})
	if err := w.release("a"); !errors.Is(err, fault.Throttled) {
		t.Errorf("under a lower ceiling than what was leased: %v, want it throttled", err)
	}
}

// A release that the ceiling of users refuses takes nothing of the ceiling of releases.
func TestRefusedUserCostsNoRelease(t *testing.T) {
	w := newWorld(t, ceiling.Limits{ReleasesPerMinute: 3, UsersPerHour: 1})
	must(t, w.release("a"))
	for range 5 {
		if w.release("b") == nil {
			t.Error("the second user was admitted")
		}
	}
	must(t, w.release("a"))
	must(t, w.release("a"))
	if w.release("a") == nil {
		t.Error("the fourth release was admitted")
	}
}

func TestCrossingFreezes(t *testing.T) {
	w := newWorld(t, ceiling.Limits{})
	w.set(ceiling.Limits{UsersPerHour: 1, Freeze: true})
	must(t, w.release("a"))
	err := w.release("b")
	if !errors.Is(err, fault.Throttled) || !strings.Contains(err.Error(), "EnableWorkloadIdentity") {
		t.Errorf("got %v, want it throttled, saying how it works again", err)
	}
	if len(w.ice.frozen) != 1 || w.ice.frozen[0] != "wi-agent" {
		t.Errorf("frozen: %v, want the agent", w.ice.frozen)
	}
	w.ice.err = fault.New(fault.Unavailable, "the store does not answer")
	if err := w.release("c"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("it cannot be frozen: %v, want nothing released", err)
	}
}

func TestNothingIsReleasedWithoutTheStore(t *testing.T) {
	w := newWorld(t, ceiling.Limits{ReleasesPerMinute: 100, UsersPerHour: 100})
	w.db.fail(fault.New(fault.Unavailable, "the store does not answer"))
	if err := w.release("a"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want it unavailable", err)
	}
	w.db.fail(nil)
	must(t, w.release("a"))
}

func TestCeilingsOfAnUnknownAgent(t *testing.T) {
	w := newWorld(t, ceiling.Limits{})
	if _, err := w.Get(t.Context(), caller(), "nobody"); !errors.Is(err, fault.NotFound) {
		t.Errorf("got %v, want NotFound", err)
	}
	if err := w.Set(t.Context(), caller(), "nobody", ceiling.Limits{}); !errors.Is(err, fault.NotFound) {
		t.Errorf("got %v, want NotFound", err)
	}
}
