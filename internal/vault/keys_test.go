package vault_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

func TestKeys_OneCallInFiveMinutes(t *testing.T) {
	f := newFixture(t)
	sealed := f.seal(t, ref(), "x")
	if f.keys.wraps.Load() != 1 || f.keys.unwraps.Load() != 1 {
		t.Fatalf("making a vault took %d wraps and %d unwraps, want 1 and 1", f.keys.wraps.Load(), f.keys.unwraps.Load())
	}
	open := func(wantCalls int64) {
		t.Helper()
		if got, err := f.Open(t.Context(), ref(), sealed); err != nil || got.Expose() != "x" {
			t.Fatalf("Open: %v", err)
		}
		if got := f.keys.unwraps.Load(); got != wantCalls {
			t.Errorf("the key service was asked %d times, want %d", got, wantCalls)
		}
	}
	open(1)
	f.clock.add(5*time.Minute - 1)
	open(1)
	f.clock.add(1)
	open(2)
	open(2)
	// A clock that was set back cannot lengthen the life of a key.
	f.clock.add(-time.Second)
	open(3)
}

func TestKeys_OutageAfterExpiry(t *testing.T) {
	for _, code := range []fault.Code{fault.Unavailable, fault.Denied} {
		t.Run(string(code), func(t *testing.T) {
			f := newFixture(t)
			sealed := f.seal(t, ref(), "x")
			f.keys.fail.Store(fault.New(code, "the private sentence of the key service"))
			if _, err := f.Open(t.Context(), ref(), sealed); err != nil {
				t.Fatalf("Open within the life of the key: %v", err)
			}
			f.clock.add(vault.KeyLife)
			for range 2 {
				got, err := f.Open(t.Context(), ref(), sealed)
				if fault.CodeOf(err) != code || !got.IsZero() {
					t.Errorf("Open after it: got %v, want %s", err, code)
				}
				if _, err := f.Seal(t.Context(), ref(), secret.New("y")); fault.CodeOf(err) != code {
					t.Errorf("Seal after it: got %v, want %s", err, code)
				}
			}
			f.keys.fail.Store(nil)
			if _, err := f.Open(t.Context(), ref(), sealed); err != nil {
				t.Errorf("Open after the outage: %v", err)
			}
		})
	}
}

func TestKeys_UnclassifiedFailureIsUnavailable(t *testing.T) {
	f := newFixture(t)
	// NotFound above all: callers take it for a value that does not exist.
	for _, code := range []fault.Code{fault.NotFound, fault.Invalid, fault.Internal} {
		f.keys.fail.Store(fault.New(code, "nonsense of a key service"))
		_, err := f.Seal(t.Context(), ref(), secret.New("x"))
		if fault.CodeOf(err) != fault.Unavailable || errors.Is(err, code) {
			t.Errorf("Seal, where the key service gave %s: got %v, want unavailable alone", code, err)
		}
	}
	if len(f.rows.m) != 0 {
		t.Error("a vault was stored whose key was not wrapped")
	}
}

func TestKeys_StoreDown(t *testing.T) {
	f := newFixture(t)
	f.rows.down.Store(true)
	if _, err := f.Seal(t.Context(), ref(), secret.New("x")); !errors.Is(err, fault.Unavailable) {
		t.Errorf("Seal: got %v, want unavailable", err)
	}
	if f.keys.wraps.Load() != 0 {
		t.Error("a key was made because the store was down")
	}
}

func TestKeys_HerdMakesOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		sealed := f.seal(t, ref(), "x")
		f.clock.add(vault.KeyLife)
		before := f.keys.unwraps.Load()
		f.keys.hold = make(chan struct{})
		var herd sync.WaitGroup
		for i := range 100 {
			herd.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = f.Open(t.Context(), ref(), sealed)
				} else {
					_, err = f.Seal(t.Context(), ref(), secret.New("y"))
				}
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
			})
		}
		synctest.Wait() // all of them wait for the key service
		close(f.keys.hold)
		herd.Wait()
		if got := f.keys.unwraps.Load() - before; got != 1 {
			t.Errorf("100 callers asked the key service %d times, want 1", got)
		}
		f.Close()
	})
}

func TestKeys_CallerWhoLeavesDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		sealed := f.seal(t, ref(), "x")
		f.clock.add(vault.KeyLife)
		before := f.keys.unwraps.Load()
		f.keys.hold = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		left, stayed := make(chan error, 1), make(chan error, 1)
		go func() { _, err := f.Open(ctx, ref(), sealed); left <- err }()
		synctest.Wait()
		go func() { _, err := f.Open(t.Context(), ref(), sealed); stayed <- err }()
		synctest.Wait()
		cancel()
		if err := <-left; fault.CodeOf(err) != fault.Unavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("the one who left: got %v, want unavailable", err)
		}
		synctest.Wait()
		close(f.keys.hold)
		if err := <-stayed; err != nil {
			t.Errorf("the one who stayed: %v", err)
		}
		if got := f.keys.unwraps.Load() - before; got != 1 {
			t.Errorf("the key service was asked %d times, want 1", got)
		}
		f.Close()
	})
}

func TestKeys_HangingKeyServiceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.keys.hold = make(chan struct{})
		begin := time.Now()
		_, err := f.Seal(t.Context(), ref(), secret.New("x"))
		if !errors.Is(err, fault.Unavailable) || time.Since(begin) != 10*time.Second {
			t.Errorf("after %v: got %v, want unavailable after 10 s", time.Since(begin), err)
		}
		f.Close()
	})
}

func TestKeys_LeaveMemoryUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := &rows{}, &keyService{}
		v := newVault(t, s, w, nil)
		if _, err := v.Seal(t.Context(), ref(), secret.New("x")); err != nil {
			t.Fatal(err)
		}
		if err := v.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(vault.KeyLife - time.Second)
		if v.Held() != 2 {
			t.Errorf("before its end %d vaults are open, want 2", v.Held())
		}
		if err := v.Ready(t.Context()); err != nil { // the server's vault begins a new life
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if v.Held() != 1 {
			t.Errorf("after the end of one %d vaults are open, want 1", v.Held())
		}
		time.Sleep(vault.KeyLife)
		synctest.Wait()
		if v.Held() != 0 {
			t.Errorf("nobody used it, and %d vaults are open", v.Held())
		}
		v.Close()
	})
}

func TestKeys_ReplicasRaceToOneVault(t *testing.T) {
	s, w := &rows{}, &keyService{}
	const replicas = 8
	sealed := make([]vault.Sealed, replicas)
	refs := make([][]byte, replicas)
	vaults := make([]*vault.Vault, replicas)
	var all sync.WaitGroup
	for i := range replicas {
		vaults[i] = newVault(t, s, w, nil)
		all.Go(func() {
			var err error
			if sealed[i], err = vaults[i].Seal(t.Context(), ref(), secret.New("x")); err != nil {
				t.Errorf("replica %d: Seal: %v", i, err)
			}
			if refs[i], err = vaults[i].UserRef(t.Context(), []byte("alice")); err != nil {
				t.Errorf("replica %d: UserRef: %v", i, err)
			}
		})
	}
	all.Wait()
	for i, v := range vaults {
		for j := range sealed {
			if _, err := v.Open(t.Context(), ref(), sealed[j]); err != nil {
				t.Errorf("replica %d does not open what %d sealed: %v", i, j, err)
			}
		}
		if string(refs[i]) != string(refs[0]) {
			t.Errorf("replicas %d and 0 name alice differently", i)
		}
	}
}

func TestKeys_Close(t *testing.T) {
	f := newFixture(t)
	sealed := f.seal(t, ref(), "x")
	f.Close()
	if f.Held() != 0 {
		t.Errorf("%d vaults are open after Close", f.Held())
	}
	if _, err := f.Open(t.Context(), ref(), sealed); !errors.Is(err, fault.Unavailable) {
		t.Errorf("Open after Close: got %v, want unavailable", err)
	}
}

// Somebody who may write to the database moves rows of vaults, or keysets between them.
func TestD01_VaultRowsDoNotMove(t *testing.T) {
	f := newFixture(t)
	mine, theirs := ref(), variants(t, ref())["Account"]
	sealed := f.seal(t, mine, "mine")
	f.seal(t, theirs, "theirs")
	if err := f.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	row, other := f.rows.row(t, mine.Account, "default"), f.rows.row(t, theirs.Account, "default")
	server := f.rows.row(t, vault.Server, "server")

	for name, c := range map[string]struct {
		change func(r *vault.Row)
		want   fault.Code
	}{
		"wrapped key and keysets of another account": {func(r *vault.Row) { r.Wrapped, r.Keysets = other.Wrapped, other.Keysets }, fault.Denied},
		"wrapped key of the server":                  {func(r *vault.Row) { r.Wrapped = server.Wrapped }, fault.Denied},
		"keysets of another account":                 {func(r *vault.Row) { r.Keysets = other.Keysets }, fault.Internal},
		"no keyset":                                  {func(r *vault.Row) { r.Keysets = nil }, fault.Internal},
		"cut keyset":                                 {func(r *vault.Row) { r.Keysets["records"] = r.Keysets["records"][:20] }, fault.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			changed := row
			changed.Keysets = maps.Clone(row.Keysets)
			c.change(&changed)
			f.rows.put(changed)
			f.clock.add(vault.KeyLife)
			if got, err := f.Open(t.Context(), mine, sealed); fault.CodeOf(err) != c.want || !got.IsZero() {
				t.Errorf("Open: got %v, want %s", err, c.want)
			}
			if _, err := f.Seal(t.Context(), mine, secret.New("x")); fault.CodeOf(err) != c.want {
				t.Errorf("Seal: got %v, want %s", err, c.want)
			}
		})
	}
	f.rows.put(row)
	if got, err := f.Open(t.Context(), mine, sealed); err != nil || got.Expose() != "mine" {
		t.Errorf("with its own row again: %v", err)
	}

	swapped := server
	swapped.Keysets = maps.Clone(server.Keysets)
	a, b := string(vault.RingTokens), string(vault.RingAccessKeys)
	swapped.Keysets[a], swapped.Keysets[b] = swapped.Keysets[b], swapped.Keysets[a]
	f.rows.put(swapped)
	if err := f.Ready(t.Context()); !errors.Is(err, fault.Internal) {
		t.Errorf("two keysets of one vault swapped: got %v, want internal", err)
	}
}
