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
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
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

// AWSConfig returns a configuration for AWS SDK clients (control plane and data plane) and for tabard.New: this
// server's endpoint, its region, and its root access key.
func (s *Server) AWSConfig() aws.Config { return s.config.Copy() }
