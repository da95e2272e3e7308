package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// KeyLife is how long an opened keyset may be used, counted from the call that unwrapped its vault's key. Disabling
// the key in the key service makes the vault unreadable within it.
const KeyLife = 5 * time.Minute

// format is the first byte of everything sealed here, and the first byte of its associated data.
const format = 0x01

// overhead is what sealing adds: the format byte, then Tink's prefix (5), XAES-256-GCM's nonce (24) and tag (16).
const overhead = 1 + 5 + 24 + 16

// ErrOpen says that a ciphertext does not open: damaged, truncated, under an unknown key, or with other associated
// data. It says no more, so that it tells nobody which of these it was.
var ErrOpen = errors.New("vault: the value does not open")

// Config is what a Vault needs. Store, Wrapper and Region are required.
type Config struct {
	Store   Store
	Wrapper Wrapper
	Region  string           // of the ARNs; a part of the wrapping context, so that it must not change
	Now     func() time.Time // time.Now by default
}

// Vault seals and opens values. It is safe for concurrent use.
type Vault struct {
	store   Store
	wrapper Wrapper
	region  string
	now     func() time.Time

	flying sync.WaitGroup // one for each flight

	mu      sync.RWMutex // guards what follows
	opened  map[vaultID]*keys
	flights map[flightID]*flight
	closed  bool
}

// New checks the configuration. It reads nothing and calls nobody: a vault is made at its first use.
func New(c Config) (*Vault, error) {
	if c.Store == nil || c.Wrapper == nil || c.Region == "" {
		return nil, errors.New("vault: Store, Wrapper and Region are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Vault{
		store:   c.Store,
		wrapper: c.Wrapper,
		region:  c.Region,
		now:     c.Now,
		opened:  make(map[vaultID]*keys),
		flights: make(map[flightID]*flight),
	}, nil
}

// Seal encrypts text under the records keyset of the account's vault "default", which it makes at first use, and
// binds it to every field of ref. An empty text gives a ciphertext too, which opens as empty: it is never an empty
// Sealed, so that nobody can blank a value by emptying its column. The error is Unavailable or Denied where the key
// service does not give the key.
func (v *Vault) Seal(ctx context.Context, ref Ref, text secret.Text) (Sealed, error) {
	k, err := v.account(ctx, ref.Account, true)
	if err != nil {
		return nil, err
	}
	plain := []byte(text.Expose())
	defer clear(plain)
	return encrypt(k.aeads[purposeRecords], plain, ref.associatedData())
}

// Open decrypts what Seal made under the same ref. A value that is damaged or stands under another ref gives an
// Internal fault with ErrOpen as its cause, and so does an empty Sealed: callers ask first whether there is a value.
// Unavailable and Denied are as for Seal.
func (v *Vault) Open(ctx context.Context, ref Ref, s Sealed) (secret.Text, error) {
	if len(s) > 0 && s[0] != format {
		return secret.Text{}, fault.New(fault.Internal, "a stored value was sealed by a newer version of this server")
	}
	if len(s) < overhead {
		return secret.Text{}, damaged()
	}
	k, err := v.account(ctx, ref.Account, false)
	if errors.Is(err, errNoVault) {
		return secret.Text{}, damaged()
	}
	if err != nil {
		return secret.Text{}, err
	}
	plain, err := k.aeads[purposeRecords].Decrypt(s[1:], ref.associatedData())
	if err != nil {
		return secret.Text{}, damaged()
	}
	defer clear(plain)
	return secret.New(string(plain)), nil
}

// account returns the keys of the account's vault.
func (v *Vault) account(ctx context.Context, account access.Account, create bool) (*keys, error) {
	if account == "" || account == Server {
		return nil, fault.New(fault.Internal, "account %q has no vault for records", account)
	}
	return v.keys(ctx, vaultID{account, "default"}, create)
}

// damaged drops Tink's error on purpose: it tells a short ciphertext from a changed one.
func damaged() error {
	return fault.Wrap(fault.Internal, ErrOpen, "a stored value does not open: it was changed, moved or sealed for another owner")
}

// encrypt puts the format byte before Tink's ciphertext.
func encrypt(a tink.AEAD, plain, associated []byte) ([]byte, error) {
	sealed, err := a.Encrypt(plain, associated)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "a value cannot be sealed")
	}
	return append([]byte{format}, sealed...), nil
}

// associatedData encodes r so that two different Refs never give the same bytes: the format byte, then each field in
// the order of the struct as its length (4 bytes, big endian) and its bytes.
func (r Ref) associatedData() []byte {
	generation := binary.BigEndian.AppendUint64(nil, uint64(r.Generation))
	return encodeFields(string(r.Account), r.Table, r.Column, r.Key, r.Workload, r.User, r.Provider, string(generation), r.Identity)
}

// encodeFields is the one encoding of associated data.
func encodeFields(fields ...string) []byte {
	size := 1
	for _, f := range fields {
		size += 4 + len(f)
	}
	b := append(make([]byte, 0, size), format)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}
