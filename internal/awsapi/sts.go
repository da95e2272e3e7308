package awsapi

import (
	"encoding/xml"
	"mime"
	"net/http"
	"net/url"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// What sts:GetCallerIdentity is: AWS's query protocol, which Terraform asks before all else. The only other operation
// of STS here is AssumeRoleWithWebIdentity (stsfederation.go).
const (
	stsService = "sts"
	stsAction  = "GetCallerIdentity"
	stsVersion = "2011-06-15"
	maxSTS     = 64 << 10 // bytes of a body: three times the longest token
	stsSpace   = "https://sts.amazonaws.com/doc/2011-06-15/"
)

// callerIdentity is the answer of GetCallerIdentity.
type callerIdentity struct {
	XMLName xml.Name `xml:"GetCallerIdentityResponse"`
	Space   string   `xml:"xmlns,attr"`
	ARN     string   `xml:"GetCallerIdentityResult>Arn"`
	UserID  string   `xml:"GetCallerIdentityResult>UserId"`
	Account string   `xml:"GetCallerIdentityResult>Account"`
	Request string   `xml:"ResponseMetadata>RequestId"`
}

// stsError is how STS fails.
type stsError struct {
	XMLName xml.Name `xml:"ErrorResponse"`
	Space   string   `xml:"xmlns,attr"`
	Type    string   `xml:"Error>Type"` // Sender or Receiver
	Code    string   `xml:"Error>Code"`
	Message string   `xml:"Error>Message"`
	Request string   `xml:"RequestId"`
}

// stsRoute serves the query protocol at "/". No XML is read, so there are no entities to expand (threat F11). It needs
// no right: it tells callers who they are, which their signature proved.
func (s *server) stsRoute() {
	verifier := NewVerifier(VerifierConfig{Region: s.Region, Now: s.Now, Find: s.Identity.Credential, Session: s.Federation.Credential, Service: stsService})
	op := api.Operation{Name: stsAction, Method: http.MethodPost, Path: "/"}
	s.mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		// A request whose path is not canonical comes here rewritten, and what is no form is of another protocol.
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" || r.RequestURI != "/" {
			s.unknown(w, r)
			return
		}
		start := s.Now()
		body, err := readBody(w, r, maxSTS)
		if form, ok := isAssume(body); ok && err == nil {
			s.serveAssume(w, r, form, start)
			return
		}
		var caller access.Caller
		var code string
		if err == nil {
			caller, code, err = s.whoAsks(w, r, body, verifier)
		}
		status := http.StatusOK
		if err == nil {
			writeXML(w, r, status, &callerIdentity{
				Space: stsSpace, ARN: "arn:aws:iam::" + string(caller.Account) + ":user/" + caller.Name, UserID: string(caller.Principal),
				Account: string(caller.Account), Request: access.RequestID(r.Context()),
			})
		} else {
			status = writeSTSError(w, r, code, err)
		}
		if s.Observe != nil {
			s.Observe(op.Path, status, s.Now().Sub(start))
		}
		s.log(r, op, caller, nil, status, start, err)
	})
}

// whoAsks verifies the request. code is set where the form asks for something else.
func (s *server) whoAsks(w http.ResponseWriter, r *http.Request, body []byte, v *Verifier) (caller access.Caller, code string, err error) {
	if caller, _, err = s.enter(w, r, v, func() ([]byte, error) { return body, nil }); err != nil {
		return caller, "", err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return caller, "MalformedQueryString", fault.Wrap(fault.Invalid, err, "the body is not a form")
	}
	if a, ver := form["Action"], form["Version"]; len(form) != 2 || len(a) != 1 || len(ver) != 1 || a[0] != stsAction || ver[0] != stsVersion {
		return caller, "InvalidAction", fault.New(fault.Invalid, "this server knows the actions %s and %s of version %s and no other", stsAction, assumeAction, stsVersion)
	}
	return caller, "", nil
}

// stsCode is the table from a fault's code to STS's own.
func stsCode(code fault.Code) string {
	switch code {
	case fault.Invalid:
		return "ValidationError"
	case fault.SignatureMissing:
		return "MissingAuthenticationToken"
	case fault.SignatureInvalid:
		return "SignatureDoesNotMatch"
	case fault.SignatureUnknown:
		return "InvalidClientTokenId"
	case fault.CredentialsExpired:
		return "ExpiredToken"
	case fault.Denied:
		return "AccessDenied"
	case fault.TooLarge:
		return "RequestEntityTooLarge"
	case fault.Throttled:
		return "Throttling"
	case fault.Unavailable:
		return "ServiceUnavailable"
	}
	return "InternalFailure"
}

func writeSTSError(w http.ResponseWriter, r *http.Request, code string, err error) int {
	public := fault.Public(err)
	_, status := exceptionOf(public.Code)
	retryAfter(w, public)
	e := &stsError{Space: stsSpace, Type: "Sender", Code: code, Message: public.Msg, Request: access.RequestID(r.Context())}
	if code == "" {
		e.Code = stsCode(public.Code)
	}
	if status >= http.StatusInternalServerError {
		e.Type = "Receiver"
	}
	if status == http.StatusInternalServerError {
		e.Message = "internal error, request id " + e.Request
	}
	writeXML(w, r, status, e)
	return status
}

func writeXML(w http.ResponseWriter, r *http.Request, status int, answer any) {
	b, err := xml.Marshal(answer)
	if err != nil {
		panic(err) // strings always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "text/xml")
	h.Set(requestIDHeader, access.RequestID(r.Context()))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that is gone has no use for it
}
