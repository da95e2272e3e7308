package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// calls is everything that goes out, as the account makes it to base. None of them reads metadata first, but discovery
// itself and a hosted sign-in.
func calls(ctx context.Context, c *oauth.Client, a access.Account, base string) map[string]func() error {
	p := provider(base)
	p.Account = a
	e := broker.Endpoints{Token: base + oauthtest.Token, Revocation: base + "/revoke"}
	v, text := broker.Vendor{}, secret.New("x")
	login := identity.LoginClient{Account: a, Issuer: base, ClientID: "c", Authorization: base + "/authorize", Token: base + oauthtest.Token}
	return map[string]func() error{
		"discovery":         func() error { _, err := c.Endpoints(ctx, p); return err },
		"discovery, a test": func() error { _, err := c.Inspect(ctx, p); return err },
		"an issuer":         func() error { _, err := c.IssuerMetadata(ctx, a, base, false); return err },
		"an issuer, anew":   func() error { _, err := c.IssuerMetadata(ctx, a, base, true); return err },
		"keys by discovery": func() error { _, err := c.JWKS(ctx, a, base, ""); return err },
		"keys by address":   func() error { _, err := c.JWKS(ctx, a, base, base+oauthtest.JWKS); return err },
		"UserInfo":          func() error { _, err := c.UserInfo(ctx, a, base+"/userinfo", text); return err },
		"revocation":        func() error { return c.Revoke(ctx, e, p, v, clientSecret(), text, "refresh_token") },
		"client credentials": func() error {
			_, err := c.ClientCredentials(ctx, e, p, v, clientSecret(), broker.TokenRequest{})
			return err
		},
		"a code": func() error {
			_, err := c.Redeem(ctx, e, p, v, clientSecret(), broker.CodeGrant{Code: text, Verifier: text})
			return err
		},
		"a refresh": func() error {
			_, err := c.Refresh(ctx, e, p, v, clientSecret(), text, broker.TokenRequest{})
			return err
		},
		"an exchange": func() error {
			_, err := c.Exchange(ctx, e, p, v, clientSecret(), broker.Exchange{Subject: text})
			return err
		},
		"a sign-in": func() error {
			_, _, err := c.SignInURL(ctx, login, broker.SignInRequest{RedirectURI: "https://t.example/cb"})
			return err
		},
		"its ID token": func() error {
			_, err := c.SignInToken(ctx, login, clientSecret(), broker.CodeGrant{Code: text, Verifier: text})
			return err
		},
	}
}

// requests counts what reaches the server.
func requests(t *testing.T, s *oauthtest.Server) func() int {
	t.Helper()
	return func() int {
		n := 0
		for _, at := range []string{oauthtest.Metadata, oauthtest.JWKS, oauthtest.Token, "/userinfo", "/revoke"} {
			n += s.Hits(at)
		}
		return n
	}
}

// E10: a network is open to the account that it was opened to, by every way out; to another it is closed, and what the
// first read there is not served to it either.
func TestE10_ANetworkIsOneAccounts(t *testing.T) {
	for allowed, refused := range map[access.Account]access.Account{account: other, other: account} {
		server := oauthtest.NewTLS(t, nil)
		reached := requests(t, server)
		c := newClient(t, oauth.Config{AllowNetworks: map[access.Account][]netip.Prefix{allowed: prefixes("127.0.0.0/8")}, RootCAs: server.Roots})
		// The account that may goes first, so that documents and connections are there to be mistaken for one's own.
		for name, call := range calls(t.Context(), c, allowed, server.URL) {
			if err := call(); unreachable(err) {
				t.Errorf("%s of %s, which may: %v", name, allowed, err)
			}
		}
		before := reached()
		for name, call := range calls(t.Context(), c, refused, server.URL) {
			err := call()
			if op, ok := errors.AsType[*net.OpError](err); !ok || !strings.Contains(op.Error(), "--allow-network") {
				t.Errorf("%s of %s, which may not: got %v, want the dialer's refusal", name, refused, err)
			}
		}
		if n := reached() - before; n != 0 {
			t.Errorf("the host of %s was reached %d times for %s", allowed, n, refused)
		}
	}
}

// unreachable reports whether the call failed before anybody answered.
func unreachable(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

// No call goes out without an account.
func TestE10_NoCallIsForNoAccount(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	for _, a := range []access.Account{"", "home", "0000000000000"} {
		for name, call := range calls(t.Context(), c, a, server.URL) {
			if err := call(); fault.CodeOf(err) != fault.Internal {
				t.Errorf("%s for the account %q: got %v, want a refusal", name, a, err)
			}
		}
	}
	if n := requests(t, server)(); n != 0 {
		t.Errorf("the server was reached %d times", n)
	}
}

// issuers serves metadata of any number of issuers, and counts what is fetched.
func issuers(t *testing.T) (base string, fetched func(name string) int) {
	t.Helper()
	var mu sync.Mutex
	hits := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(r.URL.Path, oauthtest.Metadata)
		mu.Lock()
		hits[name]++
		mu.Unlock()
		at := "http://" + r.Host + name
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q}`, at, at+"/token")
	}))
	t.Cleanup(s.Close)
	return s.URL, func(name string) int { mu.Lock(); defer mu.Unlock(); return hits[name] }
}

// M12: what an account's issuers and providers publish evicts nothing of another's, and is bounded itself.
func TestM12_MetadataIsRememberedByAccount(t *testing.T) {
	base, fetched := issuers(t)
	c := newClient(t, oauth.Config{Dev: true})
	read := func(a access.Account, name string) {
		t.Helper()
		if _, err := c.Endpoints(t.Context(), broker.Provider{Account: a, Name: "p", DiscoveryURL: base + name + oauthtest.Metadata}); err != nil {
			t.Fatal(err)
		}
	}
	read(account, "/mine")
	for i := range 1100 { // more than were kept for all accounts together
		read(other, fmt.Sprintf("/%d", i))
	}
	read(account, "/mine")
	if n := fetched("/mine"); n != 1 {
		t.Errorf("the first account's metadata was fetched %d times, want 1", n)
	}
	read(other, "/0")
	if n := fetched("/0"); n != 2 {
		t.Errorf("the oldest of 1100 documents of an account was fetched %d times, want 2: it should have been forgotten", n)
	}
	read(other, "/mine")
	if n := fetched("/mine"); n != 2 {
		t.Errorf("one account was served what another had read: %d fetches, want 2", n)
	}
}

// M12: a document that is remembered is small, whatever was sent.
func TestM12_ARememberedDocumentIsSmall(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	server.SetMetadata("revocation_endpoint", "https://p.example/"+strings.Repeat("x", 500_000))
	e, err := c.Endpoints(t.Context(), provider(server.URL))
	if err != nil || len(e.Revocation) > 4096 {
		t.Fatalf("got an address of %d bytes and %v, want few bytes", len(e.Revocation), err)
	}
	if err := c.Revoke(t.Context(), e, provider(server.URL), broker.Vendor{}, clientSecret(), secret.New("t"), ""); !errors.Is(err, fault.Invalid) {
		t.Errorf("a cut address: got %v, want Invalid", err)
	}
	server.SetMetadata("code_challenge_methods_supported", strings.Split("S256"+strings.Repeat(",x", 1000), ","))
	if _, err := newClient(t, oauth.Config{Dev: true}).Endpoints(t.Context(), provider(server.URL)); !errors.Is(err, fault.Invalid) {
		t.Errorf("a thousand methods: got %v, want Invalid", err)
	}
}

// M12: an account that waits for a host keeps no other account from it.
func TestM12_StallsAreOneAccounts(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	release := make(chan struct{})
	const stalled = 64 // more than one account's connections to a host
	slow := make([]oauthtest.Fault, 32)
	for i := range slow {
		slow[i] = oauthtest.Slow(release)
	}
	server.Queue(oauthtest.Token, slow...)
	server.Queue(oauthtest.JWKS, slow...)
	var wait sync.WaitGroup
	for range stalled {
		wait.Go(func() {
			_ = calls(t.Context(), c, other, server.URL)["client credentials"]()
		})
		wait.Go(func() { _ = calls(t.Context(), c, other, server.URL)["keys by address"]() })
	}
	defer wait.Wait()
	defer close(release)
	for deadline := time.Now().Add(5 * time.Second); server.Hits(oauthtest.Token) < 32 || server.Hits(oauthtest.JWKS) < 32; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d and %d calls stall, want 32 each", server.Hits(oauthtest.Token), server.Hits(oauthtest.JWKS))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for _, name := range []string{"client credentials", "keys by address"} {
		if err := calls(ctx, c, account, server.URL)[name](); err != nil {
			t.Errorf("%s of an account while another's stall: %v", name, err)
		}
	}
}

// M12: accounts that make no calls hold no connections, and after a day nothing.
func TestM12_IdleAccountsHoldNothing(t *testing.T) {
	server := oauthtest.New(t)
	at := time.Now()
	c := newClient(t, oauth.Config{Dev: true, Now: func() time.Time { return at }})
	for i := range 100 {
		a := access.Account(fmt.Sprintf("%012d", i))
		if err := calls(t.Context(), c, a, server.URL)["client credentials"](); err != nil {
			t.Fatal(err)
		}
		if err := calls(t.Context(), c, a, server.URL)["discovery"](); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		after           time.Duration
		pools, accounts int
	}{{0, 100, 100}, {2 * time.Minute, 1, 100}, {25 * time.Hour, 1, 1}} {
		at = at.Add(step.after)
		if err := calls(t.Context(), c, account, server.URL)["client credentials"](); err != nil {
			t.Fatal(err)
		}
		if pools, accounts := c.Pools(); pools != step.pools || accounts != step.accounts {
			t.Errorf("%s later: %d accounts have connections and %d are remembered, want %d and %d", step.after, pools, accounts, step.pools, step.accounts)
		}
	}
}
