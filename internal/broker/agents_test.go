package broker_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestA01_AgentCannotReachAnotherAgentsToken(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	// Its own token access token of the same user leads to a connection of its own, which is empty.
	w.pending(w.agentB, ask(w.wat(w.agentB, "alice")))
	// With agent-a's token it is refused, whatever it asks.
	stolen := w.wat(w.agentA, "alice")
	for _, r := range []broker.Request{ask(stolen), ask(stolen, machine), ask(stolen, force), ask(stolen, at("nothing")), ask(stolen, scopes())} {
		out, err := w.Token(t.Context(), w.agentB, r)
		wantCode(t, "agent-b with agent-a's token", err, fault.Denied)
		if !reflect.ValueOf(out).IsZero() {
			t.Errorf("got %+v with a refusal", out)
		}
	}
}

func TestA03_OneUsersTokenDoesNotServeAnothersSession(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.wat(w.agentA, "alice"), w.wat(w.agentA, "bob")
	p := w.pending(w.agentA, ask(bob))
	try := func(when string) {
		t.Helper()
		_, err := w.Token(t.Context(), w.agentA, ask(alice, session(p.Session)))
		wantEnding(t, when, err, broker.EndUnknown)
	}
	try("created")
	w.hold(p.Session)
	try("code held")
	must(t, w.complete(w.appA, p.Session, "bob"))
	try("redeemed")
	w.token(w.agentA, ask(bob, session(p.Session))) // no side effect on the owner
	w.pending(w.agentA, ask(alice))
	if n := w.refused("unknown-session"); n != 3 {
		t.Errorf("got %d refusals in the trail, want 3", n)
	}
}

func TestA05_AssertedUsersNeedTwoPermissions(t *testing.T) {
	w := newWorld(t)
	w.workloadOf(w.root, identity.NewWorkload{Name: "agent-c", ReturnURLs: []string{returnURL}})
	_, err := w.identity.MintTokenForUserID(t.Context(), caller(account, "agent-c", access.Agent, "agent-c"), "agent-c", "alice")
	wantCode(t, "a default agent asserts a user", err, fault.Denied)

	w.createProvider("bank", "StrictOauth2", func(s *broker.ProviderSpec) { s.Tags = map[string]string{broker.TagAssurance: "verified"} })
	for _, change := range [][]func(*broker.Request){nil, {machine}, {force}} {
		_, err = w.Token(t.Context(), w.agentA, ask(w.watForID(w.agentA, "alice"), append(change, at("bank"))...))
		wantError(t, "an asserted user at a provider for verified ones", err, fault.Denied, "serves only verified users")
	}
	_, err = w.Token(t.Context(), w.agentB, ask(w.watForID(w.agentA, "alice"), at("bank")))
	if err == nil || strings.Contains(err.Error(), "verified") {
		t.Errorf("another agent's principal learns of the provider's tag: %v", err)
	}
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), at("bank")))
	if n := w.refused("assurance"); n != 3 {
		t.Errorf("got %d refusals in the trail, want 3", n)
	}
}

func TestB01_StolenTokenIsRefusedAndRecorded(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	stolen := w.wat(w.agentA, "alice")
	failed := w.pending(w.agentA, ask(stolen, force))
	w.decline(failed.Session)
	for name, thief := range map[string]access.Caller{
		"another agent": w.agentB, "an app": w.appA, "an admin": w.admin, "an auditor": caller(account, "auditor", access.Auditor), "nobody": {Account: account},
	} {
		for _, r := range []broker.Request{ask(stolen), ask(stolen, session(failed.Session))} {
			out, err := w.Token(t.Context(), thief, r)
			wantCode(t, name, err, fault.Denied)
			if err != nil && strings.Contains(err.Error(), "declined") {
				t.Errorf("%s learns what became of the session: %v", name, err)
			}
			if !out.AccessToken.IsZero() {
				t.Errorf("%s got a token", name)
			}
		}
	}
	if n := w.refused("not-paired") + w.refused("default-deny") + w.refused("no-caller"); n != 10 {
		t.Errorf("got %d refusals in the trail, want 10", n)
	}
	_, err := w.Token(t.Context(), caller(other, "agent-a", access.Agent, "agent-a"), ask(stolen))
	wantCode(t, "another account", err, fault.Unauthenticated)
}

// decline walks a session to a refusal at the provider.
func (w *world) decline(sessionURI string) {
	w.t.Helper()
	a := w.visit(sessionURI)
	a.Code, a.Error = secret.Text{}, "access_denied"
	_, err := w.Callback(w.t.Context(), a)
	wantEnding(w.t, "declined", err, broker.EndDeclined)
}

func TestB02_DeletedWorkloadEndsItsTokens(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat, force))
	must(t, w.identity.DeleteWorkload(t.Context(), w.admin, "agent-a"))
	for _, r := range []broker.Request{ask(wat), ask(wat, session(p.Session)), ask(wat, machine)} {
		_, err := w.Token(t.Context(), w.agentA, r)
		wantCode(t, "token of a deleted agent", err, fault.Unauthenticated)
	}
	if n := w.refused("token-refused"); n != 3 {
		t.Errorf("got %d refusals in the trail, want 3", n)
	}
}

// A session that was open when its agent was deleted ends too: nothing is redeemed for an agent that is gone.
func TestB02_DeletedWorkloadEndsItsSessions(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	held, opened := w.pending(w.agentA, ask(wat)), w.pending(w.agentA, ask(wat))
	w.hold(held.Session)
	must(t, w.identity.DeleteWorkload(t.Context(), w.admin, "agent-a"))
	wantEnding(t, "complete", w.complete(w.appA, held.Session, "alice"), broker.EndFailed)
	_, err := w.Authorize(t.Context(), opened.Session)
	wantEnding(t, "authorize", err, broker.EndFailed)
	if n := w.grants("authorization_code"); n != 0 {
		t.Errorf("%d codes were redeemed for a deleted agent", n)
	}
}

// An audience that comes as a custom parameter is part of what a token is for, as one in audiences is.
func TestCustomAudienceHasItsOwnToken(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	aud := func(a string) func(*broker.Request) {
		return func(r *broker.Request) { r.CustomParameters = map[string]secret.Text{"audience": secret.New(a)} }
	}
	one, two := w.token(w.agentA, ask(wat, machine, aud("https://one.example"))), w.token(w.agentA, ask(wat, machine, aud("https://two.example")))
	again := w.token(w.agentA, ask(wat, machine, func(r *broker.Request) { r.Audiences = []string{"https://one.example"} }))
	if one.Connection == two.Connection || one.Connection != again.Connection {
		t.Errorf("connections %s, %s, %s: want the first and the last to be one", one.Connection, two.Connection, again.Connection)
	}
	_, err := w.Token(t.Context(), w.agentA, ask(wat, machine, aud("https://one.example"), func(r *broker.Request) { r.Audiences = []string{"x"} }))
	wantCode(t, "audience twice", err, fault.Invalid)
}

func TestB03_RecreatedWorkloadInheritsNothing(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat, force))
	must(t, w.identity.DeleteWorkload(t.Context(), w.admin, "agent-a"))
	w.workload("agent-a")
	_, err := w.Token(t.Context(), w.agentA, ask(wat))
	wantCode(t, "a token of before", err, fault.Unauthenticated)
	fresh := w.wat(w.agentA, "alice")
	w.pending(w.agentA, ask(fresh))
	_, err = w.Token(t.Context(), w.agentA, ask(fresh, session(p.Session)))
	wantEnding(t, "a session of before", err, broker.EndUnknown)
	if again := w.consent("alice"); again.Connection == old.Connection {
		t.Error("the new agent got the old one's connection")
	}
}

// Restoring gives the agent its connections back, and neither its tokens nor its sessions.
func TestB03_RestoredWorkloadHasNewSessions(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat, force))
	must(t, w.identity.DeleteWorkload(t.Context(), w.admin, "agent-a"))
	row, err := w.db.WorkloadByUID(t.Context(), account, w.connection(old.Connection).Workload)
	must(t, err)
	version := row.Version
	row.Deleted, row.Generation, row.Version = time.Time{}, row.Generation+1, version+1
	must(t, w.db.SwapWorkload(t.Context(), row, version))
	_, err = w.Token(t.Context(), w.agentA, ask(wat))
	wantCode(t, "a token of before", err, fault.Unauthenticated)
	fresh := w.wat(w.agentA, "alice")
	_, err = w.Token(t.Context(), w.agentA, ask(fresh, session(p.Session)))
	wantEnding(t, "a session of before", err, broker.EndUnknown)
	if out := w.token(w.agentA, ask(fresh)); out.Connection != old.Connection {
		t.Error("the restored agent lost its connection")
	}
}

// A workload access token ends with the user's JWT, and an expired one polls the session that it opened, for as long
// as that lives, and nothing else.
func TestB07_ExpiredTokenPollsItsOwnSessionOnly(t *testing.T) {
	w := newWorld(t)
	m, err := w.identity.MintTokenForJWT(t.Context(), w.agentA, "agent-a", w.jwtFor("alice", 30*time.Second))
	must(t, err)
	if left := m.Expires.Sub(w.clock.now()); left != 30*time.Second {
		t.Errorf("the token lives %s, want the 30 s of the user's JWT", left)
	}
	mine := w.pending(w.agentA, ask(m.Token))
	foreign := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"))) // same agent, same user, opened by another token
	w.clock.add(31 * time.Second)
	refused := func(what string, c access.Caller, r broker.Request) {
		t.Helper()
		_, err := w.Token(t.Context(), c, r)
		wantCode(t, what, err, fault.Unauthenticated)
	}
	refused("ordinary call", w.agentA, ask(m.Token))
	refused("machine token", w.agentA, ask(m.Token, machine))
	refused("session of another token", w.agentA, ask(m.Token, session(foreign.Session)))
	w.pending(w.agentA, ask(m.Token, session(mine.Session)))
	_, err = w.Token(t.Context(), w.agentB, ask(m.Token, session(mine.Session)))
	wantCode(t, "another agent's principal", err, fault.Denied)
	w.hold(mine.Session)
	must(t, w.complete(w.appA, mine.Session, "alice"))
	w.token(w.agentA, ask(m.Token, session(mine.Session)))
	refused("ordinary call, with a token stored", w.agentA, ask(m.Token))
	w.clock.add(broker.SessionLifetime - 31*time.Second)
	refused("its session, after ten minutes", w.agentA, ask(m.Token, session(mine.Session)))
}

func TestB07_SessionExpires(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat))
	v, err := w.Authorize(t.Context(), p.Session)
	must(t, err)
	if v.MaxAge != broker.SessionLifetime {
		t.Errorf("the visit's cookie lives %s, want %s", v.MaxAge, broker.SessionLifetime)
	}
	held := w.pending(w.agentA, ask(wat))
	w.hold(held.Session)
	w.clock.add(broker.SessionLifetime)
	_, err = w.Authorize(t.Context(), p.Session)
	wantEnding(t, "authorize", err, broker.EndExpired)
	_, err = w.Callback(t.Context(), w.answer(v))
	wantEnding(t, "callback", err, broker.EndExpired)
	_, err = w.Token(t.Context(), w.agentA, ask(wat, session(p.Session)))
	wantEnding(t, "poll", err, broker.EndExpired)
	wantEnding(t, "complete", w.complete(w.appA, held.Session, "alice"), broker.EndExpired)
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none", n)
	}
	w.clock.add(time.Hour + time.Second)
	if n, err := w.Sweep(t.Context()); err != nil || n != 2 {
		t.Errorf("swept %d sessions, %v, want 2", n, err)
	}
}

// A refresh token never leaves: no answer has a place for one, and none is in what has.
func TestD10_RefreshTokenIsInNoAnswer(t *testing.T) {
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(path, typ.Elem())
		case reflect.Struct:
			for f := range typ.Fields() {
				if strings.Contains(strings.ToLower(f.Name), "refresh") {
					t.Errorf("%s.%s can carry a refresh token", path, f.Name)
				}
				if f.IsExported() && typ != reflect.TypeFor[time.Time]() {
					walk(path+"."+f.Name, f.Type)
				}
			}
		}
	}
	walk("Outcome", reflect.TypeFor[broker.Outcome]())
	walk("VisitURL", reflect.TypeFor[broker.VisitURL]())
	if n := scanAPI(t); n < 50 {
		t.Errorf("found only %d types of the API", n)
	}

	w := newWorld(t)
	out := w.consent("alice")
	w.expire(0)
	after, err := w.alice()
	must(t, err)
	token := w.sentRefresh()[0]
	for _, o := range []broker.Outcome{out, after} {
		if s := fmt.Sprintf("%+v %s", o, o.AccessToken.Expose()); strings.Contains(s, token) || strings.Contains(s, "rt-") {
			t.Error("an answer has a refresh token in it")
		}
	}
	for _, r := range w.records() {
		if s := fmt.Sprintf("%+v", r); strings.Contains(s, "rt-") || strings.Contains(s, "at-") {
			t.Errorf("a record has a token in it: %s", s)
		}
	}
}

// scanAPI looks at every struct of the wire's types, and returns how many there are.
func scanAPI(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("../../api/*.go")
	must(t, err)
	n := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		must(t, err)
		ast.Inspect(f, func(node ast.Node) bool {
			s, ok := node.(*ast.StructType)
			if !ok {
				return true
			}
			n++
			for _, field := range s.Fields.List {
				text := ""
				for _, id := range field.Names {
					text += id.Name
				}
				if field.Tag != nil {
					text += field.Tag.Value
				}
				if kind, ok := field.Type.(*ast.Ident); ok && kind.Name == "bool" {
					continue // that there is one is no secret, and a bool carries none
				}
				if strings.Contains(strings.ToLower(text), "refresh") {
					t.Errorf("%s: the field %s can carry a refresh token", name, text)
				}
			}
			return true
		})
	}
	return n
}

// combo is who has a connection: an agent, a user and a provider.
type combo struct {
	agent    access.Caller
	user     string // with # before it: an asserted id
	provider string
}

func (w *world) watOf(c combo) secret.Text {
	if id, ok := strings.CutPrefix(c.user, "#"); ok {
		return w.watForID(c.agent, id)
	}
	return w.wat(c.agent, c.user)
}

func (w *world) userOf(user string) broker.UserIdentifier {
	if id, ok := strings.CutPrefix(user, "#"); ok {
		return broker.UserIdentifier{ID: id}
	}
	return broker.UserIdentifier{Token: w.jwt(user)}
}

func (w *world) combos() []combo {
	w.createProvider("mail", "StrictOauth2")
	var all []combo
	for _, agent := range []access.Caller{w.agentA, w.agentB} {
		for _, user := range []string{"alice", "bob", "#alice"} {
			for _, provider := range []string{"cal", "mail"} {
				all = append(all, combo{agent, user, provider})
			}
		}
	}
	return all
}

// For each caller, agent, user, provider and session that do not belong together nothing is released; for those that
// do, exactly the token that belongs to them.
func TestNothingIsReleasedOnAnyMismatch(t *testing.T) {
	w := newWorld(t)
	all := w.combos()
	wats, sessions, tokens := make([]secret.Text, len(all)), make([]string, len(all)), make([]secret.Text, len(all))
	apps := map[string]access.Caller{"agent-a": w.appA, "agent-b": w.appB}
	for i, c := range all {
		wats[i] = w.watOf(c)
		p := w.pending(c.agent, ask(wats[i], at(c.provider)))
		w.hold(p.Session)
		must(t, w.Complete(t.Context(), apps[c.agent.Name], p.Session, w.userOf(c.user)))
		sessions[i], tokens[i] = p.Session, w.token(c.agent, ask(wats[i], at(c.provider), session(p.Session))).AccessToken
	}
	released, refused := 0, 0
	for i, c := range all {
		for _, who := range []access.Caller{w.agentA, w.agentB, w.appA, w.admin} {
			for j := -1; j < len(all); j++ {
				r := ask(wats[i], at(c.provider))
				if j >= 0 {
					r.Session = sessions[j]
				}
				out, err := w.Token(t.Context(), who, r)
				if who.Name == c.agent.Name && (j == i || j < 0) {
					released++
					if err != nil || !out.AccessToken.Equal(tokens[i]) {
						t.Errorf("%s for %s at %s: got %v, want its own token", c.agent.Name, c.user, c.provider, err)
					}
					continue
				}
				refused++
				if fault.CodeOf(err) != fault.Denied || !reflect.ValueOf(out).IsZero() {
					t.Errorf("%s with the token of %s for %s at %s and session %d: got %v, want it denied", who.Name, c.agent.Name, c.user, c.provider, j, err)
				}
			}
		}
	}
	if released != 24 || refused != 12*4*13-24 {
		t.Errorf("tried %d matches and %d mismatches", released, refused)
	}
	// All six connections of an agent are its own, and no token serves two.
	seen := map[string]bool{}
	for _, token := range tokens {
		if seen[token.Expose()] {
			t.Error("one token serves two connections")
		}
		seen[token.Expose()] = true
	}
}

// Only the app of the agent completes, and only for the user who began.
func TestNothingIsRedeemedOnAnyMismatch(t *testing.T) {
	w := newWorld(t)
	users := []string{"alice", "bob", "#alice"}
	want := 0
	for _, agent := range []access.Caller{w.agentA, w.agentB} {
		for _, began := range users {
			wat := w.watOf(combo{agent, began, "cal"})
			for _, app := range []access.Caller{w.appA, w.appB, w.agentA, w.agentB, w.admin} {
				for _, ended := range users {
					p := w.pending(agent, ask(wat, force))
					w.hold(p.Session)
					err := w.Complete(t.Context(), app, p.Session, w.userOf(ended))
					if app.Has(access.ConsentApp) && app.PairedWith(agent.Name) && began == ended {
						must(t, err)
						want++
					} else if !errors.Is(err, fault.Denied) && !errors.Is(err, fault.Invalid) {
						t.Errorf("%s of %s completed by %s for %s: got %v, want it refused", began, agent.Name, app.Name, ended, err)
					}
					if got := w.grants("authorization_code"); got != want {
						t.Fatalf("%s of %s completed by %s for %s: %d redemptions, want %d", began, agent.Name, app.Name, ended, got, want)
					}
				}
			}
		}
	}
	if want != 6 {
		t.Errorf("%d matches, want 6", want)
	}
}
