package e2e_test

import (
	"fmt"
	"slices"
)

// The oracle. It says what is expected of a cell, by docs/policy.md and docs/design.md, and by what this test has written and done itself. It asks
// no code of the server.

// person is a user at an agent.
type person struct{ account, agent, user string }

// place is where a token is stored: for an agent, a user and a provider of an account.
type place struct{ account, agent, user, provider string }

func (p place) person() person { return person{p.account, p.agent, p.user} }

// stored is a token that a user consented to.
type stored struct {
	place
	text, id string
	scopes   []string // sorted
	active   bool
}

// wat is a workload access token, and what it was when it was minted.
type wat struct {
	person
	text       string
	epochs     [3]int
	via        string // the agent that handed it on, "" for none
	viaEpoch   int
	delegation *delegated
	expired    bool
	forged     bool // it was never minted
}

func (t *wat) String() string {
	s := fmt.Sprintf("%s/%s/%q", t.account, t.agent, t.user)
	for what, is := range map[string]bool{" expired": t.expired, " forged": t.forged, " delegated": t.delegation != nil, " via " + t.via: t.via != ""} {
		if is {
			s += what
		}
	}
	return s
}

type grant struct {
	provider string
	scopes   []string
}

// delegated is a delegation.
type delegated struct {
	id, account, agent, user string
	grants                   []grant
	epochs                   [3]int // of the agent, the user and the user's issuer, when it was made
	ended                    bool
}

func (d *delegated) grant(provider string) (grant, bool) {
	for _, g := range d.grants {
		if g.provider == provider {
			return g, true
		}
	}
	return grant{}, false
}

// grants returns what the token may have of a provider by the delegation that it was minted under, if there is one.
func (t *wat) grants(provider string) (grant, bool) {
	if t.delegation == nil {
		return grant{}, true
	}
	return t.delegation.grant(provider)
}

func (t *wat) bounds(provider string, scopes []string) bool {
	g, ok := t.grants(provider)
	return ok && (t.delegation == nil || within(scopes, g.scopes))
}

// session is a consent session.
type session struct {
	place
	uri, token string   // token is the text of the one that opened it
	state      string   // created, held, redeemed or failed
	scopes     []string // that it asks for: what a stored token that lives was asked for, too
}

// truth is what the oracle knows.
type truth struct {
	disabled    map[string]bool // principals, by account and name
	down        map[string]bool // agents, users, issuers and providers, by standing
	epoch       map[string]int  // of the same: how often it went down
	forbidden   map[string]bool // providers that a policy forbids, by account and name
	stored      map[place]*stored
	machine     map[place]string // tokens without a user
	spent       []string         // tokens that others have replaced
	apiKeys     map[string]string
	delegations []*delegated
	open        map[person]int // consent sessions
}

func newTruth() truth {
	return truth{disabled: map[string]bool{}, down: map[string]bool{}, epoch: map[string]int{}, forbidden: map[string]bool{}, stored: map[place]*stored{},
		machine: map[place]string{}, apiKeys: map[string]string{}, open: map[person]int{}}
}

// standing names somebody who can be down.
func standing(account, kind, name string) string { return account + "/" + kind + "/" + name }

// rests are those that a token rests on: the agent, the user, and the user's issuer. One that is not there is "".
func rests(account, agent, user string) [3]string {
	on := [3]string{standing(account, "agent", agent), "", ""}
	if user != byNobody {
		on[1] = standing(account, "user", user)
	}
	if user != byNobody && !asserted(user) {
		on[2] = standing(account, "issuer", corporateIssuer)
	}
	return on
}

func (o *truth) epochs(account, agent, user string) (e [3]int) {
	for i, s := range rests(account, agent, user) {
		e[i] = o.epoch[s]
	}
	return e
}

// minted remembers a token.
func (o *truth) minted(text, account, agent, user string) *wat {
	return &wat{person: person{account, agent, user}, text: text, epochs: o.epochs(account, agent, user)}
}

// stands reports whether nobody is down whom a token of the agent for the user rests on.
func (o *truth) stands(account, agent, user string) bool {
	for _, s := range rests(account, agent, user) {
		if o.down[s] {
			return false
		}
	}
	return true
}

// opens reports whether the token is good in the account, but for the time.
func (o *truth) opens(t *wat, account string) bool {
	return !t.forged && t.account == account && o.stands(t.account, t.agent, t.user) && t.epochs == o.epochs(t.account, t.agent, t.user) &&
		(t.delegation == nil || o.lives(t.delegation)) &&
		(t.via == "" || !o.down[standing(account, "agent", t.via)] && o.epoch[standing(account, "agent", t.via)] == t.viaEpoch)
}

// lives reports whether the delegation is good for anything: whoever disables the user or the issuer ends it.
func (o *truth) lives(d *delegated) bool {
	now := o.epochs(d.account, d.agent, d.user)
	return !d.ended && now[1] == d.epochs[1] && now[2] == d.epochs[2]
}

// acts reports whether the principal acts for the agent: as root, or by the role and the pairing.
func acts(a *actor, role, agent string) bool {
	return slices.Contains(a.roles, "root") || slices.Contains(a.roles, role) && slices.Contains(a.agents, agent)
}

// may reports whether the principal may do what agents do: it acts for the agent, and a policy permits it.
func (o *truth) may(a *actor, verb, agent, provider, user string, scopes []string) bool {
	if !acts(a, "agent", agent) || slices.Contains(a.roles, "root") {
		return acts(a, "agent", agent)
	}
	// A key is of an API-key provider, and what a policy says of a provider by its name is of the kind that has the name.
	if verb == "key" && provider != onMaps || verb == "release" && provider == onMaps {
		provider = "one of the other kind"
	}
	if verb == "key" {
		verb = "release"
	}
	if verb == "release" && o.forbidden[a.account+"/"+provider] {
		return false
	}
	return slices.ContainsFunc(a.rights, func(r right) bool {
		return slices.Contains(r.verbs, verb) && (r.providers == nil || slices.Contains(r.providers, provider)) &&
			(r.scopes == nil || within(scopes, r.scopes)) && (r.user == "" || r.user == user)
	})
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// kind is what sort of an answer is expected.
type kind string

const (
	wantShut    kind = "shut out"        // 403, or 429 where it was tried often: the principal is disabled
	wantDenied  kind = "denied"          // 403
	wantDead    kind = "unauthenticated" // 401
	wantAbsent  kind = "absent"          // 404
	wantInvalid kind = "invalid"         // 400
	wantFull    kind = "throttled"       // 429
	wantToken   kind = "a token"         // 200, and the very text that is stored in that place
	wantFresh   kind = "a new token"     // 200, and a text that nobody has seen
	wantConsent kind = "a consent URL"   // 200
	wantPending kind = "pending"         // 200, and the session's URL
	wantFine    kind = "success"         // 200
	wantAllowed kind = "not refused"     // neither 401 nor 403
	wantRefused kind = "refused"         // not 2xx; in OAuth's form, which has its own codes
)

// want is what is expected.
type want struct {
	kind kind
	or   kind // as good: two reasons apply, and the design has no order for them
	text string
}

func (w want) String() string {
	s := string(w.kind)
	if w.or != "" {
		s += " or " + string(w.or)
	}
	if w.text != "" {
		s += " " + w.text
	}
	return s
}

func yesElse(yes bool, then, other kind) want {
	if yes {
		return want{kind: then}
	}
	return want{kind: other}
}

// mint is a token of the agent for the user.
func (o *truth) mint(a *actor, agent, user string) want {
	verb := "mint"
	if asserted(user) {
		verb = "assert"
	}
	switch {
	case o.disabled[a.String()]:
		return want{kind: wantShut}
	case !o.may(a, verb, agent, "", user, nil):
		return want{kind: wantDenied}
	case verb == "assert" && agent != "ben" && agent != onNothing && !slices.Contains(a.roles, "root"): // its users must be proven
		return want{kind: wantDenied}
	case agent == onNothing:
		return want{kind: wantAbsent}
	case o.down[standing(a.account, "issuer", corporateIssuer)] && verb == "mint" && user != byNobody:
		return want{kind: wantDenied, or: wantDead}
	}
	return yesElse(o.stands(a.account, agent, user), wantFine, wantDenied)
}

// mintDelegated is a token of the agent by a delegation.
func (o *truth) mintDelegated(a *actor, agent string, d *delegated) want {
	switch {
	case o.disabled[a.String()]:
		return want{kind: wantShut}
	case !o.may(a, "mint", agent, "", d.user, nil):
		return want{kind: wantDenied}
	case agent == onNothing || d.account != a.account || d.agent != agent:
		return want{kind: wantAbsent}
	}
	return yesElse(o.lives(d) && o.stands(d.account, d.agent, d.user), wantFine, wantDenied)
}

// bearer is how every use of a token begins: nil where it goes on.
func (o *truth) bearer(a *actor, t *wat) *want {
	switch {
	case o.disabled[a.String()]:
		return &want{kind: wantShut}
	case !o.opens(t, a.account):
		return &want{kind: wantDead}
	}
	return nil
}

// oauth2 is a provider's token.
func (o *truth) oauth2(a *actor, t *wat, provider, flow string, scopes []string) want {
	if w := o.bearer(a, t); w != nil {
		return *w
	}
	may := func(scopes []string) bool { return o.may(a, "release", t.agent, provider, t.user, scopes) }
	switch {
	case !acts(a, "agent", t.agent):
		return want{kind: wantDenied}
	case t.expired: // what is dead is refused before anything is told, and after the pairing
		return want{kind: wantDead, or: wantDenied}
	case provider == onNothing || provider == onMaps:
		return yesElse(may(scopes), wantAbsent, wantDenied)
	case o.down[standing(a.account, "provider", provider)], asserted(t.user) && provider == onDrive:
		return want{kind: wantDenied}
	case flow == "USER_FEDERATION" && t.user == byNobody:
		return yesElse(may(scopes), wantInvalid, wantDenied)
	}
	if flow == "M2M" {
		text, known := o.machine[place{a.account, t.agent, "", provider}]
		switch {
		case !may(scopes) || !t.bounds(provider, scopes):
			return want{kind: wantDenied}
		case known:
			return want{kind: wantToken, text: text}
		}
		return want{kind: wantFresh}
	}
	at := place{a.account, t.agent, t.user, provider}
	s := o.stored[at]
	if s != nil && s.active && within(scopes, s.scopes) {
		if may(s.scopes) && t.bounds(provider, s.scopes) {
			return want{kind: wantToken, text: s.text}
		}
		return want{kind: wantDenied}
	}
	union := scopes
	if s != nil && s.active { // nothing that was granted is to be lost
		union = slices.Concat(scopes, s.scopes)
	}
	switch {
	case t.delegation != nil || !may(union):
		return want{kind: wantDenied}
	case o.open[at.person()] >= 50:
		return want{kind: wantFull}
	}
	return want{kind: wantConsent}
}

// apiKey is an account's key.
func (o *truth) apiKey(a *actor, t *wat, provider string) want {
	if w := o.bearer(a, t); w != nil {
		return *w
	}
	_, granted := t.grants(provider)
	switch {
	case t.expired && !acts(a, "agent", t.agent):
		return want{kind: wantDead, or: wantDenied}
	case t.expired:
		return want{kind: wantDead}
	case !o.may(a, "key", t.agent, provider, t.user, nil):
		return want{kind: wantDenied}
	case provider != onMaps:
		return want{kind: wantAbsent}
	case o.down[standing(a.account, "provider", provider)], !granted:
		return want{kind: wantDenied}
	}
	return want{kind: wantToken, text: o.apiKeys[a.account]}
}

// about is what is asked of the token itself.
func (o *truth) about(a *actor, t *wat, op string) want {
	if w := o.bearer(a, t); w != nil {
		return *w
	}
	switch {
	case t.expired:
		return want{kind: wantDead, or: wantDenied}
	case !o.may(a, "describe", t.agent, "", t.user, nil):
		return want{kind: wantDenied}
	}
	return yesElse(op == "DescribeUser", wantFine, wantInvalid) // no issuer of the matrix says more of its users
}

// report says that a stored token is of no use. The connection is s, nil for one that nobody has.
func (o *truth) report(a *actor, t *wat, s *stored) want {
	if w := o.bearer(a, t); w != nil {
		return *w
	}
	own := s != nil && s.person() == t.person
	switch {
	case t.expired:
		return want{kind: wantDead, or: wantDenied}
	case !o.may(a, "report", t.agent, "", t.user, nil):
		return want{kind: wantDenied}
	case !own:
		return want{kind: wantAbsent}
	}
	if _, granted := t.grants(s.provider); !granted { // a delegation for one provider says nothing of another's connections
		return want{kind: wantDenied}
	}
	return yesElse(!o.down[standing(a.account, "provider", s.provider)], wantFine, wantDenied)
}

// exchange is a token for an audience, or where the audience is the name of an agent a token of that agent.
func (o *truth) exchange(a *actor, t *wat, agent string) want {
	switch w := o.bearer(a, t); {
	case w != nil && w.kind == wantShut:
		return *w
	case w != nil:
		return want{kind: wantRefused}
	}
	good := !t.expired
	if agent == "" {
		return yesElse(good && t.delegation == nil && o.may(a, "exchange", t.agent, "", t.user, nil), wantFine, wantRefused)
	}
	return yesElse(good && t.user != byNobody && t.agent != agent && agent != onNothing && (!asserted(t.user) || agent == "ben") &&
		o.may(a, "exchange", agent, "", t.user, nil) && o.stands(a.account, agent, t.user), wantFine, wantRefused)
}
