// Package exchange makes tokens for others out of workload access tokens (RFC 8693), and says which of them still live
// (RFC 7662, RFC 7009).
//
// Security argument: a workload access token says who a user and an agent are, to this server alone. What others may
// read is another token of another type, for one audience, with the scopes that were asked for and that policies allow,
// and never for longer than the token it came from. Who the user is it says by a subject that is of use with that
// audience only, and who acts by a chain that is built here and not taken from anybody. Only the agent that asks counts
// for the decision: the agents before it are history, which a policy may forbid and never permit by. Each token that
// was made is remembered until it ends, with what it rests on, so that it is told for dead as soon as that is.
package exchange

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
)

const (
	// Life is how long a token for others lives at most. It ends with the workload access token where that is sooner.
	Life = 10 * time.Minute

	// Type is the type of the JWT (RFC 9068 §2.1). Nothing else that is signed here has it.
	Type = "at+jwt"
)

// What a refusal is about, for answers in OAuth's form. Each is the cause of a Denied fault.
var (
	ErrClient = errors.New("the client may not exchange this token") // RFC 6749 §5.2, unauthorized_client
	ErrTarget = errors.New("no token for this target")               // RFC 8693 §2.2.2, invalid_target
	ErrScope  = errors.New("no token with these scopes")             // RFC 6749 §5.2, invalid_scope
)

// Exchanged is a token for others that was made.
type Exchanged struct {
	Account access.Account
	ID      string // the claim jti
	identity.Ground
	Expires time.Time
	Revoked bool
}

// Store remembers tokens that were made, until they end.
type Store interface {
	// AddExchanged returns Conflict where the id exists in the account.
	AddExchanged(ctx context.Context, e Exchanged) error
	// Exchanged returns NotFound where there is none. It never answers from a cache.
	Exchanged(ctx context.Context, account access.Account, id string) (Exchanged, error)
	// RevokeExchanged returns NotFound where there is none.
	RevokeExchanged(ctx context.Context, account access.Account, id string) error
	// SweepExchanged deletes at most limit tokens that expired at t or before, and returns how many.
	SweepExchanged(ctx context.Context, t time.Time, limit int) (int, error)
}

// Trail makes the checkpoints that the keys of the purpose audit sign.
type Trail interface {
	// Last says which checkpoint of an account is the last, and which key signed it.
	Last(ctx context.Context, account access.Account) (string, error)
	// Begin makes the first checkpoint behind a revoked key.
	Begin(ctx context.Context, account access.Account) error
}

// Config is what a Service needs. Every field is required.
type Config struct {
	Store    Store
	Identity *identity.Service
	Signing  *signing.Service
	Guard    *access.Guard
	Trail    Trail
	Account  access.Account // the installation's own: its administrators rotate the keys that sign for all
	Region   string
	Now      func() time.Time
}

// Service exchanges tokens. It is safe for concurrent use.
type Service struct{ Config }

// New returns a Service.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Identity == nil || c.Signing == nil || c.Guard == nil || c.Trail == nil || c.Account == "" || c.Region == "" || c.Now == nil {
		return nil, errors.New("exchange: an incomplete Config")
	}
	return &Service{c}, nil
}

// Request is what is asked for.
type Request struct {
	Subject  secret.Text // a workload access token
	Audience string      // whom the new token is for: a name or an absolute URI
	Scopes   []string
}

// Issued is a token for others.
type Issued struct {
	Token   secret.Text
	Expires time.Time
	Scopes  []string // those that it has: of those asked for, what policies allow
}

// Exchange makes a token for one audience out of a workload access token: for its user by its agent, or where it has no
// user for the agent itself. Errors: Invalid (Field "audience", "scope" or "subject_token"); Unauthenticated for a bad
// subject token; Denied, whose cause is ErrClient, ErrTarget or ErrScope; Throttled at a ceiling.
func (s *Service) Exchange(ctx context.Context, caller access.Caller, r Request) (Issued, error) {
	if err := s.checkTarget(r.Audience); err != nil {
		return Issued{}, err
	}
	scopes, err := checkScopes(r.Scopes)
	if err != nil {
		return Issued{}, err
	}
	const action = access.ExchangeToken
	facts := access.Facts{Resource: r.Audience, Scopes: scopes, Outcome: "refused"}
	facts.Audience = r.Audience
	t, err := s.Identity.Open(ctx, caller, action, r.Subject, facts, false)
	if err != nil {
		return Issued{}, err
	}
	facts = t.Facts
	ground, whole := t.Ground()
	if !whole {
		return Issued{}, s.Guard.Refuse(ctx, caller, action, "delegation", facts,
			fault.Field("subject_token", "was minted under a delegation, which is for credential providers only: no token for others is made of it"))
	}
	e := Exchanged{Account: caller.Account, ID: newID(), Ground: ground, Expires: s.Now().Add(Life)}
	if t.Expires.Before(e.Expires) {
		e.Expires = t.Expires
	}
	facts.Outcome, facts.Detail, facts.Released = "released", "token "+e.ID, true
	if len(facts.Through) > 0 {
		facts.Detail += " through " + strings.Join(facts.Through, ", ")
	}
	receipt, err := s.decide(ctx, caller, &facts)
	if err != nil {
		return Issued{}, err
	}
	token, err := s.sign(ctx, e, t.Token, t.Workload, facts.Through, facts)
	if err != nil {
		return Issued{}, err
	}
	if err := s.Store.AddExchanged(ctx, e); err != nil {
		return Issued{}, err
	}
	if err := receipt.Wait(ctx); err != nil {
		return Issued{}, err // the row is of a token that nobody has, and goes when it would have ended
	}
	return Issued{Token: token, Expires: e.Expires, Scopes: facts.Scopes}, nil
}

// decide asks the Guard for the scopes that were asked for or, where policies allow fewer, for those (RFC 6749 §3.3).
// Where they allow none of them it is the refusal of all.
func (s *Service) decide(ctx context.Context, caller access.Caller, facts *access.Facts) (access.Receipt, error) {
	const action = access.ExchangeToken
	about := ErrTarget
	if !caller.Has(access.Root) && (!caller.Has(access.Agent) || !caller.PairedWith(facts.Workload)) {
		about = ErrClient
	}
	d, err := s.Guard.Decider.Decide(ctx, caller, action, *facts)
	if err == nil && len(d.Beyond) > 0 {
		allowed := slices.DeleteFunc(slices.Clone(facts.Scopes), func(scope string) bool { return slices.Contains(d.Beyond, scope) })
		if about = ErrScope; len(allowed) > 0 {
			facts.Scopes = allowed
		}
	}
	receipt, err := s.Guard.Check(ctx, caller, action, *facts)
	if errors.Is(err, fault.Denied) {
		err = fault.Wrap(fault.Denied, errors.Join(about, err), "%s", fault.Public(err).Msg)
	}
	return receipt, err
}

// sign makes the token (RFC 9068 §2.2, RFC 8693 §4.1).
func (s *Service) sign(ctx context.Context, e Exchanged, t identity.Token, w identity.Workload, through []string, f access.Facts) (secret.Text, error) {
	agent := w.ARN(s.Region)
	claims := map[string]any{
		"aud": f.Audience, "client_id": agent, "jti": e.ID, "iat": s.Now().Unix(), "exp": e.Expires.Unix(), "account": string(e.Account),
		"sub": agent, // RFC 9068 §5: never equal to a user's, which has no colon
	}
	if t.User.Kind != identity.NoUser {
		sub, err := s.Identity.Pairwise(ctx, e.Account, t.User, f.Audience)
		if err != nil {
			return secret.Text{}, err
		}
		claims["sub"], claims["act"] = sub, s.actors(e.Account, append([]string{w.Name}, through...))
		claims["assurance"] = identity.Verified
		if t.Asserted() {
			claims["assurance"] = identity.Asserted
		}
		if !t.AuthTime.IsZero() {
			claims["auth_time"] = t.AuthTime.Unix()
		}
	}
	if len(f.Scopes) > 0 {
		claims["scope"] = strings.Join(f.Scopes, " ")
	}
	if e.Expires.Unix() <= s.Now().Unix() {
		return secret.Text{}, fault.New(fault.Unauthenticated, "the workload access token has expired: mint a new one")
	}
	return s.Signing.Sign(ctx, signing.AccountTokens(string(e.Account)), Type, claims)
}

// actors nests the names of workload identities as RFC 8693 §4.1 has it, the one that acts outermost.
func (s *Service) actors(account access.Account, names []string) map[string]any {
	var act map[string]any
	for _, name := range slices.Backward(names) {
		outer := map[string]any{"sub": identity.Workload{Account: account, Name: name}.ARN(s.Region), "iss": s.Issuer(account)}
		if act != nil {
			outer["act"] = act
		}
		act = outer
	}
	return act
}

// ExchangeForWorkload makes a workload access token for the workload identity, named by its name or ARN, out of one
// that another handed on to it. Errors are as for identity.Service.MintTokenThrough.
func (s *Service) ExchangeForWorkload(ctx context.Context, caller access.Caller, subject secret.Text, workload string) (identity.Through, error) {
	if strings.HasPrefix(workload, "arn:") {
		name, ok := strings.CutPrefix(workload, identity.Workload{Account: caller.Account}.ARN(s.Region))
		if !ok {
			return identity.Through{}, fault.Field("audience", "is no ARN of a workload identity of this account")
		}
		workload = name
	}
	if !validName(workload) {
		return identity.Through{}, fault.Field("audience", "must be the name or the ARN of a workload identity")
	}
	through, err := s.Identity.MintTokenThrough(ctx, caller, subject, workload)
	if errors.Is(err, fault.Denied) {
		about := ErrTarget
		if !caller.Has(access.Root) && (!caller.Has(access.Agent) || !caller.PairedWith(workload)) {
			about = ErrClient
		}
		err = fault.Wrap(fault.Denied, errors.Join(about, err), "%s", fault.Public(err).Msg)
	}
	return through, err
}

// Sweep forgets the tokens that have ended, and returns how many.
func (s *Service) Sweep(ctx context.Context) (int, error) {
	const batch = 1000 // one transaction's worth: other writers get their turn between two
	for total := 0; ; {
		n, err := s.Store.SweepExchanged(ctx, s.Now(), batch)
		total += n
		if err != nil || n < batch {
			return total, err
		}
	}
}

func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(id[:])
}
