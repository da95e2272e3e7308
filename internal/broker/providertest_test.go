package broker_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// test runs TestProvider as an administrator and returns the checks by name.
func (w *world) test(name string) map[string]broker.Check { return w.testBy(w.admin, name) }

func (w *world) testBy(caller access.Caller, name string) map[string]broker.Check {
	w.t.Helper()
	w.clock.add(10 * time.Second) // the pause between tests
	checks, err := w.TestProvider(w.t.Context(), caller, name, secret.Text{})
	must(w.t, err)
	by := map[string]broker.Check{}
	for _, c := range checks {
		if _, twice := by[c.Name]; twice || c.Detail == "" {
			w.t.Errorf("got the check %+v", c)
		}
		by[c.Name] = c
	}
	return by
}

func (w *world) wantCheck(by map[string]broker.Check, name string, status broker.CheckStatus, detail string) {
	w.t.Helper()
	if c := by[name]; c.Status != status || !strings.Contains(c.Detail, detail) {
		w.t.Errorf("%s: got %s (%s), want %s with %q", name, c.Status, c.Detail, status, detail)
	}
}

func TestTestProvider(t *testing.T) {
	w := newWorld(t)
	cal, err := w.Provider(t.Context(), w.admin, "cal")
	must(t, err)
	by := w.test("cal")
	w.wantCheck(by, "metadata", broker.CheckPass, w.provider.URL+oauthtest.Metadata)
	w.wantCheck(by, "issuer", broker.CheckPass, w.provider.URL)
	w.wantCheck(by, "pkce", broker.CheckPass, "S256")
	w.wantCheck(by, "client-authentication", broker.CheckPass, "client_secret_basic")
	w.wantCheck(by, "callback-url", broker.CheckSkipped, w.CallbackURL(cal))
	w.wantCheck(by, "issuer-in-response", broker.CheckPass, "RFC 9207")
	if len(by) != 6 {
		t.Errorf("got %d checks, want 6", len(by))
	}

	w.createProvider("wrong", "StrictOauth2", func(s *broker.ProviderSpec) { s.Secret = secret.New("not-the-secret-4f1d") })
	w.provider.SetMetadata("token_endpoint_auth_methods_supported", []string{"private_key_jwt"})
	w.provider.SetMetadata("authorization_response_iss_parameter_supported", nil)
	w.provider.SetMetadata("code_challenge_methods_supported", nil)
	by = w.test("wrong")
	w.wantCheck(by, "client-authentication", broker.CheckFail, "does not accept the client by client_secret_basic: status 401: invalid_client (refused: invalid_client); its metadata offers private_key_jwt")
	w.wantCheck(by, "pkce", broker.CheckSkipped, "nothing says")
	w.wantCheck(by, "issuer-in-response", broker.CheckSkipped, "RFC 9207")

	w.provider.SetMetadata("issuer", "https://another.example.com")
	w.provider.SetMetadata("code_challenge_methods_supported", []string{"plain"})
	by = w.test("cal")
	w.wantCheck(by, "issuer", broker.CheckFail, `"https://another.example.com"`)
	w.wantCheck(by, "pkce", broker.CheckFail, "plain and not S256")
	w.wantCheck(by, "client-authentication", broker.CheckFail, "issuer")

	w.provider.Queue(oauthtest.Metadata, oauthtest.Status(http.StatusNotFound, "nothing here"))
	by = w.test("cal")
	w.wantCheck(by, "metadata", broker.CheckFail, w.provider.URL)
	w.wantCheck(by, "client-authentication", broker.CheckSkipped, "metadata")

	keyed := w.createProvider("keyed", "StrictOauth2", byKey(nil), func(s *broker.ProviderSpec) {
		s.DiscoveryURL, s.Issuer, s.AuthorizationEndpoint, s.TokenEndpoint = "", w.provider.URL, w.provider.URL+"/authorize", w.provider.URL+"/token"
	})
	w.wantCheck(w.test("keyed"), "client-authentication", broker.CheckFail, "private_key_jwt")
	w.register(keyed)
	by = w.test("keyed")
	w.wantCheck(by, "metadata", broker.CheckSkipped, "endpoints were given")
	w.wantCheck(by, "client-authentication", broker.CheckPass, "private_key_jwt")
	w.wantCheck(by, "client-keys", broker.CheckSkipped, w.ClientKeysURL(keyed))

	_, err = w.TestProvider(t.Context(), w.agentA, "cal", secret.Text{})
	wantCode(t, "by an agent", err, fault.Denied)
	_, err = w.TestProvider(t.Context(), w.admin, "nobody", secret.Text{})
	wantCode(t, "unknown", err, fault.NotFound)
}

// What the provider answers to a code that does not exist, and what that tells of the client.
func TestTestProviderReadsTheRefusal(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		status int
		body   string
		want   broker.CheckStatus
		detail string
	}{
		{400, `{"error":"unauthorized_client"}`, broker.CheckPass, "does not allow it USER_FEDERATION"},
		{400, `{"error":"unsupported_grant_type"}`, broker.CheckSkipped, "no authorization code grant"},
		{400, `{"error":"invalid_request"}`, broker.CheckSkipped, "invalid_request"},
		{200, `{"error":"bad_verification_code"}`, broker.CheckPass, "accepts"},
		{200, `{"error":"incorrect_client_credentials"}`, broker.CheckFail, "incorrect_client_credentials"},
		{401, `Unauthorized`, broker.CheckFail, "status 401"},
		{404, `no such page`, broker.CheckSkipped, "status 404"},
		{503, `down`, broker.CheckFail, w.provider.URL},
		{200, `{"access_token":"at","token_type":"Bearer"}`, broker.CheckFail, "never issued"},
	} {
		w.provider.Queue(oauthtest.Token, oauthtest.Status(c.status, c.body))
		w.wantCheck(w.test("cal"), "client-authentication", c.want, c.detail)
	}
	w.provider.Queue(oauthtest.Token, oauthtest.Status(400, `{"error":"redirect_uri_mismatch"}`))
	w.wantCheck(w.test("cal"), "callback-url", broker.CheckFail, publicURL+"/identities/oauth2/callback/")
}

// E13: what an agent reads does not tell a closed port from a host that hangs up, and has no address; nor does what an
// administrator reads. The operator, who tests the provider as root of the installation's own account, is told them
// apart. The silent host is a test of package oauth.
func TestE13_ErrorsForAgentsNameNoAddresses(t *testing.T) {
	w := newWorld(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	rude, missing := oauthtest.New(t), oauthtest.New(t)
	for range 8 {
		rude.Queue(oauthtest.Metadata, oauthtest.Drop())
		missing.Queue(oauthtest.Metadata, oauthtest.Status(http.StatusNotFound, "not here"))
	}
	said := map[string]string{}
	agentReads := func(name, origin string) {
		t.Helper()
		_, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at(name), machine))
		if err == nil {
			t.Fatalf("%s: got a token", name)
		}
		said[name] = fault.Public(err).Msg
		for _, leak := range []string{"127.0.0.1", strings.TrimPrefix(origin, "http://127.0.0.1:"), "dial", "connection", "reset", "EOF"} {
			if strings.Contains(said[name], leak) {
				t.Errorf("%s: the message %q has %q", name, said[name], leak)
			}
		}
	}
	for name, origin := range map[string]string{"closed": "http://" + closed.Addr().String(), "rude": rude.URL, "missing": missing.URL} {
		w.createProvider(name, "StrictOauth2", func(s *broker.ProviderSpec) { s.DiscoveryURL = origin + oauthtest.Metadata })
		agentReads(name, origin)
		w.wantCheck(w.test(name), "metadata", broker.CheckFail, origin)
	}
	if said["closed"] != said["rude"] {
		t.Errorf("an agent can tell a closed port (%q) from a host that hangs up (%q)", said["closed"], said["rude"])
	}
	w.wantCheck(w.testBy(w.root, "closed"), "metadata", broker.CheckFail, "nothing listens there (dial tcp")
	w.wantHidden("closed", "metadata", "dial tcp")
	told := func(name, origin string) string {
		return strings.ReplaceAll(w.test(name)["metadata"].Detail, origin, "")
	}
	if c, r := told("closed", "http://"+closed.Addr().String()), told("rude", rude.URL); c != r {
		t.Errorf("an administrator can tell a closed port (%q) from a host that hangs up (%q)", c, r)
	}
	w.wantCheck(w.test("missing"), "metadata", broker.CheckFail, "HTTP 404")

	origin := "http://" + closed.Addr().String()
	w.createProvider("inline", "StrictOauth2", func(s *broker.ProviderSpec) {
		s.DiscoveryURL, s.Issuer, s.AuthorizationEndpoint, s.TokenEndpoint = "", origin, origin+"/authorize", origin+"/token"
	})
	agentReads("inline", origin)
	w.wantCheck(w.testBy(w.root, "inline"), "client-authentication", broker.CheckFail, "connection refused")
	w.wantHidden("inline", "client-authentication", "connection refused")
}

// wantHidden wants a failed check to give its reason to the log only.
func (w *world) wantHidden(name, check, reason string) {
	w.t.Helper()
	got := w.test(name)[check]
	if got.Status != broker.CheckFail || strings.Contains(got.Detail, reason) || !strings.Contains(got.Detail, "the operator finds the reason") {
		w.t.Errorf("%s of %s says %q, want it without %q", check, name, got.Detail, reason)
	}
	if got.Hidden == nil || !strings.Contains(got.Hidden.Error(), reason) {
		w.t.Errorf("%s of %s has for the log %v, want %q", check, name, got.Hidden, reason)
	}
}
