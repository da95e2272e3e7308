package main

import (
	"bytes"
	"context"
	_ "embed" // for the page and its style
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/internal/daemon"
)

//go:embed page.html
var pageHTML string

//go:embed style.css
var styleCSS []byte

// patience is how long a page waits for something that usually takes a moment.
const patience = 10 * time.Second

// webConfig is what the web app is told when it starts. Its access key may complete consents, and nothing else.
type webConfig struct {
	URL         string // its own origin
	Issuer      string // the identity provider
	Agent       string // origin of the agent
	Tabard      string
	Credentials aws.CredentialsProvider
	Trail       *trail
	Hints       []hint // accounts that a person may try
	Google      bool
	Calendar    string // page of the calendar
	Now         func() time.Time
	Zone        *time.Location
}

// hint is an account of the demo, with a password that everybody may know.
type hint struct{ Name, Login, Password, Calendar, CalendarPassword string }

// webApp is where people log in, ask, and come back to after a consent.
type webApp struct {
	webConfig
	sessions *sessions
	login    *login
	consents *tabard.Client
	client   *http.Client
	page     *template.Template
	life     context.Context // of the tasks, which outlive the requests that begin them
	tasks    sync.WaitGroup
}

// newWebApp discovers the identity provider, which must be running. Tasks end with ctx; see webApp.Wait.
func newWebApp(ctx context.Context, c webConfig) (*webApp, error) {
	port := c.URL[strings.LastIndexByte(c.URL, ':')+1:]
	w := &webApp{webConfig: c, client: &http.Client{Transport: &http.Transport{}}, life: ctx,
		// Cookies of one host reach all its ports, so the name tells the ports apart.
		sessions: &sessions{cookie: "demo_session_" + port, now: c.Now, byID: map[string]*session{}}}
	var err error
	if w.login, err = newLogin(ctx, c.Issuer, c.URL+"/login/callback", "demo_login_"+port, c.Now); err != nil {
		return nil, err
	}
	w.consents, err = tabard.New(ctx, tabard.Config{Endpoint: c.Tabard,
		AWS: &aws.Config{Region: daemon.DefaultRegion, Credentials: c.Credentials, HTTPClient: &http.Client{Transport: &http.Transport{}}}})
	if err != nil {
		return nil, err
	}
	w.page, err = template.New("page").Funcs(template.FuncMap{
		"clock": func(t time.Time) string { return t.In(c.Zone).Format("15:04") },
		"day":   func(t time.Time) string { return t.In(c.Zone).Format("Monday 2 January 2006") },
		"stamp": func(t time.Time) string { return t.In(c.Zone).Format("15:04:05") },
		"iso":   func(t time.Time) string { return t.Format(time.RFC3339) },
		"zone":  func() string { return c.Zone.String() },
		"mark":  tokenMark, "token": tokenName,
	}).Parse(pageHTML)
	return w, err
}

// Wait returns when the last task has ended.
func (w *webApp) Wait() { w.tasks.Wait() }

// Handler serves the web app.
func (w *webApp) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", w.index)
	mux.HandleFunc("GET /state.json", w.state)
	mux.HandleFunc("GET /style.css", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = rw.Write(styleCSS)
	})
	mux.HandleFunc("GET /login", w.login.begin)
	mux.HandleFunc("GET /login/callback", w.loggedIn)
	mux.HandleFunc("POST /logout", func(rw http.ResponseWriter, r *http.Request) {
		w.sessions.end(rw, r)
		http.Redirect(rw, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /ask", w.ask)
	mux.Handle("GET /connected", w.consents.CompleteHandler(w.whoIsBack, w.connected))
	return protect(http.NewCrossOriginProtection().Handler(mux))
}

// protect sets what every answer carries. form-action names http and https at large because Chromium holds every
// redirect that follows a form against it, and a person comes and goes between five origins here.
func protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action http: https:; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
		next.ServeHTTP(w, r)
	})
}

func (w *webApp) loggedIn(rw http.ResponseWriter, r *http.Request) {
	who, err := w.login.finish(rw, r)
	if err != nil {
		w.problem(rw, http.StatusForbidden, "You are not logged in", err.Error())
		return
	}
	w.sessions.begin(rw, who)
	http.Redirect(rw, r, "/", http.StatusSeeOther)
}

// ask hands the prompt and the person's own token to the agent, and returns to the page once there is something to see.
func (w *webApp) ask(rw http.ResponseWriter, r *http.Request) {
	s := w.sessions.of(r)
	if s == nil {
		http.Redirect(rw, r, "/", http.StatusSeeOther)
		return
	}
	mark, err := w.Trail.mark(r.Context())
	if err != nil {
		w.problem(rw, http.StatusBadGateway, "Tabard does not answer", "Please try again in a moment.")
		return
	}
	t := newTask(strings.TrimSpace(r.PostFormValue("prompt")), mark)
	ctx, cancel := context.WithTimeout(w.life, taskLife)
	t.cancel = cancel
	s.replace(t)
	w.tasks.Go(func() {
		defer cancel()
		t.run(ctx, w.client, w.Agent, w.URL+"/connected", s.who.Token)
	})
	wait(r.Context(), t.moved, patience)
	http.Redirect(rw, r, "/", http.StatusSeeOther)
}

var errNotHere = errors.New("this browser did not ask for that consent")

// whoIsBack says whose consent a browser that comes back has finished: the person logged in in this very browser, if
// the state it brings is the one that this person's request gave out. Nothing in the address says who it is.
func (w *webApp) whoIsBack(r *http.Request, state string) (tabard.User, error) {
	s := w.sessions.of(r)
	if s == nil || !s.latest().began(state) {
		return tabard.User{}, errNotHere
	}
	return tabard.UserToken(s.who.Token), nil
}

// connected goes on after a consent: to the page without session and state in its address, once the agent has its
// token.
func (w *webApp) connected(rw http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errNotHere):
		w.problem(rw, http.StatusForbidden, "That consent was not asked for here",
			"The link belongs to a request that somebody else made, or that was replaced by another. Nothing was connected, and the calendar's answer stays unused.")
		return
	case errors.Is(err, tabard.ErrDenied):
		w.problem(rw, http.StatusForbidden, "The consent was not accepted",
			"It has expired, was used already, or belongs to another person. Nothing was connected.")
		return
	case err != nil:
		w.problem(rw, http.StatusBadGateway, "The calendar could not be connected", "Please ask again.")
		return
	}
	if s := w.sessions.of(r); s != nil {
		if t := s.latest(); t != nil {
			t.complete()
			wait(r.Context(), t.done, patience)
		}
	}
	http.Redirect(rw, r, "/", http.StatusSeeOther)
}

// view is what a page shows. It has fingerprints of tokens and no tokens.
type view struct {
	Title    string      `json:"-"`
	Problem  string      `json:"-"`
	Hints    []hint      `json:"-"`
	Google   bool        `json:"-"`
	Calendar string      `json:"-"`
	Name     string      `json:"name,omitempty"`
	Email    string      `json:"email,omitempty"`
	Prompt   string      `json:"prompt,omitempty"`
	Heard    progress    `json:"heard"`
	Waiting  bool        `json:"waiting,omitempty"` // for the agent, not for the person
	Tokens   []tokenView `json:"tokens,omitempty"`
	Lanes    []string    `json:"-"`
	Steps    []step      `json:"steps,omitempty"`
	Records  []record    `json:"records,omitempty"`
}

// look gathers what the person of this session may see.
func (w *webApp) look(ctx context.Context, s *session) view {
	v := view{Title: "Book a meeting", Google: w.Google, Calendar: w.Calendar, Hints: w.Hints, Lanes: laneNames()}
	if s == nil {
		return v
	}
	v.Name, v.Email = s.who.Name, s.who.Email
	v.Tokens = []tokenView{humanView(s.who.Token)}
	t := s.latest()
	if t == nil {
		return v
	}
	var completed bool
	v.Prompt = t.prompt
	v.Heard, completed = t.progress()
	over := v.Heard.Booked != nil || v.Heard.Failed != nil
	v.Waiting = !over && (v.Heard.Consent == nil || completed)
	v.Tokens = append(v.Tokens, v.Heard.Tokens...)
	if all, err := w.Trail.since(ctx, t.mark); err == nil {
		v.Records = about(all, agentName, v.Heard.Requests)
		v.Steps = diagram(v.Records, v.Heard)
	}
	return v
}

func (w *webApp) index(rw http.ResponseWriter, r *http.Request) {
	w.render(rw, http.StatusOK, w.look(r.Context(), w.sessions.of(r)))
}

// state is the page for programs.
func (w *webApp) state(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(w.look(r.Context(), w.sessions.of(r))) // the browser is gone
}

func (w *webApp) problem(rw http.ResponseWriter, status int, title, text string) {
	w.render(rw, status, view{Title: title, Problem: text})
}

func (w *webApp) render(rw http.ResponseWriter, status int, v view) {
	var b bytes.Buffer
	if err := w.page.Execute(&b, v); err != nil {
		http.Error(rw, "the page could not be rendered", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.WriteHeader(status)
	_, _ = rw.Write(b.Bytes())
}
