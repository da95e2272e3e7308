package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// ProviderUIDs implements identity.ProviderNames: the uids of the providers of either kind with the name. It decides
// nothing about a caller.
func (b *Broker) ProviderUIDs(ctx context.Context, account access.Account, name string) (map[identity.ProviderKind]string, error) {
	return b.providersNamed(ctx, account, name)
}

// bounds are what the delegation of a workload access token leaves of a provider. The zero value leaves everything: the
// token was not minted under one.
type bounds struct {
	delegation string
	scopes     []string
}

// boundsOf are the bounds of the token at the provider with the uid.
func boundsOf(t identity.Token, providerUID string) bounds {
	scopes, _, _ := t.Delegated(providerUID)
	return bounds{delegation: t.Delegation(), scopes: scopes}
}

// bars returns why the token serves nothing of a provider of either kind, whoever the agent is, and by which rule; nil
// where it does. The third result says that it cannot be known. Every operation that touches what a provider gave asks
// here (threat M06).
func (b *Broker) bars(ctx context.Context, t identity.Token, uid, name string, tags map[string]string) (rule string, because, err error) {
	down, err := b.providerDown(ctx, t.Account, uid, name)
	switch {
	case err != nil:
		return "", nil, err
	case down != nil:
		return "provider-disabled", down, nil
	case t.Asserted() && tags[TagAssurance] == identity.Verified:
		return "assurance", fault.New(fault.Denied, "credential provider %s serves only verified users (tag %s=%s), and this workload access "+
			"token names an asserted user id", name, TagAssurance, identity.Verified), nil
	}
	if _, granted, _ := t.Delegated(uid); !granted {
		return "delegation", notDelegated(t.Delegation(), name), nil
	}
	return "", nil, nil
}

func notDelegated(id, provider string) error {
	return fault.New(fault.Denied, "the delegation %s is not for provider %s: the user has to delegate it", id, provider)
}

// within refuses scopes that the user did not delegate, and names them. They are those of the token that would be
// released: a stored one with more than was delegated stays where it is.
func (b *Broker) within(ctx context.Context, g grounds, scopes []string) error {
	detail, because := g.beyond(scopes)
	if because == nil {
		return nil
	}
	g.facts.Detail = detail
	g.facts.Scopes = g.about(scopes).Scopes
	return b.turnAway(ctx, g, "delegation", because)
}

// beyond says, for the trail and for the caller, why a token with the scopes is not in what the user delegated; nil if
// it is.
func (g grounds) beyond(scopes []string) (detail string, because error) {
	if g.bounds.delegation == "" {
		return "", nil
	}
	about := g.about(scopes)
	if about.ScopesUnknown && len(g.bounds.scopes) > 0 {
		return "the scopes are not known", fault.New(fault.Denied,
			"the delegation %s is for the scopes %q, and nobody knows which ones this token of provider %s has: ask for scopes by name",
			g.bounds.delegation, g.bounds.scopes, g.provider.Name)
	}
	beyond := slices.DeleteFunc(slices.Clone(about.Scopes), func(s string) bool { return g.vendor.covers(g.bounds.scopes, []string{s}) })
	if len(beyond) == 0 {
		return "", nil
	}
	return clean(fmt.Sprintf("beyond the delegation: %q", beyond), 300), fault.New(fault.Denied,
		"the token of provider %s has the scopes %q, which the delegation %s does not include: the user has to delegate them, or consent to less",
		g.provider.Name, beyond, g.bounds.delegation)
}

// awake refuses to open a consent session for a user who is not there.
func (b *Broker) awake(ctx context.Context, g grounds) error {
	if g.bounds.delegation == "" {
		return nil
	}
	return b.turnAway(ctx, g, "delegation-needs-consent", fault.New(fault.Denied,
		"the user has to consent at provider %s first: there is no stored token with the scopes that are asked for, and a delegation asks nobody. "+
			"Ask for the token with a workload access token of GetWorkloadAccessTokenForJWT while the user is there", g.provider.Name))
}
