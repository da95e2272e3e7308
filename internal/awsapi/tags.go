package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
)

func (s *server) tagRoutes() {
	route(s, api.OpListTagsForResource, func(ctx context.Context, c access.Caller, q *api.ListTagsForResourceRequest) (*api.ListTagsForResourceResponse, error) {
		tags, err := s.Broker.Tags(ctx, c, q.ResourceARN)
		if err != nil {
			return nil, err
		}
		if tags == nil {
			tags = map[string]string{}
		}
		return &api.ListTagsForResourceResponse{Tags: tags}, nil
	})
	route(s, api.OpTagResource, func(ctx context.Context, c access.Caller, q *api.TagResourceRequest) (*api.TagResourceResponse, error) {
		if err := s.Broker.Tag(ctx, c, q.ResourceARN, q.Tags); err != nil {
			return nil, err
		}
		return &api.TagResourceResponse{}, nil
	})
	route(s, api.OpUntagResource, func(ctx context.Context, c access.Caller, q *api.UntagResourceRequest) (*api.UntagResourceResponse, error) {
		if err := s.Broker.Untag(ctx, c, q.ResourceARN, q.TagKeys); err != nil {
			return nil, err
		}
		return &api.UntagResourceResponse{}, nil
	})
}
