package sidecar_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/sidecar"
)

// raw sends these bytes, and returns everything that comes back until the answer is complete.
func raw(t *testing.T, at, sent string) (status int, answer string) {
	t.Helper()
	conn := dial(t, at)
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, sent); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &all)), nil)
	if err != nil {
		t.Fatalf("%v after %q", err, all.String())
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, all.String()
	}
	_, _ = io.Copy(io.Discard, resp.Body) // what counts is in all
	return resp.StatusCode, all.String()
}

// Whoever gets the agent to speak another protocol has a connection on which the sidecar removes nothing: h2c above
// all. WebSockets alone pass, and only with a user.
func TestNoTunnelToTheAgent(t *testing.T) {
	s := newScene(t)
	s.agent.answers(echo(t, ""))
	const h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
	user := "Authorization: Bearer " + alice + "\r\n"
	for what, request := range map[string]string{
		"h2c on a ping":                       "GET /ping HTTP/1.1\r\nHost: agent\r\n" + h2c,
		"a WebSocket on a ping":               "GET /ping HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
		"h2c":                                 "GET /invocations HTTP/1.1\r\nHost: agent\r\n" + user + h2c,
		"h2c in a POST":                       "POST /invocations HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\n" + user + h2c,
		"two protocols":                       "GET /ws HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + user,
		"h2c first":                           "GET /ws HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n" + user,
		"WebSockets are not opened by a POST": "POST /ws HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + user,
	} {
		if status, _ := raw(t, s.beside.URL(), request+"\r\n"); status == http.StatusSwitchingProtocols {
			t.Errorf("%s: the connection was handed over", what)
		}
		if h := s.agent.last(t).header; h.Get("Upgrade") != "" || h.Get("Http2-Settings") != "" {
			t.Errorf("%s: the agent got %v", what, h)
		}
	}
}

// What needs no user carries nothing that an agent could take for more than a ping.
func TestAPingIsNothingButAPing(t *testing.T) {
	s := newScene(t)
	sent := "GET /ping?act=invoke HTTP/1.1\r\nHost: agent\r\nX-Original-URL: /invocations\r\nX-HTTP-Method-Override: POST\r\nCookie: a=b\r\nUser-Agent: probe\r\nContent-Length: 2\r\n\r\n{}"
	if status, _ := raw(t, s.beside.URL(), sent); status != http.StatusOK {
		t.Errorf("got %d", status)
	}
	there := s.agent.last(t)
	if there.path != "/ping" || there.body != "" || there.header.Get("Cookie")+there.header.Get("X-Original-Url")+there.header.Get("X-Http-Method-Override") != "" {
		t.Errorf("the agent got %+v", there)
	}
}

// TRACE answers with the request, ours and its tokens included (RFC 9110 §9.3.8); CONNECT asks for a tunnel.
func TestTraceAndConnectAreRefused(t *testing.T) {
	s := newScene(t)
	for _, line := range []string{"TRACE /invocations", "TRACK /invocations", "CONNECT agent:80"} {
		if status, _ := raw(t, s.beside.URL(), line+" HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer "+alice+"\r\n\r\n"); status != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %d", line, status)
		}
	}
	if s.agent.count() != 0 || s.tabard.count() != 0 {
		t.Error("somebody was asked")
	}
}

// The bound holds before a byte is read, and calling a request a WebSocket does not lift it.
func TestLargeRequestsAreRefused(t *testing.T) {
	s := newScene(t)
	for _, more := range []string{"", "Upgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"} {
		status, _ := raw(t, s.beside.URL(), "GET /invocations HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer "+alice+"\r\n"+more+"Content-Length: 104857601\r\n\r\n")
		if status != http.StatusRequestEntityTooLarge {
			t.Errorf("with %q: got %d", more, status)
		}
	}
	if s.agent.count() != 0 {
		t.Error("the agent was reached")
	}
}

// A WSGI server reads _ as -: a second word on how long the body is would end the request where the client likes.
func TestFramingIsSaidOnce(t *testing.T) {
	s := newScene(t)
	s.invoke(alice, http.Header{"Content_Length": {"1"}, "Transfer_Encoding": {"chunked"}, "X_Forwarded_For": {"10.0.0.1"}, "Api_Key": {"arrives"}})
	h := s.agent.last(t).header
	for name := range h {
		if strings.Contains(name, "_") && !strings.EqualFold(name, "Api_Key") {
			t.Errorf("%s arrived", name)
		}
	}
	if h.Get("Api_Key") != "arrives" {
		t.Errorf("the agent got %v", h)
	}
}

// A browser says where a request comes from only to https and to loopback by its own name, and not for a GET of the
// page's own site. So a page whose name was made to mean this machine is known by that name.
func TestF14_ARequestWithoutAUserNamesThisMachine(t *testing.T) {
	s := newScene(t, func(c *sidecar.Config) { c.AllowAnonymous = true })
	const get = "GET /.well-known/agent-card.json HTTP/1.1\r\n"
	for what, request := range map[string]string{
		"rebinding": get + "Host: evil.example:9000\r\n", "no host": "GET / HTTP/1.0\r\n", "an empty host": get + "Host:\r\n", "a trailing dot": get + "Host: localhost.\r\n",
	} {
		if status, body := raw(t, s.beside.URL(), request+"\r\n"); status != http.StatusForbidden || !strings.Contains(body, `"error":"host"`) {
			t.Errorf("%s: got %d %s", what, status, body)
		}
	}
	if s.agent.count() != 0 {
		t.Error("the agent was reached")
	}
	for _, lines := range []string{"Host: 127.0.0.1:9000\r\n", "Host: [::1]\r\n", "Host: app.example.com\r\nAuthorization: Bearer " + alice + "\r\n"} {
		if status, body := raw(t, s.beside.URL(), get+lines+"\r\n"); status != http.StatusOK {
			t.Errorf("%s: got %d %s", lines, status, body)
		}
	}
}

func TestF14_HostsThatOnlyLookLikeThisMachine(t *testing.T) {
	s := newScene(t)
	ask := func(version, host string) int {
		status, _ := raw(t, s.beside.IdentityURL(), "POST "+forToken+" HTTP/"+version+"\r\n"+host+"Content-Length: 2\r\n\r\n{}")
		return status
	}
	for _, host := range []string{"localhost.", "127.0.0.1.", "127.0.0.1.:80", "0.0.0.0", "[::]", "[::ffff:10.0.0.1]", "127.1", "2130706433", "0x7f000001", "[::1%25lo]", "[fe80::1]",
		"evil.example:80:80", "127.0.0.1@evil.example", "localhost:x@evil.example"} {
		if status := ask("1.1", "Host: "+host+"\r\n"); status != http.StatusForbidden && status != http.StatusBadRequest {
			t.Errorf("%s: got %d", host, status)
		}
	}
	if status := ask("1.0", ""); status != http.StatusForbidden {
		t.Errorf("HTTP/1.0 without Host: got %d", status)
	}
	if s.tabard.count() != 0 {
		t.Error("Tabard was asked")
	}
	for _, host := range []string{"[::ffff:127.0.0.1]:80", "127.9.9.9", "[0:0:0:0:0:0:0:1]"} {
		if status := ask("1.1", "Host: "+host+"\r\n"); status != http.StatusOK {
			t.Errorf("%s: got %d", host, status)
		}
	}
}

// A token that was asked for before a refusal, and came after it, is as dead as those that the refusal emptied the
// cache of.
func TestATokenFromBeforeARefusalIsNotKept(t *testing.T) {
	s := newScene(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	s.tabard.answers(func(w http.ResponseWriter, r *http.Request) { close(asked); <-answer; s.mint(w, r) })
	done := make(chan reply, 1)
	go func() { done <- s.invoke(alice) }()
	<-asked
	s.tabard.answers(refusing(401, "UnauthorizedException", "the workload access token is revoked"))
	s.identity(forToken, "{}", nil)
	s.tabard.answers(nil)
	close(answer)
	<-done
	before := s.tabard.count()
	if s.invoke(alice); s.tabard.count() != before+1 {
		t.Error("a token from before the refusal was given out again")
	}
}

// Whoever quotes a token back, be it Tabard, something in its place or the agent, has it neither logged nor passed to
// others.
func TestQuotedTokensGoNowhere(t *testing.T) {
	const wat = "wat1.canary-wat-of-a-caller"
	s := newScene(t)
	quote := "the token " + alice + " of " + podToken + " and " + wat + " is bad"
	for _, c := range []struct {
		status    int
		exception string
	}{{400, "ValidationException"}, {401, "UnauthorizedException"}, {403, "AccessDeniedException"}, {503, "ServiceUnavailableException"}} {
		s.tabard.answers(refusing(c.status, c.exception, quote))
		for what, got := range map[string]reply{"front": s.invoke(alice), "behind": s.identity(forToken, `{"workloadIdentityToken":"`+wat+`"}`, nil)} {
			if strings.Contains(got.body, "canary") || got.status < 400 || what == "behind" && !strings.Contains(got.body, "the token ") {
				t.Errorf("%s, %d: got %d %s", what, c.status, got.status, got.body)
			}
		}
	}
	s.tabard.answers(nil)
	s.agent.answers(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nno header %s\r\n\r\n", r.Header.Get("WorkloadAccessToken"))
		_ = conn.Close()
	})
	if got := s.invoke(alice); got.status != http.StatusBadGateway {
		t.Errorf("got %d", got.status)
	}
	s.stop()
	if strings.Contains(s.logs.String(), "canary") {
		t.Errorf("the log quotes:\n%s", s.logs)
	}
}

// What is not Tabard's form does not reach the agent: a proxy's error page may show the request, the sidecar's token
// included.
func TestOnlyTabardsAnswersArePassedOn(t *testing.T) {
	s := newScene(t)
	for _, c := range []struct {
		status, want int
		exception    string
	}{
		{200, 502, "InternalServerException"}, {302, 502, "InternalServerException"}, {403, 502, "InternalServerException"},
		{429, 429, "ThrottlingException"}, {502, 503, "ServiceUnavailableException"}, {504, 503, "ServiceUnavailableException"},
	} {
		s.tabard.answers(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(c.status)
			fmt.Fprintf(w, "<p>You sent %s", r.Header.Get("Authorization"))
		})
		got := s.identity(forToken, "{}", nil)
		if got.status != c.want || got.header.Get("X-Amzn-Errortype") != c.exception || strings.Contains(got.body, "You sent") {
			t.Errorf("%d: got %d %s %s", c.status, got.status, got.header.Get("X-Amzn-Errortype"), got.body)
		}
	}
}

func TestLocalhostIsThisMachine(t *testing.T) {
	for address, ok := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true, "10.0.0.1:80": false, "[fe80::1%lo]:80": false, "0.0.0.0:80": false, "localhost:80": false} {
		if err := sidecar.OnLoopback("tcp", address, nil); (err == nil) != ok {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

// An agent that echoes headers gives no token away early either.
func TestEarlyAnswersGiveNoTokenAway(t *testing.T) {
	s := newScene(t)
	s.agent.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WorkloadAccessToken", r.Header.Get("WorkloadAccessToken"))
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
	})
	conn := dial(t, s.beside.URL())
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n", alice)
	all, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(all), "103 Early Hints") || !strings.Contains(string(all), "preload") || strings.Contains(string(all), "canary") {
		t.Errorf("got %q %v", all, err)
	}
}

// Nor late.
func TestTrailersGiveNoTokenAway(t *testing.T) {
	s := newScene(t)
	for _, announced := range []string{"X-Checksum, WorkloadAccessToken", "X-Checksum", ""} {
		s.agent.answers(func(w http.ResponseWriter, r *http.Request) {
			if announced != "" {
				w.Header().Set("Trailer", announced)
			}
			_, _ = io.WriteString(w, "done")
			w.(http.Flusher).Flush() // trailers need chunks
			for name, v := range map[string]string{"WorkloadAccessToken": r.Header.Get("WorkloadAccessToken"), "X-Checksum": "arrives"} {
				if !strings.Contains(announced, name) {
					name = http.TrailerPrefix + name
				}
				w.Header().Set(name, v)
			}
		})
		conn := dial(t, s.beside.URL())
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nTE: trailers\r\nAuthorization: Bearer %s\r\n\r\n", alice)
		all, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(all), "X-Checksum: arrives") || strings.Contains(strings.ToLower(string(all)), "workloadaccesstoken") || strings.Contains(string(all), "canary") {
			t.Errorf("announced %q: got %q %v", announced, all, err)
		}
	}
}

func TestTheLogKnowsWebSockets(t *testing.T) {
	s := newScene(t)
	s.agent.answers(echo(t, ""))
	conn := dial(t, s.beside.URL())
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer %s\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\nhello\n", alice)
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(s.logs.String(), `"status":101`); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log has no WebSocket:\n%s", s.logs)
		}
	}
}
