package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// organizations is a world in which an agent may act at calendar, where users consent, and at desk, where they need
// not.
type organizations struct {
	*world
	jwt               func(user string) string
	agent, app, admin key
}

func newOrganizations(t *testing.T, db string) *organizations {
	t.Helper()
	o := &organizations{world: newWorld(t, db)}
	o.jwt = o.crowd()
	o.workload("agent")
	o.provider("calendar")
	o.exchanger("desk")
	o.agent, o.app, o.admin = o.principal("agent", "agent", "agent"), o.principal("app", "agent", "consent-app"), o.principal("admin", "", "admin")
	return o
}

// ask is a request of the user's, with custom parameters: names and values in turn.
func (o *organizations) ask(user, provider, flow string, parameters ...string) map[string]any {
	o.t.Helper()
	in := map[string]any{
		"workloadIdentityToken": o.wat(o.agent, "agent", o.jwt(user)), "resourceCredentialProviderName": provider, "oauth2Flow": flow,
		"scopes": []string{"read"},
	}
	if flow == "USER_FEDERATION" {
		in["scopes"], in["resourceOauth2ReturnUrl"] = []string{"openid", "offline_access", "calendar.write"}, returnURL
	}
	custom := map[string]string{}
	for i := 0; i < len(parameters); i += 2 {
		custom[parameters[i]] = parameters[i+1]
	}
	if len(custom) > 0 {
		in["customParameters"] = custom
	}
	return in
}

// get wants an answer with a token, of which it is the connection.
func (o *organizations) get(what string, in map[string]any) (token, connection string) {
	o.t.Helper()
	r := o.call(o.agent, "GetResourceOauth2Token", in)
	if token = r.get("accessToken"); token == "" {
		o.t.Fatalf("%s: no token but %s", what, r.body)
	}
	return token, r.get("connectionId")
}

// consent walks the user through consent with the parameters.
func (o *organizations) consent(user string, parameters ...string) (session, token, connection string) {
	o.t.Helper()
	in := o.ask(user, "calendar", "USER_FEDERATION", append(parameters, "prompt", "consent")...)
	first := o.call(o.agent, "GetResourceOauth2Token", in)
	if session = first.get("sessionUri"); session == "" {
		o.t.Fatalf("%q: no consent is asked for, but %s", parameters, first.body)
	}
	peer.NewBrowser(user).Walk(o.t, first.get("authorizationUrl"), returnURL)
	o.call(o.app, "CompleteResourceTokenAuth", map[string]any{"sessionUri": session, "userIdentifier": map[string]any{"userToken": o.jwt(user)}})
	token, connection = o.get("after the consent", o.ask(user, "calendar", "USER_FEDERATION", parameters...))
	return session, token, connection
}

// connections are the states of the user's connections, by the user's organization.
func (o *organizations) connections(provider string) map[string]string {
	o.t.Helper()
	var list struct {
		Connections []struct {
			ConnectionID, State, ProviderName, Flow string
			Parameters                              []string
		}
	}
	if err := json.Unmarshal([]byte(o.call(root(), "ListConnections", map[string]any{"providerName": provider}).body), &list); err != nil {
		o.t.Fatal(err)
	}
	states := map[string]string{}
	for _, c := range list.Connections {
		states[c.ConnectionID] = c.State + " " + strings.Join(c.Parameters, ",")
	}
	return states
}

// TestM05_OrganizationAThenB asks for a token of org-a and then of org-b, in each flow, as an agent does: each is
// answered with its own, in the same process and after a restart of nothing, and so are polls and reports.
func TestM05_OrganizationAThenB(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		o := newOrganizations(t, db)
		for _, flow := range []string{"M2M", "ON_BEHALF_OF_TOKEN_EXCHANGE"} {
			a, idA := o.get(flow, o.ask("alice", "desk", flow, "organization", "org-a"))
			b, idB := o.get(flow, o.ask("alice", "desk", flow, "organization", "org-b"))
			none, idNone := o.get(flow, o.ask("alice", "desk", flow))
			if a == b || a == none || b == none || idA == idB || idA == idNone || idB == idNone {
				t.Errorf("%s: org-b, or none, is answered with the token of another", flow)
			}
			for want, in := range map[string]map[string]any{
				a: o.ask("alice", "desk", flow, "organization", "org-a", "prompt", "login"), b: o.ask("alice", "desk", flow, "organization", "org-b"), none: o.ask("alice", "desk", flow, "display", "page"),
			} {
				if again, _ := o.get(flow, in); again != want {
					t.Errorf("%s: asked again for %v, another token comes", flow, in["customParameters"])
				}
			}
		}

		open := o.call(o.agent, "GetResourceOauth2Token", o.ask("alice", "calendar", "USER_FEDERATION", "organization", "org-b"))
		session, a, idA := o.consent("alice", "organization", "org-a")
		poll := func(of string) reply {
			return o.call(o.agent, "GetResourceOauth2Token", with(o.ask("alice", "calendar", "USER_FEDERATION"), "sessionUri", of))
		}
		if r := poll(open.get("sessionUri")); r.get("accessToken") != "" {
			t.Error("a poll of org-b is answered with the token of org-a")
		}
		if r := poll(session); r.get("accessToken") != a {
			t.Errorf("a poll of org-a: %s", r.body)
		}
		_, b, idB := o.consent("alice", "organization", "org-b")
		if a == b || idA == idB {
			t.Error("org-b is answered with the token of org-a")
		}
		if r := poll(open.get("sessionUri")); r.get("accessToken") != b {
			t.Errorf("the overtaken poll of org-b: %s", r.body)
		}
		if r := o.call(o.agent, "GetResourceOauth2Token", o.ask("alice", "calendar", "USER_FEDERATION")); r.get("accessToken") != "" {
			t.Error("a request without an organization is answered with the token of one")
		}

		o.call(o.agent, "ReportTokenInvalid", map[string]any{"workloadIdentityToken": o.wat(o.agent, "agent", o.jwt("alice")), "connectionId": idA})
		if now, id := o.get("after the report", o.ask("alice", "calendar", "USER_FEDERATION", "organization", "org-a")); now == a || id != idA {
			t.Error("a report does not renew the token that was reported")
		}
		if now, _ := o.get("after the report", o.ask("alice", "calendar", "USER_FEDERATION", "organization", "org-b")); now != b {
			t.Error("a report of org-a renews the token of org-b")
		}
		if got := o.connections("calendar"); got[idA] != "active organization" || got[idB] != "active organization" {
			t.Errorf("the list does not say why there are two: %v", got)
		}
	})
}

// TestM05_TwentyConnectionsOfOneUser: whoever chooses parameters fills no more than twenty places.
func TestM05_TwentyConnectionsOfOneUser(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		o := newOrganizations(t, db)
		for n := range 20 {
			o.get("one of twenty", o.ask("alice", "desk", "ON_BEHALF_OF_TOKEN_EXCHANGE", "organization", "org-"+strconv.Itoa(n)))
		}
		r := o.post(o.agent, "GetResourceOauth2Token", encode(t, o.ask("alice", "desk", "ON_BEHALF_OF_TOKEN_EXCHANGE", "organization", "org-20")))
		if r.status != http.StatusTooManyRequests || !strings.Contains(r.body, "tabard connection list") {
			t.Errorf("one more: %d %s", r.status, r.body)
		}
		o.get("one that there is", o.ask("alice", "desk", "ON_BEHALF_OF_TOKEN_EXCHANGE", "organization", "org-7"))
		o.get("another user's", o.ask("bob", "desk", "ON_BEHALF_OF_TOKEN_EXCHANGE", "organization", "org-20"))
	})
}

// TestM05_AllConnectionsOfAProvider: what is said of a provider or a user is said of every connection there, whatever
// its parameters: a delegation serves each within its scopes, and an end ends each.
func TestM05_AllConnectionsOfAProvider(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		o := newOrganizations(t, db)
		_, a, idA := o.consent("alice", "organization", "org-a")
		_, b, idB := o.consent("alice", "organization", "org-b")
		_, _, idBob := o.consent("bob", "organization", "org-a")
		scopes := []string{"openid", "offline_access", "calendar.write"}
		id := o.delegate(o.app, o.jwt("alice"), map[string]any{"providerName": "calendar", "scopes": scopes})
		narrow := o.delegate(o.app, o.jwt("alice"), map[string]any{"providerName": "calendar", "scopes": scopes[:1]})
		under := func(delegation, organization string) reply {
			wat := o.call(o.agent, "GetWorkloadAccessTokenForDelegation", map[string]any{"workloadName": "agent", "delegationId": delegation}).get("workloadAccessToken")
			in := with(o.ask("alice", "calendar", "USER_FEDERATION", "organization", organization), "workloadIdentityToken", wat)
			return o.post(o.agent, "GetResourceOauth2Token", encode(t, in))
		}
		for organization, want := range map[string]string{"org-a": a, "org-b": b} {
			if r := under(id, organization); r.get("accessToken") != want {
				t.Errorf("%s under a delegation: %d %s", organization, r.status, r.body)
			}
			if r := under(narrow, organization); r.status != http.StatusForbidden || !strings.Contains(r.body, "calendar.write") {
				t.Errorf("%s under a narrower delegation: %d %s", organization, r.status, r.body)
			}
		}
		if r := under(id, "org-c"); r.status != http.StatusForbidden || !strings.Contains(r.body, "consent") {
			t.Errorf("org-c, without a connection, under a delegation: %d %s", r.status, r.body)
		}
		o.call(o.admin, "EndDelegation", map[string]any{"delegationId": narrow})

		o.call(o.admin, "EraseUser", map[string]any{"user": map[string]any{"issuer": corporateIssuer, "subject": "alice"}})
		var left map[string]string
		if !eventually(20*time.Second, func() bool {
			left = o.connections("calendar")
			return left[idA] == "revoked " && left[idB] == "revoked "
		}) {
			t.Fatalf("after erasing the user: %v", left)
		}
		if left[idBob] != "active organization" {
			t.Errorf("of another user: %s", left[idBob])
		}
		for _, token := range []string{a, b} {
			if !eventually(20*time.Second, func() bool { return !o.alive(token) }) {
				t.Error("the provider honours a token of the erased user")
			}
		}
		if mint := o.post(o.agent, "GetWorkloadAccessTokenForDelegation", `{"workloadName":"agent","delegationId":"`+id+`"}`); mint.status == http.StatusOK {
			t.Error("the delegation of the erased user lives")
		}
		_, _, again := o.consent("alice", "organization", "org-a")
		_, _, beside := o.consent("alice", "organization", "org-b")
		o.call(o.admin, "RevokeAccess", map[string]any{"providerName": "calendar"})
		if !eventually(20*time.Second, func() bool {
			left = o.connections("calendar")
			return strings.HasPrefix(left[again], "revoked") && strings.HasPrefix(left[beside], "revoked") && strings.HasPrefix(left[idBob], "revoked")
		}) {
			t.Errorf("after revoking the provider: %v", left)
		}
	})
}

// TestM04_AllowedParametersOverTheWire: the setting is a member of ours beside those of AWS, and a tag for AWS's
// clients. An update by those leaves it, and what is taken off it ends a session.
func TestM04_AllowedParametersOverTheWire(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		o := newOrganizations(t, db)
		wide := o.ask("alice", "calendar", "USER_FEDERATION", "claims", "{}", "label", "x")
		refused := func(when string) {
			t.Helper()
			if r := o.post(o.agent, "GetResourceOauth2Token", encode(t, wide)); r.status != http.StatusBadRequest || !strings.Contains(r.body, "--allow-parameter claims") {
				t.Errorf("%s: %d %s", when, r.status, r.body)
			}
		}
		refused("without the setting")
		config := map[string]any{"customOauth2ProviderConfig": map[string]any{
			"oauthDiscovery": map[string]any{"discoveryUrl": o.idp.DiscoveryURL()}, "clientId": clientID, "clientSecret": clientSecret,
		}}
		update := func(change ...any) reply {
			in := map[string]any{"name": "calendar", "credentialProviderVendor": "CustomOauth2", "oauth2ProviderConfigInput": config}
			for i := 0; i < len(change); i += 2 {
				in[change[i].(string)] = change[i+1]
			}
			return o.post(root(), "UpdateOauth2CredentialProvider", encode(t, in))
		}
		if r := update("allowedParameters", []string{"claims"}, "presentationParameters", []string{"label"}); r.status != http.StatusOK ||
			!strings.Contains(r.body, `"allowedParameters":["claims"]`) || !strings.Contains(r.body, `"presentationParameters":["label"]`) {
			t.Fatalf("an update: %d %s", r.status, r.body)
		}
		for _, bad := range [][]string{{"redirect_uri"}, {"a b"}, {""}, {"claims", "CLAIMS"}, make([]string, 17)} {
			if r := update("allowedParameters", bad); r.status != http.StatusBadRequest || !strings.Contains(r.body, "allowedParameters") {
				t.Errorf("%q: %d %s", bad, r.status, r.body)
			}
		}
		name := aws.String("calendar")
		_, err := o.control(root()).UpdateOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.UpdateOauth2CredentialProviderInput{
			Name: name, CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2, Oauth2ProviderConfigInput: customConfig(o.idp.DiscoveryURL()),
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.control(root()).GetOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.GetOauth2CredentialProviderInput{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		arn := got.CredentialProviderArn
		if tags := o.tagsOf(t.Context(), arn); tags["tabard:allowed-parameters"] != "claims" || tags["tabard:presentation-parameters"] != "label" {
			t.Errorf("after an update by an AWS client the tags are %v", tags)
		}
		session := o.call(o.agent, "GetResourceOauth2Token", wide).get("sessionUri")
		if session == "" {
			t.Fatal("no consent is asked for")
		}
		_, err = o.control(root()).UntagResource(t.Context(), &bedrockagentcorecontrol.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"tabard:allowed-parameters"}})
		if err != nil {
			t.Fatal(err)
		}
		plain := with(o.ask("alice", "calendar", "USER_FEDERATION"), "sessionUri", session)
		if r := o.post(o.agent, "GetResourceOauth2Token", encode(t, plain)); r.status != http.StatusForbidden || !strings.Contains(r.body, "does not allow any more") {
			t.Errorf("a poll of the session of before: %d %s", r.status, r.body)
		}
		refused("without the tag")
		if r := o.post(root(), "GetOauth2CredentialProvider", `{"name":"calendar"}`); strings.Contains(r.body, "allowedParameters") || !strings.Contains(r.body, `"presentationParameters":["label"]`) {
			t.Errorf("what it says then: %s", r.body)
		}
	})
}

// apis is a vendor whose tokens are each for the one API that its scopes name.
const apis = `[{"name":"ApisOauth2","config":"includedOauth2ProviderConfig","authMethod":"client_secret_post","verified":"scripted","tenant":true,
	"resources":{"default":"api://default","free":["openid"]}}]`

// TestM05_ConnectionsSayTheirResource: two connections of one agent at one provider say what each is for. A question
// that no token answers is refused as the request for it is, and a question that names parameters is answered for
// those.
func TestM05_ConnectionsSayTheirResource(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		file := filepath.Join(t.TempDir(), "vendors.json")
		if err := os.WriteFile(file, []byte(apis), 0o600); err != nil {
			t.Fatal(err)
		}
		w := newBare(t, db, func(c *daemon.Config) { c.VendorsFile = file })
		w.workload("agent")
		agent, boss := w.principal("agent", "agent", "agent"), root()
		at := oauthtest.New(t)
		w.call(boss, "CreateOauth2CredentialProvider", map[string]any{"name": "many", "credentialProviderVendor": "ApisOauth2",
			"oauth2ProviderConfigInput": map[string]any{"includedOauth2ProviderConfig": map[string]any{
				"clientId": oauthtest.ClientID, "clientSecret": oauthtest.ClientSecret, "issuer": at.URL, "authorizationEndpoint": at.URL + "/authorize", "tokenEndpoint": at.URL + "/token",
			}}})
		wat := w.call(agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "agent"}).get("workloadAccessToken")
		ask := func(scopes ...string) map[string]any {
			return map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "many", "oauth2Flow": "M2M", "scopes": scopes}
		}
		resources := map[string]string{}
		for resource, scope := range map[string]string{"api://default": "read", "api://x": "api://x/read"} {
			resources[w.call(agent, "GetResourceOauth2Token", ask(scope)).get("connectionId")] = resource
		}
		if len(resources) != 2 {
			t.Fatalf("two resources have the connections %v", resources)
		}
		var list struct {
			Connections []struct{ ConnectionID, Resource string }
		}
		if err := json.Unmarshal([]byte(w.call(boss, "ListConnections", map[string]any{}).body), &list); err != nil {
			t.Fatal(err)
		}
		for _, c := range list.Connections {
			if c.Resource != resources[c.ConnectionID] || c.Resource == "" {
				t.Errorf("connection %s is said to be for %q, and is for %q", c.ConnectionID, c.Resource, resources[c.ConnectionID])
			}
			if r := w.call(boss, "GetConnection", map[string]any{"connectionId": c.ConnectionID}); !strings.Contains(r.body, `"resource":"`+c.Resource+`"`) {
				t.Errorf("GetConnection: %s", r.body)
			}
		}
		w.twoResources(agent, ask("read", "api://x/read"))
		w.namedParameters()
	})
}

// twoResources wants a request of scopes of two resources refused, and the questions about one too.
func (w *world) twoResources(agent key, two map[string]any) {
	w.t.Helper()
	question := map[string]any{"operation": "GetResourceOauth2Token", "workloadName": "agent", "providerName": "many", "scopes": two["scopes"]}
	for op, in := range map[string]map[string]any{
		"FindWhoCan": question, "SimulateDecision": {"question": with(question, "principalName", "agent")},
	} {
		if r := w.post(root(), op, encode(w.t, in)); r.status != http.StatusBadRequest || !strings.Contains(r.body, "api://x") {
			w.t.Errorf("%s of two resources: %d %s", op, r.status, r.body)
		}
	}
	if r := w.post(agent, "GetResourceOauth2Token", encode(w.t, two)); r.status != http.StatusBadRequest || !strings.Contains(r.body, "api://x") {
		w.t.Errorf("a token for two: %d %s", r.status, r.body)
	}
	if r := w.call(root(), "FindWhoCan", with(question, "scopes", []string{"api://x/read"})); !strings.Contains(r.body, `"resource":"api://x"`) {
		w.t.Errorf("who can get a token for one: %s", r.body)
	}
}

// namedParameters forbids a parameter: questions that name it are answered so, and others are not.
func (w *world) namedParameters() {
	w.t.Helper()
	w.call(root(), "PutPolicy", map[string]any{
		"name": "no-org", "text": `forbid (principal == Tabard::Principal::"agent", action, resource) when { context.parameters.contains("org_id") };`,
	})
	question := map[string]any{"operation": "GetResourceOauth2Token", "workloadName": "agent", "providerName": "many", "flow": "M2M", "scopes": []string{"read"}}
	for can, parameters := range map[bool][]string{true: {"org"}, false: {"Org.Id"}} {
		in := with(question, "parameters", parameters)
		if r := w.call(root(), "FindWhoCan", in); strings.Contains(r.body, `"principalName":"agent"`) != can {
			w.t.Errorf("who can with the parameters %q: %s", parameters, r.body)
		}
		if r := w.call(root(), "SimulateDecision", map[string]any{"question": with(in, "principalName", "agent")}); strings.Contains(r.body, `"allowed":true`) != can {
			w.t.Errorf("a simulated request with the parameters %q: %s", parameters, r.body)
		}
	}
}

// tagsOf reads tags with AWS's client.
func (w *world) tagsOf(ctx context.Context, arn *string) map[string]string {
	w.t.Helper()
	a, err := w.control(root()).ListTagsForResource(ctx, &bedrockagentcorecontrol.ListTagsForResourceInput{ResourceArn: arn})
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Tags
}
