package oauth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

const deadToken = "rt-5f0c1d8e7a2b4c6d"

func revoke(t *testing.T, c *oauth.Client, p broker.Provider, endpoint string) error {
	t.Helper()
	return c.Revoke(t.Context(), broker.Endpoints{Revocation: endpoint}, p, broker.Vendor{}, clientSecret(), secret.New(deadToken), "refresh_token")
}

func TestRevoke_RFC7009_2(t *testing.T) {
	s := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	for _, method := range []broker.AuthMethod{broker.AuthBasic, broker.AuthPost} {
		p := provider(s.URL)
		p.AuthMethod = method
		if err := revoke(t, c, p, s.URL+oauthtest.Revoke); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	if got := s.Killed(); len(got) != 2 || got[0] != "refresh_token:"+deadToken {
		t.Errorf("the endpoint got %q", got)
	}
	for name, f := range map[string]struct {
		fault oauthtest.Fault
		kind  broker.UpstreamKind // "" where it is revoked
	}{
		"200 with a page":   {oauthtest.Status(200, "<html>"), ""},
		"204":               {oauthtest.Status(204, ""), ""},
		"dead, by Google":   {oauthtest.Status(400, `{"error":"invalid_token"}`), ""},
		"refused":           {oauthtest.Status(400, `{"error":"unsupported_token_type"}`), broker.Rejected},
		"no such page":      {oauthtest.Status(404, "<html>"), broker.Rejected},
		"client refused":    {oauthtest.Status(401, `{"error":"invalid_client"}`), broker.Rejected},
		"busy":              {oauthtest.Status(503, ""), broker.Busy},
		"redirect":          {oauthtest.Redirect(307, "/elsewhere"), broker.Rejected},
		"no answer":         {oauthtest.Drop(), broker.Unknown},
		"not HTTP":          {oauthtest.Garbage("hello\r\n\r\n"), broker.Unknown},
		"endless, with 200": {oauthtest.Oversized(1 << 20), ""},
	} {
		s.Queue(oauthtest.Revoke, f.fault)
		err := revoke(t, c, provider(s.URL), s.URL+oauthtest.Revoke)
		up, _ := errors.AsType[*broker.UpstreamError](err)
		switch {
		case f.kind == "" && err != nil:
			t.Errorf("%s: got %v, want it revoked", name, err)
		case f.kind != "" && (up == nil || up.Kind != f.kind):
			t.Errorf("%s: got %v, want %s", name, err, f.kind)
		}
	}
}

// E02: the address comes from a document that others write.
func TestE02_RevocationEndpointIsDialledByTheRules(t *testing.T) {
	s := oauthtest.New(t)
	c := newClient(t, oauth.Config{})
	for _, endpoint := range []string{s.URL + oauthtest.Revoke, "https://user@p.example/revoke", "https://p.example/revoke#x", "file:///etc/passwd", ""} {
		if err := revoke(t, c, provider(s.URL), endpoint); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want it refused", endpoint, err)
		}
	}
	err := revoke(t, c, provider(s.URL), strings.Replace(s.URL, "http:", "https:", 1)+oauthtest.Revoke)
	if up, ok := errors.AsType[*broker.UpstreamError](err); !ok || up.Kind != broker.Unsent || s.Hits(oauthtest.Revoke) != 0 {
		t.Errorf("loopback outside development: %v", err)
	}
}

func TestRevokeErrorHasNoSecret(t *testing.T) {
	s := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	s.Queue(oauthtest.Revoke, func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_request","error_description":"saw ` + r.PostForm.Get("token") + ` and ` + r.Header.Get("Authorization") + `"}`))
	})
	err := revoke(t, c, provider(s.URL), s.URL+oauthtest.Revoke)
	if err == nil || strings.Contains(err.Error(), deadToken) || strings.Contains(err.Error(), oauthtest.ClientSecret) || !strings.Contains(err.Error(), "saw [secret]") {
		t.Errorf("got %v", err)
	}
}
