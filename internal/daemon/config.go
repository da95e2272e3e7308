// Package daemon wires the server together and runs it. The command, the tests, the demo and tabardtest all start the
// same thing.
//
// Security argument: everything that loosens a rule is one field of Config, is said at the start, and is checked here
// before anything opens: plain http beyond loopback, development mode, private networks. The files that hold secrets in
// clear (the key and the root credentials) are made here, readable by their owner only.
package daemon

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// Config is everything a server can be told. The zero value works: an embedded database in ./tabard-data, listening on
// 127.0.0.1:8180.
type Config struct {
	Addr      string // host:port to listen on; port 0 takes a free one
	PublicURL string // where browsers and agents reach it; default http(s)://<addr>
	DataDir   string // the embedded database, the key and the root credentials
	DB        string // "sqlite" or a postgres:// URL
	KeyFile   string // the server's key; default <data-dir>/key
	Region    string
	Account   string

	Dev            bool
	TLSCert        string // certificate and key files, read again when they change
	TLSKey         string
	BehindTLSProxy bool           // a proxy in front speaks TLS, so plain http beyond loopback is meant
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	AdminAddr      string         // metrics, pprof and detailed health; off when empty

	// AllowNetworks are, by account, the private networks that its providers and issuers may be in. "" is Account.
	AllowNetworks map[access.Account][]netip.Prefix

	AuditSinks          []string // where the trail is streamed to, as URLs
	AuditSinkTokenFile  string   // bearer token for https sinks
	AuditSinkCAFile     string   // certificate authorities of https and syslog+tls sinks; the system's when empty
	AuditCheckpointFile string   // each checkpoint is appended to it

	Admission Admission // of requests and connections

	Bounds Bounds // of agents and delegations

	VendorsFile string // vendors of the operator's own, in the form of the catalogue; none when empty

	DefaultQuotas accounts.Quotas // of accounts that have none of their own; 0 is no bound

	RootAccessKeyID     string // the root access key; made at first start when empty
	RootSecretAccessKey secret.Text

	Issuers      []identity.Issuer // trusted issuers of the configuration file
	TokenReviews []TokenReview     // which workload issuers are asked about their tokens

	Warnings []string         // what the settings were read with and a person should know
	Log      *slog.Logger     // default: JSON lines to stderr
	Out      io.Writer        // start-up lines; default: none
	Now      func() time.Time // default time.Now
	Version  string           // for the start-up line

	// TestOnlyLog takes the trail's place where it is set. No setting reaches it: it is how bench learns what the trail
	// costs, by a server without one.
	TestOnlyLog access.Log
	// TestOnlyRemote makes loopback addresses count as any others. No setting reaches it.
	TestOnlyRemote bool
}

// networks are AllowNetworks with every account named.
func (c Config) networks() map[access.Account][]netip.Prefix {
	all := map[access.Account][]netip.Prefix{}
	for account, networks := range c.AllowNetworks {
		account = cmp.Or(account, access.Account(c.Account))
		all[account] = append(all[account], networks...)
	}
	return all
}

// Defaults of Config.
const (
	DefaultAddr    = "127.0.0.1:8180"
	DefaultDataDir = "tabard-data"
	DefaultRegion  = "us-east-1"
	DefaultAccount = "000000000000"
	SQLite         = "sqlite"
)

func (c Config) withDefaults() Config {
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&c.Addr, DefaultAddr)
	def(&c.DataDir, DefaultDataDir)
	def(&c.DB, SQLite)
	def(&c.Region, DefaultRegion)
	def(&c.Account, DefaultAccount)
	def(&c.KeyFile, filepath.Join(c.DataDir, "key"))
	def(&c.Version, "dev")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// check refuses what contradicts itself, with a sentence.
func (c Config) check() error {
	if !regexp.MustCompile(`^[0-9]{12}$`).MatchString(c.Account) {
		return fmt.Errorf("account %q is not 12 digits", c.Account)
	}
	if !regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`).MatchString(c.Region) {
		return fmt.Errorf("region %q does not look like us-east-1", c.Region)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return fmt.Errorf("tls-cert and tls-key go together: give both or neither")
	}
	if c.TLSCert != "" && c.BehindTLSProxy {
		return fmt.Errorf("tls-cert and behind-tls-proxy contradict each other: either this server speaks TLS or the proxy does")
	}
	if (c.RootAccessKeyID == "") != c.RootSecretAccessKey.IsZero() {
		return fmt.Errorf("TABARD_ROOT_ACCESS_KEY_ID and TABARD_ROOT_SECRET_ACCESS_KEY go together: give both or neither")
	}
	for _, r := range c.TokenReviews {
		if err := r.check(c.Dev); err != nil {
			return err
		}
	}
	if err := c.checkAddr(); err != nil {
		return err
	}
	return c.checkPublicURL()
}

func (c Config) checkAddr() error {
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("addr %q is not host:port: %v", c.Addr, err)
	}
	loopback := identity.IsLoopback(host)
	if c.Dev && !loopback {
		return fmt.Errorf("--dev trusts what no reachable server may trust, so it listens on loopback only, and addr %q is not", c.Addr)
	}
	if !loopback && c.TLSCert == "" && !c.BehindTLSProxy {
		return fmt.Errorf("addr %q is reachable from outside and would carry credentials in clear: give --tls-cert and --tls-key, or say --behind-tls-proxy", c.Addr)
	}
	if c.AdminAddr == "" {
		return nil
	}
	admin, _, err := net.SplitHostPort(c.AdminAddr)
	if err != nil {
		return fmt.Errorf("admin-addr %q is not host:port: %v", c.AdminAddr, err)
	}
	if !identity.IsLoopback(admin) {
		return fmt.Errorf("admin-addr %q is not on loopback: it has no authentication", c.AdminAddr)
	}
	return nil
}

func (c Config) checkPublicURL() error {
	if c.PublicURL == "" {
		host, _, _ := net.SplitHostPort(c.Addr) // checked already
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() || c.BehindTLSProxy {
			return fmt.Errorf("addr %q does not say where browsers and agents reach the server: give --public-url https://…", c.Addr)
		}
		return nil
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("public-url %q must be scheme://host[:port] and nothing more", c.PublicURL)
	}
	if u.Scheme == "http" && !identity.IsLoopback(u.Hostname()) {
		return fmt.Errorf("public-url %q must be https: browsers carry consent through it", c.PublicURL)
	}
	return nil
}
