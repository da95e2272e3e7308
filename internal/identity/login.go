package identity

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// LoginClient is the client by which this server itself signs an issuer's users in, for hosted consent.
type LoginClient struct {
	Account  access.Account
	Issuer   string
	ClientID string
	Secret   vault.Sealed // empty for a public client
	Scopes   []string     // openid is among them
	Updated  time.Time

	// Where the issuer's metadata led when the client was set. Another host gets nothing (threat M08).
	Authorization, Token string
}

// LoginStore keeps login clients, and gives back what RememberUser stored.
type LoginStore interface {
	// SetLogin stores c in place of what the issuer had. It returns Conflict where another issuer of the account has the
	// same client at the same authorization or token endpoint.
	SetLogin(ctx context.Context, c LoginClient) error
	// Login returns NotFound where the issuer has none.
	Login(ctx context.Context, account access.Account, issuer string) (LoginClient, error)
	// SealedUser returns NotFound where the reference is not known.
	SealedUser(ctx context.Context, account access.Account, ref string) (vault.Sealed, error)
}

// NewLogin is what SetIssuerLogin takes.
type NewLogin struct {
	Issuer   string
	ClientID string
	Secret   secret.Text // empty for a public client
	Scopes   []string    // openid is added where it is missing
}

// ref says where the client secret is sealed. The client id is bound in: a secret does not open for another client.
func (c LoginClient) ref() vault.Ref {
	return vault.Ref{Account: c.Account, Table: "issuer_logins", Column: "secret", Key: c.Issuer, Identity: c.ClientID}
}

// SetIssuerLogin gives a trusted issuer the client that hosted consent signs its users in with, in place of an earlier
// one. It is NotFound for an issuer that is not trusted in the caller's account. It reads the issuer's metadata now,
// and from then on nothing goes to other hosts than those that it names: setting the client again accepts others. Two
// issuers of an account with one client at one endpoint are a Conflict: nothing would tell their answers apart (RFC
// 9700 §4.4).
func (s *Service) SetIssuerLogin(ctx context.Context, caller access.Caller, n NewLogin) error {
	if !plainText(n.ClientID) {
		return fault.Field("clientId", "%q is empty, too long or has a control character", clip(n.ClientID))
	}
	for _, scope := range n.Scopes {
		if !plainText(scope) || slices.ContainsFunc([]rune(scope), func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fault.Field("scopes", "%q is no scope", clip(scope))
		}
	}
	if err := s.guard.Permit(ctx, caller, access.SetIssuerLogin, access.Facts{Resource: clip(n.Issuer)}); err != nil {
		return err
	}
	if _, err := s.trusted(ctx, caller.Account, n.Issuer); errors.Is(err, fault.Unauthenticated) {
		return fault.New(fault.NotFound, "the issuer %s is not trusted: trust it first", clip(n.Issuer))
	} else if err != nil {
		return err
	}
	m, pins, err := s.readMetadata(ctx, caller.Account, n.Issuer)
	if err != nil {
		return err
	}
	c := LoginClient{
		Account: caller.Account, Issuer: n.Issuer, ClientID: n.ClientID, Scopes: slices.Clone(n.Scopes), Updated: s.now(),
		Authorization: keyring.Endpoint(m.Authorization), Token: keyring.Endpoint(m.Token),
	}
	if c.Authorization == "" || c.Token == "" {
		return fault.Field("issuer", "the metadata of the issuer %s names no authorization or no token endpoint", n.Issuer)
	}
	if !slices.Contains(c.Scopes, "openid") {
		c.Scopes = append([]string{"openid"}, c.Scopes...)
	}
	if !n.Secret.IsZero() {
		if c.Secret, err = s.vault.Seal(ctx, c.ref(), n.Secret); err != nil {
			return err
		}
	}
	facts := access.Facts{Resource: n.Issuer, Outcome: "pinned", Detail: said(map[string]string{"authorization": keyring.Origin(c.Authorization), "token": keyring.Origin(c.Token)}, pins)}
	if err := s.guard.Event(ctx, caller, access.SetIssuerLogin, facts).Wait(ctx); err != nil {
		return err
	}
	err = s.store.SetLogin(ctx, c)
	if errors.Is(err, fault.Conflict) {
		return fault.Wrap(fault.Conflict, err, "another issuer of this account has the client %s at the same endpoint: give each issuer a client of its own, or remove the other", clip(n.ClientID))
	}
	if err != nil {
		return err
	}
	return s.store.RepinIssuer(ctx, caller.Account, n.Issuer, pins)
}

// Login returns the login client of an issuer that is trusted for the workload identity now, and its secret. It is
// NotFound where there is none. It decides nothing about a caller.
func (s *Service) Login(ctx context.Context, account access.Account, workloadName, issuer string) (LoginClient, secret.Text, error) {
	i, err := s.trusted(ctx, account, issuer)
	if errors.Is(err, fault.Unauthenticated) || err == nil && !i.allowedFor(workloadName) {
		return LoginClient{}, secret.Text{}, fault.New(fault.NotFound, "issuer %q is not trusted for workload identity %s", clip(issuer), clip(workloadName))
	}
	if err != nil {
		return LoginClient{}, secret.Text{}, err
	}
	c, err := s.store.Login(ctx, account, issuer)
	if err != nil || len(c.Secret) == 0 {
		return c, secret.Text{}, err
	}
	text, err := s.vault.Open(ctx, c.ref(), c.Secret)
	return c, text, err
}

// VerifyLogin checks the ID token that a sign-in by c brought (OpenID Connect Core §3.1.3.7): as strictly as
// VerifyUser, and besides that it is an ID token, for c alone, and of this sign-in by its nonce. The errors are
// VerifyUser's.
func (s *Service) VerifyLogin(ctx context.Context, c LoginClient, workloadName string, idToken secret.Text, nonce string) (VerifiedUser, error) {
	t, err := parseUserToken(idToken)
	if err != nil {
		return VerifiedUser{}, err
	}
	if iss, _ := t.Claims.String("iss"); iss != c.Issuer {
		return VerifiedUser{}, badToken("is not of the issuer that the user was sent to")
	}
	i, err := s.trusted(ctx, c.Account, c.Issuer)
	if err != nil {
		return VerifiedUser{}, err
	}
	if !i.allowedFor(workloadName) {
		return VerifiedUser{}, badToken("is of an issuer that is not trusted for workload identity %s", clip(workloadName))
	}
	if err := s.issuerStands(ctx, c.Account, i.URL); err != nil {
		return VerifiedUser{}, err
	}
	if err := s.verifySignature(ctx, c.Account, i.Issuer, t); err != nil {
		return VerifiedUser{}, err
	}
	if got, _ := t.Claims.String("nonce"); nonce == "" || !secret.New(got).Equal(secret.New(nonce)) {
		return VerifiedUser{}, badToken("is not of this sign-in: its nonce is another")
	}
	if azp, ok := t.Claims.String("azp"); t.Claims.Has("azp") && (!ok || azp != c.ClientID) {
		return VerifiedUser{}, badToken("was given to another client")
	}
	i.Audiences, i.ClientIDs, i.TokenUse, i.anyAudience = []string{c.ClientID}, nil, UseID, false
	return s.examine(ctx, c.Account, i, t)
}

// UserByRef returns the user whom RememberUser stored under ref, or NotFound.
func (s *Service) UserByRef(ctx context.Context, account access.Account, ref string) (User, error) {
	sealed, err := s.store.SealedUser(ctx, account, ref)
	if err != nil {
		return User{}, err
	}
	text, err := s.vault.Open(ctx, vault.Ref{Account: account, Table: "users", Column: "sealed", Key: ref, User: ref}, sealed)
	if err != nil {
		return User{}, err
	}
	r := bodyReader{rest: []byte(text.Expose())}
	version, kind, issuer, subject := r.take(1)[0], r.take(1)[0], r.text(), r.text()
	if r.short || len(r.rest) != 0 || version != userFormat {
		return User{}, fault.New(fault.Internal, "the row of a user does not decode")
	}
	switch kind {
	case 1:
		return User{Kind: JWTUser, Issuer: issuer, Subject: subject}, nil
	case 2:
		return User{Kind: UIDUser, Subject: subject}, nil
	}
	return User{}, nil
}
