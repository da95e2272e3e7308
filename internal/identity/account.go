package identity

import (
	"context"
	"crypto/rand"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/secret"
)

// AccountStanding says whether an account is served at all. Its key is the account.
const AccountStanding StandingKind = "account"

// NewRoot is the principal root of an account that is to be made, with a first access key.
type NewRoot struct {
	Principal Principal
	Key       AccessKey // its secret sealed
}

// NewRoot builds the principal root of a new account and its first access key, and stores neither. It decides and
// records nothing: whoever makes the account has.
func (s *Service) NewRoot(ctx context.Context, account access.Account) (NewRoot, secret.Text, error) {
	root := s.rootOf(account)
	k, secretKey, err := s.buildKey(ctx, root)
	return NewRoot{Principal: root, Key: k}, secretKey, err
}

func (s *Service) rootOf(account access.Account) Principal {
	return Principal{
		Account: account, ID: access.PrincipalID(newID("prn-")), Name: RootName, Roles: []access.Role{access.Root}, Created: s.now(),
	}
}

// buildKey draws a new key pair for a principal and seals its secret.
func (s *Service) buildKey(ctx context.Context, p Principal) (AccessKey, secret.Text, error) {
	secretKey := secret.New(secretPrefix + base62(40))
	k, err := s.sealKey(ctx, p, keyIDPrefix+rand.Text()[:14], secretKey)
	return k, secretKey, err
}

// RotateRootKey gives the account's principal root a new access key and disables all its others, in one step. It
// returns the new key with its secret, which is shown this once, and the ids of those that it disabled. Only root may:
// an agent whose key was stolen cannot take the account.
func (s *Service) RotateRootKey(ctx context.Context, caller access.Caller) (AccessKey, secret.Text, []string, error) {
	facts := access.Facts{Resource: "principal/" + RootName}
	if err := s.guard.Permit(ctx, caller, access.RotateRootKey, facts); err != nil {
		return AccessKey{}, secret.Text{}, nil, err
	}
	root, err := s.store.PrincipalByName(ctx, caller.Account, RootName)
	if err != nil {
		return AccessKey{}, secret.Text{}, nil, err
	}
	return s.replaceKeys(ctx, root)
}

func (s *Service) replaceKeys(ctx context.Context, root Principal) (AccessKey, secret.Text, []string, error) {
	k, secretKey, err := s.buildKey(ctx, root)
	if err != nil {
		return AccessKey{}, secret.Text{}, nil, err
	}
	disabled, err := s.store.ReplaceAccessKeys(ctx, k)
	if err != nil {
		return AccessKey{}, secret.Text{}, nil, err
	}
	k.Secret = nil
	return k, secretKey, disabled, nil
}

// RecoverRoot is the way back in for whoever has the server's key and its database: it enables the account's principal
// root, or makes it where there is none, gives it a new access key and disables all its others. It is not for requests:
// holding the key is the authority. The record of it is durable before RecoverRoot returns.
func (s *Service) RecoverRoot(ctx context.Context, account access.Account) (AccessKey, secret.Text, error) {
	root, _, err := s.ensureRootPrincipal(ctx, account)
	if err != nil {
		return AccessKey{}, secret.Text{}, err
	}
	k, secretKey, _, err := s.replaceKeys(ctx, root)
	if err != nil {
		return AccessKey{}, secret.Text{}, err
	}
	if root.Disabled {
		if err := s.store.SetPrincipalDisabled(ctx, account, root.Name, false); err != nil {
			return AccessKey{}, secret.Text{}, err
		}
	}
	self := access.Caller{Account: account, Principal: root.ID, Name: root.Name, AccessKey: k.ID, Roles: root.Roles}
	facts := access.Facts{Resource: "access-key/" + k.ID, Outcome: "recovered", Detail: "on the server's machine, with its key"}
	return k, secretKey, s.guard.Event(ctx, self, access.RotateRootKey, facts).Wait(ctx)
}
