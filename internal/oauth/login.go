package oauth

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/secret"
)

// SignInURL builds an authentication request (OpenID Connect Core §3.1.2.1) with PKCE at the issuer, whose addresses
// come from its discovery document. issSent is what that promises (RFC 9207 §3). Errors are those of Endpoints.
func (c *Client) SignInURL(ctx context.Context, l identity.LoginClient, r broker.SignInRequest) (to string, issSent bool, err error) {
	e, p, err := c.issuerOf(ctx, l)
	if err != nil {
		return "", false, err
	}
	to, err = c.AuthorizationURL(e, p, broker.Vendor{}, broker.AuthorizationRequest{RedirectURI: r.RedirectURI, Scopes: l.Scopes, State: r.State, Verifier: r.Verifier})
	if err != nil {
		return "", false, err
	}
	return to + "&nonce=" + url.QueryEscape(r.Nonce), e.IssInResponse, nil
}

// SignInToken exchanges the code of a sign-in for its ID token (OpenID Connect Core §3.1.3), in one request that is
// never repeated. The token is not verified. Other tokens that came with it are dropped.
func (c *Client) SignInToken(ctx context.Context, l identity.LoginClient, clientSecret secret.Text, r broker.CodeGrant) (secret.Text, error) {
	e, p, err := c.issuerOf(ctx, l)
	if err != nil {
		return secret.Text{}, err
	}
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {r.Code.Expose()}, "redirect_uri": {r.RedirectURI}, "code_verifier": {r.Verifier.Expose()},
	}
	header := http.Header{"Accept": {mediaTypeJSON}, "Content-Type": {mediaTypeForm}, "User-Agent": {c.agent}}
	authenticate(header, form, p, broker.Vendor{}, clientSecret)
	o, err := c.of(l.Account)
	if err != nil {
		return secret.Text{}, err
	}
	a, err := o.post(ctx, e.Token, header, form.Encode())
	if err != nil {
		return secret.Text{}, err
	}
	sent := []secret.Text{r.Code, r.Verifier, clientSecret}
	if _, credentials, ok := strings.Cut(header.Get("Authorization"), " "); ok {
		sent = append(sent, secret.New(credentials))
	}
	if _, err := classify(a, broker.Vendor{}, sent); err != nil {
		return secret.Text{}, err
	}
	members, err := parseObject(a.body)
	if err != nil {
		return secret.Text{}, err
	}
	id, ok := text(members, "id_token")
	if !ok || id == "" {
		return secret.Text{}, fault.New(fault.Unauthenticated, "the issuer's answer to the sign-in has no ID token")
	}
	return secret.New(id), nil
}

// issuerOf resolves the issuer's addresses, and describes the login client as Redeem's kin want it. Code, verifier,
// secret and browser go only to the hosts that an administrator saw: metadata that leads elsewhere is Denied (threat
// M08).
func (c *Client) issuerOf(ctx context.Context, l identity.LoginClient) (broker.Endpoints, broker.Provider, error) {
	p := broker.Provider{
		Account: l.Account, Name: l.Issuer, ClientID: l.ClientID, AuthMethod: broker.AuthBasic,
		DiscoveryURL: strings.TrimSuffix(l.Issuer, "/") + "/.well-known/openid-configuration",
	}
	e, err := c.Endpoints(ctx, p)
	if err == nil && e.Issuer != l.Issuer {
		err = fault.New(fault.Invalid, "the metadata of the issuer cannot be used: it names another issuer")
	}
	const accept = "setting its login client again: tabard issuer login"
	if err == nil {
		err = keyring.Unmoved(l.Issuer, "authorization", e.Authorization, keyring.Origin(l.Authorization), accept)
	}
	if err == nil {
		err = keyring.Unmoved(l.Issuer, "token", e.Token, keyring.Origin(l.Token), accept)
	}
	return e, p, err
}
