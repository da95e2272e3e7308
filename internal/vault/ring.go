package vault

import (
	"context"
	"errors"

	"github.com/tabard-id/tabard/internal/fault"
)

// Ring names a keyset of the server's own vault.
type Ring string

// The rings. Each is one keyset, so that what one of them sealed never opens under another.
const (
	RingTokens     Ring = "workload-access-tokens" // seals workload access tokens
	RingAccessKeys Ring = "access-keys"            // seals the secrets of access keys
	RingUserRefs   Ring = "user-refs"              // pseudorandom function; for UserRef only
	RingSigning    Ring = "signing-keys"           // seals the installation's own signing keys
	RingSessions   Ring = "session-credentials"    // seals the credentials of federated workloads
)

// serverVault is the one vault of the server itself.
func serverVault() vaultID { return vaultID{Server, ServerName} }

// SealServer encrypts plaintext under a ring of the server and binds aad. The error is Unavailable or Denied where
// the key service does not give the key.
func (v *Vault) SealServer(ctx context.Context, ring Ring, aad, plaintext []byte) ([]byte, error) {
	k, err := v.keys(ctx, serverVault(), true)
	if err != nil {
		return nil, err
	}
	a, ok := k.aeads[string(ring)]
	if !ok {
		return nil, fault.New(fault.Internal, "ring %q of the server does not seal", ring)
	}
	return encrypt(a, plaintext, encodeFields(string(ring), string(aad)))
}

// OpenServer decrypts what SealServer made under the same ring and aad. Whatever is wrong with ciphertext, the error
// is ErrOpen itself, without a code: the caller knows whether it came from a user or from a row, and classifies it.
// Unavailable and Denied are as for SealServer.
func (v *Vault) OpenServer(ctx context.Context, ring Ring, aad, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) < overhead || ciphertext[0] != format {
		return nil, ErrOpen
	}
	k, err := v.keys(ctx, serverVault(), false)
	if errors.Is(err, errNoVault) {
		return nil, ErrOpen
	}
	if err != nil {
		return nil, err
	}
	a, ok := k.aeads[string(ring)]
	if !ok {
		return nil, fault.New(fault.Internal, "ring %q of the server does not open", ring)
	}
	plain, err := a.Decrypt(ciphertext[1:], encodeFields(string(ring), string(aad)))
	if err == nil {
		return plain, nil
	}
	newer, err := v.newer(ctx, k, ring, ciphertext)
	if err != nil {
		return nil, err
	}
	if newer == k {
		return nil, ErrOpen
	}
	if plain, err = newer.aeads[string(ring)].Decrypt(ciphertext[1:], encodeFields(string(ring), string(aad))); err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// UserRef returns 32 bytes that stand for data and reveal nothing of it without the server's key: HMAC-SHA-256. The
// same data always gives the same bytes, for as long as the server's vault lives.
func (v *Vault) UserRef(ctx context.Context, data []byte) ([]byte, error) {
	k, err := v.keys(ctx, serverVault(), true)
	if err != nil {
		return nil, err
	}
	ref, err := k.prfs[string(RingUserRefs)].ComputePrimaryPRF(data, 32)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "a user reference cannot be computed")
	}
	return ref, nil
}

// Ready asks the key service for the server's key, whatever is still in memory, and opens the server's keysets with
// it. It makes the server's vault at first use. Calls that overlap share one answer; the caller bounds how often it
// asks, since each may cost a call to the key service.
func (v *Vault) Ready(ctx context.Context) error {
	id := serverVault()
	_, err := v.share(ctx, flightID{vaultID: id}, true)
	if errors.Is(err, errNoVault) {
		_, err = v.share(ctx, flightID{vaultID: id, create: true}, true)
	}
	return err
}
