package identity

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Assertion is the row of a user's token that is kept while a workload access token lives: to be exchanged on the
// user's behalf, or to ask the issuer who the user is. Sealed opens only with the vault and the share that is in the
// workload access token and nowhere else: neither who has the database and the key service nor who has the token
// alone can read it.
type Assertion struct {
	Account  access.Account
	Handle   string // random, hexadecimal; with Account the primary key
	Workload string // uid
	UserRef  string
	Issuer   string
	Expires  time.Time // of the workload access token, which is not after the user's token
	Sealed   vault.Sealed
}

// AssertionStore keeps users' tokens that are sealed twice.
type AssertionStore interface {
	// KeepAssertion returns Conflict where the handle exists in the account.
	KeepAssertion(ctx context.Context, a Assertion) error
	// Assertion returns NotFound where there is none, or it was swept.
	Assertion(ctx context.Context, account access.Account, handle string) (Assertion, error)
	// SweepAssertions deletes at most limit rows that expired at t or before, and returns how many.
	SweepAssertions(ctx context.Context, t time.Time, limit int) (int, error)
	// ExchangesUserTokens reports whether a provider of the account exchanges users' tokens. It is recent.
	ExchangesUserTokens(ctx context.Context, account access.Account) (bool, error)
}

const (
	shareSize  = 32
	handleSize = 16
	// assertionInfo separates the key from any other use of a share, now or later (RFC 5869 §3.2).
	assertionInfo = "tabard user assertion 1"
)

// retained is where a workload access token finds the user's token: the handle of the row, and the share that opens
// it. A nil one says that the token was not kept.
type retained struct {
	handle string
	share  secret.Text
}

// retain keeps the user's JWT where somebody may use it: the issuer was added with UserInfo, or the account has a
// provider that exchanges users' tokens. Else nothing of it is kept (threat B15).
func (s *Service) retain(ctx context.Context, w Workload, ref string, v VerifiedUser, jwt secret.Text, expires time.Time) (*retained, error) {
	if !v.userInfo {
		exchanged, err := s.store.ExchangesUserTokens(ctx, w.Account)
		if err != nil || !exchanged {
			return nil, err
		}
	}
	handle, share := make([]byte, handleSize), make([]byte, shareSize)
	_, _ = rand.Read(handle) // neither fails ever
	_, _ = rand.Read(share)
	r := &retained{handle: hex.EncodeToString(handle), share: secret.New(string(share))}
	a := Assertion{
		Account: w.Account, Handle: r.handle, Workload: w.UID, UserRef: ref, Issuer: v.Issuer, Expires: expires,
	}
	box, err := a.box(r.share)
	if err != nil {
		return nil, err
	}
	inner := box.Seal(nil, nil, []byte(jwt.Expose()), a.place())
	if a.Sealed, err = s.vault.Seal(ctx, a.ref(), secret.New(string(inner))); err != nil {
		return nil, err
	}
	return r, s.store.KeepAssertion(ctx, a)
}

// RetainedToken returns the JWT that t was minted with. It is checked as if it came now: its times, its signature, its
// issuer, which must still be trusted, and its audience and rules as the issuer's row has them today (threat B14).
// Errors: Invalid where nothing was kept, or t has expired; Unauthenticated where the JWT does not hold any more;
// Unavailable as VerifyUser.
func (s *Service) RetainedToken(ctx context.Context, t Token, w Workload) (secret.Text, error) {
	if t.Delegation() != "" {
		return secret.Text{}, fault.Field("workloadIdentityToken", "was minted under a delegation, without a token of the user's: this needs one "+
			"that was minted with GetWorkloadAccessTokenForJWT, while the user is there")
	}
	if t.retained == nil || t.Expired {
		return secret.Text{}, notKept()
	}
	a, err := s.store.Assertion(ctx, t.Account, t.retained.handle)
	if errors.Is(err, fault.NotFound) || err == nil && !s.now().Before(a.Expires) {
		return secret.Text{}, notKept()
	}
	if err != nil {
		return secret.Text{}, err
	}
	if a.Workload != t.WorkloadUID || a.Workload != w.UID || a.UserRef != t.UserRef || a.Issuer != t.User.Issuer {
		return secret.Text{}, fault.New(fault.Internal, "a kept user token is of another workload identity or user than the token that names it")
	}
	inner, err := s.vault.Open(ctx, a.ref(), a.Sealed)
	if err != nil {
		return secret.Text{}, err
	}
	box, err := a.box(t.retained.share)
	if err != nil {
		return secret.Text{}, err
	}
	plain, err := box.Open(nil, nil, []byte(inner.Expose()), a.place())
	if err != nil {
		return secret.Text{}, fault.Wrap(fault.Internal, vault.ErrOpen, "a kept user token does not open with the share of the workload access token")
	}
	defer clear(plain)
	jwt := secret.New(string(plain))
	v, err := s.VerifyUser(ctx, t.Account, w.Name, jwt)
	if err != nil {
		return secret.Text{}, err
	}
	if v.User != t.User || !s.now().Before(v.Expires) {
		return secret.Text{}, badToken("behind the workload access token has expired, or names another user now")
	}
	return jwt, nil
}

func notKept() error {
	return fault.Field("workloadIdentityToken", "keeps no user token: mint it with GetWorkloadAccessTokenForJWT, and mint it again after "+
		"the provider got its onBehalfOfTokenExchangeConfig or the issuer was added with userinfo")
}

// Retains reports whether the user's token was kept when t was minted.
func (t Token) Retains() bool { return t.retained != nil }

// SweepAssertions deletes the users' tokens whose workload access token has expired, and returns how many.
func (s *Service) SweepAssertions(ctx context.Context) (int, error) {
	const batch = 1000 // one transaction's worth: other writers get their turn between two
	for total := 0; ; {
		n, err := s.store.SweepAssertions(ctx, s.now(), batch)
		total += n
		if err != nil || n < batch {
			return total, err
		}
	}
}

// ref says where the outer layer is sealed.
func (a Assertion) ref() vault.Ref {
	return vault.Ref{Account: a.Account, Table: "user_assertions", Column: "sealed", Key: a.Handle, Workload: a.Workload, User: a.UserRef}
}

// place is what the inner layer is bound to, in its key and as associated data: each field behind its length.
func (a Assertion) place() []byte {
	b := appendField(nil, assertionInfo)
	for _, f := range []string{string(a.Account), a.Handle, a.Workload, a.UserRef} {
		b = appendField(b, f)
	}
	return b
}

// box is the inner layer: AES-256-GCM with a random nonce under HKDF-SHA-256 of the share (RFC 5869), used once.
func (a Assertion) box(share secret.Text) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(share.Expose()), nil, string(a.place()), 32)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the key of a user token cannot be derived")
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the key of a user token cannot be used")
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the key of a user token cannot be used")
	}
	return aead, nil
}
