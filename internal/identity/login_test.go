package identity_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

func (w *world) setLogin(scopes ...string) {
	w.t.Helper()
	must(w.t, w.SetIssuerLogin(w.t.Context(), w.root, identity.NewLogin{Issuer: issuerURL, ClientID: "login", Secret: secret.New("canary-login"), Scopes: scopes}))
}

func withMetadata(c *identity.Config) { c.Metadata = &answering{} }

func TestIssuerLogin(t *testing.T) {
	w := newWorld(t, withMetadata)
	ctx := t.Context()
	login := func() (identity.LoginClient, secret.Text, error) { return w.Login(ctx, account, "agent-a", issuerURL) }
	set := func(c access.Caller, n identity.NewLogin) error { return w.SetIssuerLogin(ctx, c, n) }
	wantCode(t, "not trusted", set(w.root, identity.NewLogin{Issuer: issuerURL, ClientID: "login"}), fault.NotFound)
	w.trust()
	_, _, err := login()
	wantCode(t, "not set", err, fault.NotFound)
	for _, role := range []access.Role{access.Agent, access.ConsentApp, access.Auditor} {
		wantCode(t, string(role), set(caller(role, "*"), identity.NewLogin{Issuer: issuerURL, ClientID: "login"}), fault.Denied)
	}
	for name, n := range map[string]identity.NewLogin{
		"no client":       {Issuer: issuerURL},
		"control":         {Issuer: issuerURL, ClientID: "a\nb"},
		"scope of two":    {Issuer: issuerURL, ClientID: "a", Scopes: []string{"a b"}},
		"scope in script": {Issuer: issuerURL, ClientID: "a", Scopes: []string{"\u0430"}},
	} {
		wantCode(t, name, set(w.root, n), fault.Invalid)
	}

	w.setLogin("email")
	c, text, err := login()
	must(t, err)
	if d := cmp.Diff([]string{"openid", "email"}, c.Scopes); d != "" || c.ClientID != "login" || text.Expose() != "canary-login" {
		t.Errorf("got %+v", c)
	}
	must(t, set(caller(access.Admin), identity.NewLogin{Issuer: issuerURL, ClientID: "public"}))
	if c, text, err = login(); err != nil || c.ClientID != "public" || !text.IsZero() {
		t.Errorf("a public client: got %+v, %v", c, err)
	}
	_, _, err = w.Login(ctx, "999999999999", "agent-a", issuerURL)
	wantCode(t, "another account", err, fault.NotFound)

	// A trust that ended takes the client with it, also where it begins again.
	must(t, w.DeleteIssuer(ctx, w.root, issuerURL))
	_, _, err = login()
	wantCode(t, "no longer trusted", err, fault.NotFound)
	w.trust(func(i *identity.Issuer) { i.Workloads = []string{"other-*"} })
	_, _, err = login()
	wantCode(t, "trusted again", err, fault.NotFound)
	w.setLogin()
	_, _, err = login()
	wantCode(t, "not for this workload identity", err, fault.NotFound)
}

// VerifyLogin is VerifyUser, and wants besides an ID token, for the login client, of one sign-in.
func TestVerifyLogin(t *testing.T) {
	w := newWorld(t, withMetadata)
	w.trust(func(i *identity.Issuer) { i.Claims = map[string]string{"hd": "example.com"} })
	w.setLogin()
	c, _, err := w.Login(t.Context(), account, "agent-a", issuerURL)
	must(t, err)
	verify := func(change map[string]any) (identity.VerifiedUser, error) {
		claims := w.claims(map[string]any{"aud": "login", "nonce": "n-1", "hd": "example.com"})
		for k, v := range change {
			if claims[k] = v; v == nil {
				delete(claims, k)
			}
		}
		jwt := jwstest.Sign(t, "RS256", map[string]any{"kid": "rsa"}, claims, w.idp.RSA)
		return w.VerifyLogin(t.Context(), c, "agent-a", secret.New(jwt), "n-1")
	}
	for name, change := range map[string]map[string]any{"plain": nil, "azp": {"azp": "login"}, "several audiences": {"aud": []string{"login", "x"}, "azp": "login"}} {
		if u, err := verify(change); err != nil || u.User != (identity.User{Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}) {
			t.Errorf("%s: got %v, %v", name, u.User, err)
		}
	}
	for name, change := range map[string]map[string]any{
		"another nonce": {"nonce": "n-2"}, "no nonce": {"nonce": nil}, "a nonce that is a number": {"nonce": 1}, "the application's token": {"aud": "tabard"},
		"azp of another": {"azp": "tabard"}, "azp of another kind": {"azp": 1}, "another issuer": {"iss": "https://evil.example"}, "no audience": {"aud": nil},
		"an access token": {"scope": "openid", "token_use": "access"}, "expired": {"exp": w.clock.now().Add(-2 * time.Minute).Unix()}, "no subject": {"sub": nil},
		"a rule of the issuer": {"hd": "evil.example"},
	} {
		_, err := verify(change)
		wantCode(t, name, err, fault.Unauthenticated)
	}
	jwt := jwstest.Sign(t, "ES256", map[string]any{"kid": "ec"}, w.claims(map[string]any{"aud": "login", "nonce": "n-1", "hd": "example.com"}), jwstest.Stranger(t))
	_, err = w.VerifyLogin(t.Context(), c, "agent-a", secret.New(jwt), "n-1")
	wantCode(t, "a stranger's signature", err, fault.Unauthenticated)
	_, err = w.VerifyLogin(t.Context(), c, "agent-a", secret.New(jwt), "")
	wantCode(t, "no nonce on either side", err, fault.Unauthenticated)
}

func TestUserByRef(t *testing.T) {
	w := newWorld(t)
	for _, u := range []identity.User{{Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}, {Kind: identity.UIDUser, Subject: "alice"}} {
		ref, err := w.UserRef(t.Context(), account, u)
		must(t, err)
		_, err = w.UserByRef(t.Context(), account, ref)
		wantCode(t, "not remembered", err, fault.NotFound)
		must(t, w.RememberUser(t.Context(), account, u))
		if got, err := w.UserByRef(t.Context(), account, ref); err != nil || got != u {
			t.Errorf("got %v, %v, want %v", got, err, u)
		}
		_, err = w.UserByRef(t.Context(), "999999999999", ref)
		wantCode(t, "another account", err, fault.NotFound)
	}
}
