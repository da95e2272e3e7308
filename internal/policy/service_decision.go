package policy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Case is a question in words: who would do what, to what and for whom.
type Case struct {
	Principal  string // name; "" where everybody is asked about
	Action     access.Action
	Workload   string // "": the only workload identity that the principal is paired with by name
	Provider   string
	User       access.UserFacts
	UserID     string // of a user whom the caller names
	Scopes     []string
	Parameters []string // names of custom parameters of the request
	Flow       string
	Audience   string
	From       string    // name of the workload identity that hands its token on, where Audience is another one
	Time       time.Time // zero: now
}

// Simulate answers a case, as the Guard would with today's policies, or, where texts are given, with those and the
// built-in ones alone. Nothing happens but the record of the question.
func (s *Service) Simulate(ctx context.Context, caller access.Caller, c Case, texts []string) (access.Decision, error) {
	facts := access.Facts{Resource: "principal/" + c.Principal, Workload: c.Workload, Provider: c.Provider, Scopes: c.Scopes}
	if err := s.Guard.Permit(ctx, caller, access.SimulateDecision, facts); err != nil {
		return access.Decision{}, err
	}
	m, err := s.Library.Member(ctx, caller.Account, c.Principal)
	if err != nil {
		return access.Decision{}, err
	}
	if _, err := s.resourceOf(ctx, caller.Account, c); err != nil {
		return access.Decision{}, err
	}
	q, err := s.question(ctx, m.Caller, c)
	if err != nil {
		return access.Decision{}, err
	}
	if m.Disabled {
		return access.Decision{By: "principal-disabled", Missing: "the principal to be enabled"}, nil
	}
	if texts == nil {
		d, _, err := s.Engine.Explain(ctx, q)
		return d, err
	}
	ctx, done, err := s.turns.take(ctx, caller)
	if err != nil {
		return access.Decision{}, err
	}
	defer done()
	rows := make([]Row, len(texts))
	for i, text := range texts {
		problems, err := s.Engine.check(ctx, text)
		if err != nil {
			return access.Decision{}, err
		}
		if err := refused("policies", problems); err != nil {
			return access.Decision{}, err
		}
		rows[i] = Row{Name: "given-" + strconv.Itoa(i+1), Text: text, Source: Created}
	}
	d, _, err := s.Engine.DecideWith(ctx, rows, q)
	return d, err
}

// question makes a case the Engine's.
func (s *Service) question(ctx context.Context, who access.Caller, c Case) (Question, error) {
	if _, known := s.Engine.language.operation[c.Action]; !known {
		return Question{}, fault.Field("operation", "%s is not an operation that policies decide: tabard policy schema lists them, and all others are root's", c.Action)
	}
	if r, _ := access.RuleOf(c.Action); r.Paired != "" && !r.Admin && c.Workload == "" {
		if len(who.Workloads) != 1 || strings.Contains(who.Workloads[0], "*") {
			return Question{}, fault.Field("workloadName", "%s is done for a workload identity: name it", c.Action)
		}
		c.Workload = who.Workloads[0]
	}
	handsOn := c.Action == access.ExchangeToken && access.IsWorkloadAudience(c.Audience)
	switch {
	case handsOn && c.From == "":
		return Question{}, fault.Field("from", "names the workload identity that hands its token on: no policy permits that without naming it")
	case handsOn && !strings.HasSuffix(c.Audience, "/"+c.Workload):
		return Question{}, fault.Field("audience", "is another workload identity than %s, for which the token would be", c.Workload)
	case !handsOn && c.From != "":
		return Question{}, fault.Field("from", "is for ExchangeToken where the audience is a workload identity, by its ARN")
	}
	q := Question{Caller: who, Action: c.Action, Time: c.Time, Facts: access.Facts{
		Workload: c.Workload, Provider: c.Provider, Flow: c.Flow, Scopes: c.Scopes, Asserted: c.UserID != "",
		Unrecorded: access.Unrecorded{User: c.User, Audience: c.Audience, From: c.From},
	}}
	if c.From != "" {
		q.Facts.Through = []string{c.From}
	}
	for _, name := range c.Parameters {
		q.Facts.Parameters = append(q.Facts.Parameters, access.Spelled(name))
	}
	q.Facts.ScopesUnknown = unknownScopes(c.Action, c.Scopes)
	if c.Workload == "" {
		return q, nil
	}
	var err error
	q.Facts.Assertable, err = s.Library.AssertsUsers(ctx, who.Account, c.Workload)
	return q, err
}

// unknownScopes reports whether nobody knows which scopes the token of a question has: it is a provider's, and no
// scopes of it are named (threat M02).
func unknownScopes(a access.Action, scopes []string) bool {
	return (a == access.GetResourceOauth2Token || a == access.ReportTokenInvalid) && len(scopes) == 0
}

// Explained is a recorded decision, made again.
type Explained struct {
	Record  access.Record
	Then    access.Decision // with the policies of its time
	Now     access.Decision // with today's
	Remarks []string        // what could not be made again as it was, one sentence each
}

// Explain makes a recorded decision again. What the record does not have (who the user's token says the user is, which
// roles the principal had) is not known any more: the remarks say so. A record that is of no decision is an Invalid
// fault.
func (s *Service) Explain(ctx context.Context, caller access.Caller, recordID string) (Explained, error) {
	if err := s.Guard.Permit(ctx, caller, access.ExplainDecision, access.Facts{Resource: "record/" + recordID}); err != nil {
		return Explained{}, err
	}
	x := Explained{}
	var err error
	if x.Record, err = s.Library.AuditRecord(ctx, caller.Account, recordID); err != nil {
		return Explained{}, err
	}
	r := &x.Record
	if r.Rule == "event" || r.Principal == "" {
		return Explained{}, fault.Field("recordId", "the record says what came of an earlier decision: ask for the record of that, which has the same request id")
	}
	who, err := s.callerOf(ctx, &x)
	if err != nil {
		return Explained{}, err
	}
	q := Question{Caller: who, Action: r.Action, Facts: r.Facts, Time: r.Time}
	q.Facts.ScopesUnknown = unknownScopes(r.Action, r.Facts.Scopes)
	if r.Action == access.ExchangeToken {
		q.Facts.Audience = r.Facts.Resource
		if q.Facts.Through = throughOf(r.Facts.Detail); access.IsWorkloadAudience(q.Facts.Audience) && len(q.Facts.Through) > 0 {
			q.Facts.From = q.Facts.Through[0]
		}
	}
	turn, done, err := s.turns.take(ctx, caller)
	if err != nil {
		return Explained{}, err
	}
	defer done()
	ctx = turn
	rows, err := s.Library.PoliciesAt(ctx, caller.Account, r.Time)
	if err != nil {
		return Explained{}, err
	}
	if x.Then, _, err = s.Engine.DecideWith(ctx, rows, q); err != nil {
		return Explained{}, err
	}
	q.Time = time.Time{}
	if x.Now, _, err = s.Engine.Explain(ctx, q); err != nil {
		return Explained{}, err
	}
	return x, s.remark(ctx, &x)
}

// callerOf returns who asked, with the roles and pairings of today.
func (s *Service) callerOf(ctx context.Context, x *Explained) (access.Caller, error) {
	r := x.Record
	m, err := s.Library.Member(ctx, r.Account, r.Name)
	switch {
	case errors.Is(err, fault.NotFound):
		x.say("the principal %s does not exist any more: both answers are for one without roles", r.Name)
		return access.Caller{Account: r.Account, Principal: r.Principal, Name: r.Name}, nil
	case err != nil:
		return access.Caller{}, err
	case m.Principal != r.Principal:
		x.say("the principal %s of today is another than that of the record: both answers are for today's", r.Name)
	case m.Disabled:
		x.say("the principal %s is disabled today, so nothing that it asks is answered", r.Name)
	}
	m.AccessKey = r.AccessKey
	return m.Caller, nil
}

// throughOf returns the agents that a record of an exchange says the token came through, the latest first.
func throughOf(detail string) []string {
	_, names, found := strings.Cut(detail, "through ")
	if !found {
		return nil
	}
	return strings.Split(names, ", ")
}

func (x *Explained) say(format string, args ...any) {
	x.Remarks = append(x.Remarks, fmt.Sprintf(format, args...))
}

// settle is how long a write of a policy may take to be everywhere.
const settle = 2 * time.Second

// remark says what the replay cannot know.
func (s *Service) remark(ctx context.Context, x *Explained) error {
	r := x.Record
	x.say("the roles and pairings of the principal are those of today: the trail has no others")
	if r.Facts.UserRef != "" && !r.Facts.Asserted {
		x.say("the user's issuer, subject and claims are in no record: policies that ask for them answer as for a user without them")
	}
	if strings.Contains(r.Facts.Detail, "more scopes, sha256 of all") {
		x.say("the record has only the first of its scopes: both answers are for those")
	}
	if r.Action == access.ExchangeToken && strings.HasSuffix(r.Facts.Detail, "...") {
		x.say("the record does not have all the agents that the token came through: both answers are for the first of them")
	}
	writes, err := s.Library.PolicyWrites(ctx, r.Account, r.Time.Add(-settle), r.Time.Add(settle))
	if err != nil {
		return err
	}
	if writes > 0 {
		x.say("policies were written within %s of the decision, which may have been made with those before or after", settle)
	}
	switch {
	case x.Then.Allow == r.Allow && x.Then.By == r.Rule:
	case r.Rule == "role:"+string(access.Agent):
		x.say("the decision was made by the fixed rules of an earlier version, which had no policies")
	case x.Then.Allow == r.Allow:
		x.say("the record names %s, and the replay %s", r.Rule, x.Then.By)
	case x.Then.Allow:
		x.say("the record says that it was refused by %s: no policy, or what the remarks above say", r.Rule)
	default:
		x.say("the record says that it was allowed by %s, and the replay that it was not: see the remarks above", r.Rule)
	}
	return nil
}

// maxHolders bounds the answer of WhoCan.
const maxHolders = 1_000

// resourceOf is the resource that the token of a question would be for, "" for none. Scopes of two are refused, as the
// request would be (threat M05): nobody gets such a token, whatever policies say.
func (s *Service) resourceOf(ctx context.Context, account access.Account, c Case) (string, error) {
	if s.Resource == nil || c.Action != access.GetResourceOauth2Token || c.Provider == "" {
		return "", nil
	}
	return s.Resource(ctx, account, c.Provider, c.Scopes)
}

// WhoCan returns the enabled principals of the account that may do what the case says, by name, and those who may with
// fewer scopes; and the resource that the scopes are of. More than 1000 are a Limit fault.
func (s *Service) WhoCan(ctx context.Context, caller access.Caller, c Case) ([]Holder, string, error) {
	facts := access.Facts{Resource: "operation/" + string(c.Action), Workload: c.Workload, Provider: c.Provider, Scopes: c.Scopes}
	if err := s.Guard.Permit(ctx, caller, access.FindWhoCan, facts); err != nil {
		return nil, "", err
	}
	ctx, done, err := s.turns.take(ctx, caller)
	if err != nil {
		return nil, "", err
	}
	defer done()
	resource, err := s.resourceOf(ctx, caller.Account, c)
	if err != nil {
		return nil, "", err
	}
	q, err := s.question(ctx, access.Caller{Account: caller.Account}, c)
	if err != nil {
		return nil, "", err
	}
	var out []Holder
	err = s.everyone(ctx, caller.Account, func(m Member) error {
		if m.Disabled {
			return nil
		}
		found, err := s.Engine.WhoCan(ctx, []access.Caller{m.Caller}, q)
		if err != nil {
			return err
		}
		if out = append(out, found...); len(out) > maxHolders {
			return fault.New(fault.Limit, "more than %d principals may do that: name a workload identity, a provider or scopes", maxHolders)
		}
		return nil
	})
	return out, resource, err
}
