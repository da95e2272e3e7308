package awsapi

import (
	"context"
	"strings"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/signing"
)

func (s *server) keyRotationRoutes() {
	route(s, api.OpListSigningKeys, func(ctx context.Context, c access.Caller, _ *api.ListSigningKeysRequest) (*api.ListSigningKeysResponse, error) {
		found, err := s.Exchange.Keys(ctx, c)
		if err != nil {
			return nil, err
		}
		a := &api.ListSigningKeysResponse{Issuer: s.Exchange.Issuer(c.Account), Keys: make([]api.SigningKey, 0, len(found))}
		for _, k := range found {
			a.Keys = append(a.Keys, *signingKeyOf(k))
		}
		return a, nil
	})
	route(s, api.OpRotateSigningKey, func(ctx context.Context, c access.Caller, q *api.RotateSigningKeyRequest) (*api.RotateSigningKeyResponse, error) {
		k, err := s.Exchange.RotateKey(ctx, c, signing.Purpose(strings.ToLower(string(q.Purpose))), q.Revoke)
		if err != nil {
			return nil, err
		}
		return &api.RotateSigningKeyResponse{Key: signingKeyOf(k)}, nil
	})
}

func signingKeyOf(k signing.Key) *api.SigningKey {
	return &api.SigningKey{
		KeyID: k.ID, Purpose: api.SigningPurpose(strings.ToUpper(string(k.Purpose))), Status: api.SigningKeyStatus(k.Status), CreatedTime: api.At(k.Created),
	}
}
