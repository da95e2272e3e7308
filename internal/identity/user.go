package identity

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// maxUserID bounds the id of a user whom the caller asserts (AWS's model of GetWorkloadAccessTokenForUserId).
const maxUserID = 128

// VerifiedUser is who a token proved to be.
type VerifiedUser struct {
	User
	Expires  time.Time // of the token
	AuthTime time.Time // when the user logged in, zero where the token does not say

	userInfo bool   // the issuer was added with UserInfo
	claims   string // JSON object of the claims that policies may ask for, "" for none
	unfit    error  // why they do not fit into a workload access token
	proof    proof  // the sign-in that it is of, where its issuer has back-channel logout
}

// VerifyUser checks a user's JWT for use with the workload identity of the given name: an issuer trusted in the
// account and for that workload identity, a signature by one of its keys, times, audience, kind and claim rules. It
// decides nothing about a caller, and keeps nothing of the token. The errors are Invalid (Field "userToken") for a
// token that is too long, Unauthenticated with the reason for a bad one, and Unavailable where the issuer's keys
// cannot be had now.
func (s *Service) VerifyUser(ctx context.Context, account access.Account, workloadName string, jwt secret.Text) (VerifiedUser, error) {
	t, i, err := s.issuerOf(ctx, account, jwt)
	if err != nil {
		return VerifiedUser{}, err
	}
	if !i.allowedFor(workloadName) {
		return VerifiedUser{}, badToken("is of the issuer %q, which is not trusted for workload identity %s", clip(i.URL), clip(workloadName))
	}
	if err := s.issuerStands(ctx, account, i.URL); err != nil {
		return VerifiedUser{}, err
	}
	// Nothing of the rules below is told to somebody who only made up a token.
	if err := s.verifySignature(ctx, account, i.Issuer, t); err != nil {
		return VerifiedUser{}, err
	}
	u, err := s.examine(ctx, account, i, t)
	if err != nil {
		return VerifiedUser{}, err
	}
	if err := s.checkMayAct(t.Claims, Workload{Account: account, Name: workloadName}); err != nil {
		return VerifiedUser{}, err
	}
	return u, nil
}

// ExamineUser is VerifyUser for an administrator who asks why a user's token is not accepted: it stands for any
// workload identity, and also returns the issuer's row. Where the claims are not what the row asks for, the cause of
// the fault, which callers of the API are not shown, says what the row has. Its caller decides whether the row may be
// seen.
func (s *Service) ExamineUser(ctx context.Context, account access.Account, jwt secret.Text) (VerifiedUser, Issuer, error) {
	t, i, err := s.issuerOf(ctx, account, jwt)
	if iss, ok := t.Claims.String("iss"); ok && i.URL == "" {
		return VerifiedUser{}, Issuer{}, s.besideTrusted(ctx, account, iss, err)
	}
	if err == nil {
		err = s.verifySignature(ctx, account, i.Issuer, t)
	}
	if err != nil {
		return VerifiedUser{}, Issuer{}, err
	}
	u, err := s.examine(ctx, account, i, t)
	if err == nil {
		err = u.unfit
	}
	return u, i.Issuer, err
}

// besideTrusted adds to the refusal of an issuer which ones are trusted: most often the two differ by a slash.
func (s *Service) besideTrusted(ctx context.Context, account access.Account, iss string, refused error) error {
	const most = 10
	f, ok := errors.AsType[*fault.Error](refused)
	if !ok || f.Code != fault.Unauthenticated || f.Err != nil {
		return refused
	}
	found, err := s.store.Issuers(ctx, account, "", most)
	if err != nil {
		return err
	}
	var urls []string
	for _, i := range append(slices.Clone(s.config), found...) {
		if i.Account != "" && i.Account != account {
			continue
		}
		if strings.EqualFold(strings.TrimRight(i.URL, "/"), strings.TrimRight(iss, "/")) {
			return because(f, "the issuer %s is trusted, and they are compared byte for byte", clip(i.URL))
		}
		urls = append(urls, clip(i.URL))
	}
	switch {
	case urls == nil:
		return because(f, "no issuer is trusted yet")
	case len(urls) >= most:
		return because(f, "among those that are trusted: %s", strings.Join(urls[:most], " "))
	}
	return because(f, "those that are trusted: %s", strings.Join(urls, " "))
}

// issuerOf reads a user's token, and finds how far its issuer is trusted. The token is not verified.
func (s *Service) issuerOf(ctx context.Context, account access.Account, jwt secret.Text) (jws.Token, trust, error) {
	t, err := parseUserToken(jwt)
	if err != nil {
		return jws.Token{}, trust{}, err
	}
	iss, ok := t.Claims.String("iss")
	if !ok || iss == "" || len(iss) > maxIssuerURL {
		return jws.Token{}, trust{}, badToken("names no issuer of at most %d bytes", maxIssuerURL)
	}
	if iss == s.issuer { // also where development mode trusts every issuer on loopback (threat B06)
		return jws.Token{}, trust{}, badToken("was issued by this server itself: it needs a token of the user's identity provider")
	}
	i, err := s.trusted(ctx, account, iss)
	if err == nil && i.URL != iss {
		err = fault.New(fault.Internal, "the issuer that was found is not the one that was asked for")
	}
	return t, i, err
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
	claims, unfit := policyClaims(i.PolicyClaims, t.Claims)
	return VerifiedUser{
		User:    User{Kind: JWTUser, Issuer: i.URL, Subject: sub},
		Expires: at.expires, AuthTime: at.authenticated, userInfo: i.UserInfo,
		claims: claims, unfit: unfit,
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
