package broker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	// waitForOther bounds how long a caller waits for another holder of the lease, who may be at the provider.
	waitForOther = 15 * time.Second

	// commitPatience bounds how long the result of a refresh is offered to a store that does not take it.
	commitPatience = 25 * time.Second
)

// renew returns the connection with a token that has life left. Whether that token leaves is decided by release.
//
// One caller in the whole installation gets the lease and goes to the provider; the others wait and read again. The
// attempt is journalled before the provider is called, and the result is committed only where the fence still holds.
// It returns errConsentNeeded where only the user can help.
func (b *Broker) renew(ctx context.Context, g grounds, r Request, c Connection) (Connection, error) {
	deadline, seen := b.now().Add(waitForOther), c.Generation
	for {
		if !c.usable(g.provider) || !c.renewable() {
			return c, errConsentNeeded
		}
		after, receipt, err := b.refreshOnce(ctx, g, r, c)
		if err == nil {
			return after, receipt.Wait(ctx)
		}
		if fault.CodeOf(err) != fault.Conflict {
			return after, err
		}
		// Another holder has the lease, or has just finished: read what it left.
		if c, err = b.store.Connection(ctx, c.Account, c.Key); err != nil {
			return c, err
		}
		// A token that was just issued serves even where its whole life is shorter than minLeft: another refresh would
		// bring no longer one.
		if c.State == Active && (c.fresh(b.now()) || c.Generation > seen) {
			return c, nil
		}
		if b.now().After(deadline) {
			return c, fault.New(fault.Unavailable, "provider %s is slow to refresh this token: try again", g.provider.Name)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return c, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended while it waited")
	}
}

// refreshOnce takes the lease and uses the refresh token. A Conflict means that somebody else holds or held it.
func (b *Broker) refreshOnce(ctx context.Context, g grounds, r Request, c Connection) (Connection, access.Receipt, error) {
	none := access.Receipt{}
	if c.Lineage != "" {
		return b.refreshShared(ctx, g, c, g.vendor.renewal(c))
	}
	// Whatever can fail without cost fails before the lease: endpoints, key service, damaged rows.
	endpoints, clientSecret, err := b.client(ctx, g.provider)
	if err != nil {
		return c, none, err
	}
	had, err := b.openRenewable(ctx, c)
	if err != nil {
		return c, none, err
	}
	fence, err := b.store.LeaseConnection(ctx, Attempt{
		Account: c.Account, Subject: c.ID, Kind: "refresh", Generation: c.Generation, Started: b.now(),
	}, c.Key, leaseTTL)
	if err != nil {
		return c, none, err
	}
	// From here on a caller that goes away must not stop what has begun: the provider may already have rotated.
	ctx = context.WithoutCancel(ctx)
	if g.vendor.RefreshRotates != RotationNone {
		if _, err := b.store.OpenAttempt(ctx, c.Account, c.ID, fence); err == nil {
			// An earlier holder died with the answer on its way. The refresh token may be spent, and a second use is a
			// replay that would revoke more than this connection: the user is asked again, and the trail says why.
			return b.giveUp(ctx, g, c, fence, "interrupted_refresh", "unknown")
		} else if !errors.Is(err, fault.NotFound) {
			return b.handBack(ctx, g, c, fence, "not_sent", err)
		}
	}
	grant, err := b.upstream.Refresh(ctx, endpoints, g.provider, g.vendor, clientSecret, had.token,
		TokenRequest{Resources: r.Resources, Audiences: r.Audiences})
	b.paces.turns.Ended(c.Account, c.Key, asked(err))
	if err != nil {
		return b.refreshFailed(ctx, g, c, fence, err)
	}
	account := upstreamOf(endpoints, g.provider, grant)
	if had.account.differs(account) {
		// Somebody else's tokens (threat E17): they are not kept, and who they belong to is not ours to revoke.
		return b.giveUp(ctx, g, c, fence, "other_account", "rejected")
	}
	if account.Subject == "" {
		account = had.account // an ID token is optional here (OpenID Connect Core §12.2)
	}
	grant = c.unchanged(grant, had)
	var next Connection
	err = b.commit(ctx, func(ctx context.Context) error {
		// Sealing is inside the patience too: the key service may be away for a moment.
		var err error
		if next, err = b.sealGrant(ctx, c, g.provider, grant, account, c.Requested); err != nil {
			return err
		}
		return b.store.FinishLease(ctx, next, fence, "stored")
	})
	if err != nil {
		if errors.Is(err, fault.Conflict) {
			err = errors.Join(err, b.disown(ctx, next))
		}
		return c, none, fault.Wrap(fault.Unavailable, err, "the refreshed token of provider %s could not be stored", g.provider.Name)
	}
	return next, b.refreshEvent(ctx, g, next, "refreshed", g.vendor.unrequested(next.Granted, slices.Concat(c.Requested, c.Granted))), nil
}

// renewable is what a refresh uses of a connection, opened.
type renewable struct {
	token      secret.Text
	attributes map[string]string
	account    upstream
}

func (b *Broker) openRenewable(ctx context.Context, c Connection) (r renewable, err error) {
	if r.token, err = b.vault.Open(ctx, c.ref("refresh"), c.Refresh); err != nil {
		return r, err
	}
	if r.attributes, err = b.openAttributes(ctx, c); err != nil {
		return r, err
	}
	r.account, err = b.openUpstream(ctx, c)
	return r, err
}

// unchanged adds to the answer to a refresh what it did not say.
func (c Connection) unchanged(grant Grant, had renewable) Grant {
	if grant.RefreshToken.IsZero() {
		grant.RefreshToken = had.token // RFC 6749 §6: the old one goes on
	}
	if len(grant.Scopes) == 0 {
		// Unsaid means unchanged (RFC 6749 §6). An empty string is no scope by §3.3, and providers that send one mean
		// the same; to believe it would lose what was granted at the next consent.
		grant.Scopes = c.stillGranted()
	}
	grant.Attributes = carryOver(had.attributes, grant.Attributes)
	return grant
}

// stillGranted is what was granted, where a refresh says nothing of scopes. It is never nil: what was not known before
// is not what was asked for (threat M02).
func (c Connection) stillGranted() []string {
	if c.Granted == nil {
		return []string{}
	}
	return c.Granted
}

// refreshFailed sorts a provider's failure: what it means for the refresh token decides what becomes of it.
func (b *Broker) refreshFailed(ctx context.Context, g grounds, c Connection, fence int64, err error) (Connection, access.Receipt, error) {
	up, ok := errors.AsType[*UpstreamError](err)
	switch {
	case !ok || up.Kind == Unsent || up.Kind == Busy:
		return b.handBack(ctx, g, c, fence, "not_sent", providerFault(g.provider, "the refresh", err))
	case up.asksUser():
		next, err := b.challenged(ctx, c, up)
		if err != nil {
			return b.handBack(ctx, g, c, fence, "rejected", err)
		}
		return b.giveUp(ctx, g, next, fence, next.Reason, "rejected")
	case g.vendor.deadGrant(up):
		return b.giveUp(ctx, g, c, fence, cmp.Or(up.Code, "invalid_grant"), "rejected")
	case up.Kind == Rejected:
		// Our client is refused, not the grant: an administrator can mend that, and the refresh token is kept for it.
		return b.handBack(ctx, g, c, fence, "rejected", providerFault(g.provider, "the refresh", err))
	case g.vendor.RefreshRotates == RotationNone:
		return b.handBack(ctx, g, c, fence, "unknown", providerFault(g.provider, "the refresh", err))
	}
	return b.giveUp(ctx, g, c, fence, "unanswered_refresh", "unknown")
}

// handBack ends the lease with the tokens as they were, and returns cause.
func (b *Broker) handBack(ctx context.Context, g grounds, c Connection, fence int64, outcome string, cause error) (Connection, access.Receipt, error) {
	c.State = Active
	if err := b.commit(ctx, func(ctx context.Context) error { return b.store.FinishLease(ctx, c, fence, outcome) }); err != nil {
		return c, access.Receipt{}, err
	}
	if err := b.refreshEvent(ctx, g, c, "failed", detail(cause)).Wait(ctx); err != nil {
		return c, access.Receipt{}, err
	}
	return c, access.Receipt{}, cause
}

// giveUp ends the lease with a connection that only a new consent helps. The sealed tokens stay until then.
func (b *Broker) giveUp(ctx context.Context, g grounds, c Connection, fence int64, reason, outcome string) (Connection, access.Receipt, error) {
	c.State, c.Reason, c.Updated = NeedsReauth, reason, b.now()
	if err := b.commit(ctx, func(ctx context.Context) error { return b.store.FinishLease(ctx, c, fence, outcome) }); err != nil {
		return c, access.Receipt{}, err
	}
	if err := b.refreshEvent(ctx, g, c, "needs_reauth", reason).Wait(ctx); err != nil {
		return c, access.Receipt{}, err
	}
	return c, access.Receipt{}, errConsentNeeded
}

func (b *Broker) refreshEvent(ctx context.Context, g grounds, c Connection, outcome, why string) access.Receipt {
	f := g.facts
	f.Scopes, f.Connection, f.Generation, f.Outcome, f.Detail = c.Granted, c.ID, c.Generation, outcome, why
	return b.guard.Event(ctx, g.caller, access.RefreshTokens, f)
}

// commit offers a result to the store until it takes it, refuses it for good, or patience ends. It is for results
// that exist nowhere else: a rotated refresh token, a redeemed code.
func (b *Broker) commit(ctx context.Context, write func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitPatience)
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := write(ctx)
		switch fault.CodeOf(err) { // the outermost code: a Conflict that is only a cause is worth another try
		case "", fault.Conflict, fault.NotFound:
			return err
		}
		if sleep(ctx, wait) != nil {
			return err
		}
	}
}
