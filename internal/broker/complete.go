package broker

import (
	"context"
	"crypto/subtle"
	"errors"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// UserIdentifier is who the application says its live browser session belongs to: a token, or an opaque id.
type UserIdentifier struct {
	Token secret.Text
	ID    string
}

// Complete confirms that the user whose browser finished the consent is the one for whom it was begun, and only then
// redeems the held code and seals the tokens. Called again by the same user on a redeemed session it succeeds again;
// during redemption it waits. Another user is refused, and the session dies with nothing redeemed (threat C01).
//
// Errors: Denied "Invalid or expired session: …" with the reason the caller may know; Unauthenticated for a user token
// that does not verify; Unavailable where the provider refused before it looked at the code: then the code is still
// held and the call may be repeated. The wrong kind of identifier is Denied too, and the session lives on: it says
// nothing about who finished it.
func (b *Broker) Complete(ctx context.Context, caller access.Caller, session string, user UserIdentifier) error {
	flow, err := b.completable(ctx, caller, session)
	if err != nil {
		return err
	}
	if err := b.confirm(ctx, caller, flow, user); err != nil {
		return err
	}
	return b.finish(ctx, caller, flow)
}

// finish redeems a flow whose user was confirmed, or waits for the call that does.
func (b *Broker) finish(ctx context.Context, caller access.Caller, flow Flow) error {
	deadline := b.now().Add(waitForOther)
	for {
		done, err := b.advance(ctx, caller, flow)
		if done || err != nil {
			return err
		}
		if b.now().After(deadline) {
			return fault.New(fault.Unavailable, "the redemption of this session is still under way: try again")
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		if flow, err = b.store.FlowByID(ctx, flow.ID); err != nil {
			return err
		}
	}
}

// completable finds the session for a caller that may complete it. A caller without the right role is told so and
// nothing else; a session of another account or of a workload identity that the caller is not paired with looks
// exactly like none (threats C02, C03, C28).
func (b *Broker) completable(ctx context.Context, caller access.Caller, session string) (Flow, error) {
	flow, err := b.store.FlowByID(ctx, digest("session-1", session))
	if err != nil && !errors.Is(err, fault.NotFound) {
		return Flow{}, err
	}
	facts := access.Facts{Resource: "session"}
	if err != nil || flow.Account != caller.Account {
		if !caller.Has(access.Root) && !caller.Has(access.ConsentApp) {
			return Flow{}, b.guard.Permit(ctx, caller, access.CompleteResourceTokenAuth, facts)
		}
		return Flow{}, b.guard.Refuse(ctx, caller, access.CompleteResourceTokenAuth, "unknown-session", facts, errNoSession)
	}
	facts = flow.facts("complete", "")
	if err := b.guard.Permit(ctx, caller, access.CompleteResourceTokenAuth, facts); err != nil {
		if errors.Is(err, fault.Denied) && caller.Has(access.ConsentApp) {
			return Flow{}, errNoSession
		}
		if errors.Is(err, fault.Denied) {
			// Say it without naming the workload identity: the caller may not know whose session this is.
			return Flow{}, fault.New(fault.Denied, "%s is not allowed to perform %s: it needs the role %s", caller, access.CompleteResourceTokenAuth, access.ConsentApp)
		}
		return Flow{}, err
	}
	return flow, nil
}

// confirm holds the presented user against the flow's. The comparison is of verified identities, not of token texts:
// a fresh token of the same user is as good as the first.
func (b *Broker) confirm(ctx context.Context, caller access.Caller, flow Flow, u UserIdentifier) error {
	who, err := b.presented(ctx, flow, u)
	if errors.Is(err, fault.Denied) || errors.Is(err, fault.Unauthenticated) {
		return b.guard.Refuse(ctx, caller, access.CompleteResourceTokenAuth, "user-identifier", flow.facts("refused", ""), err)
	}
	if err != nil {
		return err
	}
	ref, err := b.identity.UserRef(ctx, flow.Account, who)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(ref), []byte(flow.User)) == 1 {
		return nil
	}
	const why = "the user who finished it is not the user who began it"
	if flow.State != FlowRedeemed {
		if _, err := b.store.FailFlow(ctx, flow.ID, why, 0); err != nil {
			return err
		}
	}
	facts := flow.facts("wrong_user", "finished by "+ref)
	return b.guard.Refuse(ctx, caller, access.CompleteResourceTokenAuth, "wrong-user", facts, ending(EndFailed, "", why))
}

// presented is who the identifier says that is there. It must be of the kind that the flow was begun with.
func (b *Broker) presented(ctx context.Context, flow Flow, u UserIdentifier) (identity.User, error) {
	switch {
	case flow.UserKind == string(identity.JWTUser) && u.Token.IsZero():
		return identity.User{}, ending(EndFailed, "", "it was begun for a user known by a token, so userIdentifier must be a userToken")
	case flow.UserKind == string(identity.UIDUser) && u.ID == "":
		return identity.User{}, ending(EndFailed, "", "it was begun for a user known by an id, so userIdentifier must be a userId")
	case flow.UserKind == string(identity.JWTUser):
		verified, err := b.identity.VerifyUser(ctx, flow.Account, flow.WorkloadName, u.Token)
		return verified.User, err
	}
	return identity.AssertedUser(u.ID)
}

// advance takes the flow one step further. It reports true when nothing is left to do.
func (b *Broker) advance(ctx context.Context, caller access.Caller, flow Flow) (bool, error) {
	var no error
	switch {
	case flow.State == FlowRedeemed:
		return true, nil
	case flow.State == FlowFailed:
		no = ending(EndFailed, flow.Reason, "%s", flow.Reason)
	case !b.now().Before(flow.Expires):
		no = errExpired
	case flow.State == FlowCreated:
		no = ending(EndUnknown, "", "the user has not consented yet")
	case flow.State == FlowRedeeming:
		// FailFlow acts only where the lease of the redemption has run out: its holder died with the answer on its way,
		// and a second redemption is never tried.
		_, err := b.store.FailFlow(ctx, flow.ID, "interrupted while it was redeemed: ask for the token again", 0)
		return false, err
	}
	if no != nil {
		return false, b.guard.Refuse(ctx, caller, access.CompleteResourceTokenAuth, "session-"+string(flow.State), flow.facts("refused", flow.Reason), no)
	}
	err := b.redeem(ctx, caller, flow)
	if fault.CodeOf(err) == fault.Conflict {
		return false, nil // another call has it: wait for that one
	}
	return err == nil, err
}

// redeem exchanges the held code. A Conflict means that another call is doing it.
func (b *Broker) redeem(ctx context.Context, caller access.Caller, flow Flow) error {
	_, provider, vendor, err := b.openFlow(ctx, flow.ID)
	if err != nil {
		return err
	}
	endpoints, clientSecret, err := b.client(ctx, provider)
	if err != nil {
		return err
	}
	code, err := b.vault.Open(ctx, flow.ref("code"), flow.Code)
	if err != nil {
		return err
	}
	verifier, err := b.vault.Open(ctx, flow.ref("verifier"), flow.Verifier)
	if err != nil {
		return err
	}
	if err := b.slowRedeem(ctx, caller, flow, b.paces.redeems.Wait); err != nil {
		return err // before anything is begun: a code that waits is as it was, whatever happens now
	}
	fence, err := b.store.StartRedeem(ctx, flow.ID, Attempt{Account: flow.Account, Subject: flow.ID, Kind: "redeem", Started: b.now()}, leaseTTL)
	if err != nil {
		return err
	}
	// The code is about to be spent: what comes back must be stored even if the caller has gone.
	ctx = context.WithoutCancel(ctx)
	if slow := b.slowRedeem(ctx, caller, flow, b.paces.redeems.Take); slow != nil { // codes of several sessions came at once
		return errors.Join(slow, b.commit(ctx, func(ctx context.Context) error { return b.store.ReturnCode(ctx, flow.ID, fence) }))
	}
	grant, err := b.upstream.Redeem(ctx, endpoints, provider, vendor, clientSecret,
		CodeGrant{Code: code, Verifier: verifier, RedirectURI: b.CallbackURL(provider), Resources: flow.Resources})
	if err != nil {
		return b.redeemFailed(ctx, caller, flow, provider, fence, err)
	}
	told, err := vendor.ofResource(provider, flow.Resource, grant.Scopes)
	if err != nil {
		return b.redeemFailed(ctx, caller, flow, provider, fence, &UpstreamError{Kind: Rejected, Code: "invalid_scope", Description: fault.Public(err).Msg})
	}
	grant.Scopes = told
	c, err := b.storeGrant(ctx, flow, provider, vendor, grant, upstreamOf(endpoints, provider, grant), fence)
	if errors.Is(err, errOtherAccount) {
		return b.otherAccount(ctx, caller, flow, fence)
	}
	if err != nil {
		return err
	}
	flow.Connection, flow.Scopes = c.ID, c.Granted
	said := vendor.unrequested(c.Granted, c.Requested)
	if crowded, err := b.crowdedGrant(ctx, c, provider, vendor); err == nil && crowded != "" { // advice: without it the consent is good
		said = strings.TrimPrefix(said+"; "+crowded, "; ")
	}
	facts := flow.facts("redeemed", said)
	facts.Generation = c.Generation
	caller.Account = flow.Account
	return b.guard.Event(ctx, caller, access.RedeemCode, facts).Wait(ctx)
}

// redeemFailed sorts a provider's failure by what it means for the code.
func (b *Broker) redeemFailed(ctx context.Context, caller access.Caller, flow Flow, p Provider, fence int64, err error) error {
	up, ok := errors.AsType[*UpstreamError](err)
	if !ok || up.Kind == Unsent || up.Kind == Busy {
		if err := b.commit(ctx, func(ctx context.Context) error { return b.store.ReturnCode(ctx, flow.ID, fence) }); err != nil {
			return err
		}
		if err := b.flowEvent(ctx, caller, flow, access.RedeemCode, "postponed", detail(err)).Wait(ctx); err != nil {
			return err
		}
		return providerFault(p, "the code", err)
	}
	reason := "provider " + p.Name + " refused the code" + up.said()
	if up.Kind == Unknown {
		reason = "provider " + p.Name + " gave no usable answer to the code" + up.said()
	}
	err = b.commit(ctx, func(ctx context.Context) error {
		_, err := b.store.FailFlow(ctx, flow.ID, reason, fence)
		return err
	})
	if err != nil {
		return err
	}
	if err := b.flowEvent(ctx, caller, flow, access.RedeemCode, "failed", detail(up)).Wait(ctx); err != nil {
		return err
	}
	if !up.Claims.IsZero() {
		if err := b.keepChallenge(ctx, flow, up); err != nil {
			return err
		}
	}
	if err := b.unionRefused(ctx, flow, up.Code); err != nil {
		return err
	}
	return ending(EndFailed, up.said(), "%s", reason)
}

// storeGrant seals what the code brought and makes it the connection's next generation, together with the flow's end.
// It returns errOtherAccount where it must not replace what is there.
func (b *Broker) storeGrant(ctx context.Context, flow Flow, p Provider, v Vendor, grant Grant, u upstream, fence int64) (Connection, error) {
	key := flow.name().key()
	var c Connection
	var refused error // of no use to try again
	err := b.commit(ctx, func(ctx context.Context) error {
		old, err := b.store.Connection(ctx, flow.Account, key)
		switch {
		case errors.Is(err, fault.NotFound):
			old = b.connectionOf(flow, key)
		case err != nil:
			return err
		}
		if err := b.replaceable(ctx, flow, p, old, u); errors.Is(err, errOtherAccount) {
			refused = err
			return nil
		} else if err != nil {
			return err
		}
		grant, l, was := grant, Lineage{}, old
		if v.Resources != nil {
			if l, err = b.graft(ctx, old, p, grant.RefreshToken, u); err != nil {
				return err
			}
			was.Lineage, grant.RefreshToken = l.ID, secret.Text{}
		}
		if c, err = b.sealGrant(ctx, was, p, grant, u, flow.Scopes); err != nil {
			return err
		}
		err = b.store.FinishRedeem(ctx, flow.ID, fence, c, old.Generation, l)
		if !errors.Is(err, fault.Conflict) {
			return err
		}
		return b.afterConflict(ctx, flow.ID, fence, err)
	})
	if errors.Is(err, fault.Conflict) && fault.CodeOf(err) == fault.Conflict {
		err = errors.Join(err, b.disown(ctx, c)) // the consent was revoked while the code was on its way
	}
	if err != nil {
		return c, fault.Wrap(fault.Unavailable, err, "the token of provider %s could not be stored", p.Name)
	}
	return c, refused
}

// connectionOf is a new connection, of the flow.
func (b *Broker) connectionOf(flow Flow, key string) Connection {
	return Connection{
		Account: flow.Account, ID: "cn_" + random(15), Key: key, Workload: flow.Workload, User: flow.User, Provider: flow.Provider,
		Flow: FlowUserFederation, Asserted: flow.UserKind == string(identity.UIDUser), Resources: flow.Resources, Resource: flow.Resource,
		Audiences: flow.Audiences, Parameters: flow.Parameters, ParamNames: flow.ParamNames, Created: b.now(),
	}
}

// keepChallenge keeps what the provider asks of the user, where it said so when it refused a code.
func (b *Broker) keepChallenge(ctx context.Context, flow Flow, up *UpstreamError) error {
	key := flow.name().key()
	return b.commit(ctx, func(ctx context.Context) error {
		c, err := b.store.Connection(ctx, flow.Account, key)
		switch {
		case errors.Is(err, fault.NotFound):
			c = b.connectionOf(flow, key)
			c.Identity = flow.Identity
		case err != nil:
			return err
		}
		next, err := b.challenged(ctx, c, up)
		if err != nil {
			return err
		}
		if c.Generation > 0 { // a token that lives goes on
			next.State, next.Reason = c.State, c.Reason
		}
		return b.store.SwapConnection(ctx, next, c.Generation)
	})
}

// afterConflict tells the three meanings of a refused FinishRedeem apart: our own earlier write whose answer was lost
// (nil), a fence that moved on (the Conflict), and a connection whose generation moved (an error that commit retries).
func (b *Broker) afterConflict(ctx context.Context, id string, fence int64, conflict error) error {
	now, err := b.store.FlowByID(ctx, id)
	switch {
	case err != nil:
		return err
	case now.State == FlowRedeemed && now.Fence == fence:
		return nil
	case now.State != FlowRedeeming || now.Fence != fence:
		return conflict
	}
	return fault.Wrap(fault.Unavailable, conflict, "the connection was changed meanwhile")
}
