package standin

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

// consentRequest is an authorization request that waits for one person's decision.
type consentRequest struct {
	client, redirectURI, state, challenge string
	scopes                                []string
	offline                               bool
	session                               string // only this session may decide
	created                               time.Time
}

func supportedScopes() []string {
	return []string{ScopeCalendarEvents, "https://www.googleapis.com/auth/calendar.events.readonly",
		"https://www.googleapis.com/auth/calendar", "https://www.googleapis.com/auth/calendar.readonly", "offline_access"}
}

// scopeText says in plain words what a scope allows, and whether it exists.
func scopeText(scope string) (string, bool) {
	switch scope {
	case ScopeCalendarEvents:
		return "See and change the events in your calendar", true
	case "https://www.googleapis.com/auth/calendar.events.readonly":
		return "See the events in your calendar", true
	case "https://www.googleapis.com/auth/calendar":
		return "See, change and delete your calendars and everything in them", true
	case "https://www.googleapis.com/auth/calendar.readonly":
		return "See your calendars and everything in them", true
	case "offline_access":
		return "Do this while you are away", true
	}
	return "", false
}

// authorize answers the authorization endpoint. Until the redirect URI is known to be the client's, problems are shown
// on a page and never sent anywhere (RFC 6749 §4.1.2.1).
func (c *Calendar) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	client, ok := c.dir.client(q.Get("client_id"))
	if !ok {
		c.pages.message(w, http.StatusBadRequest, "Unknown application", "The link that brought you here names an application we do not know.")
		return
	}
	back := q.Get("redirect_uri")
	if !slices.Contains(client.RedirectURIs, back) {
		c.pages.message(w, http.StatusBadRequest, "Wrong return address", "The link that brought you here would return to an address that "+client.Name+" has not registered.")
		return
	}
	if code, why := checkAuthorization(q); code != "" {
		c.answer(w, r, back, url.Values{"error": {code}, "error_description": {why}, "state": {q.Get("state")}})
		return
	}
	prompts := strings.Fields(q.Get("prompt"))
	id, user, in := c.signedIn(r)
	if slices.Contains(prompts, "none") {
		code := "login_required"
		if in {
			code = "consent_required"
		}
		c.answer(w, r, back, url.Values{"error": {code}, "state": {q.Get("state")}})
		return
	}
	if again := slices.Contains(prompts, "login") || slices.Contains(prompts, "select_account"); !in || again {
		q.Del("prompt") // else the login would be asked for ever
		http.Redirect(w, r, pathSignIn+"?continue="+url.QueryEscape(pathAuthorize+"?"+q.Encode()), http.StatusSeeOther)
		return
	}
	scopes := slices.Compact(slices.Sorted(strings.FieldsSeq(q.Get("scope"))))
	request := consentRequest{client: client.ID, redirectURI: back, state: q.Get("state"), challenge: q.Get("code_challenge"), scopes: scopes,
		offline: q.Get("access_type") == "offline" || slices.Contains(scopes, "offline_access"), session: id, created: c.config.Now()}
	key, ok := c.keep(request)
	if !ok {
		c.answer(w, r, back, url.Values{"error": {"temporarily_unavailable"}, "state": {q.Get("state")}})
		return
	}
	c.showConsent(w, r, client, user, request, key)
}

// checkAuthorization returns the OAuth error code and reason for what is wrong with an authorization request.
func checkAuthorization(q url.Values) (code, why string) {
	for name, values := range q {
		if len(values) > 1 { // RFC 6749 §3.1
			return "invalid_request", name + " was sent twice"
		}
	}
	switch {
	case q.Get("response_type") != "code":
		return "unsupported_response_type", "response_type must be code"
	case len(q.Get("code_challenge")) != 43 || q.Get("code_challenge_method") != "S256":
		return "invalid_request", "code_challenge with code_challenge_method S256 is required"
	case strings.TrimSpace(q.Get("scope")) == "":
		return "invalid_scope", "scope is missing"
	}
	for s := range strings.FieldsSeq(q.Get("scope")) {
		if _, ok := scopeText(s); !ok {
			return "invalid_scope", "a scope is unknown here"
		}
	}
	return "", ""
}

// answer sends the browser back to the client, with iss (RFC 9207).
func (c *Calendar) answer(w http.ResponseWriter, r *http.Request, to string, params url.Values) {
	u, err := url.Parse(to)
	if err != nil {
		c.pages.message(w, http.StatusInternalServerError, "Wrong return address", "The application's return address cannot be read.")
		return
	}
	q := u.Query()
	for name, values := range params {
		if values[0] != "" {
			q.Set(name, values[0])
		}
	}
	q.Set("iss", c.config.Issuer)
	u.RawQuery = q.Encode()
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}

func (c *Calendar) keep(request consentRequest) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, old := range c.pending {
		if request.created.Sub(old.created) > interactionLifetime {
			delete(c.pending, key)
		}
	}
	if len(c.pending) >= maxPending {
		return "", false
	}
	key := rand.Text()
	c.pending[key] = request
	return key, true
}

// scopeChoice is one line of the consent page.
type scopeChoice struct{ Name, Text string }

func (c *Calendar) showConsent(w http.ResponseWriter, r *http.Request, client Client, user User, request consentRequest, key string) {
	var choices []scopeChoice
	for _, s := range request.scopes {
		text, _ := scopeText(s)
		choices = append(choices, scopeChoice{s, text})
	}
	back, _ := url.Parse(request.redirectURI) // registered, and parsed again before it is used
	c.pages.render(w, http.StatusOK, "consent", struct {
		Title, Client, Host, Action, Form, Request string
		User                                       User
		Scopes                                     []scopeChoice
	}{"Allow access", client.Name, back.Host, pathConsent, c.forms.token(w, r), key, user, choices})
}

// consent answers the consent form: decision is "allow" or "deny", scope the boxes that stayed ticked. A request can be
// decided once, by the session that was asked.
func (c *Calendar) consent(w http.ResponseWriter, r *http.Request) {
	id, user, in := c.signedIn(r)
	if !c.forms.valid(r) || !in {
		c.pages.message(w, http.StatusForbidden, "This page was not ours", "The form came from another site, or you are signed out. Go back to the application and start again.")
		return
	}
	key := r.PostFormValue("request")
	now := c.config.Now()
	c.mu.Lock()
	request, ok := c.pending[key]
	if ok = ok && request.session == id && now.Sub(request.created) <= interactionLifetime; ok {
		delete(c.pending, key)
	}
	c.mu.Unlock()
	if !ok {
		c.pages.message(w, http.StatusBadRequest, "This request has expired", "Go back to the application and start again.")
		return
	}
	var scopes []string
	for _, s := range request.scopes {
		if slices.Contains(r.PostForm["scope"], s) {
			scopes = append(scopes, s)
		}
	}
	if r.PostFormValue("decision") != "allow" || len(scopes) == 0 {
		c.answer(w, r, request.redirectURI, url.Values{"error": {"access_denied"}, "error_description": {"the user denied access"}, "state": {request.state}})
		return
	}
	offline := request.offline
	if slices.Contains(request.scopes, "offline_access") {
		offline = slices.Contains(scopes, "offline_access")
	}
	c.mu.Lock()
	code := c.grants.newCode(&grant{user: user.Name, client: request.client, scopes: scopes, offline: offline}, request.redirectURI, request.challenge, now)
	c.mu.Unlock()
	c.answer(w, r, request.redirectURI, url.Values{"code": {code.Expose()}, "state": {request.state}})
}

// signedIn returns the id of the browser's session and whose it is.
func (c *Calendar) signedIn(r *http.Request) (string, User, bool) {
	k, err := r.Cookie(c.session)
	if err != nil {
		return "", User{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := c.sessions[k.Value]
	return k.Value, u, ok
}

// next returns where the login leads: only to one of our two pages, so that it is no open redirect.
func next(to string) (string, bool) {
	return to, to == pathCalendar || strings.HasPrefix(to, pathAuthorize+"?")
}

func (c *Calendar) showSignIn(w http.ResponseWriter, r *http.Request) {
	to, ok := next(r.FormValue("continue"))
	if !ok {
		to = pathCalendar
	}
	c.signIn(w, r, to, http.StatusOK, "", "")
}

func (c *Calendar) signIn(w http.ResponseWriter, r *http.Request, to string, status int, username, wrong string) {
	name := ""
	if u, err := url.Parse(to); err == nil && u.Path == pathAuthorize {
		client, _ := c.dir.client(u.Query().Get("client_id"))
		name = client.Name
		if username == "" {
			username = u.Query().Get("login_hint")
		}
	}
	c.pages.render(w, status, "login", loginPage{Title: "Sign in to your calendar account", Client: name, Hint: c.config.Hint, Error: wrong,
		Action: pathSignIn, Form: c.forms.token(w, r), Request: to, Label: "Account", Username: username})
}

func (c *Calendar) checkSignIn(w http.ResponseWriter, r *http.Request) {
	to, ok := next(r.PostFormValue("request"))
	if !ok {
		to = pathCalendar
	}
	name := strings.TrimSpace(r.PostFormValue("username"))
	if !c.forms.valid(r) {
		c.signIn(w, r, to, http.StatusForbidden, name, "This page was open too long or came from another site. Please try again.")
		return
	}
	user, ok := c.dir.logIn(name, secret.New(r.PostFormValue("password")))
	if !ok {
		c.signIn(w, r, to, http.StatusUnauthorized, name, "Account or password is wrong.")
		return
	}
	id := rand.Text() // a new one at each login, so that none planted before it counts
	c.mu.Lock()
	if old, err := r.Cookie(c.session); err == nil {
		delete(c.sessions, old.Value)
	}
	c.sessions[id] = user
	c.mu.Unlock()
	http.SetCookie(w, cookie(c.session, id))
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (c *Calendar) signOut(w http.ResponseWriter, r *http.Request) {
	if c.forms.valid(r) {
		id, _, _ := c.signedIn(r)
		c.mu.Lock()
		delete(c.sessions, id)
		c.mu.Unlock()
	}
	http.Redirect(w, r, pathCalendar, http.StatusSeeOther)
}
