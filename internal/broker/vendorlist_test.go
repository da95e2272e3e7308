package broker_test

import (
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth"
)

func TestListVendors(t *testing.T) {
	builtIn, err := oauth.NewCatalogue()
	must(t, err)
	all, err := builtIn.WithOperators([]byte(`[{"name":"AcmeOauth2","config":"includedOauth2ProviderConfig","tenant":true,"authMethod":"client_secret_post",` +
		`"verified":"real","notes":["Ours."],"sources":["https://acme.example/docs"]}]`))
	must(t, err)
	w := newWorld(t, func(c *broker.Config) { c.Catalogue = struct{ broker.Catalogue }{overlay{all, c.Catalogue}} })
	auditor := caller(account, "auditor", access.Auditor)
	var found []broker.Vendor
	for after, pages := "", 0; ; pages++ {
		page, next, err := w.ListVendors(t.Context(), auditor, after, 10)
		must(t, err)
		if len(page) > 10 || pages > 2 {
			t.Fatalf("page %d has %d", pages, len(page))
		}
		found = append(found, page...)
		if after = next; next == "" {
			break
		}
	}
	if len(found) != 26 || found[0].Name != "GoogleOauth2" || found[0].Own || found[0].Verified != "scripted" || len(found[0].Notes) == 0 {
		t.Fatalf("got %d vendors, first %+v", len(found), found[0])
	}
	if v := found[25]; v.Name != "AcmeOauth2" || !v.Own || v.Verified != "real" || v.Notes[0] != "Ours." || v.Sources[0] != "https://acme.example/docs" {
		t.Errorf("got %+v", v)
	}
	_, next, err := w.ListVendors(t.Context(), w.admin, "", 26)
	must(t, err)
	if next != "" {
		t.Errorf("got the cursor %q after the last", next)
	}
	_, _, err = w.ListVendors(t.Context(), w.admin, "NobodyOauth2", 10)
	wantCode(t, "an unknown cursor", err, fault.Invalid)
	_, _, err = w.ListVendors(t.Context(), w.agentA, "", 10)
	wantCode(t, "by an agent", err, fault.Denied)
}

// overlay lists one catalogue, and finds what another has.
type overlay struct {
	listed *oauth.Catalogue
	broker.Catalogue
}

func (o overlay) Vendors() []broker.Vendor { return o.listed.Vendors() }
