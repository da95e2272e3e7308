package oauth_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

var _ keyring.MetadataSource = (*oauth.Client)(nil)
var _ identity.UserInfoSource = (*oauth.Client)(nil)

// userInfo asks where the issuer's metadata says.
func userInfo(t *testing.T, c *oauth.Client, issuer, token string) (map[string]json.RawMessage, error) {
	t.Helper()
	m, err := c.IssuerMetadata(t.Context(), account, issuer, true)
	if err != nil {
		return nil, err
	}
	return c.UserInfo(t.Context(), account, m.UserInfo, secret.New(token))
}

func TestUserInfo(t *testing.T) {
	const token = "eyJ.user.jwt"
	for name, c := range map[string]struct {
		status     int
		kind, body string
		want       fault.Code
	}{
		"ok":              {200, "application/json; charset=utf-8", `{"sub":"alice","name":"A"}`, ""},
		"not accepted":    {401, "application/json", `{"error":"invalid_token","error_description":"` + token + `"}`, fault.Invalid},
		"down":            {503, "text/html", "x", fault.Unavailable},
		"a redirect":      {302, "", "", fault.Invalid},
		"signed":          {200, "application/jwt", "a.b.c", fault.Invalid},
		"a page":          {200, "text/html", "<html>", fault.Invalid},
		"two subs":        {200, "application/json", `{"sub":"alice","sub":"bob"}`, fault.Invalid},
		"a list":          {200, "application/json", `["alice"]`, fault.Invalid},
		"cut off":         {200, "application/json", `{"sub":"alice"`, fault.Invalid},
		"over 64 KiB":     {200, "application/json", `{"sub":"` + strings.Repeat("a", 65<<10) + `"}`, fault.Invalid},
		"something after": {200, "application/json", `{"sub":"alice"} {}`, fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := oauthtest.New(t)
			seen := make(chan string, 2)
			endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- r.Method + " " + r.Header.Get("Authorization")
				w.Header().Set("Content-Type", c.kind)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			t.Cleanup(endpoint.Close)
			s.SetMetadata("userinfo_endpoint", endpoint.URL+"/userinfo")
			client := oauth.New(oauth.Config{Dev: true})
			t.Cleanup(client.Close)
			claims, err := userInfo(t, client, s.URL, token)
			if fault.CodeOf(err) != c.want || err != nil && strings.Contains(err.Error(), token) {
				t.Fatalf("got %v, want code %q and not the token", err, c.want)
			}
			if err == nil && string(claims["sub"]) != `"alice"` {
				t.Errorf("got %s", claims["sub"])
			}
			if got := <-seen; got != "GET Bearer "+token || len(seen) != 0 {
				t.Errorf("got %q and %d requests more", got, len(seen))
			}
		})
	}
}

// E02: the address comes from a document that others write.
func TestE02_UserInfoEndpointIsDialledByTheRules(t *testing.T) {
	s := oauthtest.New(t)
	client := oauth.New(oauth.Config{Dev: true})
	t.Cleanup(client.Close)
	for address, want := range map[string]fault.Code{
		"https://169.254.169.254/latest": fault.Unavailable, "https://10.0.0.1/x": fault.Unavailable,
		"http://example.com/x": fault.Invalid, "https://u:p@example.com/": fault.Invalid, "file:///etc/passwd": fault.Invalid,
	} {
		s.SetMetadata("userinfo_endpoint", address)
		fresh := oauth.New(oauth.Config{Dev: true})
		_, err := userInfo(t, fresh, s.URL, "t")
		fresh.Close()
		if fault.CodeOf(err) != want {
			t.Errorf("%s: got %v, want code %s", address, err, want)
		}
	}
	s.SetMetadata("userinfo_endpoint", nil)
	if _, err := userInfo(t, client, s.URL, "t"); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("no endpoint: got %v", err)
	}
}
