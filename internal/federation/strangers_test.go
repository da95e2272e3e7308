package federation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

// Anybody can send tokens that nobody vouches for. They fill the trail no faster than a bound, and what a trusted
// issuer signed is recorded all the same.
func TestJ07_StrangersDoNotFillTheTrail(t *testing.T) {
	w, _ := newAgent(t)
	before := w.count(account)
	for range 1300 {
		if _, err := w.assume(role("agent"), "no token"); err == nil {
			t.Fatal("a text was taken for a token")
		}
	}
	if n := w.count(account) - before; n < 900 || n > 1100 {
		t.Errorf("1300 strangers made %d records, want about 1000", n)
	}
	if _, err := w.assume(role("nobody"), w.jwt(nil)); err == nil {
		t.Fatal("the role nobody exists")
	}
	if last := w.lastRecord(account); last.Rule != "no-rule" {
		t.Errorf("a token of a trusted issuer: the last record is %s, want no-rule", last.Rule)
	}
	w.later(time.Minute)
	if _, err := w.assume(role("agent"), "no token"); err == nil {
		t.Fatal("a text was taken for a token")
	}
	if last := w.lastRecord(account); last.Rule != "token-malformed" {
		t.Errorf("a minute later: the last record is %s, want token-malformed", last.Rule)
	}
}

func (w *world) count(in access.Account) int {
	w.t.Helper()
	total := 0
	for after := ""; ; {
		records, cursor, err := w.db.Records(w.t.Context(), in, access.Query{After: after, Limit: 1000})
		must(w.t, err)
		if total += len(records); len(records) == 0 {
			return total
		}
		after = cursor
	}
}

// A public issuer signs tokens for everybody. Those that no rule fits fill the trail no faster than a bound, by each
// way in, the next record says how many were left out, and what becomes of another issuer's and another account's
// tokens is recorded.
func TestM13_ValidTokensOfStrangersDoNotFillTheTrail(t *testing.T) {
	w, _ := newAgent(t)
	w.principal(other, "agent2", access.Agent)
	w.trust(func(i *federation.Issuer) { i.URL = "https://public.example" })
	theirs := w.root
	theirs.Account = other
	if _, err := w.CreateIssuer(t.Context(), theirs, federation.Issuer{URL: "https://public.example", Audiences: []string{"tabard"}}); err != nil {
		t.Fatal(err)
	}
	public := w.jwt(map[string]any{"iss": "https://public.example", "sub": "anybody"})
	before := w.count(account)
	for i := range 400 {
		var err error
		if i%2 == 0 {
			_, err = w.assume(role("agent"), public)
		} else {
			_, err = w.bearer("agent", public)
		}
		if err == nil {
			t.Fatal("a stranger came in")
		}
	}
	if n := w.count(account) - before; n < 90 || n > 110 {
		t.Errorf("400 valid tokens of strangers made %d records, want about 100", n)
	}
	w.refused("another issuer", role("agent"), w.jwt(map[string]any{"sub": "system:serviceaccount:prod:other"}), fault.Denied)
	if last := w.lastRecord(account); !strings.Contains(last.Facts.Detail, cluster) {
		t.Errorf("another issuer's token: the last record is %+v", last.Facts)
	}
	if _, err := w.assume(federation.Role{Account: other, Principal: "agent2"}, public); err == nil {
		t.Error("no rule of the other account leads anywhere")
	}
	if last := w.lastRecord(other); last.Rule != "no-rule" {
		t.Errorf("the other account's last record is %s, want no-rule", last.Rule)
	}
	if _, err := w.assume(role("agent"), w.jwt(nil)); err != nil {
		t.Errorf("the workload itself: %v", err)
	}
	w.later(10 * time.Second)
	if _, err := w.bearer("agent", public); err == nil {
		t.Fatal("a stranger came in")
	}
	if last := w.lastRecord(account); !strings.Contains(last.Facts.Detail, "; 300 refusals before it were left out") {
		t.Errorf("the next record says %q, and 300 were left out", last.Facts.Detail)
	}
}

// What was verified for another account is remembered, however many tokens an account has verified.
func TestM12_VerifiedTokensOfAnotherAccountStay(t *testing.T) {
	w, _ := newAgent(t)
	w.review.says(nil)
	theirs := w.root
	theirs.Account = other
	w.principal(other, "agent2", access.Agent)
	if _, err := w.CreateIssuer(t.Context(), theirs, federation.Issuer{URL: cluster, Audiences: []string{"tabard"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateRule(t.Context(), theirs, federation.Rule{Issuer: cluster, Subject: agentSub, Name: "agent2"}); err != nil {
		t.Fatal(err)
	}
	honest := w.jwt(map[string]any{"jti": "honest"})
	asked := func() int {
		w.review.mu.Lock()
		defer w.review.mu.Unlock()
		return w.review.asked
	}
	enter := func(in federation.Role, jwt string) {
		t.Helper()
		if _, err := w.Bearer(t.Context(), in, secret.New(jwt)); err != nil {
			t.Fatal(err)
		}
	}
	enter(federation.Role{Account: other, Principal: "agent2"}, honest)
	const many, kept = 3000, 1024
	var flood []string
	for i := range many {
		jwt := jwstest.Sign(t, "ES256", map[string]any{"kid": "ec"}, w.claims(map[string]any{"jti": i}), keypairs().EC)
		flood = append(flood, jwt)
		enter(role("agent"), jwt)
	}
	before := asked()
	enter(federation.Role{Account: other, Principal: "agent2"}, honest)
	if asked() != before {
		t.Error("the other account's token was forgotten, and verified again")
	}
	for _, jwt := range flood {
		enter(role("agent"), jwt)
	}
	if n := asked() - before; n < many-kept {
		t.Errorf("of %d tokens of one account %d were remembered, want at most %d", many, many-n, kept)
	}
}
