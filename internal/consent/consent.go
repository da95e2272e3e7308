// Package consent serves the two browser steps of a consent session: the authorization URL that sends the user to the
// provider, and the callback that the provider sends the user back to.
//
// Security argument: both are GETs that anybody may send, so they change nothing but the session they name, and the
// core decides about that. The callback is believed only together with the cookie that the same browser got with its
// visit. Every answer forbids framing, scripts, caching and referrers; redirects are 303, so that no browser repeats a
// body; addresses with code or state are never logged.
package consent

import (
	"embed"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/secret"
)

//go:embed templates static
var files embed.FS

// Config is what the pages need.
type Config struct {
	Broker *broker.Broker
	Secure bool // the public URL is https: cookies get Secure and the __Host- prefix
	Log    *slog.Logger
}

type handler struct {
	Config
	pages *template.Template
}

// Prefix is the path below which every route of this package lies.
const Prefix = "/identities/oauth2/"

// New returns the handler of the routes below Prefix.
func New(c Config) (http.Handler, error) {
	pages, err := parsePages()
	if err != nil {
		return nil, err
	}
	h := &handler{Config: c, pages: pages}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Prefix+"authorize", h.logged("authorize", h.authorize))
	mux.HandleFunc("GET "+Prefix+"callback/{id}", h.logged("callback/{id}", h.callback))
	mux.HandleFunc("GET "+Prefix+"style.css", h.style)
	mux.HandleFunc("GET "+Prefix+"jwks/{id}", h.logged("jwks/{id}", h.keys))
	h.hostedRoutes(mux)
	return mux, nil
}

// parsePages reads the templates of all pages. html/template escapes every value for the place that it stands in
// (threat M28).
func parsePages() (*template.Template, error) { return template.ParseFS(files, "templates/*.html") }

// result is what a step came to, for the log line.
type result struct {
	status int
	code   string
	err    error
}

func (h *handler) logged(route string, step func(http.ResponseWriter, *http.Request) result) http.HandlerFunc {
	return h.loggedAs(Prefix+route, step)
}

func (h *handler) loggedAs(route string, step func(http.ResponseWriter, *http.Request) result) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		protect(w.Header())
		res := step(w, r)
		attrs := []any{"method", r.Method, "route", route, "status", res.status, "code", res.code,
			"latency_ms", time.Since(start).Milliseconds(), "request_id", access.RequestID(r.Context())}
		if res.err != nil && res.status >= 500 {
			attrs = append(attrs, "error", res.err.Error())
		}
		h.Log.InfoContext(r.Context(), "request", attrs...)
	}
}

// protect sets what every answer of this package carries.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

func (h *handler) style(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	w.Header().Set("Cache-Control", "public, max-age=3600")
	http.ServeFileFS(w, r, files, "static/style.css")
}

func (h *handler) authorize(w http.ResponseWriter, r *http.Request) result {
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK) // a link preview; only a GET begins a visit
		return result{status: http.StatusOK}
	}
	session, ok := one(r.URL.Query(), "request_uri")
	if !ok || len(session) > 1024 {
		return h.end(w, r, malformed("the address names no consent session"))
	}
	if shown, ok := h.ask(w, r, session); ok {
		return shown
	}
	visit, err := h.Broker.Authorize(r.Context(), session)
	if err != nil {
		return h.end(w, r, err)
	}
	http.SetCookie(w, h.cookie(visit.Name, visit.Cookie.Expose(), int(visit.MaxAge.Seconds())))
	return redirect(w, visit.URL)
}

func (h *handler) callback(w http.ResponseWriter, r *http.Request) result {
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return result{status: http.StatusOK}
	}
	a, err := answerOf(r)
	if err != nil {
		return h.end(w, r, err)
	}
	name := broker.CookieName(a.State)
	a.Cookie = h.read(r, name)
	to, err := h.Broker.Callback(r.Context(), a)
	if err != nil {
		return h.end(w, r, err)
	}
	http.SetCookie(w, h.cookie(name, "", -1))
	if session, ok := h.Broker.HostedSession(to); ok {
		return h.finish(w, r, session, h.read(r, broker.HostedCookieName(session)))
	}
	return redirect(w, to)
}

func redirect(w http.ResponseWriter, to secret.Text) result {
	w.Header().Set("Location", to.Expose())
	w.WriteHeader(http.StatusSeeOther)
	return result{status: http.StatusSeeOther}
}

// cookie makes the cookie of one visit. SameSite=Lax lets it through on the provider's redirect and on nothing else
// that comes from another site. Plain http is for loopback only, where browsers refuse the __Host- prefix.
func (h *handler) cookie(name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: h.cookieName(name), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: h.Secure, SameSite: http.SameSiteLaxMode}
}

func (h *handler) cookieName(name string) string {
	if h.Secure {
		return "__Host-" + name
	}
	return name
}

// one returns the value of a parameter that must occur exactly once.
func one(q url.Values, name string) (string, bool) {
	v := q[name]
	return strings.Join(v, ""), len(v) == 1 && v[0] != ""
}
