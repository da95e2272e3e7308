// Package issuer is Tabard as an issuer, over HTTP: what other parties need to verify what it signs.
//
// Security argument: everything here is public and the same for everybody. The documents name this server by its
// configured public URL and never by a request's Host header, and they list only what answers: an endpoint that is not
// there is not advertised. The keys are public halves, derived from the sealed ones.
package issuer

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/signing"
)

// The routes of this package, each an exact path.
const (
	OpenIDPath = "/.well-known/openid-configuration"       // OpenID Connect Discovery §4
	ServerPath = "/.well-known/oauth-authorization-server" // RFC 8414 §3
	JWKSPath   = "/oauth2/jwks"                            // RFC 7517 §5
)

// Paths lists the routes of this package.
func Paths() []string { return []string{OpenIDPath, ServerPath, JWKSPath} }

// Config is what the documents are made from. Every field is required.
type Config struct {
	Signing *signing.Service
	Log     *slog.Logger
}

type handler struct {
	Config
	metadata []byte
}

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
}

// New returns the handler of Paths.
func New(c Config) (http.Handler, error) {
	url := c.Signing.Issuer()
	doc, err := json.Marshal(metadata{
		Issuer: url, JWKSURI: url + JWKSPath, ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}, IDTokenAlgs: []string{"ES256"},
		Claims: []string{"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "account"},
	})
	if err != nil {
		return nil, err
	}
	h := &handler{Config: c, metadata: doc}
	mux := http.NewServeMux()
	for _, path := range Paths() {
		step := h.document
		if path == JWKSPath {
			step = h.keys
		}
		mux.HandleFunc(path, h.logged(path, step))
	}
	return mux, nil
}

// logged answers GET and HEAD by step, and anything else with 405.
func (h *handler) logged(route string, step func(w http.ResponseWriter, r *http.Request) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		status, err := http.StatusMethodNotAllowed, error(nil)
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			status, err = step(w, r)
		} else {
			w.Header().Set("Allow", "GET, HEAD")
			w.WriteHeader(status)
		}
		attrs := []any{"method", r.Method, "route", route, "status", status, "code", string(fault.CodeOf(err)),
			"latency_ms", time.Since(start).Milliseconds(), "request_id", access.RequestID(r.Context())}
		if err != nil {
			attrs = append(attrs, "error", err.Error())
		}
		h.Log.InfoContext(r.Context(), "request", attrs...)
	}
}

func (h *handler) document(w http.ResponseWriter, _ *http.Request) (int, error) {
	return public(w, h.metadata), nil
}

// keys publishes the JWK set. A verifier may keep it for five minutes; one that keeps it for days still knows the next
// key before it is used.
func (h *handler) keys(w http.ResponseWriter, r *http.Request) (int, error) {
	set, err := h.Signing.Keys(r.Context(), signing.Tokens)
	if err != nil {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
		return http.StatusServiceUnavailable, err
	}
	return public(w, set), nil
}

func public(w http.ResponseWriter, doc []byte) int {
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(doc) // the client went away: nothing left to tell it
	return http.StatusOK
}
