package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/api"
)

// hand is the tokens that a cell can be tried with.
type hand struct {
	good, bad []*wat
}

// deals mints a token for each agent and user of both accounts, as far as nobody in it is down, by delegations, and by
// handing on; and makes some that are good for nothing.
func (m *matrix) deals() hand {
	m.t.Helper()
	var h hand
	for _, account := range []string{inHome, tenant} {
		for _, agent := range matrixAgents() {
			for _, user := range matrixUsers() {
				if m.truth.stands(account, agent, user) {
					h.good = append(h.good, m.mint(account, agent, user))
				}
			}
		}
		h.good = append(h.good, m.handedOn(account, "ann", "ben", byAlice)...)
	}
	for _, d := range m.truth.delegations {
		if m.truth.lives(d) && m.truth.stands(d.account, d.agent, d.user) {
			h.good = append(h.good, m.under(d))
		}
	}
	for i, t := range h.good {
		if i%9 == 0 {
			h.bad = append(h.bad, forgery(t))
		}
	}
	return h
}

// forgery is a token of which the last bytes were changed.
func forgery(t *wat) *wat {
	f := *t
	f.text, f.forged = t.text[:len(t.text)-40]+strings.Repeat("A", 40), true
	return &f
}

// handedOn is a token that one agent got for another's.
func (m *matrix) handedOn(account, from, to, user string) []*wat {
	m.t.Helper()
	if !m.truth.stands(account, from, user) || !m.truth.stands(account, to, user) {
		return nil
	}
	return []*wat{m.handOn(m.mint(account, from, user), to)}
}

// handOn exchanges a token for one of another agent, as root.
func (m *matrix) handOn(had *wat, to string) *wat {
	m.t.Helper()
	t := m.truth.minted("", had.account, to, had.user)
	t.text, t.delegation = m.propagated(m.boss(had.account), had.text, to), had.delegation
	t.through = append([]string{had.agent}, had.through...)
	t.since = append([]int{m.truth.epoch[standing(had.account, "agent", had.agent)]}, had.since...)
	return t
}

// under mints a token by a delegation, as root.
func (m *matrix) under(d *delegated) *wat {
	m.t.Helper()
	r := m.call(m.boss(d.account), api.OpGetWorkloadAccessTokenForDelegation, map[string]any{"workloadName": d.agent, "delegationId": d.id})
	t := m.truth.minted(r.get("workloadAccessToken"), d.account, d.agent, d.user)
	t.delegation = d
	return t
}

// TestA01_MatrixOfTheDataPlane is the full cross product of the small world: who calls, which agent's and user's token,
// at which provider, by which operation. A token that is released is the very one of that agent, user and provider.
func TestA01_MatrixOfTheDataPlane(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		m := newMatrix(t, db)
		h := m.deals()
		expired := m.mint(inHome, "ann", byAlice)
		m.ahead.Add(int64(61 * time.Minute)) // longer than a token of a user's JWT lives
		late := *expired
		late.expired = true
		clear(m.truth.open)
		h = m.deals()
		h.bad = append(h.bad, &late)
		var probes []*probe
		for i, a := range m.actors {
			for j, tok := range append(h.good, h.bad...) {
				if strings.Contains(db, "postgres") && (i+j)%4 != 0 {
					continue // a smaller number there
				}
				for _, provider := range matrixProviders() {
					probes = append(probes, m.asks(a, tok, provider, "USER_FEDERATION", "read"), m.asksKey(a, tok, provider))
				}
				probes = append(probes, m.asks(a, tok, onCalendar, "USER_FEDERATION", "write"), m.asks(a, tok, onCalendar, "M2M", "read"), m.asks(a, tok, onDrive, "M2M", "read"),
					m.asksAbout(a, tok, api.OpDescribeUser), m.asksAbout(a, tok, api.OpGetUserInfo), m.exchanges(a, tok, ""), m.exchanges(a, tok, "ben"))
			}
			for _, agent := range append(matrixAgents(), onNothing) {
				for _, user := range matrixUsers() {
					probes = append(probes, m.mints(a, agent, user))
				}
				for _, d := range m.truth.delegations {
					probes = append(probes, m.mintsDelegated(a, agent, d))
				}
			}
		}
		m.run(probes)
		m.counts(wantShut, wantDenied, wantDead, wantAbsent, wantInvalid, wantToken, wantConsent, wantFine, wantRefused)
		m.audited()
	})
}
