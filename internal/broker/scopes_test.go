package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// What the provider granted is what is stored, told and recorded, whatever was asked for.
func TestC27_GrantedIsNotAsked(t *testing.T) {
	const beyond = "granted beyond what was asked: admin delete"
	for name, c := range map[string]struct {
		scope   any
		granted []string
		serves  []string // scopes of requests that the token serves
		asks    []string // and of those that begin a consent
		detail  string
	}{
		"more":      {"read admin write delete", []string{"read", "admin", "write", "delete"}, []string{"read", "admin"}, []string{"other"}, beyond},
		"fewer":     {"read", []string{"read"}, []string{"read", "write"}, []string{"admin", "other"}, ""},
		"others":    {"admin delete", []string{"admin", "delete"}, []string{"read", "admin"}, []string{"other"}, beyond},
		"an alias":  {"read write https://p.example/auth/email", []string{"read", "write", "https://p.example/auth/email"}, []string{"email"}, []string{"other"}, ""},
		"not said":  {nil, []string{"read", "write", "email"}, []string{"read"}, []string{"admin"}, ""},
		"as it was": {"read write email", []string{"read", "write", "email"}, []string{"read"}, []string{"admin"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.provider.Queue("/token", edit(func(m map[string]any) {
				if m["scope"] = c.scope; c.scope == nil {
					delete(m, "scope")
				}
			}))
			out := w.consent("alice", scopes("read", "write", "email"))
			if d := cmp.Diff(c.granted, out.Granted); d != "" {
				t.Errorf("grantedScopes (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.granted, w.connection(out.Connection).Granted); d != "" {
				t.Errorf("stored (-want +got):\n%s", d)
			}
			if !w.recorded(access.RedeemCode, "redeemed", c.detail) || c.detail == "" && w.recorded(access.RedeemCode, "redeemed", "beyond") {
				t.Errorf("the trail does not say %q of the redemption", c.detail)
			}
			wat := w.wat(w.agentA, "alice")
			for _, s := range c.serves {
				w.token(w.agentA, ask(wat, scopes(s)))
			}
			for _, s := range c.asks {
				w.pending(w.agentA, ask(wat, scopes("read", s)))
			}
		})
	}
}

// Tokens without consent, and refreshed ones, are held to the same.
func TestC27_GrantsWithoutConsent(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	more := edit(func(m map[string]any) { m["scope"] = "read admin" })
	w.provider.Queue("/token", more)
	out := w.token(w.agentA, ask(wat, machine))
	if d := cmp.Diff([]string{"read", "admin"}, out.Granted); d != "" {
		t.Errorf("machine token (-want +got):\n%s", d)
	}
	if !w.recorded(access.GetResourceOauth2Token, "released", "granted beyond what was asked: admin") {
		t.Error("the trail does not name the scope that came unrequested")
	}

	first := w.consent("alice")
	w.provider.Queue("/token", more)
	w.expire(0)
	again := w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
	if again.AccessToken.Equal(first.AccessToken) || !cmp.Equal(again.Granted, []string{"read", "admin"}) {
		t.Errorf("after the refresh: granted %q", again.Granted)
	}
	if !w.recorded(access.RefreshTokens, "refreshed", "granted beyond what was asked: admin") {
		t.Error("the trail does not name the scope that came with the refresh")
	}
}

// M02: scopes that nobody knows stay unknown when a refresh says nothing of them either.
func TestM02_UnknownScopesStayUnknownAfterARefresh(t *testing.T) {
	for _, first := range []any{"", []string{}} {
		w := newWorld(t)
		w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = first; m["expires_in"] = 3600 }))
		out := w.consent("alice")
		if len(out.Granted) != 0 {
			t.Fatalf("granted %q", out.Granted)
		}
		w.clock.add(59*time.Minute + 30*time.Second)
		w.provider.Queue("/token", edit(func(m map[string]any) { delete(m, "scope") }))
		again := w.token(w.agentA, ask(w.wat(w.agentA, "alice")))
		if again.AccessToken.Equal(out.AccessToken) {
			t.Fatal("no refresh")
		}
		if len(again.Granted) != 0 || len(w.connection(again.Connection).Granted) != 0 {
			t.Errorf("the scopes were not known (%q), and after a refresh that says nothing they are %q", first, again.Granted)
		}
	}
}

// M02: what a provider grants beyond what can be kept is not known, and no delegation covers it.
func TestM02_ScopesThatWereLeftOutAreNotKnown(t *testing.T) {
	for what, scope := range map[string]any{
		"more than are kept": strings.Repeat("read ", 200) + "admin",
		"longer than one is": "read " + strings.Repeat("x", 600),
		"no scope":           []string{"read", "admin\u202e"},
		"of another form":    map[string]any{"read": true, "admin": true},
	} {
		w := newWorld(t)
		w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = scope }))
		w.consent("alice")
		_, err := w.Token(t.Context(), w.agentA, ask(w.delegated("alice", identity.Grant{Provider: "cal", Scopes: []string{"read"}})))
		wantCode(t, what, err, fault.Denied)
	}
}

// M02: the same for a connection that lives on a refresh token with others.
func TestM02_UnknownScopesOfASibling(t *testing.T) {
	w := entraWorld(t)
	w.provider.Queue("/token", edit(func(m map[string]any) { m["scope"] = ""; m["expires_in"] = 3600 }))
	out := w.entraConsent("Mail.Read", "offline_access")
	if got := w.connection(out.Connection); len(got.Granted) != 0 || got.Lineage == "" {
		t.Fatalf("granted %q, lineage %q", got.Granted, got.Lineage)
	}
	w.clock.add(59*time.Minute + 30*time.Second)
	w.provider.Queue("/token", edit(func(m map[string]any) { delete(m, "scope") }))
	again, err := w.api("Mail.Read", "offline_access")
	must(t, err)
	if again.AccessToken.Equal(out.AccessToken) || len(w.connection(out.Connection).Granted) != 0 {
		t.Errorf("the scopes were not known, and after a refresh that says nothing they are %q", w.connection(out.Connection).Granted)
	}
}
