package broker

import (
	"context"
	"slices"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// ListVendors lists the catalogue in its order: that of the contract, and then the operator's own. It lists those after
// the vendor named after, at most limit (which is at least 1); the cursor is "" on the last page. The error is Denied,
// or Invalid (Field "nextToken") for a vendor that is not there.
func (b *Broker) ListVendors(ctx context.Context, caller access.Caller, after string, limit int) ([]Vendor, string, error) {
	if err := b.guard.Permit(ctx, caller, access.ListVendors, access.Facts{}); err != nil {
		return nil, "", err
	}
	vendors := b.catalogue.Vendors()
	if after != "" {
		at := slices.IndexFunc(vendors, func(v Vendor) bool { return v.Name == after })
		if at < 0 {
			return nil, "", fault.Field("nextToken", "is not a token that this operation returned")
		}
		vendors = vendors[at+1:]
	}
	if len(vendors) <= limit {
		return vendors, "", nil
	}
	return vendors[:limit], vendors[limit-1].Name, nil
}
