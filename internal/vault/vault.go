// Package vault seals one value under one Ref.
//
// Security argument: three layers of keys. The key service (a Wrapper) wraps one random 32-byte key per vault, with
// the vault's ARN as context. That key seals the vault's Tink keyset (XAES-256-GCM), and the keyset seals values. The
// associated data of a value is the canonical encoding of its Ref, so a ciphertext that is moved to another row,
// column, agent, user or provider does not open. Keysets of the server itself (workload access tokens, user
// references, access keys) hang in a vault of their own, under the server's key and never under a customer's.
//
// Opened keysets live in memory for at most KeyLife, and after it the key service is asked anew: where it refuses or
// does not answer, nothing opens. There is no other copy to fall back to. docs/format.md has every byte.
package vault

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// Ref says where a sealed value lives and whom it belongs to. Every field is bound into the ciphertext; a field that
// does not apply is empty.
type Ref struct {
	Account    access.Account
	Table      string // the table of the row
	Column     string // the column of the value
	Key        string // the primary key of the row, canonically
	Workload   string // uid of the workload identity
	User       string // user reference (HMAC)
	Provider   string // uid of the credential provider
	Generation int64  // generation of the record
	Identity   string // security identity of the provider (SHA-256, hexadecimal)
}

// Sealed is a ciphertext: one version byte, then what docs/format.md specifies.
type Sealed []byte

// Wrapper wraps and unwraps the 32-byte key of a vault in a key service.
type Wrapper interface {
	// URI names the key, without a secret: it is stored beside what it wrapped.
	URI() string
	// Wrap and Unwrap MUST bind context: what was wrapped under one context does not unwrap under another. They
	// return an Unavailable fault where the service does not answer, and a Denied fault where the key is disabled,
	// deleted or not the one that wrapped.
	Wrap(ctx context.Context, context, key []byte) ([]byte, error)
	Unwrap(ctx context.Context, context, wrapped []byte) ([]byte, error)
}

// Row is what the store keeps of a vault. Nothing in it is secret without the key service.
type Row struct {
	Account  access.Account    // Server for the server's own vault
	Name     string            // "default"
	KeyURI   string            // which key wrapped Wrapped
	Wrapped  []byte            // the wrapped 32-byte vault key
	Keysets  map[string][]byte // purpose → keyset, sealed by the vault key
	Version  int64             // compare-and-set
	Created  time.Time
	Modified time.Time
}

// Server is the pseudo-account of the server's own vault. It is no valid account number, so no caller has it.
const Server access.Account = "server"

// ServerName is the name of the server's own vault in that account.
const ServerName = "server"

// Store keeps the rows of vaults.
type Store interface {
	// VaultRow returns a NotFound fault where there is none.
	VaultRow(ctx context.Context, account access.Account, name string) (Row, error)
	// CreateVaultRow MUST return a Conflict fault where the row exists, and leave it as it is.
	CreateVaultRow(ctx context.Context, r Row) error
	// SwapVaultRow MUST replace the row only where its version is still oldVersion, else return a Conflict fault.
	SwapVaultRow(ctx context.Context, r Row, oldVersion int64) error
}
