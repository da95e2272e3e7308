package daemon_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// file writes a file of the test's own and returns its path.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load loads settings that must be fine.
func load(t *testing.T, src daemon.Sources) daemon.Config {
	t.Helper()
	c, err := daemon.Load(src)
	if err != nil {
		t.Fatalf("Load(%+v): %v", src, err)
	}
	return c
}

// refusedBy fails unless the settings are refused with an error that has all the words and none of secrets'.
func refusedBy(t *testing.T, src daemon.Sources, words ...string) {
	t.Helper()
	_, err := daemon.Load(src)
	if err == nil {
		t.Errorf("Load(%+v) succeeded, want an error with %q", src, words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Load(%+v): %q does not say %q", src, err, w)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Load(%+v): %q holds the secret", src, err)
	}
}

func TestLoadWithNothingConfigured(t *testing.T) {
	c := load(t, daemon.Sources{Environ: []string{"PATH=/bin", "HOME=/root", "AWS_REGION=eu-west-1"}})
	if c.Addr != "" || c.DataDir != "" || c.Region != "" || c.Dev || len(c.Warnings) > 0 {
		t.Errorf("Load of nothing = %+v, want the zero Config, whose defaults New knows", c)
	}
}

func TestEachSettingIsFlagKeyAndVariable(t *testing.T) {
	values := map[string]string{
		"addr": "127.0.0.1:9999", "public-url": "https://tabard.example.com", "data-dir": "/d", "db": "postgres://u@h/d", "key-file": "/k",
		"region": "eu-west-1", "account": "123456789012", "dev": "true", "tls-cert": "/c", "tls-key": "/t", "behind-tls-proxy": "true",
		"trusted-proxy": "10.0.0.0/8,192.168.1.0/24", "admin-addr": "127.0.0.1:9998", "allow-network": "10.1.0.0/16", "vendors-file": "/v",
		"default-quota": "workload-identities=5,requests-per-second=9", "audit-sink": "file:/a", "audit-sink-token-file": "/b", "audit-sink-ca-file": "/e", "audit-checkpoint-file": "/f", "audit-keep-days": "7",
		"users-per-hour": "50", "releases-per-minute": "600", "delegation-days": "30", "user-token-hours": "8",
		"max-connections": "100", "max-connections-per-address": "10", "body-memory": "32",
	}
	companions := map[string]string{"tls-cert": "tls-key", "tls-key": "tls-cert", "behind-tls-proxy": "public-url"}
	inFile := map[string]string{"dev": "true", "behind-tls-proxy": "true", "trusted-proxy": "[10.0.0.0/8, 192.168.1.0/24]", "allow-network": "[10.1.0.0/16]"}
	for _, s := range daemon.Settings() {
		if s.EnvOnly {
			continue
		}
		value, ok := values[s.Name]
		if !ok {
			t.Errorf("the setting %s has no value in this test", s.Name)
			continue
		}
		given := map[string]string{s.Name: value}
		if other := companions[s.Name]; other != "" {
			given[other] = values[other]
		}
		var environ []string
		var yaml strings.Builder
		for name, v := range given {
			environ = append(environ, "TABARD_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+v)
			if text, ok := inFile[name]; ok {
				fmt.Fprintf(&yaml, "%s: %s\n", name, text)
			} else {
				fmt.Fprintf(&yaml, "%s: %q\n", name, v)
			}
		}
		flag := load(t, daemon.Sources{Flags: given})
		same := cmp.Comparer(func(a, b secret.Text) bool { return a.Equal(b) })
		prefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
		if diff := cmp.Diff(daemon.Config{}, flag, same, prefixes); diff == "" {
			t.Errorf("--%s changes nothing", s.Name)
		}
		if diff := cmp.Diff(flag, load(t, daemon.Sources{Environ: environ}), same, prefixes); diff != "" {
			t.Errorf("%s as flag (-) and as variable (+):\n%s", s.Name, diff)
		}
		if diff := cmp.Diff(flag, load(t, daemon.Sources{File: file(t, yaml.String())}), same, prefixes); diff != "" {
			t.Errorf("%s as flag (-) and in the file (+):\n%s", s.Name, diff)
		}
	}
}

func TestBounds(t *testing.T) {
	for text, want := range map[string]daemon.Bounds{
		"users-per-hour: 0":        {UsersPerHour: -1},
		"users-per-hour: 7":        {UsersPerHour: 7},
		"releases-per-minute: 600": {ReleasesPerMinute: 600},
		"delegation-days: 3":       {DelegationDays: 3},
		"user-token-hours: 8":      {UserTokenHours: 8},
	} {
		if c := load(t, daemon.Sources{File: file(t, text)}); c.Bounds != want {
			t.Errorf("%s: got %+v, want %+v", text, c.Bounds, want)
		}
	}
	for name, value := range map[string]string{"users-per-hour": "-1", "releases-per-minute": "many", "delegation-days": "0", "user-token-hours": "25"} {
		refusedBy(t, daemon.Sources{Flags: map[string]string{name: value}}, name, "number")
	}
}

func TestFlagOverEnvironmentOverFile(t *testing.T) {
	src := daemon.Sources{File: file(t, "region: ap-south-1\n")}
	for _, want := range []string{"ap-south-1", "eu-west-1", "us-west-2"} {
		if got := load(t, src).Region; got != want {
			t.Errorf("Region = %q, want %q, from %+v", got, want, src)
		}
		if src.Environ == nil {
			src.Environ = []string{"TABARD_REGION=eu-west-1"}
		} else {
			src.Flags = map[string]string{"region": "us-west-2"}
		}
	}
	// What is false in a stronger source wins too.
	if c := load(t, daemon.Sources{File: file(t, "dev: true"), Environ: []string{"TABARD_DEV=false"}}); c.Dev {
		t.Error("TABARD_DEV=false lost to dev: true in the file")
	}
	// An empty variable is as if it were not there: compose files make such.
	c := load(t, daemon.Sources{File: file(t, "dev: true\nregion: ap-south-1"), Environ: []string{"TABARD_DEV=", "TABARD_REGION=", "TABARD_DB_FILE="}})
	if !c.Dev || c.Region != "ap-south-1" {
		t.Errorf("empty variables changed the file's settings: dev %v, region %q", c.Dev, c.Region)
	}
}

func TestUnknownSettingsAreNamed(t *testing.T) {
	refusedBy(t, daemon.Sources{File: file(t, "data_dir: /x")}, `"data_dir"`, `is it "data-dir"`)
	refusedBy(t, daemon.Sources{File: file(t, "frobnicate: 1")}, `"frobnicate"`)
	refusedBy(t, daemon.Sources{File: file(t, "root-secret-access-key: hunter2")}, `"root-secret-access-key"`)
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_FROBNICATE=hunter2"}}, "TABARD_FROBNICATE")
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_DATA=/x"}}, "TABARD_DATA", `is it "data-dir"`)
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_REGION_FILE=/x"}}, "TABARD_REGION_FILE") // no secret: no file
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_PORT=8180"}}, "TABARD_PORT")             // meant as a setting
	refusedBy(t, daemon.Sources{Flags: map[string]string{"frobnicate": "1"}}, `"frobnicate"`)
	refusedBy(t, daemon.Sources{File: file(t, "issuers:\n  - issuer: https://a.example\n    audience: [x]\n")}, "issuers", "audience")
}

func TestKubernetesVariablesAreNotSettings(t *testing.T) {
	load(t, daemon.Sources{Environ: []string{
		"TABARD_SERVICE_HOST=10.0.0.1", "TABARD_SERVICE_PORT=8180", "TABARD_SERVICE_PORT_HTTP=8180", "TABARD_PORT=tcp://10.0.0.1:8180",
		"TABARD_PORT_8180_TCP=tcp://10.0.0.1:8180", "TABARD_PORT_8180_TCP_PROTO=tcp", "TABARD_PORT_8180_TCP_PORT=8180", "TABARD_PORT_8180_TCP_ADDR=10.0.0.1",
		"TABARD_POSTGRES_SERVICE_HOST=10.0.0.2", "TABARD_POSTGRES_SERVICE_PORT=5432", "TABARD_POSTGRES_PORT=tcp://10.0.0.2:5432", // a service tabard-postgres
		"TABARD_POSTGRES_PORT_5432_TCP=tcp://10.0.0.2:5432",
		"TABARD_CONFIG=tabard.yaml",
	}})
}

func TestWrongValuesAreRefused(t *testing.T) {
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_DEV=perhaps"}}, "dev", "perhaps")
	refusedBy(t, daemon.Sources{File: file(t, "dev: [true]")}, "dev", "wrong type")
	refusedBy(t, daemon.Sources{File: file(t, "addr: 8180")}, "addr", "wrong type")
	refusedBy(t, daemon.Sources{Flags: map[string]string{"trusted-proxy": "10.0.0.0/8,::/0"}}, "trusted-proxy", `"::/0" is every address`)
	refusedBy(t, daemon.Sources{Flags: map[string]string{"trusted-proxy": "10.0.0.1"}}, "trusted-proxy", `"10.0.0.1" is not a network`)
	refusedBy(t, daemon.Sources{File: file(t, "addr: a\naddr: b")}, "addr", "already")
	refusedBy(t, daemon.Sources{File: filepath.Join(t.TempDir(), "none")}, "configuration file")
	// The parser would quote the lines around a mistake; one of them may hold a password.
	refusedBy(t, daemon.Sources{File: file(t, "db: postgres://u:hunter2@h/d\nregion: [\n")}, "configuration file")
	refusedBy(t, daemon.Sources{File: file(t, "db: postgres://u:hunter2@h/d\ndb: sqlite\n")}, "configuration file")
}

func TestAccountInTheFileNeedsQuotesWhereAZeroLeads(t *testing.T) {
	for yaml, want := range map[string]string{
		"account: 123456789012": "123456789012", `account: "012345670123"`: "012345670123", "account: 000000000000": "000000000000", "account: 000000000018": "000000000018",
	} {
		if got := load(t, daemon.Sources{File: file(t, yaml)}).Account; got != want {
			t.Errorf("%s: Account = %q, want %q", yaml, got, want)
		}
	}
	refusedBy(t, daemon.Sources{File: file(t, "account: 012345670123")}, "account", "quotes") // octal in YAML
}

func TestL07_PasswordInTheDatabaseURL(t *testing.T) {
	for _, db := range []string{
		"postgres://u:hunter2@h/d", "postgresql://u:hunter2@h/d", "postgres://h/d?user=u&password=hunter2", "postgres://h/d?sslpassword=hunter2",
		"postgres://u:hunter2@h:port/d", // cannot be parsed
	} {
		refusedBy(t, daemon.Sources{Flags: map[string]string{"db": db}}, "--db holds a password", "PGPASSFILE", "TABARD_DB_FILE")
		for what, src := range map[string]daemon.Sources{
			"TABARD_DB":              {Environ: []string{"TABARD_DB=" + db}},
			"the configuration file": {File: file(t, fmt.Sprintf("db: %q", db))},
		} {
			c := load(t, src)
			if c.DB != db || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], what) || !strings.Contains(c.Warnings[0], "TABARD_DB_FILE") {
				t.Errorf("password in %s: warnings %q, want one that names it and TABARD_DB_FILE", what, c.Warnings)
			}
			if strings.Contains(strings.Join(c.Warnings, ""), "hunter2") {
				t.Errorf("password in %s: the warning repeats it", what)
			}
		}
		if c := load(t, daemon.Sources{Environ: []string{"TABARD_DB_FILE=" + file(t, db+"\n")}}); c.DB != db || len(c.Warnings) > 0 {
			t.Errorf("TABARD_DB_FILE: DB is right: %v, warnings %q; want the URL of the file and none", c.DB == db, c.Warnings)
		}
	}
	for _, db := range []string{"sqlite", "postgres://u@h/d", "postgres:///d?host=/run/postgresql"} {
		if c := load(t, daemon.Sources{Flags: map[string]string{"db": db}}); c.DB != db || len(c.Warnings) > 0 {
			t.Errorf("--db %s: DB = %q, warnings %q", db, c.DB, c.Warnings)
		}
	}
}

func TestL07_RootKeyFromVariableOrFile(t *testing.T) {
	const id, key = "TABARDROOTKEY0123456", "hunter2"
	keyFile := file(t, "  "+key+"\n")
	c := load(t, daemon.Sources{Environ: []string{"TABARD_ROOT_ACCESS_KEY_ID=" + id, "TABARD_ROOT_SECRET_ACCESS_KEY_FILE=" + keyFile}})
	if c.RootAccessKeyID != id || c.RootSecretAccessKey.Expose() != key || len(c.Warnings) > 0 {
		t.Errorf("from a file: id %q, secret right: %v, warnings %q", c.RootAccessKeyID, c.RootSecretAccessKey.Expose() == key, c.Warnings)
	}
	c = load(t, daemon.Sources{Environ: []string{"TABARD_ROOT_ACCESS_KEY_ID=" + id, "TABARD_ROOT_SECRET_ACCESS_KEY=" + key}})
	if c.RootSecretAccessKey.Expose() != key || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "TABARD_ROOT_SECRET_ACCESS_KEY_FILE is safer") {
		t.Errorf("from a variable: secret right: %v, warnings %q; want one", c.RootSecretAccessKey.Expose() == key, c.Warnings)
	}
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, key) {
		t.Error("a printed Config holds the secret")
	}
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_ROOT_SECRET_ACCESS_KEY=" + key}}, "go together")
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_ROOT_ACCESS_KEY_ID=" + id}}, "go together")
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_ROOT_ACCESS_KEY_ID=" + id, "TABARD_ROOT_SECRET_ACCESS_KEY=" + key, "TABARD_ROOT_SECRET_ACCESS_KEY_FILE=" + keyFile}},
		"TABARD_ROOT_SECRET_ACCESS_KEY and TABARD_ROOT_SECRET_ACCESS_KEY_FILE contradict each other")
	refusedBy(t, daemon.Sources{Environ: []string{"TABARD_ROOT_SECRET_ACCESS_KEY_FILE=/does/not/exist"}}, "TABARD_ROOT_SECRET_ACCESS_KEY_FILE", "no such file")
	refusedBy(t, daemon.Sources{Flags: map[string]string{"root-secret-access-key": key}, Environ: []string{"TABARD_ROOT_ACCESS_KEY_ID=" + id}}, "root-secret-access-key")
}

func TestIssuersOfTheFile(t *testing.T) {
	keys := file(t, `{"keys":[]}`)
	c := load(t, daemon.Sources{File: file(t, `
issuers:
  - issuer: https://login.example.com
    audiences: [my-app, other]
    client-ids: [web]
    token-use: access
    workloads: ["calendar-*"]
    claims: {email_verified: "true"}
    subject-claim: oid
    jwks-uri: https://login.example.com/keys
    userinfo: true
    backchannel-logout: true
    policy-claims: [groups, hd]
  - issuer: https://idp.example.com
    audiences: [my-app]
    jwks-file: `+keys+"\n")})
	want := []identity.Issuer{
		{
			URL: "https://login.example.com", Audiences: []string{"my-app", "other"}, ClientIDs: []string{"web"}, TokenUse: identity.UseAccess,
			Workloads: []string{"calendar-*"}, Claims: map[string]string{"email_verified": "true"}, SubjectClaim: "oid",
			JWKSURI: "https://login.example.com/keys", UserInfo: true, PolicyClaims: []string{"groups", "hd"}, BackchannelLogout: true, FromConfig: true,
		},
		{URL: "https://idp.example.com", Audiences: []string{"my-app"}, JWKS: []byte(`{"keys":[]}`), FromConfig: true},
	}
	if diff := cmp.Diff(want, c.Issuers); diff != "" {
		t.Errorf("Issuers (-want +got):\n%s", diff)
	}
	refusedBy(t, daemon.Sources{File: file(t, "issuers:\n  - issuer: https://a.example\n    jwks-file: /does/not/exist\n")}, "jwks-file", "https://a.example")
	refusedBy(t, daemon.Sources{File: file(t, "issuers: https://a.example\n")}, "issuers")
}
