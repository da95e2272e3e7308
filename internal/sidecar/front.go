package sidecar

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

const (
	maxPayload     = 100 << 20 // bytes, as at AWS
	connectionsMax = 256       // idle ones to the agent
)

// front stands before the agent.
type front struct {
	agent     *url.URL
	minter    *minter
	callback  string
	anonymous bool
	forward   bool
	log       *slog.Logger
	now       func() time.Time
	transport *http.Transport
}

func newFront(c Config, agent *url.URL, m *minter) *front {
	return &front{agent: agent, minter: m, callback: c.CallbackURL, anonymous: c.AllowAnonymous, forward: c.ForwardAuthorization, log: c.Log, now: c.Now,
		transport: &http.Transport{DialContext: (&net.Dialer{Control: onLoopback}).DialContext, DisableCompression: true, MaxResponseHeaderBytes: maxHeaders,
			MaxIdleConnsPerHost: connectionsMax, IdleConnTimeout: idleFor}}
}

// passage is one request on its way to the agent.
type passage struct {
	request, session string
	jwt              secret.Text // empty where there is no user
	wat              secret.Text // empty for a ping, and only for that
	err              error       // for the log
}

func (f *front) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w, p, start := &recorder{ResponseWriter: rw}, &passage{request: newID()}, f.now()
	defer func() { f.record(r, w, p, start) }() // an answer that breaks off panics
	if err := f.admit(p, r); err != nil {
		p.err = err
		refuse(w, p, err)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxPayload)
	f.proxy(w, p, r).ServeHTTP(w, r)
}

// admit finds out whose request it is, and has a token minted for them.
func (f *front) admit(p *passage, r *http.Request) (err error) {
	switch r.Method {
	case http.MethodTrace, "TRACK", http.MethodConnect: // the first two answer with the request, and so with our headers
		return &refusal{status: http.StatusMethodNotAllowed, code: "method", message: "the agent is not asked with this method"}
	}
	if r.ContentLength > maxPayload {
		return tooLarge(nil)
	}
	if isPing(r) {
		return nil
	}
	if p.jwt, err = f.user(r); err != nil {
		return err
	}
	if end := endOf(p.jwt); !end.IsZero() && end.Sub(f.now()) < tokenSkew {
		return badToken("the bearer token has ended, or ends within a minute: send one that lives longer")
	}
	p.wat, err = f.minter.token(r.Context(), p.jwt)
	p.session = session(r)
	return err
}

func isPing(r *http.Request) bool { return r.Method == http.MethodGet && r.URL.Path == "/ping" }

func tooLarge(err error) *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, code: "too_large", message: "the request is larger than 100 MiB", err: err}
}

// user returns the JWT of the user, or nothing for a request that may be the agent's own.
func (f *front) user(r *http.Request) (secret.Text, error) {
	given := r.Header.Values("Authorization")
	inSocket, offered, err := socketToken(r)
	switch {
	case err != nil:
		return secret.Text{}, err
	case offered && len(given) > 0:
		return secret.Text{}, badToken("the request has a token in its subprotocols and another in its Authorization header")
	case offered:
		return inSocket, nil
	case len(given) > 1:
		return secret.Text{}, badToken("the request has more than one Authorization header")
	case len(given) == 1:
		scheme, token, _ := strings.Cut(given[0], " ")
		if token = strings.Trim(token, " "); !strings.EqualFold(scheme, "Bearer") || token == "" {
			return secret.Text{}, badToken("the Authorization header is not of the form Bearer TOKEN")
		}
		return secret.New(token), nil
	case !f.anonymous:
		return secret.Text{}, &refusal{status: http.StatusUnauthorized, code: "missing_token", message: "the request needs the user's JWT, as Authorization: Bearer", challenge: "Bearer"}
	case fromBrowser(r):
		// Any page that the user of this machine looks at could send it.
		return secret.Text{}, &refusal{status: http.StatusForbidden, code: "browser", message: "a browser's request needs the user's JWT, as Authorization: Bearer"}
	case !namesLoopback(r):
		// Browsers say of a page's requests to its own site less than fromBrowser looks for (Fetch §3.2, Secure Contexts
		// §3.1).
		return secret.Text{}, &refusal{status: http.StatusForbidden, code: "host", message: "a request without a user's JWT asks 127.0.0.1, ::1 or localhost by that name, in Host"}
	}
	return secret.Text{}, nil
}

// fromBrowser reports whether a browser sent the request for a page. Programs send neither header.
func fromBrowser(r *http.Request) bool {
	return len(r.Header.Values("Origin")) > 0 || len(r.Header.Values("Sec-Fetch-Site")) > 0
}

// proxy passes one request on. Rewrite gets headers from which those of the connection are gone, so a client cannot
// have ours removed by naming them in Connection.
func (f *front) proxy(w *recorder, p *passage, in *http.Request) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: f.transport, FlushInterval: -1, // at once: agents stream
		ErrorLog: slog.NewLogLogger(f.log.Handler(), slog.LevelWarn),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(f.agent)
			pr.Out.Trailer = nil // fields after a body would come past what is done here
			if isPing(in) {
				bare(pr.Out)
			}
			if !isWebSocket(in) { // another protocol is a way past what is done here
				pr.Out.Header.Del("Upgrade")
				pr.Out.Header.Del("Connection")
			}
			f.identify(pr.Out.Header, p)
		},
		ModifyResponse: func(resp *http.Response) error {
			stripIdentity(resp.Header) // an agent that echoes headers gives no token away
			acceptScheme(resp, in)
			if resp.StatusCode == http.StatusSwitchingProtocols {
				w.status = resp.StatusCode // it is not written with WriteHeader
			} else {
				stripIdentity(resp.Trailer) // the names; their values come at the end
				resp.Body = trailing{resp.Body, resp}
			}
			resp.Header.Set(headerRequest, p.request)
			if p.session != "" {
				resp.Header.Set(headerSession, p.session)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			e := &refusal{status: http.StatusBadGateway, code: "agent_unavailable", message: "the agent does not answer", err: err}
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				e = tooLarge(err)
			}
			p.err = e
			refuse(w, p, e)
		},
	}
}

// bare leaves of a ping what says nothing: it comes from anybody.
func bare(out *http.Request) {
	agent := out.Header.Get("User-Agent")
	clear(out.Header)
	out.Header.Set("User-Agent", agent)
	out.URL.RawQuery, out.Body, out.ContentLength, out.TransferEncoding = "", nil, 0, nil
}

// identify replaces what the client said about identity by what is so.
func (f *front) identify(h http.Header, p *passage) {
	stripIdentity(h)
	stripFraming(h)
	withoutSocketToken(h)
	h.Del("Authorization")
	h.Set(headerRequest, p.request)
	if p.wat.IsZero() {
		return
	}
	h.Set(headerWAT, p.wat.Expose())
	h.Set(headerSession, p.session)
	if f.callback != "" {
		h.Set(headerReturnURL, f.callback)
	}
	if f.forward && !p.jwt.IsZero() {
		h.Set("Authorization", "Bearer "+p.jwt.Expose())
	}
}

// refuse answers in place of the agent.
func refuse(w http.ResponseWriter, p *passage, err error) {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		e = &refusal{status: http.StatusInternalServerError, code: "internal", message: "internal error"}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(headerRequest, p.request)
	if e.challenge != "" {
		h.Set("WWW-Authenticate", e.challenge)
	}
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": e.code, "message": e.message, "requestId": p.request}) // the client may be gone
}

// record writes the one line of a request. It has no path that a client made up, no query and no header.
func (f *front) record(r *http.Request, w *recorder, p *passage, start time.Time) {
	route := "other"
	switch r.URL.Path {
	case "/invocations", "/ping", "/ws":
		route = r.URL.Path
	}
	logLine(f.log, r, "agent", route, w.status, f.now().Sub(start), p.request, p.err, p.jwt, p.wat)
}

// logLine is the access log of both sides. An error may quote what was sent, which is what secrets are for.
func logLine(log *slog.Logger, r *http.Request, side, route string, status int, took time.Duration, id string, err error, secrets ...secret.Text) {
	level, attrs := slog.LevelInfo, []slog.Attr{slog.String("side", side), slog.String("method", clip(r.Method)), slog.String("route", route), slog.Int("status", status),
		slog.Float64("latency_ms", float64(took.Microseconds())/1000), slog.String("request_id", id)}
	if err != nil {
		level, attrs = slog.LevelWarn, append(attrs, slog.String("error", mask(err.Error(), secrets...)))
	}
	log.LogAttrs(r.Context(), level, "request", attrs...)
}

// clip bounds what a client chose.
func clip(s string) string { return s[:min(len(s), 16)] }

// recorder remembers the status. The proxy reaches what is beneath it by Unwrap, to flush and for WebSockets.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	if status < 200 {
		stripIdentity(w.Header()) // of early hints, which ModifyResponse does not see
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
