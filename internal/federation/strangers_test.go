package federation_test

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// Anybody can send tokens that nobody vouches for. They fill the trail no faster than a bound, and what a trusted issuer
// signed is recorded all the same.
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
