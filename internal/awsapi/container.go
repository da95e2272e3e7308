package awsapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/secret"
)

// containerPath is where AWS's SDKs get credentials by AWS_CONTAINER_CREDENTIALS_FULL_URI, with the token of
// AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE as the Authorization header.
const containerPath = "/container-credentials/"

// containerSession names the sessions that are given there: the protocol has no name.
const containerSession = "container-credentials"

// containerCredentials is the answer in the form that the SDKs read.
type containerCredentials struct {
	RoleArn         string
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey api.Sensitive
	Token           api.Sensitive
	Expiration      string // RFC 3339
}

// containerRoutes serves session credentials to whoever sends a workload's token. A browser cannot be made to fetch
// them: without the header there is no answer, no answer has CORS headers, and what a browser adds to a request is
// refused (threat J10).
func (s *server) containerRoutes() {
	for _, path := range []string{containerPath + "{account}", containerPath + "{account}/{principal}"} {
		op := api.Operation{Name: string(access.AssumeRole), Method: http.MethodGet, Path: path}
		s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			start := s.Now()
			status, session, err := http.StatusOK, federation.Session{}, error(nil)
			session, err = s.assumeInContainer(r)
			if _, err = s.admission.Admit(w, r, access.Caller{Account: session.Role.Account}, err); err == nil {
				writeContainer(w, r, status, &containerCredentials{
					RoleArn: session.Role.String(), AccessKeyID: session.AccessKeyID, SecretAccessKey: show(session.Secret), Token: show(session.Token),
					Expiration: session.Expires.UTC().Format(time.RFC3339),
				})
			} else {
				status = writeContainerError(w, r, err)
			}
			s.finish(r, op, session, status, start, err)
		})
	}
}

// finish counts and logs one request for session credentials.
func (s *server) finish(r *http.Request, op api.Operation, session federation.Session, status int, start time.Time, err error) {
	if s.Observe != nil {
		s.Observe(op.Path, status, s.Now().Sub(start))
	}
	caller := access.Caller{Name: session.Role.Principal, AccessKey: session.AccessKeyID}
	s.log(r, op, caller, nil, status, start, err)
}

func (s *server) assumeInContainer(r *http.Request) (federation.Session, error) {
	for name := range r.Header {
		if name == "Origin" || strings.HasPrefix(name, "Sec-Fetch-") {
			return federation.Session{}, fault.New(fault.Denied, "the request is a browser's: it has the header %s", name)
		}
	}
	tokens := r.Header["Authorization"]
	if len(tokens) != 1 {
		return federation.Session{}, fault.New(fault.Unauthenticated, "the request has %d Authorization headers: one is needed, with the workload's token", len(tokens))
	}
	token, is := bearerToken(r)
	if !is {
		token = secret.New(tokens[0])
	}
	role := federation.Role{Account: access.Account(r.PathValue("account")), Principal: r.PathValue("principal")}
	return s.Federation.Assume(r.Context(), federation.Request{Role: role, Session: containerSession, Token: token})
}

// writeContainerError answers in the form that the SDKs show: code and message. They ask again after a 5xx only.
func writeContainerError(w http.ResponseWriter, r *http.Request, err error) int {
	public := fault.Public(err)
	code, status := stsCode(public.Code), http.StatusForbidden
	switch {
	case public.Code == fault.Unavailable, public.Code == fault.Internal:
		_, status = exceptionOf(public.Code)
		if errors.Is(err, federation.ErrIssuer) {
			code = idpFailed
		}
	case public.Code == fault.Invalid:
		status = http.StatusBadRequest
	case public.Code == fault.Unauthenticated:
		code, status = "AccessDenied", http.StatusUnauthorized
	case public.Code == fault.CredentialsExpired:
		code, status = tokenExpired, http.StatusUnauthorized
	}
	if public.Code == fault.Internal {
		public.Msg = "internal error, request id " + access.RequestID(r.Context())
	}
	writeContainer(w, r, status, map[string]string{"code": code, "message": public.Msg})
	return status
}

func writeContainer(w http.ResponseWriter, r *http.Request, status int, answer any) {
	b, err := json.Marshal(answer)
	if err != nil {
		panic(err) // strings always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set(requestIDHeader, access.RequestID(r.Context()))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that is gone has no use for it
}
