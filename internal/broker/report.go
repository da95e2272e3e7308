package broker

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/pace"
	"github.com/tabard-id/tabard/internal/secret"
)

// reportPause is the time between two refreshes that reports force on one connection. Agents are driven by models: one
// that reports each answer it does not like must not hammer the provider.
const reportPause = 30 * time.Second

// ReportTokenInvalid is how an agent says that the provider refused the token of a connection it was given. The token
// is refreshed at once, unless that happened within the last 30 seconds; without a refresh token the connection needs
// re-authentication (a machine's is fetched anew by the next request). It returns the connection's state then.
//
// Errors: Unauthenticated for a bad or expired workload access token; Denied where the caller is not paired with the
// workload identity; NotFound for a connection that is unknown or not this agent's and user's; Throttled where the last
// refresh failed less than 30 seconds ago; Unavailable where the provider cannot be had.
func (b *Broker) ReportTokenInvalid(ctx context.Context, caller access.Caller, wat secret.Text, id string) (ConnectionState, error) {
	g, c, err := b.reportGround(ctx, caller, wat, id)
	if err != nil {
		return "", err
	}
	if !c.usable(g.provider) {
		if c.State == Revoked {
			return Revoked, nil
		}
		return NeedsReauth, nil
	}
	if !c.renewable() {
		return b.distrust(ctx, g, c)
	}
	last, err := b.store.LastAttempt(ctx, c.Account, cmp.Or(c.Lineage, c.ID))
	switch pause := last.Started.Add(reportPause).Sub(b.now()); {
	case errors.Is(err, fault.NotFound):
	case err != nil:
		return "", err
	case c.Lineage != "" && (last.Finished.IsZero() || last.Outcome == "stored") && c.Updated.Before(last.Started): // a sibling's
	case pause > 0 && last.Finished.IsZero() || pause > 0 && last.Outcome == "stored":
		return c.State, nil // there is, or will be, another token than the one that was refused
	case pause > 0:
		return "", pace.Slow(pause, "the refresh of connection %q just failed: try again in %d seconds", id, int(pause.Seconds())+1)
	}
	after, receipt, err := b.refreshOnce(ctx, g, Request{Resources: c.Resources, Audiences: c.Audiences}, c)
	switch {
	case errors.Is(err, errConsentNeeded):
		return NeedsReauth, nil
	case errors.Is(err, fault.Conflict):
		return b.stateOf(ctx, c)
	case err != nil:
		return "", err
	}
	return after.State, receipt.Wait(ctx)
}

// reportGround finds what a report stands on, and turns away whom it is none of. Another's connection looks absent.
func (b *Broker) reportGround(ctx context.Context, caller access.Caller, wat secret.Text, id string) (grounds, Connection, error) {
	const action = access.ReportTokenInvalid
	opened, err := b.identity.Open(ctx, caller, action, wat, access.Facts{Connection: id}, false)
	if err != nil {
		return grounds{}, Connection{}, err
	}
	g := grounds{caller: caller, token: opened.Token, workload: opened.Workload, facts: opened.Facts}
	v, lookup := b.store.ConnectionView(ctx, caller.Account, id)
	own := lookup == nil && v.Workload == g.workload.UID && (v.User == g.token.UserRef || v.User == "")
	var known bool
	if own {
		if g.provider, err = b.store.ProviderByUID(ctx, caller.Account, v.Provider); err != nil {
			return g, Connection{}, err
		}
		g.vendor, known = b.catalogue.Vendor(g.provider.Vendor)
		g.facts.Provider, g.facts.Flow, g.facts.Generation = v.ProviderName, v.Flow, v.Generation
		for _, name := range v.ParamNames {
			g.facts.Parameters = append(g.facts.Parameters, access.Spelled(name))
		}
		g.facts = g.about(v.Granted) // as a release of it
	}
	g.facts.Outcome = "reported"
	if err := b.guard.Permit(ctx, caller, action, g.facts); err != nil {
		return g, Connection{}, err
	}
	if lookup != nil && !errors.Is(lookup, fault.NotFound) {
		return g, Connection{}, lookup
	}
	refuse := func(rule string, because error) (grounds, Connection, error) {
		g.facts.Outcome = "refused"
		return g, Connection{}, b.guard.Refuse(ctx, caller, action, rule, g.facts, because)
	}
	if !own {
		return refuse("not-its-connection", fault.New(fault.NotFound, "connection %q does not exist", id))
	}
	if rule, because, err := b.bars(ctx, g.token, g.provider.UID, g.provider.Name, g.provider.Tags); err != nil {
		return g, Connection{}, err
	} else if because != nil {
		return refuse(rule, because)
	}
	if !known {
		return g, Connection{}, fault.New(fault.Unavailable, "vendor %s of provider %s is not in this server's catalogue", g.provider.Vendor, g.provider.Name)
	}
	g.bounds = boundsOf(g.token, g.provider.UID)
	if detail, because := g.beyond(v.Granted); because != nil {
		g.facts.Detail = detail
		return refuse("delegation", because)
	}
	c, err := b.store.ConnectionByID(ctx, caller.Account, id)
	return g, c, err
}

// distrust ends the use of a token that cannot be refreshed. One that needs no user and was fetched just now
// stays: the provider is not asked for another each time that an agent reports one.
func (b *Broker) distrust(ctx context.Context, g grounds, c Connection) (ConnectionState, error) {
	if c.Flow != FlowUserFederation && b.now().Sub(c.Updated) < reportPause {
		return c.State, nil
	}
	next := c
	next.State, next.Reason, next.Updated = NeedsReauth, "reported_invalid", b.now()
	err := b.store.SwapConnection(ctx, next, c.Generation)
	if errors.Is(err, fault.Conflict) {
		return b.stateOf(ctx, c)
	}
	if err != nil {
		return "", err
	}
	return NeedsReauth, b.refreshEvent(ctx, g, next, "needs_reauth", next.Reason).Wait(ctx)
}

// stateOf is the state of the connection after somebody else changed it.
func (b *Broker) stateOf(ctx context.Context, c Connection) (ConnectionState, error) {
	now, err := b.store.ConnectionByID(ctx, c.Account, c.ID)
	return now.State, err
}
