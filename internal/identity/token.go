package identity

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

const (
	// TokenLife is how long a workload access token lives that was made without a JWT of the user: for an asserted user,
	// under a delegation, of another agent's token, or for the agent alone.
	TokenLife = 15 * time.Minute

	// UserTokenLife is how long one lives that was made of a user's JWT, unless the configuration and the issuer allow for
	// more. It ends with the JWT if that is sooner.
	UserTokenLife = time.Hour

	tokenPrefix = "wat1." // lets scanners find a token where it should not be
	maxToken    = 8 << 10 // of the text; the longest issuer, subject and claims make some 6 KiB
)

// Minted is a new workload access token.
type Minted struct {
	Token   secret.Text
	Expires time.Time
}

// Token is what an opened workload access token says.
type Token struct {
	Account     access.Account
	WorkloadUID string
	Generation  int64 // of the workload identity
	User        User
	UserRef     string
	Issued      time.Time
	Expires     time.Time
	Expired     bool      // it may still poll the session that it opened, and nothing else
	Hash        string    // SHA-256 of the token's text, hexadecimal
	AuthTime    time.Time // when the user logged in, zero where the user's token did not say
	Claims      string    // JSON object of the user's claims that policies may ask for; "" for none

	epochs   epochs
	session  signIn
	retained *retained // nil where the user's token was not kept
	lineage  *lineage  // nil where it was minted for a user who was there, by the agent itself
}

// lineage is how a token came to be that no user's token was shown for.
type lineage struct {
	delegation string
	actors     []string
	grants     []Grant  // of the delegation
	through    []string // names of the actors
}

// Delegation is the id of the delegation that the token was minted under, "" for none.
func (t Token) Delegation() string {
	if t.lineage == nil {
		return ""
	}
	return t.lineage.delegation
}

// Actors are the uids of the workload identities that the token came through, the latest first. They MUST NOT be
// changed.
func (t Token) Actors() []string {
	if t.lineage == nil {
		return nil
	}
	return t.lineage.actors
}

// Through are the names of the Actors, or the uid of one that is gone for good. They MUST NOT be changed.
func (t Token) Through() []string {
	if t.lineage == nil {
		return nil
	}
	return t.lineage.through
}

// Delegated returns the scopes that the token may have at the provider with the uid, and whether it is for that
// provider at all. bounded is false where the token was not minted under a delegation: then it has no bounds of this
// kind.
func (t Token) Delegated(providerUID string) (scopes []string, granted, bounded bool) {
	if t.Delegation() == "" {
		return nil, true, false
	}
	for _, g := range t.lineage.grants {
		if g.UID == providerUID {
			return g.Scopes, true, true
		}
	}
	return nil, false, true
}

// UserFacts is who the user is, for a decision.
func (t Token) UserFacts() access.UserFacts {
	if t.User.Kind != JWTUser {
		return access.UserFacts{}
	}
	return access.UserFacts{Issuer: t.User.Issuer, Subject: t.User.Subject, Claims: t.Claims}
}

// Asserted reports whether the user was named by the caller, not proven.
func (t Token) Asserted() bool { return t.User.Kind == UIDUser }

// MintToken mints a token for the workload identity alone. Errors: Denied, whether or not the workload identity
// exists, where the caller may not act for it; then NotFound.
func (s *Service) MintToken(ctx context.Context, caller access.Caller, workloadName string) (Minted, error) {
	const action = access.GetWorkloadAccessToken
	receipt, w, err := s.checkMint(ctx, caller, action, workloadName, User{})
	if err != nil {
		return Minted{}, err
	}
	m, err := s.mint(ctx, receipt, w, tokenBody{expires: s.now().Add(TokenLife)})
	return m, s.refuseFallen(ctx, caller, action, access.Facts{Workload: w.Name, WorkloadUID: w.UID}, err)
}

// MintTokenForJWT mints a token for the user whom the JWT proves. Two records are made: the decision, and then who
// the user is or why the JWT was turned away. The JWT is kept where retain says so, and the claims that policies may
// ask for are put into the token. Errors: as MintToken, then as VerifyUser, and Unauthenticated where those claims are
// too long.
func (s *Service) MintTokenForJWT(ctx context.Context, caller access.Caller, workloadName string, jwt secret.Text) (Minted, error) {
	const action = access.GetWorkloadAccessTokenForJWT
	receipt, w, err := s.checkMint(ctx, caller, action, workloadName, User{})
	if err != nil {
		return Minted{}, err
	}
	facts := access.Facts{Workload: w.Name, WorkloadUID: w.UID}
	verified, err := s.VerifyUser(ctx, caller.Account, w.Name, jwt)
	if err == nil {
		err = verified.unfit
	}
	now := s.now()
	if err == nil && !now.Before(verified.Expires) { // within the tolerated skew: the token would be born dead
		err = badToken("expired at %s", verified.Expires.UTC().Format(time.RFC3339))
	}
	if errors.Is(err, fault.Unauthenticated) || errors.Is(err, fault.Invalid) {
		facts.Outcome, facts.Detail = "refused", clip(fault.Public(err).Msg)
		return Minted{}, s.guard.Refuse(ctx, caller, action, "user-token", facts, err)
	}
	if err != nil {
		return Minted{}, err
	}
	if facts.UserRef, err = s.UserRef(ctx, caller.Account, verified.User); err != nil {
		return Minted{}, err
	}
	if err := s.mintable(ctx, w, verified.User, facts.UserRef); err != nil { // before anything of the user is kept
		return Minted{}, s.refuseFallen(ctx, caller, action, facts, err)
	}
	facts.Outcome = "minted"
	outcome := s.guard.Event(ctx, caller, action, facts)
	expires := now.Add(s.lifeAt(verified.proof.key != ""))
	if verified.Expires.Before(expires) {
		expires = verified.Expires
	}
	kept, err := s.retain(ctx, w, facts.UserRef, verified, jwt, expires)
	if err != nil {
		return Minted{}, err
	}
	minted, err := s.mint(ctx, receipt, w, tokenBody{user: verified.User, expires: expires, authenticated: verified.AuthTime, retained: kept, claims: verified.claims, proof: verified.proof})
	if err != nil {
		return Minted{}, s.refuseFallen(ctx, caller, action, facts, err)
	}
	if err := outcome.Wait(ctx); err != nil {
		return Minted{}, err
	}
	return minted, nil
}

// MintTokenForUserID mints a token for a user whom the caller names. Agents may do that only for a workload identity
// with the tag tabard:assurance=asserted, and such a user shares nothing with the users of any token.
func (s *Service) MintTokenForUserID(ctx context.Context, caller access.Caller, workloadName, userID string) (Minted, error) {
	user, err := AssertedUser(userID)
	if err != nil {
		return Minted{}, err
	}
	const action = access.GetWorkloadAccessTokenForUserID
	receipt, w, err := s.checkMint(ctx, caller, action, workloadName, user)
	if err != nil {
		return Minted{}, err
	}
	m, err := s.mint(ctx, receipt, w, tokenBody{user: user, expires: s.now().Add(TokenLife)})
	return m, s.refuseFallen(ctx, caller, action, access.Facts{Workload: w.Name, WorkloadUID: w.UID, Asserted: true}, err)
}

// mintable returns a Denied fault, whose cause is a *fallen, where a token of w for u must not be minted.
func (s *Service) mintable(ctx context.Context, w Workload, u User, ref string) error {
	_, down, err := s.stand(ctx, w, u, ref)
	if err != nil || down == nil {
		return err
	}
	return fault.Wrap(fault.Denied, down, "%s", down.known())
}

// refuseFallen records err where it says that somebody is disabled or frozen, and returns it.
func (s *Service) refuseFallen(ctx context.Context, caller access.Caller, action access.Action, facts access.Facts, err error) error {
	down, ok := errors.AsType[*fallen](err)
	if !ok {
		return err
	}
	facts.Outcome, facts.Detail = "refused", clip(down.known())
	if down.at.Kind == UserStanding {
		facts.UserRef = down.at.Key
	}
	return s.guard.Refuse(ctx, caller, action, string(down.at.Kind)+"-"+down.at.state(), facts, err)
}

// checkMint decides before it tells whether the workload identity exists. A name that nobody has is decided by the
// pairing alone, so that a paired agent learns that its workload identity is missing.
func (s *Service) checkMint(ctx context.Context, caller access.Caller, action access.Action, name string, u User) (access.Receipt, Workload, error) {
	ref, err := s.UserRef(ctx, caller.Account, u)
	if err != nil {
		return access.Receipt{}, Workload{}, err
	}
	w, lookup := s.store.Workload(ctx, caller.Account, name)
	facts := access.Facts{Workload: name, UserRef: ref, Asserted: u.Kind == UIDUser}
	if lookup == nil {
		facts.WorkloadUID, facts.Assertable = w.UID, w.Assertable()
	} else {
		facts.Outcome, facts.Assertable = "not_found", errors.Is(lookup, fault.NotFound)
	}
	receipt, err := s.guard.Check(ctx, caller, action, facts)
	if err != nil {
		return access.Receipt{}, Workload{}, err
	}
	if lookup == nil {
		return receipt, w, nil
	}
	if err := receipt.Wait(ctx); err != nil {
		return access.Receipt{}, Workload{}, err
	}
	return access.Receipt{}, Workload{}, lookup
}

// mint seals a token of the user and expiry in b, with the epochs of now, and lets it go when the record of the
// decision is durable. Where the agent, the user or the user's issuer is down it is a Denied fault, which refuseFallen
// records.
func (s *Service) mint(ctx context.Context, receipt access.Receipt, w Workload, b tokenBody) (Minted, error) {
	ref, err := s.UserRef(ctx, w.Account, b.user)
	if err != nil {
		return Minted{}, err
	}
	now, down, err := s.stand(ctx, w, b.user, ref)
	if err != nil {
		return Minted{}, err
	}
	if down != nil {
		return Minted{}, fault.Wrap(fault.Denied, down, "%s", down.known())
	}
	if b.proof.key != "" { // after the epochs were read: a logout since then is in what is read here, or is yet to come
		if b.session, err = s.signedIn(ctx, w.Account, b.proof); err != nil {
			return Minted{}, err
		}
	}
	b.workload, b.generation, b.issued, b.epochs = w.UID, w.Generation, s.now(), now
	_, _ = rand.Read(b.id[:]) // never fails
	sealed, err := s.vault.SealServer(ctx, vault.RingTokens, s.tokenContext(w.Account), b.encode())
	if err != nil {
		return Minted{}, err
	}
	if err := receipt.Wait(ctx); err != nil {
		return Minted{}, err
	}
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(sealed)
	return Minted{Token: secret.New(text), Expires: time.UnixMilli(b.expires.UnixMilli())}, nil
}

// tokenContext is the associated data of a token: the server's public URL and the account, each behind its length.
func (s *Service) tokenContext(account access.Account) []byte {
	return appendField(appendField(nil, s.issuer), string(account))
}

// lifeAt is how long a token lives at most that is made of a user's JWT, with and without back-channel logout at its
// issuer.
func (s *Service) lifeAt(backchannel bool) time.Duration {
	if backchannel {
		return s.longestLife
	}
	return UserTokenLife
}

// shorten ends a token after an hour that was to live for longer, where the setting or the issuer allow for that no
// more.
func (s *Service) shorten(ctx context.Context, account access.Account, b *tokenBody) error {
	if b.expires.Sub(b.issued) <= UserTokenLife {
		return nil
	}
	i, err := s.trusted(ctx, account, b.user.Issuer)
	if err != nil && !errors.Is(err, fault.Unauthenticated) {
		return err
	}
	if end := b.issued.Add(s.lifeAt(err == nil && i.BackchannelLogout)); end.Before(b.expires) {
		b.expires = end
	}
	return nil
}
