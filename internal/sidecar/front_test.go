package sidecar_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/sidecar"
)

const (
	sessionHeader = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
	requestHeader = "X-Amzn-Bedrock-AgentCore-Runtime-Request-Id"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestTheAgentGetsWhatTheRuntimeSets(t *testing.T) {
	s := newScene(t, func(c *sidecar.Config) { c.CallbackURL = "https://app.example.com/connected" })
	got := s.invoke(alice, http.Header{"X-Amzn-Bedrock-Agentcore-Runtime-Custom-Tenant": {"acme"}, "Content-Type": {"application/json"}})
	if got.status != http.StatusOK || got.body != "done" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	there := s.agent.last(t)
	for name, want := range map[string]string{"WorkloadAccessToken": "canary-wat-b", "OAuth2CallbackUrl": "https://app.example.com/connected",
		"X-Amzn-Bedrock-Agentcore-Runtime-Custom-Tenant": "acme", "Content-Type": "application/json", "Authorization": ""} {
		if v := there.header.Get(name); v != want {
			t.Errorf("%s: got %q, want %q", name, v, want)
		}
	}
	if there.path != "/invocations" || there.body != `{"prompt":"book"}` {
		t.Errorf("the agent got %s %s", there.path, there.body)
	}
	session, request := there.header.Get(sessionHeader), there.header.Get(requestHeader)
	if !uuid.MatchString(session) || !uuid.MatchString(request) || session == request {
		t.Errorf("session %q and request %q are not two random UUIDs", session, request)
	}
	if got.header.Get(sessionHeader) != session || got.header.Get(requestHeader) != request {
		t.Errorf("the client was told %q and %q, want %q and %q", got.header.Get(sessionHeader), got.header.Get(requestHeader), session, request)
	}
	mint := s.tabard.last(t)
	if mint.path != "/identities/GetWorkloadAccessTokenForJWT" || mint.body != `{"workloadName":"calendar-agent","userToken":"`+alice+`"}` ||
		mint.header.Get("Authorization") != "Bearer "+podToken {
		t.Errorf("Tabard was asked %s %s as %s", mint.path, mint.body, mint.header.Get("Authorization"))
	}
}

// Nothing that a client sends arrives as the agent's identity, however it is written.
func TestTheClientsOwnIdentityNeverArrives(t *testing.T) {
	s := newScene(t)
	const forged = "forged-by-the-client"
	h := http.Header{
		// Connection names fields that a proxy removes: it must not remove ours.
		"Connection": {"WorkloadAccessToken, X-Amzn-Bedrock-AgentCore-Runtime-Session-Id, keep-alive"},
		"X-Harmless": {"arrives"},
	}
	for _, name := range []string{
		"WorkloadAccessToken", "WORKLOADACCESSTOKEN", "workloadaccesstoken", "Workload-Access-Token", "workload_access_token", "Workload.Access.Token",
		"OAuth2CallbackUrl", "oauth2callbackurl", "OAuth2_Callback_Url", "X-Amz-Bedrock-AgentCore-Identity-WAT", "x-amz-bedrock-agentcore-identity-wat",
		"X_Amz_Bedrock_AgentCore_Identity_WAT", "X-Amz-Bedrock_AgentCore-Identity-WAT", requestHeader, strings.ToLower(requestHeader),
		"X_Amzn_Bedrock_AgentCore_Runtime_Session_Id", "X-Amzn-Bedrock-AgentCore-Runtime-User-Id", "X-Amzn-Bedrock-AgentCore-Shell-Id",
		"x_amzn_bedrock_agentcore_runtime_custom_a", "X-Tabard-Principal", "X-Tabard-Anything",
	} {
		h[name] = append(h[name], forged, forged+"-again")
	}
	if got := s.invoke(alice, h); got.status != http.StatusOK {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	there := s.agent.last(t).header
	for name, v := range there {
		if strings.Contains(strings.Join(v, " "), forged) {
			t.Errorf("the client's %s arrived", name)
		}
	}
	if there.Get("X-Harmless") != "arrives" || there.Get("WorkloadAccessToken") == "" || len(there.Values("WorkloadAccessToken")) != 1 || there.Get(sessionHeader) == "" {
		t.Errorf("the agent got %v", there)
	}
}

// Fields after a body come past what is done to those before it.
func TestTrailersDoNotArrive(t *testing.T) {
	s := newScene(t)
	seen := make(chan http.Header, 1)
	s.agent.answers(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Trailer })
	conn := dial(t, s.beside.URL())
	fmt.Fprintf(conn, "POST /invocations HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer %s\r\nTrailer: WorkloadAccessToken\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nWorkloadAccessToken: forged\r\n\r\n", alice)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %v %v", resp, err)
	}
	defer resp.Body.Close()
	if got := <-seen; len(got) != 0 {
		t.Errorf("trailers arrived: %v", got)
	}
}

func TestTheSessionIsTheClientsWhereItIsValid(t *testing.T) {
	s := newScene(t)
	valid := "session-of-alice-" + strings.Repeat("x", 20)
	for what, c := range map[string]struct {
		sent []string
		kept bool
	}{
		"valid": {[]string{valid}, true}, "longest": {[]string{strings.Repeat("y", 256)}, true}, "too long": {[]string{strings.Repeat("y", 257)}, false},
		"too short": {[]string{strings.Repeat("y", 32)}, false}, "with a space": {[]string{valid + " b"}, false}, "two": {[]string{valid, valid}, false}, "none": {nil, false},
	} {
		got := s.invoke(alice, http.Header{http.CanonicalHeaderKey(sessionHeader): c.sent}).header.Get(sessionHeader)
		if kept := len(c.sent) > 0 && got == c.sent[0]; kept != c.kept || !kept && !uuid.MatchString(got) {
			t.Errorf("%s: got %q", what, got)
		}
	}
}

func TestWhoMayCome(t *testing.T) {
	strict, open := newScene(t), newScene(t, func(c *sidecar.Config) { c.AllowAnonymous = true })
	for _, c := range []struct {
		what   string
		s      *scene
		header http.Header
		status int
		code   string
	}{
		{"nobody", strict, nil, 401, "missing_token"},
		{"nobody, where that is allowed", open, nil, 200, ""},
		{"another scheme", strict, http.Header{"Authorization": {"Basic YTpi"}}, 401, "invalid_token"},
		{"another scheme is not nobody", open, http.Header{"Authorization": {"Basic YTpi"}}, 401, "invalid_token"},
		{"no token", open, http.Header{"Authorization": {"Bearer "}}, 401, "invalid_token"},
		{"an empty header", open, http.Header{"Authorization": {""}}, 401, "invalid_token"},
		{"two headers", open, http.Header{"Authorization": {"Bearer " + alice, "Bearer " + bob}}, 401, "invalid_token"},
		{"no JWT", open, http.Header{"Authorization": {"Bearer opaque"}}, 401, "invalid_token"},
		{"scheme in another case", strict, http.Header{"Authorization": {"bEARER " + alice}}, 200, ""},
		{"a page of a browser", open, http.Header{"Origin": {"https://evil.example"}}, 403, "browser"},
		{"a browser", open, http.Header{"Sec-Fetch-Site": {"same-origin"}}, 403, "browser"},
		{"a browser with a user's token", open, http.Header{"Origin": {"https://app.example"}, "Authorization": {"Bearer " + alice}}, 200, ""},
	} {
		before := c.s.agent.count()
		got := c.s.invoke("", c.header)
		if got.status != c.status || !strings.Contains(got.body, c.code) || (got.status == 401) != (got.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: got %d %s %v, want %d %s", c.what, got.status, got.body, got.header, c.status, c.code)
		}
		if reached := c.s.agent.count() > before; reached != (c.status == 200) {
			t.Errorf("%s: the agent was reached: %t", c.what, reached)
		}
	}
	if got := open.invoke(""); got.status != 200 || open.tabard.last(t).path == "" {
		t.Fatal(got)
	}
	anonymous := false
	for _, a := range open.tabard.got {
		anonymous = anonymous || a.path == "/identities/GetWorkloadAccessToken" && a.body == `{"workloadName":"calendar-agent"}`
	}
	if !anonymous {
		t.Error("nobody asked for a token without a user")
	}
}

func TestPingNeedsNobodyAndEverythingElseDoes(t *testing.T) {
	s := newScene(t)
	if got := s.send(http.MethodGet, s.beside.URL()+"/ping", "", http.Header{"Workloadaccesstoken": {"forged"}}); got.status != 200 {
		t.Errorf("ping: %d", got.status)
	}
	if h := s.agent.last(t).header; h.Get("WorkloadAccessToken") != "" || s.tabard.count() != 0 {
		t.Errorf("a ping had an identity: %v", h)
	}
	for _, target := range []string{"/ping/", "//ping", "/", "/invocations", "/.well-known/agent-card.json"} {
		if got := s.send(http.MethodGet, s.beside.URL()+target, "", nil); got.status != 401 {
			t.Errorf("GET %s: %d, want 401", target, got.status)
		}
	}
	if got := s.send(http.MethodPost, s.beside.URL()+"/ping", "", nil); got.status != 401 {
		t.Errorf("POST /ping: %d, want 401", got.status)
	}
}

func TestTheUsersTokenIsPassedOnWhereThatIsAsked(t *testing.T) {
	s := newScene(t, func(c *sidecar.Config) { c.ForwardAuthorization = true })
	s.invoke(alice)
	if got := s.agent.last(t).header.Get("Authorization"); got != "Bearer "+alice {
		t.Errorf("got %q", got)
	}
}

// What Tabard refuses is the user's to mend, or that of whoever set this up: the answer says which, and how it is not.
func TestRefusalsSayWhoseFaultItIs(t *testing.T) {
	for _, c := range []struct {
		status             int
		exception, message string
		want               int
		code               string
		own                bool // Tabard says that it is the caller whom it refuses
	}{
		{401, "UnauthorizedException", "the user token expired", 401, "invalid_token", false},
		{401, "UnauthorizedException", "the web identity token has no signature", 502, "misconfigured", true},
		{403, "AccessDeniedException", "no policy allows it", 403, "access_denied", false},
		{403, "AccessDeniedException", "the account is disabled", 502, "misconfigured", true},
		{403, "ExpiredTokenException", "the web identity token expired", 502, "misconfigured", true},
		{403, "UnrecognizedClientException", "no such key", 502, "misconfigured", true},
		{404, "ResourceNotFoundException", "no such workload", 502, "misconfigured", false},
		{429, "ThrottlingException", "slow down", 429, "throttled", false},
		{503, "ServiceUnavailableException", "starting", 503, "unavailable", false},
		{500, "InternalServerException", "internal error", 503, "unavailable", false},
		{302, "", "", 502, "misconfigured", false},
		{403, "", "", 502, "misconfigured", false},
		{504, "", "", 503, "unavailable", false},
		{429, "", "", 429, "throttled", false},
	} {
		s := newScene(t)
		answer := refusing
		if c.own {
			answer = refusingUs
		}
		s.tabard.answers(answer(c.status, c.exception, c.message))
		got := s.invoke(alice)
		if got.status != c.want || !strings.Contains(got.body, `"error":"`+c.code+`"`) || s.agent.count() != 0 {
			t.Errorf("%d %s %q: got %d %s, want %d %s", c.status, c.exception, c.message, got.status, got.body, c.want, c.code)
		}
		if c.want >= 500 && c.message != "" && strings.Contains(got.body, c.message) {
			t.Errorf("a user reads the operator's sentence: %s", got.body)
		}
		if c.message != "" && !strings.Contains(s.logs.String(), c.message) {
			t.Errorf("the log does not say %q:\n%s", c.message, s.logs)
		}
	}
}

func TestWhereNobodyAnswers(t *testing.T) {
	s := newScene(t)
	s.agent.Close()
	if got := s.invoke(alice); got.status != 502 || !strings.Contains(got.body, "agent_unavailable") {
		t.Errorf("without the agent: %d %s", got.status, got.body)
	}
	s.tabard.Close()
	if got := s.invoke(bob); got.status != 503 || !strings.Contains(got.body, "unavailable") {
		t.Errorf("without Tabard: %d %s", got.status, got.body)
	}
}

func TestTokensAreKeptForAMinute(t *testing.T) {
	s := newScene(t)
	wat := func(jwt string) string {
		t.Helper()
		if got := s.invoke(jwt); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
		return s.agent.last(t).header.Get("WorkloadAccessToken")
	}
	first := wat(alice)
	if again := wat(alice); again != first || s.tabard.count() != 1 {
		t.Errorf("got %s after %s, in %d mints", again, first, s.tabard.count())
	}
	if other := wat(bob); other == first {
		t.Error("bob got alice's token")
	}
	s.advance(time.Minute + time.Second)
	second := wat(alice)
	if second == first {
		t.Error("a token was given out again after a minute")
	}
	// A token that is refused is dead, and so may others be.
	s.tabard.answers(refusing(401, "UnauthorizedException", "the workload access token is revoked"))
	if got := s.identity("/identities/oauth2/token", "{}", nil); got.status != 401 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	s.tabard.answers(nil)
	if third := wat(alice); third == second {
		t.Error("a token was given out again after one was refused")
	}
}

// A token near its end, or of unknown end, is not given out again.
func TestShortTokensAreNotKept(t *testing.T) {
	for what, expires := range map[string]string{"at the end": fmt.Sprintf(`,"expiresAt":%d`, time.Now().Add(59*time.Second).Unix()), "unknown": ""} {
		s := newScene(t)
		s.tabard.answers(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"workloadAccessToken":"short"%s}`, expires)
		})
		s.invoke(alice)
		s.invoke(alice)
		if s.tabard.count() != 2 {
			t.Errorf("%s: %d mints, want 2", what, s.tabard.count())
		}
	}
}

// What the agent says arrives before it says more, whatever type it has.
func TestAnswersStream(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "application/x-ndjson"} {
		t.Run(kind, func(t *testing.T) { streams(t, kind) })
	}
}

func streams(t *testing.T, kind string) {
	s := newScene(t)
	next := make(chan struct{})
	s.agent.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("X-Amz-Bedrock-Agentcore-Identity-Wat", "an echo")
		for _, line := range []string{"one\n", "two\n"} {
			_, _ = io.WriteString(w, line)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.beside.URL()+"/invocations", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+alice)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"one\n", "two\n"} {
		if got, err := lines.ReadString('\n'); got != want || err != nil {
			t.Fatalf("got %q %v, want %q", got, err, want)
		}
		next <- struct{}{}
	}
	if resp.Header.Get("X-Amz-Bedrock-Agentcore-Identity-Wat") != "" {
		t.Error("the agent's echo arrived")
	}
}

// echo is an agent's WebSocket, as far as it matters here: it says what identity and protocols it got, and the client's
// line.
func echo(t *testing.T, selected string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n", selected)
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprintf(rw, "%s|%s|%s|%s", r.Header.Get("WorkloadAccessToken"), strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ";"), r.Header.Get(sessionHeader), line)
		_ = rw.Flush()
	}
}

// open opens a WebSocket with these header lines, and says hello.
func (s *scene) open(target, lines string) (*http.Response, string) {
	s.t.Helper()
	conn := dial(s.t, s.beside.URL())
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: agent\r\n%sConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", target, lines)
	from := bufio.NewReader(conn)
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, ""
	}
	fmt.Fprint(conn, "hello\n")
	said, err := from.ReadString('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, said
}

func TestWebSocketsPass(t *testing.T) {
	s := newScene(t)
	s.agent.answers(echo(t, ""))
	id := strings.Repeat("s", 40)
	resp, said := s.open("/ws", "Authorization: Bearer "+alice+"\r\nSec-WebSocket-Protocol: chat\r\n"+sessionHeader+": "+id+"\r\n")
	if said != "canary-wat-b|chat|"+id+"|hello\n" || resp.Header.Get("Sec-WebSocket-Protocol") != "" {
		t.Errorf("got %d %q %v", resp.StatusCode, said, resp.Header)
	}
	if resp, _ := s.open("/ws", ""); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody: got %d", resp.StatusCode)
	}
}

// A browser can set no header of a WebSocket but the subprotocols, so AWS's SDKs put the token there.
func TestBrowsersOpenWebSockets(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	token := "base64UrlBearerAuthorization." + encode([]byte(alice))
	const scheme = "base64UrlBearerAuthorization"
	id := strings.Repeat("s", 40)
	for _, c := range []struct{ what, offers, agentSelects, agentGets, clientGets string }{
		{"as the SDKs do", token + ", " + scheme, "", "", scheme},
		{"with a protocol of the agent", "chat, " + token + ", " + scheme, "Sec-WebSocket-Protocol: chat\r\n", "chat", "chat"},
		{"without the scheme", token, "", "", ""},
	} {
		s := newScene(t)
		s.agent.answers(echo(t, c.agentSelects))
		resp, said := s.open("/ws?"+sessionHeader+"="+id, "Origin: https://app.example.com\r\nSec-WebSocket-Protocol: "+c.offers+"\r\n")
		if said != "canary-wat-b|"+c.agentGets+"|"+id+"|hello\n" || resp.Header.Get("Sec-WebSocket-Protocol") != c.clientGets {
			t.Errorf("%s: got %d %q %v", c.what, resp.StatusCode, said, resp.Header)
		}
		if !strings.Contains(s.tabard.last(t).body, alice) {
			t.Errorf("%s: Tabard was asked %s", c.what, s.tabard.last(t).body)
		}
	}
	s := newScene(t, func(c *sidecar.Config) { c.AllowAnonymous = true })
	for what, lines := range map[string]string{
		"two tokens":    "Sec-WebSocket-Protocol: " + token + ", " + token + "\r\n",
		"no base64":     "Sec-WebSocket-Protocol: " + scheme + ".a b\r\n",
		"no JWT":        "Sec-WebSocket-Protocol: " + scheme + "." + encode([]byte("opaque")) + "\r\n",
		"nothing in it": "Sec-WebSocket-Protocol: " + scheme + ".\r\n",
		"another too":   "Sec-WebSocket-Protocol: " + token + "\r\nAuthorization: Bearer " + bob + "\r\n",
	} {
		if resp, _ := s.open("/ws", lines); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", what, resp.StatusCode)
		}
	}
	// What is no WebSocket has no token there, and does not carry one to the agent.
	if got := s.invoke("", http.Header{"Sec-Websocket-Protocol": {token}}); got.status != http.StatusOK || s.agent.last(t).header.Get("Sec-WebSocket-Protocol") != "" {
		t.Errorf("got %d, and the agent %v", got.status, s.agent.last(t).header)
	}
}

func dial(t *testing.T, at string) net.Conn {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
