package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/identity"
)

func (s *server) standingRoutes() {
	route(s, api.OpDisableWorkloadIdentity, func(ctx context.Context, c access.Caller, q *api.DisableWorkloadIdentityRequest) (*api.DisableWorkloadIdentityResponse, error) {
		at, err := s.Identity.DisableWorkload(ctx, c, q.Name, q.Reason)
		return stood(at, err, func(a *api.Standing) *api.DisableWorkloadIdentityResponse {
			return &api.DisableWorkloadIdentityResponse{Standing: a}
		})
	})
	route(s, api.OpEnableWorkloadIdentity, func(ctx context.Context, c access.Caller, q *api.EnableWorkloadIdentityRequest) (*api.EnableWorkloadIdentityResponse, error) {
		at, err := s.Identity.EnableWorkload(ctx, c, q.Name)
		return stood(at, err, func(a *api.Standing) *api.EnableWorkloadIdentityResponse {
			return &api.EnableWorkloadIdentityResponse{Standing: a}
		})
	})
	route(s, api.OpDisableUser, func(ctx context.Context, c access.Caller, q *api.DisableUserRequest) (*api.DisableUserResponse, error) {
		at, err := s.Identity.DisableUser(ctx, c, *selected(q.User), q.Reason)
		return stood(at, err, func(a *api.Standing) *api.DisableUserResponse { return &api.DisableUserResponse{Standing: a} })
	})
	route(s, api.OpEnableUser, func(ctx context.Context, c access.Caller, q *api.EnableUserRequest) (*api.EnableUserResponse, error) {
		at, err := s.Identity.EnableUser(ctx, c, *selected(q.User))
		return stood(at, err, func(a *api.Standing) *api.EnableUserResponse { return &api.EnableUserResponse{Standing: a} })
	})
	route(s, api.OpDisableTrustedIssuer, func(ctx context.Context, c access.Caller, q *api.DisableTrustedIssuerRequest) (*api.DisableTrustedIssuerResponse, error) {
		at, err := s.Identity.DisableIssuer(ctx, c, q.Issuer, q.Reason)
		return stood(at, err, func(a *api.Standing) *api.DisableTrustedIssuerResponse {
			return &api.DisableTrustedIssuerResponse{Standing: a}
		})
	})
	route(s, api.OpEnableTrustedIssuer, func(ctx context.Context, c access.Caller, q *api.EnableTrustedIssuerRequest) (*api.EnableTrustedIssuerResponse, error) {
		enable := s.Identity.EnableIssuer
		if q.AcceptEndpoints {
			enable = s.Identity.AcceptEndpoints
		}
		at, err := enable(ctx, c, q.Issuer)
		return stood(at, err, func(a *api.Standing) *api.EnableTrustedIssuerResponse {
			return &api.EnableTrustedIssuerResponse{Standing: a}
		})
	})
	route(s, api.OpDisableCredentialProvider, func(ctx context.Context, c access.Caller, q *api.DisableCredentialProviderRequest) (*api.DisableCredentialProviderResponse, error) {
		at, err := s.Broker.DisableProvider(ctx, c, q.Name, q.Reason)
		return stood(at, err, func(a *api.Standing) *api.DisableCredentialProviderResponse {
			return &api.DisableCredentialProviderResponse{Standing: a}
		})
	})
	route(s, api.OpEnableCredentialProvider, func(ctx context.Context, c access.Caller, q *api.EnableCredentialProviderRequest) (*api.EnableCredentialProviderResponse, error) {
		at, err := s.Broker.EnableProvider(ctx, c, q.Name)
		return stood(at, err, func(a *api.Standing) *api.EnableCredentialProviderResponse {
			return &api.EnableCredentialProviderResponse{Standing: a}
		})
	})
	route(s, api.OpListStandings, s.listStandings)
}

func (s *server) listStandings(ctx context.Context, c access.Caller, q *api.ListStandingsRequest) (*api.ListStandingsResponse, error) {
	after, limit, err := page(q.NextToken, q.MaxResults, 100)
	if err != nil {
		return nil, err
	}
	found, next, err := s.Identity.Standings(ctx, c, standingKindOf(q.Kind), after, limit)
	if err != nil {
		return nil, err
	}
	a := &api.ListStandingsResponse{Standings: make([]api.Standing, 0, len(found)), NextToken: cursor(next)}
	for _, at := range found {
		a.Standings = append(a.Standings, *standingOf(at))
	}
	return a, nil
}

// stood is the answer of an operation that changed a standing.
func stood[A any](at identity.Standing, err error, answer func(*api.Standing) *A) (*A, error) {
	if err != nil {
		return nil, err
	}
	return answer(standingOf(at)), nil
}

func standingKindOf(k api.StandingKind) identity.StandingKind {
	switch k {
	case api.StandingKindWorkloadIdentity:
		return identity.WorkloadStanding
	case api.StandingKindUser:
		return identity.UserStanding
	case api.StandingKindIssuer:
		return identity.IssuerStanding
	}
	return identity.ProviderStanding
}

func standingOf(at identity.Standing) *api.Standing {
	a := &api.Standing{Key: at.Key, Name: at.Name, Status: api.StandingStatusActive, Epoch: at.Epoch, Reason: at.Reason, ChangedTime: api.At(at.Changed)}
	switch at.Kind {
	case identity.WorkloadStanding:
		a.Kind = api.StandingKindWorkloadIdentity
	case identity.UserStanding:
		a.Kind = api.StandingKindUser
	case identity.IssuerStanding:
		a.Kind = api.StandingKindIssuer
	case identity.ProviderStanding:
		a.Kind = api.StandingKindProvider
	}
	switch {
	case at.Disabled:
		a.Status = api.StandingStatusDisabled
	case at.Frozen:
		a.Status = api.StandingStatusFrozen
	}
	return a
}

// selected is the user whom a request selects, nil where it selects none.
func selected(u *api.UserSelector) *identity.UserSelector {
	if u == nil {
		return nil
	}
	return &identity.UserSelector{Ref: u.UserRef, Issuer: u.Issuer, Subject: u.Subject, ID: u.UserID}
}
