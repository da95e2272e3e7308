package broker

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Lineage is one refresh token, at a vendor whose refresh tokens serve all resources: what a consent brought, and what
// came of it since. The connections that live on it have its ID and no refresh token of their own (ADR 22).
type Lineage struct {
	Account    access.Account
	ID         string
	Family     string // the key of its connections without their resource
	Workload   string // uid
	User       string // reference
	Provider   string // uid
	Refresh    vault.Sealed
	Upstream   vault.Sealed // the account at the provider; empty if it is not known
	Reason     string       // why the refresh token is of no use any more; "" while it is
	Generation int64        // rises with every change of what is sealed
	Identity   string       // the provider's security identity at the time of sealing
	Fence      int64        // rises with every lease
	Created    time.Time
	Updated    time.Time
}

// LineageStore keeps lineages. Times of leases are the database's.
type LineageStore interface {
	// LineageOf returns the newest of the family that has no Reason and that a connection that is not revoked lives on.
	LineageOf(ctx context.Context, account access.Account, family string) (Lineage, error)
	Lineage(ctx context.Context, account access.Account, id string) (Lineage, error)
	// Siblings returns the ids of the connections that live on the lineage and are not revoked.
	Siblings(ctx context.Context, account access.Account, id string) ([]string, error)
	// LeaseLineage takes the lease of a.Subject if its generation is still a.Generation, it has no Reason, no lease lives
	// and the connection of the key still has the generation, where 0 is of one that does not exist: the fence rises, and
	// a is journalled in the same transaction. Else it returns Conflict.
	LeaseLineage(ctx context.Context, a Attempt, key string, generation int64, ttl time.Duration) (fence int64, err error)
	// FinishLineage replaces what is sealed in l, and its reason, if its fence is still l.Fence, else returns Conflict. It
	// clears the lease and closes the attempt with outcome. In the same transaction it stores c as SwapConnection does
	// with oldGeneration, unless c is nil. Repeating a call that succeeded succeeds.
	FinishLineage(ctx context.Context, l Lineage, outcome string, c *Connection, oldGeneration int64) error
}

// inLineage is what Revocation.Column says of a token of a lineage, which is sealed in another table than the others.
const inLineage = "lineage"

// place names the lineage's row in its generation, for what is sealed there.
func (l Lineage) place() string { return l.ID + "." + strconv.FormatInt(l.Generation, 10) }

func (l Lineage) ref(column string) vault.Ref {
	return vault.Ref{
		Account: l.Account, Table: "lineages", Column: column, Key: l.place(), Workload: l.Workload, User: l.User,
		Provider: l.Provider, Identity: l.Identity,
	}
}

// next makes l its next generation, with the token and the account.
func (b *Broker) nextLineage(ctx context.Context, l Lineage, token secret.Text, u upstream) (Lineage, error) {
	l.Generation++
	l.Updated = b.now()
	var err error
	if l.Refresh, err = b.vault.Seal(ctx, l.ref("refresh"), token); err != nil {
		return l, err
	}
	l.Upstream = nil
	if u.Subject != "" {
		l.Upstream, err = b.sealUpstreamAt(ctx, l.ref("upstream"), u)
	}
	return l, err
}

// openLineage returns the refresh token of l, and the account that it is of.
func (b *Broker) openLineage(ctx context.Context, l Lineage) (token secret.Text, u upstream, err error) {
	if token, err = b.vault.Open(ctx, l.ref("refresh"), l.Refresh); err != nil || len(l.Upstream) == 0 {
		return token, u, err
	}
	u, err = b.openUpstreamAt(ctx, l.ref("upstream"), l.Upstream)
	return token, u, err
}

// fromSibling serves a request that there is no connection for. A refresh token that a consent to another resource
// brought may serve this one too; the user is asked only if the provider says so.
func (b *Broker) fromSibling(ctx context.Context, g grounds, r Request, name connectionName) (Outcome, error) {
	if g.vendor.Resources == nil || r.Force {
		return b.openSession(ctx, g, r, Connection{})
	}
	for deadline, decided := b.now().Add(waitForOther), false; ; {
		l, err := b.store.LineageOf(ctx, g.caller.Account, name.family())
		if errors.Is(err, fault.NotFound) || err == nil && l.Identity != g.provider.Identity {
			return b.openSession(ctx, g, r, Connection{})
		}
		if err != nil {
			return Outcome{}, err
		}
		c := Connection{
			Account: g.caller.Account, ID: "cn_" + random(15), Key: name.key(), Workload: g.workload.UID, User: g.token.UserRef,
			Provider: g.provider.UID, Flow: FlowUserFederation, Asserted: g.facts.Asserted, Resources: r.Resources, Resource: r.resource,
			Audiences: r.Audiences, Parameters: r.parameters, ParamNames: r.parameterNames, Identity: g.provider.Identity,
			Lineage: l.ID, Created: b.now(),
		}
		if !decided {
			if err := b.roomFor(ctx, g, c); err != nil {
				return Outcome{}, err
			}
			if err := b.mayTake(ctx, g, r, c); err != nil {
				return Outcome{}, err
			}
			decided, g.counted = true, true
		}
		c, receipt, err := b.refreshShared(ctx, g, c, r.Scopes)
		switch {
		case err == nil:
			if err := receipt.Wait(ctx); err != nil {
				return Outcome{}, err
			}
			if !g.vendor.serves(c, r.Scopes) {
				return b.openSession(ctx, g, r, c)
			}
			return b.handOut(ctx, g, c)
		case fault.CodeOf(err) != fault.Conflict && !errors.Is(err, errConsentNeeded):
			return Outcome{}, err
		}
		had, lookup := b.store.Connection(ctx, c.Account, c.Key)
		switch {
		case lookup == nil && errors.Is(err, errConsentNeeded):
			return b.openSession(ctx, g, r, had)
		case lookup == nil: // another call was first
			return b.fromVault(ctx, g, r, had)
		case !errors.Is(lookup, fault.NotFound):
			return Outcome{}, lookup
		case errors.Is(err, errConsentNeeded):
			return b.openSession(ctx, g, r, Connection{})
		case b.now().After(deadline):
			return Outcome{}, fault.New(fault.Unavailable, "provider %s is slow to refresh this token: try again", g.provider.Name)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return Outcome{}, err
		}
	}
}

// mayTake decides that a token of the scopes that are asked for may be obtained without the user. Whether what comes
// may leave is decided again.
func (b *Broker) mayTake(ctx context.Context, g grounds, r Request, c Connection) error {
	if err := b.within(ctx, g, r.Scopes); err != nil {
		return err
	}
	f := g.about(r.Scopes)
	f.Connection, f.Outcome, f.Released, f.Detail = c.ID, "refresh", true, "another resource of a consent: "+clean(c.Resource, 200)
	if err := b.guard.Permit(ctx, g.caller, access.GetResourceOauth2Token, f); err != nil {
		return err
	}
	if pause := b.paces.turns.Pause(c.Account, c.Key); pause > 0 {
		return b.slow(ctx, g, c.ID, pause, "the refresh of the token failed")
	}
	if wait := b.paces.fetches.Take(c.Account, c.family(g.provider)); wait > 0 {
		return b.slow(ctx, g, c.ID, wait, "too many tokens of this provider were asked for")
	}
	return nil
}

// refreshShared uses the refresh token of c's lineage for the scopes. c has the generation 0 if it is not stored yet.
// The lease is the lineage's, so that no two connections use the token at once. A Conflict means that another call has
// it, or has changed the connection: the caller looks again.
func (b *Broker) refreshShared(ctx context.Context, g grounds, c Connection, scopes []string) (Connection, access.Receipt, error) {
	none := access.Receipt{}
	l, err := b.store.Lineage(ctx, c.Account, c.Lineage)
	if errors.Is(err, fault.NotFound) {
		return b.lapse(ctx, g, c, "refresh_token_gone")
	}
	if err != nil {
		return c, none, err
	}
	if l.Reason != "" {
		return b.lapse(ctx, g, c, l.Reason)
	}
	endpoints, clientSecret, err := b.client(ctx, g.provider)
	if err != nil {
		return c, none, err
	}
	token, account, err := b.openLineage(ctx, l)
	if err != nil {
		return c, none, err
	}
	attributes, err := b.openAttributes(ctx, c)
	if err != nil {
		return c, none, err
	}
	l.Fence, err = b.store.LeaseLineage(ctx, Attempt{
		Account: l.Account, Subject: l.ID, Kind: "refresh", Generation: l.Generation, Started: b.now(),
	}, c.Key, c.Generation, leaseTTL)
	if err != nil {
		return c, none, err
	}
	ctx = context.WithoutCancel(ctx) // as in refreshOnce
	if g.vendor.RefreshRotates != RotationNone {
		if _, err := b.store.OpenAttempt(ctx, l.Account, l.ID, l.Fence); err == nil {
			return b.endLineage(ctx, g, l, c, "interrupted_refresh", "unknown")
		} else if !errors.Is(err, fault.NotFound) {
			return b.giveBack(ctx, g, l, c, "not_sent", err)
		}
	}
	grant, err := b.upstream.Refresh(ctx, endpoints, g.provider, g.vendor, clientSecret, token,
		TokenRequest{Scopes: scopes, Resources: c.Resources, Audiences: c.Audiences})
	b.paces.turns.Ended(c.Account, c.Key, asked(err))
	if err != nil {
		return b.sharedFailed(ctx, g, l, c, err)
	}
	now := upstreamOf(endpoints, g.provider, grant)
	if account.differs(now) {
		return b.endLineage(ctx, g, l, c, "other_account", "rejected")
	}
	if now.Subject == "" {
		now = account
	}
	grant.Attributes = carryOver(attributes, grant.Attributes)
	return b.storeShared(ctx, g, l, c, grant, now, scopes)
}

// storeShared commits what a refresh brought: the refresh token for all, and the access token for c. The refresh token
// is stored even if c cannot be.
func (b *Broker) storeShared(ctx context.Context, g grounds, l Lineage, c Connection, grant Grant, u upstream, asked []string) (Connection, access.Receipt, error) {
	none := access.Receipt{}
	told, mismatch := g.vendor.ofResource(g.provider, c.Resource, grant.Scopes)
	requested := g.vendor.obtained(asked, told)
	if c.Generation > 0 {
		requested = c.Requested
		if len(told) == 0 { // unsaid means unchanged (RFC 6749 §6)
			told = c.stillGranted()
		}
	}
	renewed := grant.RefreshToken
	grant.RefreshToken, grant.Scopes = secret.Text{}, told
	next, after := c, l
	store := func(with *Connection) error {
		return b.commit(ctx, func(ctx context.Context) error {
			var err error
			if after = l; !renewed.IsZero() {
				if after, err = b.nextLineage(ctx, l, renewed, u); err != nil {
					return err
				}
			}
			if with != nil {
				if next, err = b.sealGrant(ctx, c, g.provider, grant, u, asked); err != nil {
					return err
				}
				next.Requested = requested
			}
			return b.store.FinishLineage(ctx, after, "stored", with, c.Generation)
		})
	}
	var err error
	if mismatch == nil {
		if err = store(&next); err == nil {
			why := g.vendor.unrequested(next.Granted, append(asked, next.Requested...))
			return next, b.refreshEvent(ctx, g, next, "refreshed", why), nil
		}
	}
	// The access token is dropped: the connection was changed meanwhile, there is no room for it, or it is for another
	// resource.
	if again := store(nil); again != nil {
		again = errors.Join(again, b.disownLineage(ctx, c, after, renewed))
		return c, none, fault.Wrap(fault.Unavailable, again, "the refreshed token of provider %s could not be stored", g.provider.Name)
	}
	if mismatch != nil {
		return c, b.refreshEvent(ctx, g, c, "failed", fault.Public(mismatch).Msg), mismatch
	}
	return c, none, err
}

// sharedFailed sorts a provider's failure, as refreshFailed does. What the provider refuses for one resource only is
// kept with that resource's connection, and the others live on.
func (b *Broker) sharedFailed(ctx context.Context, g grounds, l Lineage, c Connection, err error) (Connection, access.Receipt, error) {
	up, ok := errors.AsType[*UpstreamError](err)
	cause := providerFault(g.provider, "the refresh", err)
	switch {
	case !ok || up.Kind == Unsent || up.Kind == Busy:
		return b.giveBack(ctx, g, l, c, "not_sent", cause)
	case up.asksUser():
		return b.askUser(ctx, g, l, c, up)
	case g.vendor.deadGrant(up):
		return b.endLineage(ctx, g, l, c, up.Code, "rejected")
	case up.Kind == Rejected:
		return b.giveBack(ctx, g, l, c, "rejected", cause)
	case g.vendor.RefreshRotates == RotationNone:
		return b.giveBack(ctx, g, l, c, "unknown", cause)
	}
	return b.endLineage(ctx, g, l, c, "unanswered_refresh", "unknown")
}

// giveBack ends the lease with the tokens as they were, and returns cause.
func (b *Broker) giveBack(ctx context.Context, g grounds, l Lineage, c Connection, outcome string, cause error) (Connection, access.Receipt, error) {
	none := access.Receipt{}
	if err := b.commit(ctx, func(ctx context.Context) error { return b.store.FinishLineage(ctx, l, outcome, nil, 0) }); err != nil {
		return c, none, err
	}
	if err := b.refreshEvent(ctx, g, c, "failed", detail(cause)).Wait(ctx); err != nil {
		return c, none, err
	}
	return c, none, cause
}

// endLineage ends the lease with a refresh token that is of no use any more. Connections with an access token that
// lives are served until it ends.
func (b *Broker) endLineage(ctx context.Context, g grounds, l Lineage, c Connection, reason, outcome string) (Connection, access.Receipt, error) {
	l.Reason, l.Updated = reason, b.now()
	if err := b.commit(ctx, func(ctx context.Context) error { return b.store.FinishLineage(ctx, l, outcome, nil, 0) }); err != nil {
		return c, access.Receipt{}, err
	}
	return b.lapse(ctx, g, c, reason)
}

// lapse says that only the user helps c: its lineage has ended.
func (b *Broker) lapse(ctx context.Context, g grounds, c Connection, reason string) (Connection, access.Receipt, error) {
	none := access.Receipt{}
	if c.Generation > 0 {
		c.State, c.Reason, c.Updated = NeedsReauth, reason, b.now()
		if err := b.store.SwapConnection(ctx, c, c.Generation); err != nil {
			return c, none, err
		}
	}
	if err := b.refreshEvent(ctx, g, c, "needs_reauth", reason).Wait(ctx); err != nil {
		return c, none, err
	}
	return c, none, errConsentNeeded
}

// askUser stores that the provider wants the user for c's resource, so that it is not asked again in vain, and what it
// wants from the user.
func (b *Broker) askUser(ctx context.Context, g grounds, l Lineage, c Connection, up *UpstreamError) (Connection, access.Receipt, error) {
	none, old := access.Receipt{}, c.Generation
	err := b.commit(ctx, func(ctx context.Context) error {
		next, err := b.challenged(ctx, c, up)
		if err != nil {
			return err
		}
		if err := b.store.FinishLineage(ctx, l, "rejected", &next, old); err != nil {
			return err
		}
		c = next
		return nil
	})
	if err != nil {
		return c, none, errors.Join(err, b.store.FinishLineage(ctx, l, "rejected", nil, 0))
	}
	if err := b.refreshEvent(ctx, g, c, "needs_reauth", c.Reason).Wait(ctx); err != nil {
		return c, none, err
	}
	return c, none, errConsentNeeded
}

// challenged is the connection after the provider asked for its user: with the claims that it asked for, sealed.
func (b *Broker) challenged(ctx context.Context, c Connection, up *UpstreamError) (Connection, error) {
	c.Generation = max(c.Generation, 1)
	c.State, c.Reason, c.Updated, c.Claims = NeedsReauth, up.reason(), b.now(), nil
	if up.Claims.IsZero() {
		return c, nil
	}
	var err error
	c.Claims, err = b.vault.Seal(ctx, c.ref("claims"), up.Claims)
	return c, err
}

// claimsFor returns what the provider asked of the user when it refused the connection of the name; empty for nothing.
func (b *Broker) claimsFor(ctx context.Context, n connectionName) (secret.Text, error) {
	c, err := b.store.Connection(ctx, n.account, n.key())
	if errors.Is(err, fault.NotFound) || err == nil && len(c.Claims) == 0 {
		return secret.Text{}, nil
	}
	if err != nil {
		return secret.Text{}, err
	}
	return b.vault.Open(ctx, c.ref("claims"), c.Claims)
}

// graft gives the refresh token of a consent to a lineage: to the one that the connection, or its family, lives on if
// the consent is known to be of the same account at the provider, else to a new one. c is the connection as it was. It
// returns the lineage to store; it has no ID if there is nothing to store.
func (b *Broker) graft(ctx context.Context, c Connection, p Provider, token secret.Text, u upstream) (Lineage, error) {
	l, err := b.store.Lineage(ctx, c.Account, c.Lineage)
	if errors.Is(err, fault.NotFound) {
		l, err = b.store.LineageOf(ctx, c.Account, c.name().family())
	}
	if err != nil && !errors.Is(err, fault.NotFound) {
		return Lineage{}, err
	}
	if err == nil && l.Identity == p.Identity {
		_, had, err := b.openLineage(ctx, l)
		if err != nil {
			return Lineage{}, err
		}
		if u.Subject != "" && u.Subject == had.Subject {
			if token.IsZero() {
				return l, nil
			}
			l.Reason = ""
			return b.nextLineage(ctx, l, token, u)
		}
	}
	if token.IsZero() {
		return Lineage{}, nil
	}
	return b.nextLineage(ctx, Lineage{
		Account: c.Account, ID: "ln_" + random(15), Family: c.name().family(), Workload: c.Workload, User: c.User, Provider: p.UID,
		Identity: p.Identity, Created: b.now(),
	}, token, u)
}

// disownLineage revokes, in the background, what a refresh brought for a lineage that has ended meanwhile.
func (b *Broker) disownLineage(ctx context.Context, c Connection, l Lineage, renewed secret.Text) error {
	if _, err := b.store.Lineage(ctx, l.Account, l.ID); !errors.Is(err, fault.NotFound) || renewed.IsZero() {
		return err
	}
	return b.store.AddRevocation(ctx, b.lineageRevocation(c, l))
}

// lineageRevocation is the revocation of the lineage's refresh token, for the connection that was the last on it.
func (b *Broker) lineageRevocation(c Connection, l Lineage) Revocation {
	return Revocation{
		Account: c.Account, ID: "rv_" + random(15), Connection: c.ID, Column: inLineage, Key: l.place(), Workload: l.Workload, User: l.User,
		Provider: l.Provider, Generation: c.Generation, Identity: l.Identity, GrantRef: c.GrantRef, Token: l.Refresh, State: RevocationPending,
		Due: b.now(), Created: b.now(), Updated: b.now(),
	}
}

// sharedWith returns the other connections that live on c's refresh token.
func (b *Broker) sharedWith(ctx context.Context, c Connection) ([]string, error) {
	if c.Lineage == "" {
		return nil, nil
	}
	all, err := b.store.Siblings(ctx, c.Account, c.Lineage)
	var others []string
	for _, id := range all {
		if id != c.ID {
			others = append(others, id)
		}
	}
	return others, err
}

// several names connections in a sentence.
func several(ids []string) string { return clean(strings.Join(ids, ", "), 250) }
