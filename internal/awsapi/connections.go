package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
)

func (s *server) connectionRoutes() {
	route(s, api.OpListConnections, s.listConnections)
	route(s, api.OpGetConnection, func(ctx context.Context, c access.Caller, q *api.GetConnectionRequest) (*api.GetConnectionResponse, error) {
		v, err := s.Broker.Connection(ctx, c, q.ConnectionID)
		if err != nil {
			return nil, err
		}
		return &api.GetConnectionResponse{Connection: connectionOf(v)}, nil
	})
	route(s, api.OpRevokeConnection, func(ctx context.Context, c access.Caller, q *api.RevokeConnectionRequest) (*api.RevokeConnectionResponse, error) {
		r, err := s.Broker.RevokeConnection(ctx, c, q.ConnectionID, q.SkipUpstream)
		if err != nil {
			return nil, err
		}
		return &api.RevokeConnectionResponse{Connection: connectionOf(r.View), Upstream: api.UpstreamRevocation(r.Upstream), Detail: r.Detail}, nil
	})
	route(s, api.OpDeleteConnection, func(ctx context.Context, c access.Caller, q *api.DeleteConnectionRequest) (*api.DeleteConnectionResponse, error) {
		if err := s.Broker.DeleteConnection(ctx, c, q.ConnectionID); err != nil {
			return nil, err
		}
		return &api.DeleteConnectionResponse{}, nil
	})
	route(s, api.OpTransferConnection, func(ctx context.Context, c access.Caller, q *api.TransferConnectionRequest) (*api.TransferConnectionResponse, error) {
		v, err := s.Broker.TransferConnection(ctx, c, q.ConnectionID, q.WorkloadName)
		if err != nil {
			return nil, err
		}
		return &api.TransferConnectionResponse{Connection: connectionOf(v)}, nil
	})
	route(s, api.OpReportTokenInvalid, func(ctx context.Context, c access.Caller, q *api.ReportTokenInvalidRequest) (*api.ReportTokenInvalidResponse, error) {
		state, err := s.Broker.ReportTokenInvalid(ctx, c, hide(q.WorkloadIdentityToken), q.ConnectionID)
		if err != nil {
			return nil, err
		}
		return &api.ReportTokenInvalidResponse{ConnectionState: api.ConnectionStateFilter(state)}, nil
	})
}

func (s *server) listConnections(ctx context.Context, c access.Caller, q *api.ListConnectionsRequest) (*api.ListConnectionsResponse, error) {
	after, limit, err := page(q.NextToken, q.MaxResults, 100)
	if err != nil {
		return nil, err
	}
	list, next, err := s.Broker.Connections(ctx, c, broker.ConnectionQuery{
		ConnectionFilter: broker.ConnectionFilter{
			Workload: q.WorkloadName, Provider: q.ProviderName, User: q.UserRef, State: broker.ConnectionState(q.State),
		},
		UserID: q.UserID, UserIssuer: q.UserIssuer, UserSubject: q.UserSubject,
	}, after, limit)
	if err != nil {
		return nil, err
	}
	a := &api.ListConnectionsResponse{Connections: make([]api.Connection, 0, len(list)), NextToken: cursor(next)}
	for _, v := range list {
		a.Connections = append(a.Connections, *connectionOf(v))
	}
	return a, nil
}

func connectionOf(v broker.ConnectionView) *api.Connection {
	a := &api.Connection{
		ConnectionID: v.ID, WorkloadName: v.WorkloadName, WorkloadUid: v.Workload, UserRef: v.User, Asserted: v.Asserted,
		ProviderName: v.ProviderName, Flow: v.Flow, State: api.ConnectionStateFilter(v.State), Reason: v.Reason,
		RequestedScopes: v.Requested, GrantedScopes: v.Granted, Resources: v.Resources, Audiences: v.Audiences, Resource: v.Resource, SharesGrantWith: v.SharesGrantWith, Parameters: v.ParamNames, TokenType: v.TokenType,
		Refreshable: v.Refreshable, Generation: v.Generation, CreatedTime: api.At(v.Created), LastUpdatedTime: api.At(v.Updated),
	}
	if !v.Expires.IsZero() {
		a.ExpiresAt = api.At(v.Expires)
	}
	return a
}
