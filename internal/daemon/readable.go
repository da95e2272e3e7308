package daemon

import (
	"errors"
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
)

// startError is an error of the start as its operator reads it. What it wraps is unchanged.
type startError struct {
	text string
	err  error
}

func (e *startError) Error() string { return e.text }
func (e *startError) Unwrap() error { return e.err }

// readable takes the codes of faults out of an error's text: they are for programs.
func readable(err error) error { return &startError{sentence(err), err} }

func sentence(err error) string {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return err.Error()
	}
	text := f.Msg
	if f.Err != nil {
		text += ": " + sentence(f.Err)
	}
	return strings.Replace(err.Error(), f.Error(), text, 1)
}
