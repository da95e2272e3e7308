package identity_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

func (w *world) trail() string {
	w.t.Helper()
	records, _, err := w.db.Records(w.t.Context(), account, access.Query{Limit: 1000})
	must(w.t, err)
	return fmt.Sprintf("%+v", records)
}

// M08: a user's token is shown to no other host than the one that was there when the administrator added the issuer,
// until one accepts the new host.
func TestM08_UserInfoMoves(t *testing.T) {
	w, source := userInfoWorld(t, withUserInfo)
	agent := caller(access.Agent, "agent-*")
	m := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(nil))))(t)
	source.moved = "https://evil.example/userinfo"
	_, err := w.UserInfo(t.Context(), agent, m.Token)
	wantCode(t, "moved before the first use", err, fault.Denied)
	if msg := fault.Public(err).Msg; !strings.Contains(msg, "moved its userinfo endpoint to another host") ||
		!strings.Contains(msg, "tabard issuer accept-endpoints URL") || strings.Contains(msg, "evil") {
		t.Errorf("got %q", msg)
	}
	if len(source.tokens) != 0 {
		t.Error("the token went to the new host")
	}
	if trail := w.trail(); !strings.Contains(trail, "endpoint-moved") || !strings.Contains(trail, "moved its userinfo endpoint") {
		t.Errorf("the trail says nothing:\n%s", trail)
	}
	source.moved = issuerURL + "/v2/userinfo" // another path of the same host is the issuer's own business
	ok(w.UserInfo(t.Context(), agent, m.Token))(t)

	source.moved = "https://accounts.example/userinfo"
	for _, role := range []access.Role{access.Agent, access.ConsentApp, access.Auditor} {
		_, err := w.AcceptEndpoints(t.Context(), caller(role, "*"), issuerURL)
		wantCode(t, string(role), err, fault.Denied)
	}
	_, err = w.AcceptEndpoints(t.Context(), w.root, "https://unknown.example")
	wantCode(t, "an issuer that was never followed", err, fault.NotFound)
	at := ok(w.AcceptEndpoints(t.Context(), caller(access.Admin), issuerURL))(t)
	if at.Down() {
		t.Errorf("got %+v", at)
	}
	ok(w.UserInfo(t.Context(), agent, m.Token))(t)
	ok(w.DisableIssuer(t.Context(), w.root, issuerURL, "a reason"))(t)
	if at := ok(w.AcceptEndpoints(t.Context(), w.root, issuerURL))(t); !at.Down() {
		t.Errorf("accepting endpoints enabled a disabled issuer: %+v", at)
	}
	_, err = w.UserInfo(t.Context(), agent, m.Token)
	wantCode(t, "while the issuer is disabled", err, fault.Unauthenticated)
	if trail := w.trail(); !strings.Contains(trail, "userinfo https://accounts.example") {
		t.Errorf("the trail does not say what was accepted:\n%s", trail)
	}
	ok(w.EnableIssuer(t.Context(), w.root, issuerURL))(t)
	w.clock.add(time.Second)
	m = ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(nil))))(t)
	source.moved = ""
	_, err = w.UserInfo(t.Context(), agent, m.Token)
	wantCode(t, "back", err, fault.Denied)
}

// M08: keys come from no other host than the one of before.
func TestM08_KeysMove(t *testing.T) {
	w, source := userInfoWorld(t)
	ok(w.VerifyUser(t.Context(), account, "agent-a", secret.New(w.jwt(nil))))(t)
	w.clock.add(25 * time.Hour) // past the keys' life
	source.keys = "https://evil.example/keys"
	before := w.idp.fetches()
	_, err := w.VerifyUser(t.Context(), account, "agent-a", secret.New(w.jwt(nil)))
	wantCode(t, "moved", err, fault.Unauthenticated)
	if msg := fault.Public(err).Msg; !strings.Contains(msg, "moved its keys endpoint to another host") || w.idp.fetches() != before {
		t.Errorf("got %q after %d fetches", msg, w.idp.fetches()-before)
	}
	ok(w.AcceptEndpoints(t.Context(), w.root, issuerURL))(t)
	w.clock.add(time.Minute)
	ok(w.VerifyUser(t.Context(), account, "agent-a", secret.New(w.jwt(nil))))(t)
	if last := w.idp.calls[len(w.idp.calls)-1]; last != issuerURL+" "+source.keys {
		t.Errorf("the keys were fetched from %q", last)
	}
}

// M01: nothing would tell the answers of two issuers with one client at one endpoint apart.
func TestM01_TwoIssuersWithOneClient(t *testing.T) {
	w, source := userInfoWorld(t)
	w.setLogin()
	other := "https://evil.example"
	_, err := w.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: other, Audiences: []string{"x"}})
	must(t, err)
	set := func(client string) error {
		return w.SetIssuerLogin(t.Context(), w.root, identity.NewLogin{Issuer: other, ClientID: client})
	}
	u, err := url.Parse(issuerURL)
	must(t, err)
	source.authorize = "HTTPS://" + strings.ToUpper(u.Host) + ":443" + u.Path + "/authorize?x=1"
	wantCode(t, "the same authorization endpoint in other words", set("login"), fault.Conflict)
	for _, path := range []string{"/%61uthorize", "/x/../authorize", "//authorize", "/./authorize", "/authorize/", "/x/%2e%2e/authorize"} {
		source.authorize = issuerURL + path
		w.clock.add(time.Minute) // metadata is not read anew more often
		wantCode(t, "the same authorization endpoint at "+path, set("login"), fault.Conflict)
	}
	w.clock.add(time.Minute)
	must(t, set("another"))
	source.authorize, source.token = "", issuerURL+"/token"
	wantCode(t, "the same token endpoint", set("login"), fault.Conflict)
	source.token = ""
	must(t, set("login"))
}
