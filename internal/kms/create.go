package kms

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tabard-id/tabard/internal/fault"
)

// CreateFile makes a key file with a new random key at path, mode 0600, and the directories above it that are missing,
// mode 0700. The file is on disk, whole, when it returns, and never half there. It never replaces a file: where path
// exists, whatever it is, the error is a Conflict fault. Of two that race one wins, and the other gets Conflict.
func CreateFile(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(fault.Invalid, err, "the directory of key file %s cannot be made", path)
	}
	temp, err := writeTemp(dir)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "key file %s cannot be written", path)
	}
	// A hard link and not a rename: a rename would replace the key of another process that was faster, and with it
	// everything that process has wrapped.
	err = os.Link(temp, path)
	removed := os.Remove(temp)
	if errors.Is(err, fs.ErrExist) {
		return fault.Wrap(fault.Conflict, err, "key file %s exists already", path)
	}
	if err = errors.Join(err, removed, syncDir(dir)); err != nil {
		return fault.Wrap(fault.Unavailable, err, "key file %s cannot be written", path)
	}
	return nil
}

// writeTemp writes a new key to a new file in dir and returns its name.
func writeTemp(dir string) (string, error) {
	key := make([]byte, fileKeySize)
	_, _ = rand.Read(key) // never fails: see crypto/rand
	defer clear(key)
	line := append(base64.StdEncoding.AppendEncode([]byte(fileMagic), key), '\n')
	defer clear(line)
	file, err := os.CreateTemp(dir, ".tabard-key-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = file.Write(line)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}

// syncDir makes the new name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
