package oauth_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/oauth"
)

func TestCatalogue(t *testing.T) {
	c, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	client := newClient(t, oauth.Config{})
	for _, v := range c.Vendors() {
		got = append(got, v.Name)
		same, ok := c.Vendor(v.Name)
		if !ok || !cmp.Equal(same, v) || c.Verified(v.Name) == "" {
			t.Errorf("%s: Vendor gives %+v, %v, verified %q", v.Name, same, ok, c.Verified(v.Name))
		}
		if v.ScopeSeparator == "" || v.RefreshRotates == "" || v.AuthMethod == "" {
			t.Errorf("%s: a default is missing in %+v", v.Name, v)
		}
		if v.TokenEndpoint != "" {
			p := broker.Provider{Account: account, Name: v.Name, Issuer: v.Issuer, AuthorizationEndpoint: v.AuthorizationEndpoint, TokenEndpoint: v.TokenEndpoint}
			if _, err := client.Endpoints(t.Context(), p); err != nil {
				t.Errorf("%s: %v", v.Name, err)
			}
		}
	}
	want := strings.Fields(`GoogleOauth2 GithubOauth2 SlackOauth2 SalesforceOauth2 MicrosoftOauth2 CustomOauth2 AtlassianOauth2 LinkedinOauth2
		XOauth2 OktaOauth2 OneLoginOauth2 PingOneOauth2 FacebookOauth2 YandexOauth2 RedditOauth2 ZoomOauth2 TwitchOauth2 SpotifyOauth2
		DropboxOauth2 NotionOauth2 HubspotOauth2 CyberArkOauth2 FusionAuthOauth2 Auth0Oauth2 CognitoOauth2`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("vendors (-want +got)\n%s", diff)
	}
	if _, ok := c.Vendor("googleoauth2"); ok {
		t.Error("a name in another case was found")
	}
	for name, want := range map[string]string{
		"OktaOauth2": "prompt display ui_locales claims_locales", "GoogleOauth2": "prompt display ui_locales claims_locales access_type approval_prompt",
	} {
		if v, _ := c.Vendor(name); strings.Join(v.Presentation, " ") != want {
			t.Errorf("%s: what only presents is %q, want %q", name, v.Presentation, want)
		}
	}
	google, _ := c.Vendor("GoogleOauth2")
	google.Presentation[0] = "organization"
	google.AuthorizeParams["prompt"] = "changed"
	if again, _ := c.Vendor("GoogleOauth2"); again.AuthorizeParams["prompt"] != "consent" {
		t.Error("the catalogue can be changed through an answer")
	} else if again.Presentation[0] != "prompt" {
		t.Error("what only presents can be changed through an answer")
	}
}

func TestCatalogueSchema(t *testing.T) {
	const fixed = `"name":"A","config":"c","authMethod":"none","verified":"real"`
	for body, want := range map[string]string{
		`{}`:                                "cannot unmarshal",
		`[{` + fixed + `,"tokenURL":"x"}]`:  "unknown field",
		`[{` + fixed + `}] []`:              "after the end",
		`[{` + fixed + `},{` + fixed + `}]`: "twice",
		`[{"name":"A"}]`:                    "required",
		`[{"name":"A","config":"c"}]`:       "authMethod",
		`[{"name":"A","config":"c","authMethod":"none"}]`:                                                                          "verified",
		`[{` + fixed + `,"rotation":"sometimes"}]`:                                                                                 "rotation",
		`[{` + fixed + `,"tokenEndpoint":"https://x/t"}]`:                                                                          "endpoint",
		`[{` + fixed + `,"issuer":"https://x","authorizationEndpoint":"https://x/a","tokenEndpoint":"http://x/t"}]`:                "not https",
		`[{` + fixed + `,"tenant":true,"issuer":"https://x","authorizationEndpoint":"https://x/a","tokenEndpoint":"https://x/t"}]`: "tenant",
		`[{` + fixed + `,"issuer":"https://{tenantId}","authorizationEndpoint":"https://x/a","tokenEndpoint":"https://x/t"}]`:      "go together",
		`[{` + fixed + `,"authorizeParams":{"State":"x"}}]`:                                                                        "broker sets",
		`[{` + fixed + `,"presentation":["State"]}]`:                                                                               "broker sets",
		`[{` + fixed + `,"presentation":["user.scope"]}]`:                                                                          "widen a token",
		`[{` + fixed + `,"presentation":["login-hint"]}]`:                                                                          "chooses whose token",
		`[{` + fixed + `,"presentation":["a b"]}]`:                                                                                 "no name of a parameter",
		`[{` + fixed + `,"presentation":["a"` + strings.Repeat(`,"a"`, 16) + `]}]`:                                                 "at most 16",
	} {
		if _, err := oauth.ParseCatalogue(body); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", body, err, want)
		}
	}
	if _, err := oauth.ParseCatalogue(oauth.CatalogueJSON()); err != nil {
		t.Error(err)
	}
}

// An operator's own vendor is data under the rules of ours: it cannot stand in for one of ours, set what the broker
// sets, name an address that is not https, or turn a token that is bound to a key into one that is not.
func TestL03_OperatorsVendors(t *testing.T) {
	c, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	const ends = `"issuer":"https://i.example","authorizationEndpoint":"https://i.example/a","tokenEndpoint":"https://i.example/t"`
	entry := func(name, more string) []byte {
		return []byte(`[{"name":"` + name + `","config":"includedOauth2ProviderConfig","authMethod":"none","verified":"documentation"` + more + `}]`)
	}
	all, err := c.WithOperators(entry("AcmeOauth2", ","+ends+`,"noPkce":true,"authorizeParams":{"team":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := all.Vendor("AcmeOauth2"); !ok || v.TokenEndpoint != "https://i.example/t" || !v.NoPKCE || len(all.Vendors()) != 26 {
		t.Errorf("got %+v, %v and %d vendors", v, ok, len(all.Vendors()))
	}
	if _, ok := c.Vendor("AcmeOauth2"); ok {
		t.Error("the first catalogue was changed")
	}
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"a built-in name":            {entry("GoogleOauth2", ","+ends), "built-in"},
		"no endpoints":               {entry("A", ""), "endpoints"},
		"another member":             {[]byte(strings.Replace(string(entry("A", ","+ends)), "includedOauth2", "customOauth2", 1)), "config is"},
		"plain http":                 {entry("A", strings.Replace(","+ends, "https://i.example/t", "http://i.example/t", 1)), "https"},
		"user information":           {entry("A", strings.Replace(","+ends, "https://i.example/t", "https://me@i.example/t", 1)), "endpoint"},
		"a tenant that is the host":  {entry("A", `,"defaultTenant":"x","issuer":"https://{tenantId}.example","authorizationEndpoint":"https://{tenantId}.example","tokenEndpoint":"https://{tenantId}.example"`), "path"},
		"code":                       {entry("A", ","+ends+`,"script":"x"`), "unknown field"},
		"a header of ours":           {entry("A", ","+ends+`,"tokenHeaders":{"Authorization":"Basic x"}`), "User-Agent"},
		"another host":               {entry("A", ","+ends+`,"tokenHeaders":{"Host":"x"}`), "User-Agent"},
		"a second line in a header":  {entry("A", ","+ends+`,"tokenHeaders":{"User-Agent":"a\r\nHost: b"}`), "User-Agent"},
		"a parameter of the broker":  {entry("A", ","+ends+`,"authorizeParams":{"redirect_uri":"https://x"}`), "broker sets"},
		"scopes as the redirect URI": {entry("A", ","+ends+`,"userScopes":"redirect_uri"`), "userScopes"},
		"a bound token":              {entry("A", ","+ends+`,"tokenTypes":["DPoP"]`), "bearer"},
		"a token as an attribute":    {entry("A", ","+ends+`,"attributes":["authed_user.refresh_token"]`), "attribute"},
		"a strange separator":        {entry("A", ","+ends+`,"scopeSeparator":"&state=1 "`), "separated"},
		"a name with a path":         {entry("../A", ","+ends), "letters"},
		"no resource by default":     {entry("A", ","+ends+`,"resources":{"free":["openid"]}`), "default"},
		"a resource that is none":    {entry("A", ","+ends+`,"resources":{"default":"https://r.example/"}`), "default"},
		"an alias of no resource":    {entry("A", ","+ends+`,"resources":{"default":"r","aliases":{"x":""}}`), "names no resource"},
		"two scopes that are free":   {entry("A", ","+ends+`,"resources":{"default":"r","free":["a b"]}`), "no scope"},
		"not UTF-8":                  {[]byte("\xff"), "UTF-8"},
		"too large":                  {[]byte(strings.Repeat(" ", 1<<20+1)), "larger"},
		"two documents":              {append(entry("A", ","+ends), entry("B", ","+ends)...), "after the end"},
	} {
		if _, err := c.WithOperators(row.data); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, row.want)
		}
	}
}
