package e2e_test

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/daemon"
)

var uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`)

// forged is a user's token of the issuer, with a signature that its keys would have to be asked about.
func forged(issuer string) string {
	part := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"iat":%d,"exp":%d}`, issuer, appClient, time.Now().Unix(), time.Now().Add(time.Hour).Unix())
	return part([]byte(`{"alg":"ES256","kid":"k"}`)) + "." + part([]byte(claims)) + "." + part(make([]byte, 64))
}

// counted listens on loopback, speaks no TLS, and counts who connects.
func counted(t *testing.T) (host string, reached func() int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var n atomic.Int64
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = conn.Close()
		}
	}()
	return l.Addr().String(), n.Load
}

// closedPort is an address of loopback where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// E10, E13: a network that --allow-network opens to one account is closed to another, in both directions. What that
// one is told is the same whether something listens there, nothing does, or the network is open to nobody.
func TestE10_E13_ANetworkOfOneAccountIsClosedToAnother(t *testing.T) {
	for _, owner := range []string{"", tenant} {
		t.Run("of "+owner, func(t *testing.T) {
			w := newBare(t, daemon.SQLite, func(c *daemon.Config) {
				c.Dev = false
				c.AllowNetworks = map[access.Account][]netip.Prefix{access.Account(owner): {netip.MustParsePrefix("127.0.0.0/8")}}
			})
			boss, agent := w.account(tenant)
			w.call(root(), "CreateWorkloadIdentity", map[string]any{"name": "worker"})
			ours := w.principal("worker", "worker", "agent")
			accounts := map[string]struct{ admin, agent key }{"": {root(), ours}, tenant: {boss, agent}}
			for account, a := range accounts {
				open, reached := counted(t)
				told := map[string]string{}
				for name, host := range map[string]string{"open": open, "closed": closedPort(t), "elsewhere": "10.255.255.1:8443"} {
					if name == "elsewhere" && account == owner {
						continue // as for everybody
					}
					told[name] = w.tryEverything(a.admin, a.agent, name, host)
				}
				switch {
				case account == owner:
					if reached() == 0 {
						t.Errorf("account %q reached nothing in its own network", account)
					}
				case reached() != 0:
					t.Errorf("account %q reached the network of %q %d times", account, owner, reached())
				case account == tenant && (told["open"] != told["closed"] || told["open"] != told["elsewhere"]):
					t.Errorf("account %q is told of a host that is open, closed and elsewhere:\n%s\n%s\n%s", account, told["open"], told["closed"], told["elsewhere"])
				case account == tenant && (strings.Contains(told["open"], "dial") || strings.Contains(told["open"], "10.255")):
					t.Errorf("account %q is told addresses: %s", account, told["open"])
				}
				if account == "" && !strings.Contains(told["closed"], "dial tcp") {
					t.Errorf("the operator is not told why a host is not reached: %s", told["closed"])
				}
			}
			if !strings.Contains(w.logs.String(), "dial tcp 127.0.0.1:") {
				t.Error("the log has no reason")
			}
		})
	}
}

// tryEverything makes the server call the host for an account: a provider's metadata and token endpoint and an issuer's
// keys. It returns what the administrator and the agent are told, without the host.
func (w *world) tryEverything(admin, agent key, name, host string) string {
	w.t.Helper()
	base := "https://" + host
	var said []string
	say := func(r reply) { said = append(said, fmt.Sprint(r.status, " ", r.body)) }
	for kind, config := range map[string]map[string]any{
		"found": {"discoveryUrl": base + "/.well-known/openid-configuration"},
		"given": {"authorizationServerMetadata": map[string]any{"issuer": base, "authorizationEndpoint": base + "/a", "tokenEndpoint": base + "/t"}},
	} {
		provider := name + "-" + kind
		w.call(admin, "CreateOauth2CredentialProvider", map[string]any{
			"name": provider, "credentialProviderVendor": "CustomOauth2", "oauth2ProviderConfigInput": map[string]any{
				"customOauth2ProviderConfig": map[string]any{"oauthDiscovery": config, "clientId": clientID, "clientSecret": clientSecret}}})
		say(w.call(admin, "TestProvider", map[string]any{"providerName": provider}))
		wat := w.call(agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "worker"}).get("workloadAccessToken")
		say(w.post(agent, "GetResourceOauth2Token", encode(w.t, map[string]any{
			"workloadIdentityToken": wat, "resourceCredentialProviderName": provider, "oauth2Flow": "M2M", "scopes": []string{"read"}})))
	}
	w.call(admin, "CreateTrustedIssuer", map[string]any{"issuer": base, "audiences": []string{appClient}})
	say(w.post(agent, "GetWorkloadAccessTokenForJWT", encode(w.t, map[string]any{"workloadName": "worker", "userToken": forged(base)})))
	text := strings.NewReplacer(name+"-", "", host, "HOST").Replace(strings.Join(slices.Sorted(slices.Values(said)), "\n"))
	return uuids.ReplaceAllString(text, "")
}
