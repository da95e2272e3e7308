package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tabard-id/tabard"
)

const (
	opComplete     = "CompleteResourceTokenAuth"
	requestsWithin = 10 * time.Second // for a browser to send its request
	maxHeaders     = 16 << 10         // bytes
)

func mentionsReturnURL(message string) bool {
	return strings.Contains(strings.ToLower(message), "returnurl")
}

// returnPage stands where the web application stands: the browser begins here, consents, and comes back here.
//
// Security argument: whoever else can use this machine reads the arguments of its processes, and with them the address
// that the browser is opened with. So that address is good for one visit, which gives the browser a cookie, and the
// consent is completed only for a browser that has it and for the session that this command began: another person's
// consent, or another agent's session, is never completed as the user's.
type returnPage struct {
	listener net.Listener
	server   *http.Server
	back     *url.URL // the return URL
	start    string   // path of the first visit
	cookie   http.Cookie
	begun    atomic.Bool
}

// listenForReturn listens where raw says, or on a free port where it says nothing. It returns nil where raw is the
// address of somebody else.
func listenForReturn(raw string) (*returnPage, error) {
	back := &url.URL{Scheme: "http", Host: "127.0.0.1:0", Path: "/connected"}
	if raw != "" {
		var err error
		if back, err = url.Parse(raw); err != nil || back.Host == "" {
			return nil, usage("for example http://127.0.0.1:8976/connected", "--return-url is no URL")
		}
		if back.Scheme != "http" || !isLoopback(back.Hostname()) {
			return nil, nil
		}
		if back.Port() == "" || back.RawQuery != "" || back.Path == "" {
			return nil, usage("for example http://127.0.0.1:8976/connected", "--return-url on this machine needs a port and a path, and no query")
		}
	}
	l, err := net.Listen("tcp", back.Host)
	if err != nil {
		return nil, &failure{exit: exitFailed, err: err, msg: "listen for the browser: " + oneLine(err.Error()), hints: []string{"something else may use the port of --return-url"}}
	}
	if raw == "" {
		back.Host = l.Addr().String()
	}
	nonce := rand.Text()
	return &returnPage{listener: l, back: back, start: "/begin/" + nonce, cookie: http.Cookie{Name: "tabard_begun_" + nonce[:8], Value: rand.Text(),
		Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}}, nil
}

func (p *returnPage) returnURL() string { return p.back.String() }

func (p *returnPage) startURL() string { return "http://" + p.back.Host + p.start }

// serve answers the two visits of a consent; complete gets the second.
func (p *returnPage) serve(consent tabard.Consent, complete http.Handler) {
	p.server = &http.Server{ReadTimeout: requestsWithin, WriteTimeout: requestTimeout + requestsWithin, MaxHeaderBytes: maxHeaders,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("Referrer-Policy", "no-referrer")
			switch {
			case r.Host != p.back.Host || r.Method != http.MethodGet: // another name for this address is DNS rebinding
				http.NotFound(w, r)
			case r.URL.Path == p.start && p.begun.CompareAndSwap(false, true):
				http.SetCookie(w, &p.cookie)
				http.Redirect(w, r, consent.URL, http.StatusSeeOther)
			case r.URL.Path == p.start:
				http.Error(w, "This address was opened already, and works once. If that was not you, end the command.", http.StatusGone)
			case r.URL.Path == p.back.Path && p.ours(r, consent):
				complete.ServeHTTP(w, r)
			case r.URL.Path == p.back.Path:
				http.Error(w, "Access was not granted: this is not the browser, or not the consent, that began at the command line.", http.StatusForbidden)
			default:
				http.NotFound(w, r)
			}
		})}
	go func() { _ = p.server.Serve(p.listener) }() // until close, or the end of the process
}

// ours reports whether it is the browser that began, with the session that it began with.
func (p *returnPage) ours(r *http.Request, consent tabard.Consent) bool {
	got, err := r.Cookie(p.cookie.Name)
	if err != nil {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(got.Value), []byte(p.cookie.Value)) == 1 &&
		subtle.ConstantTimeCompare([]byte(r.URL.Query().Get("session_id")), []byte(consent.SessionURI)) == 1
}

// close ends the server once the page that it is sending is sent.
func (p *returnPage) close() {
	if p.server == nil {
		_ = p.listener.Close() // nobody was told of it
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.server.Shutdown(ctx) // the process ends next
}

// sayInBrowser tells the person at the browser how it went; the command says why.
func sayInBrowser(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	text := "Access is granted. You can close this window.\n"
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
		text = "Access was not granted. The command line says why.\n"
	}
	_, _ = io.WriteString(w, text) // the browser may be gone
}

// openBrowser opens address in the user's browser and does not wait for it.
func openBrowser(address string) error {
	name := "xdg-open"
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		return errors.New("open the address yourself")
	}
	cmd := exec.Command(name, address) // it outlives this process
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // it says nothing that matters
	return nil
}
