package oauthtest

import (
	"net/http"
	"net/url"
)

// Grants by which a user's token is exchanged.
const (
	GrantTokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	GrantJWTBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// exchangeable checks what RFC 8693 §2.1 and RFC 7523 §2.1 require of the form. It does not look into the tokens.
func exchangeable(form url.Values) bool {
	if form.Get("grant_type") == GrantJWTBearer {
		return form.Get("assertion") != "" && !form.Has("subject_token")
	}
	return form.Get("subject_token") != "" && form.Get("subject_token_type") != "" && !form.Has("assertion") &&
		form.Has("actor_token") == form.Has("actor_token_type")
}

// exchanged adds what RFC 8693 §2.2.1 wants in the answer, and a refresh token, which some servers give.
func exchanged(form url.Values, answer map[string]any) map[string]any {
	if form.Get("grant_type") == GrantTokenExchange {
		answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
	}
	answer["refresh_token"] = "rt-of-an-exchange"
	return answer
}

// exchangesAlone reports whether an exchange comes without any word of a client, which this server takes.
func exchangesAlone(r *http.Request) bool {
	switch r.PostForm.Get("grant_type") {
	case GrantTokenExchange, GrantJWTBearer:
		return r.Header.Get("Authorization") == "" && !r.PostForm.Has("client_id") && !r.PostForm.Has("client_secret")
	}
	return false
}
