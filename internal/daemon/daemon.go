package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/ceiling"
	"github.com/tabard-id/tabard/internal/consent"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/issuer"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/policy"
	"github.com/tabard-id/tabard/internal/revocation"
	"github.com/tabard-id/tabard/internal/signing"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

const (
	sweepEvery      = time.Minute
	shutdownTimeout = 45 * time.Second // longer than a refresh that has begun may take
)

// Server is a running server. Make it with New, which listens; Run serves.
type Server struct {
	config     Config
	listener   net.Listener
	admin      net.Listener
	http       *http.Server
	adminSrv   *http.Server
	db         *store.DB
	guard      *access.Guard
	people     *identity.Service
	accounts   *accounts.Service
	admission  *awsapi.Admission
	vault      *vault.Vault
	signing    *signing.Service
	broker     *broker.Broker
	audit      *auditing
	workloads  *federation.Service
	exchange   *exchange.Service
	revocation *revocation.Service
	ceilings   *ceiling.Service
	policies   *policy.Service
	upgraded   int // agents whose rights were written as policies at this start
	metrics    *metrics
	readiness  readiness
	close      sync.Once
}

// New opens everything that the configuration names and listens. After it returns, clients may connect; Run answers
// them. Close releases everything whether or not Run was called.
func New(ctx context.Context, c Config) (*Server, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Server{config: c, metrics: newMetrics()}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, readable(err)
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	c := &s.config
	if err := prepareDir(c.DataDir); err != nil {
		return err
	}
	var err error
	if s.db, err = openStore(ctx, *c); err != nil {
		return err
	}
	newKey, err := s.openVault(ctx)
	if err != nil {
		return err
	}
	// Listening comes before the public URL, because port 0 is known only then.
	if s.listener, err = net.Listen("tcp", c.Addr); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if c.PublicURL == "" {
		c.PublicURL = c.scheme() + "://" + s.listener.Addr().String()
	}
	handler, root, err := s.wire(ctx)
	if err != nil {
		return err
	}
	c.warnOfAddresses()
	if err := s.serveOn(handler); err != nil {
		return err
	}
	if err := s.writeEndpoint(); err != nil {
		return fmt.Errorf("the data directory: %w", err)
	}
	s.announce(newKey, root)
	return nil
}

func openStore(ctx context.Context, c Config) (*store.DB, error) {
	if c.DB == SQLite {
		return store.Open(ctx, store.Config{SQLitePath: filepath.Join(c.DataDir, "tabard.db"), Quotas: c.DefaultQuotas})
	}
	if !strings.HasPrefix(c.DB, "postgres://") && !strings.HasPrefix(c.DB, "postgresql://") {
		return nil, errors.New("db is sqlite or a postgres:// URL")
	}
	return store.Open(ctx, store.Config{PostgresURL: func() string { return c.DB }, Quotas: c.DefaultQuotas})
}

// openVault makes or finds the key and opens the server's own vault with it, so that a wrong key stops the start.
func (s *Server) openVault(ctx context.Context) (newKey bool, err error) {
	_, err = s.db.VaultRow(ctx, vault.Server, vault.ServerName)
	fresh := errors.Is(err, fault.NotFound)
	if err != nil && !fresh {
		return false, err
	}
	if newKey, err = ensureKey(s.config.KeyFile, fresh); err != nil {
		return false, err
	}
	wrapper, err := kms.Open("file:" + s.config.KeyFile)
	if err != nil {
		return false, err
	}
	s.vault, err = vault.New(vault.Config{Store: s.db, Wrapper: wrapper, Region: s.config.Region, Now: s.config.Now})
	if err != nil {
		return false, err
	}
	return newKey, s.vault.Ready(ctx)
}

// wire builds the core over the adapters, and the routes over the core.
func (s *Server) wire(ctx context.Context) (http.Handler, rootKey, error) {
	c := s.config
	if err := s.openPolicies(ctx); err != nil {
		return nil, rootKey{}, err
	}
	dialer := oauth.New(oauth.Config{AllowNetworks: c.networks(), Dev: c.Dev, Now: c.Now, UserAgent: "tabard/" + c.Version})
	account := access.Account(c.Account)
	issuers := make([]identity.Issuer, len(c.Issuers))
	for i, iss := range c.Issuers {
		iss.Account = account
		issuers[i] = iss
	}
	people, err := identity.New(identity.Config{
		Store: s.db, Vault: s.vault, Guard: s.guard, Keys: dialer, Metadata: dialer, UserInfo: dialer, Issuer: c.PublicURL, Region: c.Region, Now: c.Now, Dev: c.Dev, Issuers: issuers,
		MaxDelegation: c.Bounds.delegation(), UserTokenLife: c.Bounds.userTokenLife(),
	})
	if err != nil {
		return nil, rootKey{}, err
	}
	s.ceilings.Bind(s.guard, people)
	if err := s.openAccounts(ctx, people); err != nil {
		return nil, rootKey{}, err
	}
	root, err := c.rootCredentials(func() (bool, error) { return people.HasRootKey(ctx, account) })
	if err != nil {
		return nil, root, err
	}
	if root.id != "" {
		if err := people.EnsureRoot(ctx, account, root.id, root.secret); err != nil {
			return nil, root, err
		}
	}
	catalogue, err := c.catalogue()
	if err != nil {
		return nil, rootKey{}, err
	}
	s.signing, err = signing.New(signing.Config{Store: s.db, Vault: s.vault, Issuer: c.PublicURL, Now: c.Now})
	if err != nil {
		return nil, rootKey{}, err
	}
	s.broker, err = broker.New(broker.Config{
		Store: s.db, Vault: s.vault, Identity: people, Guard: s.guard, Signing: s.signing, Upstream: dialer, Catalogue: catalogue, Login: dialer,
		PublicURL: c.PublicURL, Region: c.Region, Home: account, Now: c.Now, Dev: c.Dev,
	})
	if err != nil {
		return nil, rootKey{}, err
	}
	if s.workloads, err = s.newFederation(dialer); err != nil {
		return nil, rootKey{}, err
	}
	if s.revocation, err = s.newRevocation(people); err != nil {
		return nil, rootKey{}, err
	}
	handler, err := s.routes(people)
	return handler, root, err
}

// routes builds the adapters' handlers over the core.
func (s *Server) routes(people *identity.Service) (http.Handler, error) {
	c := s.config
	pages, err := consent.New(consent.Config{Broker: s.broker, Secure: strings.HasPrefix(c.PublicURL, "https:"), Log: c.Log})
	if err != nil {
		return nil, err
	}
	if err := s.wireAudit(); err != nil {
		return nil, err
	}
	published, err := s.newIssuer(people)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, path := range issuer.Paths() {
		mux.Handle(path, published)
	}
	mux.Handle("GET "+consent.Prefix, pages)
	mux.Handle("GET "+consent.HostedPrefix, pages)
	mux.Handle("POST "+consent.HostedPrefix, pages)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /tabard/audit-keys.json", s.auditKeys)
	mux.Handle("/", awsapi.New(awsapi.Config{
		Identity: people, Federation: s.workloads, Exchange: s.exchange, Accounts: s.accounts, Admission: s.admission, Broker: s.broker, Policies: s.policies, Revocation: s.revocation, Ceilings: s.ceilings, Guard: s.guard, Audit: s.db, Trail: s.audit.service, Region: c.Region, Now: c.Now, Log: c.Log, Observe: s.metrics.request,
	}))
	return onlyCanonical(mux), nil
}

// ready says whether the key opens and the store answers, and no more: details are for the admin listener.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if err := s.readiness.check(r.Context(), s.wellness); err != nil {
		plain(w, http.StatusServiceUnavailable, "not ready")
		return
	}
	plain(w, http.StatusOK, "ok")
}

// wellness asks the key service and the store, each for real.
func (s *Server) wellness(ctx context.Context) error {
	return errors.Join(s.vault.Ready(ctx), s.db.Ping(ctx))
}

// readiness remembers an answer for one second: /readyz needs no authentication, and each real answer costs a call to
// the key service and a write of the database.
type readiness struct {
	mu   sync.Mutex // guards what follows, and lets one caller ask for all
	at   time.Time
	last error
}

func (r *readiness) check(ctx context.Context, ask func(context.Context) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.at.IsZero() && time.Since(r.at) < time.Second {
		return r.last
	}
	// The answer is for everybody who waits, so it does not depend on this caller's patience.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	r.last = ask(ctx)
	r.at = time.Now()
	return r.last
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// announce prints the start-up lines: where it listens, where data lies, what to do next.
func (s *Server) announce(newKey bool, root rootKey) {
	c := s.config
	say := func(label, format string, args ...any) {
		fmt.Fprintf(c.Out, "%-12s %s\n", label, fmt.Sprintf(format, args...))
	}
	say("tabard", "%s, account %s, region %s", c.Version, c.Account, c.Region)
	say("listening", "%s", s.URL())
	if s.URL() != c.PublicURL {
		say("public url", "%s", c.PublicURL)
	}
	if s.admin != nil {
		say("admin", "%s (metrics, pprof, health)", s.AdminURL())
	}
	if c.DB == SQLite {
		say("data", "%s (sqlite)", c.DataDir)
	} else {
		say("data", "%s; %s", describeDB(c.DB), c.DataDir)
	}
	switch {
	case newKey:
		say("key", "%s (new: move it to another volume, name it with --key-file, and keep a copy)", c.KeyFile)
	case filepath.Dir(c.KeyFile) == filepath.Clean(c.DataDir):
		say("key", "%s (better on another volume than the data: --key-file)", c.KeyFile)
	default:
		say("key", "%s", c.KeyFile)
	}
	switch {
	case root.id == "":
		say("root key", "made at the first start on this database, and not in %s; TABARD_ROOT_ACCESS_KEY_ID sets another", CredentialsPath(c.DataDir))
	case root.wrote:
		say("root key", "%s (new)", CredentialsPath(c.DataDir))
	case c.RootAccessKeyID == "":
		say("root key", "%s", CredentialsPath(c.DataDir))
	}
	if s.upgraded > 0 {
		say("policies", "what %d agents were allowed until now is written down: tabard policy list shows it as upgrade:NAME, narrow it", s.upgraded)
	}
	networks := c.networks()
	for _, account := range slices.Sorted(maps.Keys(networks)) {
		say("networks", "providers and issuers of account %s may be in %s", account, strings.Trim(fmt.Sprint(networks[account]), "[]"))
	}
	if c.Dev {
		say("dev", "development mode: trusts any issuer on loopback; never for real users")
	}
	for _, w := range s.config.Warnings {
		say("warning", "%s", w)
	}
	say("next", `in another terminal: eval "$(tabard env --data-dir %s)", then run your agent; tabard --help has more`, c.DataDir)
}

// describeDB names a PostgreSQL database without user or password.
func describeDB(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "postgres"
	}
	return "postgres " + u.Host + u.Path
}

// URL is where the main listener answers.
func (s *Server) URL() string { return s.config.scheme() + "://" + s.listener.Addr().String() }

// AdminURL is where the admin listener answers, "" where it is off.
func (s *Server) AdminURL() string {
	if s.admin == nil {
		return ""
	}
	return "http://" + s.admin.Addr().String()
}

// PublicURL is where browsers and agents reach the server.
func (s *Server) PublicURL() string { return s.config.PublicURL }

func (c Config) scheme() string {
	if c.TLSCert != "" {
		return "https"
	}
	return "http"
}

// Run serves until ctx ends, then lets requests in flight finish.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 2)
	serve := func(srv *http.Server, l net.Listener) {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}
	go serve(s.http, s.listener)
	if s.adminSrv != nil {
		go serve(s.adminSrv, s.admin)
	}
	var behind sync.WaitGroup
	sweepCtx, stopSweep := context.WithCancel(ctx)
	behind.Go(func() { s.sweep(sweepCtx) })
	behind.Go(func() { s.revoke(sweepCtx) })
	behind.Go(func() { s.runAudit(sweepCtx) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stopSweep()
	behind.Wait()
	deadline, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err = errors.Join(err, s.http.Shutdown(deadline))
	if s.adminSrv != nil {
		err = errors.Join(err, s.adminSrv.Close())
	}
	s.Close()
	return err
}

// sweep deletes ended consent sessions, makes the revocations at providers that are due and the signing keys that it is
// time for. It logs when that begins and stops to work, not each time.
func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.writeUses()
		_, err := s.broker.Sweep(ctx)
		_, revoking := s.broker.SweepRevocations(ctx)
		_, counting := s.ceilings.Sweep(ctx)
		err = errors.Join(err, counting, revoking, s.signing.Prepare(ctx), s.sweepIssuer(ctx))
		if (err != nil) != failing && ctx.Err() == nil {
			failing = err != nil
			s.config.Log.Warn("sweeping ended sessions, revoking at providers and making signing keys", "failing", failing, "error", err)
		}
	}
}

// Close releases everything. It is safe to call twice, and after Run.
func (s *Server) Close() {
	s.close.Do(func() {
		for _, l := range []net.Listener{s.listener, s.admin} {
			if l != nil {
				_ = l.Close() // closed already after Run
			}
		}
		if s.guard != nil {
			s.guard.Close()
		}
		s.closeAudit()
		if s.db != nil {
			s.writeUses()
		}
		if s.vault != nil {
			s.vault.Close()
		}
		if s.db != nil {
			if err := s.db.Close(); err != nil {
				s.config.Log.Error("closing the database", "error", err)
			}
		}
	})
}
