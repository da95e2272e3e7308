package vault

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// Modified says when the account's vault "default" was changed last. A vault is made at its first use, and this is one.
// The error is as for Seal.
func (v *Vault) Modified(ctx context.Context, account access.Account) (time.Time, error) {
	if _, err := v.account(ctx, account, true); err != nil {
		return time.Time{}, err
	}
	r, err := v.store.VaultRow(ctx, account, "default")
	return r.Modified, err
}
