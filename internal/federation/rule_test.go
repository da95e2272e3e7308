package federation_test

import (
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
)

func TestIssuersAreChecked(t *testing.T) {
	w := newWorld(t)
	for what, i := range map[string]federation.Issuer{
		"no audience":             {URL: cluster},
		"an empty audience":       {URL: cluster, Audiences: []string{""}},
		"an audience twice":       {URL: cluster, Audiences: []string{"a", "a"}},
		"http":                    {URL: "http://idp.example.com", Audiences: []string{"a"}},
		"not canonical":           {URL: "https://IDP.example.com", Audiences: []string{"a"}},
		"the legacy issuer":       {URL: "kubernetes/serviceaccount", Audiences: []string{"a"}},
		"a kind of nobody":        {URL: cluster, Kind: "SAML", Audiences: []string{"a"}},
		"a domain as OIDC":        {URL: domain, Kind: federation.OIDC, Audiences: []string{"a"}},
		"a URL as SPIFFE":         {URL: cluster, Kind: federation.SPIFFE, Audiences: []string{"a"}, JWKSURI: "https://a.example/b"},
		"a domain with a path":    {URL: domain + "/agent", Audiences: []string{"a"}, JWKSURI: "https://a.example/b"},
		"a domain in upper case":  {URL: "spiffe://PROD", Audiences: []string{"a"}, JWKSURI: "https://a.example/b"},
		"a domain without keys":   {URL: domain, Audiences: []string{"a"}},
		"keys twice":              {URL: cluster, Audiences: []string{"a"}, JWKSURI: "https://a.example/b", JWKS: keypairs().Set(t)},
		"a JWKS URI without TLS":  {URL: cluster, Audiences: []string{"a"}, JWKSURI: "http://a.example/b"},
		"keys that are none":      {URL: cluster, Audiences: []string{"a"}, JWKS: []byte(`{"keys":[]}`)},
		"a bundle without SVIDs'": {URL: domain, Audiences: []string{"a"}, JWKS: keypairs().Set(t)},
		"a bundle without ids":    {URL: domain, Audiences: []string{"a"}, JWKS: jwstest.Set(t, jwstest.Key(t, "", &keypairs().EC.PublicKey, map[string]any{"use": "jwt-svid"}))},
	} {
		_, err := w.CreateIssuer(t.Context(), w.root, i)
		wantCode(t, what, err, fault.Invalid)
	}
	made := w.trust()
	if made.Kind != federation.OIDC || made.UID == "" {
		t.Errorf("got %+v", made)
	}
	_, err := w.CreateIssuer(t.Context(), w.root, federation.Issuer{URL: cluster, Audiences: []string{"b"}})
	wantCode(t, "twice", err, fault.Conflict)
	wantCode(t, "removing what is not there", w.DeleteIssuer(t.Context(), w.root, domain), fault.NotFound)
	all, next, err := w.Issuers(t.Context(), w.root, "", 10)
	if err != nil || next != "" || len(all) != 1 || all[0].URL != cluster || all[0].Disabled {
		t.Errorf("listed %+v, %q, %v", all, next, err)
	}
}

func TestRulesAreChecked(t *testing.T) {
	w := newWorld(t)
	w.principal(account, "agent", access.Agent)
	w.trust()
	for what, r := range map[string]federation.Rule{
		"no subject":          {},
		"anybody":             {Subject: "*"},
		"anybody twice":       {Subject: "**"},
		"many stars":          {Subject: "a*b*c*d*e*f*"},
		"a control character": {Subject: "a\x00"},
		"an empty claim":      {Subject: "a", Claims: map[string]string{"b": ""}},
		"another domain's":    {Issuer: domain, Subject: "spiffe://prod.example.com.evil/agent"},
	} {
		if r.Issuer == "" {
			r.Issuer = cluster
		}
		r.Name = "agent"
		_, err := w.CreateRule(t.Context(), w.root, r)
		wantCode(t, what, err, fault.Invalid)
	}
	_, err := w.CreateRule(t.Context(), w.root, federation.Rule{Issuer: cluster, Subject: "a", Name: "nobody"})
	wantCode(t, "no principal", err, fault.NotFound)
	_, err = w.CreateRule(t.Context(), w.root, federation.Rule{Issuer: "https://b.example", Subject: "a", Name: "agent"})
	wantCode(t, "no issuer", err, fault.NotFound)
	r := w.allow("*", "agent", map[string]string{"repository_id": "1"})
	_, err = w.CreateRule(t.Context(), w.root, federation.Rule{Issuer: cluster, Subject: "*", Claims: map[string]string{"repository_id": "1"}, Name: "agent"})
	wantCode(t, "the same again", err, fault.Conflict)
	w.allow("*", "agent", map[string]string{"repository_id": "2"})
	for q, want := range map[[2]string]int{{"", ""}: 2, {cluster, ""}: 2, {"", "agent"}: 2, {cluster, "agent"}: 2, {"", "nobody"}: 0, {domain, ""}: 0} {
		found, _, err := w.Rules(t.Context(), w.root, q[0], q[1], "", 10)
		if err != nil || len(found) != want {
			t.Errorf("rules of %q: got %d, %v, want %d", q, len(found), err, want)
		}
	}
	must(t, w.DeleteRule(t.Context(), w.root, r.ID))
	wantCode(t, "removed twice", w.DeleteRule(t.Context(), w.root, r.ID), fault.NotFound)
}

// Only administrators change whom workloads are.
func TestWhoMayFederate(t *testing.T) {
	w, rule := newAgent(t)
	for _, r := range []access.Role{access.Agent, access.ConsentApp, access.Auditor} {
		c := access.Caller{Account: account, Principal: "prn-x", Name: "x", Roles: []access.Role{r}, Workloads: []string{"*"}}
		_, err := w.CreateIssuer(t.Context(), c, federation.Issuer{URL: "https://b.example", Audiences: []string{"a"}})
		wantCode(t, string(r)+" creates an issuer", err, fault.Denied)
		_, err = w.CreateRule(t.Context(), c, federation.Rule{Issuer: cluster, Subject: "b", Name: "agent"})
		wantCode(t, string(r)+" creates a rule", err, fault.Denied)
		wantCode(t, string(r)+" deletes a rule", w.DeleteRule(t.Context(), c, rule.ID), fault.Denied)
		wantCode(t, string(r)+" deletes an issuer", w.DeleteIssuer(t.Context(), c, cluster), fault.Denied)
		if _, _, err = w.Rules(t.Context(), c, "", "", "", 1); (err == nil) != (r == access.Auditor) {
			t.Errorf("%s lists rules: %v", r, err)
		}
	}
	foreign := access.Caller{Account: other, Principal: "prn-x", Name: "x", Roles: []access.Role{access.Admin}}
	wantCode(t, "another account's rule", w.DeleteRule(t.Context(), foreign, rule.ID), fault.NotFound)
	wantCode(t, "another account's issuer", w.DeleteIssuer(t.Context(), foreign, cluster), fault.NotFound)
	if _, err := w.assume(role("agent"), w.jwt(nil)); err != nil {
		t.Error(err)
	}
}

func TestAnIssuerHasABoundedNumberOfRules(t *testing.T) {
	w := newWorld(t)
	id := w.principal(account, "agent", access.Agent)
	w.trust()
	for i := range 500 {
		must(t, w.db.CreateFederationRule(t.Context(), federation.Rule{Account: account, ID: "frl-" + strings.Repeat("x", i+1), Issuer: cluster, Subject: "a", Principal: id}))
	}
	_, err := w.CreateRule(t.Context(), w.root, federation.Rule{Issuer: cluster, Subject: "b", Name: "agent"})
	wantCode(t, "one more", err, fault.Limit)
}
