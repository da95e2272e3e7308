package broker

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
)

// canonical maps a vendor's alias of a scope to its one name.
func (v Vendor) canonical(scope string) string {
	if c, ok := v.ScopeAliases[scope]; ok {
		return c
	}
	if v.Resources != nil {
		if resource, name := v.Resources.split(scope); resource != "" {
			return resource + "/" + name
		}
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

// unionRefused remembers that the provider refused to be asked for the flow's scopes together, where they are more than
// the request named: the next consent asks for the request alone. Anything but a refusal of the scopes says nothing of
// them.
func (b *Broker) unionRefused(ctx context.Context, flow Flow, code string) error {
	if code != "invalid_scope" && code != "invalid_request" || len(flow.Scopes) <= len(flow.Requested) {
		return nil
	}
	return b.store.ForgetRequested(ctx, flow.Account, flow.name().key())
}

// about is the facts of a token with the scopes, which are those granted, or those asked for if there is none yet. No
// scopes are not an empty list, which every list would cover: they are not known (threat M02).
func (g grounds) about(scopes []string) access.Facts {
	f := g.facts
	f.Scopes = scopes
	f.ScopesUnknown = len(scopes) == 0 || g.vendor.NoScopes
	if f.ScopesUnknown {
		f.Scopes = nil
	}
	return f
}

// serves reports whether the connection may serve a request for the scopes: each was granted, or was asked for at the
// last consent and declined there. Asking again for what the user declined would be nagging; the answer's
// grantedScopes tells the agent.
func (v Vendor) serves(c Connection, scopes []string) bool {
	if c.Flow != FlowUserFederation {
		return true // the scopes are part of the connection's key
	}
	if v.NoScopes {
		return true // there is nothing else to ask for
	}
	return v.covers(append(slices.Clone(c.Granted), c.Requested...), scopes)
}

// unrequested is what the trail says of scopes that were granted and not asked for, or "" (threat C27).
func (v Vendor) unrequested(granted, asked []string) string {
	var extra []string
	for _, s := range granted {
		if !v.covers(asked, []string{s}) {
			extra = append(extra, s)
		}
	}
	if extra == nil {
		return ""
	}
	return clean("granted beyond what was asked: "+strings.Join(extra, " "), 300)
}

// union returns what to ask consent for: what is wanted and what was asked for before, so that nothing granted is lost.
// It is not what was granted, which a provider may spell in a way that it does not take beside other scopes. The wanted
// ones come first, in the caller's order.
func (v Vendor) union(wanted, before []string) []string {
	var out []string
	for _, list := range [][]string{wanted, before} {
		for _, s := range list {
			if !v.covers(out, []string{s}) {
				out = append(out, s)
			}
		}
	}
	return out
}

// SplitScopes tells the user's scopes, without the prefix that marks them, from the others. A vendor that asks for
// neither apart has only others.
func (v Vendor) SplitScopes(scopes []string) (users, others []string) {
	for _, s := range scopes {
		name, ok := strings.CutPrefix(s, v.UserScopes+":")
		if v.UserScopes == "" || !ok {
			others = append(others, s)
			continue
		}
		users = append(users, name)
	}
	return users, others
}

// OfUser marks scopes as the user's, where the vendor has such.
func (v Vendor) OfUser(scopes []string) []string {
	if v.UserScopes == "" || scopes == nil {
		return scopes
	}
	out := make([]string, len(scopes))
	for i, s := range scopes {
		out[i] = v.UserScopes + ":" + s
	}
	return out
}

// foldUserScopes makes the vendor's own parameter for the user's scopes some of the request's scopes, so that a stored
// token is held against them, and a new consent does not lose or misplace them.
func (r *Request) foldUserScopes(v Vendor) {
	given, ok := r.CustomParameters[v.UserScopes]
	if v.UserScopes == "" || !ok {
		return
	}
	names := strings.FieldsFunc(given.Expose(), func(c rune) bool { return c == ' ' || strings.ContainsRune(v.ScopeSeparator, c) })
	r.Scopes = append(slices.Clone(r.Scopes), v.OfUser(names)...)
	r.CustomParameters = maps.Clone(r.CustomParameters)
	delete(r.CustomParameters, v.UserScopes)
}

// deadGrant reports whether the provider's refusal means that the refresh token is of no use any more: invalid_grant
// (RFC 6749 §5.2), or the vendor's own words for it.
func (v Vendor) deadGrant(e *UpstreamError) bool {
	return e.Kind == Rejected && (e.Code == "invalid_grant" ||
		e.Code != "" && slices.Contains(v.GrantErrors, e.Code) || e.Description != "" && slices.Contains(v.GrantErrors, e.Description))
}
