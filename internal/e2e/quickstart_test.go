package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	calendarScope      = "https://www.googleapis.com/auth/calendar.events"
	quickstartPatience = time.Minute
)

// quickstart is what README.md has a reader start: a server with nothing configured but --dev, and what `tabard env`
// says of it. oidc-provider stands where Google stands.
type quickstart struct {
	*world
	env      []string
	calendar *calendarAPI
}

func newQuickstart(t *testing.T) *quickstart {
	t.Helper()
	w := &world{t: t, dataDir: filepath.Join(t.TempDir(), "tabard-data"), db: daemon.SQLite, logs: &buffer{}, out: &buffer{}}
	if err := os.Mkdir(w.dataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	// The server takes its root access key from the file that it would write at its first start.
	body := fmt.Sprintf("[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", daemon.Profile, rootID, rootSecret)
	if err := os.WriteFile(daemon.CredentialsPath(w.dataDir), []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	w.idp = peer.OIDCProvider(t, peer.OIDCConfig{Scopes: []string{calendarScope}})
	w.start(func(c *daemon.Config) { c.RootAccessKeyID, c.RootSecretAccessKey = "", secret.Text{} })
	q := &quickstart{world: w, calendar: &calendarAPI{t: t}}
	srv := httptest.NewServer(q.calendar)
	t.Cleanup(srv.Close)
	home := t.TempDir()
	q.env = []string{"PATH=/usr/bin:/bin", "HOME=" + home, "AWS_EC2_METADATA_DISABLED=true", "PYTHONDONTWRITEBYTECODE=1", "PORT=0",
		"CALENDAR_ENDPOINT=" + srv.URL + "/calendar/v3/"}
	for _, m := range regexp.MustCompile(`(?m)^export (\w+)='([^']*)'$`).FindAllStringSubmatch(string(goCommand(t, "run", "./cmd/tabard", "env", "--data-dir", w.dataDir)), -1) {
		q.env = append(q.env, m[1]+"="+m[2])
	}
	return q
}

// calendarAPI answers as Google's Calendar does, to anyone, and remembers the fingerprints of the tokens it saw.
type calendarAPI struct {
	t    *testing.T
	seen buffer
}

func (c *calendarAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || r.URL.Path != "/calendar/v3/calendars/primary/events" || r.URL.Query().Get("timeMin") == "" {
		c.t.Errorf("the calendar was asked %s %s, with a token %t", r.Method, r.URL.Path, ok)
	}
	fmt.Fprintln(&c.seen, secret.New(token).Fingerprint())
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"items":[{"summary":"Lunch with Sam"}]}`)
}

// checkTokens fails unless the calendar saw one token, want times, and it is the one that the provider gave once.
func (q *quickstart) checkTokens(want int) {
	q.t.Helper()
	all := q.redemptions()
	if len(all) != 1 || all[0].Result != "ok" {
		q.t.Fatalf("the provider saw %+v, want one redemption", all)
	}
	if got := q.calendar.seen.String(); got != strings.Repeat(all[0].AccessToken+"\n", want) {
		q.t.Errorf("the calendar saw tokens\n%swant %d times %s", got, want, all[0].AccessToken)
	}
}

// program starts an example in dir and returns its lines; end kills it if it still runs, and waits.
func (q *quickstart) program(dir, name string, args ...string) (lines *bufio.Scanner, end func() error) {
	q.t.Helper()
	cmd := exec.CommandContext(q.t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, q.env
	var stderr buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		q.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		q.t.Fatal(err)
	}
	late := time.AfterFunc(quickstartPatience, func() { _ = cmd.Process.Kill() })
	q.t.Cleanup(func() {
		late.Stop()
		_ = cmd.Process.Kill() // it has ended, or serves for ever
		_ = cmd.Wait()
		if q.t.Failed() {
			q.t.Logf("%s:\n%s", filepath.Base(name), &stderr)
		}
	})
	return bufio.NewScanner(out), cmd.Wait
}

// after returns the rest of the first line that begins with prefix.
func after(t *testing.T, lines *bufio.Scanner, prefix string) string {
	t.Helper()
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
			return rest
		}
	}
	t.Fatalf("the program ended without %q", prefix)
	return ""
}

func TestQuickstartInGo(t *testing.T) {
	q := newQuickstart(t)
	q.provider("google-calendar")
	binary := filepath.Join(t.TempDir(), "quickstart")
	goCommand(t, "build", "-o", binary, "./examples/quickstart")
	lines, _ := q.program(t.TempDir(), binary)
	site := after(t, lines, "Please open ")

	browser := peer.NewBrowser("alice")
	for range 2 { // with consent, then from the vault
		page := browser.Walk(t, site+"/", "")
		if page.URL.Path != "/" || page.Status != http.StatusOK || !strings.Contains(page.Body, "- Lunch with Sam\n") {
			t.Fatalf("the browser ended at %s %d\n%s", page.URL.Path, page.Status, page.Body)
		}
	}
	q.checkTokens(2)
	// A consent that comes back in another browser than it began in is not confirmed.
	if page := peer.NewBrowser("bob").Walk(t, site+"/connected?state=x&session_id=urn:ietf:params:oauth:request_uri:x", ""); page.Status != http.StatusForbidden {
		t.Errorf("another browser: got status %d, want 403", page.Status)
	}
}

func TestQuickstartInPython(t *testing.T) {
	python := peer.Python(t)
	q := newQuickstart(t)
	q.provider("google-calendar")
	dir, script := t.TempDir(), filepath.Join(peer.Root(t), "examples", "quickstart.py")

	lines, end := q.program(dir, python, script)
	page := peer.NewBrowser("alice").Walk(t, after(t, lines, "Please open "), "")
	if page.URL.Path != "/connected" || page.Status != http.StatusOK {
		t.Fatalf("the browser ended at %s %d\n%s", page.URL.Path, page.Status, page.Body)
	}
	if got := after(t, lines, "Next in your calendar: "); got != "Lunch with Sam" {
		t.Errorf("got %q", got)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	lines, _ = q.program(dir, python, script)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "Please open") {
			t.Error("the second run asked for consent")
		}
	}
	q.checkTokens(2)

	source, err := os.ReadFile(script)
	if n := bytes.Count(source, []byte("\n")); err != nil || n > 60 {
		t.Errorf("quickstart.py has %d lines, want at most 60 (%v)", n, err)
	}
}

func TestQuickstartCreatesTheGoogleProvider(t *testing.T) {
	python := peer.Python(t)
	q := newQuickstart(t)
	q.env = append(q.env, "GOOGLE_CLIENT_ID=1234.apps.googleusercontent.com", "GOOGLE_CLIENT_SECRET=canary-google-secret-5d1e")
	lines, end := q.program(t.TempDir(), python, filepath.Join(peer.Root(t), "examples", "google.py"))
	callback := after(t, lines, "Register this redirect URI at Google: ")
	if err := end(); err != nil {
		t.Fatal(err)
	}
	made, err := q.control(root()).GetOauth2CredentialProvider(t.Context(), &bedrockagentcorecontrol.GetOauth2CredentialProviderInput{Name: aws.String("google-calendar")})
	if err != nil || made.CredentialProviderVendor != types.CredentialProviderVendorTypeGoogleOauth2 || *made.CallbackUrl != callback {
		t.Errorf("got %+v, %v; want vendor GoogleOauth2 and callback URL %s", made, err, callback)
	}
}

// document reads a file of the repository.
func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(peer.Root(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// flat is text without indentation and empty lines.
func flat(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// TestReadmeSnippetsAreTheExamples: what README.md shows is in a file that compiles, or that a test runs.
func TestReadmeSnippetsAreTheExamples(t *testing.T) {
	sources := map[string]string{
		"go":     flat(document(t, "example_test.go")) + flat(document(t, "examples/quickstart/main.go")),
		"python": flat(document(t, "examples/quickstart.py")),
	}
	found := map[string]int{}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(document(t, "README.md"), -1) {
		if source, ok := sources[m[1]]; ok {
			found[m[1]]++
			if !strings.Contains(source, flat(m[2])) {
				t.Errorf("this %s is in no example:\n%s", m[1], m[2])
			}
		}
	}
	if found["go"] == 0 || found["python"] == 0 {
		t.Errorf("README.md has snippets %v, want some in Go and in Python", found)
	}
}

// TestOperationsListsEverySetting compares the table of docs/operations.md with the settings of the server.
func TestOperationsListsEverySetting(t *testing.T) {
	var want strings.Builder
	want.WriteString("| flag and key | environment | default | |\n|---|---|---|---|\n")
	for _, s := range daemon.Settings() {
		name, env, def := "`--"+s.Name+"`", "`"+s.Env()+"`", s.Default
		if s.EnvOnly {
			name = "no flag"
		}
		if s.File {
			env += " or `" + s.Env() + "_FILE`"
		}
		if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&want, "| %s | %s | %s | %s |\n", name, env, def, strings.NewReplacer("<", "&lt;", ">", "&gt;", "|", `\|`).Replace(s.Help))
	}
	_, rest, _ := strings.Cut(document(t, "docs/operations.md"), "<!-- settings -->\n")
	got, _, ok := strings.Cut(rest, "<!-- /settings -->")
	if !ok || got != want.String() {
		t.Errorf("docs/operations.md must have, between its markers:\n%s", want.String())
	}
}

// TestOperationsConfigurationLoads: the configuration file that docs/operations.md shows is one.
func TestOperationsConfigurationLoads(t *testing.T) {
	_, rest, _ := strings.Cut(document(t, "docs/operations.md"), "```yaml\n")
	text, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("docs/operations.md shows no configuration file")
	}
	file := filepath.Join(t.TempDir(), "tabard.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := daemon.Load(daemon.Sources{File: file})
	if err != nil || len(c.Issuers) != 1 || len(c.TrustedProxies) != 1 || c.Account != "123456789012" || !c.BehindTLSProxy {
		t.Errorf("got %+v, %v", c, err)
	}
}

// TestDocumentsNameWhatExists: files that the documents link to, and flags that they give to `tabard serve`.
func TestDocumentsNameWhatExists(t *testing.T) {
	known := []string{"config", "help"}
	for _, s := range daemon.Settings() {
		if !s.EnvOnly {
			known = append(known, s.Name)
		}
	}
	for _, name := range []string{"README.md", "docs/operations.md", "docs/compatibility.md"} {
		text := document(t, name)
		prose := regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "")
		for _, m := range regexp.MustCompile(`\]\(([^):#]+)[^):]*\)`).FindAllStringSubmatch(prose, -1) {
			if _, err := os.Stat(filepath.Join(peer.Root(t), filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
		for _, m := range regexp.MustCompile(`(?m)tabard serve([^\n#;|]*)`).FindAllStringSubmatch(text, -1) {
			for _, f := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(m[1], -1) {
				if !slices.Contains(known, f[1]) {
					t.Errorf("%s: tabard serve has no flag --%s", name, f[1])
				}
			}
		}
	}
}

// TestCompatibilityTellsWhatAnswers asks the server for each operation of the models, and holds docs/compatibility.md
// to the answer.
func TestCompatibilityTellsWhatAnswers(t *testing.T) {
	w := &world{t: t, dataDir: filepath.Join(t.TempDir(), "tabard-data"), db: daemon.SQLite, logs: &buffer{}, out: &buffer{}}
	w.start()
	text := document(t, "docs/compatibility.md")
	answers, later, ok := strings.Cut(text, "\n## Not offered yet\n")
	if !ok {
		t.Fatal("docs/compatibility.md has no section \"Not offered yet\"")
	}
	placeholder := regexp.MustCompile(`\{[^}]*\}`)
	for _, op := range api.Operations() {
		req, err := http.NewRequestWithContext(t.Context(), op.Method, w.server.URL()+placeholder.ReplaceAllString(op.Path, "x"), strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		section, heading := answers, "what answers"
		if resp.Header.Get("X-Amzn-Errortype") == api.ExceptionUnknownOperation {
			section, heading = later, "what is not offered yet"
		}
		if !strings.Contains(section, "`"+op.Name+"`") {
			t.Errorf("%s answered %d %s: docs/compatibility.md must list it under %s", op.Name, resp.StatusCode, resp.Header.Get("X-Amzn-Errortype"), heading)
		}
	}
}
