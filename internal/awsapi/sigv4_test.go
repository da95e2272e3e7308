package awsapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	host       = "127.0.0.1:8180"
	testKey    = "TABARDTESTKEY000001"
	testSecret = "test-secret-key-0123456789"
	tagsPath   = "/tags/arn%3Aaws%3Abedrock-agentcore%3Aus-east-1%3A000000000000%3Atoken-vault%2Fdefault"
	tokenPath  = "/identities/oauth2/token"
)

func testNow() time.Time { return time.Date(2026, 11, 23, 10, 30, 0, 0, time.UTC) }

// keys is a store of one access key.
type keys struct {
	secret  string
	version int64
	opened  int
	err     error
}

func (k *keys) find(_ context.Context, id string) (identity.Credential, error) {
	if k.err != nil {
		return identity.Credential{}, k.err
	}
	if id != testKey {
		return identity.Credential{}, fault.New(fault.SignatureUnknown, "the access key id is not known here")
	}
	return identity.Credential{
		Caller: access.Caller{Name: "agent", AccessKey: id}, Version: k.version,
		Secret: func(context.Context) (secret.Text, error) { k.opened++; return secret.New(k.secret), nil },
	}, nil
}

func newVerifier(k *keys, now func() time.Time) *awsapi.Verifier {
	return awsapi.NewVerifier(awsapi.VerifierConfig{Region: "us-east-1", Find: k.find, Now: now})
}

func verifier() *awsapi.Verifier { return newVerifier(&keys{secret: testSecret}, testNow) }

// clientRequest is a request as a client makes it, not yet signed.
func clientRequest(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+host+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// sign signs as the AWS SDK for Go does.
func sign(t testing.TB, r *http.Request, body string) *http.Request {
	t.Helper()
	creds := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hashOf(body), "bedrock-agentcore", "us-east-1", testNow()); err != nil {
		t.Fatal(err)
	}
	return r
}

// received is the request as net/http gives it to a server: what was written, parsed.
func received(t testing.TB, r *http.Request) *http.Request {
	t.Helper()
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestVerifyAcceptsTheGoSDK(t *testing.T) {
	for _, tt := range []struct{ method, target, body string }{
		{"POST", tokenPath, `{"scopes":[]}`},
		{"POST", tokenPath, ""},
		{"GET", tagsPath, ""},
		{"GET", "/", ""},
		{"DELETE", tagsPath + "?tagKeys=l%20m&tagKeys=k", ""},
		{"DELETE", tagsPath + "?tagKeys=a-b&tagKeys=a%2Fb&tagKeys=k%2B&tagKeys=~&tagKeys=%C3%A9", ""},
		{"DELETE", tagsPath + "?tagKeys=x-amz-note", ""},
		{"POST", "/tabard/a%20b/~c+d", "x"},
	} {
		r := clientRequest(t, tt.method, tt.target, tt.body)
		r.Header.Set("Amz-Sdk-Request", "attempt=1;   max=3")
		r.Header.Add("X-Amz-Several", "a")
		r.Header.Add("X-Amz-Several", " b  c ")
		caller, err := verifier().Verify(received(t, sign(t, r, tt.body)), []byte(tt.body))
		if err != nil || caller.AccessKey != testKey {
			t.Errorf("%s %s: got %+v, %v", tt.method, tt.target, caller, err)
		}
	}
}

func TestVerifyAcceptsBotocore(t *testing.T) {
	b, err := os.ReadFile("testdata/botocore.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Method, Target, Body string
		Headers              map[string]string
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for _, v := range vectors {
		r := clientRequest(t, v.Method, v.Target, v.Body)
		for name, value := range v.Headers {
			r.Header.Set(name, value)
		}
		if _, err := verifier().Verify(received(t, r), []byte(v.Body)); err != nil {
			t.Errorf("%s %s: %v", v.Method, v.Target, err)
		}
	}
}

// manual is a signer whose every part a test can choose, independent of both implementations above.
type manual struct {
	key, secret, date, day, region, service string
	signed                                  []string
	bodyHash                                string
}

func byHand(body string) manual {
	return manual{key: testKey, secret: testSecret, date: "20261123T103000Z", day: "20261123", region: "us-east-1", service: "bedrock-agentcore",
		signed: []string{"content-type", "host", "x-amz-date"}, bodyHash: hashOf(body)}
}

func (m manual) sign(r *http.Request) *http.Request {
	r.Header.Set("X-Amz-Date", m.date)
	var headers strings.Builder
	for _, h := range m.signed {
		value := r.Header.Get(h)
		if h == "host" {
			value = r.Host
		}
		fmt.Fprintf(&headers, "%s:%s\n", h, value)
	}
	list := strings.Join(m.signed, ";")
	canonical := r.Method + "\n" + strings.ReplaceAll(r.URL.EscapedPath(), "%", "%25") + "\n" + r.URL.RawQuery + "\n" + headers.String() + "\n" + list + "\n" + m.bodyHash
	scope := m.day + "/" + m.region + "/" + m.service + "/aws4_request"
	mac := func(key []byte, s string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(s))
		return h.Sum(nil)
	}
	key := mac(mac(mac(mac([]byte("AWS4"+m.secret), m.day), m.region), m.service), "aws4_request")
	signature := mac(key, "AWS4-HMAC-SHA256\n"+m.date+"\n"+scope+"\n"+hashOf(canonical))
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x", m.key, scope, list, signature))
	return r
}

// wantFault fails the test unless err has the code and its public message contains text.
func wantFault(t *testing.T, name string, err error, code fault.Code, text string) {
	t.Helper()
	if p := fault.Public(err); err == nil || p.Code != code || !strings.Contains(p.Msg, text) {
		t.Errorf("%s: got %v, want %s with %q", name, err, code, text)
	} else if strings.Contains(p.Msg, testSecret) {
		t.Errorf("%s: the message has the secret", name)
	}
}

func TestJ01_EverySignedPartCounts(t *testing.T) {
	const body = `{"scopes":[]}`
	const target = tagsPath + "?tagKeys=a&tagKeys=b"
	for name, change := range map[string]func(*http.Request){
		"method":                   func(r *http.Request) { r.Method = "PUT" },
		"path":                     func(r *http.Request) { r.RequestURI = strings.Replace(r.RequestURI, "default", "defaulu", 1) },
		"path decoded":             func(r *http.Request) { r.RequestURI = strings.Replace(r.RequestURI, "%2F", "/", 1) },
		"path encoded differently": func(r *http.Request) { r.RequestURI = strings.Replace(r.RequestURI, "%2F", "%2f", 1) },
		"query value":              func(r *http.Request) { r.URL.RawQuery = "tagKeys=a&tagKeys=c" },
		"query shortened":          func(r *http.Request) { r.URL.RawQuery = "tagKeys=a" },
		"query extended":           func(r *http.Request) { r.URL.RawQuery += "&tagKeys=c" },
		"host":                     func(r *http.Request) { r.Host = "127.0.0.1:8181" },
		"date":                     func(r *http.Request) { r.Header.Set("X-Amz-Date", "20261123T103001Z") },
		"content type":             func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"content length":           func(r *http.Request) { r.Header.Set("Content-Length", "14") },
		"x-amz header":             func(r *http.Request) { r.Header.Set("X-Amz-User-Agent", "b") },
		"x-amz header appended":    func(r *http.Request) { r.Header.Add("X-Amz-User-Agent", "b") },
		"signature": func(r *http.Request) {
			h := r.Header.Get("Authorization")
			last := "0"
			if strings.HasSuffix(h, "0") {
				last = "1"
			}
			r.Header.Set("Authorization", h[:len(h)-1]+last)
		},
		"fewer signed headers": func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "content-length;", "", 1))
		},
		"more signed headers": func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "content-length;content-type;", "content-length;content-type;cookie;", 1))
		},
	} {
		r := clientRequest(t, "POST", target, body)
		r.Header.Set("X-Amz-User-Agent", "a")
		got := received(t, sign(t, r, body))
		if _, err := verifier().Verify(got, []byte(body)); err != nil {
			t.Fatalf("unchanged: %v", err)
		}
		change(got)
		_, err := verifier().Verify(got, []byte(body))
		wantFault(t, name, err, fault.SignatureInvalid, "")
	}
}

func TestJ01_WhatMustBeSigned(t *testing.T) {
	const body = "{}"
	for want, tt := range map[string]struct {
		signed []string
		extra  string
	}{
		"":                                   {[]string{"content-type", "host", "x-amz-date"}, "Accept"},
		"header host must be signed":         {[]string{"content-type", "x-amz-date"}, ""},
		"header x-amz-date must be signed":   {[]string{"content-type", "host"}, ""},
		"header content-type must be signed": {[]string{"host", "x-amz-date"}, ""},
		"header x-amz-target must be signed": {[]string{"content-type", "host", "x-amz-date"}, "X-Amz-Target"},
		"sorted":                             {[]string{"host", "content-type", "x-amz-date"}, ""},
		"without repeats":                    {[]string{"content-type", "host", "host", "x-amz-date"}, ""},
	} {
		m := byHand(body)
		m.signed = tt.signed
		r := clientRequest(t, "POST", tokenPath, body)
		if tt.extra != "" {
			r.Header.Set(tt.extra, "x")
		}
		_, err := verifier().Verify(received(t, m.sign(r)), []byte(body))
		if want == "" && err != nil {
			t.Errorf("minimal headers: %v", err)
		} else if want != "" {
			wantFault(t, want, err, fault.SignatureInvalid, want)
		}
	}
}

func TestJ01_NonCanonicalPathsAreRefused(t *testing.T) {
	for path, want := range map[string]string{
		"//identities/oauth2/token": "empty, . or .. segment", "/identities//oauth2": "empty, . or .. segment", "/identities/": "empty, . or .. segment",
		"/identities/./oauth2": "empty, . or .. segment", "/identities/../tabard": "empty, . or .. segment", "/.": "empty, . or .. segment",
		"/..": "empty, . or .. segment", "http://" + host + "/identities": "not a path",
	} {
		r := received(t, sign(t, clientRequest(t, "POST", tokenPath, "{}"), "{}"))
		r.RequestURI = path
		_, err := verifier().Verify(r, []byte("{}"))
		wantFault(t, path, err, fault.SignatureInvalid, want)
	}
}

func TestF01_J03_TheBodyIsBound(t *testing.T) {
	const body = `{"workloadName":"alpha"}`
	for name, tt := range map[string]struct{ header, got, want string }{
		"as signed":        {"", body, ""},
		"swapped":          {"", `{"workloadName":"bravo"}`, "signature does not match"},
		"emptied":          {"", "", "signature does not match"},
		"extended":         {"", body + " ", "signature does not match"},
		"hash as sent":     {hashOf(body), body, ""},
		"hash of another":  {hashOf("x"), body, "is not the hash of the body"},
		"swapped, hashed":  {hashOf(body), `{"workloadName":"bravo"}`, "is not the hash of the body"},
		"hash in capitals": {strings.ToUpper(hashOf(body)), body, "is not the hash of the body"},
		"unsigned":         {"UNSIGNED-PAYLOAD", body, "payload must be signed"},
		"streaming":        {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", body, "payload must be signed"},
		"trailer":          {"STREAMING-UNSIGNED-PAYLOAD-TRAILER", body, "payload must be signed"},
	} {
		r := clientRequest(t, "POST", tokenPath, body)
		m := byHand(body)
		if tt.header != "" {
			r.Header.Set("X-Amz-Content-Sha256", tt.header)
			m.signed = []string{"content-type", "host", "x-amz-content-sha256", "x-amz-date"}
			m.bodyHash = tt.header // as a client of an unsigned payload computes it
		}
		_, err := verifier().Verify(received(t, m.sign(r)), []byte(tt.got))
		if tt.want == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		} else if tt.want != "" {
			wantFault(t, name, err, fault.SignatureInvalid, tt.want)
		}
	}
}

func TestJ02_ADateFarOffIsRefused(t *testing.T) {
	for off, want := range map[time.Duration]string{
		-5 * time.Minute:             "",
		5 * time.Minute:              "",
		-5*time.Minute - time.Second: "6 minutes ahead of",
		5*time.Minute + time.Second:  "6 minutes behind",
		90 * time.Minute:             "90 minutes behind",
		-24 * time.Hour:              "1440 minutes ahead",
		20 * 365 * 24 * time.Hour:    "minutes behind",
	} {
		r := received(t, sign(t, clientRequest(t, "POST", tokenPath, "{}"), "{}"))
		_, err := newVerifier(&keys{secret: testSecret}, func() time.Time { return testNow().Add(off) }).Verify(r, []byte("{}"))
		if want == "" && err != nil {
			t.Errorf("clock %v on: %v", off, err)
		} else if want != "" {
			wantFault(t, off.String(), err, fault.SignatureInvalid, want)
		}
	}
}

func TestJ04_TheScopeMustBeOurs(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*manual)
		want   string
	}{
		"region":       {func(m *manual) { m.region = "eu-west-1" }, `region "eu-west-1" is not "us-east-1"`},
		"service":      {func(m *manual) { m.service = "s3" }, `service "s3" is not "bedrock-agentcore"`},
		"day":          {func(m *manual) { m.day = "20261122" }, "not the day"},
		"date":         {func(m *manual) { m.date = "2026-11-23T10:30:00Z" }, "X-Amz-Date"},
		"no date":      {func(m *manual) { m.date = "" }, "X-Amz-Date"},
		"empty key":    {func(m *manual) { m.key = "" }, "access key id"},
		"key too long": {func(m *manual) { m.key = strings.Repeat("K", 129) }, "access key id"},
		"slash":        {func(m *manual) { m.key = "a/b" }, "Credential is not of the form"},
	} {
		m := byHand("{}")
		tt.change(&m)
		_, err := verifier().Verify(received(t, m.sign(clientRequest(t, "POST", tokenPath, "{}"))), []byte("{}"))
		wantFault(t, name, err, fault.SignatureInvalid, tt.want)
	}
}

func TestJ05_ForeignSessionTokenIsRefused(t *testing.T) {
	m := byHand("{}")
	m.signed = append(m.signed, "x-amz-security-token")
	r := clientRequest(t, "POST", tokenPath, "{}")
	r.Header.Set("X-Amz-Security-Token", "IQoJb3JpZ2luX2VjE")
	_, err := verifier().Verify(received(t, m.sign(r)), []byte("{}"))
	wantFault(t, "session token", err, fault.SignatureUnknown, "session token")
}

func TestJ06_PresignedIsRefused(t *testing.T) {
	creds := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
	r := clientRequest(t, "GET", tagsPath, "")
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), creds, r, hashOf(""), "bedrock-agentcore", "us-east-1", testNow())
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifier().Verify(received(t, clientRequest(t, "GET", u.RequestURI(), "")), nil)
	wantFault(t, "presigned", err, fault.SignatureInvalid, "presigned")
	// Nor beside a good header.
	_, err = verifier().Verify(received(t, sign(t, clientRequest(t, "GET", tagsPath+"?%58-amz-Expires=60", ""), "")), nil)
	wantFault(t, "both", err, fault.SignatureInvalid, "presigned")
}

func TestF04_AuthorizationHeader(t *testing.T) {
	good := sign(t, clientRequest(t, "POST", tokenPath, "{}"), "{}").Header.Get("Authorization")
	for name, tt := range map[string]struct {
		headers []string
		code    fault.Code
		want    string
	}{
		"none":            {nil, fault.SignatureMissing, "no Authorization header"},
		"two":             {[]string{good, good}, fault.SignatureInvalid, "2 Authorization headers"},
		"bearer":          {[]string{"Bearer x"}, fault.SignatureInvalid, "AWS4-HMAC-SHA256"},
		"sigv4a":          {[]string{strings.Replace(good, "HMAC-SHA256", "ECDSA-P256-SHA256", 1)}, fault.SignatureInvalid, "AWS4-HMAC-SHA256"},
		"empty":           {[]string{""}, fault.SignatureInvalid, "AWS4-HMAC-SHA256"},
		"no signature":    {[]string{good[:strings.Index(good, ", Signature")]}, fault.SignatureInvalid, "Signature is not"},
		"short":           {[]string{good[:len(good)-2]}, fault.SignatureInvalid, "Signature is not"},
		"long":            {[]string{good + "00"}, fault.SignatureInvalid, "Signature is not"},
		"capitals":        {[]string{good[:len(good)-64] + strings.Repeat("A", 64)}, fault.SignatureInvalid, "Signature is not"},
		"signature twice": {[]string{good + ", Signature=" + strings.Repeat("0", 64)}, fault.SignatureInvalid, "twice"},
		"unknown part":    {[]string{good + ", Extra=1"}, fault.SignatureInvalid, "a part other"},
		"huge":            {[]string{good + strings.Repeat(",", 8192)}, fault.SignatureInvalid, "AWS4-HMAC-SHA256"},
		"no headers":      {[]string{strings.Replace(good, "SignedHeaders=", "SignedHeaders=;", 1)}, fault.SignatureInvalid, "SignedHeaders"},
	} {
		r := received(t, sign(t, clientRequest(t, "POST", tokenPath, "{}"), "{}"))
		delete(r.Header, "Authorization")
		for _, h := range tt.headers {
			r.Header.Add("Authorization", h)
		}
		_, err := verifier().Verify(r, []byte("{}"))
		wantFault(t, name, err, tt.code, tt.want)
	}
}

func TestUnknownKeysAndFailingStores(t *testing.T) {
	m := byHand("{}")
	m.key = "TABARDTESTKEY000002"
	_, err := verifier().Verify(received(t, m.sign(clientRequest(t, "POST", tokenPath, "{}"))), []byte("{}"))
	wantFault(t, "unknown key", err, fault.SignatureUnknown, "not known")
	m = byHand("{}")
	m.secret = "another"
	_, err = verifier().Verify(received(t, m.sign(clientRequest(t, "POST", tokenPath, "{}"))), []byte("{}"))
	wantFault(t, "wrong secret", err, fault.SignatureInvalid, "signature does not match")
	down := &keys{err: fault.New(fault.Unavailable, "the store does not answer")}
	_, err = newVerifier(down, testNow).Verify(received(t, byHand("{}").sign(clientRequest(t, "POST", tokenPath, "{}"))), []byte("{}"))
	wantFault(t, "store down", err, fault.Unavailable, "store")
}

func TestSigningKeysAreCachedForAVersionAndFiveMinutes(t *testing.T) {
	k := &keys{secret: testSecret, version: 1}
	now := testNow().Add(-5 * time.Minute)
	v := newVerifier(k, func() time.Time { return now })
	verify := func() error {
		_, err := v.Verify(received(t, sign(t, clientRequest(t, "POST", tokenPath, "{}"), "{}")), []byte("{}"))
		return err
	}
	for range 3 {
		if err := verify(); err != nil {
			t.Fatal(err)
		}
	}
	if k.opened != 1 {
		t.Errorf("the secret was opened %d times for three requests, want once", k.opened)
	}
	now = now.Add(5 * time.Minute)
	if err := verify(); err != nil || k.opened != 2 {
		t.Errorf("after 5 minutes: %v, opened %d times, want 2", err, k.opened)
	}
	k.secret, k.version = "rotated", 2
	wantFault(t, "rotated secret", verify(), fault.SignatureInvalid, "signature does not match")
	k.err = fault.New(fault.SignatureUnknown, "disabled")
	wantFault(t, "disabled key", verify(), fault.SignatureUnknown, "disabled")
	k.err = nil
	now = now.Add(4 * time.Minute)
	_ = verify()
	for i := range 5 {
		m := byHand("{}")
		m.key = fmt.Sprint("UNKNOWN", i)
		if _, err := v.Verify(received(t, m.sign(clientRequest(t, "POST", tokenPath, "{}"))), []byte("{}")); !errors.Is(err, fault.SignatureUnknown) {
			t.Errorf("unknown key: got %v", err)
		}
	}
	if got := awsapi.CachedKeys(v); got != 1 {
		t.Errorf("the cache has %d keys, want 1: unknown keys are not kept", got)
	}
}

// However many access keys an account uses, it has a bounded number of signing keys in memory, and another account's
// stay.
func TestM12_SigningKeysOfAnotherAccountStay(t *testing.T) {
	const honest, greedy access.Account = "222222222222", "111111111111"
	opened := map[access.Account]int{}
	v := awsapi.NewVerifier(awsapi.VerifierConfig{Region: "us-east-1", Now: testNow, Find: func(_ context.Context, id string) (identity.Credential, error) {
		c := access.Caller{Account: greedy, Name: "agent", AccessKey: id}
		if id == testKey {
			c.Account = honest
		}
		open := func(context.Context) (secret.Text, error) { opened[c.Account]++; return secret.New(testSecret), nil }
		return identity.Credential{Caller: c, Version: 1, Secret: open}, nil
	}})
	verify := func(key string) {
		t.Helper()
		m := byHand("{}")
		m.key = key
		if _, err := v.Verify(received(t, m.sign(clientRequest(t, "POST", tokenPath, "{}"))), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	verify(testKey)
	const more = 100
	for i := range awsapi.MaxSigningKeys + more {
		verify(fmt.Sprintf("TABARDGREEDY%08d", i))
	}
	if got := awsapi.CachedKeys(v); got != awsapi.MaxSigningKeys+1 {
		t.Errorf("%d signing keys are in memory, want %d of one account and 1 of the other", got, awsapi.MaxSigningKeys)
	}
	verify(testKey)
	if opened[honest] != 1 {
		t.Errorf("the other account's secret was opened %d times, want once", opened[honest])
	}
}

func TestQueriesThatCannotBeReadAreRefused(t *testing.T) {
	for _, query := range []string{"tagKeys=%zz", "tagKeys=a;tagKeys=b", "tagKeys=%"} {
		r := received(t, sign(t, clientRequest(t, "DELETE", tagsPath+"?tagKeys=a", ""), ""))
		r.URL.RawQuery = query
		_, err := verifier().Verify(r, nil)
		wantFault(t, query, err, fault.SignatureInvalid, "percent-encoded")
	}
}
