package sidecar_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// jwtFor is a JWT as a sidecar reads it, which ends after the time.
func (s *scene) jwtFor(user string, life time.Duration) string {
	claims := fmt.Sprintf(`{"sub":%q,"exp":%d}`, user, s.now().Add(life).Unix())
	return "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func asking(wat string) string {
	return `{"workloadIdentityToken":"` + wat + `","resourceCredentialProviderName":"cal","scopes":["read"]}`
}

// B07: an agent that works for longer than its token lives goes on, while the user's JWT does.
func TestB07_TokensAreRenewedWhileTheJWTLives(t *testing.T) {
	s := newScene(t)
	jwt := s.jwtFor("alice", 40*time.Minute)
	s.invoke(jwt)
	wat := s.agent.last(t).header.Get("WorkloadAccessToken")
	sent := func(what string) string {
		t.Helper()
		s.identity("/identities/oauth2/token", asking(wat), nil)
		body := s.tabard.last(t).body
		if !strings.Contains(body, `"cal"`) || !strings.Contains(body, `["read"]`) {
			t.Errorf("%s: the call arrived as %s", what, body)
		}
		return body
	}
	if body := sent("at once"); !strings.Contains(body, wat) {
		t.Errorf("at once: got %s, want the agent's own token", body)
	}
	s.advance(13 * time.Minute)
	before := s.tabard.count()
	if body := sent("while it lives"); !strings.Contains(body, wat) || s.tabard.count() != before+1 {
		t.Errorf("while it lives: got %s, want the agent's own token", body)
	}
	s.advance(90 * time.Second)
	if body := sent("at its end"); strings.Contains(body, wat) || s.tabard.count() != before+3 {
		t.Errorf("at its end: got %s after %d calls, want another token", body, s.tabard.count()-before)
	}
	s.advance(20 * time.Minute)
	if body := sent("after its end"); strings.Contains(body, wat) {
		t.Errorf("after its end: got %s, want another token", body)
	}
	s.advance(10 * time.Minute)
	if body := sent("after the JWT's end"); !strings.Contains(body, wat) {
		t.Errorf("after the JWT's end: got %s, want what the agent sent", body)
	}
	if strings.Contains(s.logs.String(), wat) || strings.Contains(s.logs.String(), jwt) {
		t.Error("the log has a token")
	}
}

// What the sidecar did not give out is not renewed, and where a new token is refused the call goes on as it came.
func TestB07_OnlyItsOwnTokensAreRenewed(t *testing.T) {
	s := newScene(t)
	s.invoke(s.jwtFor("alice", 40*time.Minute))
	wat := s.agent.last(t).header.Get("WorkloadAccessToken")
	s.advance(16 * time.Minute)
	for _, other := range []string{"canary-wat-z", "", wat + "x"} {
		s.identity("/identities/oauth2/token", asking(other), nil)
		if body := s.tabard.last(t).body; body != asking(other) {
			t.Errorf("%q arrived as %s", other, body)
		}
	}
	s.tabard.answers(refusing(http.StatusUnauthorized, "UnauthorizedException", "the user has signed out"))
	if r := s.identity("/identities/oauth2/token", asking(wat), nil); r.status != http.StatusUnauthorized || !strings.Contains(s.tabard.last(t).body, wat) {
		t.Errorf("got %d after %s, want Tabard's refusal of the agent's own token", r.status, s.tabard.last(t).body)
	}
}

// B07: a JWT that is about to end is refused before the agent begins, in a sentence that says what to do.
func TestB07_AJWTThatEndsWithinAMinuteIsRefused(t *testing.T) {
	s := newScene(t)
	for life, status := range map[time.Duration]int{
		-time.Hour: http.StatusUnauthorized, 30 * time.Second: http.StatusUnauthorized, 59 * time.Second: http.StatusUnauthorized, 2 * time.Minute: http.StatusOK,
	} {
		before := s.tabard.count()
		r := s.invoke(s.jwtFor("alice", life))
		if r.status != status {
			t.Errorf("a JWT of %s: got %d %s, want %d", life, r.status, r.body, status)
		}
		if status == http.StatusOK {
			continue
		}
		if !strings.Contains(r.body, "ends within a minute: send one that lives longer") || r.header.Get("WWW-Authenticate") == "" || s.tabard.count() != before {
			t.Errorf("a JWT of %s: got %s, %q", life, r.body, r.header.Get("WWW-Authenticate"))
		}
	}
	if r := s.invoke(alice); r.status != http.StatusOK { // one that says nothing of its end is Tabard's to judge
		t.Errorf("a JWT that cannot be read: %d %s", r.status, r.body)
	}
}
