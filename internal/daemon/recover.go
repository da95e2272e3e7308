package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// Recovered is the root access key that RecoverRoot made.
type Recovered struct {
	AccessKeyID string
	Secret      secret.Text
	Path        string // the credentials file that has it; "" where it is another account's and was not written
}

// RecoverRoot gives an account's root principal a new access key, enables it and disables all its other keys, straight
// in the database: for whoever has lost the root key and holds the server's own. account "" is the installation's own,
// whose new key is also written to the data directory's credentials file. A server may run on a PostgreSQL database
// meanwhile, and takes the new key within a second; one on SQLite has to be stopped first, which the error says. Where
// the file cannot be written, the key is in the answer all the same.
func RecoverRoot(ctx context.Context, c Config, account string) (Recovered, error) {
	c = c.withDefaults()
	if account == "" {
		account = c.Account
	}
	if err := errors.Join(c.check(), c.recoverable()); err != nil {
		return Recovered{}, err
	}
	s := &Server{config: c, metrics: newMetrics()}
	defer s.Close()
	k, key, err := s.recoverRoot(ctx, access.Account(account))
	if err != nil {
		return Recovered{}, readable(err)
	}
	out := Recovered{AccessKeyID: k.ID, Secret: key}
	if account != c.Account {
		return out, nil
	}
	out.Path = CredentialsPath(c.DataDir)
	return out, WriteCredentials(out.Path, k.ID, key)
}

// recoverable refuses to recover what is not there: opening would make it.
func (c Config) recoverable() error {
	if _, err := os.Stat(c.KeyFile); err != nil {
		return fmt.Errorf("recovery needs the server's key: %w", err)
	}
	if c.DB != SQLite {
		return nil
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, "tabard.db")); err != nil {
		return fmt.Errorf("recovery needs the server's database: %w", err)
	}
	return nil
}

func (s *Server) recoverRoot(ctx context.Context, account access.Account) (identity.AccessKey, secret.Text, error) {
	var none identity.AccessKey
	var err error
	if s.db, err = openStore(ctx, s.config); err != nil {
		if errors.Is(err, fault.Conflict) && s.config.DB == SQLite {
			err = fmt.Errorf("%w: stop it first, then recover", err)
		}
		return none, secret.Text{}, err
	}
	if _, err := s.openVault(ctx); err != nil {
		return none, secret.Text{}, err
	}
	if _, err := s.db.Account(ctx, account); err != nil {
		return none, secret.Text{}, err
	}
	s.guard = access.NewGuard(access.Config{Log: s.db, Now: s.config.Now, Decider: access.Table{}})
	people, err := identity.New(identity.Config{
		Store: s.db, Vault: s.vault, Guard: s.guard, Keys: noKeys{}, Issuer: "tabard:recovery", Region: s.config.Region, Now: s.config.Now,
	})
	if err != nil {
		return none, secret.Text{}, err
	}
	return people.RecoverRoot(ctx, account)
}

// noKeys is for a run that verifies no tokens.
type noKeys struct{}

// JWKS implements identity.KeySource.
func (noKeys) JWKS(context.Context, access.Account, string, string) ([]byte, error) {
	return nil, fault.New(fault.Unavailable, "no keys are fetched during a recovery")
}

// WriteCredentials replaces a credentials file by one with the root access key, readable by its owner only, durably.
func WriteCredentials(path, id string, key secret.Text) error {
	return writeNew(filepath.Clean(path), credentialsText(id, key))
}

func credentialsText(id string, key secret.Text) []byte {
	return fmt.Appendf(nil, "# Tabard's root access key, written once. It may do everything in its account: make principals for daily use\n"+
		"# (tabard principal create), then keep this file somewhere safe. Not part of backups.\n"+
		"[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", Profile, id, key.Expose())
}
