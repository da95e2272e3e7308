package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

// polls asks for the token of a session, by the session's URI.
func (m *matrix) polls(a *actor, t *wat, s *session, provider string) *probe {
	p := &probe{actor: a, op: api.OpGetResourceOauth2Token, agent: t.agent, user: t.user, provider: provider, releases: true,
		detail: fmt.Sprintf("poll of a session of %v with a token of %s", s.place, t), expect: func() want { return m.truth.poll(a, t, s, provider) }}
	p.tells = func(r reply) string {
		if r.get("accessToken") == "" && r.get("sessionUri") != s.uri {
			return "it is another session"
		}
		return ""
	}
	return m.calls(p, m.tokenInput(t, provider, "USER_FEDERATION", []string{"read"}, s.uri))
}

// poll is what a session has come to: the user's of the token, at the agent of the token, and nobody else's.
func (o *truth) poll(a *actor, t *wat, s *session, provider string) want {
	if w := o.bearer(a, t); w != nil {
		return *w
	}
	at := spot(a.account, t.agent, t.user, provider)
	at.resource, at.params = s.resource, s.params // a poll need not say them
	ask := t.asking("release")
	ask.provider, ask.unknown = provider, offers(provider).scopeless
	if s.place == at { // what names the session's token is seen by policies, and a stranger to the session learns nothing
		ask.params = names(s.params)
	}
	may := func(scopes []string) bool {
		ask.scopes = scopes
		return o.may(a, ask)
	}
	asked := []string{"read"}
	switch {
	case !acts(a, "agent", t.agent):
		return want{kind: wantDenied}
	case !offers(provider).oauth2:
		return yesElse(may(asked), wantAbsent, wantDenied)
	case o.down[standing(a.account, "provider", provider)], asserted(t.user) && offers(provider).verified:
		return want{kind: wantDenied}
	case t.user == byNobody && ask.unknown && !may(asked):
		return want{kind: wantDenied, or: wantInvalid}
	case t.user == byNobody:
		return yesElse(may(asked), wantInvalid, wantDenied)
	}
	if _, ok := t.grants(provider); !ok {
		return want{kind: wantDenied}
	}
	if s.place != at {
		return want{kind: wantDenied}
	}
	if t.expired && s.token != t.text {
		return want{kind: wantDead, or: wantDenied}
	}
	switch stored := o.stored[at]; {
	case s.state == "redeemed" && stored.active && may(stored.scopes) && t.bounds(provider, stored.scopes, stored.unknown):
		return want{kind: wantToken, text: stored.text}
	case s.state == "created" && may(asked), s.state == "held" && may(asked):
		return want{kind: wantPending}
	}
	return want{kind: wantDenied}
}

// completes says that the user has finished the session.
func (m *matrix) completes(a *actor, s *session, user string) *probe {
	p := &probe{actor: a, op: api.OpCompleteResourceTokenAuth, agent: s.agent, user: user, provider: s.provider, loud: true,
		detail: fmt.Sprintf("session of %v that is %s", s.place, s.state), expect: func() want { return m.truth.complete(a, s, user) }}
	p.done = func(reply) {
		mine := s.account == a.account && acts(a, "consent-app", s.agent) && !m.truth.disabled[a.String()]
		switch {
		case p.want.kind == wantFine && s.state == "held":
			s.state = "redeemed"
			m.truth.open[s.person()]--
			m.learns(s.place, s.scopes)
		case mine && p.want.kind == wantDenied && user != s.user && asserted(user) == asserted(s.user) && s.state != "redeemed" && s.state != "failed":
			s.state = "failed" // whoever else finishes it ends it
			m.truth.open[s.person()]--
		}
	}
	return m.calls(p, map[string]any{"sessionUri": s.uri, "userIdentifier": m.identifies(user)})
}

func asserted(user string) bool { return strings.HasPrefix(user, "uid:") }

// union are the scopes of what is stored in the place and of a session's.
func (m *matrix) union(at place) []string {
	scopes := []string{"read"}
	if at.resource != "" || offers(at.provider).scopeless {
		scopes = nil
	}
	if s := m.truth.stored[at]; s != nil {
		scopes = slices.Compact(slices.Sorted(slices.Values(append(scopes, s.scopes...))))
	}
	return scopes
}

// complete is the confirmation: by an application of the agent, of the very user.
func (o *truth) complete(a *actor, s *session, user string) want {
	switch {
	case o.disabled[a.String()]:
		return want{kind: wantShut}
	case s.account != a.account, !acts(a, "consent-app", s.agent), user != s.user:
		return want{kind: wantDenied}
	}
	return yesElse(s.state == "held" || s.state == "redeemed", wantFine, wantDenied)
}

// sessions opens one for each user at each agent and leaves the code held, or not.
func (m *matrix) sessions(held bool) (all []*session) {
	m.t.Helper()
	for _, account := range []string{inHome, tenant} {
		for _, agent := range matrixAgents() {
			for _, user := range []string{byAlice, byBob, byCarol} {
				all = append(all, m.begins(spot(account, agent, user, onCalendar), held, "read"))
			}
		}
	}
	return all
}

// confirmations has the actors try to complete each session for each user: first those who may not, and then the
// others. What the first did has changed nothing if the right one succeeds.
func (m *matrix) confirmations(may func(a *actor) bool) {
	m.t.Helper()
	for _, held := range []bool{false, true} {
		for _, s := range m.sessions(held) {
			var wrong []*probe
			for _, a := range m.actors {
				if s.account == a.account && acts(a, "consent-app", s.agent) || !may(a) {
					continue
				}
				for _, user := range []string{byAlice, byBob, byCarol, byShadow} {
					wrong = append(wrong, m.completes(a, s, user))
				}
			}
			m.run(wrong)
			app := m.actor(s.account, "root")
			if s.agent != "cyd" {
				app = m.actor(s.account, s.agent+"-app")
			}
			m.run([]*probe{m.completes(app, s, s.user), m.completes(app, s, s.user)})
			m.run([]*probe{m.polls(m.actor(s.account, "root"), m.mint(s.account, s.agent, s.user), s, onCalendar)})
		}
	}
	m.counts(wantDenied, wantFine, wantPending, wantToken)
	m.audited()
}

// C02: who acts for an agent, or administers, confirms nobody's consent.
func TestC02_MatrixOfConfirmationsByAgents(t *testing.T) {
	newMatrix(t, daemon.SQLite).confirmations(func(a *actor) bool { return !slices.Contains(a.roles, "consent-app") })
}

// C03: an application confirms the consent of its own agents only, in its own account.
func TestC03_MatrixOfConfirmationsByApplications(t *testing.T) {
	newMatrix(t, daemon.SQLite).confirmations(func(a *actor) bool { return slices.Contains(a.roles, "consent-app") })
}

// A03: inside one agent, what is alice's is never bob's: sessions by their URI, connections by their id, whoever calls
// and whichever token is shown. A user who finishes another's session ends it.
func TestA03_MatrixOfUsersInOneAgent(t *testing.T) {
	m := newMatrix(t, daemon.SQLite)
	h := m.deals()
	all := m.sessions(true)
	for i, s := range all {
		if i%3 == 0 { // redeemed, with what is stored from now on
			m.run([]*probe{m.completes(m.actor(s.account, "root"), s, s.user)})
		}
	}
	var probes []*probe
	for _, a := range m.actors {
		for _, tok := range h.good {
			for _, s := range all {
				if tok.agent == s.agent && tok.account == a.account {
					probes = append(probes, m.polls(a, tok, s, onCalendar))
				}
			}
			for _, s := range m.truth.stored {
				if tok.account == a.account && s.person() != tok.person {
					probes = append(probes, m.reports(a, tok, s, s.id))
				}
			}
		}
	}
	m.run(probes)
	for _, s := range all {
		for _, user := range []string{byAlice, byBob} {
			m.run([]*probe{m.completes(m.actor(s.account, "root"), s, user)})
		}
	}
	for _, s := range m.truth.stored {
		tok := m.mint(s.account, s.agent, s.user)
		m.run([]*probe{m.asks(m.actor(s.account, "root"), tok, s.provider, "USER_FEDERATION", "read")}) // nothing was lost
	}
	m.counts(wantDenied, wantAbsent, wantPending, wantToken, wantFine)
	m.audited()
}

// B01: a workload access token is never enough: whoever shows one for an agent that it does not act for is refused, at
// every operation, and that is in the trail.
func TestB01_MatrixOfStolenTokens(t *testing.T) {
	m := newMatrix(t, daemon.SQLite)
	var probes []*probe
	for _, tok := range m.deals().good {
		for _, a := range m.actors {
			if tok.account == a.account && acts(a, "agent", tok.agent) {
				continue
			}
			for _, provider := range matrixProviders() {
				probes = append(probes, m.asks(a, tok, provider, "USER_FEDERATION", "read"), m.asks(a, tok, provider, "M2M", "read"), m.asksKey(a, tok, provider))
			}
			for _, s := range m.truth.stored {
				if s.person() == tok.person {
					probes = append(probes, m.reports(a, tok, s, s.id))
				}
			}
			probes = append(probes, m.asksAbout(a, tok, api.OpDescribeUser), m.asksAbout(a, tok, api.OpGetUserInfo), m.exchanges(a, tok, ""))
		}
	}
	m.run(probes)
	for _, s := range m.sent {
		if s.reply.status/100 != 4 {
			t.Errorf("%s: answered %d", s.probe, s.reply.status)
		}
	}
	m.counts(wantDenied, wantDead, wantShut, wantRefused)
	m.audited()
}
