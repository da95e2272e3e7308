package e2e_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
)

// platformKeys makes the keys of the tests' platforms once.
var platformKeys = sync.OnceValue(jwstest.NewKeys)

// platform gives workloads their tokens, as a Kubernetes cluster does: an OIDC issuer with discovery, and one file.
type platform struct {
	t    *testing.T
	url  string
	keys jwstest.Keys
	file string // where the kubelet puts the pod's token
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	p := &platform{t: t, keys: platformKeys(), file: filepath.Join(t.TempDir(), "token")}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.url, "jwks_uri": p.url + "/openid/v1/jwks"})
	})
	mux.HandleFunc("GET /openid/v1/jwks", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(p.keys.Set(t)) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// token is a projected token of a service account, changed: a nil value removes a claim.
func (p *platform) token(account string, change map[string]any) string {
	now := time.Now()
	c := map[string]any{
		"iss": p.url, "sub": "system:serviceaccount:prod:" + account, "aud": []string{"tabard"}, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": rand.Text(),
		"kubernetes.io": map[string]any{"namespace": "prod", "serviceaccount": map[string]any{"name": account, "uid": "uid-of-" + account},
			"pod": map[string]any{"name": account + "-0", "uid": "pod-uid"}},
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return jwstest.Sign(p.t, "RS256", map[string]any{"kid": "rsa"}, c, p.keys.RSA)
}

// project writes the pod's token, as the kubelet does: in one step.
func (p *platform) project(token string) {
	p.t.Helper()
	if err := errors.Join(os.WriteFile(p.file+".new", []byte(token), 0o600), os.Rename(p.file+".new", p.file)); err != nil {
		p.t.Fatal(err)
	}
}

// must calls an operation of ours as root.
func (w *world) must(op string, in any) map[string]any {
	w.t.Helper()
	status, out := w.tabard(root(), op, in)
	if status != 200 {
		w.t.Fatalf("%s: %d %v", op, status, out)
	}
	return out
}

// federate maps a service account to a principal that is paired with calendar-agent. It returns the
// rule's id.
func (w *world) federate(p *platform, account string) string {
	w.t.Helper()
	out := w.must("CreateFederationRule", map[string]any{"issuer": p.url, "subject": "system:serviceaccount:prod:" + account, "principalName": "calendar"})
	return out["rule"].(map[string]any)["ruleId"].(string)
}

// newFederated is a world whose principal calendar is the platform's service accounts first and second.
func newFederated(t *testing.T, db string, change ...func(*daemon.Config)) (w *world, p *platform, first string) {
	t.Helper()
	w, p = newBare(t, db, change...), newPlatform(t)
	w.workload("calendar-agent")
	w.must("CreatePrincipal", map[string]any{"name": "calendar", "roles": []string{"agent"}, "workloads": []string{"calendar-agent"}})
	w.allow("calendar")
	w.must("CreateWorkloadIssuer", map[string]any{"issuer": p.url, "audiences": []string{"tabard"}})
	first = w.federate(p, "first")
	w.federate(p, "second")
	p.project(p.token("first", nil))
	return w, p, first
}

const calendarRole = "arn:aws:iam::" + daemon.DefaultAccount + ":role/calendar"

// ways are the two sets of standard variables by which an SDK bootstraps.
func (w *world) ways(p *platform) map[string]map[string]string {
	common := map[string]string{"AWS_REGION": daemon.DefaultRegion, "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE": w.server.URL(), "WORKLOAD": "calendar-agent"}
	web := maps.Clone(common)
	maps.Copy(web, map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": p.file, "AWS_ROLE_ARN": calendarRole, "AWS_ENDPOINT_URL_STS": w.server.URL()})
	container := maps.Clone(common)
	maps.Copy(container, map[string]string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     w.server.URL() + "/container-credentials/" + daemon.DefaultAccount + "/calendar",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": p.file,
	})
	return map[string]map[string]string{"web identity": web, "container": container}
}

// sdkConfig is the Go SDK's default configuration in an environment that has these variables of AWS's and no others.
func sdkConfig(t *testing.T, env map[string]string) aws.Config {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for name, value := range env {
		t.Setenv(name, value)
	}
	c, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rotate gives the pod another token, and ends what the first one was good for.
func (w *world) rotate(p *platform, rule string) {
	w.t.Helper()
	w.must("DeleteFederationRule", map[string]any{"ruleId": rule})
	p.project(p.token("second", nil))
}

// TestJ11_GoSDKBootstraps: the AWS SDK for Go calls an operation with a projected token and standard variables, on both
// engines. When the token is rotated and the old one's rule is gone, its credentials end within two seconds, and new
// ones come by reading the file again.
func TestJ11_GoSDKBootstraps(t *testing.T) {
	for _, way := range []string{"web identity", "container"} {
		t.Run(way, func(t *testing.T) {
			engines(t, func(t *testing.T, db string) {
				w, p, rule := newFederated(t, db)
				c := sdkConfig(t, w.ways(p)[way])
				call := func() error {
					_, err := bedrockagentcore.NewFromConfig(c).GetWorkloadAccessToken(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("calendar-agent")})
					return err
				}
				for range 2 {
					if err := call(); err != nil {
						t.Fatal(err)
					}
				}
				if way == "web identity" {
					who, err := sts.NewFromConfig(c).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
					if err != nil || !strings.HasSuffix(*who.Arn, "/calendar") {
						t.Errorf("GetCallerIdentity: %v, %v", who, err)
					}
				}
				w.rotate(p, rule)
				var refused smithy.APIError
				if !eventually(2*time.Second, func() bool { return errors.As(call(), &refused) }) || refused.ErrorCode() != "UnrecognizedClientException" {
					t.Errorf("with the first token's credentials: got %v, want UnrecognizedClientException within two seconds", refused)
				}
				c.Credentials.(*aws.CredentialsCache).Invalidate()
				if err := call(); err != nil {
					t.Errorf("after the rotation: %v", err)
				}
			})
		})
	}
}

// TestJ11_ScriptsBootstrap is TestJ11_GoSDKBootstraps with the AWS SDK for JavaScript and boto3.
func TestJ11_ScriptsBootstrap(t *testing.T) {
	for _, script := range []string{"federated.mjs", "federated.py"} {
		for _, way := range []string{"web identity", "container"} {
			t.Run(script+" "+way, func(t *testing.T) {
				w, p, rule := newFederated(t, daemon.SQLite)
				run := peer.Script{Name: script, Env: w.ways(p)[way]}.Start(t)
				before := run.Next(t, "called").String("fingerprint")
				w.rotate(p, rule)
				after := run.Next(t, "called").String("fingerprint")
				run.Wait(t)
				if before == "" || after == "" || before == after {
					t.Errorf("got %q and %q, want two tokens", before, after)
				}
			})
		}
	}
}
