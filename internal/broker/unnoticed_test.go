package broker_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

// onTrail is a world whose Guard writes to a log that a test makes refuse records.
func onTrail(t *testing.T) (*world, *trail) {
	t.Helper()
	log := &trail{}
	w := newWorld(t, func(c *broker.Config) {
		log.Log = c.Store.(*shaky).Store.(access.Log)
		c.Guard = access.NewGuard(access.Config{Log: log, Now: c.Now, Decider: access.Table{}})
		t.Cleanup(c.Guard.Close)
	})
	return w, log
}

// G04: by every way out, what was decided and fetched stays here if the record of its release cannot be written. The
// records before it can, so that it is this one that is waited for.
func TestG04_NoReleaseWithoutItsRecord(t *testing.T) {
	w, log := onTrail(t)
	ctx := t.Context()
	w.createProvider("obo", "StrictOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange}))
	w.apiKey("maps", nil)
	w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	outcome := func(o string) func(access.Record) bool {
		return func(r access.Record) bool { return r.Facts.Outcome == o }
	}
	log.set(outcome("released"))
	for _, c := range []struct {
		what string
		r    broker.Request
	}{
		{"a stored token", ask(wat)}, {"a machine's new token", ask(wat, machine)}, {"its stored one", ask(wat, machine)},
		{"an exchange's new token", ask(wat, onBehalf("obo"))}, {"its stored one", ask(wat, onBehalf("obo"))},
	} {
		out, err := w.Token(ctx, w.agentA, c.r)
		wantCode(t, c.what, err, fault.Unavailable)
		if !out.AccessToken.IsZero() {
			t.Errorf("%s left without its record", c.what)
		}
	}
	key, err := w.APIKey(ctx, w.agentA, wat, "maps")
	wantCode(t, "an API key", err, fault.Unavailable)
	if !key.IsZero() {
		t.Error("an API key left without its record")
	}
	log.set(outcome("error"))
	_, err = w.APIKey(ctx, w.agentA, wat, "none")
	wantCode(t, "that there is no such key", err, fault.Unavailable)

	log.set(nil)
	for what, r := range map[string]broker.Request{"a machine's": ask(wat, machine), "an exchange's": ask(wat, onBehalf("obo"))} {
		if out := w.token(w.agentA, r); out.AccessToken.IsZero() {
			t.Errorf("%s token is lost", what)
		}
	}
	if n := w.grants("client_credentials"); n != 1 {
		t.Errorf("the provider gave %d tokens to the machine, want 1 that was kept", n)
	}
}

// moved makes the database say that the provider is at another server and always was: its row, and the rows that are
// bound to it, name the security identity that belongs to the new address. Only the keys could seal anew.
func (w *world) moved(to *oauthtest.Server) {
	w.t.Helper()
	ctx := w.t.Context()
	spec := w.spec("model", "StrictOauth2")
	spec.DiscoveryURL = to.URL + oauthtest.Metadata
	model, err := w.CreateProvider(ctx, w.admin, spec)
	must(w.t, err)
	p, err := w.db.Provider(ctx, account, "cal")
	must(w.t, err)
	files, err := filepath.Glob(filepath.Join(w.dir, "*.db"))
	must(w.t, err)
	db, err := sql.Open("sqlite", files[0])
	must(w.t, err)
	defer db.Close()
	for _, table := range []string{"connections", "flows", "providers"} {
		_, err := db.ExecContext(ctx, "UPDATE "+table+" SET identity = $1 WHERE identity = $2", model.Identity, p.Identity)
		must(w.t, err)
	}
	version := p.Version
	p.DiscoveryURL, p.Identity, p.Pinned, p.PinnedAuthorization, p.Version = spec.DiscoveryURL, model.Identity, "", "", version+1
	must(w.t, w.db.SwapProvider(ctx, p, version)) // the same identity, so that this ends nothing
}

// D01: the provider's identity is a part of what each of its values is bound to, and not only a column beside them.
func TestD01_IdentityEditedInEveryRow(t *testing.T) {
	w := newWorld(t)
	evil := oauthtest.New(t)
	w.consent("alice")
	param := func(r *broker.Request) {
		r.CustomParameters = map[string]secret.Text{"login_hint": secret.New("bob@example.com")}
	}
	open := w.pending(w.agentA, ask(w.wat(w.agentA, "bob"), param)).Session
	held := w.held("carol")
	w.moved(evil)

	out, err := w.alice()
	if wantCode(t, "a stored token", err, fault.Internal); !out.AccessToken.IsZero() {
		t.Error("a token of the other identity was released")
	}
	_, err = w.Authorize(t.Context(), open)
	wantCode(t, "a link with sealed parameters", err, fault.Internal)
	wantCode(t, "a held code", w.complete(w.appA, held, "carol"), fault.Internal)
	_, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), machine))
	wantCode(t, "a machine's token, with the client secret", err, fault.Internal)
	w.expire(0)
	_, err = w.alice()
	wantCode(t, "a refresh", err, fault.Internal)
	if n := evil.Hits(oauthtest.Token); n != 0 {
		t.Errorf("the other server got %d requests for tokens", n)
	}
}

// E18: metadata that names a revocation endpoint on another host of the same scheme gets neither the token nor the
// secret.
func TestE18_RevocationEndpointOnAnotherHost(t *testing.T) {
	w := newWorld(t)
	evil := oauthtest.New(t)
	id := w.consent("alice").Connection
	w.provider.SetMetadata("revocation_endpoint", evil.URL+revokePath)
	w.expire(0)
	wantUpstream(t, "revoke", w.revoke(id, false), broker.RevocationUnsupported, "")
	if n := len(evil.Requests()) + evil.Hits(revokePath); n != 0 {
		t.Errorf("the other host got %d requests", n)
	}
}

// C15: the origin that is pinned has a scheme. The same host by another one is another place.
func TestC15_SchemeIsPinned(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	other := strings.Replace(w.provider.URL, "http://", "https://", 1)
	w.provider.SetMetadata("authorization_endpoint", other+"/authorize")
	w.expire(0)
	open := w.pending(w.agentA, ask(w.wat(w.agentA, "bob"))).Session
	_, err := w.Authorize(t.Context(), open)
	wantError(t, "authorize", err, fault.Denied, "moved its authorization endpoint")
	w.provider.SetMetadata("token_endpoint", other+oauthtest.Token)
	w.expire(0)
	_, err = w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), machine))
	wantError(t, "token", err, fault.Denied, "moved its token endpoint")
}

// B08: what a delegation does not include is refused before the refresh token is spent on it.
func TestB08_RefusedBeforeTheRefresh(t *testing.T) {
	w := newWorld(t)
	id := w.consent("alice", scopes("read", "write")).Connection
	w.expire(0)
	wat := w.delegated("alice", identity.Grant{Provider: "cal", Scopes: []string{"read"}})
	_, err := w.Token(t.Context(), w.agentA, ask(wat))
	wantError(t, "beyond the delegation", err, fault.Denied, `"write"`)
	if n, c := w.grants("refresh_token"), w.connection(id); n != 0 || c.Generation != 1 {
		t.Errorf("%d refreshes, generation %d; want the refresh token as it was", n, c.Generation)
	}
}

// A01: a session is polled by the agent that began it, also if another has a token of the same user.
func TestA01_AnotherAgentsSessionIsNotPolled(t *testing.T) {
	w := newWorld(t)
	held := w.held("alice")
	must(t, w.complete(w.appA, held, "alice"))
	out, err := w.Token(t.Context(), w.agentB, ask(w.wat(w.agentB, "alice"), session(held)))
	if wantEnding(t, "by another agent", err, broker.EndUnknown); !out.AccessToken.IsZero() {
		t.Error("another agent got the token")
	}
	w.token(w.agentA, ask(w.wat(w.agentA, "alice"), session(held)))
}

// C20: after a mix-up nothing that the wrong party says is shown: it may be an attacker's sentence on our page.
func TestC20_NoWordsAfterAMixUp(t *testing.T) {
	w := newWorld(t)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	for name, change := range map[string]func(*broker.Answer){
		"another callback": func(a *broker.Answer) { a.CallbackID = "another" },
		"another issuer":   func(a *broker.Answer) { a.HasIssuer, a.Issuer = true, "https://evil.example" },
	} {
		a := w.visit(p.Session)
		a.Error, a.Description, a.Code = "access_denied", "call 555-0100 to go on", secret.Text{}
		change(&a)
		_, err := w.Callback(t.Context(), a)
		wantEnding(t, name, err, broker.EndMixedUp)
		if err != nil && strings.Contains(err.Error(), "555-0100") {
			t.Errorf("%s: the words are passed on: %v", name, err)
		}
	}
	for _, r := range w.records() {
		if strings.Contains(r.Facts.Detail, "555-0100") {
			t.Errorf("the words are in the trail: %s", r.Facts.Detail)
		}
	}
}
