package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

func (s *server) accountRoutes() {
	route(s, api.OpCreateAccount, func(ctx context.Context, c access.Caller, q *api.CreateAccountRequest) (*api.CreateAccountResponse, error) {
		made, err := s.Accounts.Create(ctx, c, accounts.NewAccount{ID: access.Account(q.AccountID), Name: q.Name, Quotas: quotasIn(q.Quotas)})
		if err != nil {
			return nil, err
		}
		return &api.CreateAccountResponse{Account: accountOf(made.Account), RootAccessKey: createdKeyOf(made.Key, made.Secret)}, nil
	})
	route(s, api.OpListAccounts, func(ctx context.Context, c access.Caller, q *api.ListAccountsRequest) (*api.ListAccountsResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		found, next, err := s.Accounts.Accounts(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListAccountsResponse{Accounts: make([]api.Account, 0, len(found)), NextToken: cursor(next)}
		for _, one := range found {
			a.Accounts = append(a.Accounts, *accountOf(one))
		}
		return a, nil
	})
	route(s, api.OpUpdateAccount, func(ctx context.Context, c access.Caller, q *api.UpdateAccountRequest) (*api.UpdateAccountResponse, error) {
		a, err := s.Accounts.SetQuotas(ctx, c, access.Account(q.AccountID), quotasIn(q.Quotas))
		return &api.UpdateAccountResponse{Account: accountOf(a)}, err
	})
	route(s, api.OpDisableAccount, func(ctx context.Context, c access.Caller, q *api.DisableAccountRequest) (*api.DisableAccountResponse, error) {
		a, err := s.Accounts.Disable(ctx, c, access.Account(q.AccountID), q.Reason)
		return &api.DisableAccountResponse{Account: accountOf(a)}, err
	})
	route(s, api.OpEnableAccount, func(ctx context.Context, c access.Caller, q *api.EnableAccountRequest) (*api.EnableAccountResponse, error) {
		a, err := s.Accounts.Enable(ctx, c, access.Account(q.AccountID))
		return &api.EnableAccountResponse{Account: accountOf(a)}, err
	})
	route(s, api.OpRotateRootKey, func(ctx context.Context, c access.Caller, _ *api.RotateRootKeyRequest) (*api.RotateRootKeyResponse, error) {
		k, secretKey, disabled, err := s.Identity.RotateRootKey(ctx, c)
		if err != nil {
			return nil, err
		}
		return &api.RotateRootKeyResponse{AccessKey: createdKeyOf(k, secretKey), DisabledAccessKeyIDs: disabled}, nil
	})
}

func createdKeyOf(k identity.AccessKey, secretKey secret.Text) *api.CreatedAccessKey {
	return &api.CreatedAccessKey{
		AccessKeyID: k.ID, SecretAccessKey: show(secretKey), PrincipalName: k.Owner, Status: api.AccessKeyStatusActive, CreatedTime: api.At(k.Created),
	}
}

func accountOf(a accounts.Account) *api.Account {
	out := &api.Account{
		AccountID: string(a.ID), Name: a.Name, Status: api.StandingStatusActive, Reason: a.Reason, CreatedTime: api.At(a.Created),
		Quotas: &api.AccountQuotas{
			WorkloadIdentities: a.Quotas.WorkloadIdentities, CredentialProviders: a.Quotas.CredentialProviders, Principals: a.Quotas.Principals,
			Policies: a.Quotas.Policies, Connections: a.Quotas.Connections, RequestsPerSecond: a.Quotas.RequestsPerSecond,
		},
	}
	if a.Disabled {
		out.Status = api.StandingStatusDisabled
	}
	return out
}

func quotasIn(q *api.AccountQuotas) accounts.Quotas {
	if q == nil {
		return accounts.Quotas{}
	}
	return accounts.Quotas{
		WorkloadIdentities: q.WorkloadIdentities, CredentialProviders: q.CredentialProviders, Principals: q.Principals,
		Policies: q.Policies, Connections: q.Connections, RequestsPerSecond: q.RequestsPerSecond,
	}
}
