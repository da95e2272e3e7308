// Package fault has the one error type: a stable code, a sentence for the caller, and a cause for the operator.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Code says what kind of failure it is. It is stable API and itself an error, so that errors.Is(err, fault.NotFound)
// holds for every Error that carries it.
type Code string

// The codes. awsapi maps each to an exception and an HTTP status.
const (
	Invalid         Code = "invalid"         // the request breaks a constraint; Field names the member
	Unauthenticated Code = "unauthenticated" // a token of a user or workload is bad, expired or not trusted
	Denied          Code = "denied"          // the caller is known and may not
	NotFound        Code = "not_found"       // absent, or somebody else's
	Conflict        Code = "conflict"        // exists already, or changed meanwhile
	Limit           Code = "limit"           // a quota or bound of the account is reached
	Throttled       Code = "throttled"       // too many requests now
	TooLarge        Code = "too_large"       // the request body is over its bound
	Unavailable     Code = "unavailable"     // an IdP, a provider, the key service or the store is down; try again
	Internal        Code = "internal"        // a fault of ours; the caller sees nothing but the code

	// Failures of the caller's own signature (SigV4), kept apart because AWS SDKs branch on them.
	SignatureMissing   Code = "signature_missing"
	SignatureInvalid   Code = "signature_invalid"
	SignatureUnknown   Code = "signature_unknown_key"
	CredentialsExpired Code = "credentials_expired"
)

// Error makes a Code usable as the target of errors.Is.
func (c Code) Error() string { return string(c) }

// Error is a classified failure.
type Error struct {
	Code  Code
	Msg   string        // public: lower case, no full stop, names what the caller sent and never what we hold
	Field string        // the member of the request at fault, for Invalid; may be empty
	Err   error         // private cause, for the log only; may be nil
	After time.Duration // public: how long to wait before another try; 0 where that is not known
}

// New returns an Error without a cause.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Field returns an Invalid error about one member of the request.
func Field(field, format string, args ...any) *Error {
	return &Error{Code: Invalid, Field: field, Msg: fmt.Sprintf(format, args...)}
}

// Wrap returns an Error with the private cause err.
func Wrap(code Code, err error, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...), Err: err}
}

// Error has everything, for logs. Answers use Public.
func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Code) + ": " + e.Msg
	}
	return string(e.Code) + ": " + e.Msg + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is this error's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Public returns what a caller may read of err: the outermost classification, or Internal with a fixed text where
// there is none.
func Public(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Code: e.Code, Msg: e.Msg, Field: e.Field, After: e.After}
	}
	return &Error{Code: Internal, Msg: "internal error"}
}

// CodeOf returns the outermost code of err, Internal where it has none, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return Public(err).Code
}
