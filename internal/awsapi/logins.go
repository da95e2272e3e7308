package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

func (s *server) loginRoutes() {
	route(s, api.OpSetIssuerLogin, func(ctx context.Context, c access.Caller, q *api.SetIssuerLoginRequest) (*api.SetIssuerLoginResponse, error) {
		err := s.Identity.SetIssuerLogin(ctx, c, identity.NewLogin{Issuer: q.Issuer, ClientID: q.ClientID, Secret: hide(q.ClientSecret), Scopes: q.Scopes})
		if err != nil {
			return nil, err
		}
		return &api.SetIssuerLoginResponse{RedirectURI: s.Broker.LoginRedirectURI(c.Account, q.Issuer)}, nil
	})
}
