package federation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
)

// A26: tokens of Kubernetes' legacy secrets have neither exp nor aud. What is said of such a token depends on it alone.
func TestA26_LegacyAndWrongAudienceTokens(t *testing.T) {
	w, _ := newAgent(t)
	for what, c := range map[string]struct {
		change map[string]any
		code   fault.Code
		public string
	}{
		"legacy":        {map[string]any{"exp": nil, "aud": nil, "iss": "kubernetes/serviceaccount"}, fault.Unauthenticated, "aud is missing"},
		"no exp":        {map[string]any{"exp": nil}, fault.Unauthenticated, "exp is missing"},
		"no aud":        {map[string]any{"aud": nil}, fault.Unauthenticated, "aud is missing"},
		"empty aud":     {map[string]any{"aud": []string{}}, fault.Unauthenticated, "aud is missing"},
		"numeric aud":   {map[string]any{"aud": 7}, fault.Unauthenticated, "aud"},
		"no sub":        {map[string]any{"sub": nil}, fault.Unauthenticated, "sub"},
		"a year":        {map[string]any{"exp": w.clock().AddDate(1, 0, 0).Unix()}, fault.Unauthenticated, "too long"},
		"not yet":       {map[string]any{"nbf": w.clock().Add(time.Hour).Unix()}, fault.Unauthenticated, "not valid before"},
		"over":          {map[string]any{"exp": w.clock().Add(-2 * time.Minute).Unix()}, fault.CredentialsExpired, "expired"},
		"the API's aud": {map[string]any{"aud": []string{cluster}}, fault.Denied, uniform},
		"ours and more": {map[string]any{"aud": []string{"tabard", "vault"}}, fault.Denied, uniform},
	} {
		if public, _ := w.refused(what, role("agent"), w.jwt(c.change), c.code); !strings.Contains(public, c.public) {
			t.Errorf("%s: the caller reads %q, want %q in it", what, public, c.public)
		}
	}
	if _, err := w.assume(role("agent"), w.jwt(nil)); err != nil {
		t.Errorf("a projected token: %v", err)
	}
}

// A26: a deleted pod's token verifies until it ends. The cluster knows better.
func TestA26_TokenOfADeletedPod(t *testing.T) {
	w, _ := newAgent(t)
	w.review.says(nil)
	jwt := w.jwt(nil)
	if _, err := w.assume(role("agent"), jwt); err != nil || w.review.asked != 1 {
		t.Fatalf("a living pod: %v after %d reviews", err, w.review.asked)
	}
	w.review.says(fault.New(fault.Unauthenticated, "the pod is gone"))
	public, trail := w.refused("a deleted pod", role("agent"), jwt, fault.Denied)
	if public != uniform || trail.Rule != "token-review" || !strings.Contains(trail.Facts.Detail, "the pod is gone") {
		t.Errorf("got %q and the record %s %q", public, trail.Rule, trail.Facts.Detail)
	}
	// It is not asked about again at once, however often it comes: the cluster is not ours to burden.
	asked := w.review.asked
	for range 5 {
		w.refused("again", role("agent"), jwt, fault.Denied)
	}
	if w.review.asked != asked {
		t.Errorf("%d reviews of a token that the cluster does not know", w.review.asked-asked)
	}
	w.later(11 * time.Second)
	w.review.says(fault.New(fault.Unavailable, "no answer"))
	if _, trail := w.refused("no answer", role("agent"), jwt, fault.Unavailable); trail.Rule != "issuer-unavailable" {
		t.Errorf("got the record %s", trail.Rule)
	}
	// A bearer's token is not reviewed with every call, but every ten seconds.
	w.review.says(nil)
	w.review.asked = 0
	bearer := func() error {
		_, err := w.bearer("", jwt)
		return err
	}
	for range 3 {
		must(t, bearer())
	}
	w.review.says(fault.New(fault.Unauthenticated, "the pod is gone"))
	w.later(11 * time.Second)
	wantCode(t, "eleven seconds later", bearer(), fault.Denied)
	if w.review.asked > 2 {
		t.Errorf("%d reviews for four calls", w.review.asked)
	}
}

// A27: a service account that is created again under the same name has another uid.
func TestA27_RecreatedServiceAccount(t *testing.T) {
	w := newWorld(t)
	w.principal(account, "agent", access.Agent)
	w.trust()
	w.allow(agentSub, "agent", map[string]string{"kubernetes.io/serviceaccount/uid": "uid-1", "kubernetes.io/namespace": "prod"})
	if _, err := w.assume(role("agent"), w.jwt(nil)); err != nil {
		t.Fatal(err)
	}
	again := func(uid any) map[string]any {
		return map[string]any{"kubernetes.io": map[string]any{"namespace": "prod", "serviceaccount": map[string]any{"name": "agent", "uid": uid}}}
	}
	for what, change := range map[string]map[string]any{
		"another uid":        again("uid-2"),
		"a list of uids":     again([]string{"uid-1"}),
		"no uid":             again(nil),
		"a claim beside it":  {"kubernetes.io/serviceaccount/uid": "uid-1", "kubernetes.io": again("uid-2")["kubernetes.io"]},
		"no such claim":      {"kubernetes.io": nil},
		"another namespace":  {"kubernetes.io": map[string]any{"namespace": "dev", "serviceaccount": map[string]any{"uid": "uid-1"}}},
		"another way to it":  {"kubernetes.io": nil, "kubernetes.io/serviceaccount": map[string]any{"uid": "uid-2"}},
		"the claim as text":  {"kubernetes.io": `{"serviceaccount":{"uid":"uid-1"}}`},
		"another subject":    {"sub": "system:serviceaccount:prod:agent-2"},
		"the subject longer": {"sub": "x:" + agentSub},
	} {
		if public, trail := w.refused(what, role("agent"), w.jwt(change), fault.Denied); public != uniform || trail.Rule != "no-rule" {
			t.Errorf("%s: got %q and the record %s", what, public, trail.Rule)
		}
	}
}

// A28: a JWT-SVID is one of its own trust domain only, of a key for JWT-SVIDs, and for nobody else.
func TestA28_JWTSVIDs(t *testing.T) {
	w := newWorld(t)
	w.principal(account, "agent", access.Agent)
	keys, foreign := keypairs(), jwstest.Stranger(t)
	bundle := func(use string, key any) []byte {
		return jwstest.Set(t, jwstest.Key(t, "svid", key, map[string]any{"use": use}), jwstest.Key(t, "x509", &keys.RSA.PublicKey, map[string]any{"use": "x509-svid"}))
	}
	w.trust(func(i *federation.Issuer) { i.URL, i.JWKS = domain, bundle("jwt-svid", &keys.EC.PublicKey) })
	w.trust(func(i *federation.Issuer) {
		i.URL, i.JWKS = "spiffe://dev.example.com", bundle("jwt-svid", &foreign.PublicKey)
	})
	for _, d := range []string{domain, "spiffe://dev.example.com"} {
		ok(w.CreateRule(t.Context(), w.root, federation.Rule{Issuer: d, Subject: d + "/agent", Name: "agent"}))(t)
	}
	svid := func(alg, kid string, key any, header, change map[string]any) string {
		h := map[string]any{"kid": kid}
		for k, v := range header {
			h[k] = v
		}
		c := w.claims(map[string]any{"iss": nil, "sub": domain + "/agent", "aud": "tabard", "nbf": nil, "kubernetes.io": nil})
		for k, v := range change {
			c[k] = v
		}
		return jwstest.Sign(t, alg, h, c, key)
	}
	for what, jwt := range map[string]string{
		"plain":         svid("ES256", "svid", keys.EC, nil, nil),
		"with a type":   svid("ES256", "svid", keys.EC, map[string]any{"typ": "JWT"}, nil),
		"with iss":      svid("ES256", "svid", keys.EC, nil, map[string]any{"iss": "https://spire.example.com"}),
		"the other one": svid("ES256", "svid", foreign, nil, map[string]any{"sub": "spiffe://dev.example.com/agent"}),
	} {
		if s, err := w.assume(role("agent"), jwt); err != nil || s.Audience != "tabard" {
			t.Errorf("%s: %v, audience %q", what, err, s.Audience)
		}
	}
	for what, jwt := range map[string]string{
		"of another trust domain's key": svid("ES256", "svid", foreign, nil, nil),
		"of the key for certificates":   svid("RS256", "x509", keys.RSA, nil, nil),
		"of no trusted domain":          svid("ES256", "svid", keys.EC, nil, map[string]any{"sub": "spiffe://stage.example.com/agent"}),
		"with another audience too":     svid("ES256", "svid", keys.EC, nil, map[string]any{"aud": []string{"tabard", "billing"}}),
		"for another audience":          svid("ES256", "svid", keys.EC, nil, map[string]any{"aud": "billing"}),
		"with no path":                  svid("ES256", "svid", keys.EC, nil, map[string]any{"sub": domain}),
		"with a dot segment":            svid("ES256", "svid", keys.EC, nil, map[string]any{"sub": domain + "/x/../agent"}),
		"with an upper case domain":     svid("ES256", "svid", keys.EC, nil, map[string]any{"sub": "spiffe://PROD.example.com/agent"}),
		"without a key id":              jwstest.Sign(t, "ES256", nil, w.claims(map[string]any{"iss": nil, "sub": domain + "/agent", "aud": "tabard"}), keys.EC),
	} {
		if public, _ := w.refused(what, role("agent"), jwt, fault.Denied); public != uniform {
			t.Errorf("%s: the caller reads %q", what, public)
		}
	}
	ed := jwstest.Sign(t, "EdDSA", map[string]any{"kid": "svid"}, w.claims(map[string]any{"iss": nil, "sub": domain + "/agent", "aud": "tabard"}), keys.Ed)
	must(t, w.DeleteIssuer(t.Context(), w.root, domain))
	w.trust(func(i *federation.Issuer) { i.URL, i.JWKS = domain, bundle("jwt-svid", keys.Ed.Public()) })
	ok(w.CreateRule(t.Context(), w.root, federation.Rule{Issuer: domain, Subject: domain + "/agent", Name: "agent"}))(t)
	w.refused("with an algorithm that JWT-SVIDs do not have", role("agent"), ed, fault.Denied)
}

// A28: other audiences are allowed where an administrator says so, and ours must still be among them.
func TestA28_OtherAudiencesBySetting(t *testing.T) {
	w := newWorld(t)
	w.principal(account, "agent", access.Agent)
	w.trust(func(i *federation.Issuer) { i.OtherAudiences = true })
	w.allow(agentSub, "agent", nil)
	if _, err := w.assume(role("agent"), w.jwt(map[string]any{"aud": []string{"vault", "tabard"}})); err != nil {
		t.Error(err)
	}
	w.refused("without ours", role("agent"), w.jwt(map[string]any{"aud": []string{"vault"}}), fault.Denied)
}

// A22 for workloads: the keyring is the one of users' issuers.
func TestA22_UnknownKeysOfAnIssuer(t *testing.T) {
	w, _ := newAgent(t)
	for i := range 200 {
		token := jwstest.Sign(t, "ES256", map[string]any{"kid": fmt.Sprintf("k%d", i)}, w.claims(nil), keypairs().EC)
		if _, err := w.assume(role("agent"), token); !errors.Is(err, fault.Denied) {
			t.Fatalf("got %v, want denied", err)
		}
	}
	if w.keys.fetches > 2 {
		t.Errorf("%d fetches for 200 unknown keys, want at most 2", w.keys.fetches)
	}
}

// A25 for workloads.
func TestA25_TheIssuerIsDown(t *testing.T) {
	w, _ := newAgent(t)
	w.keys.publish(nil, fault.New(fault.Unavailable, "no route"))
	_, err := w.assume(role("agent"), w.jwt(nil))
	wantCode(t, "no keys", err, fault.Unavailable)
	if last := w.lastRecord(account); last.Rule != "issuer-unavailable" {
		t.Errorf("got the record %s", last.Rule)
	}
	for range 20 {
		w.assume(role("agent"), w.jwt(nil))
	}
	if w.keys.fetches > 1 {
		t.Errorf("%d fetches while the issuer is down", w.keys.fetches)
	}
	w.keys.publish(keypairs().Set(t), nil)
	w.later(6 * time.Second)
	if _, err := w.assume(role("agent"), w.jwt(nil)); err != nil {
		t.Error(err)
	}
}

// M08: the keys of workloads' tokens come from no other host than the one that was named first.
func TestM08_WorkloadKeysMove(t *testing.T) {
	w, _ := newAgent(t)
	if _, err := w.assume(role("agent"), w.jwt(nil)); err != nil {
		t.Fatal(err)
	}
	w.later(25 * time.Hour) // past the keys' life
	before := w.keys.fetches
	w.keys.host = "https://evil.example"
	_, last := w.refused("moved", role("agent"), w.jwt(nil), fault.Denied)
	if !strings.Contains(last.Facts.Detail, "moved its workload-keys endpoint to another host: an administrator accepts that by tabard issuer accept-endpoints URL") || w.keys.fetches != before {
		t.Errorf("the trail has %q after %d fetches", last.Facts.Detail, w.keys.fetches-before)
	}
	w.keys.host = ""
	w.later(time.Minute)
	if _, err := w.assume(role("agent"), w.jwt(nil)); err != nil {
		t.Errorf("back: %v", err)
	}
}

// M34: an issuer at or under the server's own URL names no workloads either, also if a row says that it does.
func TestM34_OwnIssuersNameNoWorkloads(t *testing.T) {
	w, _ := newAgent(t)
	const own = publicURL + "/accounts/111111111111"
	_, err := w.CreateIssuer(t.Context(), w.root, federation.Issuer{URL: own, Audiences: []string{"tabard"}})
	wantCode(t, "our own URL", err, fault.Invalid)
	_, err = w.CreateIssuer(t.Context(), w.root, federation.Issuer{URL: "https://other.example.com", Audiences: []string{"tabard"}, JWKSURI: publicURL + "/oauth2/jwks"})
	wantCode(t, "our keys under another name", err, fault.Invalid)

	must(t, w.db.CreateWorkloadIssuer(t.Context(), federation.Issuer{
		Account: account, URL: own, UID: "wis-own", Kind: federation.OIDC, Audiences: []string{"tabard"}, JWKS: keypairs().Set(t), Created: w.clock(),
	}))
	must(t, w.db.CreateFederationRule(t.Context(), federation.Rule{
		Account: account, ID: "rule-own", Issuer: own, Subject: "*", Principal: "prn-agent", Name: "agent", Created: w.clock(),
	}))
	_, trail := w.refused("a token of ours", role("agent"), w.jwt(map[string]any{"iss": own}), fault.Denied)
	if trail.Rule != "issuer-own" {
		t.Errorf("got the rule %q in the trail", trail.Rule)
	}
}
