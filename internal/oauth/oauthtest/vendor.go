package oauthtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// NewVendor starts a server that behaves, as far as its public documentation says, as the vendor of that name in the
// catalogue: it asks for what the vendor asks for, and answers the way the vendor does. It ends with the test.
func NewVendor(tb testing.TB, name string) *Server {
	m, ok := vendors()[name]
	if !ok {
		tb.Fatalf("oauthtest: no script for vendor %s", name)
	}
	s := newServer()
	m.ends = endings()[name]
	s.manner, s.rotate = m, !m.keeps
	if name == Microsoft {
		s.entra = newEntra()
	}
	s.start(tb)
	return s
}

// manner is how a vendor differs from the standard. The zero manner does not.
type manner struct {
	basicOnly, postOnly bool
	pkce, noPKCE        bool              // it is required, or refused
	params              map[string]string // that an authorization request must have
	needs               func(asked url.Values) bool
	keeps               bool // a refresh token that is used goes on
	json                bool // the token request is JSON
	header              func(h http.Header) (status int)
	write               func(w http.ResponseWriter, r *http.Request, status int, members map[string]any, asked url.Values)
	ends                *ending // nil: RFC 7009
}

// authorize says what is wrong with an authorization request.
func (m manner) authorize(q url.Values) error {
	switch {
	case m.pkce && q.Get("code_challenge_method") != "S256":
		return fmt.Errorf("the vendor requires PKCE")
	case m.noPKCE && q.Has("code_challenge"):
		return fmt.Errorf("the vendor refuses PKCE")
	}
	for name, value := range m.params {
		if q.Get(name) != value {
			return fmt.Errorf("the vendor requires %s=%s, got %q", name, value, q[name])
		}
	}
	return nil
}

// parse reads the form, or the JSON that the vendor takes in its place. What cannot be parsed is an empty form, which
// no grant is in.
func (m manner) parse(r *http.Request) {
	if !m.json {
		_ = r.ParseForm()
		return
	}
	r.PostForm = url.Values{}
	var members map[string]string
	if body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16)); err == nil && r.Header.Get("Content-Type") == "application/json" && json.Unmarshal(body, &members) == nil {
		for name, value := range members {
			r.PostForm.Set(name, value)
		}
	}
}

// accepts says whether the client authenticated the way that the vendor takes.
func (m manner) accepts(r *http.Request) bool {
	_, _, basic := r.BasicAuth()
	return (basic || !m.basicOnly) && (!basic || !m.postOnly)
}

func (m manner) offline(asked url.Values) bool { return m.needs == nil || m.needs(asked) }

func (m manner) reply(w http.ResponseWriter, r *http.Request, status int, members map[string]any, asked url.Values) {
	if m.header != nil {
		if s := m.header(r.Header); s != 0 {
			reply(w, s, map[string]any{"message": http.StatusText(s), "error": s})
			return
		}
	}
	if m.write == nil {
		reply(w, status, members)
		return
	}
	m.write(w, r, status, members, asked)
}

func has(asked url.Values, scope string) bool {
	return slices.Contains(strings.Fields(asked.Get("scope")), scope)
}

func vendors() map[string]manner {
	return map[string]manner{
		"GoogleOauth2": {keeps: true, write: google, needs: func(q url.Values) bool {
			return q.Get("access_type") == "offline" && q.Get("prompt") == "consent"
		}},
		"GithubOauth2":     {write: github},
		"SlackOauth2":      {noPKCE: true, write: slack},
		"SalesforceOauth2": {keeps: true, write: salesforce, needs: func(q url.Values) bool { return has(q, "refresh_token") }},
		Microsoft:          {postOnly: true, pkce: true, keeps: true},
		"AtlassianOauth2": {postOnly: true, params: map[string]string{"audience": "api.atlassian.com", "prompt": "consent"},
			needs: func(q url.Values) bool { return has(q, "offline_access") }},
		"XOauth2": {basicOnly: true, pkce: true, needs: func(q url.Values) bool { return has(q, "offline.access") }},
		"RedditOauth2": {basicOnly: true, noPKCE: true, keeps: true, needs: func(q url.Values) bool { return q.Get("duration") == "permanent" },
			header: func(h http.Header) int {
				if !strings.Contains(h.Get("User-Agent"), ClientID) {
					return http.StatusTooManyRequests
				}
				return 0
			}},
		"TwitchOauth2": {postOnly: true, noPKCE: true, write: twitch},
		"NotionOauth2": {basicOnly: true, noPKCE: true, json: true, params: map[string]string{"owner": "user"}, write: notion,
			header: func(h http.Header) int {
				if h.Get("Notion-Version") == "" || h.Get("Content-Type") != "application/json" {
					return http.StatusBadRequest
				}
				return 0
			}},
		"HubspotOauth2":  {postOnly: true, noPKCE: true, keeps: true, write: hubspot},
		"DropboxOauth2":  {keeps: true, needs: func(q url.Values) bool { return q.Get("token_access_type") == "offline" }},
		"FacebookOauth2": {noPKCE: true, needs: func(url.Values) bool { return false }},
	}
}

// google names scopes in their long form.
func google(w http.ResponseWriter, _ *http.Request, status int, members map[string]any, asked url.Values) {
	if asked != nil {
		long := strings.Fields(asked.Get("scope"))
		for i, s := range long {
			if s == "email" || s == "profile" {
				long[i] = "https://www.googleapis.com/auth/userinfo." + s
			}
		}
		members["scope"] = strings.Join(long, " ")
	}
	reply(w, status, members)
}

// github answers errors with status 200 and its own codes, and everything as a form unless JSON is asked for.
func github(w http.ResponseWriter, r *http.Request, status int, members map[string]any, asked url.Values) {
	switch {
	case members["error"] == "invalid_grant" && r.PostForm.Get("grant_type") == "refresh_token":
		members["error"] = "bad_refresh_token"
	case members["error"] == "invalid_grant":
		members["error"] = "bad_verification_code"
	case status == http.StatusUnauthorized:
		members["error"] = "incorrect_client_credentials"
	case asked != nil:
		members["scope"], members["token_type"] = strings.ReplaceAll(asked.Get("scope"), " ", ","), "bearer"
		members["refresh_token_expires_in"] = 15811200
	}
	if r.Header.Get("Accept") == "application/json" {
		reply(w, http.StatusOK, members)
		return
	}
	form := url.Values{}
	for name, value := range members {
		form.Set(name, fmt.Sprint(value))
	}
	w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	_, _ = io.WriteString(w, form.Encode()) // the client may be gone, which is its business
}

// slack nests the user's token in the first answer and not in that of a refresh, calls types by who holds the token,
// and answers everything with status 200.
func slack(w http.ResponseWriter, r *http.Request, _ int, members map[string]any, asked url.Values) {
	if _, failed := members["error"]; failed {
		code := "invalid_code"
		if r.PostForm.Get("grant_type") == "refresh_token" {
			code = "invalid_refresh_token"
		}
		reply(w, http.StatusOK, map[string]any{"ok": false, "error": code})
		return
	}
	answer := map[string]any{"ok": true, "app_id": "A1", "team": map[string]any{"id": "T1", "name": "Team One"}, "enterprise": nil}
	user := map[string]any{"id": "U1"}
	members["expires_in"] = 43200
	switch {
	case r.PostForm.Get("grant_type") == "refresh_token":
		members["token_type"] = "bot"
		if asked.Get("user_scope") != "" {
			members["token_type"] = "user"
		}
		delete(members, "scope")
		for name, value := range members {
			answer[name] = value
		}
		reply(w, http.StatusOK, answer)
		return
	case asked.Get("user_scope") != "":
		members["token_type"], members["scope"] = "user", asked.Get("user_scope")
		for name, value := range members {
			user[name] = value
		}
		if asked.Get("scope") != "" {
			answer["access_token"], answer["token_type"], answer["scope"], answer["bot_user_id"] = "xoxb-the-bots", "bot", asked.Get("scope"), "B1"
		}
	default:
		members["token_type"] = "bot"
		for name, value := range members {
			answer[name] = value
		}
		answer["bot_user_id"] = "B1"
	}
	answer["authed_user"] = user
	reply(w, http.StatusOK, answer)
}

// salesforce does not say how long a token lives, and names the address that it is good for.
func salesforce(w http.ResponseWriter, _ *http.Request, status int, members map[string]any, asked url.Values) {
	delete(members, "expires_in")
	if asked != nil {
		members["scope"] = asked.Get("scope")
		members["instance_url"], members["id"] = "https://example.my.salesforce.com", "https://login.salesforce.com/id/00D/005"
		members["issued_at"], members["signature"] = "1763900000000", "c2ln"
	}
	reply(w, status, members)
}

// twitch names scopes in an array and describes errors in a member of its own.
func twitch(w http.ResponseWriter, r *http.Request, status int, members map[string]any, asked url.Values) {
	if _, failed := members["error"]; failed {
		message := "invalid client secret"
		if members["error"] == "invalid_grant" {
			message = "Invalid authorization code"
			if r.PostForm.Get("grant_type") == "refresh_token" {
				message = "Invalid refresh token"
			}
		}
		reply(w, status, map[string]any{"status": status, "message": message})
		return
	}
	members["scope"], members["token_type"] = strings.Fields(asked.Get("scope")), "bearer"
	reply(w, status, members)
}

// notion has no scopes and no expiry.
func notion(w http.ResponseWriter, _ *http.Request, status int, members map[string]any, asked url.Values) {
	delete(members, "expires_in")
	delete(members, "scope")
	if asked != nil {
		members["token_type"], members["bot_id"], members["workspace_id"], members["workspace_name"] = "bearer", "bot-1", "workspace-1", "Ada's"
		members["owner"] = map[string]any{"type": "user", "user": map[string]any{"id": "user-1"}}
		members["duplicated_template_id"] = nil
	}
	reply(w, status, members)
}

// hubspot names the account by a number, and the scopes in a member of its own.
func hubspot(w http.ResponseWriter, _ *http.Request, status int, members map[string]any, asked url.Values) {
	if asked != nil {
		delete(members, "scope")
		members["scopes"], members["hub_id"], members["user_id"] = strings.Fields(asked.Get("scope")), 1234567, 89
		members["token_type"], members["expires_in"] = "bearer", 1800
	}
	reply(w, status, members)
}
