package oauth_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// journey is what a vendor with a script of its own is put through.
type journey struct {
	vendor     string
	scopes     []string
	sent       url.Values // of the authorization request, what must be there; an empty value must be absent
	granted    []string   // nil: not said
	lifetime   time.Duration
	attributes map[string]string
	refresh    []string // scopes of the refresh
	keeps      bool     // a refresh brings no new refresh token
	dead       string   // code or description that means a dead refresh token
	token      string   // how the access token must begin
}

func journeys() []journey {
	google := "https://www.googleapis.com/auth/userinfo.email"
	return []journey{
		{vendor: "GoogleOauth2", scopes: []string{"openid", "email"}, sent: url.Values{"access_type": {"offline"}, "prompt": {"consent"}},
			granted: []string{"openid", google}, lifetime: time.Hour, keeps: true, dead: "invalid_grant"},
		{vendor: "GithubOauth2", scopes: []string{"repo", "gist"}, sent: url.Values{"scope": {"repo gist"}},
			granted: []string{"repo", "gist"}, lifetime: time.Hour, dead: "bad_refresh_token"},
		{vendor: "SlackOauth2", scopes: []string{"chat:write", "users:read"}, sent: url.Values{"scope": {"chat:write,users:read"}, "user_scope": nil, "code_challenge": nil},
			granted: []string{"chat:write", "users:read"}, lifetime: 12 * time.Hour, dead: "invalid_refresh_token",
			attributes: map[string]string{"team.id": "T1", "team.name": "Team One", "app_id": "A1", "authed_user.id": "U1", "bot_user_id": "B1"}},
		{vendor: "SlackOauth2", scopes: []string{"user_scope:search:read", "user_scope:chat:write"}, sent: url.Values{"user_scope": {"search:read,chat:write"}, "scope": nil},
			granted: []string{"user_scope:search:read", "user_scope:chat:write"}, lifetime: 12 * time.Hour, dead: "invalid_refresh_token", token: "at-",
			attributes: map[string]string{"team.id": "T1", "team.name": "Team One", "app_id": "A1", "authed_user.id": "U1"}},
		{vendor: "SlackOauth2", scopes: []string{"commands", "user_scope:search:read"}, sent: url.Values{"user_scope": {"search:read"}, "scope": {"commands"}},
			granted: []string{"user_scope:search:read"}, lifetime: 12 * time.Hour, dead: "invalid_refresh_token", token: "at-",
			attributes: map[string]string{"team.id": "T1", "team.name": "Team One", "app_id": "A1", "authed_user.id": "U1", "bot_user_id": "B1"}},
		{vendor: "SalesforceOauth2", scopes: []string{"api", "refresh_token"}, granted: []string{"api", "refresh_token"}, keeps: true, dead: "invalid_grant",
			attributes: map[string]string{"instance_url": "https://example.my.salesforce.com", "id": "https://login.salesforce.com/id/00D/005"}},
		{vendor: oauthtest.Microsoft, scopes: []string{"User.Read", "offline_access"}, sent: url.Values{"code_challenge_method": {"S256"}},
			granted: []string{"User.Read"}, lifetime: time.Hour, refresh: []string{"User.Read", "offline_access"}, dead: "invalid_grant"},
		{vendor: "AtlassianOauth2", scopes: []string{"read:jira-work", "offline_access"}, sent: url.Values{"audience": {"api.atlassian.com"}, "prompt": {"consent"}},
			granted: []string{"read:jira-work", "offline_access"}, lifetime: time.Hour, dead: "invalid_grant"},
		{vendor: "XOauth2", scopes: []string{"tweet.read", "offline.access"}, sent: url.Values{"code_challenge_method": {"S256"}},
			granted: []string{"tweet.read", "offline.access"}, lifetime: time.Hour, dead: "invalid_grant"},
		{vendor: "RedditOauth2", scopes: []string{"identity", "read"}, sent: url.Values{"duration": {"permanent"}, "code_challenge": nil},
			granted: []string{"identity", "read"}, lifetime: time.Hour, keeps: true, dead: "invalid_grant"},
		{vendor: "TwitchOauth2", scopes: []string{"bits:read", "chat:read"}, granted: []string{"bits:read", "chat:read"}, lifetime: time.Hour, dead: "Invalid refresh token"},
		{vendor: "NotionOauth2", sent: url.Values{"owner": {"user"}, "scope": nil}, dead: "invalid_grant",
			attributes: map[string]string{"workspace_id": "workspace-1", "workspace_name": "Ada's", "bot_id": "bot-1"}},
		{vendor: "HubspotOauth2", scopes: []string{"oauth", "crm.objects.contacts.read"}, lifetime: 30 * time.Minute, keeps: true, dead: "invalid_grant",
			attributes: map[string]string{"hub_id": "1234567", "user_id": "89"}},
	}
}

// Each quirky vendor's entry of the catalogue works against a server that behaves as the vendor does: consent,
// redemption, refresh, and the refusal of a dead refresh token.
func TestVendorsByScript(t *testing.T) {
	catalogue, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	scripted := map[string]bool{}
	for _, j := range journeys() {
		scripted[j.vendor] = true
		t.Run(j.vendor+"/"+strings.Join(j.scopes, "+"), func(t *testing.T) { j.walk(t, catalogue) })
	}
	for _, v := range catalogue.Vendors() {
		if says := catalogue.Verified(v.Name) == oauth.ByScript; says != scripted[v.Name] {
			t.Errorf("%s: the catalogue says scripted: %v, and it is %v", v.Name, says, scripted[v.Name])
		}
	}
}

func (j journey) walk(t *testing.T, catalogue *oauth.Catalogue) {
	v, _ := catalogue.Vendor(j.vendor)
	server := oauthtest.NewVendor(t, j.vendor)
	c := newClient(t, oauth.Config{Dev: true, UserAgent: "tabard/1"})
	p := broker.Provider{Account: account, Name: "p", Vendor: v.Name, ClientID: oauthtest.ClientID, AuthMethod: v.AuthMethod}
	e := broker.Endpoints{Issuer: server.URL, Authorization: server.URL + "/authorize", Token: server.URL + oauthtest.Token}
	address, err := c.AuthorizationURL(e, p, v, broker.AuthorizationRequest{
		RedirectURI: redirectURI, Scopes: j.scopes, State: secret.New("state"), Verifier: secret.New(verifier)})
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(address)
	for name, want := range j.sent {
		if got := u.Query()[name]; !slices.Equal(got, want) {
			t.Errorf("the authorization request has %s=%q, want %q", name, got, want)
		}
	}
	answer, err := server.Approve(address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Redeem(t.Context(), e, p, v, secret.New("wrong-secret"), codeGrant("another"))
	if e := upstream(t, err); e.Kind != broker.Rejected {
		t.Errorf("a wrong client secret: got %+v, want Rejected", e)
	}
	first, err := c.Redeem(t.Context(), e, p, v, clientSecret(), codeGrant(answer.Get("code")))
	if err != nil {
		t.Fatalf("redeem: %v", err)
	}
	if first.RefreshToken.IsZero() || first.TokenType != "Bearer" || first.ExpiresIn != j.lifetime || !strings.HasPrefix(first.AccessToken.Expose(), j.token) {
		t.Errorf("redeem: got %+v", first)
	}
	if diff := cmp.Diff(j.granted, first.Scopes); diff != "" {
		t.Errorf("scopes (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(j.attributes, first.Attributes); diff != "" {
		t.Errorf("attributes (-want +got)\n%s", diff)
	}
	second, err := c.Refresh(t.Context(), e, p, v, clientSecret(), first.RefreshToken, broker.TokenRequest{Scopes: j.refresh})
	if err != nil {
		t.Fatalf("refresh: %v", err)
	}
	if second.AccessToken.IsZero() || second.AccessToken.Equal(first.AccessToken) || second.RefreshToken.IsZero() != j.keeps || second.ExpiresIn != j.lifetime {
		t.Errorf("refresh: got %+v", second)
	}
	server.RevokeAll()
	_, err = c.Refresh(t.Context(), e, p, v, clientSecret(), first.RefreshToken, broker.TokenRequest{})
	dead := upstream(t, err)
	if dead.Kind != broker.Rejected || dead.Code != j.dead && dead.Description != j.dead {
		t.Errorf("a dead refresh token: got %+v, want Rejected with %q", dead, j.dead)
	}
	if j.dead != "invalid_grant" && !slices.Contains(v.GrantErrors, j.dead) {
		t.Errorf("grantErrors %q do not have %q", v.GrantErrors, j.dead)
	}
}

func TestE15_VendorsAnswers(t *testing.T) {
	catalogue, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		vendor, body string
		kind         broker.UpstreamKind // "" for a token
		code         string
	}{
		"a form":                         {"GithubOauth2", "access_token=gho_1&scope=repo%2Cgist&token_type=bearer", "", ""},
		"a form with an error":           {"GithubOauth2", "error=bad_verification_code&error_description=incorrect", broker.Rejected, "bad_verification_code"},
		"a form with a member twice":     {"GithubOauth2", "access_token=a&access_token=b", broker.Unknown, ""},
		"a form in place of JSON":        {"GoogleOauth2", "access_token=a&token_type=bearer", broker.Unknown, ""},
		"a page in place of a form":      {"GithubOauth2", "<html><body>hello</body></html>", broker.Unknown, ""},
		"not UTF-8 in a form":            {"GithubOauth2", "access_token=%ff&token_type=bearer", broker.Unknown, ""},
		"ok is false, without an error":  {"SlackOauth2", `{"ok":false,"access_token":"a","token_type":"bot"}`, broker.Rejected, ""},
		"ok is a text":                   {"SlackOauth2", `{"ok":"true","access_token":"a","token_type":"bot"}`, broker.Rejected, ""},
		"ok is missing":                  {"SlackOauth2", `{"access_token":"a","token_type":"bot"}`, broker.Rejected, ""},
		"a nested token":                 {"SlackOauth2", `{"ok":true,"authed_user":{"access_token":"a","token_type":"user"}}`, "", ""},
		"a nested member twice":          {"SlackOauth2", `{"ok":true,"authed_user":{"access_token":"a","access_token":"b","token_type":"user"}}`, broker.Unknown, ""},
		"a nested token of another type": {"SlackOauth2", `{"ok":true,"authed_user":{"access_token":"a","token_type":"mac"}}`, broker.Unknown, ""},
		"no token anywhere":              {"SlackOauth2", `{"ok":true,"authed_user":{"id":"U1"}}`, broker.Unknown, ""},
		"the nested member is a text":    {"SlackOauth2", `{"ok":true,"authed_user":"U1","access_token":"a"}`, broker.Unknown, ""},
		"bot at another vendor":          {"GoogleOauth2", `{"access_token":"a","token_type":"bot"}`, broker.Unknown, ""},
	} {
		v, _ := catalogue.Vendor(row.vendor)
		grant, err := oauth.Classify(200, []byte(row.body), v)
		if row.kind == "" {
			if err != nil || grant.AccessToken.IsZero() {
				t.Errorf("%s: got %+v, %v, want a token", name, grant, err)
			}
			continue
		}
		if e := upstream(t, err); e.Kind != row.kind || e.Code != row.code {
			t.Errorf("%s: got %+v, want %s %q", name, e, row.kind, row.code)
		}
	}
}

// Attributes are taken only as texts and numbers, bounded and printable, and never cost the token.
func TestE15_OddAttributes(t *testing.T) {
	v := broker.Vendor{Attributes: []string{"a", "b.c", "n"}}
	for body, want := range map[string]map[string]string{
		`"a":"x","b":{"c":"y"},"n":7`:                    {"a": "x", "b.c": "y", "n": "7"},
		`"a":true,"b":"y","n":[1]`:                       nil,
		`"a":null,"b":{"c":null},"n":""`:                 nil,
		`"a":"x\ny","b":{"c":{"d":1}},"n":12345678901.5`: {"n": "12345678901.5"},
		`"a":"` + strings.Repeat("x", 513) + `"`:         nil,
		`"b":{"c":"1","c":"2"}`:                          nil,
	} {
		grant, err := oauth.Classify(200, []byte(`{"access_token":"t","token_type":"bearer",`+body+`}`), v)
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if diff := cmp.Diff(want, grant.Attributes); diff != "" {
			t.Errorf("%.40s (-want +got)\n%s", body, diff)
		}
	}
}

// FuzzE15_VendorsAnswers holds whatever a vendor with every quirk answers: no panic, and nothing but a well-formed
// grant with bounded attributes, or a bounded error.
func FuzzE15_VendorsAnswers(f *testing.F) {
	for _, seed := range []string{
		`{"ok":true,"authed_user":{"access_token":"a","token_type":"user","scope":"x,y"},"team":{"id":"T","n":1}}`, `{"ok":false,"message":"no"}`,
		"access_token=a&token_type=bearer&scope=x%2Cy", "error=bad&message=no", `{"ok":true,"access_token":"a","team":{"id":null},"n":1e400}`,
	} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
	}
	v := broker.Vendor{ScopeSeparator: ",", UserScopes: "user_scope", FormAnswer: true, OKMember: "ok", MessageName: "message",
		TokenMember: "authed_user", TokenTypes: []string{"bot", "user"}, Attributes: []string{"team.id", "n"}}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		g, err := oauth.Classify(status, body, v, secret.New("sent-secret"))
		if err != nil {
			e := upstream(t, err)
			if e.Kind == "" || e.Kind == broker.Unsent || len(e.Code) > 64 || len([]rune(e.Description)) > 256 || strings.Contains(e.Error(), "sent-secret") {
				t.Errorf("status %d: the error %+v is not clean", status, e)
			}
			return
		}
		if status < 200 || status > 299 || g.AccessToken.IsZero() || strings.ContainsAny(g.AccessToken.Expose()+g.RefreshToken.Expose(), "\r\n \x00") || len(g.Attributes) > 2 {
			t.Errorf("status %d: the grant %+v is not well-formed", status, g)
		}
		for name, value := range g.Attributes {
			if value == "" || len(value) > 512 || strings.ContainsAny(value, "\r\n\x00") {
				t.Errorf("status %d: the attribute %s is %q", status, name, value)
			}
		}
	})
}
