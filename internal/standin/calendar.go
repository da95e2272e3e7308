package standin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

// ScopeCalendarEvents lets a client see and edit events: Google's name for it.
const ScopeCalendarEvents = "https://www.googleapis.com/auth/calendar.events"

// Paths of the calendar provider, as Google has them where Google has one.
const (
	pathAuthorize = "/o/oauth2/v2/auth"
	pathConsent   = "/o/oauth2/v2/consent"
	pathToken     = "/token"
	pathRevoke    = "/revoke"
	pathSignIn    = "/signin"
	pathCalendar  = "/calendar"
	pathAPI       = "/calendar/v3/"
)

// CalendarConfig configures the calendar provider. Only Issuer and Clients are needed.
type CalendarConfig struct {
	// Issuer is the origin where Handler is served, such as http://127.0.0.1:8082; http is allowed.
	Issuer  string
	Clients []Client
	// Users defaults to CalendarUsers. Their Name is also their calendar's id, so it should be an address.
	Users []User
	// AccessTokenLifetime defaults to 60 s; whole seconds.
	AccessTokenLifetime time.Duration
	// Now is the clock; it defaults to time.Now.
	Now func() time.Time
	// Zone is the time zone of all calendars; it defaults to UTC.
	Zone *time.Location
	// Hint is shown above the login form. The demo names its accounts there.
	Hint string
}

// Calendar is an OAuth 2.0 authorization server with a calendar behind it.
//
// What it does where the standards leave a choice: PKCE S256 is demanded of everyone; consent is asked each time and
// each scope can be unticked; a refresh token is given when the request has access_type=offline (as at Google) or the
// scope offline_access, is replaced at each use, and ends its whole grant when it is used twice; a code used twice does
// the same; access tokens are opaque; the authorization response carries iss (RFC 9207).
type Calendar struct {
	config  CalendarConfig
	dir     *directory
	pages   *pages
	forms   *formGuard
	session string // name of the session cookie
	handler http.Handler

	mu       sync.Mutex // guards the rest
	sessions map[string]User
	pending  map[string]consentRequest
	grants   grants
	books    map[string]*book // by calendar id
	requests []TokenRequest
	faults   []Fault
}

// NewCalendar makes a provider with empty calendars. It fails when the issuer is no origin, or a user or client is
// incomplete.
func NewCalendar(config CalendarConfig) (*Calendar, error) {
	issuer, err := parseIssuer(config.Issuer)
	if err != nil {
		return nil, err
	}
	if config.Users == nil {
		config.Users = CalendarUsers()
	}
	if config.AccessTokenLifetime == 0 {
		config.AccessTokenLifetime = time.Minute
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Zone == nil {
		config.Zone = time.UTC
	}
	for _, c := range config.Clients {
		if c.Secret.IsZero() {
			return nil, errors.New("standin: the calendar's client " + c.ID + " needs a secret")
		}
	}
	c := &Calendar{config: config, forms: newFormGuard("standin_calendar_form_" + issuer.Port()),
		session: "standin_calendar_" + issuer.Port(), sessions: map[string]User{}, pending: map[string]consentRequest{},
		grants: newGrants(), books: map[string]*book{}}
	if c.dir, err = newDirectory(config.Users, config.Clients); err != nil {
		return nil, err
	}
	if c.pages, err = newPages("Example Calendar (stand-in)"); err != nil {
		return nil, err
	}
	for _, u := range config.Users {
		c.books[u.Name] = &book{}
	}
	c.handler = hardened(c.routes())
	return c, nil
}

func (c *Calendar) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", c.metadata)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", c.metadata)
	mux.HandleFunc("GET /oauth2/v3/certs", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"keys": []any{}})
	})
	mux.HandleFunc("GET "+pathAuthorize, c.authorize)
	mux.HandleFunc("POST "+pathConsent, c.consent)
	mux.HandleFunc("GET "+pathSignIn, c.showSignIn)
	mux.HandleFunc("POST "+pathSignIn, c.checkSignIn)
	mux.HandleFunc("POST /signout", c.signOut)
	mux.HandleFunc("POST "+pathToken, c.token)
	mux.HandleFunc("POST "+pathRevoke, c.revoke)
	mux.HandleFunc("GET "+pathCalendar, c.page)
	mux.Handle("GET /{$}", http.RedirectHandler(pathCalendar, http.StatusSeeOther))
	c.apiRoutes(mux)
	return mux
}

// Handler serves the whole provider from the root of the issuer's origin.
func (c *Calendar) Handler() http.Handler { return c.handler }

// Issuer is the value of `iss`, and the base of /.well-known/openid-configuration.
func (c *Calendar) Issuer() string { return c.config.Issuer }

// Endpoint is what option.WithEndpoint of Google's client takes.
func (c *Calendar) Endpoint() string { return c.config.Issuer + pathAPI }

// PageURL is the address where a signed-in person sees their calendar.
func (c *Calendar) PageURL() string { return c.config.Issuer + pathCalendar }

// AddRedirectURI registers one more redirect URI, for a client whose address is known only later.
func (c *Calendar) AddRedirectURI(client, uri string) error { return c.dir.addRedirectURI(client, uri) }

// Events returns the user's events that are not deleted, by start.
func (c *Calendar) Events(user string) []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.books[user]
	if b == nil {
		return nil
	}
	return b.live()
}

// TokenRequest is one request that reached the token endpoint.
type TokenRequest struct {
	GrantType string
	// Client is the client that authenticated, empty if none did.
	Client string
	// User is whose grant was used, empty if it came to none.
	User string
	// Status is what was answered, 0 while the request is held, -1 if there was no answer.
	Status int
	// Error is the OAuth error code of the answer.
	Error string
}

// TokenRequests returns every request that reached the token endpoint, in order of arrival, refused ones included.
func (c *Calendar) TokenRequests() []TokenRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Redemptions counts the requests that presented an authorization code, whatever came of them.
func (c *Calendar) Redemptions() int { return c.count("authorization_code") }

// Refreshes counts the requests that presented a refresh token, whatever came of them.
func (c *Calendar) Refreshes() int { return c.count("refresh_token") }

func (c *Calendar) count(grantType string) int {
	n := 0
	for _, r := range c.TokenRequests() {
		if r.GrantType == grantType {
			n++
		}
	}
	return n
}

// ExpireAccessTokens ends every access token given out so far. Refresh tokens live on.
func (c *Calendar) ExpireAccessTokens() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.grants.expireAccess(c.config.Now())
}

// SetAccessTokenLifetime changes the lifetime of the access tokens given out from now on; whole seconds.
func (c *Calendar) SetAccessTokenLifetime(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config.AccessTokenLifetime = d
}

// RevokeGrant ends everything the user has allowed any client, as if they had done so in their account's settings.
func (c *Calendar) RevokeGrant(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.grants.revokeUser(user)
}

// AccessTokenWorks reports whether the API would take the token now.
func (c *Calendar) AccessTokenWorks(token secret.Text) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.grants.access(token, c.config.Now())
	return ok
}

// Fault is what goes wrong with one request to the token endpoint. Its parts happen in the order of the fields.
type Fault struct {
	// Wait holds the request until the channel is closed or the client is gone.
	Wait <-chan struct{}
	// Delay holds the request for this long.
	Delay time.Duration
	// Status, if set, is answered, with nothing looked at and nothing changed: a 5xx before the work.
	Status int
	// DropAnswer does the work and then closes the connection: the client cannot know whether its token was spent.
	DropAnswer bool
}

// hold waits as the fault says; false means that the client went away first.
func (f Fault) hold(ctx context.Context) bool {
	if f.Wait != nil {
		select {
		case <-f.Wait:
		case <-ctx.Done():
			return false
		}
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// FailNext queues faults; each meets one of the next requests to the token endpoint.
func (c *Calendar) FailNext(faults ...Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, faults...)
}
