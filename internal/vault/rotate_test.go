package vault_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/vault"
)

// B12: the ring is rotated every second under load, on two replicas in turn. What either sealed opens on both until the
// overlap is over, and no longer than a second after it.
func TestB12_RingRotatesUnderLoad(t *testing.T) {
	f := newFixture(t)
	other := newVault(t, f.rows, f.keys, f.clock.Now)
	replicas := []*vault.Vault{f.Vault, other}
	const overlap = 30 * time.Second
	type value struct {
		second int
		sealed []byte
	}
	var live []value
	for second := range 90 {
		v := replicas[second%2]
		if rotated, err := v.RotateRing(t.Context(), vault.RingTokens, time.Second, overlap); err != nil || second > 0 && !rotated {
			t.Fatalf("second %d: rotated %t, %v", second, rotated, err)
		}
		var group sync.WaitGroup
		for _, r := range replicas {
			for _, old := range live {
				group.Go(func() {
					got, err := r.OpenServer(t.Context(), vault.RingTokens, []byte("aad"), old.sealed)
					if err != nil || string(got) != fmt.Sprint(old.second) {
						t.Errorf("second %d: what was sealed in second %d does not open: %v", second, old.second, err)
					}
				})
			}
		}
		group.Wait()
		for _, r := range replicas {
			sealed, err := r.SealServer(t.Context(), vault.RingTokens, []byte("aad"), []byte(fmt.Sprint(second)))
			if err != nil {
				t.Fatal(err)
			}
			live = append(live, value{second, sealed})
		}
		for len(live) > 0 && second-live[0].second >= 28 {
			live = live[1:]
		}
		f.clock.add(time.Second)
	}
	first := live[0]
	f.clock.add(overlap)
	for range 2 { // the second takes away what the first left for its overlap
		if _, err := f.RotateRing(t.Context(), vault.RingTokens, 0, overlap); err != nil {
			t.Fatal(err)
		}
		f.clock.add(overlap + time.Second)
	}
	if _, err := f.RotateRing(t.Context(), vault.RingTokens, 0, overlap); err != nil {
		t.Fatal(err)
	}
	if _, err := f.OpenServer(t.Context(), vault.RingTokens, []byte("aad"), first.sealed); err != vault.ErrOpen {
		t.Errorf("after the overlap: got %v, want ErrOpen", err)
	}
}

// Two replicas that rotate at the same moment make one new key, and nothing is lost.
func TestRotateRingRaces(t *testing.T) {
	f := newFixture(t)
	other := newVault(t, f.rows, f.keys, f.clock.Now)
	sealed, err := f.SealServer(t.Context(), vault.RingSessions, nil, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	f.clock.add(time.Minute)
	var group sync.WaitGroup
	rotated := make([]bool, 2)
	for i, v := range []*vault.Vault{f.Vault, other} {
		group.Go(func() {
			var err error
			if rotated[i], err = v.RotateRing(t.Context(), vault.RingSessions, time.Minute, time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if rotated[0] == rotated[1] {
		t.Errorf("rotated: %v, want by one of the two", rotated)
	}
	for i, v := range []*vault.Vault{f.Vault, other} {
		if got, err := v.OpenServer(t.Context(), vault.RingSessions, nil, sealed); err != nil || string(got) != "x" {
			t.Errorf("replica %d: %q, %v", i, got, err)
		}
	}
}

// A ring whose values are kept, or name users, never loses a key.
func TestRotateRingRefuses(t *testing.T) {
	f := newFixture(t)
	for _, ring := range []vault.Ring{vault.RingAccessKeys, vault.RingUserRefs, vault.RingSigning, "records", ""} {
		if rotated, err := f.RotateRing(t.Context(), ring, 0, time.Hour); rotated || !errors.Is(err, fault.Internal) {
			t.Errorf("%q: %t, %v", ring, rotated, err)
		}
	}
}

// B12: a token with the id of a key that nobody ever had does not make the server call the key service, however often.
func TestB12_UnknownKeyIDCallsNobody(t *testing.T) {
	f := newFixture(t)
	sealed, err := f.SealServer(t.Context(), vault.RingTokens, nil, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	before := f.keys.unwraps.Load()
	for i := range 100 {
		junk := append([]byte(nil), sealed...)
		junk[2], junk[3] = byte(i), ^junk[3]
		if _, err := f.OpenServer(t.Context(), vault.RingTokens, nil, junk); err != vault.ErrOpen {
			t.Fatalf("got %v, want ErrOpen", err)
		}
	}
	if n := f.keys.unwraps.Load() - before; n != 0 {
		t.Errorf("junk caused %d calls to the key service", n)
	}
}

// Whoever can write to the database cannot make a key live longer or die earlier by its age.
func TestRotateRingAgesAreSealed(t *testing.T) {
	f := newFixture(t)
	if _, err := f.RotateRing(t.Context(), vault.RingTokens, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	row, err := f.rows.VaultRow(t.Context(), vault.Server, vault.ServerName)
	if err != nil {
		t.Fatal(err)
	}
	name := string(vault.RingTokens) + "/ages"
	row.Keysets[name][len(row.Keysets[name])-1] ^= 1
	version := row.Version
	row.Version++
	if err := f.rows.SwapVaultRow(t.Context(), row, version); err != nil {
		t.Fatal(err)
	}
	if _, err := newVault(t, f.rows, f.keys, f.clock.Now).SealServer(t.Context(), vault.RingTokens, nil, []byte("x")); !errors.Is(err, fault.Internal) {
		t.Errorf("got %v, want internal", err)
	}
}
