package identity_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// telling trusts the issuer with back-channel logout, for the client "web" too.
func telling(i *identity.Issuer) { i.BackchannelLogout, i.ClientIDs = true, []string{"web"} }

// logoutWorld has an issuer that tells of logouts, and an agent.
func logoutWorld(t *testing.T, change ...func(*identity.Config)) (*world, access.Caller) {
	w := newWorld(t, change...)
	w.trust(telling)
	w.workload("agent-a", nil)
	return w, caller(access.Agent, "agent-*")
}

var jtis int // of logout tokens

// logoutClaims are good claims of a logout token of alice, changed: nil removes one.
func (w *world) logoutClaims(change map[string]any) map[string]any {
	jtis++
	c := map[string]any{
		"aud": "web", "jti": fmt.Sprint("jti-", jtis), "events": map[string]any{logoutEvent: map[string]any{}},
		"exp": w.clock.now().Add(2 * time.Minute).Unix(),
	}
	for k, v := range change {
		c[k] = v
	}
	return w.claims(c)
}

func (w *world) logoutToken(change map[string]any) string {
	return jwstest.Sign(w.t, "RS256", map[string]any{"kid": "rsa", "typ": "logout+jwt"}, w.logoutClaims(change), w.idp.RSA)
}

func (w *world) logout(token string) error {
	return w.BackchannelLogout(w.t.Context(), account, identity.BackchannelID(account, issuerURL), secret.New(token))
}

func (w *world) dead(name string, token secret.Text) {
	w.t.Helper()
	wantCode(w.t, name, w.open(token), fault.Unauthenticated)
}

func (w *world) alive(name string, token secret.Text) {
	w.t.Helper()
	if err := w.open(token); err != nil {
		w.t.Errorf("%s: got %v, want it to live", name, err)
	}
}

// A35: a logout token that names a session ends what was made of that session's tokens, and of tokens that name none.
func TestA35_LogoutEndsASession(t *testing.T) {
	w, agent := logoutWorld(t)
	w.workload("agent-b", nil)
	mint := func(claims map[string]any) secret.Text {
		return ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(claims))))(t).Token
	}
	app := caller(access.ConsentApp, "agent-a")
	d := ok(w.CreateDelegation(t.Context(), app, w.delegation(nil), shelf{}))(t)
	here, there, none := mint(map[string]any{"sid": "s1"}), mint(map[string]any{"sid": "s2"}), mint(nil)
	bob, bobsNone := mint(map[string]any{"sub": "bob", "sid": "s3"}), mint(map[string]any{"sub": "bob"})
	asleep := ok(w.MintTokenForDelegation(t.Context(), agent, "agent-a", d.ID))(t).Token
	handed := ok(w.MintTokenThrough(t.Context(), agent, here, "agent-b"))(t).Token
	kept, wl := w.opened(identity.Minted{Token: here})
	ground, _ := kept.Ground()
	jwt := w.jwt(map[string]any{"sid": "s1"})

	w.clock.add(time.Minute)
	must(t, w.logout(w.logoutToken(map[string]any{"sid": "s1"})))
	w.dead("the session's", here)
	w.dead("handed on", handed)
	w.dead("one that names no session", none)
	w.alive("another session's", there)
	w.alive("another user's", bob)
	w.alive("another user's without session", bobsNone)
	w.alive("a delegation's", asleep)
	if held := ok(w.Holds(t.Context(), account, ground))(t); held {
		t.Error("what was made of the token holds")
	}
	w.refused("the session's own token", jwt, fault.Unauthenticated)
	_, err := w.RetainedToken(t.Context(), kept, wl)
	if err == nil {
		t.Error("the user's token behind it is handed out")
	}
	w.refused("one without session, of before", w.jwt(map[string]any{"iat": w.clock.now().Add(-time.Second).Unix()}), fault.Unauthenticated)
	w.refused("of the same second", w.jwt(map[string]any{"sid": "s1", "iat": w.clock.now().Unix()}), fault.Unauthenticated)
	w.accepted("another session's token", w.jwt(map[string]any{"sid": "s2", "iat": w.clock.now().Add(-time.Minute).Unix()}))
	w.clock.add(time.Second)
	w.accepted("a new sign-in", w.jwt(map[string]any{"sid": "s4"}))
	w.accepted("of a session that lives on, issued later", w.jwt(map[string]any{"sid": "s1"}))
	w.alive("after it", mint(map[string]any{"sid": "s1"}))
	w.alive("after it, without session", mint(nil))

	last := w.recordOf(access.BackchannelLogout)
	ref := ok(w.UserRef(t.Context(), account, identity.User{Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}))(t)
	if last.Facts.UserRef != ref || last.Facts.Outcome != "session_ended" || last.Facts.Resource != issuerURL {
		t.Errorf("the trail says %+v", last)
	}
}

func (w *world) recordOf(action access.Action) access.Record {
	w.t.Helper()
	records := w.records()
	for i := range records {
		if r := records[len(records)-1-i]; r.Action == action {
			return r
		}
	}
	w.t.Fatalf("no record of %s", action)
	return access.Record{}
}

// A35: a logout token without a session ends everything of the user, what the user delegated too.
func TestA35_LogoutEndsAUser(t *testing.T) {
	w, agent := logoutWorld(t)
	mint := func(claims map[string]any) secret.Text {
		return ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(claims))))(t).Token
	}
	d := ok(w.CreateDelegation(t.Context(), caller(access.ConsentApp, "agent-a"), w.delegation(nil), shelf{}))(t)
	here, none, bob := mint(map[string]any{"sid": "s1"}), mint(nil), mint(map[string]any{"sub": "bob", "sid": "s2"})
	asleep := ok(w.MintTokenForDelegation(t.Context(), agent, "agent-a", d.ID))(t).Token
	jwt := w.jwt(map[string]any{"sid": "s9"})
	must(t, w.logout(w.logoutToken(nil)))
	for name, token := range map[string]secret.Text{"of a session": here, "of none": none, "of a delegation": asleep} {
		w.dead(name, token)
	}
	w.alive("another user's", bob)
	w.refused("a token of before, of whatever session", jwt, fault.Unauthenticated)
	_, err := w.MintTokenForDelegation(t.Context(), agent, "agent-a", d.ID)
	wantCode(t, "a mint under the delegation", err, fault.Denied)
	w.clock.add(time.Second)
	w.alive("of a new sign-in", mint(map[string]any{"sid": "s9"}))
	if last := w.recordOf(access.BackchannelLogout); last.Facts.Outcome != "user_ended" || last.Facts.UserRef == "" {
		t.Errorf("the trail says %+v", last)
	}
}

// A35: a logout token may name a session and no user.
func TestA35_LogoutNamesASessionAlone(t *testing.T) {
	w, agent := logoutWorld(t)
	here := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(map[string]any{"sid": "s1"}))))(t).Token
	other := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(map[string]any{"sid": "s2"}))))(t).Token
	none := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(nil))))(t).Token
	must(t, w.logout(w.logoutToken(map[string]any{"sub": nil, "sid": "s1"})))
	w.alive("one that names no session", none) // docs/operations.md says so
	w.dead("the session's", here)
	w.alive("another session's", other)
	if last := w.recordOf(access.BackchannelLogout); last.Facts.UserRef != "" {
		t.Errorf("the trail says %+v", last)
	}
}

// A35: what is no logout token, or not one of this issuer for its client, ends nothing (OpenID Connect Back-Channel
// Logout 1.0 §2.6).
func TestA35_BadLogoutTokens(t *testing.T) {
	w, agent := logoutWorld(t)
	const second, third = "https://second.example.com", "https://third.example.com"
	for _, u := range []string{second, third} {
		ok(w.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: u, ClientIDs: []string{"web"}, BackchannelLogout: u == second}))(t)
	}
	wat := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(map[string]any{"sid": "s1"}))))(t).Token
	sign := func(alg string, header, claims map[string]any, key any) string {
		h := map[string]any{"typ": "logout+jwt"}
		for k, v := range header {
			if h[k] = v; v == nil {
				delete(h, k)
			}
		}
		return jwstest.Sign(t, alg, h, claims, key)
	}
	rsa := map[string]any{"kid": "rsa"}
	now := w.clock.now()
	event := func(v any) map[string]any { return map[string]any{logoutEvent: v} }
	taken := w.logoutToken(map[string]any{"sub": "carol"})
	must(t, w.logout(taken))
	for name, token := range map[string]string{
		"empty":                  "",
		"no JWT":                 "logout",
		"unsigned":               jwstest.B64([]byte(`{"alg":"none","typ":"logout+jwt"}`)) + taken[strings.Index(taken, "."):],
		"signed by a client":     sign("HS256", nil, w.logoutClaims(nil), []byte(strings.Repeat("k", 64))),
		"a stranger's signature": sign("ES256", map[string]any{"kid": "ec"}, w.logoutClaims(nil), jwstest.Stranger(t)),
		"a key of its own":       sign("RS256", map[string]any{"kid": "rsa", "jku": "https://evil.example/jwks"}, w.logoutClaims(nil), w.idp.RSA),
		"an access token's type": sign("RS256", map[string]any{"kid": "rsa", "typ": "at+jwt"}, w.logoutClaims(nil), w.idp.RSA),
		"a security event":       sign("RS256", map[string]any{"kid": "rsa", "typ": "secevent+jwt"}, w.logoutClaims(nil), w.idp.RSA),
		"another type":           sign("RS256", map[string]any{"kid": "rsa", "typ": "dpop+jwt"}, w.logoutClaims(nil), w.idp.RSA),
		"changed":                w.logoutToken(nil) + "A",
		"too long":               w.logoutToken(map[string]any{"more": strings.Repeat("m", 17<<10)}),
		"an ID token":            w.jwt(map[string]any{"aud": "web", "nonce": "n", "sid": "s1"}),
		"an access token":        w.jwt(map[string]any{"client_id": "web", "scope": "openid", "sid": "s1"}),
		"no issuer":              w.logoutToken(map[string]any{"iss": nil}),
		"another issuer":         w.logoutToken(map[string]any{"iss": second}),
		"an issuer nobody knows": w.logoutToken(map[string]any{"iss": "https://unknown.example.com"}),
		"another client":         w.logoutToken(map[string]any{"aud": "mobile"}),
		"nobody's":               w.logoutToken(map[string]any{"aud": nil}),
		"a number as audience":   w.logoutToken(map[string]any{"aud": 7}),
		"client_id for aud":      w.logoutToken(map[string]any{"aud": "mobile", "client_id": "web", "azp": "web"}),
		"no iat":                 w.logoutToken(map[string]any{"iat": nil}),
		"no exp":                 w.logoutToken(map[string]any{"exp": nil}),
		"of the future":          w.logoutToken(map[string]any{"iat": now.Add(2 * time.Minute).Unix(), "exp": now.Add(4 * time.Minute).Unix()}),
		"expired":                w.logoutToken(map[string]any{"iat": now.Add(-5 * time.Minute).Unix(), "exp": now.Add(-time.Minute).Unix()}),
		"too long-lived":         w.logoutToken(map[string]any{"exp": now.Add(2 * time.Hour).Unix()}),
		"a word as exp":          w.logoutToken(map[string]any{"exp": "soon"}),
		"no jti":                 w.logoutToken(map[string]any{"jti": nil}),
		"an empty jti":           w.logoutToken(map[string]any{"jti": ""}),
		"a number as jti":        w.logoutToken(map[string]any{"jti": 7}),
		"a long jti":             w.logoutToken(map[string]any{"jti": strings.Repeat("j", 256)}),
		"taken already":          taken,
		"no events":              w.logoutToken(map[string]any{"events": nil}),
		"no such event":          w.logoutToken(map[string]any{"events": map[string]any{"https://schemas.openid.net/secevent/risc/event-type/account-disabled": map[string]any{}}}),
		"events in a list":       w.logoutToken(map[string]any{"events": []any{logoutEvent}}),
		"an event of no object":  w.logoutToken(map[string]any{"events": event("x")}),
		"an event of null":       w.logoutToken(map[string]any{"events": event(nil)}),
		"a nonce":                w.logoutToken(map[string]any{"nonce": "n"}),
		"an empty nonce":         w.logoutToken(map[string]any{"nonce": ""}),
		"nobody and no session":  w.logoutToken(map[string]any{"sub": nil}),
		"a number as user":       w.logoutToken(map[string]any{"sub": 7, "sid": "s1"}),
		"an empty user":          w.logoutToken(map[string]any{"sub": "", "sid": "s1"}),
		"a number as session":    w.logoutToken(map[string]any{"sid": 7}),
		"an empty session":       w.logoutToken(map[string]any{"sid": ""}),
		"a long session":         w.logoutToken(map[string]any{"sid": strings.Repeat("s", 256)}),
	} {
		err := w.logout(token)
		if code := fault.CodeOf(err); code != fault.Unauthenticated && !(name == "too long" && code == fault.Invalid) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
		w.alive(name, wat)
	}
	good := func() secret.Text { return secret.New(w.logoutToken(map[string]any{"sid": "s1"})) }
	wantCode(t, "at another issuer's address", w.BackchannelLogout(t.Context(), account, identity.BackchannelID(account, second), good()), fault.Unauthenticated)
	wantCode(t, "at another account's address", w.BackchannelLogout(t.Context(), other, identity.BackchannelID(other, issuerURL), good()), fault.Unauthenticated)
	wantCode(t, "under another account", w.BackchannelLogout(t.Context(), other, identity.BackchannelID(account, issuerURL), good()), fault.Unauthenticated)
	silent := secret.New(w.logoutToken(map[string]any{"iss": third}))
	wantCode(t, "of an issuer without it", w.BackchannelLogout(t.Context(), account, identity.BackchannelID(account, third), silent), fault.Unauthenticated)
	w.alive("after all that", wat)

	// Some issuers give no type, or that of any JWT.
	for _, typ := range []any{nil, "JWT", "application/logout+jwt"} {
		must(t, w.logout(sign("RS256", map[string]any{"kid": rsa["kid"], "typ": typ}, w.logoutClaims(map[string]any{"sub": "carol"}), w.idp.RSA)))
	}
	ok(w.DisableIssuer(t.Context(), w.root, issuerURL, "breach"))(t)
	wantCode(t, "of a disabled issuer", w.logout(good().Expose()), fault.Unauthenticated)
}

// A35, B06: a logout token, whatever its type, is no token of a user.
func TestA35_LogoutTokenNamesNoUser(t *testing.T) {
	w, _ := logoutWorld(t)
	for _, header := range []map[string]any{{"kid": "rsa", "typ": "logout+jwt"}, {"kid": "rsa", "typ": "JWT"}, {"kid": "rsa"}} {
		claims := w.logoutClaims(map[string]any{"aud": "tabard", "scope": "openid"})
		w.refused(fmt.Sprint(header), jwstest.Sign(t, "RS256", header, claims, w.idp.RSA), fault.Unauthenticated)
	}
}

// A35: a user's token that says too little for a logout to end it is not taken from an issuer that tells of logouts.
func TestA35_TokensThatNoLogoutEnds(t *testing.T) {
	w, _ := logoutWorld(t)
	w.refused("no iat", w.jwt(map[string]any{"iat": nil}), fault.Unauthenticated)
	w.refused("a number as session", w.jwt(map[string]any{"sid": 7}), fault.Unauthenticated)
	w.refused("an empty session", w.jwt(map[string]any{"sid": ""}), fault.Unauthenticated)
	w.accepted("a session", w.jwt(map[string]any{"sid": "s1"}))
	_, err := w.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: "https://entra.example.com", Audiences: []string{"a"}, SubjectClaim: "oid", BackchannelLogout: true})
	wantCode(t, "users named by another claim than sub", err, fault.Invalid)
}

// racing runs a step between the reads of a mint.
type racing struct {
	identity.Store
	mu   sync.Mutex
	skip int // reads to let pass
	then func()
}

func (r *racing) Standing(ctx context.Context, a access.Account, kind identity.StandingKind, key string) (identity.Standing, error) {
	r.mu.Lock()
	then := r.then
	if then != nil && kind == identity.WorkloadStanding {
		if r.skip--; r.skip < 0 {
			r.then = nil
		}
	}
	run := then != nil && r.then == nil
	r.mu.Unlock()
	if run {
		then()
	}
	return r.Store.Standing(ctx, a, kind, key)
}

// A35: a logout between the check of the user's token and the mint leaves no token that lives.
func TestA35_LogoutWhileAMintRuns(t *testing.T) {
	for _, whole := range []bool{false, true} {
		for skip := range 2 {
			var race *racing
			w, agent := logoutWorld(t, func(c *identity.Config) {
				race = &racing{Store: c.Store}
				c.Store = race
			})
			claims := map[string]any{"sid": "s1"}
			if whole {
				claims = nil
			}
			jwt, out := secret.New(w.jwt(map[string]any{"sid": "s1"})), w.logoutToken(claims)
			ran := false
			race.mu.Lock()
			race.skip, race.then = skip, func() { ran = true; must(t, w.logout(out)) }
			race.mu.Unlock()
			m, err := w.MintTokenForJWT(t.Context(), agent, "agent-a", jwt)
			if !ran {
				t.Fatalf("nothing happened at read %d", skip)
			}
			if err == nil {
				w.dead(fmt.Sprintf("minted while the user logged out, at read %d, whole %t", skip, whole), m.Token)
			} else {
				wantCode(t, "mint", err, fault.Unauthenticated)
			}
		}
	}
}

// B07: with the setting and an issuer that tells of logouts a token lives for longer than an hour, and no longer than
// that where either is gone.
func TestB07_LongerThanAnHourNeedsLogouts(t *testing.T) {
	w, agent := logoutWorld(t, func(c *identity.Config) { c.UserTokenLife = 8 * time.Hour })
	const silent = "https://silent.example.com"
	ok(w.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: silent, Audiences: []string{"tabard"}}))(t)
	mint := func(iss string, life time.Duration) identity.Minted {
		jwt := w.jwt(map[string]any{"iss": iss, "sid": "s1", "exp": w.clock.now().Add(life).Unix()})
		return ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(jwt)))(t)
	}
	for _, c := range []struct {
		iss        string
		life, want time.Duration
	}{{issuerURL, 20 * time.Hour, 8 * time.Hour}, {issuerURL, 3 * time.Hour, 3 * time.Hour}, {silent, 3 * time.Hour, time.Hour}} {
		if m := mint(c.iss, c.life); !m.Expires.Equal(w.clock.now().Add(c.want)) {
			t.Errorf("%s: a JWT of %s makes a token that ends at %s, want after %s", c.iss, c.life, m.Expires, c.want)
		}
	}
	long := mint(issuerURL, 20*time.Hour)
	strict := w.config
	strict.UserTokenLife = 0
	lowered := ok(identity.New(strict))(t)
	expired := func(s *identity.Service) bool {
		tok, _, err := s.OpenToken(t.Context(), account, long.Token)
		must(t, err)
		return tok.Expired
	}
	w.clock.add(time.Hour - time.Second)
	if expired(w.Service) || expired(lowered) {
		t.Error("it ends within the hour")
	}
	w.clock.add(time.Second)
	if expired(w.Service) || !expired(lowered) {
		t.Errorf("after an hour: expired %t, and where the setting was lowered %t; want false and true", expired(w.Service), expired(lowered))
	}
	must(t, w.DeleteIssuer(t.Context(), w.root, issuerURL))
	if !expired(w.Service) {
		t.Error("it lives on without the issuer that would tell of a logout")
	}
	w.trust()
	if !expired(w.Service) {
		t.Error("it lives on though the issuer tells of logouts no more")
	}
}

// A35: few logout tokens of one issuer wait for its keys at a time, and for no other account's.
func TestA35_LogoutsAtOnceAreBounded(t *testing.T) {
	w, _ := logoutWorld(t)
	w.idp.gate = make(chan struct{})
	var group sync.WaitGroup
	const sent = 100
	codes := make([]fault.Code, sent)
	for i := range sent {
		token := w.logoutToken(map[string]any{"sid": fmt.Sprint("s", i)})
		group.Go(func() { codes[i] = fault.CodeOf(w.logout(token)) })
	}
	time.Sleep(200 * time.Millisecond)
	begun := time.Now()
	err := w.BackchannelLogout(t.Context(), other, identity.BackchannelID(other, issuerURL), secret.New(w.logoutToken(nil)))
	wantCode(t, "another account's", err, fault.Unauthenticated)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("another account waited %s", took)
	}
	close(w.idp.gate)
	group.Wait()
	n := map[fault.Code]int{}
	for _, c := range codes {
		n[c]++
	}
	if n[""] == 0 || n[fault.Throttled] < sent-64 || n[""]+n[fault.Throttled] != sent {
		t.Errorf("got %v, want 64 that wait and the others throttled", n)
	}
}

// A35: logout tokens that a stranger makes up hold up no real one while the issuer's keys are slow: neither of the same
// issuer, whose keys are in memory, nor of another issuer of the account, whose keys are not.
func TestA35_ForgedLogoutsHoldUpNoRealOnes(t *testing.T) {
	w, _ := logoutWorld(t)
	const second = "https://second.example.com"
	w.trust(telling, func(i *identity.Issuer) { i.URL = second })
	must(t, w.logout(w.logoutToken(map[string]any{"sid": "s0"})))
	w.idp.gate, w.idp.slow = make(chan struct{}), issuerURL
	var group sync.WaitGroup
	for range 100 {
		forged := jwstest.Sign(t, "RS256", map[string]any{"kid": "nobody's", "typ": "logout+jwt"}, w.logoutClaims(nil), w.idp.RSA)
		group.Go(func() { _ = w.logout(forged) })
	}
	defer group.Wait()
	defer close(w.idp.gate)
	time.Sleep(200 * time.Millisecond)
	wrong := jwstest.Sign(t, "RS256", map[string]any{"kid": "rsa", "typ": "logout+jwt"}, w.logoutClaims(nil), jwstest.NewKeys().RSA)
	for _, c := range []struct {
		name, issuer, token string
		code                fault.Code
	}{
		{"a real one", issuerURL, w.logoutToken(map[string]any{"sid": "s1"}), ""},
		{"a wrong signature", issuerURL, wrong, fault.Unauthenticated},
		{"no token", issuerURL, "a.b.c", fault.Unauthenticated},
		{"of an issuer that this address is not for", issuerURL, w.logoutToken(map[string]any{"iss": second}), fault.Unauthenticated},
		{"a real one of another issuer", second, w.logoutToken(map[string]any{"iss": second, "sid": "s2"}), ""},
	} {
		begun := time.Now()
		err := w.BackchannelLogout(t.Context(), account, identity.BackchannelID(account, c.issuer), secret.New(c.token))
		wantCode(t, c.name, err, c.code)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s waited %s", c.name, took)
		}
	}
}

// A35: what is remembered of logouts is forgotten once nothing rests on it.
func TestA35_LogoutsAreForgotten(t *testing.T) {
	w, _ := logoutWorld(t)
	must(t, w.logout(w.logoutToken(map[string]any{"sid": "s1"})))
	jwt := w.jwt(map[string]any{"sid": "s1", "exp": w.clock.now().Add(24 * time.Hour).Unix()})
	w.clock.add(24*time.Hour - time.Second)
	if n := ok(w.SweepLogouts(t.Context()))(t); n != 1 {
		t.Errorf("forgot %d rows after a day, want the token's", n)
	}
	w.refused("a day later", jwt, fault.Unauthenticated)
	w.clock.add(10 * time.Minute)
	if n := ok(w.SweepLogouts(t.Context()))(t); n != 2 {
		t.Errorf("forgot %d rows, want that of the session and that of none", n)
	}
}

func FuzzBackchannelLogout(f *testing.F) {
	w := newWorld(f)
	w.trust(telling)
	for _, seed := range []string{"", "a.b.c", w.logoutToken(nil), w.logoutToken(map[string]any{"sid": "s1"}), w.jwt(nil)} {
		f.Add(seed)
	}
	taken := map[string]bool{}
	f.Fuzz(func(t *testing.T, token string) {
		err := w.BackchannelLogout(t.Context(), account, identity.BackchannelID(account, issuerURL), secret.New(token))
		switch code := fault.CodeOf(err); code {
		case "":
			if taken[token] {
				t.Error("taken twice")
			}
			taken[token] = true
		case fault.Unauthenticated, fault.Invalid:
		default:
			t.Errorf("got %v", err)
		}
	})
}
