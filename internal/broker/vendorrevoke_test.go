package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

const included = "includedOauth2ProviderConfig"

// A connection is revoked the vendor's way with the token that the vendor takes, and one that is dead there counts.
func TestRevokedTheVendorsWay(t *testing.T) {
	for name, row := range map[string]struct{ member, kind string }{
		"GithubOauth2":   {"githubOauth2ProviderConfig", "access_token:"},
		"SlackOauth2":    {"slackOauth2ProviderConfig", "access_token:"},
		"DropboxOauth2":  {included, "access_token:"},
		"FacebookOauth2": {included, "access_token:"},
		"NotionOauth2":   {included, "access_token:"},
		"HubspotOauth2":  {included, "refresh_token:"},
	} {
		t.Run(name, func(t *testing.T) {
			w := vendorWorld(t, name, row.member)
			alice, bob := w.consent("alice", at("v")), w.consent("bob", at("v"))
			wantUpstream(t, "revoke", w.revoke(alice.Connection, false), broker.RevocationDone, "")
			if got := w.provider.Killed(); len(got) != 1 || !strings.HasPrefix(got[0], row.kind) {
				t.Errorf("the vendor ended %d tokens, want one %s", len(got), row.kind)
			}
			w.provider.RevokeAll()
			wantUpstream(t, "a dead token", w.revoke(bob.Connection, false), broker.RevocationDone, "")
			if n := w.provider.Hits(oauthtest.Revoke); n != 2 {
				t.Errorf("the vendor was asked %d times", n)
			}
		})
	}
}

// Where the access token has expired and the grant lives on in a refresh token, a dead access token proves nothing:
// nothing is sent, and the answer does not say revoked.
func TestRevocationNeedsAValidAccessToken(t *testing.T) {
	w := vendorWorld(t, "GithubOauth2", "githubOauth2ProviderConfig")
	id := w.consent("alice", at("v")).Connection
	w.clock.add(24 * time.Hour)
	wantUpstream(t, "revoke", w.revoke(id, false), broker.RevocationFailed, "")
	if n := w.provider.Hits(oauthtest.Revoke); n != 0 {
		t.Errorf("the vendor was asked %d times", n)
	}
}

// E18: the vendor's way does not send a token of another identity either.
func TestE18_VendorsWayStaysWithItsProvider(t *testing.T) {
	w := vendorWorld(t, "SlackOauth2", "slackOauth2ProviderConfig")
	id := w.consent("alice", at("v")).Connection
	spec := w.spec("v", "SlackOauth2")
	spec.Member, spec.DiscoveryURL, spec.ClientID = "slackOauth2ProviderConfig", "", "another-client"
	_, err := w.UpdateProvider(t.Context(), w.admin, spec)
	must(t, err)
	wantUpstream(t, "revoke", w.revoke(id, false), broker.RevocationFailed, "")
	if n := w.provider.Hits(oauthtest.Revoke); n != 0 {
		t.Errorf("a token was sent %d times", n)
	}
}

// movable is a catalogue whose entry of a vendor can be changed.
type movable struct {
	broker.Catalogue
	change *func(v *broker.Vendor)
}

func (m movable) Vendor(name string) (broker.Vendor, bool) {
	v, ok := m.Catalogue.Vendor(name)
	if name == "SlackOauth2" && *m.change != nil {
		(*m.change)(&v)
	}
	return v, ok
}

// E18: an address on another host is for providers at the vendor's own token endpoint.
func TestE18_OtherHostOnlyForTheVendorsOwnEndpoints(t *testing.T) {
	script, evil := oauthtest.NewVendor(t, "SlackOauth2"), oauthtest.NewVendor(t, "SlackOauth2")
	var change func(v *broker.Vendor)
	w := newWorld(t, func(c *broker.Config) {
		c.Catalogue = movable{loopbackVendor{c.Catalogue, "SlackOauth2", script.URL}, &change}
	})
	w.provider = script
	w.createProvider("v", "SlackOauth2", func(s *broker.ProviderSpec) { s.Member, s.DiscoveryURL = "slackOauth2ProviderConfig", "" })
	id := w.consent("alice", at("v")).Connection
	change = func(v *broker.Vendor) {
		v.TokenEndpoint, v.Revocation = evil.URL+oauthtest.Token, evil.URL+"/api/auth.revoke"
	}
	wantUpstream(t, "revoke", w.revoke(id, false), broker.RevocationUnsupported, "")
	if n := evil.Hits(oauthtest.Revoke); n != 0 {
		t.Errorf("a token was sent %d times", n)
	}
}
