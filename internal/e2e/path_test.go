package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/issuer"
)

// tagsPath is where the tags of the token vault are: an ARN in one segment of the path.
func tagsPath() string {
	return "/tags/" + url.QueryEscape(arnStart+"token-vault/default")
}

// F07: a path has one reading. What is signed but written in another way than SDKs write it reaches no operation.
func TestF07_PathsAreCanonical(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	good := tagsPath()
	if r := do(t, w.request(root(), http.MethodGet, good, "")); r.status != http.StatusOK {
		t.Fatalf("the SDKs' form: %d %s", r.status, r.body)
	}
	for _, path := range []string{
		"/" + good, "//tags" + strings.TrimPrefix(good, "/tags"), "/x/.." + good, "/." + good, good + "/", good + "/.", "/x/%2e%2e" + good,
		"/tags%2F" + strings.TrimPrefix(good, "/tags/"), "/tags/" + arnStart + "token-vault/default", "/tags;x/" + strings.TrimPrefix(good, "/tags/"), "/TAGS/" + strings.TrimPrefix(good, "/tags/"),
	} {
		if r := do(t, w.request(root(), http.MethodGet, path, "")); r.status != http.StatusNotFound && r.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	// Between two readings of one ARN the server takes the one it verified: %25 is no second way to write a byte.
	twice := strings.ReplaceAll(good, "%", "%25")
	if r := do(t, w.request(root(), http.MethodGet, twice, "")); r.status == http.StatusOK {
		t.Errorf("%s: %d %s", twice, r.status, r.body)
	}
}

// M20: one percent-encoded letter in the path of an operation, an endpoint or a page, and nothing answers there.
func TestM20_EncodedLettersReachNothing(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	paths := []string{"/healthz", "/readyz", "/tabard/audit-keys.json", "/identities/oauth2/authorize", "/identities/hosted/done"}
	for _, p := range issuer.Paths() {
		paths = append(paths, strings.NewReplacer("{account}", daemon.DefaultAccount, "{issuer}", strings.Repeat("ab", 32)).Replace(p))
	}
	for _, op := range api.Operations() {
		paths = append(paths, strings.ReplaceAll(op.Path, "{resourceArn}", url.QueryEscape(arnStart+"token-vault/default")))
	}
	unknown := do(t, w.request(root(), http.MethodPost, "/nothing", "{}"))
	for _, path := range paths {
		for i := 1; i < len(path); i += 5 {
			if strings.ContainsAny(path[max(0, i-2):i+1], "/%") {
				continue
			}
			encoded := path[:i] + fmt.Sprintf("%%%02x", path[i]) + path[i+1:]
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				if r := do(t, w.request(root(), method, encoded, "{}")); r.status != unknown.status {
					t.Errorf("%s %s: %d %.100s", method, encoded, r.status, r.body)
				}
			}
		}
	}
}

// F08: the method is that of the request line, and a body that an operation has no member for is refused.
func TestF08_MethodOverrideIsIgnored(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	if r := do(t, w.request(root(), http.MethodPost, tagsPath(), `{"tags":{"k":"v"}}`)); r.status != http.StatusNoContent {
		t.Fatalf("tag: %d %s", r.status, r.body)
	}
	for _, header := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		r := w.request(root(), http.MethodGet, tagsPath()+"?tagKeys=k&_method=DELETE", "")
		r.Header.Set(header, http.MethodDelete)
		if got := do(t, r); got.status != http.StatusOK || !strings.Contains(got.body, `"k":"v"`) {
			t.Errorf("%s: %d %s", header, got.status, got.body)
		}
	}
	if r := do(t, w.request(root(), http.MethodGet, tagsPath(), `{"tags":{}}`)); r.status != http.StatusBadRequest {
		t.Errorf("a read with a body: %d %s", r.status, r.body)
	}
}

// F13: no answer may be kept by a cache, whether it is a success or a refusal, in JSON or in XML.
func TestF13_NothingIsCached(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	check := func(what string, r reply) {
		t.Helper()
		if got := r.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: %d with Cache-Control %q", what, r.status, got)
		}
	}
	boss := root()
	for _, op := range api.Operations() {
		path := strings.ReplaceAll(op.Path, "{resourceArn}", "x")
		signed := do(t, w.request(boss, op.Method, path, "{}"))
		check(op.Name, signed)
		if op.Name == api.OpRotateRootKey {
			boss = keyIn(t, signed, "accessKey") // the one before it is disabled
		}
		bare := w.request(boss, op.Method, path, "{}")
		bare.Header.Del("Authorization")
		check(op.Name+" unsigned", do(t, bare))
	}
	if boss == root() {
		t.Error("the root key was not rotated")
	}
	r := w.request(boss, http.MethodPost, "/", "")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	check("STS", do(t, r))
	check("nothing", do(t, w.request(boss, http.MethodPost, "/nothing", "")))
	container := do(t, w.request(boss, http.MethodGet, "/container-credentials/"+daemon.DefaultAccount, ""))
	if check("container credentials", container); container.status != http.StatusForbidden && container.status != http.StatusUnauthorized {
		t.Errorf("container credentials: %d %s", container.status, container.body)
	}
	w.call(boss, "CreateWorkloadIdentity", map[string]any{"name": "worker"})
	w.call(boss, "CreatePrincipal", map[string]any{"name": "worker", "roles": []string{"agent"}, "workloads": []string{"worker"}})
	w.call(boss, "PutPolicy", map[string]any{"name": "worker", "text": agentPolicy("worker")})
	agent := keyIn(t, w.call(boss, "CreateAccessKey", map[string]any{"principalName": "worker"}), "accessKey")
	w.call(boss, "CreateApiKeyCredentialProvider", map[string]any{"name": "maps", "apiKey": "k"})
	wat := w.call(agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "worker"})
	check("a token", wat)
	check("a key", w.call(agent, "GetResourceApiKey", map[string]any{"workloadIdentityToken": wat.get("workloadAccessToken"), "resourceCredentialProviderName": "maps"}))
}

// F20: a create that is sent again, as SDKs do after a lost answer, says that the thing exists and leaves it as it was.
// That Complete may be sent again, and redeems once, is part of TestGoSDK/ThreeLeggedFlow.
func TestF20_CreatesAgain(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db)
		config := map[string]any{"googleOauth2ProviderConfig": map[string]any{"clientId": "c", "clientSecret": "s"}}
		for _, c := range []struct {
			kind     string
			in, next map[string]any
			status   int
		}{
			{"WorkloadIdentity", map[string]any{"name": "worker"}, map[string]any{"name": "worker", "allowedResourceOauth2ReturnUrls": []string{returnURL}}, http.StatusBadRequest},
			{"ApiKeyCredentialProvider", map[string]any{"name": "maps", "apiKey": "one"}, map[string]any{"name": "maps", "apiKey": "two"}, http.StatusConflict},
			{"Oauth2CredentialProvider", map[string]any{"name": "google", "credentialProviderVendor": "GoogleOauth2", "oauth2ProviderConfigInput": config},
				map[string]any{"name": "google", "credentialProviderVendor": "GoogleOauth2", "oauth2ProviderConfigInput": config, "tags": map[string]string{"k": "v"}}, http.StatusConflict},
		} {
			w.call(root(), "Create"+c.kind, c.in)
			before := w.call(root(), "Get"+c.kind, map[string]any{"name": c.in["name"]})
			for _, in := range []map[string]any{c.in, c.next} {
				if r := w.post(root(), "Create"+c.kind, encode(t, in)); r.status != c.status || !strings.Contains(r.body, "already exists") {
					t.Errorf("%s again: %d %s", c.kind, r.status, r.body)
				}
			}
			if after := w.call(root(), "Get"+c.kind, map[string]any{"name": c.in["name"]}); after.body != before.body {
				t.Errorf("%s changed from %s to %s", c.kind, before.body, after.body)
			}
		}
	})
}

// F10: a form with a parameter twice has two readings, and so none.
func TestF10_RepeatedParametersAreRefused(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	const good = "Action=GetCallerIdentity&Version=2011-06-15"
	for form, status := range map[string]int{
		good: http.StatusOK, good + "&Action=GetSessionToken": http.StatusBadRequest, "Action=GetSessionToken&" + good: http.StatusBadRequest,
		good + "&Version=2011-06-15": http.StatusBadRequest, good + "&x=1": http.StatusBadRequest, good + "&%zz": http.StatusBadRequest, good + ";x": http.StatusBadRequest,
	} {
		if r := do(t, w.stsRequest(form)); r.status != status || r.header.Get("Content-Type") != "text/xml" {
			t.Errorf("%s: %d %s", form, r.status, r.body)
		}
	}
}
