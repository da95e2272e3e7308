// Package secret has Text, a value that refuses to be printed or marshaled.
//
// Security argument: a secret that is a string ends in a log sooner or later, because every formatter in Go prints
// strings. Text keeps its value in a closure, so reflection finds a func instead of the bytes, printing masks it and
// marshaling fails. The only way to the value is Expose, whose callers arch_test.go lists.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const mask = "[secret]"

// ErrMarshal is returned by every marshaler of Text. A mask that marshals would be data loss at its first round trip.
var ErrMarshal = errors.New("secret: a secret.Text does not marshal")

// Text is a sensitive string. The zero Text is empty. It is safe for concurrent use and does not compare with ==.
type Text struct{ get func() string }

// New wraps s.
func New(s string) Text {
	if s == "" {
		return Text{}
	}
	return Text{get: func() string { return s }}
}

// Expose returns the value. Call it only where the value leaves for an outgoing request, a sealed plaintext or one
// field of an answer.
func (t Text) Expose() string {
	if t.get == nil {
		return ""
	}
	return t.get()
}

// IsZero reports whether the text is empty.
func (t Text) IsZero() bool { return t.get == nil }

// Equal compares in constant time for texts of equal length.
func (t Text) Equal(u Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Expose()), []byte(u.Expose())) == 1
}

// Fingerprint names a high-entropy secret without revealing it: the first 8 hexadecimal digits of its SHA-256.
// Never use it for a password or anything else that can be guessed.
func (t Text) Fingerprint() string {
	sum := sha256.Sum256([]byte(t.Expose()))
	return hex.EncodeToString(sum[:4])
}

// Format masks the value under every verb and flag.
func (t Text) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, mask) }

// LogValue masks the value in log/slog.
func (t Text) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalJSON always fails with ErrMarshal.
func (t Text) MarshalJSON() ([]byte, error) { return nil, ErrMarshal }

// MarshalText always fails with ErrMarshal.
func (t Text) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// MarshalBinary always fails with ErrMarshal.
func (t Text) MarshalBinary() ([]byte, error) { return nil, ErrMarshal }
