package broker_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// delegated mints for agent-a under a new delegation of the user.
func (w *world) delegated(user string, grants ...identity.Grant) secret.Text {
	w.t.Helper()
	d, err := w.identity.CreateDelegation(w.t.Context(), w.appA, identity.NewDelegation{
		Workload: "agent-a", JWT: w.jwt(user), Grants: grants, Until: w.clock.now().Add(24 * time.Hour),
	}, w.Broker)
	must(w.t, err)
	m, err := w.identity.MintTokenForDelegation(w.t.Context(), w.agentA, "agent-a", d.ID)
	must(w.t, err)
	return m.Token
}

// TestB08_DelegationNarrows: whatever is stored and asked for, what is released under a delegation has scopes of the
// delegation only, and everything that has no others is released.
func TestB08_DelegationNarrows(t *testing.T) {
	w := newWorld(t)
	all := []string{"a", "b", "c", "email"}
	subset := func() (out []string) {
		for _, s := range all {
			if rand.N(2) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	for i := range 40 {
		stored, allowed, wanted := subset(), subset(), subset()
		user := "user" + string(rune('A'+i))
		w.consent(user, scopes(stored...))
		wat := w.delegated(user, identity.Grant{Provider: "cal", Scopes: allowed})
		out, err := w.Token(t.Context(), w.agentA, ask(wat, scopes(wanted...)))
		contains := func(in, scopes []string) bool {
			return !slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(in, s) })
		}
		fits, serves := contains(allowed, stored), contains(stored, wanted)
		if len(stored) == 0 { // nobody knows what such a token may do: no list covers it
			fits = len(allowed) == 0
		}
		switch {
		case err == nil && !(fits && serves):
			t.Errorf("stored %q, delegated %q, asked for %q: released with %q", stored, allowed, wanted, out.Granted)
		case err != nil && fits && serves:
			t.Errorf("stored %q, delegated %q, asked for %q: %v", stored, allowed, wanted, err)
		case err != nil && !errors.Is(err, fault.Denied):
			t.Errorf("stored %q, delegated %q, asked for %q: %v, want it denied", stored, allowed, wanted, err)
		case err != nil && serves:
			for _, s := range stored {
				if !slices.Contains(allowed, s) && !strings.Contains(err.Error(), `"`+s+`"`) {
					t.Errorf("the refusal does not name %q: %v", s, err)
				}
			}
		}
		if !out.AuthorizationURL.IsZero() {
			t.Error("a consent was opened for a user who is asleep")
		}
	}
}

func TestDelegationIsForItsProviders(t *testing.T) {
	w := newWorld(t)
	w.createProvider("mail", "StrictOauth2")
	w.createProvider("obo", "CustomOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	for _, name := range []string{"weather", "maps"} {
		_, err := w.CreateAPIKeyProvider(t.Context(), w.admin, broker.APIKeySpec{Name: name, Key: secret.New("key of " + name)})
		must(t, err)
	}
	w.consent("alice")
	wat := w.delegated("alice", identity.Grant{Provider: "cal", Scopes: []string{"read"}}, identity.Grant{Provider: "obo"}, identity.Grant{Provider: "weather"})
	w.token(w.agentA, ask(wat))
	for what, c := range map[string]struct {
		r    broker.Request
		code fault.Code
		says string
	}{
		"another provider":        {ask(wat, at("mail")), fault.Denied, "is not for provider mail"},
		"force":                   {ask(wat, force), fault.Denied, "consent at provider cal first"},
		"more than was consented": {ask(wat, scopes("read", "write")), fault.Denied, "consent at provider cal first"},
		"a machine's scopes":      {ask(wat, machine, scopes("write")), fault.Denied, `the scopes ["write"]`},
		"an exchange":             {ask(wat, onBehalf("obo")), fault.Invalid, "without a token of the user's"},
	} {
		_, err := w.Token(t.Context(), w.agentA, c.r)
		if fault.CodeOf(err) != c.code || !strings.Contains(fault.Public(err).Msg, c.says) {
			t.Errorf("%s: %v, want %s that says %q", what, err, c.code, c.says)
		}
	}
	before := w.grants("client_credentials")
	w.token(w.agentA, ask(wat, machine, scopes("read")))
	if n := w.grants("client_credentials"); n != before+1 {
		t.Errorf("%d requests for a machine's token, want only the one within the delegation", n-before)
	}
	key, err := w.APIKey(t.Context(), w.agentA, wat, "weather")
	must(t, err)
	if key.Expose() != "key of weather" {
		t.Error("the wrong key")
	}
	_, err = w.APIKey(t.Context(), w.agentA, wat, "maps")
	wantCode(t, "another key", err, fault.Denied)

	// A provider of the same name is another provider.
	must(t, w.DeleteAPIKeyProvider(t.Context(), w.admin, "weather"))
	_, err = w.CreateAPIKeyProvider(t.Context(), w.admin, broker.APIKeySpec{Name: "weather", Key: secret.New("other")})
	must(t, err)
	_, err = w.APIKey(t.Context(), w.agentA, wat, "weather")
	wantCode(t, "a new provider of the same name", err, fault.Denied)
}

// TestDelegationHoldsAfterARefresh: a provider that widens the scopes at a refresh widens no delegation.
func TestDelegationHoldsAfterARefresh(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	w.expire(0)
	wat := w.delegated("alice", identity.Grant{Provider: "cal", Scopes: []string{"read"}})
	w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = "read write" }))
	_, err := w.Token(t.Context(), w.agentA, ask(wat))
	if !errors.Is(err, fault.Denied) || !strings.Contains(fault.Public(err).Msg, `"write"`) {
		t.Errorf("got %v, want a refusal that names write", err)
	}
	if !w.recorded(access.RefreshTokens, "refreshed", "") {
		t.Error("the refreshed token was lost")
	}
}
