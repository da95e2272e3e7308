package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

// The exit codes. They are stable: scripts branch on them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitConsent     = 3
	exitDenied      = 4
	exitUnavailable = 5
)

func exitCodeTable() string {
	return fmt.Sprintf(`Exit codes:
  %d  done
  %d  failed
  %d  usage: the command line, a setting or a value in it is wrong
  %d  consent required: a user must consent first
  %d  denied: the access key is missing, wrong or may not do this
  %d  unavailable: no server answers, or it asks to try again`, exitOK, exitFailed, exitUsage, exitConsent, exitDenied, exitUnavailable)
}

func newExitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodeTable()} // a help topic
}

// failure is what main prints: a sentence, what to do about it, and the exit code.
type failure struct {
	exit  int
	msg   string
	hints []string
	err   error
}

func (f *failure) Error() string { return f.msg }
func (f *failure) Unwrap() error { return f.err }

// ownHelp is a hint that stands for the help of the command that failed.
const ownHelp = "--help has examples"

func usage(hint, format string, args ...any) *failure {
	return &failure{exit: exitUsage, msg: fmt.Sprintf(format, args...), hints: []string{hint}}
}

func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if e, ok := errors.AsType[*apiError](err); ok {
		return e.failure()
	}
	return &failure{exit: exitFailed, msg: oneLine(err.Error()), err: err}
}

// apiError is an answer of the server that is not a success.
type apiError struct {
	status    int
	exception string // such as AccessDeniedException
	message   string
	requestID string
}

func (e *apiError) Error() string { return e.message }

// failure classifies by the exception's name and, where that is foreign, by the status.
func (e *apiError) failure() *failure {
	f := &failure{exit: exitFailed, msg: e.message, err: e}
	switch e.exception {
	case api.ExceptionValidation:
		f.exit = exitUsage
	case api.ExceptionAccessDenied, api.ExceptionUnauthorized:
		f.exit = exitDenied
	case api.ExceptionUnrecognizedClient, api.ExceptionInvalidSignature, api.ExceptionMissingAuthenticationToken, api.ExceptionExpiredToken:
		f.exit = exitDenied
		f.hints = append(f.hints, "the server does not accept this access key: check AWS_PROFILE and AWS_ACCESS_KEY_ID, or run: eval \"$(tabard env)\"")
	case api.ExceptionServiceUnavailable, api.ExceptionThrottling:
		f.exit = exitUnavailable
	case api.ExceptionUnknownOperation:
		f.hints = append(f.hints, "the server at this endpoint is not Tabard, or is older than this command")
	case api.ExceptionInternalServer:
		f.hints = append(f.hints, "the server's log has the cause, under request id "+e.requestID)
	default:
		f.exit = exitByStatus(e.status)
	}
	return f
}

func exitByStatus(status int) int {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitDenied
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exitUnavailable
	}
	return exitFailed
}

// counted is a number of things.
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// hinted adds a hint to what a command fails with.
func hinted(err error, format string, args ...any) error {
	f := *asFailure(err)
	f.hints = append(slices.Clone(f.hints), fmt.Sprintf(format, args...))
	return &f
}

// excepted reports whether the server answered with the exception.
func excepted(err error, exception string) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && e.exception == exception
}

// oneLine makes foreign text safe for a terminal: no control characters, no line breaks.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
}
