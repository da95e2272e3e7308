package vault_test

import (
	"bytes"
	"testing"

	"github.com/tabard-id/tabard/internal/vault"
)

// A vault of before there were sessions gets their keyset at its first use; what an older server sealed still opens.
func TestServer_OlderVaultGetsTheSessionRing(t *testing.T) {
	f := newFixture(t)
	if err := f.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := f.SealServer(t.Context(), vault.RingAccessKeys, nil, []byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	older := f.rows.row(t, vault.Server, "server")
	delete(older.Keysets, string(vault.RingSessions))
	delete(older.Keysets, string(vault.RingSigning))
	f.rows.put(older)
	f.clock.add(vault.KeyLife)
	sealed, err := f.SealServer(t.Context(), vault.RingSessions, []byte("aad"), []byte("session"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.OpenServer(t.Context(), vault.RingSessions, []byte("aad"), sealed); err != nil || string(got) != "session" {
		t.Errorf("OpenServer = %q, %v", got, err)
	}
	if got, err := f.OpenServer(t.Context(), vault.RingAccessKeys, nil, before); err != nil || string(got) != "before" {
		t.Errorf("what was sealed before: %q, %v", got, err)
	}
	for _, ring := range []vault.Ring{vault.RingTokens, vault.RingAccessKeys, vault.RingSigning} {
		if _, err := f.OpenServer(t.Context(), ring, []byte("aad"), sealed); err != vault.ErrOpen {
			t.Errorf("under the ring %s: got %v, want ErrOpen", ring, err)
		}
	}
	now := f.rows.row(t, vault.Server, "server")
	for purpose, k := range older.Keysets {
		if !bytes.Equal(now.Keysets[purpose], k) {
			t.Errorf("the keyset %q was changed", purpose)
		}
	}
}
