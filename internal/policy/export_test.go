package policy

import (
	"context"
	"iter"

	"github.com/tabard-id/tabard/internal/access"
)

// Unsliced decides on all policies of the account, as a reference for what the index leaves out.
func (e *Engine) Unsliced(ctx context.Context, c access.Caller, a access.Action, f access.Facts) (access.Decision, error) {
	if d, decided := gate(c, a, f); decided {
		return d, nil
	}
	s, err := e.snapshot(ctx, c.Account)
	if err != nil {
		return access.Decision{}, err
	}
	var all slice
	for _, p := range append(s.listed(), e.builtIn...) {
		for _, st := range p.statements {
			if !st.broken {
				all = append(all, st)
			}
		}
	}
	r := e.language.request(c, a, f, e.config.Now())
	d := all.explain(all.evaluate(r, readsAll, f.Scopes), r)
	if !d.Allow && len(f.Scopes) > 0 {
		all.nameScopes(&d, r, readsAll)
	}
	return d, r.claims
}

func (s *snapshot) listed() []*compiled {
	var out []*compiled
	for _, p := range s.rows {
		out = append(out, p)
	}
	return out
}

// Sliced is how many statements the index leaves for a request.
func (e *Engine) Sliced(ctx context.Context, c access.Caller, a access.Action, f access.Facts) int {
	s, err := e.snapshot(ctx, c.Account)
	if err != nil {
		panic(err)
	}
	return len(s.index.find(nil, e.language.request(c, a, f, e.config.Now())))
}

// Complete is what New asks of the schema.
func (e *Engine) Complete(rules iter.Seq2[access.Action, access.Rule]) error {
	return e.language.complete(rules)
}

// Bounds of an account's policies, and of the time that work on them takes.
const (
	MaxAccountNodes = maxAccountNodes
	WorkTime        = workTime
)

// Turns are the turns of accounts.
type Turns struct{ turns }

// Take takes a turn.
func (t *Turns) Take(ctx context.Context, account access.Account) (context.Context, func(), error) {
	return t.take(ctx, access.Caller{Account: account})
}
