package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The oracle. It says what is expected of a cell, by docs/policy.md and docs/design.md, and by what this test has
// written and done itself. It asks no code of the server.

// person is a user at an agent.
type person struct{ account, agent, user string }

// place is where a token is stored: for an agent, a user and a provider of an account, and by what else names it.
type place struct {
	account, agent, user, provider string
	resource, params               string // the API that it is for, and the custom parameters that name it
	scopes                         string // exactly these, of a token without a user
}

func spot(account, agent, user, provider string) place {
	return place{account: account, agent: agent, user: user, provider: provider}
}

// label is how the text of the token in the place begins.
func (p place) label() string {
	label := strings.Join([]string{p.account, p.agent, p.user, p.provider}, "/")
	if p.user == byNobody {
		label = "machine"
	}
	if p.resource != "" {
		label += "@" + p.resource
	}
	if p.params != "" {
		label += "?" + p.params
	}
	return label + "-"
}

// family is the place without the resource.
func (p place) family() place {
	p.resource = ""
	return p
}

func (p place) person() person { return person{p.account, p.agent, p.user} }

// stored is a token that a user consented to, or that needed no user.
type stored struct {
	place
	text, id string
	scopes   []string // sorted
	unknown  bool     // nobody knows the scopes
	renews   bool     // it lives on a refresh token that serves its whole family
	active   bool
}

// wat is a workload access token, and what it was when it was minted.
type wat struct {
	person
	text       string
	epochs     [3]int
	through    []string // the agents that handed it on, the last first
	since      []int    // their epochs then
	delegation *delegated
	expired    bool
	forged     bool // it was never minted
}

func (t *wat) String() string {
	s := fmt.Sprintf("%s/%s/%q", t.account, t.agent, t.user)
	for what, is := range map[string]bool{" expired": t.expired, " forged": t.forged, " delegated": t.delegation != nil,
		fmt.Sprintf(" through %v", t.through): t.through != nil} {
		if is {
			s += what
		}
	}
	return s
}

type grant struct {
	provider string // as among a right's
	scopes   []string
}

// delegated is a delegation.
type delegated struct {
	id, account, agent, user string
	grants                   []grant
	epochs                   [3]int // of the agent, the user and the user's issuer, when it was made
	until                    time.Time
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

// bounds reports whether a token with the scopes is within the delegation. Scopes that nobody knows are in no list.
func (t *wat) bounds(provider string, scopes []string, unknown bool) bool {
	switch g, ok := t.grants(provider); {
	case t.delegation == nil || !ok:
		return ok
	case unknown:
		return len(g.scopes) == 0
	default:
		return within(scopes, g.scopes)
	}
}

// asking is what a policy is asked about a use of the token.
func (t *wat) asking(verb string) question {
	return question{verb: verb, agent: t.agent, user: t.user, through: t.through}
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
	machine     map[place]*stored // tokens without a user
	spent       []string          // tokens that others have replaced
	apiKeys     map[string]string
	delegations []*delegated
	open        map[person]int // consent sessions
	now         func() time.Time
}

func newTruth() truth {
	return truth{disabled: map[string]bool{}, down: map[string]bool{}, epoch: map[string]int{}, forbidden: map[string]bool{}, stored: map[place]*stored{},
		machine: map[place]*stored{}, apiKeys: map[string]string{}, open: map[person]int{}}
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
	for i, agent := range t.through {
		if name := standing(t.account, "agent", agent); o.down[name] || o.epoch[name] != t.since[i] {
			return false
		}
	}
	return !t.forged && t.account == account && o.stands(t.account, t.agent, t.user) && t.epochs == o.epochs(t.account, t.agent, t.user) &&
		(t.delegation == nil || o.lives(t.delegation))
}

// lives reports whether the delegation is good for anything: whoever disables the user or the issuer ends it.
func (o *truth) lives(d *delegated) bool {
	now := o.epochs(d.account, d.agent, d.user)
	return !d.ended && o.now().Before(d.until) && now[1] == d.epochs[1] && now[2] == d.epochs[2]
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
	wantFresh   kind = "a new token"     // 200, and a text of that place that nobody has seen
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
	case !o.may(a, question{verb: verb, agent: agent, user: user}):
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
	case !o.may(a, question{verb: "mint", agent: agent, user: d.user}):
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
func (o *truth) oauth2(a *actor, t *wat, q ask) want {
	if w := o.bearer(a, t); w != nil {
		return *w
	}
	p := offers(q.provider)
	may := func(scopes []string, unknown bool) bool {
		ask := t.asking("release")
		ask.provider, ask.params, ask.scopes, ask.unknown = q.provider, names(q.params), scopes, unknown
		return o.may(a, ask)
	}
	asked := may(q.scopes, p.unknown(q.scopes))
	turned := func(k kind) want { // away, before scopes or parameters are looked at, or because of them
		if may(q.scopes, false) && !asked || q.params != "" && !asked {
			return want{kind: wantDenied, or: k}
		}
		return yesElse(asked, k, wantDenied)
	}
	_, two := p.resource(q.scopes)
	switch _, granted := t.grants(q.provider); {
	case !acts(a, "agent", t.agent):
		return want{kind: wantDenied}
	case t.expired: // what is dead is refused before anything is told, and after the pairing
		return want{kind: wantDead, or: wantDenied}
	case !p.oauth2:
		return turned(wantAbsent)
	case o.down[standing(a.account, "provider", q.provider)], asserted(t.user) && p.verified, !granted:
		return want{kind: wantDenied}
	case q.flow == "USER_FEDERATION" && t.user == byNobody:
		return turned(wantInvalid)
	case q.refused() || two:
		return turned(wantInvalid)
	}
	at := q.place(a.account, t.agent, t.user)
	here := func(s *stored) want { // what is there, if that may leave
		if may(s.scopes, s.unknown) && t.bounds(q.provider, s.scopes, s.unknown) {
			return want{kind: wantToken, text: s.text}
		}
		return want{kind: wantDenied}
	}
	fresh := func() want { // what the provider gives without asking the user, if that may be asked for
		if scopes, unknown := p.granted(q.scopes); asked && t.bounds(q.provider, q.scopes, p.unknown(q.scopes)) && may(scopes, unknown) {
			return want{kind: wantFresh, text: at.label()}
		}
		return want{kind: wantDenied}
	}
	if q.flow == "M2M" {
		if s := o.machine[at]; s != nil {
			return here(s)
		}
		return fresh()
	}
	s := o.stored[at]
	switch {
	case s != nil && s.active && (p.scopeless || within(q.scopes, s.scopes)):
		return here(s)
	case s == nil && o.renews(at): // a consent to another API of the vendor serves this one
		return fresh()
	}
	union := q.scopes
	if s != nil && s.active { // nothing that was granted is to be lost
		union = slices.Concat(q.scopes, s.scopes)
	}
	switch {
	case t.delegation != nil || !may(union, p.unknown(union)):
		return want{kind: wantDenied}
	case o.open[at.person()] >= 50:
		return want{kind: wantFull}
	}
	return want{kind: wantConsent}
}

// renews reports whether there is a living refresh token of the family of the place.
func (o *truth) renews(at place) bool {
	for other, s := range o.stored {
		if s.renews && s.active && other.family() == at.family() {
			return true
		}
	}
	return false
}

// apiKey is an account's key.
func (o *truth) apiKey(a *actor, t *wat, provider string) want {
	if w := o.bearer(a, t); w != nil {
		return *w
	}
	ask := t.asking("release")
	ask.provider = keyOf(provider)
	_, granted := t.grants(ask.provider)
	switch {
	case t.expired && !acts(a, "agent", t.agent):
		return want{kind: wantDead, or: wantDenied}
	case t.expired:
		return want{kind: wantDead}
	case !o.may(a, ask):
		return want{kind: wantDenied}
	case !offers(provider).key:
		return want{kind: wantAbsent}
	case o.down[standing(a.account, "provider", provider)], !granted:
		return want{kind: wantDenied}
	}
	return want{kind: wantToken, text: o.apiKeys[a.account+"/"+provider]}
}

// handing is what a policy is asked where an agent takes over a token that another handed on: it has come through that
// one.
func handing(t *wat, to string) question {
	q := t.asking("exchange")
	q.agent, q.from, q.through = to, t.agent, slices.Concat([]string{t.agent}, t.through)
	return q
}

// about is what is asked of the token itself.
func (o *truth) about(a *actor, t *wat, op string) want {
	if w := o.bearer(a, t); w != nil {
		return *w
	}
	switch {
	case t.expired:
		return want{kind: wantDead, or: wantDenied}
	case !o.may(a, t.asking("describe")):
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
	ask := t.asking("report")
	if own { // policies see what a release of it would have
		ask.scopes, ask.unknown, ask.params = s.scopes, s.unknown, names(s.params)
	}
	switch {
	case t.expired:
		return want{kind: wantDead, or: wantDenied}
	case !o.may(a, ask):
		return want{kind: wantDenied}
	case !own:
		return want{kind: wantAbsent}
	}
	// A delegation for one provider, or for some scopes of it, says nothing of other connections.
	if !t.bounds(s.provider, s.scopes, s.unknown) {
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
		return yesElse(good && t.delegation == nil && o.may(a, t.asking("exchange")), wantFine, wantRefused)
	}
	return yesElse(good && t.user != byNobody && t.agent != agent && agent != onNothing && (!asserted(t.user) || agent == "ben") &&
		o.may(a, handing(t, agent)) && o.stands(a.account, agent, t.user), wantFine, wantRefused)
}
