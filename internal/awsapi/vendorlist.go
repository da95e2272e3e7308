package awsapi

import (
	"context"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
)

func (s *server) vendorRoutes() {
	route(s, api.OpListVendors, func(ctx context.Context, c access.Caller, q *api.ListVendorsRequest) (*api.ListVendorsResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		found, next, err := s.Broker.ListVendors(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListVendorsResponse{Vendors: make([]api.Vendor, 0, len(found)), NextToken: cursor(next)}
		for _, v := range found {
			a.Vendors = append(a.Vendors, vendorOf(v))
		}
		return a, nil
	})
}

func vendorOf(v broker.Vendor) api.Vendor {
	a := api.Vendor{
		Name: v.Name, ClientAuthentication: string(v.AuthMethod), Pkce: !v.NoPKCE, NoScopes: v.NoScopes, Endpoints: api.VendorEndpointsOperator, Revocation: v.Revocation != "",
		Verified: api.VendorVerification(v.Verified), Source: api.VendorSourceBuiltIn, Quirks: v.Notes, Documentation: v.Sources,
	}
	switch {
	case v.Tenant || v.DefaultTenant != "":
		a.Endpoints = api.VendorEndpointsTenant
	case v.TokenEndpoint != "":
		a.Endpoints = api.VendorEndpointsFixed
	}
	if v.Own {
		a.Source = api.VendorSourceOperator
	}
	return a
}
