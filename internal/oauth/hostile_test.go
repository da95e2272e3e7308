package oauth_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// What an entry says must be what is done: a path where only a name is read would be another reading than the
// operator's; and what is for people to read is bounded, and acts on no terminal.
func TestL03_EntriesMeanWhatTheySay(t *testing.T) {
	c, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	const ends = `,"issuer":"https://i.example","authorizationEndpoint":"https://i.example/a","tokenEndpoint":"https://i.example/t"`
	for name, row := range map[string]struct{ more, want string }{
		"a path to the sign of success": {`,"okMember":"meta.ok"`, "names no member"},
		"a path to the token":           {`,"tokenMember":"data.user"`, "names no member"},
		"a path to the message":         {`,"messageName":"error.message"`, "names no member"},
		"a token in camel case":         {`,"attributes":["refreshToken"]`, "attribute"},
		"a token in capitals":           {`,"attributes":["ACCESS_TOKEN"]`, "attribute"},
		"a nested secret":               {`,"attributes":["app.clientSecret"]`, "attribute"},
		"a password":                    {`,"attributes":["password"]`, "attribute"},
		"an assertion":                  {`,"attributes":["jwt_assertion"]`, "attribute"},
		"too many notes":                {`,"notes":[` + strings.Repeat(`"x",`, 16) + `"x"]`, "at most 16"},
		"a note for a terminal":         {`,"notes":["\u001b[2Jgone"]`, "printable"},
		"a note without end":            {`,"notes":["` + strings.Repeat("x", 257) + `"]`, "256"},
		"an empty note":                 {`,"notes":[""]`, "sentence"},
		"a source that is a script":     {`,"sources":["javascript:alert(1)"]`, "https"},
	} {
		entry := `[{"name":"AcmeOauth2","config":"includedOauth2ProviderConfig","authMethod":"client_secret_post","verified":"documentation"` + ends + row.more + `}]`
		if _, err := c.WithOperators([]byte(entry)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, row.want)
		}
	}
}

// A vendor that repeats a token in a member that callers are given must not get it there.
func TestE15_NoTokenIsAnAttribute(t *testing.T) {
	v := broker.Vendor{TokenMember: "user", Attributes: []string{"key", "link", "user.id", "site"}}
	for body, want := range map[string]map[string]string{
		`{"access_token":"at-1234567","refresh_token":"rt-1234567","id_token":"id-1234567","key":"rt-1234567","link":"https://x/?t=at-1234567","site":"id-1234567"}`: nil,
		`{"access_token":"at-1234567","user":{"access_token":"ut-1234567","refresh_token":"ur-1234567","id":"ur-1234567"},"key":"at-1234567","link":"ut-1234567"}`:   nil,
		`{"access_token":"at-1234567","site":"https://x","key":7}`: {"site": "https://x", "key": "7"},
	} {
		grant, err := oauth.Classify(200, []byte(body), v)
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if diff := cmp.Diff(want, grant.Attributes); diff != "" {
			t.Errorf("%s (-want +got)\n%s", body, diff)
		}
	}
}

// Text that is not UTF-8 is refused in a form as in JSON: read loosely, two names become one.
func TestE15_FormsAreUTF8(t *testing.T) {
	v := broker.Vendor{FormAnswer: true, Attributes: []string{"team"}}
	for _, body := range []string{"access_token=a&team=%ff%fe", "access_token=a&%ff=1", "error=bad&error_description=%c3%28"} {
		if grant, err := oauth.Classify(200, []byte(body), v); err == nil || upstream(t, err).Kind != broker.Unknown {
			t.Errorf("%s: got %+v, %v, want Unknown", body, grant, err)
		}
	}
}

// A vendor whose failures come with status 200 says so too when it is only busy: that revocation is tried again.
func TestRevocationIsTriedAgainWhereTheVendorIsBusy(t *testing.T) {
	catalogue, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	v, _ := catalogue.Vendor("SlackOauth2")
	s := oauthtest.NewVendor(t, "SlackOauth2")
	c := newClient(t, oauth.Config{Dev: true})
	for body, want := range map[string]broker.UpstreamKind{
		`{"ok":false,"error":"internal_error"}`: broker.Busy, `{"ok":false,"error":"service_unavailable"}`: broker.Busy,
		`{"ok":false,"error":"ratelimited"}`: broker.Busy, `{"ok":false,"error":"request_timeout"}`: broker.Busy,
		`{"ok":false,"error":"fatal_error"}`: broker.Busy, `{"ok":false,"error":"invalid_auth"}`: broker.Rejected,
	} {
		s.Queue(oauthtest.Revoke, oauthtest.Status(200, body))
		err := c.Revoke(t.Context(), broker.Endpoints{Revocation: s.URL + "/api/auth.revoke"}, provider(s.URL), v, clientSecret(), secret.New(deadToken), "access_token")
		if up := upstream(t, err); up.Kind != want {
			t.Errorf("%s: got %+v, want %s", body, up, want)
		}
	}
	generic := oauthtest.New(t)
	for _, code := range []string{"temporarily_unavailable", "server_error"} { // RFC 6749 §4.1.2.1, which some send from here too
		generic.Queue(oauthtest.Revoke, oauthtest.Status(400, `{"error":"`+code+`"}`))
		if up := upstream(t, revoke(t, c, provider(generic.URL), generic.URL+oauthtest.Revoke)); up.Kind != broker.Busy {
			t.Errorf("%s: got %+v, want Busy", code, up)
		}
	}
}

// Twitch takes access tokens only, and says of a dead one what no standard says.
func TestTwitchsRevocation(t *testing.T) {
	catalogue, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	v, _ := catalogue.Vendor("TwitchOauth2")
	if v.Revoke.Token != "access_token" {
		t.Errorf("the entry revokes by %q", v.Revoke.Token)
	}
	s := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	for body, want := range map[string]broker.UpstreamKind{
		`{"status":400,"message":"Invalid token"}`: "", `{"status":400,"message":"missing client id"}`: broker.Rejected,
	} {
		s.Queue(oauthtest.Revoke, oauthtest.Status(400, body))
		err := c.Revoke(t.Context(), broker.Endpoints{Revocation: s.URL + oauthtest.Revoke}, provider(s.URL), v, clientSecret(), secret.New(deadToken), "access_token")
		if want == "" && err != nil || want != "" && upstream(t, err).Kind != want {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
	for name, want := range map[string]string{"Auth0Oauth2": "refresh_token", "CognitoOauth2": "refresh_token"} {
		if v, _ := catalogue.Vendor(name); v.Revoke.Token != want {
			t.Errorf("%s revokes by %q, want %q: it says yes to the other kind and does nothing, or refuses it", name, v.Revoke.Token, want)
		}
	}
}

// Scopes that come back are written into every audit record and shown to agents and people: only what RFC 6749 §3.3
// calls a scope passes, in an array also with a space, and not without end. Where something is left out, nothing is
// known (M02).
func TestE15_ScopesAreScopes(t *testing.T) {
	many := func(n int) (s string) {
		for i := range n {
			s += fmt.Sprintf(`"x%d",`, i)
		}
		return "[" + s + `"x0",""]`
	}
	for raw, want := range map[string]int{
		`["read","","with space","https://x/y","read"]`: 3, `["read","a\nb"]`: 0, `["read","\u202ex"]`: 0, `["read","quo\"te"]`: 0,
		`"read \u0007bell"`: 0, `"read ` + strings.Repeat("y", 600) + `"`: 0, `["\u0000"]`: 0, many(200): 200, many(201): 0,
	} {
		grant, err := oauth.Classify(200, []byte(`{"access_token":"t-1234567","scope":`+raw+`}`), broker.Vendor{})
		if err != nil {
			t.Fatal(err)
		}
		if grant.Scopes == nil || len(grant.Scopes) != want {
			t.Errorf("%.60s: got %d scopes, want %d, and never none said", raw, len(grant.Scopes), want)
		}
	}
}
