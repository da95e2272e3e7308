package exchange

import (
	"context"
	"errors"
	"slices"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
)

// Introspect says what a token for others says, where it is one of the caller's account and still good: signed here by
// a key that was not revoked, not ended, not revoked itself, and what it rests on holds. Of anything else it says
// nothing but that, by a nil map and no error (RFC 7662 §2.2). A workload access token is nothing to it: no resource
// server should see one, and whoever has found one would learn from the answer who the user is. Errors: Denied where a
// policy forbids it.
func (s *Service) Introspect(ctx context.Context, caller access.Caller, token secret.Text) (map[string]any, error) {
	claims, e, err := s.find(ctx, caller.Account, token)
	facts := access.Facts{Outcome: "inactive"}
	if err == nil {
		facts = access.Facts{WorkloadUID: e.Workload, UserRef: e.UserRef, Outcome: "active", Detail: "token " + e.ID}
		if aud, ok := claims.String("aud"); ok {
			facts.Resource = aud
		}
	}
	bad := err
	if err := s.Guard.Permit(ctx, caller, access.IntrospectToken, facts); err != nil {
		return nil, err
	}
	if bad != nil {
		return nil, unlessDead(bad)
	}
	out := map[string]any{"active": true, "token_type": "Bearer"}
	for _, name := range claims.Names() {
		if v, ok := value(claims, name); ok {
			out[name] = v
		}
	}
	return out, nil
}

// Revoke ends a token for others of the caller's account (RFC 7009). Of a token that it does not know it says nothing:
// there is no error. A workload access token cannot be ended alone, which is an Invalid fault (Field "token").
func (s *Service) Revoke(ctx context.Context, caller access.Caller, token secret.Text) error {
	if identity.IsToken(token) {
		if err := s.Guard.Permit(ctx, caller, access.RevokeToken, access.Facts{Outcome: "unsupported"}); err != nil {
			return err
		}
		return fault.Field("token", "is a workload access token, which ends within minutes and is not revoked alone: revoke the agent or the user")
	}
	_, e, err := s.find(ctx, caller.Account, token)
	facts := access.Facts{Outcome: "unknown"}
	if err == nil {
		facts = access.Facts{WorkloadUID: e.Workload, UserRef: e.UserRef, Outcome: "revoked", Detail: "token " + e.ID}
	}
	bad := err
	if err := s.Guard.Permit(ctx, caller, access.RevokeToken, facts); err != nil {
		return err
	}
	if bad != nil {
		return unlessDead(bad)
	}
	err = s.Store.RevokeExchanged(ctx, caller.Account, e.ID)
	return unlessDead(err)
}

// unlessDead is nil for the faults that say that a token is good for nothing, and err for those that say nothing about
// it.
func unlessDead(err error) error {
	for _, code := range []fault.Code{fault.Unauthenticated, fault.Invalid, fault.NotFound} {
		if errors.Is(err, code) {
			return nil
		}
	}
	return err
}

// find returns what a good token says and was made of. One that is not good is Unauthenticated, Invalid or NotFound.
func (s *Service) find(ctx context.Context, account access.Account, token secret.Text) (jws.Claims, Exchanged, error) {
	claims, err := s.Signing.Verify(ctx, signing.AccountTokens(string(account)), Type, token)
	if err != nil {
		return jws.Claims{}, Exchanged{}, err
	}
	dead := func() error { return fault.New(fault.Unauthenticated, "the token is not good any more") }
	id, _ := claims.String("jti")
	if of, _ := claims.String("account"); id == "" || of != string(account) {
		return jws.Claims{}, Exchanged{}, dead()
	}
	e, err := s.Store.Exchanged(ctx, account, id)
	if err != nil {
		return jws.Claims{}, Exchanged{}, err
	}
	if e.Revoked || !s.Now().Before(e.Expires) {
		return jws.Claims{}, Exchanged{}, dead()
	}
	holds, err := s.Identity.Holds(ctx, account, e.Ground)
	if err == nil && !holds {
		err = dead()
	}
	return claims, e, err
}

// value reads a claim that was written by sign.
func value(c jws.Claims, name string) (any, bool) {
	if slices.Contains([]string{"exp", "iat", "auth_time"}, name) {
		at, err := c.Time(name)
		return at.Unix(), err == nil
	}
	if text, ok := c.String(name); ok {
		return text, true
	}
	inner, ok := c.Object(name)
	if !ok {
		return nil, false
	}
	out := map[string]any{}
	for _, n := range inner.Names() {
		if v, ok := value(inner, n); ok {
			out[n] = v
		}
	}
	return out, true
}
