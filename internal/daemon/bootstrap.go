package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/secret"
)

// credentialsFile is written once, in AWS's shared-credentials form, below the data directory.
const credentialsFile = "credentials"

// Profile is the name of the profile in the credentials file.
const Profile = "tabard"

// CredentialsPath returns where the root credentials of a data directory are written.
func CredentialsPath(dataDir string) string { return filepath.Join(dataDir, credentialsFile) }

// prepareDir makes the data directory, or refuses one that others can read.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the data directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("the data directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("the data directory %s is not a directory", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the data directory %s can be read by others (mode %04o): run chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	if err := CheckOwner(dir); err != nil {
		return fmt.Errorf("%w: run the server as that user, or name a directory of your own with --data-dir", err)
	}
	return nil
}

// ensureKey makes the key file where there is none and nothing has been sealed yet. It reports whether it did.
func ensureKey(path string, fresh bool) (bool, error) {
	_, err := os.Stat(path)
	if err == nil {
		return false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("the key file: %w", err)
	}
	if !fresh {
		return false, fmt.Errorf("the key file %s does not exist, and the database holds what it sealed: put the key back or name it with --key-file; "+
			"a new key cannot open the old values", path)
	}
	if err := kms.CreateFile(path); err != nil {
		return false, err
	}
	return true, nil
}

// rootKey is the root access key that a start found or made.
type rootKey struct {
	id     string
	secret secret.Text
	wrote  bool // it is new, and in the credentials file
}

// rootCredentials returns the root access key: the configured one, else the one in the credentials file, else, at the
// first start on a database (exists says no), a new one that is written there. The file is durable before the key is
// stored, so that no start leaves a key behind that nobody knows. The zero rootKey means that the key was made by
// another server of this database, or that its file was put away: a second one is not made behind its owner's back.
func (c Config) rootCredentials(exists func() (bool, error)) (rootKey, error) {
	if c.RootAccessKeyID != "" {
		return rootKey{id: c.RootAccessKeyID, secret: c.RootSecretAccessKey}, nil
	}
	path := CredentialsPath(c.DataDir)
	id, key, err := ReadCredentials(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return rootKey{id: id, secret: key}, err
	}
	if there, err := exists(); there || err != nil {
		return rootKey{}, err
	}
	id, key = "TABARD"+rand.Text()[:14], secret.New("tabard_"+rand.Text()+rand.Text()[:14])
	return rootKey{id, key, true}, WriteCredentials(path, id, key)
}

// writeNew writes a file that did not exist, readable by its owner only, durably.
func writeNew(path string, body []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ReadCredentials reads the profile of the credentials file. A profile whose lines were removed (because the operator
// has put the key elsewhere) is an error that says what to do.
func ReadCredentials(path string) (id string, key secret.Text, err error) {
	doc, err := os.ReadFile(path)
	if err != nil {
		return "", secret.Text{}, err
	}
	for line := range strings.Lines(string(doc)) {
		name, value, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(name) {
		case "aws_access_key_id":
			id = strings.TrimSpace(value)
		case "aws_secret_access_key":
			key = secret.New(strings.TrimSpace(value))
		}
	}
	if id == "" || key.IsZero() {
		return "", secret.Text{}, fmt.Errorf("%s holds no access key: restore it, or give TABARD_ROOT_ACCESS_KEY_ID and TABARD_ROOT_SECRET_ACCESS_KEY_FILE", path)
	}
	return id, key, nil
}
