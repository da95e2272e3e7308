package peer

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/oauth2"
)

// DexUser is somebody who can log in at Dex.
type DexUser struct {
	ID       string `json:"id"` // Dex makes the subject of it
	Name     string `json:"name"`
	Email    string `json:"email"`
	Password string `json:"password"`
}

// DexIdP is a running Dex. Its access tokens are JWTs and differ from its ID tokens only by at_hash.
type DexIdP struct {
	Issuer string // http://127.0.0.1:PORT/dex

	client Client
}

// Dex builds Dex from the module test/dex and starts it on a random port of 127.0.0.1, with one client, which needs a
// redirect URI. It ends with the test.
func Dex(t testing.TB, client Client, users ...DexUser) *DexIdP {
	t.Helper()
	cmd := exec.Command(buildDex(t))
	cmd.Env = []string{"HOME=" + t.TempDir()}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Dex: %v", err)
	}
	stop := stopper(t, cmd, stdin, &stderr)
	t.Cleanup(stop)
	err = json.NewEncoder(stdin).Encode(map[string]any{
		"clients": []map[string]any{{"id": client.ID, "secret": client.Secret, "redirectUris": client.RedirectURIs}},
		"users":   users,
	})
	if err != nil {
		t.Fatalf("configure Dex: %v", err)
	}
	d := &DexIdP{client: client}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, d)
	}
	if err != nil || d.Issuer == "" {
		stop()
		t.Fatalf("Dex did not start: it said %q: %v\n%s", line, err, &stderr)
	}
	return d
}

// buildDex returns the program. Only modules that cannot be had skip the test; code that does not compile fails it.
func buildDex(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(Root(t), "test", "dex")
	program := filepath.Join(t.TempDir(), "dex")
	goTool := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0")
		return cmd.CombinedOutput()
	}
	if out, err := goTool("list", "-deps", "."); err != nil {
		t.Logf("go list in test/dex: %v\n%s", err, out)
		missing(t, "the Go modules of Dex (test/dex)")
	}
	if out, err := goTool("build", "-o", program, "."); err != nil {
		t.Fatalf("build Dex: %v\n%s", err, out)
	}
	return program
}

// Login signs a user in by Dex's own login page, a scripted browser filling it in, and returns his tokens.
func (d *DexIdP) Login(t testing.TB, user DexUser) Tokens {
	t.Helper()
	conf := &oauth2.Config{
		ClientID: d.client.ID, ClientSecret: d.client.Secret, RedirectURL: d.client.RedirectURIs[0],
		Scopes:   []string{"openid", "email", "profile"},
		Endpoint: oauth2.Endpoint{AuthURL: d.Issuer + "/auth", TokenURL: d.Issuer + "/token"},
	}
	verifier, state := oauth2.GenerateVerifier(), rand.Text()
	browser := NewBrowser(user.Email)
	browser.Password = user.Password
	end := browser.Walk(t, conf.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)), conf.RedirectURL)
	query := end.URL.Query()
	if query.Get("state") != state || query.Get("code") == "" {
		t.Fatalf("login of %s at Dex ended at %s %d %s", user.Email, end.URL.Path, end.Status, query.Get("error_description"))
	}
	token, err := conf.Exchange(t.Context(), query.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatalf("login of %s at Dex: %v", user.Email, err)
	}
	id, _ := token.Extra("id_token").(string)
	return Tokens{ID: id, Access: token.AccessToken}
}
