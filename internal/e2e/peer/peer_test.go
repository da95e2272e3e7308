package peer_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/jackc/pgx/v5"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

const callback = "http://127.0.0.1:1/callback" // nothing listens there: the scripted browser stops before it

func newProvider(t *testing.T, cfg peer.OIDCConfig) *peer.OIDC {
	t.Helper()
	cfg.Clients = []peer.Client{
		{ID: "tabard", Secret: "a secret of the tests", RedirectURIs: []string{callback}},
		{ID: "app", Secret: "another one", RedirectURIs: []string{"http://127.0.0.1:1/login"}},
	}
	return peer.OIDCProvider(t, cfg)
}

func config(o *peer.OIDC, scopes ...string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: "tabard", ClientSecret: "a secret of the tests", RedirectURL: callback,
		Endpoint: oauth2.Endpoint{AuthURL: o.Issuer + "/auth", TokenURL: o.Issuer + "/token"},
		Scopes:   scopes,
	}
}

func TestPostgres_FreshDatabases(t *testing.T) {
	one := peer.Postgres(t)
	runtime.GC() // must not close the pipe that keeps the server alive; finalizers run between two collections
	runtime.GC()
	two := peer.Postgres(t)
	if one == two {
		t.Fatalf("both calls gave %s", one)
	}
	for _, u := range []string{one, two} {
		conn, err := pgx.Connect(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		var answer int
		var super bool
		var fsync string
		if err := conn.QueryRow(t.Context(), "SELECT 1").Scan(&answer); err != nil || answer != 1 {
			t.Fatalf("SELECT 1: got %d, %v", answer, err)
		}
		if err := conn.QueryRow(t.Context(), "SELECT rolsuper, current_setting('fsync') FROM pg_roles WHERE rolname = current_user").
			Scan(&super, &fsync); err != nil || super || fsync != "on" {
			t.Errorf("superuser %v, fsync %s, %v; want an ordinary role and fsync on", super, fsync, err)
		}
		// The same table in both: they are two databases.
		if _, err := conn.Exec(t.Context(), "CREATE TABLE t (id BIGINT PRIMARY KEY)"); err != nil {
			t.Error(err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// The server must go with the process that started it, also when that is killed and runs no clean-up of its own.
func TestPostgres_EndsWithTheTestProcess(t *testing.T) {
	peer.Postgres(t) // skips where there is none
	cmd := exec.Command(os.Args[0], "-test.run=^TestPostgres_Child$", "-test.v")
	cmd.Env = append(os.Environ(), childMark+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	buf, said := make([]byte, 4096), ""
	for !strings.Contains(said, "\nend\n") {
		n, err := stdout.Read(buf)
		said += string(buf[:n])
		if err != nil {
			t.Fatalf("the child said %q: %v", said, err)
		}
	}
	_, rest, _ := strings.Cut(said, "url ")
	address, _, _ := strings.Cut(rest, "\n")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		conn, err := pgx.Connect(t.Context(), address)
		if err != nil && strings.Contains(err.Error(), "connection refused") {
			return
		}
		if err == nil {
			_ = conn.Close(t.Context())
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child's PostgreSQL still answers: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

const childMark = "TABARD_TEST_CHILD"

func TestPostgres_Child(t *testing.T) {
	if os.Getenv(childMark) == "" {
		return // only TestPostgres_EndsWithTheTestProcess needs it
	}
	_, err := os.Stdout.WriteString("url " + peer.Postgres(t) + "\nend\n")
	if err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done() // until killed
}

func TestOIDC_CodeFlowRotationAndReuse(t *testing.T) {
	o := newProvider(t, peer.OIDCConfig{})
	provider, err := oidc.NewProvider(t.Context(), o.Issuer)
	if err != nil {
		t.Fatalf("discovery: %v", err)
	}
	conf := config(o, "openid", "offline_access", "calendar.read")

	// 1. The code flow: login, consent, code, tokens.
	verifier := oauth2.GenerateVerifier()
	start := conf.AuthCodeURL("s1", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("prompt", "consent"))
	end := peer.NewBrowser("alice").Walk(t, start, callback)
	if q := end.URL.Query(); q.Get("iss") != o.Issuer || q.Get("state") != "s1" {
		t.Fatalf("callback got %s", end.URL)
	}
	token, err := conf.Exchange(t.Context(), end.URL.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	id, err := provider.Verifier(&oidc.Config{ClientID: "tabard"}).Verify(t.Context(), token.Extra("id_token").(string))
	if err != nil || id.Subject != "alice" {
		t.Fatalf("id token: %v, %v", id, err)
	}
	if user, err := provider.UserInfo(t.Context(), oauth2.StaticTokenSource(token)); err != nil || user.Subject != "alice" {
		t.Fatalf("userinfo: %v, %v", user, err)
	}

	// 2. Rotation: a refresh gives another refresh token.
	fresh, err := refresh(t, conf, token.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if fresh.RefreshToken == "" || fresh.RefreshToken == token.RefreshToken {
		t.Fatal("the refresh token did not rotate")
	}

	// 3. Reuse of the old one is refused and takes the new one with it.
	if _, err := refresh(t, conf, token.RefreshToken); !isOAuthError(err, "invalid_grant") {
		t.Fatalf("reuse: got %v, want invalid_grant", err)
	}
	if _, err := refresh(t, conf, fresh.RefreshToken); !isOAuthError(err, "invalid_grant") {
		t.Fatalf("after reuse: got %v, want invalid_grant", err)
	}

	// 4. The journal has it all, and no token.
	if ok, bad := o.Count(t, "refresh_token", "ok"), o.Count(t, "refresh_token", "invalid_grant"); ok != 1 || bad != 2 {
		t.Errorf("journal counts %d refreshes and %d refusals, want 1 and 2", ok, bad)
	}
	for _, e := range o.Journal(t) {
		if e.GrantType == "authorization_code" && (e.Result != "ok" || !e.PKCE || e.RefreshToken != fingerprint(token.RefreshToken)) {
			t.Errorf("journal of the redemption: %+v", e)
		}
	}
}

func refresh(t *testing.T, conf *oauth2.Config, token string) (*oauth2.Token, error) {
	return conf.TokenSource(t.Context(), &oauth2.Token{RefreshToken: token}).Token()
}

func isOAuthError(err error, code string) bool {
	e, ok := errors.AsType[*oauth2.RetrieveError](err)
	return ok && e.ErrorCode == code
}

func fingerprint(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

func TestOIDC_UsersIdP(t *testing.T) {
	const api = "https://api.example.test/"
	o := newProvider(t, peer.OIDCConfig{DefaultResource: map[string]string{"app": api}, AccessTokenTTL: 5 * time.Minute})
	provider, err := oidc.NewProvider(t.Context(), o.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	tokens := o.Login(t, "app", "bob", "email", "calendar.read")
	if _, err := provider.Verifier(&oidc.Config{ClientID: "app"}).Verify(t.Context(), tokens.ID); err != nil {
		t.Errorf("id token: %v", err)
	}
	access, err := provider.Verifier(&oidc.Config{ClientID: api}).Verify(t.Context(), tokens.Access)
	if err != nil || access.Subject != "bob" {
		t.Fatalf("access token: %v, %v", access, err)
	}
	if left := time.Until(access.Expiry); left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("access token lives %s, want 5 minutes", left)
	}
	if tokens.Refresh != "" {
		t.Error("a refresh token without offline_access")
	}
}

func TestOIDC_UserSaysNo(t *testing.T) {
	o := newProvider(t, peer.OIDCConfig{})
	conf := config(o, "openid", "calendar.read", "calendar.write")
	start := func(verifier string) string { return conf.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)) }

	no := peer.NewBrowser("alice")
	no.Deny = true
	if q := no.Walk(t, start(oauth2.GenerateVerifier()), callback).URL.Query(); q.Get("error") != "access_denied" {
		t.Errorf("denied consent: got %v", q)
	}

	some := peer.NewBrowser("alice")
	some.Reject = []string{"calendar.write"}
	verifier := oauth2.GenerateVerifier()
	code := some.Walk(t, start(verifier), callback).URL.Query().Get("code")
	token, err := conf.Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if got := token.Extra("scope"); got != "openid calendar.read" {
		t.Errorf("granted %q, want openid calendar.read", got)
	}
	if page := peer.NewBrowser("mallory").Walk(t, start(verifier), callback); page.Status != http.StatusBadRequest {
		t.Errorf("an unknown user got %d at %s", page.Status, page.URL.Path)
	}
	plain := conf.AuthCodeURL("s")
	if q := peer.NewBrowser("alice").Walk(t, plain, callback).URL.Query(); q.Get("error") != "invalid_request" {
		t.Errorf("without PKCE: got %v", q)
	}
}

func TestOIDC_MachineClientsAndKnobs(t *testing.T) {
	o := newProvider(t, peer.OIDCConfig{AlwaysRefresh: true})
	o.Register(t, peer.Client{ID: "robot", Secret: "s3", AuthMethod: "client_secret_post"})
	m2m := clientcredentials.Config{
		ClientID: "robot", ClientSecret: "s3", TokenURL: o.Issuer + "/token", Scopes: []string{"calendar.read"},
		AuthStyle: oauth2.AuthStyleInParams,
	}
	if token, err := m2m.Token(t.Context()); err != nil || token.Extra("scope") != "calendar.read" {
		t.Fatalf("client credentials: %v, %v", token, err)
	}
	m2m.EndpointParams = url.Values{"resource": {"https://calendar.example.test/"}}
	if token, err := m2m.Token(t.Context()); err != nil || strings.Count(token.AccessToken, ".") != 2 {
		t.Fatalf("client credentials for a resource: %v, want a JWT", err)
	}

	o.FailTokens(t, 1, http.StatusServiceUnavailable)
	if _, err := m2m.Token(t.Context()); err == nil {
		t.Error("the outage did not happen")
	}
	if _, err := m2m.Token(t.Context()); err != nil {
		t.Errorf("after the outage: %v", err)
	}

	refreshToken := o.Login(t, "tabard", "alice", "calendar.read").Refresh
	if refreshToken == "" {
		t.Fatal("AlwaysRefresh gave no refresh token")
	}
	if n := o.EndGrants(t, "alice"); n != 1 {
		t.Errorf("ended %d grants, want 1", n)
	}
	if _, err := refresh(t, config(o), refreshToken); !isOAuthError(err, "invalid_grant") {
		t.Errorf("refresh after the grant ended: got %v, want invalid_grant", err)
	}
	o.Stop()
	if _, err := m2m.Token(t.Context()); err == nil {
		t.Error("a stopped provider answered")
	}
}

func TestPython_HasTheOfficialClients(t *testing.T) {
	out, err := exec.Command(peer.Python(t), "-c",
		"import boto3, bedrock_agentcore.identity as i; boto3.client; i.requires_access_token").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestChromium_Runs(t *testing.T) {
	out, err := exec.Command(peer.Chromium(t), "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Chrom") {
		t.Fatalf("chromium --version: %v\n%s", err, out)
	}
}
