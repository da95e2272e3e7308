package identity_test

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/secret"
)

// answering is an issuer's UserInfo endpoint that gives one answer, and what it was asked.
type answering struct {
	claims string
	err    error
	issuer string
	tokens []string
	read   int // how often metadata was

	moved, authorize, token, keys string // where the UserInfo endpoint, and the others, are now
}

// IssuerMetadata names endpoints at the issuer, or where a test moved them.
func (a *answering) IssuerMetadata(_ context.Context, _ access.Account, issuer string, _ bool) (keyring.Metadata, error) {
	a.read++
	return keyring.Metadata{
		Authorization: cmp.Or(a.authorize, issuer+"/authorize"), Token: cmp.Or(a.token, issuer+"/token"),
		UserInfo: cmp.Or(a.moved, issuer+"/userinfo"), JWKS: cmp.Or(a.keys, issuer+"/keys"),
	}, nil
}

func (a *answering) UserInfo(_ context.Context, _ access.Account, endpoint string, token secret.Text) (map[string]json.RawMessage, error) {
	a.issuer, a.tokens = strings.TrimSuffix(endpoint, "/userinfo"), append(a.tokens, token.Expose())
	if a.err != nil {
		return nil, a.err
	}
	var m map[string]json.RawMessage
	return m, json.Unmarshal([]byte(a.claims), &m)
}

func userInfoWorld(t *testing.T, change ...func(*identity.Issuer)) (*world, *answering) {
	t.Helper()
	source := &answering{claims: `{"sub":"alice","name":"Alice A","preferred_username":"al","email":"a@example.com","email_verified":true,"groups":["x"]}`}
	w := newWorld(t, func(c *identity.Config) { c.UserInfo, c.Metadata = source, source })
	w.trust(change...)
	w.workload("agent-a", asserted())
	return w, source
}

func TestDescribeUser(t *testing.T) {
	w, source := userInfoWorld(t)
	agent := caller(access.Agent, "agent-*")
	want := map[string]identity.User{
		"alone": {}, "for a JWT": {Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}, "for an uid": {Kind: identity.UIDUser, Subject: "alice"},
	}
	for name, mint := range w.mints() {
		m := ok(mint(agent, "agent-a"))(t)
		d := ok(w.DescribeUser(t.Context(), agent, m.Token))(t)
		if d.User != want[name] || (d.Ref == "") != (name == "alone") || !d.Authenticated.IsZero() {
			t.Errorf("%s: got %+v", name, d)
		}
	}
	logged := w.clock.now().Add(-time.Hour)
	m := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(map[string]any{"auth_time": logged.Unix()}))))(t)
	if d := ok(w.DescribeUser(t.Context(), agent, m.Token))(t); !d.Authenticated.Equal(logged) {
		t.Errorf("got a login at %v, want %v", d.Authenticated, logged)
	}
	for _, ask := range []func(access.Caller, secret.Text) error{
		func(c access.Caller, wat secret.Text) error {
			_, err := w.DescribeUser(t.Context(), c, wat)
			return err
		},
		func(c access.Caller, wat secret.Text) error { _, err := w.UserInfo(t.Context(), c, wat); return err },
	} {
		wantCode(t, "an agent of another workload identity", ask(caller(access.Agent, "agent-b"), m.Token), fault.Denied)
		wantCode(t, "a consent app", ask(caller(access.ConsentApp, "agent-a"), m.Token), fault.Denied)
		wantCode(t, "no token", ask(agent, secret.New("wat1.AAAA")), fault.Unauthenticated)
	}
	w.clock.add(time.Hour)
	_, err := w.DescribeUser(t.Context(), agent, m.Token)
	wantCode(t, "an expired token", err, fault.Unauthenticated)
	if len(source.tokens) != 0 {
		t.Errorf("the issuer was asked %d times", len(source.tokens))
	}
}

func TestUserInfo(t *testing.T) {
	w, source := userInfoWorld(t, withUserInfo)
	agent := caller(access.Agent, "agent-*")
	jwt := w.jwt(nil)
	m := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(jwt)))(t)
	want := identity.UserInfo{
		Subject: "alice", Name: "Alice A", PreferredUsername: "al", Email: "a@example.com", EmailVerified: true,
		Claims: `{"email":"a@example.com","email_verified":true,"groups":["x"],"name":"Alice A","preferred_username":"al","sub":"alice"}`,
	}
	if got := ok(w.UserInfo(t.Context(), agent, m.Token))(t); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if source.issuer != issuerURL || len(source.tokens) != 1 || source.tokens[0] != jwt {
		t.Errorf("asked %s with %d tokens, want the user's own", source.issuer, len(source.tokens))
	}
	for name, claims := range map[string]string{"another": `{"sub":"bob"}`, "nobody": `{"name":"x"}`, "in another spelling": `{"Sub":"alice"}`} {
		source.claims = claims
		got, err := w.UserInfo(t.Context(), agent, m.Token)
		wantCode(t, name, err, fault.Denied)
		if got != (identity.UserInfo{}) {
			t.Errorf("%s: got %+v with the refusal", name, got)
		}
	}
	source.claims = `{"sub":1}`
	_, err := w.UserInfo(t.Context(), agent, m.Token)
	wantCode(t, "a sub of another type", err, fault.Invalid)
	source.err = fault.New(fault.Unavailable, "down")
	_, err = w.UserInfo(t.Context(), agent, m.Token)
	wantCode(t, "an issuer that is down", err, fault.Unavailable)
	asked := len(source.tokens)
	uid := ok(w.MintTokenForUserID(t.Context(), agent, "agent-a", "alice"))(t)
	_, err = w.UserInfo(t.Context(), agent, uid.Token)
	wantCode(t, "an asserted user", err, fault.Invalid)
	must(t, w.DeleteIssuer(t.Context(), w.root, issuerURL))
	w.trust()
	_, err = w.UserInfo(t.Context(), agent, m.Token)
	wantCode(t, "an issuer that lost userinfo", err, fault.Invalid)
	if len(source.tokens) != asked {
		t.Error("the issuer was asked")
	}
}

// M14: an agent that asks on and on costs the issuer a few questions; another agent, and another user, are served.
func TestM14_UserInfoIsAskedRarely(t *testing.T) {
	w, source := userInfoWorld(t, withUserInfo)
	w.workload("agent-b", asserted())
	agent := caller(access.Agent, "agent-*")
	m := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(nil))))(t)
	slowed := 0
	for range 200 {
		if _, err := w.UserInfo(t.Context(), agent, m.Token); err != nil {
			wantCode(t, "hammering", err, fault.Throttled)
			if slowed++; fault.Public(err).After < time.Second {
				t.Fatalf("it does not tell how long to wait: %v", err)
			}
		}
	}
	if n := len(source.tokens); n == 0 || n > 10 || n+slowed != 200 {
		t.Errorf("200 calls asked the issuer %d times, and %d were throttled", n, slowed)
	}
	b := ok(w.MintTokenForJWT(t.Context(), agent, "agent-b", secret.New(w.jwt(nil))))(t)
	ok(w.UserInfo(t.Context(), agent, b.Token))(t)
	w.clock.add(10 * time.Second)
	ok(w.UserInfo(t.Context(), agent, m.Token))(t)
}

// M14: an administrator who has an issuer's metadata read anew on and on does not hammer it.
func TestM14_MetadataIsReadAnewRarely(t *testing.T) {
	w, source := userInfoWorld(t, withUserInfo)
	ok(w.UserInfo(t.Context(), caller(access.Agent, "agent-*"), ok(w.MintTokenForJWT(t.Context(), caller(access.Agent, "agent-*"), "agent-a", secret.New(w.jwt(nil))))(t).Token))(t)
	before, slowed := source.read, 0
	for range 200 {
		if _, err := w.AcceptEndpoints(t.Context(), w.root, issuerURL); err != nil {
			wantCode(t, "hammering", err, fault.Throttled)
			slowed++
		}
	}
	if n := source.read - before; n == 0 || n > 5 || slowed == 0 {
		t.Errorf("200 calls read the metadata %d times, and %d were throttled", n, slowed)
	}
	w.clock.add(10 * time.Second)
	ok(w.AcceptEndpoints(t.Context(), w.root, issuerURL))(t)
}
