package oauth_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// Each vendor that does not follow RFC 7009 to the letter takes its catalogue entry's request, and a token that is dead
// already counts as revoked.
func TestVendorsRevocations(t *testing.T) {
	catalogue, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		path   string
		client bool // the request names the client, and is refused with a wrong secret
	}{
		"GithubOauth2":   {"/applications/client/grant", true},
		"SlackOauth2":    {"/api/auth.revoke", false},
		"DropboxOauth2":  {"/2/auth/token/revoke", false},
		"FacebookOauth2": {"/v22.0/me/permissions", false},
		"NotionOauth2":   {"/revoke", true},
		"HubspotOauth2":  {"/token/revoke", true},
	} {
		t.Run(name, func(t *testing.T) {
			v, _ := catalogue.Vendor(name)
			server := oauthtest.NewVendor(t, name)
			c := newClient(t, oauth.Config{Dev: true})
			p := broker.Provider{Account: account, Name: "p", Vendor: v.Name, ClientID: oauthtest.ClientID, AuthMethod: v.AuthMethod}
			e := broker.Endpoints{Issuer: server.URL, Authorization: server.URL + "/authorize", Token: server.URL + oauthtest.Token, Revocation: server.URL + row.path}
			address, err := c.AuthorizationURL(e, p, v, broker.AuthorizationRequest{
				RedirectURI: redirectURI, Scopes: []string{"a"}, State: secret.New("state"), Verifier: secret.New(verifier)})
			if err != nil {
				t.Fatal(err)
			}
			answer, err := server.Approve(address)
			if err != nil {
				t.Fatal(err)
			}
			grant, err := c.Redeem(t.Context(), e, p, v, clientSecret(), codeGrant(answer.Get("code")))
			if err != nil {
				t.Fatal(err)
			}
			token, hint := grant.AccessToken, "access_token"
			if v.Revoke.Token == "refresh_token" {
				token, hint = grant.RefreshToken, "refresh_token"
			}
			if row.client {
				err := c.Revoke(t.Context(), e, p, v, secret.New("wrong-secret"), token, hint)
				if up := upstream(t, err); up.Kind != broker.Rejected {
					t.Errorf("a wrong client secret: got %+v, want Rejected", up)
				}
			}
			server.Queue(oauthtest.Revoke, oauthtest.Status(503, ""), oauthtest.Status(403, `{"error":"no_permission"}`), oauthtest.Drop())
			for _, want := range []broker.UpstreamKind{broker.Busy, broker.Rejected, broker.Unknown} {
				if up := upstream(t, c.Revoke(t.Context(), e, p, v, clientSecret(), token, hint)); up.Kind != want {
					t.Errorf("got %+v, want %s", up, want)
				}
			}
			for _, when := range []string{"valid", "dead"} {
				if err := c.Revoke(t.Context(), e, p, v, clientSecret(), token, hint); err != nil {
					t.Errorf("%s: %v", when, err)
				}
			}
			if got := server.Killed(); len(got) != 1 || got[0] != hint+":"+token.Expose() {
				t.Errorf("the vendor ended %d tokens, want the one", len(got))
			}
			if u, err := url.Parse(v.Revocation); err != nil || u.IsAbs() && strings.ReplaceAll(u.Path, "{client_id}", "client") != row.path {
				t.Errorf("the catalogue has %q, tested was %q", v.Revocation, row.path)
			}
		})
	}
}

// A 200 of Slack's is a revocation only with its sign, and what says nothing certain is tried again.
func TestRevocationNeedsItsSign(t *testing.T) {
	catalogue, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	v, _ := catalogue.Vendor("SlackOauth2")
	s := oauthtest.NewVendor(t, "SlackOauth2")
	c := newClient(t, oauth.Config{Dev: true})
	for body, want := range map[string]broker.UpstreamKind{
		`{"ok":true}`: "", `{"ok":false,"error":"token_revoked"}`: "", `{"ok":false,"error":"token_expired"}`: broker.Rejected,
		`{"ok":"true"}`: broker.Rejected, `{}`: broker.Rejected, `<html>`: broker.Unknown, `{"ok":true,"ok":false}`: broker.Unknown,
	} {
		s.Queue(oauthtest.Revoke, oauthtest.Status(200, body))
		err := c.Revoke(t.Context(), broker.Endpoints{Revocation: s.URL + "/api/auth.revoke"}, provider(s.URL), v, clientSecret(), secret.New(deadToken), "access_token")
		if want == "" && err != nil || want != "" && upstream(t, err).Kind != want {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

// Where a token may be sent to, and with what, is held by the schema: for our own entries and an operator's.
func TestL03_RevocationStaysWithTheVendorsHosts(t *testing.T) {
	c, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	const ends = `,"issuer":"https://i.example","authorizationEndpoint":"https://i.example/a","tokenEndpoint":"https://i.example/t"`
	const there = ends + `,"hosts":["api.i.example"],"revocation":"https://api.i.example/apps/{client_id}/grant"`
	entry := func(more string) []byte {
		return []byte(`[{"name":"AcmeOauth2","config":"includedOauth2ProviderConfig","authMethod":"client_secret_post","verified":"documentation"` + more + `}]`)
	}
	all, err := c.WithOperators(entry(there + `,"revoke":{"method":"DELETE","client":"client_secret_basic","token":"access_token","member":"access_token","json":true,"deadStatus":404}`))
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := all.Vendor("AcmeOauth2"); v.Revocation != "https://api.i.example/apps/{client_id}/grant" || v.Revoke.Method != "DELETE" || v.Revoke.DeadStatus != 404 {
		t.Errorf("got %+v", v)
	}
	at := func(address string) string { return ends + `,"hosts":["api.i.example"],"revocation":"` + address + `"` }
	for name, row := range map[string]struct{ more, want string }{
		"another host":           {at("https://evil.example/r"), "hosts"},
		"no hosts":               {ends + `,"revocation":"https://i.example/r"`, "hosts"},
		"a host of a host":       {at("https://api.i.example.evil.example/r"), "hosts"},
		"plain http":             {at("http://api.i.example/r"), "https"},
		"user information":       {at("https://api.i.example@evil.example/r"), "https"},
		"a port":                 {at("https://api.i.example:8443/r"), "https"},
		"a query":                {at("https://api.i.example/r?x=1"), "https"},
		"a host by client":       {at("https://{client_id}.example/r"), "https"},
		"another mark":           {at("https://api.i.example/{token}"), "https"},
		"up the path":            {at("https://api.i.example/../r"), "https"},
		"no scheme":              {at("//api.i.example/r"), "https"},
		"a tenant's":             {`,"tenant":true,"hosts":["api.i.example"],"revocation":"https://api.i.example/r"`, "not fixed"},
		"hosts for nothing":      {ends + `,"hosts":["api.i.example"],"revocation":"r"`, "none of them"},
		"a way to nowhere":       {ends + `,"revoke":{"token":"access_token"}`, "without revocation"},
		"GET":                    {there + `,"revoke":{"method":"GET"}`, "method"},
		"another client":         {there + `,"revoke":{"client":"none"}`, "client"},
		"another token":          {there + `,"revoke":{"token":"id_token"}`, "token"},
		"a refresh token shown":  {there + `,"revoke":{"bearer":true,"token":"refresh_token"}`, "bearer"},
		"a body beside bearer":   {there + `,"revoke":{"bearer":true,"token":"access_token","member":"t"}`, "bearer"},
		"the token as a secret":  {there + `,"revoke":{"member":"client_secret"}`, "client's"},
		"a success that is dead": {there + `,"revoke":{"deadStatus":200}`, "deadStatus"},
		"a refusal that is dead": {there + `,"revoke":{"deadStatus":401}`, "deadStatus"},
		"no pointer":             {there + `,"revoke":{"deadMember":"error"}`, "deadMember"},
		"an empty code":          {there + `,"revoke":{"dead":[""]}`, "dead"},
		"code":                   {there + `,"revoke":{"script":"x"}`, "unknown field"},
	} {
		if _, err := c.WithOperators(entry(row.more)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, row.want)
		}
	}
}
