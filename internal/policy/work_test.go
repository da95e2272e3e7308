package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/policy"
)

// costly is an account's policies of so many statements of 900 parts, each of which every decision looks at.
func costly(t *testing.T, statements int) *policy.Engine {
	t.Helper()
	var names []string
	for i := range 450 {
		names = append(names, fmt.Sprintf(`"n%d"`, i))
	}
	m := &memory{}
	m.put("all", `permit (principal, action, resource) when { ["a"].containsAll(context.scopes) };`)
	for i := range statements {
		m.put(fmt.Sprintf("p%04d", i), `forbid (principal, action, resource) when { [context.flow,`+strings.Join(names, ",")+`].containsAny(context.scopes) };`)
	}
	e := engine(t, m)
	decision(t, e, agent("p", "w"), access.GetResourceOauth2Token, access.Facts{Workload: "w", Provider: "google", Scopes: []string{"a"}}) // read once
	return e
}

// M10: what an account may store costs little more when the scopes are named that are refused. It was a hundred times
// as much.
func TestM10_NamingScopesCostsLittle(t *testing.T) {
	e := costly(t, 400)
	took := func(scopes ...string) time.Duration {
		start := time.Now()
		if d := decision(t, e, agent("p", "w"), access.GetResourceOauth2Token, access.Facts{Workload: "w", Provider: "google", Scopes: scopes}); d.Allow != (len(scopes) == 1) {
			t.Fatalf("%d scopes: allow %t", len(scopes), d.Allow)
		}
		return time.Since(start)
	}
	one := took("a")
	scopes := []string{"a"}
	for i := range 99 {
		scopes = append(scopes, fmt.Sprintf("s%d", i))
	}
	if all := took(scopes...); all > 20*one+time.Second {
		t.Errorf("one decision takes %s, and to refuse a hundred scopes %s", one, all)
	}
}

// M10: decisions that look at very much are made one at a time, so that an account has no more than one processor for
// them.
func TestM10_CostlyDecisionsWaitForEachOther(t *testing.T) {
	for statements, waits := range map[int]bool{100: true, 2: false} {
		e := costly(t, statements)
		var all sync.WaitGroup
		var made, refused atomic.Int64
		for range 40 {
			all.Go(func() {
				switch _, err := e.Decide(t.Context(), agent("p", "w"), access.GetResourceOauth2Token, access.Facts{Workload: "w", Provider: "google", Scopes: []string{"a"}}); {
				case err == nil:
					made.Add(1)
				case errors.Is(err, fault.Throttled):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if made.Load() == 0 || waits != (refused.Load() > 0) {
			t.Errorf("%d statements: %d decisions were made, %d were too many", statements, made.Load(), refused.Load())
		}
	}
}

// M10: an agent that asks for very much leaves its account's other principals their decisions, and is told when to ask
// again.
func TestM10_CostlyDecisionsLeaveRoomForOthers(t *testing.T) {
	e := costly(t, 100)
	ask := func(name string) error {
		_, err := e.Decide(t.Context(), agent(name, "w"), access.GetResourceOauth2Token, access.Facts{Workload: "w", Provider: "google", Scopes: []string{"a"}})
		return err
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	var refused, silent atomic.Int64
	for range 40 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := ask("greedy"); errors.Is(err, fault.Throttled) {
					refused.Add(1)
					if fault.Public(err).After == 0 {
						silent.Add(1)
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for refused.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	turnedAway := 0
	for range 20 {
		if ask("modest") != nil {
			turnedAway++
		}
	}
	close(stop)
	all.Wait()
	if turnedAway > 0 || silent.Load() > 0 {
		t.Errorf("%d of another agent's 20 decisions were turned away; %d refusals do not say when to ask again", turnedAway, silent.Load())
	}
}
