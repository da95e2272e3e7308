package signing_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
)

// A key that somebody had made is published long enough before it signs for every verifier to know it, and what the
// old one signed verifies until its end (threat H07).
func TestH07_ReplacedKeyVerifiesWhatItSigned(t *testing.T) {
	w := newWorld(t)
	w.clock.at(24 * time.Hour)
	a, b := w.replica(), w.replica()
	old := w.sign(a)
	w.sign(b)
	made, err := a.Rotate(t.Context(), signing.Assertions, false)
	must(t, err)
	if made.Status != signing.Next || !made.Begins.Equal(w.clock.now().Add(signing.Overlap)) {
		t.Errorf("got %+v, want a key that begins after %s", made, signing.Overlap)
	}
	if got := w.kids(a); !slices.Equal(got, []string{signer(t, old), made.ID}) {
		t.Errorf("got the keys %v at once, want both", got)
	}
	w.clock.at(24*time.Hour + signing.Overlap - time.Second)
	if got := signer(t, w.sign(b)); got != signer(t, old) {
		t.Errorf("another replica signs with %s before the overlap is over", got)
	}
	if got := w.kids(b); !slices.Contains(got, made.ID) {
		t.Errorf("another replica publishes %v before the overlap is over, without the new key", got)
	}
	old = w.sign(b) // its life begins as late as can be
	w.clock.at(24*time.Hour + signing.Overlap)
	for _, s := range []*signing.Service{a, b} {
		if got := signer(t, w.sign(s)); got != made.ID {
			t.Errorf("after the overlap %s signs, want %s", got, made.ID)
		}
	}
	w.clock.at(24*time.Hour + signing.Overlap + 298*time.Second)
	for _, s := range []*signing.Service{a, b} {
		if _, err := s.Verify(t.Context(), signing.Assertions, "JWT", old); err != nil {
			t.Errorf("what the old key signed, a second before its end: %v", err)
		}
		if !slices.Contains(w.kids(s), signer(t, old)) {
			t.Error("the old key is not published while a token of it lives")
		}
	}
	w.clock.at(signing.Period)
	if got := signer(t, w.sign(a)); got == made.ID || got == signer(t, old) {
		t.Errorf("in the next period the key of this one signs: %s", got)
	}
	w.clock.at(2*signing.Period - time.Second)
	if got := w.kids(a); !slices.Contains(got, signer(t, old)) || !slices.Contains(got, made.ID) {
		t.Errorf("got the keys %v, want those of the last period too", got)
	}
}

// In the last minutes of a period the new key belongs to the next one, and is published as long as it signs and
// longer.
func TestRotateAtTheEndOfAPeriod(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	w.clock.at(signing.Period - time.Minute)
	w.sign(s)
	made, err := s.Rotate(t.Context(), signing.Assertions, false)
	must(t, err)
	w.clock.at(signing.Period + time.Minute)
	if got := signer(t, w.sign(s)); got == made.ID {
		t.Errorf("%s signs before it was published for long enough", got)
	}
	w.clock.at(signing.Period + signing.Overlap)
	if got := signer(t, w.sign(s)); got != made.ID {
		t.Errorf("%s signs, want %s", got, made.ID)
	}
	w.clock.at(3*signing.Period - time.Second)
	if !slices.Contains(w.kids(s), made.ID) {
		t.Error("the key is gone a period after it signed")
	}
}

// The drill: a key got out. One call, and within seconds no replica publishes it, signs with it or takes what it
// signed; nor does whoever can write to the database bring it back (threat H08).
func TestH08_RevokedKeyIsGoneOnEveryReplica(t *testing.T) {
	w := newWorld(t)
	w.clock.at(signing.Period - signing.Ahead/2) // the next period's key exists too
	a, b := w.replica(), w.replica()
	stolen := w.sign(a)
	w.sign(b)
	before := w.kids(b)
	if len(before) != 2 {
		t.Fatalf("got the keys %v, want this period's and the next", before)
	}
	made, err := a.Rotate(t.Context(), signing.Assertions, true)
	must(t, err)
	check := func(what string, s *signing.Service) {
		t.Helper()
		for _, id := range w.kids(s) {
			if slices.Contains(before, id) {
				t.Errorf("%s: the revoked key %s is published", what, id)
			}
		}
		if got := signer(t, w.sign(s)); got != made.ID {
			t.Errorf("%s: %s signs, want %s", what, got, made.ID)
		}
		_, err := s.Verify(t.Context(), signing.Assertions, "JWT", stolen)
		wantCode(t, what+": a token of the revoked key", err, fault.Unauthenticated)
	}
	check("where it was revoked, at once", a)
	w.clock.at(signing.Period - signing.Ahead/2 + time.Second)
	if _, err := b.Verify(t.Context(), signing.Assertions, "JWT", w.sign(a)); err != nil {
		t.Errorf("a token of the new key on another replica, a second later: %v", err)
	}
	w.clock.at(signing.Period - signing.Ahead/2 + 5*time.Second)
	check("another replica, five seconds later", b)
	check("a replica that starts", w.replica())

	rows, err := w.db.SigningKeys(t.Context(), signing.Assertions, 0)
	must(t, err)
	revoked := 0
	for _, r := range rows {
		if !r.Revoked.IsZero() {
			revoked++
			if len(r.Sealed) != 0 {
				t.Errorf("the sealed half of %s is still there", r.ID)
			}
		}
	}
	if revoked != 2 {
		t.Errorf("got %d revoked keys, want 2", revoked)
	}
	w.clock.at(signing.Period)
	if got := signer(t, w.sign(b)); got == made.ID || slices.Contains(before, got) {
		t.Errorf("in the next period %s signs, want a key of its own", got)
	}
}

func TestList(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	w.clock.at(signing.Period - signing.Ahead/2)
	status := func() string {
		t.Helper()
		keys, err := s.List(t.Context(), signing.Assertions)
		must(t, err)
		var out []string
		for _, k := range keys {
			out = append(out, string(k.Status))
		}
		return strings.Join(out, " ")
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "CURRENT NEXT"},
		{func() { _, err := s.Rotate(t.Context(), signing.Assertions, false); must(t, err) }, "CURRENT NEXT NEXT"},
		{func() { w.clock.at(signing.Period - signing.Ahead/2 + signing.Overlap) }, "PREVIOUS CURRENT NEXT"},
		{func() { _, err := s.Rotate(t.Context(), signing.Assertions, true); must(t, err) }, "REVOKED REVOKED CURRENT REVOKED NEXT"},
	} {
		step.do()
		if got := status(); got != step.want {
			t.Errorf("got %s, want %s", got, step.want)
		}
	}
}

// The published set stays small, and revoking is always possible.
func TestRotateTooOften(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	var err error
	for range 40 {
		if _, err = s.Rotate(t.Context(), signing.Assertions, false); err != nil {
			break
		}
	}
	wantCode(t, "without end", err, fault.Limit)
	if n := len(w.kids(s)); n != 16 {
		t.Errorf("%d keys are published, want 16", n)
	}
	_, err = s.Rotate(t.Context(), signing.Assertions, true)
	must(t, err)
	if n := len(w.kids(s)); n != 1 {
		t.Errorf("%d keys are published after all were revoked, want 1", n)
	}
}

// Keys of one purpose know nothing of a rotation of another.
func TestRotateOnePurpose(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	token := w.sign(s)
	_, err := s.Rotate(t.Context(), signing.Audit, true)
	must(t, err)
	if _, err := s.Verify(t.Context(), signing.Assertions, "JWT", token); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestStatementsOfARevokedKey(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	old, err := s.State(t.Context(), "x+jwt", map[string]any{"n": 1})
	must(t, err)
	_, err = s.Rotate(t.Context(), signing.Audit, true)
	must(t, err)
	fresh, err := s.State(t.Context(), "x+jwt", map[string]any{"n": 2})
	must(t, err)
	keys, err := s.StatementKeys(t.Context())
	must(t, err)
	if _, err := signing.ReadStatement(keys, "x+jwt", fresh); err != nil {
		t.Errorf("a statement of the new key: %v", err)
	}
	_, err = signing.ReadStatement(keys, "x+jwt", old)
	wantCode(t, "a statement of the revoked key", err, fault.Unauthenticated)
}

// Which keys of statements were revoked, the key that replaced them says, sealed: a row that says so in clear counts
// for nothing, and a second revocation forgets nothing.
func TestG05_H08_RevokedKeysAreSealed(t *testing.T) {
	w := newWorld(t)
	s := w.replica()
	statement := func() string {
		text, err := s.State(t.Context(), "JWT", map[string]any{"n": 1})
		must(t, err)
		return signer(t, secret.New(text))
	}
	revoked := func() map[string]time.Time {
		ids, err := w.replica().RevokedStatementKeys(t.Context())
		must(t, err)
		return ids
	}
	first := statement()
	if got := revoked(); len(got) != 0 {
		t.Errorf("before any: %v", got)
	}
	for n, old := range []string{first, ""} {
		if n > 0 {
			old = statement()
		}
		w.clock.at(time.Duration(n+1) * time.Hour)
		at := w.clock.now()
		made, err := s.Rotate(t.Context(), signing.Audit, true)
		must(t, err)
		got := revoked()
		if !got[old].Equal(at) || !got[first].Equal(begin.Add(time.Hour)) || statement() != made.ID {
			t.Errorf("after revocation %d: %v, want %s and %s", n+1, got, old, first)
		}
	}
	if got := revoked(); len(got) != 2 {
		t.Errorf("got %v", got)
	}
	now := statement()
	must(t, w.db.AddSigningKey(t.Context(), signing.Row{
		Purpose: signing.Audit, Period: 1, ID: "forged", Public: "{}", Begins: begin, Revoked: begin, Created: begin,
	}))
	if got := revoked(); len(got) != 2 || !got["forged"].IsZero() || !got[now].IsZero() {
		t.Errorf("a row that only says that its key was revoked: %v", got)
	}
}
