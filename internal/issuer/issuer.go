// Package issuer is Tabard as an issuer, over HTTP: what other parties need to verify what it signs, and the endpoints
// of OAuth where tokens for them are exchanged, looked into and revoked.
//
// Security argument: each account is an issuer of its own, at its own URL and with its own keys, so that a service that
// trusts the issuer of one account takes no token of another (threat M09). The installation's issuer signs only what
// names one of its clients or agents to a provider. The documents are public and the same for everybody. They name this
// server by its configured public URL and never by a request's Host header, and they list only what answers: an
// endpoint that is not there is not advertised. The keys are public halves, derived from the sealed ones. The endpoints
// take parameters from the body alone, each once, from authenticated clients alone, and nothing may keep what they
// answer; what a caller may do is decided and recorded in the core.
package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
)

// The routes of the installation's issuer, each an exact path.
const (
	OpenIDPath = "/.well-known/openid-configuration"       // OpenID Connect Discovery §4
	ServerPath = "/.well-known/oauth-authorization-server" // RFC 8414 §3
	JWKSPath   = "/oauth2/jwks"                            // RFC 7517 §5
)

// The routes of each account's issuer, whose URL is the public URL with accountPath and the account's number. OpenID
// Connect Discovery §4 appends to it; RFC 8414 §3.1 inserts before its path, and §5 allows that for both documents.
const (
	accountPath = signing.AccountPath + "{account}"

	AccountOpenIDPath   = accountPath + OpenIDPath
	AccountServerPath   = ServerPath + accountPath
	AccountInsertedPath = OpenIDPath + accountPath
	AccountJWKSPath     = accountPath + JWKSPath
)

// Paths lists the routes of this package, as patterns of http.ServeMux.
func Paths() []string {
	return []string{OpenIDPath, ServerPath, JWKSPath, TokenPath, IntrospectPath, RevokePath,
		AccountOpenIDPath, AccountServerPath, AccountInsertedPath, AccountJWKSPath, identity.BackchannelPath}
}

// Config is what the documents are made from, and what answers the endpoints. Every field but Observe is required.
type Config struct {
	Signing  *signing.Service
	Exchange *exchange.Service
	Accounts Accounts
	// Authenticate returns who sent a request, and its body, which it reads by read, at most once. It may set headers of
	// the answer.
	Authenticate func(w http.ResponseWriter, r *http.Request, read func() ([]byte, error)) (access.Caller, []byte, error)
	// Logout takes a logout token that was sent to the address of an issuer of users.
	Logout  func(ctx context.Context, account access.Account, issuer string, token secret.Text) error
	Now     func() time.Time
	Log     *slog.Logger
	Observe func(route string, status int, took time.Duration) // for metrics
}

// Accounts knows which accounts are issuers. *accounts.Service has it.
type Accounts interface {
	// Served returns a NotFound fault if the account does not exist or is disabled.
	Served(ctx context.Context, id access.Account) error
}

type handler struct {
	Config
	metadata []byte // of the installation's issuer
}

// step answers one request, and returns for the log with what status, to whom where that is known, and what went wrong.
type step func(w http.ResponseWriter, r *http.Request) (int, access.Caller, error)

// metadata is what both metadata documents say (RFC 8414 §2, OpenID Connect Discovery §3).
type metadata struct {
	Issuer  string `json:"issuer"`
	JWKSURI string `json:"jwks_uri"`

	// Both RFCs require the member and forbid an empty list. Nothing answers a response_type here; id_token is what other
	// issuers that only sign (Kubernetes, GitHub Actions) say, and what verifiers are used to.
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	IDTokenAlgs   []string `json:"id_token_signing_alg_values_supported"`
	Claims        []string `json:"claims_supported"`

	*endpoints // nil for the installation's issuer, whose tokens are not asked for by anybody
}

// endpoints are those of the accounts' issuers. All of them share the endpoints: the client that authenticates names
// the account.
type endpoints struct {
	Token         string   `json:"token_endpoint"`
	Introspection string   `json:"introspection_endpoint"`
	Revocation    string   `json:"revocation_endpoint"`
	Grants        []string `json:"grant_types_supported"`
	// The access key as user and password. Signatures and workloads' own tokens are accepted too, and have no name in
	// IANA's registry.
	TokenAuth         []string `json:"token_endpoint_auth_methods_supported"`
	IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
	RevocationAuth    []string `json:"revocation_endpoint_auth_methods_supported"`
}

// New returns the handler of Paths.
func New(c Config) (http.Handler, error) {
	doc, err := json.Marshal(metadata{
		Issuer: c.Signing.Issuer(signing.Assertions), JWKSURI: c.Signing.Issuer(signing.Assertions) + JWKSPath,
		ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}, IDTokenAlgs: []string{"ES256"},
		Claims: []string{"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "account"},
	})
	if err != nil {
		return nil, err
	}
	h := &handler{Config: c, metadata: doc}
	mux := http.NewServeMux()
	for path, do := range map[string]step{OpenIDPath: h.document, ServerPath: h.document, JWKSPath: h.keys,
		AccountOpenIDPath: h.accountDocument, AccountServerPath: h.accountDocument, AccountInsertedPath: h.accountDocument,
		AccountJWKSPath: h.accountKeys} {
		mux.HandleFunc(path, h.logged(path, do, http.MethodGet, http.MethodHead))
	}
	for path, do := range map[string]step{TokenPath: h.endpoint(h.token), IntrospectPath: h.endpoint(h.introspect), RevokePath: h.endpoint(h.revoke),
		identity.BackchannelPath: h.backchannel} {
		mux.HandleFunc(path, h.logged(path, do, http.MethodPost))
	}
	return mux, nil
}

// logged answers requests of the methods by do, and others with 405.
func (h *handler) logged(route string, do step, methods ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		status, caller, err := http.StatusMethodNotAllowed, access.Caller{}, error(nil)
		if slices.Contains(methods, r.Method) {
			status, caller, err = do(w, r)
		} else {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			w.WriteHeader(status)
		}
		if h.Observe != nil {
			h.Observe(route, status, time.Since(start))
		}
		attrs := []any{"method", r.Method, "route", route, "status", status, "code", string(fault.CodeOf(err)),
			"latency_ms", time.Since(start).Milliseconds(), "request_id", access.RequestID(r.Context())}
		if caller.Name != "" {
			attrs = append(attrs, "principal", caller.Name, "access_key", caller.AccessKey, "remote", r.RemoteAddr)
		}
		if err != nil {
			attrs = append(attrs, "error", err.Error())
		}
		h.Log.InfoContext(r.Context(), "request", attrs...)
	}
}

func (h *handler) document(w http.ResponseWriter, _ *http.Request) (int, access.Caller, error) {
	return public(w, h.metadata), access.Caller{}, nil
}

// accountDocument answers with the metadata of the issuer of the account in the path.
func (h *handler) accountDocument(w http.ResponseWriter, r *http.Request) (int, access.Caller, error) {
	account, err := h.account(r)
	if err != nil {
		return h.refuse(w, err)
	}
	server, issuer, basic := h.Signing.Issuer(signing.Assertions), h.Exchange.Issuer(account), []string{"client_secret_basic"}
	doc, err := json.Marshal(metadata{
		Issuer: issuer, JWKSURI: issuer + JWKSPath, ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"pairwise"}, IDTokenAlgs: []string{"ES256"},
		Claims: []string{"iss", "sub", "aud", "iat", "exp", "jti", "account", "client_id", "scope", "act", "auth_time", "assurance"},
		endpoints: &endpoints{
			Token: server + TokenPath, Introspection: server + IntrospectPath, Revocation: server + RevokePath, Grants: []string{grantExchange},
			TokenAuth: basic, IntrospectionAuth: basic, RevocationAuth: basic,
		},
	})
	if err != nil {
		return h.refuse(w, err)
	}
	return public(w, doc), access.Caller{}, nil
}

// account is the one in the path, if it is served.
func (h *handler) account(r *http.Request) (access.Account, error) {
	account := access.Account(r.PathValue("account"))
	if !account.Valid() { // before the store is asked
		return "", fault.New(fault.NotFound, "there is no such account")
	}
	return account, h.Accounts.Served(r.Context(), account)
}

// refuse answers with an empty body: who asks is unknown, and needs no reason.
func (h *handler) refuse(w http.ResponseWriter, err error) (int, access.Caller, error) {
	if errors.Is(err, fault.NotFound) {
		w.WriteHeader(http.StatusNotFound)
		return http.StatusNotFound, access.Caller{}, err
	}
	w.Header().Set("Retry-After", "30")
	w.WriteHeader(http.StatusServiceUnavailable)
	return http.StatusServiceUnavailable, access.Caller{}, err
}

// keys publishes the JWK set of the installation. A verifier may keep it for five minutes; one that keeps it for days
// still knows the next key before it is used.
func (h *handler) keys(w http.ResponseWriter, r *http.Request) (int, access.Caller, error) {
	return h.keysOf(w, r, signing.Assertions)
}

// accountKeys publishes the JWK set of the account in the path, likewise.
func (h *handler) accountKeys(w http.ResponseWriter, r *http.Request) (int, access.Caller, error) {
	account, err := h.account(r)
	if err != nil {
		return h.refuse(w, err)
	}
	return h.keysOf(w, r, signing.AccountTokens(string(account)))
}

func (h *handler) keysOf(w http.ResponseWriter, r *http.Request, p signing.Purpose) (int, access.Caller, error) {
	set, err := h.Signing.Keys(r.Context(), p)
	if err != nil {
		return h.refuse(w, err)
	}
	return public(w, set), access.Caller{}, nil
}

func public(w http.ResponseWriter, doc []byte) int {
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(int(signing.CacheAge/time.Second)))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(doc) // the client went away: nothing left to tell it
	return http.StatusOK
}
