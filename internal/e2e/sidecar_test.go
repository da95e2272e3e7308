package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	agenttypes "github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/sidecar"
	"github.com/tabard-id/tabard/internal/standin"
)

const agentsAWSKey = "AKIAREALKEYOFTHEPOD0"

// pod is an agent with a sidecar: a server that trusts the cluster's tokens, users' tokens of their company, and a
// calendar.
type pod struct {
	*world
	platform *platform
	idp      *standin.OIDC
	calendar *standin.Calendar
	logs     *buffer // of the sidecar
	beside   *sidecar.Sidecar
	port     string // of the agent
	awsCalls chan string
	env      map[string]string // of the agent
}

func newPod(t *testing.T) *pod {
	t.Helper()
	w, p, _ := newFederated(t, daemon.SQLite)
	d := &pod{world: w, platform: p, idp: corporate(t), logs: &buffer{}, awsCalls: make(chan string, 16)}
	w.must("CreateTrustedIssuer", map[string]any{"issuer": d.idp.Issuer(), "clientIds": []string{appClient}})
	w.must("AddReturnUrl", map[string]any{"workloadName": "calendar-agent", "url": returnURL})
	d.standInCalendar()
	d.port = freePort(t)
	d.beside = d.sidecar(sidecar.TokenFile(p.file, ""))
	amazon := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		d.awsCalls <- r.Header.Get("Authorization")
		_, _ = io.WriteString(rw, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
	}))
	t.Cleanup(amazon.Close)
	at := d.beside.IdentityURL()
	d.env = map[string]string{
		"AWS_ENDPOINT_URL_BEDROCK_AGENTCORE": at, "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL": at, "BEDROCK_AGENTCORE_DP_ENDPOINT": at, "BEDROCK_AGENTCORE_CP_ENDPOINT": at,
		"AWS_DEFAULT_REGION": "eu-west-3", "AWS_REGION": "eu-west-3", "AWS_ACCESS_KEY_ID": agentsAWSKey, "AWS_SECRET_ACCESS_KEY": "canary-real-aws-secret", "AWS_ENDPOINT_URL_STS": amazon.URL,
		"DOCKER_CONTAINER": "", "PORT": d.port, "PROVIDER": "calendar", "SCOPE": standin.ScopeCalendarEvents, "CALENDAR": d.calendar.Endpoint(),
	}
	return d
}

// standInCalendar starts the calendar, and registers it with the server and the server with it.
func (d *pod) standInCalendar() {
	d.t.Helper()
	var handler http.Handler
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	d.t.Cleanup(web.Close)
	var err error
	d.calendar, err = standin.NewCalendar(standin.CalendarConfig{Issuer: web.URL, AccessTokenLifetime: time.Hour,
		Clients: []standin.Client{{ID: clientID, Secret: secret.New(clientSecret)}}})
	if err != nil {
		d.t.Fatal(err)
	}
	handler = d.calendar.Handler()
	made, err := d.control(root()).CreateOauth2CredentialProvider(d.t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: aws.String("calendar"), CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2,
		Oauth2ProviderConfigInput: customConfig(web.URL + "/.well-known/openid-configuration"),
	})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.calendar.AddRedirectURI(clientID, *made.CallbackUrl); err != nil {
		d.t.Fatal(err)
	}
}

// sidecar starts one with these credentials.
func (d *pod) sidecar(as sidecar.Credentials) *sidecar.Sidecar {
	d.t.Helper()
	beside, err := sidecar.New(d.t.Context(), sidecar.Config{Endpoint: d.server.URL(), Credentials: as, Workload: "calendar-agent",
		Log: slog.New(slog.NewJSONHandler(d.logs, nil)), Addr: "127.0.0.1:0", IdentityAddr: "127.0.0.1:0", Agent: "http://127.0.0.1:" + d.port, CallbackURL: returnURL})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- beside.Run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Errorf("the sidecar ended with %v", err)
		}
		if d.t.Failed() {
			d.t.Logf("the sidecar's log:\n%s", d.logs)
		}
	})
	return beside
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

// invoke asks the agent to book, as the web application does, with header fields of the client's own besides.
func (d *pod) invoke(ctx context.Context, jwt, summary string, header http.Header) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.beside.URL()+"/invocations", strings.NewReader(fmt.Sprintf(`{"summary":%q}`, summary)))
	if err != nil {
		return 0, "", err
	}
	for name, v := range header {
		r.Header[name] = v
	}
	r.Header.Set("Content-Type", "application/json")
	if jwt != "" {
		r.Header.Set("Authorization", "Bearer "+jwt)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// consentOf walks the user's browser through the consent, and has the application confirm who sat there.
func (d *pod) consentOf(user standin.User, jwt, address string) {
	d.t.Helper()
	browser := standin.NewBrowser()
	returned := ""
	browser.Stop = func(u *url.URL) bool {
		if !strings.HasPrefix(u.String(), returnURL) {
			return false
		}
		returned = u.Query().Get("session_id")
		return true
	}
	if page, err := browser.Approve(d.t.Context(), address, user); err != nil || returned == "" {
		d.t.Fatalf("the browser ended at %v: %v", page, err)
	}
	app := d.principal("app", "calendar-agent", "consent-app")
	_, err := d.data(app).CompleteResourceTokenAuth(d.t.Context(), &bedrockagentcore.CompleteResourceTokenAuthInput{
		SessionUri: &returned, UserIdentifier: &agenttypes.UserIdentifierMemberUserToken{Value: jwt},
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

type invocation struct {
	status int
	body   string
	err    error
}

// want checks that the agent booked, and that its other AWS client reached AWS with the pod's own key.
func (d *pod) wantBooked(got invocation, summary string) {
	d.t.Helper()
	var out map[string]string
	if got.err != nil || got.status != http.StatusOK || json.Unmarshal([]byte(got.body), &out) != nil || out["booked"] != summary || out["account"] != "123456789012" {
		d.t.Fatalf("got %d %s %v, want %s booked", got.status, got.body, got.err, summary)
	}
	select {
	case signed := <-d.awsCalls:
		if !strings.Contains(signed, "Credential="+agentsAWSKey+"/") || !strings.Contains(signed, "/eu-west-3/sts/") {
			d.t.Errorf("AWS was asked with %q, want the pod's own key and region", signed)
		}
	default:
		d.t.Error("AWS was not asked")
	}
}

// TestSidecarRunsAnUnmodifiedAgent: an agent that was written for AgentCore's Runtime books events for alice. She
// consents once; the second time the token comes from the vault. The pod has no secret of Tabard's, only the token of
// its platform, and its other AWS client keeps its real credentials. bob is asked for his own consent.
func TestSidecarRunsAnUnmodifiedAgent(t *testing.T) {
	peer.Python(t)
	d := newPod(t)
	agent := peer.Script{Name: "sidecar_agent.py", Env: d.env}.Start(t)
	ready := func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+d.port)
		return err == nil && conn.Close() == nil
	}
	if !eventually(60*time.Second, ready) {
		t.Fatal("the agent does not listen")
	}
	if resp, err := http.Get(d.beside.URL() + "/ping"); err != nil || resp.StatusCode != http.StatusOK || resp.Body.Close() != nil {
		t.Fatalf("the agent's ping: %v %v", resp, err)
	}

	// 1. Nobody, or nobody who is known, does not reach the agent.
	if status, body, err := d.invoke(t.Context(), "", "x", nil); err != nil || status != http.StatusUnauthorized {
		t.Errorf("nobody: %d %s %v", status, body, err)
	}
	if status, body, err := d.invoke(t.Context(), "a.b.c", "x", nil); err != nil || status != http.StatusUnauthorized {
		t.Errorf("a token of nobody: %d %s %v", status, body, err)
	}

	// 2. alice's first booking waits for her consent. What the client says about identity does not arrive.
	alice := d.idp.MintAccessToken("alice", appClient).Expose()
	done := make(chan invocation, 1)
	go func() {
		status, body, err := d.invoke(t.Context(), alice, "stand-up", http.Header{
			"WorkloadAccessToken": {"forged"}, "X-Amz-Bedrock-AgentCore-Identity-WAT": {"forged"}, "X_Amz_Bedrock_AgentCore_Identity_WAT": {"forged"}, "OAuth2CallbackUrl": {"https://evil.example"},
		})
		done <- invocation{status, body, err}
	}()
	there := agent.Next(t, "invoked")
	forged := secret.New("forged").Fingerprint()
	names := fmt.Sprint(there["headers"])
	if there.String("wat") == forged || there.String("callback") != returnURL || strings.Contains(names, "identity") || strings.Contains(names, "authorization") || len(there.String("session")) < 33 {
		t.Errorf("the agent got %v", there)
	}
	d.consentOf(standin.CalendarUsers()[0], alice, agent.Next(t, "auth_url").String("url"))
	d.wantBooked(<-done, "stand-up")

	// 3. The second comes from the vault.
	status, body, err := d.invoke(t.Context(), alice, "retrospective", nil)
	d.wantBooked(invocation{status, body, err}, "retrospective")
	var booked []string
	for _, e := range d.calendar.Events("alice@calendar.example") {
		booked = append(booked, e.Summary)
	}
	slices.Sort(booked)
	if fmt.Sprint(booked) != "[retrospective stand-up]" || d.calendar.Redemptions() != 1 {
		t.Errorf("alice has %v after %d consents, want two events after one", booked, d.calendar.Redemptions())
	}

	// 4. bob is somebody else.
	bob := d.idp.MintAccessToken("bob", appClient).Expose()
	d.wantAsked(agent, bob)
	d.wantSilence(alice, bob, "canary-real-aws-secret")
}

// wantAsked checks that a user who never consented is asked, and has no part in what others consented to.
func (d *pod) wantAsked(agent *peer.Run, jwt string) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _, _, _ = d.invoke(ctx, jwt, "theft", nil) }() // it waits for a consent that does not come
	if agent.Next(d.t, "auth_url").String("url") == "" {
		d.t.Error("the user was not asked")
	}
	cancel()
	<-done
}

// wantSilence checks that neither log has one of these, or the pod's token.
func (d *pod) wantSilence(secrets ...string) {
	d.t.Helper()
	token, err := os.ReadFile(d.platform.file)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, s := range append(secrets, string(token)) {
		if strings.Contains(d.logs.String(), s) || strings.Contains(d.world.logs.String(), s) {
			d.t.Errorf("a log has %s", s)
		}
	}
}

// agentsClient is a data-plane client of the agent, with the pod's own AWS key.
func agentsClient(beside *sidecar.Sidecar) *bedrockagentcore.Client {
	return bedrockagentcore.New(bedrockagentcore.Options{Region: "eu-west-3", BaseEndpoint: aws.String(beside.IdentityURL()), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(agentsAWSKey, "canary-real-aws-secret", "")})
}

// A sidecar may have an access key instead of a token: Tabard verifies its signature, and not the agent's.
func TestSidecarWithAnAccessKey(t *testing.T) {
	d := newPod(t)
	k := d.principal("keyed", "calendar-agent", "agent")
	for secretKey, works := range map[string]bool{k.Secret: true, "wrong": false} {
		beside := d.sidecar(sidecar.AccessKey(credentials.NewStaticCredentialsProvider(k.ID, secretKey, ""), daemon.DefaultRegion))
		out, err := agentsClient(beside).GetWorkloadAccessTokenForJWT(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenForJWTInput{
			WorkloadName: aws.String("calendar-agent"), UserToken: aws.String(d.idp.MintAccessToken("alice", appClient).Expose()),
		})
		if works && (err != nil || aws.ToString(out.WorkloadAccessToken) == "") {
			t.Errorf("the right key: %v", err)
		}
		if !works && (err == nil || !strings.Contains(err.Error(), "the sidecar's own credentials, not yours")) {
			t.Errorf("a wrong key: got %v", err)
		}
	}
}

// Whom an administrator stops does not reach the agent within two seconds, and does again when that is lifted.
func TestSidecarTellsWhoWasStopped(t *testing.T) {
	d := newPod(t)
	l, err := net.Listen("tcp", "127.0.0.1:"+d.port)
	if err != nil {
		t.Fatal(err)
	}
	agent := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = agent.Serve(l) }()
	t.Cleanup(func() { _ = agent.Close() })
	invoke := func() (int, string) {
		status, body, err := d.invoke(t.Context(), d.idp.MintAccessToken("alice", appClient).Expose(), "x", nil) // each token is another
		if err != nil {
			t.Fatal(err)
		}
		return status, body
	}
	if status, body := invoke(); status != http.StatusOK {
		t.Fatalf("got %d %s", status, body)
	}
	alice := map[string]any{"user": map[string]any{"issuer": d.idp.Issuer(), "subject": standin.OIDCUsers()[0].Subject()}}
	for _, c := range []struct {
		what   string
		in     map[string]any
		status int
		code   string
	}{
		{"WorkloadIdentity", map[string]any{"name": "calendar-agent"}, http.StatusForbidden, "access_denied"},
		{"User", alice, http.StatusForbidden, "access_denied"},
		{"TrustedIssuer", map[string]any{"issuer": d.idp.Issuer()}, http.StatusUnauthorized, "invalid_token"},
	} {
		d.must("Disable"+c.what, c.in)
		status, body := 0, ""
		if !eventually(2*time.Second, func() bool { status, body = invoke(); return status == c.status }) || !strings.Contains(body, c.code) {
			t.Errorf("%s: got %d %s, want %d %s within two seconds", c.what, status, body, c.status, c.code)
		}
		d.must("Enable"+c.what, c.in)
		if !eventually(2*time.Second, func() bool { status, body = invoke(); return status == http.StatusOK }) {
			t.Errorf("%s enabled: got %d %s", c.what, status, body)
		}
	}
}

// When the pod's rule is removed its sidecar is refused within two seconds, and the agent's author reads whose
// credentials those were.
func TestSidecarEndsWithItsRule(t *testing.T) {
	d := newPod(t)
	client := agentsClient(d.beside)
	call := func() error {
		_, err := client.GetWorkloadAccessToken(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("calendar-agent")})
		return err
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	for _, r := range d.must("ListFederationRules", map[string]any{})["rules"].([]any) {
		d.must("DeleteFederationRule", map[string]any{"ruleId": r.(map[string]any)["ruleId"]})
	}
	var err error
	if !eventually(2*time.Second, func() bool { err = call(); return err != nil }) || !strings.Contains(err.Error(), "the sidecar's own credentials, not yours") {
		t.Errorf("got %v", err)
	}
	alice := d.idp.MintAccessToken("alice", appClient).Expose()
	if status, body, err := d.invoke(t.Context(), alice, "x", nil); err != nil || status != http.StatusBadGateway {
		t.Errorf("got %d %s %v, want 502", status, body, err)
	}
}
