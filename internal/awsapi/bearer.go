package awsapi

import (
	"net/http"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/secret"
)

// authenticate returns who asks: by the signature over the request, or, where the Authorization header is of the scheme
// Bearer (RFC 6750 §2.1), by the workload's own token in it. rest, where it is not nil, is to be called with the body:
// it says who asks where the head alone does not (then the caller is none), or that the body is not the one that was
// signed.
func (s *server) authenticate(r *http.Request, v *Verifier) (caller access.Caller, rest func(body []byte) (access.Caller, error), err error) {
	token, is := bearerToken(r)
	if !is {
		return v.Begin(r)
	}
	if n := len(r.Header["Authorization"]); n > 1 {
		return access.Caller{}, nil, fault.New(fault.SignatureInvalid, "the request has %d Authorization headers", n)
	}
	role, err := principalHeader(r)
	if err != nil {
		return access.Caller{}, nil, err
	}
	caller, err = s.Federation.Bearer(r.Context(), role, token)
	return caller, nil, err
}

// bearerToken returns the token of the first Authorization header, where that is of the scheme Bearer.
func bearerToken(r *http.Request) (secret.Text, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return secret.Text{}, false
	}
	return secret.New(strings.Trim(token, " ")), true
}

// principalHeader reads the header that names the principal: by its name, in the server's own account, or by its role
// ARN.
func principalHeader(r *http.Request) (federation.Role, error) {
	switch named := r.Header.Values(federation.PrincipalHeader); {
	case len(named) == 0:
		return federation.Role{}, nil
	case len(named) > 1:
		return federation.Role{}, fault.Field(federation.PrincipalHeader, "the header %s is there %d times", federation.PrincipalHeader, len(named))
	case strings.HasPrefix(named[0], "arn:"):
		return federation.ParseRole(federation.PrincipalHeader, named[0])
	default:
		return federation.Role{Principal: named[0]}, nil
	}
}
