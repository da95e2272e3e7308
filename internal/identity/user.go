package identity

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// maxUserID bounds the id of a user whom the caller asserts (contract, GetWorkloadAccessTokenForUserId).
const maxUserID = 128

// VerifiedUser is who a token proved to be.
type VerifiedUser struct {
	User
	Expires  time.Time // of the token
	AuthTime time.Time // when the user logged in, zero where the token does not say

	userInfo bool // the issuer was added with UserInfo
}

// VerifyUser checks a user's JWT for use with the workload identity of the given name: an issuer trusted in the
// account and for that workload identity, a signature by one of its keys, times, audience, kind and claim rules. It
// decides nothing about a caller, and keeps nothing of the token. The errors are Invalid (Field "userToken") for a
// token that is too long, Unauthenticated with the reason for a bad one, and Unavailable where the issuer's keys
// cannot be had now.
func (s *Service) VerifyUser(ctx context.Context, account access.Account, workloadName string, jwt secret.Text) (VerifiedUser, error) {
	t, err := parseUserToken(jwt)
	if err != nil {
		return VerifiedUser{}, err
	}
	iss, ok := t.Claims.String("iss")
	if !ok || iss == "" || len(iss) > maxIssuerURL {
		return VerifiedUser{}, badToken("names no issuer of at most %d bytes", maxIssuerURL)
	}
	i, err := s.trusted(ctx, account, iss)
	if err != nil {
		return VerifiedUser{}, err
	}
	if i.URL != iss {
		return VerifiedUser{}, fault.New(fault.Internal, "the issuer that was found is not the one that was asked for")
	}
	if !i.allowedFor(workloadName) {
		return VerifiedUser{}, badToken("is of the issuer %q, which is not trusted for workload identity %s", clip(iss), clip(workloadName))
	}
	// Nothing of the rules below is told to somebody who only made up a token.
	if err := s.keys.verify(ctx, account, i.Issuer, t); err != nil {
		return VerifiedUser{}, err
	}
	return i.accept(t, s.now())
}

// userToken is what sentences call a user's token.
const userToken = "the user token"

// badToken is the fault for a user's token; the sentence begins with "the user token".
func badToken(format string, args ...any) *fault.Error {
	return fault.New(fault.Unauthenticated, userToken+" "+format, args...)
}

// parseUserToken reads a user's token, and says of one that is too long or of another kind what the parser cannot know.
func parseUserToken(jwt secret.Text) (jws.Token, error) {
	t, err := jws.Parse(userToken, jwt)
	switch {
	case errors.Is(err, fault.Invalid):
		return jws.Token{}, fault.Field("userToken", "a user token is at most %d bytes long", jws.MaxSize)
	case err != nil && strings.HasPrefix(jwt.Expose(), tokenPrefix):
		return jws.Token{}, badToken("is a workload access token: it needs a token of the user's identity provider")
	}
	return t, err
}

// accept checks the claims of a token whose signature was verified.
func (i trust) accept(t jws.Token, now time.Time) (VerifiedUser, error) {
	at, err := checkTimes(t.Claims, now)
	if err != nil {
		return VerifiedUser{}, err
	}
	kind := tokenKind(t)
	if err := checkAudience(i, t.Claims, kind); err != nil {
		return VerifiedUser{}, err
	}
	if err := checkUse(i.TokenUse, kind); err != nil {
		return VerifiedUser{}, err
	}
	if err := checkRules(i.Claims, t.Claims); err != nil {
		return VerifiedUser{}, err
	}
	sub, err := subject(t.Claims, i.SubjectClaim)
	if err != nil {
		return VerifiedUser{}, err
	}
	return VerifiedUser{
		User:    User{Kind: JWTUser, Issuer: i.URL, Subject: sub},
		Expires: at.expires, AuthTime: at.authenticated, userInfo: i.UserInfo,
	}, nil
}

// AssertedUser is the user whom a caller names by an id of its own. The id is 1 to 128 characters without control
// characters; anything else is an Invalid fault naming userId.
func AssertedUser(id string) (User, error) {
	if !validSubject(id, maxUserID) {
		return User{}, fault.Field("userId", "a user id is 1 to %d characters without control characters", maxUserID)
	}
	return User{Kind: UIDUser, Subject: id}, nil
}

// UserRef returns the only form of a user that indexes, logs and audit records carry: HMAC-SHA-256 under a key of the
// server, in hexadecimal, over account and namespace. It is "" for no user.
func (s *Service) UserRef(ctx context.Context, account access.Account, u User) (string, error) {
	if u.Kind == NoUser {
		return "", nil
	}
	ref, err := s.vault.UserRef(ctx, u.namespace(account))
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(ref), nil
}

// namespace encodes a user so that no two differ in fewer bytes than they should (threat A04): every field stands
// behind its length, and the kind comes first, so that an asserted id reaches no user of a token.
func (u User) namespace(account access.Account) []byte {
	b := appendField(nil, string(account))
	b = appendField(b, string(u.Kind))
	if u.Kind == JWTUser {
		b = appendField(b, u.Issuer)
	}
	return appendField(b, u.Subject)
}

// RememberUser stores once who the user's reference stands for, sealed in one row that can be erased.
func (s *Service) RememberUser(ctx context.Context, account access.Account, u User) error {
	ref, err := s.UserRef(ctx, account, u)
	if err != nil {
		return err
	}
	if ref == "" {
		return nil
	}
	row := vault.Ref{Account: account, Table: "users", Column: "sealed", Key: ref, User: ref}
	sealed, err := s.vault.Seal(ctx, row, secret.New(string(appendUser([]byte{userFormat}, u))))
	if err != nil {
		return err
	}
	return s.store.RememberUser(ctx, account, ref, sealed, s.now())
}
