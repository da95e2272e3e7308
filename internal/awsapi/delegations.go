package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

func (s *server) delegationRoutes() {
	route(s, api.OpCreateDelegation, func(ctx context.Context, c access.Caller, q *api.CreateDelegationRequest) (*api.CreateDelegationResponse, error) {
		n := identity.NewDelegation{Workload: q.WorkloadName, JWT: hide(q.UserToken), Until: q.Until.Time, Note: q.Note}
		for _, g := range q.Grants {
			n.Grants = append(n.Grants, identity.Grant{Provider: g.ProviderName, Kind: identity.ProviderKind(g.ProviderKind), Scopes: g.Scopes})
		}
		d, err := s.Identity.CreateDelegation(ctx, c, n, s.Broker)
		if err != nil {
			return nil, err
		}
		return &api.CreateDelegationResponse{Delegation: delegationOf(d)}, nil
	})
	route(s, api.OpListDelegations, s.listDelegations)
	route(s, api.OpEndDelegation, func(ctx context.Context, c access.Caller, q *api.EndDelegationRequest) (*api.EndDelegationResponse, error) {
		d, err := s.Identity.EndDelegation(ctx, c, q.DelegationID, hide(q.UserToken))
		if err != nil {
			return nil, err
		}
		return &api.EndDelegationResponse{Delegation: delegationOf(d)}, nil
	})
	route(s, api.OpGetWorkloadAccessTokenForDelegation, func(ctx context.Context, c access.Caller, q *api.GetWorkloadAccessTokenForDelegationRequest) (*api.GetWorkloadAccessTokenForDelegationResponse, error) {
		m, err := s.Identity.MintTokenForDelegation(ctx, c, q.WorkloadName, q.DelegationID)
		if err != nil {
			return nil, err
		}
		return &api.GetWorkloadAccessTokenForDelegationResponse{WorkloadAccessToken: show(m.Token), ExpiresAt: api.At(m.Expires)}, nil
	})
}

func (s *server) listDelegations(ctx context.Context, c access.Caller, q *api.ListDelegationsRequest) (*api.ListDelegationsResponse, error) {
	after, limit, err := page(q.NextToken, q.MaxResults, 100)
	if err != nil {
		return nil, err
	}
	query := identity.DelegationQuery{Workload: q.WorkloadName, User: selected(q.User), JWT: hide(q.UserToken)}
	found, next, err := s.Identity.ListDelegations(ctx, c, query, after, limit)
	if err != nil {
		return nil, err
	}
	a := &api.ListDelegationsResponse{Delegations: make([]api.Delegation, 0, len(found)), NextToken: cursor(next)}
	for _, d := range found {
		a.Delegations = append(a.Delegations, *delegationOf(d))
	}
	return a, nil
}

func delegationOf(d identity.DelegationView) *api.Delegation {
	a := &api.Delegation{
		DelegationID: d.ID, WorkloadName: d.WorkloadName, UserRef: d.UserRef, State: api.DelegationState(d.State), Until: api.At(d.Until),
		Note: d.Note, CreatedTime: api.At(d.Created),
	}
	for _, g := range d.Grants {
		a.Grants = append(a.Grants, api.DelegationGrant{ProviderName: g.Provider, ProviderKind: api.ProviderKind(g.Kind), Scopes: g.Scopes})
	}
	if !d.Ended.IsZero() {
		a.EndedTime = api.At(d.Ended)
	}
	if !d.LastUsed.IsZero() {
		a.LastUsedTime = api.At(d.LastUsed)
	}
	return a
}
