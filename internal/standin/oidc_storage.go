package standin

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/tabard-id/tabard/internal/secret"
)

// storage is what the library asks of OIDC. It is a type of its own so that these methods stay out of OIDC's surface.
type storage struct{ *OIDC }

// Health implements op.Storage.
func (s storage) Health(context.Context) error { return nil }

// CreateAuthRequest stores an authorization request. It demands PKCE with S256 of every client (RFC 9700 §2.1.1), which
// the library demands of public ones only.
func (s storage) CreateAuthRequest(_ context.Context, in *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if in.CodeChallenge == "" || in.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("code_challenge with method S256 is required")
	}
	if slices.Contains(in.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired().WithDescription("there is no session: the user must log in")
	}
	now := s.config.Now()
	req := &authRequest{id: rand.Text(), client: in.ClientID, redirectURI: in.RedirectURI, state: in.State, nonce: in.Nonce,
		challenge: in.CodeChallenge, hint: in.LoginHint, scopes: slices.Clone(in.Scopes), mode: in.ResponseMode, created: now}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, old := range s.requests {
		if !now.Before(old.created.Add(interactionLifetime)) {
			delete(s.requests, id)
		}
	}
	for code, id := range s.codes {
		if s.requests[id] == nil {
			delete(s.codes, code)
		}
	}
	if len(s.requests) >= maxPending {
		return nil, oidc.ErrServerError().WithDescription("too many sign-ins are open")
	}
	s.requests[req.id] = req
	return req, nil
}

// AuthRequestByID implements op.AuthStorage.
func (s storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	return s.request(id)
}

// AuthRequestByCode implements op.AuthStorage. The code dies here, before anything about the redemption is checked.
func (s storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	id := s.codes[code]
	delete(s.codes, code)
	s.mu.Unlock()
	return s.request(id)
}

// SaveAuthCode implements op.AuthStorage.
func (s storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

// DeleteAuthRequest implements op.AuthStorage.
func (s storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

// CreateAccessToken implements op.AuthStorage. The expiry it returns only becomes expires_in, which the library
// computes by the real clock, so it is the lifetime from there and not from the configured clock.
func (s storage) CreateAccessToken(_ context.Context, in op.TokenRequest) (string, time.Time, error) {
	t, err := s.tokenFor(in)
	if err != nil {
		return "", time.Time{}, err
	}
	return s.record(t), s.expiry(), nil
}

// CreateAccessAndRefreshTokens implements op.AuthStorage; a refresh token that was presented dies.
func (s storage) CreateAccessAndRefreshTokens(_ context.Context, in op.TokenRequest, current string) (string, string, time.Time, error) {
	t, err := s.tokenFor(in)
	if err != nil {
		return "", "", time.Time{}, err
	}
	id, next := s.record(t), rand.Text()+rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if current != "" {
		if _, ok := s.refresh[current]; !ok {
			return "", "", time.Time{}, oidc.ErrInvalidGrant().WithDescription("the refresh token was used already")
		}
		delete(s.refresh, current)
	}
	s.refresh[next] = &refreshRequest{issuedToken: t, expires: s.config.Now().Add(s.config.RefreshTokenLifetime)}
	return id, next, s.expiry(), nil
}

func (s storage) expiry() time.Time {
	return time.Now().Add(s.config.AccessTokenLifetime).Add(500 * time.Millisecond) // the library truncates to seconds
}

// tokenFor reads what a token must say out of either kind of request.
func (s storage) tokenFor(in op.TokenRequest) (issuedToken, error) {
	switch r := in.(type) {
	case *authRequest:
		return issuedToken{user: r.user, client: r.client, scopes: r.scopes, auth: r.auth}, nil
	case *refreshRequest:
		return r.issuedToken, nil
	}
	return issuedToken{}, oidc.ErrUnsupportedGrantType()
}

// TokenRequestByRefreshToken implements op.AuthStorage. It hands out a copy, because the library narrows its scopes.
func (s storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.refresh[token]
	if !ok || !s.config.Now().Before(r.expires) {
		return nil, op.ErrInvalidRefreshToken
	}
	fresh := *r
	return &fresh, nil
}

// TerminateSession implements op.AuthStorage; there are no sessions.
func (s storage) TerminateSession(context.Context, string, string) error { return nil }

// RevokeToken implements op.AuthStorage: what it does not know is revoked already (RFC 7009 §2.2).
func (s storage) RevokeToken(_ context.Context, token, _, client string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.refresh[token]; ok && r.client == client {
		delete(s.refresh, token)
	}
	if t, ok := s.issued[token]; ok && t.client == client {
		delete(s.issued, token)
	}
	return nil
}

// GetRefreshTokenInfo implements op.AuthStorage.
func (s storage) GetRefreshTokenInfo(_ context.Context, client, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.refresh[token]
	if !ok || r.client != client {
		return "", "", op.ErrInvalidRefreshToken
	}
	return r.user.Subject(), token, nil
}

// SigningKey implements op.AuthStorage.
func (s storage) SigningKey(context.Context) (op.SigningKey, error) { return s.currentKey(), nil }

// SignatureAlgorithms implements op.AuthStorage.
func (s storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

// KeySet implements op.AuthStorage.
func (s storage) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []op.Key
	for _, k := range s.keys {
		out = append(out, publicKey{k})
	}
	return out, nil
}

// GetClientByClientID implements op.OPStorage.
func (s storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	c, ok := s.dir.client(id)
	if !ok {
		return nil, oidc.ErrInvalidClient().WithDescription("no such client")
	}
	return opClient{c, s.config.IDTokenLifetime}, nil
}

// AuthorizeClientIDSecret implements op.OPStorage.
func (s storage) AuthorizeClientIDSecret(_ context.Context, id, given string) error {
	c, ok := s.dir.client(id)
	if !ok || c.Secret.IsZero() || !c.Secret.Equal(secret.New(given)) {
		return errors.New("the client id or secret is wrong")
	}
	return nil
}

// SetUserinfoFromScopes implements op.OPStorage; SetUserinfoFromRequest does the work.
func (s storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest fills an ID token.
func (s storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, in op.IDTokenRequest, scopes []string) error {
	u, ok := s.dir.userBySubject(in.GetSubject())
	if !ok {
		return oidc.ErrServerError().WithDescription("no such user")
	}
	setUserinfo(info, u, scopes)
	info.AppendClaims("token_use", "id")
	info.AppendClaims("cognito:username", u.Name)
	return nil
}

// SetUserinfoFromToken fills the answer of the userinfo endpoint.
func (s storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, _, _ string) error {
	s.mu.Lock()
	t, ok := s.issued[id]
	s.mu.Unlock()
	if !ok || !slices.Contains(t.scopes, oidc.ScopeOpenID) {
		return oidc.ErrAccessDenied().WithDescription("the token is unknown or lacks the scope openid")
	}
	setUserinfo(info, t.user, t.scopes)
	info.AppendClaims("username", t.user.Name)
	return nil
}

func setUserinfo(info *oidc.UserInfo, u User, scopes []string) {
	info.Subject = u.Subject()
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.Name, info.PreferredUsername = u.FullName, u.Name
	}
	if slices.Contains(scopes, oidc.ScopeEmail) {
		info.Email, info.EmailVerified = u.Email, true
	}
}

// SetIntrospectionFromToken implements op.OPStorage.
func (s storage) SetIntrospectionFromToken(_ context.Context, out *oidc.IntrospectionResponse, id, sub, client string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.issued[id]
	if !ok || t.client != client {
		return errors.New("the token belongs to another client")
	}
	out.Subject, out.ClientID, out.Scope = sub, t.client, t.scopes
	return nil
}

// GetPrivateClaimsFromScopes implements op.OPStorage; tokenMaker writes the claims.
func (s storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

// GetKeyByIDAndClientID implements op.OPStorage: no client has keys, so no assertion is accepted.
func (s storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errors.New("clients have no keys here")
}

// ValidateJWTProfileScopes implements op.OPStorage; the grant is closed by GetKeyByIDAndClientID.
func (s storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, oidc.ErrInvalidScope()
}
