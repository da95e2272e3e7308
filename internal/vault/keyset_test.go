package vault_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/vault"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
)

// sealer is the vault's key as docs/format.md says it seals keysets, from the independent implementation.
type sealer struct{ key []byte }

func (s sealer) Encrypt(plain, associated []byte) ([]byte, error) {
	nonce := bytes.Repeat([]byte{5}, 24)
	return xaesSeal(s.key, nonce, plain, associated), nil
}

func (s sealer) Decrypt(sealed, associated []byte) ([]byte, error) {
	return xaesOpen(s.key, sealed, associated)
}

// plant puts a keyset with the given keys into a row, sealed by the row's own vault key; the last is the primary.
// It returns the ids of the keys.
func plant(t *testing.T, f fixture, r vault.Row, purpose string, templates ...*tinkpb.KeyTemplate) []uint32 {
	t.Helper()
	m := keyset.NewManager()
	var ids []uint32
	for _, template := range templates {
		id, err := m.Add(template)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		if err := m.SetPrimary(id); err != nil {
			t.Fatal(err)
		}
	}
	h, err := m.Handle()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	data := fields(string(r.Account), r.Name, purpose)
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&b), sealer{unwrap(t, f, r)}, data); err != nil {
		t.Fatal(err)
	}
	r.Keysets = maps.Clone(r.Keysets)
	r.Keysets[purpose] = b.Bytes()
	f.rows.put(r)
	f.clock.add(vault.KeyLife)
	return ids
}

func TestD06_KeysetOfAnotherKindIsRefused(t *testing.T) {
	f := newFixture(t)
	sealed := f.seal(t, ref(), "x")
	if err := f.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	row, server := f.rows.row(t, ref().Account, "default"), f.rows.row(t, vault.Server, "server")
	right := aead.XAES256GCM192BitNonceKeyTemplate()
	for name, template := range map[string]*tinkpb.KeyTemplate{
		"AES-256-GCM":           aead.AES256GCMKeyTemplate(),
		"AES-128-GCM":           aead.AES128GCMKeyTemplate(),
		"ChaCha20-Poly1305":     aead.ChaCha20Poly1305KeyTemplate(),
		"without prefix":        aead.XAES256GCM192BitNonceNoPrefixKeyTemplate(),
		"short nonce":           aead.XAES256GCM160BitNonceKeyTemplate(),
		"pseudorandom function": prf.HMACSHA256PRFKeyTemplate(),
	} {
		for _, templates := range [][]*tinkpb.KeyTemplate{{template}, {template, right}, {right, template}} {
			plant(t, f, row, "records", templates...)
			_, err := f.Open(t.Context(), ref(), sealed)
			if !errors.Is(err, fault.Internal) || !strings.Contains(err.Error(), "another kind") {
				t.Errorf("%s, %d keys: got %v, want internal, of another kind", name, len(templates), err)
			}
		}
	}
	for name, template := range map[string]*tinkpb.KeyTemplate{
		"HMAC-SHA-512": prf.HMACSHA512PRFKeyTemplate(),
		"AES-CMAC":     prf.AESCMACPRFKeyTemplate(),
		"XAES-256-GCM": right,
	} {
		plant(t, f, server, string(vault.RingUserRefs), template)
		if _, err := f.UserRef(t.Context(), []byte("alice")); !errors.Is(err, fault.Internal) || !strings.Contains(err.Error(), "another kind") {
			t.Errorf("user references by %s: got %v, want internal, of another kind", name, err)
		}
	}
}

// Two keys of the right kind are what rotation makes: what either sealed opens, and only under its own id.
func TestD07_OnlyTheKeyThatSealedOpens(t *testing.T) {
	f := newFixture(t)
	f.seal(t, ref(), "x")
	right := aead.XAES256GCM192BitNonceKeyTemplate()
	ids := plant(t, f, f.rows.row(t, ref().Account, "default"), "records", right, right)
	sealed := f.seal(t, ref(), "x")
	if got := binary.BigEndian.Uint32(sealed[2:6]); got != ids[1] {
		t.Fatalf("sealed under key %d, want the primary %d", got, ids[1])
	}
	if got, err := f.Open(t.Context(), ref(), sealed); err != nil || got.Expose() != "x" {
		t.Fatalf("Open: %v", err)
	}
	calls := f.keys.unwraps.Load()
	for _, id := range []uint32{ids[0], ids[0] + 1, 0} {
		relabelled := bytes.Clone(sealed)
		binary.BigEndian.PutUint32(relabelled[2:], id)
		got, err := f.Open(t.Context(), ref(), relabelled)
		notOpened(t, "under another key id", got, err)
	}
	if f.keys.unwraps.Load() != calls {
		t.Error("an unknown key id asked the key service")
	}
}
