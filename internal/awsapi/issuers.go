package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

func (s *server) issuerRoutes() {
	route(s, api.OpCreateTrustedIssuer, func(ctx context.Context, c access.Caller, q *api.CreateTrustedIssuerRequest) (*api.CreateTrustedIssuerResponse, error) {
		i, err := s.Identity.CreateIssuer(ctx, c, identity.Issuer{
			URL: q.Issuer, Audiences: q.Audiences, ClientIDs: q.ClientIDs, TokenUse: identity.TokenUse(q.TokenUse), Workloads: q.Workloads,
			Claims: q.Claims, SubjectClaim: q.SubjectClaim, JWKSURI: q.JWKSURI, JWKS: []byte(q.JWKS), UserInfo: q.Userinfo,
			PolicyClaims: q.PolicyClaims, BackchannelLogout: q.BackchannelLogout,
		})
		if err != nil {
			return nil, err
		}
		shown := s.issuerOf(c.Account, i)
		return &api.CreateTrustedIssuerResponse{TrustedIssuer: &shown}, nil
	})
	route(s, api.OpListTrustedIssuers, func(ctx context.Context, c access.Caller, q *api.ListTrustedIssuersRequest) (*api.ListTrustedIssuersResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		found, next, err := s.Identity.ListIssuers(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListTrustedIssuersResponse{TrustedIssuers: make([]api.TrustedIssuer, 0, len(found)), NextToken: cursor(next)}
		for _, i := range found {
			a.TrustedIssuers = append(a.TrustedIssuers, s.issuerOf(c.Account, i))
		}
		return a, nil
	})
	route(s, api.OpDeleteTrustedIssuer, func(ctx context.Context, c access.Caller, q *api.DeleteTrustedIssuerRequest) (*api.DeleteTrustedIssuerResponse, error) {
		if err := s.Identity.DeleteIssuer(ctx, c, q.Issuer); err != nil {
			return nil, err
		}
		return &api.DeleteTrustedIssuerResponse{}, nil
	})
}

func (s *server) issuerOf(account access.Account, i identity.Issuer) api.TrustedIssuer {
	a := api.TrustedIssuer{
		Issuer: i.URL, Audiences: i.Audiences, ClientIDs: i.ClientIDs, TokenUse: api.TokenUse(i.TokenUse), Workloads: i.Workloads, Claims: i.Claims,
		SubjectClaim: i.SubjectClaim, JWKSURI: i.JWKSURI, JWKSSource: api.JwksSourceDiscovery, Userinfo: i.UserInfo, Source: api.IssuerSourceAPI,
		CreatedTime: api.At(i.Created), PolicyClaims: i.PolicyClaims, LoginRedirectURI: s.Broker.LoginRedirectURI(account, i.URL),
	}
	switch {
	case len(i.JWKS) > 0:
		a.JWKSSource = api.JwksSourceDocument
	case i.JWKSURI != "":
		a.JWKSSource = api.JwksSourceURI
	}
	if i.BackchannelLogout {
		a.BackchannelLogoutURI = s.Identity.BackchannelURI(account, i.URL)
	}
	if i.FromConfig {
		a.Source = api.IssuerSourceConfig
	}
	return a
}
