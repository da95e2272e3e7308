package exchange

import (
	"context"
	"slices"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/signing"
)

// Keys lists the installation's signing keys, those of all purposes, in the order in which they sign.
func (s *Service) Keys(ctx context.Context, caller access.Caller) ([]signing.Key, error) {
	if err := s.Guard.Permit(ctx, caller, access.ListSigningKeys, access.Facts{}); err != nil {
		return nil, err
	}
	var all []signing.Key
	for _, p := range []signing.Purpose{signing.Tokens, signing.Audit} {
		keys, err := s.Signing.List(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
	}
	return all, nil
}

// RotateKey replaces the key that signs for the purpose; see signing.Service.Rotate. The keys are the installation's and
// sign for every account, so that it takes an administrator of the installation's own account. Errors: Denied; Invalid
// (Field "purpose") for a purpose that there is not.
func (s *Service) RotateKey(ctx context.Context, caller access.Caller, p signing.Purpose, revoke bool) (signing.Key, error) {
	facts := access.Facts{Resource: "signing-key/" + string(p), Outcome: "rotated"}
	if revoke {
		facts.Outcome = "revoked"
	}
	if caller.Account != s.Account {
		return signing.Key{}, s.Guard.Refuse(ctx, caller, access.RotateSigningKey, "own-account", facts,
			fault.New(fault.Denied, "the signing keys are the installation's: only its own account rotates them"))
	}
	if err := s.Guard.Permit(ctx, caller, access.RotateSigningKey, facts); err != nil {
		return signing.Key{}, err
	}
	if !slices.Contains([]signing.Purpose{signing.Tokens, signing.Audit}, p) {
		return signing.Key{}, fault.Field("purpose", "must be %s or %s", signing.Tokens, signing.Audit)
	}
	return s.Signing.Rotate(ctx, p, revoke)
}
