package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

func (s *server) workloadRoutes() {
	route(s, api.OpCreateWorkloadIdentity, func(ctx context.Context, c access.Caller, q *api.CreateWorkloadIdentityRequest) (*api.CreateWorkloadIdentityResponse, error) {
		w, err := s.Identity.CreateWorkload(ctx, c, identity.NewWorkload{Name: q.Name, ReturnURLs: q.AllowedResourceOauth2ReturnURLs, Tags: q.Tags})
		if err != nil {
			return nil, err
		}
		return &api.CreateWorkloadIdentityResponse{Name: w.Name, WorkloadIdentityARN: w.ARN(s.Region), AllowedResourceOauth2ReturnURLs: list(w.ReturnURLs)}, nil
	})
	route(s, api.OpGetWorkloadIdentity, func(ctx context.Context, c access.Caller, q *api.GetWorkloadIdentityRequest) (*api.GetWorkloadIdentityResponse, error) {
		w, err := s.Identity.GetWorkload(ctx, c, q.Name)
		if err != nil {
			return nil, err
		}
		return &api.GetWorkloadIdentityResponse{Name: w.Name, WorkloadIdentityARN: w.ARN(s.Region), AllowedResourceOauth2ReturnURLs: list(w.ReturnURLs),
			CreatedTime: api.At(w.Created), LastUpdatedTime: api.At(w.Updated)}, nil
	})
	route(s, api.OpUpdateWorkloadIdentity, func(ctx context.Context, c access.Caller, q *api.UpdateWorkloadIdentityRequest) (*api.UpdateWorkloadIdentityResponse, error) {
		w, err := s.Identity.UpdateWorkload(ctx, c, q.Name, q.AllowedResourceOauth2ReturnURLs)
		if err != nil {
			return nil, err
		}
		return &api.UpdateWorkloadIdentityResponse{Name: w.Name, WorkloadIdentityARN: w.ARN(s.Region), AllowedResourceOauth2ReturnURLs: list(w.ReturnURLs),
			CreatedTime: api.At(w.Created), LastUpdatedTime: api.At(w.Updated)}, nil
	})
	route(s, api.OpListWorkloadIdentities, func(ctx context.Context, c access.Caller, q *api.ListWorkloadIdentitiesRequest) (*api.ListWorkloadIdentitiesResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 20)
		if err != nil {
			return nil, err
		}
		found, next, err := s.Identity.ListWorkloads(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListWorkloadIdentitiesResponse{WorkloadIdentities: make([]api.WorkloadIdentityType, 0, len(found)), NextToken: cursor(next)}
		for _, w := range found {
			a.WorkloadIdentities = append(a.WorkloadIdentities, api.WorkloadIdentityType{Name: w.Name, WorkloadIdentityARN: w.ARN(s.Region)})
		}
		return a, nil
	})
	route(s, api.OpDeleteWorkloadIdentity, func(ctx context.Context, c access.Caller, q *api.DeleteWorkloadIdentityRequest) (*api.DeleteWorkloadIdentityResponse, error) {
		if err := s.Identity.DeleteWorkload(ctx, c, q.Name); err != nil {
			return nil, err
		}
		return &api.DeleteWorkloadIdentityResponse{}, nil
	})
}

// list makes an absent list an empty one: the SDKs' users expect [].
func list(in []string) []string {
	if in == nil {
		return []string{}
	}
	return in
}
