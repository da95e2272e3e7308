package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
)

// refusal is an answer of the sidecar's own to a client of the agent.
type refusal struct {
	status    int
	code      string // stable, for programs
	message   string // a public sentence
	challenge string // WWW-Authenticate (RFC 6750 §3)
	err       error  // for the log
}

func (e *refusal) Error() string {
	if e.err != nil {
		return e.message + ": " + e.err.Error()
	}
	return e.message
}

func (e *refusal) Unwrap() error { return e.err }

// minter makes workload access tokens.
type minter struct {
	upstream *upstream
	workload string
	cache    *cache
	renewals *renewals
}

// token returns a workload access token for the user of jwt or, where that is empty, for the agent alone. Errors are
// *refusal.
func (m *minter) token(ctx context.Context, jwt secret.Text) (secret.Text, error) {
	key := keyOf(m.workload, jwt)
	kept, mark := m.cache.get(key)
	if !kept.IsZero() {
		return kept, nil
	}
	name, body, err := m.request(jwt)
	if err != nil {
		return secret.Text{}, err
	}
	op, _ := api.Find(name) // the names are constants of the package api
	got, err := m.upstream.call(ctx, op, body, nil)
	if err != nil {
		return secret.Text{}, &refusal{status: http.StatusServiceUnavailable, code: "unavailable", message: "the identity service cannot be asked now", err: err}
	}
	if got.status != http.StatusOK {
		return secret.Text{}, refusalOf(got)
	}
	var out api.GetWorkloadAccessTokenForJWTResponse // the other operation answers the same
	if err := json.Unmarshal([]byte(got.body.Expose()), &out); err != nil || out.WorkloadAccessToken == "" {
		// The cause is not kept: it may quote what is a token.
		return secret.Text{}, &refusal{status: http.StatusBadGateway, code: "misconfigured", message: "the identity service gave no workload access token: is it Tabard?"}
	}
	wat := secret.New(string(out.WorkloadAccessToken))
	m.cache.put(key, mark, wat, out.ExpiresAt.Time)
	m.renewals.put(wat, jwt, out.ExpiresAt.Time)
	return wat, nil
}

func (m *minter) request(jwt secret.Text) (op string, body secret.Text, err error) {
	if jwt.IsZero() {
		b, err := json.Marshal(api.GetWorkloadAccessTokenRequest{WorkloadName: m.workload})
		return api.OpGetWorkloadAccessToken, secret.New(string(b)), err
	}
	q := api.GetWorkloadAccessTokenForJWTRequest{WorkloadName: m.workload, UserToken: api.Sensitive(jwt.Expose())}
	if strings.Count(string(q.UserToken), ".") != 2 || len(q.Validate()) > 0 {
		return "", secret.Text{}, badToken("the bearer token is no JWT")
	}
	b, err := json.Marshal(q)
	return api.OpGetWorkloadAccessTokenForJWT, secret.New(string(b)), err
}

func badToken(message string) *refusal {
	return &refusal{status: http.StatusUnauthorized, code: "invalid_token", message: message, challenge: `Bearer error="invalid_token"`}
}

// refusalOf says of what Tabard refused whose fault it is: the user's, who can log in again, or that of whoever set
// this up, whose details are not for users.
func refusalOf(a *answer) *refusal {
	why := fmt.Errorf("%d %s: %s", a.status, a.exception(), a.message())
	if a.refusesUs() {
		return &refusal{status: http.StatusBadGateway, code: "misconfigured", message: "the identity service refuses the agent's sidecar", err: why}
	}
	exception := a.exception()
	if a.foreign() {
		exception = foreignAnswer(a.status).exception
		if exception == api.ExceptionInternalServer {
			exception = "" // it will not pass
		}
	}
	switch exception {
	case api.ExceptionUnauthorized:
		return badToken(a.message())
	case api.ExceptionAccessDenied:
		return &refusal{status: http.StatusForbidden, code: "access_denied", message: "this agent may not act for this user", err: why}
	case api.ExceptionThrottling:
		return &refusal{status: http.StatusTooManyRequests, code: "throttled", message: "too many requests: try again later", err: why}
	case api.ExceptionServiceUnavailable, api.ExceptionInternalServer:
		return &refusal{status: http.StatusServiceUnavailable, code: "unavailable", message: "the identity service cannot answer now", err: why}
	}
	return &refusal{status: http.StatusBadGateway, code: "misconfigured", message: "the identity service refuses what the agent's sidecar asks", err: why}
}
