package issuer

import (
	"net/http"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// The endpoints of OAuth, each an exact path.
const (
	TokenPath      = "/oauth2/token"      // RFC 8693 §2
	IntrospectPath = "/oauth2/introspect" // RFC 7662 §2
	RevokePath     = "/oauth2/revoke"     // RFC 7009 §2
)

// What is exchanged, by RFC 8693 §2.1 and §3.
const (
	grantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	// TypeWorkloadToken is the type of workload access tokens, as subject and as what is asked for.
	TypeWorkloadToken = "urn:tabard:params:oauth:token-type:workload-access-token"
)

// endpoint answers the requests of authenticated clients by do, whose answer is a JSON object, or nil for none.
func (h *handler) endpoint(do func(r *http.Request, caller access.Caller, f form) (map[string]any, error)) step {
	return func(w http.ResponseWriter, r *http.Request) (int, access.Caller, error) {
		w.Header().Set("X-Amzn-Requestid", access.RequestID(r.Context()))
		caller, answer, err := func() (access.Caller, map[string]any, error) {
			var unread error
			caller, body, err := h.Authenticate(w, r, func() (b []byte, err error) {
				b, unread = readBody(w, r)
				return b, unread
			})
			switch {
			case unread != nil:
				return caller, nil, unread
			case err != nil:
				return caller, nil, clientErrorOf(err)
			}
			f, err := parseForm(r, body)
			if err != nil {
				return caller, nil, err
			}
			answer, err := do(r, caller, f)
			return caller, answer, err
		}()
		if err != nil {
			e := errorOf(err)
			writeError(w, r, e)
			return e.status, caller, err
		}
		if answer == nil {
			w.WriteHeader(http.StatusOK)
			return http.StatusOK, caller, nil
		}
		writeJSON(w, http.StatusOK, answer)
		return http.StatusOK, caller, nil
	}
}

// token answers RFC 8693 §2.2.1.
func (h *handler) token(r *http.Request, caller access.Caller, f form) (map[string]any, error) {
	switch {
	case f["grant_type"] == "":
		return nil, refuse("invalid_request", "grant_type is missing")
	case f["grant_type"] != grantExchange:
		return nil, refuse("unsupported_grant_type", "grant_type can only be %s", grantExchange)
	case f["subject_token"] == "":
		return nil, refuse("invalid_request", "subject_token is missing")
	case f["subject_token_type"] != TypeWorkloadToken:
		return nil, refuse("invalid_request", "subject_token_type must be %s", TypeWorkloadToken)
	case f["actor_token"] != "" || f["actor_token_type"] != "":
		return nil, refuse("invalid_request", "there is no actor_token: the agent that authenticates is the actor")
	}
	target, err := targetOf(f)
	if err != nil {
		return nil, err
	}
	subject := secret.New(f["subject_token"])
	switch f["requested_token_type"] {
	case "", typeAccessToken:
		return h.forOthers(r, caller, subject, target, strings.Fields(f["scope"]))
	case TypeWorkloadToken:
		if f["scope"] != "" {
			return nil, refuse("invalid_scope", "a workload access token has no scopes")
		}
		return h.forWorkload(r, caller, subject, target)
	}
	return nil, refuse("invalid_request", "requested_token_type can be %s or %s", typeAccessToken, TypeWorkloadToken)
}

// targetOf is the one audience or resource.
func targetOf(f form) (string, error) {
	audience, resource := f["audience"], f["resource"]
	switch {
	case audience != "" && resource != "" && audience != resource:
		return "", refuse("invalid_target", "a token is for one target: audience and resource name two")
	case audience == "" && resource == "":
		return "", refuse("invalid_request", "audience or resource is missing: a token is for one target")
	case resource != "":
		return resource, exchange.CheckResource(resource)
	}
	return audience, nil
}

func (h *handler) forOthers(r *http.Request, caller access.Caller, subject secret.Text, target string, scopes []string) (map[string]any, error) {
	got, err := h.Exchange.Exchange(r.Context(), caller, exchange.Request{Subject: subject, Audience: target, Scopes: scopes})
	if err != nil {
		return nil, err
	}
	answer := issued(got.Token, typeAccessToken, "Bearer", got.Expires, h.Now())
	if len(got.Scopes) > 0 {
		answer["scope"] = strings.Join(got.Scopes, " ")
	}
	return answer, nil
}

func (h *handler) forWorkload(r *http.Request, caller access.Caller, subject secret.Text, workload string) (map[string]any, error) {
	got, err := h.Exchange.ExchangeForWorkload(r.Context(), caller, subject, workload)
	if err != nil {
		return nil, err
	}
	// It is no access token, and access_token is the member's name all the same (RFC 8693 §2.2.1).
	return issued(got.Token, TypeWorkloadToken, "N_A", got.Expires, h.Now()), nil
}

func issued(token secret.Text, kind, use string, expires, now time.Time) map[string]any {
	return map[string]any{
		"access_token": token.Expose(), "issued_token_type": kind, "token_type": use, "expires_in": max(0, int64(expires.Sub(now)/time.Second)),
	}
}

// introspect answers RFC 7662 §2.2.
func (h *handler) introspect(r *http.Request, caller access.Caller, f form) (map[string]any, error) {
	if f["token"] == "" {
		return nil, refuse("invalid_request", "token is missing")
	}
	claims, err := h.Exchange.Introspect(r.Context(), caller, secret.New(f["token"]))
	if err == nil && claims == nil {
		claims = map[string]any{"active": false}
	}
	return claims, err
}

// revoke answers RFC 7009 §2.2: nothing, also for a token that nobody knows.
func (h *handler) revoke(r *http.Request, caller access.Caller, f form) (map[string]any, error) {
	if f["token"] == "" {
		return nil, refuse("invalid_request", "token is missing")
	}
	err := h.Exchange.Revoke(r.Context(), caller, secret.New(f["token"]))
	if public := fault.Public(err); err != nil && public.Code == fault.Invalid && public.Field == "token" {
		return nil, &oauthError{"unsupported_token_type", http.StatusBadRequest, err} // RFC 7009 §2.2.1
	}
	return nil, err
}
