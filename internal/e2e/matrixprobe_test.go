package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/federation"
)

// probe is one cell of the matrix.
type probe struct {
	actor                     *actor
	op, agent, user, provider string
	detail                    string
	path, method, body        string
	form                      url.Values // instead of a body
	expect                    func() want
	done                      func(r reply) // what the oracle learns of a success
	want                      want
	releases, minting         bool                 // a success is a release; has a workload access token
	loud                      bool                 // it changes something, whatever is answered
	tells                     func(r reply) string // what is wrong with a success, beside what is always looked at
}

func (p *probe) String() string {
	return fmt.Sprintf("role %s of %s, agent %s, user %q, provider %s, operation %s %s", strings.Join(p.actor.roles, "+"), p.actor, p.agent, p.user, p.provider, p.op, p.detail)
}

// sent is a probe that was answered.
type sent struct {
	*probe
	reply reply
}

// calls fills in an operation of the API.
func (m *matrix) calls(p *probe, in any) *probe {
	o, ok := api.Find(p.op)
	if !ok {
		m.t.Fatalf("no operation %s", p.op)
	}
	p.method, p.path, p.body = o.Method, o.Path, encode(m.t, in)
	return p
}

// mints asks for a token of the agent for the user.
func (m *matrix) mints(a *actor, agent, user string) *probe {
	op, in := m.mintInput(agent, user)
	p := &probe{actor: a, op: op, agent: agent, user: user, minting: true, expect: func() want { return m.truth.mint(a, agent, user) }}
	return m.calls(p, in)
}

func (m *matrix) mintsDelegated(a *actor, agent string, d *delegated) *probe {
	p := &probe{actor: a, op: api.OpGetWorkloadAccessTokenForDelegation, agent: agent, user: d.user, minting: true, detail: "by the delegation of " + d.account + "/" + d.agent,
		expect: func() want { return m.truth.mintDelegated(a, agent, d) }}
	return m.calls(p, map[string]any{"workloadName": agent, "delegationId": d.id})
}

// asks asks for a provider's token.
func (m *matrix) asks(a *actor, t *wat, provider, flow string, scopes ...string) *probe {
	return m.requests(a, t, ask{provider: provider, flow: flow, scopes: scopes})
}

func (m *matrix) requests(a *actor, t *wat, q ask) *probe {
	at := q.place(a.account, t.agent, t.user)
	p := &probe{actor: a, op: api.OpGetResourceOauth2Token, agent: t.agent, user: t.user, provider: q.provider, releases: true,
		detail: fmt.Sprintf("%s %q %s with a token of %s", q.flow, q.scopes, q.params, t), expect: func() want { return m.truth.oauth2(a, t, q) }}
	p.done = func(r reply) {
		switch p.want.kind {
		case wantConsent:
			m.truth.open[at.person()]++
		case wantFresh:
			now := &stored{place: at, text: r.get("accessToken"), id: r.get("connectionId"), active: true}
			now.scopes, now.unknown = offers(q.provider).granted(q.scopes)
			if q.flow == "M2M" {
				m.truth.machine[at] = now
			} else {
				now.renews = true
				m.truth.stored[at] = now
			}
		}
	}
	return m.calls(p, m.input(t, q))
}

func (m *matrix) asksKey(a *actor, t *wat, provider string) *probe {
	p := &probe{actor: a, op: api.OpGetResourceApiKey, agent: t.agent, user: t.user, provider: provider, releases: true,
		detail: "with a token of " + t.String(), expect: func() want { return m.truth.apiKey(a, t, provider) }}
	return m.calls(p, map[string]any{"workloadIdentityToken": t.text, "resourceCredentialProviderName": provider})
}

func (m *matrix) asksAbout(a *actor, t *wat, op string) *probe {
	p := &probe{actor: a, op: op, agent: t.agent, user: t.user, detail: "of " + t.String(), expect: func() want { return m.truth.about(a, t, op) }}
	p.tells = func(r reply) string {
		id, asserted := strings.CutPrefix(t.user, "uid:")
		if who := r.get("subject") + r.get("userId"); who != id || asserted != (r.get("userId") != "") {
			return "it is another user"
		}
		return ""
	}
	return m.calls(p, map[string]any{"workloadIdentityToken": t.text})
}

// reports reports the connection with the id, which is that of s, or nobody's.
func (m *matrix) reports(a *actor, t *wat, s *stored, id string) *probe {
	p := &probe{actor: a, op: api.OpReportTokenInvalid, agent: t.agent, user: t.user, detail: fmt.Sprintf("connection of %+v with a token of %s", s, t),
		expect: func() want { return m.truth.report(a, t, s) }}
	p.done = func(reply) {
		if !s.renews || !s.active {
			s.active = false
			return
		}
		if text := m.reads(s.place, s.scopes).get("accessToken"); text != s.text { // it was refreshed
			m.truth.spent = append(m.truth.spent, s.text)
			s.text = text
		}
	}
	return m.calls(p, map[string]any{"workloadIdentityToken": t.text, "connectionId": id})
}

// exchanges asks for a token for an audience, or of another agent.
func (m *matrix) exchanges(a *actor, t *wat, agent string) *probe {
	p := &probe{actor: a, op: "ExchangeToken", agent: t.agent, user: t.user, detail: fmt.Sprintf("for %q of %s", agent, t), path: "/oauth2/token", method: http.MethodPost,
		releases: agent == "", expect: func() want { return m.truth.exchange(a, t, agent) }}
	p.form = exchanging(t.text, reports)
	if agent != "" {
		p.form = exchanging(t.text, agent, "requested_token_type", workloadTokenType)
	}
	return p
}

// request makes the HTTP request of a probe.
func (m *matrix) build(p *probe) (*http.Request, error) {
	body := p.body
	if p.form != nil {
		body = p.form.Encode()
	}
	if p.actor.bearer == "" && p.form == nil {
		return m.request(p.actor.key, p.method, p.path, body), nil
	}
	r, err := http.NewRequestWithContext(m.t.Context(), p.method, m.server.URL()+p.path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if p.form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(url.QueryEscape(p.actor.key.ID), url.QueryEscape(p.actor.key.Secret))
	}
	if p.actor.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+p.actor.bearer)
		r.Header.Set(federation.PrincipalHeader, fmt.Sprintf("arn:aws:iam::%s:role/%s", p.actor.account, p.actor.name))
	}
	return r, nil
}

// run sends the probes: those that change nothing side by side, and then the others one after the other, each with what
// is expected by then.
func (m *matrix) run(probes []*probe) {
	m.t.Helper()
	var quiet, loud []*probe
	for _, p := range probes {
		p.want = p.expect()
		switch k := p.want.kind; {
		case k == wantConsent, k == wantFresh, k == wantFull, p.done != nil && k == wantFine, p.loud:
			loud = append(loud, p)
		default:
			quiet = append(quiet, p)
		}
	}
	fetched := m.stand.fetched.Load()
	todo, answered := make(chan *probe), make(chan sent, len(quiet))
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for p := range todo {
				answered <- sent{p, m.one(p)}
			}
		})
	}
	for _, p := range quiet {
		todo <- p
	}
	close(todo)
	workers.Wait()
	close(answered)
	for s := range answered {
		m.judge(s)
	}
	if m.stand.fetched.Load() != fetched {
		m.t.Error("a provider was asked for a token that nobody was to have")
	}
	for _, p := range loud {
		p.want = p.expect()
		fetched := m.stand.fetched.Load()
		s := sent{p, m.one(p)}
		asked := m.stand.fetched.Load() - fetched
		if m.judge(s); asked != 0 && p.want.kind != wantFresh && p.op != api.OpReportTokenInvalid || asked != 1 && p.want.kind == wantFresh {
			m.t.Errorf("%s:\n\texpected %s, and the provider was asked %d times", p, p.want, asked)
		}
	}
}

// one sends a probe.
func (m *matrix) one(p *probe) reply {
	r, err := m.build(p)
	if err != nil {
		m.t.Error(err)
		return reply{}
	}
	return m.transmit(r)
}

// judge holds an answer against what is expected.
func (m *matrix) judge(s sent) {
	m.t.Helper()
	m.sent = append(m.sent, s)
	if why := m.wrong(s); why != "" {
		m.t.Errorf("%s:\n\texpected %s, got %d %s\n\t%s", s.probe, s.want, s.reply.status, s.reply.body, why)
		return
	}
	if s.done != nil && (s.loud || s.want.kind == wantFine || s.want.kind == wantConsent || s.want.kind == wantFresh) {
		s.done(s.reply)
	}
}

// wrong says what is wrong with an answer, or nothing.
func (m *matrix) wrong(s sent) string {
	if got := s.want.text; s.want.kind == wantToken || s.want.kind == wantFresh {
		text := s.reply.get("accessToken") + s.reply.get("apiKey")
		switch {
		case s.want.kind == wantToken && text != got:
			return "another token: " + text
		case s.want.kind == wantFresh && (!strings.HasPrefix(text, got) || m.truth.knows(text)):
			return "no token of its own: " + text
		}
	} else if s.reply.get("accessToken")+s.reply.get("apiKey") != "" || s.want.kind != wantFine && s.reply.get("workloadAccessToken")+s.reply.get("access_token") != "" {
		return "something was handed out"
	}
	if s.want.kind == wantConsent && (s.reply.get("authorizationUrl") == "" || s.reply.get("sessionUri") == "") {
		return "no consent URL"
	}
	if s.tells != nil && s.reply.status/100 == 2 {
		if why := s.tells(s.reply); why != "" {
			return why
		}
	}
	if s.want.kind == wantFine && s.minting && !strings.HasPrefix(s.reply.get("workloadAccessToken"), "wat1.") {
		return "no workload access token"
	}
	if text := m.truth.leaks(s); text != "" {
		return "it has the token of somebody else: " + text
	}
	if !fits(s.want.kind, s.reply) && (s.want.or == "" || !fits(s.want.or, s.reply)) {
		return "another status"
	}
	return ""
}

// counts says how many cells there were of each kind, and wants some of each of those named.
func (m *matrix) counts(kinds ...kind) {
	m.t.Helper()
	n := map[kind]int{}
	for _, s := range m.sent {
		n[s.want.kind]++
	}
	m.t.Logf("%d cells: %v", len(m.sent), n)
	for _, k := range kinds {
		if n[k] < 10 {
			m.t.Errorf("only %d cells expect %s: the matrix does not say much", n[k], k)
		}
	}
}

// fits reports whether an answer is of the kind.
func fits(k kind, r reply) bool {
	exception := r.header.Get("X-Amzn-Errortype")
	switch k {
	case wantShut:
		return r.status == http.StatusForbidden || r.status == http.StatusTooManyRequests || r.status == http.StatusUnauthorized
	case wantDenied:
		return r.status == http.StatusForbidden && exception == "AccessDeniedException"
	case wantDead:
		return r.status == http.StatusUnauthorized && exception == "UnauthorizedException"
	case wantAbsent:
		return r.status == http.StatusNotFound && exception == "ResourceNotFoundException"
	case wantInvalid:
		return r.status == http.StatusBadRequest
	case wantFull:
		return r.status == http.StatusTooManyRequests
	case wantRefused:
		return r.status/100 == 4
	case wantPending:
		return r.status == http.StatusOK && r.get("authorizationUrl") != ""
	case wantAllowed:
		return r.status/100 == 2 || r.status/100 == 4 && r.status != http.StatusUnauthorized && r.status != http.StatusForbidden
	}
	return r.status/100 == 2
}

// knows reports whether a text is a token that is stored somewhere.
func (o *truth) knows(text string) bool {
	for _, s := range o.stored {
		if s.text == text {
			return true
		}
	}
	for _, t := range o.machine {
		if t.text == text {
			return true
		}
	}
	return false
}

// leaks returns a token that is in an answer and is not the one that is expected.
func (o *truth) leaks(s sent) string {
	for _, t := range o.stored {
		if t.text != s.want.text && strings.Contains(s.reply.body, t.text) {
			return t.text
		}
	}
	for _, t := range o.machine {
		if t.text != s.want.text && strings.Contains(s.reply.body, t.text) {
			return t.text
		}
	}
	for _, t := range o.spent {
		if strings.Contains(s.reply.body, t) {
			return t
		}
	}
	for _, t := range o.apiKeys {
		if t != s.want.text && strings.Contains(s.reply.body, t) {
			return t
		}
	}
	return ""
}
