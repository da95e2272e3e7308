package access

import (
	"context"
	"fmt"
	"strings"
)

// Decision is the answer to one question, and why.
type Decision struct {
	Allow    bool
	By       string   // what decided, for the record: "role:admin", "policy:calendar", "forbid:freeze", "default-deny"
	Policies []string // names of the policies that decided, in order; nil where none did
	Missing  string   // what the caller lacks, for the sentence of a refusal: "it needs ..."
	Beyond   []string // the scopes that are refused, where it is only they
	Unknown  bool     // it is refused because the token's scopes are not known: policies that list scopes do not cover it
}

// Decider answers whether a caller may perform an action on what facts describe. It decides and nothing else: the Guard
// records.
type Decider interface {
	// Decide MUST deny what nothing allows. An error is an Unavailable fault: then nothing is allowed either.
	Decide(ctx context.Context, caller Caller, action Action, facts Facts) (Decision, error)
}

// Ceilings bounds what one workload identity may have in a time, whatever allowed it. The Guard asks it once for each
// release that was allowed.
type Ceilings interface {
	// Admit counts the release, or says in a sentence which ceiling it would cross. crossed is "" where it is admitted.
	// An error is an Unavailable fault.
	Admit(ctx context.Context, account Account, facts Facts) (crossed string, err error)
}

// Table is the fixed rule table as a Decider: the rights of the roles as they were before there were policies. The
// built-in policies are made of it, and tests hold the policies against it.
type Table struct{}

// Decide applies the rule table. It never fails.
func (Table) Decide(_ context.Context, c Caller, a Action, f Facts) (Decision, error) {
	return decide(c, a, f), nil
}

// refusal is the sentence of a refused decision.
func (d Decision) refusal(c Caller, a Action, f Facts) string {
	on := ""
	if f.Workload != "" {
		on = " for workload identity " + f.Workload
	}
	if len(d.Beyond) > 0 {
		why := "no policy allows them"
		if name, forbidden := strings.CutPrefix(d.By, "forbid:"); forbidden {
			why = "policy " + name + " forbids them"
		}
		of := ""
		if f.Provider != "" {
			of = " of " + f.Provider
		}
		return fmt.Sprintf("%s is not allowed to perform %s%s with the scopes %q%s: %s", c, a, on, d.Beyond, of, why)
	}
	return fmt.Sprintf("%s is not allowed to perform %s%s: it needs %s", c, a, on, d.Missing)
}
