// Package signing keeps the installation's own signing keys, and signs and verifies JWTs with them.
//
// Security argument: there is one algorithm (ES256) and one series of keys for each purpose, so that what was signed
// for one thing verifies as no other. A key belongs to a period of the clock; which one signs is never anybody's
// choice. Its private half is sealed under a keyset of the server's own vault, bound to purpose, period and id, and
// opened for one signature at a time: nothing of it outlives the vault's own keys in memory, so that disabling the key
// in the key service ends signing within five minutes. What is published is derived from the sealed halves and not from
// the rows' clear columns: whoever can write to the database cannot make the world trust a key of theirs.
package signing

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Purpose is what a series of keys is for. What a key of one purpose signed verifies under no other.
type Purpose string

// Assertions signs the JWTs by which the installation names one of its accounts' clients or agents to a provider:
// client authentication and actor tokens.
const Assertions Purpose = "assertions"

// tokensOf begins the purposes of the tokens that accounts make for others.
const tokensOf = "tokens/"

// AccountTokens is the purpose of the tokens that one account makes for others. Each account is an issuer of its own,
// with keys of its own: a verifier that trusts one account's issuer takes no token of another (threat M09).
func AccountTokens(account string) Purpose { return Purpose(tokensOf + account) }

// AccountPath is what stands between the server's public URL and the number of an account in the URL of the account's
// issuer.
const AccountPath = "/accounts/"

const (
	// Period is how long a key signs. It verifies for one more.
	Period = 30 * 24 * time.Hour

	// Ahead is how long before its period a key is made and published, so that whoever keeps our key set for days knows
	// it before it is used.
	Ahead = 7 * 24 * time.Hour

	// MaxLife bounds the life of what is signed: a token ends while its key is still published.
	MaxLife = 24 * time.Hour

	algorithm = "ES256"

	// Overlap is how long a key that somebody had made is published before it signs: twice what a verifier may keep our
	// key set, so that whoever gets a token of the new key knows it (threat H07). A key that replaces a revoked one has no
	// such time.
	Overlap = 2 * CacheAge

	// CacheAge is how long a verifier may keep our key set.
	CacheAge = 5 * time.Minute

	// rowsFresh is how long rows are used without reading them again, and so how long another replica goes on with a key
	// that was revoked (threat H08).
	rowsFresh = 5 * time.Second

	// leeway is how far the clocks of two replicas may be apart.
	leeway = time.Minute
)

// Row is a key as it is stored.
type Row struct {
	Purpose Purpose
	Period  int64        // number of the 30 days since 1970 in which it signs
	Serial  int64        // 0, and more for those that were made to replace one of the same period
	ID      string       // thumbprint of the public half (RFC 7638)
	Public  string       // the public half, a JWK: for people, and trusted by nobody
	Sealed  vault.Sealed // the private half, a JWK, under vault.RingSigning; nil where it was revoked
	Begins  time.Time    // when it is the one that signs, until another begins
	Revoked time.Time    // zero where it was not
	Created time.Time
}

// Store keeps signing keys.
type Store interface {
	// SigningKeys returns the keys of a purpose for the period from and later ones, by period and serial. It never answers
	// from a cache.
	SigningKeys(ctx context.Context, p Purpose, from int64) ([]Row, error)
	// SigningPurposes returns the purposes that have a key for the period from or a later one.
	SigningPurposes(ctx context.Context, from int64) ([]Purpose, error)
	// AddSigningKey MUST return a Conflict fault where the purpose has a key for the period and serial or the id exists,
	// and leave that as it is.
	AddSigningKey(ctx context.Context, r Row) error
	// ReplaceSigningKeys MUST, in one step, add r as AddSigningKey does, and revoke every other key of its purpose that
	// was not: their sealed halves are erased.
	ReplaceSigningKeys(ctx context.Context, r Row, at time.Time) error
}

// Config is what a Service needs. Every field is required.
type Config struct {
	Store  Store
	Vault  *vault.Vault
	Issuer string // the server's public URL, from which the claim iss of everything that is signed is made
	Now    func() time.Time
}

// Service signs and verifies. It is safe for concurrent use.
type Service struct {
	store  Store
	vault  *vault.Vault
	issuer string
	now    func() time.Time

	mu   sync.Mutex // guards what follows
	read map[Purpose]series
}

// New returns a Service. It makes no key: that is done at the first need.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Vault == nil || c.Issuer == "" || c.Now == nil {
		return nil, errors.New("signing: an incomplete Config")
	}
	return &Service{store: c.Store, vault: c.Vault, issuer: c.Issuer, now: c.Now, read: make(map[Purpose]series)}, nil
}

// Issuer is the claim iss of what is signed for the purpose: the server's public URL, or for the tokens of an account
// the account's own URL below it.
func (s *Service) Issuer(p Purpose) string {
	if account, ok := strings.CutPrefix(string(p), tokensOf); ok {
		return s.issuer + AccountPath + account
	}
	return s.issuer
}

// Sign returns the compact form of a JWT of the type typ ("JWT", "at+jwt") with the claims, to which it adds iss.
// Claims that have an iss, or no exp that is after now and at most MaxLife away, are Internal. The error is Unavailable
// or Denied where the store or the key service does not give the key.
func (s *Service) Sign(ctx context.Context, p Purpose, typ string, claims map[string]any) (secret.Text, error) {
	now := s.now()
	exp, ok := claims["exp"].(int64)
	if _, has := claims["iss"]; has || !ok || exp <= now.Unix() || exp > now.Add(MaxLife).Unix() {
		return secret.Text{}, fault.New(fault.Internal, "claims to sign must have an exp of at most %s and no iss", MaxLife)
	}
	keys, err := s.series(ctx, p)
	if err != nil {
		return secret.Text{}, err
	}
	row, _ := keys.current(now)
	key, err := s.open(ctx, row)
	if err != nil {
		return secret.Text{}, err
	}
	all := map[string]any{"iss": s.Issuer(p)}
	for name, value := range claims {
		all[name] = value
	}
	signed, err := key.SignAs(typ, nil, all)
	if err != nil {
		return secret.Text{}, fault.Wrap(fault.Internal, err, "a token cannot be signed")
	}
	return signed, nil
}

// Verify reads a token that this installation signed for the purpose, of exactly the type typ, and returns its claims.
// It checks the signature by the key that the token names, iss and the times; whom the token is for is the caller's to
// check. Whatever is wrong with the token is Unauthenticated (Invalid where it is too long); Unavailable and Denied are
// as for Sign.
func (s *Service) Verify(ctx context.Context, p Purpose, typ string, token secret.Text) (jws.Claims, error) {
	const noun = "the token"
	t, err := jws.ParseTyped(noun, typ, token)
	if err != nil {
		return jws.Claims{}, err
	}
	if t.KeyID() == "" {
		return jws.Claims{}, fault.New(fault.Unauthenticated, "%s names no key", noun)
	}
	keys, err := s.series(ctx, p)
	if err != nil {
		return jws.Claims{}, err
	}
	err = t.Verify(keys.set)
	if errors.Is(err, jws.ErrNoKey) && s.now().Sub(keys.at).Abs() >= time.Second { // another replica may have made one
		if keys, err = s.reread(ctx, p); err == nil {
			err = t.Verify(keys.set)
		}
	}
	if err != nil {
		return jws.Claims{}, err
	}
	if iss, ok := t.Claims.String("iss"); !ok || iss != s.Issuer(p) {
		return jws.Claims{}, fault.New(fault.Unauthenticated, "%s was not issued by this server", noun)
	}
	return t.Claims, s.timely(t.Claims)
}

// timely checks exp, which must be there, nbf and iat.
func (s *Service) timely(c jws.Claims) error {
	now := s.now()
	exp, err := c.Time("exp")
	if err != nil {
		return err
	}
	if !now.Before(exp) { // also where there is none
		return fault.New(fault.Unauthenticated, "the token has expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		at, err := c.Time(name)
		if err != nil {
			return err
		}
		if at.After(now.Add(leeway)) {
			return fault.New(fault.Unauthenticated, "the token is not valid yet")
		}
	}
	return nil
}

// aad is what a sealed private half is bound to.
func (r Row) aad() []byte {
	var b []byte
	for _, part := range []string{"signing-key", string(r.Purpose), string(binary.BigEndian.AppendUint64(nil, uint64(r.Period))), r.ID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// open opens the private half of a key, for use at once.
func (s *Service) open(ctx context.Context, r Row) (jws.Key, error) {
	key, _, err := s.openWhole(ctx, r)
	return key, err
}

// openWhole is open, and the keys that were revoked for this one.
func (s *Service) openWhole(ctx context.Context, r Row) (jws.Key, map[string]int64, error) {
	plain, err := s.vault.OpenServer(ctx, vault.RingSigning, r.aad(), r.Sealed)
	if errors.Is(err, vault.ErrOpen) {
		return jws.Key{}, nil, fault.Wrap(fault.Internal, err, "signing key %q does not open: it was changed or moved", r.ID)
	}
	if err != nil {
		return jws.Key{}, nil, err
	}
	defer clear(plain)
	key, err := jws.ParseKey(secret.New(string(plain)))
	if err != nil {
		return jws.Key{}, nil, fault.Wrap(fault.Internal, err, "signing key %q cannot be read", r.ID)
	}
	if key.ID() != r.ID || key.Algorithm() != algorithm {
		return jws.Key{}, nil, fault.New(fault.Internal, "signing key %q is another key than its row says", r.ID)
	}
	replaces, err := replacedOf(plain)
	return key, replaces, err
}
