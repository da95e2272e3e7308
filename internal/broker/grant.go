package broker

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// Sharing says what a provider ends if one of a user's tokens is revoked.
type Sharing string

// Values of Sharing.
const (
	SharingUnknown Sharing = ""
	Shared         Sharing = "shared"   // all that this client has of the user
	Separate       Sharing = "separate" // the token, and what came of the same consent
)

// MaxMaxTokens bounds Vendor.MaxTokens.
const MaxMaxTokens = 1000

// UpstreamGrant is what a user of a provider granted a client there, as one connection knows it. Several connections
// may live on it: of other agents, for other resources, with other parameters.
type UpstreamGrant struct {
	Account    access.Account
	Connection string // id of the one that asks, which is left out; "" for none
	Provider   string // uid
	Identity   string // the provider's security identity
	User       string // reference
	Ref        string // Connection.GrantRef
	At         time.Time
}

// Leaving says what a connection leaves behind when it is revoked.
type Leaving struct {
	LastOfLineage bool          // nobody else lives on its lineage
	Grant         UpstreamGrant // zero unless the provider's grants are shared
	Alone         bool          // nobody else lives on Grant
}

// sharing is what the provider's setting says, else the vendor.
func (p Provider) sharing(v Vendor) Sharing {
	return cmp.Or(Sharing(p.Tags[identity.TagGrants]), v.Grants)
}

// maxTokens is what the provider's setting says, else the vendor; 0 for not known.
func (p Provider) maxTokens(v Vendor) int {
	n, _ := strconv.Atoi(p.Tags[identity.TagMaxTokens]) // it was checked when it was set
	return cmp.Or(n, v.MaxTokens)
}

// grantRef names the grant that tokens of u are of: a MAC under the server's key, so that a copy of the database does
// not tell which users have one account. It is "" if u is not known, and for tokens that are of no user's grant.
func (b *Broker) grantRef(ctx context.Context, c Connection, u upstream) (string, error) {
	if u.Subject == "" || c.Flow != FlowUserFederation {
		return "", nil
	}
	return b.macOf(ctx, "upstream-grant-1", string(c.Account), c.Identity, u.Subject)
}

func (b *Broker) grantOf(c Connection) UpstreamGrant {
	return UpstreamGrant{
		Account: c.Account, Connection: c.ID, Provider: c.Provider, Identity: c.Identity, User: c.User, Ref: c.GrantRef, At: b.now(),
	}
}

// grantOfRevocation leaves out no connection: that of r is revoked, or its user has consented to it anew.
func (b *Broker) grantOfRevocation(r Revocation) UpstreamGrant {
	return UpstreamGrant{
		Account: r.Account, Provider: r.Provider, Identity: r.Identity, User: r.User, Ref: r.GrantRef, At: b.now(),
	}
}

// leaving finds out who would be left if c were revoked, and says why the provider must not be told, or "".
func (b *Broker) leaving(ctx context.Context, c Connection) (l Leaving, why string, err error) {
	siblings, err := b.sharedWith(ctx, c)
	if err != nil {
		return l, "", err
	}
	if l.LastOfLineage = len(siblings) == 0; !l.LastOfLineage {
		why = "the provider is not told: the connections " + several(siblings) + " live on the same refresh token, which is revoked with the last of them"
	}
	others, shared, err := b.sharingWith(ctx, c)
	if err != nil || !shared {
		return l, why, err
	}
	l.Grant, l.Alone = b.grantOf(c), len(others) == 0
	if !l.Alone && why == "" {
		why = endsOthers(others)
	}
	return l, why, nil
}

func endsOthers(ids []string) string {
	return "the provider is not told: it would end the connections " + several(ids) + " too, which are of the same grant there; " +
		"it is told when the last of them is revoked. A token that is out is good until it expires"
}

// sharingWith returns the other connections that a revocation of c's tokens at the provider would end, and whether the
// provider is known to end others at all.
func (b *Broker) sharingWith(ctx context.Context, c Connection) (others []string, shared bool, err error) {
	if c.Flow != FlowUserFederation {
		return nil, false, nil
	}
	if shared, err = b.sharesGrants(ctx, c.Account, c.Provider); err != nil || !shared {
		return nil, false, err
	}
	others, err = b.store.Sharing(ctx, b.grantOf(c))
	return others, true, err
}

func (b *Broker) sharesGrants(ctx context.Context, account access.Account, uid string) (bool, error) {
	p, err := b.store.ProviderByUID(ctx, account, uid)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	v, _ := b.catalogue.Vendor(p.Vendor)
	return p.sharing(v) == Shared, nil
}

// crowdedGrant says, for the trail, that the provider has dropped or will drop the oldest refresh token of c's grant,
// or "".
func (b *Broker) crowdedGrant(ctx context.Context, c Connection, p Provider, v Vendor) (string, error) {
	most := p.maxTokens(v)
	if most == 0 {
		return "", nil
	}
	others, err := b.store.Sharing(ctx, b.grantOf(c))
	if err != nil || len(others) < most {
		return "", err
	}
	return "the provider keeps " + strconv.Itoa(most) + " refresh tokens of one user and client, and there are " +
		strconv.Itoa(len(others)+1) + " connections: the oldest may have ended", nil
}

// wouldEndOthers says, at the moment of a try, what becomes of a revocation with which the provider would end other
// connections too, and why: somebody may have consented since it was begun. The state is "" if it would end none.
func (b *Broker) wouldEndOthers(ctx context.Context, r Revocation) (state RevocationState, why string, err error) {
	shared, err := b.sharesGrants(ctx, r.Account, r.Provider)
	if err != nil || !shared {
		return "", "", err
	}
	g := b.grantOfRevocation(r)
	switch c, err := b.store.ConnectionByID(ctx, r.Account, r.Connection); {
	case err == nil && c.Flow != FlowUserFederation:
		return "", "", nil
	case err != nil && !errors.Is(err, fault.NotFound):
		return "", "", err
	}
	ids, err := b.store.Sharing(ctx, g)
	if err != nil {
		return "", "", err
	}
	if len(ids) > 0 {
		return RevocationSkipped, endsOthers(ids), nil
	}
	busy, err := b.store.BeingRedeemed(ctx, g)
	if err != nil || !busy {
		return "", "", err
	}
	return RevocationPending, "a consent of this user is being completed, and the provider would end what it brings", nil
}
