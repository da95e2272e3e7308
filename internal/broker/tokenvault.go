package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// DefaultVault is the id of every account's one token vault.
const DefaultVault = "default"

// VaultTagStore keeps the tags of token vaults.
type VaultTagStore interface {
	// VaultTags returns the tags and their version, or NotFound where none was ever set.
	VaultTags(ctx context.Context, account access.Account, name string) (tags map[string]string, version int64, err error)
	// SwapVaultTags replaces the tags where their version is still oldVersion, 0 where none was ever set, else returns
	// Conflict.
	SwapVaultTags(ctx context.Context, account access.Account, name string, tags map[string]string, oldVersion int64) error
}

// TokenVault is what there is to say of a token vault: its key is the server's.
type TokenVault struct {
	ID       string
	Modified time.Time
}

// TokenVault describes the account's token vault. id is DefaultVault or "", which means it; there is no other.
func (b *Broker) TokenVault(ctx context.Context, caller access.Caller, id string) (TokenVault, error) {
	return b.tokenVault(ctx, caller, access.GetTokenVault, id)
}

// KeepServiceKey leaves the vault under the server's key: the one form of SetTokenVaultCMK that can be done.
func (b *Broker) KeepServiceKey(ctx context.Context, caller access.Caller, id string) (TokenVault, error) {
	return b.tokenVault(ctx, caller, access.SetTokenVaultCMK, id)
}

// UseCustomerKey refuses, for there are no customer keys yet. It decides and records as what can be done does.
func (b *Broker) UseCustomerKey(ctx context.Context, caller access.Caller, id string) error {
	if _, err := b.tokenVault(ctx, caller, access.SetTokenVaultCMK, id); err != nil {
		return err
	}
	return fault.Field("kmsConfiguration.keyType", "CustomerManagedKey is not offered by this server yet: customers' keys come with a later release, and the vault stays under the server's key")
}

// ResetVaultKey refuses: a key can be reset only where it was deleted, as at AWS, and the server's key was not, or
// the vault would not have opened.
func (b *Broker) ResetVaultKey(ctx context.Context, caller access.Caller, id string) error {
	if _, err := b.tokenVault(ctx, caller, access.ResetTokenVaultKeyMaterial, id); err != nil {
		return err
	}
	return fault.Field("tokenVaultId", "the key of the token vault is not deleted, so its key material cannot be reset")
}

func (b *Broker) tokenVault(ctx context.Context, caller access.Caller, action access.Action, id string) (TokenVault, error) {
	if id == "" {
		id = DefaultVault
	}
	if err := b.guard.Permit(ctx, caller, action, access.Facts{Resource: b.vaultARN(caller.Account, id)}); err != nil {
		return TokenVault{}, err
	}
	if id != DefaultVault {
		return TokenVault{}, fault.New(fault.NotFound, "token vault %s does not exist: an account has the one named %s", id, DefaultVault)
	}
	at, err := b.vault.Modified(ctx, caller.Account)
	return TokenVault{ID: id, Modified: at}, err
}

func (b *Broker) vaultARN(account access.Account, id string) string {
	return fmt.Sprintf("arn:aws:bedrock-agentcore:%s:%s:token-vault/%s", b.region, account, id)
}
