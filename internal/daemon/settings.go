package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// Setting describes one setting. Its name is the flag, the key in the configuration file, and, in capitals with
// TABARD_ in front, the environment variable: --data-dir, data-dir, TABARD_DATA_DIR.
type Setting struct {
	Name    string
	Default string
	Help    string
	Bool    bool
	List    bool // comma-separated; a list in the file
	EnvOnly bool // never a flag or in the file: only the variable, or the file named by the variable with _FILE
	File    bool // the variable with _FILE names a file that holds the value
}

// Env names the environment variable.
func (s Setting) Env() string {
	return "TABARD_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Settings lists every setting of the server.
func Settings() []Setting {
	return []Setting{
		{Name: "addr", Default: DefaultAddr, Help: "address to listen on"},
		{Name: "public-url", Help: "where browsers and agents reach the server (default http(s)://<addr>)"},
		{Name: "data-dir", Default: DefaultDataDir, Help: "directory of the embedded database, the key and the root credentials"},
		{Name: "db", Default: SQLite, File: true, Help: "sqlite, or a postgres:// URL without a password (put that into PGPASSFILE, or the whole URL into the file that TABARD_DB_FILE names)"},
		{Name: "key-file", Help: "file of the server's key (default <data-dir>/key); better on another volume than the data"},
		{Name: "region", Default: DefaultRegion, Help: "AWS region that clients sign for"},
		{Name: "account", Default: DefaultAccount, Help: "account number of the root principal"},
		{Name: "dev", Bool: true, Help: "development: plain http and any port on loopback, any issuer on loopback, unregistered loopback return URLs"},
		{Name: "tls-cert", Help: "certificate file (PEM); read again when it changes"},
		{Name: "tls-key", Help: "private key file of the certificate (PEM)"},
		{Name: "behind-tls-proxy", Bool: true, Help: "a proxy in front speaks TLS: allows plain http beyond loopback"},
		{Name: "trusted-proxy", List: true, Help: "networks (CIDR) of proxies whose X-Forwarded-For is believed"},
		{Name: "max-connections", Default: "4096", Help: "connections at once; 0 for any number. Trusted proxies have as many as they open"},
		{Name: "max-connections-per-address", Default: "256", Help: "of them from one address, or one IPv6 network (/64), but loopback; 0 for any number"},
		{Name: "body-memory", Default: "64", Help: "MiB of requests that are being received at once; a quarter of it for clients that proved who they are"},
		{Name: "admin-addr", Help: "loopback address for metrics, pprof and detailed health (default off)"},
		{Name: "allow-network", List: true, Help: "private networks (CIDR) that providers and issuers of the account --account may be in; 111122223333=10.2.0.0/16 for those of another"},
		{Name: "audit-sink", List: true, Help: "where the audit trail is streamed to: file:/path, syslog+unix:///dev/log, syslog+udp|tcp|tls://host:port, https://host/path"},
		{Name: "audit-sink-token-file", Help: "file of the bearer token for https audit sinks; read again for each batch"},
		{Name: "audit-sink-ca-file", Help: "certificate authorities (PEM) of https and syslog+tls audit sinks (default the system's)"},
		{Name: "audit-checkpoint-file", Help: "file to which each audit checkpoint is appended; keep it, or copies, where the database's administrators cannot write"},
		{Name: "audit-keep-days", Default: "30", Help: "days that every account's audit records are kept for at least: younger ones cannot be pruned by anybody; 0 for no bound"},
		{Name: "default-quota", List: true, Help: "quotas of accounts that have none of their own, such as workload-identities=100,requests-per-second=50 (default none)"},
		{Name: "users-per-hour", Default: "1000", Help: "users whose tokens an agent may have in an hour, where tabard workload ceilings says nothing else; 0 for no bound"},
		{Name: "releases-per-minute", Default: "0", Help: "tokens and keys that an agent may have in a minute, likewise; 0 for no bound"},
		{Name: "delegation-days", Default: "90", Help: "days that a user may delegate to an agent for at most"},
		{Name: "user-token-hours", Default: "1", Help: "hours that a workload access token made of a user's JWT lives for at most; more than 1 only for issuers with back-channel logout"},
		{Name: "vendors-file", Help: "file of provider vendors of your own (JSON, in the form of the built-in catalogue)"},
		{Name: "root-access-key-id", EnvOnly: true, File: true, Help: "id of the root access key (default: made at first start)"},
		{Name: "root-secret-access-key", EnvOnly: true, File: true, Help: "secret of the root access key"},
	}
}

// Sources is where settings come from. Flags win over the environment, and that over the file.
type Sources struct {
	File    string            // path of the configuration file, or ""
	Environ []string          // as os.Environ
	Flags   map[string]string // flags that were given
}

// issuerEntry is an entry of the file's list issuers.
type issuerEntry struct {
	Issuer       string            `yaml:"issuer"`
	Audiences    []string          `yaml:"audiences"`
	ClientIDs    []string          `yaml:"client-ids"`
	TokenUse     string            `yaml:"token-use"`
	Workloads    []string          `yaml:"workloads"`
	Claims       map[string]string `yaml:"claims"`
	SubjectClaim string            `yaml:"subject-claim"`
	JWKSURI      string            `yaml:"jwks-uri"`
	JWKSFile     string            `yaml:"jwks-file"`
	UserInfo     bool              `yaml:"userinfo"`
	PolicyClaims []string          `yaml:"policy-claims"`
	Backchannel  bool              `yaml:"backchannel-logout"`
}

// Load reads the settings. An unknown setting, in any source, is an error that names it; so is what contradicts itself.
// No error has a value that may be a secret.
func Load(src Sources) (Config, error) {
	values := map[string]string{}
	var c Config
	if src.File != "" {
		if err := fromFile(src.File, values, &c); err != nil {
			return c, err
		}
	}
	if err := fromEnviron(src.Environ, values, &c); err != nil {
		return c, err
	}
	if slices.ContainsFunc(Settings(), func(s Setting) bool { _, given := src.Flags[s.Name]; return given && s.EnvOnly }) {
		return c, errors.New("a root-access-key-id or root-secret-access-key is never a flag")
	}
	maps.Copy(values, src.Flags)
	if _, given := src.Flags["db"]; given && hasPassword(src.Flags["db"]) {
		return c, errors.New("--db holds a password, which every user of this machine can read in the process list: " +
			"leave it out and name a password file in PGPASSFILE, or put the whole URL into a file and name it in TABARD_DB_FILE")
	}
	if err := c.apply(values); err != nil {
		return c, err
	}
	return c, c.withDefaults().check()
}

func hasPassword(db string) bool {
	u, err := url.Parse(db)
	if err != nil {
		return strings.Contains(db, "://") // it cannot be read, so it must not be shown either
	}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			return true
		}
	}
	return u.Query().Has("password") || u.Query().Has("sslpassword")
}

func fromFile(path string, values map[string]string, c *Config) error {
	doc, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("the configuration file: %w", err)
	}
	var raw map[string]any
	if err := yaml.Unmarshal(doc, &raw); err != nil {
		return badYAML(path, err)
	}
	known := map[string]Setting{}
	for _, s := range Settings() {
		known[s.Name] = s
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		if name == "issuers" || name == "token-reviews" {
			continue
		}
		s, ok := known[name]
		if !ok || s.EnvOnly {
			return fmt.Errorf("configuration file %s: unknown setting %q%s", path, name, nearest(name))
		}
		text, err := scalar(s, raw[name])
		if err != nil {
			return fmt.Errorf("configuration file %s: %s: %w", path, name, err)
		}
		if name == "db" && hasPassword(text) {
			c.Warnings = append(c.Warnings, "the configuration file holds the database's password: a file named by TABARD_DB_FILE, or PGPASSFILE, can be kept apart from it")
		}
		values[name] = text
	}
	issuers, err := yaml.Marshal(raw["issuers"])
	if err != nil {
		return fmt.Errorf("configuration file %s: issuers: %w", path, err)
	}
	var entries []issuerEntry
	if err := yaml.UnmarshalWithOptions(issuers, &entries, yaml.Strict()); err != nil {
		return badYAML(path+": issuers", err)
	}
	reviews, err := yaml.Marshal(raw["token-reviews"])
	if err != nil {
		return fmt.Errorf("configuration file %s: token-reviews: %w", path, err)
	}
	if err := yaml.UnmarshalWithOptions(reviews, &c.TokenReviews, yaml.Strict()); err != nil {
		return badYAML(path+": token-reviews", err)
	}
	return c.addIssuers(path, entries)
}

// badYAML leaves out the lines of the file that the parser would quote: one of them may be a URL with a password.
func badYAML(where string, err error) error {
	line, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
	return fmt.Errorf("configuration file %s: %s", where, line)
}

func scalar(s Setting, v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		if s.Bool {
			return strconv.FormatBool(v), nil
		}
	case uint64:
		// YAML reads unquoted digits as a number, and as an octal one where a zero leads.
		if s.Name == "account" && (v == 0 || v >= 1e11) {
			return fmt.Sprintf("%012d", v), nil
		}
		if isBound(s.Name) {
			return strconv.FormatUint(v, 10), nil
		}
		if s.Name == "account" {
			return "", errors.New("is 12 digits, and must be in quotes where the first is 0")
		}
	case []any:
		if s.List {
			parts := make([]string, len(v))
			for i, p := range v {
				parts[i] = fmt.Sprint(p)
			}
			return strings.Join(parts, ","), nil
		}
	}
	return "", fmt.Errorf("has the wrong type")
}

func (c *Config) addIssuers(path string, entries []issuerEntry) error {
	for _, e := range entries {
		i := identity.Issuer{
			URL: e.Issuer, Audiences: e.Audiences, ClientIDs: e.ClientIDs, TokenUse: identity.TokenUse(e.TokenUse), Workloads: e.Workloads,
			Claims: e.Claims, SubjectClaim: e.SubjectClaim, JWKSURI: e.JWKSURI, UserInfo: e.UserInfo,
			PolicyClaims: e.PolicyClaims, BackchannelLogout: e.Backchannel, FromConfig: true,
		}
		if e.JWKSFile != "" {
			doc, err := os.ReadFile(e.JWKSFile)
			if err != nil {
				return fmt.Errorf("configuration file %s: jwks-file of issuer %s: %w", path, e.Issuer, err)
			}
			i.JWKS = doc
		}
		c.Issuers = append(c.Issuers, i)
	}
	return nil
}

// kubernetesVariable has the names of the variables that Kubernetes makes for services named tabard or
// tabard-something.
const kubernetesVariable = `^TABARD_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`

// fromKubernetes tells such a variable from a setting that does not exist: TABARD_PORT is a URL there.
func fromKubernetes(name, value string) bool {
	return regexp.MustCompile(kubernetesVariable).MatchString(name) && (!strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_SERVICE_") ||
		strings.Contains(name, "_PORT_") || strings.Contains(value, "://"))
}

// fromEnviron reads TABARD_ variables. One that is empty is as if it were not there.
func fromEnviron(environ []string, values map[string]string, c *Config) error {
	vars := map[string]Setting{}
	for _, s := range Settings() {
		vars[s.Env()] = s
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "TABARD_") || fromKubernetes(name, value) || strings.HasPrefix(name, "TABARD_TEST_") || name == "TABARD_CONFIG" {
			continue
		}
		if s, ok := vars[name]; ok {
			if value == "" {
				continue
			}
			if s.EnvOnly && s.Name == "root-secret-access-key" || s.Name == "db" && hasPassword(value) {
				c.Warnings = append(c.Warnings, name+" holds a secret, which child processes and crash reports can see: a file named by "+name+"_FILE is safer")
			}
			values[s.Name] = value
			continue
		}
		s, ok := vars[strings.TrimSuffix(name, "_FILE")]
		if !ok || !s.File || !strings.HasSuffix(name, "_FILE") {
			return fmt.Errorf("unknown setting %s in the environment%s", name, nearest(strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "TABARD_"), "_", "-"))))
		}
		if value == "" {
			continue
		}
		if slices.ContainsFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, s.Env()+"=") && kv != s.Env()+"=" }) {
			return fmt.Errorf("%s and %s contradict each other: give one", s.Env(), name)
		}
		doc, err := os.ReadFile(value)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		values[s.Name] = strings.TrimSpace(string(doc))
	}
	return nil
}

// nearest suggests the setting whose name is closest, where one is close.
func nearest(name string) string {
	for _, s := range Settings() {
		if !s.EnvOnly && (strings.HasPrefix(s.Name, name) || strings.HasPrefix(name, s.Name) || strings.ReplaceAll(name, "_", "-") == s.Name) {
			return fmt.Sprintf(" (is it %q?)", s.Name)
		}
	}
	return ""
}

func (c *Config) apply(values map[string]string) error {
	text := map[string]*string{
		"addr": &c.Addr, "public-url": &c.PublicURL, "data-dir": &c.DataDir, "db": &c.DB, "key-file": &c.KeyFile, "region": &c.Region,
		"account": &c.Account, "tls-cert": &c.TLSCert, "tls-key": &c.TLSKey, "admin-addr": &c.AdminAddr, "vendors-file": &c.VendorsFile, "audit-sink-token-file": &c.AuditSinkTokenFile, "audit-sink-ca-file": &c.AuditSinkCAFile,
		"audit-checkpoint-file": &c.AuditCheckpointFile, "root-access-key-id": &c.RootAccessKeyID,
	}
	flags := map[string]*bool{"dev": &c.Dev, "behind-tls-proxy": &c.BehindTLSProxy}
	for name, value := range values {
		switch {
		case name == "root-secret-access-key":
			c.RootSecretAccessKey = secret.New(value)
		case name == "default-quota":
			for _, part := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				if err := c.addQuota(strings.TrimSpace(part)); err != nil {
					return err
				}
			}
		case text[name] != nil:
			*text[name] = value
		case flags[name] != nil:
			b, err := strconv.ParseBool(value)
			if err != nil {
				return fmt.Errorf("%s is true or false, not %q", name, value)
			}
			*flags[name] = b
		case isBound(name):
			if err := c.setBound(name, value); err != nil {
				return err
			}
		case name == "audit-sink":
			c.AuditSinks = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
		case name == "trusted-proxy", name == "allow-network":
			if err := c.setNetworks(name, value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown setting %q%s", name, nearest(name))
		}
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	return nil
}

// setNetworks reads a list of networks. Those that providers may be in are one account's each.
func (c *Config) setNetworks(name, value string) error {
	for _, part := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' }) {
		number, network, named := strings.Cut(part, "=")
		account := access.Account(number)
		switch {
		case !named:
			network, account = part, ""
		case name == "allow-network" && !account.Valid():
			return fmt.Errorf("%s: %q is not a network such as 10.1.0.0/16, with 111122223333= in front if it is another account's", name, part)
		}
		p, err := netip.ParsePrefix(network)
		switch {
		case err != nil || named && name != "allow-network":
			return fmt.Errorf("%s: %q is not a network such as 10.1.0.0/16", name, part)
		case p.Bits() == 0 && name == "trusted-proxy": // then nobody's address is known, and nothing is bounded by it
			return fmt.Errorf("%s: %q is every address, so that any client would be believed: name the network that the proxies are in", name, part)
		case name == "trusted-proxy":
			c.TrustedProxies = append(c.TrustedProxies, p.Masked())
		default:
			if c.AllowNetworks == nil {
				c.AllowNetworks = map[access.Account][]netip.Prefix{}
			}
			c.AllowNetworks[account] = append(c.AllowNetworks[account], p.Masked())
		}
	}
	return nil
}
