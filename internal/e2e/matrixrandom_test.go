package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

// gambler makes random cases, and random changes between batches of them.
type gambler struct {
	*matrix
	*rand.Rand
	old         []*wat // of earlier batches
	off         map[string]func()
	directories map[string]*inputs // of the control plane, by account and where
}

// TestA01_MatrixOfRandomCases draws 10,000 cases over all operations, principals, tokens and names. Between batches it
// disables, freezes, forbids, revokes and ends things, or takes that back, and lets time pass. TABARD_MATRIX_SEED
// repeats a run.
func TestA01_MatrixOfRandomCases(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		cases, batches := 10_000, 20
		if db != daemon.SQLite {
			cases, batches = 2_000, 8 // a smaller number there
		}
		if wholeMatrix() {
			cases, batches = 5*cases, 5*batches
		}
		seed, err := strconv.ParseUint(os.Getenv("TABARD_MATRIX_SEED"), 10, 64)
		if err != nil {
			seed = rand.Uint64()
		}
		t.Logf("TABARD_MATRIX_SEED=%d", seed)
		g := &gambler{matrix: newWide(t, db), Rand: rand.New(rand.NewPCG(seed, 0)), off: map[string]func(){}, directories: map[string]*inputs{}}
		for _, account := range []string{inHome, tenant} {
			mine, other := g.directory(account, account), map[string]string{inHome: tenant, tenant: inHome}[account]
			g.directories[account+" mine"] = newInputs(t, mine)
			g.directories[account+" theirs"] = newInputs(t, g.directory(other, other))
			g.directories[account+" nobody's"] = newInputs(t, nobodys(mine, account))
		}
		for i := range batches {
			if i%6 == 5 {
				g.passes()
			}
			g.changes()
			g.batch(cases / batches)
			if t.Failed() {
				t.Fatalf("batch %d of seed %d; off are %v", i, seed, g.offNames())
			}
		}
		g.counts(wantShut, wantDenied, wantDead, wantAbsent, wantToken, wantConsent, wantFine, wantRefused, wantAllowed, wantPending)
		g.audited()
	})
}

func (g *gambler) offNames() (names []string) {
	for n := range g.off {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// passes lets time pass until every token and session of before is over.
func (g *gambler) passes() {
	g.ahead.Add(int64(61 * time.Minute)) // longer than a token of a user's JWT lives
	for _, t := range g.old {
		t.expired = true
	}
	clear(g.truth.open)
}

func pick[T any](g *gambler, all []T) T { return all[g.IntN(len(all))] }

// batch sends n cases.
func (g *gambler) batch(n int) {
	h := g.deals()
	for _, account := range []string{inHome, tenant} {
		h.good = append(h.good, g.chains(account)...)
	}
	tokens := slices.Concat(h.good, h.good, h.good, h.good, h.bad, g.old)
	var open []*session
	for range 6 {
		q := pick(g, []ask{{provider: onCalendar, scopes: []string{"read"}}, {provider: onCalendar, scopes: []string{"read"}}, {provider: onCalendar, scopes: []string{"read"}, params: "org=a"},
			{provider: onTwin, scopes: []string{"read"}}, {provider: onMute, scopes: []string{"read"}}, {provider: onSuite, scopes: []string{ofOne, forLater}}})
		at := q.place(pick(g, []string{inHome, tenant}), pick(g, matrixAgents()), pick(g, []string{byAlice, byBob, byCarol}))
		if g.truth.stands(at.account, at.agent, at.user) && !g.truth.down[standing(at.account, "provider", at.provider)] && g.truth.open[at.person()] < 40 {
			open = append(open, g.begins(at, g.IntN(3) > 0, q.scopes...))
		}
	}
	var probes []*probe
	for len(probes) < n {
		t := pick(g, tokens)
		if len(open) > 0 && g.IntN(20) == 0 { // the very one of a session
			s := pick(g, open)
			t = h.good[slices.IndexFunc(h.good, func(t *wat) bool { return t.person == s.person() })]
			probes = append(probes, g.polls(pick(g, g.friends(t)), t, s, s.provider))
			continue
		}
		a := pick(g, g.actors)
		if g.IntN(2) == 0 { // half of the cases are such that more than nothing is likely
			a = pick(g, g.friends(t))
		}
		if p := g.draw(a, t, open); p != nil {
			probes = append(probes, p)
		}
	}
	g.run(probes)
	g.old = append(g.old, h.good...)
	g.Shuffle(len(g.old), func(i, j int) { g.old[i], g.old[j] = g.old[j], g.old[i] })
	g.old = g.old[:min(len(g.old), 40)]
}

// friends are those who act for the agent of a token.
func (g *gambler) friends(t *wat) []*actor {
	return slices.DeleteFunc(slices.Clone(g.actors), func(a *actor) bool { return a.account != t.account || !acts(a, "agent", t.agent) })
}

// draw makes one case, or none where what was drawn cannot be.
func (g *gambler) draw(a *actor, t *wat, open []*session) *probe {
	provider, agent, user := pick(g, wideProviders()), pick(g, append(matrixAgents(), onNothing)), pick(g, matrixUsers())
	switch n := g.IntN(100); {
	case n < 37:
		return g.requests(a, t, g.way(provider))
	case n < 48:
		return g.asksKey(a, t, pick(g, []string{onMaps, onTwin, provider}))
	case n < 56:
		return g.mints(a, agent, user)
	case n < 60:
		return g.mintsDelegated(a, agent, pick(g, g.truth.delegations))
	case n < 65:
		return g.asksAbout(a, t, pick(g, []string{api.OpDescribeUser, api.OpGetUserInfo}))
	case n < 70:
		return g.exchanges(a, t, pick(g, []string{"", "", "ann", "ben", "cyd", onNothing}))
	case n < 75:
		return g.report(a, t)
	case n < 82 && len(open) > 0:
		return g.polls(a, t, pick(g, open), provider)
	case n < 85 && len(open) > 0:
		s := pick(g, open)
		return g.completes(a, s, pick(g, []string{s.user, s.user, byAlice, byBob, byCarol, byShadow}))
	case n < 88:
		return g.delegation(a, agent, pick(g, []string{byAlice, byBob}))
	}
	return g.control(a)
}

// way is a request of a provider for whatever can be asked of it.
func (g *gambler) way(provider string) ask {
	q := ask{provider: provider, flow: pick(g, []string{"USER_FEDERATION", "USER_FEDERATION", "USER_FEDERATION", "M2M"})}
	q.scopes = pick(g, [][]string{nil, {"read"}, {"read"}, {"write"}, {"read", "write"}, {"read", "admin"}})
	q.params = pick(g, []string{"", "", "", "", "org=a", "org=a", "org=b", "label=z", "Org=a", "claims=x", "User-Scope=x", "org=a claims=x"})
	if offers(provider).suite {
		q.scopes = pick(g, [][]string{{ofOne}, {ofTwo}, {ofThree}, {ofOne, forLater}, {ofOne, "https://one.example/write"}, {ofTwo, ofThree}})
	}
	if q.flow == "M2M" { // each list of scopes makes a connection, of which there are 20 at most
		q.scopes, q.params = q.scopes[:min(len(q.scopes), 1)], pick(g, []string{"", q.params})
	}
	return q
}

// report reports somebody's connection. That of the token itself is reported seldom: it is of no use from then on.
func (g *gambler) report(a *actor, t *wat) *probe {
	var all []*stored
	for _, s := range g.truth.stored {
		if s.person() != t.person || g.IntN(20) == 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *stored) int { return strings.Compare(fmt.Sprint(a.place), fmt.Sprint(b.place)) }) // a seed repeats
	if len(all) == 0 || g.IntN(4) == 0 {
		return g.reports(a, t, nil, "cn_ofnobody0000")
	}
	s := pick(g, all)
	return g.reports(a, t, s, s.id)
}

func (g *gambler) delegation(a *actor, agent, user string) *probe {
	d := pick(g, g.truth.delegations)
	switch g.IntN(8) {
	case 0:
		return g.ends(a, d, d.id, user)
	case 1, 2:
		return g.ends(a, d, altered(d.id), user)
	case 3, 4:
		return g.delegating(a, agent, user)
	}
	return g.lists(a, agent, user)
}

// control is an operation of the control plane on what is the account's own, another's or nobody's. What would change
// anything that is there is left to those who may not.
func (g *gambler) control(a *actor) *probe {
	if g.IntN(3) == 0 {
		a = g.actor(a.account, pick(g, []string{"root", "admin", "auditor"}))
	}
	op := pick(g, controlOps())
	where := pick(g, []string{"mine", "theirs", "nobody's"})
	if g.administers(a, op.Name) && !among(op.Name, readOps) && !(where != "mine" && among(op.Name, manageOps)) {
		return nil
	}
	return g.administer(a, op, g.directories[a.account+" "+where], where)
}

// delegating makes a delegation.
func (m *matrix) delegating(a *actor, agent, user string) *probe {
	p := &probe{actor: a, op: api.OpCreateDelegation, agent: agent, user: user, loud: true}
	p.expect = func() want {
		switch {
		case m.truth.disabled[a.String()]:
			return want{kind: wantShut}
		case !acts(a, "consent-app", agent):
			return want{kind: wantDenied}
		case agent == onNothing:
			return want{kind: wantAbsent}
		case m.truth.down[standing(a.account, "issuer", corporateIssuer)]:
			return want{kind: wantDead, or: wantDenied}
		}
		return yesElse(m.truth.stands(a.account, agent, user), wantFine, wantDenied)
	}
	grants := []grant{{onCalendar, []string{"read"}}}
	until := m.truth.now().Add(12 * time.Hour)
	p.done = func(r reply) {
		if p.want.kind == wantFine {
			m.truth.delegations = append(m.truth.delegations, &delegated{id: nested(m.t, r, "delegationId"), account: a.account, agent: agent, user: user,
				grants: grants, until: until, epochs: m.truth.epochs(a.account, agent, user)})
		}
	}
	return m.calls(p, map[string]any{"workloadName": agent, "userToken": m.sign(user), "until": until.Unix(),
		"grants": []map[string]any{{"providerName": onCalendar, "scopes": []string{"read"}}}})
}

// changes takes back some of what is off, and turns other things off.
func (g *gambler) changes() {
	for _, name := range g.offNames() {
		if g.IntN(2) == 0 {
			g.off[name]()
			delete(g.off, name)
		}
	}
	for range 3 + g.IntN(4) {
		account := pick(g, []string{inHome, tenant})
		by := pick(g, []*actor{g.actor(account, "root"), g.actor(account, "admin")}).key
		agent, provider := pick(g, matrixAgents()), pick(g, []string{onCalendar, onDrive, onMaps, onTwin, onSuite, onMute})
		switch g.IntN(11) {
		case 0:
			g.down(by, standing(account, "agent", agent), "DisableWorkloadIdentity", "EnableWorkloadIdentity", map[string]any{"name": agent})
		case 1:
			user := pick(g, []string{byAlice, byBob, byCarol, byShadow})
			g.down(by, standing(account, "user", user), "DisableUser", "EnableUser", map[string]any{"user": selector(user)})
		case 2:
			g.down(by, standing(account, "issuer", corporateIssuer), "DisableTrustedIssuer", "EnableTrustedIssuer", map[string]any{"issuer": corporateIssuer})
		case 3:
			g.down(by, standing(account, "provider", provider), "DisableCredentialProvider", "EnableCredentialProvider", map[string]any{"name": provider})
		case 4:
			g.locks(pick(g, g.actors), g.IntN(2) == 0)
		case 5:
			g.forbids(by, account, provider)
		case 6:
			g.revokes()
		case 7:
			g.freezes(account, agent)
		case 8:
			g.reconnects()
		case 9:
			g.removes(account, agent)
		case 10:
			g.revokesAll(by, account, agent, pick(g, []string{byAlice, byBob, byCarol}))
		}
	}
}

// down turns off somebody that tokens rest on.
func (g *gambler) down(by key, name, off, on string, in map[string]any) {
	if g.truth.down[name] {
		return
	}
	g.call(by, off, in)
	g.truth.down[name] = true
	g.truth.epoch[name]++
	g.off[name] = func() {
		g.call(by, on, in)
		g.truth.down[name] = false
	}
}

// locks disables a principal, or its key.
func (g *gambler) locks(a *actor, whole bool) {
	if slices.Contains([]string{"root", "admin", "auditor"}, a.name) || g.truth.disabled[a.String()] {
		return
	}
	by := g.boss(a.account)
	off, on, in := "DisablePrincipal", "EnablePrincipal", map[string]any{"name": a.name}
	if !whole && a.bearer == "" {
		off, on, in = "DisableAccessKey", "EnableAccessKey", map[string]any{"accessKeyId": a.key.ID}
	}
	g.call(by, off, in)
	g.truth.disabled[a.String()] = true
	g.off["principal "+a.String()] = func() {
		g.call(by, on, in)
		delete(g.truth.disabled, a.String())
	}
}

// forbids forbids a provider to everybody but root.
func (g *gambler) forbids(by key, account, provider string) {
	kind, name := "Provider", account+"/"+provider
	if p := offers(provider); p.key && (!p.oauth2 || g.IntN(2) == 0) {
		kind, name = "ApiKeyProvider", account+"/"+keyOf(provider)
	}
	if g.truth.forbidden[name] {
		return
	}
	g.call(by, "PutPolicy", map[string]any{"name": "no-" + kind + "-" + provider,
		"text": fmt.Sprintf(`forbid (principal, action in Tabard::Action::"release", resource == Tabard::%s::%q);`, kind, provider)})
	g.truth.forbidden[name] = true
	g.off["forbidden "+name] = func() {
		g.call(by, "DeletePolicy", map[string]any{"name": "no-" + kind + "-" + provider})
		delete(g.truth.forbidden, name)
	}
}

// places are those where something is stored, in an order that a seed repeats.
func (g *gambler) places(active bool) (all []place) {
	for at, s := range g.truth.stored {
		if s.active == active {
			all = append(all, at)
		}
	}
	slices.SortFunc(all, func(a, b place) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return all
}

// revokes ends a connection.
func (g *gambler) revokes() {
	if all := g.places(true); len(all) > 5 {
		s := g.truth.stored[pick(g, all)]
		g.call(g.boss(s.account), "RevokeConnection", map[string]any{"connectionId": s.id, "skipUpstream": true})
		s.active = false
	}
}

// reconnects lets a user consent again.
func (g *gambler) reconnects() {
	if all := g.places(false); len(all) > 0 {
		at := pick(g, all)
		if g.truth.stands(at.account, at.agent, at.user) && !g.truth.down[standing(at.account, "provider", at.provider)] && g.truth.open[at.person()] < 40 {
			g.connects(at, g.union(at)...)
		}
	}
}

// removes deletes an agent and restores it. What others got from its hand is dead as long as it is gone.
func (g *gambler) removes(account, agent string) {
	name, boss := standing(account, "agent", agent), g.boss(account)
	if g.truth.down[name] {
		return
	}
	handed := g.handedOn(account, agent, map[string]string{"ann": "ben", "ben": "cyd", "cyd": "ann"}[agent], byAlice)
	g.call(boss, "DeleteWorkloadIdentity", map[string]any{"name": agent})
	g.truth.down[name] = true
	g.truth.epoch[name]++
	for _, t := range handed {
		g.run([]*probe{g.asksKey(g.actor(account, "root"), t, onMaps), g.asks(g.actor(account, "root"), t, onCalendar, "USER_FEDERATION", "read"), g.exchanges(g.actor(account, "root"), t, "")})
	}
	g.call(boss, "RestoreWorkloadIdentity", map[string]any{"workloadName": agent})
	g.truth.down[name] = false
	g.old = slices.DeleteFunc(g.old, func(t *wat) bool { return t.account == account && slices.Contains(t.through, agent) }) // nothing says what becomes of those
}

// revokesAll ends all that an agent or a user has, and waits until that is done.
func (g *gambler) revokesAll(by key, account, agent, user string) {
	in, name, hit := map[string]any{"workloadName": agent}, standing(account, "agent", agent), func(p person) bool { return p.agent == agent }
	if g.IntN(2) == 0 {
		in, name, hit = map[string]any{"user": selector(user)}, standing(account, "user", user), func(p person) bool { return p.user == user }
	}
	began := g.call(by, "RevokeAccess", in)
	id := nested(g.t, began, "revocationId")
	if !eventually(20*time.Second, func() bool {
		return strings.Contains(g.call(by, "GetRevocation", map[string]any{"revocationId": id}).body, `"state":"DONE"`)
	}) {
		g.t.Fatalf("the revocation of %s does not end", name)
	}
	g.truth.epoch[name]++
	for at, s := range g.truth.stored {
		if at.account == account && hit(at.person()) {
			s.active = false
		}
	}
	for at, s := range g.truth.machine {
		if at.account == account && hit(at.person()) {
			g.truth.spent = append(g.truth.spent, s.text)
			delete(g.truth.machine, at)
		}
	}
	for _, d := range g.truth.delegations {
		d.ended = d.ended || d.account == account && hit(person{account, d.agent, d.user})
	}
	for p := range g.truth.open {
		if p.account == account && hit(p) {
			delete(g.truth.open, p)
		}
	}
}

// selector names a user to administrators.
func selector(user string) map[string]any {
	if id, is := strings.CutPrefix(user, "uid:"); is {
		return map[string]any{"userId": id}
	}
	return map[string]any{"issuer": corporateIssuer, "subject": user}
}

// freezes has an agent cross a ceiling that freezes it.
func (g *gambler) freezes(account, agent string) {
	name, boss := standing(account, "agent", agent), g.boss(account)
	if g.truth.down[name] || g.truth.down[standing(account, "provider", onMaps)] {
		return
	}
	ceilings := func(in map[string]any) {
		g.call(boss, "SetCeilings", map[string]any{"workloadName": agent, "ceilings": in})
	}
	ceilings(map[string]any{"releasesPerMinute": 1, "freeze": true})
	in := encode(g.t, map[string]any{"workloadIdentityToken": g.mint(account, agent, byNobody).text, "resourceCredentialProviderName": onMaps})
	for {
		r := g.post(boss, "GetResourceApiKey", in)
		if r.status == http.StatusTooManyRequests {
			break
		}
		if g.seeded++; r.status != http.StatusOK {
			g.t.Fatalf("on the way to a ceiling: %d %s", r.status, r.body)
		}
	}
	ceilings(map[string]any{"releasesPerMinute": 0, "freeze": false})
	g.truth.down[name] = true
	g.truth.epoch[name]++
	g.off[name] = func() {
		g.call(boss, "EnableWorkloadIdentity", map[string]any{"name": agent})
		g.truth.down[name] = false
	}
}
