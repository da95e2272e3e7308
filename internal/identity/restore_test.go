package identity_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

func TestRestoreWorkload(t *testing.T) {
	w := newWorld(t)
	ctx, admin := t.Context(), caller(access.Admin)
	_, err := w.RestoreWorkload(ctx, admin, "agent-a")
	wantCode(t, "nothing was deleted", err, fault.NotFound)
	made := ok(w.CreateWorkload(ctx, w.root, identity.NewWorkload{Name: "agent-a", ReturnURLs: []string{"https://a.example/cb"}}))(t)
	_, err = w.RestoreWorkload(ctx, admin, "agent-a")
	wantCode(t, "it lives", err, fault.Conflict)
	old := ok(w.MintToken(ctx, w.root, "agent-a"))(t)

	must(t, w.DeleteWorkload(ctx, admin, "agent-a"))
	wantCode(t, "an agent restores", third(w.RestoreWorkload(ctx, caller(access.Agent, "*"), "agent-a")), fault.Denied)
	foreign := w.root
	foreign.Account = other
	wantCode(t, "another account restores", third(w.RestoreWorkload(ctx, foreign, "agent-a")), fault.NotFound)
	back := ok(w.RestoreWorkload(ctx, admin, "agent-a"))(t)
	if back.UID != made.UID || back.Generation != 3 || !back.Deleted.IsZero() || !slices.Equal(back.ReturnURLs, made.ReturnURLs) {
		t.Errorf("restored %+v", back)
	}
	_, _, err = w.OpenToken(ctx, account, old.Token)
	wantCode(t, "a token from before the deletion", err, fault.Unauthenticated)
	fresh := ok(w.MintToken(ctx, w.root, "agent-a"))(t)
	if _, _, err := w.OpenToken(ctx, account, fresh.Token); err != nil {
		t.Errorf("a token after it was restored: %v", err)
	}
}

// What an agent handed on before it was deleted stays dead with its own tokens, also what was minted while it was
// deleted by a server that did not know yet.
func TestB02_RestoredAgentHandedOn(t *testing.T) {
	for name, late := range map[string]bool{"before": false, "while it was deleted": true} {
		w := newWorld(t)
		w.trust()
		ctx := t.Context()
		old, err := w.through(1)
		must(t, err)
		if late {
			w.clock.add(time.Second)
		}
		w.clock.add(time.Second)
		agent := ok(w.FindWorkload(ctx, account, "agent-0"))(t)
		must(t, w.DeleteWorkload(ctx, w.root, "agent-0"))
		if at := ok(w.Standing(ctx, account, identity.WorkloadStanding, agent.UID))(t); at.Epoch != 1 {
			t.Errorf("%s: deleted, in epoch %d", name, at.Epoch)
		}
		if late { // as if it had been minted since: later than what the deletion changed
			gone := ok(w.db.WorkloadByUID(ctx, account, agent.UID))(t)
			alive := gone
			alive.Deleted, alive.Version = time.Time{}, gone.Version+1
			must(t, w.db.SwapWorkload(ctx, alive, gone.Version))
			w.clock.add(time.Second)
			old, err = w.through(1)
			must(t, err)
			gone.Version += 2
			must(t, w.db.SwapWorkload(ctx, gone, alive.Version))
			w.clock.add(time.Second)
		}
		wantCode(t, name+": while it is deleted", w.open(old), fault.Unauthenticated)
		ok(w.RestoreWorkload(ctx, w.root, "agent-0"))(t)
		wantCode(t, name+": after it was restored", w.open(old), fault.Unauthenticated)
		w.clock.add(time.Second)
		fresh, err := w.through(1)
		must(t, err)
		must(t, w.open(fresh))
	}
}

// Of several that had the name the newest comes back, once, and for seven days.
func TestRestoreWorkload_TheNewest(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	var last identity.Workload
	for range 3 {
		last = w.workload("agent-a", nil)
		w.clock.add(time.Second)
		must(t, w.DeleteWorkload(ctx, w.root, "agent-a"))
	}
	w.clock.add(identity.RestoreLife)
	if got := ok(w.RestoreWorkload(ctx, w.root, "agent-a"))(t); got.UID != last.UID {
		t.Errorf("restored %s, want %s", got.UID, last.UID)
	}
	must(t, w.DeleteWorkload(ctx, w.root, "agent-a"))
	w.clock.add(identity.RestoreLife + time.Second)
	wantCode(t, "after seven days", third(w.RestoreWorkload(ctx, w.root, "agent-a")), fault.NotFound)
}

func TestReturnURL_AddAndRemove(t *testing.T) {
	w := newWorld(t)
	ctx, admin := t.Context(), caller(access.Admin)
	w.workload("agent-a", nil)
	const one, two = "https://a.example/cb", "http://localhost:3000/cb"
	for _, step := range []struct {
		add  bool
		url  string
		want []string
	}{{true, one, []string{one}}, {true, two, []string{one, two}}, {true, one, []string{one, two}}, {false, one, []string{two}}, {false, one, []string{two}}, {false, two, []string{}}} {
		do := w.RemoveReturnURL
		if step.add {
			do = w.AddReturnURL
		}
		if got := ok(do(ctx, admin, "agent-a", step.url))(t); !slices.Equal(got.ReturnURLs, step.want) {
			t.Errorf("after %+v: %q", step, got.ReturnURLs)
		}
		if got := ok(w.GetWorkload(ctx, admin, "agent-a"))(t); !slices.Equal(got.ReturnURLs, step.want) {
			t.Errorf("stored after %+v: %q", step, got.ReturnURLs)
		}
	}
	for _, bad := range []string{"javascript:alert(1)", "http://a.example/cb", "https://a.example/cb#x", "/cb"} {
		_, err := w.AddReturnURL(ctx, admin, "agent-a", bad)
		wantCode(t, bad, err, fault.Invalid)
		if fault.Public(err).Field != "url" {
			t.Errorf("%s: field %q", bad, fault.Public(err).Field)
		}
	}
	for _, do := range []func() (identity.Workload, error){
		func() (identity.Workload, error) {
			return w.AddReturnURL(ctx, caller(access.Agent, "*"), "agent-a", one)
		},
		func() (identity.Workload, error) {
			return w.RemoveReturnURL(ctx, caller(access.Auditor), "agent-a", one)
		},
	} {
		wantCode(t, "not an admin", third(do()), fault.Denied)
	}
	wantCode(t, "of nobody", third(w.AddReturnURL(ctx, admin, "none", one)), fault.NotFound)
	wantCode(t, "of nobody", third(w.RemoveReturnURL(ctx, admin, "none", one)), fault.NotFound)
}

// Replicas of an application that start together each add their own URL.
func TestReturnURL_Race(t *testing.T) {
	w := newWorld(t)
	w.workload("agent-a", nil)
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			if _, err := w.AddReturnURL(t.Context(), w.root, "agent-a", fmt.Sprintf("https://a%d.example/cb", i)); err != nil {
				t.Errorf("add %d: %v", i, err)
			}
		})
	}
	group.Wait()
	if got := ok(w.GetWorkload(t.Context(), w.root, "agent-a"))(t); len(got.ReturnURLs) != 6 {
		t.Errorf("got %q, want six", got.ReturnURLs)
	}
}
