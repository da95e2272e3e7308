package fault_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
)

func TestCodeIsAnError(t *testing.T) {
	inner := fault.Wrap(fault.NotFound, io.EOF, "no such workload %q", "w")
	err := fmt.Errorf("load: %w", inner)
	if !errors.Is(err, fault.NotFound) || errors.Is(err, fault.Denied) || !errors.Is(err, io.EOF) {
		t.Errorf("errors.Is does not see the code or the cause of %v", err)
	}
	if got, want := err.Error(), `load: not_found: no such workload "w": EOF`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPublicHidesTheCause(t *testing.T) {
	outer := fault.Wrap(fault.Unavailable, fault.New(fault.NotFound, "row 7"), "the store does not answer")
	if got := fault.Public(fmt.Errorf("x: %w", outer)); got.Code != fault.Unavailable || got.Msg != "the store does not answer" || got.Err != nil {
		t.Errorf("got %+v, want the outermost classification without cause", got)
	}
	if got := fault.Public(errors.New("dial 10.0.0.3: refused")); got.Code != fault.Internal || got.Msg != "internal error" {
		t.Errorf("got %+v, want internal error", got)
	}
	if fault.CodeOf(nil) != "" || fault.CodeOf(io.EOF) != fault.Internal {
		t.Error("CodeOf is wrong")
	}
}
