package tabard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// sessionLife is how long a consent session lives, at AWS and here.
const sessionLife = 10 * time.Minute

// Consent is what a user has to do before a token exists: open URL in a browser and agree. Printing and logging it
// hides URL and session; it marshals, because it is made to be sent to the user.
type Consent struct {
	// URL is for the user's browser, and for no log: it starts this user's consent.
	URL string
	// SessionURI names the consent session, for Wait and Complete. It lives ten minutes.
	SessionURI string
	// Provider and Scopes are from the declaration.
	Provider string
	Scopes   []string
	// ConnectionState tells why, where the user has consented once before: needs_reauth, revoked. Empty: not told.
	ConnectionState string
}

// Format prints the provider, under every verb.
func (c Consent) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "tabard.Consent(%s)", c.Provider) }

// LogValue is the consent in log/slog: the provider and the scopes.
func (c Consent) LogValue() slog.Value {
	return slog.GroupValue(slog.String("provider", c.Provider), slog.Any("scopes", c.Scopes))
}

// ConsentHandler brings a consent's URL to the user: streams it into the chat, opens a browser. It returns once that is
// done, without waiting for the user. An error ends the call that needed the consent.
type ConsentHandler func(ctx context.Context, c Consent) error

// ConsentRequiredError is returned where a user has to consent first and no handler is set. Take it out with
// errors.AsType; show its URL to the user; then either Wait, or call again once the user says it is done.
type ConsentRequiredError struct{ Consent }

// Error names the provider, and not the URL: errors are logged.
func (e *ConsentRequiredError) Error() string {
	return "tabard: " + e.Provider + ": the user has to consent first, at the URL of this ConsentRequiredError"
}

// Is makes errors.Is(err, ErrConsentRequired) hold.
func (e *ConsentRequiredError) Is(target error) bool { return target == ErrConsentRequired }

// Format prints the message, and not the URL, under every verb.
func (e *ConsentRequiredError) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, e.Error()) }

// Wait returns the token once the user has consented. It looks every Config.PollInterval, until ctx ends or the
// session's ten minutes are over (ErrConsentExpired). A refusal is ErrConsentFailed. A service that is away for a
// moment is waited for. Of consent only SessionURI matters, so that it can be stored and waited for elsewhere, with the
// same declaration and for the same user.
func (c *Client) Wait(ctx context.Context, need OAuth2, consent Consent) (*Token, error) {
	if consent.SessionURI == "" {
		return nil, invalid("%s: a consent without a SessionURI cannot be waited for", need.Provider)
	}
	expired := &Error{Code: ErrConsentExpired, Op: opToken,
		Message: need.Provider + ": nobody consented within the session's ten minutes"}
	waiting, cancel := context.WithTimeoutCause(ctx, sessionLife, expired)
	defer cancel()
	tick := time.NewTicker(c.poll)
	defer tick.Stop()
	for {
		select {
		case <-waiting.Done():
			if cause := context.Cause(waiting); !errors.Is(cause, expired) {
				return nil, fmt.Errorf("tabard: %s: waiting for consent: %w", need.Provider, cause)
			}
			return nil, expired
		case <-tick.C:
		}
		// A poll never forces: it would begin another session.
		tok, err := c.ask(waiting, need, consent.SessionURI, false)
		switch {
		case err == nil:
			return tok, nil
		case waiting.Err() != nil:
			continue // the select above says why
		case errors.Is(err, ErrConsentRequired), errors.Is(err, ErrUnavailable), errors.Is(err, ErrThrottled):
			continue
		case errors.Is(err, ErrDenied):
			// Sessions that are denied, failed, expired, or finished by another user are 403.
			return nil, sessionEnded(need.Provider, err)
		default:
			return nil, err
		}
	}
}

// sessionEnded keeps the service's answer as the cause, so that the error is ErrDenied as well.
func sessionEnded(provider string, err error) error {
	out := &Error{Code: ErrConsentFailed, Message: provider + ": the consent failed", Err: err}
	if e, ok := errors.AsType[*Error](err); ok {
		out.Op, out.Exception, out.HTTPStatus, out.RequestID = e.Op, e.Exception, e.HTTPStatus, e.RequestID
		if e.Message != "" {
			out.Message = provider + ": " + e.Message
		}
	}
	return out
}
