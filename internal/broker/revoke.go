package broker

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/vault"
)

// RevocationState is what became of a revocation at the provider.
type RevocationState string

// Values of RevocationState.
const (
	RevocationPending     RevocationState = "pending"     // it is tried again
	RevocationDone        RevocationState = "revoked"     // the provider confirmed it
	RevocationUnsupported RevocationState = "unsupported" // the provider offers none
	RevocationFailed      RevocationState = "failed"      // the provider refused, or did not answer in any of the tries
	RevocationSkipped     RevocationState = "skipped"     // nobody asked for it, or there was no token
)

// Revocation is a token to revoke at its provider. The ciphertext is the connection's, under the Ref it always had: so
// revoking needs nothing of the key service, and the token can go nowhere but to the provider it is bound to.
type Revocation struct {
	Account    access.Account
	ID         string
	Connection string // id of the connection, which may be gone
	Column     string // of the connection that the token was in: "refresh" or "access"; or inLineage
	Key        string // of the connection, as are the next five
	Workload   string
	User       string
	Provider   string
	Generation int64
	Identity   string
	GrantRef   string       // of the connection
	Token      vault.Sealed // empty once it has ended
	State      RevocationState
	Detail     string // of the last try, cleaned
	Tries      int
	Fence      int64     // rises with every try
	Due        time.Time // not tried before
	Created    time.Time
	Updated    time.Time
}

func (r Revocation) ref() vault.Ref {
	if r.Column == inLineage {
		return vault.Ref{
			Account: r.Account, Table: "lineages", Column: "refresh", Key: r.Key, Workload: r.Workload, User: r.User,
			Provider: r.Provider, Identity: r.Identity,
		}
	}
	return Connection{
		Account: r.Account, Key: r.Key, Workload: r.Workload, User: r.User, Provider: r.Provider, Generation: r.Generation, Identity: r.Identity,
	}.ref(r.Column)
}

// OfOther reports whether the revocation is of a token of a lineage, and not of this generation of l.
func (r Revocation) OfOther(l Lineage) bool { return r.Column == inLineage && r.Key != l.place() }

// hint is the token_type_hint of the token (RFC 7009 §2.1).
func (r Revocation) hint() string {
	if r.Column == "access" {
		return "access_token"
	}
	return "refresh_token"
}

// RevocationStore keeps revocations. Times of leases are the database's; Due is the core's.
type RevocationStore interface {
	// RevokeConnection replaces the row of c.Key by c where its generation is still oldGeneration, else returns Conflict.
	// The fence rises and the lease is cleared. Where r has an ID, the same transaction adds it, leased for ttl. If no
	// connection is left on c's lineage, that is deleted. It returns Conflict too if what leaving says, or the generation
	// of a lineage that r is of, is not so any more: of several that leave at once one is the last.
	RevokeConnection(ctx context.Context, c Connection, oldGeneration int64, r Revocation, ttl time.Duration, leaving Leaving) error
	// Sharing returns the ids of the other connections that live on a grant, ordered, at most MaxMaxTokens of them.
	Sharing(ctx context.Context, of UpstreamGrant) ([]string, error)
	// BeingRedeemed reports whether a code of the same user at the same provider is being redeemed.
	BeingRedeemed(ctx context.Context, of UpstreamGrant) (bool, error)
	// AddRevocation adds a pending one that nobody has leased.
	AddRevocation(ctx context.Context, r Revocation) error
	// LeaseRevocation takes the pending one that is due by t for longest and that nobody has leased: its fence and tries
	// rise, and it is leased for ttl. It returns NotFound where there is none.
	LeaseRevocation(ctx context.Context, t time.Time, ttl time.Duration) (Revocation, error)
	// FinishRevocation stores state, detail, due and token where the fence is still r.Fence, else returns Conflict; and
	// clears the lease.
	FinishRevocation(ctx context.Context, r Revocation) error
	// RevocationOf returns the newest revocation of the connection, or NotFound.
	RevocationOf(ctx context.Context, account access.Account, connection string) (Revocation, error)
	// SweepRevocations deletes those that ended before t, at most limit, and returns how many.
	SweepRevocations(ctx context.Context, t time.Time, limit int) (int, error)
}

const (
	maxRevocationTries  = 8
	revocationPatience  = 6 * time.Hour      // the longest wait between two tries
	revocationsRemember = 7 * 24 * time.Hour // how long the outcome can be asked for
	revocationsPerSweep = 20                 // each may take as long as a provider may
)

// RevokeOutcome is the answer to RevokeConnection.
type RevokeOutcome struct {
	View     ConnectionView
	Upstream RevocationState
	Detail   string
}

// RevokeConnection erases the connection's tokens and sets it to revoked, durably, whatever the provider says. Then it
// revokes the refresh token (or, without one or where the vendor takes no other, the access token) at the provider, by
// RFC 7009 or the vendor's way, unless skip is set: once at once, and where that comes to nothing again in the
// background. Revoking what is revoked tells what became of it.
func (b *Broker) RevokeConnection(ctx context.Context, caller access.Caller, id string, skip bool) (RevokeOutcome, error) {
	v, err := b.permitConnection(ctx, caller, access.RevokeConnection, id, "")
	if err != nil {
		return RevokeOutcome{}, err
	}
	c, r, err := b.revokeHere(ctx, caller.Account, id, skip, true)
	if err != nil {
		return RevokeOutcome{}, err
	}
	v.Connection, v.Refreshable = c, false
	v.Access, v.Refresh, v.Attributes, v.Upstream, v.Claims = nil, nil, nil, nil, nil
	out := RevokeOutcome{View: v, Upstream: RevocationSkipped}
	if r.ID == "" && r.Detail == "" {
		return b.alreadyRevoked(ctx, caller, out, c)
	}
	// What was begun ends even if the caller goes away: the local half is durable, and the trail must say so.
	ctx = context.WithoutCancel(ctx)
	if err := b.guard.Event(ctx, caller, access.RevokeConnection, v.facts("revoked", r.Detail)).Wait(ctx); err != nil {
		return RevokeOutcome{}, err
	}
	if out.Detail = r.Detail; r.ID == "" {
		return out, nil
	}
	r, err = b.tryRevocation(ctx, caller, r)
	out.Upstream, out.Detail = r.State, r.Detail
	return out, err
}

// alreadyRevoked answers where this call left nothing to do at the provider: an earlier call's outcome, where there is
// one that is still remembered.
func (b *Broker) alreadyRevoked(ctx context.Context, caller access.Caller, out RevokeOutcome, c Connection) (RevokeOutcome, error) {
	r, err := b.store.RevocationOf(ctx, c.Account, c.ID)
	switch {
	case err == nil && r.Generation == c.Generation-1: // a connection may be revoked, consented to and revoked again
		out.Upstream, out.Detail = r.State, r.Detail
	case err != nil && !errors.Is(err, fault.NotFound):
		return RevokeOutcome{}, err
	}
	return out, b.guard.Event(ctx, caller, access.RevokeConnection, out.View.facts("revoked", string(out.Upstream))).Wait(ctx)
}

// revokeHere does the local half. The revocation has no ID where none was begun; if that is because other connections
// live on the same refresh token, or would end with it at the provider, its Detail names them. With now it is leased,
// for the try that follows; else SweepRevocations makes the first one.
func (b *Broker) revokeHere(ctx context.Context, account access.Account, id string, skip, now bool) (Connection, Revocation, error) {
	const tries = 5 // each loses to somebody who changed the row
	for try := 1; ; try++ {
		c, err := b.store.ConnectionByID(ctx, account, id)
		if err != nil || c.State == Revoked {
			return c, Revocation{}, err
		}
		var r Revocation
		var ttl time.Duration
		leaving, why, err := b.leaving(ctx, c)
		if err != nil {
			return c, r, err
		}
		if why != "" && !skip {
			r.Detail = why
		} else if !skip && (len(c.Refresh) > 0 || len(c.Access) > 0 || c.Lineage != "") {
			if r, err = b.revocationOf(ctx, c); err != nil {
				return c, Revocation{}, err
			}
			if now {
				r.Tries, r.Fence, ttl = 1, 1, leaseTTL // the try that follows
			}
		}
		next := c
		next.Access, next.Refresh, next.Attributes, next.Upstream, next.Claims, next.Expires = nil, nil, nil, nil, nil, time.Time{}
		next.State, next.Reason, next.Generation, next.Updated = Revoked, "revoked", c.Generation+1, b.now()
		err = b.store.RevokeConnection(ctx, next, c.Generation, r, ttl, leaving)
		if !errors.Is(err, fault.Conflict) || try == tries {
			return next, r, err
		}
	}
}

// revocationOf is the revocation of c's refresh token or, without one, its access token. Where the vendor takes access
// tokens only it is of that, unless it has expired and the grant lives on in a refresh token: to call the grant revoked
// because its access token is dead would be wrong, so revokeUpstream then says that it could not.
func (b *Broker) revocationOf(ctx context.Context, c Connection) (Revocation, error) {
	p, err := b.store.ProviderByUID(ctx, c.Account, c.Provider)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return Revocation{}, err
	}
	vendor, _ := b.catalogue.Vendor(p.Vendor)
	if c.Lineage != "" && vendor.Revoke.Token != "access_token" {
		l, err := b.store.Lineage(ctx, c.Account, c.Lineage)
		if !errors.Is(err, fault.NotFound) {
			return b.lineageRevocation(c, l), err
		}
	}
	r := Revocation{
		Account: c.Account, ID: "rv_" + random(15), Connection: c.ID, Column: "refresh", Key: c.Key, Workload: c.Workload, User: c.User,
		Provider: c.Provider, Generation: c.Generation, Identity: c.Identity, GrantRef: c.GrantRef, Token: c.Refresh, State: RevocationPending,
		Due: b.now(), Created: b.now(), Updated: b.now(),
	}
	valid := len(c.Access) > 0 && (c.Expires.IsZero() || c.Expires.After(b.now()))
	if len(c.Refresh) == 0 || vendor.Revoke.Token == "access_token" && valid {
		r.Column, r.Token = "access", c.Access
	}
	return r, nil
}

// tryRevocation makes one try under the lease that the caller has, stores what came of it, and records it.
func (b *Broker) tryRevocation(ctx context.Context, caller access.Caller, r Revocation) (Revocation, error) {
	r.Updated = b.now()
	var err error
	if r.State, r.Detail, err = b.wouldEndOthers(ctx, r); r.State == "" && err == nil {
		r.State, err = b.revokeUpstream(ctx, r)
	}
	if err != nil {
		r.State, r.Detail = cmp.Or(r.State, mendable(err)), detail(err)
	}
	if r.State == RevocationPending && r.Tries >= maxRevocationTries {
		r.State = RevocationFailed
	}
	if r.State == RevocationPending {
		r.Due = r.Updated.Add(min(time.Minute<<(2*(r.Tries-1)), revocationPatience))
	} else {
		r.Token = nil
	}
	err = b.commit(ctx, func(ctx context.Context) error { return b.store.FinishRevocation(ctx, r) })
	switch {
	case errors.Is(err, fault.Conflict): // the lease ran out, and another makes its own try and record
		return r, nil
	case err != nil:
		return r, err
	}
	facts := access.Facts{
		WorkloadUID: r.Workload, UserRef: r.User, Connection: r.Connection, Generation: r.Generation,
		Outcome: "upstream_" + string(r.State), Detail: r.Detail,
	}
	return r, b.guard.Event(context.WithoutCancel(ctx), caller, access.RevokeConnection, facts).Wait(ctx)
}

// revokeUpstream asks the provider once. The error says why the state is not RevocationDone.
func (b *Broker) revokeUpstream(ctx context.Context, r Revocation) (RevocationState, error) {
	p, err := b.store.ProviderByUID(ctx, r.Account, r.Provider)
	if err != nil {
		return mendable(err), err
	}
	vendor, known := b.catalogue.Vendor(p.Vendor)
	if !known || p.Identity != r.Identity {
		// The provider was edited since the token came: to send it there would redirect a stored token.
		return RevocationFailed, fault.New(fault.Conflict, "the provider was changed")
	}
	endpoints, clientSecret, err := b.client(ctx, p)
	if err != nil {
		return mendable(err), err
	}
	if endpoints.Revocation != "" {
		vendor.Revoke = RevokeRecipe{} // what metadata names is RFC 7009's
	}
	if endpoints.Revocation = revocationEndpoint(endpoints, p, vendor); endpoints.Revocation == "" {
		return RevocationUnsupported, nil
	}
	if only := vendor.Revoke.Token; only != "" && only != r.hint() {
		return RevocationFailed, fault.New(fault.Conflict, "this vendor revokes by a valid %s only, and there was none", only)
	}
	token, err := b.vault.Open(ctx, r.ref(), r.Token)
	if err != nil {
		return mendable(err), err
	}
	err = b.upstream.Revoke(ctx, endpoints, p, vendor, clientSecret, token, r.hint())
	up, ok := errors.AsType[*UpstreamError](err)
	switch {
	case err == nil:
		return RevocationDone, nil
	case ok && up.Kind == Rejected:
		return RevocationFailed, err
	case ok: // revoking twice is harmless (RFC 7009 §2.2)
		return RevocationPending, err
	}
	return mendable(err), err
}

// mendable says what a failure of our own means: what may pass by itself or be mended is tried again.
func mendable(err error) RevocationState {
	switch fault.CodeOf(err) {
	case fault.Unavailable, fault.Denied:
		return RevocationPending
	}
	return RevocationFailed
}

// revocationEndpoint is where the provider takes revocations, or "". What metadata names must be on the host of the
// token endpoint, which is pinned: it gets the client secret and a token (threat E18). A vendor's own stands in where
// the metadata names none. It is relative to the token endpoint, or another address of the vendor's, which only a
// provider at the vendor's own token endpoint is revoked at.
func revocationEndpoint(e Endpoints, p Provider, v Vendor) string {
	at, err := url.Parse(e.Token)
	if err != nil {
		return ""
	}
	if e.Revocation != "" {
		u, err := url.Parse(e.Revocation)
		if err != nil || u.Scheme != at.Scheme || u.Host != at.Host {
			return ""
		}
		return e.Revocation
	}
	if v.Revocation == "" || p.ClientID == "." || p.ClientID == ".." {
		return ""
	}
	u, err := at.Parse(strings.ReplaceAll(v.Revocation, "{client_id}", url.PathEscape(p.ClientID)))
	if err != nil {
		return ""
	}
	if own, err := url.Parse(v.TokenEndpoint); u.Host != at.Host && (err != nil || own.Scheme != at.Scheme || own.Host != at.Host) {
		return ""
	}
	return u.String()
}

// SweepRevocations makes the tries that are due, each leased so that replicas do not double it, and forgets what ended
// a week ago. It returns how many it made. It is for the background: it takes as long as the providers take.
func (b *Broker) SweepRevocations(ctx context.Context) (int, error) {
	made := 0
	for ; made < revocationsPerSweep && ctx.Err() == nil; made++ {
		r, err := b.store.LeaseRevocation(ctx, b.now(), leaseTTL)
		if errors.Is(err, fault.NotFound) {
			break
		}
		if err != nil {
			return made, err
		}
		if _, err := b.tryRevocation(ctx, access.Caller{Account: r.Account}, r); err != nil {
			return made, err
		}
	}
	_, err := b.store.SweepRevocations(ctx, b.now().Add(-revocationsRemember), 1000)
	return made, err
}

// disown revokes, in the background, what a refresh brought for a connection that was revoked or deleted meanwhile:
// nobody else knows the new token. It does its best: where it fails, the token expires at the provider unused.
func (b *Broker) disown(ctx context.Context, c Connection) error {
	now, err := b.store.ConnectionByID(ctx, c.Account, c.ID)
	if err == nil && now.State != Revoked || err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	r, err := b.revocationOf(ctx, c)
	if err != nil {
		return err
	}
	return b.store.AddRevocation(ctx, r)
}
