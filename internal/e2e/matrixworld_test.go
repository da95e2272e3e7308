package e2e_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
)

// matrixTransport keeps connections: a matrix is many small requests to one server.
var matrixTransport = &http.Transport{MaxIdleConnsPerHost: 16}

// The small world of the matrix. It is there twice, in two accounts, with the same names. What is of somebody named
// after an agent acts for that agent.
const (
	inHome = daemon.DefaultAccount // the installation's own account; the other is tenant

	byAlice, byBob    = "alice", "bob"           // users of a token
	byCarol, byShadow = "uid:carol", "uid:alice" // users whom a caller names; the second has the first user's name
	byNobody          = ""

	onCalendar, onDrive, onMaps = "calendar", "drive", "maps" // drive serves verified users only, maps has an API key
	onNothing                   = "missing"                   // a name of the same form, that nobody has
)

func matrixAgents() []string    { return []string{"ann", "ben", "cyd"} } // ben accepts users whom the caller names
func matrixUsers() []string     { return []string{byAlice, byBob, byCarol, byShadow, byNobody} }
func matrixProviders() []string { return []string{onCalendar, onDrive, onMaps, onNothing} }

// own is the name of things that are in one account only, or with another number in none.
func own(account string) string { return "thing-" + account }

// actor is a principal, and what is written about it.
type actor struct {
	account, name string
	roles, agents []string // agents are the workload identities that it is paired with
	rights        []right
	key           key
	bearer        string // for one who is federated: the platform's token
}

func (a *actor) String() string { return a.account + "/" + a.name }

// cast is who calls, in each account.
func cast() []actor {
	all := []string{"mint", "assert", "release", "report", "describe", "exchange"}
	agent, app := []string{"agent"}, []string{"consent-app"}
	return []actor{
		{name: "root", roles: []string{"root"}},
		{name: "admin", roles: []string{"admin"}},
		{name: "auditor", roles: []string{"auditor"}},
		{name: "ann", roles: agent, agents: []string{"ann"}, rights: []right{{verbs: all}}},
		{name: "ben", roles: agent, agents: []string{"ben"}, rights: []right{
			{verbs: []string{"mint", "assert", "describe"}}, {verbs: []string{"release"}, providers: []string{onCalendar}, scopes: []string{"read"}}}},
		{name: "cyd", roles: agent, agents: []string{"cyd"}}, // no policy
		{name: "duo", roles: agent, agents: []string{"ann", "ben", onNothing}, rights: []right{{verbs: all}}},
		{name: "ann-app", roles: app, agents: []string{"ann"}},
		{name: "ben-app", roles: app, agents: []string{"ben"}},
		{name: "self", roles: []string{"agent", "consent-app"}, agents: []string{"cyd"}, rights: []right{{verbs: all}}},
		{name: "gone", roles: agent, agents: []string{"ann"}, rights: []right{{verbs: all}}},
		{name: "pod", roles: agent, agents: []string{"ann"}, rights: []right{{verbs: []string{"mint"}}, {verbs: []string{"release"}, user: byAlice}}},
	}
}

// matrix is the world, what is stored in it, and what the oracle knows of it.
type matrix struct {
	*world
	stand  *grantor
	sign   func(user string) string // the user's own token, of the same issuer in both accounts
	actors []*actor
	truth  truth
	sent   []sent // what was asked and answered, for the trail
	seeded int    // releases beside those
}

func (m *matrix) actor(account, name string) *actor {
	for _, a := range m.actors {
		if a.account == account && a.name == name {
			return a
		}
	}
	m.t.Fatalf("nobody is called %s in %s", name, account)
	return nil
}

func (m *matrix) boss(account string) key { return m.actor(account, "root").key }

// newMatrix starts a server with both accounts.
func newMatrix(t *testing.T, db string) *matrix {
	t.Helper()
	m := &matrix{world: newBare(t, db), stand: newGrantor(t)}
	m.populate(cast())
	return m
}

// populate makes both accounts with the same names.
func (m *matrix) populate(all []actor) {
	t := m.t
	t.Helper()
	m.truth = newTruth()
	m.truth.now = func() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())) }
	signing := jwstest.Stranger(t)
	jwks := string(jwstest.Set(t, jwstest.Key(t, "k", &signing.PublicKey, nil)))
	m.sign = func(user string) string {
		now := m.truth.now()
		return jwstest.Sign(t, "ES256", map[string]any{"kid": "k"}, map[string]any{
			"iss": corporateIssuer, "sub": user, "aud": appClient, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}, signing)
	}
	platform := newPlatform(t)
	for _, account := range []string{inHome, tenant} {
		boss := root()
		if account != inHome {
			boss = keyIn(t, m.call(root(), "CreateAccount", map[string]any{"accountId": account, "name": "acme"}), "rootAccessKey")
		}
		m.call(boss, "CreateTrustedIssuer", map[string]any{"issuer": corporateIssuer, "audiences": []string{appClient}, "jwks": jwks})
		m.call(boss, "CreateWorkloadIssuer", map[string]any{"issuer": platform.url, "audiences": []string{"tabard"}})
		m.furnish(account, boss)
		for _, a := range all {
			a.account = account
			m.enter(&a, boss, platform)
			m.actors = append(m.actors, &a)
		}
		m.store(account, boss)
	}
}

// furnish makes the agents and providers of an account.
func (m *matrix) furnish(account string, boss key) {
	m.t.Helper()
	for _, name := range matrixAgents() {
		in := map[string]any{"name": name, "allowedResourceOauth2ReturnUrls": []string{returnURL}}
		if name == "ben" {
			in["tags"] = map[string]string{"tabard:assurance": "asserted"}
		}
		m.call(boss, "CreateWorkloadIdentity", in)
	}
	for _, name := range []string{onCalendar, onDrive} {
		m.provides(boss, name, "")
	}
	// And one of each that has a name of its own, which is in no other account.
	m.call(boss, "CreateWorkloadIdentity", map[string]any{"name": own(account)})
	m.call(boss, "CreateApiKeyCredentialProvider", map[string]any{"name": own(account), "apiKey": "key-of-" + own(account)})
	m.call(boss, "CreatePrincipal", map[string]any{"name": own(account), "roles": []string{"auditor"}})
	m.call(boss, "PutPolicy", map[string]any{"name": own(account), "text": agentPolicy(own(account))})
	m.keeps(account, boss, onMaps)
}

// provides makes an OAuth2 provider at the grantor, which answers as the path says.
func (m *matrix) provides(boss key, name, path string) {
	m.t.Helper()
	tags := map[string]string{"tabard:presentation-parameters": "label"}
	if p := offers(name); p.verified {
		tags["tabard:assurance"] = "verified"
	}
	if p := offers(name); p.allows != "" {
		tags["tabard:allowed-parameters"] = p.allows
	}
	m.call(boss, "CreateOauth2CredentialProvider", map[string]any{
		"name": name, "credentialProviderVendor": "CustomOauth2", "tags": tags, "oauth2ProviderConfigInput": map[string]any{"customOauth2ProviderConfig": map[string]any{
			"oauthDiscovery": map[string]any{"discoveryUrl": m.stand.url + path + "/.well-known/openid-configuration"}, "clientId": clientID, "clientSecret": clientSecret}}})
}

// keeps makes an API-key provider.
func (m *matrix) keeps(account string, boss key, name string) {
	m.t.Helper()
	text := "key-of-" + name + "-in-" + account
	m.call(boss, "CreateApiKeyCredentialProvider", map[string]any{"name": name, "apiKey": text})
	m.truth.apiKeys[account+"/"+name] = text
}

// enter makes a principal, its policy and its key, or what stands for a key.
func (m *matrix) enter(a *actor, boss key, p *platform) {
	m.t.Helper()
	if a.name == "root" {
		a.key = boss
		return
	}
	in := map[string]any{"name": a.name, "roles": a.roles}
	if a.agents != nil {
		in["workloads"] = a.agents
	}
	m.call(boss, "CreatePrincipal", in)
	if text := a.policy(); text != "" {
		m.call(boss, "PutPolicy", map[string]any{"name": "of:" + a.name, "text": text})
	}
	if a.name == "pod" {
		m.call(boss, "CreateFederationRule", map[string]any{"issuer": p.url, "subject": "system:serviceaccount:prod:" + a.account, "principalName": a.name})
		a.bearer = p.token(a.account, map[string]any{"exp": time.Now().Add(6 * time.Hour).Unix()})
		return
	}
	a.key = keyIn(m.t, m.call(boss, "CreateAccessKey", map[string]any{"principalName": a.name}), "accessKey")
	if a.name == "gone" {
		m.call(boss, "DisablePrincipal", map[string]any{"name": a.name})
		m.truth.disabled[a.String()] = true
	}
}

// store takes users through consent: some of each kind of cell, and with other scopes for each user.
func (m *matrix) store(account string, boss key) {
	m.t.Helper()
	for _, agent := range matrixAgents() {
		m.connects(spot(account, agent, byAlice, onCalendar), "read", "write")
		m.connects(spot(account, agent, byBob, onCalendar), "read")
	}
	m.connects(spot(account, "ann", byAlice, onDrive), "read")
	m.connects(spot(account, "ben", byBob, onDrive), "read")
	m.connects(spot(account, "ben", byCarol, onCalendar), "read")
	m.connects(spot(account, "ben", byShadow, onCalendar), "read")
	m.delegates(account, "ann", byAlice, grant{onCalendar, []string{"read", "write"}}, grant{keyOf(onMaps), nil})
	m.delegates(account, "ben", byBob, grant{onCalendar, []string{"read"}})
	m.delegates(account, "ann", byBob, grant{onDrive, []string{"read"}})
	for _, agent := range []string{"ann", "ben"} {
		m.seeded++
		out := m.call(boss, "GetResourceOauth2Token", m.tokenInput(m.mint(account, agent, byNobody), onCalendar, "M2M", []string{"read"}, ""))
		at := ask{provider: onCalendar, flow: "M2M", scopes: []string{"read"}}.place(account, agent, byNobody)
		m.truth.machine[at] = &stored{place: at, text: out.get("accessToken"), id: out.get("connectionId"), scopes: []string{"read"}, active: true}
	}
}

// mint makes a token of the agent for the user as root of the account.
func (m *matrix) mint(account, agent, user string) *wat {
	m.t.Helper()
	op, in := m.mintInput(agent, user)
	return m.truth.minted(m.call(m.boss(account), op, in).get("workloadAccessToken"), account, agent, user)
}

func (m *matrix) mintInput(agent, user string) (op string, in map[string]any) {
	id, asserted := strings.CutPrefix(user, "uid:")
	switch {
	case user == byNobody:
		return api.OpGetWorkloadAccessToken, map[string]any{"workloadName": agent}
	case asserted:
		return api.OpGetWorkloadAccessTokenForUserId, map[string]any{"workloadName": agent, "userId": id}
	}
	return api.OpGetWorkloadAccessTokenForJWT, map[string]any{"workloadName": agent, "userToken": m.sign(user)}
}

func (m *matrix) tokenInput(t *wat, provider, flow string, scopes []string, session string) map[string]any {
	in := map[string]any{"workloadIdentityToken": t.text, "resourceCredentialProviderName": provider, "oauth2Flow": flow, "scopes": scopes}
	if flow == "USER_FEDERATION" {
		in["resourceOauth2ReturnUrl"] = returnURL
	}
	if session != "" {
		in["sessionUri"] = session
	}
	return in
}

// identifies is who the application says is there.
func (m *matrix) identifies(user string) map[string]any {
	if id, asserted := strings.CutPrefix(user, "uid:"); asserted {
		return map[string]any{"userId": id}
	}
	return map[string]any{"userToken": m.sign(user)}
}

// begins opens a consent session as root, and lets the user say yes where held says so.
func (m *matrix) begins(at place, held bool, scopes ...string) *session {
	m.t.Helper()
	label := strings.Join([]string{at.account, at.agent, at.user, at.provider}, "/")
	in := m.input(m.mint(at.account, at.agent, at.user), ask{at.provider, "USER_FEDERATION", scopes, "label=" + label + " " + at.params})
	in["forceAuthentication"] = true
	first := m.call(m.boss(at.account), "GetResourceOauth2Token", in)
	m.truth.open[at.person()]++
	s := &session{place: at, uri: first.get("sessionUri"), token: in["workloadIdentityToken"].(string), state: "created", scopes: scopes}
	if had := m.truth.stored[at]; had != nil && had.active {
		s.scopes = slices.Compact(slices.Sorted(slices.Values(slices.Concat(scopes, had.scopes))))
	}
	if held {
		s.state = "held"
		m.stand.consents(m.t, first.get("authorizationUrl"))
	}
	return s
}

// connects stores a token in the place.
func (m *matrix) connects(at place, scopes ...string) {
	m.t.Helper()
	s := m.begins(at, true, scopes...)
	m.call(m.boss(at.account), "CompleteResourceTokenAuth", map[string]any{"sessionUri": s.uri, "userIdentifier": m.identifies(at.user)})
	m.truth.open[at.person()]--
	m.learns(at, scopes)
}

// reads asks as root for the token that is stored in the place.
func (m *matrix) reads(at place, scopes []string) reply {
	m.t.Helper()
	m.seeded++
	out := m.call(m.boss(at.account), "GetResourceOauth2Token", m.input(m.mint(at.account, at.agent, at.user), ask{at.provider, "USER_FEDERATION", scopes, at.params}))
	if text := out.get("accessToken"); !strings.HasPrefix(text, at.label()) {
		m.t.Fatalf("%+v has the token %q", at, text)
	}
	return out
}

// learns keeps what a consent has brought.
func (m *matrix) learns(at place, scopes []string) {
	m.t.Helper()
	out := m.reads(at, scopes)
	text := out.get("accessToken")
	now := stored{place: at, text: text, id: out.get("connectionId"), renews: slices.Contains(scopes, forLater), active: true}
	now.scopes, now.unknown = offers(at.provider).granted(slices.Sorted(slices.Values(scopes)))
	if was := m.truth.stored[at]; was != nil { // the same connection
		m.truth.spent = append(m.truth.spent, was.text)
		*was = now
	} else {
		m.truth.stored[at] = &now
	}
}

// delegates makes a delegation of the user to the agent for a day.
func (m *matrix) delegates(account, agent, user string, grants ...grant) *delegated {
	m.t.Helper()
	return m.delegatesFor(24*time.Hour, account, agent, user, grants...)
}

func (m *matrix) delegatesFor(life time.Duration, account, agent, user string, grants ...grant) *delegated {
	m.t.Helper()
	until := m.truth.now().Add(life).Truncate(time.Second)
	r := m.call(m.boss(account), "CreateDelegation", map[string]any{"workloadName": agent, "userToken": m.sign(user), "grants": grantsInput(grants), "until": until.Unix()})
	d := &delegated{id: nested(m.t, r, "delegationId"), account: account, agent: agent, user: user, grants: grants, until: until,
		epochs: m.truth.epochs(account, agent, user)}
	m.truth.delegations = append(m.truth.delegations, d)
	return d
}

func grantsInput(grants []grant) (in []map[string]any) {
	for _, g := range grants {
		name, isKey := strings.CutPrefix(g.provider, "key:")
		one := map[string]any{"providerName": name, "providerKind": "OAUTH2"}
		if isKey {
			one["providerKind"] = "API_KEY"
		}
		if g.scopes != nil {
			one["scopes"] = g.scopes
		}
		in = append(in, one)
	}
	return in
}

// transmit sends a request as it is. It may be called from any goroutine.
func (m *matrix) transmit(r *http.Request) reply {
	resp, err := matrixTransport.RoundTrip(r)
	if err != nil {
		m.t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Error(err)
	}
	return reply{resp.StatusCode, resp.Header, string(answer)}
}
