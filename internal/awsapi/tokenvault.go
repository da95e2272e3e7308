package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

func (s *server) tokenVaultRoutes() {
	route(s, api.OpGetTokenVault, func(ctx context.Context, c access.Caller, q *api.GetTokenVaultRequest) (*api.GetTokenVaultResponse, error) {
		v, err := s.Broker.TokenVault(ctx, c, q.TokenVaultID)
		if err != nil {
			return nil, err
		}
		return &api.GetTokenVaultResponse{TokenVaultID: v.ID, KMSConfiguration: serviceKey(), LastModifiedDate: api.At(v.Modified)}, nil
	})
	route(s, api.OpSetTokenVaultCMK, func(ctx context.Context, c access.Caller, q *api.SetTokenVaultCMKRequest) (*api.SetTokenVaultCMKResponse, error) {
		if q.KMSConfiguration.KeyType == api.KeyTypeCustomerManagedKey {
			return nil, s.Broker.UseCustomerKey(ctx, c, q.TokenVaultID)
		}
		if q.KMSConfiguration.KMSKeyARN != "" {
			return nil, fault.Field("kmsConfiguration.kmsKeyArn", "goes with the key type CustomerManagedKey only")
		}
		v, err := s.Broker.KeepServiceKey(ctx, c, q.TokenVaultID)
		if err != nil {
			return nil, err
		}
		return &api.SetTokenVaultCMKResponse{TokenVaultID: v.ID, KMSConfiguration: serviceKey(), LastModifiedDate: api.At(v.Modified)}, nil
	})
	route(s, api.OpResetTokenVaultKeyMaterial, func(ctx context.Context, c access.Caller, q *api.ResetTokenVaultKeyMaterialRequest) (*api.ResetTokenVaultKeyMaterialResponse, error) {
		return nil, s.Broker.ResetVaultKey(ctx, c, q.TokenVaultID)
	})
}

func serviceKey() *api.KmsConfiguration {
	return &api.KmsConfiguration{KeyType: api.KeyTypeServiceManagedKey}
}
