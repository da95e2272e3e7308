package broker

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// overtaken answers the poll of a session whose user has meanwhile consented in another one: from the connection of the
// same key, if it serves what the session asked for and is of the account that the session began with. The session ends
// first, so that a late callback replaces nothing. One that was forced waits for its own consent, which is to replace
// that connection. The second result says whether the poll was answered.
func (b *Broker) overtaken(ctx context.Context, g grounds, r Request, flow Flow) (Outcome, bool, error) {
	if flow.Force || flow.State == FlowRedeeming || flow.Identity != g.provider.Identity {
		return Outcome{}, false, nil
	}
	c, err := b.store.Connection(ctx, flow.Account, flow.name().key())
	if errors.Is(err, fault.NotFound) {
		return Outcome{}, false, nil
	}
	if err != nil {
		return Outcome{}, false, err
	}
	if !c.usable(g.provider) || !g.vendor.serves(c, flow.Requested) {
		return Outcome{}, false, nil
	}
	if same, err := b.sameAccount(ctx, flow, c); err != nil || !same {
		return Outcome{}, false, err
	}
	if !c.fresh(b.now()) {
		g, c, err = b.refreshed(ctx, g, r, c)
		if errors.Is(err, errConsentNeeded) {
			return Outcome{}, false, nil // nothing but a consent helps now, and this session may bring it
		}
		if err != nil {
			return Outcome{}, false, err
		}
	}
	f := g.facts
	f.Resource, f.Connection, f.Outcome = "session", c.ID, "overtaken"
	if err := b.guard.Permit(ctx, g.caller, access.GetResourceOauth2Token, f); err != nil {
		return Outcome{}, false, err
	}
	err = b.store.AnswerFlow(ctx, flow.Account, flow.ID, c.ID)
	if fault.CodeOf(err) == fault.Conflict {
		return Outcome{}, false, nil // it is being redeemed: its own consent answers it
	}
	if err != nil {
		return Outcome{}, false, err
	}
	flow.State, flow.Connection = FlowRedeemed, c.ID
	out, err := b.redeemed(ctx, g, r, flow)
	return out, true, err
}

// rememberAccount seals the account that the connection is of when a session begins, also one that is not known. It is
// empty where there is no connection, or one that a consent of the provider as it is now may replace with any account.
func (b *Broker) rememberAccount(ctx context.Context, flow Flow, had Connection) (vault.Sealed, error) {
	if had.ID == "" || had.Identity != flow.Identity {
		return nil, nil
	}
	u, err := b.openUpstream(ctx, had)
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(u)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the upstream account could not be written")
	}
	return b.vault.Seal(ctx, flow.ref("upstream"), secret.New(string(doc)))
}

// sameAccount reports whether the connection is of the account that it was of when the session began. An account that
// is not known is the same as none that is.
func (b *Broker) sameAccount(ctx context.Context, flow Flow, c Connection) (bool, error) {
	if len(flow.Upstream) == 0 {
		return true, nil
	}
	doc, err := b.vault.Open(ctx, flow.ref("upstream"), flow.Upstream)
	if err != nil {
		return false, err
	}
	var began upstream
	if err := json.Unmarshal([]byte(doc.Expose()), &began); err != nil {
		return false, fault.Wrap(fault.Internal, err, "the account that a session began with is damaged")
	}
	now, err := b.openUpstream(ctx, c)
	return began.Subject == now.Subject, err
}
