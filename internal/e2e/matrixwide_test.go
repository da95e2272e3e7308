package e2e_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

// The wide world has more providers, principals, tokens and ways to ask than the small one, of which it is the rest:
// tokens that came through agents or under delegations, custom parameters, APIs of one vendor, scopes that nobody
// knows, and two kinds of providers with one name.

// operatorsVendors are the vendors of the wide world: one without scopes, and one like Microsoft Entra.
const operatorsVendors = `[
	{"name": "PlainOauth2", "config": "includedOauth2ProviderConfig", "tenant": true, "authMethod": "client_secret_post", "verified": "documentation", "scopes": "none"},
	{"name": "SuiteOauth2", "config": "includedOauth2ProviderConfig", "tenant": true, "authMethod": "client_secret_post", "verified": "documentation", "rotation": "none",
		"resources": {"default": "https://one.example", "free": ["openid", "offline_access"], "whole": ".default"}}]`

// wideCast is who calls in the wide world: those of the small one, and one for each way in which policies can tell
// requests apart.
func wideCast() []actor {
	rest := []string{"mint", "assert", "report", "describe", "exchange"}
	all := append([]string{"release"}, rest...)
	agent, both := []string{"agent"}, []string{"ann", "ben"}
	others := right{verbs: rest}
	return append(cast(),
		// up to a ceiling of scopes, at each OAuth2 provider
		actor{name: "lim", roles: agent, agents: []string{"ann"}, rights: []right{others, {verbs: []string{"release"}, providers: []string{onOAuth2}, scopes: []string{"read", ofOne, forLater}}}},
		// one kind of a name that is of both
		actor{name: "oau", roles: agent, agents: both, rights: []right{others, {verbs: []string{"release"}, providers: []string{onTwin, onSuite}}}},
		actor{name: "kee", roles: agent, agents: both, rights: []right{others, {verbs: []string{"release"}, providers: []string{keyOf(onTwin), keyOf(onMaps)}}}},
		// some scopes forbidden, as tabard deny does, and the same behind and before another condition
		actor{name: "den", roles: agent, agents: both, rights: []right{{verbs: all}, {forbid: true, verbs: []string{"release"}, providers: []string{onOAuth2}, touching: []string{"write", "https://two.example/read"}}}},
		actor{name: "ord", roles: agent, agents: both, rights: []right{{verbs: all}, {forbid: true, verbs: []string{"release"}, providers: []string{onOAuth2}, kind: "asserted", touching: []string{"write"}},
			{forbid: true, verbs: []string{"release"}, providers: []string{onTells}, kind: "asserted", touching: []string{"write"}, scopesFirst: true}}},
		// some custom parameters forbidden
		actor{name: "par", roles: agent, agents: []string{"ann"}, rights: []right{{verbs: all}, {forbid: true, verbs: []string{"release"}, providers: []string{onCalendar}, parameter: "org"},
			{forbid: true, verbs: []string{"release"}, parameter: "claims"}}},
		// what came through others forbidden: releases, all that is not one, and all
		actor{name: "shy", roles: agent, agents: matrixAgents(), rights: []right{{verbs: all}, {forbid: true, verbs: []string{"release"}, providers: []string{onCalendar, keyOf(onMaps)}, through: "ann"}}},
		actor{name: "sly", roles: agent, agents: matrixAgents(), rights: []right{{verbs: all}, {forbid: true, verbs: rest, through: "ann"}}},
		actor{name: "far", roles: agent, agents: matrixAgents(), rights: []right{{verbs: all}, {forbid: true, verbs: all, through: "ben"}}},
		// whose tokens may be taken over: one agent's, nobody's, and all but one's
		actor{name: "tak", roles: agent, agents: matrixAgents(), rights: []right{{verbs: []string{"mint", "release", "describe"}}, {verbs: []string{"exchange"}, from: []string{"ann"}}}},
		actor{name: "ext", roles: agent, agents: matrixAgents(), rights: []right{{verbs: []string{"mint", "describe"}}, {verbs: []string{"exchange"}, from: []string{""}}}},
		actor{name: "non", roles: agent, agents: matrixAgents(), rights: []right{{verbs: all}, {forbid: true, verbs: []string{"exchange"}, from: []string{"ben"}}}},
	)
}

func wideProviders() []string {
	return append(matrixProviders(), onTwin, onMute, onTells, onPlain, onSuite)
}

// newWide starts a server with the wide world.
func newWide(t *testing.T, db string) *matrix {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vendors.json")
	if err := os.WriteFile(file, []byte(operatorsVendors), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &matrix{world: newBare(t, db, func(c *daemon.Config) { c.VendorsFile = file }), stand: newGrantor(t)}
	m.populate(wideCast())
	for _, account := range []string{inHome, tenant} {
		m.widen(account)
	}
	return m
}

// widen makes the rest of an account.
func (m *matrix) widen(account string) {
	m.t.Helper()
	boss := m.boss(account)
	m.provides(boss, onTwin, "")
	m.keeps(account, boss, onTwin)
	m.provides(boss, onMute, silently)
	m.provides(boss, onTells, telling)
	for name, vendor := range map[string]string{onPlain: "PlainOauth2", onSuite: "SuiteOauth2"} {
		path := ""
		if offers(name).suite {
			path = forAll
		}
		at := m.stand.url + path
		m.call(boss, "CreateOauth2CredentialProvider", map[string]any{"name": name, "credentialProviderVendor": vendor, "tags": map[string]string{"tabard:presentation-parameters": "label"},
			"oauth2ProviderConfigInput": map[string]any{"includedOauth2ProviderConfig": map[string]any{"clientId": clientID, "clientSecret": clientSecret,
				"issuer": at, "authorizationEndpoint": at + "/authorize", "tokenEndpoint": at + "/token"}}})
	}
	stores := func(agent, user, provider, params string, scopes ...string) {
		m.connects(ask{provider, "USER_FEDERATION", scopes, params}.place(account, agent, user), scopes...)
	}
	stores("ann", byAlice, onCalendar, "org=a", "read")
	stores("ann", byAlice, onCalendar, "org=b", "read", "write")
	stores("ann", byBob, onCalendar, "org=a", "read")
	stores("ben", byAlice, onCalendar, "org=a", "read")
	stores("ann", byAlice, onDrive, "claims=x", "read")
	stores("ann", byAlice, onMute, "")
	stores("ann", byBob, onMute, "", "read")
	stores("ann", byAlice, onTells, "")
	stores("ann", byAlice, onPlain, "")
	stores("ann", byAlice, onTwin, "", "read")
	stores("ben", byAlice, onTwin, "", "read")
	stores("ann", byAlice, onSuite, "", ofOne, forLater)
	stores("ann", byAlice, onSuite, "org=a", ofTwo, forLater)
	stores("ann", byBob, onSuite, "", ofOne)
	stores("ben", byAlice, onSuite, "", ofOne, forLater)
	stores("ben", byAlice, onSuite, "", ofTwo)
	m.delegates(account, "ann", byAlice, grant{onTwin, []string{"read"}}, grant{onMute, nil}, grant{onSuite, []string{ofOne, forLater}}, grant{onCalendar, []string{"read"}})
	m.delegates(account, "ann", byAlice, grant{keyOf(onTwin), nil}, grant{onMute, []string{"read"}}, grant{onTells, []string{"read"}}, grant{onPlain, nil}, grant{onDrive, []string{"read"}})
	m.delegates(account, "ann", byBob, grant{onMute, []string{"read"}}, grant{onSuite, []string{ofOne, ofTwo}}, grant{onCalendar, []string{"read"}})
	m.delegatesFor(10*time.Minute, account, "ann", byAlice, grant{onCalendar, []string{"read", "write"}}, grant{keyOf(onMaps), nil})
}

// chains are tokens that came through one agent or two, also of an asserted user, and of delegations.
func (m *matrix) chains(account string) (all []*wat) {
	m.t.Helper()
	hand := func(had *wat, agents ...string) {
		for _, to := range agents {
			if !m.truth.opens(had, account) || !m.truth.stands(account, to, had.user) {
				return
			}
			had = m.handOn(had, to)
		}
		all = append(all, had)
	}
	for _, one := range []struct {
		user string
		way  []string
	}{{byAlice, []string{"ann", "cyd"}}, {byAlice, []string{"ben", "ann"}}, {byAlice, []string{"ann", "cyd", "ben"}}, {byAlice, []string{"ben", "cyd", "ann"}},
		{byBob, []string{"ben", "ann"}}, {byCarol, []string{"ann", "ben"}}} {
		if m.truth.stands(account, one.way[0], one.user) {
			hand(m.mint(account, one.way[0], one.user), one.way[1:]...)
		}
	}
	for _, d := range m.truth.delegations {
		if d.account == account && m.truth.lives(d) && m.truth.stands(account, d.agent, d.user) && len(all) < 12 {
			hand(m.under(d), map[string]string{"ann": "ben", "ben": "ann", "cyd": "ann"}[d.agent])
		}
	}
	return all
}

// waysToAsk are requests for providers' tokens that differ in one thing each.
func waysToAsk() (all []ask) {
	one := func(provider, flow, params string, scopes ...string) {
		all = append(all, ask{provider, flow, scopes, params})
	}
	for _, flow := range []string{"USER_FEDERATION", "M2M"} {
		one(onCalendar, flow, "", "read")
		one(onCalendar, flow, "", "write")
		one(onCalendar, flow, "")
		one(onCalendar, flow, "org=a", "read")
		one(onCalendar, flow, "org=b", "read")
		one(onCalendar, flow, "org=b", "write")
		one(onCalendar, flow, "Org=a", "read")
		one(onCalendar, flow, "label=z prompt=login", "read")
		one(onCalendar, flow, "label=z org=a", "read")
		one(onCalendar, flow, "claims=x", "read")
		one(onCalendar, flow, "Authorization-Details=x", "read")
		one(onCalendar, flow, "user.scope=x", "read")
		one(onDrive, flow, "", "read")
		one(onDrive, flow, "claims=x", "read")
		one(onDrive, flow, "requested_token_type=x", "read")
		one(onTwin, flow, "", "read")
		one(onMute, flow, "")
		one(onMute, flow, "", "read")
		one(onTells, flow, "")
		one(onTells, flow, "", "read")
		one(onPlain, flow, "")
		one(onPlain, flow, "", "read")
		one(onSuite, flow, "", ofOne)
		one(onSuite, flow, "", ofTwo)
		one(onSuite, flow, "", ofOne, ofTwo)
		one(onSuite, flow, "org=a", ofOne)
		one(onMaps, flow, "", "read")
	}
	one(onSuite, "USER_FEDERATION", "org=a", ofTwo, forLater)
	one(onSuite, "USER_FEDERATION", "", ofThree)
	one(onCalendar, "USER_FEDERATION", "org=c", "read")
	return all
}

// wholeMatrix reports whether all is to be tried, as in make verify.
func wholeMatrix() bool { return os.Getenv("TABARD_MATRIX_WHOLE") != "" }

// sample says whether a cell is tried, of which a part is in make test and the whole in make verify. TABARD_MATRIX_SEED
// repeats a run.
func sample(t *testing.T, part float64) func() bool {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("TABARD_MATRIX_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	if wholeMatrix() {
		part = 1
	}
	t.Logf("TABARD_MATRIX_SEED=%d, and TABARD_MATRIX_WHOLE=1 for more than %v of all cells", seed, part)
	r := rand.New(rand.NewPCG(seed, 1))
	return func() bool { return r.Float64() < part }
}

// M02 to M07: the cross product of who calls, with which token, and what for, over each operation that takes a workload
// access token. No way of asking gets more than another, and what is released is the very token of that place.
func TestM06_MatrixOfEveryDoor(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		m := newWide(t, db)
		part := 0.1
		if db != daemon.SQLite {
			part = 0.04
		}
		try := sample(t, part)
		tokens := m.deals().good
		for _, account := range []string{inHome, tenant} {
			tokens = append(tokens, m.chains(account)...)
		}
		m.passed(tokens)
		var probes []*probe
		add := func(p *probe) { probes = append(probes, p) }
		visits := m.visits()
		for _, a := range m.actors {
			for _, tok := range tokens {
				if a.account != tok.account && (!acts(a, "agent", "ann") || !try()) {
					continue // one of another account is dead, whatever is asked
				}
				for _, q := range waysToAsk() {
					if try() {
						add(m.requests(a, tok, q))
					}
				}
				m.restOfDoors(a, tok, try, add)
				for _, s := range visits {
					if s.account == a.account && s.account == tok.account && s.agent == tok.agent && (try() || s.person() == tok.person) {
						add(m.polls(a, tok, s, s.provider))
					}
				}
			}
			for _, d := range m.truth.delegations {
				if try() {
					add(m.mintsDelegated(a, d.agent, d))
				}
			}
		}
		m.run(probes)
		m.counts(wantShut, wantDenied, wantDead, wantAbsent, wantInvalid, wantToken, wantFresh, wantConsent, wantFine, wantRefused)
		m.ended(tokens)
		m.audited()
	})
}

// passed is what comes between the minting of the tokens and their use, in one account: a delegation ends, and an agent
// is disabled and enabled again.
func (m *matrix) passed(tokens []*wat) {
	m.t.Helper()
	boss := m.actor(tenant, "root")
	i := slices.IndexFunc(tokens, func(t *wat) bool { return t.account == tenant && t.delegation != nil && t.delegation.user == byBob })
	d := tokens[i].delegation
	m.run([]*probe{m.ends(boss, d, d.id, d.user)})
	m.call(boss.key, "DisableWorkloadIdentity", map[string]any{"name": "cyd"})
	m.call(boss.key, "EnableWorkloadIdentity", map[string]any{"name": "cyd"})
	m.truth.epoch[standing(tenant, "agent", "cyd")]++
}

// restOfDoors are the operations beside GetResourceOauth2Token that take the token.
func (m *matrix) restOfDoors(a *actor, t *wat, try func() bool, add func(*probe)) {
	for _, provider := range []string{onTwin, onMaps, onCalendar, onNothing} {
		if try() {
			add(m.asksKey(a, t, provider))
		}
	}
	for _, to := range append(matrixAgents(), "") {
		if try() {
			add(m.exchanges(a, t, to))
		}
	}
	for _, op := range []string{api.OpDescribeUser, api.OpGetUserInfo} {
		if try() {
			add(m.asksAbout(a, t, op))
		}
	}
	for at, s := range m.truth.stored {
		if at.person() != t.person && a.account == t.account && at.agent == t.agent && try() && try() { // its own are of no use after a report
			add(m.reports(a, t, s, s.id))
		}
	}
}

// visits are consent sessions that tokens of every kind may try to poll: some are redeemed, and some wait.
func (m *matrix) visits() (all []*session) {
	m.t.Helper()
	for _, account := range []string{inHome, tenant} {
		for i, q := range []ask{{provider: onCalendar, params: "org=a", scopes: []string{"read"}}, {provider: onCalendar, params: "org=d", scopes: []string{"read"}},
			{provider: onTwin, scopes: []string{"read"}}, {provider: onSuite, params: "org=b", scopes: []string{ofOne, forLater}}, {provider: onMute, scopes: []string{"write"}}} {
			for _, agent := range []string{"ann", "ben"} {
				s := m.begins(q.place(account, agent, byAlice), i%2 == 0, q.scopes...)
				if all = append(all, s); i%2 == 0 {
					m.run([]*probe{m.completes(m.actor(account, "root"), s, byAlice)})
				}
			}
		}
	}
	return all
}

// ended lets the short delegations end: what was minted under them is dead then, whoever it was handed on to, and
// nothing is minted under them any more. Their own connections are reported, which is the last thing here.
func (m *matrix) ended(tokens []*wat) {
	m.t.Helper()
	m.ahead.Add(int64(11 * time.Minute))
	var probes []*probe
	for _, tok := range tokens {
		a := m.actor(tok.account, "root")
		switch d := tok.delegation; {
		case d == nil:
			continue
		case !m.truth.lives(d):
			probes = append(probes, m.mintsDelegated(a, d.agent, d), m.exchanges(a, tok, "cyd"))
		}
		probes = append(probes, m.asks(a, tok, onCalendar, "USER_FEDERATION", "read"), m.asksKey(a, tok, onMaps), m.asksAbout(a, tok, api.OpDescribeUser))
	}
	for _, tok := range tokens {
		if tok.delegation == nil && tok.user != byAlice && tok.user != byBob || tok.account != inHome {
			continue
		}
		for _, s := range m.truth.stored {
			if s.person() == tok.person {
				for _, name := range []string{"lim", "sly", "far", "duo"} {
					probes = append(probes, m.reports(m.actor(tok.account, name), tok, s, s.id))
				}
			}
		}
	}
	slices.SortStableFunc(probes, func(a, b *probe) int { return len(a.op) - len(b.op) })
	m.run(probes)
}
