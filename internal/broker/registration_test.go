package broker_test

import (
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// Two accounts register the same client of the same vendor under the same name: each has its own row, secret and
// callback URL, and cannot see, change or use the other's.
func TestC12_RegistrationsAreNotShared(t *testing.T) {
	w := newWorld(t)
	root, agent := caller(other, "root", access.Root), caller(other, "agent-a", access.Agent, "agent-a")
	w.workloadOf(root, identity.NewWorkload{Name: "agent-a", ReturnURLs: []string{returnURL}})
	w.trust(root)
	wat := w.wat(agent, "alice")

	_, err := w.Token(t.Context(), agent, ask(wat))
	wantCode(t, "a token by the other account's provider", err, fault.NotFound)
	_, err = w.Provider(t.Context(), root, "cal")
	wantCode(t, "get", err, fault.NotFound)
	list, _, err := w.Providers(t.Context(), root, "", 10)
	if must(t, err); len(list) != 0 {
		t.Errorf("list: got %d providers, want none", len(list))
	}
	_, err = w.UpdateProvider(t.Context(), root, w.spec("cal", "StrictOauth2"))
	wantCode(t, "update", err, fault.NotFound)
	wantCode(t, "delete", w.DeleteProvider(t.Context(), root, "cal"), fault.NotFound)

	spec := w.spec("cal", "StrictOauth2")
	spec.Secret = secret.New("another secret")
	theirs, err := w.CreateProvider(t.Context(), root, spec)
	must(t, err)
	ours, err := w.Provider(t.Context(), w.admin, "cal")
	must(t, err)
	if ours.UID == theirs.UID || ours.CallbackID == theirs.CallbackID || w.CallbackURL(ours) == w.CallbackURL(theirs) || ours.SecretID == theirs.SecretID {
		t.Errorf("the registrations share something: %+v and %+v", ours, theirs)
	}
	if _, err := w.db.ProviderByUID(t.Context(), other, ours.UID); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("by uid: got %v, want not found", err)
	}
	_, err = w.Token(t.Context(), agent, ask(wat, machine))
	wantError(t, "with a secret that is not the other account's", err, fault.Invalid, "invalid_client")

	// A secret that is moved between the rows does not open.
	stolen := theirs
	stolen.Secret, stolen.Version = ours.Secret, theirs.Version+1
	stored, err := w.db.ProviderByUID(t.Context(), other, theirs.UID)
	must(t, err)
	must(t, w.db.SwapProvider(t.Context(), stolen, stored.Version))
	_, err = w.Token(t.Context(), agent, ask(wat, machine))
	wantCode(t, "with the other account's sealed secret", err, fault.Internal)

	must(t, w.DeleteProvider(t.Context(), root, "cal"))
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), machine))
}
