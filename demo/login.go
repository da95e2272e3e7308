package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	// loginLife is how long a login may take.
	loginLife = 10 * time.Minute
	// maxPending bounds logins under way, and sessions.
	maxPending = 1000
)

// person is who logged in. Token is their access token, the human token of the story.
type person struct {
	Subject, Name, Email string
	Token                string
	Expires              time.Time
}

// login logs people in at the identity provider: authorization code with PKCE S256, state and nonce (OIDC Core §3.1).
type login struct {
	conf     oauth2.Config
	verifier *oidc.IDTokenVerifier
	cookie   string
	now      func() time.Time

	mu      sync.Mutex // guards pending
	pending map[string]pendingLogin
}

// pendingLogin is a login under way, in the browser that has its key as a cookie.
type pendingLogin struct {
	state, nonce, verifier string
	began                  time.Time
}

var errLogin = errors.New("this login does not belong to this browser, or took too long")

func newLogin(ctx context.Context, issuer, redirect, cookie string, now func() time.Time) (*login, error) {
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, err
	}
	return &login{
		conf: oauth2.Config{ClientID: webName, Endpoint: provider.Endpoint(), RedirectURL: redirect,
			Scopes: []string{oidc.ScopeOpenID, "profile", "email"}},
		verifier: provider.Verifier(&oidc.Config{ClientID: webName}), cookie: cookie, now: now, pending: map[string]pendingLogin{}}, nil
}

// begin sends the browser to the identity provider.
func (l *login) begin(w http.ResponseWriter, r *http.Request) {
	p := pendingLogin{state: rand.Text(), nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), began: l.now()}
	key := rand.Text()
	l.mu.Lock()
	for k, old := range l.pending {
		if p.began.Sub(old.began) > loginLife || len(l.pending) >= maxPending {
			delete(l.pending, k)
		}
	}
	l.pending[key] = p
	l.mu.Unlock()
	// Lax, because the browser comes back from another site; the loopback has no TLS that Secure could ask for.
	http.SetCookie(w, &http.Cookie{Name: l.cookie, Value: key, Path: "/login", MaxAge: int(loginLife.Seconds()), HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, l.conf.AuthCodeURL(p.state, oidc.Nonce(p.nonce), oauth2.S256ChallengeOption(p.verifier)), http.StatusSeeOther)
}

// finish takes the answer of the identity provider. The error is for the person.
func (l *login) finish(w http.ResponseWriter, r *http.Request) (person, error) {
	cookie, err := r.Cookie(l.cookie)
	if err != nil {
		return person{}, errLogin
	}
	http.SetCookie(w, &http.Cookie{Name: l.cookie, Path: "/login", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	l.mu.Lock()
	p, ok := l.pending[cookie.Value]
	delete(l.pending, cookie.Value)
	l.mu.Unlock()
	query := r.URL.Query()
	if !ok || query.Get("state") != p.state || l.now().Sub(p.began) > loginLife {
		return person{}, errLogin
	}
	if query.Get("code") == "" {
		return person{}, errors.New("the identity provider did not log you in")
	}
	tokens, err := l.conf.Exchange(r.Context(), query.Get("code"), oauth2.VerifierOption(p.verifier))
	if err != nil {
		return person{}, errors.New("the identity provider did not accept the login")
	}
	raw, _ := tokens.Extra("id_token").(string)
	id, err := l.verifier.Verify(r.Context(), raw)
	if err != nil || id.Nonce != p.nonce {
		return person{}, errors.New("the identity provider's answer is not for this login")
	}
	who := person{Subject: id.Subject, Token: tokens.AccessToken, Expires: tokens.Expiry}
	var claims struct{ Name, Email string }
	if err := id.Claims(&claims); err != nil {
		return person{}, errors.New("the identity provider's answer cannot be read")
	}
	who.Name, who.Email = claims.Name, claims.Email
	return who, nil
}
