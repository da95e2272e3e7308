package broker_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// loopbackVendor is a vendor of the catalogue whose endpoints are at the script that behaves as it does.
type loopbackVendor struct {
	broker.Catalogue
	name string
	url  string
}

func (l loopbackVendor) Vendor(name string) (broker.Vendor, bool) {
	v, ok := l.Catalogue.Vendor(name)
	if name == l.name {
		v.Issuer, v.AuthorizationEndpoint, v.TokenEndpoint = l.url, l.url+"/authorize", l.url+oauthtest.Token
		if rest, ok := strings.CutPrefix(v.Revocation, "https://"); ok {
			v.Revocation = l.url + rest[strings.Index(rest, "/"):]
		}
	}
	return v, ok
}

// vendorWorld has the provider "v" of the vendor, at a script of it.
func vendorWorld(t *testing.T, name, member string) *world {
	t.Helper()
	script := oauthtest.NewVendor(t, name)
	w := newWorld(t, func(c *broker.Config) { c.Catalogue = loopbackVendor{c.Catalogue, name, script.URL} })
	w.provider = script
	w.createProvider("v", name, func(s *broker.ProviderSpec) { s.Member, s.DiscoveryURL = member, "" })
	return w
}

func userScopes(list string) func(*broker.Request) {
	return func(r *broker.Request) { r.CustomParameters = map[string]secret.Text{"user_scope": secret.New(list)} }
}

// A bot's token never serves a request for the user's, nor the reverse; and what the vendor said beside the token is in
// each answer, also after a refresh that does not repeat it.
func TestSlackUserTokens(t *testing.T) {
	w := vendorWorld(t, "SlackOauth2", "slackOauth2ProviderConfig")
	bot := w.consent("alice", at("v"), scopes("chat:write"))
	if want := []string{"chat:write"}; !cmp.Equal(bot.Granted, want) {
		t.Errorf("granted %q, want %q", bot.Granted, want)
	}
	wat := w.wat(w.agentA, "alice")
	w.pending(w.agentA, ask(wat, at("v"), scopes(), userScopes("search:read")))

	user := w.consent("bob", at("v"), scopes(), userScopes("search:read,files:read"))
	if want := []string{"user_scope:search:read", "user_scope:files:read"}; !cmp.Equal(user.Granted, want) {
		t.Errorf("granted %q, want %q", user.Granted, want)
	}
	wat = w.wat(w.agentA, "bob")
	again := w.token(w.agentA, ask(wat, at("v"), scopes("user_scope:files:read")))
	if !again.AccessToken.Equal(user.AccessToken) {
		t.Error("the user's scope in scopes and in user_scope are not the same")
	}
	w.pending(w.agentA, ask(wat, at("v"), scopes("chat:write")))
	w.clock.add(13 * time.Hour)
	wat = w.wat(w.agentA, "bob")
	fresh := w.token(w.agentA, ask(wat, at("v"), scopes(), userScopes("search:read")))
	if fresh.AccessToken.Equal(user.AccessToken) || !cmp.Equal(fresh.Granted, user.Granted) || fresh.Attributes["authed_user.id"] != "U1" || fresh.Attributes["team.id"] != "T1" {
		t.Errorf("after the refresh: got %+v", fresh)
	}
	w.provider.RevokeAll()
	w.clock.add(13 * time.Hour)
	wat = w.wat(w.agentA, "bob")
	out := w.pending(w.agentA, ask(wat, at("v"), scopes(), userScopes("search:read")))
	v, err := w.Authorize(t.Context(), out.Session)
	must(t, err)
	if q := query(t, v.URL); q.Get("scope") != "" || q.Get("user_scope") != "search:read" { // its tokens are dead: no more than the request
		t.Errorf("the new consent asks for scope %q and user_scope %q", q.Get("scope"), q.Get("user_scope"))
	}
}

// A vendor's own words for a dead refresh token ask the user again, as invalid_grant does.
func TestVendorsDeadRefreshTokens(t *testing.T) {
	for name, member := range map[string]string{
		"GithubOauth2": "githubOauth2ProviderConfig", "TwitchOauth2": "includedOauth2ProviderConfig", "HubspotOauth2": "includedOauth2ProviderConfig",
	} {
		w := vendorWorld(t, name, member)
		w.consent("alice", at("v"))
		w.provider.RevokeAll()
		w.clock.add(24 * time.Hour)
		wat := w.wat(w.agentA, "alice")
		w.pending(w.agentA, ask(wat, at("v")))
	}
}

// What a vendor answers beside the token is sealed, bound to its place and its generation, and part of each answer.
func TestVendorAttributesAreSealed(t *testing.T) {
	w := vendorWorld(t, "SalesforceOauth2", "salesforceOauth2ProviderConfig")
	out := w.consent("alice", at("v"), scopes("api", "refresh_token"))
	want := map[string]string{"instance_url": "https://example.my.salesforce.com", "id": "https://login.salesforce.com/id/00D/005"}
	if diff := cmp.Diff(want, out.Attributes); diff != "" {
		t.Errorf("attributes (-want +got)\n%s", diff)
	}
	if !out.Expires.IsZero() {
		t.Errorf("expires at %v, which Salesforce does not say", out.Expires)
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "*"))
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		if bytes.Contains(b, []byte("example.my.salesforce.com")) {
			t.Errorf("%s holds an attribute in clear", filepath.Base(f))
		}
	}
	c := w.connection(out.Connection)
	c.Attributes = c.Access
	must(t, w.db.SwapConnection(t.Context(), c, c.Generation))
	wat := w.wat(w.agentA, "alice")
	_, err = w.Token(t.Context(), w.agentA, ask(wat, at("v"), scopes("api")))
	wantCode(t, "moved attributes", err, fault.Internal)
}

func TestMicrosoftTenant(t *testing.T) {
	w := newWorld(t)
	spec := func(tenant string) broker.ProviderSpec {
		return broker.ProviderSpec{Name: "ms" + tenant, Vendor: "MicrosoftOauth2", Member: "microsoftOauth2ProviderConfig", ClientID: "c", Secret: secret.New("s"), Tenant: tenant}
	}
	for tenant, want := range map[string]string{
		"": "https://login.microsoftonline.com/common/oauth2/v2.0/token", "f8cdef31": "https://login.microsoftonline.com/f8cdef31/oauth2/v2.0/token",
	} {
		p, err := w.CreateProvider(t.Context(), w.admin, spec(tenant))
		must(t, err)
		if p.TokenEndpoint != want {
			t.Errorf("tenant %q: got %s, want %s", tenant, p.TokenEndpoint, want)
		}
	}
	for _, tenant := range []string{"../x", "a/b", "a?b", "..", "a b", "é", "{tenantId}"} {
		s := spec(tenant)
		s.Name = "bad"
		_, err := w.CreateProvider(t.Context(), w.admin, s)
		wantError(t, tenant, err, fault.Invalid, "tenant")
	}
	s := spec("")
	s.Name, s.TokenEndpoint = "moved", "https://evil.example/token"
	_, err := w.CreateProvider(t.Context(), w.admin, s)
	wantError(t, "an endpoint of one's own", err, fault.Invalid, "fixed")
}
