package broker

import (
	"context"
	"errors"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// ConnectionView is what people see of a connection: everything but what is sealed.
type ConnectionView struct {
	Connection   // Access and Refresh are always empty
	WorkloadName string
	ProviderName string
	Refreshable  bool // a refresh token is stored

	// Other connections that the provider would end with this one: so it is told of a revocation with the last of them.
	// Only Connection looks for them.
	SharesGrantWith []string
}

// ConnectionFilter selects connections; what is empty selects nothing away.
type ConnectionFilter struct {
	Workload string // name: also of a workload identity that was deleted
	Provider string // name
	User     string // user reference
	State    ConnectionState
}

// ConnectionQuery is a ConnectionFilter whose user may be named instead of referred to. At most one way may be used.
type ConnectionQuery struct {
	ConnectionFilter
	UserID      string // a user whom a caller asserted
	UserIssuer  string // with UserSubject, a user of a token
	UserSubject string
}

// InventoryStore is how people look after connections. Reads are never from a cache, and have no ciphertext.
type InventoryStore interface {
	// ConnectionViews returns up to limit connections with ids after the given one, ordered by id.
	ConnectionViews(ctx context.Context, account access.Account, f ConnectionFilter, after string, limit int) ([]ConnectionView, error)
	ConnectionView(ctx context.Context, account access.Account, id string) (ConnectionView, error)
	// MoveConnection replaces the row of oldKey by c, which has another key, where its generation is still oldGeneration
	// and its state is active; else it returns Conflict, and also where c.Key exists. The fence rises.
	// If l has an ID, it replaces the lineage of that ID in the same transaction, if no lease of it lives, its generation
	// is the one before l's and no other connection that is not revoked lives on it; else it returns Conflict.
	MoveConnection(ctx context.Context, c Connection, oldKey string, oldGeneration int64, l Lineage) error
	// DeleteConnection removes the row, with what is sealed in it and its attempts, and its lineage.
	DeleteConnection(ctx context.Context, account access.Account, id string) error
	// LastAttempt returns the newest attempt on subject, or NotFound.
	LastAttempt(ctx context.Context, account access.Account, subject string) (Attempt, error)
}

// maxSubject bounds the subject of a user in a query.
const maxSubject = 1024

// Connections returns up to limit connections with ids after the given one, and the id to continue after, or "". It
// opens nothing that is sealed.
func (b *Broker) Connections(ctx context.Context, caller access.Caller, q ConnectionQuery, after string, limit int) ([]ConnectionView, string, error) {
	ref, err := b.userRefOf(ctx, caller, q)
	facts := access.Facts{Workload: q.Workload, Provider: q.Provider, UserRef: ref}
	if denied := b.guard.Permit(ctx, caller, access.ListConnections, facts); denied != nil {
		return nil, "", denied
	}
	if err != nil {
		return nil, "", err
	}
	q.User = ref
	list, err := b.store.ConnectionViews(ctx, caller.Account, q.ConnectionFilter, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	if len(list) > limit {
		return list[:limit], list[limit-1].ID, nil
	}
	return list, "", nil
}

// userRefOf returns the reference of the user that q names, "" where it names none.
func (b *Broker) userRefOf(ctx context.Context, caller access.Caller, q ConnectionQuery) (string, error) {
	ways := 0
	for _, given := range []string{q.User, q.UserID, q.UserIssuer + q.UserSubject} {
		if given != "" {
			ways++
		}
	}
	switch {
	case ways > 1:
		return "", fault.Field("userRef", "name the user by one of userRef, userId, or userIssuer with userSubject")
	case q.User != "":
		return q.User, nil
	case q.UserID != "":
		u, err := identity.AssertedUser(q.UserID)
		if err != nil {
			return "", err
		}
		return b.identity.UserRef(ctx, caller.Account, u)
	case ways == 0:
		return "", nil
	case q.UserIssuer == "":
		return "", fault.Field("userIssuer", "is needed with userSubject")
	case q.UserSubject == "" || len(q.UserSubject) > maxSubject:
		return "", fault.Field("userSubject", "is needed with userIssuer, in at most %d bytes", maxSubject)
	}
	return b.identity.UserRef(ctx, caller.Account, identity.User{Kind: identity.JWTUser, Issuer: q.UserIssuer, Subject: q.UserSubject})
}

// Connection returns one connection. Another account's is NotFound. It opens nothing that is sealed.
func (b *Broker) Connection(ctx context.Context, caller access.Caller, id string) (ConnectionView, error) {
	v, err := b.permitConnection(ctx, caller, access.GetConnection, id, "")
	if err != nil || v.State == Revoked {
		return v, err
	}
	v.SharesGrantWith, _, err = b.sharingWith(ctx, v.Connection)
	return v, err
}

// DeleteConnection removes a connection with what is sealed in it. Nobody is told at the provider: RevokeConnection
// does that, and a revocation that it left pending goes on. A refresh token that other connections live on too is
// deleted with it, since it would bring the deleted one's token again without the user: they are good until their
// access tokens end.
func (b *Broker) DeleteConnection(ctx context.Context, caller access.Caller, id string) error {
	others := func() string {
		c, err := b.store.ConnectionByID(ctx, caller.Account, id)
		if err != nil {
			return ""
		}
		if ids, err := b.sharedWith(ctx, c); err == nil && len(ids) > 0 {
			return "the refresh token goes with it, which these live on too: " + several(ids)
		}
		return ""
	}
	if _, err := b.permitConnection(ctx, caller, access.DeleteConnection, id, others()); err != nil {
		return err
	}
	return b.store.DeleteConnection(ctx, caller.Account, id)
}

// permitConnection decides before it tells whether the connection exists. detail is for the record.
func (b *Broker) permitConnection(ctx context.Context, caller access.Caller, action access.Action, id, detail string) (ConnectionView, error) {
	v, lookup := b.store.ConnectionView(ctx, caller.Account, id)
	if lookup != nil && !errors.Is(lookup, fault.NotFound) {
		return ConnectionView{}, lookup
	}
	facts := access.Facts{Connection: id, Detail: detail}
	if lookup == nil {
		facts = v.facts("", detail)
	}
	if err := b.guard.Permit(ctx, caller, action, facts); err != nil {
		return ConnectionView{}, err
	}
	return v, lookup
}

// facts are what the trail says of the connection.
func (v ConnectionView) facts(outcome, detail string) access.Facts {
	return access.Facts{
		Workload: v.WorkloadName, WorkloadUID: v.Workload, UserRef: v.User, Asserted: v.Asserted, Provider: v.ProviderName,
		Flow: v.Flow, Scopes: v.Granted, Connection: v.ID, Generation: v.Generation, Outcome: outcome, Detail: detail,
	}
}

// TransferConnection gives a connection to another workload identity of the account: its tokens are sealed anew under
// the new owner, in the one write that takes them from the old one. It returns Conflict where the connection is not
// active, is being used meanwhile, or where the target has such a connection already (in whatever state); NotFound for
// an unknown connection or workload identity; and Invalid where the target accepts no asserted users and this is one's.
func (b *Broker) TransferConnection(ctx context.Context, caller access.Caller, id, workload string) (ConnectionView, error) {
	v, err := b.permitConnection(ctx, caller, access.TransferConnection, id, "to workload identity "+workload)
	if err != nil {
		return ConnectionView{}, err
	}
	to, err := b.identity.FindWorkload(ctx, caller.Account, workload)
	if err != nil {
		return ConnectionView{}, err
	}
	c, err := b.store.ConnectionByID(ctx, caller.Account, id)
	if err != nil {
		return ConnectionView{}, err
	}
	if err := transferable(c, v, to); err != nil {
		return ConnectionView{}, err
	}
	moved, err := b.reseal(ctx, c, to.UID)
	if err != nil {
		return ConnectionView{}, err
	}
	l, err := b.moveLineage(ctx, c, moved)
	if err != nil {
		return ConnectionView{}, err
	}
	if err := b.store.MoveConnection(ctx, moved, c.Key, c.Generation, l); err != nil {
		return ConnectionView{}, err
	}
	from := v.WorkloadName
	v.Connection, v.WorkloadName = moved, to.Name
	v.Access, v.Refresh, v.Attributes, v.Upstream, v.Claims = nil, nil, nil, nil, nil
	event := b.guard.Event(ctx, caller, access.TransferConnection, v.facts("transferred", "from workload identity "+from))
	return v, event.Wait(ctx)
}

// moveLineage is the lineage that c alone lives on, sealed for what it is moved to. It has no ID if there is none.
func (b *Broker) moveLineage(ctx context.Context, c, moved Connection) (Lineage, error) {
	if others, err := b.sharedWith(ctx, c); err != nil {
		return Lineage{}, err
	} else if len(others) > 0 {
		return Lineage{}, fault.New(fault.Conflict, "connection %q lives on one refresh token with %s, and two workload identities cannot share one: "+
			"revoke those first (tabard connection revoke ID)", c.ID, several(others))
	}
	l, err := b.store.Lineage(ctx, c.Account, c.Lineage)
	if c.Lineage == "" || errors.Is(err, fault.NotFound) {
		return Lineage{}, nil
	}
	if err != nil {
		return Lineage{}, err
	}
	token, u, err := b.openLineage(ctx, l)
	if err != nil {
		return Lineage{}, err
	}
	l.Workload, l.Family = moved.Workload, moved.name().family()
	return b.nextLineage(ctx, l, token, u)
}

func transferable(c Connection, v ConnectionView, to identity.Workload) error {
	switch {
	case c.Workload == to.UID:
		return fault.New(fault.Conflict, "connection %q belongs to workload identity %s already", c.ID, to.Name)
	case c.Flow != FlowUserFederation:
		return fault.New(fault.Conflict, "connection %q is of the flow %s: only a user's consent can be transferred, other tokens are fetched anew by who asks", c.ID, c.Flow)
	case c.State != Active:
		return fault.New(fault.Conflict, "connection %q is %s, and only an active one can be transferred", c.ID, c.State)
	case c.Asserted && !to.Assertable():
		return fault.Field("workloadName", "workload identity %s accepts no asserted users, and connection %q is of one", to.Name, v.ID)
	}
	return nil
}

// reseal makes c the next generation of a connection of another workload identity.
func (b *Broker) reseal(ctx context.Context, c Connection, workload string) (Connection, error) {
	next := c
	next.Workload, next.Generation, next.Updated = workload, c.Generation+1, b.now()
	next.Key = next.name().key()
	for _, t := range []struct {
		column   string
		from, to *[]byte
	}{
		{"access", (*[]byte)(&c.Access), (*[]byte)(&next.Access)},
		{"refresh", (*[]byte)(&c.Refresh), (*[]byte)(&next.Refresh)},
		{"extra", (*[]byte)(&c.Attributes), (*[]byte)(&next.Attributes)},
		{"upstream", (*[]byte)(&c.Upstream), (*[]byte)(&next.Upstream)},
		{"claims", (*[]byte)(&c.Claims), (*[]byte)(&next.Claims)},
	} {
		if len(*t.from) == 0 {
			continue
		}
		token, err := b.vault.Open(ctx, c.ref(t.column), *t.from)
		if err != nil {
			return next, err
		}
		sealed, err := b.vault.Seal(ctx, next.ref(t.column), token)
		if err != nil {
			return next, err
		}
		*t.to = sealed
	}
	return next, nil
}
