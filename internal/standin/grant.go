package standin

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

// grant is what one person allowed one client at one time, or, without a user, what a client allowed itself.
type grant struct {
	user, client string
	scopes       []string
	offline      bool
	revoked      bool
}

type authCode struct {
	grant                  *grant
	redirectURI, challenge string
	expires                time.Time
	spent                  bool
}

type accessToken struct {
	grant   *grant
	scopes  []string // may be narrower than the grant's after a refresh
	expires time.Time
}

type refreshToken struct {
	grant *grant
	spent bool
}

// grants holds the credentials of the calendar provider, found by SHA-256 so that it keeps none in the clear. Spent
// refresh tokens stay for as long as the process lives: that is how their second use is noticed.
type grants struct {
	codes   map[[32]byte]*authCode
	tokens  map[[32]byte]*accessToken
	refresh map[[32]byte]*refreshToken
}

func newGrants() grants {
	return grants{map[[32]byte]*authCode{}, map[[32]byte]*accessToken{}, map[[32]byte]*refreshToken{}}
}

func digest(t secret.Text) [32]byte { return sha256.Sum256([]byte(t.Expose())) }

func (g *grants) newCode(gr *grant, redirectURI, challenge string, now time.Time) secret.Text {
	for k, old := range g.codes {
		if now.After(old.expires.Add(time.Hour)) {
			delete(g.codes, k)
		}
	}
	code := secret.New("4/" + rand.Text() + rand.Text())
	g.codes[digest(code)] = &authCode{grant: gr, redirectURI: redirectURI, challenge: challenge, expires: now.Add(codeLifetime)}
	return code
}

// redeem spends a code. The reason is empty when it worked. A code that was spent before ends its grant (RFC 6749
// §4.1.2).
func (g *grants) redeem(code, verifier secret.Text, client, redirectURI string, now time.Time) (*grant, string) {
	c := g.codes[digest(code)]
	switch {
	case c == nil:
		return nil, "the code is unknown"
	case c.grant.client != client:
		return nil, "the code was issued to another client"
	case c.spent:
		c.grant.revoked = true
		return c.grant, "the code was used before; everything it gave is revoked"
	}
	c.spent = true
	sum := sha256.Sum256([]byte(verifier.Expose()))
	switch {
	case c.grant.revoked:
		return c.grant, "the grant is revoked"
	case now.After(c.expires):
		return c.grant, "the code has expired"
	case c.redirectURI != redirectURI:
		return c.grant, "redirect_uri differs from the authorization request"
	case base64.RawURLEncoding.EncodeToString(sum[:]) != c.challenge:
		return c.grant, "code_verifier does not fit code_challenge"
	}
	return c.grant, ""
}

func (g *grants) newAccess(gr *grant, scopes []string, now time.Time, lifetime time.Duration) secret.Text {
	for k, old := range g.tokens {
		if now.After(old.expires.Add(time.Hour)) {
			delete(g.tokens, k)
		}
	}
	t := secret.New("ya29.standin-" + rand.Text() + rand.Text())
	g.tokens[digest(t)] = &accessToken{grant: gr, scopes: slices.Clone(scopes), expires: now.Add(lifetime)}
	return t
}

func (g *grants) newRefresh(gr *grant) secret.Text {
	t := secret.New("1//standin-" + rand.Text() + rand.Text())
	g.refresh[digest(t)] = &refreshToken{grant: gr}
	return t
}

// spendRefresh takes a refresh token out of circulation. The reason is empty when it worked. A token that was spent
// before ends its grant (RFC 9700 §4.14.2).
func (g *grants) spendRefresh(t secret.Text, client string) (*grant, string) {
	r := g.refresh[digest(t)]
	switch {
	case r == nil:
		return nil, "the refresh token is unknown"
	case r.grant.client != client:
		return nil, "the refresh token was issued to another client"
	case r.spent:
		r.grant.revoked = true
		return r.grant, "the refresh token was used before; the whole grant is revoked"
	case r.grant.revoked:
		return r.grant, "the grant is revoked"
	}
	r.spent = true
	return r.grant, ""
}

// peekRefresh finds the grant of a refresh token without spending it.
func (g *grants) peekRefresh(t secret.Text) *grant {
	if r := g.refresh[digest(t)]; r != nil {
		return r.grant
	}
	return nil
}

// access finds a token that works at this time.
func (g *grants) access(t secret.Text, now time.Time) (*accessToken, bool) {
	a := g.tokens[digest(t)]
	if a == nil || a.grant.revoked || !now.Before(a.expires) {
		return nil, false
	}
	return a, true
}

func (g *grants) expireAccess(now time.Time) {
	for _, a := range g.tokens {
		if a.expires.After(now) {
			a.expires = now
		}
	}
}

func (g *grants) revokeUser(user string) {
	for _, r := range g.refresh {
		r.grant.revoked = r.grant.revoked || r.grant.user == user
	}
	for _, a := range g.tokens {
		a.grant.revoked = a.grant.revoked || a.grant.user == user
	}
	for _, c := range g.codes {
		c.grant.revoked = c.grant.revoked || c.grant.user == user
	}
}
