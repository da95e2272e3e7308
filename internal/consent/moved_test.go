package consent_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// M08: the issuer's metadata moves one endpoint of its sign-in. No browser, code, verifier or secret goes to the other
// host, log and trail say so, and once an administrator has set the client again the same link goes on.
func TestM08_LoginEndpointsMove(t *testing.T) {
	for _, endpoint := range []string{"authorization", "token"} {
		for _, when := range []string{"before the sign-in", "during it"} {
			t.Run(endpoint+", "+when, func(t *testing.T) {
				h := newHosted(t, false)
				evil := oauthtest.New(t)
				move := func() {
					h.idp.Move = map[string]any{endpoint + "_endpoint": evil.URL + "/" + endpoint}
					h.clock.add(6 * time.Minute) // past the metadata's time in the cache
				}
				h.clock.add(5 * time.Minute)
				if when == "before the sign-in" {
					move()
				}
				_, address := h.begin("read")
				var p page
				if when == "during it" {
					callback, cookie := h.signIn(address)
					move()
					p = h.get(callback.String(), cookie)
				} else {
					p = h.get(address)
				}
				h.wantPage("moved", p, 502, "The provider has moved")
				if len(p.Cookies()) != 0 || p.Header.Get("Location") != "" || strings.Contains(p.body, evil.URL) {
					t.Errorf("got %v, the location %q and\n%s", p.Cookies(), p.Header.Get("Location"), p.body)
				}
				if !strings.Contains(h.log.String(), strings.TrimPrefix(evil.URL, "http://")) {
					t.Errorf("the log does not tell the operator where to:\n%s", h.log)
				}
				sentence := "moved its " + endpoint + " endpoint to another host: an administrator accepts that by setting its login client again: tabard issuer login"
				if trail := h.trail(); !strings.Contains(trail, sentence) {
					t.Error("the trail has no record of it")
				}
				if n := evil.Hits("/" + endpoint); n != 0 {
					t.Errorf("the new host was reached %d times", n)
				}
				must(t, h.people.SetIssuerLogin(t.Context(), h.root, identity.NewLogin{Issuer: h.idp.URL, ClientID: "login", Secret: secret.New("login-secret")}))
				if trail := h.trail(); !strings.Contains(trail, endpoint+" "+evil.URL) {
					t.Error("the trail does not say what was accepted")
				}
				if p := h.get(address); p.StatusCode != http.StatusSeeOther {
					t.Errorf("the link again: got %d\n%s", p.StatusCode, p.body)
				}
			})
		}
	}
}

// M08: the keys that ID tokens are verified with come from no other host than before.
func TestM08_LoginKeysMove(t *testing.T) {
	h := newHosted(t, false)
	evil := newIDP(t, h.clock.now)
	h.clock.add(5 * time.Minute)
	_, address := h.begin("read")
	callback, cookie := h.signIn(address)
	h.idp.Move = map[string]any{"jwks_uri": evil.URL + "/keys"}
	h.idp.key, h.idp.kid = evil.key, "new" // who holds the metadata signs with a key of its own
	evil.kid = "new"
	h.clock.add(6 * time.Minute) // past the metadata's time in the cache
	p := h.get(callback.String(), cookie)
	if p.StatusCode == http.StatusSeeOther {
		t.Errorf("a stranger's key signed a user in: %v", p.Cookies())
	}
	if trail := h.trail(); strings.Contains(trail, "signed_in") {
		t.Error("the trail says that somebody signed in")
	}
}
