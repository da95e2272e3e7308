package identity_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

func TestA09_IssuersMustBeCanonical(t *testing.T) {
	w := newWorld(t)
	dev := newWorld(t, func(c *identity.Config) { c.Dev = true })
	create := func(w *world, u string) error {
		_, err := w.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: u, Audiences: []string{"a"}})
		return err
	}
	for _, u := range []string{
		"https://idp.example.com", "https://idp.example.com/", "https://idp.example.com/realms/A/", "https://idp.example.com:8443/x", "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_AbC",
		"https://login.microsoftonline.com/tid/v2.0", "https://xn--exmple-cua.com", "https://[2001:db8::1]/x",
	} {
		if err := create(w, u); err != nil {
			t.Errorf("%s: got %v, want it accepted", u, err)
		}
	}
	for u, canonical := range map[string]string{
		"https://IDP.example.com/x": "https://idp.example.com/x", "HTTPS://idp.example.com/x": "https://idp.example.com/x", "https://idp.example.com:443/x": "https://idp.example.com/x",
		"https://idp.example.com./x": "https://idp.example.com/x", "https://idp.example.com/a/../x": "https://idp.example.com/x", "https://idp.example.com//x": "https://idp.example.com/x",
		"https://idp.example.com/./x/": "https://idp.example.com/x/", "https://idp.example.com:/x": "https://idp.example.com/x",
	} {
		err := create(w, u)
		wantCode(t, u, err, fault.Invalid)
		if !strings.HasSuffix(fault.Public(err).Msg, "its canonical form is "+canonical) {
			t.Errorf("%s: got %v, want the canonical form %s", u, err, canonical)
		}
	}
	for _, u := range []string{
		"", "idp.example.com", "http://idp.example.com", "https://user@idp.example.com", "https://@idp.example.com", "https://idp.example.com?x", "https://idp.example.com/#", "https://idp.example.com?",
		"https://idp.example.com/%61", "https://\u0456dp.example.com", "https://idp.example.com/a b", "https:idp.example.com", "https://", "ftp://idp.example.com", "https://idp.example.com\\@evil.com",
		"https://" + strings.Repeat("a", 1100), "https://idp.example.com\n",
	} {
		wantCode(t, fmt.Sprintf("%.50q", u), create(w, u), fault.Invalid)
		wantCode(t, fmt.Sprintf("dev, %.50q", u), create(dev, u), fault.Invalid)
	}
	wantCode(t, "http on loopback", create(w, "http://127.0.0.1:9000"), fault.Invalid)
	if err := create(dev, "http://127.0.0.1:9000"); err != nil {
		t.Errorf("http on loopback in dev mode: got %v", err)
	}
}

func TestIssuers(t *testing.T) {
	fromFile := identity.Issuer{URL: "https://file.example.com", Audiences: []string{"tabard"}}
	w := newWorld(t, func(c *identity.Config) { c.Issuers = []identity.Issuer{fromFile} })
	ctx, admin := t.Context(), caller(access.Admin)
	made := w.trust()
	if made.TokenUse != identity.UseAny || made.SubjectClaim != "sub" || made.Account != account || made.FromConfig {
		t.Errorf("got %+v, want the defaults", made)
	}
	_, err := w.CreateIssuer(ctx, admin, identity.Issuer{URL: issuerURL, Audiences: []string{"x"}})
	wantCode(t, "the same issuer", err, fault.Conflict)
	_, err = w.CreateIssuer(ctx, admin, fromFile)
	wantCode(t, "one of the configuration", err, fault.Conflict)

	good := func(change func(*identity.Issuer)) identity.Issuer {
		i := identity.Issuer{URL: "https://x.example.com", Audiences: []string{"a"}}
		change(&i)
		return i
	}
	for name, i := range map[string]identity.Issuer{
		"no audience": good(func(i *identity.Issuer) { i.Audiences = nil }), "empty audience": good(func(i *identity.Issuer) { i.Audiences = []string{""} }),
		"control character": good(func(i *identity.Issuer) { i.ClientIDs = []string{"a\n"} }), "token use": good(func(i *identity.Issuer) { i.TokenUse = "both" }),
		"pattern": good(func(i *identity.Issuer) { i.Workloads = []string{"a/b"} }), "rule": good(func(i *identity.Issuer) { i.Claims = map[string]string{"a": ""} }),
		"subject claim": good(func(i *identity.Issuer) { i.SubjectClaim = "a\x00" }), "too many": good(func(i *identity.Issuer) { i.Audiences = make([]string, 51) }),
		"JWKS and URI": good(func(i *identity.Issuer) { i.JWKS, i.JWKSURI = w.idp.doc, "https://x.example.com/jwks" }), "http JWKS": good(func(i *identity.Issuer) { i.JWKSURI = "http://x.example.com/jwks" }),
		"http JWKS on loopback": good(func(i *identity.Issuer) { i.JWKSURI = "http://127.0.0.1/jwks" }), "JWKS with user": good(func(i *identity.Issuer) { i.JWKSURI = "https://u@x.example.com/jwks" }),
		"app scheme": good(func(i *identity.Issuer) { i.JWKSURI = "myapp:/jwks" }), "broken JWKS": good(func(i *identity.Issuer) { i.JWKS = []byte(`{"keys":[]}`) }), "no JWKS": good(func(i *identity.Issuer) { i.JWKS = []byte(`x`) }),
	} {
		_, err := w.CreateIssuer(ctx, admin, i)
		wantCode(t, name, err, fault.Invalid)
	}
	for _, role := range []access.Role{access.Agent, access.ConsentApp, access.Auditor} {
		_, err := w.CreateIssuer(ctx, caller(role, "*"), good(func(*identity.Issuer) {}))
		wantCode(t, "create as "+string(role), err, fault.Denied)
		wantCode(t, "delete as "+string(role), w.DeleteIssuer(ctx, caller(role, "*"), issuerURL), fault.Denied)
	}

	var urls []string
	for after := ""; ; {
		page, next, err := w.ListIssuers(ctx, caller(access.Auditor), after, 1)
		must(t, err)
		for _, i := range page {
			urls = append(urls, fmt.Sprint(i.URL, i.FromConfig))
		}
		if after = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"https://file.example.comtrue", issuerURL + "false"}, urls); diff != "" {
		t.Errorf("pages of one (-want +got):\n%s", diff)
	}

	w.accepted("a token of the configured issuer", w.jwt(map[string]any{"iss": fromFile.URL}))
	wantCode(t, "delete a configured one", w.DeleteIssuer(ctx, admin, fromFile.URL), fault.Invalid)
	w.accepted("before it is deleted", w.jwt(nil))
	must(t, w.DeleteIssuer(ctx, admin, issuerURL))
	w.refused("after it was deleted", w.jwt(nil), fault.Unauthenticated)
	wantCode(t, "delete again", w.DeleteIssuer(ctx, admin, issuerURL), fault.NotFound)
}

// M34: an issuer at or under the server's own URL is trusted by nobody: the issuer of one account would name the users
// of another. That holds however the address is spelled, and for a row that was there before the check.
func TestM34_OwnIssuersNameNoUsers(t *testing.T) {
	w := newWorld(t)
	for _, u := range []string{publicURL, publicURL + "/", publicURL + "/accounts/" + string(account), publicURL + "/accounts/111111111111", publicURL + "/x"} {
		_, err := w.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: u, Audiences: []string{"tabard"}, JWKS: w.idp.doc})
		wantCode(t, u, err, fault.Invalid)
		config := w.config
		config.Issuers = []identity.Issuer{{URL: u, Audiences: []string{"tabard"}}}
		_, err = identity.New(config)
		wantCode(t, u+" in the configuration", err, fault.Invalid)
		must(t, w.db.CreateIssuer(t.Context(), identity.Issuer{
			Account: account, URL: u, Audiences: []string{"tabard"}, JWKS: w.idp.doc, TokenUse: identity.UseAny, SubjectClaim: "sub",
		}))
		w.refused("a token of "+u, w.jwt(map[string]any{"iss": u}), fault.Unauthenticated)
	}
	_, err := w.CreateIssuer(t.Context(), w.root, identity.Issuer{URL: "https://other.example.com", Audiences: []string{"a"}, JWKSURI: publicURL + "/oauth2/jwks"})
	wantCode(t, "our keys under another name", err, fault.Invalid)
}

func TestUnder(t *testing.T) {
	for _, c := range []struct {
		base, address string
		want          bool
	}{
		{"https://a.example", "https://a.example", true}, {"https://a.example", "https://A.example.:443/x", true}, {"https://a.example", "https://a.example:8443", false},
		{"https://a.example", "https://a.example.evil", false}, {"https://a.example", "https://b.example", false}, {"https://a.example", "reports", false},
		{"https://a.example/t", "https://a.example/t", true}, {"https://a.example/t", "https://a.example/t/accounts/1", true}, {"https://a.example/t/", "https://a.example/t", true},
		{"https://a.example/t", "https://a.example/tt", false}, {"https://a.example/t", "https://a.example/x/../t/y", true}, {"https://a.example/t", "https://a.example/%74/y", true},
		{"https://a.example/t", "https://a.example", false}, {"https://a.example", "", false}, {"http://127.0.0.1:80", "http://127.0.0.1/x", true},
	} {
		if got := identity.Under(c.base, c.address); got != c.want {
			t.Errorf("Under(%q, %q): got %t, want %t", c.base, c.address, got, c.want)
		}
	}
}
