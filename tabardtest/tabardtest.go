// Package tabardtest starts a real Tabard server inside a test: the same program as `tabard serve --dev`, with a
// database of its own in a temporary directory.
//
//	func TestMyAgent(t *testing.T) {
//		server := tabardtest.New(t)
//		control := bedrockagentcorecontrol.NewFromConfig(server.AWSConfig())
//		// … create a workload identity and a credential provider as in production …
//	}
package tabardtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/secret"
)

// Server is a running server. It ends with the test that made it.
type Server struct {
	URL     string // where both planes, the consent pages and /healthz answer
	DataDir string // its temporary data directory
	config  aws.Config
}

// The root access key of every server that New starts. It works only there.
const (
	AccessKeyID     = "TABARDTESTTESTTEST00"
	SecretAccessKey = "tabard_test_key_for_loopback_servers_only_0000"
)

// New starts a server on a free port of 127.0.0.1 in development mode (plain http on loopback, any issuer on loopback)
// and fails the test where that is not possible. Server logs go to the test's log.
func New(t testing.TB) *Server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tabard-data")
	ctx, cancel := context.WithCancel(context.Background())
	s, err := daemon.New(ctx, daemon.Config{
		Addr: "127.0.0.1:0", DataDir: dir, Dev: true, Version: "tabardtest",
		RootAccessKeyID: AccessKeyID, RootSecretAccessKey: secret.New(SecretAccessKey),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Out: io.Discard,
	})
	if err != nil {
		cancel()
		t.Fatalf("tabardtest: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("tabardtest: the server ended with: %v", err)
		}
	})
	return &Server{URL: s.URL(), DataDir: dir, config: aws.Config{
		Region: daemon.DefaultRegion, BaseEndpoint: aws.String(s.URL()), HTTPClient: &http.Client{},
		Credentials: credentials.NewStaticCredentialsProvider(AccessKeyID, SecretAccessKey, ""),
	}}
}

// AgentConfig creates a principal that acts as the workload identity, with an access key of its own, and returns the
// configuration for its clients, as AWSConfig does. Nothing is allowed without a policy: it may get tokens and keys of
// the providers that are named, with any scopes, and of no other.
func (s *Server) AgentConfig(t testing.TB, workload string, providers ...string) aws.Config {
	t.Helper()
	const acts = `permit (principal == Tabard::Principal::%q, action in [Tabard::Action::"mint", Tabard::Action::"assert", Tabard::Action::"describe"], resource);`
	const has = "\n" + `permit (principal == Tabard::Principal::%[1]q, action in [Tabard::Action::"release", Tabard::Action::"report"], resource == Tabard::Provider::%[2]q);` +
		"\n" + `permit (principal == Tabard::Principal::%[1]q, action in Tabard::Action::"release", resource == Tabard::ApiKeyProvider::%[2]q);`
	name := "agent-" + rand.Text()
	text := fmt.Sprintf(acts, name)
	for _, p := range providers {
		text += fmt.Sprintf(has, name, p)
	}
	var made struct {
		AccessKey struct{ AccessKeyID, SecretAccessKey string }
	}
	s.call(t, "CreatePrincipal", map[string]any{"name": name, "roles": []string{"agent"}, "workloads": []string{workload}}, &struct{}{})
	s.call(t, "PutPolicy", map[string]any{"name": name, "text": text}, &struct{}{})
	s.call(t, "CreateAccessKey", map[string]any{"principalName": name}, &made)
	c := s.config.Copy()
	c.Credentials = credentials.NewStaticCredentialsProvider(made.AccessKey.AccessKeyID, made.AccessKey.SecretAccessKey, "")
	return c
}

// call performs one of Tabard's own operations with the root access key, or fails the test.
func (s *Server) call(t testing.TB, operation string, in, out any) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/tabard/"+operation, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	sum := sha256.Sum256(body)
	root := aws.Credentials{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey}
	if err := v4.NewSigner().SignHTTP(t.Context(), root, req, hex.EncodeToString(sum[:]), "bedrock-agentcore", s.config.Region, time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := s.config.HTTPClient.Do(req)
	if err != nil {
		t.Fatalf("tabardtest: %s: %v", operation, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(answer, out)
	} else if err == nil {
		err = fmt.Errorf("%s %s", resp.Status, answer)
	}
	if err != nil {
		t.Fatalf("tabardtest: %s: %v", operation, err)
	}
}

// AWSConfig returns a configuration for AWS SDK clients (control plane and data plane) and for tabard.New: this
// server's endpoint, its region, and its root access key, which may do everything.
func (s *Server) AWSConfig() aws.Config { return s.config.Copy() }
