package tabard_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go/logging"

	"github.com/tabard-id/tabard"
)

func TestMiddlewareTakesTheIdentity(t *testing.T) {
	for _, tc := range []struct {
		name   string
		header http.Header
		wat    string // what the service sees; empty: no identity
	}{
		{"user", http.Header{"Authorization": {"Bearer alice.b.c"}}, "wat-1-alice.b.c<nil>"},
		{"scheme in lower case", http.Header{"Authorization": {"bearer  alice.b.c"}}, "wat-1-alice.b.c<nil>"},
		{"runtime", http.Header{"Workloadaccesstoken": {"wat-r"}, "Authorization": {"Bearer alice.b.c"}}, "wat-r"},
		{"agent to agent", http.Header{"Workloadaccesstoken": {"wat-r"}, "X-Amz-Bedrock-Agentcore-Identity-Wat": {"wat-a"}}, "wat-a"},
		{"signed by AWS", http.Header{"Authorization": {"AWS4-HMAC-SHA256 Credential=x"}}, ""},
		{"empty bearer", http.Header{"Authorization": {"Bearer "}}, ""},
		{"none", http.Header{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			c := f.client(t)
			var err error
			h := c.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				done := make(chan struct{})
				go func() { // the identity goes with the context into any goroutine
					defer close(done)
					_, err = c.Token(r.Context(), calendarNeed())
				}()
				<-done
			}))
			r := httptest.NewRequest("POST", "/invocations", nil)
			r.Header, r.RemoteAddr = tc.header, "127.0.0.1:40000"
			r.Header.Set("OAuth2CallbackUrl", "https://app/from-header")
			h.ServeHTTP(httptest.NewRecorder(), r)
			if tc.wat == "" {
				if !errors.Is(err, tabard.ErrNoIdentity) {
					t.Errorf("got %v, want ErrNoIdentity", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			in := f.seen(opToken)[0]
			if in["workloadIdentityToken"] != tc.wat || in["resourceOauth2ReturnUrl"] != "https://app/from-header" {
				t.Errorf("got %v, want %q and the header's return URL", in, tc.wat)
			}
		})
	}
}

// M07: whoever reaches an agent from elsewhere, and has found another agent's token, is not served with it.
func TestM07_MiddlewareTakesTokensFromPeersItKnows(t *testing.T) {
	verified := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}
	vouched := func(r *http.Request) bool { return r.Header.Get("X-Mesh") == "planner" }
	handed, given := http.CanonicalHeaderKey(tabard.HeaderWAT), http.CanonicalHeaderKey(tabard.HeaderWorkloadAccessToken)
	wat, runtime := http.Header{handed: {"wat1.x"}}, http.Header{given: {"wat1.x"}}
	for what, c := range map[string]struct {
		header http.Header
		from   string
		tls    *tls.ConnectionState
		trusts func(*http.Request) bool
		want   int
	}{
		"loopback":                          {wat, "127.0.0.1:40000", nil, nil, 200},
		"loopback, another of its numbers":  {wat, "127.8.9.1:40000", nil, nil, 200},
		"loopback, IPv6":                    {wat, "[::1]:40000", nil, nil, 200},
		"loopback, IPv4 in IPv6":            {wat, "[::ffff:127.0.0.1]:40000", nil, nil, 200},
		"from elsewhere":                    {wat, "10.1.2.3:40000", nil, nil, 403},
		"from elsewhere, IPv6":              {wat, "[fd00::1]:40000", nil, nil, 403},
		"from elsewhere, that of a runtime": {runtime, "10.1.2.3:40000", nil, nil, 403},
		"of unknown origin":                 {wat, "@", nil, nil, 403},
		"TLS without a client certificate":  {wat, "10.1.2.3:40000", &tls.ConnectionState{}, nil, 403},
		"a certificate that nobody judged":  {wat, "10.1.2.3:40000", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}, nil, 403},
		"a verified client certificate":     {wat, "10.1.2.3:40000", verified, nil, 200},
		"vouched for":                       {http.Header{handed: {"wat1.x"}, "X-Mesh": {"planner"}}, "10.1.2.3:40000", nil, vouched, 200},
		"not vouched for":                   {runtime, "10.1.2.3:40000", nil, vouched, 403},
		"a second value":                    {http.Header{handed: {"", "wat1.x"}}, "10.1.2.3:40000", nil, nil, 403},
		"a user's own token":                {http.Header{"Authorization": {"Bearer a.b.c"}}, "10.1.2.3:40000", nil, nil, 200},
		"beside a user's own token":         {http.Header{"Authorization": {"Bearer a.b.c"}, handed: {"wat1.x"}}, "10.1.2.3:40000", nil, nil, 403},
	} {
		client, err := tabard.New(t.Context(), tabard.Config{Workload: "booker", AWS: &aws.Config{Region: "us-east-1"}, TrustsPeer: c.trusts})
		if err != nil {
			t.Fatal(err)
		}
		served := false
		r := httptest.NewRequest("POST", "/invocations", nil)
		r.Header, r.RemoteAddr, r.TLS = c.header.Clone(), c.from, c.tls
		w := httptest.NewRecorder()
		client.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true })).ServeHTTP(w, r)
		if w.Code != c.want || served != (c.want == 200) {
			t.Errorf("%s: answered %d, served %t, want %d", what, w.Code, served, c.want)
		}
		if says := w.Body.String(); c.want == 403 && (!strings.Contains(says, "only from an authenticated peer or on loopback") || strings.Contains(says, "wat1.x")) {
			t.Errorf("%s: it says %q", what, says)
		}
	}
}

// M07: an address that middleware took from a header of the client's makes nobody a neighbour.
func TestM07_MiddlewareBelievesNoWrittenAddress(t *testing.T) {
	client, err := tabard.New(t.Context(), tabard.Config{Workload: "booker", AWS: &aws.Config{Region: "us-east-1"}})
	if err != nil {
		t.Fatal(err)
	}
	served := client.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	forwarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as many routers have it
		r.RemoteAddr = r.Header.Get("X-Forwarded-For")
		served.ServeHTTP(w, r)
	})
	for at, want := range map[net.Addr]int{
		&net.TCPAddr{IP: net.ParseIP("10.1.2.4"), Port: 8080}:  403,
		&net.TCPAddr{IP: net.ParseIP("fd00::4"), Port: 8080}:   403,
		&net.UnixAddr{Name: "/run/agent.sock", Net: "unix"}:    403,
		&net.TCPAddr{IP: net.ParseIP("127.0.0.1"), Port: 8080}: 200,
		&net.TCPAddr{IP: net.ParseIP("::1"), Port: 8080}:       200,
	} {
		r := httptest.NewRequest("POST", "/invocations", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, at))
		r.Header.Set(tabard.HeaderWAT, "wat1.x")
		r.Header.Set("X-Forwarded-For", "127.0.0.1:40000")
		w := httptest.NewRecorder()
		if forwarded.ServeHTTP(w, r); w.Code != want {
			t.Errorf("at %s: answered %d, want %d", at, w.Code, want)
		}
	}
}

func TestCarryOutlivesTheRequest(t *testing.T) {
	f := newFake()
	c := f.client(t)
	type other struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), other{}, 1))
	request := tabard.WithReturnURL(tabard.WithUserToken(ctx, "alice.b.c"), "https://app/own")
	cancel()
	if _, err := c.Token(request, calendarNeed()); !errors.Is(err, context.Canceled) {
		t.Errorf("ended request: %v, want context.Canceled", err)
	}
	job := tabard.Carry(t.Context(), request)
	if job.Value(other{}) != nil {
		t.Error("Carry took a value that is not ours")
	}
	if _, err := c.Token(job, calendarNeed()); err != nil {
		t.Errorf("job: %v", err)
	}
	if got := f.seen(opToken)[0]["resourceOauth2ReturnUrl"]; got != "https://app/own" {
		t.Errorf("return URL %v", got)
	}
	if got := tabard.Carry(job, context.Background()); got != job {
		t.Error("Carry from a context without identity changed the other")
	}
}

func TestReturnURLPrecedence(t *testing.T) {
	f := newFake()
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	own := calendarNeed()
	own.ReturnURL = "https://app/declared"
	for i, tc := range []struct {
		ctx  context.Context
		need tabard.OAuth2
		want string
	}{
		{ctx, calendarNeed(), "http://localhost:9090/connected"},
		{tabard.WithReturnURL(ctx, "https://app/ctx"), calendarNeed(), "https://app/ctx"},
		{tabard.WithReturnURL(ctx, "https://app/ctx"), own, "https://app/declared"},
	} {
		if _, err := c.Token(tc.ctx, tc.need); err != nil {
			t.Fatal(err)
		}
		if got := f.seen(opToken)[i]["resourceOauth2ReturnUrl"]; got != tc.want {
			t.Errorf("got %v, want %s", got, tc.want)
		}
	}
}

// TestG01_NoCredentialIsPrinted prints everything that holds a credential, in every way that Go has, and also runs a
// client whose AWS configuration asks for the logging of bodies.
func TestG01_NoCredentialIsPrinted(t *testing.T) {
	const jwt, wat, user = "jwt-canary.b.c", "wat-canary", "user-canary"
	f := newFake()
	f.on(opToken, func(int, object) (int, object) { return granted("provider-canary") })
	f.on(opJWT, func(int, object) (int, object) { return 200, object{"workloadAccessToken": wat} })
	var log lines
	c := f.client(t, func(cfg *tabard.Config) {
		cfg.AWS.ClientLogMode = aws.LogRequestWithBody | aws.LogResponseWithBody | aws.LogRequest | aws.LogResponse
		cfg.AWS.Logger = logging.NewStandardLogger(&log)
	})
	ctx := tabard.WithCustomState(tabard.WithUserToken(t.Context(), jwt), "state-canary")
	tok, err := c.Token(ctx, calendarNeed())
	if err != nil {
		t.Fatal(err)
	}
	key, err := c.APIKey(ctx, "weather")
	if err != nil {
		t.Fatal(err)
	}
	f.on(opToken, func(int, object) (int, object) {
		return 200, object{"authorizationUrl": "http://x/url-canary", "sessionUri": session}
	})
	_, required := c.Token(ctx, calendarNeed())
	source := c.TokenSource(ctx, calendarNeed())
	holder := struct {
		Tok    tabard.Token
		Key    tabard.APIKey
		hidden tabard.APIKey
		ctx    context.Context
	}{*tok, key, key, ctx}
	slogger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for i, v := range []any{tok, *tok, key, &key, c, ctx, tabard.WithUserID(ctx, user), tabard.WithWorkloadAccessToken(ctx, wat),
		tabard.UserToken(jwt), tabard.UserID(user), required, consentOf(required), source, holder, &holder, c.HTTPClient(ctx, calendarNeed()),
		c.Transport(calendarNeed(), nil), map[string]any{"tok": tok}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&log, "\n%d "+verb+"\n", i, v)
		}
		if _, isContext := v.(context.Context); !isContext {
			slogger.Info("value", "v", v)
			if raw, err := json.Marshal(v); err == nil && !carriesConsent(v) { // a consent is made to be sent to the user
				_, _ = log.Write(raw)
			}
		}
	}
	if !strings.Contains(log.String(), "POST /identities/oauth2/token") {
		t.Error("the AWS client logged nothing: the test shows nothing")
	}
	for _, line := range strings.Split(log.String(), "\n") {
		if strings.Contains(line, "canary") {
			t.Errorf("a credential is printed: %.300s", line)
		}
	}
	if strings.Contains(log.String(), fmt.Sprintf("%x", "canary")) {
		t.Error("a credential is printed in hexadecimal")
	}
	for _, v := range []any{tok, *tok, key, c} {
		if raw, err := json.Marshal(v); err == nil {
			t.Errorf("%T marshals as %s", v, raw)
		}
	}
}

func carriesConsent(v any) bool {
	return strings.Contains(fmt.Sprintf("%T", v), "Consent")
}

func consentOf(err error) any {
	e, _ := errors.AsType[*tabard.ConsentRequiredError](err)
	return e.Consent
}

// TestG01_ErrorsHoldNoCredential takes answers that cannot be read and sees that no piece of them is kept.
func TestG01_ErrorsHoldNoCredential(t *testing.T) {
	broken := roundTrip(func(r *http.Request) (*http.Response, error) {
		body := `{"accessToken":"provider-canary","workloadAccessToken":{"canary":1}, "sessionUri":`
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})
	c := newFake().direct(t, func(cfg *tabard.Config) { cfg.AWS.HTTPClient = &http.Client{Transport: broken} })
	_, err := c.Token(tabard.WithWorkloadAccessToken(t.Context(), "wat-canary"), calendarNeed())
	if !errors.Is(err, tabard.ErrInternal) {
		t.Fatalf("got %v, want ErrInternal", err)
	}
	// The AWS client's own error carries a snapshot of the answer, for whoever unwraps that far.
	if cause := errors.Unwrap(err); cause != nil {
		t.Errorf("the error keeps its cause %#v", cause)
	}
	if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, "canary") {
		t.Errorf("the error holds a piece of the answer: %s", text)
	}
}

// TestG03_ErrorsAreOneLine: what the service says cannot forge a line of a log, or colour a terminal.
func TestG03_ErrorsAreOneLine(t *testing.T) {
	f := newFake()
	f.on(opToken, func(int, object) (int, object) {
		return fault(400, "ValidationException", "no\r\nlevel=info msg=fine \x1b[31m"+strings.Repeat("x", 5000))
	})
	_, err := f.client(t).Token(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
	if err == nil || strings.ContainsAny(err.Error(), "\r\n\x1b") || len(err.Error()) > 1500 {
		t.Errorf("got %q", err)
	}
}

func TestErrorsAreTyped(t *testing.T) {
	for _, tc := range []struct {
		status    int
		exception string
		want      tabard.Code
	}{
		{400, "ValidationException", tabard.ErrInvalid},
		{413, "RequestEntityTooLargeException", tabard.ErrInvalid},
		{401, "UnauthorizedException", tabard.ErrUnauthenticated},
		{403, "AccessDeniedException", tabard.ErrDenied},
		{403, "InvalidSignatureException", tabard.ErrCredentials},
		{403, "UnrecognizedClientException", tabard.ErrCredentials},
		{403, "ExpiredTokenException", tabard.ErrCredentials},
		{403, "MissingAuthenticationTokenException", tabard.ErrCredentials},
		{404, "ResourceNotFoundException", tabard.ErrNotFound},
		{409, "ConflictException", tabard.ErrConflict},
		{402, "ServiceQuotaExceededException", tabard.ErrLimit},
		{429, "ThrottlingException", tabard.ErrThrottled},
		{500, "InternalServerException", tabard.ErrInternal},
		{503, "ServiceUnavailableException", tabard.ErrUnavailable},
		{418, "TeapotException", tabard.ErrInvalid},
		{401, "Other", tabard.ErrUnauthenticated},
		{403, "Other", tabard.ErrDenied},
		{404, "Other", tabard.ErrNotFound},
		{409, "Other", tabard.ErrConflict},
		{429, "Other", tabard.ErrThrottled},
		{502, "Other", tabard.ErrUnavailable},
		{501, "Other", tabard.ErrInternal},
	} {
		f := newFake()
		f.on(opToken, func(int, object) (int, object) { return fault(tc.status, tc.exception, "the reason") })
		_, err := f.client(t).Token(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
		e, ok := errors.AsType[*tabard.Error](err)
		if !ok || !errors.Is(err, tc.want) {
			t.Errorf("%d %s: got %v, want %v", tc.status, tc.exception, err, tc.want)
			continue
		}
		if e.HTTPStatus != tc.status || e.Exception != tc.exception || e.Message != "the reason" || e.RequestID != "req-7" || e.Op != "GetResourceOauth2Token" {
			t.Errorf("%d %s: %#v", tc.status, tc.exception, e)
		}
	}
}

func TestErrorsWithoutAnAnswer(t *testing.T) {
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	gone := httptest.NewServer(nil)
	gone.Close()
	conf := awsConfig()
	c := newClient(t, tabard.Config{AWS: &conf, Endpoint: gone.URL})
	if _, err := c.Token(ctx, calendarNeed()); !errors.Is(err, tabard.ErrUnavailable) {
		t.Errorf("nobody listens: %v, want ErrUnavailable", err)
	}
	late, cancel := context.WithTimeout(ctx, -time.Second)
	defer cancel()
	if _, err := c.Token(late, calendarNeed()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended context: %v, want context.DeadlineExceeded", err)
	}
	conf.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("the profile is empty")
	})
	c = newClient(t, tabard.Config{AWS: &conf, Endpoint: gone.URL})
	if _, err := c.Token(ctx, calendarNeed()); !errors.Is(err, tabard.ErrCredentials) || !strings.Contains(err.Error(), "the profile is empty") {
		t.Errorf("no credentials: %v, want ErrCredentials and why", err)
	}
	f := newFake()
	f.on(opToken, func(int, object) (int, object) { return 200, object{} })
	if _, err := f.client(t).Token(ctx, calendarNeed()); !errors.Is(err, tabard.ErrInternal) {
		t.Errorf("empty answer: %v, want ErrInternal", err)
	}
}
