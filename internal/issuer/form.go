package issuer

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// maxForm bounds the body of a request, in bytes. The longest token that is taken is a quarter of it.
const maxForm = 64 << 10

// form is the parameters of a request, each once. One without a value is none (RFC 6749 §3.2).
type form map[string]string

// oauthError is an answer that is no success (RFC 6749 §5.2).
type oauthError struct {
	code   string
	status int
	err    error // what the answer describes, by its public part, and the log has
}

func (e *oauthError) Error() string { return e.code + ": " + e.err.Error() }
func (e *oauthError) Unwrap() error { return e.err }

func refuse(code, format string, args ...any) error {
	return &oauthError{code, http.StatusBadRequest, fault.New(fault.Invalid, format, args...)}
}

// readBody reads the body of a request.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &oauthError{"invalid_request", http.StatusRequestEntityTooLarge, fault.New(fault.TooLarge, "the request has more than %d bytes", maxForm)}
	}
	if busy, ok := errors.AsType[*fault.Error](err); ok {
		return nil, busy
	}
	if err != nil {
		return nil, refuse("invalid_request", "the request ended early")
	}
	return body, nil
}

// parseForm reads the parameters. They come in the body alone: what is in a URL ends in logs (threat B11).
func parseForm(r *http.Request, body []byte) (form, error) {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return nil, refuse("invalid_request", "parameters go into the body, and nothing into the URL")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return nil, refuse("invalid_request", "the body must be of the type application/x-www-form-urlencoded")
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refuse("invalid_request", "the body is no form")
	}
	out := form{}
	for name, all := range values {
		if len(all) != 1 {
			if name == "audience" || name == "resource" { // RFC 8693 §2.1 allows for more than one
				return nil, refuse("invalid_target", "a token is for one target: %s is there %d times", name, len(all))
			}
			return nil, refuse("invalid_request", "a parameter is there %d times", len(all))
		}
		if !strings.HasSuffix(name, "token") && name != "client_secret" && name != "client_assertion" && secret.IsCredential(all[0]) {
			return nil, refuse("invalid_request", "a parameter holds a credential where a name belongs: it was not recorded here, but replace it") // threat M18
		}
		if all[0] != "" {
			out[name] = all[0]
		}
	}
	for _, name := range []string{"client_secret", "client_assertion"} {
		if _, ok := out[name]; ok { // RFC 6749 §2.3: one method, and this one ends in logs of proxies
			return nil, refuse("invalid_request", "the client authenticates by the header Authorization, and not by %s", name)
		}
	}
	if user, _, ok := r.BasicAuth(); ok && out["client_id"] != "" && out["client_id"] != user {
		return nil, refuse("invalid_request", "client_id is another client than the one that authenticates")
	}
	return out, nil
}

// errorOf classifies what a request failed by. It is the one table from a fault to what OAuth's clients see: RFC 6749
// §5.2, RFC 8693 §2.2.2. A subject token that is bad in whatever way is invalid_request there.
func errorOf(err error) *oauthError {
	if e, ok := errors.AsType[*oauthError](err); ok {
		return e
	}
	public := fault.Public(err)
	bad := func(code string) *oauthError { return &oauthError{code, http.StatusBadRequest, err} }
	switch public.Code {
	case fault.Invalid:
		switch public.Field {
		case "audience":
			return bad("invalid_target")
		case "scope":
			return bad("invalid_scope")
		}
		return bad("invalid_request")
	case fault.Unauthenticated:
		return bad("invalid_request")
	case fault.NotFound:
		return bad("invalid_target")
	case fault.Denied:
		switch {
		case errors.Is(err, exchange.ErrScope):
			return bad("invalid_scope")
		case errors.Is(err, exchange.ErrClient):
			return bad("unauthorized_client")
		case errors.Is(err, exchange.ErrTarget):
			return bad("invalid_target")
		}
		return &oauthError{"access_denied", http.StatusForbidden, err}
	case fault.Throttled, fault.Limit:
		return &oauthError{"temporarily_unavailable", http.StatusTooManyRequests, err}
	case fault.Unavailable, fault.Conflict:
		return &oauthError{"temporarily_unavailable", http.StatusServiceUnavailable, err}
	}
	return &oauthError{"server_error", http.StatusInternalServerError, err}
}

// clientErrorOf classifies what the authentication of a client failed by.
func clientErrorOf(err error) *oauthError {
	switch fault.CodeOf(err) {
	case fault.Throttled, fault.Limit, fault.Unavailable, fault.Conflict, fault.Internal:
		return errorOf(err)
	}
	return &oauthError{"invalid_client", http.StatusUnauthorized, err}
}

// writeError answers with e. Only the public part of its cause leaves.
func writeError(w http.ResponseWriter, r *http.Request, e *oauthError) {
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="tabard", charset="UTF-8"`) // RFC 6749 §5.2, RFC 7617
	}
	w.Header().Set("X-Amzn-Errortype", exceptionOf(e)) // for clients that are built on an AWS SDK: it knows then what to repeat
	public := fault.Public(e.err)
	if public.After > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(public.After.Seconds()))))
	}
	description := public.Msg
	if e.status >= http.StatusInternalServerError && e.code == "server_error" {
		description = "internal error, request id " + access.RequestID(r.Context())
	}
	writeJSON(w, e.status, map[string]any{"error": e.code, "error_description": describable(description)})
}

// exceptionOf is the name that AWS's SDKs have for what an answer is about.
func exceptionOf(e *oauthError) string {
	if e.code == "invalid_client" {
		return "UnrecognizedClientException"
	}
	switch fault.CodeOf(e.err) {
	case fault.Invalid, fault.TooLarge:
		return "ValidationException"
	case fault.Unauthenticated:
		return "UnauthorizedException"
	case fault.Denied:
		return "AccessDeniedException"
	case fault.NotFound:
		return "ResourceNotFoundException"
	case fault.Throttled:
		return "ThrottlingException"
	case fault.Limit:
		return "ServiceQuotaExceededException"
	case fault.Unavailable, fault.Conflict:
		return "ServiceUnavailableException"
	}
	return "InternalServerException"
}

// describable keeps to the characters that RFC 6749 §5.2 allows in a description.
func describable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < ' ' || r > '~' || r == '\\':
			return '?'
		}
		return r
	}, s)
}

// writeJSON answers with doc, which nothing may keep.
func writeJSON(w http.ResponseWriter, status int, doc map[string]any) {
	body, err := json.Marshal(doc)
	if err != nil {
		panic(err) // maps of strings, numbers and such maps always marshal
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Pragma", "no-cache") // RFC 6749 §5.1; Cache-Control is set for every answer
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client went away: nothing left to tell it
}
