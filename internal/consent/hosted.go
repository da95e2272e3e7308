package consent

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// HostedPrefix is the path below which the routes of hosted consent lie.
const HostedPrefix = broker.HostedPrefix

// hostedPolicy lets the form of the consent page lead to us, and from us to the provider: Chromium holds redirects
// after a form against form-action too.
const hostedPolicy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self' http: https:; frame-ancestors 'none'"

const maxDecision = 8 << 10 // bytes of the form

func (h *handler) hostedRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+HostedPrefix+"callback/{id}", h.loggedAs(HostedPrefix+"callback/{id}", h.signedIn))
	mux.HandleFunc("POST "+HostedPrefix+"decide", h.loggedAs(HostedPrefix+"decide", h.decide))
	mux.HandleFunc("GET "+HostedPrefix+"done", h.loggedAs(HostedPrefix+"done", h.done))
}

// signedIn takes the issuer's answer to a sign-in.
func (h *handler) signedIn(w http.ResponseWriter, r *http.Request) result {
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return result{status: http.StatusOK}
	}
	a, err := answerOf(r)
	if err != nil {
		return h.end(w, r, err)
	}
	name := broker.LoginCookieName(a.State)
	a.Cookie = h.read(r, name)
	v, err := h.Broker.SignedIn(r.Context(), a)
	if err != nil {
		return h.end(w, r, err)
	}
	http.SetCookie(w, h.cookie(name, "", -1))
	http.SetCookie(w, h.cookie(v.Name, v.Cookie.Expose(), int(v.MaxAge.Seconds())))
	return redirect(w, v.URL)
}

// asked is what the consent page shows.
type asked struct {
	Agent, Account, Provider, Host, User, Issuer, Return string
	Scopes                                               []scope
	Held                                                 bool
	Session, Token                                       string
}

type scope struct{ Name, Words string }

// ask shows the consent page to a browser that is signed in for the session. It reports false where it is not: then
// it has written nothing, and the browser is sent to sign in.
func (h *handler) ask(w http.ResponseWriter, r *http.Request, session string) (result, bool) {
	cookie := h.read(r, broker.HostedCookieName(session))
	if cookie.IsZero() {
		return result{}, false
	}
	v, err := h.Broker.Hosted(r.Context(), session, cookie)
	if end, ok := errors.AsType[*broker.EndError](err); ok && end.Ending == broker.EndNotSigned {
		return result{}, false
	}
	if err != nil {
		return h.end(w, r, err), true
	}
	p := asked{
		Agent: shown(v.Agent), Account: shown(v.Account), Provider: shown(v.Provider), Host: shown(v.Host), User: shown(v.User), Issuer: shown(v.Issuer),
		Return: shown(hostOf(h.Broker.HostedReturnURL())), Held: v.Held, Session: session, Token: formToken(cookie),
	}
	for _, s := range v.Scopes {
		p.Scopes = append(p.Scopes, scope{shown(s), scopeWords(s)})
	}
	w.Header().Set("Content-Security-Policy", hostedPolicy)
	return h.show(w, r, http.StatusOK, "hosted.html", p), true
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// formToken is known only to pages that this browser got from us: it is derived from a cookie that scripts cannot
// read and other sites cannot see.
func formToken(cookie secret.Text) string {
	sum := sha256.Sum256([]byte("hosted-form-1\x00" + cookie.Expose()))
	return hex.EncodeToString(sum[:])
}

var errCrossSite = fault.New(fault.Denied, "the form was not sent by our own page")

// decide takes the user's answer on the consent page.
func (h *handler) decide(w http.ResponseWriter, r *http.Request) result {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		return h.end(w, r, errCrossSite)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDecision))
	if errors.Is(err, fault.Throttled) {
		return h.end(w, r, err)
	}
	if err != nil {
		return h.end(w, r, malformed("the form is too large"))
	}
	form, err := url.ParseQuery(string(body))
	session, ok := one(form, "request_uri")
	token, has := one(form, "token")
	if err != nil || !ok || !has || len(session) > 1024 {
		return h.end(w, r, malformed("the form is not complete"))
	}
	name := broker.HostedCookieName(session)
	cookie := h.read(r, name)
	if cookie.IsZero() || subtle.ConstantTimeCompare([]byte(token), []byte(formToken(cookie))) != 1 {
		return h.end(w, r, errCrossSite)
	}
	switch answer, _ := one(form, "answer"); answer {
	case "allow":
		v, renewed, err := h.Broker.AllowHosted(r.Context(), session, cookie)
		if err != nil {
			return h.end(w, r, err)
		}
		http.SetCookie(w, h.cookie(name, renewed.Expose(), int(v.MaxAge.Seconds())))
		http.SetCookie(w, h.cookie(v.Name, v.Cookie.Expose(), int(v.MaxAge.Seconds())))
		return redirect(w, v.URL)
	case "finish":
		return h.finish(w, r, session, cookie)
	case "deny":
		if err := h.Broker.DenyHosted(r.Context(), session, cookie); err != nil {
			return h.end(w, r, err)
		}
		http.SetCookie(w, h.cookie(name, "", -1))
		return h.show(w, r, http.StatusOK, "ending.html", ending{Title: "You said no", Text: "Nothing was stored, and your agent will be told.", Next: "You can close this page."})
	}
	return h.end(w, r, malformed("the form has no answer"))
}

// finish completes a session and sends the browser to an address that says nothing.
func (h *handler) finish(w http.ResponseWriter, r *http.Request, session string, cookie secret.Text) result {
	if err := h.Broker.CompleteHosted(r.Context(), session, cookie); err != nil {
		return h.end(w, r, err)
	}
	http.SetCookie(w, h.cookie(broker.HostedCookieName(session), "", -1))
	http.SetCookie(w, h.cookie(connectedCookie, "1", 60))
	return redirect(w, secret.New(h.Broker.HostedReturnURL()))
}

// connectedCookie tells the last page that something was completed just now. It is no secret.
const connectedCookie = "tabard-connected"

func (h *handler) done(w http.ResponseWriter, r *http.Request) result {
	if h.read(r, connectedCookie).IsZero() {
		return h.show(w, r, http.StatusOK, "ending.html", ending{
			Title: "Nothing to do here", Text: "This page is where consent ends. It says nothing about what was allowed.", Next: "You can close this page and go back to your agent.",
		})
	}
	return h.show(w, r, http.StatusOK, "ending.html", ending{
		Title: "Connected", Text: "Your agent can use what you allowed.", Next: "You can close this page and go back to your agent.",
	})
}

// show writes a page.
func (h *handler) show(w http.ResponseWriter, r *http.Request, status int, name string, data any) result {
	var body bytes.Buffer
	if err := h.pages.ExecuteTemplate(&body, name, data); err != nil {
		return h.end(w, r, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes())
	}
	return result{status: status}
}

func (h *handler) read(r *http.Request, name string) secret.Text {
	c, err := r.Cookie(h.cookieName(name))
	if err != nil {
		return secret.Text{}
	}
	return secret.New(c.Value)
}

// shown makes a foreign text safe to read: what is not plain ASCII is written out, so that neither a letter of another
// script nor a mark that turns the direction of writing makes one name look like another (threat C26).
func shown(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case i > 200:
			return b.String() + "..."
		case r >= 0x20 && r <= 0x7e:
			b.WriteRune(r)
		case unicode.IsControl(r):
			fmt.Fprintf(&b, "\\x%02X", r)
		default:
			fmt.Fprintf(&b, "\\u{%X}", r)
		}
	}
	return b.String()
}

// scopeWords says in plain words what a scope of wide use allows, or "".
func scopeWords(s string) string {
	switch s {
	case "openid":
		return "know who you are"
	case "profile":
		return "see your name and picture"
	case "email":
		return "see your e-mail address"
	case "address":
		return "see your postal address"
	case "phone":
		return "see your phone number"
	case "offline_access":
		return "keep access while you are away"
	case "https://www.googleapis.com/auth/calendar":
		return "see, change and delete your calendars"
	case "https://www.googleapis.com/auth/calendar.readonly":
		return "see your calendars"
	case "https://www.googleapis.com/auth/gmail.readonly":
		return "read your mail"
	case "https://www.googleapis.com/auth/drive.readonly":
		return "see the files in your Drive"
	}
	return ""
}

// answerOf reads what an authorization server's redirect brought (RFC 6749 §4.1.2).
func answerOf(r *http.Request) (broker.Answer, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(r.URL.RawQuery) > 16<<10 {
		return broker.Answer{}, malformed("the provider's answer is malformed")
	}
	for _, name := range []string{"state", "code", "iss", "error", "error_description"} {
		if len(q[name]) > 1 { // RFC 6749 §3.1: parameters must not be repeated
			return broker.Answer{}, malformed("the provider's answer repeats the parameter " + name)
		}
	}
	return broker.Answer{
		CallbackID: r.PathValue("id"), State: secret.New(q.Get("state")), Code: secret.New(q.Get("code")), Issuer: q.Get("iss"),
		HasIssuer: q.Has("iss"), Error: q.Get("error"), Description: q.Get("error_description"),
	}, nil
}
