package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

func (s *server) userRoutes() {
	route(s, api.OpDescribeUser, func(ctx context.Context, c access.Caller, q *api.DescribeUserRequest) (*api.DescribeUserResponse, error) {
		u, err := s.Identity.DescribeUser(ctx, c, hide(q.WorkloadIdentityToken))
		if err != nil {
			return nil, err
		}
		a := &api.DescribeUserResponse{Kind: api.UserKindNone, UserRef: u.Ref}
		switch u.Kind {
		case identity.JWTUser:
			a.Kind, a.Issuer, a.Subject = api.UserKindJWT, u.Issuer, u.Subject
		case identity.UIDUser:
			a.Kind, a.UserID = api.UserKindUid, u.Subject
		}
		if !u.Authenticated.IsZero() {
			a.AuthenticatedAt = api.At(u.Authenticated)
		}
		return a, nil
	})
	route(s, api.OpGetUserInfo, func(ctx context.Context, c access.Caller, q *api.GetUserInfoRequest) (*api.GetUserInfoResponse, error) {
		u, err := s.Identity.UserInfo(ctx, c, hide(q.WorkloadIdentityToken))
		if err != nil {
			return nil, err
		}
		return &api.GetUserInfoResponse{
			Subject: u.Subject, Name: u.Name, PreferredUsername: u.PreferredUsername, Email: u.Email, EmailVerified: u.EmailVerified, Claims: u.Claims,
		}, nil
	})
}
