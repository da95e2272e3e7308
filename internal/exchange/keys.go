package exchange

import (
	"context"
	"slices"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/signing"
)

// Issuer is the claim iss of the tokens that the account makes for others, byte for byte.
func (s *Service) Issuer(account access.Account) string {
	return s.Signing.Issuer(signing.AccountTokens(string(account)))
}

// Keys lists the keys that sign for the caller's account in the order in which they sign: those of its own tokens, and
// those of the installation.
func (s *Service) Keys(ctx context.Context, caller access.Caller) ([]signing.Key, error) {
	if err := s.Guard.Permit(ctx, caller, access.ListSigningKeys, access.Facts{}); err != nil {
		return nil, err
	}
	var all []signing.Key
	for _, p := range []signing.Purpose{Tokens, signing.Assertions, signing.Audit} {
		keys, err := s.Signing.List(ctx, purposeOf(caller, p))
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			k.Purpose = p
			all = append(all, k)
		}
	}
	return all, nil
}

// Tokens is what callers name the purpose of their own account's tokens by.
const Tokens signing.Purpose = "tokens"

// purposeOf is the purpose that a caller means by the name.
func purposeOf(caller access.Caller, p signing.Purpose) signing.Purpose {
	if p == Tokens {
		return signing.AccountTokens(string(caller.Account))
	}
	return p
}

// RotateKey replaces the key that signs for the purpose; see signing.Service.Rotate. The purpose Tokens is of the
// caller's account. The keys of the others sign for every account, so that it takes an administrator of the
// installation's own account, and to revoke those of the trail its root. Errors: Denied; Invalid (Field "purpose") for
// a purpose that there is not.
func (s *Service) RotateKey(ctx context.Context, caller access.Caller, p signing.Purpose, revoke bool) (signing.Key, error) {
	facts := access.Facts{Resource: "signing-key/" + string(p), Outcome: "rotated"}
	if revoke {
		facts.Outcome = "revoked"
	}
	if p != Tokens && caller.Account != s.Account {
		return signing.Key{}, s.Guard.Refuse(ctx, caller, access.RotateSigningKey, "own-account", facts,
			fault.New(fault.Denied, "the signing keys of the purpose %s are the installation's: only its own account rotates them", p))
	}
	if p == signing.Audit && revoke && !caller.Has(access.Root) { // as PruneAudit: it takes the proofs of every account's trail
		return signing.Key{}, s.Guard.Refuse(ctx, caller, access.RotateSigningKey, "root-only", facts,
			fault.New(fault.Denied, "to revoke the keys of the purpose %s needs the role root: what they signed proves nothing after it, for any account", p))
	}
	ends := p == signing.Audit && revoke
	if ends {
		last, err := s.Trail.Last(ctx, caller.Account)
		if err != nil && fault.CodeOf(err) == fault.Unavailable {
			return signing.Key{}, err
		}
		if err != nil { // a last checkpoint that does not verify is no reason to keep a key that got out
			last = "the last checkpoint does not verify"
		}
		facts.Detail = last
	}
	if err := s.Guard.Permit(ctx, caller, access.RotateSigningKey, facts); err != nil {
		return signing.Key{}, err
	}
	if !slices.Contains([]signing.Purpose{Tokens, signing.Assertions, signing.Audit}, p) {
		return signing.Key{}, fault.Field("purpose", "must be %s, %s or %s", Tokens, signing.Assertions, signing.Audit)
	}
	k, err := s.Signing.Rotate(ctx, purposeOf(caller, p), revoke)
	k.Purpose = p
	if err == nil && ends {
		_ = s.Trail.Begin(ctx, caller.Account) // the key is revoked either way, and whoever makes checkpoints tries each minute
	}
	return k, err
}
