package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/standin"
)

// calendarTokenLife is how long an access token of the stand-in's lives. Tabard releases none with less than a minute.
const calendarTokenLife = 5 * time.Minute

// world is everything that runs. Each part has its own address and its own credentials, as if it ran on its own
// machine.
type world struct {
	clock    clock
	zone     *time.Location
	dataDir  string
	login    *standin.OIDC
	calendar *standin.Calendar // nil where the real Google is used
	agent    *service
	other    *service // another team's agent: own workload identity, own key
	impostor *service // claims to be the calendar agent, with the other team's key
	web      *webApp
	trail    *trail

	tabardURL, webURL, loginURL, calendarURL string
	callback                                 string // registered at the calendar provider

	ctx    context.Context
	cancel context.CancelFunc
	parts  sync.WaitGroup
	mu     sync.Mutex // guards failed
	failed []error
	remove bool // dataDir is ours
}

// service is an agent and where it listens.
type service struct {
	*agent
	url string
}

// newWorld starts everything on loopback. End it with close.
func newWorld(ctx context.Context, s settings) (_ *world, err error) {
	zone, err := zoneOf(s.zone)
	if err != nil {
		return nil, fmt.Errorf("--zone %q is not a time zone such as Europe/Paris", s.zone)
	}
	w := &world{zone: zone, dataDir: s.dataDir}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dataDir == "" {
		var tmp string
		if tmp, err = os.MkdirTemp("", "tabard-demo-"); err != nil {
			return nil, err
		}
		w.dataDir, w.remove = filepath.Join(tmp, "data"), true
	}
	if err := w.startTabard(s); err != nil {
		return nil, fmt.Errorf("tabard: %w", err)
	}
	web, err := net.Listen("tcp", s.webAddr)
	if err != nil {
		return nil, fmt.Errorf("web app: %w", err)
	}
	w.webURL = origin(web)
	if err := w.startLogin(s); err != nil {
		return nil, fmt.Errorf("identity provider: %w", err)
	}
	clientSecret := rand.Text()
	if s.googleID == "" {
		if err := w.startCalendar(clientSecret); err != nil {
			return nil, fmt.Errorf("calendar: %w", err)
		}
	}
	k, err := w.administer(ctx, s, clientSecret)
	if err != nil {
		return nil, fmt.Errorf("setting up: %w", err)
	}
	if err := w.startAgents(ctx, k); err != nil {
		return nil, err
	}
	return w, w.startWeb(ctx, web, k)
}

// origin is the address of a listener as a browser has it.
func origin(l net.Listener) string { return "http://" + l.Addr().String() }

// serve runs an HTTP server until the world ends.
func (w *world) serve(l net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return w.ctx }, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	w.parts.Go(func() {
		<-w.ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close() // whoever still hangs on is cut off
		}
	})
	w.parts.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			w.fail(err)
		}
	})
}

func (w *world) fail(err error) {
	w.mu.Lock()
	w.failed = append(w.failed, err)
	w.mu.Unlock()
	w.cancel()
}

// startTabard runs the server that `tabard serve --dev` runs: plain http and issuers on loopback are what --dev allows.
func (w *world) startTabard(s settings) error {
	var out io.Writer = io.Discard
	if s.verbose {
		out = s.errOut
	}
	server, err := daemon.New(w.ctx, daemon.Config{Addr: s.tabardAddr, DataDir: w.dataDir, Dev: true, Now: w.clock.Now, Version: "demo",
		Log: slog.New(slog.NewTextHandler(out, nil))})
	if err != nil {
		return err
	}
	w.tabardURL = server.URL()
	w.parts.Go(func() {
		if err := server.Run(w.ctx); err != nil {
			w.fail(err)
		}
	})
	return nil
}

func (w *world) startLogin(s settings) error {
	l, err := net.Listen("tcp", s.loginAddr)
	if err != nil {
		return err
	}
	w.loginURL = origin(l)
	w.login, err = standin.NewOIDC(standin.OIDCConfig{Issuer: w.loginURL, Now: w.clock.Now, Hint: "alice / alice-at-work, bob / bob-at-work",
		Clients: []standin.Client{{ID: webName, Name: "the demo's web app", RedirectURIs: []string{w.webURL + "/login/callback"}}}})
	if err != nil {
		_ = l.Close()
		return err
	}
	w.serve(l, w.login.Handler())
	return nil
}

func (w *world) startCalendar(clientSecret string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.calendarURL = origin(l)
	w.calendar, err = standin.NewCalendar(standin.CalendarConfig{Issuer: w.calendarURL, Now: w.clock.Now, Zone: w.zone,
		AccessTokenLifetime: calendarTokenLife, Hint: "alice@calendar.example / alice-at-home, bob@calendar.example / bob-at-home",
		Clients: []standin.Client{{ID: clientName, Name: "Calendar Agent", Secret: secret.New(clientSecret)}}})
	if err != nil {
		_ = l.Close()
		return err
	}
	w.serve(l, w.calendar.Handler())
	return nil
}

// administer creates what an administrator creates, with the root access key, which is used for nothing else.
func (w *world) administer(ctx context.Context, s settings, clientSecret string) (keys, error) {
	root, err := newAdmin(ctx, w.tabardURL, w.dataDir, &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}})
	if err != nil {
		return keys{}, err
	}
	if s.googleID != "" {
		if clientSecret, err = s.googleSecret(); err != nil {
			return keys{}, err
		}
		w.callback, err = root.provider(ctx, s.googleID, clientSecret, "")
	} else {
		w.callback, err = root.provider(ctx, clientName, clientSecret, w.calendarURL)
	}
	if err != nil {
		return keys{}, fmt.Errorf("credential provider: %w", err)
	}
	if w.calendar != nil {
		if err := w.calendar.AddRedirectURI(clientName, w.callback); err != nil {
			return keys{}, err
		}
	}
	return root.people(ctx, w.loginURL, w.webURL+"/connected")
}

func (w *world) startAgents(ctx context.Context, k keys) error {
	for _, a := range []struct {
		into     **service
		workload string
		key      aws.CredentialsProvider
	}{{&w.agent, agentName, k.agent}, {&w.other, otherName, k.other}, {&w.impostor, agentName, k.other}} {
		conf := agentConfig{Workload: a.workload, Tabard: w.tabardURL, Credentials: a.key, Now: w.clock.Now, Zone: w.zone}
		if w.calendar != nil {
			conf.Calendar = w.calendar.Endpoint()
		}
		made, err := newAgent(ctx, conf)
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		*a.into = &service{agent: made, url: origin(l)}
		w.serve(l, made.Handler())
	}
	return nil
}

func (w *world) startWeb(ctx context.Context, l net.Listener, k keys) error {
	w.trail = &trail{&operator{endpoint: w.tabardURL, region: daemon.DefaultRegion, credentials: k.auditor,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}}}
	conf := webConfig{URL: w.webURL, Issuer: w.loginURL, Agent: w.agent.url, Tabard: w.tabardURL, Credentials: k.web, Trail: w.trail,
		Google: w.calendar == nil, Calendar: "https://calendar.google.com/", Now: w.clock.Now, Zone: w.zone, Hints: hints(w.calendar == nil)}
	if w.calendar != nil {
		conf.Calendar = w.calendar.PageURL()
	}
	var err error
	if w.web, err = newWebApp(w.ctx, conf); err != nil {
		_ = l.Close()
		return fmt.Errorf("web app: %w", err)
	}
	w.serve(l, w.web.Handler())
	return nil
}

// hints are the accounts of alice and bob. Their passwords are no secrets: the stand-ins guard nothing.
func hints(google bool) []hint {
	h := []hint{{"Alice", "alice", "alice-at-work", "alice@calendar.example", "alice-at-home"},
		{"Bob", "bob", "bob-at-work", "bob@calendar.example", "bob-at-home"}}
	if google {
		for i := range h {
			h[i].Calendar, h[i].CalendarPassword = "", ""
		}
	}
	return h
}

// close ends everything, waits until it has, and removes the data unless they were to be kept.
func (w *world) close() error {
	w.cancel()
	w.parts.Wait() // first, because a request may still begin a task
	if w.web != nil {
		w.web.Wait()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	err := errors.Join(w.failed...)
	if w.remove {
		err = errors.Join(err, os.RemoveAll(strings.TrimSuffix(w.dataDir, "data")))
	}
	return err
}
