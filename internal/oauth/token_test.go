package oauth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	redirectURI = "https://tabard.example/identities/oauth2/callback/1"
	verifier    = "verifier-0123456789-0123456789-0123456789-01"
)

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// consent walks the authorization request and returns the code.
func consent(t *testing.T, c *oauth.Client, s *oauthtest.Server, e broker.Endpoints, p broker.Provider) string {
	t.Helper()
	address, err := c.AuthorizationURL(e, p, broker.Vendor{}, broker.AuthorizationRequest{
		RedirectURI: redirectURI, Scopes: []string{"openid", "calendar"}, State: secret.New("state"), Verifier: secret.New(verifier)})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.Approve(address)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Get("code")
}

func codeGrant(code string) broker.CodeGrant {
	return broker.CodeGrant{Code: secret.New(code), Verifier: secret.New(verifier), RedirectURI: redirectURI}
}

func TestRedeemRefreshAndReuse(t *testing.T) {
	for _, method := range []broker.AuthMethod{"", broker.AuthBasic, broker.AuthPost} {
		server := oauthtest.New(t)
		c := newClient(t, oauth.Config{Dev: true})
		p := provider(server.URL)
		p.AuthMethod = method
		e, err := c.Endpoints(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		code := consent(t, c, server, e, p)
		first, err := c.Redeem(t.Context(), e, p, broker.Vendor{}, clientSecret(), codeGrant(code))
		if err != nil {
			t.Fatalf("%q: redeem: %v", method, err)
		}
		if first.AccessToken.IsZero() || first.RefreshToken.IsZero() || first.TokenType != "Bearer" || first.ExpiresIn != time.Hour ||
			!cmp.Equal(first.Scopes, []string{"openid", "calendar"}) {
			t.Errorf("%q: got %+v", method, first)
		}
		second, err := c.Refresh(t.Context(), e, p, broker.Vendor{}, clientSecret(), first.RefreshToken, broker.TokenRequest{})
		if err != nil || second.RefreshToken.Equal(first.RefreshToken) {
			t.Errorf("%q: refresh: got %+v, %v, want another refresh token", method, second, err)
		}
		_, err = c.Refresh(t.Context(), e, p, broker.Vendor{}, clientSecret(), first.RefreshToken, broker.TokenRequest{})
		if e := upstream(t, err); e.Kind != broker.Rejected || e.Code != "invalid_grant" || e.Status != 400 || e.Description != "refused: invalid_grant" {
			t.Errorf("%q: reuse: got %+v, want Rejected invalid_grant", method, e)
		}
		_, err = c.Redeem(t.Context(), e, p, broker.Vendor{}, secret.New("wrong-secret"), codeGrant("other"))
		if e := upstream(t, err); e.Kind != broker.Rejected || e.Code != "invalid_client" {
			t.Errorf("%q: wrong secret: got %+v, want Rejected invalid_client", method, e)
		}
	}
}

func TestRFC6749_2_3_1_ClientAuthentication(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true, UserAgent: "agent/1"})
	p := broker.Provider{Account: account, ClientID: "id:with colon", TokenEndpoint: server.URL + oauthtest.Token}
	key := secret.New("s+c/r%t é:")
	for _, row := range []struct {
		method             broker.AuthMethod
		header, id, secret string
	}{
		{broker.AuthBasic, "Basic " + base64.StdEncoding.EncodeToString([]byte("id%3Awith+colon:s%2Bc%2Fr%25t+%C3%A9%3A")), "", ""},
		{broker.AuthPost, "", "id:with colon", "s+c/r%t é:"},
		{broker.AuthNone, "", "id:with colon", ""},
	} {
		p.AuthMethod = row.method
		_, _ = c.ClientCredentials(t.Context(), broker.Endpoints{Token: p.TokenEndpoint}, p, broker.Vendor{}, key, broker.TokenRequest{})
		requests := server.Requests()
		got := requests[len(requests)-1]
		if got.Authorization != row.header || got.Form.Get("client_id") != row.id || got.Form.Get("client_secret") != row.secret {
			t.Errorf("%s: got header %q and form %v", row.method, got.Authorization, got.Form)
		}
		if got.Header.Get("Accept") != "application/json" || got.Header.Get("User-Agent") != "agent/1" || got.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
			t.Errorf("%s: got header %v", row.method, got.Header)
		}
	}
}

func TestTokenForms(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	e := broker.Endpoints{Token: server.URL + oauthtest.Token}
	p := provider(server.URL)
	r := broker.TokenRequest{Scopes: []string{"a", "b"}, Resources: []string{"https://r1", "https://r2"}, Audiences: []string{"x", "y"},
		Custom: map[string]secret.Text{"tenant": secret.New("7"), "Grant_Type": secret.New("password"), "scope": secret.New("all"),
			"audience": secret.New("z"), "client_id": secret.New("evil"), "resource": secret.New("evil")}}
	_, _ = c.ClientCredentials(t.Context(), e, p, broker.Vendor{ScopeSeparator: ","}, clientSecret(), r)
	_, _ = c.Refresh(t.Context(), e, p, broker.Vendor{}, clientSecret(), secret.New("rt"), r)
	_, _ = c.Redeem(t.Context(), e, p, broker.Vendor{}, clientSecret(), broker.CodeGrant{Code: secret.New("c"), Verifier: secret.New("v"), RedirectURI: "u", Resources: r.Resources})
	_, _ = c.Redeem(t.Context(), e, p, broker.Vendor{NoPKCE: true}, clientSecret(), broker.CodeGrant{Code: secret.New("c"), Verifier: secret.New("v"), RedirectURI: "u"})
	var got []url.Values
	for _, request := range server.Requests() {
		got = append(got, request.Form)
	}
	want := []url.Values{
		{"grant_type": {"client_credentials"}, "scope": {"a,b"}, "resource": r.Resources, "audience": r.Audiences, "tenant": {"7"}},
		{"grant_type": {"refresh_token"}, "refresh_token": {"rt"}, "scope": {"a b"}, "resource": r.Resources, "audience": r.Audiences, "tenant": {"7"}},
		{"grant_type": {"authorization_code"}, "code": {"c"}, "code_verifier": {"v"}, "redirect_uri": {"u"}, "resource": r.Resources},
		{"grant_type": {"authorization_code"}, "code": {"c"}, "redirect_uri": {"u"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestAGrantIsSentOnce has every way in which an HTTP client could be tempted to send a request again.
func TestAGrantIsSentOnce(t *testing.T) {
	release := make(chan struct{})
	for _, row := range []struct {
		name  string
		fault oauthtest.Fault
		kind  broker.UpstreamKind
	}{
		{"500", oauthtest.Status(500, ""), broker.Busy},
		{"503", oauthtest.Status(503, `{"error":"temporarily_unavailable"}`), broker.Busy},
		{"429", oauthtest.Status(429, ""), broker.Busy},
		{"408", oauthtest.Status(408, ""), broker.Busy},
		{"425", oauthtest.Status(425, ""), broker.Busy},
		{"401", oauthtest.Status(401, ""), broker.Rejected},
		{"reset after it was sent", oauthtest.Drop(), broker.Unknown},
		{"half an answer", oauthtest.DropHalfway(), broker.Unknown},
		{"garbage", oauthtest.Garbage("SSH-2.0-OpenSSH at-secret\r\n"), broker.Unknown},
		{"redirect", oauthtest.Redirect(307, "/token"), broker.Rejected},
		{"slow beyond the deadline", oauthtest.Slow(release), broker.Unknown},
		{"oversized", oauthtest.Oversized(64 << 10), broker.Unknown},
		{"gzip bomb", oauthtest.Bomb(1 << 25), broker.Unknown},
		{"long header", oauthtest.LongHeader(1 << 20), broker.Unknown},
		{"empty", oauthtest.Answer(""), broker.Unknown},
		{"HTML", oauthtest.Answer("<html>"), broker.Unknown},
	} {
		server := oauthtest.New(t)
		c := newClient(t, oauth.Config{Dev: true})
		if row.kind == broker.Unknown && strings.HasPrefix(row.name, "slow") {
			c.TestOnlyTimeout(50 * time.Millisecond)
		}
		e, p := broker.Endpoints{Token: server.URL + oauthtest.Token}, provider(server.URL)
		for _, grant := range []string{"code", "refresh"} {
			server.Queue(oauthtest.Token, row.fault)
			var err error
			if grant == "code" {
				_, err = c.Redeem(t.Context(), e, p, broker.Vendor{}, clientSecret(), codeGrant("grant-"+grant))
			} else {
				_, err = c.Refresh(t.Context(), e, p, broker.Vendor{}, clientSecret(), secret.New("grant-"+grant), broker.TokenRequest{})
			}
			if got := upstream(t, err); got.Kind != row.kind {
				t.Errorf("%s, %s: got %+v, want %s", row.name, grant, got, row.kind)
			}
			if strings.Contains(err.Error(), "grant-") || strings.Contains(err.Error(), oauthtest.ClientSecret) || strings.Contains(err.Error(), "at-secret") {
				t.Errorf("%s, %s: the error %q reveals what was sent or answered", row.name, grant, err)
			}
			if n := server.Sent("grant-" + grant); n != 1 {
				t.Errorf("%s, %s: sent %d times, want 1", row.name, grant, n)
			}
		}
	}
	close(release)
}

func TestAGrantIsSentOnceAfterAConnectionWentStale(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{Dev: true})
	p := provider(server.URL)
	e, err := c.Endpoints(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	refresh := secret.Text{}
	for i := range 5 {
		server.CloseIdle() // what was kept alive is dead now, and the client may not know yet
		var grant broker.Grant
		sent := ""
		if i == 0 {
			sent = consent(t, c, server, e, p)
			grant, err = c.Redeem(t.Context(), e, p, broker.Vendor{}, clientSecret(), codeGrant(sent))
		} else {
			sent = refresh.Expose()
			grant, err = c.Refresh(t.Context(), e, p, broker.Vendor{}, clientSecret(), refresh, broker.TokenRequest{})
		}
		if err != nil || server.Sent(sent) != 1 {
			t.Fatalf("request %d: got %v, sent %d times, want success and 1", i, err, server.Sent(sent))
		}
		refresh = grant.RefreshToken
	}
}

func TestNothingSentIsUnsent(t *testing.T) {
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	_ = closed.Close()
	plain := oauthtest.New(t) // talks HTTP where TLS is expected
	unknown := newClient(t, oauth.Config{Dev: true})
	unknown.TestOnlyResolver(names(t, nil))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, row := range []struct {
		name string
		ctx  context.Context
		base string
	}{
		{"closed port", t.Context(), "http://" + address},
		{"no such name", t.Context(), "https://nowhere.example"},
		{"no TLS", t.Context(), "https" + strings.TrimPrefix(plain.URL, "http")},
		{"canceled", canceled, plain.URL},
	} {
		_, err := unknown.Refresh(row.ctx, broker.Endpoints{Token: row.base + oauthtest.Token}, provider(row.base), broker.Vendor{}, clientSecret(), secret.New("refresh-1"), broker.TokenRequest{})
		if e := upstream(t, err); e.Kind != broker.Unsent {
			t.Errorf("%s: got %+v, want Unsent", row.name, e)
		}
	}
	if n := plain.Hits(oauthtest.Token); n != 0 {
		t.Errorf("the server got %d requests", n)
	}
}

// TestASealedConnectionWritesNothing is why Unsent can be believed: net/http writes in a goroutine of its own, which
// may get its turn after the request has failed.
func TestASealedConnectionWritesNothing(t *testing.T) {
	here, there := net.Pipe()
	conn, seal := oauth.Metered(here)
	go func() { _, _ = conn.Write([]byte("abc")) }()
	b := make([]byte, 8)
	if n, err := there.Read(b); err != nil || string(b[:n]) != "abc" {
		t.Fatalf("got %q, %v", b[:n], err)
	}
	if n := seal(); n != 3 {
		t.Errorf("got %d bytes written, want 3", n)
	}
	if _, err := conn.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to a sealed connection: got %v, want net.ErrClosed", err)
	}
	_ = here.Close()
	if n, err := there.Read(b); n != 0 || err == nil {
		t.Errorf("got %q after the seal", b[:n])
	}
}

func TestTokenEndpointIsCheckedAgain(t *testing.T) {
	server := oauthtest.New(t)
	c := newClient(t, oauth.Config{}) // data from --dev, used without it
	_, err := c.ClientCredentials(t.Context(), broker.Endpoints{Token: server.URL + oauthtest.Token}, provider(server.URL), broker.Vendor{}, clientSecret(), broker.TokenRequest{})
	if !errors.Is(err, fault.Invalid) || server.Hits(oauthtest.Token) != 0 {
		t.Errorf("got %v and %d requests, want Invalid and none", err, server.Hits(oauthtest.Token))
	}
}

func TestE11_AnEndlessAnswerIsCut(t *testing.T) {
	server := oauthtest.New(t)
	sent := make(chan int, 1)
	server.Queue(oauthtest.Token, oauthtest.Endless(sent))
	e := upstream(t, m2m(t, newClient(t, oauth.Config{Dev: true}), server.URL))
	if e.Kind != broker.Unknown || !strings.Contains(e.Err.Error(), "64 KiB") {
		t.Errorf("got %+v, want Unknown because of its size", e)
	}
	checkSent(t, <-sent)
}

func TestE15_Answers(t *testing.T) {
	const ok = `"access_token":"at","token_type":"Bearer"`
	for _, row := range []struct {
		body string
		want broker.Grant // of Scopes and ExpiresIn only
	}{
		{`{` + ok + `}`, broker.Grant{}},
		{` {` + ok + `,"expires_in":3600,"scope":"a b"} ` + "\n", broker.Grant{ExpiresIn: time.Hour, Scopes: []string{"a", "b"}}},
		{`{` + ok + `,"expires_in":"3600"}`, broker.Grant{ExpiresIn: time.Hour}},
		{`{` + ok + `,"expires_in":3599.9}`, broker.Grant{ExpiresIn: 3599 * time.Second}},
		{`{` + ok + `,"expires_in":1e3}`, broker.Grant{ExpiresIn: 1000 * time.Second}},
		{`{` + ok + `,"expires_in":0}`, broker.Grant{}},
		{`{` + ok + `,"expires_in":-5}`, broker.Grant{}},
		{`{` + ok + `,"expires_in":null}`, broker.Grant{}},
		{`{` + ok + `,"expires_in":"soon"}`, broker.Grant{}},
		{`{` + ok + `,"expires_in":"NaN"}`, broker.Grant{}},
		{`{` + ok + `,"expires_in":{"a":1}}`, broker.Grant{}},
		{`{` + ok + `,"expires_in":true}`, broker.Grant{}},
		{`{` + ok + `,"expires_in":99999999999999999999}`, broker.Grant{ExpiresIn: 10 * 365 * 24 * time.Hour}},
		{`{` + ok + `,"expires_in":1e999}`, broker.Grant{ExpiresIn: 10 * 365 * 24 * time.Hour}},
		{`{` + ok + `,"expires_in":"Infinity"}`, broker.Grant{ExpiresIn: 10 * 365 * 24 * time.Hour}},
		{`{` + ok + `,"scope":["a","b c"]}`, broker.Grant{Scopes: []string{"a", "b c"}}},
		{`{` + ok + `,"scope":"a,b  c"}`, broker.Grant{Scopes: []string{"a,b", "c"}}},
		{`{` + ok + `,"scope":""}`, broker.Grant{Scopes: []string{}}},
		{`{` + ok + `,"scope":null}`, broker.Grant{}},
		{`{` + ok + `,"scope":7}`, broker.Grant{Scopes: []string{}}},
		{`{` + ok + `,"error":null,"Access_Token":"other","nested":{"error":"x","access_token":"y"}}`, broker.Grant{}},
		{`{` + ok + `,"refresh_token":null,"error":""}`, broker.Grant{}},
		{`{"access_token":"at","token_type":"bEARER"}`, broker.Grant{}},
		{`{"access_token":"at"}`, broker.Grant{}},
	} {
		got, err := oauth.Classify(200, []byte(row.body), broker.Vendor{})
		if err != nil || got.AccessToken.Expose() != "at" || got.TokenType != "Bearer" || !got.RefreshToken.IsZero() {
			t.Errorf("%s: got %+v, %v", row.body, got, err)
		}
		if got.ExpiresIn != row.want.ExpiresIn || !cmp.Equal(got.Scopes, row.want.Scopes) {
			t.Errorf("%s: got %v, %#v, want %v, %#v", row.body, got.ExpiresIn, got.Scopes, row.want.ExpiresIn, row.want.Scopes)
		}
	}
	got, err := oauth.Classify(200, []byte(`{`+ok+`,"scope":"a,b c"}`), broker.Vendor{ScopeSeparator: ","})
	if want := []string{"a", "b", "c"}; err != nil || !cmp.Equal(got.Scopes, want) {
		t.Errorf("scopes with commas: got %v, %v, want %v", got.Scopes, err, want)
	}
}

func TestE15_E16_UnusableAnswers(t *testing.T) {
	for _, body := range []string{
		"", "{", "[]", "null", `"at"`, "<html>ok</html>", "access_token=at&token_type=bearer", "{}", `{"token_type":"Bearer"}`,
		`{"access_token":"","token_type":"Bearer"}`, `{"access_token":null,"token_type":"Bearer"}`, `{"access_token":7,"token_type":"Bearer"}`,
		`{"access_token":"a","access_token":"b","token_type":"Bearer"}`, `{"access_token":"a","access\u005ftoken":"b"}`,
		`{"access_token":"a","token_type":"Bearer"}{}`, `{"access_token":"a","token_type":"Bearer"}}`, `{"access_token":"a","token_type":"Bearer",}`,
		`{"access_token":"a\r\nX: y","token_type":"Bearer"}`, `{"access_token":"a b","token_type":"Bearer"}`, `{"access_token":"é","token_type":"Bearer"}`,
		`{"access_token":"a","refresh_token":["r"]}`, `{"access_token":"a","refresh_token":"r\n"}`,
		`{"access_token":"a","token_type":"mac"}`, `{"access_token":"a","token_type":"DPoP"}`, `{"access_token":"a","token_type":"N_A"}`,
		`{"access_token":"a","token_type":["Bearer"]}`, `{"access_token":"a","token_type":"Bearer "}`, "{\"access_token\":\"a\xff\"}", "\ufeff{}",
		strings.Repeat(`{"a":`, 30000),
	} {
		_, err := oauth.Classify(200, []byte(body), broker.Vendor{})
		if e := upstream(t, err); e.Kind != broker.Unknown || e.Err == nil || e.Code != "" {
			t.Errorf("%.80q: got %+v, want Unknown with a cause", body, e)
		}
	}
}

func TestErrorsOfProviders(t *testing.T) {
	long := strings.Repeat("long ", 100)
	for _, row := range []struct {
		status      int
		body        string
		kind        broker.UpstreamKind
		code        string
		description string
	}{
		{400, `{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`, broker.Rejected, "invalid_grant", "Token has been expired or revoked."},
		{401, `{"error":"invalid_client"}`, broker.Rejected, "invalid_client", ""},
		{200, `{"error":"bad_verification_code","error_description":"The code is incorrect."}`, broker.Rejected, "bad_verification_code", "The code is incorrect."},
		{200, `{"error":"x","access_token":"at","token_type":"Bearer"}`, broker.Rejected, "x", ""},
		{200, `{"error":{"message":"no"},"access_token":"at"}`, broker.Rejected, "", ""},
		{404, "<html>", broker.Rejected, "", ""},
		{403, "", broker.Rejected, "", ""},
		{302, "", broker.Rejected, "", ""},
		{503, `{"error":"temporarily_unavailable","error_description":"later"}`, broker.Busy, "temporarily_unavailable", "later"},
		{500, `{"error":"invalid_grant"`, broker.Busy, "", ""},
		{429, "slow down", broker.Busy, "", ""},
		{400, `{"error":"two words"}`, broker.Rejected, "", ""},
		{400, `{"error":"` + strings.Repeat("e", 65) + `"}`, broker.Rejected, "", ""},
		{400, `{"error":"x","error_description":7}`, broker.Rejected, "x", ""},
		{400, `{"error":"x","error_description":"a\nb\u0000c\u202ed \u001b[31m"}`, broker.Rejected, "x", "a b c d [31m"},
		{400, `{"error":"x","error_description":"see https://p.example/e?code=abc now"}`, broker.Rejected, "x", "see [link] now"},
		{400, `{"error":"x","error_description":"the code c0de-c0de is bad, and client-secret too"}`, broker.Rejected, "x", "the code [secret] is bad, and [secret] too"},
		{400, `{"error":"c0de-c0de"}`, broker.Rejected, "", ""},
		{400, `{"error":"x","error_description":"` + long + `"}`, broker.Rejected, "x", long[:256]},
	} {
		_, err := oauth.Classify(row.status, []byte(row.body), broker.Vendor{}, secret.New("c0de-c0de"), secret.New("client-secret"))
		e := upstream(t, err)
		got := fmt.Sprintf("%s %d %q %q", e.Kind, e.Status, e.Code, e.Description)
		if want := fmt.Sprintf("%s %d %q %q", row.kind, row.status, row.code, row.description); got != want {
			t.Errorf("%d %.60s:\n got %s\nwant %s", row.status, row.body, got, want)
		}
	}
}

// FuzzAnswer holds whatever a provider answers: no panic, and nothing but a well-formed grant or a bounded error.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`{"access_token":"a","token_type":"Bearer","expires_in":"7","scope":["a"],"refresh_token":"r"}`, `{"error":"x","error_description":"y"}`, `{"a":1,"a":2}`, "<html>", "{"} {
		f.Add(200, []byte(seed), ",")
		f.Add(400, []byte(seed), " ")
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, separator string) {
		g, err := oauth.Classify(status, body, broker.Vendor{ScopeSeparator: separator}, secret.New("sent-secret"))
		if err == nil {
			if status < 200 || status > 299 || g.AccessToken.IsZero() || g.TokenType != "Bearer" || g.ExpiresIn < 0 || g.ExpiresIn > 10*366*24*time.Hour ||
				strings.ContainsAny(g.AccessToken.Expose()+g.RefreshToken.Expose(), "\r\n \x00") {
				t.Errorf("status %d: the grant %+v is not well-formed", status, g)
			}
			return
		}
		e := upstream(t, err)
		if e.Kind == "" || e.Kind == broker.Unsent || len(e.Code) > 64 || len([]rune(e.Description)) > 256 || strings.ContainsAny(e.Code+e.Description, "\r\n\x00\x1b") ||
			strings.Contains(e.Error(), "sent-secret") {
			t.Errorf("status %d: the error %+v is not clean", status, e)
		}
	})
}
