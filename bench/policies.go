package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/standin"
)

// policies are what the account of a server has. The first permits the agent what the workload asks for; the others are
// of the same form, and of other principals or providers.
type policies struct {
	form string // "" where nothing was said: then there is one
	n    int

	noAudit bool // the server keeps no trail, to learn what that costs: no server that one can start is so
}

const (
	formPrincipal = "principal" // the scope names the principal, as those of an upgrade do
	formResource  = "resource"  // the scope leaves the principal open and names the provider
)

const (
	maxPolicies = 20_000 // an account's quota
	putAtOnce   = 4
)

// parsePolicies reads the flag.
func parsePolicies(text string) ([]policies, error) {
	if text == "" {
		return []policies{{}}, nil
	}
	var out []policies
	for one := range strings.SplitSeq(text, ",") {
		form, number, _ := strings.Cut(one, ":")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > maxPolicies || form != formPrincipal && form != formResource {
			return nil, fmt.Errorf("--policies: %q is not principal:NUMBER or resource:NUMBER, of 1 to %d", one, maxPolicies)
		}
		out = append(out, policies{form: form, n: n})
	}
	if len(out) > 8 {
		return nil, fmt.Errorf("--policies: %d servers on each engine, and 8 are allowed", len(out))
	}
	return out, nil
}

// suffix tells subjects apart by their policies.
func (p policies) suffix() string {
	switch {
	case p.noAudit:
		return "/no-audit"
	case p.form == "":
		return ""
	}
	return fmt.Sprintf("/%s-%d", p.form, p.n)
}

// text is the policy with the number.
func (p policies) text(i int) string {
	principal, provider := agentName, providerName
	if i > 0 {
		principal, provider = fmt.Sprint(agentName, "-", i), fmt.Sprint(providerName, "-", i)
	}
	scope := fmt.Sprintf("principal == Tabard::Principal::%q, action in Tabard::Action::\"release\", resource", principal)
	if p.form == formResource {
		scope = fmt.Sprintf("principal, action in Tabard::Action::\"release\", resource == Tabard::Provider::%q", provider)
	}
	return fmt.Sprintf("permit (%s) when { [%q].containsAll(context.scopes) };", scope, standin.ScopeCalendarEvents)
}

// write writes the policies. Written anew, the first takes the place of the one that the agent was seeded with.
func (p policies) write(ctx context.Context, root caller) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(putAtOnce)
	for i := range p.n {
		g.Go(func() error {
			put := api.PutPolicyRequest{Name: fmt.Sprint("bench-", i), Text: p.text(i)}
			return root.call(ctx, api.OpPutPolicy, put, &api.PutPolicyResponse{})
		})
	}
	return g.Wait()
}
