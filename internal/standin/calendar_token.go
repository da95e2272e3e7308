package standin

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

// oauthError is an error answer of the token endpoint (RFC 6749 §5.2).
type oauthError struct {
	status            int
	code, description string
}

// tokenAnswer is a successful answer of the token endpoint (RFC 6749 §5.1).
type tokenAnswer struct {
	access, refresh secret.Text
	scopes          []string
	lifetime        time.Duration
}

func (c *Calendar) metadata(w http.ResponseWriter, _ *http.Request) {
	at := c.config.Issuer
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer": at, "authorization_endpoint": at + pathAuthorize, "token_endpoint": at + pathToken,
		"revocation_endpoint": at + pathRevoke, "jwks_uri": at + "/oauth2/v3/certs",
		"response_types_supported": []string{"code"}, "response_modes_supported": []string{"query"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token", "client_credentials"},
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post"},
		"revocation_endpoint_auth_methods_supported":     []string{"client_secret_basic", "client_secret_post", "none"},
		"code_challenge_methods_supported":               []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
		"scopes_supported":                               supportedScopes(),
		// OpenID Connect Discovery demands these two; no ID token is ever issued.
		"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
	})
}

// token answers the token endpoint: faults first, then the work, with every request on record.
func (c *Calendar) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		writeOAuthError(w, oauthError{http.StatusBadRequest, "invalid_request", "the body is not a form"})
		return
	}
	entry, fault := c.arrive(r.PostForm.Get("grant_type"))
	if !fault.hold(r.Context()) {
		c.settle(entry, TokenRequest{Status: -1})
		return
	}
	if fault.Status != 0 {
		c.settle(entry, TokenRequest{Status: fault.Status, Error: "server_error"})
		writeOAuthError(w, oauthError{fault.Status, "server_error", "a fault was asked for"})
		return
	}
	answer, client, user, problem := c.exchange(r)
	done := TokenRequest{Client: client, User: user, Status: http.StatusOK}
	if problem != nil {
		done.Status, done.Error = problem.status, problem.code
	}
	if fault.DropAnswer {
		done.Status = -1
	}
	c.settle(entry, done)
	switch {
	case fault.DropAnswer:
		panic(http.ErrAbortHandler) // net/http's way to close the connection without an answer
	case problem != nil:
		writeOAuthError(w, *problem)
	default:
		writeTokenAnswer(w, answer)
	}
}

func writeTokenAnswer(w http.ResponseWriter, a tokenAnswer) {
	out := map[string]any{"access_token": a.access.Expose(), "token_type": "Bearer",
		"expires_in": int(a.lifetime.Seconds()), "scope": strings.Join(a.scopes, " ")}
	if !a.refresh.IsZero() {
		out["refresh_token"] = a.refresh.Expose()
	}
	writeJSON(w, http.StatusOK, out)
}

func (c *Calendar) arrive(grantType string) (int, Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, TokenRequest{GrantType: grantType})
	var f Fault
	if len(c.faults) > 0 {
		f, c.faults = c.faults[0], c.faults[1:]
	}
	return len(c.requests) - 1, f
}

func (c *Calendar) settle(entry int, done TokenRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	done.GrantType = c.requests[entry].GrantType
	c.requests[entry] = done
}

// exchange does the grant. It returns the client and user for the record even when it refuses.
func (c *Calendar) exchange(r *http.Request) (a tokenAnswer, client, user string, problem *oauthError) {
	authed, problem := c.authenticate(r)
	if problem != nil {
		return a, "", "", problem
	}
	for name, values := range r.PostForm {
		if len(values) > 1 { // RFC 6749 §3.2
			return a, authed.ID, "", &oauthError{http.StatusBadRequest, "invalid_request", name + " was sent twice"}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	form := r.PostForm
	var g *grant
	switch form.Get("grant_type") {
	case "authorization_code":
		a, g, problem = c.redeemCode(form, authed)
	case "refresh_token":
		a, g, problem = c.refreshGrant(form, authed)
	case "client_credentials":
		a, problem = c.clientCredentials(form, authed)
	default:
		problem = &oauthError{http.StatusBadRequest, "unsupported_grant_type", "grant_type must be authorization_code, refresh_token or client_credentials"}
	}
	if g != nil {
		user = g.user
	}
	return a, authed.ID, user, problem
}

// authenticate accepts client_secret_basic or client_secret_post, never both (RFC 6749 §2.3).
func (c *Calendar) authenticate(r *http.Request) (Client, *oauthError) {
	id, given, basic := r.BasicAuth()
	if basic {
		if r.PostForm.Has("client_secret") {
			return Client{}, &oauthError{http.StatusBadRequest, "invalid_request", "the client authenticated in two ways"}
		}
		var err1, err2 error
		id, err1 = url.QueryUnescape(id) // RFC 6749 §2.3.1: form-encoded inside Basic
		given, err2 = url.QueryUnescape(given)
		if err1 != nil || err2 != nil {
			return Client{}, &oauthError{http.StatusUnauthorized, "invalid_client", "the basic credentials are not form-encoded"}
		}
		if other := r.PostForm.Get("client_id"); other != "" && other != id {
			return Client{}, &oauthError{http.StatusBadRequest, "invalid_request", "client_id differs from the basic credentials"}
		}
	} else {
		id, given = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	client, ok := c.dir.client(id)
	if !ok || !client.Secret.Equal(secret.New(given)) {
		return Client{}, &oauthError{http.StatusUnauthorized, "invalid_client", "the client id or secret is wrong"}
	}
	return client, nil
}

func invalidGrant(description string) *oauthError {
	return &oauthError{http.StatusBadRequest, "invalid_grant", description}
}

// redeemCode needs c.mu.
func (c *Calendar) redeemCode(form url.Values, client Client) (tokenAnswer, *grant, *oauthError) {
	verifier := form.Get("code_verifier")
	if len(verifier) < 43 || len(verifier) > 128 { // RFC 7636 §4.1
		return tokenAnswer{}, nil, invalidGrant("code_verifier must have 43 to 128 characters")
	}
	now := c.config.Now()
	g, reason := c.grants.redeem(secret.New(form.Get("code")), secret.New(verifier), client.ID, form.Get("redirect_uri"), now)
	if reason != "" {
		return tokenAnswer{}, g, invalidGrant(reason)
	}
	a := tokenAnswer{access: c.grants.newAccess(g, g.scopes, now, c.config.AccessTokenLifetime), scopes: g.scopes, lifetime: c.config.AccessTokenLifetime}
	if g.offline {
		a.refresh = c.grants.newRefresh(g)
	}
	return a, g, nil
}

// refreshGrant needs c.mu. It checks the scopes before it spends the token, so that a wrong scope costs nothing.
func (c *Calendar) refreshGrant(form url.Values, client Client) (tokenAnswer, *grant, *oauthError) {
	token := secret.New(form.Get("refresh_token"))
	scopes := strings.Fields(form.Get("scope"))
	if g := c.grants.peekRefresh(token); g != nil && g.client == client.ID {
		for _, s := range scopes {
			if !slices.Contains(g.scopes, s) {
				return tokenAnswer{}, g, &oauthError{http.StatusBadRequest, "invalid_scope", "a scope was not granted"}
			}
		}
	}
	g, reason := c.grants.spendRefresh(token, client.ID)
	if reason != "" {
		return tokenAnswer{}, g, invalidGrant(reason)
	}
	if len(scopes) == 0 {
		scopes = g.scopes
	}
	return tokenAnswer{access: c.grants.newAccess(g, scopes, c.config.Now(), c.config.AccessTokenLifetime), refresh: c.grants.newRefresh(g),
		scopes: scopes, lifetime: c.config.AccessTokenLifetime}, g, nil
}

// clientCredentials needs c.mu. The client gets a calendar of its own, as a Google service account has one.
func (c *Calendar) clientCredentials(form url.Values, client Client) (tokenAnswer, *oauthError) {
	if !client.ClientCredentials {
		return tokenAnswer{}, &oauthError{http.StatusBadRequest, "unauthorized_client", "this client may not use client_credentials"}
	}
	scopes := strings.Fields(form.Get("scope"))
	for _, s := range scopes {
		if _, ok := scopeText(s); !ok || s == "offline_access" {
			return tokenAnswer{}, &oauthError{http.StatusBadRequest, "invalid_scope", "a scope is unknown here"}
		}
	}
	g := &grant{client: client.ID, scopes: scopes}
	return tokenAnswer{access: c.grants.newAccess(g, scopes, c.config.Now(), c.config.AccessTokenLifetime), scopes: scopes, lifetime: c.config.AccessTokenLifetime}, nil
}

// revoke answers RFC 7009. Either kind of token ends the whole grant. As at Google, holding the token is enough; a
// client that authenticates must do it right and may only revoke its own.
func (c *Calendar) revoke(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.PostForm.Get("token") == "" {
		writeOAuthError(w, oauthError{http.StatusBadRequest, "invalid_request", "token is missing"})
		return
	}
	client := ""
	if _, _, basic := r.BasicAuth(); basic || r.PostForm.Has("client_secret") {
		authed, problem := c.authenticate(r)
		if problem != nil {
			writeOAuthError(w, *problem)
			return
		}
		client = authed.ID
	}
	token := secret.New(r.PostForm.Get("token"))
	c.mu.Lock()
	g := c.grants.peekRefresh(token)
	if a, ok := c.grants.access(token, c.config.Now()); ok {
		g = a.grant
	}
	foreign := g != nil && client != "" && g.client != client
	if g != nil && !foreign {
		g.revoked = true
	}
	c.mu.Unlock()
	if foreign {
		writeOAuthError(w, *invalidGrant("the token was issued to another client"))
		return
	}
	w.WriteHeader(http.StatusOK) // also for a token nobody knows (RFC 7009 §2.2)
}

func writeOAuthError(w http.ResponseWriter, e oauthError) {
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
	}
	writeJSON(w, e.status, map[string]string{"error": e.code, "error_description": e.description})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
}
