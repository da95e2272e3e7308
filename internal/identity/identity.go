package identity

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"strings"
	"time"
	"unicode"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/pace"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Vault is what this package needs of the vault. *vault.Vault has it.
type Vault interface {
	// SealServer and OpenServer use a keyset of the server itself. OpenServer returns vault.ErrOpen for whatever is
	// damaged, or was sealed under another ring or other associated data.
	SealServer(ctx context.Context, ring vault.Ring, aad, plaintext []byte) ([]byte, error)
	OpenServer(ctx context.Context, ring vault.Ring, aad, ciphertext []byte) ([]byte, error)
	// UserRef is a pseudo-random function of data under a key of the server.
	UserRef(ctx context.Context, data []byte) ([]byte, error)
	// Seal seals under the keyset of the account's vault.
	Seal(ctx context.Context, ref vault.Ref, text secret.Text) (vault.Sealed, error)
	// Open opens what Seal made under the same ref.
	Open(ctx context.Context, ref vault.Ref, s vault.Sealed) (secret.Text, error)
}

// Config is what a Service needs. Store, Vault, Guard, Keys and Issuer are required.
type Config struct {
	Store    Store
	Vault    Vault
	Guard    *access.Guard
	Keys     KeySource
	Issuer   string // the server's public URL: workload access tokens of another one do not open
	Region   string
	Now      func() time.Time       // time.Now by default
	Dev      bool                   // trust every issuer on loopback, and allow issuers with plain http there
	Metadata keyring.MetadataSource // what issuers' metadata leads to is pinned; nil where no metadata is followed
	UserInfo UserInfoSource         // nil where no issuer is to be asked who a user is
	Issuers  []Issuer               // from the configuration file. One without an Account is trusted in every account.

	MaxDelegation time.Duration // how far ahead a delegation may end; MaxDelegation by default

	// UserTokenLife is how long a workload access token lives that was made of a user's JWT whose issuer has back-channel
	// logout; UserTokenLife by default, and never less. For all others it is UserTokenLife.
	UserTokenLife time.Duration
}

// Service answers who is who. Every method that takes a caller decides and records through the Guard itself.
type Service struct {
	store    Store
	vault    Vault
	guard    *access.Guard
	keys     *keyring.Ring[jws.Set]
	metadata keyring.MetadataSource // nil where none is followed
	userInfo UserInfoSource         // nil where no issuer is asked
	issuer   string
	region   string
	now      func() time.Time
	dev      bool
	config   []Issuer // sorted by URL

	maxDelegation time.Duration
	longestLife   time.Duration // of a workload access token

	logouts gates // of logout tokens that wait for their issuer's keys
	uses    uses  // of access keys, on their way to the store

	userInfos *pace.Pace // questions to UserInfo endpoints, by agent and user (threat M14)
	readings  *pace.Pace // metadata of an issuer that is read anew
}

// New checks the configuration and returns a Service. It contacts nobody.
func New(c Config) (*Service, error) {
	switch {
	case c.Store == nil || c.Vault == nil || c.Guard == nil || c.Keys == nil:
		return nil, fault.New(fault.Internal, "identity needs a store, a vault, a guard and a key source")
	case c.Issuer == "":
		return nil, fault.New(fault.Internal, "identity needs the server's public URL")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxDelegation == 0 {
		c.MaxDelegation = MaxDelegation
	}
	s := &Service{
		store: c.Store, vault: c.Vault, guard: c.Guard, issuer: c.Issuer, region: c.Region, now: c.Now, dev: c.Dev,
		keys: keyring.New(c.Keys, keysOf, c.Now), metadata: c.Metadata, userInfo: c.UserInfo, maxDelegation: c.MaxDelegation,
		longestLife: max(c.UserTokenLife, UserTokenLife),
		userInfos:   pace.New(c.Now, 10, 3*time.Second), readings: pace.New(c.Now, 5, 10*time.Second),
	}
	if c.Metadata != nil {
		s.keys.Pinned(c.Metadata, c.Store, keyring.KeysPin)
	}
	config, err := configIssuers(c.Issuers, c.Dev)
	if err != nil {
		return nil, err
	}
	for _, i := range config {
		if s.Owns(i.URL) || s.Owns(i.JWKSURI) {
			return nil, fault.New(fault.Invalid, "issuer %q in the configuration is this server itself: what it signs names no users here", clip(i.URL))
		}
	}
	s.config = config
	return s, nil
}

// maxPage bounds one page of a listing, and defaultPage is what a limit of 0 means.
const (
	maxPage     = 100
	defaultPage = 20
)

func pageSize(limit int) int {
	switch {
	case limit <= 0:
		return defaultPage
	case limit > maxPage:
		return maxPage
	}
	return limit
}

// page cuts what was read with one item too many, and returns the cursor of the next page, or "" on the last one.
func page[T any](items []T, limit int, key func(T) string) ([]T, string) {
	if len(items) <= limit {
		return items, ""
	}
	return items[:limit], key(items[limit-1])
}

// appendField appends s with its length before it, so that no two different lists of fields have the same bytes.
func appendField(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// clip bounds what a caller sent before it is quoted in a message.
func clip(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) { // C1 controls too: a terminal may act on them
			return -1
		}
		return r
	}, s)
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
