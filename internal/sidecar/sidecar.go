// Package sidecar does for an agent anywhere what AgentCore's Runtime does for one at AWS.
//
// Security argument: it stands next to one agent, with two listeners that answer this machine alone. In front, a user's
// JWT becomes a workload access token, and every header that could name another identity is removed before ours is set,
// so nothing that a client sends reaches the agent as its identity. Behind, the agent's identity calls go on to one
// address with the sidecar's own credentials: only listed operations, rebuilt from scratch, and never those of a
// browser. Whoever may connect to the second listener acts as the agent, which is why no address of a network is
// accepted. Secrets pass through as secret.Text, and what peers say of a failure is masked before it is logged or told.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	// DefaultAddr is where the agent's clients come.
	DefaultAddr = "127.0.0.1:9000"
	// DefaultAgent is where the agent answers: the port of AgentCore's Runtime, on which app.run() of its SDK listens.
	DefaultAgent = "http://127.0.0.1:8080"
	// DefaultIdentityAddr is where the agent's identity calls come.
	DefaultIdentityAddr = "127.0.0.1:8081"

	headersWithin   = 10 * time.Second
	idleFor         = 2 * time.Minute
	maxHeaders      = 256 << 10        // bytes; the longest token of the model is half of it
	shutdownTimeout = 20 * time.Second // for requests in flight, within the 30 s that Kubernetes gives
)

// Config is what a sidecar needs. Endpoint, Credentials, Workload and Log must be given.
type Config struct {
	Endpoint    string      // origin of Tabard
	Credentials Credentials // of the sidecar
	Workload    string      // name of the agent's workload identity
	Log         *slog.Logger

	Addr         string // "" is DefaultAddr
	Agent        string // origin of the agent, "" is DefaultAgent
	IdentityAddr string // "" is DefaultIdentityAddr
	CallbackURL  string // where users' browsers go after consent; "" sets no header

	AllowAnonymous       bool // requests without a user are the agent's own
	ForwardAuthorization bool // the agent gets the user's JWT too
	AllowClearText       bool // Endpoint may be http on another machine
	Now                  func() time.Time
}

// SettingError says what is wrong with a member of Config, which it names.
type SettingError struct{ Setting, Problem string }

// Error is the member and the problem.
func (e *SettingError) Error() string { return e.Setting + ": " + e.Problem }

func wrong(setting, format string, args ...any) error {
	return &SettingError{setting, fmt.Sprintf(format, args...)}
}

// Sidecar is a sidecar that listens.
type Sidecar struct {
	front, behind       *http.Server
	frontAt, identityAt net.Listener
	transports          []*http.Transport
}

// New checks the configuration and listens. Run answers. Errors are *SettingError where the configuration is wrong.
func New(ctx context.Context, c Config) (*Sidecar, error) {
	c.setDefaults()
	agent, err := c.check()
	if err != nil {
		return nil, err
	}
	to := newUpstream(c)
	minter := &minter{upstream: to, workload: c.Workload, cache: newCache(maxKept, c.Now), renewals: newRenewals(maxKept, c.Now)}
	front, behind := newFront(c, agent, minter), &behind{upstream: to, minter: minter, log: c.Log, now: c.Now}
	s := &Sidecar{front: server(front, c.Log), behind: server(behind, c.Log), transports: []*http.Transport{to.transport, front.transport}}
	s.behind.ReadTimeout, s.behind.WriteTimeout = headersWithin, answerWithin+headersWithin // the front may stream for hours
	if s.frontAt, err = listen(ctx, "Addr", c.Addr); err != nil {
		return nil, err
	}
	if s.identityAt, err = listen(ctx, "IdentityAddr", c.IdentityAddr); err != nil {
		_ = s.frontAt.Close() // nobody was told of it
		return nil, err
	}
	if problem := s.loops(c, agent); problem != nil {
		s.Close()
		return nil, problem
	}
	return s, nil
}

func server(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: headersWithin, IdleTimeout: idleFor, MaxHeaderBytes: maxHeaders,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		at      *string
		nothing string
	}{{&c.Addr, DefaultAddr}, {&c.Agent, DefaultAgent}, {&c.IdentityAddr, DefaultIdentityAddr}} {
		if *d.at == "" {
			*d.at = d.nothing
		}
	}
	c.Endpoint = strings.TrimSuffix(c.Endpoint, "/")
	if c.Now == nil {
		c.Now = time.Now
	}
}

var workloadName = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,255}$`)

// check returns the agent's origin.
func (c *Config) check() (*url.URL, error) {
	if !workloadName.MatchString(c.Workload) {
		return nil, wrong("Workload", "%q is no name of a workload identity: 3 to 255 of A-Z a-z 0-9 _ . -", c.Workload)
	}
	endpoint, err := origin("Endpoint", c.Endpoint)
	if err != nil {
		return nil, err
	}
	if endpoint.Scheme == "http" && !isLoopback(endpoint.Hostname()) && !c.AllowClearText {
		return nil, wrong("Endpoint", "%s would carry users' tokens, and the sidecar's own, in clear over a network", c.Endpoint)
	}
	agent, err := origin("Agent", c.Agent)
	if err != nil {
		return nil, err
	}
	if agent.Scheme != "http" || !isLoopback(agent.Hostname()) {
		return nil, wrong("Agent", "%s is not http on this machine, and every request to the agent carries a workload access token", c.Agent)
	}
	if c.CallbackURL != "" {
		if u, err := url.Parse(c.CallbackURL); err != nil || u.Scheme == "" || strings.ContainsFunc(c.CallbackURL, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, wrong("CallbackURL", "%q is no URL of a return page", c.CallbackURL)
		}
	}
	for setting, addr := range map[string]string{"Addr": c.Addr, "IdentityAddr": c.IdentityAddr} {
		if err := checkLoopback(setting, addr); err != nil {
			return nil, err
		}
	}
	return agent, nil
}

func origin(setting, raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, wrong(setting, "must be http(s)://host[:port] and nothing more")
	}
	u.Path = ""
	return u, nil
}

// checkLoopback refuses an address that others can reach.
func checkLoopback(setting, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return wrong(setting, "%q is not of the form 127.0.0.1:PORT", addr)
	}
	if !isLoopback(host) {
		return wrong(setting, "%s can be reached from other machines. The sidecar listens on 127.0.0.1 or [::1] only: it has no TLS, users' tokens pass it, and "+
			"whoever reaches the agent's identity address acts as the agent", addr)
	}
	return nil
}

// isLoopback reports whether a host without a port is this machine, for everybody alike: a name other than localhost
// may be anybody's.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// namesLoopback reports whether a request asks this machine by a name of its loopback, which no page of another site
// can have for its own (DNS rebinding).
func namesLoopback(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return isLoopback(strings.Trim(host, "[]"))
}

// onLoopback is for net.Dialer: it refuses a connection that leaves this machine. What localhost is, a resolver says.
func onLoopback(_, address string, _ syscall.RawConn) error {
	if at, err := netip.ParseAddrPort(address); err != nil || !at.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%s is not on this machine's loopback interface", address)
	}
	return nil
}

func listen(ctx context.Context, setting, addr string) (net.Listener, error) {
	var how net.ListenConfig
	l, err := how.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() { // localhost is what the hosts file says
		_ = l.Close()
		return nil, wrong(setting, "%s is not on this machine's loopback interface", addr)
	}
	return l, nil
}

// loops reports an address that would make the sidecar call itself.
func (s *Sidecar) loops(c Config, agent *url.URL) error {
	endpoint, _ := url.Parse(c.Endpoint) // was checked
	for _, mine := range []net.Listener{s.frontAt, s.identityAt} {
		for setting, u := range map[string]*url.URL{"Endpoint": endpoint, "Agent": agent} {
			if _, port, _ := net.SplitHostPort(mine.Addr().String()); isLoopback(u.Hostname()) && u.Port() == port {
				return wrong(setting, "%s is the sidecar's own address", u)
			}
		}
	}
	return nil
}

// URL is where the agent's clients come.
func (s *Sidecar) URL() string { return "http://" + s.frontAt.Addr().String() }

// IdentityURL is where the agent's identity calls come.
func (s *Sidecar) IdentityURL() string { return "http://" + s.identityAt.Addr().String() }

// Run answers until ctx ends, then lets requests in flight finish: those of clients first, whose agent may still need
// its identity. It returns when nothing answers any more.
func (s *Sidecar) Run(ctx context.Context) error {
	failed := make(chan error, 2)
	serve := func(srv *http.Server, l net.Listener) { failed <- srv.Serve(l) }
	go serve(s.front, s.frontAt)
	go serve(s.behind, s.identityAt)
	var err error
	ended := 0
	select {
	case <-ctx.Done():
	case err = <-failed:
		ended++
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	for _, srv := range []*http.Server{s.front, s.behind} {
		if srv.Shutdown(deadline) != nil {
			_ = srv.Close() // what streams for ever is cut off
		}
	}
	for ; ended < 2; ended++ {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	s.Close()
	return err
}

// Close ends a sidecar at once. After Run it does nothing.
func (s *Sidecar) Close() {
	_ = s.front.Close()
	_ = s.behind.Close()
	_ = s.frontAt.Close() // where Run never was, the servers do not know it
	_ = s.identityAt.Close()
	for _, t := range s.transports {
		t.CloseIdleConnections()
	}
}
