package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// APIKeyProvider is an API-key credential provider: one key, which every agent of the account may be given.
type APIKeyProvider struct {
	Account  access.Account
	Name     string
	UID      string // immutable; a recreated name gets another
	Key      vault.Sealed
	SecretID string // random suffix of the secret's ARN
	Tags     map[string]string
	Version  int64
	Created  time.Time
	Updated  time.Time
}

// APIKeyStore keeps API-key credential providers.
type APIKeyStore interface {
	// CreateAPIKeyProvider returns Conflict where the name exists.
	CreateAPIKeyProvider(ctx context.Context, p APIKeyProvider) error
	// APIKeyProvider finds by name and may be up to one second old.
	APIKeyProvider(ctx context.Context, account access.Account, name string) (APIKeyProvider, error)
	APIKeyProviders(ctx context.Context, account access.Account, after string, limit int) ([]APIKeyProvider, error)
	// SwapAPIKeyProvider replaces the row of p.UID where its version is still oldVersion, else returns Conflict.
	SwapAPIKeyProvider(ctx context.Context, p APIKeyProvider, oldVersion int64) error
	DeleteAPIKeyProvider(ctx context.Context, account access.Account, name string) error
}

// APIKeySpec is what an administrator says of an API-key provider. Tags count at creation only.
type APIKeySpec struct {
	Name string
	Key  secret.Text
	Tags map[string]string
}

// ARN returns the provider's ARN.
func (p APIKeyProvider) ARN(region string) string {
	return fmt.Sprintf("arn:aws:bedrock-agentcore:%s:%s:token-vault/default/apikeycredentialprovider/%s", region, p.Account, p.Name)
}

// SecretARN returns the ARN under which the API names the key.
func (p APIKeyProvider) SecretARN(region string) string {
	return fmt.Sprintf("arn:aws:secretsmanager:%s:%s:secret:bedrock-agentcore-identity!default/apikey/%s-%s", region, p.Account, p.Name, p.SecretID)
}

// keyRef says where the key is sealed.
func (p APIKeyProvider) keyRef() vault.Ref {
	return vault.Ref{Account: p.Account, Table: "api_key_providers", Column: "api_key", Key: p.UID, Provider: p.UID}
}

// CreateAPIKeyProvider stores a provider and its key. A name that exists is a Conflict.
func (b *Broker) CreateAPIKeyProvider(ctx context.Context, caller access.Caller, s APIKeySpec) (APIKeyProvider, error) {
	p := APIKeyProvider{Account: caller.Account, Name: s.Name, Tags: s.Tags, Version: 1}
	facts := access.Facts{Provider: s.Name, Resource: p.ARN(b.region)}
	if err := b.guard.Permit(ctx, caller, access.CreateAPIKeyCredentialProvider, facts); err != nil {
		return APIKeyProvider{}, err
	}
	if err := identity.CheckTags(s.Tags); err != nil {
		return APIKeyProvider{}, err
	}
	if err := s.check(); err != nil {
		return APIKeyProvider{}, err
	}
	p.UID, p.SecretID = "ak_"+random(15), secretSuffix()
	p.Created = b.now()
	p.Updated = p.Created
	var err error
	if p.Key, err = b.vault.Seal(ctx, p.keyRef(), s.Key); err != nil {
		return APIKeyProvider{}, err
	}
	if err := b.store.CreateAPIKeyProvider(ctx, p); err != nil {
		if fault.CodeOf(err) == fault.Conflict {
			return APIKeyProvider{}, fault.New(fault.Conflict, "Credential provider with name: %s already exists", s.Name)
		}
		return APIKeyProvider{}, err
	}
	return p, nil
}

func (s APIKeySpec) check() error {
	if s.Key.IsZero() {
		return fault.Field("apiKey", "is needed, and cannot be empty")
	}
	return nil
}

// APIKeyProvider returns one provider, with its key still sealed.
func (b *Broker) APIKeyProvider(ctx context.Context, caller access.Caller, name string) (APIKeyProvider, error) {
	if err := b.guard.Permit(ctx, caller, access.GetAPIKeyCredentialProvider, access.Facts{Provider: name}); err != nil {
		return APIKeyProvider{}, err
	}
	return b.findAPIKey(ctx, caller.Account, name)
}

// findAPIKey gives an absence the words of the live service.
func (b *Broker) findAPIKey(ctx context.Context, account access.Account, name string) (APIKeyProvider, error) {
	p, err := b.store.APIKeyProvider(ctx, account, name)
	return p, noAPIKey(err, name)
}

func noAPIKey(err error, name string) error {
	if fault.CodeOf(err) == fault.NotFound {
		return fault.New(fault.NotFound, "ApiKeyCredentialProvider not found for %s", name)
	}
	return err
}

// APIKeyProviders returns up to limit providers with names after the given one, and the name to continue after, or "".
func (b *Broker) APIKeyProviders(ctx context.Context, caller access.Caller, after string, limit int) ([]APIKeyProvider, string, error) {
	if err := b.guard.Permit(ctx, caller, access.ListAPIKeyCredentialProviders, access.Facts{}); err != nil {
		return nil, "", err
	}
	list, err := b.store.APIKeyProviders(ctx, caller.Account, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	if len(list) > limit {
		return list[:limit], list[limit-1].Name, nil
	}
	return list, "", nil
}

// UpdateAPIKeyProvider replaces the key. Agents get the new one from the next call on.
func (b *Broker) UpdateAPIKeyProvider(ctx context.Context, caller access.Caller, s APIKeySpec) (APIKeyProvider, error) {
	if err := b.guard.Permit(ctx, caller, access.UpdateAPIKeyCredentialProvider, access.Facts{Provider: s.Name}); err != nil {
		return APIKeyProvider{}, err
	}
	p, err := b.findAPIKey(ctx, caller.Account, s.Name)
	if err != nil {
		return APIKeyProvider{}, err
	}
	if err := s.check(); err != nil {
		return APIKeyProvider{}, err
	}
	old := p.Version
	p.Version, p.Updated = old+1, b.now()
	if p.Key, err = b.vault.Seal(ctx, p.keyRef(), s.Key); err != nil {
		return APIKeyProvider{}, err
	}
	if err := b.store.SwapAPIKeyProvider(ctx, p, old); err != nil {
		if fault.CodeOf(err) == fault.Conflict {
			return APIKeyProvider{}, fault.Wrap(fault.Conflict, err, "API-key provider %s was changed meanwhile: read it and try again", s.Name)
		}
		return APIKeyProvider{}, err
	}
	return p, nil
}

// DeleteAPIKeyProvider deletes a provider with its key.
func (b *Broker) DeleteAPIKeyProvider(ctx context.Context, caller access.Caller, name string) error {
	if err := b.guard.Permit(ctx, caller, access.DeleteAPIKeyCredentialProvider, access.Facts{Provider: name}); err != nil {
		return err
	}
	return noAPIKey(b.store.DeleteAPIKeyProvider(ctx, caller.Account, name), name)
}

// APIKey releases a provider's key to the caller that is paired with the workload identity of the workload access
// token, with or without a user in it. The key belongs to the account and not to the user, so the user only counts
// where the provider is tagged to serve verified users.
//
// Errors: Unauthenticated for a bad or expired workload access token; Denied where the caller is not paired with the
// workload identity; NotFound for an unknown provider; Unavailable where the key service or the trail cannot be had.
func (b *Broker) APIKey(ctx context.Context, caller access.Caller, wat secret.Text, provider string) (secret.Text, error) {
	const action = access.GetResourceAPIKey
	t, err := b.identity.Open(ctx, caller, action, wat, access.Facts{Provider: provider}, false)
	if err != nil {
		return secret.Text{}, err
	}
	f := t.Facts
	p, missing := b.findAPIKey(ctx, caller.Account, provider)
	var rule string
	var refused error
	if missing == nil {
		if rule, refused, err = b.bars(ctx, t.Token, p.UID, p.Name, p.Tags); err != nil {
			return secret.Text{}, err
		}
	}
	f.Outcome, f.Released = "released", true
	if missing != nil || refused != nil {
		f.Outcome, f.Released = "error", false
	}
	receipt, err := b.guard.Check(ctx, caller, action, f) // before it is told what exists
	switch {
	case err != nil:
		return secret.Text{}, err
	case missing != nil:
		if err := receipt.Wait(ctx); err != nil {
			return secret.Text{}, err
		}
		return secret.Text{}, missing
	case refused != nil:
		f.Outcome = "refused"
		return secret.Text{}, b.guard.Refuse(ctx, caller, action, rule, f, refused)
	}
	key, err := b.vault.Open(ctx, p.keyRef(), p.Key)
	if err != nil {
		return secret.Text{}, err
	}
	if err := receipt.Wait(ctx); err != nil {
		return secret.Text{}, err
	}
	return key, nil
}
