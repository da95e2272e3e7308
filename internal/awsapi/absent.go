package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// absentRoutes answer for what the contract has and this server does not offer: there is none of it, and none can be
// made. They reveal and touch nothing, so they ask no more of a caller than a signature.
func (s *server) absentRoutes() {
	s.paymentRoutes()
	s.portalRoutes()
	s.policyRoutes()
}

func notOffered(what string) error {
	return fault.New(fault.Invalid, "%s are not offered by this server", what)
}

func noPaymentProvider(name string) error {
	return fault.New(fault.NotFound, "PaymentCredentialProvider not found for %s: payment credential providers are not offered by this server", name)
}

func (s *server) paymentRoutes() {
	route(s, api.OpCreatePaymentCredentialProvider, func(context.Context, access.Caller, *api.CreatePaymentCredentialProviderRequest) (*api.CreatePaymentCredentialProviderResponse, error) {
		return nil, notOffered("payment credential providers")
	})
	route(s, api.OpGetPaymentCredentialProvider, func(_ context.Context, _ access.Caller, q *api.GetPaymentCredentialProviderRequest) (*api.GetPaymentCredentialProviderResponse, error) {
		return nil, noPaymentProvider(q.Name)
	})
	route(s, api.OpUpdatePaymentCredentialProvider, func(_ context.Context, _ access.Caller, q *api.UpdatePaymentCredentialProviderRequest) (*api.UpdatePaymentCredentialProviderResponse, error) {
		return nil, noPaymentProvider(q.Name)
	})
	route(s, api.OpDeletePaymentCredentialProvider, func(_ context.Context, _ access.Caller, q *api.DeletePaymentCredentialProviderRequest) (*api.DeletePaymentCredentialProviderResponse, error) {
		return nil, noPaymentProvider(q.Name)
	})
	route(s, api.OpListPaymentCredentialProviders, func(_ context.Context, _ access.Caller, q *api.ListPaymentCredentialProvidersRequest) (*api.ListPaymentCredentialProvidersResponse, error) {
		_, _, err := page(q.NextToken, q.MaxResults, 20)
		return &api.ListPaymentCredentialProvidersResponse{CredentialProviders: []api.PaymentCredentialProviderItem{}}, err
	})
	route(s, api.OpGetResourcePaymentToken, func(_ context.Context, _ access.Caller, q *api.GetResourcePaymentTokenRequest) (*api.GetResourcePaymentTokenResponse, error) {
		return nil, noPaymentProvider(q.ResourceCredentialProviderName)
	})
}

func (s *server) portalRoutes() {
	none := func(id string) error {
		return fault.New(fault.NotFound, "ConsentPortal not found for %s: consent portals are not offered by this server", id)
	}
	route(s, api.OpCreateConsentPortal, func(context.Context, access.Caller, *api.CreateConsentPortalRequest) (*api.CreateConsentPortalResponse, error) {
		return nil, notOffered("consent portals")
	})
	route(s, api.OpGetConsentPortal, func(_ context.Context, _ access.Caller, q *api.GetConsentPortalRequest) (*api.GetConsentPortalResponse, error) {
		return nil, none(q.ConsentPortalIdentifier)
	})
	route(s, api.OpUpdateConsentPortal, func(_ context.Context, _ access.Caller, q *api.UpdateConsentPortalRequest) (*api.UpdateConsentPortalResponse, error) {
		return nil, none(q.ConsentPortalIdentifier)
	})
	route(s, api.OpDeleteConsentPortal, func(_ context.Context, _ access.Caller, q *api.DeleteConsentPortalRequest) (*api.DeleteConsentPortalResponse, error) {
		return nil, none(q.ConsentPortalIdentifier)
	})
	route(s, api.OpListConsentPortals, func(_ context.Context, _ access.Caller, q *api.ListConsentPortalsRequest) (*api.ListConsentPortalsResponse, error) {
		_, _, err := page(q.NextToken, q.MaxResults, 20)
		return &api.ListConsentPortalsResponse{ConsentPortals: []api.ConsentPortalSummary{}}, err
	})
}

func (s *server) policyRoutes() {
	none := func(arn string) error {
		return fault.New(fault.NotFound, "resource %s has no resource policy: resource policies are not offered by this server", arn)
	}
	route(s, api.OpPutResourcePolicy, func(context.Context, access.Caller, *api.PutResourcePolicyRequest) (*api.PutResourcePolicyResponse, error) {
		return nil, notOffered("resource policies")
	})
	route(s, api.OpGetResourcePolicy, func(_ context.Context, _ access.Caller, q *api.GetResourcePolicyRequest) (*api.GetResourcePolicyResponse, error) {
		return nil, none(q.ResourceARN)
	})
	route(s, api.OpDeleteResourcePolicy, func(_ context.Context, _ access.Caller, q *api.DeleteResourcePolicyRequest) (*api.DeleteResourcePolicyResponse, error) {
		return nil, none(q.ResourceARN)
	})
}
