package oauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

var (
	_ broker.Upstream    = (*oauth.Client)(nil)
	_ identity.KeySource = (*oauth.Client)(nil)
	_ broker.Catalogue   = (*oauth.Catalogue)(nil)
)

// clock is a time that only the test moves.
type clock struct {
	mu sync.Mutex // guards at
	at time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestEndpointsByDiscovery(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	want := broker.Endpoints{Issuer: server.URL, Authorization: server.URL + "/authorize", Token: server.URL + "/token", Revocation: server.URL + "/revoke", IssInResponse: true}
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		p := provider(server.URL)
		p.DiscoveryURL = server.URL + path
		got, err := c.Endpoints(t.Context(), p)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", path, err, diff)
		}
	}
}

func TestC14_IssuerMustBelongToTheDiscoveryURL(t *testing.T) {
	for _, row := range []struct {
		path, issuer string // both after the server's address
		usable       bool
	}{
		{"/.well-known/openid-configuration", "", true},
		{"/.well-known/openid-configuration", "/", true},
		{"/.well-known/openid-configuration", "/tenant", false},
		{"/.well-known/openid-configuration", ".evil.example", false},
		{"/.well-known/oauth-authorization-server", "", true},
		{"/tenant/.well-known/openid-configuration", "/tenant", true},
		{"/tenant/.well-known/openid-configuration", "/tenant/", true},
		{"/tenant/.well-known/openid-configuration", "", false},
		{"/tenant/.well-known/openid-configuration", "/Tenant", false},
		{"/.well-known/oauth-authorization-server/tenant", "/tenant", true},
		{"/.well-known/oauth-authorization-server/tenant", "/tenant/", true},
		{"/.well-known/oauth-authorization-server/tenant", "/other", false},
		{"/.well-known/oauth-authorization-server/tenant", "", false},
		{"/.well-known/openid-configuration/tenant", "/tenant", true},
		{"/a/.well-known/oauth-authorization-server/tenant", "/a/tenant", false},
		{"/.well-known/openid-configurationX", "", false},
		{"/.well-known/openid-configuration?x=1", "", false},
		{"/metadata", "", false},
	} {
		var server string
		mux := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q}`, server+row.issuer, server+"/a", server+"/t")
		})
		server = serve(t, mux)
		_, err := newClient(t, oauth.Config{Dev: true}).Endpoints(t.Context(), broker.Provider{Account: account, Name: "p", DiscoveryURL: server + row.path})
		if row.usable && err != nil || !row.usable && !errors.Is(err, fault.Invalid) {
			t.Errorf("%s with issuer %q: got %v, want usable %v", row.path, row.issuer, err, row.usable)
		}
	}
}

func TestC16_PKCEMethods(t *testing.T) {
	for _, row := range []struct {
		methods any
		usable  bool
	}{
		{nil, true}, {[]string{}, true}, {[]string{"S256"}, true}, {[]string{"plain", "S256"}, true},
		{[]string{"plain"}, false}, {[]string{"s256"}, false}, {"S256", false}, {[]int{1}, false},
	} {
		server := oauthtest.New(t)
		server.SetMetadata("code_challenge_methods_supported", row.methods)
		_, err := newClient(t, oauth.Config{Dev: true}).Endpoints(t.Context(), provider(server.URL))
		if row.usable && err != nil || !row.usable && !errors.Is(err, fault.Invalid) {
			t.Errorf("methods %v: got %v, want usable %v", row.methods, err, row.usable)
		}
	}
}

func TestE02_EndpointsOfMetadataAreChecked(t *testing.T) {
	for _, bad := range []string{"http://provider.example/x", "https://user@provider.example/x", "https://u:p@provider.example/x", "https://provider.example/x#f",
		"https://provider.example/x#", "https:///x", "https:x", "//provider.example/x", "/x", "ftp://provider.example/x", "javascript:alert(1)",
		"file:///etc/passwd", "https://provider.example:0/x", "https://provider.example:99999/x", "https://provider.example\n/x",
		"https://provider.example/" + strings.Repeat("x", 3000)} {
		for _, name := range []string{"token_endpoint", "authorization_endpoint"} {
			server := oauthtest.New(t)
			server.SetMetadata(name, bad)
			c := newClient(t, oauth.Config{Dev: true})
			if _, err := c.Endpoints(t.Context(), provider(server.URL)); !errors.Is(err, fault.Invalid) {
				t.Errorf("%s %.40q: got %v, want Invalid", name, bad, err)
			}
			inline := broker.Provider{Account: account, Name: "p", TokenEndpoint: "https://ok.example/t", AuthorizationEndpoint: "https://ok.example/a"}
			if name == "token_endpoint" {
				inline.TokenEndpoint = bad
			} else {
				inline.AuthorizationEndpoint = bad
			}
			if _, err := c.Endpoints(t.Context(), inline); !errors.Is(err, fault.Invalid) {
				t.Errorf("inline %s %.40q: got %v, want Invalid", name, bad, err)
			}
		}
		server := oauthtest.New(t)
		server.SetMetadata("jwks_uri", bad)
		if _, err := newClient(t, oauth.Config{Dev: true}).JWKS(t.Context(), account, server.URL, ""); !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("jwks_uri %.40q: got %v, want Unauthenticated", bad, err)
		}
	}
}

func TestEndpointsInline(t *testing.T) {
	c := newClient(t, oauth.Config{})
	got, err := c.Endpoints(t.Context(), broker.Provider{Account: account, Issuer: "https://i.example", TokenEndpoint: "https://i.example/t?x=1", AuthorizationEndpoint: "https://i.example/a"})
	want := broker.Endpoints{Issuer: "https://i.example", Authorization: "https://i.example/a", Token: "https://i.example/t?x=1"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if _, err := c.Endpoints(t.Context(), broker.Provider{Account: account, Issuer: "https://i.example", AuthorizationEndpoint: "https://i.example/a"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("without a token endpoint: got %v, want Invalid", err)
	}
}

func TestMetadataIsCached(t *testing.T) {
	server := oauthtest.New(t)
	at := &clock{at: time.Unix(1_700_000_000, 0)}
	c := newClient(t, oauth.Config{Dev: true, Now: at.Now})
	hits := 0
	step := func(name string, wait time.Duration, wantHit, wantOK bool) {
		t.Helper()
		at.advance(wait)
		_, err := c.Endpoints(t.Context(), provider(server.URL))
		if got := server.Hits(oauthtest.Metadata); (got > hits) != wantHit || (err == nil) != wantOK {
			t.Errorf("%s: got %d fetches and %v, want fetch %v, success %v", name, got-hits, err, wantHit, wantOK)
		}
		hits = server.Hits(oauthtest.Metadata)
	}
	step("first", 0, true, true)
	step("within ten minutes", 10*time.Minute-time.Second, false, true)
	step("after ten minutes", time.Second, true, true)
	server.Queue(oauthtest.Metadata, oauthtest.Status(500, ""), oauthtest.Status(404, "{}"), oauthtest.Answer("<html>"))
	step("old because it fails", 10*time.Minute, true, true)
	step("no second try within 30 seconds", 30*time.Second-1, false, true)
	step("a second try", 1, true, true)
	step("old for a day", 24*time.Hour-11*time.Minute, true, true)
	server.Queue(oauthtest.Metadata, oauthtest.Status(503, ""), oauthtest.Status(404, ""))
	step("not longer", time.Minute, true, false)
	step("the failure is kept", 29*time.Second, false, false)
	step("and tried again", time.Second, true, false)
	step("until it works", 30*time.Second, true, true)
	step("and is fresh", 9*time.Minute, false, true)
}

func TestMetadataIsFetchedOnceForAll(t *testing.T) {
	server := oauthtest.New(t)
	release, gone := make(chan struct{}), make(chan struct{})
	slow := oauthtest.Slow(release)
	server.Queue(oauthtest.Metadata, func(w http.ResponseWriter, r *http.Request, behave http.HandlerFunc) {
		context.AfterFunc(r.Context(), func() { close(gone) })
		slow(w, r, behave)
	})
	c := newClient(t, oauth.Config{Dev: true})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	ask := func(ctx context.Context, caller int) {
		group.Go(func() {
			if _, err := c.Endpoints(ctx, provider(server.URL)); err != nil {
				t.Errorf("caller %d: %v", caller, err)
			}
		})
	}
	ask(ctx, 0) // the one that fetches; it gives up, and must not take the others along
	for server.Hits(oauthtest.Metadata) == 0 {
		time.Sleep(time.Millisecond)
	}
	for i := range 20 {
		ask(t.Context(), i+1)
	}
	cancel()
	select {
	case <-gone:
		t.Error("the fetch ended with the first caller")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	group.Wait()
	if n := server.Hits(oauthtest.Metadata); n != 1 {
		t.Errorf("got %d fetches, want 1", n)
	}
}

func TestMetadataCacheIsBounded(t *testing.T) {
	hits := map[string]int{}
	var mu sync.Mutex
	var server string
	server = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		hits[r.URL.Path]++
		mu.Unlock()
		issuer := server + strings.TrimSuffix(r.URL.Path, "/.well-known/openid-configuration")
		fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q}`, issuer, server+"/t")
	}))
	at := &clock{at: time.Unix(1_700_000_000, 0)}
	c := newClient(t, oauth.Config{Dev: true, Now: at.Now})
	ask := func(i int) {
		t.Helper()
		if _, err := c.Endpoints(t.Context(), broker.Provider{Account: account, DiscoveryURL: fmt.Sprintf("%s/%d/.well-known/openid-configuration", server, i)}); err != nil {
			t.Fatal(err)
		}
		at.advance(time.Millisecond)
	}
	for i := range 1025 {
		ask(i)
	}
	ask(0)
	ask(1024)
	if hits["/0/.well-known/openid-configuration"] != 2 || hits["/1024/.well-known/openid-configuration"] != 1 {
		t.Errorf("got %d and %d fetches of the oldest and the newest, want 2 and 1", hits["/0/.well-known/openid-configuration"], hits["/1024/.well-known/openid-configuration"])
	}
}

func TestJWKS(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	for _, uri := range []string{"", server.URL + oauthtest.JWKS} {
		if got, err := c.JWKS(t.Context(), account, server.URL, uri); err != nil || !bytes.Contains(got, []byte(`"keys"`)) {
			t.Errorf("URI %q: got %q, %v", uri, got, err)
		}
	}
	for _, row := range []struct {
		fault oauthtest.Fault
		want  fault.Code
	}{
		{oauthtest.Status(500, ""), fault.Unavailable},
		{oauthtest.Status(429, ""), fault.Unavailable},
		{oauthtest.Drop(), fault.Unavailable},
		{oauthtest.DropHalfway(), fault.Unavailable},
		{oauthtest.Status(404, ""), fault.Unauthenticated},
		{oauthtest.Status(204, ""), fault.Unauthenticated},
		{oauthtest.Answer(`<html>`), fault.Unauthenticated},
		{oauthtest.Answer(`[]`), fault.Unauthenticated},
		{oauthtest.Answer(`{"keys":{}}`), fault.Unauthenticated},
		{oauthtest.Answer(`{"keys":[],"keys":[]}`), fault.Unauthenticated},
		{oauthtest.Answer(`{"keys":[]} {}`), fault.Unauthenticated},
	} {
		server.Queue(oauthtest.JWKS, row.fault)
		// A client each, because net/http repeats a GET whose reused connection was dropped.
		if _, err := newClient(t, oauth.Config{Dev: true}).JWKS(t.Context(), account, server.URL, server.URL+oauthtest.JWKS); fault.CodeOf(err) != row.want {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
	// The issuer is compared byte for byte: one with a slash has the same discovery URL and is another.
	if _, err := c.JWKS(t.Context(), account, server.URL+"/", ""); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("issuer with a slash: got %v, want Unauthenticated", err)
	}
	if _, err := c.JWKS(t.Context(), account, "http://127.0.0.1:1", ""); !errors.Is(err, fault.Unavailable) {
		t.Errorf("closed port: got %v, want Unavailable", err)
	}
}

func TestE11_DocumentsAreBounded(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	sent := make(chan int, 1)
	for name, f := range map[string]oauthtest.Fault{
		"oversized": oauthtest.Oversized(1 << 20), "endless": oauthtest.Endless(sent), "gzip bomb": oauthtest.Bomb(1 << 25), "long header": oauthtest.LongHeader(1 << 20),
	} {
		server.Queue(oauthtest.JWKS, f)
		if _, err := c.JWKS(t.Context(), account, server.URL, server.URL+oauthtest.JWKS); err == nil {
			t.Errorf("%s: the keys were taken", name)
		}
		server.Queue(oauthtest.Metadata, f)
		if name == "endless" {
			checkSent(t, <-sent)
		}
		fresh := newClient(t, oauth.Config{Dev: true})
		if _, err := fresh.Endpoints(t.Context(), provider(server.URL)); err == nil {
			t.Errorf("%s: the metadata was taken", name)
		}
		if name == "endless" {
			checkSent(t, <-sent)
		}
	}
}

// checkSent checks that an endless answer was cut off: what was sent beyond the bound is in the system's buffers.
func checkSent(t *testing.T, n int) {
	t.Helper()
	if n >= 1<<26 {
		t.Errorf("the server could send %d bytes", n)
	}
}

func TestE11_TotalDeadline(t *testing.T) {
	server := oauthtest.New(t)
	release := make(chan struct{})
	defer close(release)
	c := newClient(t, oauth.Config{Dev: true})
	c.TestOnlyTimeout(50 * time.Millisecond)
	server.Queue(oauthtest.JWKS, oauthtest.Slow(release))
	if _, err := c.JWKS(t.Context(), account, server.URL, server.URL+oauthtest.JWKS); !errors.Is(err, fault.Unavailable) {
		t.Errorf("slow header: got %v, want Unavailable", err)
	}
	server.Queue(oauthtest.JWKS, func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		_ = http.NewResponseController(w).Flush() // the header is there at once, the body never
		<-r.Context().Done()
	})
	if _, err := c.JWKS(t.Context(), account, server.URL, server.URL+oauthtest.JWKS); !errors.Is(err, fault.Unavailable) {
		t.Errorf("slow body: got %v, want Unavailable", err)
	}
}
