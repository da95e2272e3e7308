package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/revocation"
)

func (s *server) revocationRoutes() {
	route(s, api.OpRevokeAccess, func(ctx context.Context, c access.Caller, q *api.RevokeAccessRequest) (*api.RevokeAccessResponse, error) {
		r, err := s.Revocation.RevokeAccess(ctx, c, revocation.Request{
			Workload: q.WorkloadName, User: selected(q.User), Provider: q.ProviderName, Whole: q.WholeAccount, Upstream: q.Upstream, Reason: q.Reason,
		})
		if err != nil {
			return nil, err
		}
		return &api.RevokeAccessResponse{Revocation: revocationOf(r)}, nil
	})
	route(s, api.OpGetRevocation, s.getRevocation)
	route(s, api.OpEraseUser, func(ctx context.Context, c access.Caller, q *api.EraseUserRequest) (*api.EraseUserResponse, error) {
		e, err := s.Revocation.EraseUser(ctx, c, *selected(q.User), q.Reason)
		if err != nil {
			return nil, err
		}
		return &api.EraseUserResponse{UserRef: e.User, ConnectionsRevoked: int64(e.Connections), Receipt: e.Receipt}, nil
	})
}

func (s *server) getRevocation(ctx context.Context, c access.Caller, q *api.GetRevocationRequest) (*api.GetRevocationResponse, error) {
	after, limit, err := page(q.NextToken, q.MaxResults, 100)
	if err != nil {
		return nil, err
	}
	r, items, next, err := s.Revocation.Revocation(ctx, c, q.RevocationID, after, limit)
	if err != nil {
		return nil, err
	}
	a := &api.GetRevocationResponse{
		Revocation: revocationOf(r), Items: make([]api.RevokedConnection, 0, len(items)), NextToken: cursor(next), Receipt: r.Receipt,
	}
	for _, i := range items {
		a.Items = append(a.Items, api.RevokedConnection{
			ConnectionID: i.Connection, WorkloadName: i.Workload, UserRef: i.User, ProviderName: i.Provider,
			Upstream: api.UpstreamRevocation(i.Upstream), Reason: i.Detail,
		})
	}
	return a, nil
}

func revocationOf(r revocation.Report) *api.Revocation {
	a := &api.Revocation{
		RevocationID: r.ID, State: api.RevocationStateRunning, Connections: int64(r.Connections),
		RevokedUpstream:     int64(r.Counts.Upstream[broker.RevocationDone]),
		PendingUpstream:     int64(r.Counts.Upstream[broker.RevocationPending]),
		FailedUpstream:      int64(r.Counts.Upstream[broker.RevocationFailed]),
		UnsupportedUpstream: int64(r.Counts.Upstream[broker.RevocationUnsupported]),
		// From the first phase on: the epochs rise before anything else.
		WorkloadAccessTokensEnded: r.Provider == "" && r.Phase != revocation.Begun,
		DelegationsEnded:          int64(r.Delegations), RequestedBy: r.Name, RequestedTime: api.At(r.Created), Reason: r.Reason,
	}
	if r.Phase == revocation.Done {
		a.State, a.FinishedTime = api.RevocationStateDone, api.At(r.Finished)
	}
	return a
}
