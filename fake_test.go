package tabard_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/tabard-id/tabard"
)

// object is a JSON object on the wire.
type object = map[string]any

// fake speaks restJson1 for the data plane. It stands for two services at once: with bare set it answers as AWS does,
// without Tabard's extra members. Each operation is a script that a test may replace.
type fake struct {
	bare bool

	mu      sync.Mutex // guards all below
	scripts map[string]func(n int, in object) (int, object)
	calls   map[string][]object
}

const (
	opPlain    = "/identities/GetWorkloadAccessToken"
	opJWT      = "/identities/GetWorkloadAccessTokenForJWT"
	opUserID   = "/identities/GetWorkloadAccessTokenForUserId"
	opToken    = "/identities/oauth2/token"
	opKey      = "/identities/api-key"
	opComplete = "/identities/CompleteResourceTokenAuth"
	opPayment  = "/identities/payment/token"
	opReport   = "/tabard/ReportTokenInvalid"

	session = "urn:ietf:params:oauth:request_uri:c2Vzc2lvbg"
	authURL = "http://127.0.0.1/identities/oauth2/authorize?request_uri=c2Vzc2lvbg"
)

// expiry is what the fake tells of every provider token.
func expiry() time.Time { return time.Now().Add(time.Hour).Truncate(time.Second) }

func newFake() *fake {
	f := &fake{calls: map[string][]object{}}
	mint := func(n int, in object) (int, object) {
		return 200, object{"workloadAccessToken": fmt.Sprintf("wat-%d-%v%v", n, in["userToken"], in["userId"]),
			"expiresAt": float64(time.Now().Add(15*time.Minute).UnixMilli()) / 1000}
	}
	f.scripts = map[string]func(int, object) (int, object){
		opPlain: mint, opJWT: mint, opUserID: mint,
		opToken: func(n int, _ object) (int, object) { return granted(fmt.Sprintf("provider-%d", n)) },
		opKey:   func(int, object) (int, object) { return 200, object{"apiKey": "key-canary"} },
		opComplete: func(int, object) (int, object) {
			return 200, object{}
		},
		opReport: func(int, object) (int, object) { return 200, object{"connectionState": "active"} },
		opPayment: func(int, object) (int, object) {
			return fault(403, "AccessDeniedException", "payments are not for agents")
		},
	}
	return f
}

func granted(token string) (int, object) {
	return 200, object{"accessToken": token, "expiresAt": expiry().Unix(), "grantedScopes": []string{"events"},
		"tokenType": "Bearer", "connectionState": "active", "connectionId": "conn-1"}
}

func pending() (int, object) {
	return 200, object{"authorizationUrl": authURL, "sessionUri": session, "sessionStatus": "IN_PROGRESS",
		"connectionState": "needs_reauth"}
}

func fault(status int, exception, message string) (int, object) {
	return status, object{"__fault": exception, "message": message}
}

func (f *fake) on(op string, script func(n int, in object) (int, object)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scripts[op] = script
}

// seen returns the requests of one operation so far.
func (f *fake) seen(op string) []object {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]object(nil), f.calls[op]...)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in object
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
		http.Error(w, `{"message":"not a signed JSON request"}`, http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	script := f.scripts[r.URL.Path]
	f.calls[r.URL.Path] = append(f.calls[r.URL.Path], in)
	n := len(f.calls[r.URL.Path])
	f.mu.Unlock()
	status, out := script(n, in)
	if name, ok := out["__fault"]; ok {
		w.Header().Set("X-Amzn-ErrorType", name.(string))
		delete(out, "__fault")
	}
	if f.bare {
		for _, extra := range []string{"expiresAt", "grantedScopes", "tokenType", "connectionState", "connectionId"} {
			delete(out, extra)
		}
	}
	w.Header().Set("X-Amzn-RequestId", "req-7")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out)
}

// Do makes the fake an HTTP client of the AWS SDK, for tests in a synctest bubble, where no network is.
func (f *fake) Do(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	f.ServeHTTP(rec, r)
	return rec.Result(), nil
}

// client returns a client of f over loopback HTTP, as an agent in development has it.
func (f *fake) client(t *testing.T, change ...func(*tabard.Config)) *tabard.Client {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	conf := awsConfig()
	return newClient(t, tabard.Config{AWS: &conf, Endpoint: srv.URL}, change...)
}

// direct returns a client of f without a network.
func (f *fake) direct(t *testing.T, change ...func(*tabard.Config)) *tabard.Client {
	t.Helper()
	conf := awsConfig()
	conf.HTTPClient = f
	return newClient(t, tabard.Config{AWS: &conf, Endpoint: "http://127.0.0.1:1"}, change...)
}

func newClient(t *testing.T, cfg tabard.Config, change ...func(*tabard.Config)) *tabard.Client {
	t.Helper()
	cfg.Workload, cfg.ReturnURL, cfg.PollInterval = "calendar-agent", "http://localhost:9090/connected", time.Millisecond
	for _, c := range change {
		c(&cfg)
	}
	client, err := tabard.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func awsConfig() aws.Config {
	return aws.Config{Region: "us-east-1", RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "secret-canary", "")}
}

func calendarNeed() tabard.OAuth2 {
	return tabard.OAuth2{Provider: "google", Scopes: []string{"events"}}
}

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
