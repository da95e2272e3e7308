package federation_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

// uniform is what a caller reads whatever the reason.
const uniform = "not authorized to perform sts:AssumeRoleWithWebIdentity"

func (w *world) bearer(name, jwt string) (access.Caller, error) {
	return w.Bearer(w.t.Context(), federation.Role{Principal: name}, secret.New(jwt))
}

// credential is what a signature of the session would be verified with.
func (w *world) credential(s federation.Session) (identity.Credential, error) {
	return w.Credential(w.t.Context(), s.AccessKeyID, s.Token)
}

// J07: role, account and rule that are not the token's are refused in the same words; the trail says why.
func TestJ07_ForeignRoles(t *testing.T) {
	w, _ := newAgent(t)
	w.principal(account, "admin", access.Admin)
	w.principal(other, "agent2", access.Agent)
	stranger := jwstest.Sign(t, "ES256", map[string]any{"kid": "ec"}, w.claims(nil), jwstest.Stranger(t))
	for what, c := range map[string]struct {
		role  federation.Role
		token string
		rule  string
	}{
		"no such principal":      {role("nobody"), w.jwt(nil), "no-rule"},
		"another's role":         {role("admin"), w.jwt(nil), "no-rule"},
		"another account":        {federation.Role{Account: other, Principal: "agent2"}, w.jwt(nil), "issuer-not-trusted"},
		"an account of nobody":   {federation.Role{Account: "999999999999", Principal: "agent"}, w.jwt(nil), "issuer-not-trusted"},
		"the server's vault":     {federation.Role{Account: "server", Principal: "agent"}, w.jwt(nil), "issuer-not-trusted"},
		"every account":          {federation.Role{Account: "*", Principal: "agent"}, w.jwt(nil), "issuer-not-trusted"},
		"a subject with no rule": {role("agent"), w.jwt(map[string]any{"sub": "system:serviceaccount:dev:agent"}), "no-rule"},
		"an issuer of nobody":    {role("agent"), w.jwt(map[string]any{"iss": "https://other.example.com"}), "issuer-not-trusted"},
		"no issuer":              {role("agent"), w.jwt(map[string]any{"iss": nil}), "issuer-not-trusted"},
		"another audience":       {role("agent"), w.jwt(map[string]any{"aud": "sts.amazonaws.com"}), "audience"},
		"a stranger's signature": {role("agent"), stranger, "signature"},
	} {
		public, trail := w.refused(what, c.role, c.token, fault.Denied)
		if public != uniform || trail.Rule != c.rule || trail.Facts.Resource != c.role.String() || trail.Facts.Detail == "" {
			t.Errorf("%s: the caller reads %q, the record is %s %+v; want rule %s", what, public, trail.Rule, trail.Facts, c.rule)
		}
	}
	for _, a := range []access.Account{other, "999999999999"} {
		if r := w.lastRecord(a); r.Action != "" {
			t.Errorf("a stranger wrote %+v into the trail of account %s", r, a)
		}
	}
}

func TestAssumeGivesWhatIsRecorded(t *testing.T) {
	w, rule := newAgent(t)
	s, err := w.assume(role("agent"), w.jwt(nil))
	must(t, err)
	if len(s.AccessKeyID) != 20 || !strings.HasPrefix(s.AccessKeyID, "TABSTS") || !s.Expires.Equal(w.clock().Add(time.Hour)) || s.Role != role("agent") {
		t.Errorf("got key %q until %s for %s", s.AccessKeyID, s.Expires, s.Role)
	}
	last := w.lastRecord(account)
	if !last.Allow || last.Name != "agent" || last.AccessKey != s.AccessKeyID || last.Facts.Outcome != "assumed" || !strings.Contains(last.Facts.Detail, rule.ID) ||
		!strings.Contains(last.Facts.Detail, agentSub) || !strings.Contains(last.Facts.Detail, "pod-1") {
		t.Errorf("got the record %+v", last)
	}
	c, err := w.credential(s)
	must(t, err)
	key, err := c.Secret(t.Context())
	if err != nil || !key.Equal(s.Secret) || c.Version >= 0 || c.Caller.Name != "agent" || c.Caller.AccessKey != s.AccessKeyID || !c.Caller.PairedWith("calendar-agent") {
		t.Errorf("got the caller %+v of version %d", c.Caller, c.Version)
	}
	// The session is not bound by the token's end, as AWS's is not; it is by its own.
	w.later(time.Hour - time.Second)
	if _, err := w.credential(s); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	w.later(time.Second)
	_, err = w.credential(s)
	wantCode(t, "at its end", err, fault.CredentialsExpired)
}

// J05: a session token opens beside its own access key only, whole, here, and while what it rests on stands.
func TestJ05_SessionTokens(t *testing.T) {
	w, _ := newAgent(t)
	one, err := w.assume(role("agent"), w.jwt(nil))
	must(t, err)
	two, err := w.assume(role("agent"), w.jwt(nil))
	must(t, err)
	unknown := func(what, id, token string) {
		t.Helper()
		c, err := w.Credential(t.Context(), id, secret.New(token))
		if !errors.Is(err, fault.SignatureUnknown) || c.Caller.Principal != "" {
			t.Errorf("%s: got %v, want an unknown key", what, err)
		}
	}
	text := one.Token.Expose()
	unknown("another session's key", two.AccessKeyID, text)
	unknown("a key of no session", "TABARDROOTROOTROOT00", text)
	unknown("no token", one.AccessKeyID, "")
	unknown("only the prefix", one.AccessKeyID, "ses1.")
	unknown("a workload access token", one.AccessKeyID, "wat1."+text[5:])
	unknown("one byte less", one.AccessKeyID, text[:len(text)-1])
	unknown("padding", one.AccessKeyID, text+"=")
	unknown("very long", one.AccessKeyID, text+strings.Repeat("A", 5000))
	for i := range text {
		flipped := []byte(text)
		flipped[i] ^= 1
		unknown(fmt.Sprintf("bit flipped at %d", i), one.AccessKeyID, string(flipped))
	}
	elsewhere := w.config
	elsewhere.Server = "https://another.example.com"
	if _, err := ok(federation.New(elsewhere))(t).Credential(t.Context(), one.AccessKeyID, one.Token); !errors.Is(err, fault.SignatureUnknown) {
		t.Errorf("a server of another name: got %v", err)
	}
	if _, err := w.credential(one); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// ends waits, for as long as a change may take to be seen, until the session is refused.
func (w *world) ends(what string, s federation.Session) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := w.credential(s)
		if errors.Is(err, fault.SignatureUnknown) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			w.t.Errorf("%s: got %v after two seconds, want an unknown key", what, err)
			return
		}
	}
}

// J05: a session ends within two seconds with its rule, its issuer and its principal, and so does a bearer's token.
func TestJ05_SessionsEndWithWhatTheyRestOn(t *testing.T) {
	for what, end := range map[string]func(w *world, r federation.Rule) error{
		"the rule is deleted":   func(w *world, r federation.Rule) error { return w.DeleteRule(w.t.Context(), w.root, r.ID) },
		"the issuer is deleted": func(w *world, r federation.Rule) error { return w.DeleteIssuer(w.t.Context(), w.root, r.Issuer) },
		"the issuer is replaced": func(w *world, r federation.Rule) error {
			err := w.DeleteIssuer(w.t.Context(), w.root, r.Issuer)
			w.trust()
			w.allow(r.Subject, "agent", nil)
			return err
		},
		"the issuer is disabled": func(w *world, r federation.Rule) error {
			return w.db.SwapStanding(w.t.Context(), identity.Standing{Account: account, Kind: identity.IssuerStanding, Key: cluster, Disabled: true, Epoch: 1, Version: 1}, 0)
		},
		"the issuer is enabled again": func(w *world, r federation.Rule) error {
			return w.db.SwapStanding(w.t.Context(), identity.Standing{Account: account, Kind: identity.IssuerStanding, Key: cluster, Epoch: 1, Version: 1}, 0)
		},
		"the principal is disabled": func(w *world, r federation.Rule) error {
			return w.db.SetPrincipalDisabled(w.t.Context(), account, "agent", true)
		},
	} {
		t.Run(what, func(t *testing.T) {
			w, rule := newAgent(t)
			jwt := w.jwt(nil)
			s, err := w.assume(role("agent"), jwt)
			must(t, err)
			_, err = w.bearer("", jwt)
			must(t, err)
			_, err = w.credential(s)
			must(t, err)
			must(t, end(w, rule))
			w.ends(what, s)
			if _, err := w.bearer("", jwt); (err == nil) != strings.Contains(what, "again") && what != "the issuer is replaced" {
				t.Errorf("a bearer after %s: got %v", what, err)
			}
		})
	}
}

// J09: what a request says is checked before the token is looked at.
func TestJ09_RequestsAreChecked(t *testing.T) {
	w, _ := newAgent(t)
	for what, q := range map[string]federation.Request{
		"no session":          {},
		"a short session":     {Session: "x"},
		"a long session":      {Session: strings.Repeat("x", 65)},
		"a session in two":    {Session: "a b"},
		"a line in a session": {Session: "ab\n"},
		"too short":           {Session: "pod-1", Duration: 899 * time.Second},
		"too long":            {Session: "pod-1", Duration: 3601 * time.Second},
	} {
		q.Role, q.Token = role("agent"), secret.New(w.jwt(nil))
		_, err := w.Assume(t.Context(), q)
		wantCode(t, what, err, fault.Invalid)
	}
	s, err := w.Assume(t.Context(), federation.Request{Role: role("agent"), Session: "ab", Token: secret.New(w.jwt(nil)), Duration: 15 * time.Minute})
	if err != nil || !s.Expires.Equal(w.clock().Add(15*time.Minute)) {
		t.Errorf("got %v until %s", err, s.Expires)
	}
	for _, arn := range []string{"", "agent", "arn:aws:iam::0:role/a", "arn:aws:iam::000000000000:user/a", "arn:aws:iam::000000000000:role/", "arn:aws:iam::000000000000:role/a/b",
		"arn:aws:iam::000000000000:role/a\n", "arn:aws:sts::000000000000:role/a", "arn:aws:iam::000000000000:role/" + strings.Repeat("a", 129)} {
		if _, err := federation.ParseRole("RoleArn", arn); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want invalid", arn, err)
		}
	}
}

// J05: a principal that becomes root has no sessions and no bearers: what was given to a workload does not grow with
// it.
func TestJ05_APrincipalThatBecameRoot(t *testing.T) {
	w, _ := newAgent(t)
	jwt := w.jwt(nil)
	s, err := w.assume(role("agent"), jwt)
	must(t, err)
	files := ok(filepath.Glob(filepath.Join(w.dir, "*.db")))(t)
	db := ok(sql.Open("sqlite", files[0]))(t)
	defer db.Close()
	done := ok(db.ExecContext(t.Context(), "UPDATE principals SET roles = '[\"root\"]' WHERE name = 'agent'"))(t)
	if n := ok(done.RowsAffected())(t); n != 1 {
		t.Fatalf("%d principals became root", n)
	}
	w.ends("the principal became root", s)
	_, err = w.bearer("agent", jwt)
	wantCode(t, "a bearer", err, fault.Denied)
	_, err = w.assume(role("agent"), jwt)
	wantCode(t, "another session", err, fault.Denied)
}

func TestBearer(t *testing.T) {
	w, rule := newAgent(t)
	jwt := w.jwt(nil)
	c, err := w.bearer("", jwt)
	if err != nil || c.Name != "agent" || c.AccessKey != rule.ID || !c.PairedWith("calendar-agent") {
		t.Fatalf("got %+v, %v", c, err)
	}
	// Verified once a minute, whatever the number of calls, and not beyond the token's end.
	w.keys.publish(nil, fault.New(fault.Unavailable, "gone"))
	for range 100 {
		_, err = w.bearer("agent", jwt)
		must(t, err)
	}
	_, err = w.bearer("nobody", jwt)
	wantCode(t, "a principal that no rule leads to", err, fault.Denied)
	w.principal(account, "second", access.Agent)
	w.allow("system:serviceaccount:prod:*", "second", nil)
	_, err = w.bearer("", jwt)
	if wantCode(t, "two principals", err, fault.Denied); !strings.Contains(fault.Public(err).Msg, federation.PrincipalHeader) {
		t.Errorf("got %q, want the header named", fault.Public(err).Msg)
	}
	for _, name := range []string{"agent", "second"} {
		if c, err := w.bearer(name, jwt); err != nil || c.Name != name {
			t.Errorf("%s: got %q, %v", name, c.Name, err)
		}
	}
	w.later(2 * time.Hour)
	_, err = w.bearer("agent", jwt)
	wantCode(t, "after its end", err, fault.CredentialsExpired)
}

func TestNoRuleLeadsToRoot(t *testing.T) {
	w := newWorld(t)
	w.trust()
	id := w.principal(account, "boss", access.Root)
	_, err := w.CreateRule(t.Context(), w.root, federation.Rule{Issuer: cluster, Subject: agentSub, Name: "boss"})
	wantCode(t, "a rule to root", err, fault.Invalid)
	// One that is in the database all the same gives nothing.
	must(t, w.db.CreateFederationRule(t.Context(), federation.Rule{Account: account, ID: "frl-x", Issuer: cluster, Subject: agentSub, Principal: id}))
	if _, trail := w.refused("a rule to root", role("boss"), w.jwt(nil), fault.Denied); trail.Rule != "root" {
		t.Errorf("got the record %s", trail.Rule)
	}
}
