package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

func (s *server) principalRoutes() {
	route(s, api.OpCreatePrincipal, func(ctx context.Context, c access.Caller, q *api.CreatePrincipalRequest) (*api.CreatePrincipalResponse, error) {
		n := identity.NewPrincipal{Name: q.Name, Workloads: q.Workloads}
		for _, r := range q.Roles {
			n.Roles = append(n.Roles, access.Role(r))
		}
		p, err := s.Identity.CreatePrincipal(ctx, c, n)
		return &api.CreatePrincipalResponse{Principal: principalOf(p)}, err
	})
	route(s, api.OpListPrincipals, func(ctx context.Context, c access.Caller, q *api.ListPrincipalsRequest) (*api.ListPrincipalsResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		found, next, err := s.Identity.Principals(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListPrincipalsResponse{Principals: make([]api.Principal, 0, len(found)), NextToken: cursor(next)}
		for _, p := range found {
			a.Principals = append(a.Principals, *principalOf(p))
		}
		return a, nil
	})
	route(s, api.OpDisablePrincipal, func(ctx context.Context, c access.Caller, q *api.DisablePrincipalRequest) (*api.DisablePrincipalResponse, error) {
		p, err := s.Identity.SetPrincipalDisabled(ctx, c, q.Name, true)
		return &api.DisablePrincipalResponse{Principal: principalOf(p)}, err
	})
	route(s, api.OpEnablePrincipal, func(ctx context.Context, c access.Caller, q *api.EnablePrincipalRequest) (*api.EnablePrincipalResponse, error) {
		p, err := s.Identity.SetPrincipalDisabled(ctx, c, q.Name, false)
		return &api.EnablePrincipalResponse{Principal: principalOf(p)}, err
	})
	s.accessKeyRoutes()
}

func (s *server) accessKeyRoutes() {
	route(s, api.OpCreateAccessKey, func(ctx context.Context, c access.Caller, q *api.CreateAccessKeyRequest) (*api.CreateAccessKeyResponse, error) {
		k, secretKey, err := s.Identity.CreateAccessKey(ctx, c, q.PrincipalName)
		if err != nil {
			return nil, err
		}
		return &api.CreateAccessKeyResponse{AccessKey: &api.CreatedAccessKey{
			AccessKeyID: k.ID, SecretAccessKey: show(secretKey), PrincipalName: q.PrincipalName, Status: api.AccessKeyStatusActive, CreatedTime: api.At(k.Created),
		}}, nil
	})
	route(s, api.OpListAccessKeys, func(ctx context.Context, c access.Caller, q *api.ListAccessKeysRequest) (*api.ListAccessKeysResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		found, next, err := s.Identity.AccessKeys(ctx, c, q.PrincipalName, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListAccessKeysResponse{AccessKeys: make([]api.AccessKey, 0, len(found)), NextToken: cursor(next)}
		for _, k := range found {
			a.AccessKeys = append(a.AccessKeys, *keyOf(k))
		}
		return a, nil
	})
	route(s, api.OpDisableAccessKey, func(ctx context.Context, c access.Caller, q *api.DisableAccessKeyRequest) (*api.DisableAccessKeyResponse, error) {
		k, err := s.Identity.SetAccessKeyDisabled(ctx, c, q.AccessKeyID, true)
		return &api.DisableAccessKeyResponse{AccessKey: keyOf(k)}, err
	})
	route(s, api.OpEnableAccessKey, func(ctx context.Context, c access.Caller, q *api.EnableAccessKeyRequest) (*api.EnableAccessKeyResponse, error) {
		k, err := s.Identity.SetAccessKeyDisabled(ctx, c, q.AccessKeyID, false)
		return &api.EnableAccessKeyResponse{AccessKey: keyOf(k)}, err
	})
}

func principalOf(p identity.Principal) *api.Principal {
	a := &api.Principal{Name: p.Name, PrincipalID: string(p.ID), Workloads: p.Workloads, Status: api.PrincipalStatusActive, CreatedTime: api.At(p.Created)}
	for _, r := range p.Roles {
		a.Roles = append(a.Roles, api.PrincipalRole(r))
	}
	if p.Disabled {
		a.Status = api.PrincipalStatusDisabled
	}
	return a
}

func keyOf(k identity.AccessKey) *api.AccessKey {
	a := &api.AccessKey{AccessKeyID: k.ID, PrincipalName: k.Owner, Status: api.AccessKeyStatusActive, CreatedTime: api.At(k.Created)}
	if !k.LastUsed.IsZero() {
		a.LastUsedTime = api.At(k.LastUsed)
	}
	if k.Disabled {
		a.Status = api.AccessKeyStatusDisabled
	}
	return a
}
