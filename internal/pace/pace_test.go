package pace_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/pace"
)

const one, two access.Account = "000000000000", "111111111111"

type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1_800_000_000, 0)} }

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

func TestPace(t *testing.T) {
	c := newClock()
	p := pace.New(c.now, 3, 10*time.Second)
	want := func(what string, a access.Account, kind string, wait time.Duration) {
		t.Helper()
		if got := p.Take(a, kind); got != wait {
			t.Errorf("%s: wait %s, want %s", what, got, wait)
		}
	}
	for range 3 {
		want("the burst", one, "k", 0)
	}
	want("after it", one, "k", 10*time.Second)
	want("another kind", one, "l", 0)
	want("another account", two, "k", 0)
	c.add(4 * time.Second)
	want("too early", one, "k", 6*time.Second)
	c.add(6 * time.Second)
	want("in time", one, "k", 0)
	want("one only", one, "k", 10*time.Second)
	c.add(time.Hour)
	for range 3 {
		want("much later", one, "k", 0)
	}
	want("and after it", one, "k", 10*time.Second)
}

// M14: kinds that one account makes up make no other account's bounds be forgotten, nor the one of its own that is
// used most.
func TestM14_PaceIsRememberedByAccount(t *testing.T) {
	c := newClock()
	p := pace.New(c.now, 3, 10*time.Second)
	for range 3 {
		p.Take(one, "k")
		p.Take(two, "k")
	}
	for i := range 100_000 {
		p.Take(two, fmt.Sprint(i))
	}
	for _, a := range []access.Account{one, two} {
		if p.Take(a, "k") == 0 {
			t.Errorf("the bound of %s was forgotten", a)
		}
	}
	if n := p.Remembered(); n > 2*4096 {
		t.Errorf("%d kinds are remembered", n)
	}
	c.add(time.Hour)
	p.Take(one, "k")
	if n := p.Remembered(); n != 1 {
		t.Errorf("%d kinds are remembered an hour later, want 1", n)
	}
}

func TestM14_TurnsPauseWhileCallsFail(t *testing.T) {
	c := newClock()
	turns := pace.NewTurns(c.now)
	fail := func() time.Duration {
		t.Helper()
		leave, pause, err := turns.Enter(t.Context(), one, "x")
		if err != nil {
			t.Fatal(err)
		}
		if leave != nil {
			turns.Ended(one, "x", true)
			leave()
		}
		return pause
	}
	for i := range 5 {
		if pause := fail(); pause != 0 {
			t.Errorf("call %d has to wait %s", i, pause)
		}
	}
	for _, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
		if pause := fail(); pause != want || turns.Pause(one, "x") != want {
			t.Errorf("a pause of %s, want %s", pause, want)
		}
		if leave, _, _ := turns.Enter(t.Context(), two, "x"); leave == nil {
			t.Error("the pause is another account's too")
		} else {
			leave()
		}
		c.add(want)
		if pause := fail(); pause != 0 {
			t.Errorf("after the pause: %s", pause)
		}
	}
	c.add(time.Minute)
	turns.Ended(one, "x", false)
	if pause := fail(); pause != 0 || turns.Pause(one, "x") != 0 {
		t.Error("a call that worked does not end the pauses")
	}
	c.add(time.Hour)
	leave, _, _ := turns.Enter(t.Context(), two, "y")
	leave()
	if n := turns.Remembered(); n != 0 {
		t.Errorf("%d things are remembered an hour later", n)
	}
	for i := range 10_000 {
		c.add(time.Millisecond)
		turns.Ended(one, fmt.Sprint(i), true)
	}
	if n := turns.Remembered(); n > 4096 {
		t.Errorf("%d things of an account are remembered", n)
	}
}

func TestM14_OneAtATime(t *testing.T) {
	turns := pace.NewTurns(time.Now)
	leave, _, _ := turns.Enter(t.Context(), one, "x")
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if l, pause, err := turns.Enter(t.Context(), one, "x"); l != nil && pause == 0 && err == nil {
				l() // it came after the first had left
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if l, _, err := turns.Enter(ctx, one, "x"); l != nil || fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("two have the turn, or one waits for ever: %v", err)
	}
	leave()
	group.Wait()
	if n := turns.Remembered(); n != 0 {
		t.Errorf("%d things are remembered", n)
	}
}
