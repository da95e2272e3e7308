package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/federation"
)

func (s *server) federationRoutes() {
	route(s, api.OpCreateWorkloadIssuer, func(ctx context.Context, c access.Caller, q *api.CreateWorkloadIssuerRequest) (*api.CreateWorkloadIssuerResponse, error) {
		i, err := s.Federation.CreateIssuer(ctx, c, federation.Issuer{
			URL: q.Issuer, Kind: federation.Kind(q.Kind), Audiences: q.Audiences, JWKSURI: q.JWKSURI, JWKS: []byte(q.JWKS), OtherAudiences: q.AllowOtherAudiences,
		})
		if err != nil {
			return nil, err
		}
		shown := s.workloadIssuerOf(i)
		return &api.CreateWorkloadIssuerResponse{WorkloadIssuer: &shown}, nil
	})
	route(s, api.OpListWorkloadIssuers, func(ctx context.Context, c access.Caller, q *api.ListWorkloadIssuersRequest) (*api.ListWorkloadIssuersResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		found, next, err := s.Federation.Issuers(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListWorkloadIssuersResponse{WorkloadIssuers: make([]api.WorkloadIssuer, 0, len(found)), NextToken: cursor(next)}
		for _, i := range found {
			a.WorkloadIssuers = append(a.WorkloadIssuers, s.workloadIssuerOf(i))
		}
		return a, nil
	})
	route(s, api.OpDeleteWorkloadIssuer, func(ctx context.Context, c access.Caller, q *api.DeleteWorkloadIssuerRequest) (*api.DeleteWorkloadIssuerResponse, error) {
		if err := s.Federation.DeleteIssuer(ctx, c, q.Issuer); err != nil {
			return nil, err
		}
		return &api.DeleteWorkloadIssuerResponse{}, nil
	})
	s.federationRuleRoutes()
}

func (s *server) federationRuleRoutes() {
	route(s, api.OpCreateFederationRule, func(ctx context.Context, c access.Caller, q *api.CreateFederationRuleRequest) (*api.CreateFederationRuleResponse, error) {
		r, err := s.Federation.CreateRule(ctx, c, federation.Rule{Issuer: q.Issuer, Subject: q.Subject, Claims: q.Claims, Name: q.PrincipalName})
		if err != nil {
			return nil, err
		}
		shown := ruleOf(r)
		return &api.CreateFederationRuleResponse{Rule: &shown}, nil
	})
	route(s, api.OpListFederationRules, func(ctx context.Context, c access.Caller, q *api.ListFederationRulesRequest) (*api.ListFederationRulesResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		found, next, err := s.Federation.Rules(ctx, c, q.Issuer, q.PrincipalName, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListFederationRulesResponse{Rules: make([]api.FederationRule, 0, len(found)), NextToken: cursor(next)}
		for _, r := range found {
			a.Rules = append(a.Rules, ruleOf(r))
		}
		return a, nil
	})
	route(s, api.OpDeleteFederationRule, func(ctx context.Context, c access.Caller, q *api.DeleteFederationRuleRequest) (*api.DeleteFederationRuleResponse, error) {
		if err := s.Federation.DeleteRule(ctx, c, q.RuleID); err != nil {
			return nil, err
		}
		return &api.DeleteFederationRuleResponse{}, nil
	})
}

func (s *server) workloadIssuerOf(i federation.Issuer) api.WorkloadIssuer {
	a := api.WorkloadIssuer{
		Issuer: i.URL, Kind: api.WorkloadIssuerKind(i.Kind), Audiences: i.Audiences, JWKSURI: i.JWKSURI, JWKSSource: api.JwksSourceDiscovery,
		AllowOtherAudiences: i.OtherAudiences, TokenReview: s.Federation.Reviewed(i.URL), Status: api.StandingStatusActive, CreatedTime: api.At(i.Created),
	}
	if i.Disabled {
		a.Status = api.StandingStatusDisabled
	}
	switch {
	case len(i.JWKS) > 0:
		a.JWKSSource = api.JwksSourceDocument
	case i.JWKSURI != "":
		a.JWKSSource = api.JwksSourceURI
	}
	return a
}

func ruleOf(r federation.Rule) api.FederationRule {
	return api.FederationRule{RuleID: r.ID, Issuer: r.Issuer, Subject: r.Subject, Claims: r.Claims, PrincipalName: r.Name, CreatedTime: api.At(r.Created)}
}
