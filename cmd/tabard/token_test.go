package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/standin"
)

const calendarSecret = "hunter2-calendar-client-secret"

// consentWorld is a server in development mode, with a workload identity and a provider that the command line made.
type consentWorld struct {
	t        *testing.T
	server   *process
	calendar *standin.Calendar
	dir      string
}

func newConsentWorld(t *testing.T) *consentWorld {
	t.Helper()
	w := &consentWorld{t: t, dir: t.TempDir()}
	var handler http.Handler
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(web.Close)
	var err error
	w.calendar, err = standin.NewCalendar(standin.CalendarConfig{Issuer: web.URL, AccessTokenLifetime: time.Hour,
		Clients: []standin.Client{{ID: "tabard", Secret: secret.New(calendarSecret), ClientCredentials: true}}})
	if err != nil {
		t.Fatal(err)
	}
	handler = w.calendar.Handler()
	w.server = start(t, w.dir, nil, "--dev")
	write(t, filepath.Join(w.dir, "secret"), calendarSecret+"\n")
	w.ok("workload", "create", "calendar-agent", "--tag", "tabard:assurance=asserted")
	w.ok("provider", "create", "calendar", "--vendor", "CustomOauth2", "--client-id", "tabard", "--client-secret-file", "secret",
		"--discovery-url", web.URL+"/.well-known/openid-configuration")
	callback := strings.TrimSpace(w.ok("provider", "callback-url", "calendar"))
	if err := w.calendar.AddRedirectURI("tabard", callback); err != nil {
		t.Fatal(err)
	}
	return w
}

// ok runs a command line that must succeed, and returns its standard output.
func (w *consentWorld) ok(args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	cmd := command(ctx, w.dir, nil, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("tabard %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func asAlice(more ...string) []string {
	return append([]string{"token", "get", "calendar", "--workload", "calendar-agent", "--user-id", "alice", "--scope", standin.ScopeCalendarEvents, "--param", "access_type=offline"}, more...)
}

// waiting is a tabard token get that has printed the address to open.
type waiting struct {
	cmd     *exec.Cmd
	address string
	stdout  bytes.Buffer
	rest    chan string // what else is on standard error, once it ended
}

func (w *consentWorld) begin(args ...string) *waiting {
	w.t.Helper()
	return w.beginAs(nil, args...)
}

func (w *consentWorld) beginAs(env []string, args ...string) *waiting {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	w.t.Cleanup(cancel)
	run := &waiting{cmd: command(ctx, w.dir, env, args...), rest: make(chan string, 1)}
	run.cmd.Stdout = &run.stdout
	pipe, err := run.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := run.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			all.WriteString(lines.Text() + "\n")
			if strings.HasPrefix(lines.Text(), "http://") {
				address <- lines.Text()
			}
		}
		run.rest <- all.String()
	}()
	select {
	case run.address = <-address:
	case text := <-run.rest:
		w.t.Fatalf("tabard %s printed no address: %v\n%s", strings.Join(args, " "), run.cmd.Wait(), text)
	}
	return run
}

// end waits for the command and returns its exit code and standard error.
func (r *waiting) end(t *testing.T) (int, string) {
	t.Helper()
	text := <-r.rest
	err := r.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), text
	}
	if err != nil {
		t.Fatal(err)
	}
	return exitOK, text
}

func TestTokenGetWalksTheConsent(t *testing.T) {
	w := newConsentWorld(t)
	alice := standin.CalendarUsers()[0]

	// 0. The server finds nothing wrong with the provider.
	if out := w.ok("provider", "test", "calendar"); !strings.Contains(out, "CHECK") || !strings.Contains(out, " pass ") {
		t.Errorf("provider test:\n%s", out)
	}

	// 1. Alice is asked at an address of this machine, consents in her browser, and the token is there.
	run := w.begin(asAlice("--output", "json")...)
	page, err := standin.NewBrowser().Approve(t.Context(), run.address, alice)
	if err != nil || page.Status != http.StatusOK || !strings.Contains(page.Body, "Access is granted") {
		t.Fatalf("the consent ended with %+v, %v", page, err)
	}
	if code, text := run.end(t); code != exitOK {
		t.Fatalf("after the consent: exit %d\n%s", code, text)
	}
	var views []tokenView
	if err := json.Unmarshal(run.stdout.Bytes(), &views); err != nil || len(views) != 1 {
		t.Fatalf("output %q: %v", run.stdout.String(), err)
	}
	v := views[0]
	if v.Provider != "calendar" || v.Flow != "USER_FEDERATION" || v.ExpiresAt.Before(time.Now()) || len(v.GrantedScopes) != 1 || v.ConnectionID == "" || v.Fingerprint == "" {
		t.Errorf("the token is described as %+v", v)
	}

	// 2. It is stored: the next run needs no browser, and prints the bare token only when asked to.
	token := secret.New(strings.TrimSpace(w.ok(asAlice("--show")...)))
	if !w.calendar.AccessTokenWorks(token) || token.Fingerprint() != v.Fingerprint {
		t.Errorf("--show printed something with the fingerprint %s that works: %v; want the working token %s", token.Fingerprint(), w.calendar.AccessTokenWorks(token), v.Fingerprint)
	}
	if table := w.ok(asAlice()...); strings.Contains(table, token.Expose()) || !strings.Contains(table, v.Fingerprint) {
		t.Errorf("the table shows the token, or not its fingerprint:\n%s", table)
	}
	if strings.Contains(run.stdout.String(), token.Expose()) {
		t.Error("JSON holds the token")
	}

	// 3. The connection can be seen, without a secret.
	if out := w.ok("connection", "list", "--user-id", "alice", "--provider", "calendar"); !strings.Contains(out, v.ConnectionID) {
		t.Errorf("connection list does not have %s:\n%s", v.ConnectionID, out)
	}

	// 4. Nobody else has that token, and no secret is in the server's log.
	code, text := refused(t, w.dir, nil, "token", "get", "calendar", "--workload", "calendar-agent", "--user-id", "bob", "--no-wait", "--return-url", "http://127.0.0.1:1/connected")
	if code != exitConsent || !strings.Contains(text, "hint: have the user open http://") {
		t.Errorf("bob with --no-wait: exit %d, want %d\n%s", code, exitConsent, text)
	}

	// 5. The connection moves to another agent, and ends: at the provider too, as far as that can be. Then alice is asked
	// again.
	w.ok("workload", "create", "other-agent", "--tag", "tabard:assurance=asserted")
	if out := w.ok("connection", "transfer", v.ConnectionID, "other-agent"); !strings.Contains(out, "other-agent") {
		t.Errorf("connection transfer:\n%s", out)
	}
	w.ok("connection", "transfer", v.ConnectionID, "calendar-agent")
	if out := w.ok("connection", "revoke", v.ConnectionID); !strings.Contains(out, "revoked") {
		t.Errorf("connection revoke:\n%s", out)
	}
	if out := w.ok("connection", "get", v.ConnectionID); !strings.Contains(out, " revoked ") {
		t.Errorf("connection get of a revoked one:\n%s", out)
	}
	if code, text := refused(t, w.dir, nil, asAlice("--no-wait", "--return-url", "http://127.0.0.1:1/connected")...); code != exitConsent {
		t.Errorf("alice after the revocation: exit %d, want %d\n%s", code, exitConsent, text)
	}
	w.ok("connection", "delete", v.ConnectionID)
	if out := w.ok("connection", "list"); strings.Contains(out, v.ConnectionID) {
		t.Errorf("a deleted connection is listed:\n%s", out)
	}
	w.server.stop()
	for what, value := range map[string]string{"token": token.Expose(), "client secret": calendarSecret} {
		if strings.Contains(w.server.stderr()+w.server.stdout(), value) {
			t.Errorf("the server's output holds the %s", what)
		}
	}
}

// A return URL on this machine is where the command listens, so that it can be registered once and for all.
func TestTokenGetListensAtTheReturnURL(t *testing.T) {
	w := newConsentWorld(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	back := "http://" + free.Addr().String() + "/back"
	if code, text := refused(t, w.dir, nil, asAlice("--return-url", back)...); code != exitFailed || !strings.Contains(text, "address already in use") {
		t.Errorf("a port in use: exit %d, want %d\n%s", code, exitFailed, text)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	w.ok("workload", "update", "calendar-agent", "--return-url", back)
	run := w.begin(asAlice("--return-url", back)...)
	page, err := standin.NewBrowser().Approve(t.Context(), run.address, standin.CalendarUsers()[0])
	if err != nil || page.URL.Path != "/back" {
		t.Fatalf("the consent ended with %+v, %v", page, err)
	}
	if code, text := run.end(t); code != exitOK {
		t.Fatalf("after the consent: exit %d\n%s", code, text)
	}
}

func TestTokenGetForTheAgentItself(t *testing.T) {
	w := newConsentWorld(t)
	token := secret.New(strings.TrimSpace(w.ok("token", "get", "calendar", "--workload", "calendar-agent", "--machine", "--scope", standin.ScopeCalendarEvents, "--show")))
	if !w.calendar.AccessTokenWorks(token) {
		t.Error("the token of --machine does not work")
	}
}

func TestTokenGetOfAUserWhoRefuses(t *testing.T) {
	w := newConsentWorld(t)
	run := w.begin(asAlice()...)
	if _, err := standin.NewBrowser().Deny(t.Context(), run.address, standin.CalendarUsers()[0]); err != nil {
		t.Fatal(err)
	}
	code, text := run.end(t)
	if code != exitConsent || run.stdout.Len() > 0 {
		t.Errorf("after a refusal: exit %d with output %q, want %d with none\n%s", code, run.stdout.String(), exitConsent, text)
	}
}

// An agent's own access key does not confirm the consent of its user.
func TestTokenGetCompletesNothingAsAnAgentAlone(t *testing.T) {
	w := newConsentWorld(t)
	w.ok("principal", "create", "agent", "--role", "agent", "--workload", "calendar-agent")
	w.ok("allow", "calendar-agent", "calendar", "--asserted-users")
	w.ok("key", "create", "agent", "--output-file", "agent.credentials")
	run := w.beginAs([]string{"AWS_SHARED_CREDENTIALS_FILE=agent.credentials", "AWS_PROFILE=agent"}, asAlice()...)
	page, err := standin.NewBrowser().Approve(t.Context(), run.address, standin.CalendarUsers()[0])
	if err != nil || page.Status != http.StatusForbidden {
		t.Errorf("the browser ended with %+v, %v; want status %d", page, err, http.StatusForbidden)
	}
	code, text := run.end(t)
	if code != exitDenied || !strings.Contains(text, "needs the role consent-app") {
		t.Errorf("exit %d, want %d and what is missing\n%s", code, exitDenied, text)
	}
	if n := w.calendar.Redemptions(); n != 0 {
		t.Errorf("%d codes were redeemed, want none", n)
	}
}

// The address that the command prints, and that --open puts on a command line, is worth nothing to another browser.
func TestTokenGetTakesOnlyTheBrowserThatBegan(t *testing.T) {
	w := newConsentWorld(t)
	run := w.begin(asAlice()...)
	first, other := standin.NewBrowser(), standin.NewBrowser()
	page, err := first.Visit(t.Context(), run.address)
	if err != nil || page.Status != http.StatusOK {
		t.Fatalf("the first visit: %+v, %v", page, err)
	}
	if page, err := other.Visit(t.Context(), run.address); err != nil || page.Status != http.StatusGone {
		t.Errorf("a second visit of the address: %+v, %v; want status %d", page, err, http.StatusGone)
	}
	base, _, _ := strings.Cut(strings.TrimPrefix(run.address, "http://"), "/")
	for _, b := range []*standin.Browser{first, other} {
		page, err := b.Visit(t.Context(), fmt.Sprintf("http://%s/connected?session_id=urn:ietf:params:oauth:request_uri:another", base))
		if err != nil || page.Status != http.StatusForbidden {
			t.Errorf("another session at the return URL: %+v, %v; want status %d", page, err, http.StatusForbidden)
		}
	}
	if err := run.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code, text := run.end(t); code == exitOK {
		t.Errorf("an interrupted command succeeds\n%s", text)
	}
}

func TestTokenGetSaysWhatIsMissing(t *testing.T) {
	w := &consentWorld{t: t, dir: t.TempDir()}
	w.server = start(t, w.dir, nil) // not --dev
	write(t, filepath.Join(w.dir, "secret"), calendarSecret+"\n")
	w.ok("workload", "create", "calendar-agent")
	w.ok("provider", "create", "calendar", "--vendor", "CustomOauth2", "--client-id", "tabard", "--client-secret-file", "secret", "--issuer", "https://idp.example.com",
		"--authorization-endpoint", "https://idp.example.com/authorize", "--token-endpoint", "https://idp.example.com/token")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--user-id", "alice"}, exitUsage, "without --dev a server takes registered return URLs only"},
		{[]string{"--user-id", "alice", "--machine"}, exitUsage, "give one of --user-id, --user-token-file and --machine"},
		{nil, exitUsage, "give one of --user-id, --user-token-file and --machine"},
		{[]string{"--machine", "--open"}, exitUsage, "--machine and --open contradict each other"},
		{[]string{"--machine", "--no-wait"}, exitUsage, "--machine and --no-wait contradict each other"},
		{[]string{"--machine", "--scope", "a,b"}, exitUnavailable, "give --scope again for each scope"},
		{[]string{"--user-id", "alice", "--show", "--output", "json"}, exitUsage, "contradict each other"},
		{[]string{"--user-id", "alice", "--return-url", "http://127.0.0.1/connected"}, exitUsage, "needs a port and a path"},
		{[]string{"--user-token-file", "secret"}, exitDenied, "tabard: "},
	} {
		code, text := refused(t, w.dir, nil, append([]string{"token", "get", "calendar", "--workload", "calendar-agent"}, c.args...)...)
		if code != c.code || !strings.Contains(text, c.want) || strings.Contains(text, calendarSecret) {
			t.Errorf("token get %s: exit %d, want %d and %q\n%s", strings.Join(c.args, " "), code, c.code, c.want, text)
		}
	}
}

// No secret is on a command line, where every user of the machine could read it: no flag takes one.
func TestL07_NoFlagTakesASecret(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"provider", "create", "x", "--vendor", "GoogleOauth2", "--client-id", "x", "--client-secret", "hunter2"},
		{"provider", "create", "x", "hunter2", "--vendor", "GoogleOauth2", "--client-id", "x"},
		{"provider", "update", "x", "--client-secret=hunter2"},
		{"apikey", "create", "x", "hunter2"},
		{"apikey", "create", "x", "--key", "hunter2"},
		{"apikey", "update", "x", "--api-key=hunter2"},
		{"token", "get", "x", "--workload", "agent", "--user-token", "hunter2"},
	} {
		code, stderr := refused(t, dir, nil, args...)
		if code != exitUsage || strings.Contains(stderr, "hunter2") {
			t.Errorf("tabard %s: exit %d, want %d and no secret in %q", strings.Join(args, " "), code, exitUsage, stderr)
		}
	}
}
