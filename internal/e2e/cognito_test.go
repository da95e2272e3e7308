package e2e_test

import (
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestCognitoTokensNameUsers mints workload access tokens from both kinds of token of a Cognito user pool (by moto):
// the ID token names the application in aud, the access token in client_id and has no aud. Each names the same user.
func TestCognitoTokensNameUsers(t *testing.T) {
	run := peer.Script{Name: "cognito.py"}.Start(t)
	pool := run.Next(t, "pool")
	users := []peer.Event{run.Next(t, "tokens"), run.Next(t, "tokens")}
	run.Wait(t)

	w := newWorld(t, daemon.SQLite)
	w.workload("calendar-agent")
	agent := w.principal("agent", "calendar-agent", "agent")
	name := "calendar-agent"
	mint := func(jwt string) error {
		_, err := w.data(agent).GetWorkloadAccessTokenForJWT(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenForJWTInput{WorkloadName: &name, UserToken: &jwt})
		return err
	}
	if err := mint(users[0].String("id")); err == nil {
		t.Fatal("a token of an issuer that nobody trusts minted a workload access token")
	}
	trust := map[string]any{"issuer": pool.String("issuer"), "jwks": pool.String("jwks"), "clientIds": []string{"of-another-application"}}
	if status, out := w.tabard(root(), "CreateTrustedIssuer", trust); status != http.StatusOK {
		t.Fatalf("CreateTrustedIssuer: %d %v", status, out)
	}
	if err := mint(users[0].String("access")); err == nil {
		t.Fatal("a token of another application minted a workload access token")
	}
	if status, out := w.tabard(root(), "DeleteTrustedIssuer", map[string]any{"issuer": pool.String("issuer")}); status != http.StatusOK {
		t.Fatalf("DeleteTrustedIssuer: %d %v", status, out)
	}
	trust["clientIds"], trust["audiences"] = []string{pool.String("client")}, []string{pool.String("client")}
	if status, out := w.tabard(root(), "CreateTrustedIssuer", trust); status != http.StatusOK {
		t.Fatalf("CreateTrustedIssuer: %d %v", status, out)
	}
	for _, u := range users {
		for _, kind := range []string{"id", "access"} {
			wat := w.wat(agent, name, u.String(kind))
			status, out := w.tabard(agent, "DescribeUser", map[string]any{"workloadIdentityToken": wat})
			if status != http.StatusOK || out["issuer"] != pool["issuer"] || out["subject"] != u["sub"] {
				t.Errorf("%s's %s token names %v (%d), want %v of %v", u.String("user"), kind, out, status, u["sub"], pool["issuer"])
			}
		}
	}
}
