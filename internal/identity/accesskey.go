package identity

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// maxLiveKeys is two because a key is rotated by making the new one, moving to it and disabling the old one.
const maxLiveKeys = 2

const (
	keyIDPrefix  = "TABARD"  // of 20 characters in all, as AWS's
	secretPrefix = "tabard_" // so that scanners find a secret that was committed somewhere
)

// Credential is what the verification of a SigV4 signature needs of an access key.
type Credential struct {
	Caller  access.Caller
	Version int64 // changes whenever the key does: what is derived from the secret may be kept under (id, Version)
	// Secret opens the secret. Its failures are Unavailable or Internal faults.
	Secret func(ctx context.Context) (secret.Text, error)
	// Used notes that the key has signed a request. It waits for nothing. nil where nobody asks for it.
	Used func()
}

// Credential finds the access key. An unknown key, a disabled one and one of a disabled principal give the same
// SignatureUnknown fault. What is read may be one second old.
func (s *Service) Credential(ctx context.Context, accessKeyID string) (Credential, error) {
	unknown := fault.New(fault.SignatureUnknown, "the access key id is not known here")
	if !validKeyID(accessKeyID) {
		return Credential{}, unknown
	}
	k, p, err := s.store.KeyAndPrincipal(ctx, accessKeyID)
	if errors.Is(err, fault.NotFound) {
		return Credential{}, unknown
	}
	if err != nil {
		return Credential{}, err
	}
	if k.Disabled || p.Disabled || k.Account != p.Account || k.Principal != p.ID {
		return Credential{}, unknown
	}
	return Credential{
		Caller: access.Caller{
			Account: k.Account, Principal: p.ID, Name: p.Name, AccessKey: k.ID, Roles: p.Roles, Workloads: p.Workloads,
		},
		Version: k.Version,
		Secret:  func(ctx context.Context) (secret.Text, error) { return s.openKey(ctx, k) },
		Used:    func() { s.uses.note(k.Account, k.ID, s.now()) },
	}, nil
}

// CreateAccessKey makes a key pair for a principal and returns its secret, which is shown this once. Only root may do
// that for a principal with the role root. A third enabled key is a Limit fault.
func (s *Service) CreateAccessKey(ctx context.Context, caller access.Caller, principalName string) (AccessKey, secret.Text, error) {
	facts := access.Facts{Resource: "principal/" + clip(principalName)}
	p, err := s.permitOn(ctx, caller, access.CreateAccessKey, principalName, facts)
	if err != nil {
		return AccessKey{}, secret.Text{}, err
	}
	if err := s.checkLiveKeys(ctx, p); err != nil {
		return AccessKey{}, secret.Text{}, err
	}
	k, secretKey, err := s.buildKey(ctx, p)
	if err != nil {
		return AccessKey{}, secret.Text{}, err
	}
	if err := s.store.CreateAccessKey(ctx, k); err != nil {
		return AccessKey{}, secret.Text{}, err
	}
	k.Secret = nil
	return k, secretKey, nil
}

// AccessKeys lists by id the keys of one principal, or with "" of all, never with their secrets.
func (s *Service) AccessKeys(ctx context.Context, caller access.Caller, principalName, after string, limit int) ([]AccessKey, string, error) {
	facts := access.Facts{}
	var of access.PrincipalID
	if principalName != "" {
		facts.Resource = "principal/" + clip(principalName)
	}
	if err := s.guard.Permit(ctx, caller, access.ListAccessKeys, facts); err != nil {
		return nil, "", err
	}
	if principalName != "" {
		p, err := s.store.PrincipalByName(ctx, caller.Account, principalName)
		if err != nil {
			return nil, "", err
		}
		of = p.ID
	}
	limit = pageSize(limit)
	found, err := s.store.AccessKeys(ctx, caller.Account, of, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	found, next := page(found, limit, func(k AccessKey) string { return k.ID })
	for i := range found {
		found[i].Secret = nil
	}
	return found, next, nil
}

// SetAccessKeyDisabled disables or enables one key. Only root may do that to a key of a principal with the role root.
func (s *Service) SetAccessKeyDisabled(ctx context.Context, caller access.Caller, id string, disabled bool) (AccessKey, error) {
	action := access.EnableAccessKey
	if disabled {
		action = access.DisableAccessKey
	}
	facts := access.Facts{Resource: "access-key/" + clip(id)}
	k, p, lookup := s.store.KeyAndPrincipal(ctx, id)
	if lookup == nil && k.Account != caller.Account {
		lookup = fault.New(fault.NotFound, "access key %q does not exist", id) // as the store says it of one that is not there
	}
	if err := s.permitOver(ctx, caller, action, p, lookup, facts); err != nil {
		return AccessKey{}, err
	}
	k, err := s.store.SetAccessKeyDisabled(ctx, caller.Account, id, disabled)
	if err != nil {
		return AccessKey{}, err
	}
	k.Secret = nil
	return k, nil
}

// EnsureRoot makes sure that the principal "root" and its given access key exist. It is for the start of the server,
// before anybody can call, and idempotent. It enables nothing that was disabled, and refuses a key that exists with
// another secret or for another principal. A fresh key id is the way back in when every key of root is disabled.
func (s *Service) EnsureRoot(ctx context.Context, account access.Account, keyID string, secretKey secret.Text) error {
	if err := s.checkRootKey(keyID, secretKey); err != nil {
		return err
	}
	root, created, err := s.ensureRootPrincipal(ctx, account)
	if err != nil {
		return err
	}
	made, err := s.ensureRootKey(ctx, root, keyID, secretKey)
	if err != nil {
		return err
	}
	if !created && !made {
		return nil
	}
	self := access.Caller{Account: account, Principal: root.ID, Name: root.Name, AccessKey: keyID, Roles: root.Roles}
	facts := access.Facts{Resource: "access-key/" + keyID, Outcome: "bootstrapped"}
	return s.guard.Event(ctx, self, access.CreateAccessKey, facts).Wait(ctx)
}

// HasRootKey reports whether the account's principal root has an access key, enabled or not: then this is not the first
// start on this database, and no server makes a root key of its own accord. It is for the start, as EnsureRoot is.
func (s *Service) HasRootKey(ctx context.Context, account access.Account) (bool, error) {
	root, err := s.store.PrincipalByName(ctx, account, RootName)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	keys, err := s.store.AccessKeys(ctx, account, root.ID, "", 1)
	return len(keys) > 0, err
}

func (s *Service) ensureRootPrincipal(ctx context.Context, account access.Account) (root Principal, created bool, err error) {
	root, err = s.store.PrincipalByName(ctx, account, RootName)
	if errors.Is(err, fault.NotFound) {
		root = s.rootOf(account)
		err = s.store.CreatePrincipal(ctx, root)
		if err == nil {
			return root, true, nil
		}
		if errors.Is(err, fault.Conflict) { // another replica was first
			root, err = s.store.PrincipalByName(ctx, account, RootName)
		}
	}
	if err != nil {
		return Principal{}, false, err
	}
	if !root.Has(access.Root) {
		return Principal{}, false, fault.New(fault.Conflict, "the principal root exists in account %s without the role root", account)
	}
	return root, false, nil
}

func (s *Service) ensureRootKey(ctx context.Context, root Principal, keyID string, secretKey secret.Text) (created bool, err error) {
	k, p, err := s.store.KeyAndPrincipal(ctx, keyID)
	if errors.Is(err, fault.NotFound) {
		_, err = s.createKey(ctx, root, keyID, secretKey)
		if err == nil {
			return true, nil
		}
		if errors.Is(err, fault.Conflict) { // another replica was first
			k, p, err = s.store.KeyAndPrincipal(ctx, keyID)
		}
	}
	if err != nil {
		return false, err
	}
	return false, s.sameRootKey(ctx, root, k, p, secretKey)
}

func (s *Service) sameRootKey(ctx context.Context, root Principal, k AccessKey, p Principal, want secret.Text) error {
	if k.Account != root.Account || p.ID != root.ID {
		return fault.New(fault.Conflict, "the root access key %s belongs to another principal: choose another id", k.ID)
	}
	have, err := s.openKey(ctx, k)
	if err != nil {
		return err
	}
	if !have.Equal(want) {
		return fault.New(fault.Conflict, "the root access key %s exists with another secret: choose another id", k.ID)
	}
	return nil
}

// checkRootKey refuses the key pair that AWS's documentation prints, except in dev mode (threat L04).
func (s *Service) checkRootKey(keyID string, secretKey secret.Text) error {
	switch {
	case !validKeyID(keyID):
		return fault.New(fault.Invalid, "the root access key id must be 16 to 128 letters, digits or underscores")
	case len(secretKey.Expose()) < 20 || len(secretKey.Expose()) > 256:
		return fault.New(fault.Invalid, "the root secret access key must be 20 to 256 characters long")
	case !s.dev && (keyID == "AKIAIOSFODNN7EXAMPLE" || secretKey.Equal(secret.New("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))):
		return fault.New(fault.Invalid, "the root access key is the one that AWS's documentation prints: choose another")
	}
	return nil
}

// permitOn finds a principal by name and decides as permitOver does.
func (s *Service) permitOn(ctx context.Context, caller access.Caller, action access.Action, name string, facts access.Facts) (Principal, error) {
	p, lookup := s.store.PrincipalByName(ctx, caller.Account, name)
	if err := s.permitOver(ctx, caller, action, p, lookup, facts); err != nil {
		return Principal{}, err
	}
	return p, nil
}

// permitOver decides about a principal, or one of its keys, before it tells by the error of the lookup whether there is
// one, or by a refusal that it has the role root (threat M19). Root alone may touch a principal that has that role.
func (s *Service) permitOver(ctx context.Context, caller access.Caller, action access.Action, p Principal, lookup error, facts access.Facts) error {
	if lookup == nil && p.Has(access.Root) && !caller.Has(access.Root) {
		d, err := s.guard.Decider.Decide(ctx, caller, action, facts)
		if err != nil {
			return err
		}
		if d.Allow { // else the refusal below, which is that of any principal
			return s.onlyRoot(ctx, caller, action, facts)
		}
	}
	if err := s.guard.Permit(ctx, caller, action, facts); err != nil {
		return err
	}
	return lookup
}

func (s *Service) checkLiveKeys(ctx context.Context, p Principal) error {
	live := 0
	for after := ""; ; {
		found, err := s.store.AccessKeys(ctx, p.Account, p.ID, after, maxPage)
		if err != nil {
			return err
		}
		for _, k := range found {
			if !k.Disabled {
				live++
			}
			after = k.ID
		}
		if live >= maxLiveKeys {
			return fault.New(fault.Limit, "principal %s has %d enabled access keys: disable one first", p.Name, live)
		}
		if len(found) < maxPage {
			return nil
		}
	}
}

func (s *Service) createKey(ctx context.Context, p Principal, id string, secretKey secret.Text) (AccessKey, error) {
	k, err := s.sealKey(ctx, p, id, secretKey)
	if err != nil {
		return AccessKey{}, err
	}
	return k, s.store.CreateAccessKey(ctx, k)
}

// sealKey builds the row of a key.
func (s *Service) sealKey(ctx context.Context, p Principal, id string, secretKey secret.Text) (AccessKey, error) {
	k := AccessKey{ID: id, Account: p.Account, Principal: p.ID, Owner: p.Name, Version: 1, Created: s.now()}
	sealed, err := s.vault.SealServer(ctx, vault.RingAccessKeys, keyContext(k), []byte(secretKey.Expose()))
	if err != nil {
		return AccessKey{}, err
	}
	k.Secret = sealed
	return k, nil
}

func (s *Service) openKey(ctx context.Context, k AccessKey) (secret.Text, error) {
	plain, err := s.vault.OpenServer(ctx, vault.RingAccessKeys, keyContext(k), k.Secret)
	if errors.Is(err, vault.ErrOpen) {
		return secret.Text{}, fault.Wrap(fault.Internal, err, "the stored secret of access key %s does not open", k.ID)
	}
	if err != nil {
		return secret.Text{}, err
	}
	defer clear(plain)
	return secret.New(string(plain)), nil
}

// keyContext is the associated data of a sealed secret access key: a row whose account, id or principal was changed
// in the database does not open.
func keyContext(k AccessKey) []byte {
	b := appendField(nil, "access-key")
	b = appendField(b, string(k.Account))
	b = appendField(b, k.ID)
	return appendField(b, string(k.Principal))
}

func validKeyID(id string) bool {
	if len(id) < 16 || len(id) > 128 {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// base62 returns n random letters and digits, each equally likely.
func base62(n int) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	out := make([]byte, 0, n)
	var b [64]byte
	for len(out) < n {
		_, _ = rand.Read(b[:]) // never fails
		for _, v := range b {
			if v < 4*62 && len(out) < n { // above, the first digits would be likelier
				out = append(out, digits[v%62])
			}
		}
	}
	return string(out)
}
