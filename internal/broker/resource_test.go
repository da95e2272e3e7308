package broker_test

import (
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// entraWorld has the provider "v" of Microsoft, at a script that behaves as Microsoft Entra does.
func entraWorld(t *testing.T) *world {
	t.Helper()
	return vendorWorld(t, oauthtest.Microsoft, "microsoftOauth2ProviderConfig")
}

// No token serves two resources, so that a request for both is refused before a browser is sent, and says what to do.
func TestM05_TwoResourcesInOneRequest(t *testing.T) {
	w := entraWorld(t)
	wat := w.wat(w.agentA, "alice")
	const one = "https://graph.microsoft.com"
	for name, row := range map[string]struct {
		scopes []string
		other  string // the second resource; "" where there is one only
	}{
		"bare and in full":                {[]string{"User.Read", one + "/Mail.Read"}, ""},
		"with a slash too many":           {[]string{one + "//.default", "User.Read"}, ""},
		"the host in another case":        {[]string{"https://Graph.Microsoft.com/User.Read", "Mail.Read"}, ""},
		"by the application's id":         {[]string{"00000003-0000-0000-c000-000000000000/User.Read", "Mail.Read"}, ""},
		"scopes of OpenID Connect":        {[]string{"openid", "profile", "email", "offline_access", "api://x/read"}, ""},
		"a path in the resource":          {[]string{"https://a.example/one/api/Read", "https://a.example/one/api/Write"}, ""},
		"two APIs":                        {[]string{"User.Read", "api://x/read"}, "api://x"},
		"two APIs behind OpenID scopes":   {[]string{"openid", "api://x/read", "email", "api://y/read"}, "api://y"},
		"all of one and one of another":   {[]string{"User.Read", "api://x/.default"}, "api://x"},
		"two paths":                       {[]string{"https://a.example/one/Read", "https://a.example/two/Read"}, "https://a.example/two"},
		"two paths that differ in case":   {[]string{"https://a.example/one/Read", "https://a.example/One/Read"}, "https://a.example/One"},
		"two schemes":                     {[]string{"https://x/read", "api://x/read"}, "api://x"},
		"one that only looks like OIDC's": {[]string{"User.Read", "api://x/openid"}, "api://x"},
	} {
		for _, change := range []func(*broker.Request){func(*broker.Request) {}, machine} {
			_, err := w.Token(t.Context(), w.agentA, ask(wat, at("v"), scopes(row.scopes...), change))
			if row.other == "" {
				if fault.Public(err).Field == "scopes" {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			wantError(t, name, err, fault.Invalid, row.other)
			wantError(t, name, err, fault.Invalid, "a call of its own")
		}
	}
	if n := w.grants("refresh_token"); n != 0 {
		t.Errorf("%d refreshes, want none", n)
	}
	// Vendors whose tokens are for no one resource know no such thing.
	w.pending(w.agentA, ask(wat, scopes("User.Read", "api://x/read")))
}
