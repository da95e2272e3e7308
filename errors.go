package tabard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Code says what kind of failure it is. A code is itself an error: errors.Is(err, tabard.ErrDenied).
type Code string

// The codes.
const (
	// ErrInvalid: a declaration, tag, setting or request breaks a constraint. Retrying will not help.
	ErrInvalid Code = "invalid"
	// ErrNoIdentity: the context carries no user, and the flow needs one.
	ErrNoIdentity Code = "no identity"
	// ErrMixedIdentity: an HTTP client made for one user was used with the context of another.
	ErrMixedIdentity Code = "mixed identity"
	// ErrUnauthenticated: the user's token or the workload access token is bad, expired, revoked or not trusted.
	ErrUnauthenticated Code = "unauthenticated"
	// ErrCredentials: the agent's own AWS-style credentials are missing, unknown, expired or wrong.
	ErrCredentials Code = "bad credentials"
	// ErrDenied: the agent is known and may not do this.
	ErrDenied Code = "denied"
	// ErrNotFound: the workload, provider or connection does not exist, or belongs to somebody else.
	ErrNotFound Code = "not found"
	// ErrConflict: something exists already or changed meanwhile.
	ErrConflict Code = "conflict"
	// ErrLimit: a quota of the account is reached.
	ErrLimit Code = "limit reached"
	// ErrThrottled: too many requests; the AWS client has retried already.
	ErrThrottled Code = "throttled"
	// ErrUnavailable: the service, or what it depends on, cannot be reached; the AWS client has retried already.
	ErrUnavailable Code = "unavailable"
	// ErrInternal: the service failed, or answered with something that cannot be understood.
	ErrInternal Code = "internal"
	// ErrConsentRequired: every *ConsentRequiredError is this.
	ErrConsentRequired Code = "consent required"
	// ErrConsentFailed: the consent that was waited for was refused, failed, or was finished by another user.
	ErrConsentFailed Code = "consent failed"
	// ErrConsentExpired: nobody consented within the session's ten minutes.
	ErrConsentExpired Code = "consent expired"
)

// Error makes a Code usable as the target of errors.Is.
func (c Code) Error() string { return "tabard: " + string(c) }

// Error is a classified failure. Nothing in it is a credential.
type Error struct {
	Code       Code   // what kind
	Op         string // the API operation, such as GetResourceOauth2Token; empty if none was called
	Message    string // the service's sentence, or ours
	Exception  string // the name on the wire, such as AccessDeniedException; empty if the service did not answer
	HTTPStatus int    // zero if the service did not answer
	RequestID  string // what to give to the service's operator
	Err        error  // the cause, often a smithy.APIError; may be nil
}

// Error is a sentence with the request id at its end.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("tabard: ")
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(string(e.Code))
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.RequestID != "" {
		b.WriteString(" (request " + e.RequestID + ")")
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is this error's code.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

func invalid(format string, args ...any) *Error {
	return &Error{Code: ErrInvalid, Message: fmt.Sprintf(format, args...)}
}

// failure classifies what the AWS client returned for op. A cancelled context stays recognizable as such.
func failure(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("tabard: %s: %w", op, context.Cause(ctx))
	}
	out := &Error{Op: op, Err: err}
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		out.HTTPStatus, out.RequestID = answer.HTTPStatusCode(), oneLine(answer.ServiceRequestID())
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok && out.HTTPStatus >= 300 {
		out.Exception = oneLine(api.ErrorCode())
		out.Message = oneLine(api.ErrorMessage())
		out.Code = codeOf(out.Exception, out.HTTPStatus)
		return out
	}
	switch {
	case isType[*smithy.DeserializationError](err), out.HTTPStatus != 0:
		// Its snapshot is a piece of the answer, which may hold a token: the cause is not kept.
		out.Code, out.Message, out.Err = ErrInternal, "the answer could not be read", nil
	case isType[*v4.SigningError](err), strings.Contains(err.Error(), "get identity: get credentials"):
		out.Code, out.Message = ErrCredentials, "no AWS credentials to sign with: "+oneLine(innermost(err).Error())
	case isType[*smithyhttp.RequestSendError](err), isType[*aws.RequestCanceledError](err):
		out.Code, out.Message = ErrUnavailable, oneLine(innermost(err).Error())
	case isType[*smithy.InvalidParamsError](err):
		out.Code, out.Message = ErrInvalid, oneLine(innermost(err).Error())
	default:
		out.Code, out.Message = ErrInternal, oneLine(innermost(err).Error())
	}
	return out
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// innermost is the cause that says something: the wrappers of the AWS client repeat operation and attempt.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		if _, ok := err.(net.Error); ok {
			return err // it has the address
		}
		err = next
	}
}

// codeOf maps an exception; the names without a model are those of AWS's front door. What has no name
// that we know is judged by its status.
func codeOf(exception string, status int) Code {
	switch exception {
	case "ValidationException", "InvalidInputException", "SerializationException", "RequestEntityTooLargeException":
		return ErrInvalid
	case "UnauthorizedException":
		return ErrUnauthenticated
	case "InvalidSignatureException", "UnrecognizedClientException", "MissingAuthenticationTokenException",
		"ExpiredTokenException", "IncompleteSignatureException", "SignatureDoesNotMatch", "InvalidClientTokenId":
		return ErrCredentials
	case "AccessDeniedException":
		return ErrDenied
	case "ResourceNotFoundException":
		return ErrNotFound
	case "ConflictException":
		return ErrConflict
	case "ServiceQuotaExceededException":
		return ErrLimit
	case "ThrottlingException", "ThrottledException", "TooManyRequestsException":
		return ErrThrottled
	case "ServiceUnavailableException":
		return ErrUnavailable
	case "InternalServerException":
		return ErrInternal
	}
	switch {
	case status == http.StatusUnauthorized:
		return ErrUnauthenticated
	case status == http.StatusForbidden:
		return ErrDenied
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusConflict:
		return ErrConflict
	case status == http.StatusTooManyRequests:
		return ErrThrottled
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return ErrUnavailable
	case status >= 400 && status < 500:
		return ErrInvalid
	}
	return ErrInternal
}

// oneLine makes foreign text safe for a terminal or a log line.
func oneLine(s string) string {
	const most = 1024
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
