package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

const theKey = "api-key-canary-5d1f"

func (w *world) apiKey(name string, tags map[string]string) broker.APIKeyProvider {
	w.t.Helper()
	p, err := w.CreateAPIKeyProvider(w.t.Context(), w.admin, broker.APIKeySpec{Name: name, Key: secret.New(theKey), Tags: tags})
	must(w.t, err)
	return p
}

func (w *world) machineWAT(agent access.Caller) secret.Text {
	w.t.Helper()
	m, err := w.identity.MintToken(w.t.Context(), agent, agent.Name)
	must(w.t, err)
	return m.Token
}

func code(t *testing.T, what string, err error, want fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != want {
		t.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
}

func TestAPIKeyProvider_Lifecycle(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	made := w.apiKey("maps", map[string]string{"team": "x"})
	if !strings.HasSuffix(made.ARN("us-east-1"), ":token-vault/default/apikeycredentialprovider/maps") ||
		!strings.Contains(made.SecretARN("us-east-1"), ":secret:bedrock-agentcore-identity!default/apikey/maps-"+made.SecretID) {
		t.Errorf("ARNs %s and %s", made.ARN("us-east-1"), made.SecretARN("us-east-1"))
	}
	_, err := w.CreateAPIKeyProvider(ctx, w.admin, broker.APIKeySpec{Name: "maps", Key: secret.New("other")})
	code(t, "the same name", err, fault.Conflict)
	if got, want := fault.Public(err).Msg, "Credential provider with name: maps already exists"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err = w.CreateAPIKeyProvider(ctx, w.admin, broker.APIKeySpec{Name: "empty"})
	code(t, "no key", err, fault.Invalid)
	_, err = w.CreateAPIKeyProvider(ctx, w.admin, broker.APIKeySpec{Name: "cal", Key: secret.New("k")})
	must(t, err) // an OAuth2 provider has the name: another kind

	_, err = w.APIKeyProvider(ctx, w.admin, "none")
	if got, want := fault.Public(err).Msg, "ApiKeyCredentialProvider not found for none"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	page, next, err := w.APIKeyProviders(ctx, w.admin, "", 1)
	must(t, err)
	rest, end, err := w.APIKeyProviders(ctx, w.admin, next, 1)
	must(t, err)
	if len(page) != 1 || page[0].Name != "cal" || len(rest) != 1 || rest[0].Name != "maps" || end != "" {
		t.Errorf("pages %v and %v, then %q", page, rest, end)
	}

	w.clock.add(time.Minute)
	updated, err := w.UpdateAPIKeyProvider(ctx, w.admin, broker.APIKeySpec{Name: "maps", Key: secret.New("second")})
	must(t, err)
	if updated.UID != made.UID || updated.SecretID != made.SecretID || !updated.Updated.After(made.Updated) || !updated.Created.Equal(made.Created) {
		t.Errorf("updated %+v", updated)
	}
	got, err := w.APIKey(ctx, w.agentA, w.machineWAT(w.agentA), "maps")
	must(t, err)
	if got.Expose() != "second" {
		t.Error("the key is not the one of the update")
	}
	_, err = w.UpdateAPIKeyProvider(ctx, w.admin, broker.APIKeySpec{Name: "none", Key: secret.New("k")})
	code(t, "update of nothing", err, fault.NotFound)

	for _, c := range []access.Caller{w.agentA, w.appA, {}} {
		_, err := w.APIKeyProvider(ctx, c, "none")
		code(t, c.Name+" reads", err, fault.Denied)
		_, err = w.CreateAPIKeyProvider(ctx, c, broker.APIKeySpec{Name: "maps", Key: secret.New("k")})
		code(t, c.Name+" creates", err, fault.Denied)
		code(t, c.Name+" deletes", w.DeleteAPIKeyProvider(ctx, c, "maps"), fault.Denied)
	}
	must(t, w.DeleteAPIKeyProvider(ctx, w.admin, "maps"))
	code(t, "delete again", w.DeleteAPIKeyProvider(ctx, w.admin, "maps"), fault.NotFound)
	_, err = w.APIKey(ctx, w.agentA, w.machineWAT(w.agentA), "maps")
	code(t, "the deleted provider's key", err, fault.NotFound)
}

// Whoever is not paired with the token's agent gets nothing, not even the news that a provider exists.
func TestAPIKey_OnlyForPairedCallers(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.apiKey("maps", nil)
	wats := map[string]secret.Text{"machine": w.machineWAT(w.agentA), "alice": w.wat(w.agentA, "alice"), "uid": w.watForID(w.agentA, "u1")}
	for name, wat := range wats {
		key, err := w.APIKey(ctx, w.agentA, wat, "maps")
		must(t, err)
		if key.Expose() != theKey {
			t.Errorf("%s: another key", name)
		}
		for _, c := range []access.Caller{w.agentB, w.appA, w.admin, {Account: account}} {
			for _, provider := range []string{"maps", "none"} {
				_, err := w.APIKey(ctx, c, wat, provider)
				code(t, name+" by "+c.Name+" at "+provider, err, fault.Denied)
			}
		}
		foreign := w.agentA
		foreign.Account = other
		_, err = w.APIKey(ctx, foreign, wat, "maps")
		code(t, name+" in another account", err, fault.Unauthenticated)
	}
	_, err := w.APIKey(ctx, w.agentA, wats["alice"], "none")
	code(t, "no such provider", err, fault.NotFound)
	_, err = w.APIKey(ctx, w.agentA, secret.New("wat1.bm90IG9uZQ"), "maps")
	code(t, "no token", err, fault.Unauthenticated)
	w.clock.add(25 * time.Hour)
	_, err = w.APIKey(ctx, w.agentA, wats["alice"], "maps")
	code(t, "an expired token", err, fault.Unauthenticated)
}

func TestA05_APIKeyForVerifiedUsersOnly(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.apiKey("maps", map[string]string{broker.TagAssurance: identity.Verified})
	_, err := w.APIKey(ctx, w.agentA, w.watForID(w.agentA, "u1"), "maps")
	code(t, "an asserted user", err, fault.Denied)
	for name, wat := range map[string]secret.Text{"alice": w.wat(w.agentA, "alice"), "nobody": w.machineWAT(w.agentA)} {
		_, err := w.APIKey(ctx, w.agentA, wat, "maps")
		code(t, name, err, "")
	}
	_, err = w.APIKey(ctx, w.agentB, w.watForID(w.agentA, "u1"), "maps")
	if fault.CodeOf(err) != fault.Denied || strings.Contains(err.Error(), "verified") {
		t.Errorf("an unpaired caller got %v", err)
	}
}

// D01: a key that is moved to another provider's row does not open.
func TestD01_APIKeysDoNotMove(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	one, two := w.apiKey("one", nil), w.apiKey("two", nil)
	one.Key, one.Version = two.Key, 2
	must(t, w.db.SwapAPIKeyProvider(ctx, one, 1))
	_, err := w.APIKey(ctx, w.agentA, w.machineWAT(w.agentA), "one")
	code(t, "a moved key", err, fault.Internal)
}

func TestAPIKey_IsRecorded(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.apiKey("maps", nil)
	_, err := w.APIKey(ctx, w.agentA, w.wat(w.agentA, "alice"), "maps")
	must(t, err)
	_, err = w.APIKey(ctx, w.agentB, w.wat(w.agentA, "alice"), "maps")
	code(t, "unpaired", err, fault.Denied)
	records, _, err := w.db.Records(ctx, account, access.Query{Limit: 1000})
	must(t, err)
	var got []string
	for _, r := range records {
		if r.Action == access.GetResourceAPIKey {
			got = append(got, r.Facts.Workload+" "+r.Facts.Provider+" "+r.Facts.Outcome)
			if r.Facts.UserRef == "" || r.Facts.WorkloadUID == "" {
				t.Errorf("record %+v", r.Facts)
			}
		}
	}
	if diff := cmp.Diff([]string{"agent-a maps released", "agent-a maps denied"}, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}
