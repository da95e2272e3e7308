package identity_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// mints are the three ways to a token, for user "alice" where there is one.
func (w *world) mints() map[string]func(access.Caller, string) (identity.Minted, error) {
	ctx := w.t.Context()
	return map[string]func(access.Caller, string) (identity.Minted, error){
		"alone": func(c access.Caller, n string) (identity.Minted, error) { return w.MintToken(ctx, c, n) },
		"for a JWT": func(c access.Caller, n string) (identity.Minted, error) {
			return w.MintTokenForJWT(ctx, c, n, secret.New(w.jwt(nil)))
		},
		"for an uid": func(c access.Caller, n string) (identity.Minted, error) {
			return w.MintTokenForUserID(ctx, c, n, "alice")
		},
	}
}

func asserted() map[string]string { return map[string]string{identity.TagAssurance: identity.Asserted} }

func TestToken_RoundTrip(t *testing.T) {
	w := newWorld(t)
	w.trust()
	a := w.workload("agent-a", asserted())
	agent := caller(access.Agent, "agent-*")
	want := map[string]identity.User{
		"alone": {}, "for a JWT": {Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice"}, "for an uid": {Kind: identity.UIDUser, Subject: "alice"},
	}
	refs := map[string]bool{}
	for name, mint := range w.mints() {
		m := ok(mint(agent, "agent-a"))(t)
		if !strings.HasPrefix(m.Token.Expose(), "wat1.") || len(m.Token.Expose()) > 1000 {
			t.Errorf("%s: got a token of %d characters", name, len(m.Token.Expose()))
		}
		for _, plain := range []string{"alice", "idp.example.com", a.UID} {
			if raw := ok(base64.RawURLEncoding.DecodeString(m.Token.Expose()[5:]))(t); strings.Contains(string(raw), plain) {
				t.Errorf("%s: the token shows %q", name, plain)
			}
		}
		tok, found, err := w.OpenToken(t.Context(), account, m.Token)
		must(t, err)
		if tok.User != want[name] || tok.WorkloadUID != a.UID || found.Name != "agent-a" || tok.Expired || tok.Generation != 1 || tok.Account != account {
			t.Errorf("%s: got %+v of %s", name, tok, found.Name)
		}
		life := 15 * time.Minute
		if name == "for a JWT" { // which has an hour
			life = time.Hour
		}
		if !tok.Expires.Equal(m.Expires) || !tok.Expires.Equal(w.clock.now().Add(life)) || !tok.Issued.Equal(w.clock.now()) {
			t.Errorf("%s: got issued %v, expires %v (%v), want now and %v", name, tok.Issued, tok.Expires, m.Expires, life)
		}
		if again := ok(mint(agent, "agent-a"))(t); again.Token.Equal(m.Token) {
			t.Errorf("%s: got one token twice", name)
		}
		if tok.Asserted() != (name == "for an uid") || len(tok.Hash) != 64 {
			t.Errorf("%s: got asserted %v, hash %q", name, tok.Asserted(), tok.Hash)
		}
		refs[tok.UserRef] = true
	}
	if len(refs) != 3 || !refs[""] {
		t.Errorf("got user references %v, want three: none, proven, asserted", refs)
	}
}

func TestA01_B01_OnlyPairedCallersMint(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.workload("agent-a", asserted())
	w.workload("agent-b", asserted())
	for name, mint := range w.mints() {
		for _, c := range []access.Caller{
			{}, {Account: account}, caller(access.Agent), caller(access.Agent, "agent-b"), caller(access.Agent, "agent", "agent-a-*", "*-b"), caller(access.Admin, "agent-a"),
			caller(access.Auditor, "agent-a"), caller(access.ConsentApp, "agent-a"),
		} {
			exists, missing := fault.Public(second(mint(c, "agent-a"))), fault.Public(second(mint(c, "agent-x")))
			wantCode(t, fmt.Sprintf("%s: %s paired with %v", name, c.Name, c.Workloads), exists, fault.Denied)
			// Whether it exists is not told.
			if got := strings.ReplaceAll(missing.Msg, "agent-x", "agent-a"); missing.Code != exists.Code || got != exists.Msg {
				t.Errorf("%s: got %q where there is none and %q where there is one", name, missing, exists)
			}
		}
		for _, c := range []access.Caller{w.root, caller(access.Agent, "agent-a", "agent-x"), caller(access.Agent, "*")} {
			ok(mint(c, "agent-a"))(t)
			wantCode(t, name+": none of that name", second(mint(c, "agent-x")), fault.NotFound)
		}
		foreign := access.Caller{Account: other, Principal: "prn-x", Name: "x", Roles: []access.Role{access.Root}}
		wantCode(t, name+": root of another account", second(mint(foreign, "agent-a")), fault.NotFound)
	}
	for _, r := range w.records() {
		if r.Allow && r.Name == "agent" && r.Facts.Workload == "agent-b" {
			t.Errorf("got a record that allows %s on agent-b", r.Action)
		}
	}
}

func second(_ identity.Minted, err error) error { return err }

func TestA05_AgentsDoNotAssertUsersByDefault(t *testing.T) {
	w := newWorld(t)
	w.workload("agent-plain", nil)
	w.workload("agent-verified", map[string]string{identity.TagAssurance: identity.Verified})
	w.workload("agent-asserted", asserted())
	agent := caller(access.Agent, "*")
	for _, name := range []string{"agent-plain", "agent-verified"} {
		_, err := w.MintTokenForUserID(t.Context(), agent, name, "alice")
		wantCode(t, name, err, fault.Denied)
		if !strings.Contains(err.Error(), "tabard:assurance") {
			t.Errorf("got %v, want a message that names the tag", err)
		}
		ok(w.MintTokenForUserID(t.Context(), w.root, name, "alice"))(t)
	}
	ok(w.MintTokenForUserID(t.Context(), agent, "agent-asserted", "alice"))(t)
	last := w.records()[len(w.records())-1]
	if !last.Facts.Asserted || len(last.Facts.UserRef) != 64 {
		t.Errorf("got facts %+v, want the record to say that the user was asserted, and its reference", last.Facts)
	}
	for _, id := range []string{"", "a\nb", strings.Repeat("a", 129)} {
		_, err := w.MintTokenForUserID(t.Context(), agent, "agent-asserted", id)
		wantCode(t, fmt.Sprintf("user id %.10q", id), err, fault.Invalid)
	}
}

func TestA03_TheUserComesFromTheToken(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.workload("agent-a", nil)
	agent := caller(access.Agent, "agent-a")
	open := func(sub string) identity.Token {
		m := ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(map[string]any{"sub": sub}))))(t)
		tok, _, err := w.OpenToken(t.Context(), account, m.Token)
		must(t, err)
		return tok
	}
	alice, bob := open("alice"), open("bob")
	if alice.User == bob.User || alice.UserRef == bob.UserRef || alice.Hash == bob.Hash {
		t.Errorf("got %+v and %+v, want two users", alice, bob)
	}
	// A fresh JWT of the same user is the same user.
	w.clock.add(time.Minute)
	if again := open("alice"); again.UserRef != alice.UserRef {
		t.Errorf("got reference %s after %s for the same user", again.UserRef, alice.UserRef)
	}
}

func TestB02_B03_DeletedAndRecreated(t *testing.T) {
	w := newWorld(t)
	w.trust()
	first := w.workload("agent-a", nil)
	old := ok(w.MintToken(t.Context(), w.root, "agent-a"))(t)
	must(t, w.DeleteWorkload(t.Context(), w.root, "agent-a"))
	_, _, err := w.OpenToken(t.Context(), account, old.Token)
	wantCode(t, "token of a deleted workload identity", err, fault.Unauthenticated)
	wantCode(t, "mint", second(w.MintToken(t.Context(), w.root, "agent-a")), fault.NotFound)
	wantCode(t, "delete again", w.DeleteWorkload(t.Context(), w.root, "agent-a"), fault.NotFound)

	again := w.workload("agent-a", nil)
	if again.UID == first.UID {
		t.Errorf("got uid %s twice", again.UID)
	}
	_, _, err = w.OpenToken(t.Context(), account, old.Token)
	wantCode(t, "old token after it was created again", err, fault.Unauthenticated)
	fresh := ok(w.MintToken(t.Context(), w.root, "agent-a"))(t)
	if tok, _, err := w.OpenToken(t.Context(), account, fresh.Token); err != nil || tok.WorkloadUID != again.UID {
		t.Errorf("got %+v, %v, want the new uid", tok, err)
	}

	// Restored, the row lives again, but what was issued before does not.
	must(t, w.DeleteWorkload(t.Context(), w.root, "agent-a"))
	gone := ok(w.db.WorkloadByUID(t.Context(), account, first.UID))(t)
	restored := gone
	restored.Deleted, restored.Version = time.Time{}, gone.Version+1
	must(t, w.db.SwapWorkload(t.Context(), restored, gone.Version))
	_, _, err = w.OpenToken(t.Context(), account, old.Token)
	wantCode(t, "old token after the restore", err, fault.Unauthenticated)
}

func TestB04_EveryChangedByteIsOneError(t *testing.T) {
	w := newWorld(t)
	w.workload("agent-a", nil)
	text := ok(w.MintToken(t.Context(), w.root, "agent-a"))(t).Token.Expose()
	raw := ok(base64.RawURLEncoding.DecodeString(text[5:]))(t)
	var messages []string
	try := func(name, changed string) {
		t.Helper()
		tok, _, err := w.OpenToken(t.Context(), account, secret.New(changed))
		wantCode(t, name, err, fault.Unauthenticated)
		if tok != (identity.Token{}) {
			t.Errorf("%s: got %+v beside the error", name, tok)
		}
		if m := fault.Public(err).Msg; !slices.Contains(messages, m) {
			messages = append(messages, m)
		}
	}
	for i := range raw {
		for _, bit := range []byte{0x01, 0x80} {
			flipped := slices.Clone(raw)
			flipped[i] ^= bit
			try(fmt.Sprintf("byte %d", i), "wat1."+jwstest.B64(flipped))
		}
		try(fmt.Sprintf("cut to %d bytes", i), "wat1."+jwstest.B64(raw[:i]))
	}
	try("longer", "wat1."+jwstest.B64(append(slices.Clone(raw), 0)))
	try("padded", text+"=")
	try("line break", text[:20]+"\n"+text[20:])
	if len(messages) != 1 {
		t.Errorf("got messages %q, want one for all", messages)
	}
	for _, s := range []string{"", "wat1", "wat2." + text[5:], "WAT1." + text[5:], " " + text, text[5:], "wat1." + strings.Repeat("A", 1<<20)} {
		_, _, err := w.OpenToken(t.Context(), account, secret.New(s))
		wantCode(t, fmt.Sprintf("%.12q", s), err, fault.Unauthenticated)
	}
}

func TestB05_BoundToServerAndAccount(t *testing.T) {
	w := newWorld(t)
	w.workload("agent-a", nil)
	token := ok(w.MintToken(t.Context(), w.root, "agent-a"))(t).Token
	_, _, err := w.OpenToken(t.Context(), other, token)
	wantCode(t, "another account", err, fault.Unauthenticated)
	if !strings.Contains(err.Error(), "does not open") {
		t.Errorf("another account: got %v, want the seal itself to refuse", err)
	}
	for _, url := range []string{"https://staging.example.com", publicURL + "/", publicURL + string(account)} {
		config := w.config
		config.Issuer = url
		elsewhere := ok(identity.New(config))(t)
		_, _, err := elsewhere.OpenToken(t.Context(), account, token)
		wantCode(t, "the same keys at "+url, err, fault.Unauthenticated)
	}
	// The same bytes sealed for another purpose are no token.
	sealed := ok(w.vault.SealServer(t.Context(), vault.RingAccessKeys, []byte("x"), []byte("y")))(t)
	_, _, err = w.OpenToken(t.Context(), account, secret.New("wat1."+jwstest.B64(sealed)))
	wantCode(t, "a sealed access key", err, fault.Unauthenticated)
}

func TestB06_TokensDoNotStandForEachOther(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.workload("agent-a", nil)
	wat, jwt := ok(w.MintToken(t.Context(), w.root, "agent-a"))(t).Token, secret.New(w.jwt(nil))
	_, _, err := w.OpenToken(t.Context(), account, jwt)
	wantCode(t, "a JWT as workload access token", err, fault.Unauthenticated)
	_, err = w.VerifyUser(t.Context(), account, "agent-a", wat)
	wantCode(t, "a workload access token as user token", err, fault.Unauthenticated)
	if !strings.Contains(err.Error(), "workload access token") {
		t.Errorf("got %v, want a message that says what it is", err)
	}
	wantCode(t, "mint for it", second(w.MintTokenForJWT(t.Context(), w.root, "agent-a", wat)), fault.Unauthenticated)
}

func TestB07_LifetimeEndsWithTheJWT(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.workload("agent-a", nil)
	agent := caller(access.Agent, "agent-a")
	mint := func(life time.Duration) (identity.Minted, error) {
		jwt := w.jwt(map[string]any{"iat": nil, "exp": w.clock.now().Add(life).Unix()})
		return w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(jwt))
	}
	m := ok(mint(30 * time.Second))(t)
	if want := w.clock.now().Add(30 * time.Second); !m.Expires.Equal(want) {
		t.Errorf("got expiry %v for a JWT with 30 s left, want %v", m.Expires, want)
	}
	for life, want := range map[time.Duration]time.Duration{
		40 * time.Minute: 40 * time.Minute, time.Hour: time.Hour, 61 * time.Minute: time.Hour, 24 * time.Hour: time.Hour,
	} {
		if long := ok(mint(life))(t); !long.Expires.Equal(w.clock.now().Add(want)) {
			t.Errorf("got expiry %v for a JWT with %v left, want it after %v", long.Expires, life, want)
		}
	}
	wantCode(t, "expired within the skew", second(mint(-10*time.Second)), fault.Unauthenticated)
	wantCode(t, "expires now", second(mint(0)), fault.Unauthenticated)
	w.clock.add(30*time.Second - time.Millisecond)
	if tok, _, err := w.OpenToken(t.Context(), account, m.Token); err != nil || tok.Expired {
		t.Errorf("1 ms before the end: got expired %v, %v", tok.Expired, err)
	}
	w.clock.add(time.Millisecond)
	if tok, _, err := w.OpenToken(t.Context(), account, m.Token); err != nil || !tok.Expired {
		t.Errorf("at the end: got expired %v, %v, want expired and no error", tok.Expired, err)
	}
}

// A token that is handed on lives for 15 minutes, and never for longer than the one that it was made of.
func TestB07_HandedOnLivesNoLongerThanItsSource(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.workload("agent-a", nil)
	w.workload("agent-b", nil)
	m := ok(w.MintTokenForJWT(t.Context(), caller(access.Agent, "agent-a"), "agent-a", secret.New(w.jwt(nil))))(t)
	for _, passed := range []time.Duration{0, 30 * time.Minute, 50 * time.Minute, time.Hour - time.Second} {
		begin := m.Expires.Add(-time.Hour)
		w.clock.add(begin.Add(passed).Sub(w.clock.now()))
		got := ok(w.MintTokenThrough(t.Context(), caller(access.Agent, "agent-b"), m.Token, "agent-b"))(t)
		want := begin.Add(min(passed+15*time.Minute, time.Hour))
		if !got.Expires.Equal(want) {
			t.Errorf("after %s: got expiry %s, want %s", passed, got.Expires, want)
		}
	}
}

// The key that sealed the longest token opens it until its end, however often the ring gets new ones meanwhile.
func TestB12_LongestTokenOutlivesRotations(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.workload("agent-a", nil)
	m := ok(w.MintTokenForJWT(t.Context(), caller(access.Agent, "agent-a"), "agent-a", secret.New(w.jwt(nil))))(t)
	for w.clock.now().Before(m.Expires) {
		ok(w.vault.RotateRing(t.Context(), vault.RingTokens, 0, identity.UserTokenLife+time.Minute))(t)
		if tok, _, err := w.OpenToken(t.Context(), account, m.Token); err != nil || tok.Expired {
			t.Fatalf("%s before its end: got expired %v, %v", m.Expires.Sub(w.clock.now()), tok.Expired, err)
		}
		w.clock.add(time.Minute)
	}
}

func TestMint_Records(t *testing.T) {
	w := newWorld(t)
	w.trust()
	a := w.workload("agent-a", nil)
	agent := caller(access.Agent, "agent-a")
	before := len(w.records())
	ok(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(nil))))(t)
	wantCode(t, "a bad JWT", second(w.MintTokenForJWT(t.Context(), agent, "agent-a", secret.New(w.jwt(map[string]any{"aud": "x"})))), fault.Unauthenticated)
	got := w.records()[before:]
	if len(got) != 4 {
		t.Fatalf("got %d records, want 4", len(got))
	}
	if r := got[1]; r.Facts.Outcome != "minted" || len(r.Facts.UserRef) != 64 || r.Facts.WorkloadUID != a.UID || !r.Allow {
		t.Errorf("got %+v, want the user that the token was minted for", r)
	}
	if r := got[3]; r.Facts.Outcome != "refused" || r.Allow || r.Rule != "user-token" || r.Facts.Detail == "" {
		t.Errorf("got %+v, want the refusal and its reason", r)
	}
	for _, r := range got {
		if strings.Contains(fmt.Sprintf("%+v", r), "alice") {
			t.Errorf("the record %+v names the user", r)
		}
	}
	// A denied caller causes no fetch and no check of the JWT.
	w2 := newWorld(t)
	w2.trust()
	wantCode(t, "denied", second(w2.MintTokenForJWT(t.Context(), caller(access.Agent, "x"), "agent-a", secret.New(w2.jwt(nil)))), fault.Denied)
	if n := w2.idp.fetches(); n != 0 {
		t.Errorf("got %d fetches for a denied caller, want none", n)
	}
}

func TestMint_NothingWithoutTheRecord(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.workload("agent-a", asserted())
	w.guard.Close()
	for name, mint := range w.mints() {
		m, err := mint(caller(access.Agent, "agent-a"), "agent-a")
		if !errors.Is(err, fault.Unavailable) || !m.Token.IsZero() {
			t.Errorf("%s: got a token %v and %v, want none without its audit record", name, !m.Token.IsZero(), err)
		}
	}
}

func TestRememberUser_KeepsNothingReadable(t *testing.T) {
	w := newWorld(t)
	kept := &userRows{Store: w.db}
	w.config.Store = kept
	s := ok(identity.New(w.config))(t)
	u := identity.User{Kind: identity.JWTUser, Issuer: issuerURL, Subject: "alice@example.com"}
	must(t, s.RememberUser(t.Context(), account, u))
	must(t, s.RememberUser(t.Context(), account, u))
	must(t, s.RememberUser(t.Context(), account, identity.User{}))
	if len(kept.sealed) != 2 || kept.refs[0] != ok(s.UserRef(t.Context(), account, u))(t) {
		t.Fatalf("got rows %q, want the user's own", kept.refs)
	}
	if strings.Contains(string(kept.sealed[0]), "alice") {
		t.Error("the row shows the subject")
	}
	row := vault.Ref{Account: account, Table: "users", Column: "sealed", Key: kept.refs[0], User: kept.refs[0]}
	if plain := ok(w.vault.Open(t.Context(), row, kept.sealed[0]))(t); !strings.Contains(plain.Expose(), "alice@example.com") {
		t.Error("the row does not open to its user")
	}
}
