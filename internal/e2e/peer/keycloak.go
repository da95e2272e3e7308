package peer

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"html"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// keycloakPatience bounds Keycloak's start, which takes 7 s on two idle cores.
const keycloakPatience = 2 * time.Minute

// KeycloakUser is somebody who can log in at Keycloak.
type KeycloakUser struct {
	ID       string // the subject
	Name     string // what he types in
	Email    string
	Password string
}

// KeycloakIdP is a running Keycloak with the realm of test/keycloak/realm.json. Access tokens of its client web-app
// have no audience, those of its client assistant are for the client tabard, which may exchange them.
type KeycloakIdP struct {
	Issuer string // http://127.0.0.1:PORT/realms/corp
	Users  map[string]KeycloakUser

	clients map[string]Client
}

// keycloakRealm is what the tests need of the realm's file.
type keycloakRealm struct {
	Realm   string
	Clients []struct {
		ClientID     string
		Secret       string
		RedirectURIs []string
	}
	Users []struct {
		ID          string
		Username    string
		Email       string
		Credentials []struct{ Value string }
	}
}

// keycloakWatch runs its arguments, and ends them when its standard input closes, that is when the test process ends
// for whatever reason: Keycloak itself does not read it.
const keycloakWatch = `
exec 3<&0
"$@" </dev/null &
server=$!
{ read -r _; kill "$server"; } <&3 &
watch=$!
wait "$server"
kill "$watch" 2>/dev/null
`

// listening is Keycloak's own line about where it is.
var listening = regexp.MustCompile(`Listening on: (http://127\.0\.0\.1:[0-9]+)`)

// Keycloak starts Keycloak on a random port of 127.0.0.1, on a copy of the database that scripts/provision.sh made. It
// ends with the test.
func Keycloak(t testing.TB) *KeycloakIdP {
	t.Helper()
	first(t, "Java (for Keycloak)", inPath("java"))
	dir := filepath.Join(Root(t), "test", "keycloak")
	file, err := os.ReadFile(filepath.Join(dir, "realm.json"))
	if err != nil {
		t.Fatal(err)
	}
	if made, err := os.ReadFile(filepath.Join(dir, "dist", "realm.json")); err != nil || !bytes.Equal(made, file) {
		missing(t, "Keycloak with the realm of test/keycloak/realm.json (test/keycloak/dist)")
	}
	var realm keycloakRealm
	if err := json.Unmarshal(file, &realm); err != nil {
		t.Fatalf("test/keycloak/realm.json: %v", err)
	}
	k := &KeycloakIdP{Users: map[string]KeycloakUser{}, clients: map[string]Client{}}
	for _, c := range realm.Clients {
		k.clients[c.ClientID] = Client{ID: c.ClientID, Secret: c.Secret, RedirectURIs: c.RedirectURIs}
	}
	for _, u := range realm.Users {
		k.Users[u.Username] = KeycloakUser{ID: u.ID, Name: u.Username, Email: u.Email, Password: u.Credentials[0].Value}
	}
	k.Issuer = startKeycloak(t, filepath.Join(dir, "dist")) + "/realms/" + realm.Realm
	return k
}

// keycloakHome makes a home of its own for a server: the program by links, the database as a copy.
func keycloakHome(t testing.TB, dist string) string {
	t.Helper()
	home := t.TempDir()
	for _, name := range []string{"lib", "conf", "providers", "themes"} {
		if err := os.Symlink(filepath.Join(dist, name), filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	database := filepath.Join("data", "h2", "keycloakdb.mv.db")
	made, err := os.ReadFile(filepath.Join(dist, database))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(home, "data", "h2"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, database), made, 0o600); err != nil {
		t.Fatal(err)
	}
	return home
}

// startKeycloak returns the server's base address.
func startKeycloak(t testing.TB, dist string) string {
	t.Helper()
	home := keycloakHome(t, dist)
	cmd := exec.Command("/bin/sh", "-c", keycloakWatch, "sh", filepath.Join(dist, "bin", "kc.sh"), "-Dkc.home.dir="+home,
		"start", "--optimized", "--cache=local", "--http-enabled=true", "--http-host=127.0.0.1", "--http-port=0", "--hostname-strict=false")
	// The small compiler and collector halve the time to start.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "JAVA_HOME=" + os.Getenv("JAVA_HOME"),
		"JAVA_OPTS=-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"}
	// A group of its own: what is left of it can be killed without a look for process ids.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Keycloak: %v", err)
	}
	var output bytes.Buffer // the goroutine's, until ended is closed
	address, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		followKeycloak(stdout, &output, address)
	}()
	stop := sync.OnceFunc(func() {
		_ = stdin.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		<-ended
		_ = cmd.Wait() // a server that was told to end has ended with an error
		kill.Stop()
		if t.Failed() {
			t.Logf("Keycloak's log:\n%s", &output)
		}
	})
	t.Cleanup(stop)
	select {
	case a := <-address:
		return a
	case <-ended:
		t.Fatal("Keycloak ended at its start")
	case <-time.After(keycloakPatience):
		t.Fatalf("Keycloak did not start within %s", keycloakPatience)
	}
	return ""
}

// followKeycloak keeps what Keycloak says until it ends, and sends its address, which it says once.
func followKeycloak(said io.Reader, output *bytes.Buffer, address chan<- string) {
	for lines := bufio.NewReader(said); ; {
		line, err := lines.ReadString('\n')
		output.WriteString(line)
		if m := listening.FindStringSubmatch(line); m != nil {
			address <- m[1]
		}
		if err != nil {
			return
		}
	}
}

// DiscoveryURL is the address of the realm's metadata.
func (k *KeycloakIdP) DiscoveryURL() string { return k.Issuer + "/.well-known/openid-configuration" }

// keycloakForm finds the form of the login page.
var keycloakForm = regexp.MustCompile(`<form id="kc-form-login"[^>]* action="([^"]+)"`)

// Walk opens address, which leads to Keycloak's login page, signs user in there and goes on to stopAt.
func (k *KeycloakIdP) Walk(t testing.TB, user, address, stopAt string) Page {
	t.Helper()
	browser := NewBrowser(user)
	page := browser.Walk(t, address, stopAt)
	form := keycloakForm.FindStringSubmatch(page.Body)
	if form == nil {
		t.Fatalf("no login page of Keycloak, but %s %d\n%s", page.URL.Path, page.Status, page.Body)
	}
	fields := url.Values{"username": {user}, "password": {k.Users[user].Password}}
	return browser.Submit(t, html.UnescapeString(form[1]), fields, stopAt)
}

// Login signs user in at a client, by Keycloak's own login page, and returns his tokens.
func (k *KeycloakIdP) Login(t testing.TB, client, user string) Tokens {
	t.Helper()
	c := k.clients[client]
	conf := &oauth2.Config{
		ClientID: c.ID, ClientSecret: c.Secret, RedirectURL: c.RedirectURIs[0], Scopes: []string{"openid", "email"},
		Endpoint: oauth2.Endpoint{AuthURL: k.Issuer + "/protocol/openid-connect/auth", TokenURL: k.Issuer + "/protocol/openid-connect/token"},
	}
	verifier, state := oauth2.GenerateVerifier(), rand.Text()
	end := k.Walk(t, user, conf.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)), conf.RedirectURL)
	query := end.URL.Query()
	if query.Get("state") != state || query.Get("iss") != k.Issuer || query.Get("code") == "" {
		t.Fatalf("login of %s at Keycloak ended at %s %d %s", user, end.URL.Path, end.Status, query.Get("error_description"))
	}
	token, err := conf.Exchange(t.Context(), query.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatalf("login of %s at Keycloak: %v", user, err)
	}
	id, _ := token.Extra("id_token").(string)
	return Tokens{ID: id, Access: token.AccessToken, Refresh: token.RefreshToken}
}
