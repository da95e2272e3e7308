package awsapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/fault"
)

func TestErrorTable(t *testing.T) {
	var got strings.Builder
	for _, c := range []fault.Code{fault.Invalid, fault.Unauthenticated, fault.Denied, fault.NotFound, fault.Conflict, fault.Limit, fault.Throttled, fault.TooLarge, fault.Unavailable,
		fault.Internal, fault.SignatureMissing, fault.SignatureInvalid, fault.SignatureUnknown, fault.CredentialsExpired, "a code of the future"} {
		exception, status := awsapi.ExceptionOf(c)
		fmt.Fprintf(&got, "%-22s %-36s %d\n", c, exception, status)
	}
	const want = `invalid                ValidationException                  400
unauthenticated        UnauthorizedException                401
denied                 AccessDeniedException                403
not_found              ResourceNotFoundException            404
conflict               ConflictException                    409
limit                  ServiceQuotaExceededException        402
throttled              ThrottlingException                  429
too_large              RequestEntityTooLargeException       413
unavailable            ServiceUnavailableException          503
internal               InternalServerException              500
signature_missing      MissingAuthenticationTokenException  403
signature_invalid      InvalidSignatureException            403
signature_unknown_key  UnrecognizedClientException          403
credentials_expired    ExpiredTokenException                403
a code of the future   InternalServerException              500
`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestWriteError(t *testing.T) {
	for name, tt := range map[string]struct {
		err             error
		exception, body string
	}{
		"not found":        {fault.New(fault.NotFound, "no workload identity %q", "w"), "ResourceNotFoundException", `{"message":"no workload identity \"w\""}`},
		"field":            {fault.Field("userToken", "is not a JWT"), "ValidationException", `{"message":"userToken: is not a JWT","reason":"FieldValidationFailed","fieldList":[{"name":"userToken","message":"is not a JWT"}]}`},
		"sentence":         {fault.Field("name", "Credential provider with this name exists"), "ValidationException", `{"message":"Credential provider with this name exists","reason":"FieldValidationFailed","fieldList":[{"name":"name","message":"Credential provider with this name exists"}]}`},
		"no field":         {fault.New(fault.Invalid, "name already exists"), "ValidationException", `{"message":"name already exists","reason":"FieldValidationFailed"}`},
		"parse":            {awsapi.CannotParse("scopes[1]", "must be a string"), "ValidationException", `{"message":"scopes[1]: must be a string","reason":"CannotParse","fieldList":[{"name":"scopes[1]","message":"must be a string"}]}`},
		"body":             {awsapi.CannotParse("", "is not valid UTF-8"), "ValidationException", `{"message":"the body is not valid UTF-8","reason":"CannotParse"}`},
		"constraints":      {awsapi.BreaksConstraint([]api.FieldError{{Name: "a", Message: "is required"}, {Name: "b", Message: "is required"}}), "ValidationException", `{"message":"a: is required; b: is required","reason":"FieldValidationFailed","fieldList":[{"name":"a","message":"is required"},{"name":"b","message":"is required"}]}`},
		"unclassified":     {io.ErrUnexpectedEOF, "InternalServerException", `{"message":"internal error, request id req-1"}`},
		"internal":         {fault.New(fault.Internal, "row 7 is odd"), "InternalServerException", `{"message":"internal error, request id req-1"}`},
		"cause is kept in": {fault.Wrap(fault.Unavailable, io.ErrClosedPipe, "the identity provider does not answer"), "ServiceUnavailableException", `{"message":"the identity provider does not answer"}`},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(access.WithRequestID(t.Context(), "req-1"), "POST", "/", nil)
		status := awsapi.WriteError(w, r, tt.err)
		if got := w.Body.String(); got != tt.body || status != w.Code {
			t.Errorf("%s: got %d %s, want %d %s", name, status, got, w.Code, tt.body)
		}
		want := http.Header{"Content-Type": {"application/json"}, "X-Amzn-Errortype": {tt.exception}, "X-Amzn-Requestid": {"req-1"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"}}
		if d := cmp.Diff(want, w.Header()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	w := httptest.NewRecorder()
	awsapi.WriteUnknown(w, httptest.NewRequest("GET", "/nowhere", nil))
	if w.Code != http.StatusNotFound || w.Header().Get("X-Amzn-Errortype") != "UnknownOperationException" {
		t.Errorf("unknown operation: got %d %v", w.Code, w.Header())
	}
	if err := awsapi.BreaksConstraint(nil); err != nil {
		t.Errorf("no field errors: got %v, want nil", err)
	}
}
