package identity

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/pace"
	"github.com/tabard-id/tabard/internal/secret"
)

// UserInfoSource asks issuers who a user is, through the guarded dialer.
type UserInfoSource interface {
	// UserInfo returns the claims that a UserInfo endpoint answers to the token (OIDC Core §5.3). It returns Invalid where
	// the endpoint may not be used, does not accept the token or gives an answer that cannot be used, and Unavailable
	// where it does not answer.
	UserInfo(ctx context.Context, account access.Account, endpoint string, token secret.Text) (map[string]json.RawMessage, error)
}

// UserDescription is who stands behind a workload access token.
type UserDescription struct {
	User
	Ref           string    // "" for no user
	Authenticated time.Time // when the user logged in, zero where the user's token did not say
}

// UserInfo is what the user's issuer says of the user.
type UserInfo struct {
	Subject           string
	Name              string
	PreferredUsername string
	Email             string
	EmailVerified     bool
	Claims            string // all of them: a JSON object
}

// DescribeUser says for whom the workload access token was minted. It asks nobody. Errors: Unauthenticated for a bad or
// expired token; Denied where the caller is not paired with the workload identity.
func (s *Service) DescribeUser(ctx context.Context, caller access.Caller, wat secret.Text) (UserDescription, error) {
	t, err := s.userBehind(ctx, caller, access.DescribeUser, wat)
	if err != nil {
		return UserDescription{}, err
	}
	return UserDescription{User: t.User, Ref: t.UserRef, Authenticated: t.AuthTime}, nil
}

// UserInfo asks the user's issuer who the user is, with the user's own token, which was kept for that because the
// issuer was added with userinfo. Errors: as DescribeUser; Invalid for a user who was not proven by a token, where the
// issuer was not added so or no token was kept, and as UserInfoSource; Unauthenticated where the user's token does not
// hold any more; Denied where the issuer answers for another user; Throttled where it was asked many times just now.
func (s *Service) UserInfo(ctx context.Context, caller access.Caller, wat secret.Text) (UserInfo, error) {
	t, err := s.userBehind(ctx, caller, access.GetUserInfo, wat)
	if err != nil {
		return UserInfo{}, err
	}
	if t.User.Kind != JWTUser {
		return UserInfo{}, fault.Field("workloadIdentityToken", "names no user of an issuer: there is nobody to ask")
	}
	i, err := s.trusted(ctx, caller.Account, t.User.Issuer)
	if err != nil {
		return UserInfo{}, err
	}
	if !i.UserInfo || s.userInfo == nil || s.metadata == nil {
		return UserInfo{}, fault.Field("workloadIdentityToken", "is of the issuer %s, which was not added with userinfo", i.URL)
	}
	jwt, err := s.RetainedToken(ctx, t.Token, t.Workload)
	if err != nil {
		return UserInfo{}, err
	}
	endpoint, err := s.userInfoEndpoint(ctx, caller.Account, i.URL)
	if errors.Is(err, fault.Denied) {
		t.Facts.Outcome, t.Facts.Detail = "refused", fault.Public(err).Msg
		err = s.guard.Refuse(ctx, caller, access.GetUserInfo, "endpoint-moved", t.Facts, err)
	}
	if err != nil {
		return UserInfo{}, err
	}
	if wait := s.userInfos.Take(caller.Account, t.Workload.UID+"/"+t.UserRef); wait > 0 {
		t.Facts.Outcome = "paused"
		return UserInfo{}, s.guard.Refuse(ctx, caller, access.GetUserInfo, "pause", t.Facts,
			pace.Slow(wait, "the issuer was asked for this user several times just now: use what it said, or try again in %d seconds", int(wait.Seconds())+1))
	}
	claims, err := s.userInfo.UserInfo(ctx, caller.Account, endpoint, jwt)
	if err != nil {
		return UserInfo{}, err
	}
	info, err := readUserInfo(claims)
	if err != nil {
		return UserInfo{}, err
	}
	parsed, err := jws.Parse(userToken, jwt)
	if err != nil {
		return UserInfo{}, err
	}
	// OIDC Core §5.3.2: an answer for another sub must not be used.
	if sub, ok := parsed.Claims.String("sub"); !ok || sub != info.Subject {
		t.Facts.Outcome = "refused"
		return UserInfo{}, s.guard.Refuse(ctx, caller, access.GetUserInfo, "other-subject", t.Facts,
			fault.New(fault.Denied, "the issuer's UserInfo endpoint answered for another user than the one of the token"))
	}
	t.Facts.Outcome = "released"
	if err := s.guard.Event(ctx, caller, access.GetUserInfo, t.Facts).Wait(ctx); err != nil {
		return UserInfo{}, err
	}
	return info, nil
}

// userInfoEndpoint is where the issuer's metadata says that users' tokens may be shown, on the host that is pinned.
func (s *Service) userInfoEndpoint(ctx context.Context, account access.Account, issuer string) (string, error) {
	m, err := s.metadata.IssuerMetadata(ctx, account, issuer, false)
	switch {
	case err != nil:
		return "", err
	case m.UserInfo == "":
		return "", fault.New(fault.Invalid, "the issuer's metadata names no UserInfo endpoint")
	}
	return m.UserInfo, keyring.Hold(ctx, s.store, account, issuer, keyring.UserInfoPin, m.UserInfo)
}

// userBehind opens the token for the action, and decides and records it.
func (s *Service) userBehind(ctx context.Context, caller access.Caller, a access.Action, wat secret.Text) (Opened, error) {
	o, err := s.Open(ctx, caller, a, wat, access.Facts{}, false)
	if err != nil {
		return Opened{}, err
	}
	return o, s.guard.Permit(ctx, caller, a, o.Facts)
}

// readUserInfo reads the claims that have a member of their own. Only sub must be there, and of the right type.
func readUserInfo(claims map[string]json.RawMessage) (UserInfo, error) {
	var u UserInfo
	for name, to := range map[string]any{
		"sub": &u.Subject, "name": &u.Name, "preferred_username": &u.PreferredUsername, "email": &u.Email, "email_verified": &u.EmailVerified,
	} {
		raw, ok := claims[name]
		if ok && json.Unmarshal(raw, to) != nil && name == "sub" {
			return UserInfo{}, fault.New(fault.Invalid, "the issuer's UserInfo endpoint answered with a sub that is no string")
		}
	}
	all, err := json.Marshal(claims)
	if err != nil {
		return UserInfo{}, fault.New(fault.Invalid, "the issuer's UserInfo endpoint gave an answer that cannot be used")
	}
	u.Claims = string(all)
	return u, nil
}
