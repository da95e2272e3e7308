package broker

import (
	"context"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// DisableProvider stops what a credential provider gives out: nothing of it is released, refreshed or consented to. Its
// connections stay. Where an OAuth2 and an API-key provider have the name, both are disabled.
func (b *Broker) DisableProvider(ctx context.Context, caller access.Caller, name, reason string) (identity.Standing, error) {
	return b.moveProvider(ctx, caller, access.DisableCredentialProvider, name, reason, identity.Disable(reason))
}

// EnableProvider serves a disabled provider again.
func (b *Broker) EnableProvider(ctx context.Context, caller access.Caller, name string) (identity.Standing, error) {
	return b.moveProvider(ctx, caller, access.EnableCredentialProvider, name, "", identity.Enable)
}

func (b *Broker) moveProvider(ctx context.Context, caller access.Caller, a access.Action, name, reason string, change func(*identity.Standing)) (identity.Standing, error) {
	if err := b.guard.Permit(ctx, caller, a, access.Facts{Provider: name, Detail: clean(reason, 200)}); err != nil {
		return identity.Standing{}, err
	}
	uids, err := b.providersNamed(ctx, caller.Account, name)
	if err != nil {
		return identity.Standing{}, err
	}
	if len(uids) == 0 {
		return identity.Standing{}, fault.New(fault.NotFound, "credential provider %q does not exist", name)
	}
	var first identity.Standing
	for _, kind := range []identity.ProviderKind{identity.APIKeyKind, identity.OAuth2Kind} {
		if uids[kind] == "" {
			continue
		}
		if first, err = b.identity.ChangeStanding(ctx, caller.Account, identity.ProviderStanding, uids[kind], change); err != nil {
			return identity.Standing{}, err
		}
	}
	first.Name = name
	return first, nil
}

// providersNamed returns the uids of the providers with the name, by kind.
func (b *Broker) providersNamed(ctx context.Context, account access.Account, name string) (map[identity.ProviderKind]string, error) {
	uids := map[identity.ProviderKind]string{}
	p, err := b.store.Provider(ctx, account, name)
	switch {
	case err == nil:
		uids[identity.OAuth2Kind] = p.UID
	case !errors.Is(err, fault.NotFound):
		return nil, err
	}
	k, err := b.store.APIKeyProvider(ctx, account, name)
	switch {
	case err == nil:
		uids[identity.APIKeyKind] = k.UID
	case !errors.Is(err, fault.NotFound):
		return nil, err
	}
	return uids, nil
}

// HasProvider reports whether the account has a credential provider of either kind with the name. It decides nothing
// about a caller.
func (b *Broker) HasProvider(ctx context.Context, account access.Account, name string) (bool, error) {
	uids, err := b.providersNamed(ctx, account, name)
	return len(uids) > 0, err
}

// providerDown returns a Denied fault as its first result where the provider is disabled. The second says that it
// cannot be known.
func (b *Broker) providerDown(ctx context.Context, account access.Account, uid, name string) (down, err error) {
	at, err := b.identity.Standing(ctx, account, identity.ProviderStanding, uid)
	if err != nil || !at.Down() {
		return nil, err
	}
	because := ""
	if at.Reason != "" {
		because = ": " + at.Reason
	}
	return fault.New(fault.Denied, "credential provider %s is disabled%s", name, because), nil
}

// flowStands returns an ending where the agent, the user, the user's issuer or the provider of the flow is disabled.
// The flow itself goes on living: it may be enabled again before it expires.
func (b *Broker) flowStands(ctx context.Context, flow Flow) error {
	err := b.identity.Serves(ctx, flow.Account, flow.Workload, flow.User)
	if errors.Is(err, fault.Denied) {
		why := fault.Public(err).Msg
		return ending(EndFailed, why, "%s", why)
	}
	if err != nil {
		return err
	}
	at, err := b.identity.Standing(ctx, flow.Account, identity.ProviderStanding, flow.Provider)
	if err != nil || !at.Down() {
		return err
	}
	return ending(EndFailed, "the provider is disabled", "the provider is disabled")
}

// Ended is what became of a connection that EndConnection ended.
type Ended struct {
	Generation int64 // of the tokens that are to be revoked at the provider
	Upstream   RevocationState
	Detail     string
}

// EndConnection ends one of many connections, under a decision that the caller of it has made and recorded: durably
// here, and with upstream at the provider too, for which SweepRevocations makes the tries. Ending what is ended tells
// what became of it; a connection that is gone is NotFound. why is for the record of the event.
func (b *Broker) EndConnection(ctx context.Context, caller access.Caller, id string, upstream bool, why string) (Ended, error) {
	v, err := b.store.ConnectionView(ctx, caller.Account, id)
	if err != nil {
		return Ended{}, err
	}
	was := v.State
	c, r, err := b.revokeHere(ctx, caller.Account, id, !upstream, false)
	if err != nil {
		return Ended{}, err
	}
	out := Ended{Generation: c.Generation - 1, Upstream: RevocationSkipped}
	if r.ID == "" && r.Detail == "" { // ended by another, or by the same call before the server died; or there was nothing to tell the provider
		r, err = b.store.RevocationOf(ctx, c.Account, c.ID)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return Ended{}, err
		}
	}
	switch {
	case r.ID != "" && r.Generation == out.Generation:
		out.Upstream, out.Detail = r.State, r.Detail
	case upstream && was == Revoked:
		out.Detail = "it was revoked before, without telling the provider"
	case upstream && r.Detail != "":
		out.Detail = r.Detail
	case upstream:
		out.Detail = "it had no tokens"
	}
	if was == Revoked {
		return out, nil
	}
	v.Connection = c
	return out, b.guard.Event(ctx, caller, access.RevokeConnection, v.facts("revoked", why)).Wait(ctx)
}
