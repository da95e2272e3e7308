package kms

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	fileMagic   = "tabard-key-1:"
	fileKeySize = 32
	fileMax     = 1024 // bytes; a key file has 58

	wrapFormat = 0x01
	wrapHeader = 1 + 4 // the format byte and the key's id
)

// File wraps with AES-256-GCM under the key in a file. It is pinned to the key that the file held when it was opened,
// and reads the file at each call: without the file, or with another key in it, nothing is wrapped or unwrapped.
type File struct {
	path string
	id   string // secret.Text.Fingerprint of the key
}

// OpenFile opens the key file at path, as Open does.
func OpenFile(path string) (*File, error) {
	if path == "" || strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///") {
		return nil, fault.New(fault.Invalid, "key file %q: give a path, as in file:/etc/tabard/key", path)
	}
	key, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return &File{path: path, id: key.Fingerprint()}, nil
}

// URI names the key by the first 8 hexadecimal digits of its SHA-256, and not by the path: a file may move. 32 random
// bytes cannot be guessed from it.
func (f *File) URI() string { return "file:" + f.id }

// Wrap returns the format byte, the key's id (4 bytes), and AES-256-GCM of key (nonce, ciphertext, tag). The first
// five bytes and context are the associated data.
func (f *File) Wrap(_ context.Context, context, key []byte) ([]byte, error) {
	aead, header, err := f.aead()
	if err != nil {
		return nil, err
	}
	return append(header, aead.Seal(nil, nil, key, associatedData(header, context))...), nil
}

// Unwrap reverses Wrap. It returns a Denied fault where the key is gone, is another one, or where wrapped or context
// is not what it was.
func (f *File) Unwrap(_ context.Context, context, wrapped []byte) ([]byte, error) {
	aead, header, err := f.aead()
	if err != nil {
		return nil, err
	}
	if len(wrapped) < wrapHeader || wrapped[0] != wrapFormat {
		return nil, fault.New(fault.Denied, "what is stored of the vault was not wrapped by a key file")
	}
	if !bytes.Equal(wrapped[:wrapHeader], header) {
		return nil, fault.New(fault.Denied, "the key file is not the one that wrapped this vault: it holds key %s, and the vault needs key %x",
			f.id, wrapped[1:wrapHeader])
	}
	key, err := aead.Open(nil, nil, wrapped[wrapHeader:], associatedData(header, context))
	if err != nil {
		return nil, fault.New(fault.Denied,
			"the key file does not unwrap this vault: what is stored was changed, or belongs to another vault, account or region")
	}
	return key, nil
}

// associatedData is the header of what is wrapped, then the caller's context. The header has a fixed length.
func associatedData(header, context []byte) []byte {
	return append(bytes.Clone(header), context...)
}

// aead reads the key. A key that cannot be used any more counts as taken away: Denied.
func (f *File) aead() (cipher.AEAD, []byte, error) {
	text, err := readFile(f.path)
	if code := fault.CodeOf(err); code == fault.NotFound || code == fault.Invalid {
		// As text, so that nobody finds the inner code.
		return nil, nil, fault.New(fault.Denied, "the key cannot be used any more: %s", fault.Public(err).Msg)
	}
	if err != nil {
		return nil, nil, err
	}
	if text.Fingerprint() != f.id {
		return nil, nil, fault.New(fault.Denied,
			"the key file is not the one this server started with: it holds key %s, and the server uses key %s", text.Fingerprint(), f.id)
	}
	key := []byte(text.Expose())
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, err, "the key cannot be used")
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, err, "the key cannot be used")
	}
	header := append(make([]byte, 0, wrapHeader), wrapFormat)
	header, err = hex.AppendDecode(header, []byte(f.id))
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, err, "the key has no id")
	}
	return aead, header, nil
}

// readFile returns the 32 bytes of the key at path. The permissions are those of the file that is read, not of one
// that had the name a moment before.
func readFile(path string) (secret.Text, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return secret.Text{}, fault.Wrap(fault.NotFound, err, "key file %s does not exist", path)
	}
	if errors.Is(err, fs.ErrPermission) {
		return secret.Text{}, fault.Wrap(fault.Invalid, err, "key file %s: this user may not read it", path)
	}
	if err != nil {
		return secret.Text{}, fault.Wrap(fault.Unavailable, err, "key file %s cannot be opened", path)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return secret.Text{}, fault.Wrap(fault.Unavailable, err, "key file %s cannot be read", path)
	}
	if !info.Mode().IsRegular() {
		return secret.Text{}, fault.New(fault.Invalid, "key file %s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return secret.Text{}, fault.New(fault.Invalid, "key file %s has mode %04o, so others on this machine may have it: run chmod 600 %s",
			path, info.Mode().Perm(), path)
	}
	content, err := io.ReadAll(io.LimitReader(file, fileMax+1))
	if err != nil {
		return secret.Text{}, fault.Wrap(fault.Unavailable, err, "key file %s cannot be read", path)
	}
	defer clear(content)
	return parse(path, content)
}

// parse reads the one line of a key file.
func parse(path string, content []byte) (secret.Text, error) {
	line := bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	encoded, ok := bytes.CutPrefix(line, []byte(fileMagic))
	// The decoder would skip line breaks.
	if ok && !bytes.ContainsAny(encoded, "\r\n") {
		key, err := base64.StdEncoding.Strict().AppendDecode(nil, encoded)
		defer clear(key)
		if err == nil && len(key) == fileKeySize {
			return secret.New(string(key)), nil
		}
	}
	// The decoder's error is left out: it may quote the content.
	return secret.Text{}, fault.New(fault.Invalid, "key file %s is not a key of Tabard: it must have one line, %s and the base64 of 32 bytes",
		path, fileMagic)
}
