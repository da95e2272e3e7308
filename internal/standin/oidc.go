package standin

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/tabard-id/tabard/internal/secret"
)

// OIDCConfig configures the OpenID provider. Only Issuer and Clients are needed.
type OIDCConfig struct {
	// Issuer is the origin where Handler is served, such as http://127.0.0.1:8081; http is allowed.
	Issuer  string
	Clients []Client
	// Users defaults to OIDCUsers.
	Users []User
	// AccessTokenLifetime and IDTokenLifetime default to one hour, RefreshTokenLifetime to 30 days.
	AccessTokenLifetime, IDTokenLifetime, RefreshTokenLifetime time.Duration
	// Now is the clock of access, refresh and minted tokens; it defaults to time.Now. ID tokens that come out of a login
	// are dated by the library underneath, which reads the real clock.
	Now func() time.Time
	// Hint is shown above the login form. The demo names its accounts there.
	Hint string
}

// OIDC is an OpenID provider on zitadel's library: code flow with PKCE S256 (demanded), refresh, userinfo, discovery,
// JWKS.
//
// Its access tokens are JWTs as Amazon Cognito makes them: `client_id` and no `aud`, `token_use` "access", `scope`,
// `username`. ID tokens have `aud`, `token_use` "id", `email`, `name`, `nonce`. A refresh token comes with the scope
// offline_access and is replaced at each use. The login page asks every time: there is no single sign-on session.
type OIDC struct {
	config   OIDCConfig
	dir      *directory
	pages    *pages
	forms    *formGuard
	provider *op.Provider
	handler  http.Handler

	mu       sync.Mutex // guards the rest
	keys     []*signingKey
	requests map[string]*authRequest // by id
	codes    map[string]string       // authorization code to request id
	issued   map[string]issuedToken  // by jti
	refresh  map[string]*refreshRequest
}

// NewOIDC makes a provider with a fresh RS256 key. It fails when the issuer is no origin, or a user or client is
// incomplete.
func NewOIDC(config OIDCConfig) (*OIDC, error) {
	issuer, err := parseIssuer(config.Issuer)
	if err != nil {
		return nil, err
	}
	config = withOIDCDefaults(config)
	o := &OIDC{config: config, forms: newFormGuard("standin_oidc_form_" + issuer.Port()),
		requests: map[string]*authRequest{}, codes: map[string]string{},
		issued: map[string]issuedToken{}, refresh: map[string]*refreshRequest{}}
	if o.dir, err = newDirectory(config.Users, config.Clients); err != nil {
		return nil, err
	}
	if o.pages, err = newPages("Corp Login (stand-in)"); err != nil {
		return nil, err
	}
	if err = o.RotateKey(); err != nil {
		return nil, err
	}
	o.provider, err = op.NewProvider(
		&op.Config{CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true, DefaultLogoutRedirectURI: "/signed-out"},
		storage{o}, op.StaticIssuer(config.Issuer),
		op.WithAllowInsecure(), op.WithCrypto(tokenMaker{o}), op.WithCORSOptions(nil),
		op.WithCustomEndpoints(op.NewEndpoint("oauth2/authorize"), op.NewEndpoint("oauth2/token"), op.NewEndpoint("oauth2/userInfo"),
			op.NewEndpoint("oauth2/revoke"), op.NewEndpoint("logout"), op.NewEndpoint(".well-known/jwks.json")))
	if err != nil {
		return nil, fmt.Errorf("standin: openid provider: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", o.showLogin)
	mux.HandleFunc("POST /login", o.checkLogin)
	mux.HandleFunc("GET /signed-out", func(w http.ResponseWriter, _ *http.Request) {
		o.pages.message(w, http.StatusOK, "Signed out", "You can close this page.")
	})
	mux.Handle("/", o.provider)
	o.handler = hardened(mux)
	return o, nil
}

func withOIDCDefaults(c OIDCConfig) OIDCConfig {
	if c.Users == nil {
		c.Users = OIDCUsers()
	}
	if c.AccessTokenLifetime == 0 {
		c.AccessTokenLifetime = time.Hour
	}
	if c.IDTokenLifetime == 0 {
		c.IDTokenLifetime = time.Hour
	}
	if c.RefreshTokenLifetime == 0 {
		c.RefreshTokenLifetime = 30 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Handler serves the whole provider from the root of the issuer's origin.
func (o *OIDC) Handler() http.Handler { return o.handler }

// Issuer is the `iss` of every token, and the base of /.well-known/openid-configuration.
func (o *OIDC) Issuer() string { return o.config.Issuer }

// AddRedirectURI registers one more redirect URI, for a client whose address is known only later.
func (o *OIDC) AddRedirectURI(client, uri string) error { return o.dir.addRedirectURI(client, uri) }

// MintAccessToken returns an access token for the named user and client without a login, as one from the code flow with
// the scopes openid, profile and email. It panics when there is no such user: tests name their users.
func (o *OIDC) MintAccessToken(user, client string) secret.Text {
	t := issuedToken{user: o.mustUser(user), client: client, scopes: []string{"openid", "profile", "email"}, auth: o.config.Now()}
	token, err := o.signAccessToken(o.record(t))
	if err != nil {
		panic(err)
	}
	return secret.New(token)
}

// MintIDToken returns an ID token for the named user whose audience is the client, without a login and without nonce.
func (o *OIDC) MintIDToken(user, client string) secret.Text {
	u, now := o.mustUser(user), o.config.Now()
	return o.Sign(map[string]any{
		"iss": o.config.Issuer, "sub": u.Subject(), "aud": client, "token_use": "id", "cognito:username": u.Name,
		"email": u.Email, "email_verified": true, "name": u.FullName,
		"auth_time": now.Unix(), "iat": now.Unix(), "exp": now.Add(o.config.IDTokenLifetime).Unix(),
	})
}

// Sign returns a JWT with exactly these claims under the current key: for tests of what a verifier must refuse.
func (o *OIDC) Sign(claims map[string]any) secret.Text {
	token, err := o.sign(maps.Clone(claims))
	if err != nil {
		panic(err)
	}
	return secret.New(token)
}

func (o *OIDC) mustUser(name string) User {
	u, ok := o.dir.user(name)
	if !ok {
		panic("standin: no user " + name)
	}
	return u
}

// showLogin answers GET /login?id=…, where the library sends a browser with a stored authorization request.
func (o *OIDC) showLogin(w http.ResponseWriter, r *http.Request) {
	req, err := o.request(r.FormValue("id"))
	if err != nil {
		o.pages.message(w, http.StatusBadRequest, "This sign-in has expired", "Go back to the application and start again.")
		return
	}
	o.login(w, r, req, http.StatusOK, req.hint, "")
}

func (o *OIDC) login(w http.ResponseWriter, r *http.Request, req *authRequest, status int, username, wrong string) {
	client, _ := o.dir.client(req.client)
	o.pages.render(w, status, "login", loginPage{Title: "Sign in", Client: client.Name, Hint: o.config.Hint, Error: wrong,
		Action: "/login", Form: o.forms.token(w, r), Request: req.id, Label: "User name", Username: username})
}

// checkLogin answers the login form. The code goes straight to the client from here: the library's own callback, which
// knows the request only by its id, never sees a finished request, so nobody can pick up another person's login.
func (o *OIDC) checkLogin(w http.ResponseWriter, r *http.Request) {
	req, err := o.request(r.PostFormValue("request"))
	if err != nil {
		o.pages.message(w, http.StatusBadRequest, "This sign-in has expired", "Go back to the application and start again.")
		return
	}
	name := strings.TrimSpace(r.PostFormValue("username"))
	if !o.forms.valid(r) {
		o.login(w, r, req, http.StatusForbidden, name, "This page was open too long or came from another site. Please try again.")
		return
	}
	user, ok := o.dir.logIn(name, secret.New(r.PostFormValue("password")))
	if !ok {
		o.login(w, r, req, http.StatusUnauthorized, name, "User name or password is wrong.")
		return
	}
	done := *req
	done.user, done.auth = user, o.config.Now()
	o.mu.Lock()
	o.requests[req.id] = &done
	o.mu.Unlock()
	op.AuthResponse(&done, o.provider, w, r.WithContext(op.ContextWithIssuer(r.Context(), o.config.Issuer)))
}

var errExpired = errors.New("the authorization request is unknown or has expired")

// request returns the pending authorization request, which is never changed in place.
func (o *OIDC) request(id string) (*authRequest, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	req, ok := o.requests[id]
	if !ok || !o.config.Now().Before(req.created.Add(interactionLifetime)) {
		return nil, errExpired
	}
	return req, nil
}
