package vault_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

func TestServer_RoundTrip(t *testing.T) {
	f := newFixture(t)
	for _, ring := range []vault.Ring{vault.RingTokens, vault.RingAccessKeys, vault.RingSigning} {
		sealed, err := f.SealServer(t.Context(), ring, []byte("aad"), []byte("plain"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.OpenServer(t.Context(), ring, []byte("aad"), sealed)
		if err != nil || string(got) != "plain" {
			t.Errorf("%s: OpenServer = %q, %v", ring, got, err)
		}
	}
	if w, u := f.keys.wraps.Load(), f.keys.unwraps.Load(); w != 1 || u != 1 {
		t.Errorf("the keysets of one vault took %d wraps and %d unwraps, want 1 and 1", w, u)
	}
}

func TestServer_RefusesOtherRings(t *testing.T) {
	f := newFixture(t)
	for _, ring := range []vault.Ring{"", "records", vault.RingUserRefs} {
		if _, err := f.SealServer(t.Context(), ring, nil, nil); !errors.Is(err, fault.Internal) {
			t.Errorf("SealServer(%q): got %v, want internal", ring, err)
		}
		if _, err := f.OpenServer(t.Context(), ring, nil, append([]byte{1}, make([]byte, 60)...)); !errors.Is(err, fault.Internal) {
			t.Errorf("OpenServer(%q): got %v, want internal", ring, err)
		}
	}
}

// What OpenServer gets may come from anybody, so version, key id and length are all the same to the caller.
func TestB04_DamagedTokensGiveOneError(t *testing.T) {
	f := newFixture(t)
	aad := []byte("https://id.example\x00000000000000")
	sealed, err := f.SealServer(t.Context(), vault.RingTokens, aad, []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	calls := f.keys.unwraps.Load()
	check := func(what string, i int, ring vault.Ring, aad, s []byte) {
		t.Helper()
		if got, err := f.OpenServer(t.Context(), ring, aad, s); err != vault.ErrOpen || got != nil {
			t.Errorf("%s %d: OpenServer = %q, %v; want exactly ErrOpen", what, i, got, err)
		}
	}
	for i := range sealed {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(sealed)
			changed[i] ^= bit
			check("byte changed", i, vault.RingTokens, aad, changed)
		}
		check("cut to", i, vault.RingTokens, aad, sealed[:i])
	}
	check("longer", 1, vault.RingTokens, aad, append(bytes.Clone(sealed), 0))
	check("another ring", 0, vault.RingAccessKeys, aad, sealed)
	if now := f.keys.unwraps.Load(); now != calls {
		t.Errorf("damaged tokens caused %d calls to the key service", now-calls)
	}
}

func TestB04_JunkBeforeFirstUseCallsNobody(t *testing.T) {
	f := newFixture(t)
	if _, err := f.OpenServer(t.Context(), vault.RingTokens, nil, make([]byte, 100)); err != vault.ErrOpen {
		t.Errorf("got %v, want ErrOpen", err)
	}
	if _, err := f.OpenServer(t.Context(), vault.RingTokens, nil, append([]byte{1}, make([]byte, 100)...)); err != vault.ErrOpen {
		t.Errorf("got %v, want ErrOpen", err)
	}
	if n := f.keys.unwraps.Load() + f.keys.wraps.Load() + int64(len(f.rows.m)); n != 0 {
		t.Errorf("junk caused %d calls and vaults", n)
	}
}

func TestB05_SameKeysOtherIssuerOrAccount(t *testing.T) {
	f := newFixture(t)
	sealed, err := f.SealServer(t.Context(), vault.RingTokens, []byte("https://a.example‖000000000000"), []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	restored := newVault(t, f.rows, f.keys, f.clock.Now) // another deployment, with the same rows and the same key
	for _, aad := range []string{"", "https://b.example‖000000000000", "https://a.example‖111111111111"} {
		if _, err := restored.OpenServer(t.Context(), vault.RingTokens, []byte(aad), sealed); err != vault.ErrOpen {
			t.Errorf("associated data %q: got %v, want ErrOpen", aad, err)
		}
	}
}

// A record is never a token: the server's vault and those of accounts share no key.
func TestB06_RecordsAndTokensDoNotMix(t *testing.T) {
	f := newFixture(t)
	record := f.seal(t, ref(), "x")
	token, err := f.SealServer(t.Context(), vault.RingTokens, nil, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.OpenServer(t.Context(), vault.RingTokens, nil, record); err != vault.ErrOpen {
		t.Errorf("a record as a token: got %v, want ErrOpen", err)
	}
	got, err := f.Open(t.Context(), ref(), token)
	notOpened(t, "a token as a record", got, err)
}

func TestUserRef(t *testing.T) {
	f, g := newFixture(t), newFixture(t)
	other := newVault(t, f.rows, f.keys, f.clock.Now)
	got := map[string][]byte{}
	for name, c := range map[string]struct {
		v    *vault.Vault
		data string
	}{
		"first":          {f.Vault, "jwt:alice"},
		"same elsewhere": {other, "jwt:alice"},
		"another user":   {f.Vault, "jwt:bob"},
		"another server": {g.Vault, "jwt:alice"},
	} {
		r, err := c.v.UserRef(t.Context(), []byte(c.data))
		if err != nil || len(r) != 32 {
			t.Fatalf("%s: UserRef = %x, %v; want 32 bytes", name, r, err)
		}
		got[name] = r
	}
	if !bytes.Equal(got["first"], got["same elsewhere"]) {
		t.Error("two replicas name one user differently")
	}
	if bytes.Equal(got["first"], got["another user"]) || bytes.Equal(got["first"], got["another server"]) {
		t.Error("two users, or two servers, share a reference")
	}
}

func TestReady_AsksTheKeyService(t *testing.T) {
	f := newFixture(t)
	for want := int64(1); want <= 3; want++ {
		if err := f.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := f.keys.unwraps.Load(); got != want {
			t.Errorf("after %d calls of Ready the key service had %d", want, got)
		}
	}
	f.keys.fail.Store(fault.New(fault.Denied, "disabled"))
	if err := f.Ready(t.Context()); !errors.Is(err, fault.Denied) {
		t.Errorf("Ready: got %v, want denied", err)
	}
	// What Ready learns ends no key before its time: the vault of an account stays open.
	f.keys.fail.Store(nil)
	sealed := f.seal(t, ref(), "x")
	f.keys.fail.Store(fault.New(fault.Unavailable, "down"))
	if err := f.Ready(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("Ready: got %v, want unavailable", err)
	}
	if got, err := f.Open(t.Context(), ref(), sealed); err != nil || !got.Equal(secret.New("x")) {
		t.Errorf("Open within the life of the key: %v", err)
	}
}

// A vault that was made before there were signing keys gets their keyset at its first use, once for all replicas, and
// what it sealed still opens. Any other keyset that is missing is damage.
func TestServer_OlderVaultGetsTheSigningRing(t *testing.T) {
	f := newFixture(t)
	if err := f.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	token, err := f.SealServer(t.Context(), vault.RingTokens, nil, []byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	older := f.rows.row(t, vault.Server, "server")
	delete(older.Keysets, string(vault.RingSigning))
	f.rows.put(older)

	replicas := []*vault.Vault{newVault(t, f.rows, f.keys, f.clock.Now), newVault(t, f.rows, f.keys, f.clock.Now), newVault(t, f.rows, f.keys, f.clock.Now)}
	sealed := make([][]byte, len(replicas))
	var group sync.WaitGroup
	for i, v := range replicas {
		group.Go(func() {
			var err error
			if sealed[i], err = v.SealServer(t.Context(), vault.RingSigning, nil, []byte("key")); err != nil {
				t.Errorf("SealServer: %v", err)
			}
		})
	}
	group.Wait()
	for _, v := range replicas {
		for _, s := range sealed {
			if got, err := v.OpenServer(t.Context(), vault.RingSigning, nil, s); err != nil || string(got) != "key" {
				t.Errorf("what another replica sealed: %q, %v", got, err)
			}
		}
		if got, err := v.OpenServer(t.Context(), vault.RingTokens, nil, token); err != nil || string(got) != "before" {
			t.Errorf("what was sealed before: %q, %v", got, err)
		}
	}
	now := f.rows.row(t, vault.Server, "server")
	if now.Version != older.Version+1 || len(now.Keysets) != len(older.Keysets)+1 {
		t.Errorf("got version %d with %d keysets after version %d with %d", now.Version, len(now.Keysets), older.Version, len(older.Keysets))
	}
	for purpose, k := range older.Keysets {
		if !bytes.Equal(now.Keysets[purpose], k) {
			t.Errorf("the keyset %q was changed", purpose)
		}
	}
	delete(now.Keysets, string(vault.RingAccessKeys))
	f.rows.put(now)
	f.clock.add(vault.KeyLife)
	if err := f.Ready(t.Context()); !errors.Is(err, fault.Internal) {
		t.Errorf("without the keyset of access keys: got %v, want internal", err)
	}
}
