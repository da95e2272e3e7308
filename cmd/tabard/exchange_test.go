package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
)

// TestTokenExchange exchanges an agent's token for another agent's, and that for a service's, by the command line.
func TestTokenExchange(t *testing.T) {
	w := &consentWorld{t: t, dir: t.TempDir()}
	w.server = start(t, w.dir, nil, "--dev")
	w.ok("workload", "create", "planner", "--tag", "tabard:assurance=asserted")
	w.ok("workload", "create", "booker", "--tag", "tabard:assurance=asserted")
	c, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(daemon.DefaultRegion), config.WithSharedConfigProfile(daemon.Profile),
		config.WithSharedCredentialsFiles([]string{daemon.CredentialsPath(filepath.Join(w.dir, "tabard-data"))}), config.WithSharedConfigFiles([]string{}))
	if err != nil {
		t.Fatal(err)
	}
	data := bedrockagentcore.NewFromConfig(c, func(o *bedrockagentcore.Options) { o.BaseEndpoint = aws.String(w.server.url) })
	minted, err := data.GetWorkloadAccessTokenForUserId(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenForUserIdInput{WorkloadName: aws.String("planner"), UserId: aws.String("alice")})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, "planner.wat"), *minted.WorkloadAccessToken+"\n")
	own := strings.TrimSpace(w.ok("token", "exchange", "--workload", "booker", "--token-file", "planner.wat", "--show"))
	write(t, filepath.Join(w.dir, "booker.wat"), own)
	token := strings.TrimSpace(w.ok("token", "exchange", "--audience", "reports", "--scope", "read", "--scope", "list", "--token-file", "booker.wat", "--show"))
	parsed, err := jws.ParseTyped("the token", "at+jwt", secret.New(token))
	if err != nil {
		t.Fatal(err)
	}
	if scope, _ := parsed.Claims.String("scope"); scope != "read list" {
		t.Errorf("its scopes are %q", scope)
	}
	table := w.ok("token", "exchange", "--audience", "reports", "--scope", "read", "--token-file", "booker.wat")
	if !strings.Contains(table, "reports  access_token") || strings.Contains(table, "eyJ") {
		t.Errorf("got %s", table)
	}
	var views []map[string]any
	if err := json.Unmarshal([]byte(w.ok("token", "exchange", "--workload", "booker", "--token-file", "planner.wat", "--output", "json")), &views); err != nil {
		t.Fatal(err)
	}
	if len(views) != 1 || views[0]["issuedTokenType"] != workloadTokenType || views[0]["fingerprint"] == "" {
		t.Errorf("got %v", views)
	}
}
