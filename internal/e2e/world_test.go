// Package e2e_test runs the whole server against real peers: the official AWS SDKs, npm oidc-provider, PostgreSQL.
package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	rootID     = "TABARDROOTROOTROOT00"
	rootSecret = "tabard_canary_root_secret_4f1d2c9b8a7e6d5c"
	returnURL  = "http://127.0.0.1:8081/oauth2/callback"

	clientID     = "tabard"
	clientSecret = "canary-client-secret-77e1a0b4"
	appClient    = "web-app"
)

// engines runs a test on both databases.
func engines(t *testing.T, test func(t *testing.T, db string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, daemon.SQLite) })
	t.Run("postgres", func(t *testing.T) { test(t, peer.Postgres(t)) })
}

// world is a server with its peers.
type world struct {
	t       *testing.T
	server  *daemon.Server
	dataDir string
	db      string
	logs    *buffer
	out     *buffer
	ahead   atomic.Int64 // nanoseconds that the server's clock is ahead
	idp     *peer.OIDC   // where users log in, and the provider whose tokens agents want
	front   string       // where the official Go clients go instead of the server itself, if set
	stop    func()       // ends the server in good order and waits for it; the test's end does it too
}

// buffer is a bytes.Buffer for concurrent use.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newWorld starts oidc-provider and a server in development mode on db.
func newWorld(t *testing.T, db string, change ...func(*daemon.Config)) *world {
	t.Helper()
	w := &world{t: t, dataDir: filepath.Join(t.TempDir(), "data"), db: db, logs: &buffer{}, out: &buffer{}}
	w.idp = peer.OIDCProvider(t, peer.OIDCConfig{
		AccessTokenTTL: 2 * time.Minute,
		Clients:        []peer.Client{{ID: appClient, Secret: "app-secret", RedirectURIs: []string{"http://127.0.0.1:1/callback"}}},
	})
	w.start(change...)
	return w
}

func (w *world) start(change ...func(*daemon.Config)) {
	w.t.Helper()
	c := daemon.Config{
		Addr: "127.0.0.1:0", DataDir: w.dataDir, DB: w.db, Dev: true, Out: w.out,
		RootAccessKeyID: rootID, RootSecretAccessKey: secret.New(rootSecret),
		Log:    slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:    func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
		Bounds: daemon.Bounds{AuditKeepDays: -1}, // clients prune what they have just written
	}
	for _, f := range change {
		f(&c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server, err := daemon.New(ctx, c)
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the server ended with %v", err)
		}
	})
	w.t.Cleanup(w.stop)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("the server's log:\n%s", w.logs)
		}
	})
	w.server = server
}

// key is an access key of a principal.
type key struct{ ID, Secret string }

func root() key { return key{rootID, rootSecret} }

func (w *world) config(k key) aws.Config {
	return aws.Config{
		Region: daemon.DefaultRegion, BaseEndpoint: aws.String(cmp.Or(w.front, w.server.URL())), HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Credentials: credentials.NewStaticCredentialsProvider(k.ID, k.Secret, ""), RetryMaxAttempts: 1,
	}
}

func (w *world) data(k key) *bedrockagentcore.Client {
	return bedrockagentcore.NewFromConfig(w.config(k), func(o *bedrockagentcore.Options) { o.HTTPSignerV4 = skewed{w, v4.NewSigner()} })
}

func (w *world) control(k key) *bedrockagentcorecontrol.Client {
	return bedrockagentcorecontrol.NewFromConfig(w.config(k))
}

// tabard calls one of our own operations and returns status and answer.
func (w *world) tabard(k key, op string, in any) (int, map[string]any) {
	w.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), "POST", w.server.URL()+"/tabard/"+op, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(w.t.Context(), aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret}, req,
		hex.EncodeToString(sum[:]), "bedrock-agentcore", daemon.DefaultRegion, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(answer, &out); err != nil {
		w.t.Fatalf("%s answered %d %q", op, resp.StatusCode, answer)
	}
	return resp.StatusCode, out
}

// put writes a policy as root.
func (w *world) put(name, text string) {
	w.t.Helper()
	if status, out := w.tabard(root(), "PutPolicy", map[string]any{"name": name, "text": text}); status != 200 {
		w.t.Fatalf("PutPolicy: %d %v", status, out)
	}
}

// allow permits a principal all that agents do, and to take the tokens that the usual agents hand on. Its roles and
// pairings bound it still.
func (w *world) allow(principal string) {
	w.t.Helper()
	w.put("all:"+principal, agentPolicy(principal))
}

func agentPolicy(principal string) string {
	return fmt.Sprintf(`permit (principal == Tabard::Principal::%q, action in [Tabard::Action::"mint", Tabard::Action::"assert",
		Tabard::Action::"release", Tabard::Action::"report", Tabard::Action::"describe", Tabard::Action::"exchange"], resource)
		when { ["", "planner", "booker", "agent", "calendar-agent"].contains(context.from) };`, principal)
}

// principal makes a principal with an access key. An agent may do all that agents do: newcomer makes one that may
// nothing.
func (w *world) principal(name, workload string, roles ...string) key {
	w.t.Helper()
	in := map[string]any{"name": name, "roles": roles}
	if workload != "" {
		in["workloads"] = []string{workload}
	}
	if status, out := w.tabard(root(), "CreatePrincipal", in); status != 200 {
		w.t.Fatalf("CreatePrincipal: %d %v", status, out)
	}
	if slices.Contains(roles, "agent") {
		w.allow(name)
	}
	status, out := w.tabard(root(), "CreateAccessKey", map[string]any{"principalName": name})
	if status != 200 {
		w.t.Fatalf("CreateAccessKey: %d %v", status, out)
	}
	made := out["accessKey"].(map[string]any)
	return key{made["accessKeyId"].(string), made["secretAccessKey"].(string)}
}

// trust registers oidc-provider as an issuer of users for the web application.
func (w *world) trust() {
	w.t.Helper()
	if status, out := w.tabard(root(), "CreateTrustedIssuer", map[string]any{"issuer": w.idp.Issuer, "audiences": []string{appClient}}); status != 200 {
		w.t.Fatalf("CreateTrustedIssuer: %d %v", status, out)
	}
}

// workload makes a workload identity that may return to returnURL.
func (w *world) workload(name string) {
	w.t.Helper()
	_, err := w.control(root()).CreateWorkloadIdentity(w.t.Context(), &bedrockagentcorecontrol.CreateWorkloadIdentityInput{
		Name: &name, AllowedResourceOauth2ReturnUrls: []string{returnURL},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// provider makes a credential provider at oidc-provider and registers its callback URL there.
func (w *world) provider(name string) string {
	w.t.Helper()
	made, err := w.control(root()).CreateOauth2CredentialProvider(w.t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: &name, CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2,
		Oauth2ProviderConfigInput: customConfig(w.idp.DiscoveryURL()),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.idp.Register(w.t, peer.Client{ID: clientID, Secret: clientSecret, RedirectURIs: []string{*made.CallbackUrl}})
	return *made.CallbackUrl
}

func customConfig(discovery string) types.Oauth2ProviderConfigInput {
	return &types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig{Value: types.CustomOauth2ProviderConfigInput{
		OauthDiscovery: &types.Oauth2DiscoveryMemberDiscoveryUrl{Value: discovery},
		ClientId:       aws.String(clientID), ClientSecret: aws.String(clientSecret),
	}}
}

// login returns the user's ID token for the web application.
func (w *world) login(user string) string {
	w.t.Helper()
	return w.idp.Login(w.t, appClient, user).ID
}

// wat mints a workload access token for a user's token.
func (w *world) wat(k key, workload, jwt string) string {
	w.t.Helper()
	out, err := w.data(k).GetWorkloadAccessTokenForJWT(w.t.Context(), &bedrockagentcore.GetWorkloadAccessTokenForJWTInput{WorkloadName: &workload, UserToken: &jwt})
	if err != nil {
		w.t.Fatal(err)
	}
	return *out.WorkloadAccessToken
}

// skewed signs as if the local clock were the server's.
type skewed struct {
	w    *world
	next *v4.Signer
}

// SignHTTP implements the SDK's HTTPSignerV4.
func (s skewed) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service, region string, at time.Time, opts ...func(*v4.SignerOptions)) error {
	return s.next.SignHTTP(ctx, c, r, hash, service, region, at.Add(time.Duration(s.w.ahead.Load())), opts...)
}
