package e2e_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	data "github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"
	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// relying is an authorization server that trusts a Tabard as an issuer. It knows nothing of it but the public URL:
// go-oidc discovers the keys there and verifies each token by them.
type relying struct {
	url string
	now func() time.Time

	mu       sync.Mutex // guards what follows
	provider *oidc.Provider
	subject  string // of client assertions
	seen     []*oidc.IDToken
	jti      map[string]bool
}

// relyOn starts one that trusts the server of w.
func relyOn(t *testing.T, w *world) *relying {
	t.Helper()
	r := &relying{jti: map[string]bool{}, now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	r.url = srv.URL
	mux.HandleFunc("GET /.well-known/openid-configuration", func(rw http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(rw).Encode(map[string]any{"issuer": r.url, "authorization_endpoint": r.url + "/authorize", "token_endpoint": r.url + "/token"})
	})
	mux.HandleFunc("POST /token", r.token)
	var err error
	if r.provider, err = oidc.NewProvider(t.Context(), w.server.PublicURL()); err != nil {
		t.Fatalf("discovery: %v", err)
	}
	return r
}

// verify wants a JWT of the trusted issuer for this server, once.
func (r *relying) verify(ctx context.Context, raw string) (*oidc.IDToken, error) {
	token, err := r.provider.VerifierContext(ctx, &oidc.Config{ClientID: r.url, Now: r.now}).Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	var c struct{ Jti, Account string }
	if err := token.Claims(&c); err != nil {
		return nil, err
	}
	switch {
	case len(token.Audience) != 1:
		return nil, fmt.Errorf("audiences %v", token.Audience)
	case c.Jti == "" || r.jti[c.Jti]:
		return nil, fmt.Errorf("jti %q came before", c.Jti)
	case c.Account != daemon.DefaultAccount:
		return nil, fmt.Errorf("account %q", c.Account)
	case token.Expiry.Sub(token.IssuedAt) > 5*time.Minute:
		return nil, fmt.Errorf("it lives %s", token.Expiry.Sub(token.IssuedAt))
	}
	r.jti[c.Jti] = true
	r.seen = append(r.seen, token)
	return token, nil
}

func (r *relying) token(rw http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = req.ParseForm()
	form := req.PostForm
	rw.Header().Set("Content-Type", "application/json")
	refuse := func(code string, err error) {
		rw.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(rw).Encode(map[string]string{"error": code, "error_description": err.Error()})
	}
	if form.Has("client_assertion") {
		token, err := r.verify(req.Context(), form.Get("client_assertion"))
		if err == nil && (token.Subject != r.subject || form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" ||
			form.Has("client_secret") || req.Header.Get("Authorization") != "") {
			err = fmt.Errorf("subject %s", token.Subject)
		}
		if err != nil {
			refuse("invalid_client", err)
			return
		}
	}
	if form.Get("grant_type") == oauthtest.GrantTokenExchange {
		if _, err := r.verify(req.Context(), form.Get("actor_token")); err != nil || form.Get("actor_token_type") != "urn:ietf:params:oauth:token-type:jwt" {
			refuse("invalid_request", fmt.Errorf("actor: %w", err))
			return
		}
	}
	_ = json.NewEncoder(rw).Encode(map[string]any{
		"access_token": "at", "token_type": "Bearer", "expires_in": 30, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
	})
}

// federated is the configuration of a provider that gets JWTs of this server's own, both as client and as actor.
func federated(discovery string) types.Oauth2ProviderConfigInput {
	return &types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig{Value: types.CustomOauth2ProviderConfigInput{
		OauthDiscovery:             &types.Oauth2DiscoveryMemberDiscoveryUrl{Value: discovery},
		ClientAuthenticationMethod: types.ClientAuthenticationMethodTypeAwsIamIdTokenJwt,
		OnBehalfOfTokenExchangeConfig: &types.OnBehalfOfTokenExchangeConfigType{
			GrantType:                    types.OnBehalfOfTokenExchangeGrantTypeTypeTokenExchange,
			TokenExchangeGrantTypeConfig: &types.TokenExchangeGrantTypeConfigType{ActorTokenContent: types.ActorTokenContentTypeAwsIamIdTokenJwt},
		},
	}}
}

// TestIDTokensVerifyByDiscovery makes such a provider with the official SDK, and has an authorization server verify
// what it gets by what this server publishes: before and after the keys rotated.
func TestIDTokensVerifyByDiscovery(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newWorld(t, db)
		w.trust()
		w.workload("agent")
		agent := w.principal("agent", "agent", "agent")
		r := relyOn(t, w)
		made, err := w.control(root()).CreateOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
			Name: aws.String("federated"), CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2,
			Oauth2ProviderConfigInput: federated(r.url + "/.well-known/openid-configuration"),
		})
		if err != nil {
			t.Fatal(err)
		}
		out := made.Oauth2ProviderConfigOutput.(*types.Oauth2ProviderConfigOutputMemberCustomOauth2ProviderConfig).Value
		if out.ClientAuthenticationMethod != types.ClientAuthenticationMethodTypeAwsIamIdTokenJwt || made.ClientSecretArn == nil ||
			out.OnBehalfOfTokenExchangeConfig.TokenExchangeGrantTypeConfig.ActorTokenContent != types.ActorTokenContentTypeAwsIamIdTokenJwt {
			t.Errorf("got %+v", out)
		}
		ask := func(flow data.Oauth2FlowType, wat string) error {
			_, err := w.data(agent).GetResourceOauth2Token(t.Context(), &bedrockagentcore.GetResourceOauth2TokenInput{
				WorkloadIdentityToken: &wat, ResourceCredentialProviderName: aws.String("federated"), Oauth2Flow: flow, Scopes: []string{"read"}, ForceAuthentication: aws.Bool(true),
			})
			return err
		}
		wat := w.wat(agent, "agent", w.login("alice"))
		if err := ask(data.Oauth2FlowTypeM2m, wat); err == nil || !strings.Contains(err.Error(), "invalid_client") {
			t.Errorf("before the subject is registered: got %v", err)
		}
		r.subject = *made.CredentialProviderArn
		for _, flow := range []data.Oauth2FlowType{data.Oauth2FlowTypeM2m, data.Oauth2FlowTypeOnBehalfOfTokenExchange} {
			if err := ask(flow, wat); err != nil {
				t.Errorf("%s: %v", flow, err)
			}
		}
		last := r.seen[len(r.seen)-1]
		if want := "arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/agent"; last.Subject != want {
			t.Errorf("the actor is %s, want %s", last.Subject, want)
		}
		if last.Issuer != w.server.PublicURL() {
			t.Errorf("the issuer is %s", last.Issuer)
		}
		w.ahead.Store(int64(31 * 24 * time.Hour))
		alone, err := w.data(agent).GetWorkloadAccessToken(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("agent")})
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(data.Oauth2FlowTypeM2m, *alone.WorkloadAccessToken); err != nil {
			t.Errorf("a month later: %v", err)
		}
		if n := keyCount(t, w); n < 2 {
			t.Errorf("a month later %d keys are published, want the old one too", n)
		}
		if strings.Contains(w.logs.String(), "eyJ") {
			t.Error("the log has a token")
		}
	})
}

// published is the server's key set.
func published(t *testing.T, w *world) string {
	t.Helper()
	resp, err := http.Get(w.server.URL() + "/oauth2/jwks")
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	doc, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("got %d %v", resp.StatusCode, err)
	}
	return string(doc)
}

func keyCount(t *testing.T, w *world) int {
	t.Helper()
	return strings.Count(published(t, w), `"kid"`)
}

// TestReplicasPublishOneKeySet asks two servers on one database for their first key at once.
func TestReplicasPublishOneKeySet(t *testing.T) {
	one := newWorld(t, peer.Postgres(t))
	two := one.replica()
	var docs [8]string
	var group sync.WaitGroup
	for i := range docs {
		group.Go(func() { docs[i] = published(t, []*world{one, two}[i%2]) })
	}
	group.Wait()
	for _, doc := range docs[1:] {
		if doc != docs[0] || !strings.Contains(doc, `"kid"`) {
			t.Errorf("got the sets %s and %s", docs[0], doc)
		}
	}
}

// Anything that is not exactly one of the routes goes where every unknown path goes, and nothing redirects.
func TestIssuerRoutesAreExact(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for target, want := range map[string]int{
		"GET /oauth2/jwks":                            http.StatusOK,
		"HEAD /oauth2/jwks":                           http.StatusOK,
		"GET /.well-known/openid-configuration":       http.StatusOK,
		"GET /.well-known/oauth-authorization-server": http.StatusOK,
		"POST /oauth2/jwks":                           http.StatusMethodNotAllowed,
		"GET /oauth2/jwks/":                           0,
		"GET /oauth2":                                 0,
		"GET /oauth2//jwks":                           0,
		"GET /x/../oauth2/jwks":                       0,
		"GET /.well-known/openid-configuration/":      0,

		"GET /accounts/000000000000/.well-known/openid-configuration":         http.StatusOK,
		"GET /.well-known/oauth-authorization-server/accounts/000000000000":   http.StatusOK,
		"GET /.well-known/openid-configuration/accounts/000000000000":         http.StatusOK,
		"GET /accounts/000000000000/oauth2/jwks":                              http.StatusOK,
		"GET /accounts/999999999999/oauth2/jwks":                              http.StatusNotFound,
		"GET /accounts/000000000000/oauth2/jwks/":                             0,
		"GET /accounts/000000000000":                                          0,
		"GET /accounts/%30%30%30000000000/oauth2/jwks":                        0,
		"GET /accounts/000000000000/.well-known/oauth-authorization-server/x": 0,
		"GET /.well-known/oauth-authorization-server/t":                       0,
	} {
		method, path, _ := strings.Cut(target, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, w.server.URL()+path+"?code=hunter2", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want == 0 && (resp.StatusCode < 400 || resp.StatusCode >= 500) || want != 0 && resp.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, resp.StatusCode, want)
		}
		if strings.Contains(string(body), "hunter2") || resp.Header.Get("Location") != "" {
			t.Errorf("%s: the answer repeats the query", target)
		}
	}
}

// TestUpgradeGivesAnOldDirectoryItsSigningKeys takes from a data directory what a server had not made before it was an
// issuer, and starts a server on it.
func TestUpgradeGivesAnOldDirectoryItsSigningKeys(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	w.trust()
	w.workload("agent")
	agent := w.principal("agent", "agent", "agent")
	before := keyCount(t, w)
	w.stop()
	db, err := sql.Open("sqlite", filepath.Join(w.dataDir, "tabard.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"DELETE FROM signing_keys",
		`UPDATE vaults SET keysets = json_remove(keysets, '$."signing-keys"'), version = 1 WHERE account = 'server'`,
	} {
		result, err := db.Exec(statement)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			t.Fatalf("%s changed nothing (%v)", statement, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	if n := keyCount(t, w); n != before {
		t.Errorf("got %d published keys, want %d", n, before)
	}
	if w.wat(agent, "agent", w.login("alice")) == "" { // by an access key that was sealed before
		t.Error("no workload access token after the upgrade")
	}
}
