package broker

import "slices"

// canonical maps a vendor's alias of a scope to its one name.
func (v Vendor) canonical(scope string) string {
	if c, ok := v.ScopeAliases[scope]; ok {
		return c
	}
	return scope
}

// covers reports whether each wanted scope is, by the vendor's names, among those had.
func (v Vendor) covers(had, wanted []string) bool {
	for _, w := range wanted {
		w = v.canonical(w)
		if !slices.ContainsFunc(had, func(h string) bool { return v.canonical(h) == w }) {
			return false
		}
	}
	return true
}

// serves reports whether the connection may serve a request for the scopes: each was granted, or was asked for at the
// last consent and declined there. Asking again for what the user declined would be nagging; the answer's
// grantedScopes tells the agent.
func (v Vendor) serves(c Connection, scopes []string) bool {
	if c.Flow != FlowUserFederation {
		return true // the scopes are part of the connection's key
	}
	return v.covers(append(slices.Clone(c.Granted), c.Requested...), scopes)
}

// union returns what to ask consent for: what is wanted and what is already granted, so that nothing granted is lost.
// The wanted ones come first, in the caller's order.
func (v Vendor) union(wanted, granted []string) []string {
	var out []string
	for _, list := range [][]string{wanted, granted} {
		for _, s := range list {
			if !v.covers(out, []string{s}) {
				out = append(out, s)
			}
		}
	}
	return out
}
