package sidecar_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/tabard-id/tabard/internal/sidecar"
)

const forToken = "/identities/oauth2/token"

// Whatever signed a call, Tabard sees the sidecar's credentials and nothing of the caller's.
func TestCallsGoOnAsTheSidecar(t *testing.T) {
	s := newScene(t)
	got := s.identity(forToken, `{"scopes":[]}`, http.Header{
		"Authorization":        {"AWS4-HMAC-SHA256 Credential=AKIAREALKEY/20260101/eu-west-1/bedrock-agentcore/aws4_request, SignedHeaders=host, Signature=00"},
		"X-Amz-Security-Token": {"canary-session-of-the-agent"}, "X-Amz-Date": {"20260101T000000Z"}, "X-Tabard-Principal": {"root"},
		"Cookie": {"a=b"}, "X-Amzn-Trace-Id": {"Root=1-67891233-abcdef012345678912345678"},
	})
	if got.status != 200 || !strings.Contains(got.body, "workloadAccessToken") || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %s %v", got.status, got.body, got.header)
	}
	there := s.tabard.last(t)
	want := map[string]string{"Authorization": "Bearer " + podToken, "X-Amz-Security-Token": "", "X-Amz-Date": "", "X-Tabard-Principal": "", "Cookie": "",
		"Content-Type": "application/json", "X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678"}
	for name, v := range want {
		if there.header.Get(name) != v {
			t.Errorf("%s: got %q, want %q", name, there.header.Get(name), v)
		}
	}
	if there.path != forToken || there.body != `{"scopes":[]}` {
		t.Errorf("Tabard got %s %s", there.path, there.body)
	}
}

func TestTheTokenFileIsReadAgain(t *testing.T) {
	s := newScene(t)
	s.identity(forToken, "{}", nil)
	s.project("another.token.now\n")
	s.identity(forToken, "{}", nil)
	if got := s.tabard.last(t).header.Get("Authorization"); got != "Bearer another.token.now" {
		t.Errorf("got %q", got)
	}
	asked := s.tabard.count()
	for what, token := range map[string]string{"empty": " \n", "two lines": "a.b.c\nd.e.f", "no text": "a\x00b", "too long": strings.Repeat("a", 65<<10)} {
		s.project(token)
		if got := s.identity(forToken, "{}", nil); got.status != 503 || got.header.Get("X-Amzn-Errortype") != "ServiceUnavailableException" {
			t.Errorf("%s: got %d %s", what, got.status, got.body)
		}
	}
	if err := os.Remove(s.tokenFile); err != nil {
		t.Fatal(err)
	}
	if got := s.identity(forToken, "{}", nil); got.status != 503 || strings.Contains(got.body, s.tokenFile) || !strings.Contains(s.logs.String(), s.tokenFile) {
		t.Errorf("gone: got %d %s", got.status, got.body)
	}
	if s.tabard.count() != asked {
		t.Error("Tabard was asked without a token")
	}
}

func TestAPrincipalIsNamed(t *testing.T) {
	s := newScene(t, func(c *sidecar.Config) {
		file := t.TempDir() + "/token"
		if err := os.WriteFile(file, []byte(podToken), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Credentials = sidecar.TokenFile(file, "calendar")
	})
	s.identity(forToken, "{}", nil)
	if got := s.tabard.last(t).header.Get("X-Tabard-Principal"); got != "calendar" {
		t.Errorf("got %q", got)
	}
}

func TestAnAccessKeySigns(t *testing.T) {
	key := credentials.NewStaticCredentialsProvider("TABARDAAAAAAAAAAAAAA", "canary-secret-key", "canary-session-token")
	asked := 0
	s := newScene(t, func(c *sidecar.Config) {
		c.Credentials = sidecar.AccessKey(aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) { asked++; return key.Retrieve(ctx) }), "eu-central-1")
	})
	s.identity(forToken, "{}", nil)
	s.identity(forToken, "{}", nil)
	h := s.tabard.last(t).header
	if a := h.Get("Authorization"); !strings.HasPrefix(a, "AWS4-HMAC-SHA256 Credential=TABARDAAAAAAAAAAAAAA/") || !strings.Contains(a, "/eu-central-1/bedrock-agentcore/aws4_request") {
		t.Errorf("got %q", a)
	}
	if h.Get("X-Amz-Security-Token") != "canary-session-token" || asked != 2 {
		t.Errorf("got %v, and the key was asked for %d times, want 2", h, asked)
	}
	if strings.Contains(s.logs.String(), "canary") {
		t.Errorf("the log has a secret:\n%s", s.logs)
	}
}

func TestOnlyWhatAgentsAskFor(t *testing.T) {
	s := newScene(t)
	for _, path := range []string{"/identities/GetWorkloadAccessToken", "/identities/GetWorkloadAccessTokenForJWT", "/identities/GetWorkloadAccessTokenForUserId",
		"/tabard/GetWorkloadAccessTokenForDelegation", forToken, "/identities/api-key", "/identities/payment/token", "/identities/CompleteResourceTokenAuth",
		"/tabard/DescribeUser", "/tabard/GetUserInfo", "/tabard/ReportTokenInvalid"} {
		if got := s.identity(path, "{}", nil); got.status != 200 || s.tabard.last(t).path != path {
			t.Errorf("%s: got %d", path, got.status)
		}
	}
	before := s.tabard.count()
	for _, path := range []string{"/", "/identities/CreateWorkloadIdentity", "/tabard/CreateAccessKey", "/tabard/ListConnections", "/tabard/PutPolicy", "/identities/oauth2/authorize",
		"/identities/oauth2/token/", "/identities/oauth2/../oauth2/token", "//identities/oauth2/token", "/oauth2/token", "/metrics"} {
		if got := s.identity(path, "{}", nil); got.status != 404 || got.header.Get("X-Amzn-Errortype") != "UnknownOperationException" {
			t.Errorf("%s: got %d %v", path, got.status, got.header)
		}
	}
	if got := s.send(http.MethodGet, s.beside.IdentityURL()+forToken, "", nil); got.status != 404 {
		t.Errorf("GET: got %d", got.status)
	}
	if got := s.identity(forToken, strings.Repeat("x", 512<<10+1), nil); got.status != 413 || got.header.Get("X-Amzn-Errortype") != "RequestEntityTooLargeException" {
		t.Errorf("a large body: got %d", got.status)
	}
	if s.tabard.count() != before {
		t.Error("Tabard was asked what agents do not ask")
	}
}

// F14: a page in a browser on this machine, also one whose name was made to mean loopback (DNS rebinding), gets
// nothing.
func TestF14_BrowsersGetNothing(t *testing.T) {
	s := newScene(t)
	for what, h := range map[string]http.Header{
		"a page":              {"Origin": {"https://evil.example"}},
		"a page of no origin": {"Origin": {"null"}},
		"an empty origin":     {"Origin": {""}},
		"a navigation":        {"Sec-Fetch-Site": {"none"}},
		"rebinding":           {"Host": {"evil.example"}},
		"with a port":         {"Host": {"evil.example:8081"}},
		"like loopback":       {"Host": {"127.0.0.1.evil.example"}},
		"a user of it":        {"Host": {"localhost.evil.example:80"}},
		"another machine":     {"Host": {"10.0.0.1"}},
	} {
		for _, path := range []string{forToken, "/healthz", "/readyz"} {
			if got := s.identity(path, "{}", h); got.status != 403 {
				t.Errorf("%s at %s: got %d, want 403", what, path, got.status)
			}
		}
	}
	if s.tabard.count() != 0 {
		t.Error("Tabard was asked")
	}
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1:8081", "[::1]:8081", "[::1]"} {
		if got := s.identity(forToken, "{}", http.Header{"Host": {host}}); got.status != 200 {
			t.Errorf("%s: got %d, want 200", host, got.status)
		}
	}
}

// An agent's author who reads that credentials are wrong must not look for the fault in the agent's AWS keys.
func TestTheSidecarsOwnRefusalSaysSo(t *testing.T) {
	s := newScene(t)
	s.tabard.answers(refusingUs(403, "AccessDeniedException", "not authorized to perform sts:AssumeRoleWithWebIdentity"))
	got := s.identity(forToken, "{}", nil)
	if got.status != 403 || got.header.Get("X-Amzn-Errortype") != "AccessDeniedException" || !strings.Contains(got.body, "the sidecar's own credentials, not yours") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	s.tabard.answers(refusing(403, "AccessDeniedException", "no policy allows GetResourceOauth2Token"))
	if got := s.identity(forToken, "{}", nil); got.status != 403 || strings.Contains(got.body, "sidecar") || !strings.Contains(got.body, "no policy allows") {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestProbes(t *testing.T) {
	s := newScene(t)
	get := func(path string) reply { return s.send(http.MethodGet, s.beside.IdentityURL()+path, "", nil) }
	if got := get("/healthz"); got.status != 200 || s.tabard.count() != 0 {
		t.Errorf("healthz: %d", got.status)
	}
	if got := get("/readyz"); got.status != 200 || s.tabard.last(t).path != "/healthz" {
		t.Errorf("readyz: %d", got.status)
	}
	s.tabard.answers(refusing(500, "", ""))
	if got := get("/readyz"); got.status != 503 {
		t.Errorf("readyz where Tabard is ill: %d", got.status)
	}
	if got := get("/healthz"); got.status != 200 {
		t.Errorf("healthz where Tabard is ill: %d", got.status)
	}
}
