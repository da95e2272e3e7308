package awsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// exceptionOf is the one table from a fault's code to what AWS SDKs see. A golden test prints
// it.
func exceptionOf(code fault.Code) (exception string, status int) {
	switch code {
	case fault.Invalid:
		return api.ExceptionValidation, http.StatusBadRequest
	case fault.Unauthenticated:
		return api.ExceptionUnauthorized, http.StatusUnauthorized
	case fault.Denied:
		return api.ExceptionAccessDenied, http.StatusForbidden
	case fault.NotFound:
		return api.ExceptionResourceNotFound, http.StatusNotFound
	case fault.Conflict:
		return api.ExceptionConflict, http.StatusConflict
	case fault.Limit:
		return api.ExceptionServiceQuotaExceeded, http.StatusPaymentRequired // AWS's choice
	case fault.Throttled:
		return api.ExceptionThrottling, http.StatusTooManyRequests
	case fault.TooLarge:
		return api.ExceptionRequestEntityTooLarge, http.StatusRequestEntityTooLarge
	case fault.Unavailable:
		return api.ExceptionServiceUnavailable, http.StatusServiceUnavailable // SDKs retry it
	case fault.SignatureMissing:
		return api.ExceptionMissingAuthenticationToken, http.StatusForbidden
	case fault.SignatureInvalid:
		return api.ExceptionInvalidSignature, http.StatusForbidden
	case fault.SignatureUnknown:
		return api.ExceptionUnrecognizedClient, http.StatusForbidden
	case fault.CredentialsExpired:
		return api.ExceptionExpiredToken, http.StatusForbidden
	}
	return api.ExceptionInternalServer, http.StatusInternalServerError
}

// invalidInput is an Invalid fault with what a ValidationException carries beyond the message.
type invalidInput struct {
	fault  *fault.Error
	reason api.ValidationExceptionReason
	fields []api.FieldError
}

func (e *invalidInput) Error() string { return e.fault.Error() }
func (e *invalidInput) Unwrap() error { return e.fault }

// cannotParse returns the error for a body that is not JSON of the right shape. field may be empty.
func cannotParse(field, format string, args ...any) error {
	e := &invalidInput{reason: api.ValidationExceptionReasonCannotParse}
	message := fmt.Sprintf(format, args...)
	e.fault = fault.Field(field, "%s", described(field, message))
	if field != "" {
		e.fields = []api.FieldError{{Name: field, Message: message}}
	}
	return e
}

// breaksConstraints returns the error for what api's Validate found, nil where it found nothing.
func breaksConstraints(fields []api.FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	parts := make([]string, len(fields))
	for i, f := range fields {
		parts[i] = described(f.Name, f.Message)
	}
	return &invalidInput{
		fault:  fault.Field(fields[0].Name, "%s", strings.Join(parts, "; ")),
		reason: api.ValidationExceptionReasonFieldValidationFailed,
		fields: fields,
	}
}

func described(field, message string) string {
	if field == "" {
		return "the body " + message
	}
	return field + ": " + message
}

// errorBody is the JSON of every exception. reason and fieldList are ValidationException's; reason is required there.
type errorBody struct {
	Message   string                        `json:"message"`
	Reason    api.ValidationExceptionReason `json:"reason,omitempty"`
	FieldList []api.FieldError              `json:"fieldList,omitempty"`
}

// requestIDHeader carries the correlation id, which all SDKs surface.
const requestIDHeader = "X-Amzn-Requestid"

// writeError answers with err in the form that the AWS SDKs decode, and returns the status for the request's log line.
// Only the public part of err leaves. It must be called before anything else is written.
func writeError(w http.ResponseWriter, r *http.Request, err error) int {
	public := fault.Public(err)
	exception, status := exceptionOf(public.Code)
	body := errorBody{Message: public.Msg}
	retryAfter(w, public)
	switch {
	case status == http.StatusInternalServerError:
		body.Message = "internal error, request id " + access.RequestID(r.Context()) // whatever was said with it
	case public.Code == fault.Invalid:
		body.Reason = api.ValidationExceptionReasonFieldValidationFailed
		if in, ok := errors.AsType[*invalidInput](err); ok {
			body.Reason, body.FieldList = in.reason, in.fields
		} else if public.Field != "" {
			body.FieldList = []api.FieldError{{Name: public.Field, Message: public.Msg}}
			body.Message = named(public.Field, public.Msg)
		}
	}
	writeException(w, r, exception, status, body)
	return status
}

// named puts the member's name before a message that needs it: one that neither has it nor is a sentence of its own.
func named(field, message string) string {
	if strings.Contains(message, field) || message != "" && message[0] >= 'A' && message[0] <= 'Z' {
		return message
	}
	return described(field, message)
}

// writeUnknownOperation answers what no route matches.
func writeUnknownOperation(w http.ResponseWriter, r *http.Request) {
	writeException(w, r, api.ExceptionUnknownOperation, http.StatusNotFound, errorBody{Message: "there is no such operation"})
}

func writeException(w http.ResponseWriter, r *http.Request, exception string, status int, body errorBody) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Amzn-Errortype", exception)
	h.Set(requestIDHeader, access.RequestID(r.Context()))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that is gone has no use for it
}

// retryAfter says how long to wait, if that is known.
func retryAfter(w http.ResponseWriter, public *fault.Error) {
	if public.After > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(public.After.Seconds()))))
	}
}
