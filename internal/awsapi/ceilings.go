package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/ceiling"
	"github.com/tabard-id/tabard/internal/identity"
)

func (s *server) ceilingRoutes() {
	route(s, api.OpSetCeilings, func(ctx context.Context, c access.Caller, q *api.SetCeilingsRequest) (*api.SetCeilingsResponse, error) {
		l := ceiling.Limits{ReleasesPerMinute: q.Ceilings.ReleasesPerMinute, UsersPerHour: q.Ceilings.UsersPerHour, Freeze: q.Ceilings.Freeze}
		if err := s.Ceilings.Set(ctx, c, q.WorkloadName, l); err != nil {
			return nil, err
		}
		return &api.SetCeilingsResponse{Ceilings: ceilingsOf(l)}, nil
	})
	route(s, api.OpGetCeilings, func(ctx context.Context, c access.Caller, q *api.GetCeilingsRequest) (*api.GetCeilingsResponse, error) {
		held, err := s.Ceilings.Get(ctx, c, q.WorkloadName)
		if err != nil {
			return nil, err
		}
		at, err := s.Identity.Standing(ctx, c.Account, identity.WorkloadStanding, held.UID)
		if err != nil {
			return nil, err
		}
		return &api.GetCeilingsResponse{
			Ceilings: ceilingsOf(held.Limits), ReleasesThisMinute: held.Releases, UsersThisHour: held.Users, Status: standingOf(at).Status,
		}, nil
	})
}

func ceilingsOf(l ceiling.Limits) *api.Ceilings {
	return &api.Ceilings{ReleasesPerMinute: l.ReleasesPerMinute, UsersPerHour: l.UsersPerHour, Freeze: l.Freeze}
}
