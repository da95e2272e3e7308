package peer

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// Client is an OAuth client at the provider.
type Client struct {
	ID           string
	Secret       string
	RedirectURIs []string // none: the client can do client_credentials only
	AuthMethod   string   // token_endpoint_auth_method; client_secret_basic when empty
	JWKSURI      string   // where the client publishes its keys, for private_key_jwt; it has no secret then

	LogoutURI     string // where the client takes logout tokens (OpenID Connect Back-Channel Logout 1.0)
	LogoutSession bool   // the client's ID tokens and logout tokens name the session
}

// OIDCConfig says what the provider knows. The zero value has no client and the users alice and bob.
type OIDCConfig struct {
	Clients []Client
	Users   []string // subjects; alice and bob when empty
	// Scopes besides openid and offline_access; email, profile, calendar.read and calendar.write when empty.
	Scopes         []string
	AccessTokenTTL time.Duration // one hour when zero; whole seconds
	IDTokenTTL     time.Duration // one hour when zero; whole seconds
	// AlwaysRefresh gives a refresh token also without offline_access, which the provider otherwise gives only with
	// scope offline_access and prompt=consent together (OpenID Connect Core §11).
	AlwaysRefresh bool
	// DefaultResource names, by client, the resource (RFC 8707) of access tokens that ask for none. Tokens for a resource
	// are JWTs with that audience; the others are opaque.
	DefaultResource map[string]string
}

// OIDC is a running npm oidc-provider: PKCE required, refresh tokens rotate, a replayed one ends the whole grant.
type OIDC struct {
	Issuer string // http://127.0.0.1:PORT

	clients map[string]Client
	admin   string // base address of the administration, under a path that nobody can guess
	stop    func()
}

// JournalEntry is one request that the provider saw. Codes and tokens appear only as fingerprints, the first 8
// hexadecimal digits of their SHA-256, which secret.Text.Fingerprint gives too.
type JournalEntry struct {
	Kind         string            `json:"kind"` // authorization, token or revocation
	ClientID     string            `json:"client_id"`
	GrantType    string            `json:"grant_type"`
	Presented    string            `json:"presented"` // the code or the refresh token
	AccessToken  string            `json:"access_token"`
	RefreshToken string            `json:"refresh_token"`
	PKCE         bool              `json:"pkce"` // a code_verifier came
	Status       int               `json:"status"`
	Result       string            `json:"result"` // ok, the OAuth error, or outage
	Description  string            `json:"description"`
	Params       map[string]string `json:"params"` // of an authorization request, without state, nonce and challenge
}

// Tokens is what a user's own login gave.
type Tokens struct {
	ID      string
	Access  string
	Refresh string // empty without offline_access
}

// OIDCProvider starts the npm oidc-provider on a random port of 127.0.0.1. It ends with the test.
func OIDCProvider(t testing.TB, cfg OIDCConfig) *OIDC {
	t.Helper()
	cmd := exec.Command(Node(t), "server.mjs")
	cmd.Dir = filepath.Join(Root(t), "test", "oidc-provider")
	cmd.Env = []string{"NODE_ENV=production"}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("start oidc-provider: %v", err)
	}
	o := &OIDC{clients: map[string]Client{}, stop: stopper(t, cmd, stdin, &stderr)}
	t.Cleanup(o.stop)

	secretPath := rand.Text()
	if err := json.NewEncoder(stdin).Encode(cfg.wire(secretPath)); err != nil {
		t.Fatalf("configure oidc-provider: %v", err)
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		o.stop()
		t.Fatalf("oidc-provider did not start: %v\n%s", err, &stderr)
	}
	var hello struct{ Issuer string }
	if err := json.Unmarshal(line, &hello); err != nil {
		t.Fatalf("oidc-provider said %q: %v", line, err)
	}
	o.Issuer = hello.Issuer
	o.admin = o.Issuer + "/" + secretPath + "/"
	for _, c := range cfg.Clients {
		o.clients[c.ID] = c
	}
	return o
}

// DiscoveryURL is the address of the provider's metadata.
func (o *OIDC) DiscoveryURL() string { return o.Issuer + "/.well-known/openid-configuration" }

// Stop ends the provider before the test does, for tests of an outage.
func (o *OIDC) Stop() { o.stop() }

// Register adds a client, or replaces the one with the same ID: a redirect URI is often known only later.
func (o *OIDC) Register(t testing.TB, c Client) {
	t.Helper()
	o.clients[c.ID] = c
	o.administer(t, "client", c.wire(), nil)
}

// FailTokens makes the next n token requests fail with status before the provider looks at them.
func (o *OIDC) FailTokens(t testing.TB, n, status int) {
	t.Helper()
	o.administer(t, "outage", map[string]int{"count": n, "status": status}, nil)
}

// Logout sends the client a logout token of the user and, where the client asked for that, the session.
func (o *OIDC) Logout(t testing.TB, client, user, session string) {
	t.Helper()
	o.administer(t, "logout", map[string]string{"client": client, "user": user, "session": session}, nil)
}

// EndGrants takes away everything that user has granted, as on a provider's account page, and returns the number of
// grants ended.
func (o *OIDC) EndGrants(t testing.TB, user string) int {
	t.Helper()
	var answer struct{ Ended int }
	o.administer(t, "end-grants", map[string]string{"user": user}, &answer)
	return answer.Ended
}

// Journal returns all requests seen so far, oldest first.
func (o *OIDC) Journal(t testing.TB) []JournalEntry {
	t.Helper()
	var entries []JournalEntry
	o.administer(t, "journal", nil, &entries)
	return entries
}

// Count returns how many token requests of grantType ended with result ("ok", "invalid_grant", …).
func (o *OIDC) Count(t testing.TB, grantType, result string) int {
	t.Helper()
	n := 0
	for _, e := range o.Journal(t) {
		if e.Kind == "token" && e.GrantType == grantType && e.Result == result {
			n++
		}
	}
	return n
}

// Login signs user in at client with scopes (and openid) and returns his tokens: the code flow with PKCE by a scripted
// browser, as any web application does it. The client needs a redirect URI; nothing has to listen there.
func (o *OIDC) Login(t testing.TB, client, user string, scopes ...string) Tokens {
	t.Helper()
	conf := o.config(t, client, scopes)
	verifier, state := oauth2.GenerateVerifier(), rand.Text()
	start := conf.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("prompt", "consent"))
	end := NewBrowser(user).Walk(t, start, conf.RedirectURL)
	query := end.URL.Query()
	if query.Get("state") != state || query.Get("iss") != o.Issuer || query.Get("code") == "" {
		t.Fatalf("login of %s ended at %s %d %s", user, end.URL.Path, end.Status, query.Get("error_description"))
	}
	token, err := conf.Exchange(t.Context(), query.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatalf("login of %s: %v", user, err)
	}
	id, _ := token.Extra("id_token").(string)
	return Tokens{ID: id, Access: token.AccessToken, Refresh: token.RefreshToken}
}

func (o *OIDC) config(t testing.TB, client string, scopes []string) *oauth2.Config {
	t.Helper()
	c, ok := o.clients[client]
	if !ok || len(c.RedirectURIs) == 0 {
		t.Fatalf("the provider has no client %q with a redirect URI", client)
	}
	return &oauth2.Config{
		ClientID:     c.ID,
		ClientSecret: c.Secret,
		RedirectURL:  c.RedirectURIs[0],
		Scopes:       append([]string{"openid"}, scopes...),
		Endpoint:     oauth2.Endpoint{AuthURL: o.Issuer + "/auth", TokenURL: o.Issuer + "/token"},
	}
}

// administer posts to the administration, or gets where in is nil.
func (o *OIDC) administer(t testing.TB, what string, in, out any) {
	t.Helper()
	method, body := "GET", io.Reader(nil)
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		method, body = "POST", bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, o.admin+what, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("oidc-provider %s: %v", what, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("oidc-provider %s: %s", what, resp.Status)
	}
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatalf("oidc-provider %s: %v", what, err)
		}
	}
}

func (cfg OIDCConfig) wire(admin string) map[string]any {
	if len(cfg.Users) == 0 {
		cfg.Users = []string{"alice", "bob"}
	}
	if len(cfg.Scopes) == 0 {
		cfg.Scopes = strings.Fields("email profile calendar.read calendar.write")
	}
	clients := make([]map[string]any, 0, len(cfg.Clients))
	for _, c := range cfg.Clients {
		clients = append(clients, c.wire())
	}
	return map[string]any{
		"clients":          clients,
		"users":            cfg.Users,
		"scopes":           cfg.Scopes,
		"admin":            admin,
		"access_token_ttl": seconds(cfg.AccessTokenTTL),
		"id_token_ttl":     seconds(cfg.IDTokenTTL),
		"always_refresh":   cfg.AlwaysRefresh,
		"default_resource": cfg.DefaultResource,
	}
}

func (c Client) wire() map[string]any {
	w := map[string]any{
		"client_id":                  c.ID,
		"client_secret":              c.Secret,
		"redirect_uris":              c.RedirectURIs,
		"token_endpoint_auth_method": c.AuthMethod,
		"grant_types":                []string{"authorization_code", "refresh_token", "client_credentials"},
		"response_types":             []string{"code"},
	}
	if c.AuthMethod == "" {
		w["token_endpoint_auth_method"] = "client_secret_basic"
	}
	if c.LogoutURI != "" {
		w["backchannel_logout_uri"], w["backchannel_logout_session_required"] = c.LogoutURI, c.LogoutSession
	}
	if c.JWKSURI != "" {
		w["token_endpoint_auth_method"], w["jwks_uri"] = "private_key_jwt", c.JWKSURI
		delete(w, "client_secret")
	}
	if len(c.RedirectURIs) == 0 {
		w["redirect_uris"] = []string{}
		w["grant_types"], w["response_types"] = []string{"client_credentials"}, []string{}
	}
	return w
}

func seconds(d time.Duration) int {
	if d == 0 {
		d = time.Hour
	}
	return int(d / time.Second)
}

// stopper returns a function that ends cmd once: by closing its standard input, and by its process id where it has not
// gone after five seconds.
func stopper(t testing.TB, cmd *exec.Cmd, stdin io.Closer, stderr fmt.Stringer) func() {
	stopped := false
	return func() {
		if stopped {
			return
		}
		stopped = true
		_ = stdin.Close()
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		if err != nil {
			t.Logf("%s: %v\n%s", filepath.Base(cmd.Path), err, stderr)
		}
	}
}
