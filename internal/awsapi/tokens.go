package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/secret"
)

func (s *server) tokenRoutes() {
	route(s, api.OpGetWorkloadAccessToken, func(ctx context.Context, c access.Caller, q *api.GetWorkloadAccessTokenRequest) (*api.GetWorkloadAccessTokenResponse, error) {
		m, err := s.Identity.MintToken(ctx, c, q.WorkloadName)
		if err != nil {
			return nil, err
		}
		return &api.GetWorkloadAccessTokenResponse{WorkloadAccessToken: show(m.Token), ExpiresAt: api.At(m.Expires)}, nil
	})
	route(s, api.OpGetWorkloadAccessTokenForJWT, func(ctx context.Context, c access.Caller, q *api.GetWorkloadAccessTokenForJWTRequest) (*api.GetWorkloadAccessTokenForJWTResponse, error) {
		m, err := s.Identity.MintTokenForJWT(ctx, c, q.WorkloadName, hide(q.UserToken))
		if err != nil {
			return nil, err
		}
		return &api.GetWorkloadAccessTokenForJWTResponse{WorkloadAccessToken: show(m.Token), ExpiresAt: api.At(m.Expires)}, nil
	})
	route(s, api.OpGetWorkloadAccessTokenForUserId, func(ctx context.Context, c access.Caller, q *api.GetWorkloadAccessTokenForUserIdRequest) (*api.GetWorkloadAccessTokenForUserIdResponse, error) {
		m, err := s.Identity.MintTokenForUserID(ctx, c, q.WorkloadName, q.UserID)
		if err != nil {
			return nil, err
		}
		return &api.GetWorkloadAccessTokenForUserIdResponse{WorkloadAccessToken: show(m.Token), ExpiresAt: api.At(m.Expires)}, nil
	})
	route(s, api.OpGetResourceOauth2Token, s.getResourceOauth2Token)
	route(s, api.OpCompleteResourceTokenAuth, func(ctx context.Context, c access.Caller, q *api.CompleteResourceTokenAuthRequest) (*api.CompleteResourceTokenAuthResponse, error) {
		user := broker.UserIdentifier{Token: hide(q.UserIdentifier.UserToken), ID: q.UserIdentifier.UserID}
		if err := s.Broker.Complete(ctx, c, q.SessionURI, user); err != nil {
			return nil, err
		}
		return &api.CompleteResourceTokenAuthResponse{}, nil
	})
}

func (s *server) getResourceOauth2Token(ctx context.Context, c access.Caller, q *api.GetResourceOauth2TokenRequest) (*api.GetResourceOauth2TokenResponse, error) {
	r := broker.Request{
		Token: hide(q.WorkloadIdentityToken), Provider: q.ResourceCredentialProviderName, Flow: string(q.Oauth2Flow), Scopes: q.Scopes,
		Session: q.SessionURI, ReturnURL: q.ResourceOauth2ReturnURL, Force: q.ForceAuthentication, CustomState: hide(q.CustomState),
		Resources: q.Resources, Audiences: q.Audiences,
	}
	if len(q.CustomParameters) > 0 {
		r.CustomParameters = make(map[string]secret.Text, len(q.CustomParameters))
		for k, v := range q.CustomParameters {
			r.CustomParameters[k] = hide(v)
		}
	}
	out, err := s.Broker.Token(ctx, c, r)
	if err != nil {
		return nil, err
	}
	if !out.AuthorizationURL.IsZero() {
		return &api.GetResourceOauth2TokenResponse{AuthorizationURL: show(out.AuthorizationURL), SessionURI: out.Session, SessionStatus: api.SessionStatusInProgress}, nil
	}
	a := &api.GetResourceOauth2TokenResponse{
		AccessToken: show(out.AccessToken), GrantedScopes: out.Granted, TokenType: out.TokenType,
		ConnectionState: api.ConnectionState(out.State), ConnectionID: out.Connection, VendorAttributes: out.Attributes,
	}
	if !out.Expires.IsZero() {
		a.ExpiresAt = api.At(out.Expires)
	}
	return a, nil
}
