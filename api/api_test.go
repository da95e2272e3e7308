package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/api"
)

func TestEveryOperationOfTheModelsIsInTheTable(t *testing.T) {
	total := 0
	for file, plane := range map[string]api.Plane{"identity-control": api.PlaneControl, "identity-data": api.PlaneData, "tabard": api.PlaneTabard} {
		b, err := os.ReadFile("models/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var model struct {
			Operations map[string]struct {
				HTTP struct {
					Method, RequestURI string
					ResponseCode       int
				}
				Errors []struct{ Shape string }
			}
		}
		if err := json.Unmarshal(b, &model); err != nil {
			t.Fatal(err)
		}
		total += len(model.Operations)
		for name, op := range model.Operations {
			want := api.Operation{Name: name, Plane: plane, Method: op.HTTP.Method, Path: op.HTTP.RequestURI, Status: op.HTTP.ResponseCode}
			for _, e := range op.Errors {
				want.Errors = append(want.Errors, e.Shape)
			}
			got, ok := api.Find(name)
			if !ok {
				t.Errorf("%s is not in the table", name)
			} else if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		}
	}
	if got := len(api.Operations()); got != total || total != 111 {
		t.Errorf("got %d operations, the models have %d, want 111", got, total)
	}
	if _, ok := api.Find("NoSuchOperation"); ok {
		t.Error("found an operation that does not exist")
	}
}

type validator interface{ Validate() []api.FieldError }

func validToken() *api.GetResourceOauth2TokenRequest {
	return &api.GetResourceOauth2TokenRequest{WorkloadIdentityToken: "w", ResourceCredentialProviderName: "p", Scopes: []string{}, Oauth2Flow: api.Oauth2FlowTypeM2M}
}

func TestValidate(t *testing.T) {
	token := func(change func(*api.GetResourceOauth2TokenRequest)) validator {
		r := validToken()
		change(r)
		return r
	}
	custom := func(c api.CustomOauth2ProviderConfigInput) validator {
		return &api.CreateOauth2CredentialProviderRequest{Name: "p", CredentialProviderVendor: api.CredentialProviderVendorTypeCustomOauth2,
			Oauth2ProviderConfigInput: &api.Oauth2ProviderConfigInput{CustomOauth2ProviderConfig: &c}}
	}
	discovery := &api.Oauth2Discovery{DiscoveryURL: "https://idp/.well-known/openid-configuration"}
	const prefix = "oauth2ProviderConfigInput.customOauth2ProviderConfig."
	tests := map[string]struct {
		in   validator
		want string // "name: message", joined by "; "
	}{
		"valid":                 {validToken(), ""},
		"required":              {&api.GetResourceOauth2TokenRequest{}, "workloadIdentityToken: is required; resourceCredentialProviderName: is required; scopes: is required; oauth2Flow: is required"},
		"required structure":    {&api.CompleteResourceTokenAuthRequest{SessionURI: "urn:ietf:params:oauth:request_uri:x"}, "userIdentifier: is required"},
		"minimum":               {&api.GetWorkloadIdentityRequest{Name: "ab"}, "name: must have 3 to 255 characters"},
		"maximum":               {&api.GetWorkloadIdentityRequest{Name: strings.Repeat("a", 256)}, "name: must have 3 to 255 characters"},
		"characters, not bytes": {&api.GetWorkloadAccessTokenForUserIdRequest{WorkloadName: "abc", UserID: strings.Repeat("é", 128)}, ""},
		"one character more":    {&api.GetWorkloadAccessTokenForUserIdRequest{WorkloadName: "abc", UserID: strings.Repeat("é", 129)}, "userId: must have 1 to 128 characters"},
		"no minimum":            {custom(api.CustomOauth2ProviderConfigInput{OauthDiscovery: discovery, ClientSecret: api.Sensitive(strings.Repeat("x", 2049))}), prefix + "clientSecret: must have at most 2048 characters"},
		"pattern":               {&api.GetWorkloadIdentityRequest{Name: "abc/"}, "name: must match [A-Za-z0-9_.-]+"},
		"pattern is anchored":   {&api.GetWorkloadIdentityRequest{Name: "abc\n"}, "name: must match [A-Za-z0-9_.-]+"},
		"pattern within":        {&api.GetWorkloadIdentityRequest{Name: "日本語"}, "name: must match [A-Za-z0-9_.-]+"},
		"token of three parts":  {&api.GetWorkloadAccessTokenForJWTRequest{WorkloadName: "abc", UserToken: "h.p.s"}, ""},
		"token of one part":     {&api.GetWorkloadAccessTokenForJWTRequest{WorkloadName: "abc", UserToken: "a b c d"}, `userToken: must match [A-Za-z0-9-_=]+.[A-Za-z0-9-_=]+.[A-Za-z0-9-_=]+`},
		"return URL":            {token(func(r *api.GetResourceOauth2TokenRequest) { r.ResourceOauth2ReturnURL = "http://localhost:8081/a b" }), `resourceOauth2ReturnUrl: must match \w+:(\/?\/?)[^\s]+`},
		"enum":                  {token(func(r *api.GetResourceOauth2TokenRequest) { r.Oauth2Flow = "m2m" }), "oauth2Flow: must be one of USER_FEDERATION, M2M, ON_BEHALF_OF_TOKEN_EXCHANGE"},
		"list element":          {token(func(r *api.GetResourceOauth2TokenRequest) { r.Scopes = []string{"a", "b", ""} }), "scopes[2]: must have 1 to 128 characters"},
		"list size":             {&api.CreatePrincipalRequest{Name: "n", Roles: []api.PrincipalRole{}}, "roles: must have 1 to 5 entries"},
		"list of enums":         {&api.CreatePrincipalRequest{Name: "n", Roles: []api.PrincipalRole{"agent", "king"}}, "roles[1]: must be one of root, admin, agent, consent-app, auditor"},
		"map size":              {&api.CreateWorkloadIdentityRequest{Name: "abc", Tags: many(51)}, "tags: must have at most 50 entries"},
		"map key":               {token(func(r *api.GetResourceOauth2TokenRequest) { r.CustomParameters = map[string]api.Sensitive{"a b": "x"} }), `customParameters: has a key that must match [a-zA-Z0-9\-_\.]+`},
		"map value": {token(func(r *api.GetResourceOauth2TokenRequest) {
			r.CustomParameters = map[string]api.Sensitive{"b": "", "a": ""}
		}), "customParameters[a]: must have 1 to 2048 characters; customParameters[b]: must have 1 to 2048 characters"},
		"range":               {&api.ListWorkloadIdentitiesRequest{MaxResults: 21}, "maxResults: must be from 1 to 20"},
		"range below":         {&api.ListAuditRecordsRequest{MaxResults: -1}, "maxResults: must be from 1 to 1000"},
		"union of none":       {&api.CompleteResourceTokenAuthRequest{UserIdentifier: &api.UserIdentifier{}, SessionURI: "urn:ietf:params:oauth:request_uri:x"}, "userIdentifier: must have exactly one member, has 0"},
		"union of two":        {&api.CompleteResourceTokenAuthRequest{UserIdentifier: &api.UserIdentifier{UserID: "u", UserToken: "h.p.s"}, SessionURI: "urn:ietf:params:oauth:request_uri:x"}, "userIdentifier: must have exactly one member, has 2"},
		"nested":              {custom(api.CustomOauth2ProviderConfigInput{ClientID: strings.Repeat("x", 257)}), prefix + "oauthDiscovery: is required; " + prefix + "clientId: must have at most 256 characters"},
		"nested list":         {custom(api.CustomOauth2ProviderConfigInput{OauthDiscovery: discovery, PrivateEndpointOverrides: []api.PrivateEndpointOverride{{}}}), prefix + "privateEndpointOverrides[0].domain: is required; " + prefix + "privateEndpointOverrides[0].privateEndpoint: is required"},
		"provider with digit": {&api.ListTagsForResourceRequest{ResourceARN: "arn:aws:bedrock-agentcore:us-east-1:000000000000:token-vault/default/oauth2credentialprovider/x_1"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, e := range tt.in.Validate() {
				got = append(got, e.Name+": "+e.Message)
			}
			if d := cmp.Diff(tt.want, strings.Join(got, "; ")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func many(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("k", i)] = ""
	}
	return m
}

func TestValidateBoundsItsAnswer(t *testing.T) {
	r := validToken()
	r.Scopes = make([]string, 10_000)
	if got := len(r.Validate()); got != 20 {
		t.Errorf("got %d errors for 10,000 bad scopes, want 20", got)
	}
}

func TestG01_SensitiveIsMasked(t *testing.T) {
	const canary = "canary-77ab"
	r := validToken()
	r.WorkloadIdentityToken, r.CustomState, r.CustomParameters = canary, canary, map[string]api.Sensitive{"k": canary}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "token", r.WorkloadIdentityToken, "request", r)
	for _, got := range []string{fmt.Sprint(r), fmt.Sprintf("%+v %#v", *r, r), fmt.Sprintf("%s %q %x %v", r.CustomState, r.CustomState, r.CustomState, r.CustomParameters), log.String()} {
		if strings.Contains(got, canary) || strings.Contains(got, fmt.Sprintf("%x", canary)) {
			t.Errorf("reveals the secret: %s", got)
		}
	}
	b, err := json.Marshal(r.CustomState)
	if err != nil || string(b) != `"`+canary+`"` {
		t.Errorf("got %s, %v, want the value as a JSON string", b, err)
	}
}

func TestTimestamp(t *testing.T) {
	for want, at := range map[string]time.Time{
		"1753800522.019": time.Unix(1753800522, 19_999_999),
		"1753800522":     time.Unix(1753800522, 0),
		"1753800522.500": time.Unix(1753800522, 500_000_000),
		"-1.500":         time.Unix(-2, 500_000_000),
	} {
		b, err := json.Marshal(api.At(at))
		if err != nil || string(b) != want {
			t.Errorf("marshal %v: got %s, %v, want %s", at, b, err, want)
		}
		var back api.Timestamp
		if err := json.Unmarshal(b, &back); err != nil || back.UnixMilli() != at.UnixMilli() {
			t.Errorf("unmarshal %s: got %v, %v, want %v to the millisecond", b, back, err, at)
		}
	}
	for _, bad := range []string{`"2025-01-01T00:00:00Z"`, `1e300`, `true`} {
		if err := json.Unmarshal([]byte(bad), &api.Timestamp{}); err == nil {
			t.Errorf("unmarshal %s: got no error", bad)
		}
	}
}

func TestAbsentAndEmptyOnTheWire(t *testing.T) {
	for want, v := range map[string]any{
		`{"name":"abc"}`: api.UpdateWorkloadIdentityRequest{Name: "abc"},
		`{"name":"abc","allowedResourceOauth2ReturnUrls":[]}`: api.UpdateWorkloadIdentityRequest{Name: "abc", AllowedResourceOauth2ReturnURLs: []string{}},
		`{"accessToken":"t","expiresAt":1}`:                   api.GetResourceOauth2TokenResponse{AccessToken: "t", ExpiresAt: api.At(time.Unix(1, 0))},
		`{}`:                                                  api.GetResourceOauth2TokenResponse{},
	} {
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}

func BenchmarkValidateToken(b *testing.B) {
	r := validToken()
	r.WorkloadIdentityToken = api.Sensitive(strings.Repeat("w", 500))
	r.Scopes = []string{"https://www.googleapis.com/auth/calendar.events"}
	for b.Loop() {
		r.Validate()
	}
}

func BenchmarkValidateJWT(b *testing.B) {
	r := &api.GetWorkloadAccessTokenForJWTRequest{WorkloadName: "agent", UserToken: api.Sensitive(strings.Repeat("a", 300) + "." + strings.Repeat("b", 500) + "." + strings.Repeat("c", 200))}
	for b.Loop() {
		r.Validate()
	}
}
