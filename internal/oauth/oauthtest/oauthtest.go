// Package oauthtest is a provider for tests: one OAuth server on loopback that behaves, until a test tells it not to.
//
// It has the authorization, token, metadata and JWKS endpoints of an OpenID provider with one client and one user who
// always consents. What it should do wrong is queued: each queued Fault serves one request to the endpoint it was
// queued for. It records every request to the token endpoint, and so can say how often a grant was sent.
package oauthtest

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Endpoints that faults are queued for.
const (
	Metadata = "/.well-known/openid-configuration"
	Token    = "/token"
	JWKS     = "/jwks"
	Revoke   = "/revoke"
)

// The one client of every Server.
const (
	ClientID     = "client"
	ClientSecret = "client-secret-5b1c9f"
)

// Fault answers one request in place of the server. behave is what the server would have done: a fault that calls it
// makes the grant count as used.
type Fault func(w http.ResponseWriter, r *http.Request, behave http.HandlerFunc)

// Request is a request that the token endpoint got.
type Request struct {
	Form          url.Values
	Authorization string
	Header        http.Header
}

// Server is a provider. Its issuer is URL.
type Server struct {
	URL   string
	Roots *x509.CertPool // trusts its certificate; nil without TLS

	http   *httptest.Server
	manner manner // how it differs from the standard
	entra  *entra // nil but for Microsoft

	mu       sync.Mutex // guards the rest
	rotate   bool
	lifetime int
	members  map[string]any // of the metadata, in place of the usual ones
	faults   map[string][]Fault
	hits     map[string]int
	requests []Request
	codes    map[string]url.Values // authorization requests by code
	asked    map[int]url.Values    // the same by family
	families map[string]int        // refresh token → family
	spent    map[string]bool       // refresh tokens
	revoked  map[int]bool          // families
	next     int
	killed   []string        // what came to the revocation endpoint
	issued   map[string]int  // access token → family
	ended    map[string]bool // tokens that a vendor revoked its own way
	idToken  map[string]any  // claims to change; nil where none is issued

	clientKeys []jose.JSONWebKey // with them the client has no secret
	trusted    [2]string         // issuer and subject of the client's assertions; none where it signs them itself
	assertions map[string]bool   // by jti
}

// New starts a server on plain http. It ends with the test.
func New(tb testing.TB) *Server {
	s := newServer()
	s.start(tb)
	return s
}

func (s *Server) start(tb testing.TB) {
	s.http = httptest.NewUnstartedServer(s.handler())
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.http.Start()
	s.URL = s.http.URL
	tb.Cleanup(s.http.Close)
}

// NewTLS starts a server on https, with httptest's certificate (for example.com and 127.0.0.1) or with the one given.
func NewTLS(tb testing.TB, config *tls.Config) *Server {
	s := newServer()
	s.http = httptest.NewUnstartedServer(s.handler())
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are what tests are about
	s.http.TLS = config
	s.http.StartTLS()
	s.URL = s.http.URL
	s.Roots = x509.NewCertPool()
	s.Roots.AddCert(s.http.Certificate())
	tb.Cleanup(s.http.Close)
	return s
}

func newServer() *Server {
	return &Server{
		rotate: true, lifetime: 3600,
		members: map[string]any{}, faults: map[string][]Fault{}, hits: map[string]int{}, codes: map[string]url.Values{}, asked: map[int]url.Values{},
		families: map[string]int{}, spent: map[string]bool{}, revoked: map[int]bool{}, assertions: map[string]bool{},
		issued: map[string]int{}, ended: map[string]bool{},
	}
}

// SetRotate says whether a refresh token that is used is replaced (the default), and its reuse revokes the family.
func (s *Server) SetRotate(on bool) { s.mu.Lock(); defer s.mu.Unlock(); s.rotate = on }

// SetLifetime sets expires_in, in seconds.
func (s *Server) SetLifetime(seconds int) { s.mu.Lock(); defer s.mu.Unlock(); s.lifetime = seconds }

// SetMetadata replaces a member of the metadata; nil removes it.
func (s *Server) SetMetadata(name string, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[name] = value
}

// RevokeAll makes every refresh token invalid.
func (s *Server) RevokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, family := range s.families {
		s.revoked[family] = true
	}
}

// Queue makes the next requests to endpoint fail, each by one fault.
func (s *Server) Queue(endpoint string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[endpoint] = append(s.faults[endpoint], faults...)
}

// Hits returns how many requests endpoint got.
func (s *Server) Hits(endpoint string) int { s.mu.Lock(); defer s.mu.Unlock(); return s.hits[endpoint] }

// Requests returns what the token endpoint got, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Sent returns how often the code or refresh token arrived.
func (s *Server) Sent(grant string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Form.Get("code") == grant || r.Form.Get("refresh_token") == grant {
			n++
		}
	}
	return n
}

// CloseIdle closes the connections that no request is using, as a server does after a while.
func (s *Server) CloseIdle() { s.http.CloseClientConnections() }

// Approve is the user's browser: it consents to the authorization URL and returns the query that the callback gets.
func (s *Server) Approve(authorizationURL string) (url.Values, error) {
	u, err := url.Parse(authorizationURL)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	if err := s.manner.authorize(q); err != nil {
		return nil, err
	}
	code := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entra != nil {
		if err := s.entra.authorize(q); err != nil {
			return nil, err
		}
	}
	s.codes[code] = q
	return url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {s.URL}}, nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(Metadata, s.faulty(Metadata, s.serveMetadata))
	mux.Handle("/.well-known/oauth-authorization-server", s.faulty(Metadata, s.serveMetadata))
	mux.Handle(JWKS, s.faulty(JWKS, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"keys": []any{}})
	}))
	mux.Handle("POST "+Token, s.faulty(Token, s.serveToken))
	if e := s.manner.ends; e != nil {
		mux.Handle(e.pattern, s.faulty(Revoke, s.serveEnding))
	} else {
		mux.Handle("POST "+Revoke, s.faulty(Revoke, s.serveRevoke))
	}
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		answer, _ := s.Approve(r.URL.String())
		http.Redirect(w, r, r.URL.Query().Get("redirect_uri")+"?"+answer.Encode(), http.StatusFound)
	})
	return mux
}

// faulty counts and records the request, and gives it to the next fault or to behave.
func (s *Server) faulty(endpoint string, behave http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.manner.parse(r)
		s.mu.Lock()
		s.hits[endpoint]++
		if endpoint == Token {
			s.requests = append(s.requests, Request{maps.Clone(r.PostForm), r.Header.Get("Authorization"), r.Header.Clone()})
		}
		var fault Fault
		if queue := s.faults[endpoint]; len(queue) > 0 {
			fault, s.faults[endpoint] = queue[0], queue[1:]
		}
		s.mu.Unlock()
		if fault != nil {
			fault(w, r, behave)
			return
		}
		behave(w, r)
	})
}

func (s *Server) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	members := map[string]any{
		"issuer":                           s.URL,
		"authorization_endpoint":           s.URL + "/authorize",
		"token_endpoint":                   s.URL + Token,
		"jwks_uri":                         s.URL + JWKS,
		"revocation_endpoint":              s.URL + Revoke,
		"response_types_supported":         []string{"code"},
		"code_challenge_methods_supported": []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
	}
	for name, value := range s.members {
		members[name] = value
		if value == nil {
			delete(members, name)
		}
	}
	reply(w, http.StatusOK, members)
}

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := s.tokenLocked
	if s.entra != nil {
		answer = s.entraTokenLocked
	}
	status, members, asked := answer(r)
	if asked != nil && s.idToken != nil {
		members["id_token"] = s.idTokenLocked()
	}
	s.manner.reply(w, r, status, members, asked)
}

// tokenLocked does what a token request asks for. asked is the authorization request that the grant came from.
func (s *Server) tokenLocked(r *http.Request) (status int, members map[string]any, asked url.Values) {
	form := r.PostForm
	if !s.authenticLocked(r) || !s.manner.accepts(r) {
		return refusal(http.StatusUnauthorized, "invalid_client")
	}
	family := 0
	switch form.Get("grant_type") {
	case "client_credentials":
		return http.StatusOK, s.grantLocked(form.Get("scope"), 0), nil
	case GrantTokenExchange, GrantJWTBearer:
		if !exchangeable(form) {
			return refusal(http.StatusBadRequest, "invalid_request")
		}
		return http.StatusOK, exchanged(form, s.grantLocked(form.Get("scope"), 0)), nil
	case "authorization_code":
		var ok bool
		asked, ok = s.codes[form.Get("code")]
		delete(s.codes, form.Get("code"))
		if !ok || asked.Get("redirect_uri") != form.Get("redirect_uri") || !proves(asked, form.Get("code_verifier")) {
			return refusal(http.StatusBadRequest, "invalid_grant")
		}
		s.next++
		family = s.next
		s.asked[family] = asked
		if !s.manner.offline(asked) {
			family = 0
		}
		return http.StatusOK, s.grantLocked(asked.Get("scope"), family), asked
	case "refresh_token":
		token := form.Get("refresh_token")
		family = s.families[token]
		if s.spent[token] {
			s.revoked[family] = true // RFC 9700 §4.14.2: a second use means that somebody stole it
		}
		if family == 0 || s.revoked[family] {
			return refusal(http.StatusBadRequest, "invalid_grant")
		}
		s.spent[token] = s.rotate
		return http.StatusOK, s.grantLocked(form.Get("scope"), family), s.asked[family]
	}
	return refusal(http.StatusBadRequest, "unsupported_grant_type")
}

// grantLocked issues tokens; family 0 has no refresh token.
func (s *Server) grantLocked(scope string, family int) map[string]any {
	answer := map[string]any{"access_token": "at-" + rand.Text(), "token_type": "Bearer", "expires_in": s.lifetime, "scope": scope}
	s.issued[answer["access_token"].(string)] = family
	if family != 0 && (s.rotate || !slices.Contains(slices.Collect(maps.Values(s.families)), family)) {
		token := "rt-" + rand.Text()
		s.families[token] = family
		answer["refresh_token"] = token
	}
	return answer
}

// authentic accepts the client by Basic, with both parts form-encoded (RFC 6749 §2.3.1), or by body.
func authentic(r *http.Request) bool {
	if exchangesAlone(r) {
		return true
	}
	id, secret, basic := r.BasicAuth()
	if !basic {
		return r.PostForm.Get("client_id") == ClientID && r.PostForm.Get("client_secret") == ClientSecret
	}
	id, errID := url.QueryUnescape(id)
	secret, errSecret := url.QueryUnescape(secret)
	return errID == nil && errSecret == nil && id == ClientID && secret == ClientSecret && !r.PostForm.Has("client_secret")
}

// proves checks PKCE S256 (RFC 7636 §4.6). A challenge without a verifier fails, and the reverse.
func proves(asked url.Values, verifier string) bool {
	if !asked.Has("code_challenge") || verifier == "" {
		return !asked.Has("code_challenge") && verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return asked.Get("code_challenge_method") == "S256" &&
		strings.TrimRight(asked.Get("code_challenge"), "=") == base64.RawURLEncoding.EncodeToString(sum[:])
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone, which is its business
}

func refusal(status int, code string) (int, map[string]any, url.Values) {
	return status, map[string]any{"error": code, "error_description": "refused: " + code}, nil
}
