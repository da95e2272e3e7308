// Package kms reaches the keys that wrap vault keys.
//
// Security argument: whoever holds a wrapping key and a copy of the database reads everything, so a Wrapper keeps no
// copy of the key between two calls, binds the vault's name into what it wraps, and refuses a key that others on the
// machine could have read. Taking the key away is enough to close the vaults.
package kms

import (
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/vault"
)

// Open returns the Wrapper for the key that uri names: "file:PATH" is a key file (see File). It reads the key once,
// and so fails at the start rather than at the first use. The error is NotFound where there is no key yet, Invalid
// where the URI or the key cannot be used, Unavailable where reading fails.
func Open(uri string) (vault.Wrapper, error) {
	scheme, rest, _ := strings.Cut(uri, ":")
	switch scheme {
	case "file":
		f, err := OpenFile(rest)
		if err != nil {
			return nil, err // and not f: a nil *File is a Wrapper that is not nil
		}
		return f, nil
	}
	return nil, fault.New(fault.Invalid, "key %q: the scheme must be file, as in file:/etc/tabard/key", uri)
}
