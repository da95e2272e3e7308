package standin

import (
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// authRequest is one authorization request, from the client's redirect to the redemption of its code.
type authRequest struct {
	id, client, redirectURI, state, nonce, challenge, hint string
	scopes                                                 []string
	mode                                                   oidc.ResponseMode
	created                                                time.Time
	user                                                   User // zero until the login
	auth                                                   time.Time
}

func (a *authRequest) GetID() string                      { return a.id }
func (a *authRequest) GetACR() string                     { return "" }
func (a *authRequest) GetAMR() []string                   { return []string{"pwd"} }
func (a *authRequest) GetAudience() []string              { return []string{a.client} }
func (a *authRequest) GetAuthTime() time.Time             { return a.auth }
func (a *authRequest) GetClientID() string                { return a.client }
func (a *authRequest) GetNonce() string                   { return a.nonce }
func (a *authRequest) GetRedirectURI() string             { return a.redirectURI }
func (a *authRequest) GetResponseType() oidc.ResponseType { return oidc.ResponseTypeCode }
func (a *authRequest) GetResponseMode() oidc.ResponseMode { return a.mode }
func (a *authRequest) GetScopes() []string                { return a.scopes }
func (a *authRequest) GetState() string                   { return a.state }

func (a *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: a.challenge, Method: oidc.CodeChallengeMethodS256}
}

// GetSubject is empty until the login.
func (a *authRequest) GetSubject() string {
	if a.user.Name == "" {
		return ""
	}
	return a.user.Subject()
}

// Done is false even after the login, which keeps the library's callback endpoint shut: see OIDC.checkLogin.
func (a *authRequest) Done() bool { return false }

// refreshRequest is a refresh token and what it stands for.
type refreshRequest struct {
	issuedToken
	expires time.Time
}

func (r *refreshRequest) GetAMR() []string             { return []string{"pwd"} }
func (r *refreshRequest) GetAudience() []string        { return []string{r.client} }
func (r *refreshRequest) GetAuthTime() time.Time       { return r.auth }
func (r *refreshRequest) GetClientID() string          { return r.client }
func (r *refreshRequest) GetScopes() []string          { return r.scopes }
func (r *refreshRequest) GetSubject() string           { return r.user.Subject() }
func (r *refreshRequest) SetCurrentScopes(to []string) { r.scopes = to }

// opClient shows a Client to the library.
type opClient struct {
	Client
	idTokenLifetime time.Duration
}

func (c opClient) GetID() string                       { return c.ID }
func (c opClient) RedirectURIs() []string              { return c.Client.RedirectURIs }
func (c opClient) PostLogoutRedirectURIs() []string    { return nil }
func (c opClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c opClient) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c opClient) LoginURL(id string) string            { return "/login?id=" + id }
func (c opClient) IDTokenLifetime() time.Duration       { return c.idTokenLifetime }
func (c opClient) DevMode() bool                        { return true } // allows http redirect URIs on loopback
func (c opClient) IDTokenUserinfoClaimsAssertion() bool { return true } // Cognito's ID tokens carry email and name
func (c opClient) ClockSkew() time.Duration             { return 0 }

// AccessTokenType is "bearer", the kind whose text tokenMaker may choose.
func (c opClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeBearer }

func (c opClient) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}

func (c opClient) AuthMethod() oidc.AuthMethod {
	if c.Secret.IsZero() {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic
}

func (c opClient) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (c opClient) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

// IsScopeAllowed is asked about scopes that OpenID Connect does not define.
func (c opClient) IsScopeAllowed(scope string) bool { return slices.Contains(c.Scopes, scope) }
