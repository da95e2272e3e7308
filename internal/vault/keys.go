package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const (
	vaultKeySize = 32
	// flightTime bounds one round to the store and the key service, which the caller's own deadline may not cut
	// short: others wait for it too.
	flightTime = 10 * time.Second
)

// errNoVault says that there is no row yet. It never leaves the package.
var errNoVault = errors.New("vault: no such vault")

// vaultID names a vault.
type vaultID struct {
	account access.Account
	name    string
}

// keys are the opened keysets of one vault. They do not change once made.
type keys struct {
	born  time.Time // before the key service was asked
	aeads map[string]tink.AEAD
	prfs  map[string]*prf.Set
	drop  *time.Timer // takes them out of memory

	version int64                // of the row
	rings   map[string]ringState // of the server's own vault, those that rotate
}

// flightID names a round to the key service that callers share.
type flightID struct {
	vaultID
	create bool
}

// flight is such a round. keys and err are set before done is closed.
type flight struct {
	done chan struct{}
	keys *keys
	err  error
}

// keys returns the opened keysets of a vault, and with create makes a vault that is not there. Else the error is
// errNoVault.
func (v *Vault) keys(ctx context.Context, id vaultID, create bool) (*keys, error) {
	v.mu.RLock()
	k := v.cachedLocked(id)
	v.mu.RUnlock()
	if k != nil {
		return k, nil
	}
	k, err := v.share(ctx, flightID{vaultID: id}, false)
	if create && errors.Is(err, errNoVault) {
		return v.share(ctx, flightID{vaultID: id, create: true}, false)
	}
	return k, err
}

// cachedLocked returns what may still be used. A clock that was set back ends the life of a key as well.
func (v *Vault) cachedLocked(id vaultID) *keys {
	k := v.opened[id]
	if k == nil {
		return nil
	}
	if age := v.now().Sub(k.born); age < 0 || age >= KeyLife {
		return nil
	}
	return k
}

// share joins the flight for id or starts it, so that the end of a key's life brings one call and no herd. With anew
// it does not look at what is in memory.
func (v *Vault) share(ctx context.Context, id flightID, anew bool) (*keys, error) {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return nil, fault.New(fault.Unavailable, "the server is shutting down")
	}
	if k := v.cachedLocked(id.vaultID); k != nil && !anew {
		v.mu.Unlock()
		return k, nil
	}
	f := v.flights[id]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		v.flights[id] = f
		v.flying.Go(func() { v.fly(context.WithoutCancel(ctx), id, f) })
	}
	v.mu.Unlock()

	select {
	case <-f.done:
		return f.keys, f.err
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "the key of the vault was not had in time")
	}
}

// fly runs one flight.
func (v *Vault) fly(ctx context.Context, id flightID, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, flightTime)
	defer cancel()
	if id.create {
		f.err = v.create(ctx, id.vaultID)
	}
	if f.err == nil {
		f.keys, f.err = v.load(ctx, id.vaultID)
	}
	if id.create && errors.Is(f.err, errNoVault) {
		f.err = fault.New(fault.Internal, "the vault of account %s was made and is not there", id.account)
	}
	v.mu.Lock()
	delete(v.flights, id)
	if f.err == nil && !v.closed {
		v.keepLocked(id.vaultID, f.keys)
	}
	v.mu.Unlock()
	close(f.done)
}

// keepLocked puts k into memory until its life ends. The timer only frees memory: cachedLocked decides what is used.
func (v *Vault) keepLocked(id vaultID, k *keys) {
	if old := v.opened[id]; old != nil {
		old.drop.Stop()
	}
	v.opened[id] = k
	k.drop = time.AfterFunc(KeyLife-v.now().Sub(k.born), func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.opened[id] == k {
			delete(v.opened, id)
		}
	})
}

// load reads a vault's row, unwraps its key and opens its keysets.
func (v *Vault) load(ctx context.Context, id vaultID) (*keys, error) {
	row, err := v.store.VaultRow(ctx, id.account, id.name)
	if fault.CodeOf(err) == fault.NotFound {
		return nil, errNoVault
	}
	if err != nil {
		return nil, fmt.Errorf("read the vault of account %s: %w", id.account, err)
	}
	born := v.now()
	key, err := v.wrapper.Unwrap(ctx, v.context(id), row.Wrapped)
	if err != nil {
		return nil, keyFault(err, id, fmt.Sprintf("wrapped by %s, asked %s", row.KeyURI, v.wrapper.URI()))
	}
	defer clear(key)
	if row, err = v.complete(ctx, id, row, key); err != nil {
		return nil, err
	}
	k, err := openKeysets(key, id, row.Keysets)
	if err != nil {
		return nil, err
	}
	k.born = born
	return k, k.openRings(key, id, row)
}

// complete gives a vault that an earlier version made the keysets that have come since. Where another replica was
// faster its row is taken: it has them.
func (v *Vault) complete(ctx context.Context, id vaultID, row Row, key []byte) (Row, error) {
	for purpose := range id.purposes() {
		if _, ok := row.Keysets[purpose]; ok || !id.added(purpose) {
			continue
		}
		sealed, err := newKeyset(key, id, purpose)
		if err != nil {
			return Row{}, err
		}
		more := row
		more.Keysets = map[string][]byte{purpose: sealed}
		maps.Copy(more.Keysets, row.Keysets)
		more.Version, more.Modified = row.Version+1, v.now()
		err = v.store.SwapVaultRow(ctx, more, row.Version)
		if fault.CodeOf(err) == fault.Conflict {
			more, err = v.store.VaultRow(ctx, id.account, id.name)
		}
		if err != nil {
			return Row{}, fmt.Errorf("add a keyset to the vault of account %s: %w", id.account, err)
		}
		row = more
	}
	return row, nil
}

// create makes a vault: its key, wrapped, and its keysets. Where another replica was faster its row stays, and this
// one is forgotten.
func (v *Vault) create(ctx context.Context, id vaultID) error {
	key := make([]byte, vaultKeySize)
	_, _ = rand.Read(key) // never fails: see crypto/rand
	defer clear(key)
	keysets, err := newKeysets(key, id)
	if err != nil {
		return err
	}
	wrapped, err := v.wrapper.Wrap(ctx, v.context(id), bytes.Clone(key))
	if err != nil {
		return keyFault(err, id, "asked "+v.wrapper.URI())
	}
	now := v.now()
	err = v.store.CreateVaultRow(ctx, Row{
		Account:  id.account,
		Name:     id.name,
		KeyURI:   v.wrapper.URI(),
		Wrapped:  wrapped,
		Keysets:  keysets,
		Version:  1,
		Created:  now,
		Modified: now,
	})
	if err != nil && fault.CodeOf(err) != fault.Conflict {
		return fmt.Errorf("create the vault of account %s: %w", id.account, err)
	}
	return nil
}

// context is what a vault's wrapped key is bound to: the ARN of the vault.
func (v *Vault) context(id vaultID) []byte {
	arn := "arn:aws:bedrock-agentcore:" + v.region + ":" + string(id.account)
	if id.account == Server {
		return []byte(arn + ":vault")
	}
	return []byte(arn + ":token-vault/" + id.name)
}

// keyFault classifies a failure of the key service. Its own sentence stays private: it is the operator's. It is kept
// as text and not wrapped, so that no code of it is found behind ours: a key that is not found must not look to a
// caller like a connection that is not.
func keyFault(err error, id vaultID, which string) error {
	cause := fmt.Errorf("%s: %v", which, err)
	if fault.CodeOf(err) == fault.Denied {
		return fault.Wrap(fault.Denied, cause, "the key service refuses the key of the vault of account %s", id.account)
	}
	return fault.Wrap(fault.Unavailable, cause, "the key service does not give the key of the vault of account %s", id.account)
}

// Close drops every key from memory and waits for calls to the key service that are under way. Afterwards nothing
// seals or opens.
func (v *Vault) Close() {
	v.mu.Lock()
	v.closed = true
	for id, k := range v.opened {
		k.drop.Stop()
		delete(v.opened, id)
	}
	v.mu.Unlock()
	v.flying.Wait()
}
