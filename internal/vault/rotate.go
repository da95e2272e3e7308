package vault

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/tabard-id/tabard/internal/fault"
)

// agesOf is the purpose under which a ring's ages are sealed beside its keyset. Versions that do not rotate leave it
// alone.
func agesOf(ring Ring) string { return string(ring) + "/ages" }

// ages say since when each key of a ring is what it is: Tink's keysets do not. Times are in milliseconds since 1970.
type ages struct {
	Since   int64            `json:"since"`   // when the primary key became it
	Retired map[uint32]int64 `json:"retired"` // when a key that only opens stopped to seal
}

// rotates reports whether a ring may get a new key and lose an old one: everything under it is short-lived.
func (r Ring) rotates() bool { return r == RingTokens || r == RingSessions }

// RotateRing gives the ring a new key to seal with, where the one it has is at least that old, and reports whether it
// did. The keys before it go on opening what they sealed for the overlap, which MUST be longer than anything under the
// ring lives; those that have done so for longer are deleted. Other replicas take up the new key when they meet it
// first. A ring whose values are kept is an Internal fault; else errors are as for SealServer.
func (v *Vault) RotateRing(ctx context.Context, ring Ring, age, overlap time.Duration) (bool, error) {
	if !ring.rotates() {
		return false, fault.New(fault.Internal, "values under the ring %q are kept: its keys do not rotate", ring)
	}
	k, err := v.keys(ctx, serverVault(), true)
	if err != nil || !k.rings[string(ring)].older(age, v.now()) {
		return false, err
	}
	const tries = 4
	for try := 1; ; try++ {
		rotated, err := v.rotate(ctx, ring, age, overlap)
		if fault.CodeOf(err) == fault.Conflict && try < tries {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("rotate the ring %q: %w", ring, err)
		}
		_, err = v.share(ctx, flightID{vaultID: serverVault()}, true)
		return rotated, err
	}
}

// rotate makes one attempt on the row as it is now.
func (v *Vault) rotate(ctx context.Context, ring Ring, age, overlap time.Duration) (bool, error) {
	id := serverVault()
	row, err := v.store.VaultRow(ctx, id.account, id.name)
	if err != nil {
		return false, err
	}
	key, err := v.wrapper.Unwrap(ctx, v.context(id), row.Wrapped)
	if err != nil {
		return false, keyFault(err, id, fmt.Sprintf("wrapped by %s, asked %s", row.KeyURI, v.wrapper.URI()))
	}
	defer clear(key)
	now := v.now()
	state, h, err := openRing(key, id, row, ring)
	if err != nil || !state.older(age, now) { // another replica was faster
		return false, err
	}
	keysets := maps.Clone(row.Keysets)
	if keysets[string(ring)], keysets[agesOf(ring)], err = renew(key, id, ring, state, h, now, overlap); err != nil {
		return false, err
	}
	old := row.Version
	row.Keysets, row.Version, row.Modified = keysets, old+1, now
	return true, v.store.SwapVaultRow(ctx, row, old)
}

// renew adds a key to a keyset and deletes those that have opened for long enough.
func renew(vaultKey []byte, id vaultID, ring Ring, state ringState, h *keyset.Handle, now time.Time, overlap time.Duration) (sealedKeys, sealedAges []byte, err error) {
	wrong := func(err error) error { return fault.Wrap(fault.Internal, err, "the keyset %q cannot be renewed", ring) }
	primary, err := h.Primary()
	if err != nil {
		return nil, nil, wrong(err)
	}
	m := keyset.NewManagerFromHandle(h)
	next, err := m.Add(sealing.template())
	if err == nil {
		err = m.SetPrimary(next)
	}
	a := ages{Since: now.UnixMilli(), Retired: map[uint32]int64{primary.KeyID(): now.UnixMilli()}}
	for old, at := range state.Retired {
		if now.Sub(time.UnixMilli(at)) < overlap {
			a.Retired[old] = at
		} else if err == nil {
			err = m.Delete(old)
		}
	}
	if err != nil {
		return nil, nil, wrong(err)
	}
	if h, err = m.Handle(); err != nil {
		return nil, nil, wrong(err)
	}
	sealer, err := vaultAEAD(vaultKey)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&b), sealer, id.keysetData(string(ring))); err != nil {
		return nil, nil, wrong(err)
	}
	doc, err := json.Marshal(a)
	if err != nil {
		return nil, nil, wrong(err)
	}
	if sealedAges, err = sealer.Encrypt(doc, id.keysetData(agesOf(ring))); err != nil {
		return nil, nil, wrong(err)
	}
	return b.Bytes(), sealedAges, nil
}

// ringState is what is known of a ring's keys.
type ringState struct {
	ages
	ids map[uint32]bool
}

func (s ringState) older(age time.Duration, now time.Time) bool {
	return now.Sub(time.UnixMilli(s.Since)) >= age
}

// openRing opens the keyset of a ring, and its ages. A keyset that was never rotated has none: it is as old as the
// vault.
func openRing(vaultKey []byte, id vaultID, row Row, ring Ring) (ringState, *keyset.Handle, error) {
	opener, err := vaultAEAD(vaultKey)
	if err != nil {
		return ringState{}, nil, err
	}
	h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(row.Keysets[string(ring)])), opener, id.keysetData(string(ring)))
	if err == nil {
		err = sealing.check(h)
	}
	if err != nil {
		return ringState{}, nil, fault.Wrap(fault.Internal, err, "the keyset %q does not open", ring)
	}
	s := ringState{ages: ages{Since: row.Created.UnixMilli()}, ids: map[uint32]bool{}}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return ringState{}, nil, fault.Wrap(fault.Internal, err, "the keyset %q cannot be read", ring)
		}
		s.ids[e.KeyID()] = true
	}
	if sealed, ok := row.Keysets[agesOf(ring)]; ok {
		doc, err := opener.Decrypt(sealed, id.keysetData(agesOf(ring)))
		if err == nil {
			err = json.Unmarshal(doc, &s.ages)
		}
		if err != nil {
			return ringState{}, nil, fault.Wrap(fault.Internal, err, "the ages of the keyset %q do not open: they were changed or moved", ring)
		}
	}
	return s, h, nil
}

// openRings fills in what is known of the rings that rotate.
func (k *keys) openRings(vaultKey []byte, id vaultID, row Row) error {
	k.version = row.Version
	if id.account != Server {
		return nil
	}
	k.rings = map[string]ringState{}
	for purpose := range id.purposes() {
		if !Ring(purpose).rotates() {
			continue
		}
		s, _, err := openRing(vaultKey, id, row, Ring(purpose))
		if err != nil {
			return err
		}
		k.rings[purpose] = s
	}
	return nil
}

// newer returns keys that know the one that sealed the ciphertext, where another replica has rotated the ring since k
// was read; else k. What names a key that nobody ever had costs a read of the row, and no call to the key service.
func (v *Vault) newer(ctx context.Context, k *keys, ring Ring, ciphertext []byte) (*keys, error) {
	const tinkPrefix = 0x01
	if !ring.rotates() || ciphertext[1] != tinkPrefix || k.rings[string(ring)].ids[binary.BigEndian.Uint32(ciphertext[2:6])] {
		return k, nil
	}
	row, err := v.store.VaultRow(ctx, Server, ServerName)
	if err != nil {
		return nil, err
	}
	anew := k
	for range 2 { // the first may join a flight that began before the row was changed
		if anew.version >= row.Version {
			break
		}
		if anew, err = v.share(ctx, flightID{vaultID: serverVault()}, true); err != nil {
			return nil, err
		}
	}
	return anew, nil
}
