package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

func (s *server) apiKeyRoutes() {
	route(s, api.OpCreateApiKeyCredentialProvider, func(ctx context.Context, c access.Caller, q *api.CreateApiKeyCredentialProviderRequest) (*api.CreateApiKeyCredentialProviderResponse, error) {
		if err := managed(q.APIKeySecretSource, q.APIKeySecretConfig); err != nil {
			return nil, err
		}
		p, err := s.Broker.CreateAPIKeyProvider(ctx, c, broker.APIKeySpec{Name: q.Name, Key: hide(q.APIKey), Tags: q.Tags})
		if err != nil {
			return nil, err
		}
		return &api.CreateApiKeyCredentialProviderResponse{
			APIKeySecretARN: s.keySecretOf(p), APIKeySecretSource: api.SecretSourceTypeManaged, Name: p.Name, CredentialProviderARN: p.ARN(s.Region),
		}, nil
	})
	route(s, api.OpGetApiKeyCredentialProvider, func(ctx context.Context, c access.Caller, q *api.GetApiKeyCredentialProviderRequest) (*api.GetApiKeyCredentialProviderResponse, error) {
		p, err := s.Broker.APIKeyProvider(ctx, c, q.Name)
		if err != nil {
			return nil, err
		}
		return &api.GetApiKeyCredentialProviderResponse{
			APIKeySecretARN: s.keySecretOf(p), APIKeySecretSource: api.SecretSourceTypeManaged, Name: p.Name, CredentialProviderARN: p.ARN(s.Region),
			CreatedTime: api.At(p.Created), LastUpdatedTime: api.At(p.Updated),
		}, nil
	})
	route(s, api.OpUpdateApiKeyCredentialProvider, func(ctx context.Context, c access.Caller, q *api.UpdateApiKeyCredentialProviderRequest) (*api.UpdateApiKeyCredentialProviderResponse, error) {
		if err := managed(q.APIKeySecretSource, q.APIKeySecretConfig); err != nil {
			return nil, err
		}
		p, err := s.Broker.UpdateAPIKeyProvider(ctx, c, broker.APIKeySpec{Name: q.Name, Key: hide(q.APIKey)})
		if err != nil {
			return nil, err
		}
		return &api.UpdateApiKeyCredentialProviderResponse{
			APIKeySecretARN: s.keySecretOf(p), APIKeySecretSource: api.SecretSourceTypeManaged, Name: p.Name, CredentialProviderARN: p.ARN(s.Region),
			CreatedTime: api.At(p.Created), LastUpdatedTime: api.At(p.Updated),
		}, nil
	})
	route(s, api.OpListApiKeyCredentialProviders, func(ctx context.Context, c access.Caller, q *api.ListApiKeyCredentialProvidersRequest) (*api.ListApiKeyCredentialProvidersResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		list, next, err := s.Broker.APIKeyProviders(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListApiKeyCredentialProvidersResponse{CredentialProviders: make([]api.ApiKeyCredentialProviderItem, 0, len(list)), NextToken: cursor(next)}
		for _, p := range list {
			a.CredentialProviders = append(a.CredentialProviders, api.ApiKeyCredentialProviderItem{
				Name: p.Name, CredentialProviderARN: p.ARN(s.Region), CreatedTime: api.At(p.Created), LastUpdatedTime: api.At(p.Updated),
			})
		}
		return a, nil
	})
	route(s, api.OpDeleteApiKeyCredentialProvider, func(ctx context.Context, c access.Caller, q *api.DeleteApiKeyCredentialProviderRequest) (*api.DeleteApiKeyCredentialProviderResponse, error) {
		if err := s.Broker.DeleteAPIKeyProvider(ctx, c, q.Name); err != nil {
			return nil, err
		}
		return &api.DeleteApiKeyCredentialProviderResponse{}, nil
	})
	route(s, api.OpGetResourceApiKey, func(ctx context.Context, c access.Caller, q *api.GetResourceApiKeyRequest) (*api.GetResourceApiKeyResponse, error) {
		key, err := s.Broker.APIKey(ctx, c, hide(q.WorkloadIdentityToken), q.ResourceCredentialProviderName)
		if err != nil {
			return nil, err
		}
		return &api.GetResourceApiKeyResponse{APIKey: show(key)}, nil
	})
}

func (s *server) keySecretOf(p broker.APIKeyProvider) *api.Secret {
	return &api.Secret{SecretARN: p.SecretARN(s.Region)}
}

// managed refuses a key that is kept elsewhere.
func managed(source api.SecretSourceType, config *api.SecretReference) error {
	if source == api.SecretSourceTypeExternal || config != nil {
		return fault.Field("apiKeySecretSource", "apiKeySecretSource EXTERNAL, with apiKeySecretConfig, is not offered by this server: send apiKey")
	}
	return nil
}
