package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

// twins are two probes that must be answered alike: one names what is another's, and one what nobody has.
type twins struct {
	foreign, unknown *probe
	names            [][2]string // what the two say in each other's place
}

// alike sends each pair and compares the answers byte for byte, but for the names and the id of the request.
func (m *matrix) alike(pairs []twins) {
	m.t.Helper()
	answers, todo := make([][2]reply, len(pairs)), make(chan int)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for i := range todo {
				answers[i] = [2]reply{m.one(pairs[i].foreign), m.one(pairs[i].unknown)}
			}
		})
	}
	for i, p := range pairs {
		p.foreign.want, p.unknown.want = p.foreign.expect(), p.unknown.expect()
		todo <- i
	}
	close(todo)
	workers.Wait()
	absent := 0
	for i, p := range pairs {
		a, b := answers[i][0], answers[i][1]
		m.judge(sent{p.foreign, a})
		m.judge(sent{p.unknown, b})
		if x, y := plain(a, p.names), plain(b, p.names); x != y && p.foreign.want.kind != wantShut { // of those, some are throttled
			m.t.Errorf("%s:\n\twhat is another's is told from what is not there:\n\t%s\n\t%s", p.foreign, x, y)
		}
		if a.status == 404 {
			absent++
		}
	}
	m.t.Logf("%d pairs, %d of them absent", len(pairs), absent)
	if absent < 20 {
		m.t.Error("that is too few to say much")
	}
}

// plain is an answer with its headers, without the names and what differs from any answer to the next.
func plain(r reply, names [][2]string) string {
	header := maps.Clone(map[string][]string(r.header))
	for _, n := range []string{"X-Amzn-Requestid", "Date"} {
		delete(header, n)
	}
	body := r.body
	for _, n := range names {
		body = strings.ReplaceAll(strings.ReplaceAll(body, n[0], "NAME"), n[1], "NAME")
	}
	if id := r.header.Get("X-Amzn-Requestid"); id != "" {
		body = strings.ReplaceAll(body, id, "REQUEST")
	}
	return fmt.Sprint(r.status, " ", header, " ", body)
}

// F16: every operation of the control plane, by everybody, on what the other account has and on what nobody has.
func TestF16_MatrixOfForeignNames(t *testing.T) {
	m := newMatrix(t, daemon.SQLite)
	var pairs []twins
	for _, account := range []string{inHome, tenant} {
		other := inHome
		if account == inHome {
			other = tenant
		}
		theirs := m.directory(other, other)
		none := nobodys(theirs, other)
		foreign, unknown := newInputs(t, theirs), newInputs(t, none)
		var names [][2]string
		for member, v := range theirs {
			names = append(names, [2]string{v.(string), none[member].(string)})
		}
		slices.SortFunc(names, func(a, b [2]string) int { return len(b[0]) - len(a[0]) }) // the longer first: one may be in another
		for _, a := range m.actors {
			if a.account != account {
				continue
			}
			for _, op := range controlOps() {
				if m.administers(a, op.Name) && !among(op.Name, readOps) && !among(op.Name, manageOps) {
					continue // it would be done
				}
				if among(op.Name, "ListAuditRecords VerifyAudit ListAuditCheckpoints ListAccounts") {
					continue // about what grows by each request, or about all accounts
				}
				pairs = append(pairs, twins{m.administer(a, op, foreign, "the other account's"), m.administer(a, op, unknown, "nobody's"), names})
			}
		}
	}
	m.alike(pairs)
	m.counts(wantDenied, wantShut, wantAllowed)
	m.audited()
}

// F16 and A02: what an operation of the data plane is given in the place of something of one's own, of another agent,
// user or account: tokens, sessions, connections, delegations, providers. To whom it is not, it is as if it were not
// there.
func TestF16_MatrixOfForeignSubjects(t *testing.T) {
	m := newMatrix(t, daemon.SQLite)
	h := m.deals()
	all := m.sessions(true)
	var pairs []twins
	for _, a := range m.actors {
		for _, tok := range h.good {
			if tok.account != a.account {
				if tok.through == nil && tok.delegation == nil {
					pairs = append(pairs, m.foreignToken(a, tok)...)
				}
				continue
			}
			if tok.delegation == nil && tok.through == nil {
				pairs = append(pairs, m.foreignThings(a, tok, all)...)
			}
		}
		for _, d := range m.truth.delegations {
			id := altered(d.id)
			for _, agent := range matrixAgents() {
				if d.account != a.account || d.agent != agent {
					none := *d
					none.id, none.account = id, "nobody"
					pairs = append(pairs, twins{m.mintsDelegated(a, agent, d), m.mintsDelegated(a, agent, &none), [][2]string{{d.id, id}}})
				}
			}
			for _, user := range []string{byAlice, byBob} {
				if m.truth.end(a, d, d.id, user).kind != wantFine {
					pairs = append(pairs, twins{m.ends(a, d, d.id, user), m.ends(a, d, id, user), [][2]string{{d.id, id}}})
				}
			}
		}
		for _, s := range all {
			if slices.Contains(a.roles, "consent-app") && (s.account != a.account || !acts(a, "consent-app", s.agent)) || s.account != a.account {
				none := *s
				none.uri, none.account = altered(s.uri), "nobody"
				pairs = append(pairs, twins{m.completes(a, s, s.user), m.completes(a, &none, s.user), [][2]string{{s.uri, none.uri}}})
			}
		}
	}
	m.alike(pairs)
	m.counts(wantDenied, wantShut, wantDead, wantAbsent)
	m.audited()
}

// foreignToken is another account's token, beside one that was never minted.
func (m *matrix) foreignToken(a *actor, t *wat) (pairs []twins) {
	f := forgery(t)
	for _, ask := range []func(*wat) *probe{
		func(t *wat) *probe { return m.asks(a, t, onCalendar, "USER_FEDERATION", "read") },
		func(t *wat) *probe { return m.asksKey(a, t, onMaps) },
		func(t *wat) *probe { return m.asksAbout(a, t, api.OpDescribeUser) },
		func(t *wat) *probe { return m.reports(a, t, nil, "cn_nothing") },
		func(t *wat) *probe { return m.exchanges(a, t, "") },
		func(t *wat) *probe { return m.exchanges(a, t, "ben") },
	} {
		pairs = append(pairs, twins{ask(t), ask(f), nil})
	}
	return pairs
}

// foreignThings are, with a token of the account, sessions and connections of others, and, for a principal that does
// not act for the agent, the account's own providers.
func (m *matrix) foreignThings(a *actor, t *wat, all []*session) (pairs []twins) {
	for _, s := range all {
		if s.person() != t.person && (s.agent == t.agent || s.user == t.user) {
			none := *s
			none.uri = altered(s.uri)
			pairs = append(pairs, twins{m.polls(a, t, s, onCalendar), m.polls(a, t, &none, onCalendar), [][2]string{{s.uri, none.uri}}})
		}
	}
	for _, s := range m.truth.stored {
		if s.person() != t.person && (s.agent == t.agent || s.user == t.user) {
			id := altered(s.id)
			pairs = append(pairs, twins{m.reports(a, t, s, s.id), m.reports(a, t, nil, id), [][2]string{{s.id, id}}})
		}
	}
	if acts(a, "agent", t.agent) {
		return pairs
	}
	for _, provider := range []string{onCalendar, onMaps} {
		name := [][2]string{{provider, onNothing}}
		pairs = append(pairs, twins{m.asksKey(a, t, provider), m.asksKey(a, t, onNothing), name},
			twins{m.asks(a, t, provider, "USER_FEDERATION", "read"), m.asks(a, t, onNothing, "USER_FEDERATION", "read"), name},
			twins{m.asks(a, t, provider, "M2M", "read"), m.asks(a, t, onNothing, "M2M", "read"), name},
			twins{m.polls(a, t, all[0], provider), m.polls(a, t, all[0], onNothing), name})
	}
	return pairs
}
