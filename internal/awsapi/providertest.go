package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
)

func (s *server) providerTestRoutes() {
	route(s, api.OpTestProvider, func(ctx context.Context, c access.Caller, q *api.TestProviderRequest) (*api.TestProviderResponse, error) {
		checks, err := s.Broker.TestProvider(ctx, c, q.ProviderName, hide(q.UserToken))
		if err != nil {
			return nil, err
		}
		a := &api.TestProviderResponse{Checks: make([]api.ProviderCheck, 0, len(checks))}
		for _, k := range checks {
			if k.Hidden != nil {
				s.Log.InfoContext(ctx, "provider test", "request_id", access.RequestID(ctx), "account", c.Account,
					"provider", q.ProviderName, "check", k.Name, "error", k.Hidden.Error())
			}
			a.Checks = append(a.Checks, api.ProviderCheck{Name: k.Name, Status: api.CheckStatus(k.Status), Detail: k.Detail})
		}
		return a, nil
	})
}
