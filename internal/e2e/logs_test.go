package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// logLines parses a log: each line one JSON object, and no character in it that a terminal or another reader would act
// on.
func logLines(t *testing.T, log string) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for text := range strings.Lines(log) {
		text = strings.TrimSuffix(text, "\n")
		if i := strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }); i >= 0 {
			t.Errorf("a control character at %d of the line %q", i, text)
		}
		dec := json.NewDecoder(strings.NewReader(text))
		var line map[string]any
		if err := dec.Decode(&line); err != nil || dec.More() {
			t.Errorf("not one JSON object: %q", text)
			continue
		}
		lines = append(lines, line)
	}
	return lines
}

// known are the members that a log line may have. A payload that adds one has broken out of its string.
var known = []string{
	"time", "level", "msg", "method", "route", "status", "code", "latency_ms", "principal", "access_key", "request_id", "remote", "workload", "provider", "error",
	"trace_id", "account", "number", "id", "records", "sha256", // of an audit checkpoint
}

func checkLines(t *testing.T, lines []map[string]any) {
	t.Helper()
	for _, line := range lines {
		for name := range line {
			if !slices.Contains(known, name) {
				t.Errorf("a log line has the member %q: %v", name, line)
			}
		}
		if level := line["level"]; level != "INFO" && level != "DEBUG" && level != "WARN" {
			t.Errorf("a log line of level %v: %v", level, line)
		}
	}
}

// TestG02_NoQueryInTheLog does a whole flow and looks for queries, codes and states in the log. The route that is
// logged is a pattern, so that no address is.
func TestG02_NoQueryInTheLog(t *testing.T) {
	w := newWorld(t, daemon.SQLite)
	w.trust()
	w.workload("calendar-agent")
	w.provider("calendar")
	agent, app := w.principal("agent", "calendar-agent", "agent"), w.principal("app", "calendar-agent", "consent-app")
	ask := w.connect(agent, app, "calendar-agent", "calendar", "alice")
	begun := w.call(agent, "GetResourceOauth2Token", with(ask, "forceAuthentication", true))
	b := peer.NewBrowser("alice")
	b.Deny = true
	b.Walk(t, begun.get("authorizationUrl"), returnURL)
	visited := append(b.Trail, w.server.URL()+"/identities/oauth2/callback/x?state=s&code=c", w.server.URL()+"/identities/oauth2/authorize?request_uri=r",
		w.server.URL()+"//identities/oauth2/callback/x?code=c", w.server.URL()+"/identities/oauth2/nothing?code=c", w.server.URL()+"/?X-Amz-Signature=s")
	for _, address := range visited {
		if strings.HasPrefix(address, w.server.URL()) {
			page(t, "GET", address)
		}
	}
	log := w.logs.String()
	lines := logLines(t, log)
	checkLines(t, lines)
	routes := map[string]bool{}
	for _, line := range lines {
		if route, ok := line["route"].(string); ok {
			routes[route] = true
		}
	}
	for _, want := range []string{"/identities/oauth2/authorize", "/identities/oauth2/callback/{id}", "/identities/oauth2/token", "/identities/CompleteResourceTokenAuth", "unknown"} {
		if !routes[want] {
			t.Errorf("no line of %s in the log", want)
		}
	}
	for _, mark := range []string{"?", "code=", "state=", "request_uri", "session_id", "code_challenge", "Signature", "http://127"} {
		if i := strings.Index(log, mark); i >= 0 {
			t.Errorf("the log holds %q: …%s…", mark, log[max(0, i-200):min(len(log), i+100)])
		}
	}
	for _, address := range visited {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range u.Query() {
			for _, value := range values {
				if len(value) >= window && strings.Contains(log, value) && name != "client_id" {
					t.Errorf("the log holds the parameter %s", name)
				}
			}
		}
	}
}

// payloads try to end a line, a string or an object, to write to a terminal, or to look like a line of the log.
func payloads() []string {
	const forged = `{"time":"2026-01-01T00:00:00Z","level":"ERROR","msg":"forged","evil":1}`
	return []string{
		"a\r\n" + forged + "\r\n", "a\n" + forged, `","evil":"1`, `"},{"evil":"1"}`, `\","evil":"1`, "a\x1b[31mred\x1b[0m\x07", "a\x9b31mred", "a\u009b31mred",
		"a\u2028" + forged + "\u2029", "\u202egnp.exe", "a\x00b", "a\x7f\x08\x08b", `\u000a` + forged, "%0d%0a" + forged, "${jndi:ldap://x}", strings.Repeat("A", 5000),
		"\xff\xfe", "<script>alert(1)</script>", "time=2026 level=ERROR msg=forged evil=1",
	}
}

// TestG03_NoInputForgesALogLine puts the payloads wherever a caller, a browser, a proxy or a provider has a say.
func TestG03_NoInputForgesALogLine(t *testing.T) {
	w := newWorld(t, daemon.SQLite, func(c *daemon.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	w.trust()
	w.workload("calendar-agent")
	w.provider("calendar")
	agent := w.principal("agent", "calendar-agent", "agent")
	wat := w.wat(agent, "calendar-agent", w.login("alice"))
	for _, p := range payloads() {
		w.forgeBodies(agent, wat, p)
		w.forgeHeaders(agent, p)
		w.forgeAnswers(agent, wat, p)
	}
	lines := logLines(t, w.logs.String())
	checkLines(t, lines)
	if len(lines) < 10*len(payloads()) {
		t.Errorf("only %d lines in the log", len(lines))
	}
	for text := range strings.Lines(w.call(root(), "ListAuditRecords", map[string]any{"maxResults": 1000, "newest": true}).body) {
		for _, r := range text {
			if r < ' ' { // JSON leaves U+007F to U+009F as they are; what shows the trail in a terminal takes them out
				t.Fatalf("a control character %q in the audit trail: %.300q", r, text[max(0, strings.IndexRune(text, r)-250):])
			}
		}
	}
}

// forgeBodies sends a payload as the value and as the name of members.
func (w *world) forgeBodies(agent key, wat, p string) {
	quoted := encode(w.t, p)
	raw := `"` + p + `"`
	for _, value := range []string{quoted, raw} {
		for op, body := range map[string]string{
			"GetWorkloadAccessToken":          `{"workloadName":` + value + `}`,
			"GetWorkloadAccessTokenForJWT":    `{"workloadName":"calendar-agent","userToken":` + value + `}`,
			"GetWorkloadAccessTokenForUserId": `{"workloadName":"calendar-agent","userId":` + value + `}`,
			"GetResourceOauth2Token":          `{"workloadIdentityToken":"` + wat + `","oauth2Flow":"USER_FEDERATION","scopes":[` + value + `],"resourceCredentialProviderName":` + value + `}`,
			"CompleteResourceTokenAuth":       `{"sessionUri":` + value + `,"userIdentifier":{"userToken":` + value + `}}`,
			"CreateTrustedIssuer":             `{"issuer":` + value + `,"audiences":[` + value + `]}`,
			"CreatePrincipal":                 `{"name":` + value + `,"roles":[` + value + `]}`,
			"ListAuditRecords":                `{` + value + `:` + value + `}`,
			"DeleteTrustedIssuer":             `{"issuer":` + value + `}`,
		} {
			w.post(agent, op, body)
			w.post(root(), op, body)
		}
	}
	ask := map[string]any{"workloadIdentityToken": wat, "oauth2Flow": "USER_FEDERATION", "resourceCredentialProviderName": "calendar", "scopes": []string{p}, "customParameters": map[string]string{p: p},
		"resourceOauth2ReturnUrl": p, "customState": p}
	w.post(agent, "GetResourceOauth2Token", encode(w.t, ask))
}

// forgeHeaders sends a payload in headers, in the address and as the method, on a raw connection: net/http's client
// would refuse most of them.
func (w *world) forgeHeaders(agent key, p string) {
	for _, format := range []string{
		"POST /identities/GetWorkloadAccessToken HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: %[1]s\r\nX-Forwarded-For: fe80::1%%%[1]s\r\nContent-Length: 0\r\n\r\n",
		"POST /identities/GetWorkloadAccessToken HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 Credential=%[1]s/20260101/%[1]s/bedrock-agentcore/aws4_request, SignedHeaders=host;x-amz-date, Signature=" +
			"0000000000000000000000000000000000000000000000000000000000000000\r\nX-Amz-Date: %[1]s\r\nX-Amzn-Requestid: %[1]s\r\nContent-Length: 0\r\n\r\n",
		"GET /identities/oauth2/callback/%[1]s?state=%[1]s&error=%[1]s HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\nCookie: tabard-visit=%[1]s\r\nReferer: %[1]s\r\n\r\n",
		"%[1]s /identities/oauth2/authorize?request_uri=%[1]s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	} {
		c := w.dial()
		c.tell(fmt.Sprintf(format, p))
		if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			w.t.Fatal(err)
		}
		_, _ = c.Read(make([]byte, 4096)) // whatever it says
		_ = c.Close()
	}
	r := w.request(agent, "POST", "/identities/GetWorkloadAccessToken", `{"workloadName":"calendar-agent"}`)
	r.Header["X-Forwarded-For"] = []string{"fe80::1%" + strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == ',' {
			return 'x'
		}
		return r
	}, strings.ToValidUTF8(p, "x"))}
	if got := do(w.t, r); got.status != http.StatusOK {
		w.t.Errorf("a forwarded request: %d %s", got.status, got.body)
	}
}

// forgeAnswers has the provider's redirect carry a payload.
func (w *world) forgeAnswers(agent key, wat, p string) {
	begun := w.post(agent, "GetResourceOauth2Token", encode(w.t, map[string]any{"workloadIdentityToken": wat, "oauth2Flow": "USER_FEDERATION", "forceAuthentication": true,
		"resourceCredentialProviderName": "calendar", "scopes": []string{"openid"}, "resourceOauth2ReturnUrl": returnURL}))
	visit := page(w.t, "GET", begun.get("authorizationUrl"))
	to, err := url.Parse(visit.header.Get("Location"))
	if err != nil || visit.status != http.StatusSeeOther {
		w.t.Fatalf("authorize answered %d: %v", visit.status, err)
	}
	q := url.Values{"state": {to.Query().Get("state")}, "iss": {w.idp.Issuer}, "error": {"access_denied"}, "error_description": {p}}
	r, err := http.NewRequestWithContext(w.t.Context(), "GET", to.Query().Get("redirect_uri")+"?"+q.Encode(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, cookie := range (&http.Response{Header: visit.header}).Cookies() {
		r.AddCookie(cookie)
	}
	if got := do(w.t, r); got.status != http.StatusForbidden || strings.Contains(got.body, "<script>") {
		w.t.Errorf("an error_description of %q: %d\n%s", p, got.status, got.body)
	}
}
