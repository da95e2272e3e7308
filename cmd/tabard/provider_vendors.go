package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func listVendors(ctx context.Context, c *client) ([]api.Vendor, error) {
	return allPages(func(token string) ([]api.Vendor, string, error) {
		a, err := call[api.ListVendorsResponse](ctx, c, api.OpListVendors, api.ListVendorsRequest{NextToken: token})
		return a.Vendors, a.NextToken, err
	})
}

func providerVendors(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "vendors", Short: "List the vendors that the server knows", Args: exactly(),
		Long: "Lists the catalogue: each vendor that --vendor of create can name, those of the server's vendors-file too, with what it does its own\n" +
			"way. VERIFIED says how far that was checked: read in the vendor's documentation, scripted against an imitation, or real.",
		Example: examples("tabard provider vendors", "for people", "tabard provider vendors --output json", "with where each entry was read"),
	}
	listing(cmd, t, f, listVendors, []column[api.Vendor]{
		{name: "NAME", text: func(v api.Vendor) string { return v.Name }},
		{name: "CLIENT AUTHENTICATION", text: func(v api.Vendor) string { return v.ClientAuthentication }},
		{name: "PKCE", text: func(v api.Vendor) string { return yesNo(v.Pkce) }},
		{name: "VERIFIED", text: func(v api.Vendor) string { return string(v.Verified) }},
		{name: "SOURCE", text: func(v api.Vendor) string { return string(v.Source) }},
		{name: "QUIRKS", text: func(v api.Vendor) string { return strings.Join(v.Quirks, " ") }},
	})
	return cmd
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
