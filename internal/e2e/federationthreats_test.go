package e2e_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/chromedp/chromedp"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// assume posts the form of AssumeRoleWithWebIdentity, changed: a nil value removes a member.
func (w *world) assume(p *platform, change map[string][]string) reply {
	w.t.Helper()
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {calendarRole}, "RoleSessionName": {"pod-1"},
		"WebIdentityToken": {p.token("first", nil)},
	}
	maps.Copy(form, change)
	maps.DeleteFunc(form, func(_ string, v []string) bool { return v == nil })
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.server.URL()+"/", strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(w.t, r)
}

// container asks for container credentials with these headers.
func (w *world) container(method, path string, header map[string]string) reply {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL()+"/container-credentials/"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	return do(w.t, r)
}

// J07: an unknown role, another account's and one whose rule does not fit are refused in the same bytes, but for the id
// of the request. The log says why, and has nothing of the token.
func TestJ07_RefusalsLookTheSame(t *testing.T) {
	w, p, _ := newFederated(t, daemon.SQLite)
	secrets := []string{}
	foreign := p.token("third", nil)
	id := regexp.MustCompile(`<RequestId>[^<]*</RequestId>`)
	same := map[string]bool{}
	for what, change := range map[string]map[string][]string{
		"no such role":        {"RoleArn": {"arn:aws:iam::000000000000:role/nobody"}},
		"another account":     {"RoleArn": {"arn:aws:iam::111111111111:role/calendar"}},
		"no rule":             {"WebIdentityToken": {foreign}},
		"another audience":    {"WebIdentityToken": {p.token("first", map[string]any{"aud": "sts.amazonaws.com"})}},
		"an issuer of none":   {"WebIdentityToken": {p.token("first", map[string]any{"iss": "https://other.example.com"})}},
		"a signature of none": {"WebIdentityToken": {func() string { s := p.token("first", nil); return s[:len(s)-8] + "AAAAAAAA" }()}},
	} {
		r := w.assume(p, change)
		if r.status != http.StatusForbidden || !strings.Contains(r.body, "<Code>AccessDenied</Code>") {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
		same[id.ReplaceAllString(r.body, "")] = true
		if token := change["WebIdentityToken"]; token != nil {
			secrets = append(secrets, token[0])
		}
	}
	if len(same) != 1 {
		t.Errorf("the refusals differ: %v", same)
	}
	r := w.assume(p, nil)
	if r.status != http.StatusOK || !strings.Contains(r.body, ":assumed-role/calendar/pod-1</Arn>") || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the right role: %d %s", r.status, r.body)
	}
	for _, name := range []string{"SecretAccessKey", "SessionToken"} {
		secrets = append(secrets, regexp.MustCompile(`<` + name + `>([^<]+)<`).FindStringSubmatch(r.body)[1])
	}
	logged := w.logs.String()
	for _, why := range []string{"no rule for a token", "111111111111", "no rule fits", "sts.amazonaws.com", "https://other.example.com", "does not verify"} {
		if !strings.Contains(logged, why) {
			t.Errorf("the log does not say %q", why)
		}
	}
	for _, s := range secrets {
		if strings.Contains(logged, s) {
			t.Errorf("the log has %s", s)
		}
	}
}

// J09: what narrows a session and is not supported here is an error, and so is everything that is not known.
func TestJ09_MembersOfTheForm(t *testing.T) {
	w, p, _ := newFederated(t, daemon.SQLite)
	for what, c := range map[string]struct {
		change map[string][]string
		names  string
	}{
		"a policy":            {map[string][]string{"Policy": {"{}"}}, "Policy"},
		"policies by ARN":     {map[string][]string{"PolicyArns.member.1.arn": {"arn:aws:iam::aws:policy/X"}}, "PolicyArns"},
		"a provider":          {map[string][]string{"ProviderId": {"graph.facebook.com"}}, "ProviderId"},
		"an unknown member":   {map[string][]string{"Tags.member.1.Key": {"x"}}, "Tags"},
		"two roles":           {map[string][]string{"RoleArn": {calendarRole, calendarRole}}, "RoleArn"},
		"no role":             {map[string][]string{"RoleArn": nil}, "RoleArn"},
		"no session":          {map[string][]string{"RoleSessionName": nil}, "session"},
		"a space":             {map[string][]string{"RoleSessionName": {"a b"}}, "session"},
		"no token":            {map[string][]string{"WebIdentityToken": nil}, "token"},
		"a huge token":        {map[string][]string{"WebIdentityToken": {strings.Repeat("a", 20001)}}, "token"},
		"another version":     {map[string][]string{"Version": {"2010-05-08"}}, "version"},
		"12 hours":            {map[string][]string{"DurationSeconds": {"43200"}}, "3600"},
		"no time":             {map[string][]string{"DurationSeconds": {"0"}}, "DurationSeconds"},
		"five minutes":        {map[string][]string{"DurationSeconds": {"300"}}, "900"},
		"a word":              {map[string][]string{"DurationSeconds": {"long"}}, "DurationSeconds"},
		"more than an int":    {map[string][]string{"DurationSeconds": {"4294967296000"}}, "DurationSeconds"},
		"a negative duration": {map[string][]string{"DurationSeconds": {"-900"}}, "DurationSeconds"},
	} {
		r := w.assume(p, c.change)
		if r.status != http.StatusBadRequest || !strings.Contains(r.body, "<Code>ValidationError</Code>") || !strings.Contains(r.body, c.names) {
			t.Errorf("%s: %d %s; want a ValidationError that names %q", what, r.status, r.body, c.names)
		}
	}
	if r := w.assume(p, map[string][]string{"DurationSeconds": {"900"}}); r.status != http.StatusOK {
		t.Errorf("15 minutes: %d %s", r.status, r.body)
	}
}

// counted is the server behind a counter of the requests for credentials.
func (w *world) counted() (front string, count *atomic.Int64) {
	w.t.Helper()
	target, err := url.Parse(w.server.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	count = &atomic.Int64{}
	next := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = target.Host }}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/container-credentials/") {
			count.Add(1)
		}
		next.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(server.Close)
	return server.URL, count
}

// J08: an SDK that is refused does not ask again; one that meets an issuer which is down does, a few times.
func TestJ08_RefusalsAreNotRetried(t *testing.T) {
	w, p, _ := newFederated(t, daemon.SQLite)
	front, count := w.counted()
	for what, c := range map[string]struct {
		token string
		want  string
	}{
		"no rule":      {p.token("third", nil), "AccessDenied"},
		"expired":      {p.token("first", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}), "ExpiredTokenException"},
		"no JWT":       {"not a token", "AccessDenied"},
		"a user's own": {p.token("first", map[string]any{"aud": "web"}), "AccessDenied"},
	} {
		p.project(c.token)
		for way, env := range w.ways(p) {
			for _, name := range []string{"AWS_ENDPOINT_URL_STS", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
				if env[name] != "" {
					env[name] = strings.Replace(env[name], w.server.URL(), front, 1)
				}
			}
			t.Run("Go "+way+" "+what, func(t *testing.T) {
				count.Store(0)
				cfg := sdkConfig(t, env)
				_, err := bedrockagentcore.NewFromConfig(cfg).GetWorkloadAccessToken(t.Context(), &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("calendar-agent")})
				if err == nil || !strings.Contains(err.Error(), c.want) || count.Load() != 1 {
					t.Errorf("%d requests for credentials, %v; want one, and %s", count.Load(), err, c.want)
				}
			})
			if what != "no rule" && what != "expired" {
				continue
			}
			for _, script := range []string{"federated.mjs", "federated.py"} {
				t.Run(script+" "+way+" "+what, func(t *testing.T) {
					count.Store(0)
					env := maps.Clone(env)
					env["REFUSED"] = "yes"
					run := peer.Script{Name: script, Env: env}.Start(t)
					said := run.Next(t, "refused")
					run.Wait(t)
					// For this protocol the two ask a fixed few times, whatever the answer is.
					if n, most := count.Load(), map[string]int64{"web identity": 1, "container": 5}[way]; n < 1 || n > most {
						t.Errorf("%d requests for credentials, want at most %d (%v)", n, most, said)
					}
				})
			}
		}
	}
}

// J08: the one error that is for now is the issuer's silence.
func TestJ08_AnIssuerThatIsDownIsAskedAgain(t *testing.T) {
	w, p, _ := newFederated(t, daemon.SQLite)
	w.must("DeleteWorkloadIssuer", map[string]any{"issuer": p.url})
	w.must("CreateWorkloadIssuer", map[string]any{"issuer": p.url, "audiences": []string{"tabard"}, "jwksUri": "http://127.0.0.1:1/keys"})
	w.federate(p, "first")
	if r := w.assume(p, nil); r.status != http.StatusBadRequest || !strings.Contains(r.body, "<Code>IDPCommunicationError</Code>") {
		t.Errorf("STS: %d %s", r.status, r.body)
	}
	if r := w.container(http.MethodGet, "000000000000/calendar", map[string]string{"Authorization": p.token("first", nil)}); r.status != http.StatusServiceUnavailable || r.get("code") != "IDPCommunicationError" {
		t.Errorf("container: %d %s", r.status, r.body)
	}
	front, count := w.counted()
	for way, env := range w.ways(p) {
		for _, name := range []string{"AWS_ENDPOINT_URL_STS", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
			if env[name] != "" {
				env[name] = strings.Replace(env[name], w.server.URL(), front, 1)
			}
		}
		count.Store(0)
		_, err := sdkConfig(t, env).Credentials.Retrieve(t.Context())
		if n := count.Load(); err == nil || n < 2 || n > 5 {
			t.Errorf("%s: %d requests for credentials, %v; want 2 to 5", way, n, err)
		}
	}
}

// J10: the container endpoint gives a browser nothing.
func TestJ10_ContainerCredentialsAreNotForBrowsers(t *testing.T) {
	w, p, _ := newFederated(t, daemon.SQLite)
	token := p.token("first", nil)
	const path = "000000000000/calendar"
	for what, c := range map[string]struct {
		method string
		header map[string]string
		status int
	}{
		"a pod":               {http.MethodGet, map[string]string{"Authorization": token}, 200},
		"a pod with a scheme": {http.MethodGet, map[string]string{"Authorization": "Bearer " + token}, 200},
		"no header":           {http.MethodGet, nil, 401},
		"an empty header":     {http.MethodGet, map[string]string{"Authorization": ""}, 401},
		"an origin":           {http.MethodGet, map[string]string{"Authorization": token, "Origin": "https://evil.example"}, 403},
		"our own origin":      {http.MethodGet, map[string]string{"Authorization": token, "Origin": w.server.URL()}, 403},
		"no origin":           {http.MethodGet, map[string]string{"Authorization": token, "Origin": "null"}, 403},
		"a page's fetch":      {http.MethodGet, map[string]string{"Authorization": token, "Sec-Fetch-Site": "same-origin"}, 403},
		"a page's image":      {http.MethodGet, map[string]string{"Authorization": token, "Sec-Fetch-Dest": "image"}, 403},
		"a preflight":         {http.MethodOptions, map[string]string{"Origin": "https://evil.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}, 404},
		"a form":              {http.MethodPost, map[string]string{"Authorization": token}, 404},
	} {
		r := w.container(c.method, path, c.header)
		if r.status != c.status || strings.Contains(r.body, "SecretAccessKey") != (c.status == 200) {
			t.Errorf("%s: %d %s, want %d", what, r.status, r.body, c.status)
		}
		if r.status == 403 && (r.get("code") == "" || r.get("message") == "") {
			t.Errorf("%s: %s has no code and message", what, r.body)
		}
		for name := range r.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: the answer has %s", what, name)
			}
		}
	}
	// Without a principal it is the only one that the rules lead to.
	auth := map[string]string{"Authorization": token}
	if r := w.container(http.MethodGet, "000000000000", auth); r.status != 200 || r.get("RoleArn") != calendarRole {
		t.Errorf("without a principal: %d %s", r.status, r.body)
	}
	w.must("CreatePrincipal", map[string]any{"name": "second", "roles": []string{"auditor"}})
	w.must("CreateFederationRule", map[string]any{"issuer": p.url, "subject": "system:serviceaccount:prod:*", "principalName": "second"})
	if !eventually(2*time.Second, func() bool { return w.container(http.MethodGet, "000000000000", auth).status == 403 }) {
		t.Error("two principals, and one of them was chosen")
	}
}

// J10: a page of another origin in a real browser.
func TestJ10_Chromium(t *testing.T) {
	binary := peer.Chromium(t)
	w, p, _ := newFederated(t, daemon.SQLite)
	evil := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		_, _ = rw.Write([]byte("<title>evil</title>"))
	}))
	t.Cleanup(evil.Close)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(binary), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until Chromium has ended, so that its profile can be removed
		cancel()
	})
	target := encode(t, w.server.URL()+"/container-credentials/000000000000/calendar")
	if err := chromedp.Do(ctx, chromedp.Navigate(evil.URL)); err != nil {
		t.Fatal(err)
	}
	for what, script := range map[string]string{
		"with the token": `fetch(` + target + `, {headers: {Authorization: ` + encode(t, p.token("first", nil)) + `}}).then(r => 'answered ' + r.status, () => 'failed')`,
		"without":        `fetch(` + target + `, {mode: 'no-cors'}).then(r => r.text()).then(s => s === '' ? 'failed' : 'read ' + s, () => 'failed')`,
	} {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
		if err != nil || got != "failed" {
			t.Errorf("%s: the page got %q, %v", what, got, err)
		}
	}
	if strings.Contains(w.logs.String(), `"route":"/container-credentials/{account}/{principal}","status":200`) {
		t.Error("the page's requests were answered")
	}
}

// A workload may call every operation with its own token alone.
func TestBearerToken(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w, p, _ := newFederated(t, db)
		call := func(header http.Header) reply {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL()+"/identities/GetWorkloadAccessToken", strings.NewReader(`{"workloadName":"calendar-agent"}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = header
			r.Header.Set("Content-Type", "application/json")
			return do(t, r)
		}
		bearer := func(token string, more ...string) http.Header {
			h := http.Header{"Authorization": {"Bearer " + token}}
			for i := 0; i+1 < len(more); i += 2 {
				h.Add(more[i], more[i+1])
			}
			return h
		}
		good := p.token("first", nil)
		if r := call(bearer(good)); r.status != 200 || r.get("workloadAccessToken") == "" {
			t.Fatalf("%d %s", r.status, r.body)
		}
		w.must("CreatePrincipal", map[string]any{"name": "reader", "roles": []string{"auditor"}})
		w.must("CreateFederationRule", map[string]any{"issuer": p.url, "subject": "system:serviceaccount:prod:*", "principalName": "reader"})
		var last reply
		if !eventually(2*time.Second, func() bool { last = call(bearer(good)); return last.status == 403 }) || !strings.Contains(last.body, "X-Tabard-Principal") {
			t.Errorf("two principals: %d %s, want 403 and the header's name", last.status, last.body)
		}
		for what, c := range map[string]struct {
			header http.Header
			status int
		}{
			"by name":           {bearer(good, "X-Tabard-Principal", "calendar"), 200},
			"by ARN":            {bearer(good, "X-Tabard-Principal", calendarRole), 200},
			"one who may not":   {bearer(good, "X-Tabard-Principal", "reader"), 403},
			"nobody":            {bearer(good, "X-Tabard-Principal", "nobody"), 403},
			"another account":   {bearer(good, "X-Tabard-Principal", "arn:aws:iam::111111111111:role/calendar"), 403},
			"a malformed ARN":   {bearer(good, "X-Tabard-Principal", "arn:aws:iam::1:role/calendar"), 400},
			"two names":         {bearer(good, "X-Tabard-Principal", "calendar", "X-Tabard-Principal", "reader"), 400},
			"two headers":       {bearer(good, "Authorization", "Bearer "+good), 403},
			"no token":          {bearer(""), 401},
			"no JWT":            {bearer("abc"), 401},
			"expired":           {bearer(p.token("first", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), 403},
			"another scheme":    {http.Header{"Authorization": {"Basic " + good}}, 403},
			"no right audience": {bearer(p.token("first", map[string]any{"aud": "x"})), 403},
		} {
			if r := call(c.header); r.status != c.status {
				t.Errorf("%s: %d %s, want %d", what, r.status, r.body, c.status)
			}
		}
	})
}

// cluster answers TokenReviews as a Kubernetes API server does.
type cluster struct {
	mu      sync.Mutex // guards what follows
	gone    bool
	broken  bool
	reviews []map[string]any
}

// ServeHTTP implements http.Handler.
func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var in map[string]any
	err := json.NewDecoder(r.Body).Decode(&in)
	switch {
	case c.broken || err != nil:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || r.Header.Get("Authorization") != "Bearer reviewer-token":
		w.WriteHeader(http.StatusForbidden)
		return
	}
	c.reviews = append(c.reviews, in)
	spec := in["spec"].(map[string]any)
	status := map[string]any{"authenticated": true, "audiences": spec["audiences"], "user": map[string]any{"username": "system:serviceaccount:prod:first"}}
	if c.gone {
		status = map[string]any{"authenticated": false, "error": "the pod is gone"}
	}
	in["status"] = status
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(in)
}

func (c *cluster) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// A26: in TokenReview mode the cluster itself is asked, over TLS with its own authority, and a deleted pod's token is
// refused.
func TestA26_TokenReview(t *testing.T) {
	c := &cluster{}
	api := httptest.NewTLSServer(c)
	t.Cleanup(api.Close)
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	err := errors.Join(os.WriteFile(filepath.Join(dir, "ca"), ca, 0o600), os.WriteFile(filepath.Join(dir, "token"), []byte("reviewer-token\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	p := newPlatform(t)
	w := newBare(t, daemon.SQLite, func(config *daemon.Config) {
		config.TokenReviews = []daemon.TokenReview{{Issuer: p.url, APIServer: api.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca")}}
	})
	w.must("CreatePrincipal", map[string]any{"name": "calendar", "roles": []string{"agent"}, "workloads": []string{"calendar-agent"}})
	made := w.must("CreateWorkloadIssuer", map[string]any{"issuer": p.url, "audiences": []string{"tabard"}})
	if made["workloadIssuer"].(map[string]any)["tokenReview"] != true {
		t.Errorf("got %v, want tokenReview", made)
	}
	w.federate(p, "first")
	w.federate(p, "second")
	if r := w.assume(p, nil); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if len(c.reviews) != 1 || !strings.HasPrefix(c.reviews[0]["spec"].(map[string]any)["token"].(string), "ey") {
		t.Errorf("the cluster was asked %v", c.reviews)
	}
	if r := w.assume(p, map[string][]string{"WebIdentityToken": {p.token("second", nil)}}); r.status != 403 {
		t.Errorf("a token that the cluster knows as another's: %d %s", r.status, r.body)
	}
	c.change(func() { c.gone = true })
	if r := w.assume(p, nil); r.status != 403 || !strings.Contains(r.body, "AccessDenied") {
		t.Errorf("a deleted pod: %d %s", r.status, r.body)
	}
	c.change(func() { c.broken = true })
	if r := w.assume(p, nil); r.status != 400 || !strings.Contains(r.body, "IDPCommunicationError") {
		t.Errorf("a cluster that does not answer: %d %s", r.status, r.body)
	}
}
