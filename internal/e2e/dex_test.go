package e2e_test

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestUsersOfDex logs alice and bob in at Dex's own page and mints workload access tokens from both kinds of token that
// Dex gives. Each names its user, and Dex's UserInfo endpoint says of each what Dex knows.
func TestUsersOfDex(t *testing.T) {
	users := []peer.DexUser{
		{ID: "1d3f-alice", Name: "Alice", Email: "alice@corp.example", Password: "alice-has-a-password"},
		{ID: "2e4a-bob", Name: "Bob", Email: "bob@corp.example", Password: "bob-has-another-one"},
	}
	dex := peer.Dex(t, peer.Client{ID: appClient, Secret: "app-secret", RedirectURIs: []string{"http://127.0.0.1:1/callback"}}, users...)
	w := newWorld(t, daemon.SQLite)
	name := "calendar-agent"
	w.workload(name)
	agent := w.principal("agent", name, "agent")
	tokens := []peer.Tokens{dex.Login(t, users[0]), dex.Login(t, users[1])}
	// In development mode an issuer on loopback is trusted for whatever application, until a row says for which.
	trust := map[string]any{"issuer": dex.Issuer, "audiences": []string{"of-another-application"}, "userinfo": true}
	if status, out := w.tabard(root(), "CreateTrustedIssuer", trust); status != http.StatusOK {
		t.Fatalf("CreateTrustedIssuer: %d %v", status, out)
	}
	for kind, jwt := range map[string]string{"ID": tokens[0].ID, "access": tokens[0].Access} {
		_, err := w.data(agent).GetWorkloadAccessTokenForJWT(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenForJWTInput{WorkloadName: &name, UserToken: &jwt})
		if err == nil {
			t.Errorf("an %s token of another application minted a workload access token", kind)
		}
	}
	if status, out := w.tabard(root(), "DeleteTrustedIssuer", map[string]any{"issuer": dex.Issuer}); status != http.StatusOK {
		t.Fatalf("DeleteTrustedIssuer: %d %v", status, out)
	}
	trust["audiences"] = []string{appClient}
	if status, out := w.tabard(root(), "CreateTrustedIssuer", trust); status != http.StatusOK {
		t.Fatalf("CreateTrustedIssuer: %d %v", status, out)
	}
	for i, u := range users {
		for kind, jwt := range map[string]string{"ID": tokens[i].ID, "access": tokens[i].Access} {
			in := map[string]any{"workloadIdentityToken": w.wat(agent, name, jwt)}
			subject := dexSubject(u.ID)
			if status, out := w.tabard(agent, "DescribeUser", in); status != http.StatusOK || out["issuer"] != dex.Issuer || out["subject"] != subject {
				t.Errorf("%s's %s token names %v (%d), want %s of %s", u.Name, kind, out, status, subject, dex.Issuer)
			}
			if status, out := w.tabard(agent, "GetUserInfo", in); status != http.StatusOK || out["subject"] != subject || out["email"] != u.Email {
				t.Errorf("Dex says %v (%d) of %s by the %s token, want %s", out, status, u.Name, kind, u.Email)
			}
		}
	}
}

// dexSubject is the subject that Dex gives a user of its local connector: a protocol buffer of both names, in base64.
func dexSubject(id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte("\n" + string(rune(len(id))) + id + "\x12\x05local"))
}
