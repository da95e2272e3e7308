package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
)

func (s *server) restoreRoutes() {
	route(s, api.OpAddReturnUrl, func(ctx context.Context, c access.Caller, q *api.AddReturnUrlRequest) (*api.AddReturnUrlResponse, error) {
		w, err := s.Identity.AddReturnURL(ctx, c, q.WorkloadName, q.URL)
		if err != nil {
			return nil, err
		}
		return &api.AddReturnUrlResponse{AllowedResourceOauth2ReturnURLs: list(w.ReturnURLs)}, nil
	})
	route(s, api.OpRemoveReturnUrl, func(ctx context.Context, c access.Caller, q *api.RemoveReturnUrlRequest) (*api.RemoveReturnUrlResponse, error) {
		w, err := s.Identity.RemoveReturnURL(ctx, c, q.WorkloadName, q.URL)
		if err != nil {
			return nil, err
		}
		return &api.RemoveReturnUrlResponse{AllowedResourceOauth2ReturnURLs: list(w.ReturnURLs)}, nil
	})
	route(s, api.OpRestoreWorkloadIdentity, func(ctx context.Context, c access.Caller, q *api.RestoreWorkloadIdentityRequest) (*api.RestoreWorkloadIdentityResponse, error) {
		w, err := s.Identity.RestoreWorkload(ctx, c, q.WorkloadName)
		if err != nil {
			return nil, err
		}
		return &api.RestoreWorkloadIdentityResponse{WorkloadName: w.Name, WorkloadIdentityARN: w.ARN(s.Region), WorkloadUid: w.UID}, nil
	})
}
