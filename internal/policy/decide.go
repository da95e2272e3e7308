package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

var _ access.Decider = (*Engine)(nil)

// Decide answers for the Guard. An error is an Unavailable fault, where the policies cannot be had, or an Internal one,
// where the facts hold claims that are not JSON.
func (e *Engine) Decide(ctx context.Context, c access.Caller, a access.Action, f access.Facts) (access.Decision, error) {
	if d, decided := gate(c, a, f); decided {
		return d, nil
	}
	s, err := e.snapshot(ctx, c.Account)
	if err != nil {
		return access.Decision{}, err
	}
	var room [24]*statement
	r := e.language.request(c, a, f, e.config.Now())
	found := s.index.find(room[:0], r)
	if found.nodes() > lightNodes { // one of the account at a time: they cost the others no more than one processor
		_, done, err := e.heavy.take(ctx, c)
		if err != nil {
			return access.Decision{}, err
		}
		defer done()
	}
	d, _, err := found.decide(r)
	return d, err
}

// lightNodes is how many nodes a decision may look at beside others of its account: some twenty milliseconds' worth.
const lightNodes = 40_000

// nodes is how many nodes the statements have in all.
func (s slice) nodes() (n int) {
	for _, st := range s {
		n += st.nodes
	}
	return n
}

// Explain answers as Decide does for the question, without recording anything, and says which policies failed to be
// evaluated or read on the way.
func (e *Engine) Explain(ctx context.Context, q Question) (access.Decision, []Problem, error) {
	if d, decided := gate(q.Caller, q.Action, q.Facts); decided {
		return d, nil, nil
	}
	s, err := e.snapshot(ctx, q.Caller.Account)
	if err != nil {
		return access.Decision{}, nil, err
	}
	return e.explain(s, q)
}

// DecideWith answers the question as if the rows, and the built-in policies, were all that the account had. Of what is
// stored it uses what it has read already, of the same versions. The problems include those of rows that cannot be
// used.
func (e *Engine) DecideWith(ctx context.Context, rows []Row, q Question) (access.Decision, []Problem, error) {
	if d, decided := gate(q.Caller, q.Action, q.Facts); decided {
		return d, nil, nil
	}
	all := make(map[string]*compiled, len(rows))
	var problems []Problem
	for _, row := range rows {
		if row.Deleted {
			continue
		}
		if ctx.Err() != nil {
			return access.Decision{}, nil, tooLong(ctx.Err())
		}
		p, err := e.compiled(row)
		if err != nil {
			return access.Decision{}, nil, fault.Wrap(fault.Invalid, err, "a policy that is tried says that it is built in")
		}
		all[row.Name] = p
		problems = append(problems, p.problems...)
	}
	d, more, err := e.explain(e.newSnapshot(all), q)
	problems = append(problems, more...)
	sortProblems(problems)
	return d, problems, err
}

// compiled is the row, ready for use: as it was read for decisions, where it is of the same version, or compiled now.
func (e *Engine) compiled(row Row) (*compiled, error) {
	if v, ok := e.tenants.Load(row.Account); ok && row.Version > 0 {
		if s := v.(*tenant).current.Load(); s != nil && s.rows[row.Name] != nil && s.rows[row.Name].version == row.Version {
			return s.rows[row.Name], nil
		}
	}
	return e.language.compile(row)
}

// Holder is a principal to whom a question's answer is yes, or would be for fewer scopes: then Decision.Beyond names
// those it may not have. If the question names no scopes of an OAuth2 token it may be yes for some: then
// Decision.Unknown is set.
type Holder struct {
	Caller   access.Caller
	Decision access.Decision
}

// WhoCan asks the question for each of the callers, who are of one account, and returns those who can, in their order.
func (e *Engine) WhoCan(ctx context.Context, callers []access.Caller, q Question) ([]Holder, error) {
	var out []Holder
	for _, c := range callers {
		if ctx.Err() != nil {
			return nil, tooLong(ctx.Err())
		}
		q.Caller = c
		d, _, err := e.Explain(ctx, q)
		if err != nil {
			return nil, err
		}
		if d.Allow || len(d.Beyond) > 0 || d.Unknown {
			out = append(out, Holder{Caller: c, Decision: d})
		}
	}
	return out, nil
}

func (e *Engine) explain(s *snapshot, q Question) (access.Decision, []Problem, error) {
	at := q.Time
	if at.IsZero() {
		at = e.config.Now()
	}
	r := e.language.request(q.Caller, q.Action, q.Facts, at)
	return s.index.find(nil, r).decide(r)
}

// gate is access.Gate, and names the built-in policy of root.
func gate(c access.Caller, a access.Action, f access.Facts) (access.Decision, bool) {
	d, decided := access.Gate(c, a, f)
	if d.Allow {
		d.Policies = []string{builtInPrefix + string(access.Root)}
	}
	return d, decided
}

// verdict is Cedar's answer to one request.
type verdict struct {
	allow  bool
	broken bool // a forbid could not be read or evaluated
	blind  bool // a forbid reads the scopes, and they are not known
	by     []string
	diag   cedar.Diagnostic
}

// decide evaluates the slice.
func (s slice) decide(r *request) (access.Decision, []Problem, error) {
	var reads attributes
	for _, st := range s {
		reads |= st.reads
	}
	v := s.evaluate(r, reads, r.facts.Scopes)
	d := s.explain(v, r)
	if !d.Allow && !v.broken && reads&readsScopes != 0 && len(r.facts.Scopes) > 0 {
		s.nameScopes(&d, r, reads)
	}
	if r.claims != nil {
		return access.Decision{}, nil, fault.Wrap(fault.Internal, r.claims, "the claims of the user cannot be read")
	}
	var problems []Problem
	for _, e := range v.diag.Errors {
		if s.blind(e.PolicyID, r) {
			continue // the policy is as it should be
		}
		problems = append(problems, Problem{Policy: rowName(e.PolicyID), Severity: Error, Line: e.Position.Line, Column: e.Position.Column, Message: e.Message})
	}
	sortProblems(problems)
	return d, problems, nil
}

func (s slice) evaluate(r *request, reads attributes, scopes []string) verdict {
	decision, diag := cedar.Authorize(s.of(r), r, r.cedar(reads, scopes))
	v := verdict{allow: decision == cedar.Allow, diag: diag}
	for _, st := range s {
		if !st.forbid || !st.broken && !failed(diag, st.id) {
			continue
		}
		// Cedar leaves out a forbid that fails. To us that is doubt, and doubt denies.
		if v.allow = false; st.blind(r) {
			v.blind = true
		} else {
			v.broken = true
		}
		v.by = append(v.by, st.name)
	}
	if !v.broken && !v.blind {
		for _, reason := range diag.Reasons {
			v.by = append(v.by, rowName(reason.PolicyID))
		}
	}
	slices.Sort(v.by)
	v.by = slices.Compact(v.by)
	return v
}

// blind reports whether the statement fails because it reads the scopes of a token whose scopes are not known.
func (st *statement) blind(r *request) bool {
	return r.facts.ScopesUnknown && !st.broken && st.reads&readsScopes != 0
}

func failed(diag cedar.Diagnostic, id types.PolicyID) bool {
	for _, e := range diag.Errors {
		if e.PolicyID == id {
			return true
		}
	}
	return false
}

// rowName is the policy that a statement is of.
func rowName(id types.PolicyID) string {
	name, _, _ := strings.Cut(string(id), "\x00")
	return name
}

// explain puts Cedar's answer in the Guard's words.
func (s slice) explain(v verdict, r *request) access.Decision {
	d := access.Decision{Allow: v.allow, Policies: v.by}
	switch {
	case v.broken:
		d.By = "unreadable:" + v.by[0]
		d.Missing = fmt.Sprintf("policy %s to be put right: it may forbid this, and cannot be read", v.by[0])
	case v.allow:
		d.By = "policy:" + v.by[0]
		for _, name := range v.by {
			if by, ok := ruleOf(name); ok { // what a role may, it may whatever else is written
				d.By = by
				break
			}
		}
	case v.blind:
		d.By, d.Unknown = "forbid:"+v.by[0], true
		d.Missing = fmt.Sprintf("scopes that are known: policy %s forbids some, and nobody knows which ones this token has. Ask for scopes by name", v.by[0])
	case len(v.by) > 0:
		d.By = "forbid:" + v.by[0]
		d.Missing = fmt.Sprintf("a change of policy %s, which forbids it", v.by[0])
	default:
		d.By, d.Missing = "default-deny", s.missing(r)
		for _, st := range s {
			if !st.forbid && st.blind(r) && failed(v.diag, st.id) {
				d.Unknown = true
				d.Missing = fmt.Sprintf("scopes that are known: policy %s permits those that it lists, and nobody knows which ones this token has. "+
					"Ask for scopes by name, or permit every scope: tabard allow %s %s", st.name, r.facts.Workload, r.facts.Provider)
				break
			}
		}
	}
	return d
}

// blind reports whether the statement with the id is one that fails because the scopes are not known.
func (s slice) blind(id types.PolicyID, r *request) bool {
	for _, st := range s {
		if st.id == id {
			return st.blind(r)
		}
	}
	return false
}

// missing says what a caller lacks whom no policy permits the action.
func (s slice) missing(r *request) string {
	d, _ := access.Table{}.Decide(context.Background(), r.caller, r.action, r.facts) // it never fails
	switch {
	case !d.Allow:
		return d.Missing
	case r.handsOn():
		return s.missingSender(r)
	}
	if r.facts.Provider == "" {
		return "a policy that permits it, which an administrator writes"
	}
	return fmt.Sprintf("a policy that permits it, which an administrator writes: tabard allow %s %s%s", r.facts.Workload, r.facts.Provider, scopesFlag(r.facts.Scopes))
}

// scopesFlag is the flag that permits the scopes which were asked for, and no others. A caller chooses them, and an
// administrator may copy the command, so those that mean something to a shell or to the flag are not in it.
func scopesFlag(scopes []string) string {
	if len(scopes) == 0 {
		return ""
	}
	text := strings.Join(scopes, ",")
	if strings.Count(text, ",") >= len(scopes) || len(text) > 256 || strings.ContainsFunc(text, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(":/._,@%+=-", c)
	}) {
		return " --scopes SCOPES"
	}
	return " --scopes " + text
}

const (
	maxTrials    = 200     // evaluations to name the scopes of one refusal
	maxTrialWork = 400_000 // nodes evaluated for the same
)

// nameScopes finds the scopes that are refused, where without them the answer would be yes.
func (s slice) nameScopes(d *access.Decision, r *request, reads attributes) {
	trials := min(maxTrials, maxTrialWork/max(1, s.nodes()))
	allowed := func(scopes ...string) bool {
		trials--
		return s.evaluate(r, reads, scopes).allow
	}
	var good, beyond []string
	for _, scope := range r.facts.Scopes {
		if trials < 2 {
			return // some would be left unnamed, and with them this would be no answer
		}
		if slices.Contains(good, scope) || slices.Contains(beyond, scope) {
			continue
		}
		if allowed(scope) {
			good = append(good, scope)
		} else {
			beyond = append(beyond, scope)
		}
	}
	switch {
	case len(beyond) > 0 && allowed(good...):
		d.Beyond = beyond
	case len(beyond) == 0 && d.By == "default-deny":
		d.Missing = fmt.Sprintf("one policy that permits the scopes %q together", good)
	}
}

// sortProblems orders problems by policy and place.
func sortProblems(p []Problem) {
	slices.SortStableFunc(p, func(a, b Problem) int {
		if c := strings.Compare(a.Policy, b.Policy); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}
