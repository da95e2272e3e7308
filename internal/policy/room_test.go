package policy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/policy"
)

// All policies of an account together have a bounded number of parts. One that is replaced makes room, and another
// account has room of its own.
func TestM10_AnAccountsPoliciesAreBoundedTogether(t *testing.T) {
	stored := &memory{}
	statement := `forbid(principal==Tabard::Principal::"p",action,resource)when{[` + strings.Repeat("1,", 900) + `1].isEmpty()};`
	text := strings.Repeat(statement, 4)
	const parts = 4 * 2 * 900 // and some more
	for n := range policy.MaxAccountNodes / parts {
		stored.put(fmt.Sprint("p", n), text)
	}
	d := newDesk(t, func(c *policy.ServiceConfig) { c.Engine = engine(t, stored) })
	put := func(by access.Caller, name, text string) error {
		_, _, err := d.Put(t.Context(), by, policy.Draft{Name: name, Text: text})
		return err
	}
	if err := put(d.admin, "one more", text); !errors.Is(err, fault.Limit) {
		t.Errorf("one more: got %v, want %s", err, fault.Limit)
	}
	if err := put(d.admin, "p0", text); err != nil {
		t.Errorf("the same again in the place of an old one: %v", err)
	}
	other := access.Caller{Account: "111111111111", Principal: "prn-other", Name: "other", Roles: []access.Role{access.Admin}}
	if err := put(other, "p", text); err != nil {
		t.Errorf("another account: %v", err)
	}
}

// Work on policies ends, and so does waiting for a turn.
func TestM10_WorkOnPoliciesHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns policy.Turns
		work, done, err := turns.Take(t.Context(), house)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, _, err = turns.Take(t.Context(), house)
		if took := time.Since(begun); !errors.Is(err, fault.Throttled) || took != policy.WorkTime {
			t.Errorf("a second one: %v after %s, want %s after %s", err, took, fault.Throttled, policy.WorkTime)
		}
		time.Sleep(time.Nanosecond) // both timers are due at the same moment
		if !errors.Is(work.Err(), context.DeadlineExceeded) {
			t.Errorf("the work goes on after %s: %v", policy.WorkTime, work.Err())
		}
		done()
		if _, done, err := turns.Take(t.Context(), house); err != nil {
			t.Errorf("after it: %v", err)
		} else {
			done()
		}
	})
}
