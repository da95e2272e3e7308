package oauth_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/oauth"
)

func TestCatalogue(t *testing.T) {
	c, err := oauth.NewCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	client := newClient(t, oauth.Config{})
	for _, v := range c.Vendors() {
		got = append(got, v.Name)
		same, ok := c.Vendor(v.Name)
		if !ok || !cmp.Equal(same, v) || c.Verified(v.Name) == "" {
			t.Errorf("%s: Vendor gives %+v, %v, verified %q", v.Name, same, ok, c.Verified(v.Name))
		}
		if v.ScopeSeparator == "" || v.RefreshRotates == "" || v.AuthMethod == "" {
			t.Errorf("%s: a default is missing in %+v", v.Name, v)
		}
		if v.TokenEndpoint != "" {
			p := broker.Provider{Name: v.Name, Issuer: v.Issuer, AuthorizationEndpoint: v.AuthorizationEndpoint, TokenEndpoint: v.TokenEndpoint}
			if _, err := client.Endpoints(t.Context(), p); err != nil {
				t.Errorf("%s: %v", v.Name, err)
			}
		}
	}
	want := []string{"GoogleOauth2", "CustomOauth2", "OktaOauth2", "OneLoginOauth2", "PingOneOauth2", "CyberArkOauth2", "FusionAuthOauth2", "Auth0Oauth2", "CognitoOauth2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("vendors (-want +got)\n%s", diff)
	}
	if _, ok := c.Vendor("googleoauth2"); ok {
		t.Error("a name in another case was found")
	}
	google, _ := c.Vendor("GoogleOauth2")
	google.AuthorizeParams["prompt"] = "changed"
	if again, _ := c.Vendor("GoogleOauth2"); again.AuthorizeParams["prompt"] != "consent" {
		t.Error("the catalogue can be changed through an answer")
	}
}

func TestCatalogueSchema(t *testing.T) {
	const fixed = `"name":"A","config":"c","authMethod":"none","verified":"real"`
	for body, want := range map[string]string{
		`{}`:                                "cannot unmarshal",
		`[{` + fixed + `,"tokenURL":"x"}]`:  "unknown field",
		`[{` + fixed + `}] []`:              "after the end",
		`[{` + fixed + `},{` + fixed + `}]`: "twice",
		`[{"name":"A"}]`:                    "required",
		`[{"name":"A","config":"c"}]`:       "authMethod",
		`[{"name":"A","config":"c","authMethod":"none"}]`:                                                                          "verified",
		`[{` + fixed + `,"rotation":"sometimes"}]`:                                                                                 "rotation",
		`[{` + fixed + `,"tokenEndpoint":"https://x/t"}]`:                                                                          "endpoint",
		`[{` + fixed + `,"issuer":"https://x","authorizationEndpoint":"https://x/a","tokenEndpoint":"http://x/t"}]`:                "not https",
		`[{` + fixed + `,"tenant":true,"issuer":"https://x","authorizationEndpoint":"https://x/a","tokenEndpoint":"https://x/t"}]`: "tenant",
		`[{` + fixed + `,"authorizeParams":{"State":"x"}}]`:                                                                        "broker sets",
	} {
		if _, err := oauth.ParseCatalogue(body); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", body, err, want)
		}
	}
	if _, err := oauth.ParseCatalogue(oauth.CatalogueJSON()); err != nil {
		t.Error(err)
	}
}
