package broker_test

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Alice's agent starts, bob's browser finishes: nothing reaches the provider's token endpoint, and the session is dead
// for everybody.
func TestC01_AnotherUserFinishesConsent(t *testing.T) {
	for _, when := range []string{"before the provider answered", "with a held code"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			wat := w.wat(w.agentA, "alice")
			p := w.pending(w.agentA, ask(wat))
			visit := w.visit(p.Session)
			if when == "with a held code" {
				_, err := w.Callback(t.Context(), visit)
				must(t, err)
			}
			err := w.complete(w.appA, p.Session, "bob")
			wantEnding(t, "bob completes", err, broker.EndFailed)
			wantEnding(t, "alice completes after him", w.complete(w.appA, p.Session, "alice"), broker.EndFailed)
			_, err = w.Token(t.Context(), w.agentA, ask(wat, session(p.Session)))
			wantEnding(t, "alice's agent polls", err, broker.EndFailed)
			_, err = w.Authorize(t.Context(), p.Session)
			wantEnding(t, "the link is opened again", err, broker.EndFailed)
			if when != "with a held code" {
				_, err = w.Callback(t.Context(), visit)
				wantEnding(t, "the provider answers late", err, broker.EndFailed)
			}
			if n := w.provider.Hits("/token"); n != 0 {
				t.Errorf("the token endpoint got %d requests, want none", n)
			}
			if w.refused("wrong-user") != 1 {
				t.Error("the trail does not say that another user finished it")
			}
			w.pending(w.agentA, ask(wat)) // alice can begin anew
		})
	}
}

// A user who comes too late for a session that is redeemed gets nothing, and takes nothing away.
func TestC01_AnotherUserAfterRedemption(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	p := w.pending(w.agentA, ask(wat))
	w.hold(p.Session)
	must(t, w.complete(w.appA, p.Session, "alice"))
	wantCode(t, "bob", w.complete(w.appA, p.Session, "bob"), fault.Denied)
	must(t, w.complete(w.appA, p.Session, "alice"))
	w.token(w.agentA, ask(wat, session(p.Session)))
}

func TestC02_AgentCannotConfirmItsOwnConsent(t *testing.T) {
	w := newWorld(t)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	w.hold(p.Session)
	var texts []string
	for _, s := range []string{p.Session, broker.SessionPrefix + "unknown"} {
		err := w.complete(w.agentA, s, "alice")
		wantError(t, "the agent completes", err, fault.Denied, "needs the role consent-app")
		texts = append(texts, fault.Public(err).Msg)
	}
	if texts[0] != texts[1] {
		t.Errorf("a session that exists and one that does not are told apart:\n%s\n%s", texts[0], texts[1])
	}
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none", n)
	}
	must(t, w.complete(w.appA, p.Session, "alice")) // the attempts changed nothing
}

func TestC03_AppOfAnotherAgentSeesNoSession(t *testing.T) {
	w := newWorld(t)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	w.hold(p.Session)
	unknown := w.complete(w.appB, broker.SessionPrefix+"unknown", "alice")
	wantEnding(t, "unknown session", unknown, broker.EndUnknown)
	for name, app := range map[string]access.Caller{
		"app of another agent":   w.appB,
		"app of another account": caller(other, "app-a", access.ConsentApp, "agent-a"),
		"root of another":        caller(other, "root", access.Root),
	} {
		for _, user := range []string{"alice", "bob"} {
			err := w.complete(app, p.Session, user)
			if err == nil || err.Error() != unknown.Error() {
				t.Errorf("%s: got %v, want the answer for an unknown session: %v", name, err, unknown)
			}
		}
	}
	must(t, w.complete(w.appA, p.Session, "alice"))
}

func TestC04_IdentifierMustBeOfTheSessionsKind(t *testing.T) {
	w := newWorld(t)
	byJWT := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"))).Session
	byID := w.pending(w.agentA, ask(w.watForID(w.agentA, "alice"))).Session
	for _, s := range []string{byJWT, byID} {
		w.hold(s)
	}
	alice := w.jwt("alice")
	for _, c := range []struct {
		name    string
		session string
		user    broker.UserIdentifier
		code    fault.Code
		msg     string
	}{
		{"id for a token's session", byJWT, broker.UserIdentifier{ID: "alice"}, fault.Denied, "Invalid or expired session: it was begun for a user known by a token"},
		{"nothing for a token's session", byJWT, broker.UserIdentifier{}, fault.Denied, "Invalid or expired session: it was begun for a user known by a token"},
		{"token for an id's session", byID, broker.UserIdentifier{Token: alice}, fault.Denied, "Invalid or expired session: it was begun for a user known by an id"},
		{"nothing for an id's session", byID, broker.UserIdentifier{}, fault.Denied, "Invalid or expired session: it was begun for a user known by an id"},
		{"a made-up token", byJWT, broker.UserIdentifier{Token: secret.New("x.y.z")}, fault.Unauthenticated, ""},
		{"the right token", byJWT, broker.UserIdentifier{Token: alice}, "", ""},
		{"the right id", byID, broker.UserIdentifier{ID: "alice"}, "", ""},
	} {
		wantError(t, c.name, w.Complete(t.Context(), w.appA, c.session, c.user), c.code, c.msg)
	}
	if n := w.grants("authorization_code"); n != 2 {
		t.Errorf("got %d redemptions, want 2", n)
	}
}

// together runs f in n goroutines and counts the errors by ending, "" for success.
func together(n int, f func(i int) error) map[broker.Ending]int {
	var mu sync.Mutex
	count := map[broker.Ending]int{}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			err := f(i)
			mu.Lock()
			defer mu.Unlock()
			count[endingOf(err)]++
		})
	}
	all.Wait()
	return count
}

func TestC05_CallbackCountsOnce(t *testing.T) {
	w := newWorld(t)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	same := w.visit(p.Session)
	visits := make([]broker.Answer, 49)
	for i := range visits {
		visits[i] = w.visit(p.Session)
	}
	_, err := w.Authorize(t.Context(), p.Session)
	wantEnding(t, "the 51st visit", err, broker.EndFailed)
	got := together(50, func(int) error { _, err := w.Callback(t.Context(), same); return err })
	if got[""] != 1 || got[broker.EndUsed] != 49 {
		t.Errorf("50 times the same answer: got %v, want one taken", got)
	}
	got = together(49, func(i int) error { _, err := w.Callback(t.Context(), visits[i]); return err })
	if got[broker.EndUsed] != 49 {
		t.Errorf("49 other answers after it: got %v, want all too late", got)
	}
	got = together(50, func(int) error { return w.complete(w.appA, p.Session, "alice") })
	if got[""] != 50 {
		t.Errorf("50 times complete: got %v, want all well", got)
	}
	if n := w.grants("authorization_code"); n != 1 || w.provider.Sent(same.Code.Expose()) != 1 {
		t.Errorf("got %d redemptions, want 1, of the code that won", n)
	}
}

func TestC05_FirstOfManyVisitsWins(t *testing.T) {
	w := newWorld(t)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	visits := make([]broker.Answer, 20)
	for i := range visits {
		visits[i] = w.visit(p.Session)
	}
	got := together(20, func(i int) error { _, err := w.Callback(t.Context(), visits[i]); return err })
	if got[""] != 1 || got[broker.EndUsed] != 19 {
		t.Errorf("got %v, want one taken and the others too late", got)
	}
	must(t, w.complete(w.appA, p.Session, "alice"))
	_, err := w.Authorize(t.Context(), p.Session)
	wantEnding(t, "the link after it", err, broker.EndUsed)
}

// A second tab in which the user declines takes nothing away from the consent given in the first.
func TestC05_LateRefusalChangesNothing(t *testing.T) {
	w := newWorld(t)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	late := w.visit(p.Session)
	w.hold(p.Session)
	late.Code, late.Error = secret.Text{}, "access_denied"
	_, err := w.Callback(t.Context(), late)
	wantEnding(t, "the second tab", err, broker.EndUsed)
	must(t, w.complete(w.appA, p.Session, "alice"))
}

// A state is good for one answer, in whatever state its session is.
func TestC06_StateIsSpentOnce(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	begin := func() (string, broker.Answer) {
		s := w.pending(w.agentA, ask(wat, force)).Session
		return s, w.visit(s)
	}
	reuse := func(when string, a broker.Answer, want broker.Ending) {
		t.Helper()
		a.Code = secret.New("another-code")
		_, err := w.Callback(t.Context(), a)
		wantEnding(t, when, err, want)
	}
	s, a := begin()
	wrong := a
	wrong.Issuer = "https://evil.example"
	_, err := w.Callback(t.Context(), wrong)
	wantEnding(t, "mixed up", err, broker.EndMixedUp)
	reuse("created", a, broker.EndUsed)

	a = w.visit(s)
	_, err = w.Callback(t.Context(), a)
	must(t, err)
	reuse("code held", a, broker.EndUsed)
	must(t, w.complete(w.appA, s, "alice"))
	reuse("redeemed", a, broker.EndUsed)

	_, a = begin()
	declined := a
	declined.Code, declined.Error = secret.Text{}, "access_denied"
	_, err = w.Callback(t.Context(), declined)
	wantEnding(t, "declined", err, broker.EndDeclined)
	reuse("failed", a, broker.EndUsed)

	_, a = begin()
	w.clock.add(broker.SessionLifetime)
	_, err = w.Callback(t.Context(), a)
	wantEnding(t, "too late", err, broker.EndExpired)
	reuse("expired", a, broker.EndUsed)

	wat = w.wat(w.agentA, "alice")
	_, a = begin()
	_, b := begin()
	a.State = b.State
	_, err = w.Callback(t.Context(), a)
	wantEnding(t, "another flow's state", err, broker.EndOtherBrowser)
	_, err = w.Callback(t.Context(), b)
	must(t, err) // which that did not spend

	_, err = w.Callback(t.Context(), broker.Answer{CallbackID: b.CallbackID, Code: b.Code})
	wantEnding(t, "no state", err, broker.EndUnknown)
	if n := w.grants("authorization_code"); n != 1 {
		t.Errorf("got %d redemptions, want 1", n)
	}
}

func TestC07_CallbackInAnotherBrowser(t *testing.T) {
	w := newWorld(t)
	p := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	a, b := w.visit(p.Session), w.visit(p.Session)
	for name, cookie := range map[string]secret.Text{"no cookie": {}, "another visit's": b.Cookie, "made up": secret.New("x")} {
		try := a
		try.Cookie = cookie
		_, err := w.Callback(t.Context(), try)
		wantEnding(t, name, err, broker.EndOtherBrowser)
	}
	_, err := w.Callback(t.Context(), a)
	must(t, err)
	must(t, w.complete(w.appA, p.Session, "alice"))
}

// Login CSRF: the attacker consents with his own account in his own browser, keeps the provider's answer, and brings
// the victim's browser to open it. The victim's browser has no cookie of that visit. And whoever finishes is held
// against who began (C01), so that the attacker's account cannot become alice's connection.
func TestC08_AttackersAnswerInVictimsBrowser(t *testing.T) {
	w := newWorld(t)
	alices := w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	mallorys := w.pending(w.agentA, ask(w.wat(w.agentA, "mallory")))
	victim, attack := w.visit(alices.Session), w.visit(mallorys.Session)

	csrf := attack
	csrf.Cookie = secret.Text{}
	_, err := w.Callback(t.Context(), csrf)
	wantEnding(t, "the victim's browser without a visit", err, broker.EndOtherBrowser)
	csrf.Cookie = victim.Cookie
	_, err = w.Callback(t.Context(), csrf)
	wantEnding(t, "the victim's browser with a visit of its own", err, broker.EndOtherBrowser)

	_, err = w.Callback(t.Context(), attack)
	must(t, err)
	wantEnding(t, "alice finishes mallory's session", w.complete(w.appA, mallorys.Session, "alice"), broker.EndFailed)
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none", n)
	}
	_, err = w.Callback(t.Context(), victim)
	must(t, err)
	must(t, w.complete(w.appA, alices.Session, "alice"))
	w.pending(w.agentA, ask(w.wat(w.agentA, "mallory")))
}

// RFC 9207 §2.4. A name of an issuer binds whether or not the provider promised one.
func TestC09_IssuerOfTheAnswer(t *testing.T) {
	w := newWorld(t)
	w.provider.SetMetadata("authorization_response_iss_parameter_supported", nil)
	w.createProvider("silent", "StrictOauth2")
	wat := w.wat(w.agentA, "alice")
	_, _ = w.Authorize(t.Context(), w.pending(w.agentA, ask(wat, at("silent"))).Session) // caches metadata without the promise
	right := w.provider.URL
	for _, c := range []struct {
		name     string
		promised bool
		iss      string
		has      bool
		taken    bool
	}{
		{"right", true, right, true, true},
		{"missing", true, "", false, false},
		{"empty", true, "", true, false},
		{"wrong", true, "https://evil.example", true, false},
		{"slash at the end", true, right + "/", true, false},
		{"upper case", true, strings.ToUpper(right), true, false},
		{"escaped", true, strings.Replace(right, ":", "%3A", 1), true, false},
		{"right, not promised", false, right, true, true},
		{"missing, not promised", false, "", false, true},
		{"wrong, not promised", false, "https://evil.example", true, false},
		{"empty, not promised", false, "", true, false},
	} {
		if c.promised {
			w.provider.SetMetadata("authorization_response_iss_parameter_supported", true)
		} else {
			w.provider.SetMetadata("authorization_response_iss_parameter_supported", nil)
		}
		w.clock.add(11 * time.Minute) // the metadata is read again
		s := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"))).Session
		a := w.visit(s)
		a.Issuer, a.HasIssuer = c.iss, c.has
		_, err := w.Callback(t.Context(), a)
		if c.taken {
			must(t, err)
			continue
		}
		wantEnding(t, c.name, err, broker.EndMixedUp)
		wantCode(t, c.name+": complete", w.complete(w.appA, s, "alice"), fault.Denied)
		// What a mixed-up answer says is not believed either: it does not end the session.
		a = w.visit(s)
		a.Issuer, a.HasIssuer, a.Code, a.Error, a.Description = "https://evil.example", true, secret.Text{}, "access_denied", "<script>"
		_, err = w.Callback(t.Context(), a)
		wantEnding(t, c.name+": error from elsewhere", err, broker.EndMixedUp)
		if err != nil && strings.Contains(err.Error(), "script") {
			t.Errorf("%s: shows the words of the wrong provider: %v", c.name, err)
		}
		_, err = w.Callback(t.Context(), w.visit(s))
		must(t, err)
	}
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none", n)
	}
}

// The provider in the path of the callback is the flow's: its code goes to no other token endpoint.
func TestC10_AnswerAtAnotherProvidersCallback(t *testing.T) {
	w := newWorld(t)
	evil := w.createProvider("evil", "StrictOauth2")
	s := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"))).Session
	a := w.visit(s)
	a.CallbackID = evil.CallbackID
	_, err := w.Callback(t.Context(), a)
	wantEnding(t, "another provider's callback", err, broker.EndMixedUp)
	if n := w.provider.Hits("/token"); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none", n)
	}
	_, err = w.Callback(t.Context(), w.visit(s))
	must(t, err)
}

func TestC28_SessionsAreNotGuessed(t *testing.T) {
	w := newWorld(t)
	seen := map[string]bool{}
	var at [43][256]int
	for i := range 300 {
		wat := w.watForID(w.agentA, strconv.Itoa(i/50)) // nobody may have more at once
		s, ok := strings.CutPrefix(w.pending(w.agentA, ask(wat)).Session, broker.SessionPrefix)
		if !ok || len(s) != 43 || seen[s] { // 43 characters of base64url are 256 bits
			t.Fatalf("got session %q, want 43 characters, never seen", s)
		}
		seen[s] = true
		for i := range s {
			at[i][s[i]]++
		}
	}
	for i, counts := range at {
		for c, n := range counts {
			// Of 64 characters each comes 4.7 times in 300 (the last place has 16: 18.8 times).
			if n > 25 && i < 42 || n > 60 {
				t.Errorf("place %d has %q %d times in 300 sessions", i, rune(c), n)
			}
		}
	}
}

func TestC28_AnswersAreNeutral(t *testing.T) {
	w := newWorld(t)
	w.createProvider("mail", "StrictOauth2")
	strangers := caller(other, "root", access.Root)
	alice := w.wat(w.agentA, "alice")
	foreign := map[string]string{
		"unknown":             broker.SessionPrefix + "unknown",
		"no session URI":      "x",
		"another user's":      w.pending(w.agentA, ask(w.wat(w.agentA, "bob"))).Session,
		"another agent's":     w.pending(w.agentB, ask(w.wat(w.agentB, "alice"))).Session,
		"another provider's":  w.pending(w.agentA, ask(alice, at("mail"))).Session,
		"an asserted user's":  w.pending(w.agentA, ask(w.watForID(w.agentA, "alice"))).Session,
		"another agent's, of": w.pending(w.agentB, ask(w.watForID(w.agentB, "bob"))).Session,
	}
	want := ""
	for name, s := range foreign {
		_, err := w.Token(t.Context(), w.agentA, ask(alice, session(s)))
		wantEnding(t, name, err, broker.EndUnknown)
		if want == "" {
			want = err.Error()
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want the one answer %s", name, err, want)
		}
	}
	_, err := w.Token(t.Context(), strangers, ask(alice, session(foreign["another user's"])))
	wantCode(t, "another account", err, fault.Unauthenticated)
	for name, s := range foreign {
		if name == "unknown" || name == "no session URI" {
			_, err := w.Authorize(t.Context(), s)
			wantEnding(t, name, err, broker.EndUnknown)
			continue
		}
		_, err := w.Authorize(t.Context(), s) // and none of them was touched
		must(t, err)
	}
}
